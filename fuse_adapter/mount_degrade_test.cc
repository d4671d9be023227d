// Method: the cache's place on a real file system goes away, or is filled up by somebody else,
// under a real mount. Readers get the right bytes all the time, and the cache returns by itself.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "fuse_adapter/mount_fixture.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

namespace fs = std::filesystem;

class MountDegradeTest : public testing::Test {
 protected:
  void write(std::uint64_t file, std::uint64_t size) {
    write_content(mount_.backend(name(file)), content(file, 1, size));
  }
  void expect_readable(std::uint64_t file, std::uint64_t size) {
    const FileRead read = read_file(mount_.mounted(name(file)));
    EXPECT_EQ(read.error, 0);
    EXPECT_TRUE(read.bytes == content(file, 1, size)) << name(file);
  }
  static std::string name(std::uint64_t file) { return "file" + std::to_string(file); }

  // Ten times what an idle machine needs: the engine goes by seconds here.
  bool comes_to_pass(const std::function<bool(const EngineStatus&)>& condition) {
    return eventually([&] { return condition(mount_.engine_status()); }, std::chrono::minutes(5));
  }

  TestMount mount_;
};

TEST_F(MountDegradeTest, CacheThatGoesAwayIsNotMissedAndIsUsedWhenItIsBack) {
  constexpr std::uint64_t kFiles = 5;
  constexpr std::uint64_t kSize = 3 * kMiB + 17;
  for (std::uint64_t file = 0; file < kFiles; ++file) write(file, kSize);
  ASSERT_NO_FATAL_FAILURE(mount_.start({}));
  mount_.bring_into_cache(name(0));

  fs::create_directory(mount_.cache("away"));
  const auto move_shards = [](const fs::path& from, const fs::path& to) {
    std::vector<fs::path> shards;
    for (const auto& entry : fs::directory_iterator(from)) shards.push_back(entry.path());
    for (const fs::path& shard : shards) fs::rename(shard, to / shard.filename());
  };
  move_shards(mount_.cache("objects"), mount_.cache("away"));
  for (std::uint64_t file = 1; file < kFiles; ++file) expect_readable(file, kSize);
  ASSERT_TRUE(comes_to_pass(
      [](const EngineStatus& status) { return status.cache_health.state == HealthState::down; }));
  for (std::uint64_t file = 0; file < kFiles; ++file) expect_readable(file, kSize);
  EXPECT_EQ(mount_.engine_status().cache_health.last_error, ENOENT);

  move_shards(mount_.cache("away"), mount_.cache("objects"));
  fs::remove(mount_.cache("away"));
  ASSERT_TRUE(comes_to_pass(
      [](const EngineStatus& status) { return status.cache_health.state == HealthState::normal; }));
  EXPECT_TRUE(
      comes_to_pass([](const EngineStatus& status) { return status.objects_cached == kFiles; }));
  for (std::uint64_t file = 0; file < kFiles; ++file) expect_readable(file, kSize);
}

// A file system of its own for the cache; gone when this is.
class SmallFileSystem {
 public:
  SmallFileSystem(std::string path, const char* size) : path_(std::move(path)) {
    fs::create_directory(path_);
    is_mounted_ = ::mount("ncfs-test", path_.c_str(), "tmpfs", 0, size) == 0;
  }
  ~SmallFileSystem() {
    if (is_mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  SmallFileSystem(const SmallFileSystem&) = delete;
  SmallFileSystem& operator=(const SmallFileSystem&) = delete;
  [[nodiscard]] bool is_mounted() const { return is_mounted_; }

 private:
  const std::string path_;
  bool is_mounted_ = false;
};

TEST_F(MountDegradeTest, DiskThatOthersFilledIsUsedWhenTheyMadeRoom) {
  constexpr std::uint64_t kSize = 8 * kMiB;
  const SmallFileSystem small(mount_.cache(), "size=24m,mode=0700");
  if (!small.is_mounted()) GTEST_SKIP() << "cannot mount a tmpfs here";
  write(0, kSize);
  // Without a floor of free space, at which the engine would not even try.
  ASSERT_NO_FATAL_FAILURE(
      mount_.start({.cache_size_bytes = 64 * kMiB, .direct_io = false, .min_free_percent = 0}));
  {
    const std::string filler = mount_.cache("filler");
    const Descriptor file(::open(filler.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    const std::vector<std::byte> bytes(kMiB);
    while (::write(file.get(), bytes.data(), bytes.size()) > 0) {
    }
    EXPECT_EQ(errno, ENOSPC);
    expect_readable(0, kSize);
    EXPECT_TRUE(comes_to_pass([](const EngineStatus& status) { return status.is_disk_full; }));
    expect_readable(0, kSize);
    EXPECT_EQ(mount_.engine_status().cache_health.changes, 0U) << "a full disk is not broken";
    fs::remove(filler);
  }
  EXPECT_TRUE(comes_to_pass([](const EngineStatus& status) {
    return status.objects_cached == 1 && !status.is_disk_full;
  }));
  expect_readable(0, kSize);
  mount_.stop();
}

}  // namespace
}  // namespace ncfs
