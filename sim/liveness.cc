// L1, L2 and L4: what must come about once nothing stands in the way, or nothing but one bad file.
#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "engine/format.h"
#include "sim/knobs.h"
#include "sim/oracle.h"
#include "sim/world.h"

namespace ncfs {
namespace {

// Back-off grows to eight seconds and a hung request times out after thirty; what takes longer than
// some hundred rounds of one second never ends.
constexpr std::uint32_t kRoundsMax = 600;

Violation stuck(const World& world, const std::string& when) {
  if (world.violation()) return *world.violation();
  return {"L1 Cached", "still busy " + when + ": " + world.describe()};
}

std::optional<Violation> check_gauges(const World& world) {
  if (world.violation()) return world.violation();
  const EngineStatus status = world.life()->engine().status();
  const auto held = [&](const char* what, std::uint64_t count) -> std::optional<Violation> {
    if (count == 0) return std::nullopt;
    return Violation{"L2 Zero", std::to_string(count) + ' ' + what + ": " + world.describe()};
  };
  if (auto v = held("requests in flight", world.life()->io().pending().size())) return v;
  if (auto v = held("buffers in use", status.buffers_in_use)) return v;
  if (auto v = held("bytes reserved", status.reserved_bytes)) return v;
  if (auto v = held("handles in the engine", status.handles_open)) return v;
  for (const AheadCounts& ahead : status.ahead) {
    const std::uint64_t unknown = ahead.fetched - ahead.used - ahead.wasted;
    if (auto v = held("bytes fetched ahead of unknown fate", unknown)) return v;
  }
  if (auto v = held("cache files open", world.disk().handles_open())) return v;
  return held("source files open", world.nfs().handles_open());
}

std::uint64_t size_of(const World& world, const std::string& path) {
  return world.nfs().history(world.nfs().inode_at(path)).back().version.size;
}

// It has to fit beside what others have pinned; how large those are only the engine knows.
bool is_worth_caching(const World& world, const std::string& path) {
  const std::uint64_t size = size_of(world, path);
  const Config& config = world.life()->config();
  if (config.is_too_small(size) || config.is_above_max(size)) return false;
  if (!config.paths.admit(path)) return false;
  const EngineStatus status = world.life()->engine().status();
  return object_charge(size, config.block_size_bytes) + status.pinned_bytes <= status.limit_bytes;
}

// Opened and read alone, as often as it takes to be wanted, a file that fits and is worth it must be
// complete at the next open.
std::optional<Violation> check_becomes_cached(World& world, std::uint64_t file) {
  const std::string& path = world.paths()[file];
  if (!world.nfs().exists(path)) return std::nullopt;
  const Config& config = world.life()->config();
  const bool is_wanted = is_worth_caching(world, path);
  bool is_complete = false;
  const int last = config.cache_on == CacheOn::second_open ? 2 : 1;
  for (int time = 0; time <= last; ++time) {
    world.apply({StepOp::open, file});
    if (!world.settle(kRoundsMax)) return stuck(world, "after opening " + path);
    if (config.cache_on == CacheOn::read) {
      world.apply({StepOp::read, world.readers().files().size() - 1});
      if (!world.settle(kRoundsMax)) return stuck(world, "after reading " + path);
    }
    is_complete = world.readers().files().rbegin()->second.result.is_complete;
    if (time + 1 == last && config.cache_ttl > 0) continue;  // it may expire when it is closed
    world.readers().close_all();
    if (!world.settle(kRoundsMax)) return stuck(world, "after closing " + path);
  }
  if (is_complete || !is_wanted) return std::nullopt;
  return Violation{"L1 Cached", path + " fits and is still not cached: " + world.describe()};
}

// How the copy of a file fails for good.
enum class Ailment : std::uint8_t {
  while_open,    // every request, while a reader has it open
  while_closed,  // every request, when the copier is alone with it
  at_commit,     // only the question whether it has changed
};
constexpr std::uint32_t kAilments = 3;

bool is_ailing(const World& world, const Request& request, const std::string& path,
               Ailment ailment) {
  if (request.op == Op::source_open) return request.name == path && ailment != Ailment::at_commit;
  if (request.op != Op::source_stat && request.op != Op::source_read) return false;
  if (world.nfs().inode_of(request.file) != world.nfs().inode_at(path)) return false;
  return request.op == Op::source_stat || ailment != Ailment::at_commit;
}

// Completes what is in flight or in the mailbox, oldest first; whether a request of the ailing file
// was among it.
bool complete_round(World& world, const std::string& ailing, Ailment ailment) {
  world.readers().deliver_all();
  std::vector<Ticket> tickets;
  for (const SimIo::Pending& one : world.life()->io().pending()) {
    tickets.push_back(one.request.ticket);
  }
  bool has_failed = false;
  for (const Ticket ticket : tickets) {
    const std::vector<SimIo::Pending>& pending = world.life()->io().pending();
    const auto found = std::find_if(pending.begin(), pending.end(), [ticket](const auto& one) {
      return one.request.ticket == ticket;
    });
    if (found == pending.end()) continue;
    Answer answer;
    if (is_ailing(world, found->request, ailing, ailment)) {
      answer = {.kind = Answer::Kind::error, .error = EIO};
      has_failed = true;
    }
    world.complete(static_cast<std::size_t>(found - pending.begin()), answer);
  }
  return has_failed;
}

// Two files change; from then on the copy of the first fails. Within a minute it may be tried as
// often as doubling pauses up to the simulator's retry_max allow, and the second gets cached.
std::optional<Violation> check_back_off(World& world) {
  constexpr std::uint64_t kSeconds = 64;
  constexpr std::uint32_t kRoundsPerSecond = 30;
  // A second pause of one to four seconds each, then one of eight; the first try; one attempt may
  // take two rounds, as what is in flight when it fails ends later.
  static_assert(kSeconds == 64);
  const std::uint64_t attempts_max = 4 + kSeconds * kSecond / Knobs().engine.retry_max;

  const Config& config = world.life()->config();
  std::vector<std::uint64_t> files;
  std::uint64_t charge = 0;
  const EngineStatus status = world.life()->engine().status();
  const std::uint64_t room = status.limit_bytes - std::min(status.limit_bytes, status.pinned_bytes);
  for (std::uint64_t file = 0; file < world.paths().size() && files.size() < 2; ++file) {
    const std::string& path = world.paths()[file];
    if (!world.nfs().exists(path)) continue;
    const std::uint64_t size = size_of(world, path);
    const std::uint64_t own_charge = object_charge(size, config.block_size_bytes);
    if (!is_worth_caching(world, path) || charge + own_charge > room) continue;
    files.push_back(file);
    charge += own_charge;
  }
  if (files.empty()) return std::nullopt;
  const auto ailment = static_cast<Ailment>(world.trace_digest() % kAilments);
  for (const std::uint64_t file : files) {
    world.apply({StepOp::source_write, file});
    world.apply({StepOp::open, file});
  }
  if (ailment == Ailment::while_closed) world.apply({StepOp::close, 0});
  const std::string& ailing = world.paths()[files[0]];
  std::uint64_t rounds_failed = 0;
  for (std::uint64_t second = 0; second < kSeconds && !world.violation(); ++second) {
    for (std::uint32_t round = 0; round < kRoundsPerSecond; ++round) {
      if (world.life()->io().pending().empty() && !world.readers().has_mail()) break;
      if (complete_round(world, ailing, ailment)) ++rounds_failed;
      world.advance_readers();
    }
    world.apply({StepOp::tick, kSecond});
  }
  if (world.violation()) return world.violation();
  if (rounds_failed > 2 * attempts_max) {
    return Violation{"L4 BackOff", "the copy of " + ailing + " failed and was tried again " +
                                       std::to_string(rounds_failed) + " times in " +
                                       std::to_string(kSeconds) + " seconds"};
  }
  if (files.size() == 2) {
    world.readers().close_all();
    world.apply({StepOp::open, files[1]});
    for (std::uint32_t round = 0; round < kRoundsPerSecond; ++round) {
      complete_round(world, ailing, ailment);
    }
    if (!world.readers().files().begin()->second.result.is_complete) {
      return Violation{"L4 BackOff", ailing + " fails and keeps " + world.paths()[files[1]] +
                                         " from being cached: " + world.describe()};
    }
  }
  world.readers().close_all();
  if (!world.settle(kRoundsMax)) return stuck(world, "after a copy that failed");
  return world.violation();
}

}  // namespace

std::optional<Violation> check_liveness(World& world) {
  world.heal();
  world.readers().close_all();
  if (!world.settle(kRoundsMax)) return stuck(world, "after healing");
  if (auto violation = check_gauges(world)) return violation;
  for (std::uint64_t file = 0; file < world.paths().size(); ++file) {
    if (auto violation = check_becomes_cached(world, file)) return violation;
  }
  // It counts on every open's being enough for a copy.
  if (world.life()->config().cache_on == CacheOn::open) {
    if (auto violation = check_back_off(world)) return violation;
  }
  world.apply({StepOp::stop});
  if (!world.settle(kRoundsMax)) return stuck(world, "after stopping");
  if (!world.readers().is_stopped()) return Violation{"L1 Cached", "never says that it stopped"};
  return check_gauges(world);
}

}  // namespace ncfs
