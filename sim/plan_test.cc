// Plans as text, as data, and made smaller.
#include "sim/plan.h"

#include <gtest/gtest.h>

#include "sim/rng.h"
#include "sim/shrink.h"
#include "sim/swarm.h"
#include "sim/world.h"

namespace ncfs {
namespace {

TEST(Plan, TextOfAPlanParsesToThePlan) {
  Rng rng(7);
  for (int count = 0; count < 20; ++count) {
    const Plan plan = make_swarm_plan(rng, 100);
    const ParsedPlan parsed = parse_plan(to_string(plan));
    EXPECT_EQ(parsed.error, "");
    EXPECT_EQ(to_string(parsed.plan), to_string(plan));
  }
}

TEST(Plan, CommentsAndMissingArgumentsAreFine) {
  const ParsedPlan parsed = parse_plan("# a story\n\nread 1 2  # half a read\n  run\n");
  EXPECT_EQ(parsed.error, "");
  EXPECT_EQ(parsed.plan, (Plan{{StepOp::read, 1, 2, 0}, {StepOp::run, 0, 0, 0}}));
}

TEST(Plan, ErrorsNameTheLine) {
  EXPECT_EQ(parse_plan("run\nopne 1\n").error, "line 2: there is no step \"opne\"");
  EXPECT_EQ(parse_plan("open one\n").error, "line 1: \"one\" is not a number");
  EXPECT_EQ(parse_plan("open 1 2 3\n").error, "line 1: \"open\" takes 2 arguments");
}

TEST(Plan, EverySubsequenceIsAPlan) {
  Rng rng(11);
  const Plan whole = make_swarm_plan(rng, 200);
  for (int count = 0; count < 20; ++count) {
    Plan some;
    for (const Step& step : whole) {
      if (rng.chance({1, 3})) some.push_back(step);
    }
    const PlanResult result = run_plan(some);
    EXPECT_EQ(result.steps_done, some.size());
    EXPECT_FALSE(result.violation) << result.violation->name << ": " << result.violation->message;
  }
}

TEST(Shrink, FindsTheTwoStepsThatMatter) {
  Rng rng(3);
  Plan plan = make_swarm_plan(rng, 2000);
  std::erase_if(plan, [](const Step& step) { return step.op == StepOp::power; });
  plan.insert(plan.begin() + 1200, {StepOp::power, 12345, 0, 0});
  std::uint64_t runs = 0;
  const Plan small = shrink_plan(plan, 10'000, [&](const Plan& candidate) {
    ++runs;
    const auto crash = std::find_if(candidate.begin(), candidate.end(), [](const Step& step) {
      return step.op == StepOp::power && step.a >= 100;
    });
    return std::any_of(candidate.begin(), crash, [&](const Step& step) {
      return crash != candidate.end() && step.op == StepOp::open;
    });
  });
  ASSERT_EQ(small.size(), 2U);
  EXPECT_EQ(small[0].op, StepOp::open);
  EXPECT_EQ(small[1].op, StepOp::power);
  EXPECT_GE(small[1].a, 100U);
  EXPECT_LT(small[1].a, 200U);
  EXPECT_LT(runs, 500U);
}

TEST(Shrink, StopsWhenItsRunsAreUsedUp) {
  const Plan plan(1000, Step{StepOp::tick, 1, 0, 0});
  std::uint64_t runs = 0;
  const Plan small = shrink_plan(plan, 20, [&](const Plan& candidate) {
    ++runs;
    return candidate.size() > 900;
  });
  EXPECT_EQ(runs, 20U);
  EXPECT_LT(small.size(), plan.size());
}

TEST(Rng, ForksAreIndependentOfEachOtherAndOfDraws) {
  const Rng root(1);
  Rng disk = root.fork("disk");
  Rng nfs = root.fork("nfs");
  EXPECT_NE(disk.next(), nfs.next());
  Rng again = Rng(1).fork("disk");
  Rng expected = root.fork("disk");
  EXPECT_EQ(again.next(), expected.next());
}

TEST(Rng, ChancesComeAtTheirRate) {
  Rng rng(5);
  int hits = 0;
  for (int draw = 0; draw < 10'000; ++draw) hits += rng.chance({1, 4}) ? 1 : 0;
  EXPECT_GT(hits, 2300);
  EXPECT_LT(hits, 2700);
}

TEST(Survivors, CountingVisitsEveryCombinationOnce) {
  std::set<std::vector<std::uint64_t>> seen;
  for (std::uint64_t mask = 0; mask < 24; ++mask) {
    Survivors survivors(mask);
    const std::uint64_t first = survivors.choose(2);
    const std::uint64_t second = survivors.choose(3);
    seen.insert({first, second, survivors.choose(4)});
    EXPECT_EQ(survivors.combinations(), 24U);
  }
  EXPECT_EQ(seen.size(), 24U);
}

}  // namespace
}  // namespace ncfs
