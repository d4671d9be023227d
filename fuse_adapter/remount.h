// Changing the options of a mount that is there: mount(8) calls the helper for `mount -o remount`
// with all options that the mount is to have, those of /etc/fstab or of the mount table included.
#pragma once

#include <string>

#include "fuse_adapter/daemon.h"
#include "fuse_adapter/mount_options.h"

namespace ncfs {

struct RemountOrder {
  std::string mountpoint;  // absolute
  std::string options;     // as they were written, `remount` among them
  UnknownOptions unknown = UnknownOptions::refuse;
  bool is_rehearsal = false;
};

// The kernel's share of the options is changed. Own options may be given as they are in force,
// which the daemon is asked for; others are an error, and change nothing. nosuid and nodev stay
// unless allow_suid and allow_dev are given.
[[nodiscard]] MountReport remount(const RemountOrder& order);

}  // namespace ncfs
