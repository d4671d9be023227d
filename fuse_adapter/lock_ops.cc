// Locks of fcntl(2) and flock(2). Kept here and not on the source: they hold among all who use this
// mount, as on a local file system.
//
// They end with what the kernel tells of closing: FLUSH ends those of fcntl(2) of one process, and
// RELEASE those that were made through the handle. The kernel leaves FLUSH out for handles that
// were opened for reading before the first lock of the mount was asked for, so that programs which
// lock nothing need not pay for it.
#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
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

void getlk(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info, struct flock* wanted) {
  FuseCore& core = FuseCore::of(raw);
  const auto file = core.nodes.file_of(node);
  struct flock answer = *wanted;
  answer.l_type = F_UNLCK;
  const auto found =
      file ? core.locks.conflict(*file, Kind::posix, lock_of(*wanted, *info)) : std::nullopt;
  if (found) {
    answer.l_type = found->is_exclusive ? F_WRLCK : F_RDLCK;
    answer.l_whence = SEEK_SET;
    answer.l_start = static_cast<off_t>(found->first);
    answer.l_len = found->last == LockTable::kLastByte
                       ? 0
                       : static_cast<off_t>(found->last - found->first + 1);
    answer.l_pid = found->process;
  }
  fuse_reply_lock(raw, &answer);
}

void setlk(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info, struct flock* wanted, int waits) {
  FuseCore& core = FuseCore::of(raw);
  const auto file = core.nodes.file_of(node);
  if (!file) {
    fuse_reply_err(raw, ENOLCK);
    return;
  }
  const Lock lock = lock_of(*wanted, *info);
  if (wanted->l_type == F_UNLCK) {
    core.locks.unlock(*file, Kind::posix, lock.owner, lock.first, lock.last);
    fuse_reply_err(raw, 0);
    return;
  }
  core.lock_owners.add(info->fh, lock.owner);
  take(core, raw, *file, Kind::posix, lock, waits != 0);
}

void flock(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info, int operation) {
  FuseCore& core = FuseCore::of(raw);
  const auto file = core.nodes.file_of(node);
  if (!file) {
    fuse_reply_err(raw, ENOLCK);
    return;
  }
  if ((operation & LOCK_UN) != 0) {
    core.locks.unlock(*file, Kind::flock, info->lock_owner);
    fuse_reply_err(raw, 0);
    return;
  }
  const Lock lock{.owner = info->lock_owner, .is_exclusive = (operation & LOCK_EX) != 0};
  take(core, raw, *file, Kind::flock, lock, (operation & LOCK_NB) == 0);
}

}  // namespace

void release_locks_at_close(FuseCore& core, NodeId node, const fuse_file_info& info) {
  if (!core.lock_owners.any()) return;
  const auto file = core.nodes.file_of(node);
  if (file) core.locks.unlock(*file, Kind::posix, info.lock_owner);
}

void release_locks_with_handle(FuseCore& core, NodeId node, const fuse_file_info& info) {
  const auto owners = core.lock_owners.take(info.fh);
  if (owners.empty() && info.flock_release == 0) return;
  const auto file = core.nodes.file_of(node);
  if (!file) return;
  for (const LockTable::Owner owner : owners) core.locks.unlock(*file, Kind::posix, owner);
  if (info.flock_release != 0) core.locks.unlock(*file, Kind::flock, info.lock_owner);
}

void add_lock_operations(fuse_lowlevel_ops& table) {
  table.getlk = getlk;
  table.setlk = setlk;
  table.flock = flock;
}

}  // namespace ncfs
