#include "sim/nfs.h"

#include <algorithm>
#include <cerrno>

#include "io/assert.h"
#include "sim/rng.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kFilesystemDigest = 0x5eedf11e;

std::byte content_byte(SourceInode inode, std::size_t edit, std::uint64_t offset) {
  const std::uint64_t word = mix64(mix64(static_cast<std::uint64_t>(inode) << 32 | edit) ^
                                   (offset / sizeof(std::uint64_t)));
  return static_cast<std::byte>(word >> (offset % sizeof(std::uint64_t) * 8));
}

}  // namespace

bool SimNfs::add(const std::string& path, std::uint64_t size_bytes, Nanos now) {
  if (exists(path)) return false;
  create(path, size_bytes, now);
  return true;
}

void SimNfs::put(const std::string& path, std::span<const std::byte> bytes, Nanos now) {
  if (!add(path, bytes.size(), now)) append(*find(path), {}, bytes.size(), now);
  SourceRevision& revision = find(path)->history.back();
  revision.edited = {0, bytes.size()};
  revision.literal.assign(bytes.begin(), bytes.end());
}

bool SimNfs::write(const std::string& path, ByteRange range, Nanos now) {
  File* file = find(path);
  if (file == nullptr) return false;
  const std::uint64_t size = file->history.back().version.size;
  NCFS_ASSERT(range.offset <= size);
  append(*file, {.version = {}, .edited = range, .literal = {}}, std::max(size, range.end()), now);
  return true;
}

bool SimNfs::write_and_restore_mtime(const std::string& path, ByteRange range, Nanos now) {
  File* file = find(path);
  if (file == nullptr || file->own_change_ns == timestamp(now)) return false;
  const std::int64_t mtime_ns = file->history.back().version.mtime_ns;
  if (!write(path, range, now)) return false;
  file->history.back().version.mtime_ns = mtime_ns;
  return true;
}

bool SimNfs::change_mode(const std::string& path, Nanos now) {
  File* file = find(path);
  if (file == nullptr) return false;
  const SourceVersion before = file->history.back().version;
  append(*file, {}, before.size, now);
  file->history.back().version.mtime_ns = before.mtime_ns;
  return true;
}

bool SimNfs::change_mode_ourselves(const std::string& path, Nanos now) {
  if (!change_mode(path, now)) return false;
  find(path)->own_change_ns = timestamp(now);
  return true;
}

bool SimNfs::rename_ourselves(const std::string& from, const std::string& to, Nanos now) {
  if (from == to || !change_mode_ourselves(from, now)) return false;
  remove(to, true);
  auto name = paths_.extract(from);
  name.key() = to;
  paths_.insert(std::move(name));
  return true;
}

bool SimNfs::truncate(const std::string& path, std::uint64_t size_bytes, Nanos now) {
  File* file = find(path);
  if (file == nullptr) return false;
  const std::uint64_t before = file->history.back().version.size;
  SourceRevision revision;
  if (size_bytes > before) {
    revision.edited = {before, size_bytes - before};
    revision.is_zeros = true;
  }
  append(*file, revision, size_bytes, now);
  return true;
}

bool SimNfs::replace(const std::string& path, std::uint64_t size_bytes, bool keeps_old, Nanos now) {
  if (!remove(path, keeps_old)) return false;
  create(path, size_bytes, now);
  return true;
}

bool SimNfs::remove(const std::string& path, bool keeps_old) {
  File* file = find(path);
  if (file == nullptr) return false;
  file->is_stale = !keeps_old;
  paths_.erase(path);
  return true;
}

std::int64_t SimNfs::open(const std::string& path, SourceState& state, Nanos now) {
  if (path.empty()) return -EINVAL;  // the root is not a file
  const auto found = paths_.find(path);
  if (found == paths_.end()) return -ENOENT;
  const FileHandle handle{next_handle_++};
  handles_.emplace(handle, found->second);
  state = state_of(found->second, now);
  return static_cast<std::int64_t>(handle);
}

std::int64_t SimNfs::stat(FileHandle handle, SourceState& state, Nanos now) const {
  const auto found = handles_.find(handle);
  if (found == handles_.end()) return -EBADF;
  if (is_stale(handle)) return -ESTALE;
  state = state_of(found->second, now);
  return 0;
}

std::int64_t SimNfs::read(FileHandle handle, std::size_t revision, ByteRange range,
                          std::span<std::byte> bytes) const {
  const auto found = handles_.find(handle);
  if (found == handles_.end()) return -EBADF;
  if (is_stale(handle)) return -ESTALE;
  NCFS_ASSERT(range.length <= bytes.size());
  const std::uint64_t size = history(found->second)[revision].version.size;
  if (range.offset >= size) return 0;
  const std::uint64_t length = std::min(range.length, size - range.offset);
  content(found->second, revision, range.offset, bytes.first(length));
  return static_cast<std::int64_t>(length);
}

std::int64_t SimNfs::close(FileHandle handle) {
  lost_.erase(handle);
  return handles_.erase(handle) == 1 ? 0 : -EBADF;
}

void SimNfs::reboot() {
  for (const auto& [handle, inode] : handles_) lost_.insert(handle);
}

bool SimNfs::is_stale(FileHandle handle) const {
  return lost_.contains(handle) || files_.at(inode_of(handle)).is_stale;
}

SourceInode SimNfs::inode_of(FileHandle handle) const {
  const auto found = handles_.find(handle);
  NCFS_ASSERT(found != handles_.end());
  return found->second;
}

SourceInode SimNfs::inode_at(const std::string& path) const {
  const auto found = paths_.find(path);
  NCFS_ASSERT(found != paths_.end());
  return found->second;
}

FileId SimNfs::file_id(SourceInode inode) const {
  return {kFilesystemDigest, static_cast<std::uint64_t>(inode)};
}

const std::vector<SourceRevision>* SimNfs::history(const FileId& file) const {
  if (file.filesystem != kFilesystemDigest) return nullptr;
  const auto found = files_.find(SourceInode{file.inode});
  return found == files_.end() ? nullptr : &found->second.history;
}

const std::vector<SourceRevision>& SimNfs::history(SourceInode inode) const {
  const auto found = files_.find(inode);
  NCFS_ASSERT(found != files_.end());
  return found->second.history;
}

void SimNfs::content(SourceInode inode, std::size_t revision, std::uint64_t offset,
                     std::span<std::byte> bytes) const {
  const std::vector<SourceRevision>& revisions = history(inode);
  const std::uint64_t end = offset + bytes.size();
  NCFS_ASSERT(end <= revisions[revision].version.size);
  // What lies beneath the newest edit that covers everything cannot be seen.
  std::size_t first = revision;
  while (first > 0 &&
         (revisions[first].edited.offset > offset || revisions[first].edited.end() < end)) {
    --first;
  }
  for (std::size_t edit = first; edit <= revision; ++edit) {
    const ByteRange& edited = revisions[edit].edited;
    const std::uint64_t begin = std::max(edited.offset, offset);
    const std::vector<std::byte>& literal = revisions[edit].literal;
    for (std::uint64_t at = begin; at < std::min(edited.end(), end); ++at) {
      bytes[at - offset] = revisions[edit].is_zeros ? std::byte{0}
                           : literal.empty()        ? content_byte(inode, edit, at)
                                                    : literal[at - edited.offset];
    }
  }
}

SimNfs::File* SimNfs::find(const std::string& path) {
  const auto found = paths_.find(path);
  return found == paths_.end() ? nullptr : &files_.at(found->second);
}

void SimNfs::append(File& file, SourceRevision revision, std::uint64_t size_bytes, Nanos now) {
  revision.version = {size_bytes, timestamp(now), timestamp(now)};
  file.history.push_back(revision);
  ++changes_;
}

void SimNfs::create(const std::string& path, std::uint64_t size_bytes, Nanos now) {
  const SourceInode inode{next_inode_++};
  append(files_[inode], {.version = {}, .edited = {0, size_bytes}, .literal = {}}, size_bytes, now);
  paths_.emplace(path, inode);
}

std::int64_t SimNfs::timestamp(Nanos now) const {
  const std::int64_t wall_ns = wall_clock(now) + options_.lead_ns;
  return wall_ns - wall_ns % options_.tick_ns;
}

SourceState SimNfs::state_of(SourceInode inode, Nanos now) const {
  const SourceVersion& version = history(inode).back().version;
  return {.file = file_id(inode),
          .version = version,
          .age_ns = wall_clock(now) - std::max(version.mtime_ns, version.ctime_ns)};
}

}  // namespace ncfs
