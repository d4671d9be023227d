#include "fuse_adapter/daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "engine/format.h"
#include "fuse_adapter/backends.h"
#include "fuse_adapter/cachefs.h"
#include "fuse_adapter/control_server.h"
#include "fuse_adapter/control_socket.h"
#include "fuse_adapter/event_log.h"
#include "fuse_adapter/mount_checks.h"
#include "fuse_adapter/mount_table.h"
#include "fuse_adapter/nfs_backend.h"
#include "fuse_adapter/open_files.h"
#include "fuse_adapter/option_values.h"
#include "fuse_adapter/runtime.h"
#include "fuse_adapter/warm_jobs.h"
#include "io/cache_directory.h"
#include "io/descriptor.h"
#include "io/monotonic_clock.h"
#include "io/nfs_url.h"

namespace ncfs {
namespace {

using Clock = std::chrono::steady_clock;

// After an unmount the daemon still makes durable what it has copied, then gives up the cache
// directory. As long as the deadline of a request to the cache disk.
constexpr std::chrono::seconds kStopPatience{10};
constexpr std::chrono::seconds kWarmStopPatience{1};
// Mounting again at once after an unmount has to wait for that, and before for the daemon to notice
// that it is unmounted, which a busy machine delays.
constexpr std::chrono::seconds kStopPatienceOfNext{15};
constexpr std::chrono::seconds kNoticePatience{5};
// A daemon that is told to end and cannot is ended by force, before systemd's 90 seconds are over.
constexpr unsigned kStopSecondsMax = 60;
// On top of the backend's own timeout: everything else a mount has to do.
constexpr std::chrono::seconds kLaunchPatience{30};

std::atomic<CacheFs*> served{nullptr};
std::atomic<bool> stop_requested{false};

void on_stop_signal(int) {
  if (stop_requested.exchange(true)) _exit(kMountSystem);
  alarm(kStopSecondsMax);
  if (CacheFs* file_system = served.load()) file_system->request_stop();
}

// While it lives, SIGTERM and SIGINT stop the file system instead of the process.
class StopOnSignal {
 public:
  explicit StopOnSignal(CacheFs& file_system) {
    served.store(&file_system);
    struct sigaction action {};
    action.sa_handler = on_stop_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
  }
  ~StopOnSignal() { served.store(nullptr); }
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;
};

MountReport failure(int exit_status, std::string message) {
  return {exit_status, std::move(message)};
}

// What fs.nr_open allows; 0 if it cannot be told.
rlim_t descriptors_of_system() {
  rlim_t value = 0;
  std::ifstream("/proc/sys/fs/nr_open") >> value;
  return value;
}

// To what is allowed, or, for who may allow himself more, to what the system does.
void raise_descriptor_limit() {
  // Enough for 100 000 open files; systemd's default.
  constexpr rlim_t kWanted = 524'288;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t allowed = std::exchange(limit.rlim_cur, limit.rlim_max);
  if (limit.rlim_max < kWanted) {
    const rlim_t more = std::min(kWanted, descriptors_of_system());
    const rlimit raised{.rlim_cur = more, .rlim_max = more};
    if (more > limit.rlim_max && setrlimit(RLIMIT_NOFILE, &raised) == 0) return;
  }
  if (limit.rlim_cur != allowed) setrlimit(RLIMIT_NOFILE, &limit);
}

std::uint64_t descriptor_limit() {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}

// Whether somebody holds the file under a lock of flock(2).
bool is_locked(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  return file.is_open() && flock(file.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

// Beside the lock of the directory a daemon holds this one, but only as long as it is mounted. So
// the next one can tell a cache that is in use from one that will be free in a moment.
std::string mounted_lock(const std::string& cache_dir) {
  return cache_dir + "/FORMAT";
}

// Waits for a daemon that is about to end. Then, or if it does not end, open_cache_directory()
// tells.
void await_stopping_daemon(const std::string& cache_dir) {
  const auto start = Clock::now();
  while (is_locked(cache_dir + "/LOCK")) {
    const auto patience =
        is_locked(mounted_lock(cache_dir)) ? kNoticePatience : kStopPatienceOfNext;
    if (Clock::now() - start > patience) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

std::optional<std::uint64_t> random_number() {
  std::uint64_t number = 0;
  if (getrandom(&number, sizeof number, 0) != sizeof number) return std::nullopt;
  return number;
}

std::string passthrough_detail(const MountOptions& options, bool is_active) {
  if (is_active) return "complete files are read by the kernel itself";
  if (options.checksum == Checksum::read) return "switched off by checksum=read";
  if (options.passthrough == PassthroughPolicy::disabled) return "switched off by passthrough=no";
  if (options.metadata.stale_open == StaleOpen::inval) return "switched off by stale_open=inval";
  return "this kernel has no FUSE passthrough (Linux 6.9 or later has)";
}

// spdlog's names of levels, in the order of LogLevel.
constexpr std::array kLevels = {spdlog::level::trace, spdlog::level::debug, spdlog::level::info,
                                spdlog::level::warn, spdlog::level::err};

std::string log_level_name() {
  const auto* level = std::ranges::find(kLevels, spdlog::get_level());
  return std::string(kLogLevelNames.at(static_cast<std::size_t>(level - kLevels.begin())));
}

bool set_log_level_by_name(const std::string& name) {
  const auto* place = std::ranges::find(kLogLevelNames, name);
  if (place == kLogLevelNames.end()) return false;
  spdlog::set_level(kLevels.at(static_cast<std::size_t>(place - kLogLevelNames.begin())));
  return true;
}

std::vector<ConfigEntry> config_entries(const MountOptions& options) {
  std::vector<ConfigEntry> entries;
  const auto values = option_values(options);
  const auto initial = option_values(MountOptions{});
  for (const OptionHelp& help : mount_option_help()) {
    entries.push_back({.name = std::string(help.name),
                       .value = values.find(help.name)->second,
                       .initial = initial.find(help.name)->second,
                       .help = std::string(help.help),
                       .is_given = options.given.contains(help.name)});
  }
  return entries;
}

// What files at and beneath `paths` may fill of the cache: all but what is pinned elsewhere.
std::uint64_t room_for(Runtime& runtime, std::uint64_t block_size_bytes,
                       const std::vector<std::string>& paths) {
  constexpr std::size_t kPage = 1000;  // short enough for the control thread
  std::map<std::string, std::uint64_t> pinned;  // of several versions the largest
  FileQuery query{paths, 0, kPage};
  while (true) {
    const std::vector<FileReport> files = runtime.files(query);
    for (const FileReport& file : files) {
      if (!file.is_pinned) continue;
      std::uint64_t& bytes = pinned[file.path];
      bytes = std::max(bytes, object_charge(file.version.size, block_size_bytes));
    }
    if (files.size() < kPage) break;
    query.after = files.back().id;
  }
  const EngineStatus status = runtime.status();
  std::uint64_t elsewhere = status.pinned_bytes;
  for (const auto& [path, bytes] : pinned) elsewhere -= std::min(elsewhere, bytes);
  return status.limit_bytes - std::min(status.limit_bytes, elsewhere);
}

// The way from a probe, which may outlive the mount, to the mount that awaits its backend.
class Arrival {
 public:
  using Arrive = std::function<int(const BackendRoot& root)>;

  // Who is told; nobody any more once it has returned with an empty one.
  void expect(Arrive arrive) {
    const std::lock_guard lock(mutex_);
    arrive_ = std::move(arrive);
  }
  // An errno. May block for ever.
  int find(const std::string& path) {
    const BackendRoot root = find_backend_root(path, true);
    if (root.error != 0) return root.error;
    const std::lock_guard lock(mutex_);
    return arrive_ ? arrive_(root) : EAGAIN;
  }

 private:
  std::mutex mutex_;
  Arrive arrive_;
};

// Everything of one mount, in the order in which it must be destroyed backwards.
class Served {
 public:
  Served(const MountOrder& order, MountPlaces places) : order_(order), places_(std::move(places)) {}

  // Up to the point where the mount answers.
  MountReport start() {
    if (MountReport report = open_places(); !report.message.empty()) return report;
    try {
      Runtime::Options options;
      const auto run_id = random_number();
      if (!run_id) return failure(kMountSystem, "the system has no random numbers");
      options.engine = engine_config(order_.options, *run_id);
      options.source_root = backend_.get();
      backends_ = std::make_shared<Backends>(Backends::Options{
          .root = backend_.get(),
          .absent = places_.root.error,
          .find = [arrival = arrival_, path = places_.backend] { return arrival->find(path); },
          .path = places_.backend});
      options.backends = backends_;
      options.cache_root = cache_.objects.get();
      options.direct_io = order_.options.direct_io;
      runtime_ = std::make_unique<Runtime>(options);
      MountSettings settings =
          mount_settings(order_.options, places_.mountpoint, order_.source_name, backend_.get());
      settings.backends = backends_;
      settings.is_source_absent = places_.root.error != 0;
      settings.open_files_max = open_files_max(descriptor_limit());
      warm_jobs_ = std::make_shared<WarmJobs>(warm_target(), cache_.root.get());
      settings.warm_jobs = warm_jobs_;
      file_system_ = std::make_unique<CacheFs>(settings, *runtime_);
    } catch (const std::exception& error) {
      return failure(kMountSystem, error.what());
    }
    signals_.emplace(*file_system_);
    const CacheFs::MountResult mounted = file_system_->mount();
    if (!mounted.ok()) return failure(kMountFailure, mounted.message);
    start_control();
    tell();
    arrival_->expect([this](const BackendRoot& root) { return arrive(root); });
    return {};
  }

  void run() { file_system_->run(); }

  // Ends everything in time, with or without start() having gone well.
  ~Served() {
    alarm(kStopSecondsMax);
    arrival_->expect({});
    if (control_) control_->stop();
    if (warm_jobs_) warm_jobs_->stop(kWarmStopPatience);
    if (file_system_) {
      const std::string mountpoint = places_.mountpoint;
      signals_.reset();
      file_system_.reset();
      mounted_.reset();
      spdlog::info("unmounted {}", mountpoint);
    }
    if (runtime_) runtime_->stop(kStopPatience);
    runtime_.reset();
    alarm(0);
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

 private:
  MountReport open_places() {
    // Opened before there is a mount: a process that asks the mount it serves waits for itself if
    // it is killed meanwhile, and with it everybody who asks the mount, for ever. A backend that is
    // absent is stood for by what has no names in it, under the number that it gets when it
    // arrives.
    backend_ = places_.root.error == 0 ? std::move(places_.root.directory)
                                       : Descriptor(open("/dev/null", O_PATH | O_CLOEXEC));
    if (!backend_.is_open()) {
      return failure(kMountSystem, fmt::format("/dev/null: {}", std::strerror(errno)));
    }
    await_stopping_daemon(places_.cache_dir);
    CacheDirectoryResult opened = open_cache_directory(places_.cache_dir);
    if (!opened.directory) return failure(kMountFailure, opened.error);
    cache_ = std::move(*opened.directory);
    mounted_ = Descriptor(open(mounted_lock(places_.cache_dir).c_str(), O_RDONLY | O_CLOEXEC));
    flock(mounted_.get(), LOCK_EX | LOCK_NB);
    const auto space = file_system_space(cache_.root.get());
    if (space && space->total_bytes < order_.options.cache_size_bytes) {
      spdlog::warn("the cache may grow to {} MiB but its file system has only {} MiB",
                   order_.options.cache_size_bytes / kMiB, space->total_bytes / kMiB);
    }
    return {};
  }

  // The backend, absent so far, is there. An errno. Waits for nothing.
  int arrive(const BackendRoot& root) {
    MountPlaces places{places_.mountpoint, root.path, places_.cache_dir};
    if (const auto problem = check_nesting(places)) {
      spdlog::error("{}", *problem);
      return EINVAL;
    }
    if (dup3(root.directory.get(), backend_.get(), O_CLOEXEC) < 0) return errno;
    file_system_->source_found(root.attributes, root.is_on_network);
    runtime_->source_found(root.is_on_network);
    warm_jobs_->source_found();
    return 0;
  }

  WarmTarget warm_target() {
    WarmTarget target;
    target.source_root = backend_.get();
    target.warm = [runtime = runtime_.get()](FileHandle source, const SourceState& state,
                                             const std::string& path, auto done, bool pin,
                                             WarmPace pace) {
      runtime->warm(source, state, path, std::move(done), pin, pace);
    };
    const Config config = engine_config(order_.options, 0);
    target.charge = [config](const std::string& path, std::uint64_t size_bytes) {
      const bool is_left_out = config.is_too_small(size_bytes) || config.is_above_max(size_bytes) ||
                               !config.paths.admit(path);
      return is_left_out ? 0 : object_charge(size_bytes, config.block_size_bytes);
    };
    target.capacity = [runtime = runtime_.get(),
                       block = config.block_size_bytes](const auto& paths) {
      return room_for(*runtime, block, paths);
    };
    target.is_down = [backends = backends_](const std::string& path) {
      return backends->is_down(backends->device_at(path));
    };
    target.answered = [backends = backends_](const std::string& path, int error) {
      backends->answered(backends->device_at(path), error);
    };
    target.warn = [](const std::string& text) { spdlog::warn("{}", text); };
    return target;
  }

  // Without it the mount works all the same, so it is no reason to fail.
  void start_control() {
    ControlServer::Options options;
    options.socket_path = control_socket_path(kControlDirectory, places_.mountpoint);
    options.metrics_address = order_.options.metrics_address;
    options.metrics_port = order_.options.metrics_port;
    ControlSubject subject;
    subject.mountpoint = places_.mountpoint;
    subject.backend = backend_name();
    subject.cache_dir = places_.cache_dir;
    subject.version = NCFS_VERSION;
    const std::vector<MountEntry> mounts = read_mount_table();
    const MountEntry* backend = find_mount(mounts, backend_name());
    if (backend != nullptr) subject.backend_device = backend->device;
    subject.passthrough_wanted = order_.options.passthrough != PassthroughPolicy::disabled &&
                                 order_.options.checksum != Checksum::read &&
                                 order_.options.metadata.stale_open == StaleOpen::estale;
    subject.passthrough_active = file_system_->passthrough_active();
    subject.passthrough_detail = passthrough_detail(order_.options, subject.passthrough_active);
    subject.config = config_entries(order_.options);
    subject.log_level = log_level_name;
    subject.set_log_level = set_log_level_by_name;
    subject.set_copy_rate = [runtime = runtime_.get()](std::uint64_t bytes_per_second) {
      runtime->set_copy_rate(bytes_per_second);
    };
    subject.is_access_logged = is_access_logged;
    subject.set_access_logged = set_access_logged;
    const Config config = engine_config(order_.options, 0);
    subject.block_size_bytes = config.block_size_bytes;
    subject.buffer_bytes = config.buffers * config.block_size_bytes;
    subject.engine_status = [runtime = runtime_.get()] { return runtime->status(); };
    subject.metadata_status = [mount = file_system_.get()] { return mount->metadata_status(); };
    subject.backends = [backends = backends_] { return backends->status(); };
    subject.files = [runtime = runtime_.get()](const FileQuery& query) {
      return runtime->files(query);
    };
    subject.verify = [runtime = runtime_.get()](std::vector<std::string> paths, auto done) {
      return runtime->verify(std::move(paths), std::move(done));
    };
    subject.set_limit = [runtime = runtime_.get()](std::uint64_t bytes) {
      return runtime->set_limit(bytes);
    };
    subject.evict = [runtime = runtime_.get()](auto paths, Nanos idle_min, auto done) {
      runtime->evict(std::move(paths), idle_min, std::move(done));
    };
    subject.unpin = [runtime = runtime_.get()](auto paths, auto done) {
      runtime->unpin(std::move(paths), std::move(done));
    };
    subject.hot_files = [mount = file_system_.get()] { return mount->hot_files(); };
    subject.invalidate = [mount = file_system_.get()](auto paths, auto done) {
      mount->invalidate(std::move(paths), std::move(done));
    };
    subject.now = monotonic_now;
    subject.adapter_stats = &file_system_->stats();
    subject.copy_time = &runtime_->copy_time();
    control_ = std::make_unique<ControlServer>(std::move(options), std::move(subject), warm_jobs_);
    if (const std::string error = control_->start(); !error.empty()) {
      spdlog::error("no control socket, nfs-cachefs-ctl will not work: {}", error);
      control_.reset();
      return;
    }
    // Neither is a port that somebody else has.
    if (const std::string error = control_->metrics_error(); !error.empty()) {
      spdlog::error("option metrics_listen: no metrics are told: {}", error);
    }
  }

  // As people know it.
  [[nodiscard]] const std::string& backend_name() const {
    return is_nfs_url(order_.options.nfs_backend) ? order_.options.nfs_backend : places_.backend;
  }

  void tell() const {
    const bool is_active = file_system_->passthrough_active();
    spdlog::info("mounted {} on {}, cache {} of at most {} MiB, passthrough {}: {}", backend_name(),
                 places_.mountpoint, places_.cache_dir, order_.options.cache_size_bytes / kMiB,
                 is_active ? "on" : "off", passthrough_detail(order_.options, is_active));
  }

  const MountOrder& order_;
  MountPlaces places_;
  const std::shared_ptr<Arrival> arrival_ = std::make_shared<Arrival>();
  Descriptor backend_;
  CacheDirectory cache_;
  Descriptor mounted_;
  std::shared_ptr<Backends> backends_;
  std::unique_ptr<Runtime> runtime_;
  std::shared_ptr<WarmJobs> warm_jobs_;
  std::unique_ptr<CacheFs> file_system_;
  std::optional<StopOnSignal> signals_;
  std::unique_ptr<ControlServer> control_;
};

// What a broken invariant prints must not get lost: it goes to the system log.
Descriptor open_system_log() {
  Descriptor log(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, "/dev/log");
  if (connect(log.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    log = Descriptor(open("/dev/null", O_WRONLY | O_CLOEXEC));
  }
  return log;
}

void become_daemon() {
  setsid();
  if (chdir("/") != 0) std::abort();  // the root directory is always there
  umask(077);
  const Descriptor null(open("/dev/null", O_RDWR | O_CLOEXEC));
  dup2(null.get(), STDIN_FILENO);
  dup2(null.get(), STDOUT_FILENO);
  const Descriptor log = open_system_log();
  dup2(log.get(), STDERR_FILENO);
  log_to_system();
}

// One byte of exit status, then the message; the end of the pipe ends it.
bool send_report(int pipe, const MountReport& report) {
  const std::string text = static_cast<char>(report.exit_status) + report.message;
  return write(pipe, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// The whole life of the daemon process.
[[noreturn]] void live_as_daemon(const MountOrder& order, Descriptor pipe) {
  become_daemon();
  bool is_reported = false;
  const MountReport report = serve(order, [&] {
    is_reported = send_report(pipe.get(), {});
    pipe.reset();
    return is_reported;
  });
  if (!is_reported && pipe.is_open()) send_report(pipe.get(), report);
  if (!report.message.empty()) spdlog::error("{}", report.message);
  spdlog::shutdown();
  // Threads that a hung backend keeps are left behind; they must not see statics destroyed.
  _exit(report.exit_status);
}

// Ends a daemon that does not get ready, gently first.
void end_child(pid_t child) {
  kill(child, SIGTERM);
  const auto deadline = Clock::now() + std::chrono::seconds(5);
  while (Clock::now() < deadline) {
    if (waitpid(child, nullptr, WNOHANG) == child) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  kill(child, SIGKILL);
}

// What the daemon says, or what became of it.
MountReport await_report(pid_t child, int pipe, std::chrono::seconds patience) {
  const auto deadline = Clock::now() + patience;
  std::string text;
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd waiting{pipe, POLLIN, 0};
    const int ready = left.count() > 0 ? poll(&waiting, 1, static_cast<int>(left.count())) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      end_child(child);
      return failure(kMountFailure,
                     fmt::format("the mount does not answer within {} seconds; does the backend?",
                                 patience.count()));
    }
    char bytes[512];
    const ssize_t count = read(pipe, bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    text.append(bytes, static_cast<std::size_t>(count));
  }
  if (text.empty()) {
    int status = 0;
    waitpid(child, &status, 0);
    return failure(kMountFailure,
                   WIFSIGNALED(status)
                       ? fmt::format("the daemon was ended by signal {} before the mount was ready",
                                     WTERMSIG(status))
                       : "the daemon ended before the mount was ready");
  }
  return {static_cast<unsigned char>(text[0]), text.substr(1)};
}

// If the backend is a URL: starts what shows it, and puts its directory in the place of the URL.
MountReport start_nfs(std::optional<NfsBackend>& nfs, MountOptions& options) {
  const std::string url = options.nfs_backend;
  if (!is_nfs_url(url)) return {};
  remove_abandoned_nfs_directories(kControlDirectory);
  nfs.emplace(
      NfsBackend::Options{.url = url,
                          .directory = nfs_directory(kControlDirectory),
                          .timeout = std::chrono::seconds(options.backend_timeout_seconds)});
  if (const std::string error = nfs->start(); !error.empty()) {
    return failure(kMountFailure, fmt::format("option nfs_backend={}: {}", url, error));
  }
  options.nfs_backend = nfs->directory();
  return {};
}

}  // namespace

MountReport rehearse(const MountOrder& order) {
  MountOptions options = order.options;
  std::optional<NfsBackend> nfs;
  if (MountReport report = start_nfs(nfs, options); !report.message.empty()) return report;
  const auto checked = check_mount_places(options, order.mountpoint);
  if (const auto* error = std::get_if<OptionError>(&checked)) {
    return failure(kMountFailure, error->message);
  }
  return {};
}

MountReport serve(const MountOrder& order, const std::function<bool()>& on_ready) {
  raise_descriptor_limit();
  signal(SIGPIPE, SIG_IGN);
  MountOptions options = order.options;
  std::optional<NfsBackend> nfs;  // ends after all that uses it
  if (MountReport report = start_nfs(nfs, options); !report.message.empty()) return report;
  auto checked = check_mount_places(options, order.mountpoint);
  if (const auto* error = std::get_if<OptionError>(&checked)) {
    return failure(kMountFailure, error->message);
  }
  set_logged_mount(std::get<MountPlaces>(checked).mountpoint);
  set_access_logged(order.options.access_log);
  Served mount(order, std::get<MountPlaces>(std::move(checked)));
  MountReport report = mount.start();
  if (report.message.empty() && on_ready()) mount.run();
  return report;
}

MountReport launch(const MountOrder& order) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return failure(kMountSystem, fmt::format("pipe: {}", std::strerror(errno)));
  }
  Descriptor read_end(ends[0]);
  Descriptor write_end(ends[1]);
  const pid_t child = fork();
  if (child < 0) return failure(kMountSystem, fmt::format("fork: {}", std::strerror(errno)));
  if (child == 0) {
    read_end.reset();
    live_as_daemon(order, std::move(write_end));
  }
  write_end.reset();
  return await_report(
      child, read_end.get(),
      std::chrono::seconds(order.options.backend_timeout_seconds) + kLaunchPatience);
}

}  // namespace ncfs
