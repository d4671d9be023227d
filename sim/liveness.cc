// L1 and L2: what must come about once nothing stands in the way.
#include <string>

#include "engine/format.h"
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
  if (auto v = held("cache files open", world.disk().handles_open())) return v;
  return held("source files open", world.nfs().handles_open());
}

// Opened alone, a file that fits and is worth it must be complete at the next open.
std::optional<Violation> check_becomes_cached(World& world, std::uint64_t file) {
  const std::string& path = world.paths()[file];
  if (!world.nfs().exists(path)) return std::nullopt;
  const Config& config = world.life()->config();
  const std::uint64_t size = world.nfs().history(world.nfs().inode_at(path)).back().version.size;
  // It has to fit beside what others have pinned; how large those are only the engine knows.
  const EngineStatus status = world.life()->engine().status();
  const bool is_wanted =
      size > 0 && size >= config.min_file_size_bytes &&
      object_charge(size, config.block_size_bytes) + status.pinned_bytes <= status.limit_bytes &&
      config.cache_ttl == 0;
  bool is_complete = false;
  for (int time = 0; time < 2; ++time) {
    world.apply({StepOp::open, file});
    if (!world.settle(kRoundsMax)) return stuck(world, "after opening " + path);
    is_complete = world.readers().files().begin()->second.result.is_complete;
    world.readers().close_all();
    if (!world.settle(kRoundsMax)) return stuck(world, "after closing " + path);
  }
  if (is_complete || !is_wanted) return std::nullopt;
  return Violation{"L1 Cached", path + " fits and is still not cached: " + world.describe()};
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
  world.apply({StepOp::stop});
  if (!world.settle(kRoundsMax)) return stuck(world, "after stopping");
  if (!world.readers().is_stopped()) return Violation{"L1 Cached", "never says that it stopped"};
  return check_gauges(world);
}

}  // namespace ncfs
