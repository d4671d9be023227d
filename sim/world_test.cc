// The world as a whole: an ordinary day goes well, and the oracle sees when one does not.
#include "sim/world.h"

#include <gtest/gtest.h>

#include "engine/format.h"

namespace ncfs {
namespace {

constexpr std::uint32_t kRounds = 100;

void apply_all(World& world, std::string_view text) {
  const ParsedPlan parsed = parse_plan(text);
  ASSERT_EQ(parsed.error, "");
  for (const Step& step : parsed.plan) world.apply(step);
}

std::string broken(const World& world) {
  return world.violation() ? world.violation()->name + ": " + world.violation()->message : "";
}

TEST(World, OpenedFileIsReadAndCopied) {
  World world;
  apply_all(world, "open 0\nread 0 0 12287\n");
  ASSERT_TRUE(world.settle(kRounds));
  EXPECT_EQ(broken(world), "");
  EXPECT_EQ(world.readers().reads_finished(), 1U);
  EXPECT_EQ(world.life()->engine().status().objects_cached, 1U);
  EXPECT_EQ(world.life()->io().source_bytes(), 12 * kKiB) << "every byte crosses once";
}

TEST(World, CachedFileIsCompleteAfterAKillAndAfterAPowerLoss) {
  for (const char* crash : {"kill\n", "power\n"}) {
    World world;
    apply_all(world, "open 0\n");
    ASSERT_TRUE(world.settle(kRounds));
    apply_all(world, crash);
    apply_all(world, "open 0\n");
    ASSERT_TRUE(world.settle(kRounds));
    EXPECT_TRUE(world.readers().files().begin()->second.result.is_complete);
    EXPECT_EQ(world.life()->io().source_bytes(), 0U);
    EXPECT_EQ(broken(world), "");
  }
}

TEST(World, ReaderGetsTheErrorOfTheSource) {
  World world;
  apply_all(world, "open 0\n");
  ASSERT_TRUE(world.settle(kRounds));
  apply_all(world, "kill\nopen 1\nread 0\nnfs_error 0\nrun 3\n");
  EXPECT_EQ(world.readers().reads_finished(), 1U);
  EXPECT_EQ(broken(world), "");
}

TEST(World, WarmedFileIsCopiedWithoutAReader) {
  World world;
  apply_all(world, "warm 2\n");
  ASSERT_TRUE(world.settle(kRounds));
  ASSERT_TRUE(world.readers().last_warm());
  EXPECT_EQ(world.readers().last_warm()->kind, WarmResult::Kind::copied);
  EXPECT_EQ(world.disk().handles_open(), 0U);
  EXPECT_EQ(world.nfs().handles_open(), 0U);
}

TEST(World, HealedWorldComesToRest) {
  World world;
  apply_all(world,
            "open 0\nread 0 0 5000\nopen 1\nhang\ndisk_error\nrun\nnfs_hang\nopen 2\nread 1\n"
            "tick 1000000000\nsource_write 0 7 7\nopen 0\nkill\n");
  const std::optional<Violation> violation = check_liveness(world);
  EXPECT_FALSE(violation) << violation->name << ": " << violation->message;
}

// A published object with one wrong byte, as only a broken engine or disk would leave it.
TEST(Oracle, SeesAWrongByteInACompleteObject) {
  World world;
  apply_all(world, "open 0\n");
  ASSERT_TRUE(world.settle(kRounds));
  for (const auto& [name, inode] : world.disk().names_cached()) {
    if (!name.ends_with(suffix(NameKind::data))) continue;
    const std::byte wrong[] = {world.disk().view(inode).cached[5000] ^ std::byte{1}};
    world.disk().write(inode, 5000, wrong);
  }
  world.apply({StepOp::run});
  ASSERT_TRUE(world.violation());
  EXPECT_EQ(world.violation()->name, "S2 CommitTruth");
}

TEST(Oracle, SeesBytesOnTheDiskThatNobodyAccountsFor) {
  World world;
  apply_all(world, "open 0\n");
  ASSERT_TRUE(world.settle(kRounds));
  world.disk().create("00/stray", 64 * kKiB, 0);
  world.apply({StepOp::run});
  ASSERT_TRUE(world.violation());
  EXPECT_EQ(world.violation()->name, "S4 Space");
}

TEST(Oracle, SeesAFileRemovedUnderItsReader) {
  World world;
  apply_all(world, "open 0\n");
  ASSERT_TRUE(world.settle(kRounds));
  apply_all(world, "open 0\n");
  for (const auto& [name, inode] : world.disk().names_cached()) {
    if (name.ends_with(suffix(NameKind::data))) world.disk().unlink(name, FileHandle::none);
  }
  world.apply({StepOp::run});
  ASSERT_TRUE(world.violation());
  EXPECT_EQ(world.violation()->name, "S5 Pins");
}

TEST(Oracle, SeesAResidentBlockThatWasNeverWritten) {
  World world;
  apply_all(world, "open 4\nrun 1\nopen 4\n");
  const OpenFile& file = world.readers().files().rbegin()->second;
  ASSERT_TRUE(file.residency);
  ASSERT_FALSE(file.residency->is_resident(11));
  file.residency->publish(11);
  world.apply({StepOp::tick});
  ASSERT_TRUE(world.violation());
  EXPECT_EQ(world.violation()->name, "S3 Residency");
}

}  // namespace
}  // namespace ncfs
