#include "fuse_adapter/source_tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string_view>

namespace ncfs {
namespace {

// One system call for a run of components; the kernel allows none to leave the start.
int open_beneath(int start, const std::string& path, int flags) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(O_PATH | O_NOFOLLOW | O_CLOEXEC | flags);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(::syscall(SYS_openat2, start, path.c_str(), &how, sizeof(how)));
}

// A path may be longer than the kernel takes at once.
Descriptor walk(int root, std::string_view path, int& error) {
  Descriptor directory;
  int start = root;
  while (path.size() >= PATH_MAX) {
    const std::size_t end = path.rfind('/', PATH_MAX - 1);
    directory = Descriptor(open_beneath(start, std::string(path.substr(0, end)), O_DIRECTORY));
    if (!directory.is_open()) {
      error = errno;
      return directory;
    }
    start = directory.get();
    path.remove_prefix(end + 1);
  }
  Descriptor file(open_beneath(start, path.empty() ? "." : std::string(path), 0));
  error = file.is_open() ? 0 : errno;
  return file;
}

}  // namespace

int stat_at(int directory, const char* name, int flags, struct stat& attributes) {
  struct statx known {};
  if (::statx(directory, name, flags, STATX_BASIC_STATS, &known) != 0) return errno;
  const auto time = [](const statx_timestamp& stamp) {
    return timespec{.tv_sec = stamp.tv_sec, .tv_nsec = stamp.tv_nsec};
  };
  attributes = {};
  attributes.st_dev = makedev(known.stx_dev_major, known.stx_dev_minor);
  attributes.st_ino = known.stx_ino;
  attributes.st_mode = known.stx_mode;
  attributes.st_nlink = known.stx_nlink;
  attributes.st_uid = known.stx_uid;
  attributes.st_gid = known.stx_gid;
  attributes.st_rdev = makedev(known.stx_rdev_major, known.stx_rdev_minor);
  attributes.st_size = static_cast<off_t>(known.stx_size);
  attributes.st_blksize = static_cast<blksize_t>(known.stx_blksize);
  attributes.st_blocks = static_cast<blkcnt_t>(known.stx_blocks);
  attributes.st_atim = time(known.stx_atime);
  attributes.st_mtim = time(known.stx_mtime);
  attributes.st_ctim = time(known.stx_ctime);
  return 0;
}

FoundFile SourceTree::find_whatever_is_at(const std::string& path, const Caller& caller,
                                          int sync) const {
  if (sync != AT_STATX_DONT_SYNC) stats_.source_looks.add();
  FoundFile found;
  found.file = walk(root_, path, found.error);
  if (found.error == EACCES && caller.user != 0) {
    const CallerCredentials credentials(caller, groups_);
    if (credentials.error() == 0) found.file = walk(root_, path, found.error);
    found.as_caller = true;
  }
  const bool has_moved = found.error == ENOENT || found.error == ENOTDIR || found.error == ELOOP;
  if (has_moved) found.error = ESTALE;
  if (found.error == 0) {
    found.error = stat_at(found.file.get(), "", AT_EMPTY_PATH | sync, found.attributes);
  }
  return found;
}

FoundFile SourceTree::find(const InodeTable::Location& location, const Caller& caller,
                           int sync) const {
  FoundFile found = find_whatever_is_at(location.path, caller, sync);
  if (found.error != 0) return found;
  const FileFacts facts = FileFacts::of(found.attributes);
  if (facts.file != location.file || facts.type != location.type) found.error = ESTALE;
  return found;
}

Descriptor SourceTree::reopen(int descriptor, int flags, const Caller& caller, int& error) const {
  const CallerCredentials credentials(caller, groups_);
  error = credentials.error();
  if (error != 0) return {};
  stats_.source_looks.add();
  Descriptor file(::open(fmt::format("/proc/self/fd/{}", descriptor).c_str(), flags | O_CLOEXEC));
  error = file.is_open() ? 0 : errno;
  return file;
}

Descriptor SourceTree::reopen_to_execute(int descriptor, const Caller& caller, int& error) const {
  {
    const CallerCredentials credentials(caller, groups_);
    error = credentials.error();
    if (error != 0) return {};
    stats_.source_looks.add();
    if (::syscall(SYS_faccessat2, descriptor, "", X_OK, AT_EMPTY_PATH | AT_EACCESS) != 0) {
      error = errno;
      return {};
    }
  }
  return reopen(descriptor, O_RDONLY | O_NOCTTY, Caller{}, error);
}

}  // namespace ncfs
