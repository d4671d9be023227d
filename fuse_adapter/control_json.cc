#include "fuse_adapter/control_json.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string_view>

#include "fuse_adapter/mount_options.h"
#include "fuse_adapter/mount_table.h"

namespace ncfs {
namespace {

using nlohmann::json;

// A hundred years: far from where nanoseconds overflow.
constexpr std::uint64_t kIdleSecondsMax = std::uint64_t{100} * 365 * 86400;

// File names are bytes; those that are no UTF-8 are shown with replacement characters.
std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// Null, not 0, as long as there is nothing to divide.
json ratio(std::uint64_t part, std::uint64_t whole) {
  if (whole == 0) return nullptr;
  return static_cast<double>(part) / static_cast<double>(whole);
}

std::uint64_t resident_memory_bytes() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t total_pages = 0;
  std::uint64_t resident_pages = 0;
  file >> total_pages >> resident_pages;
  return resident_pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

json copy_json(const CopyStatus& copy, Nanos now) {
  const std::uint64_t fetched = copy.done_bytes - std::min(copy.bytes_at_start, copy.done_bytes);
  const Nanos elapsed = now > copy.started_at ? now - copy.started_at : 0;
  json result = {{"path", copy.path},
                 {"size_bytes", copy.size_bytes},
                 {"done_bytes", copy.done_bytes},
                 {"resumed_bytes", copy.bytes_at_start},
                 {"seconds", static_cast<double>(elapsed) / kSecond},
                 {"bytes_per_second", nullptr},
                 {"eta_seconds", nullptr}};
  if (fetched != 0 && elapsed != 0) {
    const double rate = static_cast<double>(fetched) * kSecond / static_cast<double>(elapsed);
    const std::uint64_t left = copy.size_bytes - std::min(copy.done_bytes, copy.size_bytes);
    result["bytes_per_second"] = rate;
    result["eta_seconds"] = static_cast<double>(left) / rate;
  }
  return result;
}

template <typename Count>
json count_json(const Count& count) {
  return {{"files", count.files}, {"bytes", count.bytes}};
}

// Large files take long: what is done of those in work makes the bar move.
std::uint64_t in_work_done_bytes(const EngineStatus& engine, const WarmProgress& progress) {
  std::uint64_t bytes = 0;
  for (const CopyStatus& copy : engine.copies) {
    if (std::ranges::find(progress.in_work, copy.path) != progress.in_work.end()) {
      bytes += copy.done_bytes;
    }
  }
  return bytes;
}

json number_or_null(std::uint64_t number) {
  return number == 0 ? json() : json(number);
}

json job_json(const EngineStatus& engine, const WarmProgress& progress, bool names_files) {
  json failures = json::array();
  for (const auto& failure : progress.failures) {
    if (names_files) failures.push_back({{"path", failure.path}, {"error", failure.error}});
  }
  return {{"id", progress.id},
          {"state", to_string(progress.state)},
          {"paths", names_files ? json(progress.order.paths) : json::array()},
          {"pin", progress.order.pin},
          {"best_effort", progress.order.best_effort},
          {"bytes_per_second_max", number_or_null(progress.order.bytes_per_second)},
          {"restarts", progress.restarts},
          {"needed_bytes", number_or_null(progress.needed_bytes)},
          {"capacity_bytes", number_or_null(progress.capacity_bytes)},
          {"seconds", progress.seconds},
          {"found", count_json(progress.found)},
          {"copied", count_json(progress.copied)},
          {"already_cached", count_json(progress.already_cached)},
          {"skipped", count_json(progress.skipped)},
          {"failed", count_json(progress.failed)},
          {"skip_reasons", progress.skip_reasons},
          {"failures", failures},
          {"files_in_work", progress.in_work.size()},
          {"in_work_done_bytes", in_work_done_bytes(engine, progress)}};
}

const char* to_string(VerifyProgress::State state) {
  switch (state) {
    case VerifyProgress::State::running:
      return "running";
    case VerifyProgress::State::done:
      return "done";
    case VerifyProgress::State::cancelled:
      return "cancelled";
  }
  return "unknown";
}

json verification_json(const VerifyProgress& job) {
  const VerifyResult& result = job.result;
  return {{"id", job.id},
          {"state", to_string(job.state)},
          {"found", count_json(result.found)},
          {"intact", count_json(result.intact)},
          {"damaged", count_json(result.damaged)},
          {"skipped", count_json(result.skipped)},
          {"bytes_verified", result.bytes_verified}};
}

json verifications_json(const std::vector<VerifyProgress>& jobs) {
  json result = json::array();
  for (const VerifyProgress& job : jobs) result.push_back(verification_json(job));
  return result;
}

json integrity_json(const EngineStatus& engine, const std::vector<VerifyProgress>& jobs) {
  return {{"verified_bytes", engine.verified_bytes},
          {"mismatches", engine.damaged_blocks},
          {"damaged_files", engine.damaged_objects},
          {"verifications", verifications_json(jobs)}};
}

json cache_json(const EngineStatus& engine) {
  return {
      {"limit_bytes", engine.limit_bytes},         {"used_bytes", engine.used_bytes},
      {"reserved_bytes", engine.reserved_bytes},   {"objects_cached", engine.objects_cached},
      {"objects_partial", engine.objects_partial}, {"evictions", engine.evictions},
      {"evicted_bytes", engine.evicted_bytes},     {"bytes_written", engine.cache_bytes_written},
      {"pinned_files", engine.pinned_files},       {"pinned_bytes", engine.pinned_bytes},
      {"disk_free_bytes", engine.disk_free_bytes}, {"min_free_bytes", engine.min_free_bytes},
      {"eviction", to_string(engine.eviction)}};
}

json error_text(int error) {
  if (error == 0) return nullptr;
  return std::strerror(error);
}

double seconds_until(Nanos moment, Nanos now) {
  return moment > now ? static_cast<double>(moment - now) / kSecond : 0;
}

// Of the root and whatever gave trouble beneath it.
json backends_json(const std::vector<BackendStatus>& backends, Nanos now, bool names_files) {
  json result = json::array();
  for (const BackendStatus& backend : backends) {
    const bool has_changed = backend.changes > 0;
    result.push_back({{"path", names_files || backend.path.empty() ? json(backend.path) : json()},
                      {"state", to_string(backend.state)},
                      {"reason", has_changed ? json(backend.reason) : json()},
                      {"seconds", nullptr},
                      {"last_error", error_text(backend.last_error)},
                      {"changes", backend.changes}});
    if (has_changed) {
      result.back()["seconds"] = static_cast<double>(now - std::min(backend.since, now)) / kSecond;
    }
  }
  return result;
}

json health_json(const EngineStatus& engine, const json& backends, Nanos now) {
  const CacheHealthStatus& health = engine.cache_health;
  json disk = {{"state", to_string(health.state)},
               {"reason", nullptr},
               {"seconds", nullptr},
               {"last_error", error_text(health.last_error)},
               {"next_probe_seconds", nullptr}};
  if (health.changes > 0) {
    disk["reason"] = health.reason;
    disk["seconds"] = static_cast<double>(now - std::min(health.since, now)) / kSecond;
  }
  if (health.state != HealthState::normal) {
    disk["next_probe_seconds"] = seconds_until(health.next_probe_at, now);
  }
  json copying = {{"paused_by", nullptr}, {"last_error", nullptr}, {"next_try_seconds", nullptr}};
  if (health.state != HealthState::normal) {
    copying["paused_by"] = "cache disk";
  } else if (engine.is_source_resting || engine.is_disk_full) {
    copying["paused_by"] = engine.is_source_resting ? "backend" : "full cache disk";
    copying["last_error"] = error_text(engine.is_source_resting ? engine.source_error : ENOSPC);
    copying["next_try_seconds"] = seconds_until(engine.next_copy_try_at, now);
  }
  return {{"backends", backends}, {"cache_disk", std::move(disk)}, {"copying", std::move(copying)}};
}

json opens_json(const AdapterStats& stats) {
  const std::uint64_t hits = stats.opens_hit.value();
  const std::uint64_t misses = stats.opens_miss.value();
  return {{"hits", hits},
          {"misses", misses},
          {"hit_ratio", ratio(hits, hits + misses)},
          {"passed_through", stats.opens_passthrough.value()},
          {"passed_through_bytes", stats.passthrough_bytes.value()},
          {"passed_through_from_backend", stats.opens_from_source.value()},
          {"passthrough_refused", stats.passthrough_refused.value()},
          {"retried_as_stale", stats.stale_answers.value()}};
}

json reads_json(const AdapterStats& stats) {
  const std::uint64_t from_cache = stats.cache_bytes.value();
  const std::uint64_t from_source = stats.source_bytes.value();
  return {{"requests", stats.reads.value()},
          {"bytes_from_cache", from_cache},
          {"bytes_from_source", from_source},
          {"hit_ratio", ratio(from_cache, from_cache + from_source)}};
}

json writes_json(const AdapterStats& stats) {
  return {{"opens", stats.opens_for_writing.value()},
          {"requests", stats.writes.value()},
          {"bytes", stats.written_bytes.value()},
          {"mirror_failures", stats.mirror_failures.value()}};
}

json prefetch_json(const EngineStatus& engine) {
  json result = json::object();
  for (std::size_t reason = 0; reason < kAheadReasonCount; ++reason) {
    const AheadCounts& counts = engine.ahead.at(reason);
    result[std::string(to_string(static_cast<AheadReason>(reason)))] = {
        {"bytes", counts.fetched}, {"used_bytes", counts.used}, {"wasted_bytes", counts.wasted}};
  }
  return result;
}

json yields_json(const EngineStatus& engine) {
  json result = json::array();
  for (const YieldStatus& yield : engine.yields) {
    const bool has_limit = yield.window_bytes != YieldWindow::kUnlimited;
    result.push_back({{"filesystem", yield.filesystem},
                      {"window_bytes", has_limit ? json(yield.window_bytes) : json(nullptr)},
                      {"bytes_in_flight", yield.copies_in_flight},
                      {"latency_alone_ns", yield.latency_alone},
                      {"latency_beside_ns", yield.latency_beside}});
  }
  return result;
}

// What is known of names and attributes, and how opens found what the kernel had.
json metadata_json(const MetadataStatus& status, const AdapterStats& adapter) {
  const MetadataStats& stats = status.stats;
  const auto counts = [](std::uint64_t hits, std::uint64_t misses) {
    return json{{"hits", hits}, {"misses", misses}, {"hit_ratio", ratio(hits, hits + misses)}};
  };
  return {{"names", counts(stats.name_hits, stats.name_misses)},
          {"negative_hits", stats.negative_hits},
          {"attributes", counts(stats.attribute_hits, stats.attribute_misses)},
          {"links", counts(stats.link_hits, stats.link_misses)},
          {"listings", counts(stats.listing_hits, stats.listing_misses)},
          {"revalidations",
           {{"same", stats.opens_same},
            {"unproven", stats.opens_unproven},
            {"changed", stats.opens_changed},
            {"estale", stats.opens_estale}}},
          {"opens_unasked", stats.opens_unasked},
          {"changes_seen", stats.changes_seen},
          {"stale_avoided", stats.stale_avoided},
          {"evicted", stats.evicted},
          {"unanswered",
           {{"hits", stats.unasked_hits},
            {"oldest_seconds", static_cast<double>(stats.unasked_age_max) / kSecond}}},
          {"backend_looks", adapter.source_looks.value()},
          {"bytes",
           {{"names_and_attributes", status.facts_bytes}, {"listings", status.listings_bytes}}},
          {"limit_bytes",
           {{"names_and_attributes", status.facts_bytes_max},
            {"listings", status.listings_bytes_max}}}};
}

}  // namespace

std::string status_json(const ControlSubject& subject, std::chrono::seconds uptime,
                        const std::vector<WarmProgress>& jobs,
                        const std::vector<VerifyProgress>& verify_jobs, bool names_files) {
  const EngineStatus engine = subject.engine_status();
  const AdapterStats& stats = *subject.adapter_stats;
  const Nanos now = subject.now();
  json copies = json::array();
  for (const CopyStatus& copy : engine.copies) {
    copies.push_back(copy_json(copy, now));
    if (!names_files) copies.back()["path"] = nullptr;
  }
  json warm_jobs = json::array();
  for (const WarmProgress& job : jobs) warm_jobs.push_back(job_json(engine, job, names_files));
  return dump(
      {{"state", engine.is_recovering ? "recovering" : "running"},
       {"mountpoint", subject.mountpoint},
       {"backend", subject.backend},
       {"cache_dir", subject.cache_dir},
       {"version", subject.version},
       {"pid", getpid()},
       {"uptime_seconds", uptime.count()},
       {"passthrough",
        {{"active", subject.passthrough_active}, {"detail", subject.passthrough_detail}}},
       {"cache", cache_json(engine)},
       {"health", health_json(engine, backends_json(subject.backends(), now, names_files), now)},
       {"handles_open", engine.handles_open},
       {"opens", opens_json(stats)},
       {"reads_by_daemon", reads_json(stats)},
       {"writes", writes_json(stats)},
       {"metadata", metadata_json(subject.metadata_status(), stats)},
       {"backend_reads",
        {{"bytes", engine.source_bytes},
         {"bytes_on_demand", engine.source_bytes_demand},
         {"errors", engine.source_errors}}},
       {"prefetch", prefetch_json(engine)},
       {"copies",
        {{"in_progress", copies},
         {"queued", engine.copies_queued},
         {"finished", engine.copies_finished},
         {"failed", engine.copies_failed},
         {"yields", yields_json(engine)}}},
       {"integrity", integrity_json(engine, verify_jobs)},
       {"errors",
        {{"backend", engine.source_errors},
         {"cache", engine.cache_errors},
         {"cache_reads", stats.cache_faults.value()},
         {"timeouts", stats.timeouts.value()},
         {"retries", stats.retries.value()},
         {"rejected", stats.rejected.value()},
         {"other", stats.errors.value()}}},
       {"memory",
        {{"buffer_bytes", subject.buffer_bytes},
         {"buffer_bytes_in_use", engine.buffers_in_use * subject.block_size_bytes},
         {"resident_bytes", resident_memory_bytes()}}},
       {"warm_jobs", warm_jobs}});
}

std::string config_json(const ControlSubject& subject) {
  const EngineStatus engine = subject.engine_status();
  const std::uint64_t limit_bytes = engine.limit_bytes;
  const std::uint64_t copy_rate = engine.copy_bytes_per_second;
  json rows = json::array();
  for (const ConfigEntry& entry : subject.config) {
    const bool is_size = entry.name == "cache_size";
    const bool is_level = entry.name == "log_level";
    const bool is_access = entry.name == "access_log";
    const bool is_rate = entry.name == "copy_rate_mb";
    const std::string value = is_size     ? fmt::format("{}B", limit_bytes)
                              : is_level  ? subject.log_level()
                              : is_rate   ? fmt::format("{}", copy_rate / kMiB)
                              : is_access ? subject.is_access_logged() ? "true" : "false"
                                          : entry.value;
    rows.push_back({{"name", entry.name},
                    {"value", value.empty() ? json() : json(value)},
                    {"default", entry.initial.empty() ? json() : json(entry.initial)},
                    {"given", entry.is_given},
                    {"hot", is_size || is_level || is_access || is_rate},
                    {"help", entry.help}});
  }
  return dump({{"options", std::move(rows)}});
}

std::string log_level_json(const std::string& level, const std::string& previous) {
  return dump({{"level", level}, {"previous", previous}});
}

std::string hot_files_json(const std::vector<HotFiles::File>& files) {
  json rows = json::array();
  for (const HotFiles::File& file : files) {
    rows.push_back({{"path", file.path}, {"opens", file.opens}, {"size_bytes", file.size_bytes}});
  }
  return dump({{"files", std::move(rows)}});
}

std::string copy_rate_json(std::uint64_t bytes_per_second, std::uint64_t previous) {
  return dump({{"bytes_per_second", number_or_null(bytes_per_second)},
               {"previous", number_or_null(previous)}});
}

std::string access_log_json(bool is_on, bool was_on) {
  return dump({{"on", is_on}, {"previous", was_on}});
}

std::string health_json(const std::vector<HealthCheck>& checks) {
  json rows = json::array();
  HealthCheck::State worst = HealthCheck::State::ok;
  for (const HealthCheck& check : checks) {
    worst = std::max(worst, check.state);
    json remedy = check.remedy.empty() ? json() : json(check.remedy);
    rows.push_back({{"name", check.name},
                    {"state", to_string(check.state)},
                    {"detail", check.detail},
                    {"remedy", std::move(remedy)}});
  }
  return dump({{"state", to_string(worst)}, {"checks", std::move(rows)}});
}

std::string files_json(const std::vector<FileReport>& files, std::uint64_t next) {
  json rows = json::array();
  for (const FileReport& file : files) {
    const json reason = file.reason ? json(to_string(*file.reason)) : json();
    rows.push_back({{"id", file.id},
                    {"path", file.path},
                    {"state", to_string(file.state)},
                    {"reason", reason},
                    {"size_bytes", file.version.size},
                    {"cached_bytes", file.cached_bytes},
                    {"modified_seconds", static_cast<double>(file.version.mtime_ns) / kSecond},
                    {"pinned", file.is_pinned},
                    {"open", file.is_open},
                    {"idle_seconds", static_cast<double>(file.idle) / kSecond},
                    {"next_try_seconds", static_cast<double>(file.next_try) / kSecond},
                    {"last_error", error_text(file.last_error)},
                    {"has_checksums", file.has_checksums}});
  }
  return dump({{"files", std::move(rows)}, {"next", next == 0 ? json() : json(next)}});
}

std::string warm_json(const EngineStatus& engine, const WarmProgress& progress) {
  return dump(job_json(engine, progress, true));
}

std::string warm_list_json(const EngineStatus& engine, const std::vector<WarmProgress>& jobs) {
  json result = json::array();
  for (const WarmProgress& job : jobs) result.push_back(job_json(engine, job, true));
  return dump({{"jobs", result}});
}

std::string verify_json(const VerifyProgress& job) {
  return dump(verification_json(job));
}

std::string verify_list_json(const std::vector<VerifyProgress>& jobs) {
  return dump({{"jobs", verifications_json(jobs)}});
}

std::string evict_json(const ControlResult& result) {
  return dump({{"evicted", count_json(result.done)},
               {"in_use", count_json(result.in_use)},
               {"pinned", count_json(result.pinned)},
               {"failed", count_json(result.failed)}});
}

std::string unpin_json(const ControlResult& result) {
  return dump({{"unpinned", count_json(result.done)}});
}

std::string invalidate_json(const InvalidationResult& result) {
  return dump({{"names", result.names},
               {"kept", count_json(result.kept)},
               {"dropped", count_json(result.dropped)},
               {"failed", count_json(result.failed)},
               {"complete", result.is_complete}});
}

std::string limit_json(const EngineStatus& before, const EngineStatus& after) {
  const std::uint64_t staying = after.used_bytes + after.reserved_bytes - after.leaving_bytes;
  return dump({{"limit_bytes", after.limit_bytes},
               {"previous_bytes", before.limit_bytes},
               {"above_bytes", staying - std::min(staying, after.limit_bytes)}});
}

namespace {

const char* name_of(Member member) {
  switch (member) {
    case Member::paths:
    case Member::paths_or_all:
      return "paths";
    case Member::pin:
      return "pin";
    case Member::idle_seconds:
      return "idle_seconds";
    case Member::size:
      return "size";
    case Member::level:
      return "level";
    case Member::on:
      return "on";
    case Member::best_effort:
      return "best_effort";
    case Member::bytes_per_second:
      return "bytes_per_second";
    case Member::mebibytes_per_second:
      return "mebibytes_per_second";
  }
  return "";
}

// The path as the engine knows it, or why there is none. By name only; the walk itself never leaves
// the source's root.
std::string set_path(std::string& target, const json& path, const std::string& mountpoint) {
  if (!path.is_string()) return fmt::format("not a path: {}", dump(path));
  std::string normal = std::filesystem::path(path.get<std::string>()).lexically_normal();
  while (normal.size() > 1 && normal.ends_with('/')) normal.pop_back();
  if (normal.find('\0') != std::string::npos || !is_within(normal, mountpoint)) {
    return fmt::format("{}: not beneath the mount point {}", normal, mountpoint);
  }
  normal.erase(0, mountpoint == "/" ? 1 : mountpoint.size() + 1);
  target = std::move(normal);
  return {};
}

// Of a query: %2F is a slash and + a space. Nothing if that is done wrongly.
std::optional<std::string> percent_decoded(std::string_view text) {
  std::string result;
  for (; !text.empty(); text.remove_prefix(1)) {
    if (text.front() != '%') {
      result += text.front() == '+' ? ' ' : text.front();
      continue;
    }
    unsigned value = 0;
    if (text.size() < 3) return std::nullopt;
    const auto [end, error] = std::from_chars(text.data() + 1, text.data() + 3, value, 16);
    if (error != std::errc{} || end != text.data() + 3) return std::nullopt;
    result += static_cast<char>(value);
    text.remove_prefix(2);
  }
  return result;
}

std::optional<std::uint64_t> whole_number(const std::string& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string set_paths(std::vector<std::string>& target, const json& paths,
                      const std::string& mountpoint) {
  if (!paths.is_array() || paths.empty()) {
    return "\"paths\" must be an array with at least one absolute path";
  }
  for (const json& path : paths) {
    if (std::string error = set_path(target.emplace_back(), path, mountpoint); !error.empty()) {
      return error;
    }
  }
  return {};
}

// What is wrong with the value, or nothing.
std::string set_member(ControlRequest& request, Member member, const json& value,
                       const std::string& mountpoint) {
  switch (member) {
    case Member::paths:
    case Member::paths_or_all:
      return set_paths(request.paths, value, mountpoint);
    case Member::pin:
      if (!value.is_boolean()) return "\"pin\" must be true or false";
      request.pin = value.get<bool>();
      return {};
    case Member::best_effort:
      if (!value.is_boolean()) return "\"best_effort\" must be true or false";
      request.best_effort = value.get<bool>();
      return {};
    case Member::bytes_per_second:
      if (!value.is_number_unsigned() || value < WarmJobs::kRateMin || value > WarmJobs::kRateMax) {
        return fmt::format("\"bytes_per_second\" must be a whole number from {} to {}",
                           WarmJobs::kRateMin, WarmJobs::kRateMax);
      }
      request.bytes_per_second = value.get<std::uint64_t>();
      return {};
    case Member::mebibytes_per_second:
      if (!value.is_number_unsigned() || value > kCopyRateMaxMib) {
        return fmt::format("\"mebibytes_per_second\" must be a whole number up to {}",
                           kCopyRateMaxMib);
      }
      request.mebibytes_per_second = value.get<std::uint64_t>();
      return {};
    case Member::idle_seconds:
      if (!value.is_number_unsigned() || value > kIdleSecondsMax) {
        return fmt::format("\"idle_seconds\" must be a whole number up to {}", kIdleSecondsMax);
      }
      request.idle_seconds = value.get<std::uint64_t>();
      return {};
    case Member::size:
      if (!value.is_string()) return "\"size\" must be a text such as \"50G\"";
      request.size = value.get<std::string>();
      return {};
    case Member::level:
      if (!value.is_string()) return "\"level\" must be a text such as \"debug\"";
      request.level = value.get<std::string>();
      return {};
    case Member::on:
      if (!value.is_boolean()) return "\"on\" must be true or false";
      request.on = value.get<bool>();
      return {};
  }
  return {};
}

}  // namespace

std::string parse_file_query(const std::string& text, const std::string& mountpoint,
                             std::size_t files_max, FileQuery& query) {
  query = {{""}, 0, files_max};
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, '&');) {
    const std::size_t equals = std::min(part.find('='), part.size());
    const std::string name = part.substr(0, equals);
    const auto value =
        percent_decoded(std::string_view(part).substr(std::min(equals + 1, part.size())));
    if (!value) return fmt::format("{}: wrongly encoded", part);
    if (name == "path") {
      if (std::string error = set_path(query.paths[0], *value, mountpoint); !error.empty()) {
        return error;
      }
      continue;
    }
    const auto number = whole_number(*value);
    if (name == "after" && number) {
      query.after = *number;
    } else if (name == "limit" && number && *number > 0 && *number <= files_max) {
      query.max = *number;
    } else {
      return fmt::format("{}: must be path=, after= a number, or limit= from 1 to {}", part,
                         files_max);
    }
  }
  return {};
}

ControlRequest parse_request(const std::string& body, const std::string& mountpoint,
                             const std::vector<Member>& members) {
  ControlRequest request;
  const json object = json::parse(body, nullptr, false);
  if (!object.is_object()) {
    request.error = "the body is not a JSON object";
    return request;
  }
  for (const auto& [name, value] : object.items()) {
    const auto member = std::ranges::find(members, name, name_of);
    request.error = member == members.end() ? fmt::format("unknown member \"{}\"", name)
                                            : set_member(request, *member, value, mountpoint);
    if (!request.error.empty()) return request;
  }
  for (const Member member : members) {
    const bool is_required = member == Member::paths || member == Member::size ||
                             member == Member::level || member == Member::on ||
                             member == Member::mebibytes_per_second;
    if (is_required && !object.contains(name_of(member))) {
      request.error = fmt::format("\"{}\" is missing", name_of(member));
    }
  }
  return request;
}

}  // namespace ncfs
