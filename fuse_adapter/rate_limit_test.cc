#include "fuse_adapter/rate_limit.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

TEST(RateLimit, AdmitsSoManyOfAKindInAnIntervalAndTellsOnceHowManyWereNot) {
  RateLimit limit;
  for (std::uint64_t count = 0; count < RateLimit::kMessagesMax; ++count) {
    ASSERT_TRUE(limit.admit("hit", kSecond).is_admitted);
  }
  for (int count = 0; count < 7; ++count) EXPECT_FALSE(limit.admit("hit", kSecond).is_admitted);
  EXPECT_TRUE(limit.admit("miss", kSecond).is_admitted);
  EXPECT_FALSE(limit.admit("hit", kSecond + RateLimit::kInterval - 1).is_admitted);
  // Another kind tells it, if none of this one comes.
  const auto next = limit.admit("miss", kSecond + RateLimit::kInterval);
  EXPECT_TRUE(next.is_admitted);
  ASSERT_EQ(next.suppressed.size(), 1U);
  EXPECT_EQ(next.suppressed[0].kind, "hit");
  EXPECT_EQ(next.suppressed[0].messages, 8U);
  const auto again = limit.admit("hit", kSecond + RateLimit::kInterval);
  EXPECT_TRUE(again.is_admitted);
  EXPECT_TRUE(again.suppressed.empty());
}

}  // namespace
}  // namespace ncfs
