// Method: the backend's tree changes beneath a real mount, and applications look. Nothing depends
// on how long anything takes: what must be seen is seen at once, and what is believed is believed
// for an hour.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
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

TEST_F(MountMetadataTest, UnchangedDirectoryIsListedAfterOneQuestion) {
  fs::create_directory(mount_.backend("d"));
  for (int index = 0; index < 100; ++index) write("d/file" + std::to_string(index), "x");
  let_a_tick_pass();
  start(believing_for_an_hour());
  const Names first = list("d");
  for (int round = 0; round < 5; ++round) {
    const std::uint64_t looks = mount_.stats().source_looks.value();
    EXPECT_EQ(list("d"), first);
    EXPECT_EQ(mount_.stats().source_looks.value(), looks + 1);
  }
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

// One timeout is 0, the others an hour: only what belongs to it is seen to change.
struct OneTimeout {
  const char* name;
  Nanos MetadataConfig::*timeout;
};

class MountTimeoutTest : public MountMetadataTest,
                         public testing::WithParamInterface<OneTimeout> {};

INSTANTIATE_TEST_SUITE_P(Each, MountTimeoutTest,
                         testing::Values(OneTimeout{"Entry", &MetadataConfig::entry_timeout},
                                         OneTimeout{"DirEntry", &MetadataConfig::dir_entry_timeout},
                                         OneTimeout{"Attr", &MetadataConfig::attr_timeout},
                                         OneTimeout{"DirAttr", &MetadataConfig::dir_attr_timeout},
                                         OneTimeout{"Negative", &MetadataConfig::negative_timeout}),
                         [](const testing::TestParamInfo<OneTimeout>& one) {
                           return one.param.name;
                         });

TEST_P(MountTimeoutTest, BelongsToItsOwnKindOfAnswer) {
  for (const std::string name : {"file", "moved file"}) write(name, "x");
  for (const std::string name : {"directory", "moved directory"}) {
    fs::create_directory(mount_.backend(name));
  }
  for (const std::string name : {"file", "directory"}) {
    ASSERT_EQ(::chmod(mount_.backend(name).c_str(), 0700), 0);
  }
  MetadataConfig config = believing_for_an_hour();
  config.*GetParam().timeout = 0;
  start(config);
  EXPECT_EQ(permissions("file"), 0700U);
  EXPECT_EQ(permissions("directory"), 0700U);
  EXPECT_TRUE(exists("moved file"));
  EXPECT_TRUE(exists("moved directory"));
  EXPECT_FALSE(exists("made"));
  ASSERT_EQ(::chmod(mount_.backend("file").c_str(), 0755), 0);
  ASSERT_EQ(::chmod(mount_.backend("directory").c_str(), 0755), 0);
  const auto is = [](Nanos MetadataConfig::*timeout) { return GetParam().timeout == timeout; };
  // Attributes come with names as well.
  const bool asks_of_files =
      is(&MetadataConfig::attr_timeout) || is(&MetadataConfig::entry_timeout);
  const bool asks_of_directories =
      is(&MetadataConfig::dir_attr_timeout) || is(&MetadataConfig::dir_entry_timeout);
  EXPECT_EQ(permissions("file"), asks_of_files ? 0755U : 0700U);
  EXPECT_EQ(permissions("directory"), asks_of_directories ? 0755U : 0700U);
  fs::rename(mount_.backend("moved file"), mount_.backend("away file"));
  fs::rename(mount_.backend("moved directory"), mount_.backend("away directory"));
  write("made", "x");
  EXPECT_EQ(exists("moved file"), !asks_of_files);
  EXPECT_EQ(exists("moved directory"), !asks_of_directories);
  EXPECT_EQ(exists("made"), is(&MetadataConfig::negative_timeout));
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

// The kernel does not tell by which of its names it opens a file, and the file itself does not
// change when a directory on the way to it does.
TEST_F(MountMetadataTest, OpenFollowsEachNameOfALinkedFile) {
  for (const std::string directory : {"a", "b", "c", "other"}) {
    fs::create_directory(mount_.backend(directory));
  }
  write("a/file", "linked");
  write("other/file", "another");
  for (const std::string directory : {"b", "c"}) {
    fs::create_hard_link(mount_.backend("a/file"), mount_.backend(directory + "/file"));
  }
  start(believing_for_an_hour());
  for (const std::string replaced : {"a", "b", "c"}) {
    for (const std::string name : {"a", "b", "c"}) ASSERT_EQ(read(name + "/file"), "linked");
    const auto swap = [&] {
      ASSERT_EQ(::renameat2(AT_FDCWD, mount_.backend("other").c_str(), AT_FDCWD,
                            mount_.backend(replaced).c_str(), RENAME_EXCHANGE),
                0);
    };
    swap();
    for (const std::string name : {"a", "b", "c"}) {
      EXPECT_EQ(read(name + "/file"), name == replaced ? "another" : "linked") << name;
    }
    swap();
  }
}

// find, and a stat of all that it finds.
TEST_F(MountMetadataTest, WithTheStaticProfileASecondWalkAsksNothing) {
  for (int directory = 0; directory < 10; ++directory) {
    const std::string name = "d" + std::to_string(directory);
    fs::create_directory(mount_.backend(name));
    for (int file = 0; file < 50; ++file) write(name + "/f" + std::to_string(file), "x");
    fs::create_symlink("f1", mount_.backend(name + "/link"));
  }
  let_a_tick_pass();
  start(metadata_config(MetadataProfile::unchanged));
  const auto walk = [this] {
    std::uint64_t count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(mount_.mounted())) {
      struct stat attributes {};
      EXPECT_EQ(::lstat(entry.path().c_str(), &attributes), 0) << entry.path();
      if (entry.is_symlink()) {
        EXPECT_EQ(fs::read_symlink(entry.path()), "f1");
      }
      ++count;
    }
    return count;
  };
  EXPECT_EQ(walk(), 10U * 52);
  const std::uint64_t looks = mount_.stats().source_looks.value();
  for (int round = 0; round < 3; ++round) EXPECT_EQ(walk(), 10U * 52);
  EXPECT_EQ(mount_.stats().source_looks.value(), looks);
  // What this mount changes is there all the same, in the listings that the kernel keeps, too.
  ASSERT_EQ(::mkdir(mount_.mounted("d3/new").c_str(), 0755), 0);
  ASSERT_EQ(::unlink(mount_.mounted("d4/f7").c_str()), 0);
  EXPECT_TRUE(list("d3").contains("new"));
  EXPECT_FALSE(list("d4").contains("f7"));
  EXPECT_EQ(walk(), 10U * 52);
}

TEST_F(MountMetadataTest, AnOpenAsksOnceOrWithNoctoNotAtAll) {
  write("file", "old");
  let_a_tick_pass();
  MetadataConfig config = believing_for_an_hour();
  start(config);
  EXPECT_EQ(read("file"), "old");
  std::uint64_t looks = mount_.stats().source_looks.value();
  EXPECT_EQ(read("file"), "old");
  EXPECT_EQ(mount_.stats().source_looks.value(), looks + 1);
  mount_.stop();
  config.is_close_to_open = false;
  start(config);
  EXPECT_EQ(read("file"), "old");
  looks = mount_.stats().source_looks.value();
  EXPECT_EQ(read("file"), "old");
  EXPECT_EQ(mount_.stats().source_looks.value(), looks);
  // Others' changes are not asked for; our own are known.
  write("other", "newer");
  fs::rename(mount_.backend("other"), mount_.backend("file"));
  EXPECT_EQ(read("file"), "old");
  std::ofstream(mount_.mounted("file")) << "ours";
  EXPECT_EQ(read("file"), "ours");
}

// Opens that are told nothing but what there is, for users of the mount that do not try again.
// What the daemon remembers it tells as what it asks: numbers are the backend's mixed with the
// device.
TEST_F(MountMetadataTest, FilesOfInnerFileSystemsHaveTheSameNumberFromMemory) {
  fs::create_directory(mount_.backend("inner"));
  ASSERT_EQ(::mount("tmpfs", mount_.backend("inner").c_str(), "tmpfs", 0, "size=1m"), 0);
  const std::unique_ptr<const std::string, void (*)(const std::string*)> inner(
      new std::string(mount_.backend("inner")), [](const std::string* path) {
        EXPECT_EQ(::umount2(path->c_str(), MNT_DETACH), 0);
        delete path;
      });
  write("inner/file", "x");
  start(believing_for_an_hour());
  const auto number = [this] {
    struct stat attributes {};
    EXPECT_EQ(::stat(mount_.mounted("inner/file").c_str(), &attributes), 0);
    return attributes.st_ino;
  };
  const ino_t asked = number();
  const std::uint64_t looks = mount_.stats().source_looks.value();
  // The kernel forgets all names.
  const unsigned long flags = MS_REMOUNT | MS_NOSUID | MS_NODEV;
  ASSERT_EQ(::mount(nullptr, mount_.mounted().c_str(), nullptr, flags, nullptr), 0);
  EXPECT_EQ(number(), asked);
  EXPECT_EQ(mount_.stats().source_looks.value(), looks);
  struct stat on_backend {};
  ASSERT_EQ(::stat(mount_.backend("inner/file").c_str(), &on_backend), 0);
  EXPECT_NE(asked, on_backend.st_ino);
}

TEST_F(MountMetadataTest, StaleOpensCanBeServedWithoutLookingUpAgain) {
  for (const StaleOpen how : {StaleOpen::inval, StaleOpen::estale}) {
    write("file", "old");
    fs::create_directory(mount_.backend("aside"));
    mount_.start({.metadata = believing_for_an_hour(), .stale_open = how});
    EXPECT_EQ(read("file"), "old");
    std::ofstream(mount_.backend("file"), std::ios::app) << " and grown";
    EXPECT_EQ(read("file"), "old and grown");
    struct stat attributes {};
    EXPECT_EQ(::stat(mount_.mounted("file").c_str(), &attributes), 0);
    EXPECT_EQ(attributes.st_size, 13);
    write("other", "another one");
    fs::rename(mount_.backend("other"), mount_.backend("file"));
    EXPECT_EQ(read("file"), "another one");
    fs::rename(mount_.backend("file"), mount_.backend("aside/file"));
    // Whoever has it open keeps it within reach, and the kernel tells late that nobody has.
    EXPECT_TRUE(
        mount_.wait_until([](const EngineStatus& status) { return status.handles_open == 0; }));
    EXPECT_FALSE(std::ifstream(mount_.mounted("file")).is_open());
    const bool is_told = mount_.stats().stale_answers.value() > 0;
    EXPECT_EQ(is_told, how == StaleOpen::estale);
    if (how == StaleOpen::inval) {
      EXPECT_FALSE(mount_.passes_through());
    }
    mount_.stop();
  }
}

// Overlayfs does not look up again, and keeps what it has looked up.
TEST_F(MountMetadataTest, ThroughOverlayfsChangedFilesAreReadWithStaleOpenInval) {
  write("file", "a");
  mount_.start(
      {.metadata = metadata_config(MetadataProfile::strict), .stale_open = StaleOpen::inval});
  const std::string overlay = mount_.make_directory("overlay");
  const std::string layers = "lowerdir=" + mount_.mounted() + ":" + mount_.make_directory("lowest");
  if (::mount("overlay", overlay.c_str(), "overlay", MS_RDONLY, layers.c_str()) != 0) {
    GTEST_SKIP() << "no overlayfs here: " << std::strerror(errno);
  }
  const auto read_above = [&] {
    std::ifstream file(overlay + "/file");
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  std::string expected = "a";
  EXPECT_EQ(read_above(), expected);
  for (char letter = 'b'; letter < 'h'; ++letter) {
    const bool is_held = letter % 2 == 0;
    const Descriptor held(is_held ? ::open((overlay + "/file").c_str(), O_RDONLY) : -1);
    std::ofstream(mount_.backend("file"), std::ios::app) << letter;
    expected += letter;
    EXPECT_EQ(read_above(), expected);
    EXPECT_EQ(fs::file_size(overlay + "/file"), expected.size());
    EXPECT_EQ(read_above(), expected);
  }
  EXPECT_EQ(::umount2(overlay.c_str(), MNT_DETACH), 0);
}

}  // namespace
}  // namespace ncfs
