#include "fuse_adapter/faulty_backend.h"

#include <dirent.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "io/monotonic_clock.h"
#include "io/types.h"

namespace ncfs {

// Memory of the test and of the server.
struct FaultyBackend::Shared {
  // 0: as it should be; above: that errno; kHang; below that: a delay.
  static constexpr int kHang = -1;
  std::array<std::atomic<int>, kOperations> behaviour{};
  std::array<std::atomic<int>, kOperations> fails_once{};  // an errno, or 0
  std::array<std::atomic<std::size_t>, kOperations> calls{};
  std::atomic<std::size_t> hanging{0};

  // An errno, negative.
  int admit(Operation operation) {
    const auto index = static_cast<std::size_t>(operation);
    ++calls.at(index);
    std::atomic<int>& wanted = behaviour.at(index);
    if (wanted == kHang) {
      ++hanging;
      while (wanted == kHang) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      --hanging;
    }
    int once = fails_once.at(index);
    if (once != 0 && fails_once.at(index).compare_exchange_strong(once, 0)) return -once;
    const int now = wanted;
    if (now < kHang) std::this_thread::sleep_for(std::chrono::milliseconds(kHang - now));
    return now > 0 ? -now : 0;
  }
};

namespace {

using Operation = FaultyBackend::Operation;

// One for each call that hangs at a time, and then some.
constexpr unsigned kServerThreads = 1000;
// A machine that needs longer is not slow but stuck.
constexpr Nanos kPatience = 60 * kSecond;

// Of the server process.
int origin = -1;
std::function<int(Operation)> admit;

const char* below(const char* path) {
  return path[1] == '\0' ? "." : path + 1;
}

int result_of(int result) {
  return result < 0 ? -errno : 0;
}

// Runs `call` if the operation is admitted.
template <typename Call>
int serve(Operation operation, const Call& call) {
  const int refused = admit(operation);
  return refused != 0 ? refused : call();
}

int descriptor_of(const fuse_file_info* info) {
  return static_cast<int>(info->fh);
}

int get_attributes(const char* path, struct stat* attributes, fuse_file_info*) {
  return serve(Operation::attributes, [&] {
    return result_of(::fstatat(origin, below(path), attributes, AT_SYMLINK_NOFOLLOW));
  });
}

int read_link(const char* path, char* target, std::size_t room) {
  return serve(Operation::attributes, [&] {
    const ssize_t length = ::readlinkat(origin, below(path), target, room - 1);
    if (length >= 0) target[length] = '\0';
    return length < 0 ? -errno : 0;
  });
}

int open_as(Operation operation, const char* path, int flags, mode_t mode, fuse_file_info* info) {
  return serve(operation, [&] {
    const int opened = ::openat(origin, below(path), flags | O_CLOEXEC | O_NOFOLLOW, mode);
    if (opened < 0) return -errno;
    info->fh = static_cast<std::uint64_t>(opened);
    return 0;
  });
}

int open_file(const char* path, fuse_file_info* info) {
  return open_as(Operation::open, path, info->flags & ~O_DIRECT, 0, info);
}

int create_file(const char* path, mode_t mode, fuse_file_info* info) {
  return open_as(Operation::change, path, (info->flags & ~O_DIRECT) | O_CREAT, mode, info);
}

int read_file_at(const char*, char* bytes, std::size_t size, off_t offset, fuse_file_info* info) {
  return serve(Operation::read, [&] {
    const ssize_t count = ::pread(descriptor_of(info), bytes, size, offset);
    return count < 0 ? -errno : static_cast<int>(count);
  });
}

int write_file_at(const char*, const char* bytes, std::size_t size, off_t offset,
                  fuse_file_info* info) {
  return serve(Operation::change, [&] {
    const ssize_t count = ::pwrite(descriptor_of(info), bytes, size, offset);
    return count < 0 ? -errno : static_cast<int>(count);
  });
}

int flush_file(const char*, fuse_file_info*) {
  return serve(Operation::close, [] { return 0; });
}

int sync_file(const char*, int, fuse_file_info* info) {
  return serve(Operation::change, [&] { return result_of(::fsync(descriptor_of(info))); });
}

int close_file(const char*, fuse_file_info* info) {
  return result_of(::close(descriptor_of(info)));
}

int list_directory(const char* path, void* list, fuse_fill_dir_t add, off_t, fuse_file_info*,
                   fuse_readdir_flags) {
  return serve(Operation::list, [&] {
    const int opened = ::openat(origin, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0) return -errno;
    DIR* const stream = ::fdopendir(opened);
    while (const dirent* entry = ::readdir(stream)) {
      struct stat attributes {};
      attributes.st_ino = entry->d_ino;
      attributes.st_mode = static_cast<mode_t>(DTTOIF(entry->d_type));
      add(list, entry->d_name, &attributes, 0, fuse_fill_dir_flags{});
    }
    ::closedir(stream);
    return 0;
  });
}

int get_space(const char*, struct statvfs* status) {
  return serve(Operation::statfs, [&] { return result_of(::fstatvfs(origin, status)); });
}

int make_directory(const char* path, mode_t mode) {
  return serve(Operation::change, [&] { return result_of(::mkdirat(origin, below(path), mode)); });
}

int remove_file(const char* path) {
  return serve(Operation::change, [&] { return result_of(::unlinkat(origin, below(path), 0)); });
}

int truncate_file(const char* path, off_t size, fuse_file_info*) {
  return serve(Operation::change, [&] {
    const int opened = ::openat(origin, below(path), O_WRONLY | O_CLOEXEC);
    if (opened < 0) return -errno;
    const int result = result_of(::ftruncate(opened, size));
    ::close(opened);
    return result;
  });
}

void* initialise(fuse_conn_info*, fuse_config* config) {
  // Everything is asked for, always.
  config->entry_timeout = config->attr_timeout = config->negative_timeout = 0;
  config->use_ino = 1;
  return nullptr;
}

// libfuse 3.14 forgets to tell the kernel that look-ups in one directory need not wait for each
// other.
ssize_t write_reply(int device, iovec* parts, int count, void*) {
  static std::atomic<bool> is_first{true};  // the answer to INIT
  if (!is_first.exchange(false) || count != 2) return ::writev(device, parts, count);
  std::array<std::byte, sizeof(fuse_init_out)> reply{};
  const std::size_t size = std::min(parts[1].iov_len, reply.size());
  std::memcpy(reply.data(), parts[1].iov_base, size);
  std::uint32_t flags = 0;
  std::memcpy(&flags, reply.data() + offsetof(fuse_init_out, flags), sizeof(flags));
  flags |= FUSE_PARALLEL_DIROPS;
  std::memcpy(reply.data() + offsetof(fuse_init_out, flags), &flags, sizeof(flags));
  const std::array<iovec, 2> patched{parts[0], {reply.data(), size}};
  return ::writev(device, patched.data(), 2);
}

// The whole life of the server process.
[[noreturn]] void live(const std::string& place) {
  fuse_operations operations{};
  operations.init = initialise;
  operations.getattr = get_attributes;
  operations.readlink = read_link;
  operations.open = open_file;
  operations.create = create_file;
  operations.read = read_file_at;
  operations.write = write_file_at;
  operations.flush = flush_file;
  operations.fsync = sync_file;
  operations.release = close_file;
  operations.readdir = list_directory;
  operations.statfs = get_space;
  operations.mkdir = make_directory;
  operations.unlink = remove_file;
  operations.truncate = truncate_file;
  std::array<const char*, 1> arguments{"faulty"};
  fuse_args parsed = FUSE_ARGS_INIT(1, const_cast<char**>(arguments.data()));
  fuse* const server = fuse_new(&parsed, &operations, sizeof(operations), nullptr);
  const int device = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  const std::string options =
      "fd=" + std::to_string(device) +
      ",rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions";
  fuse_custom_io io{};
  io.writev = write_reply;
  io.read = [](int from, void* buffer, std::size_t size, void*) {
    return ::read(from, buffer, size);
  };
  if (server == nullptr || fuse_session_custom_io(fuse_get_session(server), &io, device) != 0 ||
      ::mount("faulty", place.c_str(), "fuse.faulty", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
    ::_exit(1);
  }
  fuse_loop_config* const config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(config, kServerThreads);
  fuse_loop_cfg_set_idle_threads(config, kServerThreads);
  fuse_loop_mt(server, config);
  ::_exit(0);
}

bool is_mounted(const std::string& place) {
  struct stat here {};
  struct stat above {};
  return ::stat(place.c_str(), &here) == 0 && ::stat((place + "/..").c_str(), &above) == 0 &&
         here.st_dev != above.st_dev;
}

}  // namespace

FaultyBackend::FaultyBackend(const std::string& shown, std::string place)
    : place_(std::move(place)),
      shared_(new (::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared) {
  const pid_t test = ::getpid();
  server_ = ::fork();
  if (server_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != test) ::_exit(1);
    ::umask(0);
    origin = ::open(shown.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    admit = [this](Operation operation) { return shared_->admit(operation); };
    live(place_);
  }
  const Nanos deadline = monotonic_now() + kPatience;
  while (server_ > 0 && !is_mounted(place_)) {
    if (::waitpid(server_, nullptr, WNOHANG) == server_ || monotonic_now() > deadline) {
      throw std::system_error(EIO, std::generic_category(), "the faulty backend on " + place_);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

FaultyBackend::~FaultyBackend() {
  ::kill(server_, SIGKILL);
  ::waitpid(server_, nullptr, 0);
  ::umount2(place_.c_str(), MNT_DETACH);
  ::munmap(shared_, sizeof(Shared));
}

void FaultyBackend::hang(Operation operation) {
  shared_->behaviour.at(static_cast<std::size_t>(operation)) = Shared::kHang;
}

void FaultyBackend::delay(Operation operation, std::chrono::milliseconds time) {
  shared_->behaviour.at(static_cast<std::size_t>(operation)) =
      Shared::kHang - static_cast<int>(time.count());
}

void FaultyBackend::fail(Operation operation, int error) {
  shared_->behaviour.at(static_cast<std::size_t>(operation)) = error;
}

void FaultyBackend::fail_once(Operation operation, int error) {
  shared_->fails_once.at(static_cast<std::size_t>(operation)) = error;
}

void FaultyBackend::hang() {
  for (std::size_t index = 0; index < kOperations; ++index) {
    const auto operation = static_cast<Operation>(index);
    if (operation != Operation::close) hang(operation);
  }
}

void FaultyBackend::recover() {
  for (auto& behaviour : shared_->behaviour) behaviour = 0;
}

void FaultyBackend::stop_process() {
  ::kill(server_, SIGSTOP);
  // Until the last of its threads has stopped, calls are answered.
  ::waitpid(server_, nullptr, WUNTRACED);
}

void FaultyBackend::continue_process() {
  ::kill(server_, SIGCONT);
}

std::size_t FaultyBackend::hanging() const {
  return shared_->hanging;
}

std::size_t FaultyBackend::calls(Operation operation) const {
  return shared_->calls.at(static_cast<std::size_t>(operation));
}

}  // namespace ncfs
