// What an operator should know about a mount: what fails, and what silently costs speed or safety,
// each with what to do about it. Pure: everything looked at is an argument.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "fuse_adapter/control_server.h"
#include "fuse_adapter/mount_table.h"

namespace ncfs {

struct HealthCheck {
  enum class State : std::uint8_t {
    ok,
    warning,  // works, but slower, with less cache or less safely than it could
    failed,   // the cache, or new copies, do not work at present
  };
  std::string name;
  State state = State::ok;
  std::string detail;
  std::string remedy;  // empty if nothing is to be done
};
[[nodiscard]] const char* to_string(HealthCheck::State state);

// Always the same checks in the same order, without names of files. `metrics_error` as in
// ControlServer.
[[nodiscard]] std::vector<HealthCheck> check_health(const ControlSubject& subject,
                                                    const EngineStatus& engine,
                                                    const std::vector<MountEntry>& mounts,
                                                    const std::string& metrics_error);

}  // namespace ncfs
