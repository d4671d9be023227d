// The source is tested for what the oracle relies on: who held which bytes when.
#include "sim/nfs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

namespace ncfs {
namespace {

constexpr std::int64_t kCoarseTick = static_cast<std::int64_t>(kSecond);

std::vector<std::byte> bytes_of(const SimNfs& nfs, const std::string& path, std::size_t revision) {
  const SourceInode inode = nfs.inode_at(path);
  std::vector<std::byte> bytes(nfs.history(inode)[revision].version.size);
  nfs.content(inode, revision, 0, bytes);
  return bytes;
}

FileHandle open(SimNfs& nfs, const std::string& path, SourceState& state, Nanos now) {
  const std::int64_t result = nfs.open(path, state, now);
  EXPECT_GT(result, 0);
  return FileHandle{static_cast<std::int32_t>(result)};
}

TEST(SimNfs, WriteChangesItsRangeAndKeepsTheOldRevision) {
  SimNfs nfs(SimNfs::Options{});
  nfs.add("a", 100, 0);
  const std::vector<std::byte> before = bytes_of(nfs, "a", 0);
  nfs.write("a", {40, 20}, 1000);
  const std::vector<std::byte> after = bytes_of(nfs, "a", 1);
  EXPECT_EQ(bytes_of(nfs, "a", 0), before);
  EXPECT_TRUE(std::equal(before.begin(), before.begin() + 40, after.begin()));
  EXPECT_TRUE(std::equal(before.begin() + 60, before.end(), after.begin() + 60));
  EXPECT_FALSE(std::equal(before.begin() + 40, before.begin() + 60, after.begin() + 40));
}

TEST(SimNfs, ChangesWithinOneTickGetTheSameVersion) {
  SimNfs nfs({.tick_ns = kCoarseTick});
  nfs.add("a", 100, 0);
  nfs.write("a", {0, 1}, 5 * kSecond);
  nfs.write("a", {0, 1}, 5 * kSecond + 999 * kMillisecond);
  nfs.write("a", {0, 1}, 6 * kSecond);
  const std::vector<SourceRevision>& history = nfs.history(nfs.inode_at("a"));
  EXPECT_EQ(history[1].version, history[2].version);
  EXPECT_NE(history[2].version, history[3].version);
  EXPECT_NE(bytes_of(nfs, "a", 1), bytes_of(nfs, "a", 2));
}

TEST(SimNfs, RestoredMtimeStillChangesTheVersion) {
  SimNfs nfs(SimNfs::Options{});
  nfs.add("a", 100, 0);
  nfs.write_and_restore_mtime("a", {0, 50}, 1000);
  const std::vector<SourceRevision>& history = nfs.history(nfs.inode_at("a"));
  EXPECT_EQ(history[0].version.mtime_ns, history[1].version.mtime_ns);
  EXPECT_NE(history[0].version, history[1].version);
}

TEST(SimNfs, ModeChangesTheVersionAndNotTheContent) {
  SimNfs nfs(SimNfs::Options{});
  nfs.add("a", 100, 0);
  nfs.change_mode("a", 1000);
  const std::vector<SourceRevision>& history = nfs.history(nfs.inode_at("a"));
  EXPECT_NE(history[0].version, history[1].version);
  EXPECT_EQ(bytes_of(nfs, "a", 0), bytes_of(nfs, "a", 1));
}

TEST(SimNfs, GrowsWithZerosAfterATruncation) {
  SimNfs nfs(SimNfs::Options{});
  nfs.add("a", 100, 0);
  nfs.truncate("a", 10, 1);
  nfs.truncate("a", 30, 2);
  const std::vector<std::byte> bytes = bytes_of(nfs, "a", 2);
  ASSERT_EQ(bytes.size(), 30U);
  EXPECT_EQ(std::count(bytes.begin() + 10, bytes.end(), std::byte{0}), 20);
}

TEST(SimNfs, ReplacedFileIsStaleOrGoesOnAsTold) {
  for (const bool keeps_old : {false, true}) {
    SimNfs nfs(SimNfs::Options{});
    nfs.add("a", 100, 0);
    SourceState before;
    const FileHandle old = open(nfs, "a", before, 1);
    nfs.replace("a", 50, keeps_old, 2);
    std::vector<std::byte> bytes(100);
    EXPECT_EQ(nfs.read(old, 0, {0, 100}, bytes), keeps_old ? 100 : -ESTALE);
    SourceState after;
    open(nfs, "a", after, 3);
    EXPECT_NE(before.file, after.file);
    EXPECT_EQ(after.version.size, 50U);
  }
}

TEST(SimNfs, AgeIsNegativeWhenTheServerIsAhead) {
  SimNfs nfs({.lead_ns = static_cast<std::int64_t>(3 * kSecond)});
  nfs.add("a", 100, kSecond);
  SourceState state;
  open(nfs, "a", state, kSecond);
  EXPECT_EQ(state.age_ns, -static_cast<std::int64_t>(3 * kSecond));
}

TEST(SimNfs, RestartedServerKnowsOnlyHandlesOpenedSince) {
  SimNfs nfs(SimNfs::Options{});
  nfs.add("a", 100, 0);
  SourceState state;
  const FileHandle before = open(nfs, "a", state, 1);
  nfs.reboot();
  const FileHandle since = open(nfs, "a", state, 2);
  EXPECT_EQ(nfs.stat(before, state, 3), -ESTALE);
  EXPECT_EQ(nfs.stat(since, state, 3), 0);
  EXPECT_EQ(nfs.close(before), 0);
}

TEST(SimNfs, ClosedHandlesAreNeverValidAgain) {
  SimNfs nfs(SimNfs::Options{});
  nfs.add("a", 100, 0);
  SourceState state;
  const FileHandle handle = open(nfs, "a", state, 1);
  EXPECT_EQ(nfs.close(handle), 0);
  EXPECT_EQ(nfs.close(handle), -EBADF);
  EXPECT_NE(open(nfs, "a", state, 2), handle);
}

}  // namespace
}  // namespace ncfs
