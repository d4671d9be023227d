#include "fuse_adapter/access_times.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <ctime>
#include <tuple>

namespace ncfs {
namespace {

// relatime_need_update() of Linux's fs/inode.c.
constexpr std::time_t kRelativeMax = 24 * 60 * 60;

bool is_before(const timespec& one, const timespec& other) {
  return std::tie(one.tv_sec, one.tv_nsec) < std::tie(other.tv_sec, other.tv_nsec);
}

bool lists(std::string_view flags, std::string_view flag) {
  while (!flags.empty()) {
    const std::string_view first = flags.substr(0, flags.find(','));
    if (first == flag) return true;
    flags.remove_prefix(std::min(first.size() + 1, flags.size()));
  }
  return false;
}

}  // namespace

AccessTimes::AccessTimes(unsigned long mount_flags) : flags_(mount_flags) {}

void AccessTimes::source_found(int root, bool is_on_network) {
  struct statvfs status {};
  is_local_ = !is_on_network;
  source_moves_them_ = !is_on_network && ::fstatvfs(root, &status) == 0 &&
                       (status.f_flag & static_cast<unsigned long>(ST_NOATIME | ST_RDONLY)) == 0;
}

void AccessTimes::follow(std::string_view flags) {
  unsigned long known = 0;
  if (lists(flags, "ro")) known |= MS_RDONLY;
  if (lists(flags, "nodiratime")) known |= MS_NODIRATIME;
  if (lists(flags, "noatime")) {
    known |= MS_NOATIME;
  } else if (!lists(flags, "relatime")) {
    known |= MS_STRICTATIME;
  }
  flags_ = known;
}

bool AccessTimes::are_kept(bool of_directory) const {
  const unsigned long flags = flags_.load(std::memory_order_relaxed);
  return (flags & (MS_RDONLY | MS_NOATIME)) != 0 || (of_directory && (flags & MS_NODIRATIME) != 0);
}

bool AccessTimes::move_always() const {
  return (flags_.load(std::memory_order_relaxed) & MS_STRICTATIME) != 0 && !are_kept(false) &&
         is_local_.load(std::memory_order_relaxed);
}

bool AccessTimes::is_due(const struct stat& attributes) const {
  if (are_kept(false) || !is_local_.load(std::memory_order_relaxed)) return false;
  if (move_always()) return true;
  if (!source_moves_them_.load(std::memory_order_relaxed)) return false;
  return !is_before(attributes.st_mtim, attributes.st_atim) ||
         !is_before(attributes.st_ctim, attributes.st_atim) ||
         std::time(nullptr) - attributes.st_atim.tv_sec >= kRelativeMax;
}

Descriptor mounted_anew(int file, std::uint64_t atime_attribute) {
  Descriptor mount(::open_tree(file, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!mount.is_open()) return {};
  struct mount_attr attributes {};
  attributes.attr_set = atime_attribute;
  attributes.attr_clr = MOUNT_ATTR__ATIME;
  if (::mount_setattr(mount.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
    return {};
  }
  return mount;
}

}  // namespace ncfs
