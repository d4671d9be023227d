#include "tools/ctl_status.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <thread>
#include <utility>

#include "fuse_adapter/control_socket.h"
#include "fuse_adapter/mount_table.h"
#include "tools/ctl_cache.h"
#include "tools/ctl_common.h"
#include "tools/metrics_view.h"
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

int list_files(const std::vector<std::string>& paths, bool as_json) {
  std::map<std::string, MountAndPaths> by_mount;
  int result = sort_paths(paths, false, by_mount);
  if (result != kOk) return result;
  if (paths.empty()) {
    std::vector<KnownMount> mounts;
    if (const int failed = choose_mounts("", mounts); failed != kOk) return failed;
    for (const KnownMount& mount : mounts) by_mount[name_of(mount)] = {mount, {""}};
  }
  Output output(as_json);
  for (const auto& [name, entry] : by_mount) {
    std::vector<json> files;
    int failed = kOk;
    for (const std::string& path : entry.paths) {
      const std::size_t known = files.size();
      if (failed == kOk) failed = ask_files(entry.mount, path, files);
      std::error_code error;
      if (failed == kOk && files.size() == known && !path.empty() &&
          !std::filesystem::exists(std::filesystem::path(name) / path, error)) {
        result =
            fail(kUsage, fmt::format("{}/{}: neither in the cache nor on the backend", name, path));
      }
    }
    if (failed != kOk) {
      result = failed;
      continue;
    }
    output.add(entry.mount, {{"files", files}}, files_text(files));
  }
  output.end();
  return result;
}

int explain(const std::string& path, bool as_json) {
  std::map<std::string, MountAndPaths> by_mount;
  if (const int failed = sort_paths({path}, true, by_mount); failed != kOk) return failed;
  const MountAndPaths& entry = by_mount.begin()->second;
  if (std::filesystem::is_directory(path)) {
    return fail(kUsage,
                fmt::format("{}: a directory; nfs-cachefs-ctl ls lists what is in it", path));
  }
  std::vector<json> files;
  if (const int failed = ask_files(entry.mount, entry.paths[0], files); failed != kOk) {
    return failed;
  }
  Output output(as_json);
  output.add(entry.mount, {{"path", entry.paths[0]}, {"versions", files}},
             entry.paths[0] + "\n" + explanation_text(files));
  output.end();
  return kOk;
}

int config_show(const std::string& mountpoint, bool as_json) {
  std::vector<KnownMount> mounts;
  int result = choose_mounts(mountpoint, mounts);
  if (result != kOk) return result;
  Output output(as_json);
  for (const KnownMount& mount : mounts) {
    ControlReply reply;
    const int failed = ask(mount, "GET", "/v1/config", nullptr, reply);
    if (failed == kOk) output.add(mount, reply.value, config_text(reply.value));
    if (failed != kOk) result = failed;
  }
  output.end();
  return result;
}

// Says why an option cannot be set.
static int refuse_option(const KnownMount& mount, const std::string& name) {
  ControlReply reply;
  if (const int failed = ask(mount, "GET", "/v1/config", nullptr, reply); failed != kOk) {
    return failed;
  }
  std::string hot;
  bool is_known = false;
  for (const json& option : reply.value["options"]) {
    is_known = is_known || option.value("name", "") == name;
    if (option.value("hot", false)) hot += (hot.empty() ? "" : ", ") + option.value("name", "");
  }
  return fail(kUsage, fmt::format("{}: {}; what can be changed while mounted: {}", name,
                                  is_known ? "is changed only by mounting again with it"
                                           : "there is no such option",
                                  hot));
}

static int set_access_log(const KnownMount& mount, const std::string& value, bool as_json) {
  if (value != "true" && value != "false") {
    return fail(kUsage, fmt::format("access_log {}: must be true or false", value));
  }
  ControlReply reply;
  const int failed = ask(mount, "PUT", "/v1/access-log", {{"on", value == "true"}}, reply);
  if (failed != kOk) return failed;
  Output output(as_json);
  output.add(mount, reply.value,
             value == "true" ? "every open is logged until the next mount\n"
                             : "opens are logged at level debug only, until the next mount\n");
  output.end();
  return kOk;
}

static int set_copy_rate(const KnownMount& mount, const std::string& value, bool as_json) {
  std::uint64_t rate = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), rate);
  if (error != std::errc{} || end != value.data() + value.size()) {
    return fail(kUsage, fmt::format("copy_rate_mb {}: must be a whole number of MiB a second, or 0",
                                    value));
  }
  ControlReply reply;
  const int failed = ask(mount, "PUT", "/v1/copy-rate", {{"mebibytes_per_second", rate}}, reply);
  if (failed != kOk) return reply.status == 400 ? kUsage : failed;
  Output output(as_json);
  output.add(mount, reply.value,
             rate == 0
                 ? "copies have no ceiling until the next mount\n"
                 : fmt::format("copies read at most {} MiB a second until the next mount\n", rate));
  output.end();
  return kOk;
}

int config_set(const std::string& mountpoint, const std::string& name, const std::string& value,
               bool as_json) {
  if (name == "cache_size") return set_limit(mountpoint, value, as_json);
  std::vector<KnownMount> mounts;
  if (const int failed = choose_mounts(mountpoint, mounts); failed != kOk) return failed;
  ControlReply reply;
  if (name == "access_log") return set_access_log(mounts[0], value, as_json);
  if (name == "copy_rate_mb") return set_copy_rate(mounts[0], value, as_json);
  if (name != "log_level") return refuse_option(mounts[0], name);
  const int failed = ask(mounts[0], "PUT", "/v1/log-level", {{"level", value}}, reply);
  if (failed != kOk) return reply.status == 400 ? kUsage : failed;
  Output output(as_json);
  output.add(mounts[0], reply.value,
             fmt::format("logs at level {} until the next mount, it was {}\n", value,
                         reply.value.value("previous", "?")));
  output.end();
  return kOk;
}

int health_check(const std::string& mountpoint, bool is_strict, bool as_json) {
  std::vector<KnownMount> mounts;
  if (const int failed = choose_mounts(mountpoint, mounts); failed != kOk) return failed;
  Output output(as_json);
  int result = kOk;
  for (const KnownMount& mount : mounts) {
    ControlReply reply;
    const int failed =
        ask(mount, "GET", "/v1/health", nullptr, reply, ControlClient::kStatusDeadline);
    if (failed != kOk) {
      result = failed;
      continue;
    }
    output.add(mount, reply.value, health_text(reply.value));
    const std::string state = reply.value.value("state", "");
    const bool is_well = state == "ok" || (state == "warning" && !is_strict);
    if (!is_well && result == kOk) result = kSomeFailed;
  }
  output.end();
  return result;
}

int metrics_export(const std::string& mountpoint, bool as_json) {
  std::vector<KnownMount> mounts;
  if (const int failed = choose_mounts(mountpoint, mounts); failed != kOk) return failed;
  std::vector<std::string> texts;
  int result = kOk;
  for (const KnownMount& mount : mounts) {
    ControlReply reply;
    const int failed =
        ask(mount, "GET", "/metrics", nullptr, reply, ControlClient::kStatusDeadline);
    if (failed == kOk) texts.push_back(reply.text);
    if (failed != kOk) result = failed;
  }
  const std::string merged = merge_metrics(texts);
  fmt::print("{}", as_json ? metrics_json(merged).dump(2) + "\n" : merged);
  return result;
}

}  // namespace ncfs::ctl
