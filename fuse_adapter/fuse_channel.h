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
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fuse_adapter/cachefs.h"
#include "fuse_adapter/interrupts.h"
#include "fuse_adapter/shown_inode.h"
#include "io/descriptor.h"

namespace ncfs {

class FuseChannel : public std::enable_shared_from_this<FuseChannel> {
 public:
  // `context` is what from() leads to; see context(). Throws std::system_error.
  FuseChannel(const fuse_lowlevel_ops& operations, void* context, PassthroughPolicy passthrough);
  // Everything must have been answered; see KernelRequest.
  ~FuseChannel();
  FuseChannel(const FuseChannel&) = delete;
  FuseChannel& operator=(const FuseChannel&) = delete;

  [[nodiscard]] static FuseChannel& from(fuse_req_t request);
  [[nodiscard]] void* context() const { return context_; }

  // What the kernel's header says of the request that this thread was handed last.
  struct CurrentRequest {
    std::uint64_t unique = 0;
    std::uint64_t node = 0;
    std::uint32_t operation = 0;
  };
  [[nodiscard]] static const CurrentRequest& current_request();
  [[nodiscard]] Interrupts& interrupts() { return interrupts_; }

  // Mounts. A dead mount that is found on the mount point is removed first.
  [[nodiscard]] CacheFs::MountResult mount(const MountSettings& settings);
  // Speaks to whatever is at the other end of a message socket instead.
  [[nodiscard]] bool attach(Descriptor connection);

  // Starts to take requests. Of the threads, as many as `guests` at a time may block in a Stay; the
  // others are always there for the kernel.
  void start(unsigned threads, unsigned guests);

  // While one is true, the calling thread, which serves the channel, may block for as long as it
  // has to. False for any other thread, within another one, and when too many threads stay.
  class Stay {
   public:
    explicit Stay(FuseChannel& channel);
    ~Stay();
    Stay(const Stay&) = delete;
    Stay& operator=(const Stay&) = delete;
    explicit operator bool() const { return channel_ != nullptr; }

   private:
    FuseChannel* channel_ = nullptr;
    sigset_t mask_{};  // of the thread before
  };
  // Whether the kernel and we agreed on how to speak, within `patience`.
  [[nodiscard]] bool wait_until_ready(std::chrono::nanoseconds patience);
  // Waits until the mount is gone or wake() was called.
  void wait();
  void wake();  // async-signal-safe
  // Takes the mount away if it is still there and ends the threads; those that are stuck in a Stay
  // are left behind, and touch nothing but what their request needs. Idempotent.
  void stop();
  // After stop(): lets the kernel end all requests that are not answered yet. Later answers go
  // nowhere. Without it they would wait for threads that are stuck, which keep the channel alive.
  void disconnect();

  // Sets the kernel's readahead window on this mount. Files opened before keep what they had.
  [[nodiscard]] bool set_readahead(std::uint64_t bytes);

  [[nodiscard]] bool passthrough_active() const;

  // Makes the kernel know a file to be passed through. An id, or -errno.
  [[nodiscard]] int register_backing(int descriptor) const;
  void unregister_backing(int backing_id) const;

  // Makes the kernel forget the attributes of a node and its pages in the range; length 0 is up to
  // the end. Waits for reads of them that are under way: whoever calls must owe no answer to one.
  void forget_pages(std::uint64_t node, std::uint64_t offset, std::uint64_t length);
  // Makes the kernel forget the attributes and ACLs of a node. Waits for no page and no answer of
  // ours, so it may be called by whoever owes one.
  void forget_attributes(std::uint64_t node);

  // Makes the kernel ask for a name, or its absence, again when it is used next. Waits for look-ups
  // and changes in the directory that are under way: whoever calls must owe no answer to one.
  // Kernels before 6.2 cannot do so for directories (it would take away what is mounted in them).
  void forget_name(std::uint64_t parent, const std::string& name, bool is_directory);

  // The inode number to tell of a file; see shown_inode.h. The root's device is set before there
  // are files to tell of.
  void set_root_device(dev_t device) { root_device_.store(device, std::memory_order_relaxed); }
  [[nodiscard]] ino_t shown_inode(dev_t device, ino_t inode) const {
    return ncfs::shown_inode(root_device_.load(std::memory_order_relaxed), device, inode);
  }
  [[nodiscard]] struct stat shown(struct stat attributes) const {
    attributes.st_ino = shown_inode(attributes.st_dev, attributes.st_ino);
    return attributes;
  }

  // As fuse_reply_open(), with passthrough to `backing_id`.
  int reply_open_passthrough(fuse_req_t request, const fuse_file_info& info, int backing_id);
  // As fuse_reply_create(), the same.
  int reply_create_passthrough(fuse_req_t request, const fuse_entry_param& entry,
                               const fuse_file_info& info, int backing_id);

 private:
  static ssize_t read_hook(int device, void* buffer, std::size_t size, void* self);
  static ssize_t write_hook(int device, iovec* parts, int count, void* self);
  void note_request(const void* buffer, std::size_t size);
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
  std::atomic<dev_t> root_device_{0};
  Descriptor wake_;
  Interrupts interrupts_;

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
  unsigned guests_max_ = 0;
  unsigned guests_ = 0;
  std::atomic<bool> is_stopping_{false};
  std::vector<pthread_t> threads_;  // those that live; detached
};

}  // namespace ncfs
