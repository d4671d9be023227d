// A bounded pool of threads for calls that may block, and may block for ever.
//
// Laws:
//   * A job's complete() is called exactly once, on the control thread, never from within submit().
//   * Its status is 0 if run() returned in time, -ETIMEDOUT if the deadline passed first and
//     -EAGAIN if the queue was full at submission. run() is not called at all when the deadline
//     passes before a thread is free or when the queue is full, unless the job must run.
//   * finish() is called once after complete(), on the control thread, when run() has returned or
//     is known never to be called. What the job uses may be taken away then and not before.
//   * The deadlines are kept by one timer of the control io_context.
//
// A thread that is inside a job past its deadline is stuck. While threads are stuck the pool grows
// by as many replacements, up to Options::replacements, so that one hung file does not stop the
// rest; a stuck thread that comes back ends if it is not needed any more. When all replacements
// are stuck too, the queue fills up and its jobs time out: memory and threads stay bounded.
//
// The threads are the pool's own rather than those of boost::asio::thread_pool, which can neither
// grow nor be given up: its destructor joins, and would wait for a hung server for ever.
//
// Threading: all functions, and the constructor and destructor, on the control thread only.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <memory>
#include <string>

#include "io/types.h"

namespace boost::asio {
class io_context;
}

namespace ncfs {

class WorkPool {
 public:
  enum class WhenLate : std::uint8_t {
    drop,  // not started by its deadline: never run
    run,   // accepted above the queue's bound and run in any case: releases something
  };

  class Job {
   public:
    explicit Job(Nanos deadline, WhenLate when_late = WhenLate::drop)
        : deadline_(deadline), when_late_(when_late) {}
    virtual ~Job() = default;
    Job(const Job&) = delete;
    Job& operator=(const Job&) = delete;

    virtual void run() = 0;                 // on a pool thread
    virtual void complete(int status) = 0;  // on the control thread
    virtual void finish() {}                // on the control thread
    // Undoes a run() whose result nobody will hear of. On a pool thread, or on the control thread
    // in the pool's destructor.
    virtual void discard() {}

   private:
    friend class WorkPool;
    enum class State : std::uint8_t { held, queued, running, returned };

    const Nanos deadline_;
    const WhenLate when_late_;
    // Guarded by the pool's lock.
    State state_ = State::held;
    bool is_late_ = false;  // its thread is counted as stuck
    int status_ = 0;        // what complete() will say unless the deadline comes first
    std::list<std::shared_ptr<Job>>::iterator queue_position_;
    // Control thread only.
    std::uint64_t sequence_ = 0;
    bool is_completed_ = false;
  };

  struct Options {
    std::string name;  // of the threads, at most 15 characters
    std::size_t threads = 1;
    std::size_t replacements = 1;  // above `threads`, while threads are stuck
    std::size_t queue_max = 1;     // jobs accepted and not yet started
    // How long the destructor waits for running jobs before it leaves their threads behind. A
    // thread left behind touches nothing but its job and the pool's shared state.
    std::chrono::nanoseconds stop_patience = std::chrono::seconds(1);
  };

  // `control` outlives the pool. Throws std::system_error if the threads cannot be started.
  WorkPool(boost::asio::io_context& control, Options options);
  // Jobs that did not complete yet never do.
  ~WorkPool();
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;

  void submit(const std::shared_ptr<Job>& job);

  // The deadline of a held job runs, but the job is not started before release().
  // For jobs that must run only.
  void hold(const std::shared_ptr<Job>& job);
  void release(const std::shared_ptr<Job>& job);

  // Threads that exist; for tests and statistics.
  [[nodiscard]] std::size_t threads() const;

 private:
  class Shared;
  class Control;
  std::shared_ptr<Control> control_;
};

}  // namespace ncfs
