#include "tools/ctl_status.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <thread>
#include <utility>

#include "fuse_adapter/control_socket.h"
#include "fuse_adapter/mount_table.h"
#include "tools/ctl_common.h"
#include "tools/status_view.h"

namespace ncfs::ctl {
namespace {

using nlohmann::json;

// One round over all mounts; keeps what it was told in `previous`.
int show_status(const std::vector<KnownMount>& mounts, bool as_json, bool is_single,
                double seconds_since, std::map<std::string, json>& previous) {
  int result = kOk;
  json all = json::array();
  std::string text;
  for (const KnownMount& mount : mounts) {
    json status;
    if (const std::string error = ask_status(mount, status); !error.empty()) {
      result = fail(kNoMount, fmt::format("{}: {}", name_of(mount), error));
      continue;
    }
    const auto before = previous.find(mount.socket_path);
    if (before != previous.end()) use_recent_rates(status, before->second, seconds_since);
    previous[mount.socket_path] = status;
    text += (text.empty() ? "" : "\n") + status_text(status);
    all.push_back(std::move(status));
  }
  if (as_json) {
    const json& shown = is_single && !all.empty() ? all[0] : all;
    if (!is_single || !all.empty()) fmt::print("{}\n", shown.dump(seconds_since > 0 ? -1 : 2));
  } else {
    fmt::print("{}", text);
  }
  std::fflush(stdout);
  return result;
}

}  // namespace

int list(bool as_json) {
  json rows = json::array();
  bool all_answer = true;
  for (const KnownMount& mount : known_mounts(read_mount_table(), kControlDirectory)) {
    json status = json::object();
    const std::string error = ask_status(mount, status);
    // A socket without a mount or a daemon is what a kill left.
    if (!error.empty() && mount.mountpoint.empty()) continue;
    all_answer = all_answer && error.empty();
    rows.push_back({{"mountpoint", status.value("mountpoint", mount.mountpoint)},
                    {"backend", status.value("backend", "-")},
                    {"cache_dir", status.value("cache_dir", "-")},
                    {"pid", status.value("pid", 0)},
                    {"state", error.empty() ? status.value("state", "?") : error}});
  }
  if (as_json) {
    fmt::print("{}\n", rows.dump(2));
  } else if (rows.empty()) {
    fmt::print("no cachefs is mounted\n");
  } else {
    fmt::print("{:<24} {:<24} {:<24} {:>8}  {}\n", "MOUNTPOINT", "BACKEND", "CACHE", "PID",
               "STATE");
    for (const json& row : rows) {
      fmt::print("{:<24} {:<24} {:<24} {:>8}  {}\n", row["mountpoint"].get<std::string>(),
                 row["backend"].get<std::string>(), row["cache_dir"].get<std::string>(),
                 row["pid"].get<int>(), row["state"].get<std::string>());
    }
  }
  return all_answer ? kOk : kNoMount;
}

int status(const std::string& mountpoint, bool as_json, bool watch) {
  std::vector<KnownMount> mounts;
  if (const int failed = choose_mounts(mountpoint, mounts); failed != kOk) return failed;
  std::map<std::string, json> previous;
  const bool is_single = !mountpoint.empty();
  if (!watch) return show_status(mounts, as_json, is_single, 0, previous);
  constexpr std::chrono::seconds kInterval{1};
  while (true) {
    if (!as_json && isatty(STDOUT_FILENO) != 0) fmt::print("\033[H\033[J");
    const int result = show_status(mounts, as_json, is_single, kInterval.count(), previous);
    if (result != kOk) return result;
    std::this_thread::sleep_for(kInterval);
  }
}

}  // namespace ncfs::ctl
