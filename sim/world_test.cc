// The world as a whole: an ordinary day goes well, and the oracle sees when one does not.
#include "sim/world.h"

#include <gtest/gtest.h>

#include <algorithm>

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

std::uint64_t pending_syncs(const World& world) {
  const std::vector<SimIo::Pending>& pending = world.life()->io().pending();
  return static_cast<std::uint64_t>(
      std::count_if(pending.begin(), pending.end(),
                    [](const SimIo::Pending& one) { return one.request.op == Op::cache_sync; }));
}

TEST(World, ReadOnlyDiskIsNotNoticed) {
  World world;
  apply_all(world, "open 0\nread\nclose\n");
  ASSERT_TRUE(world.settle(kRounds));
  apply_all(world, "disk_readonly\nopen 0\nrun\nread 0 0 12287\nrun 7\nopen 2\nread 1\nrun 7\n");
  EXPECT_EQ(world.readers().reads_finished(), 3U);
  EXPECT_EQ(broken(world), "");
}

// The file changes while its open is in the mailbox; the handle gets either content, the cache
// only the new one.
TEST(World, OpenWaitsInTheMailboxWhileTheFileChanges) {
  World world;
  apply_all(world, "knob 14 1\nopen 0\n");
  EXPECT_TRUE(world.readers().has_mail());
  apply_all(world, "source_write 0 0 8191\ndeliver\n");
  EXPECT_FALSE(world.readers().has_mail());
  apply_all(world, "run\nread 0 0 12287\n");
  ASSERT_TRUE(world.settle(kRounds));
  EXPECT_EQ(world.life()->engine().status().objects_cached, 0U) << "its version is gone";
  apply_all(world, "open 0\n");
  ASSERT_TRUE(world.settle(kRounds));
  EXPECT_EQ(world.life()->engine().status().objects_cached, 1U);
  EXPECT_EQ(broken(world), "");
}

// What it lied about before it was honest again may be lost; what came after is there.
TEST(World, LyingDiskLosesOnlyWhatItLiedAbout) {
  World world;
  apply_all(world, "disk_lies\nopen 0\n");
  ASSERT_TRUE(world.settle(kRounds));
  apply_all(world, "disk_heal\nopen 2\n");
  ASSERT_TRUE(world.settle(kRounds));
  ASSERT_EQ(world.life()->engine().status().objects_cached, 2U);
  apply_all(world, "power\nremount\n");
  ASSERT_TRUE(world.settle(kRounds));
  EXPECT_EQ(world.life()->engine().status().objects_cached, 1U);
  EXPECT_EQ(broken(world), "");
}

// The reader's handle is of no use any more; the copy opens the file by itself.
TEST(World, CopyGoesOnAfterTheServerRestarted) {
  World world;
  apply_all(world, "open 4\nread 0\nrun 1\nnfs_reboot\n");
  ASSERT_TRUE(world.settle(kRounds));
  EXPECT_EQ(broken(world), "");
  EXPECT_EQ(world.life()->engine().status().objects_cached, 1U);
}

// All blocks are there, but the source does not answer the question before the commit: it is asked
// again after the back-off, not at once and for ever.
TEST(World, CommitThatFailsIsTriedAgainAfterABackOff) {
  World world;
  apply_all(world, "open 1\nrun 2\nnfs_error 0\n");
  std::uint64_t syncs = 0;
  for (int round = 0; round < 50; ++round) {
    apply_all(world, "run\n");
    syncs += pending_syncs(world);
  }
  EXPECT_LE(syncs, 2U) << "no time has passed";
  apply_all(world, "nfs_heal\n");
  ASSERT_TRUE(world.settle(kRounds));
  EXPECT_EQ(world.life()->engine().status().objects_cached, 1U);
}

// Debris that nothing can remove costs its space until the next start, and nothing else.
TEST(World, RecoveryEndsThoughDebrisCannotBeRemoved) {
  World world;
  apply_all(world, "open 0\ncomplete\nkill\ndisk_stick\nremount 1\n");
  ASSERT_GT(world.disk().names_count(), 0U);
  for (int tick = 0; tick < 30; ++tick) apply_all(world, "run 7\ntick 1000000000\n");
  ASSERT_TRUE(world.life());
  const EngineStatus status = world.life()->engine().status();
  EXPECT_FALSE(status.is_recovering) << "L3 Resume";
  EXPECT_EQ(status.used_bytes, 12 * kKiB);
  EXPECT_EQ(status.debris_bytes, 12 * kKiB);
  apply_all(world, "open 2\n");
  ASSERT_TRUE(world.settle(kRounds));
  EXPECT_EQ(world.life()->engine().status().objects_cached, 1U);
  EXPECT_EQ(broken(world), "");
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

// A reader who asks for a block that is in the cache, though no read of the cache has failed.
TEST(Oracle, SeesAFetchOfABlockThatIsInTheCache) {
  World world;
  apply_all(world, "open 0\n");
  ASSERT_TRUE(world.settle(kRounds));
  apply_all(world, "open 0\ntick\n");
  const auto& [handle, file] = *world.readers().files().rbegin();
  ASSERT_TRUE(file.residency);
  world.life()->handle(ReadEvent{ReadToken{1'000'000}, handle, {0, 4 * kKiB}, true});
  world.apply({StepOp::tick});
  ASSERT_TRUE(world.violation());
  EXPECT_EQ(world.violation()->name, "S15 OnceOverTheWire");
}

}  // namespace
}  // namespace ncfs
