// After any plan, once nothing stands in the way, everything settles: L1 Cached and L2 Zero.
#include "proptests/plan_runner.h"
#include "sim/swarm.h"

namespace ncfs {
namespace {

RC_GTEST_PROP(Liveness, HealedWorldCachesWhatFitsAndHoldsNothing, ()) {
  const Plan plan = *rc::arbitrary_plan();
  const std::optional<Violation> violation = run_guarded(plan, &check_liveness);
  if (violation) RC_LOG() << describe(violation);
  RC_ASSERT(!violation);
}

TEST(Liveness, SwarmSettles) {
  for (std::uint64_t seed = 1000; seed < 1120; ++seed) {
    Rng rng(seed);
    const Plan plan = make_swarm_plan(rng, 300);
    EXPECT_EQ(describe(run_guarded(plan, &check_liveness)), "") << "seed " << seed << '\n'
                                                                << to_string(plan);
  }
}

}  // namespace
}  // namespace ncfs
