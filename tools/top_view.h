// What top shows of a mount, from two looks at it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace ncfs {

// Per second, of the counters of two replies to GET /v1/status; ratios are of what happened between
// them, null if nothing did. Also of passed_through_bytes, the sizes of files whose reads the
// daemon does not see.
[[nodiscard]] nlohmann::json top_rates(const nlohmann::json& status, const nlohmann::json& previous,
                                       double seconds);

// Several lines, the last one ended. `hot_files` as GET /v1/hot-files tells them; null if the
// caller may not know.
[[nodiscard]] std::string top_text(const nlohmann::json& status, const nlohmann::json& rates,
                                   const nlohmann::json& hot_files);

}  // namespace ncfs
