// Handles that may be about to end, with the locks that end with them: those of flock(2) and
// F_OFD_SETLK.
//
// The kernel tells of each close(2) (FLUSH) and waits, but not whether it was the last one of its
// open file description; that it tells when nobody waits any more (RELEASE). It has put that into
// its queue before close(2) returns. So whoever asks for a lock after another's close(2), and is
// not ready to wait, is refused what is already free unless RELEASE is given the time to be taken
// from the queue by another thread.
//
// Any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "fuse_adapter/inode_table.h"
#include "io/types.h"

namespace ncfs {

class ClosingHandles {
 public:
  // `patience`: longer than taking a request from the queue needs on a busy machine.
  explicit ClosingHandles(Nanos patience) : patience_(patience) {}
  ~ClosingHandles() { stop(); }
  ClosingHandles(const ClosingHandles&) = delete;
  ClosingHandles& operator=(const ClosingHandles&) = delete;

  // Locks were asked for through the handle: only such handles matter.
  void locked(std::uint64_t handle);
  // FLUSH.
  void flushed(const FileKey& file, std::uint64_t handle);
  // RELEASE, and what it held is free.
  void released(const FileKey& file, std::uint64_t handle);

  // False if no handle of the file may be closing. Else `run` is called once: when none is any
  // more, or after the patience, or by stop().
  [[nodiscard]] bool later(const FileKey& file, std::function<void()> run);
  void stop();

 private:
  struct Closing {
    std::map<std::uint64_t, Nanos> until;  // by handle
    std::vector<std::function<void()>> waiting;
  };
  void watch();

  const Nanos patience_;
  std::atomic<bool> any_{false};  // whether there ever was a lock
  std::mutex mutex_;              // guards what follows
  std::set<std::uint64_t> lockers_;
  std::map<FileKey, Closing> files_;
  bool is_stopped_ = false;
  std::condition_variable changed_;
  std::thread watch_;  // begins with the first who waits
};

}  // namespace ncfs
