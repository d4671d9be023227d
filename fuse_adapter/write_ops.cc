// Changing the content of files. Every change is made on the source first, as the caller; it is
// answered when everybody who reads the file through the mount would see it.
//
// Readers: the kernel keeps those of the same node right, as writes go through its page cache. All
// others read the source from here on, and what the kernel holds for them under other nodes is
// forgotten before the answer. That takes the reads along that are under way: the kernel waits for
// their answers, which may be older, and drops them.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "fuse_adapter/aligned_bytes.h"
#include "fuse_adapter/fuse_ops.h"
#include "fuse_adapter/mirrors.h"

namespace ncfs {
namespace {

// One call of copy_file_range keeps a thread for as long as the source takes; callers go on where
// it ended.
constexpr std::size_t kCopyMax = 64 * kMiB;

// Errors of a write of which nothing was written and nothing can be lost: whoever wrote is told,
// and nobody else needs to be.
bool is_refusal(int error) {
  return error == EFBIG || error == EINVAL || error == ENOSPC || error == EDQUOT ||
         error == EPERM || error == EACCES || error == EAGAIN || error == ENOMEM;
}

struct Outcome {
  std::size_t count = 0;
  int error = 0;  // of what was not written
};

Outcome write_all(int descriptor, std::span<const std::byte> bytes, std::uint64_t offset,
                  int flags) {
  Outcome outcome;
  while (outcome.count < bytes.size()) {
    const auto rest = bytes.subspan(outcome.count);
    const iovec part{const_cast<std::byte*>(rest.data()), rest.size()};
    const ssize_t count =
        ::pwritev2(descriptor, &part, 1, static_cast<off_t>(offset + outcome.count), flags);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      outcome.error = count < 0 ? errno : EIO;
      break;
    }
    outcome.count += static_cast<std::size_t>(count);
  }
  return outcome;
}

// Work on an open file, which is told if it takes too long. As FuseCore::run(), or always on the
// pool for what takes long.
enum class Place : std::uint8_t { here_if_allowed, pool };
template <typename Use>
void post_write(FuseCore& core, const KernelRequestPointer& request, std::shared_ptr<OpenFile> file,
                Use use, Place place = Place::pool,
                const std::function<void()>& before_waiting = {}) {
  const Backends::Device device = core.device_of(file->node);
  if (core.backends->is_down(device)) {
    // Nothing was written, so nobody else needs to be told.
    if (request->give_up(ETIMEDOUT)) core.stats->timeouts.add();
    return;
  }
  JobPool::Job job = core.judged(
      request, device,
      [core = core.shared_from_this(), request, file, use = std::move(use)] {
        use(*core, request, *file);
      },
      [counters = core.stats, request, file] {
        if (!request->give_up(ETIMEDOUT)) return;
        counters->timeouts.add();
        file->note_error(ETIMEDOUT);
      });
  const bool accepted = place == Place::pool
                            ? core.writes.submit(std::move(job))
                            : core.run(core.writes, std::move(job), before_waiting);
  if (accepted) return;
  core.stats->rejected.add();
  request->error(ENOMEM);
}

template <typename Use>
void post_write(fuse_req_t raw, std::shared_ptr<OpenFile> file, Use use, Place place = Place::pool,
                const std::function<void()>& before_waiting = {}) {
  FuseCore& core = FuseCore::of(raw);
  post_write(core, std::make_shared<KernelRequest>(core.channel, raw), std::move(file),
             std::move(use), place, before_waiting);
}

class Write {
 public:
  // `bytes` live until the write has run, or keep_bytes() was called.
  Write(std::span<const std::byte> bytes, off_t offset, const fuse_file_info& info)
      : bytes_(bytes),
        offset_(static_cast<std::uint64_t>(offset)),
        appends_((info.flags & O_APPEND) != 0 && info.writepage == 0),
        is_from_pages_(info.writepage != 0),
        is_past_pages_(info.lock_owner != 0) {}

  void keep_bytes() {
    if (kept_) return;
    kept_.emplace(bytes_);
    bytes_ = kept_->bytes();
  }

  void operator()(FuseCore& core, const KernelRequestPointer& request, OpenFile& file) const {
    const Outcome outcome = write(core, *request, file);
    if (outcome.error != 0 && !is_refusal(outcome.error)) file.note_error(outcome.error);
    if (outcome.count == 0 && outcome.error != 0) {
      core.stats->errors.add();
      request->error(outcome.error);
      return;
    }
    core.stats->written_bytes.add(outcome.count);
    ByteRange range{offset_, outcome.count};
    const bool is_misplaced = appends_ && !is_at_end(file, range);
    const NodeId node = is_past_pages_ ? 0 : file.cached_node();
    announce_change(core, file.shared, {node, range, is_from_pages_},
                    [core = core.shared_from_this(), request, range, is_misplaced, node = file.node,
                     shared = file.shared, count = outcome.count] {
                      // The kernel has the pages locked until it has its answer.
                      if (is_misplaced) {
                        core->notices.forget_later({node}, range, shared->begin_late_notice());
                      }
                      request->written(count);
                    });
  }

 private:
  [[nodiscard]] Outcome write(FuseCore& core, const KernelRequest& request,
                              const OpenFile& file) const {
    if (is_from_pages_) {
      // Stored by somebody through a mapping, some time ago: the kernel does not tell who, and the
      // permission is that of the descriptor. The pages need not suit O_DIRECT.
      if ((file.flags & O_DIRECT) == 0) return write_all(file.source, bytes_, offset_, 0);
      Outcome outcome;
      const Descriptor plain = core.tree.reopen(file.source, O_WRONLY, file.opener, outcome.error);
      return plain.is_open() ? write_all(plain.get(), bytes_, offset_, 0) : outcome;
    }
    const CallerCredentials credentials(request.caller(), core.groups);
    if (credentials.error() != 0) return {.count = 0, .error = credentials.error()};
    return write_all(file.source, bytes_, offset_, appends_ ? RWF_APPEND : 0);
  }

  // The kernel took the end of the file, as it knows it, for the place of what was appended. If
  // others appended meanwhile, its page cache has the bytes at the wrong place, and false is
  // returned with the range in which it may be wrong.
  [[nodiscard]] static bool is_at_end(const OpenFile& file, ByteRange& range) {
    struct statx attributes {};
    // What was just written tells this side the size; no need to ask a server.
    const bool is_known =
        ::statx(file.source, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &attributes) == 0;
    if (is_known && attributes.stx_size == range.end()) return true;
    const std::uint64_t end = is_known ? attributes.stx_size : 0;
    range = {std::min(range.offset, end - std::min(end, range.length)), kToTheEnd};
    return false;
  }

  std::span<const std::byte> bytes_;
  std::optional<AlignedBytes> kept_;
  const std::uint64_t offset_;
  const bool appends_;
  const bool is_from_pages_;
  // O_DIRECT: only such writes tell their owner. The kernel drops the pages before it asks, but, of
  // asynchronous ones (io_submit(2)), not those that were read since.
  const bool is_past_pages_;
};

void write(fuse_req_t raw, fuse_ino_t, const char* data, std::size_t size, off_t offset,
           fuse_file_info* info) {
  FuseCore::of(raw).stats->writes.add();
  auto file = handle_of<OpenFile>(info->fh).shared_from_this();
  auto job = std::make_shared<Write>(std::as_bytes(std::span(data, size)), offset, *info);
  if ((file->flags & O_DIRECT) != 0) job->keep_bytes();  // aligned as direct I/O wants it
  post_write(
      raw, std::move(file),
      [job](FuseCore& core, const KernelRequestPointer& request, OpenFile& written) {
        (*job)(core, request, written);
      },
      Place::here_if_allowed, [job] { job->keep_bytes(); });
}

void fallocate(fuse_req_t raw, fuse_ino_t, int mode, off_t offset, off_t length,
               fuse_file_info* info) {
  post_write(raw, handle_of<OpenFile>(info->fh).shared_from_this(),
             [mode, offset, length](FuseCore& core, const KernelRequestPointer& request,
                                    const OpenFile& file) {
               int error = 0;
               {
                 const CallerCredentials credentials(request->caller(), core.groups);
                 error = credentials.error();
                 if (error == 0 && ::fallocate(file.source, mode, offset, length) != 0) {
                   error = errno;
                 }
               }
               if (error != 0) {
                 request->error(error);
                 return;
               }
               // The kernel knows no mode that moves what follows.
               const ByteRange range{static_cast<std::uint64_t>(offset),
                                     static_cast<std::uint64_t>(length)};
               announce_change(core, file.shared, {file.cached_node(), range},
                               [request] { request->error(0); });
             });
}

void copy_file_range(fuse_req_t raw, fuse_ino_t, off_t from, fuse_file_info* from_info, fuse_ino_t,
                     off_t to, fuse_file_info* to_info, std::size_t length, int flags) {
  auto source = handle_of<OpenFile>(from_info->fh).shared_from_this();
  post_write(raw, handle_of<OpenFile>(to_info->fh).shared_from_this(),
             [source = std::move(source), from, to, length, flags](
                 FuseCore& core, const KernelRequestPointer& request, const OpenFile& file) {
               off_t read_at = from;
               off_t write_at = to;
               ssize_t count = 0;
               int error = 0;
               {
                 const CallerCredentials credentials(request->caller(), core.groups);
                 error = credentials.error();
                 if (error == 0) {
                   count =
                       ::copy_file_range(source->source, &read_at, file.source, &write_at,
                                         std::min(length, kCopyMax), static_cast<unsigned>(flags));
                   if (count < 0) error = errno;
                 }
               }
               if (error != 0) {
                 request->error(error);
                 return;
               }
               const auto copied = static_cast<std::size_t>(count);
               if (copied == 0) {
                 request->written(0);
                 return;
               }
               core.stats->written_bytes.add(copied);
               announce_change(core, file.shared,
                               {file.cached_node(), {static_cast<std::uint64_t>(to), copied}},
                               [request, copied] { request->written(copied); });
             });
}

// Runs `call`, which returns 0 or sets errno, and answers its error or else the lasting one.
template <typename Call>
void answer_durability(FuseCore& core, const KernelRequestPointer& request, OpenFile& file,
                       const Call& call) {
  const int error = call(file.source) == 0 ? 0 : errno;
  // What was written before is lost, but where files cannot be synced.
  if (error != 0 && error != EINVAL) file.note_error(error);
  if (error != 0) core.stats->errors.add();
  const int lasting = file.lasting_error();
  // What a mapping stored before msync(2) or close(2) is now seen by all.
  await_late_changes(
      file.shared, [request, answer = lasting != 0 ? lasting : error] { request->error(answer); });
}

void fsync(fuse_req_t raw, fuse_ino_t, int only_data, fuse_file_info* info) {
  post_write(raw, handle_of<OpenFile>(info->fh).shared_from_this(),
             [only_data](FuseCore& core, const KernelRequestPointer& request, OpenFile& file) {
               answer_durability(core, request, file, [only_data](int descriptor) {
                 return only_data != 0 ? ::fdatasync(descriptor) : ::fsync(descriptor);
               });
             });
}

// What the kernel wrote to the source by itself is told when the file is closed.
void announce_unseen_writes(FuseCore& core, const OpenFile& file) {
  if (file.mode != OpenMode::source_passthrough) return;
  announce_change(core, file.shared, {file.node, {0, kToTheEnd}}, [] {});
}

void end_writing(FuseCore& core, OpenFile& file) {
  announce_unseen_writes(core, file);
  struct stat attributes {};
  const bool is_known = ::fstat(file.source, &attributes) == 0;
  const FileFacts facts = FileFacts::of(attributes);
  const bool is_unchanged =
      is_known && file.settled_version == facts.version && tells_of_mappings(file.source);
  // What was copied meanwhile may be older than what was stored, and have the same times.
  if (file.may_be_mapped_unseen() && !is_unchanged) {
    static_cast<void>(disown_file(core, file.file_id));
  }
  if (is_known) file.end_session(facts);
}

void end_unless_left(FuseCore& core, const std::shared_ptr<OpenFile>& file) {
  const bool may_be_left = file->may_be_mapped_unseen();
  if (may_be_left && core.left_mappings.keep(file)) return;
  end_writing(core, *file);
  // The last who had the file open tells that the others' mappings are gone as well.
  if (may_be_left) end_left_mappings(core, file->shared->key);
}

// At every close(2). Closing a duplicate makes network file systems send what they still hold and
// tell what came of it. (A failed close(2) must not be repeated.)
void flush(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info) {
  FuseCore& core = FuseCore::of(raw);
  auto request = std::make_shared<KernelRequest>(core.channel, raw);
  auto file = handle_of<OpenFile>(info->fh).shared_from_this();
  release_locks_at_close(core, node, *info, [core = core.shared_from_this(), request, file] {
    if (!file->is_written()) {
      request->error(0);
      return;
    }
    post_write(
        *core, request, file,
        [](FuseCore& of, const KernelRequestPointer& answered, OpenFile& written) {
          announce_unseen_writes(of, written);
          answer_durability(of, answered, written, [](int descriptor) {
            const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
            return copy < 0 ? -1 : ::close(copy);
          });
        },
        Place::here_if_allowed);
  });
}

// A handle whose listing comes from memory has no descriptor to sync.
void fsyncdir(fuse_req_t raw, fuse_ino_t node, int only_data, fuse_file_info* info) {
  auto directory = handle_of<OpenDirectory>(info->fh).shared_from_this();
  FuseCore::of(raw).post(raw, [directory = std::move(directory), node, only_data](
                                  FuseCore& core, const KernelRequestPointer& request) {
    const std::lock_guard lock(directory->mutex);
    FoundFile& found = directory->found;
    if (!found.file.is_open()) found = core.find(node, request->caller());
    int error = found.error;
    Descriptor readable;
    if (error == 0) {
      readable =
          core.tree.reopen(found.file.get(), O_RDONLY | O_DIRECTORY, request->caller(), error);
    }
    const auto sync = only_data != 0 ? ::fdatasync : ::fsync;
    if (error == 0 && sync(readable.get()) != 0) error = errno;
    request->error(error);
  });
}

}  // namespace

void set_size(FuseCore& core, const KernelRequestPointer& request, NodeId node, OpenFile* file,
              std::uint64_t size, const std::function<void(int error)>& done) {
  SharedFilePointer shared;
  std::unique_ptr<WriteSession> session;
  Descriptor found_file;
  int descriptor = file != nullptr ? file->source : -1;
  if (file != nullptr) {
    shared = file->shared;
  } else {
    FoundFile found = find_or_held(core, node, request->caller());
    if (found.error != 0) {
      done(found.error);
      return;
    }
    shared = core.shared_files.of(FileFacts::of(found.attributes).file);
    session = std::make_unique<WriteSession>(core.nodes, core.shared_from_this(), node, shared);
    // As the caller: it is the source that says who may.
    int error = 0;
    found_file = core.tree.reopen(found.file.get(), O_WRONLY | O_NOCTTY, request->caller(), error);
    if (error != 0) {
      done(error);
      return;
    }
    descriptor = found_file.get();
  }
  int error = 0;
  {
    const CallerCredentials credentials(request->caller(), core.groups);
    error = credentials.error();
    if (error == 0 && ::ftruncate(descriptor, static_cast<off_t>(size)) != 0) error = errno;
  }
  struct stat attributes {};
  if (session && ::fstat(descriptor, &attributes) == 0) session->note(FileFacts::of(attributes));
  if (error != 0) {
    done(error);
    return;
  }
  // What lay beyond is gone, and what comes to lie there is zeros.
  announce_change(core, shared, {.node = node, .range = {size, kToTheEnd}, .may_shorten = true},
                  [done] { done(0); });
}

void finish_writing(FuseCore& core, std::shared_ptr<OpenFile> file) {
  // Whatever comes of it, the session ends with the file.
  static_cast<void>(core.run(
      core.writes, {.run = [core = core.shared_from_this(), file] { end_unless_left(*core, file); },
                    .expire = [] {},
                    .lane = core.device_of(file->node)}));
}

void end_left_mappings(FuseCore& core, const FileKey& file) {
  for (const auto& left : core.left_mappings.take(file)) end_writing(core, *left);
  for (const auto& left : core.left_mappings.take_next()) end_writing(core, *left);
}

void add_write_operations(fuse_lowlevel_ops& table) {
  table.write = write;
  table.fallocate = fallocate;
  table.copy_file_range = copy_file_range;
  table.fsync = fsync;
  table.flush = flush;
  table.fsyncdir = fsyncdir;
}

}  // namespace ncfs
