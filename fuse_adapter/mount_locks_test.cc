// Locks between processes through a real mount. What a process of its own does is told to it byte
// by byte over a pipe, so that nothing depends on who is faster.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fuse_adapter/faulty_backend.h"
#include "fuse_adapter/mount_fixture.h"
#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

// A machine that needs longer is not slow but stuck.
constexpr Nanos kPatience = 60 * kSecond;

// Another process, which makes one call after the other.
class Process {
 public:
  using Call = std::function<int()>;
  explicit Process(std::vector<Call> calls) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    // Before there is anybody to be signalled, and without SA_RESTART.
    struct sigaction action {};
    action.sa_handler = [](int) {};
    EXPECT_EQ(::sigaction(SIGUSR1, &action, nullptr), 0);
    id_ = ::fork();
    if (id_ == 0) {
      ::close(ends[0]);
      for (int next = 0;;) {
        const ssize_t count = ::read(ends[1], &next, sizeof(next));
        if (count < 0 && errno == EINTR) continue;  // a signal that came early or late
        if (count != sizeof(next)) ::_exit(0);
        const int error = calls[static_cast<std::size_t>(next)]() < 0 ? errno : 0;
        while (::write(ends[1], &error, sizeof(error)) < 0 && errno == EINTR) {
        }
      }
    }
    ::close(ends[1]);
    pipe_ = Descriptor(ends[0]);
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  ~Process() { end(); }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void end() {
    if (id_ <= 0) return;
    ::kill(id_, SIGKILL);
    EXPECT_EQ(::waitpid(id_, nullptr, 0), id_);
    id_ = -1;
  }

  void start(int call) {
    EXPECT_EQ(::write(pipe_.get(), &call, sizeof(call)), ssize_t{sizeof(call)});
  }
  // The errno of the call that was started, 0 if it went well.
  int finish() {
    int error = -1;
    EXPECT_EQ(::read(pipe_.get(), &error, sizeof(error)), ssize_t{sizeof(error)}) << "no answer";
    return error;
  }
  int run(int call) {
    start(call);
    return finish();
  }
  // Signals until the call ends: one that comes before the call waits is without effect.
  int interrupt() {
    const Nanos deadline = monotonic_now() + kPatience;
    int error = -1;
    while (monotonic_now() < deadline) {
      if (::recv(pipe_.get(), &error, sizeof(error), MSG_DONTWAIT) == sizeof(error)) return error;
      ::kill(id_, SIGUSR1);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return -1;
  }
  [[nodiscard]] pid_t id() const { return id_; }
  [[nodiscard]] int pipe() const { return pipe_.get(); }

 private:
  pid_t id_ = -1;
  Descriptor pipe_;
};

class MountLocksTest : public testing::TestWithParam<LockPlace> {
 protected:
  void SetUp() override {
    write_content(mount_.backend("file"), content(1, 0, 100));
    mount_.start({.locks = GetParam()});
  }
  [[nodiscard]] Descriptor open(int flags = O_RDONLY) const {
    return Descriptor(::open(mount_.mounted("file").c_str(), flags | O_CLOEXEC));
  }

  TestMount mount_;
};

INSTANTIATE_TEST_SUITE_P(, MountLocksTest, testing::Values(LockPlace::backend, LockPlace::local),
                         [](const testing::TestParamInfo<LockPlace>& place) {
                           return place.param == LockPlace::local ? "Local" : "Backend";
                         });

int set_lock(int file, int command, short type, off_t first, off_t length) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = first;
  lock.l_len = length;
  return ::fcntl(file, command, &lock);
}

TEST_P(MountLocksTest, AFlockExcludesOtherOpensUntilTheLastOfItsDescriptorsIsClosed) {
  int file = -1;
  Process other({[&] { return file = open().release(); },
                 [&] { return ::flock(file, LOCK_EX | LOCK_NB); },
                 [&] { return ::flock(file, LOCK_SH | LOCK_NB); },
                 [&] { return ::flock(file, LOCK_UN); }, [&] { return ::flock(file, LOCK_EX); }});
  // After the fork: what a child inherits, it holds open.
  Descriptor mine = open();
  Descriptor copy(::fcntl(mine.get(), F_DUPFD_CLOEXEC, 0));
  EXPECT_EQ(other.run(0), 0);
  EXPECT_EQ(::flock(mine.get(), LOCK_EX), 0);
  EXPECT_EQ(::flock(copy.get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_EQ(other.run(1), EWOULDBLOCK);
  EXPECT_EQ(other.run(2), EWOULDBLOCK);
  EXPECT_EQ(::flock(mine.get(), LOCK_SH), 0);
  EXPECT_EQ(other.run(2), 0);
  EXPECT_EQ(::flock(mine.get(), LOCK_EX | LOCK_NB), -1);
  EXPECT_EQ(errno, EWOULDBLOCK);
  EXPECT_EQ(other.run(3), 0);
  EXPECT_EQ(::flock(mine.get(), LOCK_EX | LOCK_NB), 0);
  mine.reset();
  EXPECT_EQ(other.run(1), EWOULDBLOCK);
  // Its wait ends when the last descriptor is closed, whoever comes first.
  other.start(4);
  copy.reset();
  EXPECT_EQ(other.finish(), 0);
  const Descriptor again = open();
  EXPECT_EQ(::flock(again.get(), LOCK_SH | LOCK_NB), -1);
  other.end();
  EXPECT_EQ(::flock(again.get(), LOCK_SH), 0);
}

TEST_P(MountLocksTest, WhoWaitsForALockCanBeInterruptedAndKilled) {
  const Descriptor mine = open();
  EXPECT_EQ(::flock(mine.get(), LOCK_EX), 0);
  int file = -1;
  const auto wait = [&] { return file = open().release(), ::flock(file, LOCK_EX); };
  Process other({wait});
  other.start(0);
  EXPECT_EQ(other.interrupt(), EINTR);
  other.start(0);
  other.end();
  EXPECT_EQ(::flock(mine.get(), LOCK_SH), 0);
  // Nothing is left of those who waited.
  Process third({[&] { return file = open().release(), ::flock(file, LOCK_SH | LOCK_NB); }});
  EXPECT_EQ(third.run(0), 0);
}

// Kernel-local locks would be of the node.
TEST_P(MountLocksTest, LocksAreTheFilesUnderWhateverNode) {
  mount_.stop();
  // The kernel believes the name however long this takes, so it is told at the open.
  MetadataConfig believing;
  believing.entry_timeout = believing.dir_entry_timeout = 3600 * kSecond;
  mount_.start({.locks = GetParam(), .metadata = believing});
  const Descriptor old = open();
  EXPECT_EQ(::flock(old.get(), LOCK_EX), 0);
  write_content(mount_.backend("file"), content(1, 1, 200));
  int file = -1;
  Process other(
      {[&] { return file = open().release(); }, [&] { return ::flock(file, LOCK_EX | LOCK_NB); }});
  EXPECT_EQ(other.run(0), 0);
  EXPECT_GT(mount_.stats().stale_answers.value(), 0U);
  EXPECT_EQ(other.run(1), EWOULDBLOCK);
}

TEST_P(MountLocksTest, LocksOfFcntlAreOfProcessesAndRanges) {
  const Descriptor mine = open(O_RDWR);
  int file = -1;
  Process other({[&] { return file = open(O_RDWR).release(); },
                 [&] { return set_lock(file, F_SETLK, F_WRLCK, 0, 10); },
                 [&] { return set_lock(file, F_SETLK, F_WRLCK, 10, 10); },
                 [&] { return set_lock(file, F_SETLK, F_RDLCK, 5, 0); },
                 [&] { return set_lock(file, F_SETLKW, F_WRLCK, 0, 10); },
                 [&] { return Descriptor(open()).is_open() ? 0 : -1; }});
  EXPECT_EQ(other.run(0), 0);
  EXPECT_EQ(set_lock(mine.get(), F_SETLK, F_WRLCK, 0, 10), 0);
  EXPECT_EQ(other.run(1), EAGAIN);
  EXPECT_EQ(other.run(2), 0);
  struct flock found {};
  found.l_type = F_RDLCK;
  EXPECT_EQ(::fcntl(mine.get(), F_GETLK, &found), 0);
  EXPECT_EQ(found.l_type, F_WRLCK);
  EXPECT_EQ(found.l_start, 10);
  EXPECT_EQ(found.l_len, 10);
  EXPECT_EQ(found.l_pid, other.id());
  EXPECT_EQ(set_lock(mine.get(), F_SETLK, F_WRLCK, 15, 1), -1);
  // Whoever closes any descriptor of a file loses all locks of it.
  EXPECT_EQ(other.run(5), 0);
  EXPECT_EQ(set_lock(mine.get(), F_SETLK, F_WRLCK, 15, 1), 0);
  // Its wait ends with our lock, and so does ours with its life.
  other.start(4);
  EXPECT_EQ(set_lock(mine.get(), F_SETLK, F_UNLCK, 0, 0), 0);
  EXPECT_EQ(other.finish(), 0);
  EXPECT_EQ(set_lock(mine.get(), F_SETLK, F_RDLCK, 0, 1), -1);
  other.end();
  EXPECT_EQ(set_lock(mine.get(), F_SETLKW, F_WRLCK, 0, 0), 0);
  // A child has none of its parent's locks.
  Process child({[&] { return set_lock(mine.get(), F_SETLK, F_RDLCK, 0, 1); },
                 [&] { return set_lock(mine.get(), F_SETLKW, F_RDLCK, 0, 1); }});
  EXPECT_EQ(child.run(0), EAGAIN);
  child.start(1);
  EXPECT_EQ(child.interrupt(), EINTR);
}

TEST_P(MountLocksTest, AFileOpenedBeforeTheFirstLockEndsThemToo) {
  Descriptor before = open();
  const Descriptor mine = open(O_RDWR);
  int file = -1;
  Process other({[&] { return file = open(O_RDWR).release(); },
                 [&] { return set_lock(file, F_SETLK, F_WRLCK, 0, 1); }});
  EXPECT_EQ(other.run(0), 0);
  EXPECT_EQ(set_lock(mine.get(), F_SETLK, F_WRLCK, 0, 1), 0);
  EXPECT_EQ(other.run(1), EAGAIN);
  before.reset();
  EXPECT_EQ(other.run(1), 0);
}

TEST_P(MountLocksTest, LocksOfOneOpenFileEndWithIt) {
  Descriptor mine = open(O_RDWR);
  const Descriptor other = open(O_RDWR);
  EXPECT_EQ(set_lock(mine.get(), F_OFD_SETLK, F_WRLCK, 0, 10), 0);
  EXPECT_EQ(set_lock(other.get(), F_OFD_SETLK, F_WRLCK, 9, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  mine.reset();
  EXPECT_EQ(set_lock(other.get(), F_OFD_SETLKW, F_WRLCK, 9, 1), 0);
}

TEST_P(MountLocksTest, AreFreeWhenCloseHasReturned) {
  mount_.stop();
  // However long the daemon needs to hear of the last close.
  mount_.start({.locks = GetParam(), .closing_patience = kPatience});
  const Descriptor other = open(O_RDWR);
  for (int round = 0; round < 200; ++round) {
    Descriptor mine = open(O_RDWR);
    ASSERT_EQ(::flock(mine.get(), LOCK_EX | LOCK_NB), 0) << round;
    mine.reset();
    ASSERT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), 0) << round;
    ASSERT_EQ(::flock(other.get(), LOCK_UN), 0);
    mine = open(O_RDWR);
    ASSERT_EQ(set_lock(mine.get(), F_OFD_SETLK, F_WRLCK, 0, 10), 0) << round;
    mine.reset();
    struct flock found {};
    found.l_type = F_WRLCK;
    found.l_whence = SEEK_SET;
    ASSERT_EQ(::fcntl(other.get(), F_OFD_GETLK, &found), 0);
    ASSERT_EQ(found.l_type, F_UNLCK) << round;
  }
}

TEST_P(MountLocksTest, OfTwoWhoWaitForEachOtherOneIsRefused) {
  int file = -1;
  const auto calls = [&](off_t own, off_t others) {
    return std::vector<Process::Call>{
        [&] { return file = open(O_RDWR).release(); },
        [&, own] { return set_lock(file, F_SETLK, F_WRLCK, own, 1); },
        [&, others] { return set_lock(file, F_SETLKW, F_WRLCK, others, 1); },
        [&] { return set_lock(file, F_SETLK, F_UNLCK, 0, 0); }};
  };
  Process one(calls(0, 1));
  Process two(calls(1, 0));
  for (Process* process : {&one, &two}) {
    EXPECT_EQ(process->run(0), 0);
    EXPECT_EQ(process->run(1), 0);
  }
  one.start(2);
  two.start(2);
  // Whoever comes second is refused, and gives way.
  std::array<pollfd, 2> answers{pollfd{one.pipe(), POLLIN, 0}, pollfd{two.pipe(), POLLIN, 0}};
  ASSERT_EQ(::poll(answers.data(), answers.size(), static_cast<int>(kPatience / kMillisecond)), 1);
  Process& refused = answers[0].revents != 0 ? one : two;
  Process& other = answers[0].revents != 0 ? two : one;
  EXPECT_EQ(refused.finish(), EDEADLK);
  EXPECT_EQ(refused.run(3), 0);
  EXPECT_EQ(other.finish(), 0);
}

// The other side is another mount, or a process that uses the backend itself.
TEST(MountLocksOfBackendTest, LocksHoldAgainstOtherMountsAndWhoUsesTheBackend) {
  TestMount mount;
  TestMount second;
  write_content(mount.backend("file"), content(1, 0, 100));
  mount.start({});
  second.start({.backend = mount.backend()});
  const auto open = [](const std::string& path) {
    return Descriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  };
  for (const std::string& other_path : {second.mounted("file"), mount.backend("file")}) {
    int file = -1;
    Process other({[&] { return file = open(other_path).release(); },
                   [&] { return set_lock(file, F_SETLK, F_WRLCK, 0, 10); },
                   [&] { return set_lock(file, F_SETLKW, F_WRLCK, 0, 10); },
                   [&] { return ::flock(file, LOCK_EX | LOCK_NB); },
                   [&] { return ::flock(file, LOCK_EX); }, [&] { return ::close(file); }});
    Process waiting({[&] { return file = open(mount.mounted("file")).release(); },
                     [&] { return set_lock(file, F_SETLKW, F_RDLCK, 0, 10); }});
    // After the forks: what a child inherits, it holds open.
    Descriptor mine = open(mount.mounted("file"));
    EXPECT_EQ(other.run(0), 0);
    EXPECT_EQ(set_lock(mine.get(), F_SETLK, F_RDLCK, 5, 1), 0);
    EXPECT_EQ(other.run(1), EAGAIN);
    EXPECT_EQ(::flock(mine.get(), LOCK_SH), 0);
    EXPECT_EQ(other.run(3), EWOULDBLOCK);
    other.start(2);
    EXPECT_EQ(set_lock(mine.get(), F_SETLK, F_UNLCK, 0, 0), 0);
    EXPECT_EQ(other.finish(), 0);
    struct flock found {};
    found.l_type = F_RDLCK;
    EXPECT_EQ(::fcntl(mine.get(), F_GETLK, &found), 0);
    EXPECT_EQ(found.l_type, F_WRLCK);
    EXPECT_EQ(found.l_len, 10);
    // Our wait can be interrupted, and ends with their lock.
    EXPECT_EQ(waiting.run(0), 0);
    waiting.start(1);
    EXPECT_EQ(waiting.interrupt(), EINTR);
    waiting.start(1);
    // The last descriptor's end is that of the lock of flock(2), however the file was opened.
    mine.reset();
    EXPECT_EQ(other.run(4), 0);
    EXPECT_EQ(other.run(5), 0);
    EXPECT_EQ(waiting.finish(), 0);
  }
}

// Whoever has waited for the end of a process may count on its locks being free.
TEST(MountLocksOfBackendTest, LocksOfTheKilledAreFreeWhenTheyAreGone) {
  TestMount mount;
  const std::string origin = mount.make_directory("origin");
  write_content(origin + "/file", content(1, 0, 100));
  FaultyBackend backend(origin, mount.backend());
  mount.start({});
  const auto lock = [&] {
    const int file = ::open(mount.mounted("file").c_str(), O_RDWR | O_CLOEXEC);
    return set_lock(file, F_SETLK, F_WRLCK, 0, 1);
  };
  Process killed({lock});
  Process next({lock});
  EXPECT_EQ(killed.run(0), 0);
  EXPECT_EQ(next.run(0), EAGAIN);
  backend.delay(FaultyBackend::Operation::close, std::chrono::milliseconds(100));
  killed.end();
  EXPECT_EQ(next.run(0), 0);
}

}  // namespace
}  // namespace ncfs
