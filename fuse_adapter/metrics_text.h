// Everything that is counted, in the text format of Prometheus. Names and units are a contract with
// dashboards and alerts (tools/monitoring/); a test keeps them together.
#pragma once

#include <string>
#include <vector>

#include "fuse_adapter/control_server.h"
#include "fuse_adapter/warm_jobs.h"

namespace ncfs {

inline constexpr const char* kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

[[nodiscard]] std::string metrics_text(const ControlSubject& subject,
                                       const std::vector<WarmProgress>& warm_jobs);

}  // namespace ncfs
