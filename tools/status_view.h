// The replies of a daemon as text for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace ncfs {

// Several lines, the last one ended.
[[nodiscard]] std::string status_text(const nlohmann::json& status);

// The copies of a status: a line with the totals, then one for each that is in progress.
[[nodiscard]] std::string copies_text(const nlohmann::json& status);

// Replaces the average rates of copies in `status` by what was done since `previous`.
void use_recent_rates(nlohmann::json& status, const nlohmann::json& previous, double seconds);

// One line for each file of GET /v1/files after a heading.
[[nodiscard]] std::string files_text(const std::vector<nlohmann::json>& files);
// What is known of one file, whose versions these are, oldest first, in sentences.
[[nodiscard]] std::string explanation_text(const std::vector<nlohmann::json>& versions);

// The options of GET /v1/config; what is not the default is marked.
[[nodiscard]] std::string config_text(const nlohmann::json& config);

// The checks of a mount, what is not well with its remedy.
[[nodiscard]] std::string health_text(const nlohmann::json& health);

// One line without end: the bar of a warm-up that goes on.
[[nodiscard]] std::string warm_progress_text(const nlohmann::json& job);

// The totals of a warm-up, several lines, the last one ended.
[[nodiscard]] std::string warm_result_text(const nlohmann::json& job);

// The warm-ups of a reply with "jobs", a line each after the first.
[[nodiscard]] std::string warm_list_text(const nlohmann::json& reply);

// The same of a verification.
[[nodiscard]] std::string verify_progress_text(const nlohmann::json& job);
[[nodiscard]] std::string verify_result_text(const nlohmann::json& job);

}  // namespace ncfs
