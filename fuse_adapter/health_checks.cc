#include "fuse_adapter/health_checks.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <optional>
#include <sstream>
#include <string_view>

namespace ncfs {
namespace {

using State = HealthCheck::State;

// The value of one option of a mount ("" for a flag); nothing if it is not set.
std::optional<std::string> option_of(const MountEntry& mount, std::string_view name) {
  std::istringstream options(mount.options);
  for (std::string option; std::getline(options, option, ',');) {
    if (option == name) return "";
    if (option.starts_with(name) && option[name.size()] == '=') {
      return option.substr(name.size() + 1);
    }
  }
  return std::nullopt;
}

std::string error_text(int error) {
  return error == 0 ? "unknown error" : std::strerror(error);
}

HealthCheck check_backend(const ControlSubject& subject, const EngineStatus& engine) {
  for (const BackendStatus& backend : subject.backends()) {
    if (backend.state == BackendState::up) continue;
    // No name: others than root are told, too.
    return {"backend", backend.state == BackendState::down ? State::failed : State::warning,
            fmt::format("{}{}: {} ({})",
                        backend.path.empty() ? "" : "a file system mounted beneath it is ",
                        to_string(backend.state), backend.reason, error_text(backend.last_error)),
            "look at the server and the network; its return is noticed within seconds"};
  }
  if (!engine.is_source_resting) return {"backend", State::ok, "answers, as far as asked", ""};
  return {
      "backend", State::failed,
      fmt::format("copies of several files failed in a row: {}", error_text(engine.source_error)),
      "look at the server and the network; copying goes on by itself once it answers"};
}

// Of an NFS mount: options that let errors through or make every look expensive.
HealthCheck check_backend_mount(const ControlSubject& subject,
                                const std::vector<MountEntry>& mounts) {
  HealthCheck check{"backend_mount", State::ok, "", ""};
  const MountEntry* mount = find_mount(mounts, subject.backend);
  if (mount == nullptr || !mount->type.starts_with("nfs")) {
    check.detail = mount == nullptr ? "not in the mount table" : mount->type;
    return check;
  }
  const auto advise = [&check](const std::string& detail, const std::string& remedy) {
    check.state = State::warning;
    check.detail += fmt::format("{}{}", check.detail.empty() ? "" : "; ", detail);
    check.remedy += fmt::format("{}{}", check.remedy.empty() ? "" : "; ", remedy);
  };
  if (option_of(*mount, "soft")) {
    advise("soft: a busy server becomes EIO for programs", "mount the backend with hard");
  }
  if (option_of(*mount, "noac") || option_of(*mount, "actimeo") == "0") {
    advise("attributes are not cached: every open asks the server several times",
           "remove noac and actimeo=0");
  }
  if (option_of(*mount, "lookup_cache") == "none" || option_of(*mount, "lookupcache") == "none") {
    advise("names are not cached: every path is looked up on the server",
           "remove lookupcache=none");
  }
  const auto text = option_of(*mount, "rsize");
  std::uint64_t size = 0;
  // What servers offer by default; the kernel asks for no more at a time.
  constexpr std::uint64_t kReadSizeGood = 1 * kMiB;
  if (text && std::from_chars(text->data(), text->data() + text->size(), size).ec == std::errc{} &&
      size < kReadSizeGood) {
    advise(fmt::format("rsize={}: one request reads only {} KiB", size, size / 1024),
           "mount the backend with rsize=1048576, if the server allows it");
  }
  if (check.detail.empty()) check.detail = mount->type + ", " + mount->options;
  return check;
}

HealthCheck check_cache_disk(const EngineStatus& engine) {
  const CacheHealthStatus& health = engine.cache_health;
  if (health.state == HealthState::normal) return {"cache_disk", State::ok, "normal", ""};
  const std::string detail =
      fmt::format("{}: {}{}", to_string(health.state), health.reason,
                  health.last_error == 0 ? "" : " (" + error_text(health.last_error) + ")");
  return {"cache_disk", health.state == HealthState::down ? State::failed : State::warning, detail,
          "look at the kernel's log and at the disk (smartctl -a); reads go on from the backend"};
}

HealthCheck check_space(const EngineStatus& engine) {
  if (engine.is_disk_full) {
    return {"space", State::failed,
            "the cache's file system is full below cache_size: nothing new is stored",
            "remove what others stored there, or lower the limit (nfs-cachefs-ctl limit)"};
  }
  if (engine.disk_free_bytes > 0 && engine.disk_free_bytes < engine.min_free_bytes) {
    return {"space", State::warning,
            fmt::format("others fill the cache's file system: {} MiB free, {} MiB should stay free",
                        engine.disk_free_bytes / kMiB, engine.min_free_bytes / kMiB),
            "remove what others stored there, or lower min_free_percent"};
  }
  const std::uint64_t taken = engine.used_bytes + engine.reserved_bytes;
  const std::uint64_t staying = taken - std::min(taken, engine.leaving_bytes);
  if (staying > engine.limit_bytes) {
    return {"space", State::warning,
            fmt::format("{} MiB above the limit are open or pinned: nothing new is stored",
                        (staying - engine.limit_bytes) / kMiB),
            "close or unpin files, or raise the limit"};
  }
  return {"space", State::ok,
          fmt::format("{} of {} MiB used", engine.used_bytes / kMiB, engine.limit_bytes / kMiB),
          ""};
}

HealthCheck check_pins(const EngineStatus& engine) {
  // What is left turns over too fast to be of use.
  constexpr std::uint64_t kPinnedPercentMax = 90;
  const std::string detail = fmt::format("{} files with {} MiB are pinned", engine.pinned_files,
                                         engine.pinned_bytes / kMiB);
  if (engine.pinned_bytes / kPinnedPercentMax <= engine.limit_bytes / 100) {
    return {"pins", State::ok, detail, ""};
  }
  return {"pins", State::warning, detail + ": there is little room for anything else",
          "unpin what is not needed any more, or raise the limit"};
}

HealthCheck check_passthrough(const ControlSubject& subject) {
  const bool is_refused = subject.passthrough_active &&
                          subject.adapter_stats->passthrough_refused.value() > 0 &&
                          subject.adapter_stats->opens_passthrough.value() == 0;
  if (is_refused) {
    return {"passthrough", State::warning,
            "the kernel does not pass files of this cache directory through; the daemon reads them",
            "put cache_dir on a plain local file system (not on overlayfs or another FUSE)"};
  }
  if (subject.passthrough_active || !subject.passthrough_wanted) {
    return {"passthrough", State::ok, subject.passthrough_detail, ""};
  }
  return {"passthrough", State::warning, subject.passthrough_detail,
          "run Linux 6.9 or later for reads of cached files at the speed of the disk"};
}

HealthCheck check_integrity(const EngineStatus& engine) {
  if (engine.damaged_objects == 0) {
    return {"integrity", State::ok, "no damaged file was found since the mount", ""};
  }
  return {"integrity", State::warning,
          fmt::format("{} damaged files were removed since the mount", engine.damaged_objects),
          "the cache disk returns other bytes than were written: look at it (smartctl -a), verify "
          "the rest (nfs-cachefs-ctl cache verify --wait)"};
}

HealthCheck check_metrics(const std::string& error) {
  if (error.empty()) return {"metrics", State::ok, "as configured", ""};
  return {"metrics", State::warning, "option metrics_listen: " + error,
          "choose another address or port; others may use 9100, too"};
}

}  // namespace

const char* to_string(State state) {
  switch (state) {
    case State::ok:
      return "ok";
    case State::warning:
      return "warning";
    case State::failed:
      return "failed";
  }
  return "unknown";
}

std::vector<HealthCheck> check_health(const ControlSubject& subject, const EngineStatus& engine,
                                      const std::vector<MountEntry>& mounts,
                                      const std::string& metrics_error) {
  return {check_backend(subject, engine),
          check_backend_mount(subject, mounts),
          check_cache_disk(engine),
          check_space(engine),
          check_pins(engine),
          check_passthrough(subject),
          check_integrity(engine),
          check_metrics(metrics_error)};
}

}  // namespace ncfs
