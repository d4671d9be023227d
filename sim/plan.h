// A test is data: a plan is a list of steps, each a plain value.
//
// Arguments that name something (a file, a handle, a pending request) are taken modulo what exists
// when the step is applied, and a step that has nothing to act on does nothing. Therefore every
// subsequence of a plan is a plan, and plans can be shrunk by leaving steps out. 0 is always the
// plainest value of an argument.
//
// Text form, one step per line: the name and its arguments in decimal; `#` begins a comment;
// missing arguments are 0.
//
//   open 1
//   complete 0
//   power 3        # keep two of the pending operations
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ncfs {

enum class StepOp : std::uint8_t {
  // Applications.
  open,     // file, whether it reads the source past the engine
  close,    // handle
  read,     // handle, offset, length: plans the read; asks the engine for what is missing
  advance,  // read: uses what was planned or answered, then plans on
  warm,     // file
  // Time.
  tick,  // nanoseconds, effects of requests that time out (bits)
  // Requests in flight.
  complete,     // request, is_early
  short_count,  // request, length
  fail,         // request, error, is_half_done
  hang,         // request
  release,      // request; also lands late writes
  run,          // rounds - 1: completes everything in order and advances all reads, so many times
  // Crashes and restarts.
  kill,     // effects in flight (survivor mask), whether open cache files stay held
  power,    // survivor mask
  stop,     // asks the engine to stop
  remount,  // 1: without waiting for the recovery
  release_holds,
  // Other clients of the source.
  source_write,     // file, offset, length
  source_restore,   // file, offset, length: and sets the mtime back
  source_mode,      // file
  source_truncate,  // file, size
  source_replace,   // file, size, whether open handles of the old file go on
  source_delete,    // file, whether open handles of the old file go on
  // The world as a whole.
  disk_full,   // bytes left
  disk_error,  // error
  disk_hang,
  disk_heal,
  nfs_error,  // error
  nfs_hang,
  nfs_heal,
  rot,            // sidecar, bit: flipped while no process runs
  knob,           // which, value: in force from the next start on
  wait,           // nanoseconds: time passes and no timer fires
  deliver,        // the engine takes the oldest event out of the mailbox
  disk_readonly,  // EROFS for whatever would change the disk
  disk_lies,      // syncs succeed and make nothing durable
  disk_stick,     // name: cannot be removed any more
  nfs_reboot,     // every handle of the source that is open now is stale
  // Errors or hangs of the disk or the source for a while, seen by readers who open and close.
  outage,  // kind, seconds
  // Rot while the process runs, and the search for it.
  rot_data,   // data file, bit
  misdirect,  // checked read of the cache: completed with other bytes of the file
  verify,     // file - 1; 0: everything
  limit,   // one of five sizes: the cache's limit, live
  pin,     // file: warms it, too
  unpin,   // file
  evict,   // file, or all; seconds it must not have been used
  // Our own mount.
  own_write,   // file, offset, length: asks for leave, then writes, and into what readers hold
  own_chmod,   // file; 1, 2: another client writes just before or after it; 3: told late
  own_rename,  // file, the file whose name it gets; as for own_chmod
  own_append,  // file, length: as own_write, at the end of the file, and the cache files grow
};
inline constexpr std::size_t kStepOpCount = static_cast<std::size_t>(StepOp::own_append) + 1;

struct Step {
  StepOp op{};
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  std::uint64_t c = 0;
  friend bool operator==(const Step&, const Step&) = default;
};

using Plan = std::vector<Step>;

[[nodiscard]] std::string_view to_string(StepOp op);
[[nodiscard]] std::uint32_t argument_count(StepOp op);
[[nodiscard]] std::string to_string(const Step& step);
[[nodiscard]] std::string to_string(std::span<const Step> plan);

struct ParsedPlan {
  Plan plan;
  std::string error;  // "line 3: ..."; empty if the text is a plan
};
[[nodiscard]] ParsedPlan parse_plan(std::string_view text);

}  // namespace ncfs
