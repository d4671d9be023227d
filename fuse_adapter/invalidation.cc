// Invariants:
//   the daemon has forgotten before the kernel is told to, which would else learn the same again;
//   a file is dropped only if the backend was asked about it and said something else;
//   whoever comes first answers: the last job, or the deadline, which counts what is left as
//   failed.
#include "fuse_adapter/invalidation.h"

#include <fcntl.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

#include "fuse_adapter/fuse_ops.h"
#include "fuse_adapter/mount_table.h"
#include "io/source_identity.h"

namespace ncfs {
namespace {

// Servers answer several at a time; more would be a load that nobody waits for.
constexpr std::size_t kLookers = 4;
constexpr std::size_t kFilesAtATime = 1000;

bool is_at_or_beneath(const std::string& path, const std::vector<std::string>& tops) {
  return std::ranges::any_of(
      tops, [&path](const std::string& top) { return top.empty() || is_within(path, top); });
}

class Invalidation : public std::enable_shared_from_this<Invalidation> {
 public:
  Invalidation(FuseCore& core, std::vector<std::string> paths,
               std::function<void(const InvalidationResult&)> done)
      : core_(core.shared_from_this()), paths_(std::move(paths)), done_(std::move(done)) {}

  void start() {
    core_->known_metadata.forget_all();
    begin();  // so that no job is the last before all are there
    submit([](Invalidation& self) { self.tell_kernel(); });
    for (std::size_t looker = 0; looker < kLookers; ++looker) {
      submit([](Invalidation& self) { self.look_at_files(); });
    }
    end();
  }

 private:
  using Count = InvalidationResult::Count;

  static void add(Count& count, const FileReport& file) {
    ++count.files;
    count.bytes += file.cached_bytes;
  }

  void begin() {
    const std::lock_guard lock(mutex_);
    ++jobs_;
  }
  void end() {
    std::unique_lock lock(mutex_);
    if (--jobs_ == 0) answer(lock);
  }

  template <typename Work>
  void submit(Work work) {
    begin();
    const bool accepted = core_->invalidations.submit({.run =
                                                           [self = shared_from_this(), work] {
                                                             work(*self);
                                                             self->end();
                                                           },
                                                       .expire =
                                                           [self = shared_from_this()] {
                                                             std::unique_lock lock(self->mutex_);
                                                             self->answer(lock);
                                                           }});
    if (!accepted) end();
  }

  // What waits to be looked at, or is being looked at, has failed.
  void answer(std::unique_lock<std::mutex>& lock) {
    if (is_over_) return;
    is_over_ = true;
    result_.is_complete = jobs_ == 0;
    for (const auto& [id, file] : in_work_) add(result_.failed, file);
    for (const FileReport& file : waiting_) add(result_.failed, file);
    lock.unlock();
    done_(result_);
  }

  static bool is_stored(const FileReport& file) {
    return file.state != FileReport::State::absent && file.state != FileReport::State::leaving;
  }

  // A job of its own, as the kernel lets it wait for look-ups under way.
  void tell_kernel() {
    const std::vector<NodeId> nodes = core_->nodes.all();
    for (const NodeId node : nodes) {
      const auto location = core_->nodes.locate(node);
      if (!location) continue;
      if (is_at_or_beneath(location->path, paths_)) tell_kernel(node, location->type == S_IFDIR);
      // Names that the kernel believes to be absent have no node.
      if (location->type != S_IFDIR) continue;
      for (const std::string& path : paths_) {
        const std::size_t slash = path.rfind('/');
        const std::string parent = slash == std::string::npos ? "" : path.substr(0, slash);
        if (path.empty() || location->path != parent) continue;
        core_->channel->forget_name(node, path.substr(slash + 1), true);
      }
    }
  }

  void tell_kernel(NodeId node, bool is_directory) {
    std::uint64_t names = 0;
    for (const auto& place : core_->nodes.places_of(node)) {
      core_->channel->forget_name(place.parent, place.name, is_directory);
      ++names;
    }
    if (is_directory) {
      core_->channel->forget_pages(node, 0, kToTheEnd);
    } else {
      core_->channel->forget_attributes(node);
    }
    const std::lock_guard lock(mutex_);
    result_.names += names;
  }

  void look_at_files() {
    while (const auto file = next()) {
      const Finding finding = look_at(*file);
      if (finding == Finding::other) {
        drop(*file);
        continue;
      }
      const std::lock_guard lock(mutex_);
      in_work_.erase(file->id);
      add(finding == Finding::same ? result_.kept : result_.failed, *file);
    }
  }

  // Nothing if there are no more, or too late.
  std::optional<FileReport> next() {
    const std::lock_guard fetching(fetch_mutex_);
    while (true) {
      {
        const std::lock_guard lock(mutex_);
        if (is_over_) return std::nullopt;
        if (!waiting_.empty()) {
          FileReport file = std::move(waiting_.front());
          waiting_.pop_front();
          in_work_.emplace(file.id, file);
          return file;
        }
      }
      if (is_fetched_) return std::nullopt;
      const auto files = core_->engine->files({paths_, last_id_, kFilesAtATime});
      is_fetched_ = files.size() < kFilesAtATime;
      if (!files.empty()) last_id_ = files.back().id;
      const std::lock_guard lock(mutex_);
      std::ranges::copy_if(files, std::back_inserter(waiting_), is_stored);
    }
  }

  enum class Finding : std::uint8_t { same, other, unknown };
  Finding look_at(const FileReport& file) {
    // What is not asked for cannot be told from what has gone.
    const auto& backends = *core_->backends;
    if (backends.is_down(backends.device_at(file.path))) return Finding::unknown;
    refresh_directories(file.path);
    const FoundFile found = core_->tree.find_whatever_is_at(file.path, Caller{});
    if (found.error == ESTALE) return Finding::other;
    if (found.error != 0) return Finding::unknown;
    const SourceLook look = look_at_source(found.file.get(), Freshness::from_server);
    if (look.error != 0) return look.error == ESTALE ? Finding::other : Finding::unknown;
    const bool is_same = look.state.file == file.file && look.state.version == file.version;
    return is_same ? Finding::same : Finding::other;
  }

  // An NFS client that has seen a change of a directory looks up its names anew.
  void refresh_directories(const std::string& path) {
    for (std::size_t end = 0; end != std::string::npos; end = path.find('/', end + 1)) {
      const std::string directory = path.substr(0, end);
      {
        const std::lock_guard lock(mutex_);
        if (!refreshed_.insert(directory).second) continue;
      }
      static_cast<void>(core_->tree.find_whatever_is_at(directory, Caller{}, AT_STATX_FORCE_SYNC));
    }
  }

  void drop(const FileReport& file) {
    begin();
    const auto dropped = [self = shared_from_this(), file](int error) {
      {
        const std::lock_guard lock(self->mutex_);
        self->in_work_.erase(file.id);
        add(error == 0 ? self->result_.dropped : self->result_.failed, file);
      }
      self->end();
    };
    if (!core_->engine->disown(file.file, dropped)) dropped(ECANCELED);
  }

  const std::shared_ptr<FuseCore> core_;
  const std::vector<std::string> paths_;
  const std::function<void(const InvalidationResult&)> done_;

  // Held while the control thread is asked for files, so it must never want this one.
  std::mutex fetch_mutex_;
  std::uint64_t last_id_ = 0;  // guarded by fetch_mutex_, as is the next
  bool is_fetched_ = false;

  std::mutex mutex_;  // guards the rest
  InvalidationResult result_;
  std::deque<FileReport> waiting_;
  std::map<std::uint64_t, FileReport> in_work_;
  std::set<std::string> refreshed_;
  std::size_t jobs_ = 0;
  bool is_over_ = false;
};

}  // namespace

void invalidate(FuseCore& core, std::vector<std::string> paths,
                std::function<void(const InvalidationResult&)> done) {
  std::make_shared<Invalidation>(core, std::move(paths), std::move(done))->start();
}

}  // namespace ncfs
