// A mount from the first check to the last unmount, and the process that serves it.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "fuse_adapter/mount_options.h"

namespace ncfs {

// Exit statuses of mount(8).
inline constexpr int kMountOk = 0;
inline constexpr int kMountUsage = 1;   // wrong invocation or no permission
inline constexpr int kMountSystem = 2;  // out of processes, threads or memory
inline constexpr int kMountFailure = 32;

struct MountOrder {
  std::string source_name;  // first column of /proc/mounts
  std::string mountpoint;
  MountOptions options;
};

struct MountReport {
  int exit_status = kMountOk;
  std::string message;  // one line; empty if all is well
};

// Checks everything that can be checked without mounting.
[[nodiscard]] MountReport rehearse(const MountOrder& order);

// Mounts and serves in this process until somebody unmounts or SIGTERM or SIGINT comes; a second
// signal ends the process at once. `on_ready` is called once the mount answers; if it returns
// false, nobody wants the mount any more. Starts threads; logs go to spdlog's default logger.
[[nodiscard]] MountReport serve(const MountOrder& order, const std::function<bool()>& on_ready);

// Serves in a process of its own. Returns when the mount answers or has failed. To be called
// before there are threads.
[[nodiscard]] MountReport launch(const MountOrder& order);

}  // namespace ncfs
