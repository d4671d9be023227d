#include "tools/metrics_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace ncfs {
namespace {

TEST(MetricsView, EachNameIsDescribedOnceWithTheSamplesOfAllMounts) {
  const std::string one =
      "# HELP a The a.\n# TYPE a counter\na{m=\"1\"} 1\n# HELP b B.\n"
      "# TYPE b gauge\nb{m=\"1\"} 2\n";
  const std::string two = "# HELP a The a.\n# TYPE a counter\na{m=\"2\"} 3\n";
  EXPECT_EQ(merge_metrics({one, two}),
            "# HELP a The a.\n# TYPE a counter\na{m=\"1\"} 1\na{m=\"2\"} 3\n# HELP b B.\n"
            "# TYPE b gauge\nb{m=\"1\"} 2\n");
  EXPECT_EQ(merge_metrics({}), "");
}

TEST(MetricsView, ProgramsMayHaveThemAsJson) {
  const auto value = metrics_json("# HELP a The a.\n# TYPE a counter\na{m=\"1\"} 1\n");
  EXPECT_EQ(value, nlohmann::json::array({{{"name", "a"},
                                           {"type", "counter"},
                                           {"help", "The a."},
                                           {"samples", {"a{m=\"1\"} 1"}}}}));
}

}  // namespace
}  // namespace ncfs
