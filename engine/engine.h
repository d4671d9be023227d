// The cache as a pure state machine: events and completions go in, requests and answers come out.
//
// No threads, clocks, system calls or randomness; time is the `now` argument, which never goes
// back. One control thread owns an Engine. Everything a reader needs without asking is in the
// Residency it was given at open.
//
// What it guarantees, whatever the drivers do (names as in ARCHITECTURE.md):
//   * a read is answered from its own bytes and waits for no copy, eviction or write (NeverWait);
//   * at most one whole-block fetch per block is in flight, shared by all who want it (OneFetch);
//   * used + reserved space never exceeds the limit (Space);
//   * an object under its final name holds exactly one version of its source (CommitTruth).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/ahead.h"
#include "engine/config.h"
#include "engine/event.h"
#include "engine/health.h"
#include "engine/yield.h"
#include "io/io.h"

namespace ncfs {

struct CopyStatus {
  std::string path;
  std::uint64_t size_bytes = 0;
  std::uint64_t done_bytes = 0;
  Nanos started_at = 0;
  std::uint64_t bytes_at_start = 0;  // already there when this copy started or resumed
};

struct CacheHealthStatus {
  HealthState state{};
  std::string reason;  // empty until the first change
  int last_error = 0;  // errno of the last fault of the disk, or 0
  Nanos since = 0;
  std::uint64_t changes = 0;  // counts up
  Nanos next_probe_at = 0;    // unless normal
};

// How copies yield to readers of one of the source's file systems: see YieldWindow.
struct YieldStatus {
  std::uint64_t filesystem = 0;
  std::uint64_t window_bytes = 0;      // YieldWindow::kUnlimited: no limit
  std::uint64_t copies_in_flight = 0;  // bytes
  Nanos latency_alone = 0;             // of readers, without copies; 0: not known
  Nanos latency_beside = 0;            // beside copies
};

struct VerifyStatus {
  VerifyToken token{};
  VerifyResult result;  // so far
};

struct EngineStatus {
  bool is_recovering = false;
  Eviction eviction = Eviction::lru;
  std::uint64_t limit_bytes = 0;
  std::uint64_t used_bytes = 0;      // on disk and complete, or left by an interrupted copy
  std::uint64_t reserved_bytes = 0;  // promised to files being filled
  // Of used_bytes, what a crash left and nothing could remove: charged until the next start.
  std::uint64_t debris_bytes = 0;
  std::uint64_t objects_cached = 0;
  std::uint64_t objects_partial = 0;
  std::uint64_t handles_open = 0;
  std::uint64_t copies_queued = 0;
  std::uint64_t copy_bytes_per_second = 0;  // the ceiling; 0: none
  std::vector<CopyStatus> copies;   // in progress; at most copies_max
  std::vector<YieldStatus> yields;  // of file systems that were read or copied from just now
  std::uint64_t leaving_bytes = 0;  // of used and reserved: on the way out
  std::uint64_t pinned_files = 0;
  std::uint64_t pinned_bytes = 0;     // what they occupy, or will
  std::uint64_t disk_free_bytes = 0;  // of the cache's file system; 0 until it was asked
  std::uint64_t min_free_bytes = 0;   // what the cache leaves free of it
  CacheHealthStatus cache_health;
  // Copies pause, but for one try at a time.
  bool is_disk_full = false;       // the cache disk is full below the limit
  bool is_source_resting = false;  // copies of several files failed in a row
  int source_error = 0;            // with this errno of the source
  Nanos next_copy_try_at = 0;      // if one of the two

  // Counters since start.
  std::uint64_t opens_hit = 0;  // OpenReason::cached
  std::uint64_t opens_miss = 0;
  std::uint64_t reads_missing = 0;        // ReadEvents
  std::uint64_t source_bytes = 0;         // read from the source, for whatever reason
  std::uint64_t source_bytes_demand = 0;  // of these, because a reader was waiting
  AheadBooks ahead{};                     // of these, before anybody asked; by AheadReason
  std::uint64_t source_bytes_copies = 0;  // asked for by copies, with or without success
  std::uint64_t source_errors = 0;
  std::uint64_t cache_bytes_written = 0;
  std::uint64_t cache_errors = 0;
  std::uint64_t copies_finished = 0;
  std::uint64_t copies_failed = 0;
  std::uint64_t evictions = 0;
  std::uint64_t evicted_bytes = 0;
  std::uint32_t buffers_in_use = 0;
  std::uint64_t verified_bytes = 0;         // match their checksums; for whatever reason compared
  std::uint64_t damaged_blocks = 0;         // did not, or could not be read
  std::uint64_t damaged_objects = 0;        // removed for it
  std::uint64_t objects_verifying = 0;      // compared now or soon, by the scrub or on request
  std::vector<VerifyStatus> verifications;  // asked for by VerifyEvents and not done yet
};

// What the engine knows of one version of one file.
struct FileReport {
  enum class State : std::uint8_t {
    absent,    // nothing is stored and no copy is planned
    waiting,   // a copy is planned
    copying,   // being copied, or published
    partial,   // some blocks are stored; it is copied on when it is opened or warmed
    complete,  // stored
    leaving,   // being removed
  };
  std::uint64_t id = 0;  // grows in the order in which files became known; never reused
  std::string path;      // last known
  State state{};
  // Why it is not complete, as far as the engine knows.
  std::optional<OpenReason> reason;
  SourceVersion version;
  std::uint64_t cached_bytes = 0;  // of version.size
  bool is_pinned = false;
  bool is_open = false;
  Nanos idle = 0;      // since it was last opened, warmed or closed
  Nanos next_try = 0;  // until a planned copy may start; 0: as soon as it is its turn
  int last_error = 0;  // errno of the last failed copy, or 0
  bool has_checksums = false;
  FileId file{};
};
[[nodiscard]] const char* to_string(FileReport::State state);

struct FileQuery {
  std::vector<std::string> paths;  // as in EvictEvent
  std::uint64_t after = 0;         // files with larger ids only
  std::size_t max = 0;             // at most so many
  std::optional<FileId> file = {};  // only versions of this one, found without a search
};

class Core;  // engine/core.h: the inside

class Engine {
 public:
  // `io` and `host` outlive the engine. Nothing is submitted before start().
  Engine(const Config& config, Io& io, Host& host);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Begins to recover what the cache directory holds. Events are welcome at once.
  void start(Nanos now);
  void handle(Nanos now, Event event);
  void complete(Nanos now, Completion completion);

  [[nodiscard]] EngineStatus status() const;
  // When a WakeEvent is due, so that copies keep to their ceilings without pausing longer than
  // they must. Nullopt: not before something else happens.
  [[nodiscard]] std::optional<Nanos> wake_at() const;
  // Ordered by id.
  [[nodiscard]] std::vector<FileReport> files(const FileQuery& query) const;

  // Aborts, naming the invariant, if the engine's own books are wrong. O(state): for tests.
  void check_invariants() const;

 private:
  std::unique_ptr<Core> core_;
};

}  // namespace ncfs
