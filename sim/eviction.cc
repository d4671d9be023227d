// S5: who leaves a cache that cannot hold everybody.
#include <algorithm>

#include "engine/format.h"
#include "sim/oracle.h"
#include "sim/world.h"

namespace ncfs {
namespace {

// As in check_liveness().
constexpr std::uint32_t kRoundsMax = 600;

// Of the files 0, 1, 2 and 4, which are not empty at first, some leave the smaller caches at every
// turn, and the last to be used is at times the first of the next.
constexpr std::array<std::uint64_t, 10> kUses = {0, 1, 2, 1, 0, 4, 0, 2, 4, 1};

bool is_cached(const World& world, const std::string& path) {
  const SimDisk::Names names = world.disk().names_cached();
  const SourceInode inode = world.nfs().inode_at(path);
  for (const auto& [name, meta] : names) {
    const std::size_t dot = name.size() - suffix(NameKind::sidecar).size();
    if (!name.ends_with(suffix(NameKind::sidecar))) continue;
    if (!names.contains(name.substr(0, dot) + std::string(suffix(NameKind::data)))) continue;
    const std::optional<Sidecar> sidecar = decode(world.disk().view(meta).cached);
    if (sidecar && sidecar->file == world.nfs().file_id(inode) &&
        sidecar->version == world.nfs().history(inode).back().version) {
      return true;
    }
  }
  return false;
}

std::optional<Violation> settle(World& world) {
  world.readers().close_all();
  if (world.settle(kRoundsMax)) return world.violation();
  if (world.violation()) return world.violation();
  return Violation{"L1 Cached", "still busy: " + world.describe()};
}

}  // namespace

std::optional<Violation> check_eviction_order(World& world) {
  world.heal();
  if (auto violation = settle(world)) return violation;
  // What is pinned is passed over. Recovery may bring pins back: unpinned when it has ended.
  for (std::uint64_t file = 0; file < world.paths().size(); ++file) {
    world.apply({StepOp::unpin, file});
  }
  if (auto violation = settle(world)) return violation;
  // The other policies have models of their own (engine/eviction_test.cc).
  if (world.life()->engine().status().eviction != Eviction::lru) return std::nullopt;
  std::vector<std::string> by_age;  // least recently used first; cached when they were last used
  for (const std::uint64_t file : kUses) {
    const std::string& path = world.paths()[file];
    if (!world.nfs().exists(path)) continue;
    world.apply({StepOp::open, file});
    if (auto violation = settle(world)) return violation;
    std::erase(by_age, path);
    if (is_cached(world, path)) by_age.push_back(path);
    const auto oldest = std::find_if(by_age.begin(), by_age.end(),
                                     [&](const std::string& one) { return is_cached(world, one); });
    const auto gone = std::find_if(oldest, by_age.end(),
                                   [&](const std::string& one) { return !is_cached(world, one); });
    if (gone == by_age.end()) continue;
    return Violation{"S5 Pins", *gone + " was evicted before " + *oldest + ", used less recently"};
  }
  return std::nullopt;
}

}  // namespace ncfs
