#include "engine/ahead.h"

#include <gtest/gtest.h>

#include <random>

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

// Readers of whom so many percent of the blocks fetched ahead are used, over a long time.
TEST(AheadLimit, CostsLittleWhereItDoesNotPayAndStaysWhereItDoes) {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    for (const std::uint32_t percent : {0, 10, 20, 30, 85, 90, 95, 100}) {
      std::mt19937 random(seed);
      AheadLimit limit;
      std::uint64_t sum = 0;
      constexpr std::uint64_t kJudged = 10'000;
      for (std::uint64_t block = 0; block < kJudged; ++block) {
        limit.judge(random() % 100 < percent, kBlocks);
        sum += limit.of(kBlocks);
        ASSERT_LE(limit.of(kBlocks), kBlocks);
      }
      if (percent <= 30) {
        EXPECT_LT(sum, kJudged / 4) << percent;
      } else {
        EXPECT_GT(sum, kJudged * kBlocks * 3 / 4) << percent;
      }
    }
  }
}

}  // namespace
}  // namespace ncfs
