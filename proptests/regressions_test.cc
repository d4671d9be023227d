// Plans that once broke a promise, or break it with a bug of engine/planted.h, one file each in
// regressions/, named after what goes wrong. To add one:
// `simulate --output regressions/NNNN-what-goes-wrong.plan`.
#include <vector>

#include "proptests/plan_runner.h"

namespace ncfs {
namespace {

TEST(Regressions, EverySavedPlanKeepsEveryPromise) {
  const std::vector<SavedPlan> plans = saved_plans(NCFS_REGRESSIONS_DIRECTORY);
  ASSERT_FALSE(plans.empty()) << "looked in " << NCFS_REGRESSIONS_DIRECTORY;
  for (const auto& [path, parsed] : plans) {
    EXPECT_EQ(parsed.error, "") << path;
    EXPECT_EQ(describe(run_guarded(parsed.plan, &check_liveness)), "") << path;
  }
}

}  // namespace
}  // namespace ncfs
