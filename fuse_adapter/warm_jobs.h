// Brings files and whole trees into the cache on request.
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
#include "io/io.h"
#include "io/types.h"

namespace ncfs {

// What the jobs work on.
struct WarmTarget {
  int source_root = -1;  // directory descriptor; not owned
  // As Runtime::warm().
  std::function<void(FileHandle source, const SourceState& state, std::string path,
                     std::function<void(const WarmResult&)> done, bool pin)>
      warm;
  // Whether the file system of the source that holds a path is known to be down, and what came of
  // asking it, as an errno. Any thread; must not wait. None: never, and nobody is told.
  std::function<bool(const std::string& path)> is_down = {};
  std::function<void(const std::string& path, int error)> answered = {};
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
  };
  struct Failure {
    std::string path;
    std::string error;
  };

  std::uint64_t id = 0;
  State state = State::walking;
  std::vector<std::string> paths;  // relative to the source's root
  bool pin = false;                // what is found is pinned, too
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
    return state == State::done || state == State::cancelled;
  }
};
[[nodiscard]] const char* to_string(WarmProgress::State state);

class WarmJobs {
 public:
  static constexpr std::size_t kJobsMax = 16;
  // Enough to keep every copier busy with small files; each holds a descriptor.
  static constexpr std::uint32_t kOutstandingMax = 64;
  static constexpr std::size_t kFailuresKept = 10;
  // A file that was changed while it was copied, perhaps by a chmod, is looked at again; one that
  // is always being changed is not worth a copy.
  static constexpr unsigned kLooksMax = 3;

  explicit WarmJobs(WarmTarget target);
  ~WarmJobs();  // stops without patience

  // `error` is empty or, if a path cannot be read, what is wrong; then the job is forgotten.
  using Checked = std::function<void(const WarmProgress& job, const std::string& error)>;
  // Starts a job and returns its number, or nullopt if kJobsMax jobs are running. `checked` is
  // called once on the job's thread, perhaps long after stop().
  std::optional<std::uint64_t> start(std::vector<std::string> paths, Checked checked,
                                     bool pin = false);

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

  std::shared_ptr<Shared> shared_;
};

}  // namespace ncfs
