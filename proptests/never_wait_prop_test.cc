// S7 NeverWait: with the cache disk hanging and every other fetch hanging, a read gets its answer
// from its own bytes. Proven in virtual time, after any plan.
#include "proptests/plan_runner.h"
#include "sim/swarm.h"

namespace ncfs {
namespace {

RC_GTEST_PROP(NeverWait, ReadDependsOnItsOwnBytesOnly, ()) {
  const Plan plan = *rc::arbitrary_plan();
  NeverWaitProbe probe;
  probe.file = *rc::gen::inRange<std::uint64_t>(0, 5);
  probe.offset = *rc::gen::inRange<std::uint64_t>(0, 48 * kKiB);
  probe.length = *rc::gen::inRange<std::uint64_t>(0, 48 * kKiB);
  probe.is_among_copies = *rc::gen::arbitrary<bool>();
  World world;
  for (const Step& step : plan) world.apply(step);
  std::optional<Violation> violation = world.violation();
  if (!violation) violation = check_never_wait(world, probe);
  if (violation) RC_LOG() << describe(violation);
  RC_ASSERT(!violation);
}

TEST(NeverWait, SwarmReadsDependOnTheirOwnBytesOnly) {
  for (std::uint64_t seed = 2000; seed < 2150; ++seed) {
    Rng rng(seed);
    const Plan plan = make_swarm_plan(rng, 200);
    const NeverWaitProbe probe = {rng.below(5), rng.below(48 * kKiB), rng.below(48 * kKiB),
                                  seed % 2 == 1};
    World world;
    for (const Step& step : plan) world.apply(step);
    std::optional<Violation> violation = world.violation();
    if (!violation) violation = check_never_wait(world, probe);
    ASSERT_FALSE(violation) << "seed " << seed << ": " << describe(violation) << '\n'
                            << to_string(plan);
  }
}

// The plainest case, so that the property cannot pass by never reading anything.
TEST(NeverWait, FirstReadOfAFileNeedsOneFetchAndNoDisk) {
  World world;
  EXPECT_EQ(describe(check_never_wait(world, {.file = 4, .offset = 8192, .length = 4095})), "");
  EXPECT_EQ(world.readers().reads_finished(), 1U);
}

}  // namespace
}  // namespace ncfs
