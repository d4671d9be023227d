// S12 Same: one plan leaves one trace. What makes it differ is a bug of its own: memory that was
// never written, an address used as a key, a clock.
#include "proptests/plan_runner.h"
#include "sim/latency.h"
#include "sim/swarm.h"

namespace ncfs {
namespace {

TEST(Determinism, SamePlanLeavesTheSameTrace) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(seed);
    const Plan plan = make_swarm_plan(rng, 300);
    EXPECT_EQ(describe(check_same(plan)), "") << "seed " << seed;
  }
}

// The driver draws from a stream of its own and looks at the world; what it ran is a plan, and that
// plan run by itself leaves the same trace.
TEST(Determinism, LatencyOrderedRunIsThePlanThatItRecords) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    Rng rng(seed);
    const Plan workload = make_swarm_plan(rng, 150);
    World world;
    LatencyDriver driver(world, workload, rng.fork("latency"));
    Plan recorded;
    while (const std::optional<Step> step = driver.next()) {
      recorded.push_back(*step);
      world.apply(*step);
    }
    EXPECT_GT(recorded.size(), workload.size() / 2);
    EXPECT_EQ(run_plan(recorded).trace_digest, world.trace_digest()) << "S12 Same, seed " << seed;
  }
}

TEST(Determinism, OneStepMoreLeavesAnotherTrace) {
  Rng rng(1);
  Plan plan = make_swarm_plan(rng, 100);
  const std::uint64_t before = run_plan(plan).trace_digest;
  plan.push_back({StepOp::tick, 1});
  EXPECT_NE(run_plan(plan).trace_digest, before);
}

}  // namespace
}  // namespace ncfs
