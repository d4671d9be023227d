#include "fuse_adapter/nfs_backend.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <span>
#include <string_view>
#include <system_error>
#include <thread>

#include "io/descriptor.h"

namespace ncfs {
namespace {

using Clock = std::chrono::steady_clock;

// On top of the server's: starting a process on a busy machine.
constexpr std::chrono::seconds kStartPatience{10};
// For the last requests after the unmount.
constexpr std::chrono::seconds kStopPatience{5};
constexpr std::string_view kDirectoryPrefix = "nfs-";  // before the number of the process

// Descriptors of the program; see nfs_source/main.cc.
constexpr int kReport = 3;
constexpr int kDevice = 4;
constexpr int kMemory = 5;

// Before the program is started again: at once, but one that always dies keeps nobody busy.
constexpr long kRestartPauseMinMs = 100;
constexpr long kRestartPauseMaxMs = 10'000;

// All that is mounted there.
void unmount(const std::string& place) {
  while (umount2(place.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
  }
}

// All in this part is safe after a fork.

void tell(std::string_view text) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

[[noreturn]] void become_program(pid_t parent, const char* const* arguments) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(EXIT_FAILURE);
  execv(arguments[0], const_cast<char* const*>(arguments));
  constexpr std::string_view kMessage = "the program nfs-cachefs-nfs cannot be started\n";
  [[maybe_unused]] const ssize_t written = write(kReport, kMessage.data(), kMessage.size());
  _exit(EXIT_FAILURE);
}

// Its descriptors, and nothing else of the daemon's.
void take_descriptors(int report, int device, int memory) {
  constexpr int kAbove = kMemory + 1;
  std::array<int, 3> given{report, device, memory};
  for (int& number : given) number = fcntl(number, F_DUPFD, kAbove);
  for (std::size_t index = 0; index < given.size(); ++index) {
    dup2(given[index], kReport + static_cast<int>(index));
  }
  close_range(kAbove, ~0U, 0);
}

// `run` is one of the arguments, of room for any number.
[[noreturn]] void keep(pid_t parent, const char* const* arguments, std::span<char> run) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(EXIT_FAILURE);
  // What ends the daemon's process group lets it end in order, which needs its backend.
  setpgid(0, 0);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) signal(number, SIG_IGN);
  const pid_t self = getpid();
  long pause_ms = kRestartPauseMinMs;
  for (std::uint32_t number = 0;; ++number) {
    *std::to_chars(run.data(), run.data() + run.size() - 1, number).ptr = '\0';
    const pid_t program = fork();
    if (program == 0) become_program(self, arguments);
    // The first one's report goes to the daemon, those of the others into the log.
    dup2(STDERR_FILENO, kReport);
    int status = 0;
    timespec started{};
    timespec ended{};
    clock_gettime(CLOCK_MONOTONIC, &started);
    waitpid(program, &status, 0);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    const bool is_unmounted = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
    struct stat remembered {};
    const bool has_mounted = fstat(kMemory, &remembered) == 0 && remembered.st_size > 0;
    if (is_unmounted || !has_mounted) _exit(EXIT_SUCCESS);
    tell("NFS_SOURCE: nfs-cachefs-nfs has ended and is started again\n");
    const long lived_ms = 1000 * (ended.tv_sec - started.tv_sec);
    pause_ms = lived_ms > kRestartPauseMaxMs ? kRestartPauseMinMs : pause_ms;
    const timespec pause{pause_ms / 1000, pause_ms % 1000 * 1'000'000};
    nanosleep(&pause, nullptr);
    pause_ms = std::min(2 * pause_ms, kRestartPauseMaxMs);
  }
}

// All that comes until the other end is closed; false if it is not in time.
bool read_report(int pipe, Clock::time_point until, std::string& text) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd waiting{pipe, POLLIN, 0};
    const int ready = left > 0 ? poll(&waiting, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    std::array<char, 512> bytes{};
    const ssize_t count = read(pipe, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return true;
    text.append(bytes.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

std::string nfs_program() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "nfs-cachefs-nfs").string();
}

std::string nfs_directory(const std::string& parent) {
  return fmt::format("{}/{}{}", parent, kDirectoryPrefix, getpid());
}

void remove_abandoned_nfs_directories(const std::string& parent) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(parent, ignored)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(kDirectoryPrefix)) continue;
    const pid_t process = std::atoi(name.c_str() + kDirectoryPrefix.size());
    if (process <= 0 || kill(process, 0) == 0 || errno != ESRCH) continue;
    unmount(entry.path());
    rmdir(entry.path().c_str());
  }
}

std::string NfsBackend::start() {
  // Whoever comes here acts for others.
  for (const std::string& directory :
       {std::filesystem::path(options_.directory).parent_path().string(), options_.directory}) {
    const mode_t mode = directory == options_.directory ? 0700 : 0755;
    if (mkdir(directory.c_str(), mode) == 0) {
      chmod(directory.c_str(), mode);  // whatever the umask
    } else if (errno != EEXIST && errno != ENOTCONN) {
      return fmt::format("{}: {}", directory, std::strerror(errno));
    }
  }
  unmount(options_.directory);
  const Descriptor device(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device.is_open()) return fmt::format("/dev/fuse: {}", std::strerror(errno));
  const Descriptor memory(memfd_create("nfs-cachefs-nfs", MFD_CLOEXEC));
  if (!memory.is_open()) return fmt::format("memfd: {}", std::strerror(errno));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return fmt::format("pipe: {}", std::strerror(errno));
  const Descriptor read_end(ends[0]);
  Descriptor write_end(ends[1]);
  const std::string timeout = std::to_string(options_.timeout.count());
  std::array<char, 16> run{};
  const std::array<const char*, 6> arguments{
      options_.program.c_str(), options_.url.c_str(), options_.directory.c_str(),
      timeout.c_str(),          run.data(),           nullptr};
  const pid_t self = getpid();
  keeper_ = fork();
  if (keeper_ < 0) return fmt::format("fork: {}", std::strerror(errno));
  if (keeper_ == 0) {
    take_descriptors(write_end.get(), device.get(), memory.get());
    keep(self, arguments.data(), run);
  }
  write_end.reset();
  std::string report;
  if (!read_report(read_end.get(), Clock::now() + options_.timeout + kStartPatience, report)) {
    return fmt::format("no answer within {} seconds", options_.timeout.count());
  }
  struct stat remembered {};
  if (report.empty() && (fstat(memory.get(), &remembered) != 0 || remembered.st_size == 0)) {
    return "the program nfs-cachefs-nfs has ended";
  }
  return report.substr(0, report.find('\n'));
}

pid_t NfsBackend::process() const {
  const std::string list = fmt::format("/proc/{0}/task/{0}/children", keeper_);
  pid_t child = -1;
  std::ifstream(list) >> child;
  return child;
}

NfsBackend::~NfsBackend() {
  unmount(options_.directory);
  const auto until = Clock::now() + kStopPatience;
  while (keeper_ > 0 && waitpid(keeper_, nullptr, WNOHANG) == 0) {
    if (Clock::now() > until) {
      kill(keeper_, SIGKILL);  // and so the program
      waitpid(keeper_, nullptr, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  rmdir(options_.directory.c_str());
}

}  // namespace ncfs
