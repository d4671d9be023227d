// Brings files and whole trees into the cache on request.
//
// With a cache directory the jobs are written down there (warm_store.h) when they begin and end:
// one that a restart of the daemon interrupted is walked again from its beginning, and finds what
// it has copied before already cached.
//
// A job is measured before its first copy, unless it is to be done as far as it goes: one that
// needs more than the cache can hold is refused as a whole.
//
// Each job has a thread of its own that walks the source; copies are made by the engine. Bounds:
// kJobsMax jobs remembered (finished ones make room), kOutstandingMax files handed to the engine
// at a time over all jobs, kFailuresKept errors kept per job. While the source is down a job asks
// it nothing: one that starts is refused, others wait until it is back. All functions may be called
// from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/event.h"
#include "engine/token_bucket.h"
#include "io/io.h"
#include "io/types.h"

namespace ncfs {

// What the jobs work on.
struct WarmTarget {
  int source_root = -1;  // directory descriptor; not owned
  // How much of the cache files at and beneath `paths` may fill together. Empty: any amount.
  std::function<std::uint64_t(const std::vector<std::string>& paths)> capacity = {};
  // What a file takes of it, 0 if the rules of the mount leave it out.
  std::function<std::uint64_t(const std::string& path, std::uint64_t size_bytes)> charge = {};
  // Something for the log. Any thread.
  std::function<void(const std::string& text)> warn = {};
  // As Runtime::warm().
  std::function<void(FileHandle source, const SourceState& state, std::string path,
                     std::function<void(const WarmResult&)> done, bool pin, WarmPace pace)>
      warm;
  // Whether the file system of the source that holds a path is known to be down, and what came of
  // asking it, as an errno. Any thread; must not wait. None: never, and nobody is told.
  std::function<bool(const std::string& path)> is_down = {};
  std::function<void(const std::string& path, int error)> answered = {};
};

// What a job is to do.
struct WarmOrder {
  std::vector<std::string> paths;  // relative to the source's root
  bool pin = false;                // what is found is pinned, too
  bool best_effort = false;        // begin though it will not all fit
  // Read the source no faster than this, 0: as fast as it goes. For files that somebody opens
  // meanwhile it does not hold.
  std::uint64_t bytes_per_second = 0;
  std::string list = {};  // the file of the mount that held the paths, if they came from one
};

struct WarmCount {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
};

struct WarmProgress {
  enum class State : std::uint8_t {
    walking,  // there may be more files than `found`
    copying,  // all are found, some are not in the cache yet
    done,
    cancelled,  // on request, or as the daemon stops; what is in work then may still be copied
    measuring,  // adding up what it needs
    refused,    // it needs more than the cache can hold
  };
  struct Failure {
    std::string path;
    std::string error;
  };

  std::uint64_t id = 0;
  State state = State::walking;
  WarmOrder order;
  std::uint64_t restarts = 0;        // of the daemon since it was started
  std::uint64_t needed_bytes = 0;    // measured; 0 with best_effort
  std::uint64_t capacity_bytes = 0;  // of the cache, when it was refused
  // found = copied + already_cached + skipped + failed + those in work.
  WarmCount found;
  WarmCount copied;
  WarmCount already_cached;
  WarmCount skipped;
  WarmCount failed;
  std::map<std::string, std::uint64_t> skip_reasons;  // number of files for each
  std::vector<Failure> failures;                      // the first of them
  std::vector<std::string> in_work;                   // handed to the engine
  double seconds = 0;

  [[nodiscard]] bool is_finished() const {
    return state == State::done || state == State::cancelled || state == State::refused;
  }
};
[[nodiscard]] const char* to_string(WarmProgress::State state);

class WarmJobs {
 public:
  static constexpr std::size_t kJobsMax = 16;
  // Enough to keep every copier busy with small files; each holds a descriptor.
  static constexpr std::uint32_t kOutstandingMax = 64;
  // Of bytes_per_second.
  static constexpr std::uint64_t kRateMin = TokenBucket::kRateMin;
  static constexpr std::uint64_t kRateMax = TokenBucket::kRateMax;
  static constexpr std::size_t kFailuresKept = 10;
  // A file that was changed while it was copied, perhaps by a chmod, is looked at again; one that
  // is always being changed is not worth a copy.
  static constexpr unsigned kLooksMax = 3;

  // How long a new job waits to be written down; then it begins all the same. As the deadline of a
  // request to the cache disk.
  static constexpr std::chrono::seconds kStorePatience{10};

  // Goes on with what `store_root`, the cache directory, has of jobs; -1: nothing is written down.
  // Not owned.
  explicit WarmJobs(WarmTarget target, int store_root = -1);
  // The target's `source_root`, which stood for nothing so far and was told to be down, now is the
  // source's root. Any thread; waits for nothing.
  void source_found();
  ~WarmJobs();  // stops without patience

  // `error` is empty or, if a path cannot be read, what is wrong; then the job is forgotten.
  using Checked = std::function<void(const WarmProgress& job, const std::string& error)>;
  // Starts a job and returns its number, or nullopt if kJobsMax jobs are running. `checked` is
  // called once on the job's thread, perhaps long after stop().
  std::optional<std::uint64_t> start(WarmOrder order, Checked checked);

  // Hands no further file to the engine, which finishes those it has. False if there is no such
  // job; one that has ended stays as it is.
  bool cancel(std::uint64_t id);

  [[nodiscard]] std::optional<WarmProgress> progress(std::uint64_t id) const;
  [[nodiscard]] std::vector<WarmProgress> all() const;  // oldest first

  // WarmTarget::warm is not called any more once this has returned. A thread that the source keeps
  // waiting longer than `patience` is left behind. Idempotent.
  void stop(std::chrono::nanoseconds patience);

 private:
  struct Job;
  struct Shared;

  void run(std::shared_ptr<Job> job, Checked checked);

  std::shared_ptr<Shared> shared_;
};

}  // namespace ncfs
