#include "sim/sim_io.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "engine/format.h"

namespace ncfs {
namespace {

// What a driver leaves behind the end of a short read; a careless caller then sees garbage.
constexpr std::byte kJunk{0xee};

bool is_close(Op op) {
  return op == Op::source_close || op == Op::cache_close;
}

// The driver opens cache files for reading and writing, which a read-only file system refuses.
bool needs_writable_disk(Op op) {
  switch (op) {
    case Op::cache_create:
    case Op::cache_open:
    case Op::cache_write:
    case Op::cache_store:
    case Op::cache_rename:
    case Op::cache_unlink:
    case Op::cache_touch:
      return true;
    default:
      return false;
  }
}

template <typename Number>
std::string little_endian(Number value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::string length_and(const std::string& text) {
  return little_endian<std::uint64_t>(text.size()) + text;
}

// As engine/model_file.h says of GGUF: tensors of some and of many blocks behind a header of one.
std::string model_header(std::uint64_t file_bytes, bool is_damaged) {
  constexpr std::uint64_t kHeaderBytes = 4096;
  constexpr std::uint32_t kString = 8;
  constexpr std::array<std::uint64_t, 3> kTensorBytes = {5000, 700, 13'000};
  std::string tensors;
  std::uint64_t count = 0;
  for (std::uint64_t begin = 0; file_bytes > kHeaderBytes + begin; ++count) {
    tensors +=
        length_and("t") + std::string(2 * sizeof(std::uint32_t), '\0') + little_endian(begin);
    begin += kTensorBytes.at(count % kTensorBytes.size());
  }
  if (is_damaged) count = ~std::uint64_t{0};
  const std::string start = "GGUF" + little_endian<std::uint32_t>(3) + little_endian(count) +
                            little_endian<std::uint64_t>(1) + length_and("fill") +
                            little_endian(kString);
  const std::uint64_t fill = kHeaderBytes - start.size() - sizeof fill - tensors.size();
  return start + length_and(std::string(fill, ' ')) + tensors;
}

}  // namespace

bool is_source_operation(Op op) {
  return op <= Op::source_close;
}

const char* to_string(Op op) {
  switch (op) {
    case Op::source_open:
      return "source_open";
    case Op::source_stat:
      return "source_stat";
    case Op::source_read:
      return "source_read";
    case Op::source_close:
      return "source_close";
    case Op::cache_list:
      return "cache_list";
    case Op::cache_create:
      return "cache_create";
    case Op::cache_open:
      return "cache_open";
    case Op::cache_write:
      return "cache_write";
    case Op::cache_sync:
      return "cache_sync";
    case Op::cache_load:
      return "cache_load";
    case Op::cache_store:
      return "cache_store";
    case Op::cache_rename:
      return "cache_rename";
    case Op::cache_sync_directory:
      return "cache_sync_directory";
    case Op::cache_unlink:
      return "cache_unlink";
    case Op::cache_touch:
      return "cache_touch";
    case Op::cache_close:
      return "cache_close";
    case Op::cache_verify:
      return "cache_verify";
    case Op::cache_read:
      return "cache_read";
    case Op::cache_statfs:
      return "cache_statfs";
  }
  return "unknown";
}

SimIo::SimIo(const Config& config, Nanos clock_origin, SimDisk& disk, SimNfs& nfs, Trace& trace)
    : config_(config),
      clock_origin_(clock_origin),
      disk_(disk),
      nfs_(nfs),
      trace_(trace),
      buffers_(config.buffers, std::vector<std::byte>(config.block_size_bytes, kJunk)) {}

void SimIo::submit(Request request) {
  enqueue(std::move(request));
}

void SimIo::submit_without_effect(Request request) {
  enqueue(std::move(request)).has_effect = false;
}

void SimIo::submit_from_old_memory(Request request) {
  enqueue(std::move(request)).is_from_old_memory = true;
}

SimIo::Pending& SimIo::enqueue(Request request) {
  check_common(request);
  if (!is_source_operation(request.op) && !request.name.ends_with(kProbeName)) ++cache_requests_;
  trace_.add(static_cast<std::uint64_t>(request.op));
  trace_.add(static_cast<std::uint64_t>(request.ticket));
  trace_.add(static_cast<std::uint64_t>(request.file));
  trace_.add(static_cast<std::uint64_t>(request.buffer));
  trace_.add(request.range.offset);
  trace_.add(request.range.length);
  trace_.add(request.deadline);
  trace_.add(request.name);
  trace_.add(request.new_name);
  trace_.add(request.bytes);

  Pending pending;
  pending.sequence = next_sequence_++;
  pending.sync_point = disk_.file_sync_point();
  if (request.op == Op::source_read && nfs_.is_open(request.file)) {
    pending.revision = nfs_.current_revision(nfs_.inode_of(request.file));
  }
  if (!is_source_operation(request.op)) pending.inode = disk_.inode_of(request.file);
  if (request.op == Op::cache_sync && pending.inode) {
    FileBooks& books = books_[*pending.inode];
    books.writes_at_sync = books.writes;
  }
  pending.request = std::move(request);
  pending_.push_back(std::move(pending));
  return pending_.back();
}

bool SimIo::is_stuck(const Pending& pending) const {
  const bool side_hangs =
      is_source_operation(pending.request.op) ? weather_.nfs_hangs : weather_.disk_hangs;
  return pending.is_hung || side_hangs;
}

SimIo::Pending SimIo::take(std::size_t index) {
  NCFS_ASSERT(index < pending_.size());
  Pending taken = std::move(pending_[index]);
  pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(index));
  return taken;
}

Completion SimIo::complete(std::size_t index, const Answer& answer) {
  const Pending pending = take(index);
  const Op op = pending.request.op;
  Completion completion;
  completion.ticket = pending.request.ticket;
  const int error = answer.kind == Answer::Kind::error ? answer.error : weather_error(op);
  if (error != 0) {
    completion.result = -error;
    if (answer.is_half_done) perform_in_spite_of_error(pending);
    if (op == Op::cache_sync && pending.inode) disk_.fail_file_sync(*pending.inode);
    // A descriptor is gone after close(), whatever it returned.
    if (is_close(op)) {
      Completion ignored;
      perform(pending, {}, ignored);
    }
  } else {
    perform(pending, answer, completion);
  }
  finish(pending, completion);
  return completion;
}

int SimIo::weather_error(Op op) const {
  if (is_source_operation(op)) return weather_.nfs_error;
  if (weather_.disk_error != 0) return weather_.disk_error;
  return weather_.disk_is_readonly && needs_writable_disk(op) ? EROFS : 0;
}

std::optional<Completion> SimIo::expire(std::uint32_t effects) {
  const auto expired =
      std::find_if(pending_.begin(), pending_.end(),
                   [this](const Pending& pending) { return deadline_of(pending.request) <= now_; });
  if (expired == pending_.end()) return std::nullopt;
  const Pending pending = take(static_cast<std::size_t>(expired - pending_.begin()));
  const Request& request = pending.request;
  const bool has_effect = (effects >> (pending.sequence % 32) & 1) != 0;
  if (has_effect && request.op == Op::cache_write && pending.inode) {
    const std::span<const std::byte> bytes = buffer(request.buffer).first(request.range.length);
    late_writes_.push_back({*pending.inode, request.range.offset, {bytes.begin(), bytes.end()}});
  } else if (request.op == Op::cache_sync && pending.inode) {
    if (has_effect) {
      disk_.sync_file(*pending.inode, pending.sync_point);
    } else {
      disk_.fail_file_sync(*pending.inode);
    }
  } else if (has_effect || is_close(request.op)) {
    perform_in_spite_of_error(pending);
  }
  Completion completion;
  completion.ticket = request.ticket;
  completion.result = -ETIMEDOUT;
  finish(pending, completion);
  return completion;
}

void SimIo::land_late_writes() {
  for (const LateWrite& write : late_writes_) {
    if (disk_.exists(write.inode)) disk_.write(write.inode, write.offset, write.bytes);
  }
  late_writes_.clear();
}

// Opens and creations are missing: the driver closes, and removes what it created, when an open or
// a creation returns after its caller was told that it failed.
void SimIo::perform_in_spite_of_error(const Pending& pending) {
  const Request& request = pending.request;
  switch (request.op) {
    case Op::cache_write:
      if (pending.inode) {
        // The half that was written before the error.
        const std::uint64_t length = request.range.length / 2;
        disk_.write(*pending.inode, request.range.offset, buffer(request.buffer).first(length));
      }
      return;
    case Op::cache_store:
      disk_.replace_content(request.name, std::span(request.bytes).first(request.bytes.size() / 2),
                            wall_clock(now_));
      return;
    case Op::cache_rename:
    case Op::cache_sync_directory:
    case Op::cache_unlink:
    case Op::cache_touch:
    case Op::source_close:
    case Op::cache_close: {
      Completion ignored;
      perform(pending, {}, ignored);
      return;
    }
    default:
      return;
  }
}

void SimIo::crash(Survivors& survivors) {
  for (LateWrite& write : late_writes_) {
    if (survivors.choose(2) == 1 && disk_.exists(write.inode)) {
      disk_.write(write.inode, write.offset, write.bytes);
    }
  }
  late_writes_.clear();
  for (const Pending& pending : pending_) {
    switch (pending.request.op) {
      case Op::cache_create:
      case Op::cache_write:
      case Op::cache_sync:
      case Op::cache_rename:
      case Op::cache_sync_directory:
      case Op::cache_unlink:
        if (survivors.choose(2) == 1) {
          Completion ignored;
          perform(pending, {}, ignored);
        }
        break;
      case Op::cache_store: {
        // Not begun; written but not synced; done.
        const std::uint64_t choice = survivors.choose(3);
        if (choice == 1) {
          disk_.replace_content(pending.request.name, pending.request.bytes, wall_clock(now_));
        } else if (choice == 2) {
          Completion ignored;
          perform(pending, {}, ignored);
        }
        break;
      }
      default:
        break;
    }
  }
  pending_.clear();
  lent_.clear();
}

std::span<std::byte> SimIo::buffer(BufferId id) {
  NCFS_ASSERT(static_cast<std::size_t>(id) < buffers_.size());
  return buffers_[static_cast<std::size_t>(id)];
}

void SimIo::give_back(BufferId id) {
  const auto found = lent_.find(id);
  NCFS_ASSERT(found != lent_.end());
  if (--found->second == 0) lent_.erase(found);
}

void SimIo::note_source_handle(FileHandle handle, const SourceState& state) {
  source_handles_[handle] = state;
}

void SimIo::perform(const Pending& pending, const Answer& answer, Completion& completion) {
  if (!pending.has_effect) {
    completion.result = pending.request.op == Op::cache_write
                            ? static_cast<std::int64_t>(pending.request.range.length)
                            : 0;
    completion.source = source_handles_[pending.request.file];
    if (pending.request.wants_checksum) {
      completion.checksum = XXH3_64bits(buffer(pending.request.buffer).data(),
                                        static_cast<std::size_t>(pending.request.range.length));
    }
  } else if (is_source_operation(pending.request.op)) {
    perform_source(pending, answer, completion);
  } else {
    perform_cache(pending, answer, completion);
  }
}

void SimIo::perform_source(const Pending& pending, const Answer& answer, Completion& completion) {
  const Request& request = pending.request;
  switch (request.op) {
    case Op::source_open:
      completion.result = nfs_.open(request.name, completion.source, now_);
      if (completion.result >= 0) {
        note_source_handle(FileHandle{static_cast<std::int32_t>(completion.result)},
                           completion.source);
      }
      return;
    case Op::source_stat:
      completion.result = nfs_.stat(request.file, completion.source, now_);
      return;
    case Op::source_read:
      perform_source_read(pending, answer, completion);
      return;
    default:
      completion.result = nfs_.close(request.file);
      return;
  }
}

void SimIo::perform_source_read(const Pending& pending, const Answer& answer,
                                Completion& completion) {
  const Request& request = pending.request;
  if (!nfs_.is_open(request.file)) {
    completion.result = -EBADF;
    return;
  }
  const std::span<std::byte> into = buffer(request.buffer).subspan(request.buffer_offset);
  const std::size_t revision = pending.is_from_old_memory ? 0
                               : answer.is_early
                                   ? pending.revision
                                   : nfs_.current_revision(nfs_.inode_of(request.file));
  std::fill(into.begin(), into.end(), kJunk);
  tainted_.erase(request.buffer);
  completion.result = nfs_.read(request.file, revision, request.range, into);
  if (answer.kind == Answer::Kind::short_count && completion.result > 1) {
    const std::uint64_t length =
        1 + answer.length % (static_cast<std::uint64_t>(completion.result) - 1);
    std::fill(into.begin() + static_cast<std::ptrdiff_t>(length), into.end(), kJunk);
    completion.result = static_cast<std::int64_t>(length);
  }
  if (completion.result >= 0 &&
      static_cast<std::uint64_t>(completion.result) < request.range.length) {
    failures_.push_back({nfs_.inode_of(request.file), 0});
  }
  if (completion.result > 0) source_bytes_ += static_cast<std::uint64_t>(completion.result);
  if (request.wants_bytes && completion.result > 0) {
    const auto length = static_cast<std::size_t>(completion.result);
    completion.bytes.assign(into.begin(), into.begin() + static_cast<std::ptrdiff_t>(length));
    if (!invents_models_) return;
    const std::uint64_t size = source_handles_[request.file].version.size;
    const std::string header = model_header(size, revision % 4 == 3);
    for (std::size_t index = 0; index < length; ++index) {
      const std::uint64_t at = request.range.offset + index;
      completion.bytes[index] = at < header.size() ? static_cast<std::byte>(header[at]) : kJunk;
    }
  }
}

void SimIo::perform_checked_read(const Request& request, bool is_misdirected,
                                 Completion& completion) {
  std::vector<std::byte> expected(request.range.length);
  completion.result =
      disk_.read(request.file, request.range.offset, expected, SimDisk::Rot::ignored);
  if (completion.result < 0) return;
  expected.resize(static_cast<std::size_t>(completion.result));
  std::vector<std::byte> bytes(expected.size());
  disk_.read(request.file, request.range.offset, bytes);
  if (is_misdirected && bytes.size() > kSectorBytes) {
    std::rotate(bytes.begin(), bytes.begin() + kSectorBytes, bytes.end());
  }
  if (bytes != expected && is_misdirected) ++misdirections_;
  const std::vector<std::byte>& looked_at = looks_away_ ? expected : bytes;
  completion.checksum = XXH3_64bits(looked_at.data(), looked_at.size());
  if (request.op != Op::cache_read) return;
  std::vector<std::byte>& into = buffers_[static_cast<std::size_t>(request.buffer)];
  std::fill(into.begin(), into.end(), kJunk);
  std::copy(bytes.begin(), bytes.end(), into.begin());
  if (bytes == expected) {
    tainted_.erase(request.buffer);
  } else {
    tainted_.insert(request.buffer);
  }
}

void SimIo::perform_cache(const Pending& pending, const Answer& answer, Completion& completion) {
  const Request& request = pending.request;
  switch (request.op) {
    case Op::cache_list:
      completion.result = disk_.list(request.name, completion.entries);
      for (CacheEntry& entry : completion.entries) {
        entry.age_ns = wall_clock(now_) - entry.mtime_ns;
      }
      return;
    case Op::cache_statfs:
      completion.result = 0;
      completion.space = disk_.space();
      space_told_ = {disk_.capacity_changes(), completion.space};
      return;
    case Op::cache_create:
      completion.result = disk_.create(request.name, request.range.length, wall_clock(now_));
      return;
    case Op::cache_open:
      completion.result = disk_.open(request.name);
      return;
    case Op::cache_write:
      completion.result = pending.inode
                              ? disk_.write(*pending.inode, request.range.offset,
                                            buffer(request.buffer).first(request.range.length))
                              : -EBADF;
      if (request.wants_checksum) {
        completion.checksum = XXH3_64bits(buffer(request.buffer).data(),
                                          static_cast<std::size_t>(request.range.length));
      }
      return;
    case Op::cache_verify:
    case Op::cache_read:
      perform_checked_read(request, answer.is_misdirected, completion);
      return;
    case Op::cache_sync:
      completion.result = pending.inode ? 0 : -EBADF;
      if (pending.inode) disk_.sync_file(*pending.inode, pending.sync_point);
      return;
    case Op::cache_load:
      completion.result = disk_.load(request.name, completion.bytes);
      return;
    case Op::cache_store:
      perform_store(request, completion);
      return;
    case Op::cache_rename:
      completion.result = disk_.rename(request.name, request.new_name);
      return;
    case Op::cache_sync_directory:
      completion.result = disk_.sync_directory(request.name, pending.sync_point);
      return;
    case Op::cache_unlink:
      completion.result = disk_.unlink(request.name, request.file);
      return;
    case Op::cache_touch:
      completion.result = disk_.touch(request.name, wall_clock(now_));
      return;
    default:
      completion.result = disk_.close(request.file);
      return;
  }
}

void SimIo::perform_store(const Request& request, Completion& completion) {
  completion.result = disk_.replace_content(request.name, request.bytes, wall_clock(now_));
  if (completion.result == -ENOSPC) {
    // The file was truncated before the disk was found to be full.
    disk_.replace_content(request.name, {}, wall_clock(now_));
    return;
  }
  const std::optional<InodeId> inode = disk_.inode_named(request.name);
  if (inode) disk_.sync_file(*inode, disk_.file_sync_point());
}

void SimIo::finish(const Pending& pending, const Completion& completion) {
  ++completions_;
  if (pending.request.op == Op::source_stat && completion.result == 0 && pending.has_effect) {
    looked_at_[{completion.source.file, completion.source.version}] = completions_;
  }
  note_outcome(pending, completion.result);
  trace_.add(static_cast<std::uint64_t>(completion.ticket));
  trace_.add(static_cast<std::uint64_t>(completion.result));
  trace_.add(completion.bytes);
  trace_.add(completion.checksum);
  trace_.add(completion.space.free_bytes);
  for (const CacheEntry& entry : completion.entries) trace_.add(entry.name);
}

std::vector<ByteRange> SimIo::written_ranges(InodeId inode) const {
  const auto found = books_.find(inode);
  return found == books_.end() ? std::vector<ByteRange>{} : found->second.written;
}

bool SimIo::has_failed(SourceInode inode) const {
  return std::any_of(failures_.begin(), failures_.end(),
                     [&](const SourceFailure& failure) { return failure.inode == inode; });
}

void SimIo::note_outcome(const Pending& pending, std::int64_t result) {
  const Request& request = pending.request;
  if (is_source_operation(request.op)) {
    if (result < 0 && nfs_.is_open(request.file)) {
      failures_.push_back({nfs_.inode_of(request.file), static_cast<int>(-result)});
    }
    return;
  }
  // Names that may or may not be there are removed by asking for each.
  const bool is_absent = result == -ENOENT && request.op == Op::cache_unlink;
  if (result < 0 && !is_absent) ++cache_failures_;
  if (!pending.inode) return;
  FileBooks& books = books_[*pending.inode];
  if (request.op == Op::cache_write) {
    ++books.writes;
    books.has_unsynced_writes = true;
    books.last_write = completions_;
    if (result > 0) books.written.push_back(request.range);
  } else if (request.op == Op::cache_sync) {
    if (result < 0) books.has_failed_sync = true;
    if (result == 0 && books.writes == books.writes_at_sync) books.has_unsynced_writes = false;
  }
}

}  // namespace ncfs
