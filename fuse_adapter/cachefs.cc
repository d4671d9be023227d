#include "fuse_adapter/cachefs.h"

#include <spdlog/spdlog.h>
#include <sys/statvfs.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "fuse_adapter/fuse_ops.h"
#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

// The kernel answers the greeting of a mount at once; a machine that needs longer than this is in
// deeper trouble than a mount that fails.
constexpr std::chrono::seconds kReadyPatience{30};

// What the source refuses altogether is refused by the kernel, access(2) included, of which the
// source is not asked. A source that cannot be asked says so at the first request.
MountSettings as_writable_as_source(MountSettings settings) {
  struct statvfs status {};
  if (settings.is_source_absent) return settings;
  const bool is_read_only = ::fstatvfs(settings.source_root, &status) == 0 &&
                            (status.f_flag & static_cast<unsigned long>(ST_RDONLY)) != 0;
  if (is_read_only) settings.mount_flags |= MS_RDONLY;
  return settings;
}

}  // namespace

class CacheFs::Impl {
 public:
  Impl(MountSettings settings, Runtime& runtime)
      : settings_(std::move(settings)),
        runtime_(runtime),
        stats_(std::make_shared<AdapterStats>()) {}

  ~Impl() {
    channel_.store(nullptr);
    if (core_) core_->stop();
  }

  MountResult mount() {
    MountResult result;
    try {
      settings_ = as_writable_as_source(std::move(settings_));
      core_ = std::make_shared<FuseCore>(settings_, runtime_, stats_);
    } catch (const std::system_error& error) {
      return {error.code().value(), error.what()};
    }
    channel_.store(core_->channel.get());
    result = core_->channel->mount(settings_);
    if (result.ok()) result = agree_with_kernel();
    if (!result.ok()) core_->stop();
    return result;
  }

  void run() {
    if (!is_stop_requested_.load()) core_->channel->wait();
    core_->stop();
  }

  // The flag is for a request that comes before there is a channel.
  void request_stop() {
    is_stop_requested_.store(true);
    if (FuseChannel* const channel = channel_.load()) channel->wake();
  }

  [[nodiscard]] bool passthrough_active() const {
    return core_ && core_->channel->passthrough_active();
  }
  [[nodiscard]] const AdapterStats& stats() const { return *stats_; }
  [[nodiscard]] MetadataStatus metadata_status() const { return core_->known_metadata.status(); }
  [[nodiscard]] std::vector<HotFiles::File> hot_files() {
    return core_->hot_files.list(monotonic_now());
  }
  void invalidate(std::vector<std::string> paths,
                  std::function<void(const InvalidationResult&)> done) {
    ncfs::invalidate(*core_, std::move(paths), std::move(done));
  }
  void source_found(const struct stat& root, bool is_on_network) {
    core_->source_found(root, is_on_network);
  }

 private:
  MountResult agree_with_kernel() {
    FuseChannel& channel = *core_->channel;
    channel.start(settings_.dispatch_threads + settings_.guest_threads, settings_.guest_threads);
    if (!channel.wait_until_ready(kReadyPatience)) {
      return {ETIMEDOUT, "the kernel did not accept the file system"};
    }
    if (settings_.passthrough == PassthroughPolicy::required && !channel.passthrough_active()) {
      return {EOPNOTSUPP, "passthrough=yes: this kernel has no FUSE passthrough (Linux 6.9 has)"};
    }
    if (!channel.set_readahead(settings_.readahead_bytes)) {
      spdlog::warn("cannot set the readahead window of {}; sequential reads will be slower",
                   settings_.mountpoint);
    }
    return {};
  }

  MountSettings settings_;
  Runtime& runtime_;
  const std::shared_ptr<AdapterStats> stats_;
  std::shared_ptr<FuseCore> core_;
  std::atomic<bool> is_stop_requested_{false};
  std::atomic<FuseChannel*> channel_{nullptr};  // core_'s
};

CacheFs::CacheFs(const MountSettings& settings, Runtime& runtime)
    : impl_(std::make_unique<Impl>(settings, runtime)) {}
CacheFs::~CacheFs() = default;
CacheFs::MountResult CacheFs::mount() {
  return impl_->mount();
}
void CacheFs::run() {
  impl_->run();
}
void CacheFs::request_stop() {
  impl_->request_stop();
}
bool CacheFs::passthrough_active() const {
  return impl_->passthrough_active();
}
const AdapterStats& CacheFs::stats() const {
  return impl_->stats();
}
MetadataStatus CacheFs::metadata_status() const {
  return impl_->metadata_status();
}
std::vector<HotFiles::File> CacheFs::hot_files() {
  return impl_->hot_files();
}
void CacheFs::invalidate(std::vector<std::string> paths,
                         std::function<void(const InvalidationResult&)> done) {
  impl_->invalidate(std::move(paths), std::move(done));
}
void CacheFs::source_found(const struct stat& root, bool is_on_network) {
  impl_->source_found(root, is_on_network);
}

}  // namespace ncfs
