// One request of the kernel that is answered later, by whoever comes first: the thread that did the
// work, the watch that found it late, or the end of the mount.
//
// Guarantee: exactly one answer. The functions that answer return whether theirs was the one and
// the kernel took it; if not, what the answer promised (a look-up, an open) must be undone. A
// request that is dropped is answered with ENOTCONN. One whose process is being killed is answered
// with EINTR (interrupts.h), but for those that wait for locks, which answer to every signal.
// A close(2) is given kClosePatience before.
//
// Any thread; created on the thread that was handed the request.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "fuse_adapter/caller_credentials.h"
#include "fuse_adapter/fuse_channel.h"
#include "io/types.h"

namespace ncfs {

class KernelRequest {
 public:
  // Who waits for the end of a killed process then finds its locks free and what it wrote stored,
  // but for a backend that does not answer. As long as one waits for a child without worry.
  static constexpr Nanos kClosePatience = 2 * kSecond;

  // The channel lives until the last request of it is gone.
  KernelRequest(std::shared_ptr<FuseChannel> channel, fuse_req_t request);
  ~KernelRequest();
  KernelRequest(const KernelRequest&) = delete;
  KernelRequest& operator=(const KernelRequest&) = delete;

  [[nodiscard]] const Caller& caller() const { return caller_; }
  [[nodiscard]] std::uint64_t node() const { return node_; }  // that the kernel asks about
  [[nodiscard]] Nanos asked_at() const { return asked_at_; }  // as monotonic_now()
  [[nodiscard]] bool is_answered() const { return is_answered_.load(std::memory_order_acquire); }

  bool error(int error);  // 0 is success of what has no result
  // The same, from somebody who will not wait for the outcome any longer.
  bool give_up(int error);
  // Is called by error() before it tells that the backend cannot be reached or does not answer:
  // true if it answers in its place, now or later. Set before the work starts. It must not keep the
  // request alive.
  void set_stand_in(std::function<bool()> stand_in) { stand_in_ = std::move(stand_in); }
  // Is called by error() with anything that is no answer of the backend's (judge_backend): true if
  // the work will be done again. Set before the work starts, called by who does it.
  void set_retry(std::function<bool(int error)> retry) { retry_ = std::move(retry); }
  // What the work ended with: that of error(), unless it was done again; 0 if there was none.
  [[nodiscard]] int outcome() const { return outcome_.load(std::memory_order_relaxed); }
  bool entry(const fuse_entry_param& entry);
  bool attributes(const struct stat& attributes, double timeout_seconds);
  bool link(const std::string& target);
  bool bytes(std::span<const std::byte> bytes);
  bool opened(const fuse_file_info& info);
  bool opened_passthrough(const fuse_file_info& info, int backing_id);
  // `backing_id` is negative if the file is not passed through.
  bool created(const fuse_entry_param& entry, const fuse_file_info& info, int backing_id);
  bool written(std::size_t count);
  bool file_system(const struct statvfs& status);
  bool attribute_size(std::size_t size);
  bool offset(off_t offset);
  bool lock(const struct flock& lock);

 private:
  // The libfuse request, for the one who may answer it; null for all others.
  [[nodiscard]] fuse_req_t claim();
  [[nodiscard]] fuse_entry_param shown_entry(const fuse_entry_param& entry) const;

  const std::shared_ptr<FuseChannel> channel_;
  fuse_req* const request_;
  const std::uint64_t unique_;  // 0: interrupted by other means (lock_ops.cc)
  const std::uint64_t node_;
  const Caller caller_;
  const Nanos asked_at_;
  std::function<bool(int error)> retry_;
  std::function<bool()> stand_in_;
  std::atomic<bool> is_answered_{false};
  std::atomic<int> outcome_{0};
};

using KernelRequestPointer = std::shared_ptr<KernelRequest>;

[[nodiscard]] Caller caller_of(fuse_req_t request);

}  // namespace ncfs
