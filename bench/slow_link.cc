// slow_link: shows a directory read-only as if it were on the other side of a slow link.
//
// Every request takes one round trip. Bytes that are read share one line, first come, first served,
// so that a request is answered after  wait for the line + bytes / bandwidth + round trip.
// The kernel caches and reads ahead as it does for NFS (128 KiB ahead). What has been read over the
// link is told by the extended attributes user.slow_link.bytes and user.slow_link.reads of the
// mount point.

#include <dirent.h>
#include <fcntl.h>
#include <fuse.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace {

using Clock = std::chrono::steady_clock;

// More than any client here has requests in flight.
constexpr unsigned kThreads = 128;

class Link {
 public:
  Link(double round_trip_ms, double mib_per_second)
      : round_trip_(std::chrono::duration_cast<Clock::duration>(
            std::chrono::duration<double, std::milli>(round_trip_ms))),
        bytes_per_second_(mib_per_second * 1024 * 1024) {}

  // Returns when the answer to a request asked for now has come.
  void pass(std::uint64_t bytes = 0) {
    // A sleeping thread is woken up to 50 us late unless it asks for better.
    thread_local const bool is_precise = ::prctl(PR_SET_TIMERSLACK, 1UL) == 0;
    static_cast<void>(is_precise);
    Clock::time_point end = Clock::now();
    if (bytes > 0 && bytes_per_second_ > 0) {
      const std::lock_guard lock(mutex_);
      free_at_ = std::max(free_at_, end) +
                 std::chrono::duration_cast<Clock::duration>(
                     std::chrono::duration<double>(static_cast<double>(bytes) / bytes_per_second_));
      end = free_at_;
    }
    end += round_trip_;
    if (end > Clock::now()) std::this_thread::sleep_until(end);
  }

 private:
  Clock::duration round_trip_;
  double bytes_per_second_;
  std::mutex mutex_;
  Clock::time_point free_at_;
};

struct Tree {
  int root = -1;
  std::unique_ptr<Link> link;
  std::atomic<std::uint64_t> bytes{0};
  std::atomic<std::uint64_t> reads{0};
};
Tree tree;

const char* beneath(const char* path) {
  return path[1] == '\0' ? "." : path + 1;
}
int result(int returned) {
  return returned < 0 ? -errno : 0;
}

int get_attributes(const char* path, struct stat* attributes, fuse_file_info*) {
  tree.link->pass();
  return result(::fstatat(tree.root, beneath(path), attributes, AT_SYMLINK_NOFOLLOW));
}

int read_link(const char* path, char* target, std::size_t size) {
  tree.link->pass();
  const ssize_t length = ::readlinkat(tree.root, beneath(path), target, size - 1);
  if (length < 0) return -errno;
  target[length] = '\0';
  return 0;
}

int open_file(const char* path, fuse_file_info* info) {
  tree.link->pass();
  if ((info->flags & O_ACCMODE) != O_RDONLY) return -EROFS;
  const int file = ::openat(tree.root, beneath(path), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0) return -errno;
  info->fh = static_cast<std::uint64_t>(file);
  // Close-to-open, as over NFS: what has not changed stays in memory.
  info->keep_cache = 1;
  return 0;
}

int read_file(const char*, char* buffer, std::size_t size, off_t offset, fuse_file_info* info) {
  const ssize_t count = ::pread(static_cast<int>(info->fh), buffer, size, offset);
  if (count < 0) return -errno;
  tree.bytes += static_cast<std::uint64_t>(count);
  ++tree.reads;
  tree.link->pass(static_cast<std::uint64_t>(count));
  return static_cast<int>(count);
}

int release_file(const char*, fuse_file_info* info) {
  return result(::close(static_cast<int>(info->fh)));
}

int list(const char* path, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*,
         fuse_readdir_flags) {
  tree.link->pass();
  const int directory = ::openat(tree.root, beneath(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return -errno;
  DIR* stream = ::fdopendir(directory);
  while (const dirent* entry = ::readdir(stream)) {
    struct stat attributes {};
    attributes.st_ino = entry->d_ino;
    attributes.st_mode = static_cast<mode_t>(DTTOIF(entry->d_type));
    if (fill(buffer, entry->d_name, &attributes, 0, fuse_fill_dir_flags{}) != 0) break;
  }
  ::closedir(stream);
  return 0;
}

int file_system(const char*, struct statvfs* answer) {
  tree.link->pass();
  return result(::fstatvfs(tree.root, answer));
}

int get_attribute(const char*, const char* name, char* value, std::size_t size) {
  const std::string asked = name;
  std::string answer;
  if (asked == "user.slow_link.bytes") answer = std::to_string(tree.bytes);
  if (asked == "user.slow_link.reads") answer = std::to_string(tree.reads);
  if (answer.empty()) return -ENODATA;
  if (size == 0) return static_cast<int>(answer.size());
  if (size < answer.size()) return -ERANGE;
  std::memcpy(value, answer.data(), answer.size());
  return static_cast<int>(answer.size());
}

void* begin(fuse_conn_info*, fuse_config* config) {
  config->use_ino = 1;
  config->entry_timeout = config->attr_timeout = 3;  // the least of nfs(5), acregmin
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Shows DIRECTORY read-only at MOUNTPOINT as if it were across a slow link.");
  std::string directory;
  std::string mountpoint;
  double round_trip_ms = 0;
  double mib_per_second = 0;
  app.add_option("directory", directory)->required();
  app.add_option("mountpoint", mountpoint)->required();
  app.add_option("--round-trip-ms", round_trip_ms, "time added to each request [0]")
      ->check(CLI::Range(0.0, 10000.0));
  app.add_option("--mib-per-s", mib_per_second, "bandwidth of the link [0, no limit]")
      ->check(CLI::Range(0.0, 1e6));
  CLI11_PARSE(app, argc, argv);

  tree.root = ::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (tree.root < 0) {
    std::fprintf(stderr, "slow_link: %s: %s\n", directory.c_str(), std::strerror(errno));
    return 1;
  }
  tree.link = std::make_unique<Link>(round_trip_ms, mib_per_second);

  fuse_operations operations{};
  operations.getattr = get_attributes;
  operations.readlink = read_link;
  operations.open = open_file;
  operations.read = read_file;
  operations.release = release_file;
  operations.readdir = list;
  operations.statfs = file_system;
  operations.getxattr = get_attribute;
  operations.init = begin;

  std::array words = {argv[0], const_cast<char*>("-oro,fsname=slow_link,allow_other")};
  fuse_args arguments = FUSE_ARGS_INIT(static_cast<int>(words.size()), words.data());
  fuse* file_system = fuse_new(&arguments, &operations, sizeof(operations), nullptr);
  if (file_system == nullptr || fuse_mount(file_system, mountpoint.c_str()) != 0) return 1;
  fuse_set_signal_handlers(fuse_get_session(file_system));
  fuse_loop_config* loop = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(loop, kThreads);
  fuse_loop_cfg_set_idle_threads(loop, kThreads);
  const int ended = fuse_loop_mt(file_system, loop);
  fuse_loop_cfg_destroy(loop);
  fuse_unmount(file_system);
  fuse_destroy(file_system);
  return ended == 0 ? 0 : 1;
}
