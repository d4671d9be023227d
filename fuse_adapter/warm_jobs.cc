// Locks: `gate` is held while the target is called, `mutex` guards the books. The engine's
// answers take only `mutex`: the control thread must never wait for a thread that waits for it.
#include "fuse_adapter/warm_jobs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "fuse_adapter/source_walk.h"
#include "fuse_adapter/warm_store.h"
#include "io/source_identity.h"

namespace ncfs {

using Clock = std::chrono::steady_clock;

namespace {

// Between two looks whether a source that is down is back, which takes seconds to find out.
constexpr std::chrono::seconds kDownPause{1};

}  // namespace

const char* to_string(WarmProgress::State state) {
  switch (state) {
    case WarmProgress::State::walking:
      return "walking";
    case WarmProgress::State::copying:
      return "copying";
    case WarmProgress::State::done:
      return "done";
    case WarmProgress::State::cancelled:
      return "cancelled";
    case WarmProgress::State::measuring:
      return "measuring";
    case WarmProgress::State::refused:
      return "refused";
  }
  return "unknown";
}

struct WarmJobs::Job {
  void begin(const Shared& shared);

  WarmProgress progress;
  std::map<std::string, unsigned>
      overtaken;                   // files that changed while they were copied: how often
  std::vector<std::string> again;  // of these, those to be looked at again
  bool is_interrupted = false;     // by stop(): the next daemon goes on with it
  Clock::time_point started = Clock::now();
};

struct WarmJobs::Shared : std::enable_shared_from_this<WarmJobs::Shared> {
  // A descriptor of its own: a thread left behind may outlive the caller's.
  Shared(WarmTarget warm_target, int store_root)
      : target(std::move(warm_target)),
        root(fcntl(target.source_root, F_DUPFD_CLOEXEC, 0)),
        store(store_root < 0 ? -1 : fcntl(store_root, F_DUPFD_CLOEXEC, 0)) {}
  ~Shared() {
    if (root >= 0) close(root);
    if (store >= 0) close(store);
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  void run(const std::shared_ptr<Job>& job, const Checked& checked);
  void work(const std::shared_ptr<Job>& job);
  [[nodiscard]] bool must_measure(const WarmOrder& order) const {
    return !order.best_effort && target.capacity;
  }
  [[nodiscard]] bool fits(const std::shared_ptr<Job>& job);
  void write_down();  // the thread that does
  void await_written_down();
  void warn(const std::string& text) const {
    if (target.warn) target.warn(text);
  }
  void walk(const std::shared_ptr<Job>& job, const std::vector<std::string>& paths);
  // While the file system of the path is down, every file would fail. False if no further one is
  // wanted.
  [[nodiscard]] bool await_source(const Job& job, const std::string& path);
  void judge(const std::string& path, int error) const {
    if (target.answered) target.answered(path, error);
  }
  void submit(const std::shared_ptr<Job>& job, WalkedFile found);
  void finish(Job& job, const std::string& path, std::uint64_t bytes, const WarmResult& result);
  void note(Job& job, const WalkedFile& found);
  WarmProgress forget(const std::shared_ptr<Job>& job);  // what became of it
  [[nodiscard]] WarmProgress snapshot_of(const std::shared_ptr<Job>& job) const;
  [[nodiscard]] WarmProgress snapshot(const Job& job) const;  // under `mutex`

  // Numbers of jobs begin at 1.
  static WarmPace pace_of(const Job& job) {
    const std::uint64_t rate = job.progress.order.bytes_per_second;
    return rate == 0 ? WarmPace{} : WarmPace{job.progress.id, rate};
  }

  // Under `mutex`: no further file of the job is wanted.
  [[nodiscard]] bool is_over(const Job& job) const {
    return closed || job.progress.state == WarmProgress::State::cancelled;
  }
  static void fail(WarmProgress& progress, const std::string& path, std::string error);
  static void skip(WarmProgress& progress, const std::string& reason);

  const WarmTarget target;
  const int root;
  const int store;

  std::mutex gate;
  bool closed_gate = false;  // guarded by gate

  mutable std::mutex mutex;
  std::condition_variable changed;
  bool closed = false;
  std::uint32_t outstanding = 0;
  std::uint64_t next_id = 1;
  std::deque<std::shared_ptr<Job>> jobs;
  std::uint32_t threads = 0;          // of jobs
  bool is_writing = false;            // the thread that writes down has not ended
  std::uint64_t changes = 0;          // of what is written down
  std::uint64_t changes_written = 0;  // or not to be had
};

void WarmJobs::Job::begin(const Shared& shared) {
  if (shared.must_measure(progress.order)) progress.state = WarmProgress::State::measuring;
}

void WarmJobs::Shared::fail(WarmProgress& progress, const std::string& path, std::string error) {
  ++progress.failed.files;
  if (progress.failures.size() < kFailuresKept) {
    progress.failures.push_back({path, std::move(error)});
  }
}

void WarmJobs::Shared::skip(WarmProgress& progress, const std::string& reason) {
  ++progress.skipped.files;
  ++progress.skip_reasons[reason];
}

// The engine's answer for one file. Control thread.
void WarmJobs::Shared::finish(Job& job, const std::string& path, std::uint64_t bytes,
                              const WarmResult& result) {
  const std::lock_guard lock(mutex);
  WarmProgress& progress = job.progress;
  const auto add = [bytes](WarmCount& count) {
    ++count.files;
    count.bytes += bytes;
  };
  switch (result.kind) {
    case WarmResult::Kind::copied:
      add(progress.copied);
      break;
    case WarmResult::Kind::already_cached:
      add(progress.already_cached);
      break;
    case WarmResult::Kind::skipped:
      skip(progress, to_string(result.reason));
      progress.skipped.bytes += bytes;
      break;
    case WarmResult::Kind::failed:
      if (result.error == ESTALE && ++job.overtaken[path] < kLooksMax) {
        --progress.found.files;
        progress.found.bytes -= bytes;
        job.again.push_back(path);
        break;
      }
      fail(progress, path,
           result.error == 0 ? to_string(result.reason) : std::strerror(result.error));
      progress.failed.bytes += bytes;
      break;
  }
  auto& in_work = progress.in_work;
  const auto place = std::find(in_work.begin(), in_work.end(), path);
  if (place != in_work.end()) in_work.erase(place);
  --outstanding;
  changed.notify_all();
}

// What the walk found that no engine has to look at.
void WarmJobs::Shared::note(Job& job, const WalkedFile& found) {
  if (found.kind == WalkedFile::Kind::failed) judge(found.path, found.error);
  const std::lock_guard lock(mutex);
  ++job.progress.found.files;
  if (found.kind == WalkedFile::Kind::failed) {
    fail(job.progress, found.path, std::strerror(found.error));
  } else {
    skip(job.progress, found.detail);
  }
}

void WarmJobs::Shared::submit(const std::shared_ptr<Job>& job, WalkedFile found) {
  const SourceLook look = look_at_source(found.descriptor, Freshness::as_opened);
  if (look.error != 0) {
    close(found.descriptor);
    found.kind = WalkedFile::Kind::failed;
    found.error = look.error;
    note(*job, found);
    return;
  }
  const SourceState& state = look.state;
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return is_over(*job) || outstanding < kOutstandingMax; });
    if (is_over(*job)) {
      close(found.descriptor);
      return;
    }
    ++outstanding;
    ++job->progress.found.files;
    job->progress.found.bytes += state.version.size;
    job->progress.in_work.push_back(found.path);
  }
  const std::lock_guard lock(gate);
  if (closed_gate) {
    close(found.descriptor);
    return;
  }
  target.warm(
      static_cast<FileHandle>(found.descriptor), state, found.path,
      [self = shared_from_this(), job, path = found.path, bytes = state.version.size](
          const WarmResult& result) { self->finish(*job, path, bytes, result); },
      job->progress.order.pin, pace_of(*job));
}

void WarmJobs::Shared::walk(const std::shared_ptr<Job>& job,
                            const std::vector<std::string>& paths) {
  SourceWalk source_walk(root, paths);
  std::string place = paths.empty() ? "" : paths.front();  // near to what is asked for next
  while (await_source(*job, place)) {
    auto found = source_walk.next();
    if (!found) return;
    place = found->path;
    if (found->kind == WalkedFile::Kind::file) {
      submit(job, std::move(*found));
    } else {
      note(*job, *found);
    }
  }
}

// The thread that writes down. What the disk takes long for holds up nobody but new jobs, and those
// not for ever.
void WarmJobs::Shared::write_down() {
  int last_error = 0;
  std::unique_lock lock(mutex);
  while (true) {
    changed.wait(lock, [this] { return closed || changes != changes_written; });
    if (changes == changes_written) break;
    const std::uint64_t written = changes;
    std::vector<WarmProgress> snapshots;
    for (const auto& job : jobs) {
      snapshots.push_back(snapshot(*job));
      if (job->is_interrupted) snapshots.back().state = WarmProgress::State::walking;
    }
    lock.unlock();
    const int error = store_warm_jobs(store, snapshots);
    if (error != 0 && error != last_error) {
      warn(fmt::format("warm-ups cannot be written down and will not survive a restart: {}",
                       std::strerror(error)));
    }
    last_error = error;
    lock.lock();
    changes_written = written;
    changed.notify_all();
  }
  is_writing = false;
  changed.notify_all();
}

void WarmJobs::Shared::await_written_down() {
  std::unique_lock lock(mutex);
  const std::uint64_t mine = changes;
  changed.wait_for(lock, kStorePatience,
                   [&] { return !is_writing || closed || changes_written >= mine; });
}

bool WarmJobs::Shared::await_source(const Job& job, const std::string& path) {
  std::unique_lock lock(mutex);
  while (!is_over(job) && target.is_down && target.is_down(path))
    changed.wait_for(lock, kDownPause);
  return !is_over(job);
}

// The thread of one job.
void WarmJobs::Shared::run(const std::shared_ptr<Job>& job, const Checked& checked) {
  const bool is_new = job->progress.restarts == 0;
  for (const std::string& path : job->progress.order.paths) {
    // What has gone meanwhile is a failure among others.
    if (!is_new) break;
    const bool is_down = target.is_down && target.is_down(path);
    const int error = is_down ? ETIMEDOUT : SourceWalk::check(root, path);
    if (!is_down) judge(path, error);
    if (error != 0) {
      const WarmProgress last = forget(job);
      checked(last, fmt::format("{}: {}", path.empty() ? "." : path, std::strerror(error)));
      return;
    }
  }
  await_written_down();
  checked(snapshot_of(job), "");
  work(job);
  const std::lock_guard lock(mutex);
  if (closed && job->progress.state != WarmProgress::State::done) return;
  ++changes;
  changed.notify_all();
}

// Whether the cache can hold what the job asks for; if not, it is refused.
bool WarmJobs::Shared::fits(const std::shared_ptr<Job>& job) {
  if (!must_measure(job->progress.order)) return true;
  SourceWalk source_walk(root, job->progress.order.paths, SourceWalk::Files::looked_at);
  while (const auto found = source_walk.next()) {
    const std::lock_guard lock(mutex);
    if (is_over(*job)) return false;
    if (found->kind != WalkedFile::Kind::file) continue;
    job->progress.needed_bytes += 
        target.charge(found->path, static_cast<std::uint64_t>(found->status.st_size));
  }
  const std::lock_guard gate_lock(gate);
  if (closed_gate) return true;  // it ends at its first file
  const std::uint64_t capacity = target.capacity(job->progress.order.paths);
  const std::lock_guard lock(mutex);
  if (is_over(*job)) return false;
  job->progress.state = WarmProgress::State::walking;
  if (job->progress.needed_bytes <= capacity) return true;
  job->progress.state = WarmProgress::State::refused;
  job->progress.capacity_bytes = capacity;
  job->progress.seconds = std::chrono::duration<double>(Clock::now() - job->started).count();
  return false;
}

void WarmJobs::Shared::work(const std::shared_ptr<Job>& job) {
  const auto& wanted = job->progress.order.paths;
  if (await_source(*job, wanted.empty() ? "" : wanted.front()) && fits(job)) walk(job, wanted);
  std::unique_lock lock(mutex);
  if (job->progress.is_finished()) return;
  job->progress.state = WarmProgress::State::copying;
  while (true) {
    changed.wait(lock, [&] {
      return is_over(*job) || job->progress.in_work.empty() || !job->again.empty();
    });
    if (is_over(*job) || job->again.empty()) break;
    const auto paths = std::exchange(job->again, {});
    lock.unlock();
    walk(job, paths);
    lock.lock();
  }
  if (job->progress.state == WarmProgress::State::cancelled) return;
  job->is_interrupted = closed;
  job->progress.state = closed ? WarmProgress::State::cancelled : WarmProgress::State::done;
  job->progress.seconds = std::chrono::duration<double>(Clock::now() - job->started).count();
}

WarmProgress WarmJobs::Shared::forget(const std::shared_ptr<Job>& job) {
  const std::lock_guard lock(mutex);
  std::erase(jobs, job);
  ++changes;
  changed.notify_all();
  return snapshot(*job);
}

WarmProgress WarmJobs::Shared::snapshot_of(const std::shared_ptr<Job>& job) const {
  const std::lock_guard lock(mutex);
  return snapshot(*job);
}

WarmProgress WarmJobs::Shared::snapshot(const Job& job) const {
  WarmProgress progress = job.progress;
  if (!progress.is_finished()) {
    progress.seconds = std::chrono::duration<double>(Clock::now() - job.started).count();
  }
  return progress;
}

void WarmJobs::source_found() {
  dup3(shared_->target.source_root, shared_->root, O_CLOEXEC);
}

WarmJobs::WarmJobs(WarmTarget target, int store_root)
    : shared_(std::make_shared<Shared>(std::move(target), store_root)) {
  if (store_root < 0) return;
  std::vector<WarmProgress> stored;
  if (const int error = load_warm_jobs(store_root, stored); error != 0) {
    shared_->warn(fmt::format("the warm-ups of the last run cannot be read and are forgotten: {}",
                              std::strerror(error)));
  }
  shared_->is_writing = true;
  std::thread([shared = shared_] { shared->write_down(); }).detach();
  const std::lock_guard lock(shared_->mutex);
  for (WarmProgress& progress : stored) {
    auto job = std::make_shared<Job>();
    shared_->next_id = progress.id + 1;
    if (!progress.is_finished()) {
      job->progress.id = progress.id;
      job->progress.order = std::move(progress.order);
      job->progress.restarts = progress.restarts + 1;
      job->begin(*shared_);
      ++shared_->changes;
      ++shared_->threads;
      run(job, [](const WarmProgress&, const std::string&) {});
    } else {
      job->progress = std::move(progress);
    }
    shared_->jobs.push_back(std::move(job));
  }
  shared_->changed.notify_all();
}

WarmJobs::~WarmJobs() {
  stop(std::chrono::nanoseconds(0));
}

std::optional<std::uint64_t> WarmJobs::start(WarmOrder order, Checked checked) {
  auto job = std::make_shared<Job>();
  job->progress.order = std::move(order);
  job->begin(*shared_);
  {
    const std::lock_guard lock(shared_->mutex);
    auto& jobs = shared_->jobs;
    if (shared_->closed || shared_->threads == kJobsMax) return std::nullopt;
    if (jobs.size() == kJobsMax) {
      const auto oldest = std::find_if(jobs.begin(), jobs.end(), [](const auto& other) {
        return other->progress.is_finished();
      });
      if (oldest == jobs.end()) return std::nullopt;
      jobs.erase(oldest);
    }
    job->progress.id = shared_->next_id++;
    jobs.push_back(job);
    ++shared_->threads;
    ++shared_->changes;
    shared_->changed.notify_all();
  }
  run(job, std::move(checked));
  return job->progress.id;
}

// On a thread of its own, which is counted.
void WarmJobs::run(std::shared_ptr<Job> job, Checked checked) {
  // Detached, as a hung source may keep it for ever; stop() waits for `threads` to become 0.
  std::thread([shared = shared_, job = std::move(job), checked = std::move(checked)]() mutable {
    shared->run(job, checked);
    checked = nullptr;
    job = nullptr;
    const std::lock_guard lock(shared->mutex);
    --shared->threads;
    shared->changed.notify_all();
  }).detach();
}

bool WarmJobs::cancel(std::uint64_t id) {
  const std::lock_guard lock(shared_->mutex);
  for (const auto& job : shared_->jobs) {
    if (job->progress.id != id) continue;
    if (!job->progress.is_finished()) {
      job->progress.seconds = shared_->snapshot(*job).seconds;
      job->progress.state = WarmProgress::State::cancelled;
      ++shared_->changes;
      shared_->changed.notify_all();
    }
    return true;
  }
  return false;
}

std::optional<WarmProgress> WarmJobs::progress(std::uint64_t id) const {
  const std::lock_guard lock(shared_->mutex);
  for (const auto& job : shared_->jobs) {
    if (job->progress.id == id) return shared_->snapshot(*job);
  }
  return std::nullopt;
}

std::vector<WarmProgress> WarmJobs::all() const {
  const std::lock_guard lock(shared_->mutex);
  std::vector<WarmProgress> result;
  for (const auto& job : shared_->jobs) result.push_back(shared_->snapshot(*job));
  return result;
}

void WarmJobs::stop(std::chrono::nanoseconds patience) {
  {
    const std::lock_guard lock(shared_->gate);
    shared_->closed_gate = true;
  }
  std::unique_lock lock(shared_->mutex);
  shared_->closed = true;
  shared_->changed.notify_all();
  shared_->changed.wait_for(lock, patience,
                            [this] { return shared_->threads == 0 && !shared_->is_writing; });
}

}  // namespace ncfs
