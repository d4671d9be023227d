// A bounded pool of threads for calls that may block, and may block for ever, on behalf of threads
// that must not. (io/work_pool.h does the same for the engine's control thread.)
//
// Laws:
//   * expire() is called at most once, on the pool's watch thread: when the deadline has passed and
//     run() has not returned. run() is not started after that, but one that had started goes on,
//     so whoever has something to answer must decide between the two, once.
//   * submit() refuses when the queue is full; the job is then never heard of.
//   * run_here() runs a job on the calling thread instead, with the same deadline.
//   * stop() forgets the jobs that were not started; their functions are destroyed uncalled.
//
// Any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "io/types.h"

namespace ncfs {

class JobPool {
 public:
  struct Options {
    std::string name;  // of the threads, at most 15 characters
    std::size_t threads = 1;
    std::size_t queue_max = 1;  // jobs accepted and not yet started
    std::size_t guests = 0;     // threads of others in run_here()
    Nanos deadline = kSecond;   // of every job, from submit()
  };
  struct Job {
    std::function<void()> run;
    std::function<void()> expire;
  };

  explicit JobPool(Options options);  // throws std::system_error
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
