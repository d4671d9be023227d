#include "fuse_adapter/fuse_ops.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <random>
#include <system_error>
#include <thread>
#include <utility>

#include "io/monotonic_clock.h"
#include "io/source_identity.h"
#include "io/wall_clock.h"

namespace ncfs {
namespace {

// Enough to keep a server with a few milliseconds of latency busy with a walk of a tree by many
// processes; a thread that waits costs nothing but its stack.
constexpr std::size_t kMetadataThreads = 16;
// With one file system that hangs there are three times as many threads for others, and still as
// many as it has for a third one.
constexpr std::size_t kMetadataThreadsMax = 4 * kMetadataThreads;
// Each request is a process that waits, or a directory entry that is read ahead.
constexpr std::size_t kMetadataQueueMax = 8192;
// Deep enough for an NVMe disk; reads that find their bytes in memory do not come here.
constexpr std::size_t kCacheReadThreads = 8;
constexpr std::size_t kCacheReadQueueMax = 1024;
// Enough for the connections of a mount with nconnect=16, and for an fsync that takes long.
constexpr std::size_t kWriteThreads = 16;
constexpr std::size_t kWriteThreadsMax = 4 * kWriteThreads;
// Each is a process that waits, with a piece of up to 1 MiB in memory.
constexpr std::size_t kWriteQueueMax = 1024;
// One invalidation at a time has all it can use.
constexpr std::size_t kInvalidationThreads = 5;
constexpr std::size_t kInvalidationQueueMax = 64;
// Less than clients wait for an answer (ControlServer::Options::reply_deadline).
constexpr Nanos kInvalidationPatience = 20 * kSecond;
// A source or disk that answers at all answers within this when the mount ends.
constexpr std::chrono::seconds kStopPatience{1};

// With stale_if_error opens are answered from what was open before: of as many files as an eighth
// of what applications may have open, which leaves descriptors for these.
constexpr std::size_t kKeptShare = 8;
constexpr std::size_t kKeptFilesMax = 65536;

std::size_t kept_files_max(const MountSettings& settings) {
  if (settings.metadata.stale_if_error == 0) return KeptSources::kFilesMax;
  return std::clamp(settings.open_files_max / kKeptShare, KeptSources::kFilesMax, kKeptFilesMax);
}

// What the kernel may have in flight of readahead and the like, and above which it holds back: a
// full window of 4 MiB for a dozen files, which is what hides the latency of a server.
constexpr unsigned kBackgroundMax = 64;
constexpr unsigned kCongestionThreshold = 48;

FileFacts facts_of_root(const MountSettings& settings) {
  struct stat attributes {};
  if (settings.is_source_absent) {
    attributes.st_mode = S_IFDIR;
    return FileFacts::of(attributes);
  }
  if (::fstat(settings.source_root, &attributes) != 0) {
    throw std::system_error(errno, std::generic_category(), "the backend's root");
  }
  return FileFacts::of(attributes);
}

bool may_pass_source_through(ColdPassthroughPolicy policy, bool is_on_network) {
  return policy == ColdPassthroughPolicy::enabled ||
         (policy == ColdPassthroughPolicy::automatic && !is_on_network);
}

// All opens of a node that is passed through are of the version that is: one of another version has
// to be told to look up again.
PassthroughPolicy passthrough_of(const MountSettings& settings) {
  return settings.stale_open == StaleOpen::inval ? PassthroughPolicy::disabled
                                                 : settings.passthrough;
}

void init(void*, fuse_conn_info* connection) {
  const auto want = [connection](unsigned capabilities) {
    connection->want |= connection->capable & capabilities;
  };
  want(FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
       FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_ATOMIC_O_TRUNC |
       FUSE_CAP_DONT_MASK | FUSE_CAP_POSIX_ACL | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS);
  // Splicing costs more than it saves (page by page). Writeback makes the kernel deaf to changes of
  // size and time. Changes are noticed at open, so that every read need not ask.
  connection->want &=
      ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                             FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_AUTO_INVAL_DATA);
  connection->max_write = kMiB;  // and so the longest read
  connection->max_background = kBackgroundMax;
  connection->congestion_threshold = kCongestionThreshold;
}

}  // namespace

FuseCore::FuseCore(const MountSettings& mount_settings, Runtime& runtime,
                   std::shared_ptr<AdapterStats> counters)
    : settings(mount_settings),
      stats(std::move(counters)),
      backends(mount_settings.backends ? mount_settings.backends
                                       : std::make_shared<Backends>(Backends::Options{
                                             .root = mount_settings.source_root})),
      tree(mount_settings.source_root, groups, *stats),
      channel(std::make_shared<FuseChannel>(operation_table(settings.is_read_only()), this,
                                            passthrough_of(mount_settings))),
      nodes(facts_of_root(mount_settings),
            {.register_backing =
                 [this](int descriptor) { return channel->register_backing(descriptor); },
             .unregister_backing = [this](int id) { channel->unregister_backing(id); },
             .keeps_nodes = mount_settings.stale_open == StaleOpen::inval}),
      known_metadata(mount_settings.metadata, groups),
      backend_locks(
          mount_settings.locks == LockPlace::backend
              ? std::make_unique<BackendLocks>(locks, mount_settings.source_deadline, backends)
              : nullptr),
      kept_sources(kept_files_max(mount_settings)),
      engine(std::make_shared<RuntimeGate>(runtime)),
      metadata({.name = "ncfs-metadata",
                .threads = kMetadataThreads,
                .threads_max = kMetadataThreadsMax,
                .queue_max = kMetadataQueueMax,
                .guests = mount_settings.guest_threads,
                .deadline = mount_settings.source_deadline}),
      cache_reads({.name = "ncfs-cache-read",
                   .threads = kCacheReadThreads,
                   .threads_max = 0,
                   .queue_max = kCacheReadQueueMax,
                   .deadline = mount_settings.cache_deadline}),
      writes({.name = "ncfs-writes",
              .threads = kWriteThreads,
              .threads_max = kWriteThreadsMax,
              .queue_max = kWriteQueueMax,
              .guests = mount_settings.guest_threads,
              .deadline = mount_settings.source_deadline}),
      notices(channel),
      invalidations({.name = "ncfs-invalidate",
                     .threads = kInvalidationThreads,
                     .queue_max = kInvalidationQueueMax,
                     .deadline = kInvalidationPatience}),
      passes_source_through(may_pass_source_through(mount_settings.cold_passthrough,
                                                    is_on_network(mount_settings.source_root))) {
  channel->set_root_device(facts_of_root(mount_settings).file.device);
}

FuseCore::~FuseCore() = default;

bool FuseCore::run(JobPool& pool, JobPool::Job job, const std::function<void()>& before_waiting) {
  {
    const FuseChannel::Stay stay(*channel);
    if (stay && pool.run_here(job)) return true;
  }
  if (before_waiting) before_waiting();
  return pool.submit(std::move(job));
}

Backends::Device FuseCore::device_of(NodeId node, const std::string& child) const {
  if (!backends->are_several()) return backends->root();
  const auto location = nodes.locate(node);
  if (!location) return backends->root();
  const std::string& path = location->path;
  if (child.empty()) return backends->device_at(path);
  return backends->device_at(path.empty() ? child : path + '/' + child);
}

JobPool::Job FuseCore::judged(const KernelRequestPointer& request, Backends::Device device,
                              std::function<void()> work, std::function<void()> late,
                              Nanos patience) const {
  const auto judge = [backends = backends, device](int error) {
    backends->answered(device, error);
  };
  return {.run =
              [request, judge, work = std::move(work)] {
                if (request->is_answered()) return;
                work();
                judge(request->outcome());
              },
          .expire =
              [request, judge, late = std::move(late), patience] {
                // Shorter patience says nothing about the backend.
                if (patience == 0) judge(ETIMEDOUT);
                if (!request->is_answered()) late();
              },
          .lane = device,
          .patience = patience};
}

// What the source is asked and may be asked again. Of an error that may pass, such as one EIO or a
// connection that breaks, nobody is told unless it lasts.
class Repeated {
 public:
  Repeated(FuseCore& core, Backends::Device device) : core_(core), device_(device) {}

  // Does the work, and again after each error for as long as it makes sense. On a thread of a pool.
  void run(const FuseCore::Work& work, const KernelRequestPointer& request) {
    request->set_retry([this](int error) { return wants_another(error); });
    do {
      fails_ = false;
      work(core_, request);
      if (fails_) pause();
    } while (fails_ && !request->is_answered());
    request->set_retry({});
  }

 private:
  // The first pause is what a connection takes to be made anew on a local network; all of them are
  // far below what anybody takes for a hang.
  static constexpr int kTriesMax = 3;
  static constexpr Nanos kPauseMin = 50 * kMillisecond;

  bool wants_another(int error) {
    // A timeout was waited for long enough.
    if (judge_backend(error) == BackendAnswer::timeout || ++tries_ == kTriesMax) return false;
    core_.backends->answered(device_, error);
    fails_ = !core_.backends->is_down(device_);
    if (fails_) core_.stats->retries.add();
    return fails_;
  }

  // Twice as long each time, less up to a half at random, so that many who failed together do not
  // come back together.
  void pause() const {
    thread_local std::minstd_rand random{std::random_device{}()};
    const Nanos longest = kPauseMin << tries_;
    std::this_thread::sleep_for(std::chrono::nanoseconds(
        std::uniform_int_distribution<Nanos>(longest / 2, longest)(random)));
  }

  FuseCore& core_;
  const Backends::Device device_;
  int tries_ = 0;
  bool fails_ = false;
};

void FuseCore::post(fuse_req_t raw, Work work, Late late, const Question& question) {
  auto request = std::make_shared<KernelRequest>(channel, raw);
  const Backends::Device device = device_of(request->node(), question.child);
  const Late stands_in = settings.metadata.stale_if_error > 0 ? late : Late{};
  auto give_up = [core = shared_from_this(), request, late = std::move(late)] {
    if (late && late(*core, request)) return;
    if (request->give_up(ETIMEDOUT)) core->stats->timeouts.add();
  };
  if (backends->is_down(device)) {
    give_up();
    return;
  }
  if (stands_in) {
    request->set_stand_in([core = shared_from_this(), weak = std::weak_ptr(request), stands_in] {
      const auto asking = weak.lock();
      return asking && stands_in(*core, asking);
    });
  }
  const bool accepted =
      run(metadata, judged(
                        request, device,
                        [core = shared_from_this(), request, device, work = std::move(work),
                         is_repeatable = question.is_repeatable] {
                          if (is_repeatable) {
                            Repeated(*core, device).run(work, request);
                          } else {
                            work(*core, request);
                          }
                        },
                        std::move(give_up), question.patience));
  if (accepted) return;
  stats->rejected.add();
  request->give_up(ENOMEM);
}

bool FuseCore::refuse_open(fuse_req_t raw) {
  const std::size_t open = files.count() + directories.count() + left_mappings.count();
  if (open < settings.open_files_max) return false;
  stats->rejected.add();
  if (!has_logged_open_limit.exchange(true)) {
    spdlog::warn(
        "{} files and directories are open, as many as the limit of descriptors allows "
        "(ulimit -Hn, LimitNOFILE=); who opens more gets ENFILE",
        open);
  }
  fuse_reply_err(raw, ENFILE);
  return true;
}

FoundFile FuseCore::find(NodeId node, const Caller& caller, int sync) {
  FoundFile found;
  do {
    const auto location = nodes.locate(node);
    if (location) {
      found = tree.find(*location, caller, sync);
    } else {
      found.error = ESTALE;
    }
  } while (found.error == ESTALE && nodes.try_other_name(node));
  return found;
}

bool FuseCore::may_tell_stale(pid_t thread, NodeId node) {
  return settings.stale_open == StaleOpen::estale &&
         stale.try_answer(thread, node, monotonic_now());
}

void FuseCore::own_change(const SeenFile& before, const FileFacts& after, const std::string& path,
                          int beside) {
  const SourceVersion& version = before.facts.version;
  const bool is_content_kept =
      version.size == after.version.size && version.mtime_ns == after.version.mtime_ns;
  if (!is_content_kept) return;
  const std::int64_t age_ns = before.at_ns - std::max(version.mtime_ns, version.ctime_ns);
  const bool was_settled = age_ns >= static_cast<std::int64_t>(settings.racy_window);
  if (after.type == S_IFREG) {
    SourceState state = look_at_source(beside, Freshness::as_opened).state;
    state.file.inode = after.file.inode;
    state.version = version;
    state.age_ns = age_ns;
    SourceState changed = state;
    changed.version = after.version;
    engine->rekey(state, changed, path);
  }
  const auto known = nodes.note_attribute_change(before.facts, after, was_settled);
  // The answer tells of the node that the next look-up finds, and of no other.
  if (known.size() == 1 && nodes.current(after.file) == known.front()) return;
  for (const NodeId node : known) channel->forget_attributes(node);
}

std::string FuseCore::path_of(const FileKey& file) const {
  const auto node = nodes.current(file);
  const auto location = node ? nodes.locate(*node) : std::nullopt;
  return location ? location->path : std::string();
}

void FuseCore::source_found(const struct stat& root, bool is_on_network) {
  channel->set_root_device(root.st_dev);
  nodes.set_root(FileFacts::of(root));
  passes_source_through = may_pass_source_through(settings.cold_passthrough, is_on_network);
}

void FuseCore::stop() {
  channel->stop();
  metadata.stop(kStopPatience);
  cache_reads.stop(kStopPatience);
  writes.stop(kStopPatience);
  notices.stop(kStopPatience);
  invalidations.stop(kStopPatience);
  if (backend_locks) backend_locks->stop(kStopPatience);
  files.clear();
  left_mappings.clear();
  kept_sources.clear();
  directories.clear();
  engine->shut();
  channel->disconnect();
}

void LastSpaces::note(Backends::Device device, const Space& space) {
  const std::lock_guard lock(mutex_);
  if (spaces_.size() < kDevicesMax || spaces_.contains(device)) spaces_[device] = space;
}

std::optional<LastSpaces::Space> LastSpaces::find(Backends::Device device) const {
  const std::lock_guard lock(mutex_);
  const auto known = spaces_.find(device);
  return known == spaces_.end() ? std::nullopt : std::optional(known->second);
}

fuse_entry_param entry_of(NodeId node, const struct stat& attributes,
                          const KnownMetadata::Left& left) {
  fuse_entry_param entry{};
  entry.ino = node;
  entry.attr = attributes;
  entry.attr_timeout = left.attributes;
  entry.entry_timeout = left.entry;
  return entry;
}

int stat_child(const FuseCore& core, int directory, const char* name, const Caller& caller,
               struct stat& attributes, int sync, bool* as_caller) {
  if (as_caller != nullptr) *as_caller = false;
  core.stats->source_looks.add();
  const int flags = AT_SYMLINK_NOFOLLOW | sync;
  const int error = stat_at(directory, name, flags, attributes);
  if (error != EACCES || caller.user == 0) return error;
  const CallerCredentials credentials(caller, core.tree.groups());
  if (credentials.error() != 0) return credentials.error();
  if (as_caller != nullptr) *as_caller = true;
  return stat_at(directory, name, flags, attributes);
}

FoundChild find_child(FuseCore& core, const FoundFile& directory, const char* name,
                      const Caller& caller) {
  FoundChild child;
  const FileKey parent = key_of(directory.attributes);
  const KnownMetadata::Ticket ticket = core.known_metadata.begin(parent);
  bool as_caller = false;
  child.error = stat_child(core, directory.file.get(), name, caller, child.attributes,
                           AT_STATX_SYNC_AS_STAT, &as_caller);
  as_caller = as_caller || directory.as_caller;
  if (child.error == 0) {
    child.left =
        core.known_metadata.found(ticket, parent, name, child.attributes, caller, as_caller);
  } else if (child.error == ENOENT) {
    child.left = core.known_metadata.absent(ticket, parent, name, caller, as_caller);
  }
  return child;
}

fuse_lowlevel_ops operation_table(bool is_read_only) {
  fuse_lowlevel_ops table{};
  table.init = init;
  add_metadata_operations(table);
  add_directory_operations(table);
  add_open_operations(table);
  add_read_operations(table);
  add_write_operations(table);
  add_create_operation(table);
  add_lock_operations(table);
  add_name_operations(table);
  add_attribute_operations(table);
  if (is_read_only) add_refused_operations(table);
  return table;
}

}  // namespace ncfs
