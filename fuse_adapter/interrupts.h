// Requests of processes that are being killed are answered with EINTR, whatever they wait for: the
// kernel lets no process die that waits for an answer. At once, or after the patience of a request
// whose work others may wait for by waiting for the end of the process.
//
// The kernel tells of every signal that comes meanwhile, once for a request. Only those that end
// the process count: programs do not expect file systems to answer EINTR (a local one does not, nor
// does NFS), and some, with timers, get signals all the time. So a thread goes on looking whether a
// process that was interrupted is about to end.
//
// Any thread.
#pragma once

#include <sys/types.h>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>

#include "io/types.h"

namespace ncfs {

class KernelRequest;

class Interrupts {
 public:
  Interrupts() = default;
  ~Interrupts();  // no request is known any more
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // `unique` is the kernel's number of the request, `thread` who asks. Once removed, the request is
  // not touched.
  void add(std::uint64_t unique, pid_t thread, Nanos patience, KernelRequest& request);
  void remove(std::uint64_t unique);

  // The kernel tells of a signal.
  void interrupt(std::uint64_t unique);

 private:
  struct Waiting {
    pid_t thread = 0;
    Nanos patience = 0;
    KernelRequest* request = nullptr;
    std::optional<Nanos> killed_at = {};  // or seen so for the first time; as monotonic_now()
  };

  // The kernel may tell of a signal before the request has come so far as to be added.
  static constexpr std::size_t kEarlyMax = 64;

  [[nodiscard]] static bool is_out_of_patience(Waiting& waiting);
  void follow(std::uint64_t unique);
  void watch();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<std::uint64_t, Waiting> waiting_;
  std::set<std::uint64_t> interrupted_;           // of waiting_
  std::array<std::uint64_t, kEarlyMax> early_{};  // not of waiting_; a ring
  std::size_t early_next_ = 0;
  bool is_stopping_ = false;
  std::thread watch_;  // from the first interrupt that did not end its process
};

// Whether the thread has been killed and not ended yet. False if it cannot be seen.
[[nodiscard]] bool is_being_killed(pid_t thread);

}  // namespace ncfs
