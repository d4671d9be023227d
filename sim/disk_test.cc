// The disk is tested like what it stands for: what survives what.
#include "sim/disk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <set>

namespace ncfs {
namespace {

constexpr std::byte kNew{0x11};
constexpr std::byte kOld{0x22};

std::vector<std::byte> filled(std::uint64_t length, std::byte value) {
  return std::vector<std::byte>(length, value);
}

class SimDiskTest : public testing::Test {
 protected:
  SimDiskTest() {
    disk_.make_directory("d");
    disk_.make_directory("e");
  }

  FileHandle create(const std::string& name, std::uint64_t length) {
    const std::int64_t result = disk_.create(name, length, 0);
    EXPECT_GT(result, 0);
    return FileHandle{static_cast<std::int32_t>(result)};
  }
  void write(FileHandle handle, std::uint64_t offset, const std::vector<std::byte>& bytes) {
    EXPECT_EQ(disk_.write(*disk_.inode_of(handle), offset, bytes),
              static_cast<std::int64_t>(bytes.size()));
  }
  void sync(FileHandle handle) {
    disk_.sync_file(*disk_.inode_of(handle), disk_.file_sync_point());
  }
  void sync_directory(const std::string& name) {
    disk_.sync_directory(name, disk_.file_sync_point());
  }
  // What a power loss leaves under the mask of each outcome.
  void lose_power(std::uint64_t mask) {
    Survivors survivors(mask);
    disk_.lose_power(survivors);
    combinations_ = survivors.combinations();
  }
  std::vector<std::byte> content(const std::string& name) {
    std::vector<std::byte> bytes;
    EXPECT_EQ(disk_.load(name, bytes), 0);
    return bytes;
  }
  // A file of two sectors, all of it durable.
  FileHandle durable_file(const std::string& name) {
    const FileHandle handle = create(name, 2 * kSectorBytes);
    write(handle, 0, filled(2 * kSectorBytes, kOld));
    sync(handle);
    sync_directory("d");
    return handle;
  }

  SimDisk disk_;
  std::uint64_t combinations_ = 0;
};

TEST_F(SimDiskTest, SyncedFileIsLostWithoutASyncOfItsDirectory) {
  const FileHandle handle = create("d/a", 10);
  write(handle, 0, filled(10, kNew));
  sync(handle);
  lose_power(0);
  EXPECT_FALSE(disk_.inode_named("d/a"));
}

TEST_F(SimDiskTest, SyncedDirectoryKeepsANameWithoutItsBytes) {
  const FileHandle handle = create("d/a", 10);
  write(handle, 0, filled(10, kNew));
  sync_directory("d");
  lose_power(0);
  EXPECT_TRUE(content("d/a").empty());
}

TEST_F(SimDiskTest, BothSyncsTogetherKeepTheFile) {
  const FileHandle handle = create("d/a", 10);
  write(handle, 0, filled(10, kNew));
  sync(handle);
  sync_directory("d");
  lose_power(0);
  EXPECT_EQ(content("d/a"), filled(10, kNew));
}

TEST_F(SimDiskTest, KillKeepsWhatIsInThePageCacheAndEndsTheHandles) {
  const FileHandle handle = create("d/a", 10);
  write(handle, 0, filled(10, kNew));
  disk_.kill();
  EXPECT_EQ(content("d/a"), filled(10, kNew));
  EXPECT_EQ(disk_.handles_open(), 0U);
  EXPECT_EQ(disk_.close(handle), -EBADF);
}

TEST_F(SimDiskTest, SyncCoversOnlyWhatWasWrittenBeforeItWasAskedFor) {
  const FileHandle handle = durable_file("d/a");
  write(handle, 0, filled(kSectorBytes, kNew));
  const SimDisk::SyncPoint asked = disk_.file_sync_point();
  write(handle, kSectorBytes, filled(kSectorBytes, kNew));
  disk_.sync_file(*disk_.inode_of(handle), asked);
  lose_power(0);
  const std::vector<std::byte> left = content("d/a");
  EXPECT_EQ(left.front(), kNew);
  EXPECT_EQ(left.back(), kOld);
}

TEST_F(SimDiskTest, AfterAFailedSyncTheNextOneSucceedsAndMakesNothingDurable) {
  const FileHandle handle = durable_file("d/a");
  write(handle, 0, filled(2 * kSectorBytes, kNew));
  disk_.fail_file_sync(*disk_.inode_of(handle));
  EXPECT_EQ(content("d/a"), filled(2 * kSectorBytes, kNew)) << "the page cache still has it";
  sync(handle);
  lose_power(~std::uint64_t{0});
  EXPECT_EQ(content("d/a"), filled(2 * kSectorBytes, kOld));
}

TEST_F(SimDiskTest, CountingReachesEveryOutcomeOfATornWrite) {
  std::set<std::vector<std::byte>> outcomes;
  std::uint64_t mask = 0;
  do {
    SetUp();
    disk_ = SimDisk();
    disk_.make_directory("d");
    write(durable_file("d/a"), 0, filled(2 * kSectorBytes, kNew));
    lose_power(mask);
    outcomes.insert(content("d/a"));
  } while (++mask < combinations_);
  std::vector<std::byte> prefix = filled(2 * kSectorBytes, kOld);
  std::fill_n(prefix.begin(), kSectorBytes, kNew);
  EXPECT_EQ(outcomes.size(), 4U);
  EXPECT_TRUE(outcomes.contains(filled(2 * kSectorBytes, kOld)));
  EXPECT_TRUE(outcomes.contains(filled(2 * kSectorBytes, kNew)));
  EXPECT_TRUE(outcomes.contains(prefix));
}

TEST_F(SimDiskTest, TornWriteMayKeepItsEndInstead) {
  disk_.set_options({.can_keep_suffix = true});
  write(durable_file("d/a"), 0, filled(2 * kSectorBytes, kNew));
  lose_power(4);
  EXPECT_EQ(combinations_, 5U);
  std::vector<std::byte> suffix = filled(2 * kSectorBytes, kOld);
  std::fill_n(suffix.begin() + kSectorBytes, kSectorBytes, kNew);
  EXPECT_EQ(content("d/a"), suffix);
}

TEST_F(SimDiskTest, LyingSyncMakesNothingDurableUntilAnHonestOne) {
  const FileHandle handle = durable_file("d/a");
  const InodeId inode = *disk_.inode_of(handle);
  write(handle, 0, filled(kSectorBytes, kNew));
  disk_.set_lying(true);
  sync(handle);
  EXPECT_TRUE(disk_.is_lied_about(inode));
  disk_.set_lying(false);
  EXPECT_TRUE(disk_.is_lied_about(inode)) << "the data is where it was";
  sync(handle);
  EXPECT_FALSE(disk_.is_lied_about(inode));
  lose_power(0);
  EXPECT_FALSE(disk_.is_ruined(inode));
}

TEST_F(SimDiskTest, OnlyAFileThatWasLiedAboutAndLostSomethingIsRuined) {
  const InodeId lied = *disk_.inode_of(durable_file("d/a"));
  const InodeId unsynced = *disk_.inode_of(durable_file("d/b"));
  const InodeId kept = *disk_.inode_of(durable_file("d/c"));
  disk_.write(lied, 0, filled(kSectorBytes, kNew));
  disk_.write(unsynced, 0, filled(kSectorBytes, kNew));
  disk_.set_lying(true);
  disk_.sync_file(lied, disk_.file_sync_point());
  disk_.sync_file(kept, disk_.file_sync_point());
  lose_power(0);
  EXPECT_TRUE(disk_.is_ruined(lied));
  EXPECT_FALSE(disk_.is_ruined(unsynced)) << "nobody was told that it is durable";
  EXPECT_FALSE(disk_.is_ruined(kept));
}

TEST_F(SimDiskTest, StuckNameCanBeNeitherRemovedNorRenamed) {
  const InodeId inode = *disk_.inode_of(durable_file("d/a"));
  disk_.stick(inode);
  EXPECT_EQ(disk_.unlink("d/a", FileHandle::none), -EPERM);
  EXPECT_EQ(disk_.rename("d/a", "d/b"), -EPERM);
  disk_.unstick_all();
  EXPECT_EQ(disk_.unlink("d/a", FileHandle::none), 0);
}

TEST_F(SimDiskTest, TearsOnlyBetweenSectors) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    disk_ = SimDisk();
    disk_.make_directory("d");
    const FileHandle handle = create("d/a", 8 * kSectorBytes);
    write(handle, 0, filled(8 * kSectorBytes, kOld));
    sync(handle);
    sync_directory("d");
    write(handle, 0, filled(8 * kSectorBytes, kNew));
    lose_power(kRandomMask + seed);
    const std::vector<std::byte> left = content("d/a");
    for (std::uint64_t sector = 0; sector < 8; ++sector) {
      const auto begin = left.begin() + static_cast<std::ptrdiff_t>(sector * kSectorBytes);
      EXPECT_EQ(std::count(begin, begin + kSectorBytes, *begin), kSectorBytes);
    }
  }
}

TEST_F(SimDiskTest, RandomCrashesKeepAboutHalfOfTheNames) {
  int kept = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    disk_ = SimDisk();
    disk_.make_directory("d");
    create("d/a", 1);
    lose_power(kRandomMask + seed);
    if (disk_.inode_named("d/a")) ++kept;
  }
  EXPECT_GT(kept, 400);
  EXPECT_LT(kept, 600);
}

TEST_F(SimDiskTest, RenameWithinADirectoryIsOneOperation) {
  for (std::uint64_t mask = 0; mask < 2; ++mask) {
    disk_ = SimDisk();
    disk_.make_directory("d");
    durable_file("d/a");
    EXPECT_EQ(disk_.rename("d/a", "d/b"), 0);
    lose_power(mask);
    EXPECT_EQ(disk_.inode_named("d/a").has_value(), mask == 0);
    EXPECT_EQ(disk_.inode_named("d/b").has_value(), mask == 1);
  }
}

TEST_F(SimDiskTest, OrderedDirectoriesLoseOnlyATail) {
  for (std::uint64_t mask = 0; mask < 8; ++mask) {
    disk_ = SimDisk();
    disk_.set_options({.are_directories_ordered = true});
    disk_.make_directory("d");
    for (const char* name : {"d/1", "d/2", "d/3"}) create(name, 1);
    lose_power(mask);
    EXPECT_TRUE(disk_.inode_named("d/1") || !disk_.inode_named("d/2"));
    EXPECT_TRUE(disk_.inode_named("d/2") || !disk_.inode_named("d/3"));
  }
}

TEST_F(SimDiskTest, LostUnlinkBringsTheFileBack) {
  disk_.close(durable_file("d/a"));
  EXPECT_EQ(disk_.unlink("d/a", FileHandle::none), 0);
  EXPECT_EQ(disk_.allocated_bytes(), 0U);
  lose_power(0);
  EXPECT_EQ(content("d/a"), filled(2 * kSectorBytes, kOld));
  EXPECT_EQ(disk_.allocated_bytes(), kAllocationBytes);
}

TEST_F(SimDiskTest, UnlinkedFileKeepsItsBytesAndItsSpaceWhileItIsOpen) {
  const FileHandle handle = durable_file("d/a");
  EXPECT_EQ(disk_.unlink("d/a", FileHandle::none), 0);
  std::vector<std::byte> bytes(2 * kSectorBytes);
  EXPECT_EQ(disk_.read(handle, 0, bytes), std::ssize(bytes));
  EXPECT_EQ(bytes, filled(2 * kSectorBytes, kOld));
  EXPECT_EQ(disk_.allocated_bytes(), kAllocationBytes);
  disk_.close(handle);
  EXPECT_EQ(disk_.allocated_bytes(), 0U);
}

TEST_F(SimDiskTest, UnlinkSparesAFileThatAnotherProcessHolds) {
  const FileHandle handle = durable_file("d/a");
  const InodeId inode = *disk_.inode_of(handle);
  disk_.hold(inode);
  EXPECT_EQ(disk_.unlink("d/a", handle), -EBUSY);
  EXPECT_TRUE(disk_.inode_named("d/a"));
  disk_.release_hold(inode);
  EXPECT_EQ(disk_.unlink("d/a", handle), 0);
}

TEST_F(SimDiskTest, HeldFileSurvivesTheProcessButNotThePowerLoss) {
  const FileHandle handle = durable_file("d/a");
  const InodeId inode = *disk_.inode_of(handle);
  disk_.hold(inode);
  EXPECT_EQ(disk_.unlink("d/a", FileHandle::none), 0);
  sync_directory("d");
  disk_.kill();
  EXPECT_EQ(disk_.invisible_bytes(), kAllocationBytes);
  lose_power(0);
  EXPECT_FALSE(disk_.exists(inode));
}

TEST_F(SimDiskTest, PreallocationCountsAgainstTheCapacity) {
  disk_.limit_capacity(3 * kAllocationBytes);
  create("d/a", 2 * kAllocationBytes);
  EXPECT_EQ(disk_.allocated_bytes(), 2 * kAllocationBytes);
  EXPECT_EQ(disk_.create("d/b", kAllocationBytes + 1, 0), -ENOSPC);
  EXPECT_EQ(disk_.replace_content("d/c", filled(1, kNew), 0), 0);
  EXPECT_EQ(disk_.replace_content("d/e", filled(1, kNew), 0), -ENOSPC);
}

}  // namespace
}  // namespace ncfs
