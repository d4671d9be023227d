// nfs-cachefs-ctl: what the daemons of the cachefs mounts of this machine do, what they keep, and
// how much.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "fuse_adapter/control_socket.h"
#include "fuse_adapter/mount_table.h"
#include "tools/control_client.h"
#include "tools/status_view.h"
#include "tools/text_format.h"

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

int warm_mount(const KnownMount& mount, const std::vector<std::string>& paths, bool wait,
               bool pin) {
  ControlClient client(ControlClient::kWarmDeadline);
  json reply;
  std::string error = client.connect(mount.socket_path);
  if (!error.empty()) return fail(kNoMount, fmt::format("{}: {}", mount.mountpoint, error));
  error = client.ask({{"command", "warm"}, {"paths", paths}, {"wait", wait}, {"pin", pin}}, reply);
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

struct MountAndPaths {
  KnownMount mount;
  std::vector<std::string> paths;
};

// The paths by their mounts. What is in the cache may be gone from the backend: then only the names
// above have to exist.
int sort_paths(const std::vector<std::string>& paths, bool must_exist,
               std::map<std::string, MountAndPaths>& by_mount) {
  const auto table = read_mount_table();
  for (const std::string& path : paths) {
    std::error_code failed;
    std::string real = must_exist ? std::filesystem::canonical(path, failed)
                                  : std::filesystem::weakly_canonical(path, failed);
    if (failed) return fail(kUsage, fmt::format("{}: {}", path, failed.message()));
    const PathInMount found = locate(table, kControlDirectory, real);
    if (!found.error.empty()) return fail(kNoMount, found.error);
    MountAndPaths& entry = by_mount[found.mount.mountpoint];
    entry.mount = found.mount;
    entry.paths.push_back(found.path);
  }
  return kOk;
}

int verify(const std::vector<std::string>& paths, bool wait) {
  std::map<std::string, MountAndPaths> by_mount;
  int result = sort_paths(paths, true, by_mount);
  if (result != kOk) return result;
  for (const auto& [mountpoint, entry] : by_mount) {
    const int status = verify_mount(entry.mount, entry.paths, wait);
    if (status != kOk) result = status;
  }
  if (!paths.empty()) return result;
  std::string error;
  const auto mounts = chosen_mounts("", error);
  if (!error.empty()) return fail(kNoMount, error);
  for (const KnownMount& mount : mounts) {
    const int status = verify_mount(mount, {}, wait);
    if (status != kOk) result = status;
  }
  return result;
}

int warm(const std::vector<std::string>& paths, bool wait, bool pin) {
  std::map<std::string, MountAndPaths> by_mount;
  int result = sort_paths(paths, true, by_mount);
  if (result != kOk) return result;
  for (const auto& [mountpoint, entry] : by_mount) {
    const int status = warm_mount(entry.mount, entry.paths, wait, pin);
    if (status != kOk) result = status;
  }
  return result;
}

// One question, one answer.
int ask_mount(const KnownMount& mount, const json& request, json& reply) {
  ControlClient client(ControlClient::kWarmDeadline);
  std::string error = client.connect(mount.socket_path);
  if (error.empty()) error = client.ask(request, reply);
  if (error.empty()) return kOk;
  const bool is_refused = reply.is_object() && reply.contains("error");
  return fail(is_refused ? kSomeFailed : kNoMount, fmt::format("{}: {}", name_of(mount), error));
}

std::string count_text(const json& reply, const char* what) {
  return fmt::format("{} files ({})", reply[what].value("files", std::uint64_t{0}),
                     human_size(reply[what].value("bytes", std::uint64_t{0})));
}

int evict_mount(const KnownMount& mount, const std::vector<std::string>& paths,
                std::uint64_t idle_seconds) {
  json reply;
  const int status = ask_mount(
      mount, {{"command", "evict"}, {"paths", paths}, {"idle_seconds", idle_seconds}}, reply);
  if (status != kOk) return status;
  fmt::print("{}: {} evicted; left alone: {} in use, {} pinned; {} failed\n", name_of(mount),
             count_text(reply, "evicted"), count_text(reply, "in_use"), count_text(reply, "pinned"),
             count_text(reply, "failed"));
  return reply["failed"].value("files", 0) == 0 ? kOk : kSomeFailed;
}

int evict(const std::vector<std::string>& paths) {
  std::map<std::string, MountAndPaths> by_mount;
  int result = sort_paths(paths, false, by_mount);
  if (result != kOk) return result;
  for (const auto& [mountpoint, entry] : by_mount) {
    const int status = evict_mount(entry.mount, entry.paths, 0);
    if (status != kOk) result = status;
  }
  return result;
}

int unpin(const std::vector<std::string>& paths) {
  std::map<std::string, MountAndPaths> by_mount;
  int result = sort_paths(paths, false, by_mount);
  if (result != kOk) return result;
  for (const auto& [mountpoint, entry] : by_mount) {
    json reply;
    const int status =
        ask_mount(entry.mount, {{"command", "unpin"}, {"paths", entry.paths}}, reply);
    if (status == kOk) {
      fmt::print("{}: {} unpinned\n", mountpoint, count_text(reply, "unpinned"));
    } else {
      result = status;
    }
  }
  return result;
}

// "7d" in seconds; nothing if it is no such age.
std::optional<std::uint64_t> parse_age(const std::string& text) {
  static const std::map<char, std::uint64_t> kUnits = {
      {'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 7 * 86400}};
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  // Nine digits of weeks do not overflow.
  if (digits == 0 || digits > 9 || digits + 1 != text.size()) return std::nullopt;
  const auto unit = kUnits.find(text.back());
  if (unit == kUnits.end()) return std::nullopt;
  return std::stoull(text.substr(0, digits)) * unit->second;
}

int clean(const std::string& mountpoint, const std::string& age) {
  const auto seconds = parse_age(age);
  if (!seconds) {
    return fail(kUsage, fmt::format("--older-than {}: must be a number with a unit, s, m, h, d or "
                                    "w, such as 12h or 7d",
                                    age));
  }
  std::string error;
  const auto mounts = chosen_mounts(mountpoint, error);
  if (!error.empty()) return fail(kNoMount, error);
  int result = kOk;
  for (const KnownMount& mount : mounts) {
    if (mount.mountpoint.empty()) continue;  // of another namespace
    const int status = evict_mount(mount, {mount.mountpoint}, *seconds);
    if (status != kOk) result = status;
  }
  return result;
}

int set_limit(const std::string& mountpoint, const std::string& size) {
  std::string error;
  const auto mounts = chosen_mounts(mountpoint, error);
  if (!error.empty()) return fail(kNoMount, error);
  json reply;
  const int status = ask_mount(mounts[0], {{"command", "limit"}, {"size", size}}, reply);
  if (status != kOk) return status == kSomeFailed ? kUsage : status;
  fmt::print("{}: the limit is {} until the next mount, it was {}\n", name_of(mounts[0]),
             human_size(reply.value("limit_bytes", std::uint64_t{0})),
             human_size(reply.value("previous_bytes", std::uint64_t{0})));
  const auto above = reply.value("above_bytes", std::uint64_t{0});
  if (above > 0) {
    fmt::print(
        "{} above it are open, being copied or pinned; nothing new is cached until they "
        "are gone\n",
        human_size(above));
  }
  return kOk;
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
  std::string size;
  CLI::App* limit_command = app.add_subcommand(
      "limit", "change the hard limit of a mounted cache, until it is unmounted");
  limit_command->add_option("mountpoint", mountpoint, "the mount, or a path in it")->required();
  limit_command->add_option("size", size, "as the mount option cache_size: 500M, 50G")->required();
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

  CLI::App* pin_command = cache_command->add_subcommand(
      "pin", "copy files and directory trees into the cache and keep them there");
  pin_command->add_option("path", paths, "files or directories in a cachefs mount")->required();
  pin_command->add_flag("--wait", wait, "show progress, return when all is done, tell the totals");
  CLI::App* unpin_command =
      cache_command->add_subcommand("unpin", "let pinned files and trees be evicted again");
  unpin_command->add_option("path", paths, "files or directories in a cachefs mount")->required();
  CLI::App* evict_command = cache_command->add_subcommand(
      "evict", "drop files and trees that nobody uses from the cache");
  evict_command->add_option("path", paths, "files or directories in a cachefs mount")->required();
  std::string age;
  CLI::App* clean_command =
      cache_command->add_subcommand("clean", "drop what was not used for some time");
  clean_command->add_option("--older-than", age, "12h, 7d: not used for so long")->required();
  clean_command->add_option("mountpoint", mountpoint, "the mount, or a path in it; else all");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return fail(kUsage, fmt::format("{}; see nfs-cachefs-ctl --help", error.what()));
  }
  if (*list_command) return list(as_json);
  if (*status_command) return status(mountpoint, as_json, watch);
  if (*verify_command) return verify(paths, wait);
  if (*limit_command) return set_limit(mountpoint, size);
  if (*unpin_command) return unpin(paths);
  if (*evict_command) return evict(paths);
  if (*clean_command) return clean(mountpoint, age);
  return warm(paths, wait, pin_command->parsed());
}

}  // namespace
}  // namespace ncfs

int main(int argc, char** argv) {
  return ncfs::run(argc, argv);
}
