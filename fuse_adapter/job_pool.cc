// Invariants, under the lock:
//   * a job is in the queue of its lane, or in the slot of the thread that runs it, or nowhere;
//   * a lane is in lanes_ while it holds a thread or has a queue;
//   * when a job could start, a thread is awake or being made, unless there are no more to be had.
// The watch thread looks at all jobs once in a while instead of keeping a timer for every job:
// nearly all jobs end in microseconds, and a deadline that is met a little late harms nobody.
#include "fuse_adapter/job_pool.h"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "io/assert.h"
#include "io/monotonic_clock.h"

namespace ncfs {

class JobPool::Shared : public std::enable_shared_from_this<JobPool::Shared> {
 public:
  explicit Shared(Options options)
      : options_(complete(std::move(options))),
        slots_(options_.threads_max),
        guests_(options_.guests) {
    NCFS_ASSERT(options_.threads_max >= 2 * options_.threads);
  }

  void start() {
    try {
      const std::lock_guard lock(mutex_);
      start_thread([this] { watch(); });
      start_server();
    } catch (...) {
      stop(std::chrono::seconds(1));
      throw;
    }
  }

  bool submit(Job job) {
    const std::lock_guard lock(mutex_);
    if (is_stopping_) return false;
    const auto found = lanes_.find(job.lane);
    const std::size_t queued = found == lanes_.end() ? 0 : found->second.queue.size();
    if (queued >= options_.queue_max - queued_) return false;
    const Nanos deadline = deadline_of(job);
    lanes_[job.lane].queue.push_back({std::move(job), deadline, ++last_number_});
    ++queued_;
    provide_thread();
    return true;
  }

  bool run_here(Job& job) {
    std::unique_lock lock(mutex_);
    const auto slot = std::ranges::find(guests_, false, &Slot::is_running);
    if (is_stopping_ || slot == guests_.end()) return false;
    *slot = {true, deadline_of(job), std::move(job.expire)};
    lock.unlock();
    job.run();
    lock.lock();
    slot->is_running = false;
    job.expire = std::exchange(slot->expire, nullptr);
    lock.unlock();
    job = {};
    return true;
  }

  void stop(std::chrono::nanoseconds patience) {
    Lanes dropped;
    std::unique_lock lock(mutex_);
    is_stopping_ = true;
    dropped.swap(lanes_);
    queued_ = 0;
    work_.notify_all();
    watch_.notify_all();
    ended_.wait_for(lock, patience, [this] { return live_threads_ == 0; });
    lock.unlock();  // the jobs' owners may call back when they are destroyed
  }

 private:
  struct Entry {
    Job job;
    Nanos deadline = 0;
    std::uint64_t number = 0;  // in order of arrival
  };
  struct LaneState {
    std::size_t held = 0;  // threads
    std::deque<Entry> queue;
  };
  using Lanes = std::map<Lane, LaneState>;
  struct Slot {
    bool is_running = false;
    Nanos deadline = 0;
    std::function<void()> expire;
  };

  static Options complete(Options options) {
    if (options.threads_max == 0) options.threads_max = 2 * options.threads;
    return options;
  }

  [[nodiscard]] Nanos deadline_of(const Job& job) const {
    return monotonic_now() + (job.patience != 0 ? job.patience : options_.deadline);
  }

  // All that follow but serve() and watch() are called with the lock.

  template <typename Body>
  void start_thread(Body body) {
    // Signals belong to other threads; calls made here are not to be interrupted.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread thread([self = shared_from_this(), body = std::move(body)] {
        body();
        const std::lock_guard lock(self->mutex_);
        --self->live_threads_;
        self->ended_.notify_all();
      });
      pthread_setname_np(thread.native_handle(), options_.name.c_str());
      thread.detach();
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    ++live_threads_;
  }

  void start_server() {
    start_thread([this, index = servers_] { serve(slots_[index]); });
    ++servers_;
  }

  [[nodiscard]] bool may_start(const LaneState& lane) const {
    return !lane.queue.empty() && lane.held < options_.threads &&
           lane.held < options_.threads_max - held_;
  }

  // The lane whose next job came first of those that may start; the end if there is none.
  [[nodiscard]] Lanes::iterator next_lane() {
    auto next = lanes_.end();
    for (auto lane = lanes_.begin(); lane != lanes_.end(); ++lane) {
      if (!may_start(lane->second)) continue;
      const bool is_first = next == lanes_.end() ||
                            lane->second.queue.front().number < next->second.queue.front().number;
      if (is_first) next = lane;
    }
    return next;
  }

  void provide_thread() {
    if (next_lane() == lanes_.end()) return;
    if (idle_ > 0) {
      work_.notify_one();
    } else if (servers_ < options_.threads_max) {
      try {
        start_server();
      } catch (const std::system_error&) {  // those there are go on
      }
    }
  }

  void drop_if_unused(Lanes::iterator lane) {
    if (lane->second.held == 0 && lane->second.queue.empty()) lanes_.erase(lane);
  }

  void serve(Slot& slot) {
    std::unique_lock lock(mutex_);
    while (true) {
      ++idle_;
      work_.wait(lock, [this] { return is_stopping_ || next_lane() != lanes_.end(); });
      --idle_;
      if (is_stopping_) return;
      const auto lane = next_lane();
      Entry entry = std::move(lane->second.queue.front());
      lane->second.queue.pop_front();
      --queued_;
      ++lane->second.held;
      ++held_;
      slot = {true, entry.deadline, std::move(entry.job.expire)};
      provide_thread();
      lock.unlock();
      entry.job.run();
      lock.lock();
      slot.is_running = false;
      --held_;
      if (const auto own = lanes_.find(entry.job.lane); own != lanes_.end()) {
        --own->second.held;
        drop_if_unused(own);
      }
      entry.job.expire = std::exchange(slot.expire, nullptr);
      provide_thread();
      lock.unlock();
      entry.job = {};  // without the lock: what the functions hold may have things to do at its end
      lock.lock();
    }
  }

  void take_late(Nanos now, std::vector<Job>& late) {
    for (auto lane = lanes_.begin(); lane != lanes_.end();) {
      queued_ -= std::erase_if(lane->second.queue, [&](Entry& entry) {
        if (entry.deadline > now) return false;
        late.push_back(std::move(entry.job));
        return true;
      });
      drop_if_unused(lane++);
    }
    for (auto* const slots : {&slots_, &guests_}) {
      for (Slot& slot : *slots) {
        const bool is_late = slot.is_running && slot.expire && slot.deadline <= now;
        if (!is_late) continue;
        late.push_back(
            {.run = {}, .expire = std::exchange(slot.expire, nullptr), .lane = 0, .patience = 0});
      }
    }
  }

  void watch() {
    const std::chrono::nanoseconds pause(
        std::clamp(options_.deadline / 8, 10 * kMillisecond, kSecond));
    std::unique_lock lock(mutex_);
    while (!is_stopping_) {
      watch_.wait_for(lock, pause);
      std::vector<Job> late;
      take_late(monotonic_now(), late);
      lock.unlock();
      for (const Job& job : late) job.expire();
      late.clear();
      lock.lock();
    }
  }

  const Options options_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable watch_;
  std::condition_variable ended_;
  Lanes lanes_;
  std::uint64_t last_number_ = 0;
  std::size_t queued_ = 0;  // jobs, over all lanes
  std::size_t held_ = 0;    // threads, over all lanes
  std::vector<Slot> slots_;
  std::vector<Slot> guests_;
  std::size_t servers_ = 0;  // threads that serve, each with a slot
  std::size_t idle_ = 0;     // of these
  std::size_t live_threads_ = 0;
  bool is_stopping_ = false;
};

JobPool::JobPool(Options options) : shared_(std::make_shared<Shared>(std::move(options))) {
  shared_->start();
}

JobPool::~JobPool() {
  stop(std::chrono::nanoseconds(0));
}

bool JobPool::submit(Job job) {
  return shared_->submit(std::move(job));
}

bool JobPool::run_here(Job& job) {
  const auto shared = shared_;
  return shared->run_here(job);
}

void JobPool::stop(std::chrono::nanoseconds patience) {
  shared_->stop(patience);
}

}  // namespace ncfs
