// plan_read() against a slow and obvious model, and its edges.

#include "engine/residency.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

constexpr std::uint64_t kBlock = 4096;

TEST(Residency, PlansNothingPastTheEndOfTheFile) {
  Residency residency(FileHandle{3}, 2 * kBlock + 100, kBlock);
  EXPECT_TRUE(plan_read(residency, {2 * kBlock + 100, 1}).range.empty());
  EXPECT_EQ(plan_read(residency, {2 * kBlock, 9999}).range, (ByteRange{2 * kBlock, 100}));
}

TEST(Residency, LeadingPlanIsTheLongestPrefixWithOneFate) {
  Residency residency(FileHandle{3}, 4 * kBlock, kBlock);
  residency.publish(1);
  residency.publish(2);
  const ReadPlan missing = plan_read(residency, {100, 4 * kBlock});
  EXPECT_FALSE(missing.resident);
  EXPECT_EQ(missing.range, (ByteRange{100, kBlock - 100}));
  const ReadPlan resident = plan_read(residency, {kBlock, 4 * kBlock});
  EXPECT_TRUE(resident.resident);
  EXPECT_EQ(resident.range, (ByteRange{kBlock, 2 * kBlock}));
}

TEST(Residency, MissingPlanEndsAtItsBlock) {
  Residency residency(FileHandle{3}, 4 * kBlock, kBlock);
  EXPECT_EQ(plan_read(residency, {10, 3 * kBlock}).range, (ByteRange{10, kBlock - 10}));
}

TEST(Residency, RevokedBlocksAreMissingAgain) {
  Residency residency(FileHandle{3}, 70 * kBlock, kBlock);
  for (std::uint64_t block = 0; block < 70; ++block) residency.publish(block);
  EXPECT_EQ(plan_read(residency, {0, 70 * kBlock}).range.length, 70 * kBlock);
  residency.revoke();
  for (std::uint64_t block = 0; block < 70; ++block) EXPECT_FALSE(residency.is_resident(block));
}

}  // namespace
}  // namespace ncfs
