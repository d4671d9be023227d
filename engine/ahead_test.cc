#include "engine/ahead.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

constexpr std::uint64_t kBlocks = 16;

void judge(AheadLimit& limit, std::uint32_t used, std::uint32_t wasted) {
  for (std::uint32_t block = 0; block < used + wasted; ++block) limit.judge(block < used, kBlocks);
}

TEST(AheadLimit, ComesDownFastAndGoesUpSlowly) {
  AheadLimit limit;
  EXPECT_EQ(limit.of(kBlocks), 16U);
  judge(limit, 3, 5);
  EXPECT_EQ(limit.of(kBlocks), 4U);
  judge(limit, 0, 16);
  EXPECT_EQ(limit.of(kBlocks), 0U);
  judge(limit, 6, 2);
  EXPECT_EQ(limit.of(kBlocks), 1U);
  judge(limit, 8, 0);
  EXPECT_EQ(limit.of(kBlocks), 2U);
}

TEST(AheadLimit, StaysBetweenTheThresholds) {
  AheadLimit limit;
  judge(limit, 0, 8);
  for (const std::uint32_t used : {4, 5}) {
    judge(limit, used, 8 - used);
    EXPECT_EQ(limit.of(kBlocks), 4U);
  }
}

TEST(AheadLimit, NoWasteIsTooMuchToRecoverFrom) {
  AheadLimit limit;
  judge(limit, 0, 8000);
  judge(limit, 5 * AheadLimit::kJudged, 0);
  EXPECT_EQ(limit.of(kBlocks), kBlocks);
  judge(limit, 8000, 0);
  EXPECT_EQ(limit.of(kBlocks), kBlocks);
}

}  // namespace
}  // namespace ncfs
