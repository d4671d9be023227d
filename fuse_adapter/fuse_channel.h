// The connection to the kernel: /dev/fuse, the mount, libfuse's session over them, the threads that
// take requests from it, and passthrough, which needs a hand in libfuse's replies: libfuse before
// 3.17 does not know it, so the two replies that carry it are completed on their way to the kernel.
//
// Any thread may call any function unless said otherwise.
#pragma once

#include <fuse3/fuse_lowlevel.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fuse_adapter/cachefs.h"
#include "io/descriptor.h"

namespace ncfs {

class FuseChannel {
 public:
  // `context` is what from() leads to; see context(). Throws std::system_error.
  FuseChannel(const fuse_lowlevel_ops& operations, void* context, PassthroughPolicy passthrough);
  // Everything must have been answered; see KernelRequest.
  ~FuseChannel();
  FuseChannel(const FuseChannel&) = delete;
  FuseChannel& operator=(const FuseChannel&) = delete;

  [[nodiscard]] static FuseChannel& from(fuse_req_t request);
  [[nodiscard]] void* context() const { return context_; }

  // Mounts. A dead mount that is found on the mount point is removed first.
  [[nodiscard]] CacheFs::MountResult mount(const MountSettings& settings);
  // Speaks to whatever is at the other end of a message socket instead.
  [[nodiscard]] bool attach(Descriptor connection);

  // Starts to take requests.
  void start(unsigned threads);
  // Whether the kernel and we agreed on how to speak, within `patience`.
  [[nodiscard]] bool wait_until_ready(std::chrono::nanoseconds patience);
  // Waits until the mount is gone or wake() was called.
  void wait();
  void wake();  // async-signal-safe
  // Takes the mount away if it is still there and ends the threads. Idempotent.
  void stop();

  // Sets the kernel's readahead window on this mount. Files opened before keep what they had.
  [[nodiscard]] bool set_readahead(std::uint64_t bytes);

  [[nodiscard]] bool passthrough_active() const;

  // Makes the kernel know a file to be passed through. An id, or -errno.
  [[nodiscard]] int register_backing(int descriptor) const;
  void unregister_backing(int backing_id) const;

  // Makes the kernel forget the attributes and ACLs of a node. Waits for no page and no answer of
  // ours, so it may be called by whoever owes one.
  void forget_attributes(std::uint64_t node);

  // As fuse_reply_open(), with passthrough to `backing_id`.
  int reply_open_passthrough(fuse_req_t request, const fuse_file_info& info, int backing_id);

 private:
  static ssize_t read_hook(int device, void* buffer, std::size_t size, void* self);
  static ssize_t write_hook(int device, iovec* parts, int count, void* self);
  void note_init_request(const void* buffer, std::size_t size);
  ssize_t write_init_reply(int device, const iovec* parts);

  [[nodiscard]] bool kernel_offers_passthrough() const;
  [[nodiscard]] bool create_session(int device);  // takes over the device
  void serve();
  void end_threads();
  void unmount_if_ours();

  const fuse_lowlevel_ops operations_;
  void* const context_;
  const PassthroughPolicy policy_;
  fuse_session* session_ = nullptr;
  int device_ = -1;  // the session's
  std::string mountpoint_;
  std::uint64_t mounted_device_ = 0;
  Descriptor wake_;

  // Written by the thread that takes INIT, before anything else is asked or answered; the id last,
  // with release order.
  std::atomic<std::uint64_t> init_unique_{0};
  std::uint32_t kernel_minor_ = 0;
  std::uint32_t kernel_flags_ = 0;
  std::uint32_t kernel_flags2_ = 0;
  std::atomic<bool> passthrough_active_{false};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool is_ready_ = false;
  unsigned live_threads_ = 0;
  std::atomic<bool> is_stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace ncfs
