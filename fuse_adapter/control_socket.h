// Where the daemon of a mount listens for nfs-cachefs-ctl.
//
// The protocol is HTTP; see control_server.h.
#pragma once

#include <string>
#include <string_view>

namespace ncfs {

// Everybody may connect; the credentials decide what is answered.
inline constexpr const char* kControlDirectory = "/run/nfs-cachefs";

// <directory>/<name>.sock, the name made from the mount point as systemd-escape --path does it.
// Names that would not fit into a socket address (108 bytes) are cut and end in a digest.
[[nodiscard]] std::string control_socket_path(std::string_view directory,
                                              std::string_view mountpoint);

}  // namespace ncfs
