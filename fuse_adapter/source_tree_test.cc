// Runs as root, as the daemon does: acting as somebody else is what is tested.
#include "fuse_adapter/source_tree.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>

#include "io/temp_directory.h"

namespace ncfs {
namespace {

constexpr Caller kRoot{.user = 0, .group = 0, .thread = 0};
constexpr Caller kNobody{.user = 65534, .group = 65534, .thread = 0};

class SourceTreeTest : public testing::Test {
 protected:
  SourceTreeTest() { root_ = directory_.open("", O_PATH | O_DIRECTORY); }

  void write(const std::string& name, mode_t mode) {
    const auto path = directory_.path(name);
    std::ofstream(path) << name;
    ::chmod(path.c_str(), mode);
  }
  // Where a file is now.
  InodeTable::Location locate(const std::string& name) {
    struct stat attributes {};
    EXPECT_EQ(::fstatat(root_.get(), name.c_str(), &attributes, AT_SYMLINK_NOFOLLOW), 0);
    const FileFacts facts = FileFacts::of(attributes);
    return {name, facts.file, facts.type};
  }
  AdapterStats stats_;
  SourceTree tree() { return SourceTree(root_.get(), groups_, stats_); }
  int reopen_error(const std::string& name, const Caller& caller) {
    const FoundFile found = tree().find(locate(name), kRoot);
    int error = 0;
    const Descriptor opened = tree().reopen(found.file.get(), O_RDONLY, caller, error);
    EXPECT_EQ(opened.is_open(), error == 0);
    return error;
  }

  TempDirectory directory_;
  Descriptor root_;
  CallerGroups groups_;
};

TEST_F(SourceTreeTest, FindsAFileByItsPath) {
  std::filesystem::create_directories(directory_.path("a/b"));
  write("a/b/file", 0644);
  const FoundFile found = tree().find(locate("a/b/file"), kRoot);
  EXPECT_EQ(found.error, 0);
  EXPECT_EQ(found.attributes.st_size, 8);
}

TEST_F(SourceTreeTest, AnotherFileUnderTheNameIsNotTheFile) {
  write("file", 0644);
  const auto location = locate("file");
  write("other", 0644);
  std::filesystem::rename(directory_.path("other"), directory_.path("file"));
  EXPECT_EQ(tree().find(location, kRoot).error, ESTALE);
}

TEST_F(SourceTreeTest, AFileThatIsGoneIsToBeLookedUpAgain) {
  write("file", 0644);
  const auto location = locate("file");
  std::filesystem::remove(directory_.path("file"));
  EXPECT_EQ(tree().find(location, kRoot).error, ESTALE);
}

TEST_F(SourceTreeTest, ADirectoryReplacedByALinkIsNotFollowed) {
  std::filesystem::create_directories(directory_.path("a"));
  write("a/file", 0644);
  const auto location = locate("a/file");
  std::filesystem::rename(directory_.path("a"), directory_.path("b"));
  std::filesystem::create_symlink("b", directory_.path("a"));
  EXPECT_EQ(tree().find(location, kRoot).error, ESTALE);
}

TEST_F(SourceTreeTest, ALinkIsFoundAsItself) {
  std::filesystem::create_symlink("/etc/passwd", directory_.path("link"));
  const FoundFile found = tree().find(locate("link"), kRoot);
  EXPECT_EQ(found.error, 0);
  EXPECT_TRUE(S_ISLNK(found.attributes.st_mode));
}

TEST_F(SourceTreeTest, PathsMayBeLongerThanTheKernelTakesAtOnce) {
  const std::string name(200, 'd');
  std::string path;
  Descriptor directory(::openat(root_.get(), ".", O_RDONLY | O_DIRECTORY));
  for (int depth = 0; depth < 60; ++depth) {
    ASSERT_EQ(::mkdirat(directory.get(), name.c_str(), 0755), 0);
    directory = Descriptor(::openat(directory.get(), name.c_str(), O_RDONLY | O_DIRECTORY));
    path += (path.empty() ? "" : "/") + name;
  }
  struct stat attributes {};
  ASSERT_EQ(::fstat(directory.get(), &attributes), 0);
  const FileFacts facts = FileFacts::of(attributes);
  const FoundFile found = tree().find({path, facts.file, facts.type}, kRoot);
  EXPECT_EQ(found.error, 0);
}

TEST_F(SourceTreeTest, FilesAreOpenedAsTheCaller) {
  write("secret", 0600);
  write("public", 0644);
  EXPECT_EQ(reopen_error("secret", kRoot), 0);
  EXPECT_EQ(reopen_error("secret", kNobody), EACCES);
  EXPECT_EQ(reopen_error("public", kNobody), 0);
  // The thread is root again.
  EXPECT_EQ(reopen_error("secret", kRoot), 0);
}

TEST_F(SourceTreeTest, TheGroupOfTheCallerCounts) {
  write("shared", 0640);
  ASSERT_EQ(::chown(directory_.path("shared").c_str(), 0, 4242), 0);
  EXPECT_EQ(reopen_error("shared", kNobody), EACCES);
  EXPECT_EQ(reopen_error("shared", {.user = 65534, .group = 4242, .thread = 0}), 0);
}

TEST_F(SourceTreeTest, SupplementaryGroupsOfTheCallerCount) {
  write("shared", 0640);
  ASSERT_EQ(::chown(directory_.path("shared").c_str(), 0, 4242), 0);
  // A process with the group, stopped where it can be looked at.
  std::array<int, 2> ready{};
  ASSERT_EQ(::pipe(ready.data()), 0);
  const pid_t member = ::fork();
  if (member == 0) {
    const gid_t group = 4242;
    const bool is_set = ::syscall(SYS_setgroups, 1, &group) == 0;
    const char done = is_set ? 1 : 0;
    if (::write(ready[1], &done, 1) != 1) ::_exit(1);
    ::pause();
    ::_exit(0);
  }
  char done = 0;
  EXPECT_EQ(::read(ready[0], &done, 1), 1);
  EXPECT_EQ(done, 1);
  EXPECT_EQ(reopen_error("shared", {.user = 65534, .group = 65534, .thread = member}), 0);
  ::kill(member, SIGKILL);
  ::waitpid(member, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(SourceTreeTest, OnlyTheCallingThreadBecomesTheCaller) {
  write("secret", 0600);
  // A thread starts with the ids of the one that starts it, so this one must exist before.
  std::promise<void> switched;
  int other_thread_error = -1;
  std::thread other([&, is_switched = switched.get_future()] {
    is_switched.wait();
    const Descriptor file(::open(directory_.path("secret").c_str(), O_RDONLY));
    other_thread_error = file.is_open() ? 0 : errno;
  });
  const CallerCredentials as_nobody(kNobody, groups_);
  EXPECT_EQ(as_nobody.error(), 0);
  switched.set_value();
  other.join();
  EXPECT_EQ(other_thread_error, 0);
  const Descriptor file(::open(directory_.path("secret").c_str(), O_RDONLY));
  EXPECT_FALSE(file.is_open());
}

}  // namespace
}  // namespace ncfs
