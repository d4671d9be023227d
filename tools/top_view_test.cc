#include "tools/top_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ncfs {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

json status_with(int hits, int misses, int passed_bytes) {
  return {{"mountpoint", "/mnt/cached"},
          {"state", "running"},
          {"opens", {{"hits", hits}, {"misses", misses}, {"passed_through_bytes", passed_bytes}}},
          {"reads_by_daemon", {{"bytes_from_cache", 3 * passed_bytes}}},
          {"copies",
           {{"in_progress", {{{"path", "models/x"}, {"size_bytes", 100}, {"done_bytes", 50}}}}}}};
}

TEST(TopView, RatesAreOfWhatHappenedBetweenTwoLooks) {
  const json rates = top_rates(status_with(40, 10, 4096), status_with(10, 0, 2048), 2);
  EXPECT_EQ(rates["opens_hit"], 15.0);
  EXPECT_EQ(rates["opens_miss"], 5.0);
  EXPECT_EQ(rates["open_hit_ratio"], 0.75);
  EXPECT_EQ(rates["passed_through_bytes"], 1024.0);
  EXPECT_EQ(rates["daemon_byte_hit_ratio"], 1.0);
  EXPECT_EQ(rates["writes"], 0.0);
}

TEST(TopView, WhereNothingHappenedThereIsNoRatioAndANewDaemonCountsFromZero) {
  const json rates = top_rates(status_with(1, 1, 1), status_with(10, 10, 10), 1);
  EXPECT_EQ(rates["opens_hit"], 0.0);
  EXPECT_TRUE(rates["open_hit_ratio"].is_null());
}

TEST(TopView, ShowsRatesCopiesAndHotFilesAndWhatIsNotCounted) {
  const json status = status_with(40, 10, 4096);
  const json rates = top_rates(status, status_with(10, 0, 2048), 2);
  const json hot = {{{"path", "models/y"}, {"opens", 12}, {"size_bytes", 2048}}};
  const std::string told = top_text(status, rates, hot);
  EXPECT_THAT(told, HasSubstr("20.0/s, 75.0 % of them found the whole file"));
  EXPECT_THAT(told,
              HasSubstr("of files of 1.0 KiB/s: the kernel reads as much of them as it wants, "
                        "uncounted"));
  EXPECT_THAT(told, HasSubstr("50.0 % of 100 B  models/x"));
  EXPECT_THAT(told, HasSubstr("12     2.0 KiB  models/y\n"));
  EXPECT_THAT(told, Not(HasSubstr("\033")));
  EXPECT_THAT(top_text(status, rates, nullptr), HasSubstr("only root is told names"));
}

}  // namespace
}  // namespace ncfs
