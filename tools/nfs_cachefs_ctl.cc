// nfs-cachefs-ctl: what the daemons of the cachefs mounts of this machine do, and warming them.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "fuse_adapter/control_socket.h"
#include "fuse_adapter/mount_table.h"
#include "tools/control_client.h"
#include "tools/status_view.h"

namespace ncfs {
namespace {

using nlohmann::json;

constexpr int kOk = 0;
constexpr int kUsage = 1;
constexpr int kNoMount = 2;     // no such mount, or its daemon does not answer
constexpr int kSomeFailed = 3;  // some files could not be cached, or were damaged

constexpr const char* kFooter =
    "Exit status: 0 all is well, 1 wrong usage, 2 no such mount or its daemon does not answer,\n"
    "3 some files could not be cached, or were found damaged.\n";

int fail(int status, const std::string& message) {
  fmt::print(stderr, "nfs-cachefs-ctl: {}\n", message);
  return status;
}

const json& status_request() {
  static const json request = {{"command", "status"}};
  return request;
}

// Empty, or why there is no status.
std::string ask_status(const KnownMount& mount, json& status) {
  ControlClient client(ControlClient::kStatusDeadline);
  if (std::string error = client.connect(mount.socket_path); !error.empty()) return error;
  return client.ask(status_request(), status);
}

std::string name_of(const KnownMount& mount) {
  return mount.mountpoint.empty() ? mount.socket_path : mount.mountpoint;
}

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

// The mounts that `status` is about: the one of `mountpoint`, or all.
std::vector<KnownMount> chosen_mounts(const std::string& mountpoint, std::string& error) {
  const auto table = read_mount_table();
  if (mountpoint.empty()) {
    std::vector<KnownMount> mounts = known_mounts(table, kControlDirectory);
    std::erase_if(mounts, [](const KnownMount& mount) {
      json ignored;
      return mount.mountpoint.empty() && !ask_status(mount, ignored).empty();
    });
    if (mounts.empty()) error = "no cachefs is mounted";
    return mounts;
  }
  // A dead mount cannot be looked up, but its name is in the table.
  std::error_code failed;
  std::string path = std::filesystem::canonical(mountpoint, failed);
  if (failed) path = std::filesystem::absolute(mountpoint).lexically_normal();
  const PathInMount found = locate(table, kControlDirectory, path);
  error = found.error;
  return {found.mount};
}

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

int status(const std::string& mountpoint, bool as_json, bool watch) {
  std::string error;
  const auto mounts = chosen_mounts(mountpoint, error);
  if (!error.empty()) return fail(kNoMount, error);
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

// Follows a warm-up or a verification to its end; the bar is for terminals only.
std::string follow(ControlClient& client, json& reply, std::string (*progress)(const json& job)) {
  const bool is_terminal = isatty(STDOUT_FILENO) != 0;
  while (!reply.value("final", true)) {
    if (is_terminal) {
      fmt::print("\r\033[K{}", progress(reply["job"]));
      std::fflush(stdout);
    }
    if (std::string error = client.receive(reply); !error.empty()) {
      if (is_terminal) fmt::print("\n");
      return error;
    }
  }
  if (is_terminal) fmt::print("\r\033[K");
  return {};
}

int warm_mount(const KnownMount& mount, const std::vector<std::string>& paths, bool wait) {
  ControlClient client(ControlClient::kWarmDeadline);
  json reply;
  std::string error = client.connect(mount.socket_path);
  if (!error.empty()) return fail(kNoMount, fmt::format("{}: {}", mount.mountpoint, error));
  error = client.ask({{"command", "warm"}, {"paths", paths}, {"wait", wait}}, reply);
  const bool is_refused = reply.is_object() && reply.contains("error");
  if (error.empty() && wait) error = follow(client, reply, &warm_progress_text);
  if (!error.empty()) {
    return fail(is_refused ? kSomeFailed : kNoMount,
                fmt::format("{}: {}", mount.mountpoint, error));
  }
  const json& job = reply["job"];
  if (!wait) {
    fmt::print("{}: warm-up {} started; nfs-cachefs-ctl status shows how far it is\n",
               mount.mountpoint, job.value("id", 0));
    return kOk;
  }
  fmt::print("{}: {}", mount.mountpoint, warm_result_text(job));
  const bool is_complete = job["failed"].value("files", 0) == 0 && job["state"] == "done";
  return is_complete ? kOk : kSomeFailed;
}

int verify_mount(const KnownMount& mount, const std::vector<std::string>& paths, bool wait) {
  ControlClient client(ControlClient::kWarmDeadline);
  json reply;
  std::string error = client.connect(mount.socket_path);
  if (error.empty()) {
    error = client.ask({{"command", "verify"}, {"paths", paths}, {"wait", wait}}, reply);
  }
  if (error.empty() && wait) error = follow(client, reply, &verify_progress_text);
  if (!error.empty()) return fail(kNoMount, fmt::format("{}: {}", name_of(mount), error));
  const json& job = reply["job"];
  if (wait) {
    fmt::print("{}: {}", name_of(mount), verify_result_text(job));
  } else {
    fmt::print("{}: verification of {} files started; nfs-cachefs-ctl status shows how far it is\n",
               name_of(mount), job["found"].value("files", 0));
  }
  return job["damaged"].value("files", 0) == 0 ? kOk : kSomeFailed;
}

using OnMount = int (*)(const KnownMount& mount, const std::vector<std::string>& paths, bool wait);

// Each mount gets the paths that lie in it. The last failure counts.
int for_each_mount(const std::vector<std::string>& paths, bool wait, OnMount act) {
  const auto table = read_mount_table();
  std::map<std::string, std::vector<std::string>> paths_of;
  std::map<std::string, KnownMount> mounts;
  for (const std::string& path : paths) {
    std::error_code failed;
    const std::string real = std::filesystem::canonical(path, failed);
    if (failed) return fail(kUsage, fmt::format("{}: {}", path, failed.message()));
    const PathInMount found = locate(table, kControlDirectory, real);
    if (!found.error.empty()) return fail(kNoMount, found.error);
    mounts[found.mount.mountpoint] = found.mount;
    paths_of[found.mount.mountpoint].push_back(found.path);
  }
  int result = kOk;
  for (const auto& [mountpoint, mount] : mounts) {
    const int status = act(mount, paths_of[mountpoint], wait);
    if (status != kOk) result = status;
  }
  return result;
}

int verify(const std::vector<std::string>& paths, bool wait) {
  if (!paths.empty()) return for_each_mount(paths, wait, &verify_mount);
  std::string error;
  const auto mounts = chosen_mounts("", error);
  if (!error.empty()) return fail(kNoMount, error);
  int result = kOk;
  for (const KnownMount& mount : mounts) {
    const int status = verify_mount(mount, {}, wait);
    if (status != kOk) result = status;
  }
  return result;
}

int run(int argc, char** argv) {
  CLI::App app("Shows and controls the cachefs mounts of this machine. Needs root.",
               "nfs-cachefs-ctl");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("nfs-cachefs-ctl ") + NCFS_VERSION);
  app.footer(kFooter);
  bool as_json = false;
  bool watch = false;
  bool wait = false;
  std::string mountpoint;
  std::vector<std::string> paths;

  CLI::App* list_command = app.add_subcommand("list", "all cachefs mounts, one per line");
  list_command->add_flag("--json", as_json, "an array for programs");
  CLI::App* status_command =
      app.add_subcommand("status", "space, hits, copies in progress and errors");
  status_command->add_option("mountpoint", mountpoint, "the mount, or a path in it; else all");
  status_command->add_flag("--json", as_json,
                           "an object for programs, an array without mountpoint");
  status_command->add_flag("--watch", watch, "again every second, until interrupted");
  CLI::App* cache_command = app.add_subcommand("cache", "what is in the cache");
  cache_command->require_subcommand(1);
  CLI::App* warm_command =
      cache_command->add_subcommand("warm", "copy files and directory trees into the cache");
  warm_command->add_option("path", paths, "files or directories in a cachefs mount")->required();
  warm_command->add_flag("--wait", wait, "show progress, return when all is done, tell the totals");
  CLI::App* verify_command = cache_command->add_subcommand(
      "verify", "compare cached files with their checksums; what is damaged is removed");
  verify_command->add_option("path", paths, "files or directories in a cachefs mount; else all");
  verify_command->add_flag("--wait", wait,
                           "show progress, return when all is done, tell the totals");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return fail(kUsage, fmt::format("{}; see nfs-cachefs-ctl --help", error.what()));
  }
  if (*list_command) return list(as_json);
  if (*status_command) return status(mountpoint, as_json, watch);
  if (*verify_command) return verify(paths, wait);
  return for_each_mount(paths, wait, &warm_mount);
}

}  // namespace
}  // namespace ncfs

int main(int argc, char** argv) {
  return ncfs::run(argc, argv);
}
