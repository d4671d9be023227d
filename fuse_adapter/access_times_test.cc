#include "fuse_adapter/access_times.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <ctime>

namespace ncfs {
namespace {

struct stat times(std::time_t access, std::time_t modify, std::time_t change) {
  struct stat attributes {};
  attributes.st_atim.tv_sec = access;
  attributes.st_mtim.tv_sec = modify;
  attributes.st_ctim.tv_sec = change;
  return attributes;
}

class AccessTimesTest : public testing::Test {
 protected:
  // A directory whose file system moves times.
  const Descriptor root_{::open("/proc/self", O_PATH | O_DIRECTORY)};
  const std::time_t now_ = std::time(nullptr);
  const struct stat fresh_ = times(now_ - 10, now_ - 20, now_ - 20);
};

TEST_F(AccessTimesTest, RelatimeMovesWhatIsOlderThanAChangeOrADay) {
  AccessTimes access(0);
  access.source_found(root_.get(), false);
  EXPECT_FALSE(access.is_due(fresh_));
  EXPECT_TRUE(access.is_due(times(now_ - 20, now_ - 20, now_ - 30)));
  EXPECT_TRUE(access.is_due(times(now_ - 20, now_ - 30, now_ - 20)));
  EXPECT_TRUE(access.is_due(times(now_ - 86400, now_ - 90000, now_ - 90000)));
  EXPECT_FALSE(access.is_due(times(now_ - 86000, now_ - 90000, now_ - 90000)));
  EXPECT_FALSE(access.move_always());
}

TEST_F(AccessTimesTest, NothingMovesOnANetworkFileSystemOrBeforeThereIsASource) {
  AccessTimes access(MS_STRICTATIME);
  EXPECT_FALSE(access.is_due(times(0, now_, now_)));
  access.source_found(root_.get(), true);
  EXPECT_FALSE(access.is_due(times(0, now_, now_)));
  EXPECT_FALSE(access.move_always());
  access.source_found(root_.get(), false);
  EXPECT_TRUE(access.is_due(fresh_));
}

TEST_F(AccessTimesTest, TheFlagsOfTheMountAreFollowed) {
  AccessTimes access(MS_NOATIME);
  access.source_found(root_.get(), false);
  EXPECT_TRUE(access.are_kept(false));
  EXPECT_FALSE(access.is_due(times(0, now_, now_)));
  access.follow("rw,nosuid,nodev,relatime");
  EXPECT_FALSE(access.are_kept(true));
  EXPECT_TRUE(access.is_due(times(0, now_, now_)));
  access.follow("rw,nosuid");
  EXPECT_TRUE(access.move_always());
  EXPECT_TRUE(access.is_due(fresh_));
  access.follow("rw,nodiratime,relatime");
  EXPECT_TRUE(access.are_kept(true));
  EXPECT_FALSE(access.are_kept(false));
  access.follow("ro");
  EXPECT_TRUE(access.are_kept(false));
  EXPECT_FALSE(access.move_always());
  access.follow("rw,noatime");
  EXPECT_TRUE(access.are_kept(false));
}

}  // namespace
}  // namespace ncfs
