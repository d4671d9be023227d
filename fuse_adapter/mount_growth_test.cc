// Method: a file grows under a reader whose cache file the kernel reads by itself, through a real
// mount, until the cache has no room for it any more. Only this test changes the cache meanwhile,
// so what lies in its directory can be added up.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "fuse_adapter/mount_fixture.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kLimit = 12 * kMiB;
constexpr std::uint64_t kSize = 3 * kMiB + 100;
constexpr std::uint64_t kPiece = kMiB - 7;

// What the files of a directory take of the disk, as du(1) says.
std::uint64_t disk_usage(const std::string& directory) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    struct stat file {};
    if (::lstat(entry.path().c_str(), &file) == 0 && S_ISREG(file.st_mode)) {
      bytes += static_cast<std::uint64_t>(file.st_blocks) * 512;
    }
  }
  return bytes;
}

std::uint64_t charged(const EngineStatus& status) {
  return status.used_bytes + status.reserved_bytes;
}

TEST(MountGrowthTest, ACacheFileFollowsItsFileAsFarAsTheLimitAllows) {
  TestMount mount;
  std::vector<std::byte> expected = content(1, 1, kSize);
  write_content(mount.backend("log"), expected);
  write_content(mount.backend("other"), content(2, 1, kSize));
  mount.start(
      {.passthrough = PassedFiles::cached, .cache_size_bytes = kLimit, .min_free_percent = 0});
  if (!mount.passes_through()) GTEST_SKIP() << "the kernel has no passthrough";
  const Descriptor cold(::open(mount.mounted("log").c_str(), O_RDONLY | O_CLOEXEC));
  mount.bring_into_cache("log");
  mount.bring_into_cache("other");
  const Descriptor reader(::open(mount.mounted("log").c_str(), O_RDONLY | O_CLOEXEC));
  const Descriptor log(::open(mount.mounted("log").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  ASSERT_TRUE(cold.is_open());
  ASSERT_TRUE(reader.is_open());
  ASSERT_TRUE(log.is_open());

  for (std::uint64_t piece = 0; expected.size() < kLimit + 4 * kMiB; ++piece) {
    const auto bytes = content(1, 2 + piece, kPiece);
    ASSERT_EQ(::write(log.get(), bytes.data(), bytes.size()), std::ssize(bytes));
    std::vector<std::byte> seen(kPiece);
    EXPECT_EQ(::pread(cold.get(), seen.data(), seen.size(), static_cast<off_t>(expected.size())),
              std::ssize(seen));
    EXPECT_TRUE(seen == bytes) << piece;
    expected.insert(expected.end(), bytes.begin(), bytes.end());
    EXPECT_LE(disk_usage(mount.cache()), kLimit) << piece;
    EXPECT_LE(charged(mount.engine_status()), kLimit) << piece;
    const auto held = read_descriptor(reader.get()).bytes;
    const bool follows = mount.stats().mirror_failures.value() == 0;
    EXPECT_TRUE(follows || piece > 0) << "there is room for the first piece";
    EXPECT_EQ(held.size() == expected.size(), follows) << piece;
    ASSERT_LE(held.size(), expected.size());
    EXPECT_TRUE(std::equal(held.begin(), held.end(), expected.begin())) << piece;
  }
  EXPECT_EQ(mount.stats().mirror_failures.value(), 1U);
  EXPECT_TRUE(read_descriptor(cold.get()).bytes == expected);
  EXPECT_TRUE(read_file(mount.mounted("log")).bytes == expected);
  EXPECT_TRUE(read_file(mount.backend("log")).bytes == expected);
}

TEST(MountGrowthTest, WhatItHasTakenIsGivenBackWhenItIsClosed) {
  TestMount mount;
  write_content(mount.backend("log"), content(1, 1, kSize));
  mount.start(
      {.passthrough = PassedFiles::cached, .cache_size_bytes = kLimit, .min_free_percent = 0});
  if (!mount.passes_through()) GTEST_SKIP() << "the kernel has no passthrough";
  mount.bring_into_cache("log");
  {
    const Descriptor reader(::open(mount.mounted("log").c_str(), O_RDONLY | O_CLOEXEC));
    const Descriptor log(::open(mount.mounted("log").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    const auto bytes = content(1, 2, 4 * kMiB);
    ASSERT_EQ(::write(log.get(), bytes.data(), bytes.size()), std::ssize(bytes));
    EXPECT_GT(charged(mount.engine_status()), kSize + bytes.size());
  }
  EXPECT_TRUE(mount.wait_until([](const EngineStatus& status) { return charged(status) == 0; }));
}

}  // namespace
}  // namespace ncfs
