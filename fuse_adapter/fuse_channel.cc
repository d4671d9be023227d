#include "fuse_adapter/fuse_channel.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <system_error>

#include "fuse_adapter/mount_table.h"

namespace ncfs {
namespace {

// From protocol 7.40, which has passthrough. Debian 12's <linux/fuse.h> ends at 7.38.
constexpr std::uint32_t kPassthroughMinor = 40;
constexpr std::uint32_t kFlags2DirectIoAllowMmap = 1U << 4;
constexpr std::uint32_t kFlags2Passthrough = 1U << 5;
constexpr std::uint32_t kFlags2NoExportSupport = 1U << 6;
constexpr std::uint32_t kOpenPassthrough = 1U << 7;
constexpr std::size_t kInitOutFlags2 = 32;
constexpr std::size_t kInitOutMaxStackDepth = 36;
constexpr std::size_t kInitOutSize = 64;
constexpr std::size_t kOpenOutBackingId = 12;
constexpr std::size_t kOpenOutSize = 16;
// The answer to CREATE tells the name first.
constexpr std::size_t kCreateOutSize = sizeof(fuse_entry_out) + kOpenOutSize;
static_assert(offsetof(fuse_init_out, flags2) == kInitOutFlags2);
static_assert(sizeof(fuse_init_out) == kInitOutSize);
static_assert(sizeof(fuse_open_out) == kOpenOutSize);

struct BackingMap {
  std::int32_t descriptor;
  std::uint32_t flags;
  std::uint64_t padding;
};
constexpr unsigned long kBackingOpen = _IOW(229, 1, BackingMap);
constexpr unsigned long kBackingClose = _IOW(229, 2, std::uint32_t);

// The backing file may lie on a plain file system only, so our own mount counts as one level.
constexpr std::uint32_t kStackDepthMax = 1;

// The reply to OPEN that is being sent by this thread.
thread_local int reply_backing_id = -1;

thread_local FuseChannel::CurrentRequest current;

// The channel whose requests this thread takes, but not while it stays.
thread_local FuseChannel* served_channel = nullptr;

// A source that answers at all answers within this when the mount ends.
constexpr std::chrono::seconds kStayPatience{1};

// Wakes a thread that waits for the kernel's next request. Its handler does nothing: the read
// returns EINTR, and the loop looks whether it is to end.
int wake_signal() {
  return SIGRTMIN + 3;
}

void install_wake_handler() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigemptyset(&action.sa_mask);
  ::sigaction(wake_signal(), &action, nullptr);
}

template <typename Value>
void patch(std::byte* structure, std::size_t offset, Value value) {
  std::memcpy(structure + offset, &value, sizeof(value));
}

CacheFs::MountResult failure(int error, std::string_view what) {
  return {error, fmt::format("{}: {}", what, std::strerror(error))};
}

// The device number of what is mounted, without asking the file system. 0 if it cannot be told.
std::uint64_t device_of(const std::string& path) {
  struct statx attributes {};
  const int result =
      ::statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &attributes);
  if (result != 0) return 0;
  return makedev(attributes.stx_dev_major, attributes.stx_dev_minor);
}

}  // namespace

FuseChannel::FuseChannel(const fuse_lowlevel_ops& operations, void* context,
                         PassthroughPolicy passthrough)
    : operations_(operations),
      context_(context),
      policy_(passthrough),
      wake_(::eventfd(0, EFD_CLOEXEC)) {
  if (!wake_.is_open()) throw std::system_error(errno, std::generic_category(), "eventfd");
}

FuseChannel::~FuseChannel() {
  stop();
  if (session_ != nullptr) fuse_session_destroy(session_);  // closes the device
}

FuseChannel& FuseChannel::from(fuse_req_t request) {
  return *static_cast<FuseChannel*>(fuse_req_userdata(request));
}

const FuseChannel::CurrentRequest& FuseChannel::current_request() {
  return current;
}

bool FuseChannel::create_session(int device) {
  std::array<char, 12> name{"nfs-cachefs"};
  std::array<char*, 2> arguments{name.data(), nullptr};
  fuse_args parsed = FUSE_ARGS_INIT(1, arguments.data());
  session_ = fuse_session_new(&parsed, &operations_, sizeof(operations_), this);
  fuse_opt_free_args(&parsed);
  if (session_ == nullptr) {
    ::close(device);
    return false;
  }
  fuse_custom_io io{};
  io.writev = write_hook;
  io.read = read_hook;
  if (fuse_session_custom_io(session_, &io, device) != 0) {
    ::close(device);
    return false;
  }
  device_ = device;
  return true;
}

bool FuseChannel::attach(Descriptor connection) {
  return create_session(connection.release());
}

CacheFs::MountResult FuseChannel::mount(const MountSettings& settings) {
  const std::string& target = settings.mountpoint;
  // Not by stat, which the kernel may answer from what it remembers.
  struct statfs status {};
  if (::statfs(target.c_str(), &status) != 0 && errno == ENOTCONN) {
    spdlog::warn("removing what a daemon that was killed has left mounted on {}", target);
    if (::umount2(target.c_str(), MNT_DETACH) != 0) return failure(errno, "umount " + target);
  }
  struct stat place {};
  if (::stat(target.c_str(), &place) != 0) return failure(errno, target);
  const int device = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (device < 0) return failure(errno, "/dev/fuse (is the kernel module fuse loaded?)");
  if (!create_session(device)) return failure(ENOMEM, "cannot create a FUSE session");
  // default_permissions: the kernel checks modes before it serves cached pages or a file that is
  // passed through, which the source never hears of.
  const std::string options = fmt::format(
      "fd={},rootmode={:o},user_id={},group_id={},default_permissions{}", device,
      place.st_mode & S_IFMT, ::geteuid(), ::getegid(), settings.allow_other ? ",allow_other" : "");
  const std::string type(kMountType);
  if (::mount(settings.source_name.c_str(), target.c_str(), type.c_str(), settings.mount_flags,
              options.c_str()) != 0) {
    return failure(errno, fmt::format("mount on {}", target));
  }
  mountpoint_ = target;
  mounted_device_ = device_of(target);
  return {};
}

void FuseChannel::start(unsigned threads, unsigned guests) {
  install_wake_handler();
  const std::lock_guard lock(mutex_);
  guests_max_ = guests;
  for (unsigned index = 0; index < threads; ++index) {
    std::thread thread([self = shared_from_this()] { self->serve(); });
    ++live_threads_;
    ::pthread_setname_np(thread.native_handle(), "ncfs-fuse");
    threads_.push_back(thread.native_handle());
    thread.detach();
  }
}

FuseChannel::Stay::Stay(FuseChannel& channel) {
  if (served_channel != &channel) return;
  {
    const std::lock_guard lock(channel.mutex_);
    if (channel.guests_ == channel.guests_max_) return;
    ++channel.guests_;
  }
  channel_ = &channel;
  served_channel = nullptr;
  // The signal that ends the thread must not interrupt what it does for an application.
  sigset_t wake;
  sigemptyset(&wake);
  sigaddset(&wake, wake_signal());
  ::pthread_sigmask(SIG_BLOCK, &wake, &mask_);
}

FuseChannel::Stay::~Stay() {
  if (channel_ == nullptr) return;
  ::pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  served_channel = channel_;
  const std::lock_guard lock(channel_->mutex_);
  --channel_->guests_;
}

void FuseChannel::serve() {
  served_channel = this;
  sigset_t mask;
  sigfillset(&mask);
  sigdelset(&mask, wake_signal());
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  fuse_buf buffer{};
  while (!is_stopping_.load(std::memory_order_relaxed) && fuse_session_exited(session_) == 0) {
    const int received = fuse_session_receive_buf(session_, &buffer);
    if (received == -EINTR || received == -EAGAIN) continue;
    if (received <= 0) break;
    fuse_session_process_buf(session_, &buffer);
  }
  std::free(buffer.mem);
  {
    const std::lock_guard lock(mutex_);
    --live_threads_;
    std::erase(threads_, ::pthread_self());
    changed_.notify_all();
  }
  wake();
}

bool FuseChannel::wait_until_ready(std::chrono::nanoseconds patience) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [this] { return is_ready_ || live_threads_ == 0; }) &&
         is_ready_;
}

void FuseChannel::wait() {
  pollfd waiting{.fd = wake_.get(), .events = POLLIN, .revents = 0};
  while (::poll(&waiting, 1, -1) < 0 && errno == EINTR) {
  }
}

void FuseChannel::wake() {
  const std::uint64_t one = 1;
  // Cannot fail in a way that matters: a counter that is full wakes just as well.
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

void FuseChannel::unmount_if_ours() {
  if (mountpoint_.empty()) return;
  // Somebody may have unmounted it and mounted another file system in its place.
  const bool is_ours = mounted_device_ != 0 && device_of(mountpoint_) == mounted_device_;
  if (is_ours && ::umount2(mountpoint_.c_str(), MNT_DETACH) != 0 && errno != EINVAL) {
    spdlog::error("umount {}: {}", mountpoint_, std::strerror(errno));
  }
  mountpoint_.clear();
}

void FuseChannel::end_threads() {
  is_stopping_.store(true, std::memory_order_relaxed);
  const auto patience_ends = std::chrono::steady_clock::now() + kStayPatience;
  std::unique_lock lock(mutex_);
  // A signal that comes between a thread's look at the flag and its read is lost, hence the
  // repetition.
  while (live_threads_ > 0) {
    const bool are_all_guests = live_threads_ == guests_;
    if (are_all_guests && std::chrono::steady_clock::now() >= patience_ends) return;
    for (const pthread_t thread : threads_) ::pthread_kill(thread, wake_signal());
    changed_.wait_for(lock, std::chrono::milliseconds(10), [this] { return live_threads_ == 0; });
  }
}

void FuseChannel::stop() {
  unmount_if_ours();
  if (session_ != nullptr) fuse_session_exit(session_);
  end_threads();
}

// In place of the device comes a file that cannot be written to, under the same number.
void FuseChannel::disconnect() {
  if (device_ < 0) return;
  const Descriptor nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!nothing.is_open() || ::dup3(nothing.get(), device_, O_CLOEXEC) < 0) {
    spdlog::error("cannot let go of /dev/fuse: {}", std::strerror(errno));
  }
}

bool FuseChannel::set_readahead(std::uint64_t bytes) {
  std::ofstream setting(fmt::format("/sys/class/bdi/{}:{}/read_ahead_kb",
                                    gnu_dev_major(mounted_device_),
                                    gnu_dev_minor(mounted_device_)));
  setting << bytes / kKiB << std::flush;
  return setting.good();
}

bool FuseChannel::kernel_offers_passthrough() const {
  return (kernel_flags_ & FUSE_INIT_EXT) != 0 && (kernel_flags2_ & kFlags2Passthrough) != 0;
}

bool FuseChannel::passthrough_active() const {
  return passthrough_active_.load(std::memory_order_relaxed);
}

int FuseChannel::register_backing(int descriptor) const {
  const BackingMap map{.descriptor = descriptor, .flags = 0, .padding = 0};
  const int id = ::ioctl(device_, kBackingOpen, &map);
  return id >= 0 ? id : -errno;
}

void FuseChannel::unregister_backing(int backing_id) const {
  const auto id = static_cast<std::uint32_t>(backing_id);
  if (::ioctl(device_, kBackingClose, &id) != 0) {
    spdlog::debug("cannot take back a file passed through: {}", std::strerror(errno));
  }
}

int FuseChannel::reply_open_passthrough(fuse_req_t request, const fuse_file_info& info,
                                        int backing_id) {
  reply_backing_id = backing_id;
  const int result = fuse_reply_open(request, &info);
  reply_backing_id = -1;
  return result;
}

int FuseChannel::reply_create_passthrough(fuse_req_t request, const fuse_entry_param& entry,
                                          const fuse_file_info& info, int backing_id) {
  reply_backing_id = backing_id;
  const int result = fuse_reply_create(request, &entry, &info);
  reply_backing_id = -1;
  return result;
}

// Fails only if the kernel does not know the node any more, or nothing is mounted.
void FuseChannel::forget_pages(std::uint64_t node, std::uint64_t offset, std::uint64_t length) {
  fuse_lowlevel_notify_inval_inode(session_, node, static_cast<off_t>(offset),
                                   static_cast<off_t>(length));
}

void FuseChannel::forget_attributes(std::uint64_t node) {
  constexpr off_t kNoPages = -1;
  fuse_lowlevel_notify_inval_inode(session_, node, kNoPages, 0);
}

void FuseChannel::forget_name(std::uint64_t parent, const std::string& name, bool is_directory) {
  const int error = fuse_lowlevel_notify_expire_entry(session_, parent, name.c_str(), name.size(),
                                                      FUSE_LL_EXPIRE_ONLY);
  if (error != -ENOSYS || is_directory) return;
  fuse_lowlevel_notify_inval_entry(session_, parent, name.c_str(), name.size());
}

ssize_t FuseChannel::read_hook(int device, void* buffer, std::size_t size, void* self) {
  const ssize_t received = ::read(device, buffer, size);
  auto& channel = *static_cast<FuseChannel*>(self);
  if (received > 0) channel.note_request(buffer, static_cast<std::size_t>(received));
  return received;
}

void FuseChannel::note_request(const void* buffer, std::size_t size) {
  if (init_unique_.load(std::memory_order_acquire) == 0) note_init_request(buffer, size);
  fuse_in_header header{};
  if (size < sizeof(header)) return;
  std::memcpy(&header, buffer, sizeof(header));
  current = {header.unique, header.nodeid, header.opcode};
  fuse_interrupt_in interrupted{};
  if (header.opcode != FUSE_INTERRUPT || size < sizeof(header) + sizeof(interrupted)) return;
  std::memcpy(&interrupted, static_cast<const std::byte*>(buffer) + sizeof(header),
              sizeof(interrupted));
  interrupts_.interrupt(interrupted.unique);
}

// The kernel sends INIT first and nothing else before it is answered.
void FuseChannel::note_init_request(const void* buffer, std::size_t size) {
  fuse_in_header header{};
  fuse_init_in init{};
  if (size < sizeof(header)) return;
  std::memcpy(&header, buffer, sizeof(header));
  if (header.opcode != FUSE_INIT) return;
  std::memcpy(&init, static_cast<const std::byte*>(buffer) + sizeof(header),
              std::min(size - sizeof(header), sizeof(init)));
  kernel_minor_ = init.minor;
  kernel_flags_ = init.flags;
  kernel_flags2_ = init.flags2;
  init_unique_.store(header.unique, std::memory_order_release);
}

ssize_t FuseChannel::write_hook(int device, iovec* parts, int count, void* self) {
  auto& channel = *static_cast<FuseChannel*>(self);
  if (reply_backing_id >= 0 && count == 2 &&
      (parts[1].iov_len == kOpenOutSize || parts[1].iov_len == kCreateOutSize)) {
    std::array<std::byte, kCreateOutSize> reply{};
    std::memcpy(reply.data(), parts[1].iov_base, parts[1].iov_len);
    std::byte* const open_out = reply.data() + parts[1].iov_len - kOpenOutSize;
    // Any other flag beside it would make the kernel fail the open.
    patch(open_out, offsetof(fuse_open_out, open_flags), kOpenPassthrough);
    patch(open_out, kOpenOutBackingId, static_cast<std::int32_t>(reply_backing_id));
    const std::array<iovec, 2> patched{parts[0], {reply.data(), parts[1].iov_len}};
    return ::writev(device, patched.data(), 2);
  }
  if (count == 2 && parts[1].iov_len == kInitOutSize) {
    fuse_out_header header{};
    std::memcpy(&header, parts[0].iov_base, sizeof(header));
    if (header.unique == channel.init_unique_.load(std::memory_order_acquire)) {
      return channel.write_init_reply(device, parts);
    }
  }
  return ::writev(device, parts, count);
}

ssize_t FuseChannel::write_init_reply(int device, const iovec* parts) {
  std::array<std::byte, kInitOutSize> reply{};
  std::memcpy(reply.data(), parts[1].iov_base, reply.size());
  fuse_init_out init{};
  std::memcpy(&init, reply.data(), sizeof(init));
  const bool passes = policy_ != PassthroughPolicy::disabled && kernel_offers_passthrough();
  if ((kernel_flags_ & FUSE_INIT_EXT) != 0) {
    // Node ids mean nothing after a restart, so nobody may export them. Mapping files opened past
    // the page cache must work as it does otherwise.
    std::uint32_t flags2 =
        init.flags2 | (kernel_flags2_ & (kFlags2NoExportSupport | kFlags2DirectIoAllowMmap));
    if (passes) {
      flags2 |= kFlags2Passthrough;
      patch(reply.data(), kInitOutMaxStackDepth, kStackDepthMax);
    }
    // Who writes, truncates or gives away a file takes setuid and capabilities from it: the source
    // does that, for every change is made there as the caller. libfuse before 3.17 cannot say so.
    // That one look-up in a directory does not hold up all others there, and those who wait for
    // them beyond reach of SIGKILL, libfuse 3.14 forgets to say.
    patch(reply.data(), offsetof(fuse_init_out, flags),
          init.flags | FUSE_INIT_EXT |
              (kernel_flags_ & (FUSE_HANDLE_KILLPRIV_V2 | FUSE_PARALLEL_DIROPS)));
    patch(reply.data(), kInitOutFlags2, flags2);
    const std::uint32_t minor = std::max(init.minor, std::min(kernel_minor_, kPassthroughMinor));
    patch(reply.data(), offsetof(fuse_init_out, minor), minor);
  }
  const std::array<iovec, 2> patched{parts[0], {reply.data(), reply.size()}};
  passthrough_active_.store(passes, std::memory_order_relaxed);
  const ssize_t written = ::writev(device, patched.data(), 2);
  if (written > 0) {
    const std::lock_guard lock(mutex_);
    is_ready_ = true;
    changed_.notify_all();
  }
  return written;
}

}  // namespace ncfs
