// The mounted file system: what the kernel asks, answered from a source tree and its cache.
//
// Life: construct, mount(), run(), destroy. Any thread may call any function; run() is called once.
// The Runtime outlives the CacheFs and is not stopped before the CacheFs is destroyed.
// Threads are started by mount(), so a daemon forks before it.
#pragma once

#include <sys/mount.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/metadata.h"
#include "fuse_adapter/adapter_stats.h"
#include "fuse_adapter/hot_files.h"
#include "fuse_adapter/invalidation.h"
#include "fuse_adapter/runtime.h"
#include "io/types.h"

namespace ncfs {

class Backends;
class WarmJobs;

// Whether complete files are handed to the kernel, to be read without the daemon.
enum class PassthroughPolicy : std::uint8_t {
  automatic,  // when the kernel can
  required,   // mount() fails when the kernel cannot
  disabled,
};

// Whether files that are not complete in the cache are read by the kernel from the source itself,
// while the daemon copies them. Needs passthrough.
enum class ColdPassthroughPolicy : std::uint8_t {
  automatic,  // unless the source is on the network: there a hung server is better met with a
              // deadline, and fetching in parallel pays
  enabled,
  disabled,
};

// Where locks of fcntl(2) and flock(2) are taken.
enum class LockPlace : std::uint8_t {
  backend,  // they hold against all users of the backend
  local,    // they hold among the users of this mount
};

struct MountSettings {
  std::string mountpoint;
  std::string source_name = "cachefs";  // first column of /proc/mounts
  int source_root = -1;                 // O_PATH or O_DIRECTORY; opened before mounting; not owned
  // `source_root` stands for nothing yet: its file system is down until source_found().
  bool is_source_absent = false;
  bool allow_other = false;
  unsigned long mount_flags = MS_NOSUID | MS_NODEV;  // MS_* of mount(2)
  [[nodiscard]] bool is_read_only() const { return (mount_flags & MS_RDONLY) != 0; }
  PassthroughPolicy passthrough = PassthroughPolicy::automatic;
  ColdPassthroughPolicy cold_passthrough = ColdPassthroughPolicy::automatic;
  // Cold reads come to the engine, whatever cold_passthrough says: they decide what is cached.
  bool must_see_reads = false;
  LockPlace locks = LockPlace::backend;
  // The kernel's readahead window on this mount.
  std::uint64_t readahead_bytes = 4 * kMiB;
  bool direct_io = true;  // what the daemon reads from cache files leaves no second copy in memory
  // As in Config.
  std::uint64_t block_size_bytes = kMiB;
  Nanos source_deadline = 30 * kSecond;
  // What judges the source's file systems; shared with the Runtime. None: one of its own.
  std::shared_ptr<Backends> backends = {};
  Nanos cache_deadline = 10 * kSecond;
  Nanos racy_window = 2 * kSecond;
  // Files and directories that may be open at once; who opens more gets ENFILE.
  std::size_t open_files_max = SIZE_MAX;
  MetadataConfig metadata;
  StaleOpen stale_open = StaleOpen::estale;
  std::shared_ptr<WarmJobs> warm_jobs = {};  // for warm-ups by attribute; none without
  // Two answer as fast as the kernel asks on small machines; idle ones cost wake-up latency.
  unsigned dispatch_threads = 2;
  // So many more do themselves what may block, as long as they are not all doing so: handing each
  // request to another thread takes longer than most answers of a source that has them in memory.
  // A few are enough for that; what a slow source keeps waiting is handed over.
  unsigned guest_threads = 2;
};

class CacheFs {
 public:
  CacheFs(const MountSettings& settings, Runtime& runtime);
  ~CacheFs();  // unmounts if still mounted, ends all threads, closes all handles
  CacheFs(const CacheFs&) = delete;
  CacheFs& operator=(const CacheFs&) = delete;

  struct MountResult {
    int error = 0;        // errno
    std::string message;  // one line that names what failed
    [[nodiscard]] bool ok() const { return error == 0; }
  };
  // Returns when the mount answers, or leaves nothing mounted.
  [[nodiscard]] MountResult mount();

  // Serves until somebody unmounts or request_stop() is called; then nothing is mounted any more
  // and no request is in flight.
  void run();

  // Async-signal-safe. Makes run() detach the mount and return; files still open see ENOTCONN.
  // Those that the kernel reads without the daemon see it only when they are closed.
  void request_stop();

  [[nodiscard]] bool passthrough_active() const;
  [[nodiscard]] const AdapterStats& stats() const;
  [[nodiscard]] MetadataStatus metadata_status() const;   // after mount()
  [[nodiscard]] std::vector<HotFiles::File> hot_files();  // after mount()
  // As the function of this name; after mount().
  void invalidate(std::vector<std::string> paths,
                  std::function<void(const InvalidationResult&)> done);
  // `source_root` now is the source's root, of these attributes; after mount(), and before it is
  // said to be up. Any thread; waits for nothing.
  void source_found(const struct stat& root, bool is_on_network);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ncfs
