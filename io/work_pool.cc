// Invariants, all under Shared::mutex_:
//   * stuck_ = number of running jobs with is_late_ set;
//   * threads_ <= options.threads + options.replacements;
//   * a job is in queue_ exactly while its state is `queued`;
//   * a job that left `running` is either in returned_ or was already finished.
// Whether a result is delivered or late is decided once, under the lock: the thread that returns
// sets `returned`, the deadline that passes sets is_late_, whichever comes first.
#include "io/work_pool.h"

#include <pthread.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <limits>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "io/assert.h"
#include "io/monotonic_clock.h"

namespace ncfs {

using JobPointer = std::shared_ptr<WorkPool::Job>;

// What the threads and the control thread share. Outlives the pool while a thread left behind
// holds it.
class WorkPool::Shared : public std::enable_shared_from_this<WorkPool::Shared> {
 public:
  Shared(boost::asio::io_context& control, Options options)
      : control_(control), options_(std::move(options)) {}

  void start(std::weak_ptr<Control> owner) {
    const std::lock_guard lock(mutex_);
    owner_ = std::move(owner);
    grow();
    if (threads_ < options_.threads) {
      is_stopping_ = true;
      work_.notify_all();
      throw std::system_error(EAGAIN, std::generic_category(), "cannot start a thread");
    }
  }

  void enqueue(const JobPointer& job) {
    const std::lock_guard lock(mutex_);
    NCFS_ASSERT(job->state_ == Job::State::held);
    if (queue_.size() >= options_.queue_max && job->when_late_ == WhenLate::drop) {
      job->status_ = -EAGAIN;
      give_back(job);
      return;
    }
    job->state_ = Job::State::queued;
    job->queue_position_ = queue_.insert(queue_.end(), job);
    work_.notify_one();
  }

  enum class Expiry : std::uint8_t { already_returned, never_runs, still_used };

  // The job's deadline has passed and it is not completed yet.
  Expiry expire(const JobPointer& job) {
    const std::lock_guard lock(mutex_);
    if (job->state_ == Job::State::returned) return Expiry::already_returned;
    if (job->state_ == Job::State::queued && job->when_late_ == WhenLate::drop) {
      queue_.erase(job->queue_position_);
      job->state_ = Job::State::returned;
      return Expiry::never_runs;
    }
    if (job->state_ == Job::State::running && !job->is_late_) mark_stuck(*job);
    return Expiry::still_used;
  }

  std::vector<JobPointer> take_returned() {
    const std::lock_guard lock(mutex_);
    return std::exchange(returned_, {});
  }

  [[nodiscard]] std::size_t threads() const {
    const std::lock_guard lock(mutex_);
    return threads_;
  }

  void stop() {
    std::list<JobPointer> dropped;
    std::vector<JobPointer> undelivered;
    {
      std::unique_lock lock(mutex_);
      is_stopping_ = true;
      for (auto position = queue_.begin(); position != queue_.end();) {
        const auto next = std::next(position);
        if ((*position)->when_late_ == WhenLate::drop) {
          dropped.splice(dropped.end(), queue_, position);
        }
        position = next;
      }
      work_.notify_all();
      thread_ended_.wait_for(lock, options_.stop_patience, [this] { return threads_ == 0; });
      dropped.splice(dropped.end(), queue_);
      undelivered = std::exchange(returned_, {});
    }
    for (const JobPointer& job : undelivered) {
      if (!job->is_completed_ && job->status_ == 0) job->discard();
    }
  }

 private:
  // The following are called with mutex_ held.

  void grow() {
    const std::size_t limit = options_.threads + options_.replacements;
    while (!is_stopping_ && threads_ - stuck_ < options_.threads && threads_ < limit) {
      try {
        start_thread();
      } catch (const std::system_error&) {
        return;  // no more threads to be had: the pool goes on with those it has
      }
      ++threads_;
    }
  }

  void start_thread() {
    // Signals belong to the control thread; a pool thread's calls are not to be interrupted.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread thread([self = shared_from_this()]() mutable { serve(std::move(self)); });
      pthread_setname_np(thread.native_handle(), options_.name.c_str());
      thread.detach();
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void mark_stuck(Job& job) {
    job.is_late_ = true;
    ++stuck_;
    grow();
  }

  void give_back(JobPointer job);

  static void serve(std::shared_ptr<Shared> self) {
    std::unique_lock lock(self->mutex_);
    while (self->threads_ - self->stuck_ <= self->options_.threads) {
      if (!self->queue_.empty()) {
        self->serve_one(lock);
      } else if (self->is_stopping_) {
        break;
      } else {
        self->work_.wait(lock);
      }
    }
    --self->threads_;
    // A surplus thread may have swallowed the wake-up meant for one that goes on.
    self->work_.notify_one();
    self->thread_ended_.notify_all();
  }

  void serve_one(std::unique_lock<std::mutex>& lock) {
    JobPointer job = std::move(queue_.front());
    queue_.pop_front();
    if (monotonic_now() >= job->deadline_) {
      if (job->when_late_ == WhenLate::drop) {
        job->status_ = -ETIMEDOUT;
        give_back(std::move(job));
        return;
      }
      mark_stuck(*job);
    }
    job->state_ = Job::State::running;
    lock.unlock();
    job->run();
    lock.lock();
    if (job->is_late_ || is_stopping_) {
      lock.unlock();
      job->discard();
      lock.lock();
    }
    if (job->is_late_) --stuck_;
    if (!is_stopping_) {
      give_back(std::move(job));
      return;
    }
    job->state_ = Job::State::returned;
    lock.unlock();
    job.reset();
    lock.lock();
  }

  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable thread_ended_;
  boost::asio::io_context& control_;  // not touched once is_stopping_
  const Options options_;
  std::weak_ptr<Control> owner_;
  std::list<JobPointer> queue_;
  std::vector<JobPointer> returned_;  // waiting for the control thread
  std::size_t threads_ = 0;
  std::size_t stuck_ = 0;
  bool is_stopping_ = false;
};

// The control thread's part: deadlines and deliveries.
class WorkPool::Control : public std::enable_shared_from_this<WorkPool::Control> {
 public:
  Control(boost::asio::io_context& control, Options options)
      : shared_(std::make_shared<Shared>(control, std::move(options))), timer_(control) {}

  void start() { shared_->start(weak_from_this()); }
  void stop() {
    timer_.cancel();
    shared_->stop();
  }

  void admit(const JobPointer& job) {
    job->sequence_ = ++sequence_;
    deadlines_.emplace(key_of(*job), job);
    arm();
  }

  void deliver() {
    for (const JobPointer& job : shared_->take_returned()) {
      if (!job->is_completed_) complete(job, job->status_);
      job->finish();
    }
  }

  [[nodiscard]] Shared& shared() { return *shared_; }

 private:
  using Key = std::pair<Nanos, std::uint64_t>;  // the sequence tells equal deadlines apart
  static Key key_of(const Job& job) { return {job.deadline_, job.sequence_}; }

  void complete(const JobPointer& job, int status) {
    deadlines_.erase(key_of(*job));
    job->is_completed_ = true;
    job->complete(status);
  }

  // Leaves a timer that is set for a job long done as it is: most deadlines are alike, so that
  // setting it anew for every job would be the pool's main work.
  void arm() {
    if (deadlines_.empty()) return;
    const Nanos earliest = deadlines_.begin()->first.first;
    if (earliest >= armed_for_) return;
    armed_for_ = earliest;
    constexpr auto kFarFuture = static_cast<Nanos>(std::numeric_limits<std::int64_t>::max() / 2);
    const std::chrono::nanoseconds when(std::min(earliest, kFarFuture));
    timer_.expires_at(std::chrono::steady_clock::time_point(when));
    timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
      const auto self = weak.lock();
      if (self && !error) self->expire_due();
    });
  }

  void expire_due() {
    armed_for_ = kNotArmed;
    const Nanos now = monotonic_now();
    std::vector<JobPointer> due;
    for (const auto& [key, job] : deadlines_) {
      if (key.first > now) break;
      due.push_back(job);
    }
    for (const JobPointer& job : due) {
      const Shared::Expiry expiry = shared_->expire(job);
      if (expiry == Shared::Expiry::already_returned) {
        deadlines_.erase(key_of(*job));  // deliver() is on its way
        continue;
      }
      complete(job, -ETIMEDOUT);
      if (expiry == Shared::Expiry::never_runs) job->finish();
    }
    arm();
  }

  static constexpr Nanos kNotArmed = std::numeric_limits<Nanos>::max();

  const std::shared_ptr<Shared> shared_;
  boost::asio::steady_timer timer_;
  std::map<Key, JobPointer> deadlines_;  // of all jobs not completed
  Nanos armed_for_ = kNotArmed;
  std::uint64_t sequence_ = 0;
};

void WorkPool::Shared::give_back(JobPointer job) {
  job->state_ = Job::State::returned;
  returned_.push_back(std::move(job));
  // One delivery is under way already if there was something to deliver.
  if (is_stopping_ || returned_.size() > 1) return;
  boost::asio::post(control_, [weak = owner_] {
    if (const auto owner = weak.lock()) owner->deliver();
  });
}

WorkPool::WorkPool(boost::asio::io_context& control, Options options)
    : control_(std::make_shared<Control>(control, std::move(options))) {
  control_->start();
}

WorkPool::~WorkPool() {
  control_->stop();
}

void WorkPool::submit(const JobPointer& job) {
  control_->admit(job);
  control_->shared().enqueue(job);
}

void WorkPool::hold(const JobPointer& job) {
  NCFS_ASSERT(job->when_late_ == WhenLate::run);
  control_->admit(job);
}

void WorkPool::release(const JobPointer& job) {
  control_->shared().enqueue(job);
}

std::size_t WorkPool::threads() const {
  return control_->shared().threads();
}

}  // namespace ncfs
