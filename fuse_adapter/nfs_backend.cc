#include "fuse_adapter/nfs_backend.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
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
constexpr int kReport = 3;                             // where the program tells
constexpr std::string_view kDirectoryPrefix = "nfs-";  // before the number of the process

// All that is mounted there.
void unmount(const std::string& place) {
  while (umount2(place.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
  }
}

// Between fork and exec: only what is safe there.
[[noreturn]] void become_program(pid_t parent, int report, const char* const* arguments) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(EXIT_FAILURE);
  // What ends the daemon's process group lets it end in order, which needs its backend.
  setpgid(0, 0);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) signal(number, SIG_IGN);
  if (report == kReport) {
    fcntl(kReport, F_SETFD, 0);
  } else {
    dup2(report, kReport);
  }
  execv(arguments[0], const_cast<char* const*>(arguments));
  constexpr std::string_view kMessage = "the program nfs-cachefs-nfs cannot be started";
  [[maybe_unused]] const ssize_t written = write(kReport, kMessage.data(), kMessage.size());
  _exit(EXIT_FAILURE);
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
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return fmt::format("pipe: {}", std::strerror(errno));
  const Descriptor read_end(ends[0]);
  Descriptor write_end(ends[1]);
  const std::string timeout = std::to_string(options_.timeout.count());
  const std::array<const char*, 5> arguments{options_.program.c_str(), options_.url.c_str(),
                                             options_.directory.c_str(), timeout.c_str(), nullptr};
  const pid_t self = getpid();
  child_ = fork();
  if (child_ < 0) return fmt::format("fork: {}", std::strerror(errno));
  if (child_ == 0) become_program(self, write_end.get(), arguments.data());
  write_end.reset();
  std::string report;
  if (!read_report(read_end.get(), Clock::now() + options_.timeout + kStartPatience, report)) {
    return fmt::format("no answer within {} seconds", options_.timeout.count());
  }
  if (!report.empty()) return report;
  if (waitpid(child_, nullptr, WNOHANG) == child_) {
    child_ = -1;
    return "the program nfs-cachefs-nfs has ended";
  }
  return {};
}

NfsBackend::~NfsBackend() {
  unmount(options_.directory);
  const auto until = Clock::now() + kStopPatience;
  while (child_ > 0 && waitpid(child_, nullptr, WNOHANG) == 0) {
    if (Clock::now() > until) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  rmdir(options_.directory.c_str());
}

}  // namespace ncfs
