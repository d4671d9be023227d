#include "tools/status_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "tools/text_format.h"

namespace ncfs {
namespace {

using nlohmann::json;

constexpr int kBarWidth = 30;

// A number of the reply; 0 where there is none, as with a daemon of another version.
std::uint64_t number(const json& object, const char* path) {
  const json::json_pointer pointer{std::string(path)};
  if (!object.contains(pointer) || !object.at(pointer).is_number()) return 0;
  return object.at(pointer).get<std::uint64_t>();
}

double seconds(const json& object, const char* path) {
  const json::json_pointer pointer{std::string(path)};
  if (!object.contains(pointer) || !object.at(pointer).is_number()) return 0;
  return object.at(pointer).get<double>();
}

std::string text(const json& object, const char* path) {
  const json::json_pointer pointer{std::string(path)};
  if (!object.contains(pointer) || !object.at(pointer).is_string()) return "?";
  return object.at(pointer).get<std::string>();
}

// The array or object of that name; an empty one if there is none of this type.
json collection(const json& object, const char* name, json::value_t type) {
  if (!object.is_object() || !object.contains(name)) return json(type);
  return object[name].type() == type ? object[name] : json(type);
}

json array(const json& object, const char* name) {
  return collection(object, name, json::value_t::array);
}

json members(const json& object, const char* name) {
  return collection(object, name, json::value_t::object);
}

std::string size(const json& object, const char* path) {
  return human_size(number(object, path));
}

std::string line(const char* name, const std::string& value) {
  return fmt::format("  {:<13} {}\n", name, value);
}

std::string copy_text(const json& copy) {
  const std::uint64_t done = number(copy, "/done_bytes");
  const std::uint64_t whole = number(copy, "/size_bytes");
  std::string result = fmt::format("    {} {:>6} of {}", progress_bar(done, whole, kBarWidth),
                                   percentage(done, whole), human_size(whole));
  if (number(copy, "/bytes_per_second") != 0) {
    result += fmt::format(", {}/s, {} left", size(copy, "/bytes_per_second"),
                          human_duration(copy.at("eta_seconds").get<double>()));
  }
  return fmt::format("{}  {}\n", result, text(copy, "/path"));
}

std::string errors_text(const json& status) {
  std::string result;
  const json errors = members(status, "errors");
  for (const auto& [name, count] : errors.items()) {
    if (!count.is_number() || count == 0) continue;
    std::string label = name;
    std::replace(label.begin(), label.end(), '_', ' ');
    result += fmt::format("{}{} {}", result.empty() ? "" : ", ", label, count.get<std::uint64_t>());
  }
  return result.empty() ? "none" : result;
}

std::string disk_health_text(const json& status) {
  const json health = members(status, "health");
  if (health.empty()) return {};  // a daemon of another version
  std::string backends;
  for (const json& backend : health.value("backends", json::array())) {
    const std::string state = text(backend, "/state");
    if (state == "up") continue;
    const std::string path = text(backend, "/path");
    backends +=
        line("backend", fmt::format("{}{} for {}: {} ({})", path.empty() ? "" : path + ": ", state,
                                    human_duration(seconds(backend, "/seconds")),
                                    text(backend, "/reason"), text(backend, "/last_error")));
  }
  std::string result = text(health, "/cache_disk/state");
  if (result != "normal") {
    result += fmt::format(" for {}: {}", human_duration(seconds(health, "/cache_disk/seconds")),
                          text(health, "/cache_disk/reason"));
    if (const std::string error = text(health, "/cache_disk/last_error"); error != "?") {
      result += fmt::format(" ({})", error);
    }
    result += fmt::format(", next probe in {}",
                          human_duration(seconds(health, "/cache_disk/next_probe_seconds")));
  }
  result = backends + line("cache disk", result);
  const std::string paused_by = text(health, "/copying/paused_by");
  if (paused_by == "backend" || paused_by == "full cache disk") {
    result +=
        line("copying", fmt::format("paused by the {} ({}), next try in {}", paused_by,
                                    text(health, "/copying/last_error"),
                                    human_duration(seconds(health, "/copying/next_try_seconds"))));
  } else if (paused_by == "cache disk") {
    result += line("copying", "nothing new until the cache disk is normal");
  }
  return result;
}

std::uint64_t finished_files(const json& job) {
  return number(job, "/copied/files") + number(job, "/already_cached/files") +
         number(job, "/skipped/files") + number(job, "/failed/files");
}

std::uint64_t finished_bytes(const json& job) {
  return number(job, "/copied/bytes") + number(job, "/already_cached/bytes") +
         number(job, "/skipped/bytes") + number(job, "/failed/bytes") +
         number(job, "/in_work_done_bytes");
}

std::string opens_text(const json& status) {
  const std::uint64_t hits = number(status, "/opens/hits");
  const std::uint64_t opens = hits + number(status, "/opens/misses");
  return fmt::format("{} of {} found the file complete in the cache ({})", hits, opens,
                     percentage(hits, opens));
}

std::string metadata_text(const json& metadata) {
  const std::uint64_t known = number(metadata, "/names/hits") + number(metadata, "/negative_hits") +
                              number(metadata, "/attributes/hits");
  const std::uint64_t asked =
      number(metadata, "/names/misses") + number(metadata, "/attributes/misses");
  const std::uint64_t bytes =
      number(metadata, "/bytes/names_and_attributes") + number(metadata, "/bytes/listings");
  return fmt::format("{} of {} questions answered from memory ({}), which holds {}", known,
                     known + asked, percentage(known, known + asked), human_size(bytes));
}

std::string revalidations_text(const json& metadata) {
  const std::uint64_t same =
      number(metadata, "/revalidations/same") + number(metadata, "/revalidations/unproven");
  return fmt::format(
      "{} opens asked and found the same, {} another version, {} did not ask", same,
      number(metadata, "/revalidations/changed") + number(metadata, "/revalidations/estale"),
      number(metadata, "/opens_unasked"));
}

std::string reads_text(const json& status) {
  const std::uint64_t cached = number(status, "/reads_by_daemon/bytes_from_cache");
  const std::uint64_t source = number(status, "/reads_by_daemon/bytes_from_source");
  return fmt::format("{} from the cache, {} from the backend ({} cached)", human_size(cached),
                     human_size(source), percentage(cached, cached + source));
}

std::string writes_text(const json& status) {
  std::string result =
      fmt::format("{} in {} requests, {} opens", size(status, "/writes/bytes"),
                  number(status, "/writes/requests"), number(status, "/writes/opens"));
  const std::uint64_t failures = number(status, "/writes/mirror_failures");
  if (failures > 0) {
    result += fmt::format("; {} cache files in use could not follow", failures);
  }
  return result;
}

}  // namespace

std::string copies_text(const json& status) {
  const json copies = members(status, "copies");
  const json in_progress = array(copies, "in_progress");
  std::string result =
      line("copies", fmt::format("{} running, {} queued, {} finished, {} failed",
                                 in_progress.size(), number(copies, "/queued"),
                                 number(copies, "/finished"), number(copies, "/failed")));
  for (const json& copy : in_progress) result += copy_text(copy);
  return result;
}

// A line for each reason that there was.
std::string prefetch_text(const json& status) {
  std::string result;
  const json prefetch = members(status, "prefetch");
  for (const auto& [reason, counts] : prefetch.items()) {
    if (number(counts, "/bytes") == 0) continue;
    result += line(result.empty() ? "prefetched" : "",
                   fmt::format("{} by {}, {} used, {} wasted", size(counts, "/bytes"), reason,
                               size(counts, "/used_bytes"), size(counts, "/wasted_bytes")));
  }
  return result;
}

std::string status_text(const json& status) {
  std::string result =
      fmt::format("{}: {}, nfs-cachefs {}, pid {}, up {}\n", text(status, "/mountpoint"),
                  text(status, "/state"), text(status, "/version"), number(status, "/pid"),
                  human_duration(static_cast<double>(number(status, "/uptime_seconds"))));
  result += line("backend", text(status, "/backend"));
  result += line("cache", text(status, "/cache_dir"));
  result += disk_health_text(status);
  const std::uint64_t used = number(status, "/cache/used_bytes");
  const std::uint64_t limit = number(status, "/cache/limit_bytes");
  result += line("space", fmt::format("{} {} of {} used ({}), {} reserved for copies",
                                      progress_bar(used, limit, kBarWidth), human_size(used),
                                      human_size(limit), percentage(used, limit),
                                      size(status, "/cache/reserved_bytes")));
  result +=
      line("files",
           fmt::format("{} cached, {} pinned ({}), {} partial, {} evicted ({}); {} handles open",
                       number(status, "/cache/objects_cached"),
                       number(status, "/cache/pinned_files"), size(status, "/cache/pinned_bytes"),
                       number(status, "/cache/objects_partial"), number(status, "/cache/evictions"),
                       size(status, "/cache/evicted_bytes"), number(status, "/handles_open")));
  result += line("eviction", text(status, "/cache/eviction"));
  const bool is_active = members(status, "passthrough").value("active", false);
  result += line("passthrough", fmt::format("{}: {}", is_active ? "on" : "off",
                                            text(status, "/passthrough/detail")));
  result += line("opens", opens_text(status));
  if (is_active) {
    result += line("  passed on", fmt::format("{} opens of files of {} together: the kernel reads "
                                              "them, uncounted",
                                              number(status, "/opens/passed_through"),
                                              size(status, "/opens/passed_through_bytes")));
    result += line("", fmt::format("{} opens of files not yet cached: the kernel reads the backend",
                                   number(status, "/opens/passed_through_from_backend")));
  }
  if (const json metadata = members(status, "metadata"); !metadata.empty()) {
    result += line("metadata", metadata_text(metadata));
    result += line("", revalidations_text(metadata));
    if (const std::uint64_t hits = number(metadata, "/unanswered/hits"); hits > 0) {
      result +=
          line("", fmt::format("{} answered for the backend, up to {} old", hits,
                               human_duration(seconds(metadata, "/unanswered/oldest_seconds"))));
    }
  }
  result += line("reads", "by the daemon: " + reads_text(status));
  result += line("writes", writes_text(status));
  result += line("backend reads", fmt::format("{}, of these {} for waiting readers",
                                              size(status, "/backend_reads/bytes"),
                                              size(status, "/backend_reads/bytes_on_demand")));
  result += prefetch_text(status);
  result += copies_text(status);
  for (const json& job : array(status, "warm_jobs")) {
    result += line("warm-up", fmt::format("{}: {}, {} of {}{} files, {} failed", number(job, "/id"),
                                          text(job, "/state"), finished_files(job),
                                          number(job, "/found/files"),
                                          text(job, "/state") == "walking" ? " or more" : "",
                                          number(job, "/failed/files")));
  }
  result += line("integrity", fmt::format("{} verified, {} mismatches, {} damaged files removed",
                                          size(status, "/integrity/verified_bytes"),
                                          number(status, "/integrity/mismatches"),
                                          number(status, "/integrity/damaged_files")));
  for (const json& job : array(members(status, "integrity"), "verifications")) {
    if (text(job, "/state") != "running") continue;
    result += line("  verifying", verify_progress_text(job));
  }
  result += line("memory", fmt::format("{} of {} buffers in use, {} resident",
                                       size(status, "/memory/buffer_bytes_in_use"),
                                       size(status, "/memory/buffer_bytes"),
                                       size(status, "/memory/resident_bytes")));
  result += line("errors", errors_text(status));
  return result;
}

std::string files_text(const std::vector<json>& files) {
  std::uint64_t bytes = 0;
  for (const json& file : files) bytes += number(file, "/cached_bytes");
  std::string result = fmt::format("{} files, {} cached\n", files.size(), human_size(bytes));
  if (files.empty()) return result;
  result += fmt::format("  {:<9} {:>7} {:>11}  {:<6} {:>12}  {}\n", "STATE", "CACHED", "SIZE",
                        "PINNED", "LAST USE", "PATH");
  for (const json& file : files) {
    const bool is_open = file.value("open", false);
    result += fmt::format(
        "  {:<9} {:>7} {:>11}  {:<6} {:>12}  {}{}\n", text(file, "/state"),
        percentage(number(file, "/cached_bytes"), number(file, "/size_bytes")),
        size(file, "/size_bytes"), file.value("pinned", false) ? "yes" : "",
        is_open ? "open" : human_duration(seconds(file, "/idle_seconds")), text(file, "/path"),
        text(file, "/reason") == "?" ? "" : fmt::format("  ({})", text(file, "/reason")));
  }
  return result;
}

std::string explanation_text(const std::vector<json>& versions) {
  if (versions.empty()) {
    return "  The cache knows nothing of it: it was not opened or warmed yet, or was evicted.\n"
           "  Opening it reads from the backend and has it copied, unless a rule leaves it out\n"
           "  (min_file_size, max_file_size, include, exclude, cache_on: nfs-cachefs-ctl config "
           "show).\n"
           "  cache warm has it copied, or tells why not.\n";
  }
  std::string result;
  if (versions.size() > 1) {
    result += fmt::format(
        "  {} versions of it are known, as older ones are still in use; of the "
        "latest:\n",
        versions.size());
  }
  const json& file = versions.back();
  const std::string state = text(file, "/state");
  result += line("state", fmt::format("{}, {} of {} cached", state, size(file, "/cached_bytes"),
                                      size(file, "/size_bytes")));
  result +=
      line("reads", state == "complete" ? "come from the cache; no byte is asked of the backend"
                                        : "of what is not cached come from the backend");
  if (text(file, "/reason") != "?") result += line("why not all", text(file, "/reason"));
  if (text(file, "/last_error") != "?") {
    result += line("last error", text(file, "/last_error") + ", when it was copied");
  }
  if (seconds(file, "/next_try_seconds") > 0) {
    result += line("next try", "in " + human_duration(seconds(file, "/next_try_seconds")));
  }
  result += line("used", file.value("open", false)
                             ? "open now, so it is not evicted"
                             : human_duration(seconds(file, "/idle_seconds")) + " ago");
  result += line("pinned", file.value("pinned", false) ? "yes, never evicted" : "no");
  result += line("checksums",
                 file.value("has_checksums", false) ? "yes, cache verify compares it" : "none");
  return result;
}

std::string config_text(const json& config) {
  std::string result = "* is not the default, hot can be changed by config set\n";
  for (const json& option : array(config, "options")) {
    const std::string value = text(option, "/value");
    const std::string initial = text(option, "/default");
    result += fmt::format(
        "  {} {:<18} {:<24} {:<10} {}\n", value != initial ? "*" : " ", text(option, "/name"),
        value == "?" ? "-" : value, option.value("hot", false) ? "hot" : "",
        value == initial || initial == "?" ? "" : fmt::format("(default {})", initial));
  }
  return result;
}

std::string health_text(const json& health) {
  std::string result = text(health, "/state") + "\n";
  for (const json& check : array(health, "checks")) {
    const std::string detail = text(check, "/detail");
    result +=
        fmt::format("  {:<8} {:<14} {}\n", text(check, "/state"), text(check, "/name"), detail);
    if (const std::string remedy = text(check, "/remedy"); remedy != "?") {
      result += fmt::format("  {:<8} {:<14} -> {}\n", "", "", remedy);
    }
  }
  return result;
}

void use_recent_rates(json& status, const json& previous, double seconds) {
  const json::json_pointer place{"/copies/in_progress"};
  if (!status.contains(place) || !previous.contains(place) || seconds <= 0) return;
  for (json& copy : status[place]) {
    for (const json& before : previous.at(place)) {
      if (before.value("path", "") != copy.value("path", "")) continue;
      const std::uint64_t done = number(copy, "/done_bytes");
      const std::uint64_t done_before = number(before, "/done_bytes");
      if (done <= done_before) continue;
      const double rate = static_cast<double>(done - done_before) / seconds;
      const std::uint64_t whole = number(copy, "/size_bytes");
      copy["bytes_per_second"] = rate;
      copy["eta_seconds"] = static_cast<double>(whole - std::min(done, whole)) / rate;
    }
  }
}

std::string warm_progress_text(const json& job) {
  const std::string state = text(job, "/state");
  if (state == "measuring") {
    return fmt::format("needs {} or more", size(job, "/needed_bytes"));
  }
  if (state == "refused") {
    return fmt::format("needs {}, the cache holds {}", size(job, "/needed_bytes"),
                       size(job, "/capacity_bytes"));
  }
  const std::uint64_t done = finished_bytes(job);
  const std::uint64_t whole = number(job, "/found/bytes");
  const double seconds = job.value("seconds", 0.0);
  const auto rate = static_cast<std::uint64_t>(
      seconds > 0
          ? static_cast<double>(number(job, "/copied/bytes") + number(job, "/in_work_done_bytes")) /
                seconds
          : 0);
  return fmt::format("{} {} of {}{}, {} of {} files, {}/s", progress_bar(done, whole, kBarWidth),
                     human_size(done), human_size(whole), state == "walking" ? " or more" : "",
                     finished_files(job), number(job, "/found/files"), human_size(rate));
}

std::string warm_list_text(const json& reply) {
  const json jobs = array(reply, "jobs");
  if (jobs.empty()) return "no warm-ups\n";
  std::string result = fmt::format("{} warm-ups\n", jobs.size());
  for (const json& job : jobs) {
    std::string paths;
    for (const json& path : array(job, "paths")) {
      paths += fmt::format(" {}", path == "" ? "." : path.get<std::string>());
    }
    result += fmt::format("  {:>4}  {:<9} {}, {} failed{}\n", number(job, "/id"),
                          text(job, "/state"), warm_progress_text(job),
                          number(job, "/failed/files"), paths.empty() ? "" : ":" + paths);
  }
  return result;
}

std::string warm_result_text(const json& job) {
  if (text(job, "/state") == "refused") {
    return fmt::format(
        "refused, nothing was copied: needs {}, the cache holds {} beside what is pinned already; "
        "--best-effort begins all the same\n",
        size(job, "/needed_bytes"), size(job, "/capacity_bytes"));
  }
  const auto count = [&job](const char* name) {
    return fmt::format("{} files ({})", number(job, fmt::format("/{}/files", name).c_str()),
                       size(job, fmt::format("/{}/bytes", name).c_str()));
  };
  std::string result =
      fmt::format("{} found in {}: {} copied, {} already cached, {} skipped, {} failed\n",
                  count("found"), human_duration(job.value("seconds", 0.0)), count("copied"),
                  count("already_cached"), count("skipped"), count("failed"));
  if (text(job, "/state") == "cancelled") {
    result += fmt::format("cancelled: {} files are still in work\n", number(job, "/files_in_work"));
  }
  const json reasons = members(job, "skip_reasons");
  for (const auto& [reason, files] : reasons.items()) {
    result += fmt::format("  skipped {} files: {}\n", files.get<std::uint64_t>(), reason);
  }
  const json failures = array(job, "failures");
  for (const json& failure : failures) {
    result += fmt::format("  failed: {}: {}\n", text(failure, "/path"), text(failure, "/error"));
  }
  const std::uint64_t failed = number(job, "/failed/files");
  if (failed > failures.size()) {
    result += fmt::format("  and {} more failures\n", failed - failures.size());
  }
  return result;
}

std::string verify_progress_text(const json& job) {
  const std::uint64_t done =
      number(job, "/intact/files") + number(job, "/damaged/files") + number(job, "/skipped/files");
  const std::uint64_t bytes = number(job, "/bytes_verified");
  const std::uint64_t whole = number(job, "/found/bytes") - number(job, "/skipped/bytes");
  return fmt::format("{} {} of {}, {} of {} files, {} damaged",
                     progress_bar(bytes, whole, kBarWidth), human_size(bytes), human_size(whole),
                     done, number(job, "/found/files"), number(job, "/damaged/files"));
}

std::string verify_result_text(const json& job) {
  const auto count = [&job](const char* name) {
    return fmt::format("{} files ({})", number(job, fmt::format("/{}/files", name).c_str()),
                       size(job, fmt::format("/{}/bytes", name).c_str()));
  };
  return fmt::format(
      "{} found: {} intact, {} damaged and removed, {} skipped (not complete, without checksums or "
      "gone meanwhile); {} verified\n",
      count("found"), count("intact"), count("damaged"), count("skipped"),
      size(job, "/bytes_verified"));
}

}  // namespace ncfs
