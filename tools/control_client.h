// Finds the daemons of mounts and talks to them, as fuse_adapter/openapi.json describes.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "fuse_adapter/mount_table.h"

namespace ncfs {

struct ControlReply {
  unsigned status = 0;   // of HTTP; 0 if none came
  std::string text;      // the body
  nlohmann::json value;  // the body, if it is an object
};

class ControlClient {
 public:
  // A daemon tells its status from memory. When it has to look at disks, it answers within half a
  // minute.
  static constexpr std::chrono::seconds kStatusDeadline{10};
  static constexpr std::chrono::seconds kWorkDeadline{60};

  explicit ControlClient(std::chrono::seconds reply_deadline) : reply_deadline_(reply_deadline) {}
  ~ControlClient();
  ControlClient(const ControlClient&) = delete;
  ControlClient& operator=(const ControlClient&) = delete;

  // Both return an empty text, or what went wrong. Replies with a status of 400 or more are errors,
  // too. A null `body` is none.
  [[nodiscard]] std::string connect(const std::string& socket_path);
  [[nodiscard]] std::string ask(std::string_view method, std::string_view target,
                                const nlohmann::json& body, ControlReply& reply);

 private:
  [[nodiscard]] std::string send(std::string_view text) const;
  [[nodiscard]] std::string receive(ControlReply& reply) const;
  // Whether the socket is ready for `events` of poll(2) in time.
  [[nodiscard]] bool await(short events) const;

  const std::chrono::seconds reply_deadline_;
  int socket_ = -1;
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
