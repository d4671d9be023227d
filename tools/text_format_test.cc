#include "tools/text_format.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

TEST(TextFormat, SizesHaveOneDigitAndTheUnitThatFits) {
  EXPECT_EQ(human_size(0), "0 B");
  EXPECT_EQ(human_size(1023), "1023 B");
  EXPECT_EQ(human_size(1536), "1.5 KiB");
  EXPECT_EQ(human_size(20ULL << 30), "20.0 GiB");
  EXPECT_EQ(human_size((1ULL << 20) - 1), "1.0 MiB");
}

TEST(TextFormat, DurationsHaveTwoUnits) {
  EXPECT_EQ(human_duration(0.44), "0.4 s");
  EXPECT_EQ(human_duration(-1), "0.0 s");
  EXPECT_EQ(human_duration(59.9), "59 s");
  EXPECT_EQ(human_duration(200), "3 min 20 s");
  EXPECT_EQ(human_duration(7500), "2 h 5 min");
  EXPECT_EQ(human_duration(86400 * 4 + 3600 * 3), "4 d 3 h");
  EXPECT_EQ(human_duration(1e300), "forever");
}

TEST(TextFormat, ABarIsFullOnlyWhenAllIsDone) {
  EXPECT_EQ(progress_bar(0, 10, 5), "[-----]");
  EXPECT_EQ(progress_bar(5, 10, 4), "[##--]");
  EXPECT_EQ(progress_bar(999, 1000, 5), "[####-]");
  EXPECT_EQ(progress_bar(10, 10, 5), "[#####]");
  EXPECT_EQ(progress_bar(20, 10, 5), "[#####]");
  EXPECT_EQ(progress_bar(0, 0, 5), "");
}

TEST(TextFormat, APercentageIs100OnlyWhenAllIsDone) {
  EXPECT_EQ(percentage(120, 130), "92.3 %");
  EXPECT_EQ(percentage(99999, 100000), "99.9 %");
  EXPECT_EQ(percentage(5, 5), "100.0 %");
  EXPECT_EQ(percentage(0, 0), "- %");
}

}  // namespace
}  // namespace ncfs
