// Method: the backend of a real mount is a file system that hangs, is slow or fails when it is told
// to. What must not wait for it is done while it hangs, with a deadline so long that waiting for it
// would fail the test; what may wait is let go by its recovery.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "fuse_adapter/faulty_backend.h"
#include "fuse_adapter/mount_fixture.h"
#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

namespace fs = std::filesystem;

using Operation = FaultyBackend::Operation;

// Far beyond what any machine needs; whoever waits this long waits for the backend.
constexpr Nanos kPatience = 60 * kSecond;
constexpr Nanos kNever = 600 * kSecond;
constexpr int kCallers = 300;

bool comes_true(const std::function<bool()>& condition) {
  const Nanos deadline = monotonic_now() + kPatience;
  while (monotonic_now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

// Threads that do the same; joined at the end at the latest.
class Callers {
 public:
  Callers(int count, const std::function<void(int)>& call) {
    for (int number = 0; number < count; ++number) {
      threads_.emplace_back([this, call, number] {
        call(number);
        ++ended_;
      });
    }
  }
  ~Callers() { join(); }
  Callers(const Callers&) = delete;
  Callers& operator=(const Callers&) = delete;

  void join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  [[nodiscard]] int ended() const { return ended_; }

 private:
  std::atomic<int> ended_{0};
  std::vector<std::thread> threads_;
};

// 0 or an errno.
int look_at(const std::string& path) {
  struct stat attributes {};
  return ::stat(path.c_str(), &attributes) == 0 ? 0 : errno;
}

class MountHangTest : public testing::TestWithParam<PassedFiles> {
 protected:
  // The backend has one file of 4 MiB, another of 1 MiB, and an empty directory.
  void SetUp() override {
    origin_ = mount_.make_directory("origin");
    bytes_ = content(1, 0, 4 * kMiB);
    write_content(origin_ + "/file", bytes_);
    write_content(origin_ + "/cold", content(2, 0, kMiB));
    fs::create_directory(origin_ + "/directory");
    backend_.emplace(origin_, mount_.backend());
  }
  // Lets go whoever waits, before members that join them are destroyed.
  void TearDown() override { backend_->recover(); }

  // Nothing is believed, so that every call asks the backend.
  void start(Nanos deadline) {
    mount_.start({.passthrough = GetParam(),
                  .source_deadline = deadline,
                  .metadata = metadata_config(MetadataProfile::strict)});
  }
  Descriptor open(const std::string& path) {
    return Descriptor(::open(mount_.mounted(path).c_str(), O_RDONLY | O_CLOEXEC));
  }
  BackendStatus backend_status() { return mount_.backends().status().front(); }
  bool comes_to_be(BackendState state) {
    return comes_true([&] { return backend_status().state == state; });
  }
  // As many callers as hold all the threads that one file system gets, and far more.
  void expect_callers_hang() {
    EXPECT_TRUE(comes_true([&] { return backend_->hanging() >= 16; })) << backend_->hanging();
  }

  TestMount mount_;
  std::string origin_;
  std::vector<std::byte> bytes_;
  std::optional<FaultyBackend> backend_;
};

INSTANTIATE_TEST_SUITE_P(Passthrough, MountHangTest,
                         testing::Values(PassedFiles::cached, PassedFiles::none), passthrough_name);

// A write(2) that fails has told so; what a sync says is about writes that had succeeded.
TEST_P(MountHangTest, WhatASyncFailsForStaysWithTheHandleAndWhatAWriteIsRefusedForDoesNot) {
  start(kNever);
  for (const int error : {ENOSPC, EDQUOT}) {
    const auto open_to_write = [&] {
      return Descriptor(::open(mount_.mounted("file").c_str(), O_WRONLY | O_CLOEXEC));
    };
    Descriptor file = open_to_write();
    const Descriptor other = open_to_write();
    backend_->fail(Operation::change, error);
    EXPECT_EQ(::pwrite(file.get(), "x", 1, 0), -1);
    EXPECT_EQ(errno, error);
    backend_->recover();
    EXPECT_EQ(::fsync(file.get()), 0);
    backend_->fail(Operation::change, error);
    EXPECT_EQ(::fsync(file.get()), -1);
    EXPECT_EQ(errno, error);
    backend_->recover();
    for (int time = 0; time < 2; ++time) {
      EXPECT_EQ(::fdatasync(file.get()), -1);
      EXPECT_EQ(errno, error);
    }
    EXPECT_EQ(::close(file.release()), -1);
    EXPECT_EQ(errno, error);
    EXPECT_EQ(::fsync(other.get()), 0);
  }
}

TEST_P(MountHangTest, WhatIsCachedAndOpenIsReadAndStatfsIsAnswered) {
  start(kNever);
  mount_.bring_into_cache("file");
  const Descriptor cached = open("file");
  struct statvfs before {};
  ASSERT_EQ(::statvfs(mount_.mounted().c_str(), &before), 0);
  for (const bool is_stopped : {false, true}) {
    is_stopped ? backend_->stop_process() : backend_->hang();
    Callers callers(kCallers, [&](int number) {
      EXPECT_NE(look_at(mount_.mounted("absent" + std::to_string(number))), 0);
    });
    if (!is_stopped) expect_callers_hang();
    for (int round = 0; round < 3; ++round) {
      EXPECT_TRUE(read_descriptor(cached.get()).bytes == bytes_);
    }
    struct stat attributes {};
    EXPECT_EQ(::fstat(cached.get(), &attributes), 0);
    struct statvfs space {};
    EXPECT_EQ(::fstatvfs(cached.get(), &space), 0);
    EXPECT_EQ(space.f_blocks, before.f_blocks);
    EXPECT_EQ(mount_.engine_status().objects_cached, 1U);
    EXPECT_EQ(callers.ended(), 0);
    is_stopped ? backend_->continue_process() : backend_->recover();
    callers.join();
  }
  EXPECT_EQ(mount_.stats().timeouts.value(), 0U);
  EXPECT_TRUE(read_file(mount_.mounted("cold")).bytes == content(2, 0, kMiB));
}

TEST_P(MountHangTest, ProcessesThatAreKilledEndAtOnce) {
  start(kNever);
  backend_->hang(Operation::read);  // so that it stays cold
  const Descriptor cold = open("cold");
  const Descriptor directory(::open(mount_.mounted("directory").c_str(), O_RDONLY | O_DIRECTORY));
  const std::vector<std::function<void()>> calls = {
      [&] {
        std::array<char, 4096> piece{};
        static_cast<void>(::pread(cold.get(), piece.data(), piece.size(), 0));
      },
      [&] { look_at(mount_.mounted("absent")); },
      [&] { ::open(mount_.mounted("file").c_str(), O_RDONLY); },
      [&] { ::opendir(mount_.mounted("directory").c_str()); },
      [&] { ::access(mount_.mounted("file").c_str(), R_OK); },
      [&] { ::mkdir(mount_.mounted("new").c_str(), 0700); },
      [&] {
        struct statx attributes {};
        ::statx(directory.get(), "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE, &attributes);
      },
      [&] {
        std::array<char, 4096> list{};
        static_cast<void>(::getdents64(directory.get(), list.data(), list.size()));
      },
  };
  for (std::size_t call = 0; call < calls.size(); ++call) {
    backend_->hang();
    const std::size_t hanging = backend_->hanging();
    const std::uint64_t reads = mount_.stats().reads.value();
    const pid_t child = ::fork();
    if (child == 0) {
      calls[call]();
      ::_exit(0);
    }
    // Reads of the daemon share what the copy of the file reads.
    EXPECT_TRUE(comes_true([&] {
      return backend_->hanging() > hanging || mount_.stats().reads.value() > reads;
    })) << call;
    ::kill(child, SIGKILL);
    int status = 0;
    const bool has_ended = comes_true([&] { return ::waitpid(child, &status, WNOHANG) == child; });
    EXPECT_TRUE(has_ended) << call;
    EXPECT_TRUE(WIFSIGNALED(status)) << call;
    backend_->recover();
    if (!has_ended) ::waitpid(child, nullptr, 0);
    backend_->hang(Operation::read);
  }
  EXPECT_EQ(mount_.stats().timeouts.value(), 0U);
}

TEST_P(MountHangTest, SignalsThatEndNobodyAreNotNoticed) {
  start(kNever);
  auto* const signals = static_cast<std::atomic<int>*>(::mmap(nullptr, sizeof(std::atomic<int>),
                                                              PROT_READ | PROT_WRITE,
                                                              MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  backend_->hang();
  const pid_t child = ::fork();
  if (child == 0) {
    static std::atomic<int>* counter = signals;
    ::signal(SIGALRM, [](int) { ++*counter; });
    const itimerval every{.it_interval = {0, 5000}, .it_value = {0, 5000}};
    ::setitimer(ITIMER_REAL, &every, nullptr);
    ::_exit(look_at(mount_.mounted("file")));
  }
  EXPECT_TRUE(comes_true([&] { return backend_->hanging() > 0; }));
  // The handler runs when the call is over; that one was sent before, the process can tell.
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  backend_->recover();
  int status = 0;
  EXPECT_TRUE(comes_true([&] { return ::waitpid(child, &status, WNOHANG) == child; }));
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0) << std::strerror(WEXITSTATUS(status));
  EXPECT_GE(*signals, 1);
  ::munmap(signals, sizeof(std::atomic<int>));
}

// Those that wait for deadlines.
class MountDownTest : public MountHangTest {};
INSTANTIATE_TEST_SUITE_P(Passthrough, MountDownTest, testing::Values(PassedFiles::none),
                         passthrough_name);

TEST_P(MountDownTest, BackendThatIsDownIsAskedByProbesOnlyAndFoundWhenItReturns) {
  start(15 * kSecond);
  EXPECT_EQ(look_at(mount_.mounted("file")), 0);
  EXPECT_EQ(backend_status().changes, 0U);
  backend_->hang();
  std::atomic<int> timed_out{0};
  {
    Callers callers(kCallers, [&](int number) {
      const std::string path = mount_.mounted("absent" + std::to_string(number));
      if (look_at(path) == ETIMEDOUT) ++timed_out;
    });
  }
  EXPECT_EQ(timed_out, kCallers);
  ASSERT_TRUE(comes_to_be(BackendState::down)) << to_string(backend_status().state);
  const std::size_t asked = backend_->calls(Operation::attributes);
  for (int number = 0; number < kCallers; ++number) {
    EXPECT_EQ(look_at(mount_.mounted("other" + std::to_string(number))), ETIMEDOUT);
  }
  EXPECT_EQ(backend_->calls(Operation::attributes), asked);
  backend_->recover();
  ASSERT_TRUE(comes_to_be(BackendState::up));
  EXPECT_GE(backend_status().changes, 3U);
  EXPECT_EQ(look_at(mount_.mounted("file")), 0);
  EXPECT_TRUE(read_file(mount_.mounted("cold")).bytes == content(2, 0, kMiB));
}

TEST_P(MountHangTest, BackendThatIsSlowIsWell) {
  start(kNever);
  for (const Operation operation : {Operation::attributes, Operation::open, Operation::read}) {
    backend_->delay(operation, std::chrono::milliseconds(30));
  }
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes_);
  EXPECT_EQ(backend_status().changes, 0U);
}

TEST_P(MountHangTest, OneErrorThatMayPassIsNotNoticed) {
  start(kNever);
  mount_.bring_into_cache("file");  // nobody else asks the backend any more
  for (const int error : {EIO, ECONNRESET}) {
    for (const Operation operation : {Operation::attributes, Operation::open}) {
      backend_->fail_once(operation, error);
      EXPECT_EQ(look_at(mount_.mounted("file")), 0);
      EXPECT_TRUE(open("file").is_open());
    }
  }
  EXPECT_EQ(mount_.stats().retries.value(), 4U);
  // What changes something is not done twice.
  backend_->fail_once(Operation::change, EIO);
  EXPECT_EQ(::mkdir(mount_.mounted("new").c_str(), 0700), -1);
  EXPECT_EQ(errno, EIO);
}

TEST_P(MountHangTest, ABackendThatCannotBeReachedIsStoodInForByWhatIsKnownAndCached) {
  MetadataConfig metadata = metadata_config(MetadataProfile::strict);
  metadata.stale_if_error = kNever;
  mount_.start({.passthrough = GetParam(), .source_deadline = kNever, .metadata = metadata});
  mount_.bring_into_cache("file");
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes_);
  EXPECT_EQ(look_at(mount_.mounted("file")), 0);
  for (const Operation operation : {Operation::attributes, Operation::open, Operation::read,
                                    Operation::list, Operation::statfs, Operation::change}) {
    backend_->fail(operation, EHOSTUNREACH);
  }
  EXPECT_EQ(look_at(mount_.mounted("file")), 0);
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes_);
  EXPECT_NE(look_at(mount_.mounted("absent")), 0);
  EXPECT_NE(::mkdir(mount_.mounted("new").c_str(), 0700), 0);
  const auto changed = content(9, 0, 2 * kMiB);
  write_content(origin_ + "/file", changed);
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes_);
  backend_->recover();
  ASSERT_TRUE(comes_to_be(BackendState::up));
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == changed);
}

TEST_P(MountHangTest, UnmountingDoesNotWait) {
  start(kNever);
  mount_.bring_into_cache("file");
  const Descriptor cached = open("file");
  backend_->hang(Operation::read);  // so that it stays cold
  const Descriptor cold = open("cold");
  backend_->hang();
  Callers callers(kCallers, [&](int number) {
    if (number % 10 == 0) {
      char byte = 0;
      EXPECT_EQ(::pread(cold.get(), &byte, 1, number), -1);
    } else {
      EXPECT_NE(look_at(mount_.mounted("absent" + std::to_string(number))), 0);
    }
  });
  expect_callers_hang();
  const Nanos from = monotonic_now();
  mount_.stop();
  callers.join();
  EXPECT_LT(monotonic_now() - from, kPatience);
}

// Two file systems beneath a root that is well.
class MountNestedHangTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"hung", "well"}) {
      fs::create_directory(mount_.backend(name));
      const std::string origin = mount_.make_directory(std::string("origin of ") + name);
      for (int file = 0; file < kFiles; ++file) {
        write_content(origin + "/" + std::to_string(file), content(3, 0, kMiB));
      }
    }
    write_content(mount_.backend("file"), content(4, 0, kMiB));
    hung_.emplace(mount_.make_directory("origin of hung"), mount_.backend("hung"));
    well_.emplace(mount_.make_directory("origin of well"), mount_.backend("well"));
  }
  void TearDown() override { hung_->recover(); }

  static constexpr int kFiles = 40;

  TestMount mount_;
  std::optional<FaultyBackend> hung_;
  std::optional<FaultyBackend> well_;
};

TEST_F(MountNestedHangTest, OneThatHangsStarvesNoOther) {
  mount_.start({.passthrough = PassedFiles::cached, .source_deadline = kNever});
  ASSERT_EQ(look_at(mount_.mounted("hung/0")), 0);
  hung_->hang();
  Callers callers(kCallers, [&](int number) {
    const std::string path = mount_.mounted("hung/" + std::to_string(number));
    number % 3 == 0 ? static_cast<void>(read_file(path)) : static_cast<void>(look_at(path));
  });
  EXPECT_TRUE(comes_true([&] { return hung_->hanging() >= 16; })) << hung_->hanging();
  EXPECT_EQ(std::distance(fs::directory_iterator(mount_.mounted()), {}), 3);
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == content(4, 0, kMiB));
  for (int file = 0; file < kFiles; ++file) {
    const std::string name = "well/" + std::to_string(file);
    EXPECT_TRUE(read_file(mount_.mounted(name)).bytes == content(3, 0, kMiB));
  }
  write_content(mount_.mounted("well/new"), content(5, 0, kMiB));
  EXPECT_EQ(callers.ended(), 0);
  EXPECT_EQ(mount_.stats().timeouts.value(), 0U);
  hung_->recover();
  callers.join();
}

}  // namespace
}  // namespace ncfs
