// Metrics in the text format of Prometheus, as the daemons tell them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace ncfs {

// One text of several mounts: the format allows each name to be described only once, with all its
// samples following.
[[nodiscard]] std::string merge_metrics(const std::vector<std::string>& texts);

// An array of {"name", "type", "help", "samples": [text of one line, ...]}.
[[nodiscard]] nlohmann::json metrics_json(const std::string& text);

}  // namespace ncfs
