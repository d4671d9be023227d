#include "fuse_adapter/control_json.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

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

json job_json(const WarmProgress& progress) {
  json failures = json::array();
  for (const auto& failure : progress.failures) {
    failures.push_back({{"path", failure.path}, {"error", failure.error}});
  }
  return {{"id", progress.id},
          {"state", to_string(progress.state)},
          {"paths", progress.paths},
          {"pin", progress.pin},
          {"seconds", progress.seconds},
          {"found", count_json(progress.found)},
          {"copied", count_json(progress.copied)},
          {"already_cached", count_json(progress.already_cached)},
          {"skipped", count_json(progress.skipped)},
          {"failed", count_json(progress.failed)},
          {"skip_reasons", progress.skip_reasons},
          {"failures", failures},
          {"files_in_work", progress.in_work.size()}};
}

json count_json(const VerifyResult::Count& count) {
  return {{"files", count.files}, {"bytes", count.bytes}};
}

json verification_json(const VerifyResult& result) {
  return {{"found", count_json(result.found)},       {"intact", count_json(result.intact)},
          {"damaged", count_json(result.damaged)},   {"skipped", count_json(result.skipped)},
          {"bytes_verified", result.bytes_verified}, {"cancelled", result.is_cancelled}};
}

json integrity_json(const EngineStatus& engine) {
  json verifications = json::array();
  for (const VerifyStatus& one : engine.verifications) {
    verifications.push_back(verification_json(one.result));
  }
  return {{"verified_bytes", engine.verified_bytes},
          {"mismatches", engine.damaged_blocks},
          {"damaged_files", engine.damaged_objects},
          {"verifications", verifications}};
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

json health_json(const EngineStatus& engine, Nanos now) {
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
  return {{"cache_disk", std::move(disk)}, {"copying", std::move(copying)}};
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

}  // namespace

std::string error_json(const std::string& message) {
  return dump({{"ok", false}, {"error", message}});
}

std::string status_json(const ControlSubject& subject, std::chrono::seconds uptime,
                        const std::vector<WarmProgress>& jobs) {
  const EngineStatus engine = subject.engine_status();
  const AdapterStats& stats = *subject.adapter_stats;
  const Nanos now = subject.now();
  json copies = json::array();
  for (const CopyStatus& copy : engine.copies) copies.push_back(copy_json(copy, now));
  json warm_jobs = json::array();
  for (const WarmProgress& job : jobs) warm_jobs.push_back(job_json(job));
  return dump({{"ok", true},
               {"type", "status"},
               {"state", engine.is_recovering ? "recovering" : "running"},
               {"mountpoint", subject.mountpoint},
               {"backend", subject.backend},
               {"cache_dir", subject.cache_dir},
               {"version", subject.version},
               {"pid", getpid()},
               {"uptime_seconds", uptime.count()},
               {"passthrough",
                {{"active", subject.passthrough_active}, {"detail", subject.passthrough_detail}}},
               {"cache", cache_json(engine)},
               {"health", health_json(engine, now)},
               {"handles_open", engine.handles_open},
               {"opens", opens_json(stats)},
               {"reads_by_daemon", reads_json(stats)},
               {"backend_reads",
                {{"bytes", engine.source_bytes},
                 {"bytes_on_demand", engine.source_bytes_demand},
                 {"errors", engine.source_errors}}},
               {"copies",
                {{"in_progress", copies},
                 {"queued", engine.copies_queued},
                 {"finished", engine.copies_finished},
                 {"failed", engine.copies_failed}}},
               {"integrity", integrity_json(engine)},
               {"errors",
                {{"backend", engine.source_errors},
                 {"cache", engine.cache_errors},
                 {"cache_reads", stats.cache_faults.value()},
                 {"timeouts", stats.timeouts.value()},
                 {"rejected", stats.rejected.value()},
                 {"other", stats.errors.value()}}},
               {"memory",
                {{"buffer_bytes", subject.buffer_bytes},
                 {"buffer_bytes_in_use", engine.buffers_in_use * subject.block_size_bytes},
                 {"resident_bytes", resident_memory_bytes()}}},
               {"warm_jobs", warm_jobs}});
}

std::string warm_json(const ControlSubject& subject, const WarmProgress& progress, bool is_final) {
  json job = job_json(progress);
  // Large files take long: what is done of those in work makes the bar move.
  std::uint64_t partial_bytes = 0;
  if (!progress.in_work.empty()) {
    for (const CopyStatus& copy : subject.engine_status().copies) {
      const auto& in_work = progress.in_work;
      if (std::find(in_work.begin(), in_work.end(), copy.path) != in_work.end()) {
        partial_bytes += copy.done_bytes;
      }
    }
  }
  job["in_work_done_bytes"] = partial_bytes;
  return dump({{"ok", true}, {"type", "warm"}, {"final", is_final}, {"job", std::move(job)}});
}

std::string verify_json(const VerifyResult& result, bool is_final) {
  return dump(
      {{"ok", true}, {"type", "verify"}, {"final", is_final}, {"job", verification_json(result)}});
}

std::string evict_json(const ControlResult& result) {
  return dump({{"ok", true},
               {"type", "evict"},
               {"evicted", count_json(result.done)},
               {"in_use", count_json(result.in_use)},
               {"pinned", count_json(result.pinned)},
               {"failed", count_json(result.failed)}});
}

std::string unpin_json(const ControlResult& result) {
  return dump({{"ok", true}, {"type", "unpin"}, {"unpinned", count_json(result.done)}});
}

std::string limit_json(const EngineStatus& before, const EngineStatus& after) {
  const std::uint64_t staying = after.used_bytes + after.reserved_bytes - after.leaving_bytes;
  return dump({{"ok", true},
               {"type", "limit"},
               {"limit_bytes", after.limit_bytes},
               {"previous_bytes", before.limit_bytes},
               {"above_bytes", staying - std::min(staying, after.limit_bytes)}});
}

ControlRequest parse_request(const std::string& line, const std::string& mountpoint) {
  ControlRequest request;
  const json body = json::parse(line, nullptr, false);
  if (!body.is_object()) {
    request.error = "the request is not a JSON object";
    return request;
  }
  const auto command = body.value("command", json());
  if (command == "status") {
    request.command = ControlRequest::Command::status;
    return request;
  }
  const bool is_verify = command == "verify";
  if (command == "limit") {
    request.command = ControlRequest::Command::limit;
    const auto size = body.value("size", json());
    if (!size.is_string()) request.error = "limit needs \"size\", such as \"50G\"";
    if (size.is_string()) request.size = size.get<std::string>();
    return request;
  }
  if (command == "warm") {
    request.command = ControlRequest::Command::warm;
  } else if (is_verify) {
    request.command = ControlRequest::Command::verify;
  } else if (command == "evict") {
    request.command = ControlRequest::Command::evict;
  } else if (command == "unpin") {
    request.command = ControlRequest::Command::unpin;
  } else {
    request.error = fmt::format(
        "unknown command {}: must be status, warm, verify, evict, unpin or limit", dump(command));
    return request;
  }
  const auto wait = body.value("wait", json(false));
  const auto pin = body.value("pin", json(false));
  const auto idle = body.value("idle_seconds", json(0U));
  const auto paths = body.value("paths", is_verify ? json::array() : json());
  if (is_verify && (!wait.is_boolean() || !paths.is_array())) {
    request.error = "of verify, \"paths\" is an array of paths and \"wait\" a boolean";
    return request;
  }
  if (!wait.is_boolean() || !pin.is_boolean() || !idle.is_number_unsigned() ||
      idle > kIdleSecondsMax || !paths.is_array() || (paths.empty() && !is_verify)) {
    request.error = fmt::format(
        "{} needs \"paths\", an array with at least one path; \"wait\" and \"pin\" are booleans, "
        "\"idle_seconds\" is a number up to {}",
        command.get<std::string>(), kIdleSecondsMax);
    return request;
  }
  request.pin = pin.get<bool>();
  request.idle_seconds = idle.get<std::uint64_t>();
  request.wait = wait.get<bool>();
  for (const json& path : paths) {
    if (!path.is_string()) {
      request.error = fmt::format("not a path: {}", dump(path));
      return request;
    }
    // By name only; the walk itself never leaves the source's root.
    std::string normal = std::filesystem::path(path.get<std::string>()).lexically_normal();
    while (normal.size() > 1 && normal.ends_with('/')) normal.pop_back();
    if (normal.find('\0') != std::string::npos || !is_within(normal, mountpoint)) {
      request.error = fmt::format("{}: not beneath the mount point {}", normal, mountpoint);
      return request;
    }
    normal.erase(0, mountpoint == "/" ? 1 : mountpoint.size() + 1);
    request.paths.push_back(std::move(normal));
  }
  return request;
}

}  // namespace ncfs
