#include "tools/ctl_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <system_error>
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
  return state == "measuring" || state == "walking" || state == "copying" || state == "running";
}

bool is_measuring(const json& job) {
  return job.value("state", "") == "measuring";
}

// Looks at a job as long as it `goes_on`; the bar is for terminals only. An exit status.
int follow(const KnownMount& mount, const std::string& target, ControlReply& reply,
           std::string (*progress)(const json& job), bool (*goes_on)(const json& job)) {
  const bool is_terminal = isatty(STDERR_FILENO) != 0;
  // Short work is told of at once, long work is not asked after more than once a second.
  std::chrono::milliseconds pause{20};
  while (goes_on(reply.value)) {
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
  json order = {{"paths", entry.paths}, {"pin", options.pin}, {"best_effort", options.best_effort}};
  if (options.bytes_per_second > 0) order["bytes_per_second"] = options.bytes_per_second;
  int status = ask(entry.mount, "POST", "/v1/warm", order, reply);
  if (status != kOk) return status;
  const auto id = reply.value.value("id", std::uint64_t{0});
  const std::string target = fmt::format("/v1/warm/{}", id);
  // Whether it fits is told at once in any case.
  status = follow(entry.mount, target, reply, &warm_progress_text,
                  options.wait ? &is_running : &is_measuring);
  if (status != kOk) return status;
  if (!options.wait && is_running(reply.value)) {
    output.add(
        entry.mount, reply.value,
        fmt::format("warm-up {} started; nfs-cachefs-ctl warm list shows how far it is\n", id));
    return kOk;
  }
  output.add(entry.mount, reply.value, warm_result_text(reply.value));
  const bool is_complete =
      reply.value["failed"].value("files", 0) == 0 && reply.value["state"] == "done";
  return is_complete ? kOk : kSomeFailed;
}

// Of regular files at and beneath the paths, as the mount shows them; links are not followed.
struct Plan {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  std::uint64_t missing_files = 0;  // not complete in the cache
  std::uint64_t missing_bytes = 0;
  std::uint64_t pinned_bytes = 0;
  std::uint64_t failed = 0;  // could not be looked at
};

void add_file(const std::filesystem::path& path, const std::map<std::string, json>& known,
              Plan& plan) {
  std::error_code failed;
  const std::uint64_t size = std::filesystem::file_size(path, failed);
  if (failed) {
    ++plan.failed;
    return;
  }
  ++plan.files;
  plan.bytes += size;
  const auto file = known.find(path);
  const bool is_same = file != known.end() && file->second["size_bytes"] == size;
  if (is_same && file->second["pinned"] == true) plan.pinned_bytes += size;
  if (is_same && file->second["state"] == "complete") return;
  ++plan.missing_files;
  plan.missing_bytes += size;
}

void add_tree(const std::filesystem::path& path, const std::map<std::string, json>& known,
              Plan& plan) {
  std::error_code failed;
  if (!std::filesystem::is_directory(path, failed)) return add_file(path, known, plan);
  std::filesystem::recursive_directory_iterator place(path, failed);
  while (!failed && place != std::filesystem::recursive_directory_iterator()) {
    if (place->symlink_status(failed).type() == std::filesystem::file_type::regular) {
      add_file(place->path(), known, plan);
    }
    place.increment(failed);
  }
  if (failed) ++plan.failed;
}

// Those that are likely to make room for `bytes`, in turn: the longest unused. Other policies than
// lru have their own order.
std::vector<std::string> victims(std::vector<json> files, const std::map<std::string, json>& kept,
                                 const std::string& mountpoint, std::uint64_t bytes) {
  std::erase_if(files, [&](const json& file) {
    return file.value("cached_bytes", std::uint64_t{0}) == 0 || file["pinned"] == true ||
           file["open"] == true || kept.contains(mountpoint + "/" + file.value("path", ""));
  });
  std::ranges::sort(files, std::greater(),
                    [](const json& file) { return file.value("idle_seconds", 0.0); });
  std::vector<std::string> paths;
  std::uint64_t sum = 0;
  for (const json& file : files) {
    if (sum >= bytes) break;
    sum += file.value("cached_bytes", std::uint64_t{0});
    paths.push_back(file.value("path", ""));
  }
  return paths;
}

int plan_mount(const MountAndPaths& entry, Output& output) {
  json status;
  if (const std::string error = ask_status(entry.mount, status); !error.empty()) {
    return fail(kNoMount, fmt::format("{}: {}", name_of(entry.mount), error));
  }
  std::map<std::string, json> known;
  Plan plan;
  for (const std::string& path : entry.paths) {
    std::vector<json> files;
    if (const int failed = ask_files(entry.mount, path, files); failed != kOk) return failed;
    for (json& file : files) {
      const std::string name = entry.mount.mountpoint + "/" + file.value("path", "");
      known[name] = std::move(file);  // of several versions the latest
    }
    add_tree(path, known, plan);
  }
  const auto of_cache = [&status](const char* name) {
    return status["cache"].value(name, std::uint64_t{0});
  };
  const auto minus = [](std::uint64_t a, std::uint64_t b) { return a - std::min(a, b); };
  const std::uint64_t limit = of_cache("limit_bytes");
  const std::uint64_t free =
      minus(minus(limit, of_cache("used_bytes")), of_cache("reserved_bytes"));
  const std::uint64_t capacity = minus(limit, minus(of_cache("pinned_bytes"), plan.pinned_bytes));
  const std::uint64_t evicted = minus(plan.missing_bytes, free);
  const bool fits = plan.bytes <= capacity;
  std::vector<std::string> going;
  std::string text =
      fmt::format("{} files ({}), of these {} ({}) are to be copied\n", plan.files,
                  human_size(plan.bytes), plan.missing_files, human_size(plan.missing_bytes));
  if (!fits) {
    text += fmt::format("does not fit: the cache holds {} beside what is pinned already\n",
                        human_size(capacity));
  } else if (evicted > 0) {
    text += fmt::format("fits; about {} of other files would be evicted\n", human_size(evicted));
    std::vector<json> files;
    if (const int failed = ask_files(entry.mount, "", files); failed != kOk) return failed;
    going = victims(std::move(files), known, entry.mount.mountpoint, evicted);
    constexpr std::size_t kShown = 10;
    for (std::size_t index = 0; index < std::min(going.size(), kShown); ++index) {
      text += fmt::format("  probably {}\n", going[index]);
    }
    if (going.size() > kShown) text += fmt::format("  and {} more\n", going.size() - kShown);
  } else {
    text += fmt::format("fits; {} would stay free\n", human_size(free - plan.missing_bytes));
  }
  if (plan.failed > 0) text += fmt::format("{} could not be looked at\n", plan.failed);
  output.add(entry.mount,
             {{"files", plan.files},
              {"bytes", plan.bytes},
              {"files_to_copy", plan.missing_files},
              {"bytes_to_copy", plan.missing_bytes},
              {"fits", fits},
              {"bytes_to_evict", fits ? json(evicted) : json()},
              {"likely_evicted", going},
              {"capacity_bytes", capacity},
              {"failed", plan.failed}},
             text);
  return fits && plan.failed == 0 ? kOk : kSomeFailed;
}

int verify_mount(const MountAndPaths& entry, bool wait, Output& output) {
  ControlReply reply;
  const json order = entry.paths.empty() ? json::object() : json{{"paths", entry.paths}};
  int status = ask(entry.mount, "POST", "/v1/verify", order, reply);
  if (status != kOk) return status;
  const auto id = reply.value.value("id", std::uint64_t{0});
  if (wait) {
    status = follow(entry.mount, fmt::format("/v1/verify/{}", id), reply, &verify_progress_text,
                    &is_running);
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
    return options.dry_run ? plan_mount(entry.second, output)
                           : warm_mount(entry.second, options, output);
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

int invalidate(const std::vector<std::string>& paths, bool as_json) {
  std::map<std::string, MountAndPaths> by_mount;
  if (const int status = sort_paths(paths, false, by_mount); status != kOk) return status;
  return for_each(by_mount, as_json, [](const auto& entry, Output& output) {
    ControlReply reply;
    const MountAndPaths& where = entry.second;
    const int status = ask(where.mount, "POST", "/v1/invalidate", {{"paths", where.paths}}, reply);
    if (status != kOk) return status;
    const bool is_complete = reply.value.value("complete", false);
    output.add(
        where.mount, reply.value,
        fmt::format("{} names forgotten; cached: {} up to date and kept, {} outdated and "
                    "dropped, {} could not be compared{}\n",
                    reply.value.value("names", std::uint64_t{0}), count_text(reply.value, "kept"),
                    count_text(reply.value, "dropped"), count_text(reply.value, "failed"),
                    is_complete ? "" : "; time was over before all were"));
    return is_complete && reply.value["failed"].value("files", 0) == 0 ? kOk : kSomeFailed;
  });
}

int clean(const CleanOptions& options) {
  if (!options.all && options.age.empty() && options.paths.empty()) {
    return fail(kUsage, "say what to drop: --older-than 7d, --path PATH, both, or --all");
  }
  const auto seconds =
      options.age.empty() ? std::optional<std::uint64_t>(0) : parse_age(options.age);
  if (!seconds) {
    return fail(kUsage, fmt::format("--older-than {}: must be a number with a unit, s, m, h, d or "
                                    "w, such as 12h or 7d",
                                    options.age));
  }
  std::map<std::string, MountAndPaths> by_mount;
  if (!options.paths.empty()) {
    const int status = sort_paths(options.paths, false, by_mount);
    if (status != kOk) return status;
  } else {
    std::vector<KnownMount> mounts;
    const int status = choose_mounts(options.mountpoint, mounts);
    if (status != kOk) return status;
    for (const KnownMount& mount : mounts) {
      if (mount.mountpoint.empty()) continue;  // of another namespace
      by_mount[mount.mountpoint] = {mount, {mount.mountpoint}};
    }
  }
  return for_each(by_mount, options.as_json, [&](const auto& entry, Output& output) {
    return evict_mount(entry.second, *seconds, output);
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
