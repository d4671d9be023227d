#include "tools/anonymizer.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cstdlib>
#include <ctime>
#include <vector>

namespace ncfs {

using nlohmann::json;

namespace {

// journalctl gives bytes that are no UTF-8 as an array of numbers, and null for what is too long.
std::string field(const json& message, const char* name) {
  if (!message.contains(name)) return {};
  const json& value = message[name];
  if (value.is_string()) return value.get<std::string>();
  std::string bytes;
  if (!value.is_array()) return bytes;
  for (const json& byte : value) {
    if (byte.is_number_integer()) bytes += static_cast<char>(byte.get<int>());
  }
  return bytes;
}

std::string time_text(const std::string& microseconds) {
  const std::time_t seconds = std::strtoll(microseconds.c_str(), nullptr, 10) / 1'000'000;
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(seconds));
}

}  // namespace

std::string Anonymizer::path(const std::string& path) {
  std::string result;
  std::size_t begin = 0;
  while (begin <= path.size()) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    if (begin > 0) result += '/';
    if (!part.empty()) {
      result += fmt::format("n{}", names_.try_emplace(part, names_.size() + 1).first->second);
    }
    begin = end + 1;
  }
  return result;
}

void Anonymizer::clean(json& reply) {
  if (reply.is_array()) {
    for (json& item : reply) clean(item);
  }
  if (!reply.is_object()) return;
  const std::string option = reply.value("name", json()).is_string() ? reply["name"] : "";
  if ((option == "include" || option == "exclude") && reply.value("value", json()).is_string()) {
    reply["value"] = path(reply["value"].get<std::string>());
  }
  for (auto& [name, value] : reply.items()) {
    if (name == "path" && value.is_string()) value = path(value.get<std::string>());
    if (name == "paths" && value.is_array()) {
      for (json& item : value) {
        if (item.is_string()) item = path(item.get<std::string>());
      }
    }
    clean(value);
  }
}

std::string Anonymizer::log_line(const json& message, Anonymizer* anonymizer) {
  const std::string event = field(message, "CACHEFS_EVENT");
  const std::string file = field(message, "CACHEFS_PATH");
  std::string text = field(message, "MESSAGE");
  if (anonymizer != nullptr && !event.empty()) {
    text = fmt::format("{}: {} bytes={} error={}", event, anonymizer->path(file),
                       field(message, "CACHEFS_BYTES"), field(message, "CACHEFS_ERROR"));
  }
  if (anonymizer != nullptr && event.empty() && !message.contains("CACHEFS_MOUNT")) {
    text = "(left out: without fields, it may name files)";
  }
  return fmt::format("{} <{}> {}[{}]: {}\n", time_text(field(message, "__REALTIME_TIMESTAMP")),
                     field(message, "PRIORITY"), field(message, "SYSLOG_IDENTIFIER"),
                     field(message, "_PID"), text);
}

}  // namespace ncfs
