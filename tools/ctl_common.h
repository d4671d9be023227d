// What the commands of nfs-cachefs-ctl share: exit statuses, the choice of mounts, questions to
// daemons, and what is printed.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/control_client.h"

namespace ncfs::ctl {

constexpr int kOk = 0;
constexpr int kUsage = 1;
constexpr int kNoMount = 2;  // no such mount, or its daemon does not answer
constexpr int kSomeFailed =
    3;                      // refused, some files failed or were damaged, or something is unwell
constexpr int kDenied = 4;  // only root may do this

// Prints one line on stderr; returns `status`.
int fail(int status, const std::string& message);

// How a mount is named: by its mount point or, if that is not known, by its socket.
[[nodiscard]] std::string name_of(const KnownMount& mount);

// Asks and, if that fails, says so with the mount's name. An exit status.
int ask(const KnownMount& mount, std::string_view method, const std::string& target,
        const nlohmann::json& body, ControlReply& reply,
        std::chrono::seconds deadline = ControlClient::kWorkDeadline);

// The status of a mount; empty, or why there is none. Says nothing.
[[nodiscard]] std::string ask_status(const KnownMount& mount, nlohmann::json& status);

// The mounts a command is about: the one of `mountpoint`, or all. Says what is wrong.
int choose_mounts(const std::string& mountpoint, std::vector<KnownMount>& mounts);

struct MountAndPaths {
  KnownMount mount;
  std::vector<std::string> paths;
};
// The paths by their mounts. Without `must_exist` only the names above have to: what is in the
// cache may be gone from the backend. Says what is wrong.
int sort_paths(const std::vector<std::string>& paths, bool must_exist,
               std::map<std::string, MountAndPaths>& by_mount);

// All files the cache of a mount knows at and beneath `path` ("" is everything), sorted by path.
int ask_files(const KnownMount& mount, const std::string& path, std::vector<nlohmann::json>& files);

// What a command found out about each mount, as text at once or as one JSON array at the end.
class Output {
 public:
  explicit Output(bool as_json) : as_json_(as_json) {}
  void add(const KnownMount& mount, nlohmann::json value, const std::string& text);
  void end() const;

 private:
  const bool as_json_;
  nlohmann::json rows_ = nlohmann::json::array();
};

}  // namespace ncfs::ctl
