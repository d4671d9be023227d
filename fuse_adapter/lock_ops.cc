// Locks of fcntl(2) and flock(2). With locks=local they are kept here and hold among all who use
// this mount, as on a local file system; with locks=backend they are taken on the source.
//
// They end with what the kernel tells of closing: FLUSH ends those of fcntl(2) of one process, and
// RELEASE those that were made through the handle. Who is not ready to wait for somebody whose
// RELEASE may be on its way is answered after it (closing_handles.h).
#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <utility>

#include "fuse_adapter/fuse_ops.h"

namespace ncfs {
namespace {

using Kind = LockTable::Kind;
using Lock = LockTable::Lock;

Lock lock_of(const struct flock& wanted, const fuse_file_info& info) {
  const auto first = static_cast<std::uint64_t>(wanted.l_start);
  const auto length = static_cast<std::uint64_t>(wanted.l_len);
  return {.owner = info.lock_owner,
          .is_exclusive = wanted.l_type == F_WRLCK,
          .first = first,
          .last = length == 0 ? LockTable::kLastByte : first + length - 1,
          .process = wanted.l_pid};
}

// A libfuse request stays one and the same until it is answered and nobody is told of it any more.
LockTable::Ticket ticket_of(fuse_req_t raw) {
  return reinterpret_cast<LockTable::Ticket>(raw);
}

void on_interrupt(fuse_req_t raw, void* core) {
  static_cast<FuseCore*>(core)->locks.interrupt(ticket_of(raw));
}

// A description for locks of either kind, if somebody lets us: the kernel has checked that the
// caller's handle suits the lock. A handle may be for writing although its opener could not open
// the file so again (the one who made a file of mode 0444), but the daemon can.
Descriptor open_for_locks(FuseCore& core, const OpenFile& handle, const Caller& caller,
                          int& error) {
  const Caller daemon{.user = 0, .group = 0, .thread = caller.thread};
  Descriptor opened = core.tree.reopen(handle.source, O_RDWR | O_NOCTTY, caller, error);
  if (error != 0 && handle.is_written()) {
    opened = core.tree.reopen(handle.source, O_RDWR | O_NOCTTY, daemon, error);
  }
  for (const Caller& who : {caller, daemon}) {
    if (error != 0) opened = core.tree.reopen(handle.source, O_RDONLY | O_NOCTTY, who, error);
  }
  return opened;
}

void take(FuseCore& core, fuse_req_t raw, const FileKey& file, Kind kind, const Lock& lock,
          bool waits) {
  if (!waits) {
    fuse_reply_err(raw, core.locks.try_lock(file, kind, lock));
    return;
  }
  const auto request = std::make_shared<KernelRequest>(core.channel, raw);
  fuse_req_interrupt_func(raw, on_interrupt, &core);
  const auto result =
      core.locks.lock(file, kind, lock,
                      {.ticket = ticket_of(raw),
                       .done = [request](int error) { request->error(error); },
                       .is_interrupted = [raw] { return fuse_req_interrupted(raw) != 0; }});
  if (result) request->error(*result);
}

// The same on the source.
BackendLocks::Request backend_request(FuseCore& core, const KernelRequestPointer& request,
                                      const FileKey& file, Kind kind, const Lock& lock,
                                      const fuse_file_info& info) {
  auto handle = handle_of<OpenFile>(info.fh).shared_from_this();
  const int descriptor = handle->source;
  return {
      .file = file,
      .kind = kind,
      .lock = lock,
      .open = [&core, request, handle](
                  int& error) { return open_for_locks(core, *handle, request->caller(), error); },
      .handle = descriptor,
      .answer = [keep = core.shared_from_this(), request,
                 handle](int error) { return request->error(error); }};
}

void on_backend_interrupt(fuse_req_t raw, void* core) {
  static_cast<FuseCore*>(core)->backend_locks->interrupt(ticket_of(raw));
}

void take_on_backend(FuseCore& core, fuse_req_t raw, BackendLocks::Request request, bool waits) {
  if (!waits) {
    core.backend_locks->try_lock(std::move(request));
    return;
  }
  fuse_req_interrupt_func(raw, on_backend_interrupt, &core);
  core.backend_locks->lock(std::move(request), ticket_of(raw),
                           [raw] { return fuse_req_interrupted(raw) != 0; });
}

void answer_conflict(KernelRequest& request, struct flock answer,
                     const std::optional<Lock>& found) {
  answer.l_type = F_UNLCK;
  if (found) {
    answer.l_type = found->is_exclusive ? F_WRLCK : F_RDLCK;
    answer.l_whence = SEEK_SET;
    answer.l_start = static_cast<off_t>(found->first);
    answer.l_len = found->last == LockTable::kLastByte
                       ? 0
                       : static_cast<off_t>(found->last - found->first + 1);
    answer.l_pid = found->process;
  }
  request.lock(answer);
}

// At once, or when it is known whether those end who hold what is in the way.
void ask_settled(FuseCore& core, const FileKey& file, Kind kind, const Lock& lock,
                 const std::function<void()>& ask) {
  if (core.locks.conflict(file, kind, lock) && core.closing_handles.later(file, ask)) return;
  ask();
}

void tell_conflict(FuseCore& core, const KernelRequestPointer& request, const FileKey& file,
                   const Lock& lock, const struct flock& wanted, const fuse_file_info& info) {
  if (!core.backend_locks) {
    answer_conflict(*request, wanted, core.locks.conflict(file, Kind::posix, lock));
    return;
  }
  core.backend_locks->find_conflict(backend_request(core, request, file, Kind::posix, lock, info),
                                    [request, wanted](int error, const std::optional<Lock>& found) {
                                      if (error != 0) {
                                        request->error(error);
                                      } else {
                                        answer_conflict(*request, wanted, found);
                                      }
                                    });
}

void getlk(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info, struct flock* wanted) {
  FuseCore& core = FuseCore::of(raw);
  const auto request = std::make_shared<KernelRequest>(core.channel, raw);
  const auto file = core.nodes.file_of(node);
  if (!file) {
    answer_conflict(*request, *wanted, std::nullopt);
    return;
  }
  const Lock lock = lock_of(*wanted, *info);
  if (core.backend_locks) core.lock_owners.add(info->fh, lock.owner);
  const auto handle = handle_of<OpenFile>(info->fh).shared_from_this();
  ask_settled(core, *file, Kind::posix, lock,
              [&core, request, file = *file, lock, wanted = *wanted, info = *info, handle] {
                tell_conflict(core, request, file, lock, wanted, info);
              });
}

// Takes the lock or, if `unlocks`, gives its range back; where locks are kept.
void change_settled(FuseCore& core, fuse_req_t raw, const FileKey& file, Kind kind,
                    const Lock& lock, const fuse_file_info& info, bool unlocks, bool waits) {
  if (core.backend_locks) {
    auto request = backend_request(core, std::make_shared<KernelRequest>(core.channel, raw), file,
                                   kind, lock, info);
    if (unlocks) {
      core.backend_locks->unlock(std::move(request));
    } else {
      take_on_backend(core, raw, std::move(request), waits);
    }
  } else if (unlocks) {
    core.locks.unlock(file, kind, lock.owner, lock.first, lock.last);
    fuse_reply_err(raw, 0);
  } else {
    take(core, raw, file, kind, lock, waits);
  }
}

void change_lock(fuse_req_t raw, const FileKey& file, Kind kind, const Lock& lock,
                 const fuse_file_info& info, bool unlocks, bool waits) {
  FuseCore& core = FuseCore::of(raw);
  if (unlocks || waits) {
    if (!unlocks) core.closing_handles.locked(info.fh);
    change_settled(core, raw, file, kind, lock, info, unlocks, waits);
    return;
  }
  core.closing_handles.locked(info.fh);
  const auto handle = handle_of<OpenFile>(info.fh).shared_from_this();
  ask_settled(core, file, kind, lock, [&core, raw, file, kind, lock, info, handle] {
    change_settled(core, raw, file, kind, lock, info, false, false);
  });
}

void setlk(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info, struct flock* wanted, int waits) {
  FuseCore& core = FuseCore::of(raw);
  const auto file = core.nodes.file_of(node);
  if (!file) {
    fuse_reply_err(raw, ENOLCK);
    return;
  }
  const Lock lock = lock_of(*wanted, *info);
  const bool unlocks = wanted->l_type == F_UNLCK;
  if (!unlocks) core.lock_owners.add(info->fh, lock.owner);
  change_lock(raw, *file, Kind::posix, lock, *info, unlocks, waits != 0);
}

void flock(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info, int operation) {
  const auto file = FuseCore::of(raw).nodes.file_of(node);
  if (!file) {
    fuse_reply_err(raw, ENOLCK);
    return;
  }
  const Lock lock{.owner = info->lock_owner, .is_exclusive = (operation & LOCK_EX) != 0};
  change_lock(raw, *file, Kind::flock, lock, *info, (operation & LOCK_UN) != 0,
              (operation & LOCK_NB) == 0);
}

void unlock_owner(FuseCore& core, const FileKey& file, LockTable::Owner owner,
                  std::function<void()> done) {
  auto held = core.backend_locks ? core.backend_locks->take(file, owner) : nullptr;
  if (held) {
    core.backend_locks->give_back(std::move(held), std::move(done));
    return;
  }
  if (!core.backend_locks) core.locks.unlock(file, Kind::posix, owner);
  done();
}

}  // namespace

void release_locks_at_close(FuseCore& core, NodeId node, const fuse_file_info& info,
                            std::function<void()> done) {
  core.closing_handles.flushed(handle_of<OpenFile>(info.fh).shared->key, info.fh);
  const auto file = core.lock_owners.any() ? core.nodes.file_of(node) : std::nullopt;
  if (file) {
    unlock_owner(core, *file, info.lock_owner, std::move(done));
  } else {
    done();
  }
}

void release_locks_with_handle(FuseCore& core, NodeId node, const fuse_file_info& info) {
  auto closing = handle_of<OpenFile>(info.fh).shared_from_this();
  const FileKey key = closing->shared->key;
  const auto owners = core.lock_owners.take(info.fh);
  if (owners.empty() && info.flock_release == 0) {
    core.closing_handles.released(key, info.fh);
    return;
  }
  // Called when the last that knows of it has given its locks back.
  const std::shared_ptr<void> ended(
      nullptr, [keep = core.shared_from_this(), key, number = info.fh](const void*) {
        keep->closing_handles.released(key, number);
      });
  const auto file = core.nodes.file_of(node);
  if (!file) return;
  for (const LockTable::Owner owner : owners) {
    unlock_owner(core, *file, owner, [keep = core.shared_from_this(), ended] {});
  }
  if (info.flock_release == 0) return;
  if (!core.backend_locks) {
    core.locks.unlock(*file, Kind::flock, info.lock_owner);
    return;
  }
  // The engine may keep the description for a copy.
  const int descriptor = closing->source;
  core.backend_locks->unlock(
      {.file = *file,
       .kind = Kind::flock,
       .lock = {.owner = info.lock_owner},
       .open = {},
       .handle = descriptor,
       .answer = [keep = core.shared_from_this(), closing = std::move(closing), ended](int) {
         return true;
       }});
}

void add_lock_operations(fuse_lowlevel_ops& table) {
  table.getlk = getlk;
  table.setlk = setlk;
  table.flock = flock;
}

}  // namespace ncfs
