// The bodies of the control API: replies as JSON text, requests as values. openapi.json describes
// both.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "fuse_adapter/control_server.h"
#include "fuse_adapter/health_checks.h"
#include "fuse_adapter/warm_jobs.h"

namespace ncfs {

// A verification that was asked for by somebody.
struct VerifyProgress {
  enum class State : std::uint8_t { running, done, cancelled };
  std::uint64_t id = 0;
  State state = State::running;
  VerifyResult result;  // so far
};

// `names_files`: the reader may know names of files; else they are left out.
[[nodiscard]] std::string status_json(const ControlSubject& subject, std::chrono::seconds uptime,
                                      const std::vector<WarmProgress>& warm_jobs,
                                      const std::vector<VerifyProgress>& verify_jobs,
                                      bool names_files);

[[nodiscard]] std::string config_json(const ControlSubject& subject);
[[nodiscard]] std::string log_level_json(const std::string& level, const std::string& previous);
[[nodiscard]] std::string hot_files_json(const std::vector<HotFiles::File>& files);
[[nodiscard]] std::string copy_rate_json(std::uint64_t bytes_per_second, std::uint64_t previous);
[[nodiscard]] std::string access_log_json(bool is_on, bool was_on);
[[nodiscard]] std::string health_json(const std::vector<HealthCheck>& checks);
[[nodiscard]] std::string warm_json(const EngineStatus& engine, const WarmProgress& progress);
[[nodiscard]] std::string warm_list_json(const EngineStatus& engine,
                                         const std::vector<WarmProgress>& jobs);
[[nodiscard]] std::string verify_json(const VerifyProgress& job);
[[nodiscard]] std::string verify_list_json(const std::vector<VerifyProgress>& jobs);
[[nodiscard]] std::string evict_json(const ControlResult& result);
[[nodiscard]] std::string unpin_json(const ControlResult& result);
[[nodiscard]] std::string invalidate_json(const InvalidationResult& result);
[[nodiscard]] std::string limit_json(const EngineStatus& before, const EngineStatus& after);

// `next`: the id after which there is more, or 0.
[[nodiscard]] std::string files_json(const std::vector<FileReport>& files, std::uint64_t next);

// The query of a target that lists files: path, after and limit. The error, if any; `files_max` is
// the largest limit, and the default.
[[nodiscard]] std::string parse_file_query(const std::string& text, const std::string& mountpoint,
                                           std::size_t files_max, FileQuery& query);

// What a body asks for, as far as it can be understood without looking at files.
struct ControlRequest {
  std::vector<std::string> paths;  // relative to the mount point
  bool pin = false;
  bool best_effort = false;
  std::uint64_t bytes_per_second = 0;
  std::uint64_t mebibytes_per_second = 0;
  std::uint64_t idle_seconds = 0;
  std::string size;   // as written
  std::string level;  // as written
  bool on = false;
  std::string error;  // not empty: what is wrong with it
};
// One member of a body. All are refused that are not in the list.
enum class Member : std::uint8_t {
  paths,
  paths_or_all,
  pin,
  idle_seconds,
  size,
  level,
  on,
  best_effort,
  bytes_per_second,
  mebibytes_per_second
};
[[nodiscard]] ControlRequest parse_request(const std::string& body, const std::string& mountpoint,
                                           const std::vector<Member>& members);

}  // namespace ncfs
