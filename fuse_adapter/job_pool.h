// A bounded pool of threads for calls that may block, and may block for ever, on behalf of threads
// that must not. (io/work_pool.h does the same for the engine's control thread.)
//
// Laws:
//   * expire() is called at most once, on the pool's watch thread: when the deadline has passed and
//     run() has not returned. run() is not started after that, but one that had started goes on,
//     so whoever has something to answer must decide between the two, once.
//   * Jobs belong to lanes: one for each device they may wait for. A lane gets another thread, or
//     another place in the queue, only while it holds fewer of them than are free, so lanes that
//     hang leave room for those that do not, however many jobs they are given: the first takes at
//     most a half, the next at most half of the rest. (Choudhury and Hahne, "Dynamic queue length
//     thresholds for shared-memory packet switches", 1998, with alpha = 1.)
//   * submit() refuses when there is no place in the queue; the job is then never heard of.
//   * run_here() runs a job on the calling thread instead, with the same deadline.
//   * stop() forgets the jobs that were not started; their functions are destroyed uncalled.
//
// Any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "io/types.h"

namespace ncfs {

class JobPool {
 public:
  struct Options {
    std::string name;  // of the threads, at most 15 characters
    std::size_t threads = 1;      // that one lane may hold
    std::size_t threads_max = 0;  // in all, made when needed; at least twice as many, as 0 means
    std::size_t queue_max = 1;    // jobs accepted and not yet started; one lane has half of them
    std::size_t guests = 0;       // threads of others in run_here(), whatever their lanes
    Nanos deadline = kSecond;     // of jobs, from submit()
  };
  using Lane = std::uint64_t;
  struct Job {
    std::function<void()> run;
    std::function<void()> expire;
    Lane lane = 0;
    Nanos patience = 0;  // shorter than Options::deadline; 0: that
  };

  explicit JobPool(Options options);  // throws std::system_error if it gets no thread at all
  ~JobPool();                         // stops without patience
  JobPool(const JobPool&) = delete;
  JobPool& operator=(const JobPool&) = delete;

  [[nodiscard]] bool submit(Job job);
  // False, and the job is untouched, if there are as many guests already. The pool may be destroyed
  // meanwhile; stop() does not wait for guests.
  [[nodiscard]] bool run_here(Job& job);

  // Waits, at most `patience`, for running jobs; threads that are stuck longer are left behind and
  // touch nothing but their job. Idempotent; submit() refuses from here on.
  void stop(std::chrono::nanoseconds patience);

 private:
  class Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace ncfs
