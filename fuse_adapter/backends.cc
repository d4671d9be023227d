#include "fuse_adapter/backends.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "fuse_adapter/adapter_stats.h"
#include "fuse_adapter/mount_table.h"
#include "fuse_adapter/source_tree.h"
#include "io/descriptor.h"
#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

// Between two looks of the watch while there is trouble; what it looks at counts in seconds.
constexpr int kWatchPauseMs = 100;

using Device = Backends::Device;

// By the kernel's memory: the file system is not asked.
Device device_of(int directory) {
  struct statx known {};
  if (::statx(directory, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &known) != 0) {
    throw std::system_error(errno, std::generic_category(), "the backend's root");
  }
  return makedev(known.stx_dev_major, known.stx_dev_minor);
}

std::string path_of(int directory) {
  std::array<char, PATH_MAX> path{};
  const std::string name = fmt::format("/proc/self/fd/{}", directory);
  const ssize_t length = ::readlink(name.c_str(), path.data(), path.size());
  return {path.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0))};
}

std::function<int(const std::string& path)> probe_of(int root) {
  struct Source {
    explicit Source(int descriptor)
        : root(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0)), tree(root.get(), groups, looks) {}
    Descriptor root;
    CallerGroups groups;
    AdapterStats looks;  // not the mount's: those are what its users cost
    SourceTree tree;
  };
  return [source = std::make_shared<Source>(root)](const std::string& path) {
    const FoundFile found = source->tree.find_whatever_is_at(path, Caller{});
    if (found.error != 0) return found.error;
    struct stat attributes {};
    return stat_at(found.file.get(), "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, attributes);
  };
}

// Signals belong to other threads.
std::thread quiet_thread(std::function<void()> body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread;
  try {
    thread = std::thread(std::move(body));
    pthread_setname_np(thread.native_handle(), "ncfs-backend");
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace

class Backends::Shared : public std::enable_shared_from_this<Backends::Shared> {
 public:
  explicit Shared(Options options)
      : options_(std::move(options)),
        wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        mount_table_(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)) {
    if (!wake_.is_open()) throw std::system_error(errno, std::generic_category(), "eventfd");
    if (options_.absent == 0) {
      know_root();
      return;
    }
    root_path_ = options_.path;
    Judged absent{"", BackendHealth(options_.probe_patience)};
    has_had_trouble_ = true;
    change(absent, [&](BackendHealth& health, Nanos now) {
      health.begin_down(now, "it was not there when this was mounted", options_.absent);
    });
    judged_.emplace(kNotKnown, std::move(absent));
  }

  void start() {
    watch_ = quiet_thread([this] { watch(); });
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      is_stopping_ = true;
    }
    wake();
    if (watch_.joinable()) watch_.join();
  }

  [[nodiscard]] Device root() const { return root_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool are_several() const { return are_several_.load(std::memory_order_relaxed); }

  [[nodiscard]] Device device_at(const std::string& path) const {
    if (!are_several()) return root();
    const std::lock_guard lock(mutex_);
    return device_at_locked(path);
  }

  void answered(Device device, int error) {
    const BackendAnswer answer = judge_backend(error);
    if (answer == BackendAnswer::good && !has_had_trouble_.load(std::memory_order_relaxed)) return;
    const std::lock_guard lock(mutex_);
    auto known = judged_.find(device);
    if (known == judged_.end()) {
      const auto path = path_to(device);
      if (answer == BackendAnswer::good || !path || judged_.size() >= kDevicesMax) return;
      known = judged_.emplace(device, Judged{*path, BackendHealth(options_.probe_patience)}).first;
      has_had_trouble_.store(true, std::memory_order_relaxed);
    }
    change(known->second,
           [&](BackendHealth& health, Nanos now) { health.on_answer(now, answer, error); });
    if (!known->second.health.is_up()) wake();
  }

  // Only the watch and the probes change what is asked here, so it may be a moment old.
  [[nodiscard]] bool is_down(Device device) const {
    if (!has_had_trouble_.load(std::memory_order_relaxed)) return false;
    const std::lock_guard lock(mutex_);
    const auto known = judged_.find(device);
    return known != judged_.end() && known->second.health.is_down();
  }

  [[nodiscard]] std::vector<BackendStatus> status() const {
    const std::lock_guard lock(mutex_);
    std::vector<BackendStatus> result(1);
    for (const auto& [device, judged] : judged_) {
      const BackendHealth& health = judged.health;
      BackendStatus status{judged.path,         health.state(), health.reason(),
                           health.last_error(), health.since(), health.changes()};
      if (device == root_) {
        result.front() = std::move(status);
      } else {
        result.push_back(std::move(status));
      }
    }
    return result;
  }

 private:
  using Mounts = std::map<std::string, Device, std::less<>>;
  // The root's, until it is known. No mounted file system has this number.
  static constexpr Device kNotKnown = 0;
  struct Judged {
    std::string path;
    BackendHealth health;
  };

  void wake() {
    const std::uint64_t one = 1;
    // Cannot fail in a way that matters: a counter that is full wakes just as well.
    [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
  }

  // The root is there to be asked.
  void know_root() {
    const Device root = device_of(options_.root);
    auto probe = options_.probe ? options_.probe : probe_of(options_.root);
    {
      const std::lock_guard lock(mutex_);
      root_path_ = path_of(options_.root);
      probe_ = std::move(probe);
      if (auto absent = judged_.extract(kNotKnown)) {
        absent.key() = root;
        judged_.insert(std::move(absent));
      }
      root_.store(root, std::memory_order_relaxed);
    }
    look_at_mounts();
  }

  void look_at_mounts() {
    Mounts mounts;
    std::string root_path;
    {
      const std::lock_guard lock(mutex_);
      root_path = root_path_;
    }
    for (const MountEntry& mount : read_mount_table()) {
      unsigned major = 0;
      unsigned minor = 0;
      const bool is_beneath =
          is_within(mount.mountpoint, root_path) && mount.mountpoint != root_path;
      if (!is_beneath || std::sscanf(mount.device.c_str(), "%u:%u", &major, &minor) != 2) continue;
      const std::size_t prefix = root_path == "/" ? 1 : root_path.size() + 1;
      mounts[mount.mountpoint.substr(prefix)] = makedev(major, minor);
    }
    const std::lock_guard lock(mutex_);
    mounts_.swap(mounts);
    are_several_.store(!mounts_.empty(), std::memory_order_relaxed);
  }

  // With the lock, as all that follow but watch().

  [[nodiscard]] Device device_at_locked(const std::string& path) const {
    const std::string_view whole(path);
    for (std::size_t end = whole.size(); end > 0 && end != std::string_view::npos;
         end = whole.rfind('/', end - 1)) {
      const auto mount = mounts_.find(whole.substr(0, end));
      if (mount != mounts_.end()) return mount->second;
    }
    return root_;
  }

  // Where it is mounted; nothing if that is not known, and it cannot be probed.
  [[nodiscard]] std::optional<std::string> path_to(Device device) const {
    if (device == root_) return "";
    for (const auto& [path, mounted] : mounts_) {
      if (mounted == device) return path;
    }
    return std::nullopt;
  }

  // One line in the log for each change.
  template <typename Change>
  void change(Judged& judged, const Change& make) {
    BackendHealth& health = judged.health;
    const std::uint64_t changes = health.changes();
    make(health, monotonic_now());
    if (health.changes() == changes || is_stopping_) return;
    const bool tells_error = !health.is_up() && health.last_error() != 0;
    spdlog::log(health.state() == BackendState::suspect ? spdlog::level::info : spdlog::level::warn,
                "BACKEND_STATE: {}: {}: {}{}", judged.path.empty() ? root_path_ : judged.path,
                to_string(health.state()), health.reason(),
                tells_error ? fmt::format(": {}", std::strerror(health.last_error())) : "");
  }

  void watch() {
    while (true) {
      bool has_trouble = false;
      {
        const std::lock_guard lock(mutex_);
        if (is_stopping_) return;
        for (auto& [device, judged] : judged_) {
          change(judged, [](BackendHealth& health, Nanos now) { health.tick(now); });
          has_trouble = has_trouble || !judged.health.is_up();
          if (judged.health.take_probe(monotonic_now())) start_probe(device, judged);
        }
      }
      std::array<pollfd, 2> waiting{pollfd{wake_.get(), POLLIN, 0},
                                    pollfd{mount_table_.get(), POLLPRI, 0}};
      ::poll(waiting.data(), waiting.size(), has_trouble ? kWatchPauseMs : -1);
      std::uint64_t count = 0;
      [[maybe_unused]] const ssize_t taken = ::read(wake_.get(), &count, sizeof(count));
      if (waiting[1].revents != 0) look_at_mounts();
    }
  }

  // An errno. Without the lock.
  int find_root() {
    try {
      const int error = options_.find();
      if (error == 0) know_root();
      return error;
    } catch (const std::system_error& error) {
      return error.code().value();
    }
  }

  void start_probe(Device device, Judged& judged) {
    try {
      quiet_thread([self = shared_from_this(), device, path = judged.path, probe = probe_] {
        Device asked = device;
        int error = 0;
        if (device == kNotKnown) {
          error = self->find_root();
          if (error == 0) asked = self->root();
        } else {
          error = probe(path);
        }
        // Whatever keeps the root from being found keeps the backend down.
        const BackendAnswer answer =
            asked == kNotKnown && judge_backend(error) == BackendAnswer::good
                ? BackendAnswer::unreachable
                : judge_backend(error);
        {
          const std::lock_guard lock(self->mutex_);
          self->change(self->judged_.at(asked), [&](BackendHealth& health, Nanos now) {
            health.on_probe_answer(now, answer, error);
          });
        }
        self->wake();
      }).detach();
    } catch (const std::system_error& error) {
      judged.health.on_probe_answer(monotonic_now(), BackendAnswer::transient,
                                    error.code().value());
    }
  }

  const Options options_;
  const Descriptor wake_;
  const Descriptor mount_table_;  // readable when it has changed
  mutable std::mutex mutex_;
  std::function<int(const std::string& path)> probe_;  // once the root is known
  std::atomic<Device> root_{kNotKnown};
  std::string root_path_;
  Mounts mounts_;                             // beneath the root, by path
  std::map<Device, Judged> judged_;           // entries stay
  std::atomic<bool> are_several_{false};      // mounts_ is not empty
  std::atomic<bool> has_had_trouble_{false};  // judged_ is not empty
  bool is_stopping_ = false;
  std::thread watch_;
};

Backends::Backends(Options options) : shared_(std::make_shared<Shared>(std::move(options))) {
  shared_->start();
}

Backends::~Backends() {
  shared_->stop();
}

Backends::Device Backends::device_at(const std::string& path) const {
  return shared_->device_at(path);
}

bool Backends::are_several() const {
  return shared_->are_several();
}

Backends::Device Backends::root() const {
  return shared_->root();
}

void Backends::answered(Device device, int error) {
  shared_->answered(device, error);
}

bool Backends::is_down(Device device) const {
  return shared_->is_down(device);
}

std::vector<BackendStatus> Backends::status() const {
  return shared_->status();
}

}  // namespace ncfs
