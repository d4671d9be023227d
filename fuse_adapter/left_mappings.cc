#include "fuse_adapter/left_mappings.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <utility>

#include "fuse_adapter/open_files.h"
#include "io/descriptor.h"

namespace ncfs {
namespace {

// Whether the descriptor, which must be for reading only, is of a file that nobody can write to.
bool is_left_alone(int descriptor) {
  // Who opens the file for writing meanwhile waits for the end of the lease, and the kernel tells
  // its holder by a signal: one that is ignored.
  if (::fcntl(descriptor, F_SETSIG, SIGURG) != 0) return false;
  if (::fcntl(descriptor, F_SETLEASE, F_RDLCK) != 0) return false;
  ::fcntl(descriptor, F_SETLEASE, F_UNLCK);
  return true;
}

}  // namespace

bool tells_of_mappings(int descriptor) {
  // Not tmpfs, whose mappings store without telling it. Network file systems keep leases that say
  // nothing of this machine's mappings, or none.
  struct statfs status {};
  if (::fstatfs(descriptor, &status) != 0) return false;
  const auto type = static_cast<std::uint32_t>(status.f_type);
  return type == EXT4_SUPER_MAGIC || type == XFS_SUPER_MAGIC || type == BTRFS_SUPER_MAGIC;
}

bool LeftMappings::keep(const std::shared_ptr<OpenFile>& file) {
  // The handle's lock ends with it, and would not with its descriptor: for others who are passed
  // through the kernel may keep what that was registered with.
  ::flock(file->source, LOCK_UN);
  // Our own descriptor must not be what writes.
  const Descriptor readable(
      ::open(fmt::format("/proc/self/fd/{}", file->source).c_str(), O_RDONLY | O_CLOEXEC));
  const bool is_readable =
      readable.is_open() && ::dup3(readable.get(), file->source, O_CLOEXEC) >= 0;
  if (is_readable && is_left_alone(file->source)) return false;
  const std::lock_guard lock(mutex_);
  auto& kept = files_[file->shared->key];
  const auto is_same_node = [&file](const auto& other) { return other->node == file->node; };
  if (std::ranges::any_of(kept, is_same_node)) return false;
  kept.push_back(file);
  count_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

std::vector<std::shared_ptr<OpenFile>> LeftMappings::take(const FileKey& file) {
  if (count() == 0) return {};
  const std::lock_guard lock(mutex_);
  return take_locked(files_.find(file));
}

std::vector<std::shared_ptr<OpenFile>> LeftMappings::take_next() {
  if (count() == 0) return {};
  const std::lock_guard lock(mutex_);
  auto place = files_.upper_bound(last_);
  if (place == files_.end()) place = files_.begin();
  if (place != files_.end()) last_ = place->first;
  return take_locked(place);
}

std::vector<std::shared_ptr<OpenFile>> LeftMappings::take_locked(Files::iterator place) {
  if (place == files_.end() || !is_left_alone(place->second.front()->source)) return {};
  auto taken = std::move(place->second);
  files_.erase(place);
  count_.fetch_sub(taken.size(), std::memory_order_relaxed);
  return taken;
}

void LeftMappings::clear() {
  Files dropped;
  const std::lock_guard lock(mutex_);
  dropped.swap(files_);
  count_ = 0;
}

}  // namespace ncfs
