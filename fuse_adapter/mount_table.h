// What is mounted where, as /proc/self/mountinfo tells it (see proc_pid_mountinfo(5)).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ncfs {

// Type of our mounts in the mount table.
inline constexpr std::string_view kMountType = "fuse.cachefs";

struct MountEntry {
  std::string device;  // "major:minor"; equal for bind mounts of one file system
  std::string root;    // directory of that file system which is mounted; "/" but for binds
  std::string mountpoint;
  std::string type;
  std::string options;  // those of the file system, separated by commas
};

// Lines that are not as documented are left out.
[[nodiscard]] std::vector<MountEntry> parse_mount_table(std::string_view mountinfo);

// That of this process; empty if /proc is not mounted.
[[nodiscard]] std::vector<MountEntry> read_mount_table();

// The mount that `path`, absolute and free of symbolic links, lies in: the last one with the
// longest mount point, as it hides the others. Null if there is none.
[[nodiscard]] const MountEntry* find_mount(const std::vector<MountEntry>& mounts,
                                           std::string_view path);

// Whether `path` lies in a mount point, other than one of ours, that a text as of fstab(5) names
// and where nothing is mounted.
[[nodiscard]] bool lies_in_missing_mount(const std::string& fstab,
                                         const std::vector<MountEntry>& mounts,
                                         std::string_view path);

// Whether `path` is `directory` or lies beneath it. Both absolute and normal.
[[nodiscard]] bool is_within(std::string_view path, std::string_view directory);

}  // namespace ncfs
