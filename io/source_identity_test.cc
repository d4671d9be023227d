#include "io/source_identity.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <vector>

#include "io/temp_directory.h"
#include "io/test_bytes.h"

namespace ncfs {
namespace {

constexpr char kMounts[] =
    "21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
    "40 21 0:45 / /mnt/a rw shared:7 master:2 - nfs4 server:/export rw,addr=10.0.0.1\n"
    "41 21 0:46 / /mnt/b rw - nfs4 server:/other rw,addr=10.0.0.1\n"
    "42 21 0:46 /sub /mnt/c rw - nfs4 server:/other/sub rw,addr=10.0.0.1\n"
    "43 21 0:4 / /mnt/short\n";

TEST(MountDigest, IsTheSameWhateverNumbersAMountGets) {
  const auto digest = mount_digest(kMounts, 0, 45);
  ASSERT_TRUE(digest);
  EXPECT_EQ(digest,
            mount_digest("9 1 0:99 / /elsewhere ro - nfs4 server:/export ro,addr=::1\n", 0, 99));
}

TEST(MountDigest, TellsFileSystemsApart) {
  EXPECT_NE(mount_digest(kMounts, 0, 45), mount_digest(kMounts, 0, 46));
  EXPECT_NE(mount_digest("1 1 0:1 / / rw - nfs4 server:/a rw", 0, 1),
            mount_digest("1 1 0:1 / / rw - nfs server:/a rw", 0, 1));
  EXPECT_NE(mount_digest("1 1 0:1 / / rw - nfs4 server:/a rw", 0, 1),
            mount_digest("1 1 0:1 /x / rw - nfs4 server:/a rw", 0, 1));
}

TEST(MountDigest, DoesNotDependOnTheOrderOfMounts) {
  EXPECT_EQ(mount_digest(kMounts, 0, 46),
            mount_digest("42 21 0:46 /sub /mnt/c rw - nfs4 server:/other/sub rw\n"
                         "41 21 0:46 / /mnt/b rw - nfs4 server:/other rw\n",
                         0, 46));
}

TEST(MountDigest, IsNothingForWhatIsNotMounted) {
  EXPECT_FALSE(mount_digest(kMounts, 0, 47));
  EXPECT_FALSE(mount_digest(kMounts, 0, 4)) << "a line without source";
  EXPECT_FALSE(mount_digest("", 0, 45));
}

TEST(SourceLook, AgreesWhateverDescriptorIsLookedThrough) {
  const TempDirectory directory;
  write_file(directory.path("a"), test_bytes(10));
  const SourceLook by_path = look_at_source(directory.open("a").get(), Freshness::as_opened);
  const SourceLook by_read =
      look_at_source(directory.open("a", O_RDONLY).get(), Freshness::from_server);
  ASSERT_EQ(by_path.error, 0);
  ASSERT_EQ(by_read.error, 0);
  EXPECT_EQ(by_path.state.file, by_read.state.file);
  EXPECT_EQ(by_path.state.version, by_read.state.version);
  EXPECT_TRUE(by_path.is_regular);
  EXPECT_FALSE(look_at_source(directory.open().get(), Freshness::as_opened).is_regular);
}

TEST(SourceLook, TellsFileSystemsApart) {
  const TempDirectory directory;
  const Descriptor other = detached_file_system("tmpfs");
  const Descriptor third = detached_file_system("tmpfs");
  const auto digest = [](int fd) {
    return look_at_source(fd, Freshness::as_opened).state.file.filesystem;
  };
  EXPECT_NE(digest(directory.open().get()), digest(other.get()));
  EXPECT_NE(digest(third.get()), digest(other.get()));
}

TEST(SourceLook, SeesAChangeBehindARestoredMtime) {
  const TempDirectory directory;
  write_file(directory.path("a"), test_bytes(10));
  const Descriptor file = directory.open("a", O_RDWR);
  const timespec old[2] = {{0, UTIME_OMIT}, {1'000'000, 5}};
  ASSERT_EQ(::futimens(file.get(), old), 0);
  const SourceLook before = look_at_source(file.get(), Freshness::from_server);
  EXPECT_EQ(before.state.version.mtime_ns, 1'000'000'000'000'005);
  // Timestamps move in ticks of the kernel.
  while (look_at_source(file.get(), Freshness::from_server).state.version.ctime_ns ==
         before.state.version.ctime_ns) {
    ASSERT_EQ(::pwrite(file.get(), "x", 1, 0), 1);
    ASSERT_EQ(::futimens(file.get(), old), 0);
  }
  const SourceLook after = look_at_source(file.get(), Freshness::from_server);
  EXPECT_EQ(after.state.version.mtime_ns, before.state.version.mtime_ns);
  EXPECT_NE(after.state.version, before.state.version);
}

TEST(SourceLook, AgeIsThatOfTheNewestTimestampAndMayBeNegative) {
  const TempDirectory directory;
  write_file(directory.path("a"), test_bytes(10));
  const Descriptor file = directory.open("a", O_RDWR);
  const timespec old[2] = {{0, UTIME_OMIT}, {1'000'000, 0}};
  ASSERT_EQ(::futimens(file.get(), old), 0);
  EXPECT_LT(look_at_source(file.get(), Freshness::from_server).state.age_ns,
            static_cast<std::int64_t>(3600 * kSecond))
      << "its ctime is young";
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const timespec future[2] = {{0, UTIME_OMIT}, {now.tv_sec + 86'400, 0}};
  ASSERT_EQ(::futimens(file.get(), future), 0);
  EXPECT_LT(look_at_source(file.get(), Freshness::from_server).state.age_ns, 0);
}

TEST(SourceLook, IsAnErrorForAClosedDescriptor) {
  EXPECT_EQ(look_at_source(-1, Freshness::from_server).error, EBADF);
}

TEST(SourceLook, MayBeTakenByManyThreads) {
  const TempDirectory directory;
  const Descriptor root = directory.open();
  const std::uint64_t expected =
      look_at_source(root.get(), Freshness::as_opened).state.file.filesystem;
  std::vector<std::thread> threads;
  for (int count = 0; count < 4; ++count) {
    threads.emplace_back([&root, expected] {
      for (int look = 0; look < 100; ++look) {
        EXPECT_EQ(look_at_source(root.get(), Freshness::as_opened).state.file.filesystem, expected);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace ncfs
