#include "sim/disk.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace ncfs {
namespace {

constexpr std::byte kGarbage{0xa5};

struct SplitName {
  std::string directory;
  std::string name;
};

SplitName split(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

std::uint64_t round_up(std::uint64_t bytes) {
  return (bytes + kAllocationBytes - 1) / kAllocationBytes * kAllocationBytes;
}

}  // namespace

std::int64_t SimDisk::create(const std::string& name, std::uint64_t length_bytes,
                             std::int64_t wall_ns) {
  const SplitName split_name = split(name);
  if (!existing_.contains(split_name.directory)) return -ENOENT;
  Directory& directory = directories_[split_name.directory];
  if (directory.cached.contains(split_name.name)) return -EEXIST;
  if (!has_room(length_bytes)) return -ENOSPC;
  const InodeId inode = new_inode(wall_ns);
  change_directory(directory, {.removed = {}, .added = split_name.name, .inode = inode});
  add_data_operation(get(inode), {.sets_size = true, .offset = length_bytes, .bytes = {}});
  return static_cast<std::int64_t>(new_handle(inode));
}

std::int64_t SimDisk::open(const std::string& name) {
  const std::optional<InodeId> inode = inode_named(name);
  if (!inode) return -ENOENT;
  return static_cast<std::int64_t>(new_handle(*inode));
}

std::int64_t SimDisk::close(FileHandle handle) {
  const auto found = handles_.find(handle);
  if (found == handles_.end()) return -EBADF;
  --get(found->second).handles;
  handles_.erase(found);
  forget_unreachable();
  return 0;
}

std::int64_t SimDisk::read(FileHandle handle, std::uint64_t offset, std::span<std::byte> bytes,
                           Rot rot) const {
  const std::optional<InodeId> inode = inode_of(handle);
  if (!inode) return -EBADF;
  const Inode& file = get(*inode);
  const std::vector<std::byte>& content = file.cached;
  if (offset >= content.size()) return 0;
  const std::uint64_t length = std::min<std::uint64_t>(bytes.size(), content.size() - offset);
  std::copy_n(content.data() + offset, length, bytes.data());
  if (rot == Rot::seen) {
    for (auto bit = file.rot.lower_bound(offset * 8);
         bit != file.rot.end() && *bit < (offset + length) * 8; ++bit) {
      bytes[*bit / 8 - offset] ^= std::byte{1} << static_cast<int>(*bit % 8);
    }
  }
  return static_cast<std::int64_t>(length);
}

std::int64_t SimDisk::write(InodeId inode, std::uint64_t offset, std::span<const std::byte> bytes) {
  Inode& file = get(inode);
  if (offset + bytes.size() > file.cached.size() &&
      !has_room(offset + bytes.size() - file.cached.size())) {
    return -ENOSPC;
  }
  add_data_operation(file, {.offset = offset, .bytes = {bytes.begin(), bytes.end()}});
  return static_cast<std::int64_t>(bytes.size());
}

std::int64_t SimDisk::replace_content(const std::string& name, std::span<const std::byte> bytes,
                                      std::int64_t wall_ns) {
  const SplitName split_name = split(name);
  if (!existing_.contains(split_name.directory)) return -ENOENT;
  std::optional<InodeId> inode = inode_named(name);
  if (!has_room(bytes.size())) return -ENOSPC;
  if (!inode) {
    inode = new_inode(wall_ns);
    change_directory(directories_[split_name.directory],
                     {.removed = {}, .added = split_name.name, .inode = *inode});
  }
  Inode& file = get(*inode);
  file.mtime_ns = wall_ns;
  if (!file.cached.empty()) add_data_operation(file, {.sets_size = true, .bytes = {}});
  add_data_operation(file, {.bytes = {bytes.begin(), bytes.end()}});
  return 0;
}

std::int64_t SimDisk::load(const std::string& name, std::vector<std::byte>& bytes) const {
  const std::optional<InodeId> inode = inode_named(name);
  if (!inode) return -ENOENT;
  const std::vector<std::byte>& content = get(*inode).cached;
  if (content.size() > kCacheLoadMax) return -EFBIG;
  bytes = content;
  return 0;
}

std::int64_t SimDisk::rename(const std::string& from, const std::string& to) {
  if (from == to) return inode_named(from) ? 0 : -ENOENT;
  const SplitName old_name = split(from);
  const SplitName new_name = split(to);
  const std::optional<InodeId> inode = inode_named(from);
  if (!inode || !existing_.contains(new_name.directory)) return -ENOENT;
  if (stuck_.contains(*inode)) return -EPERM;
  if (old_name.directory == new_name.directory) {
    change_directory(directories_[old_name.directory],
                     {.removed = old_name.name, .added = new_name.name, .inode = *inode});
  } else {
    change_directory(directories_[new_name.directory],
                     {.removed = {}, .added = new_name.name, .inode = *inode});
    change_directory(directories_[old_name.directory],
                     {.removed = old_name.name, .added = {}, .inode = *inode});
  }
  forget_unreachable();
  return 0;
}

std::int64_t SimDisk::unlink(const std::string& name, FileHandle unless_others_have_it_open) {
  const std::optional<InodeId> inode = inode_named(name);
  if (!inode) return -ENOENT;
  if (stuck_.contains(*inode)) return -EPERM;
  if (unless_others_have_it_open != FileHandle::none) {
    if (inode_of(unless_others_have_it_open) != inode) return -EINVAL;
    const Inode& file = get(*inode);
    if (file.handles + file.holds > 1) return -EBUSY;
  }
  const SplitName split_name = split(name);
  change_directory(directories_[split_name.directory],
                   {.removed = split_name.name, .added = {}, .inode = *inode});
  forget_unreachable();
  return 0;
}

std::int64_t SimDisk::touch(const std::string& name, std::int64_t wall_ns) {
  const std::optional<InodeId> inode = inode_named(name);
  if (!inode) return -ENOENT;
  get(*inode).mtime_ns = wall_ns;
  return 0;
}

std::int64_t SimDisk::list(const std::string& directory, std::vector<CacheEntry>& entries) const {
  entries.clear();
  if (!existing_.contains(directory)) return -ENOENT;
  const auto found = directories_.find(directory);
  if (found == directories_.end()) return 0;
  for (const auto& [name, inode] : found->second.cached) {
    const Inode& file = get(inode);
    entries.push_back({name, file.cached.size(), allocated(file), file.mtime_ns});
  }
  return 0;
}

void SimDisk::sync_file(InodeId inode, SyncPoint point) {
  const auto found = inodes_.find(inode);
  if (found == inodes_.end()) return;
  Inode& file = found->second;
  if (is_lying_) {
    file.lied_until = std::max(file.lied_until, point);
    return;
  }
  const auto first_later =
      std::find_if(file.pending.begin(), file.pending.end(),
                   [point](const DataOperation& operation) { return operation.sequence >= point; });
  for (auto operation = file.pending.begin(); operation != first_later; ++operation) {
    apply(file.durable, *operation);
  }
  file.pending.erase(file.pending.begin(), first_later);
  touch_content(file);
}

void SimDisk::fail_file_sync(InodeId inode) {
  const auto found = inodes_.find(inode);
  if (found == inodes_.end()) return;
  found->second.has_lost_lie = is_lied_about(inode);
  found->second.pending.clear();
  touch_content(found->second);
}

std::int64_t SimDisk::sync_directory(const std::string& directory, SyncPoint point) {
  if (!existing_.contains(directory)) return -ENOENT;
  Directory& found = directories_[directory];
  if (is_lying_) {
    found.lied_until = std::max(found.lied_until, point);
    return 0;
  }
  const auto first_later = std::find_if(
      found.pending.begin(), found.pending.end(),
      [point](const DirectoryOperation& operation) { return operation.sequence >= point; });
  for (auto operation = found.pending.begin(); operation != first_later; ++operation) {
    apply(found.durable, *operation);
  }
  found.pending.erase(found.pending.begin(), first_later);
  ++changes_;
  forget_unreachable();
  return 0;
}

void SimDisk::kill() {
  for (const auto& [handle, inode] : handles_) --get(inode).handles;
  handles_.clear();
  forget_unreachable();
}

void SimDisk::lose_names(Survivors& survivors) {
  ++changes_;
  for (auto& [name, directory] : directories_) {
    bool is_lost = false;
    for (const DirectoryOperation& operation : directory.pending) {
      if (is_lost && options_.are_directories_ordered) break;
      is_lost = survivors.choose(2) == 0;
      if (!is_lost) apply(directory.durable, operation);
    }
    directory.pending.clear();
    directory.cached = directory.durable;
  }
}

void SimDisk::lose_power(Survivors& survivors) {
  handles_.clear();
  for (auto& [id, inode] : inodes_) inode.names = inode.handles = inode.holds = 0;
  lose_names(survivors);
  for (const auto& [name, directory] : directories_) {
    for (const auto& [entry, inode] : directory.cached) ++get(inode).names;
  }
  // First, so that nothing is chosen for files that are lost anyway.
  forget_unreachable();
  for (auto& [id, inode] : inodes_) {
    const bool was_lied_about = is_lied_about(id);
    for (const DataOperation& operation : inode.pending) {
      apply_as_chosen(inode.durable, operation, survivors);
    }
    if (was_lied_about && inode.durable != inode.cached) inode.is_ruined = true;
    inode.pending.clear();
    inode.cached = inode.durable;
    touch_content(inode);
  }
}

bool SimDisk::is_lied_about(InodeId inode) const {
  const Inode& file = get(inode);
  const bool is_pending = !file.pending.empty() && file.pending.front().sequence < file.lied_until;
  return is_pending || file.has_lost_lie;
}

bool SimDisk::is_lied_about(const std::string& name) const {
  const auto found = directories_.find(split(name).directory);
  return found != directories_.end() && !found->second.pending.empty() &&
         found->second.pending.front().sequence < found->second.lied_until;
}

void SimDisk::flip_bit(InodeId inode, std::uint64_t bit) {
  Inode& file = get(inode);
  for (std::vector<std::byte>* content : {&file.cached, &file.durable}) {
    if (!content->empty()) {
      (*content)[bit / 8 % content->size()] ^= std::byte{1} << static_cast<int>(bit % 8);
    }
  }
  touch_content(file);
}

void SimDisk::rot_bit(InodeId inode, std::uint64_t bit) {
  Inode& file = get(inode);
  if (file.cached.empty()) return;
  file.rot.insert(bit % (file.cached.size() * 8));
}

std::set<std::uint64_t> SimDisk::rotten_bytes(InodeId inode) const {
  std::set<std::uint64_t> offsets;
  for (const std::uint64_t bit : get(inode).rot) offsets.insert(bit / 8);
  return offsets;
}

bool SimDisk::is_rotten(InodeId inode, std::uint64_t offset, std::uint64_t length) const {
  const auto first = get(inode).rot.lower_bound(offset * 8);
  return first != get(inode).rot.end() && *first < (offset + length) * 8;
}

void SimDisk::hold(InodeId inode) {
  ++get(inode).holds;
}

void SimDisk::release_hold(InodeId inode) {
  // A power loss ends all processes and with them what they held.
  const auto found = inodes_.find(inode);
  if (found == inodes_.end() || found->second.holds == 0) return;
  --found->second.holds;
  forget_unreachable();
}

std::uint64_t SimDisk::allocated_bytes() const {
  std::uint64_t total = 0;
  for (const auto& [id, inode] : inodes_) {
    if (is_live(inode)) total += allocated(inode);
  }
  return total;
}

FileSystemSpace SimDisk::space() const {
  const std::uint64_t capacity = std::min(capacity_, kDiskBytes);
  return {kDiskBytes, capacity - std::min(capacity, allocated_bytes())};
}

std::uint64_t SimDisk::invisible_bytes() const {
  std::uint64_t total = 0;
  for (const auto& [id, inode] : inodes_) {
    if (inode.names + inode.handles == 0 && inode.holds > 0) total += allocated(inode);
  }
  return total;
}

std::optional<InodeId> SimDisk::inode_of(FileHandle handle) const {
  const auto found = handles_.find(handle);
  if (found == handles_.end()) return std::nullopt;
  return found->second;
}

std::optional<InodeId> SimDisk::inode_named(const std::string& name) const {
  const SplitName split_name = split(name);
  const auto directory = directories_.find(split_name.directory);
  if (directory == directories_.end()) return std::nullopt;
  const auto entry = directory->second.cached.find(split_name.name);
  if (entry == directory->second.cached.end()) return std::nullopt;
  return entry->second;
}

std::size_t SimDisk::names_count() const {
  std::size_t total = 0;
  for (const auto& [name, directory] : directories_) total += directory.cached.size();
  return total;
}

bool SimDisk::exists(InodeId inode) const {
  return inodes_.contains(inode);
}

SimDisk::FileView SimDisk::view(InodeId inode) const {
  const Inode& file = get(inode);
  return {file.cached, file.durable, file.revision, !file.pending.empty()};
}

SimDisk::Names SimDisk::names_cached() const {
  Names names;
  for (const auto& [name, directory] : directories_) {
    for (const auto& [entry, inode] : directory.cached) names.emplace(name + '/' + entry, inode);
  }
  return names;
}

SimDisk::Names SimDisk::names_durable() const {
  Names names;
  for (const auto& [name, directory] : directories_) {
    for (const auto& [entry, inode] : directory.durable) names.emplace(name + '/' + entry, inode);
  }
  return names;
}

std::uint64_t SimDisk::allocated(const Inode& inode) {
  return round_up(inode.cached.size());
}

bool SimDisk::is_live(const Inode& inode) {
  return inode.names + inode.handles + inode.holds > 0;
}

bool SimDisk::has_room(std::uint64_t bytes) const {
  return bytes == 0 || allocated_bytes() + round_up(bytes) <= capacity_;
}

void SimDisk::apply(std::vector<std::byte>& content, const DataOperation& operation) {
  if (operation.sets_size) {
    content.resize(operation.offset);
    return;
  }
  const std::uint64_t end = operation.offset + operation.bytes.size();
  if (content.size() < end) content.resize(end);
  std::copy(operation.bytes.begin(), operation.bytes.end(), content.data() + operation.offset);
}

void SimDisk::apply(Names& names, const DirectoryOperation& operation) {
  if (!operation.removed.empty()) names.erase(operation.removed);
  if (!operation.added.empty()) names[operation.added] = operation.inode;
}

// The outcomes of a write: lost; made; for one of several sectors a prefix, the rest old or
// garbage, or (Options) a suffix, the rest old; for one of a single sector the file's new length
// with zeros in it, as delayed allocation leaves it.
void SimDisk::apply_as_chosen(std::vector<std::byte>& content, const DataOperation& operation,
                              Survivors& survivors) const {
  if (operation.sets_size) {
    if (survivors.choose(2) == 1) apply(content, operation);
    return;
  }
  const std::uint64_t sector = options_.has_tiny_sectors ? kTinySectorBytes : kSectorBytes;
  const std::uint64_t sectors = (operation.bytes.size() + sector - 1) / sector;
  const bool can_tear = sectors >= 2;
  const std::uint64_t choice = survivors.choose(can_tear ? (options_.can_keep_suffix ? 5 : 4) : 3);
  if (choice == 0) return;
  DataOperation torn = operation;
  if (choice >= 2 && can_tear) {
    const std::uint64_t kept = survivors.cut(sectors) * sector;
    if (choice == 2) torn.bytes.resize(kept);
    if (choice == 3) {
      std::fill(torn.bytes.begin() + static_cast<std::ptrdiff_t>(kept), torn.bytes.end(), kGarbage);
    }
    if (choice == 4) {
      torn.bytes.erase(torn.bytes.begin(), torn.bytes.begin() + static_cast<std::ptrdiff_t>(kept));
      torn.offset += kept;
    }
  } else if (choice == 2) {
    const std::uint64_t end = operation.offset + operation.bytes.size();
    if (content.size() < end) content.resize(end);
    return;
  }
  apply(content, torn);
}

void SimDisk::add_data_operation(Inode& inode, DataOperation operation) {
  operation.sequence = next_sequence_++;
  const std::uint64_t end = operation.offset + operation.bytes.size();
  inode.rot.erase(inode.rot.lower_bound(operation.offset * 8), inode.rot.lower_bound(end * 8));
  apply(inode.cached, operation);
  inode.pending.push_back(std::move(operation));
  touch_content(inode);
}

void SimDisk::change_directory(Directory& directory, DirectoryOperation operation) {
  ++changes_;
  operation.sequence = next_sequence_++;
  for (const std::string& gone : {operation.removed, operation.added}) {
    const auto found = directory.cached.find(gone);
    if (found != directory.cached.end()) --get(found->second).names;
  }
  apply(directory.cached, operation);
  if (!operation.added.empty()) ++get(operation.inode).names;
  directory.pending.push_back(std::move(operation));
}

InodeId SimDisk::new_inode(std::int64_t wall_ns) {
  const InodeId id{next_inode_++};
  inodes_[id].mtime_ns = wall_ns;
  return id;
}

FileHandle SimDisk::new_handle(InodeId inode) {
  const FileHandle handle{next_handle_++};
  handles_.emplace(handle, inode);
  ++get(inode).handles;
  return handle;
}

// A file is kept while any view can still reach it: a lost unlink brings a name back.
void SimDisk::forget_unreachable() {
  std::map<InodeId, bool> is_reachable;
  for (const auto& [name, directory] : directories_) {
    for (const auto& [entry, inode] : directory.durable) is_reachable[inode] = true;
    for (const DirectoryOperation& operation : directory.pending) {
      is_reachable[operation.inode] = true;
    }
  }
  std::erase_if(inodes_, [&](const auto& entry) {
    return !is_live(entry.second) && !is_reachable.contains(entry.first);
  });
}

void SimDisk::touch_content(Inode& inode) {
  ++inode.revision;
  ++changes_;
}

SimDisk::Inode& SimDisk::get(InodeId inode) {
  const auto found = inodes_.find(inode);
  NCFS_ASSERT(found != inodes_.end());
  return found->second;
}

const SimDisk::Inode& SimDisk::get(InodeId inode) const {
  const auto found = inodes_.find(inode);
  NCFS_ASSERT(found != inodes_.end());
  return found->second;
}

}  // namespace ncfs
