// Random plans keep every safety invariant: adversarial ones from rapidcheck, which shrinks them,
// and longer ones with swarm-tuned weights, which are shrunk here.
#include "proptests/plan_runner.h"
#include "sim/shrink.h"
#include "sim/swarm.h"

namespace ncfs {
namespace {

RC_GTEST_PROP(Plans, KeepEveryInvariant, ()) {
  const Plan plan = *rc::arbitrary_plan();
  const std::optional<Violation> violation = run_guarded(plan);
  if (violation) RC_LOG() << describe(violation);
  RC_ASSERT(!violation);
}

// After the first few steps crash follows crash: recovery is code that ordinary plans seldom reach.
RC_GTEST_PROP(Plans, KeepEveryInvariantAcrossManyCrashes, ()) {
  const Plan plan = *rc::arbitrary_plan();
  Plan crashing;
  for (std::size_t index = 0; index < plan.size(); ++index) {
    crashing.push_back(plan[index]);
    if (index % 16 != 15) continue;
    crashing.push_back({index % 32 == 15 ? StepOp::power : StepOp::kill, kRandomMask + index});
    crashing.push_back({StepOp::remount, plan[index].b % 2});
  }
  const std::optional<Violation> violation = run_guarded(crashing);
  if (violation) RC_LOG() << describe(violation);
  RC_ASSERT(!violation);
}

TEST(Plans, SwarmKeepsEveryInvariant) {
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    Rng rng(seed);
    const Plan plan = make_swarm_plan(rng, 400);
    const std::optional<Violation> violation = run_guarded(plan);
    if (!violation) continue;
    const Plan small = shrink_plan(plan, 2000, [&](const Plan& candidate) {
      const auto again = run_guarded(candidate);
      return again && again->name == violation->name;
    });
    FAIL() << "seed " << seed << ": " << describe(violation) << '\n' << to_string(small);
  }
}

}  // namespace
}  // namespace ncfs
