// Method: this binary runs itself as a test that is killed in the worst moment, when its first
// thread waits for its own mount: the kernel waits for an answer then, and only it can end the
// daemon that owes it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>

#include "fuse_adapter/mount_fixture.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

constexpr const char* kPipe = "NCFS_VICTIM_PIPE";

// Tells through the pipe where it is, then waits until it is killed.
void be_victim(int pipe) {
  TestMount mount;
  write_content(mount.backend("file"), content(1, 0, 100));
  mount.start({.locks = LockPlace::local});
  const auto open = [&mount] {
    return Descriptor(::open(mount.mounted("file").c_str(), O_RDONLY | O_CLOEXEC));
  };
  const Descriptor one = open();
  const Descriptor other = open();
  ASSERT_EQ(::flock(one.get(), LOCK_EX), 0);
  const std::string place = mount.mounted();
  ASSERT_EQ(::write(pipe, place.data(), place.size()), std::ssize(place));
  ::flock(other.get(), LOCK_EX);
}

bool is_in_flock(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/syscall");
  long number = -1;
  return file >> number && number == SYS_flock;
}

TEST(TestMountGuard, NothingIsLeftOfATestThatIsKilledWhileItWaitsForItsOwnMount) {
  if (const char* const pipe = std::getenv(kPipe)) {
    be_victim(std::atoi(pipe));
    return;
  }
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  ASSERT_EQ(::setenv(kPipe, std::to_string(ends[1]).c_str(), 1), 0);
  const pid_t victim = ::fork();
  if (victim == 0) {
    ::execl("/proc/self/exe", "victim", "--gtest_filter=TestMountGuard.*", nullptr);
    ::_exit(1);
  }
  ::unsetenv(kPipe);
  ::close(ends[1]);
  std::array<char, 256> name{};
  pollfd answer{.fd = ends[0], .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&answer, 1, static_cast<int>(std::chrono::milliseconds(kTestPatience).count())),
            1);
  const ssize_t size = ::read(ends[0], name.data(), name.size());
  ::close(ends[0]);
  // It should wait for its mount when it is killed; whatever it does then, nothing may be left.
  static_cast<void>(eventually([victim] { return is_in_flock(victim); }, std::chrono::seconds(5)));
  ::kill(victim, SIGKILL);
  EXPECT_TRUE(eventually([victim] { return ::waitpid(victim, nullptr, WNOHANG) == victim; }));
  ASSERT_GT(size, 0);
  std::string directory(name.data(), static_cast<std::size_t>(size));
  directory.resize(directory.rfind("/mounted"));
  EXPECT_TRUE(eventually([&directory] {
    return ::access(directory.c_str(), F_OK) != 0 && errno == ENOENT;
  })) << directory;
}

}  // namespace
}  // namespace ncfs
