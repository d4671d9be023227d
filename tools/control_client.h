// Finds the daemons of mounts and talks to them; the protocol is in fuse_adapter/control_server.h.
#pragma once

#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fuse_adapter/mount_table.h"

namespace ncfs {

class ControlClient {
 public:
  // A daemon tells its status from memory. For a warm-up it first looks at the paths, for at most
  // half a minute.
  static constexpr std::chrono::seconds kStatusDeadline{10};
  static constexpr std::chrono::seconds kWarmDeadline{60};

  explicit ControlClient(std::chrono::seconds reply_deadline) : reply_deadline_(reply_deadline) {}
  ~ControlClient();
  ControlClient(const ControlClient&) = delete;
  ControlClient& operator=(const ControlClient&) = delete;

  // All return an empty text, or what went wrong. Replies with "ok":false are errors, too.
  [[nodiscard]] std::string connect(const std::string& socket_path);
  [[nodiscard]] std::string send(const nlohmann::json& request);
  [[nodiscard]] std::string receive(nlohmann::json& reply);
  [[nodiscard]] std::string ask(const nlohmann::json& request, nlohmann::json& reply);

 private:
  // Whether the socket is ready for `events` of poll(2) in time.
  [[nodiscard]] bool await(short events) const;

  const std::chrono::seconds reply_deadline_;
  int socket_ = -1;
  std::string input_;
};

struct KnownMount {
  std::string mountpoint;
  std::string socket_path;
};

// The cachefs mounts of the table (of binds only the original), and in addition the sockets that
// belong to none: mounts seen only by other mount namespaces, their mount point not known.
[[nodiscard]] std::vector<KnownMount> known_mounts(const std::vector<MountEntry>& table,
                                                   const std::string& directory);

// The mount that `path`, absolute and without links, lies in, and its name there.
struct PathInMount {
  KnownMount mount;
  std::string path;   // absolute, beneath mount.mountpoint
  std::string error;  // not empty: it lies in no cachefs mount
};
[[nodiscard]] PathInMount locate(const std::vector<MountEntry>& table, const std::string& directory,
                                 const std::string& path);

}  // namespace ncfs
