// Who stays in a cache that cannot hold everybody: the least recently used file goes first.
#include <algorithm>

#include "proptests/plan_runner.h"
#include "sim/swarm.h"

namespace ncfs {
namespace {

constexpr std::uint32_t kRounds = 200;

// Uses one file and closes it again.
bool use(World& world, std::uint64_t file) {
  world.apply({StepOp::open, file});
  if (!world.settle(kRounds)) return false;
  world.readers().close_all();
  return world.settle(kRounds);
}

bool is_cached(World& world, std::uint64_t file) {
  world.apply({StepOp::open, file});
  if (!world.settle(kRounds)) return false;
  return world.readers().files().begin()->second.result.reason == OpenReason::cached;
}

// Of the files 0, 1 and 2 the cache holds any two, but not all three. The last two that were used
// are in it, the third is not.
RC_GTEST_PROP(Eviction, TakesTheLeastRecentlyUsed, ()) {
  const auto files =
      *rc::gen::container<std::vector<std::uint64_t>>(rc::gen::inRange<std::uint64_t>(0, 3));
  std::vector<std::uint64_t> by_age = {0, 1, 2};
  World world;
  world.apply({StepOp::knob, 1, 1});
  for (const std::uint64_t file : by_age) RC_ASSERT(use(world, file));
  for (const std::uint64_t file : files) {
    RC_ASSERT(use(world, file));
    std::erase(by_age, file);
    by_age.push_back(file);
  }
  RC_ASSERT(is_cached(world, by_age[2]));
  world.readers().close_all();
  RC_ASSERT(is_cached(world, by_age[1]));
  world.readers().close_all();
  RC_ASSERT(!is_cached(world, by_age[0]));
  RC_ASSERT(!world.violation());
}

TEST(Eviction, SwarmTakesTheLeastRecentlyUsed) {
  for (std::uint64_t seed = 3000; seed < 3100; ++seed) {
    Rng rng(seed);
    const Plan plan = make_swarm_plan(rng, 200);
    EXPECT_EQ(describe(run_guarded(plan, &check_eviction_order)), "") << "seed " << seed << '\n'
                                                                      << to_string(plan);
  }
}

}  // namespace
}  // namespace ncfs
