#include "fuse_adapter/mount_fixture.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "fuse_adapter/ganesha_server.h"
#include "fuse_adapter/nfs_backend.h"
#include "fuse_adapter/warm_jobs.h"
#include "io/monotonic_clock.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

// If set, tests get their own backend by nfs://... of an NFS server that exports it.
constexpr const char* kOverNfs = "NCFS_TEST_OVER_NFS";
[[maybe_unused]] const testing::Environment* const needs_ganesha =
    std::getenv(kOverNfs) == nullptr ? nullptr
                                     : testing::AddGlobalTestEnvironment(new GaneshaEnvironment);
// How long a test that was killed may be left waiting for its own mount.
constexpr int kGuardLooksEveryMs = 100;

// Whether the test has ended or cannot go on. One that is killed while its first thread waits for
// its own mount does not get to its end before somebody ends the mount: its signal stays pending.
bool is_ending(pid_t test) {
  if (::getppid() != test) return true;
  std::array<char, 4096> status{};
  const int file = ::open(("/proc/" + std::to_string(test) + "/status").c_str(), O_RDONLY);
  const ssize_t size = ::read(file, status.data(), status.size() - 1);
  ::close(file);
  if (size <= 0) return true;
  if (std::strstr(status.data(), "State:\tZ") != nullptr) return true;
  const char* const pending = std::strstr(status.data(), "SigPnd:\t");
  return pending != nullptr &&
         (std::strtoull(pending + std::strlen("SigPnd:\t"), nullptr, 16) >> (SIGKILL - 1) & 1U) !=
             0;
}

// In a process of its own, until the test says that nothing is left, or has ended and nothing is.
[[noreturn]] void guard(pid_t test, int pipe, const std::string& directory) {
  const std::string mounted = directory + "/mounted";
  pollfd end{.fd = pipe, .events = POLLIN, .revents = 0};
  while (true) {
    const int count = ::poll(&end, 1, kGuardLooksEveryMs);
    char done = 0;
    if (count > 0 && ::read(pipe, &done, 1) == 1) ::_exit(0);
    if (count > 0 || is_ending(test)) {
      ::umount2(mounted.c_str(), MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW);
    }
    if (count > 0) break;
  }
  ::execl("/bin/sh", "sh", "-c",
          "grep -o \" $0/[^ ]*\" /proc/mounts | xargs -r umount -l; rm -rf --one-file-system $0",
          directory.c_str(), nullptr);
  ::_exit(1);
}

}  // namespace

// /tmp, because users other than root must be able to get there.
TestMount::TestMount() : directory_("/tmp/ncfs-test-XXXXXX") {
  if (::mkdtemp(directory_.data()) == nullptr) {
    throw std::system_error(errno, std::generic_category(), directory_);
  }
  ::chmod(directory_.c_str(), 0755);
  for (const char* name : {"/backend", "/mounted"}) {
    std::filesystem::create_directory(directory_ + name);
  }
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw std::system_error(errno, std::generic_category(), "pipe");
  }
  const pid_t test = ::getpid();
  guard_ = ::fork();
  if (guard_ == 0) {
    ::setsid();  // what ends the test does not end its guard
    ::close(ends[1]);
    guard(test, ends[0], directory_);
  }
  ::close(ends[0]);
  guard_pipe_ = Descriptor(ends[1]);
}

TestMount::~TestMount() {
  stop();
  server_.reset();
  remove_everything();
  const char done = 1;
  EXPECT_EQ(::write(guard_pipe_.get(), &done, 1), 1);
  ::waitpid(guard_, nullptr, 0);
}

// Not std::filesystem, which cannot remove paths longer than the kernel takes.
void TestMount::remove_everything() const {
  const pid_t remover = ::fork();
  if (remover == 0) {
    ::execl("/bin/rm", "rm", "-rf", "--one-file-system", directory_.c_str(), nullptr);
    ::_exit(1);
  }
  ::waitpid(remover, nullptr, 0);
}

void TestMount::start(const TestMountOptions& options) {
  CacheDirectoryResult opened = open_cache_directory(directory_ + "/cache");
  ASSERT_TRUE(opened.directory) << opened.error;
  cache_.emplace(std::move(*opened.directory));
  std::string source = options.backend.empty() ? backend() : options.backend;
  if (options.backend.empty() && std::getenv(kOverNfs) != nullptr) {
    source = make_directory("nfs");
    if (!server_) server_ = std::make_unique<GaneshaServer>(make_directory("server"), backend());
    nfs_ = std::make_unique<NfsBackend>(NfsBackend::Options{.program = NCFS_NFS_PROGRAM,
                                                            .url = server_->url(),
                                                            .directory = source,
                                                            .timeout = kTestPatience});
    ASSERT_EQ(nfs_->start(), "");
  }
  source_ = Descriptor(::open(source.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  Runtime::Options engine;
  engine.engine.cache_size_bytes = options.cache_size_bytes;
  engine.engine.racy_window = options.racy_window;
  // Disks of busy test machines take long to sync.
  engine.engine.cache_deadline = 120 * kSecond;
  engine.engine.checksum = options.checksum;
  engine.engine.min_free_percent = options.min_free_percent;
  engine.engine.run_id = monotonic_now();
  engine.source_root = source_.get();
  engine.cache_root = cache_->objects.get();
  engine.direct_io = options.direct_io;
  engine.engine.source_deadline =
      std::max(engine.engine.source_deadline, options.source_deadline);
  backends_ = std::make_shared<Backends>(Backends::Options{.root = source_.get()});
  engine.backends = backends_;
  runtime_ = std::make_unique<Runtime>(engine);
  MountSettings settings;
  settings.mountpoint = mounted();
  settings.source_root = source_.get();
  settings.allow_other = true;
  settings.mount_flags |= options.mount_flags;
  if (options.read_only) settings.mount_flags |= MS_RDONLY;
  settings.passthrough = options.passthrough == PassedFiles::none ? PassthroughPolicy::disabled
                                                                  : PassthroughPolicy::automatic;
  settings.cold_passthrough = options.passthrough == PassedFiles::all
                                  ? ColdPassthroughPolicy::enabled
                                  : ColdPassthroughPolicy::disabled;
  settings.direct_io = options.direct_io;
  settings.locks = options.locks;
  settings.closing_patience = options.closing_patience;
  settings.racy_window = options.racy_window;
  settings.metadata = options.metadata;
  settings.metadata.racy_window = options.racy_window;
  settings.stale_open = options.stale_open;
  settings.source_deadline = options.source_deadline;
  settings.backends = backends_;
  WarmTarget target;
  target.source_root = source_.get();
  target.warm = [runtime = runtime_.get()](FileHandle file, const SourceState& state,
                                           std::string path, auto done, bool pin, WarmPace pace) {
    runtime->warm(file, state, std::move(path), std::move(done), pin, pace);
  };
  warm_jobs_ = std::make_shared<WarmJobs>(std::move(target));
  settings.warm_jobs = warm_jobs_;
  file_system_ = std::make_unique<CacheFs>(settings, *runtime_);
  const auto result = file_system_->mount();
  ASSERT_TRUE(result.ok()) << result.message;
  serving_ = std::thread([this] { file_system_->run(); });
}

void TestMount::stop() {
  if (warm_jobs_) warm_jobs_->stop(std::chrono::seconds(30));
  if (file_system_) file_system_->request_stop();
  if (serving_.joinable()) serving_.join();
  file_system_.reset();
  if (runtime_) runtime_->stop(std::chrono::seconds(30));
  runtime_.reset();
  warm_jobs_.reset();
  backends_.reset();
  source_.reset();
  nfs_.reset();
  cache_.reset();
}

std::string TestMount::make_directory(const std::string& name) const {
  const std::string path = directory_ + '/' + name;
  std::filesystem::create_directory(path);
  return path;
}

std::string TestMount::backend(const std::string& path) const {
  return directory_ + "/backend" + (path.empty() ? "" : "/" + path);
}

std::string TestMount::mounted(const std::string& path) const {
  return directory_ + "/mounted" + (path.empty() ? "" : "/" + path);
}

std::string TestMount::cache(const std::string& path) const {
  return directory_ + "/cache" + (path.empty() ? "" : "/" + path);
}

std::vector<std::string> TestMount::cached_data() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory_ + "/cache")) {
    if (entry.path().extension() == ".data") names.push_back(entry.path());
  }
  return names;
}

bool TestMount::wait_until(const std::function<bool(const EngineStatus&)>& condition) {
  return eventually([&] { return condition(runtime_->status()); });
}

void TestMount::bring_into_cache(const std::string& path) {
  EXPECT_EQ(read_file(mounted(path)).error, 0);
  EXPECT_TRUE(wait_until([](const EngineStatus& status) {
    return status.copies.empty() && status.copies_queued == 0;
  }));
}

std::vector<std::byte> content(std::uint64_t file, std::uint64_t version, std::uint64_t size) {
  std::vector<std::uint64_t> words((size + 7) / 8);
  std::uint64_t state = file * 0x9E3779B97F4A7C15U + version * 0xC2B2AE3D27D4EB4FU + 1;
  for (std::uint64_t& word : words) {
    state ^= state << 13U;
    state ^= state >> 7U;
    state ^= state << 17U;
    word = state;
  }
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), words.data(), size);
  return bytes;
}

void write_content(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
  file.close();
  EXPECT_TRUE(file) << path;
}

FileRead read_descriptor(int descriptor) {
  constexpr std::size_t kPiece = 256 * kKiB;
  FileRead result;
  while (true) {
    const std::size_t before = result.bytes.size();
    result.bytes.resize(before + kPiece);
    const ssize_t count =
        ::pread(descriptor, result.bytes.data() + before, kPiece, static_cast<off_t>(before));
    if (count < 0) result.error = errno;
    result.bytes.resize(before + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    if (count <= 0) return result;
  }
}

FileRead read_file(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open()) return {.error = errno, .bytes = {}};
  return read_descriptor(file.get());
}

bool as_user(uid_t user, gid_t group, const std::function<bool()>& condition) {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool is_user = ::syscall(SYS_setgroups, 0, nullptr) == 0 &&
                         ::syscall(SYS_setresgid, group, group, group) == 0 &&
                         ::syscall(SYS_setresuid, user, user, user) == 0;
    ::_exit(is_user && condition() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace ncfs
