// Method: the backend's tree changes beneath a real mount, and applications look. Nothing depends
// on how long anything takes: what must be seen is seen at once, and what is believed is believed
// for an hour.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "fuse_adapter/mount_fixture.h"

namespace ncfs {
namespace {

namespace fs = std::filesystem;
using Names = std::set<std::string>;

struct CloseDirectory {
  void operator()(DIR* stream) const { ::closedir(stream); }
};
using Stream = std::unique_ptr<DIR, CloseDirectory>;

Names names_in(DIR* stream) {
  Names names;
  while (const dirent* const entry = ::readdir(stream)) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    EXPECT_TRUE(names.insert(name).second) << name << " is listed twice";
  }
  return names;
}

class MountMetadataTest : public testing::Test {
 protected:
  static MetadataConfig believing_for_an_hour() {
    MetadataConfig config = metadata_config(MetadataProfile::unchanged);
    config.is_close_to_open = true;
    return config;
  }
  void start(const MetadataConfig& config = {}) { mount_.start({.metadata = config}); }
  void write(const std::string& path, const std::string& text) {
    std::ofstream(mount_.backend(path)) << text;
  }
  std::string read(const std::string& path) {
    std::ifstream file(mount_.mounted(path));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  bool exists(const std::string& path) {
    struct stat attributes {};
    return ::stat(mount_.mounted(path).c_str(), &attributes) == 0;
  }
  mode_t permissions(const std::string& path) {
    struct stat attributes {};
    EXPECT_EQ(::stat(mount_.mounted(path).c_str(), &attributes), 0) << path;
    return attributes.st_mode & 07777U;
  }
  Names list(const std::string& path) {
    const Stream stream(::opendir(mount_.mounted(path).c_str()));
    EXPECT_TRUE(stream) << path << ": errno " << errno;
    return stream ? names_in(stream.get()) : Names{};
  }
  [[nodiscard]] std::uint64_t listings_read() const { return mount_.stats().listings_read.value(); }
  // Whatever changes from now on gets later timestamps than what has changed so far: a tick of the
  // kernel's clock is at most 10 ms.
  static void let_a_tick_pass() { std::this_thread::sleep_for(std::chrono::milliseconds(30)); }

  TestMount mount_;
};

TEST_F(MountMetadataTest, UnchangedDirectoryIsReadFromTheBackendOnce) {
  fs::create_directory(mount_.backend("d"));
  for (int index = 0; index < 500; ++index) write("d/file" + std::to_string(index), "x");
  fs::create_directory(mount_.backend("empty"));
  let_a_tick_pass();
  start();
  const Names first = list("d");
  EXPECT_EQ(first.size(), 500U);
  EXPECT_TRUE(list("empty").empty());
  const std::uint64_t read_before = listings_read();
  for (int round = 0; round < 20; ++round) {
    EXPECT_EQ(list("d"), first);
    EXPECT_TRUE(list("empty").empty());
  }
  EXPECT_EQ(listings_read(), read_before);
  write("d/more", "x");
  EXPECT_TRUE(list("d").contains("more"));
  EXPECT_EQ(listings_read(), read_before + 1);
}

TEST_F(MountMetadataTest, WithoutMemoryForListingsEveryListingIsRead) {
  fs::create_directory(mount_.backend("d"));
  for (int index = 0; index < 500; ++index) write("d/file" + std::to_string(index), "x");
  let_a_tick_pass();
  MetadataConfig config;
  config.listings_bytes_max = 0;
  start(config);
  EXPECT_EQ(list("d").size(), 500U);
  const std::uint64_t read_before = listings_read();
  EXPECT_EQ(list("d").size(), 500U);
  EXPECT_EQ(listings_read(), read_before + 1);
}

TEST_F(MountMetadataTest, RewoundDirectoryIsListedAnew) {
  fs::create_directory(mount_.backend("d"));
  write("d/a", "x");
  let_a_tick_pass();
  start();
  const Stream stream(::opendir(mount_.mounted("d").c_str()));
  ASSERT_TRUE(stream);
  EXPECT_EQ(names_in(stream.get()), Names{"a"});
  write("d/b", "x");
  ::rewinddir(stream.get());
  EXPECT_EQ(names_in(stream.get()), (Names{"a", "b"}));
}

TEST_F(MountMetadataTest, OwnChangesAreListedAtOnceHoweverFast) {
  start(believing_for_an_hour());
  Names expected;
  for (int index = 0; index < 300; ++index) {
    const std::string name = "d" + std::to_string(index);
    EXPECT_FALSE(exists(name));
    ASSERT_EQ(::mkdir(mount_.mounted(name).c_str(), 0755), 0);
    expected.insert(name);
    ASSERT_EQ(list(""), expected);
    ASSERT_TRUE(exists(name));
    if (index % 3 != 0) continue;
    ASSERT_EQ(::rename(mount_.mounted(name).c_str(), mount_.mounted(name + "r").c_str()), 0);
    expected.erase(name);
    expected.insert(name + "r");
    ASSERT_FALSE(exists(name));
    ASSERT_EQ(list(""), expected);
  }
}

TEST_F(MountMetadataTest, AbsenceIsBelievedForItsTimeout) {
  MetadataConfig config = believing_for_an_hour();
  start(config);
  EXPECT_FALSE(exists("late"));
  write("late", "x");
  EXPECT_FALSE(exists("late"));
  mount_.stop();
  config.negative_timeout = 0;
  start(config);
  EXPECT_FALSE(exists("later"));
  write("later", "x");
  EXPECT_TRUE(exists("later"));
}

TEST_F(MountMetadataTest, AbsenceIsBelievedAfterEnoughMisses) {
  MetadataConfig config = believing_for_an_hour();
  config.negative_min_uses = 3;
  start(config);
  EXPECT_FALSE(exists("late"));
  EXPECT_FALSE(exists("late"));
  write("late", "x");
  EXPECT_TRUE(exists("late"));
}

TEST_F(MountMetadataTest, StrictSeesEveryChangeAtOnce) {
  write("file", "x");
  start(metadata_config(MetadataProfile::strict));
  for (mode_t mode : {0600U, 0640U, 0644U, 0600U}) {
    ASSERT_EQ(::chmod(mount_.backend("file").c_str(), mode), 0);
    EXPECT_EQ(permissions("file"), mode);
    EXPECT_FALSE(exists("other"));
    fs::rename(mount_.backend("file"), mount_.backend("other"));
    EXPECT_TRUE(exists("other"));
    EXPECT_FALSE(exists("file"));
    fs::rename(mount_.backend("other"), mount_.backend("file"));
  }
}

TEST_F(MountMetadataTest, AttributesAreBelievedForTheirTimeout) {
  write("file", "x");
  fs::create_directory(mount_.backend("d"));
  MetadataConfig config = metadata_config(MetadataProfile::strict);
  config.attr_timeout = 3600 * kSecond;
  config.entry_timeout = 3600 * kSecond;
  start(config);
  ASSERT_EQ(::chmod(mount_.backend("file").c_str(), 0600), 0);
  ASSERT_EQ(::chmod(mount_.backend("d").c_str(), 0700), 0);
  EXPECT_EQ(permissions("file"), 0600U);
  EXPECT_EQ(permissions("d"), 0700U);
  ASSERT_EQ(::chmod(mount_.backend("file").c_str(), 0644), 0);
  ASSERT_EQ(::chmod(mount_.backend("d").c_str(), 0755), 0);
  EXPECT_EQ(permissions("file"), 0600U);
  EXPECT_EQ(permissions("d"), 0755U);
}

// The kernel and the daemon believe every name on the path for an hour.
TEST_F(MountMetadataTest, OpenFollowsWhatWasReplacedAnywhereOnItsPath) {
  for (const std::string side : {"a", "b"}) {
    fs::create_directories(mount_.backend("top/" + side + "/deep"));
    write("top/" + side + "/deep/file", side);
    write("top/" + side + "/deep/other", side + " other");
  }
  start(believing_for_an_hour());
  EXPECT_EQ(read("top/a/deep/file"), "a");
  EXPECT_EQ(read("top/b/deep/file"), "b");
  for (int round = 0; round < 50; ++round) {
    ASSERT_EQ(::renameat2(AT_FDCWD, mount_.backend("top/a").c_str(), AT_FDCWD,
                          mount_.backend("top/b").c_str(), RENAME_EXCHANGE),
              0);
    const bool is_swapped = round % 2 == 0;
    EXPECT_EQ(read("top/a/deep/file"), is_swapped ? "b" : "a") << round;
    EXPECT_EQ(read("top/b/deep/file"), is_swapped ? "a" : "b") << round;
    fs::rename(mount_.backend("top/a/deep/file"), mount_.backend("top/a/deep/aside"));
    fs::rename(mount_.backend("top/a/deep/other"), mount_.backend("top/a/deep/file"));
    fs::rename(mount_.backend("top/a/deep/aside"), mount_.backend("top/a/deep/other"));
    EXPECT_EQ(read("top/a/deep/file"), is_swapped ? "b other" : "a other") << round;
    fs::rename(mount_.backend("top/a/deep/file"), mount_.backend("top/a/deep/aside"));
    fs::rename(mount_.backend("top/a/deep/other"), mount_.backend("top/a/deep/file"));
    fs::rename(mount_.backend("top/a/deep/aside"), mount_.backend("top/a/deep/other"));
    EXPECT_EQ(read("top/a/deep/file"), is_swapped ? "b" : "a") << round;
  }
}

}  // namespace
}  // namespace ncfs
