// Method: two mounts of one backend, each with its own cache and its own beliefs, with the
// product's timeouts. What one of them closed, made, renamed or removed, the other one finds at its
// next open or creation: at once, whatever the kernel believes of the name.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "fuse_adapter/mount_fixture.h"
#include "io/descriptor.h"

namespace ncfs {
namespace {

namespace fs = std::filesystem;

// As many, or as many as the environment says: `NCFS_ROUNDS=10000 mount_test
// --gtest_filter='*MountPairTest*'` is the long run.
int rounds(int few) {
  const char* const many = std::getenv("NCFS_ROUNDS");
  return many == nullptr ? few : std::atoi(many);
}

class MountPairTest : public testing::TestWithParam<PassedFiles> {
 protected:
  void SetUp() override {
    // As in the product: files that were just written are not taken for settled.
    TestMountOptions options{.passthrough = GetParam(), .racy_window = 2 * kSecond};
    mounts_[0].start(options);
    options.backend = mounts_[0].backend();
    mounts_[1].start(options);
  }
  std::string path(int mount, const std::string& name) const {
    return mounts_.at(static_cast<std::size_t>(mount)).mounted(name);
  }
  void write(int mount, const std::string& name, const std::string& text, int flags = O_TRUNC) {
    const Descriptor file(
        ::open(path(mount, name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644));
    ASSERT_TRUE(file.is_open()) << name << " at " << mount << ": errno " << errno;
    ASSERT_EQ(::write(file.get(), text.data(), text.size()), std::ssize(text)) << "errno " << errno;
  }
  std::string read(int mount, const std::string& name) const {
    const FileRead file = read_file(path(mount, name));
    if (file.error != 0) return "errno " + std::to_string(file.error);
    return {reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()};
  }

  std::array<TestMount, 2> mounts_;
};

INSTANTIATE_TEST_SUITE_P(Passthrough, MountPairTest,
                         testing::Values(PassedFiles::all, PassedFiles::none), passthrough_name);

// The reader holds the file open all the time, which must not keep it at what it was.
TEST_P(MountPairTest, EveryOpenSeesWhatWasClosedBefore) {
  const int count = rounds(1000);
  write(0, "file", "start");
  const Descriptor held(::open(path(1, "file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(held.is_open());
  for (int round = 0; round < count; ++round) {
    // Often of the same size, within one tick of the clock.
    const std::string text = "round " + std::to_string(round);
    ASSERT_NO_FATAL_FAILURE(write(0, "file", text));
    ASSERT_EQ(read(1, "file"), text);
  }
}

TEST_P(MountPairTest, BothAppendByTurns) {
  const int count = rounds(200);
  std::string expected;
  for (int round = 0; round < count; ++round) {
    const int writer = round % 2;
    const std::string line = "line " + std::to_string(round) + "\n";
    ASSERT_NO_FATAL_FAILURE(write(writer, "log", line, O_APPEND));
    expected += line;
    ASSERT_EQ(read(1 - writer, "log"), expected) << round;
  }
}

// A name that the other one removed is made again, though it is known here.
TEST_P(MountPairTest, WhatTheOtherOneRemovedIsMadeAgain) {
  const int count = rounds(200);
  for (int round = 0; round < count; ++round) {
    const std::string text = "made " + std::to_string(round);
    const int maker = round % 2;
    ASSERT_NO_FATAL_FAILURE(write(maker, "file", text));
    ASSERT_EQ(read(1 - maker, "file"), text);
    ASSERT_EQ(::unlink(path(1 - maker, "file").c_str()), 0) << round << ": errno " << errno;
    ASSERT_NO_FATAL_FAILURE(write(maker, "file", text + " again"));
    ASSERT_EQ(read(1 - maker, "file"), text + " again");
    ASSERT_EQ(::unlink(path(maker, "file").c_str()), 0) << round << ": errno " << errno;
  }
}

// Files change places under names that both know.
TEST_P(MountPairTest, OpensFollowEveryRename) {
  const int count = rounds(200);
  constexpr int kFiles = 4;
  for (const int mount : {0, 1}) fs::create_directories(path(mount, "a/b"));
  std::array<std::string, kFiles> texts;
  const auto name_of = [](int file) { return "a/b/file" + std::to_string(file); };
  for (int file = 0; file < kFiles; ++file) {
    texts.at(static_cast<std::size_t>(file)) = "text " + std::to_string(file);
    ASSERT_NO_FATAL_FAILURE(write(0, name_of(file), texts.at(static_cast<std::size_t>(file))));
  }
  for (int round = 0; round < count; ++round) {
    const int mover = round % 2;
    const int from = round % kFiles;
    const int to = (round * 7 + 3) % kFiles;
    if (from != to) {
      ASSERT_EQ(::renameat2(AT_FDCWD, path(mover, name_of(from)).c_str(), AT_FDCWD,
                            path(mover, name_of(to)).c_str(), RENAME_EXCHANGE),
                0)
          << "errno " << errno;
      std::swap(texts.at(static_cast<std::size_t>(from)), texts.at(static_cast<std::size_t>(to)));
    }
    for (int file = 0; file < kFiles; ++file) {
      ASSERT_EQ(read(1 - mover, name_of(file)), texts.at(static_cast<std::size_t>(file))) << round;
    }
  }
}

TEST_P(MountPairTest, DirectoriesAreListedAsTheOtherOneLeftThem) {
  // Each lists all.
  const int count = rounds(1000) / 10;
  fs::create_directory(path(0, "d"));
  for (int round = 0; round < count; ++round) {
    const int maker = round % 2;
    const std::string name = "d/" + std::to_string(round);
    fs::create_directory(path(maker, name));
    const fs::directory_iterator listed(path(1 - maker, "d"));
    ASSERT_EQ(std::distance(begin(listed), end(listed)), round + 1);
  }
}

}  // namespace
}  // namespace ncfs
