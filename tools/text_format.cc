#include "tools/text_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace ncfs {

std::string human_size(std::uint64_t bytes) {
  static constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 and more would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_duration(double seconds) {
  if (seconds < 10) return fmt::format("{:.1f} s", std::max(seconds, 0.0));
  // Beyond what a copy can take; also keeps the conversion defined.
  if (seconds > 1e9) return "forever";
  const auto whole = static_cast<std::uint64_t>(seconds);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
  return fmt::format("{} d {} h", whole / 86400, whole % 86400 / 3600);
}

std::string progress_bar(std::uint64_t part, std::uint64_t whole, int width) {
  if (whole == 0) return {};
  const double ratio = std::min(1.0, static_cast<double>(part) / static_cast<double>(whole));
  auto filled = static_cast<std::size_t>(ratio * width);
  const auto length = static_cast<std::size_t>(width);
  if (part < whole) filled = std::min(filled, length - 1);
  return "[" + std::string(filled, '#') + std::string(length - filled, '-') + "]";
}

std::string percentage(std::uint64_t part, std::uint64_t whole) {
  if (whole == 0) return "- %";
  const double value = 100 * static_cast<double>(part) / static_cast<double>(whole);
  return fmt::format("{:.1f} %", part < whole ? std::min(value, 99.9) : value);
}

}  // namespace ncfs
