// When reading moves a file's time of last access (atime), by the options of the mount: ro,
// noatime, nodiratime, relatime, strictatime (mount(8)). The time is the source's: what is not to
// move it is read with O_NOATIME, and what has to although the source is mounted with relatime,
// through a mount of the one file that has strictatime.
//
// What the kernel or the cache has in memory is read without the source. On a local source one byte
// is read there, then, when its time is due. Not so on a network file system: its clients keep what
// they read as well, and do not tell the server (nfs(5)).
//
// Any thread.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <string_view>

#include "io/descriptor.h"

namespace ncfs {

class AccessTimes {
 public:
  // `mount_flags`: MS_* of mount(2).
  explicit AccessTimes(unsigned long mount_flags);

  // The source is there: O_PATH will do.
  void source_found(int root, bool is_on_network);
  // The mount has other flags now, as /proc/self/mountinfo lists them.
  void follow(std::string_view flags);

  [[nodiscard]] bool are_kept(bool of_directory) const;
  // Also where the source would not.
  [[nodiscard]] bool move_always() const;
  // Whether a read that the source does not see would move the time there.
  [[nodiscard]] bool is_due(const struct stat& attributes) const;

 private:
  std::atomic<unsigned long> flags_;
  std::atomic<bool> is_local_{false};
  std::atomic<bool> source_moves_them_{false};
};

// The same file through a mount of its own with this MOUNT_ATTR_* in place of its atime options; as
// O_PATH. Not open if the kernel refuses.
[[nodiscard]] Descriptor mounted_anew(int file, std::uint64_t atime_attribute);

}  // namespace ncfs
