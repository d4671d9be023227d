// The replies of the control server as JSON text, one line each, without the newline.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "fuse_adapter/control_server.h"
#include "fuse_adapter/warm_jobs.h"

namespace ncfs {

[[nodiscard]] std::string error_json(const std::string& message);

[[nodiscard]] std::string status_json(const ControlSubject& subject, std::chrono::seconds uptime,
                                      const std::vector<WarmProgress>& jobs);

// `is_final`: no further line follows for this request.
[[nodiscard]] std::string warm_json(const ControlSubject& subject, const WarmProgress& progress,
                                    bool is_final);

[[nodiscard]] std::string verify_json(const VerifyResult& result, bool is_final);
[[nodiscard]] std::string evict_json(const ControlResult& result);
[[nodiscard]] std::string unpin_json(const ControlResult& result);
[[nodiscard]] std::string limit_json(const EngineStatus& before, const EngineStatus& after);

// A request as far as it can be understood without knowing the mount.
struct ControlRequest {
  enum class Command : std::uint8_t { status, warm, verify, evict, unpin, limit };
  Command command{};
  std::vector<std::string> paths;  // relative to the mount point
  bool wait = false;
  bool pin = false;
  std::uint64_t idle_seconds = 0;
  std::string size;   // as written
  std::string error;  // not empty: what is wrong with it
};
[[nodiscard]] ControlRequest parse_request(const std::string& line, const std::string& mountpoint);

}  // namespace ncfs
