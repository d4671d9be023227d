#include "nfs_source/nfs_tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "io/descriptor.h"
#include "nfs_source/nfs_operations.h"

namespace ncfs {
namespace {

// The largest request: what the kernel hands over at once.
constexpr std::uint32_t kRequestBytes = 1 << 20U;
// A request holds a thread while it waits for the server. More than this only wait at the server.
constexpr unsigned kThreadsMax = 256;
constexpr unsigned kThreadsIdle = 32;
constexpr std::size_t kGroupsMax = 16;                 // that AUTH_SYS can tell
constexpr std::uint32_t kPreferredBytes = 256 << 10U;  // of a read, told by stat(2)

// libfuse 3.14 forgets to tell the kernel that look-ups in one directory need not wait for each
// other, and that the server takes set-user-id bits away, which who writes may not be allowed to
// do. The first reply of a session is the one to INIT.
ssize_t write_reply(int device, iovec* parts, int count, void*) {
  static std::atomic<bool> is_first{true};
  if (count != 2 || !is_first.exchange(false)) return ::writev(device, parts, count);
  std::array<std::byte, sizeof(fuse_init_out)> reply{};
  const std::size_t size = std::min(parts[1].iov_len, reply.size());
  std::memcpy(reply.data(), parts[1].iov_base, size);
  std::uint32_t flags = 0;
  std::memcpy(&flags, reply.data() + offsetof(fuse_init_out, flags), sizeof(flags));
  flags |= FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV;
  std::memcpy(reply.data() + offsetof(fuse_init_out, flags), &flags, sizeof(flags));
  const std::array<iovec, 2> patched{parts[0], {reply.data(), size}};
  return ::writev(device, patched.data(), 2);
}

void initialise(void*, fuse_conn_info* connection) {
  connection->max_write = kRequestBytes;
  connection->max_background = kThreadsMax;
  connection->congestion_threshold = kThreadsMax;
  connection->time_gran = 1;
  connection->want |= connection->capable & (FUSE_CAP_ASYNC_DIO | FUSE_CAP_ASYNC_READ);
  // Truncating is a call of its own.
  connection->want &= ~FUSE_CAP_ATOMIC_O_TRUNC;
}

// Numbers of one program: more than it ever needs.
std::uint64_t first_number(std::uint32_t run) {
  return std::uint64_t{run} << 40U;
}

}  // namespace

Credentials NfsTree::Operations::credentials_of(fuse_req_t request) {
  const fuse_ctx* const context = fuse_req_ctx(request);
  Credentials result{.user = context->uid, .group = context->gid, .groups = {}};
  if (context->uid == 0) return result;
  std::array<gid_t, kGroupsMax> groups{};
  const int count = fuse_req_getgroups(request, static_cast<int>(groups.size()), groups.data());
  if (count > 0) {
    result.groups.assign(groups.begin(),
                         groups.begin() + std::min<std::ptrdiff_t>(count, std::ssize(groups)));
  }
  return result;
}

struct stat NfsTree::Operations::shown(const FileAttributes& attributes) {
  struct stat status = attributes.status;
  status.st_blksize = kPreferredBytes;
  return status;
}

NfsTree::NfsTree(NfsServer& server, const NfsServer::Found& root, std::uint32_t run)
    : server_(server),
      filesystem_major_(root.attributes.filesystem_major),
      filesystem_minor_(root.attributes.filesystem_minor),
      nodes_(root.handle, first_number(run)),
      files_(first_number(run)),
      directories_(first_number(run)) {}

NfsTree::~NfsTree() {
  if (session_ != nullptr) fuse_session_destroy(session_);
}

std::string NfsTree::mount(const std::string& source, const std::string& place, int device,
                           int memory) {
  fuse_lowlevel_ops operations{};
  operations.init = initialise;
  add_names(operations);
  add_files(operations);
  add_directories(operations);
  std::array<char*, 1> names{const_cast<char*>("nfs-cachefs-nfs")};
  fuse_args arguments = FUSE_ARGS_INIT(1, names.data());
  session_ = fuse_session_new(&arguments, &operations, sizeof(operations), this);
  if (session_ == nullptr) return "libfuse does not start";
  fuse_custom_io io{};
  io.writev = write_reply;
  io.read = [](int from, void* buffer, std::size_t size, void*) {
    return ::read(from, buffer, size);
  };
  if (fuse_session_custom_io(session_, &io, device) != 0) return "libfuse does not start";
  struct stat remembered {};
  if (::fstat(memory, &remembered) != 0) return fmt::format("memory: {}", std::strerror(errno));
  if (remembered.st_size > 0) return greet(memory);
  // Whoever comes here acts for somebody else, and the server decides what he may do.
  const std::string options =
      fmt::format("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device);
  if (::mount(source.c_str(), place.c_str(), "fuse.nfs-cachefs-nfs", MS_NOSUID | MS_NODEV,
              options.c_str()) != 0) {
    return fmt::format("mount on {}: {}", place, std::strerror(errno));
  }
  std::vector<char> first(FUSE_MIN_READ_BUFFER);
  const ssize_t size = ::read(device, first.data(), first.size());
  if (size <= 0 || ::pwrite(memory, first.data(), static_cast<std::size_t>(size), 0) != size) {
    return fmt::format("the kernel does not answer: {}", std::strerror(errno));
  }
  return greet(memory);
}

// Learns what the kernel can do. It takes the answer from the first program of a mount only. From
// then on this program has a queue of its own for requests under way, which end with it.
std::string NfsTree::greet(int memory) {
  std::vector<char> first(FUSE_MIN_READ_BUFFER);
  const ssize_t size = ::pread(memory, first.data(), first.size(), 0);
  if (size <= 0) return fmt::format("memory: {}", std::strerror(errno));
  fuse_buf message{};
  message.mem = first.data();
  message.size = static_cast<std::size_t>(size);
  fuse_session_process_buf(session_, &message);
  const int device = fuse_session_fd(session_);
  const Descriptor own(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  auto shared = static_cast<std::uint32_t>(device);
  if (::ioctl(own.get(), FUSE_DEV_IOC_CLONE, &shared) != 0 ||
      ::dup3(own.get(), device, O_CLOEXEC) < 0) {
    return fmt::format("/dev/fuse: {}", std::strerror(errno));
  }
  return {};
}

void NfsTree::serve() {
  fuse_loop_config* const config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(config, kThreadsMax);
  fuse_loop_cfg_set_idle_threads(config, kThreadsIdle);
  fuse_session_loop_mt(session_, config);
  fuse_loop_cfg_destroy(config);
}

}  // namespace ncfs
