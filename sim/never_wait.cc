// S7: a read depends on its own bytes alone, shown in virtual time.
#include <algorithm>

#include "sim/oracle.h"
#include "sim/world.h"

namespace ncfs {
namespace {

// A read of the largest file has some dozen blocks, each with its fetch and its use.
constexpr std::uint32_t kMovesMax = 500;
// Recovery asks for some hundred shards before copies begin.
constexpr std::uint32_t kMovesToCopiesMax = 2000;

// Somebody waits for bytes that this request fetches, or for what it tells about such a fetch.
bool is_waited_for(const World& world, const SimIo::Pending& pending) {
  const Request& request = pending.request;
  if (request.op != Op::source_read && request.op != Op::source_stat) return false;
  const SourceInode inode = world.nfs().inode_of(request.file);
  const std::vector<ActiveRead>& reads = world.readers().reads();
  return std::any_of(reads.begin(), reads.end(), [&](const ActiveRead& read) {
    if (read.phase != ActiveRead::Phase::waiting) return false;
    if (world.readers().files().at(read.handle).inode != inode) return false;
    return request.op == Op::source_stat ||
           (request.range.offset < read.segment.end() && read.segment.offset < request.range.end());
  });
}

bool complete_one_waited_for(World& world) {
  const std::vector<SimIo::Pending>& pending = world.life()->io().pending();
  const auto found = std::find_if(pending.begin(), pending.end(), [&](const SimIo::Pending& one) {
    return is_waited_for(world, one);
  });
  if (found == pending.end()) return false;
  world.complete(static_cast<std::size_t>(found - pending.begin()), {});
  return true;
}

// Wants all files in the cache and completes everything but reads of the source: the copier then
// holds as many of them as it ever can.
void start_copies(World& world) {
  world.apply({StepOp::disk_heal});
  for (std::uint64_t file = 0; file < world.paths().size(); ++file) {
    world.apply({StepOp::warm, file});
  }
  for (std::uint32_t move = 0; move < kMovesToCopiesMax && !world.violation(); ++move) {
    const SimIo& io = world.life()->io();
    const auto next =
        std::find_if(io.pending().begin(), io.pending().end(), [&](const SimIo::Pending& one) {
          return one.request.op != Op::source_read && !io.is_stuck(one);
        });
    if (next == io.pending().end()) return;
    world.complete(static_cast<std::size_t>(next - io.pending().begin()), {});
  }
}

// Lets readers go on until all reads are done or rest on the hanging disk.
std::optional<Violation> finish_reads(World& world) {
  for (std::uint32_t move = 0; move < kMovesMax; ++move) {
    world.advance_readers();
    const std::vector<ActiveRead>& reads = world.readers().reads();
    // With Checksum::read the engine reads the cache for them.
    const std::vector<SimIo::Pending>& pending = world.life()->io().pending();
    const bool rests_on_disk =
        world.life()->config().checksum == Checksum::read &&
        std::any_of(pending.begin(), pending.end(), [](const SimIo::Pending& one) {
          return one.request.op == Op::cache_read || one.request.op == Op::cache_load;
        });
    const bool is_source_asked =
        std::any_of(pending.begin(), pending.end(),
                    [&](const SimIo::Pending& one) { return is_waited_for(world, one); });
    const bool is_done = std::all_of(reads.begin(), reads.end(), [&](const ActiveRead& read) {
      return read.phase == ActiveRead::Phase::planned ||
             (read.phase == ActiveRead::Phase::waiting && rests_on_disk && !is_source_asked);
    });
    if (is_done || world.violation()) return world.violation();
    const bool has_answer = std::any_of(reads.begin(), reads.end(), [](const ActiveRead& read) {
      return read.phase == ActiveRead::Phase::answered;
    });
    if (has_answer) continue;
    if (!complete_one_waited_for(world)) {
      return Violation{"S7 NeverWait",
                       "a read waits for something else than its bytes: " + world.describe()};
    }
  }
  return Violation{"S7 NeverWait", "a read does not end: " + world.describe()};
}

}  // namespace

std::optional<Violation> check_never_wait(World& world, const NeverWaitProbe& probe) {
  world.apply({StepOp::nfs_heal});
  if (world.life() == nullptr || world.readers().is_stopping()) world.apply({StepOp::remount, 1});
  if (probe.is_among_copies) start_copies(world);
  world.apply({StepOp::disk_hang});
  if (auto violation = finish_reads(world)) return violation;

  const std::size_t files_before = world.readers().files().size();
  world.apply({StepOp::open, probe.file});
  if (world.readers().files().size() == files_before) return world.violation();
  // Its patience, and a tick to notice that it is over.
  world.apply({StepOp::tick, world.life()->config().open_patience});
  world.apply({StepOp::tick, kSecond});
  if (world.violation()) return world.violation();
  if (!world.readers().files().rbegin()->second.is_answered) {
    return Violation{"S7 NeverWait", "an open waits for the cache: " + world.describe()};
  }
  world.apply({StepOp::read, files_before, probe.offset, probe.length});
  return finish_reads(world);
}

}  // namespace ncfs
