// Plans that once broke a promise, one file each in regressions/, named after what went wrong. To
// add one: `simulate --output regressions/NNNN-what-went-wrong.plan`.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "proptests/plan_runner.h"

namespace ncfs {
namespace {

std::vector<std::filesystem::path> saved_plans() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(NCFS_REGRESSIONS_DIRECTORY)) {
    if (entry.path().extension() == ".plan") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

TEST(Regressions, EverySavedPlanKeepsEveryPromise) {
  const std::vector<std::filesystem::path> paths = saved_plans();
  ASSERT_FALSE(paths.empty()) << "looked in " << NCFS_REGRESSIONS_DIRECTORY;
  for (const std::filesystem::path& path : paths) {
    std::ifstream file(path);
    const std::string text(std::istreambuf_iterator<char>(file), {});
    const ParsedPlan parsed = parse_plan(text);
    EXPECT_EQ(parsed.error, "") << path;
    EXPECT_EQ(describe(run_guarded(parsed.plan, &check_liveness)), "") << path;
  }
}

}  // namespace
}  // namespace ncfs
