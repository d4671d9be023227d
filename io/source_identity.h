// Which file an open source file is, and which version of it: what everything cached is keyed by.
//
// Every part of the product that looks at source files uses this function, so that all agree on
// FileId::filesystem. It is a digest of what stays the same when a file system is mounted again,
// here or after a reboot:
//   * the file system's own id (statfs f_fsid), unless it is a network file system's, which has
//     none, or is only the number of a device;
//   * else its type, the source of its mount (server:/export) and the root within it, from
//     /proc/self/mountinfo.
// Of several mounts of one file system the alphabetically first speaks for all of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "io/types.h"

namespace ncfs {

enum class Freshness : std::uint8_t {
  as_opened,    // attributes as the file system has them: right after an open
  from_server,  // asks the server (AT_STATX_FORCE_SYNC)
};

struct SourceLook {
  int error = 0;  // errno; the rest is valid only if 0
  SourceState state;
  bool is_regular = false;
};

// `fd` may be an O_PATH descriptor. May block on a server. Any thread.
[[nodiscard]] SourceLook look_at_source(int fd, Freshness freshness);

// Whether the file system of `fd` is one of the network's, or cannot be asked. May block on a
// server.
[[nodiscard]] bool is_on_network(int fd);

// The digest for the device `major:minor` by the text of a mountinfo file; nothing if it has no
// such mount.
[[nodiscard]] std::optional<std::uint64_t> mount_digest(std::string_view mountinfo,
                                                        std::uint32_t major, std::uint32_t minor);

}  // namespace ncfs
