// The laws of io.h that bind the caller, checked when a request is submitted.
#include <algorithm>
#include <string>

#include "engine/format.h"
#include "sim/sim_io.h"

namespace ncfs {

void SimIo::report(const char* name, const Request& request, const char* what) {
  if (violation_) return;
  violation_ = {
      name, std::string(to_string(request.op)) + " #" +
                std::to_string(static_cast<std::uint64_t>(request.ticket)) + " of " +
                (request.name.empty() ? "handle " + std::to_string(static_cast<int>(request.file))
                                      : request.name) +
                " [" + std::to_string(request.range.offset) + ", +" +
                std::to_string(request.range.length) + "): " + what};
}

void SimIo::check_common(const Request& request) {
  if (deadline_of(request) <= now_) report("IoLaws", request, "has no deadline in the future");
  for (const Pending& other : pending_) {
    if (other.request.ticket == request.ticket) report("IoLaws", request, "ticket is in use");
  }
  switch (request.op) {
    case Op::source_stat:
      if (!nfs_.is_open(request.file)) report("S5 Pins", request, "the handle is closed");
      break;
    case Op::source_read:
      if (!nfs_.is_open(request.file)) report("S5 Pins", request, "the handle is closed");
      check_buffer(request);
      check_source_read(request);
      break;
    case Op::cache_write:
      if (!disk_.inode_of(request.file)) report("S5 Pins", request, "the handle is closed");
      check_buffer(request);
      check_cache_write(request);
      break;
    case Op::cache_verify:
    case Op::cache_read:
      check_checked_read(request);
      break;
    case Op::cache_sync:
      if (!disk_.inode_of(request.file)) {
        report("S5 Pins", request, "the handle is closed");
      } else if (books_[*disk_.inode_of(request.file)].has_failed_sync) {
        report("S9 SyncOnce", request, "a sync of this file has failed before");
      }
      break;
    case Op::cache_create:
      check_create(request);
      break;
    case Op::cache_rename:
      check_rename(request);
      break;
    case Op::source_close:
    case Op::cache_close:
      check_close(request);
      break;
    default:
      break;
  }
}

void SimIo::check_buffer(const Request& request) {
  if (static_cast<std::size_t>(request.buffer) >= buffers_.size()) {
    report("IoLaws", request, "there is no such buffer");
    return;
  }
  if (request.range.empty()) report("IoLaws", request, "the range is empty");
  if (request.buffer_offset + request.range.length > config_.block_size_bytes) {
    report("IoLaws", request, "the range is larger than a buffer");
  }
  for (const Pending& other : pending_) {
    const bool has_buffer = other.request.op == Op::source_read ||
                            other.request.op == Op::cache_write ||
                            other.request.op == Op::cache_read;
    if (has_buffer && other.request.buffer == request.buffer) {
      report("IoLaws", request, "the buffer is in use by another request");
    }
  }
}

ByteRange SimIo::block_of(FileHandle file, ByteRange range) const {
  const auto found = source_handles_.find(file);
  if (found == source_handles_.end()) return {};
  const std::uint64_t size = found->second.version.size;
  const std::uint64_t begin = range.offset - range.offset % config_.block_size_bytes;
  if (begin >= size) return {};
  return {begin, std::min(config_.block_size_bytes, size - begin)};
}

void SimIo::check_source_read(const Request& request) {
  if (lent_.contains(request.buffer)) {
    report("S5 Pins", request, "a reader still looks at the buffer");
  }
  std::uint32_t reads = 1;
  bool is_fetched = false;
  // Within the racy window an equal version may be another content: nothing is shared then, nor by
  // those who find such a fetch under way.
  const auto racy_window = static_cast<std::int64_t>(config_.racy_window);
  const SourceState& mine = source_handles_[request.file];
  bool is_racy = mine.age_ns < racy_window;
  const ByteRange block = block_of(request.file, request.range);
  for (const Pending& other : pending_) {
    if (other.request.op != Op::source_read) continue;
    ++reads;
    const SourceState& theirs = source_handles_[other.request.file];
    if (other.request.range != block || mine.file != theirs.file) continue;
    if (reads_alone_.contains(other.request.file)) continue;
    is_fetched = is_fetched || mine.version == theirs.version;
    is_racy = is_racy || theirs.age_ns < racy_window;
  }
  const bool is_exempt =
      is_racy || has_failed(request.file) || reads_alone_.contains(request.file);
  if (request.range == block && is_fetched && !is_exempt) {
    report("S6 OneFetch", request, "this block is being fetched already");
  }
  if (reads > config_.source_reads_max) report("S6 OneFetch", request, "too many source reads");
}

void SimIo::note_disowned(const FileId& file) {
  for (const auto& [handle, state] : source_handles_) {
    if (state.file == file) reads_alone_.insert(handle);
  }
}

// Readers who joined a fetch that failed, perhaps for want of permission, try again one by one.
bool SimIo::has_failed(FileHandle source) const {
  if (!nfs_.is_open(source)) return false;
  return std::any_of(failures_.begin(), failures_.end(), [&](const SourceFailure& failure) {
    return failure.error != 0 && failure.inode == nfs_.inode_of(source);
  });
}

void SimIo::check_cache_write(const Request& request) {
  std::uint32_t writes = 1;
  for (const Pending& other : pending_) {
    if (other.request.op != Op::cache_write) continue;
    ++writes;
    const ByteRange& theirs = other.request.range;
    if (other.inode == disk_.inode_of(request.file) && theirs.offset < request.range.end() &&
        request.range.offset < theirs.end()) {
      report("IoLaws", request, "overlaps a write in flight");
    }
  }
  if (writes > config_.cache_writes_max) report("S6 OneFetch", request, "too many cache writes");
}

void SimIo::check_checked_read(const Request& request) {
  const std::optional<InodeId> inode = disk_.inode_of(request.file);
  if (!inode) report("S5 Pins", request, "the handle is closed");
  std::uint32_t reads = 1;
  for (const Pending& other : pending_) {
    if (other.request.op != request.op) continue;
    ++reads;
    if (request.op == Op::cache_verify && other.inode == inode) {
      report("S6 OneFetch", request, "two blocks of an object are verified at a time");
    }
  }
  if (request.op == Op::cache_verify) return;
  check_buffer(request);
  if (lent_.contains(request.buffer)) {
    report("S5 Pins", request, "a reader still looks at the buffer");
  }
  if (reads > config_.cache_writes_max) report("S6 OneFetch", request, "too many cache reads");
}

void SimIo::check_close(const Request& request) {
  const bool is_open = request.op == Op::source_close ? nfs_.is_open(request.file)
                                                      : disk_.inode_of(request.file).has_value();
  if (!is_open) report("S5 Pins", request, "the handle is closed already");
  for (const Pending& other : pending_) {
    if (other.request.file == request.file) report("S5 Pins", request, "the handle is in use");
  }
}

// The floor of free space. Who else has taken space since the file system was asked is not known.
void SimIo::check_create(const Request& request) {
  if (config_.min_free_percent == 0) return;
  if (!space_told_) return report("S4 Space", request, "nobody has asked for the free space");
  if (space_told_->capacity_changes != disk_.capacity_changes()) return;
  std::uint64_t taken = request.range.length;
  for (const Pending& other : pending_) {
    if (other.request.op == Op::cache_create) taken += other.request.range.length;
  }
  const FileSystemSpace space = disk_.space();
  if (space.free_bytes < taken + space.total_bytes / 100 * config_.min_free_percent) {
    report("S4 Space", request, "leaves less than min_free_percent of the file system");
  }
}

void SimIo::check_rename(const Request& request) {
  if (request.new_name.ends_with(suffix(NameKind::sidecar))) {
    const std::string stem = request.new_name.substr(0, request.new_name.rfind('.'));
    const auto data = disk_.inode_named(stem + std::string(suffix(NameKind::partial)));
    if (data && books_[*data].has_failed_sync) {
      report("S9 SyncOnce", request, "vouches for data whose sync has failed");
    }
  }
  if (!request.new_name.ends_with(suffix(NameKind::data))) return;
  const std::optional<InodeId> inode = disk_.inode_named(request.name);
  if (!inode) return;
  const FileBooks& books = books_[*inode];
  if (books.has_unsynced_writes) {
    report("S10 Transitions", request, "the data was written and not synced");
  }
  if (books.has_failed_sync) report("S9 SyncOnce", request, "a sync of the data has failed");
  const std::string_view part = request.name;
  const std::string stem(part.substr(0, part.size() - suffix(NameKind::partial).size()));
  std::vector<std::byte> bytes;
  disk_.load(stem + std::string(suffix(NameKind::sidecar)), bytes);
  const std::optional<Sidecar> sidecar = decode(bytes);
  if (!sidecar) return;
  const auto looked_at = looked_at_.find({sidecar->file, sidecar->version});
  if (looked_at == looked_at_.end() || looked_at->second < books.last_write) {
    report("S14 Fresh", request, "published without asking the source after its last byte");
  }
}

}  // namespace ncfs
