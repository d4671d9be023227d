// S12 Same: one plan leaves one trace. What makes it differ is a bug of its own: memory that was
// never written, an address used as a key, a clock.
#include "proptests/plan_runner.h"
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

TEST(Determinism, OneStepMoreLeavesAnotherTrace) {
  Rng rng(1);
  Plan plan = make_swarm_plan(rng, 100);
  const std::uint64_t before = run_plan(plan).trace_digest;
  plan.push_back({StepOp::tick, 1});
  EXPECT_NE(run_plan(plan).trace_digest, before);
}

}  // namespace
}  // namespace ncfs
