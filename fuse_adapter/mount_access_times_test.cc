// Times of last access on the backend, as the options of the mount want them.
#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "fuse_adapter/mount_fixture.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

class MountAccessTimesTest : public testing::Test {
 protected:
  // Below and above what the kernel is handed to read by itself.
  static constexpr const char* kSmall = "directory/small";
  static constexpr const char* kLarge = "directory/large";

  void SetUp() override {
    std::filesystem::create_directory(mount_.backend("directory"));
    write_content(mount_.backend(kSmall), content(1, 1, 4096));
    write_content(mount_.backend(kLarge), content(2, 1, 2 * kMiB));
  }
  using Time = std::pair<time_t, long>;
  [[nodiscard]] Time time_of(const char* path) const {
    struct stat attributes {};
    EXPECT_EQ(::stat(mount_.backend(path).c_str(), &attributes), 0);
    return {attributes.st_atim.tv_sec, attributes.st_atim.tv_nsec};
  }
  void read(const char* path) const { EXPECT_EQ(read_file(mount_.mounted(path)).error, 0); }
  // The kernel's clock goes in ticks, and what is read from memory moves the time a moment later.
  [[nodiscard]] bool comes_to_move(const char* path) const {
    const Time before = time_of(path);
    return eventually([&] {
      read(path);
      return time_of(path) != before;
    });
  }
  void list_directory() const {
    const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(mount_.mounted("directory").c_str()),
                                                     ::closedir);
    ASSERT_NE(stream, nullptr);
    while (::readdir(stream.get()) != nullptr) {
    }
  }
  void cache_both() {
    mount_.bring_into_cache(kSmall);
    mount_.bring_into_cache(kLarge);
  }
  [[nodiscard]] bool backend_moves_them() const {
    struct statvfs status {};
    EXPECT_EQ(::statvfs(mount_.backend().c_str(), &status), 0);
    return (status.f_flag & static_cast<unsigned long>(ST_NOATIME)) == 0;
  }

  TestMount mount_;
};

TEST_F(MountAccessTimesTest, AreKeptByNoatimeAndReadOnlyMounts) {
  for (const unsigned long flags : {static_cast<unsigned long>(MS_NOATIME),
                                    static_cast<unsigned long>(MS_RDONLY | MS_STRICTATIME)}) {
    for (const PassedFiles passed : {PassedFiles::all, PassedFiles::none}) {
      const Time small = time_of(kSmall);
      const Time large = time_of(kLarge);
      const Time directory = time_of("directory");
      mount_.start({.passthrough = passed, .mount_flags = flags});
      read(kSmall);
      read(kLarge);
      list_directory();
      cache_both();
      read(kSmall);
      read(kLarge);
      mount_.stop();
      EXPECT_EQ(time_of(kSmall), small);
      EXPECT_EQ(time_of(kLarge), large);
      EXPECT_EQ(time_of("directory"), directory);
    }
  }
}

TEST_F(MountAccessTimesTest, MoveAlsoWhenTheCacheIsRead) {
  mount_.start({.mount_flags = MS_NOATIME});
  cache_both();
  mount_.stop();
  if (backend_moves_them()) {
    mount_.start({});
    EXPECT_TRUE(comes_to_move(kSmall));
    EXPECT_TRUE(comes_to_move(kLarge));
    mount_.stop();
  }
  // As often as they are read, though the backend's own mount has relatime.
  mount_.start({.mount_flags = MS_STRICTATIME});
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE(comes_to_move(kSmall));
    EXPECT_TRUE(comes_to_move(kLarge));
  }
}

TEST_F(MountAccessTimesTest, FollowRemounts) {
  mount_.start({.mount_flags = MS_NOATIME});
  cache_both();
  const auto remount = [this](unsigned long flags) {
    return ::mount(nullptr, mount_.mounted().c_str(), nullptr,
                   MS_REMOUNT | MS_NOSUID | MS_NODEV | flags, nullptr);
  };
  ASSERT_EQ(remount(MS_STRICTATIME), 0);
  for (int round = 0; round < 2; ++round) {
    EXPECT_TRUE(comes_to_move(kSmall));
    EXPECT_TRUE(comes_to_move(kLarge));
  }
}

}  // namespace
}  // namespace ncfs
