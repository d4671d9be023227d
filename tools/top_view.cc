#include "tools/top_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "tools/status_view.h"
#include "tools/text_format.h"

namespace ncfs {
namespace {

using nlohmann::json;

// As many as fit on a screen beside the rest.
constexpr std::size_t kFilesMax = 15;

double number(const json& object, const std::string& path) {
  const json::json_pointer pointer(path);
  if (!object.contains(pointer) || !object.at(pointer).is_number()) return 0;
  return object.at(pointer).get<double>();
}

std::uint64_t count(const json& object, const std::string& path) {
  return static_cast<std::uint64_t>(number(object, path));
}

std::string text(const json& object, const std::string& path) {
  const json::json_pointer pointer(path);
  if (!object.contains(pointer) || !object.at(pointer).is_string()) return "?";
  return object.at(pointer).get<std::string>();
}

struct Rate {
  const char* name;
  const char* counter;  // of the status
};
constexpr std::array kRates = {
    Rate{"opens_hit", "/opens/hits"},
    Rate{"opens_miss", "/opens/misses"},
    Rate{"opens_passed_through", "/opens/passed_through"},
    Rate{"opens_passed_through_from_backend", "/opens/passed_through_from_backend"},
    Rate{"passed_through_bytes", "/opens/passed_through_bytes"},
    Rate{"daemon_reads", "/reads_by_daemon/requests"},
    Rate{"daemon_bytes_from_cache", "/reads_by_daemon/bytes_from_cache"},
    Rate{"daemon_bytes_from_backend", "/reads_by_daemon/bytes_from_source"},
    Rate{"backend_bytes", "/backend_reads/bytes"},
    Rate{"backend_bytes_on_demand", "/backend_reads/bytes_on_demand"},
    Rate{"backend_looks", "/metadata/backend_looks"},
    Rate{"writes", "/writes/requests"},
    Rate{"written_bytes", "/writes/bytes"},
    Rate{"copies_finished", "/copies/finished"},
    Rate{"copies_failed", "/copies/failed"},
    Rate{"evictions", "/cache/evictions"},
};

json ratio(double part, double other) {
  if (part + other <= 0) return nullptr;
  return part / (part + other);
}

std::string ratio_text(const json& rates, const char* name) {
  if (!rates.contains(name) || !rates[name].is_number()) return "-";
  return fmt::format("{:.1f} %", 100 * rates[name].get<double>());
}

std::string size_rate(const json& rates, const char* name) {
  return human_size(count(rates, std::string("/") + name)) + "/s";
}

std::string rate(const json& rates, const char* name) {
  return fmt::format("{:.1f}/s", number(rates, std::string("/") + name));
}

std::string line(const char* name, const std::string& value) {
  return fmt::format("  {:<9} {}\n", name, value);
}

std::string files_text(const json& hot_files) {
  if (!hot_files.is_array()) return line("hot files", "only root is told names of files");
  std::string result = fmt::format("  {:>9} {:>11}  {}\n", "OPENS", "SIZE", "HOT FILE");
  for (std::size_t index = 0; index < std::min(hot_files.size(), kFilesMax); ++index) {
    const json& file = hot_files[index];
    result += fmt::format("  {:>9} {:>11}  {}\n", count(file, "/opens"),
                          human_size(count(file, "/size_bytes")), text(file, "/path"));
  }
  return result;
}

}  // namespace

json top_rates(const json& status, const json& previous, double seconds) {
  json rates = {{"seconds", seconds}};
  for (const Rate& rate : kRates) {
    const double now = number(status, rate.counter);
    const double before = number(previous, rate.counter);
    // A daemon that was started anew counts from zero.
    rates[rate.name] = seconds > 0 && now > before ? (now - before) / seconds : 0.0;
  }
  rates["open_hit_ratio"] = ratio(rates["opens_hit"], rates["opens_miss"]);
  rates["daemon_byte_hit_ratio"] =
      ratio(rates["daemon_bytes_from_cache"], rates["daemon_bytes_from_backend"]);
  return rates;
}

std::string top_text(const json& status, const json& rates, const json& hot_files) {
  const std::uint64_t used = count(status, "/cache/used_bytes");
  const std::uint64_t limit = count(status, "/cache/limit_bytes");
  std::string result =
      fmt::format("{}: {}, up {}, cache disk {}, {} of {} ({})\n", text(status, "/mountpoint"),
                  text(status, "/state"), human_duration(number(status, "/uptime_seconds")),
                  text(status, "/health/cache_disk/state"), human_size(used), human_size(limit),
                  percentage(used, limit));
  const double opens = number(rates, "/opens_hit") + number(rates, "/opens_miss");
  result += line("opens", fmt::format("{:.1f}/s, {} of them found the whole file in the cache",
                                      opens, ratio_text(rates, "open_hit_ratio")));
  result +=
      line("  passed", fmt::format("{} of files of {}: the kernel reads as much of them as it "
                                   "wants, uncounted; {} of the backend's files",
                                   rate(rates, "opens_passed_through"),
                                   size_rate(rates, "passed_through_bytes"),
                                   rate(rates, "opens_passed_through_from_backend")));
  result +=
      line("daemon",
           fmt::format("{} reads: {} from the cache, {} from the backend ({} cached)",
                       rate(rates, "daemon_reads"), size_rate(rates, "daemon_bytes_from_cache"),
                       size_rate(rates, "daemon_bytes_from_backend"),
                       ratio_text(rates, "daemon_byte_hit_ratio")));
  result += line("backend", fmt::format("{} read, of these {} for waiting readers; {} looks",
                                        size_rate(rates, "backend_bytes"),
                                        size_rate(rates, "backend_bytes_on_demand"),
                                        rate(rates, "backend_looks")));
  result += line("writes",
                 fmt::format("{}, {}", rate(rates, "writes"), size_rate(rates, "written_bytes")));
  result += copies_text(status);
  result += files_text(hot_files);
  return result;
}

}  // namespace ncfs
