// nfs://server[:port]/export[/path][?option=value&...]: a tree on an NFS server, named without a
// mount.
//   version=4     the only protocol version there is
//   nconnect=N    TCP connections to the server, 1..16 [4]
//   nfsport=N     as :port
// An IPv6 address stands in brackets; %XX in the path is the byte XX.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ncfs {

struct NfsUrl {
  static constexpr std::uint32_t kConnectionsMax = 16;  // as the kernel's nconnect

  std::string server;  // a name or an address without brackets
  std::uint16_t port = 2049;
  std::vector<std::string> path;  // from the server's root
  std::uint32_t connections = 4;

  // server:port:/path, the same for all ways to write one tree: what its cached files are known by.
  [[nodiscard]] std::string name() const;
};

// What is wrong with the text, in a few words.
struct NfsUrlError {
  std::string message;
};

[[nodiscard]] bool is_nfs_url(std::string_view text);
[[nodiscard]] std::variant<NfsUrl, NfsUrlError> parse_nfs_url(std::string_view text);

}  // namespace ncfs
