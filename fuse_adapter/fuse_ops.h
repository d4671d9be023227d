// What is done for each request of the kernel.
//
// Thread rule: the functions in the operation table run on dispatch threads and call neither the
// source nor the cache disk, except for bytes that are in memory already; everything else is
// posted: to a pool, or to the same thread while enough others take requests (FuseChannel::Stay).
// It is posted in the lane of the file system that will be asked: one that hangs holds its share of
// the threads, never all of them, and once it is known to be down no call is made to it at all.
#pragma once

#include <sys/statvfs.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "fuse_adapter/adapter_stats.h"
#include "fuse_adapter/attribute_changes.h"
#include "fuse_adapter/backend_locks.h"
#include "fuse_adapter/backends.h"
#include "fuse_adapter/cachefs.h"
#include "fuse_adapter/caller_credentials.h"
#include "fuse_adapter/content_changes.h"
#include "fuse_adapter/fuse_channel.h"
#include "fuse_adapter/hot_files.h"
#include "fuse_adapter/inode_table.h"
#include "fuse_adapter/job_pool.h"
#include "fuse_adapter/kept_sources.h"
#include "fuse_adapter/kernel_request.h"
#include "fuse_adapter/known_metadata.h"
#include "fuse_adapter/left_mappings.h"
#include "fuse_adapter/lock_table.h"
#include "fuse_adapter/open_files.h"
#include "fuse_adapter/shared_file.h"
#include "fuse_adapter/source_tree.h"
#include "fuse_adapter/stale_answers.h"
#include "fuse_adapter/virtual_attributes.h"

namespace ncfs {

// What statfs(2) told last: believed as long as attributes of directories are, if nothing was
// changed here meanwhile, and for when the source does not answer. Any thread.
class LastSpaces {
 public:
  struct Space {
    struct statvfs status {};
    Nanos asked_at = 0;
    std::optional<std::uint64_t> changes;  // KnownMetadata::changes() before it was asked for
  };
  void note(Backends::Device device, const Space& space);
  [[nodiscard]] std::optional<Space> find(Backends::Device device) const;

 private:
  static constexpr std::size_t kDevicesMax = 1024;

  mutable std::mutex mutex_;
  std::map<Backends::Device, Space> spaces_;
};

// What is special about a request to the source.
struct Question {
  Nanos patience = 0;      // shorter than MountSettings::source_deadline; 0: that
  std::string child = {};  // the one of the node's children that is asked for, if any
  // The source may be asked again after an error that may pass: asking changes nothing, and the
  // work may be done again after it has called KernelRequest::error().
  bool is_repeatable = false;
};

// Everything the operations work on. Threads that are stuck in the source keep it alive.
class FuseCore : public std::enable_shared_from_this<FuseCore> {
 public:
  // Throws std::system_error. `stats` may be read after the core's end.
  FuseCore(const MountSettings& settings, Runtime& engine, std::shared_ptr<AdapterStats> stats);
  ~FuseCore();
  FuseCore(const FuseCore&) = delete;
  FuseCore& operator=(const FuseCore&) = delete;

  [[nodiscard]] static FuseCore& of(fuse_req_t request) {
    return *static_cast<FuseCore*>(FuseChannel::from(request).context());
  }

  // Runs a job of `pool` on this thread if that may block, and else on the pool, after
  // `before_waiting` was called. False if the pool refused it. What was on the stack of the request
  // is there until one of the two returns. The core may be gone when the job has run.
  [[nodiscard]] bool run(JobPool& pool, JobPool::Job job,
                         const std::function<void()>& before_waiting = {});
  // Runs `work` as a job of the metadata pool. Answers ENOMEM if too much is waiting there. When
  // the source takes too long or is down, or with stale_if_error cannot be reached, the answer is
  // that of `late`, which must not ask it, or else the error (ETIMEDOUT). `late` is called on any
  // thread and must wait for nothing; `work` may be under way. It tells whether it has answered, or
  // the engine will.
  using Work = std::function<void(FuseCore&, const KernelRequestPointer&)>;
  using Late = std::function<bool(FuseCore&, const KernelRequestPointer&)>;
  void post(fuse_req_t request, Work work, Late late = {}, const Question& question = {});
  // The file system that questions about a node, or a child of it, go to.
  [[nodiscard]] Backends::Device device_of(NodeId node, const std::string& child = {}) const;
  // A job that does `work`, or `late` when that takes too long, and judges the file system by the
  // errno that `work` answers `request` with.
  [[nodiscard]] JobPool::Job judged(const KernelRequestPointer& request, Backends::Device device,
                                    std::function<void()> work, std::function<void()> late,
                                    Nanos patience = 0) const;

  // Whether too many files are open for the request to open another; then it is answered.
  [[nodiscard]] bool refuse_open(fuse_req_t request);

  // As SourceTree::find(), by all names that the node has.
  [[nodiscard]] FoundFile find(NodeId node, const Caller& caller, int sync = AT_STATX_SYNC_AS_STAT);

  // Whether an OPEN of `node` by `thread` may be answered with ESTALE now; if so it has been.
  [[nodiscard]] bool may_tell_stale(pid_t thread, NodeId node);

  // To be called when the mount has changed attributes or a name of a file and took it from
  // `before` to `after`, both asked of the server; `path` is where it is now, or empty if it has no
  // name. What is cached of it stays, unless size or mtime show that somebody else changed its
  // content at the same time. The kernel is told under whichever other nodes it knows the file.
  // `beside` is a descriptor on the file's file system.
  void own_change(const SeenFile& before, const FileFacts& after, const std::string& path,
                  int beside);
  // Where the file is by the name last looked up. Empty if it has none that is known.
  [[nodiscard]] std::string path_of(const FileKey& file) const;
  [[nodiscard]] HandleId next_handle() {
    return HandleId{last_handle_.fetch_add(1, std::memory_order_relaxed) + 1};
  }

  // As CacheFs::source_found().
  void source_found(const struct stat& root, bool is_on_network);

  // No request comes any more. Ends what is under way and closes what is open.
  void stop();

  const MountSettings settings;
  const std::shared_ptr<AdapterStats> stats;
  const std::shared_ptr<Backends> backends;
  CallerGroups groups;
  const SourceTree tree;
  const std::shared_ptr<FuseChannel> channel;
  InodeTable nodes;
  KnownMetadata known_metadata;
  ChangeLocks changes;
  LockTable locks;
  LockOwners lock_owners;
  // With locks=backend; `locks` then records what it holds.
  const std::unique_ptr<BackendLocks> backend_locks;
  StaleAnswers stale;
  OpenFiles files;
  HotFiles hot_files;
  SharedFiles shared_files;
  LeftMappings left_mappings;
  KeptSources kept_sources;
  OpenDirectories directories;
  const std::shared_ptr<RuntimeGate> engine;
  JobPool metadata;
  JobPool cache_reads;
  // Files on their way into the cache because an attribute was set.
  const std::shared_ptr<std::atomic<std::uint32_t>> attribute_warms =
      std::make_shared<std::atomic<std::uint32_t>>(0);
  // What changes files: apart from reads, as a change may have to wait for reads to be answered.
  JobPool writes;
  Notices notices;
  JobPool invalidations;
  LastSpaces spaces;
  std::atomic<bool> has_logged_refusal{false};
  std::atomic<bool> has_logged_open_limit{false};
  // Whether the kernel may read files that are not complete in the cache from the source itself;
  // ends when it will not.
  std::atomic<bool> passes_source_through;

 private:
  std::atomic<std::uint64_t> last_handle_{0};
};

[[nodiscard]] fuse_lowlevel_ops operation_table(bool is_read_only);

// The table's parts, one for each file of implementations.
void add_metadata_operations(fuse_lowlevel_ops& table);
void add_directory_operations(fuse_lowlevel_ops& table);
void add_open_operations(fuse_lowlevel_ops& table);
void add_read_operations(fuse_lowlevel_ops& table);
void add_write_operations(fuse_lowlevel_ops& table);
void add_create_operation(fuse_lowlevel_ops& table);
void add_lock_operations(fuse_lowlevel_ops& table);
void add_name_operations(fuse_lowlevel_ops& table);
void add_attribute_operations(fuse_lowlevel_ops& table);
void add_refused_operations(fuse_lowlevel_ops& table);  // in place of all that change the source

// Extended attributes that the mount itself answers; see virtual_attributes.h.
void get_virtual_attribute(FuseCore& core, fuse_req_t request, NodeId node,
                           VirtualAttribute attribute, std::size_t size);
void set_virtual_attribute(FuseCore& core, fuse_req_t request, NodeId node,
                           VirtualAttribute attribute, std::string value, int flags);

// The answer to a look-up that found `attributes` under `node`.
[[nodiscard]] fuse_entry_param entry_of(NodeId node, const struct stat& attributes,
                                        const KnownMetadata::Left& left);

// The file that a descriptor of any kind told these attributes of.
[[nodiscard]] inline FileKey key_of(const struct stat& attributes) {
  return FileFacts::of(attributes).file;
}

// What is known of a regular file may be less than its writer has done.
[[nodiscard]] inline bool is_being_written(const FuseCore& core, const struct stat& attributes) {
  return S_ISREG(attributes.st_mode) && core.shared_files.is_written(key_of(attributes));
}

// The file of a node, which may have lost its name while it is open.
[[nodiscard]] FoundFile find_or_held(FuseCore& core, NodeId node, const Caller& caller);

// fstat of the file of a node; that of an open file needs no walk. An errno. `as_caller` as in
// FoundFile.
[[nodiscard]] int stat_node(FuseCore& core, NodeId node, const Caller& caller,
                            struct stat& attributes, bool* as_caller = nullptr);

// The kernel would not pass a file of the source through: none will be any more.
void note_refused_source(FuseCore& core);

// What the source is to know of the flags of open(2), beside those that make files.
[[nodiscard]] int source_flags(int flags);

// How long readers keep out of the way of a writer who was told to look up again: far longer than
// the kernel takes to come back.
inline constexpr Nanos kWriterPatience = kSecond;

// A file of the source that was opened for writing on behalf of the kernel's request.
struct OpenedForWriting {
  Descriptor source;
  SourceState state;
  InodeTable::Standing standing{};
  SharedFilePointer shared;
  std::optional<std::uint64_t> changes_seen;  // of `shared`, before the source was looked at
};
// Answers the request: how the kernel writes, and the truncation if `info` asks for it.
void answer_write_open(FuseCore& core, const KernelRequestPointer& request, NodeId node,
                       fuse_file_info info, OpenedForWriting opened);
// The kernel has released a file for writing.
void finish_writing(FuseCore& core, std::shared_ptr<OpenFile> file);
// Before `file` is opened: who may have written to it through a mapping that is gone does so no
// more. Looks at one of the other files, too.
void end_left_mappings(FuseCore& core, const FileKey& file);

// For every FLUSH and every RELEASE of a regular file, before the answer. `done` is called on any
// thread when the locks are released, and keeps the core alive.
void release_locks_at_close(FuseCore& core, NodeId node, const fuse_file_info& info,
                            std::function<void()> done);
void release_locks_with_handle(FuseCore& core, NodeId node, const fuse_file_info& info);

// SETATTR of a size, through `file` if the application holds one. `done` is called once, on any
// thread, when all readers see it; with an errno if it was refused.
void set_size(FuseCore& core, const KernelRequestPointer& request, NodeId node, OpenFile* file,
              std::uint64_t size, const std::function<void(int error)>& done);

// lstat of `name` in a directory, as the daemon, or as the caller if the daemon may not; `sync` is
// one of AT_STATX_*. An errno. `as_caller` as in FoundFile.
[[nodiscard]] int stat_child(const FuseCore& core, int directory, const char* name,
                             const Caller& caller, struct stat& attributes,
                             int sync = AT_STATX_SYNC_AS_STAT, bool* as_caller = nullptr);

// What a look-up of `name` in `directory` found, or that there is none: learns it.
struct FoundChild {
  int error = 0;
  struct stat attributes = {};
  KnownMetadata::Left left;
};
[[nodiscard]] FoundChild find_child(FuseCore& core, const FoundFile& directory, const char* name,
                                    const Caller& caller);

}  // namespace ncfs
