#include "fuse_adapter/source_walk.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace ncfs {
namespace {

int open_beneath(int directory, const std::string& name, int flags) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const char* path = name.empty() ? "." : name.c_str();
  return static_cast<int>(syscall(SYS_openat2, directory, path, &how, sizeof how));
}

// Nothing but directories and regular files is ever opened for reading: opening a device or a pipe
// can have effects.
std::string describe(mode_t mode) {
  if (S_ISLNK(mode)) return "symbolic link";
  if (S_ISFIFO(mode)) return "named pipe";
  if (S_ISSOCK(mode)) return "socket";
  return "device";
}

WalkedFile failure(std::string path, int error) {
  WalkedFile found;
  found.kind = WalkedFile::Kind::failed;
  found.path = std::move(path);
  found.error = error;
  return found;
}

WalkedFile skip(std::string path, std::string detail) {
  WalkedFile found;
  found.kind = WalkedFile::Kind::skipped;
  found.path = std::move(path);
  found.detail = std::move(detail);
  return found;
}

}  // namespace

SourceWalk::SourceWalk(int root, std::vector<std::string> paths, Files files)
    : root_(root), files_(files), paths_(std::move(paths)) {}

SourceWalk::~SourceWalk() = default;

int SourceWalk::check(int root, const std::string& path) {
  const int handle = open_beneath(root, path, O_PATH | O_NOFOLLOW);
  if (handle < 0) return errno;
  struct stat status {};
  const int failed = fstat(handle, &status) != 0 ? errno : 0;
  close(handle);
  if (failed != 0) return failed;
  if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return EINVAL;
  const int descriptor = open_beneath(root, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return errno;
  close(descriptor);
  return 0;
}

std::optional<WalkedFile> SourceWalk::next() {
  while (true) {
    if (!levels_.empty()) {
      if (auto found = visit_next_entry()) return found;
    } else if (next_path_ < paths_.size()) {
      const std::string& path = paths_[next_path_++];
      if (auto found = visit(root_, path, path)) return found;
    } else {
      return std::nullopt;
    }
  }
}

// One entry of the deepest directory; leaves the directory after its last.
std::optional<WalkedFile> SourceWalk::visit_next_entry() {
  Level& level = levels_.back();
  errno = 0;
  const dirent* entry = readdir(level.directory.get());
  if (entry == nullptr) {
    const int error = errno;
    const std::string path = std::move(level.path);
    levels_.pop_back();
    if (error != 0) return failure(path, error);
    return std::nullopt;
  }
  const std::string name = entry->d_name;
  if (name == "." || name == "..") return std::nullopt;
  std::string path = level.path.empty() ? name : level.path + "/" + name;
  return visit(dirfd(level.directory.get()), name, std::move(path));
}

// nullopt: a directory was entered.
std::optional<WalkedFile> SourceWalk::visit(int directory, const std::string& name,
                                           const std::string& path) {
  std::optional<WalkedFile> found = try_visit(directory, name, path);
  // An NFS client that finds a name in its cache may notice only when the file is open that the
  // server has another one there; from then on it knows.
  const bool was_replaced = found && found->error == ESTALE;
  return was_replaced ? try_visit(directory, name, path) : found;
}

std::optional<WalkedFile> SourceWalk::try_visit(int directory, const std::string& name,
                                               std::string path) {
  struct stat status {};
  if (name.empty()) {
    if (fstat(directory, &status) != 0) return failure(std::move(path), errno);
  } else if (fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return failure(std::move(path), errno);
  }
  const bool is_directory = S_ISDIR(status.st_mode);
  if (!is_directory && !S_ISREG(status.st_mode)) {
    return skip(std::move(path), describe(status.st_mode));
  }
  WalkedFile found;
  found.kind = WalkedFile::Kind::file;
  if (!is_directory && files_ == Files::looked_at) {
    found.path = std::move(path);
    found.status = status;
    return found;
  }
  const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | (is_directory ? O_DIRECTORY : 0);
  const int descriptor = open_beneath(directory, name, flags);
  if (descriptor < 0) return failure(std::move(path), errno);
  if (is_directory) return enter(descriptor, std::move(path));
  found.path = std::move(path);
  found.descriptor = descriptor;
  // What was opened counts, not what had this name before.
  int error = fstat(descriptor, &found.status) != 0 ? errno : 0;
  if (error == 0 && !S_ISREG(found.status.st_mode)) error = ESTALE;
  if (error != 0) {
    close(descriptor);
    return failure(std::move(found.path), error);
  }
  return found;
}

std::optional<WalkedFile> SourceWalk::enter(int descriptor, std::string path) {
  DIR* directory = levels_.size() < kDepthMax ? fdopendir(descriptor) : nullptr;
  if (directory == nullptr) {
    const int error = levels_.size() < kDepthMax ? errno : ELOOP;
    close(descriptor);
    return failure(std::move(path), error);
  }
  levels_.push_back({std::unique_ptr<DIR, CloseDirectory>(directory), std::move(path)});
  return std::nullopt;
}

}  // namespace ncfs
