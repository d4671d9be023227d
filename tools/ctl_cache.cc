#include "tools/ctl_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "tools/ctl_common.h"
#include "tools/status_view.h"
#include "tools/text_format.h"

namespace ncfs::ctl {
namespace {

using nlohmann::json;

std::string count_text(const json& reply, const char* what) {
  return fmt::format("{} files ({})", reply[what].value("files", std::uint64_t{0}),
                     human_size(reply[what].value("bytes", std::uint64_t{0})));
}

bool is_running(const json& job) {
  const std::string state = job.value("state", "");
  return state == "walking" || state == "copying" || state == "running";
}

// Looks at a job until it has ended; the bar is for terminals only. An exit status.
int follow(const KnownMount& mount, const std::string& target, ControlReply& reply,
           std::string (*progress)(const json& job)) {
  const bool is_terminal = isatty(STDERR_FILENO) != 0;
  // Short work is told of at once, long work is not asked after more than once a second.
  std::chrono::milliseconds pause{20};
  while (is_running(reply.value)) {
    if (is_terminal) fmt::print(stderr, "\r\033[K{}", progress(reply.value));
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, std::chrono::milliseconds{1000});
    if (const int status = ask(mount, "GET", target, nullptr, reply); status != kOk) return status;
  }
  if (is_terminal) fmt::print(stderr, "\r\033[K");
  return kOk;
}

int warm_mount(const MountAndPaths& entry, const WarmOptions& options, Output& output) {
  ControlReply reply;
  const json order = {{"paths", entry.paths}, {"pin", options.pin}};
  int status = ask(entry.mount, "POST", "/v1/warm", order, reply);
  if (status != kOk) return status;
  const auto id = reply.value.value("id", std::uint64_t{0});
  if (!options.wait) {
    output.add(
        entry.mount, reply.value,
        fmt::format("warm-up {} started; nfs-cachefs-ctl warm list shows how far it is\n", id));
    return kOk;
  }
  status = follow(entry.mount, fmt::format("/v1/warm/{}", id), reply, &warm_progress_text);
  if (status != kOk) return status;
  output.add(entry.mount, reply.value, warm_result_text(reply.value));
  const bool is_complete =
      reply.value["failed"].value("files", 0) == 0 && reply.value["state"] == "done";
  return is_complete ? kOk : kSomeFailed;
}

int verify_mount(const MountAndPaths& entry, bool wait, Output& output) {
  ControlReply reply;
  const json order = entry.paths.empty() ? json::object() : json{{"paths", entry.paths}};
  int status = ask(entry.mount, "POST", "/v1/verify", order, reply);
  if (status != kOk) return status;
  const auto id = reply.value.value("id", std::uint64_t{0});
  if (wait) {
    status = follow(entry.mount, fmt::format("/v1/verify/{}", id), reply, &verify_progress_text);
    if (status != kOk) return status;
  }
  const json& job = reply.value;
  output.add(entry.mount, job,
             wait ? verify_result_text(job)
                  : fmt::format("verification of {} files started; nfs-cachefs-ctl status shows "
                                "how far it is\n",
                                job["found"].value("files", 0)));
  if (job["state"] == "cancelled") return kSomeFailed;
  return job["damaged"].value("files", 0) == 0 ? kOk : kSomeFailed;
}

int evict_mount(const MountAndPaths& entry, std::uint64_t idle_seconds, Output& output) {
  ControlReply reply;
  const json order = {{"paths", entry.paths}, {"idle_seconds", idle_seconds}};
  const int status = ask(entry.mount, "POST", "/v1/evict", order, reply);
  if (status != kOk) return status;
  output.add(entry.mount, reply.value,
             fmt::format("{} evicted; left alone: {} in use, {} pinned; {} failed\n",
                         count_text(reply.value, "evicted"), count_text(reply.value, "in_use"),
                         count_text(reply.value, "pinned"), count_text(reply.value, "failed")));
  return reply.value["failed"].value("files", 0) == 0 ? kOk : kSomeFailed;
}

// Does it for every mount; the last failure counts.
template <typename Mounts, typename Work>
int for_each(const Mounts& mounts, bool as_json, Work work) {
  Output output(as_json);
  int result = kOk;
  for (const auto& mount : mounts) {
    const int status = work(mount, output);
    if (status != kOk) result = status;
  }
  output.end();
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

// The lines of the list after the paths of the command line.
std::optional<std::vector<std::string>> all_paths(const WarmOptions& options) {
  std::vector<std::string> paths = options.paths;
  if (options.list.empty()) return paths;
  std::ifstream file;
  if (options.list != "-") {
    file.open(options.list);
    if (!file) return std::nullopt;
  }
  std::istream& lines = options.list == "-" ? std::cin : file;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) paths.push_back(line);
  }
  return paths;
}

}  // namespace

int warm(const WarmOptions& options) {
  const auto paths = all_paths(options);
  if (!paths) return fail(kUsage, fmt::format("--list {}: cannot be read", options.list));
  if (paths->empty()) return fail(kUsage, "no path is given; see nfs-cachefs-ctl --help");
  std::map<std::string, MountAndPaths> by_mount;
  if (const int status = sort_paths(*paths, true, by_mount); status != kOk) return status;
  return for_each(by_mount, options.as_json, [&](const auto& entry, Output& output) {
    return warm_mount(entry.second, options, output);
  });
}

int warm_list(const std::string& mountpoint, bool as_json) {
  std::vector<KnownMount> mounts;
  if (const int status = choose_mounts(mountpoint, mounts); status != kOk) return status;
  return for_each(mounts, as_json, [](const KnownMount& mount, Output& output) {
    ControlReply reply;
    const int status = ask(mount, "GET", "/v1/warm", nullptr, reply);
    if (status == kOk) output.add(mount, reply.value, warm_list_text(reply.value));
    return status;
  });
}

int warm_cancel(const std::string& mountpoint, std::uint64_t id, bool as_json) {
  std::vector<KnownMount> mounts;
  if (const int status = choose_mounts(mountpoint, mounts); status != kOk) return status;
  return for_each(mounts, as_json, [id](const KnownMount& mount, Output& output) {
    ControlReply reply;
    const int status = ask(mount, "DELETE", fmt::format("/v1/warm/{}", id), nullptr, reply);
    if (status == kOk) {
      output.add(mount, reply.value,
                 fmt::format("warm-up {} is {}\n", id, reply.value.value("state", "?")));
    }
    return status;
  });
}

int verify(const std::vector<std::string>& paths, bool wait, bool as_json) {
  std::map<std::string, MountAndPaths> by_mount;
  if (const int status = sort_paths(paths, true, by_mount); status != kOk) return status;
  if (paths.empty()) {
    std::vector<KnownMount> mounts;
    if (const int status = choose_mounts("", mounts); status != kOk) return status;
    for (const KnownMount& mount : mounts) by_mount[name_of(mount)] = {mount, {}};
  }
  return for_each(by_mount, as_json, [wait](const auto& entry, Output& output) {
    return verify_mount(entry.second, wait, output);
  });
}

int evict(const std::vector<std::string>& paths, bool as_json) {
  std::map<std::string, MountAndPaths> by_mount;
  if (const int status = sort_paths(paths, false, by_mount); status != kOk) return status;
  return for_each(by_mount, as_json, [](const auto& entry, Output& output) {
    return evict_mount(entry.second, 0, output);
  });
}

int unpin(const std::vector<std::string>& paths, bool as_json) {
  std::map<std::string, MountAndPaths> by_mount;
  if (const int status = sort_paths(paths, false, by_mount); status != kOk) return status;
  return for_each(by_mount, as_json, [](const auto& entry, Output& output) {
    ControlReply reply;
    const MountAndPaths& where = entry.second;
    const int status = ask(where.mount, "POST", "/v1/unpin", {{"paths", where.paths}}, reply);
    if (status == kOk) {
      output.add(where.mount, reply.value,
                 fmt::format("{} unpinned\n", count_text(reply.value, "unpinned")));
    }
    return status;
  });
}

int clean(const std::string& mountpoint, const std::string& age, bool as_json) {
  const auto seconds = parse_age(age);
  if (!seconds) {
    return fail(kUsage, fmt::format("--older-than {}: must be a number with a unit, s, m, h, d or "
                                    "w, such as 12h or 7d",
                                    age));
  }
  std::vector<KnownMount> mounts;
  if (const int status = choose_mounts(mountpoint, mounts); status != kOk) return status;
  return for_each(mounts, as_json, [&](const KnownMount& mount, Output& output) {
    if (mount.mountpoint.empty()) return kOk;  // of another namespace
    return evict_mount({mount, {mount.mountpoint}}, *seconds, output);
  });
}

int set_limit(const std::string& mountpoint, const std::string& size, bool as_json) {
  std::vector<KnownMount> mounts;
  if (const int status = choose_mounts(mountpoint, mounts); status != kOk) return status;
  ControlReply reply;
  const int status = ask(mounts[0], "PUT", "/v1/limit", {{"size", size}}, reply);
  if (status != kOk) return reply.status == 400 ? kUsage : status;
  const json& limit = reply.value;
  std::string text = fmt::format("the limit is {} until the next mount, it was {}\n",
                                 human_size(limit.value("limit_bytes", std::uint64_t{0})),
                                 human_size(limit.value("previous_bytes", std::uint64_t{0})));
  if (const auto above = limit.value("above_bytes", std::uint64_t{0}); above > 0) {
    text += fmt::format(
        "{} above it are open, being copied or pinned; nothing new is cached until they "
        "are gone\n",
        human_size(above));
  }
  Output output(as_json);
  output.add(mounts[0], limit, text);
  output.end();
  return kOk;
}

}  // namespace ncfs::ctl
