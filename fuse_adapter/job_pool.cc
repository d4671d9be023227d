// Invariant, under the lock: a job is in queue_, or in the slot of the thread that runs it, or
// nowhere. The watch thread looks at both once in a while instead of keeping a timer for every job:
// nearly all jobs end in microseconds, and a deadline that is met a little late harms nobody.
#include "fuse_adapter/job_pool.h"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "io/monotonic_clock.h"

namespace ncfs {

class JobPool::Shared : public std::enable_shared_from_this<JobPool::Shared> {
 public:
  explicit Shared(Options options)
      : options_(std::move(options)), slots_(options_.threads), guests_(options_.guests) {}

  void start() {
    // Signals belong to other threads; calls made here are not to be interrupted.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (std::size_t index = 0; index < options_.threads; ++index) {
        start_thread([this, index] { serve(slots_[index]); });
      }
      start_thread([this] { watch(); });
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      stop(std::chrono::seconds(1));
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  bool submit(Job job) {
    {
      const std::lock_guard lock(mutex_);
      if (is_stopping_ || queue_.size() >= options_.queue_max) return false;
      queue_.push_back({std::move(job), monotonic_now() + options_.deadline});
    }
    work_.notify_one();
    return true;
  }

  bool run_here(Job& job) {
    std::unique_lock lock(mutex_);
    const auto slot = std::ranges::find(guests_, false, &Slot::is_running);
    if (is_stopping_ || slot == guests_.end()) return false;
    *slot = {true, monotonic_now() + options_.deadline, std::move(job.expire)};
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
    std::deque<Entry> dropped;
    std::unique_lock lock(mutex_);
    is_stopping_ = true;
    dropped.swap(queue_);
    work_.notify_all();
    watch_.notify_all();
    ended_.wait_for(lock, patience, [this] { return live_threads_ == 0; });
    lock.unlock();  // the jobs' owners may call back when they are destroyed
  }

 private:
  struct Entry {
    Job job;
    Nanos deadline = 0;
  };
  struct Slot {
    bool is_running = false;
    Nanos deadline = 0;
    std::function<void()> expire;
  };

  template <typename Body>
  void start_thread(Body body) {
    std::thread thread([self = shared_from_this(), body = std::move(body)] {
      body();
      const std::lock_guard lock(self->mutex_);
      --self->live_threads_;
      self->ended_.notify_all();
    });
    {
      const std::lock_guard lock(mutex_);
      ++live_threads_;
    }
    pthread_setname_np(thread.native_handle(), options_.name.c_str());
    thread.detach();
  }

  void serve(Slot& slot) {
    std::unique_lock lock(mutex_);
    while (true) {
      work_.wait(lock, [this] { return is_stopping_ || !queue_.empty(); });
      if (is_stopping_) return;
      Entry entry = std::move(queue_.front());
      queue_.pop_front();
      slot = {true, entry.deadline, std::move(entry.job.expire)};
      lock.unlock();
      entry.job.run();
      lock.lock();
      slot.is_running = false;
      entry.job.expire = std::exchange(slot.expire, nullptr);
      lock.unlock();
      entry.job = {};  // without the lock: what the functions hold may have things to do at its end
      lock.lock();
    }
  }

  void watch() {
    const std::chrono::nanoseconds pause(
        std::clamp(options_.deadline / 8, 10 * kMillisecond, kSecond));
    std::unique_lock lock(mutex_);
    while (!is_stopping_) {
      watch_.wait_for(lock, pause);
      std::vector<Job> late;
      const Nanos now = monotonic_now();
      while (!queue_.empty() && queue_.front().deadline <= now) {
        late.push_back(std::move(queue_.front().job));
        queue_.pop_front();
      }
      for (auto* const slots : {&slots_, &guests_}) {
        for (Slot& slot : *slots) {
          const bool is_late = slot.is_running && slot.expire && slot.deadline <= now;
          if (is_late) late.push_back({.run = {}, .expire = std::exchange(slot.expire, nullptr)});
        }
      }
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
  std::deque<Entry> queue_;
  std::vector<Slot> slots_;
  std::vector<Slot> guests_;
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
