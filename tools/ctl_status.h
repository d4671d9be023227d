// The commands that show things. All return an exit status.
#pragma once

#include <string>
#include <vector>

namespace ncfs::ctl {

int list(bool as_json);
int status(const std::string& mountpoint, bool as_json, bool watch);

// What the cache holds at and beneath the paths, or of all mounts.
int list_files(const std::vector<std::string>& paths, bool as_json);
// Everything about one file, and what follows from it.
int explain(const std::string& path, bool as_json);
// The options in force. Those marked hot can be changed by config_set.
int config_show(const std::string& mountpoint, bool as_json);
int config_set(const std::string& mountpoint, const std::string& name, const std::string& value,
               bool as_json);
// Exit status kSomeFailed if a check has failed; with `is_strict` also for warnings.
int health_check(const std::string& mountpoint, bool is_strict, bool as_json);
// As Prometheus reads them, of all mounts together.
int metrics_export(const std::string& mountpoint, bool as_json);

}  // namespace ncfs::ctl
