#include "fuse_adapter/virtual_attributes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace ncfs {
namespace {

constexpr std::string_view kPrefix = "user.cachefs.";
constexpr std::string_view kCurvefs = "curvefs.warmup.op";
constexpr std::string_view kCurvefsList = "curvefs.warmup.op.list";
constexpr std::array<std::pair<std::string_view, VirtualAttribute>, 6> kNames = {{
    {"state", VirtualAttribute::state},
    {"percent", VirtualAttribute::percent},
    {"version", VirtualAttribute::version},
    {"tier", VirtualAttribute::tier},
    {"pinned", VirtualAttribute::pinned},
    {"age", VirtualAttribute::age},
}};

std::string seconds_text(std::int64_t ns) {
  constexpr auto kSecondNs = static_cast<std::int64_t>(kSecond);
  // Rounded down, so that the decimals count up in times before 1970 as well.
  const std::int64_t below = ns % kSecondNs < 0 ? 1 : 0;
  return fmt::format("{}.{:09}", ns / kSecondNs - below, ns % kSecondNs + below * kSecondNs);
}

const char* tier_of(const FileReport& file) {
  if (file.state == FileReport::State::complete) return "disk";
  return file.cached_bytes > 0 ? "disk+backend" : "backend";
}

std::uint64_t percent_of(const FileReport& file) {
  if (file.state == FileReport::State::complete) return 100;
  if (file.version.size == 0) return 0;
  const std::uint64_t percent = static_cast<std::uint64_t>(
      static_cast<double>(file.cached_bytes) / static_cast<double>(file.version.size) * 100);
  return std::min<std::uint64_t>(percent, 99);
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    lines.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

// Absolute, and so that it can only mean what it says.
bool is_plain_path(std::string_view path) {
  if (!path.starts_with('/') || path.find('\0') != std::string_view::npos) return false;
  if (path == "/") return true;
  for (std::size_t start = 1; start <= path.size();) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const std::string_view name = path.substr(start, end - start);
    if (name.empty() || name == "." || name == "..") return false;
    start = end + 1;
  }
  return true;
}

// The path from the root of the mount, without the slash before it; nothing if the prefix is not
// above it.
std::optional<std::string_view> beneath(std::string_view path, std::string_view prefix) {
  if (prefix == "/") prefix = "";
  if (!path.starts_with(prefix)) return std::nullopt;
  path.remove_prefix(prefix.size());
  if (path.empty() || path == "/") return "";
  if (!path.starts_with('/')) return std::nullopt;
  return path.substr(1);
}

}  // namespace

std::optional<VirtualAttribute> virtual_attribute(std::string_view name) {
  if (name == kCurvefs) return VirtualAttribute::curvefs_warmup;
  if (name == kCurvefsList) return VirtualAttribute::curvefs_warmups;
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  const auto* known = std::ranges::find(kNames, name, &decltype(kNames)::value_type::first);
  return known == kNames.end() ? VirtualAttribute::unknown : known->second;
}

std::string without_virtual_attributes(std::string_view list) {
  std::string result;
  while (!list.empty()) {
    const std::size_t end = std::min(list.find('\0'), list.size() - 1);
    if (!virtual_attribute(list.substr(0, end))) result += list.substr(0, end + 1);
    list.remove_prefix(end + 1);
  }
  return result;
}

std::string value_of(VirtualAttribute attribute, const FileReport& file, std::int64_t wall_now_ns) {
  switch (attribute) {
    case VirtualAttribute::state:
      return to_string(file.state);
    case VirtualAttribute::percent:
      return std::to_string(percent_of(file));
    case VirtualAttribute::version:
      return fmt::format("size={} mtime={} ctime={}", file.version.size,
                         seconds_text(file.version.mtime_ns), seconds_text(file.version.ctime_ns));
    case VirtualAttribute::tier:
      return tier_of(file);
    case VirtualAttribute::pinned:
      return file.is_pinned ? "1" : "0";
    case VirtualAttribute::age: {
      const std::int64_t age_ns = std::max<std::int64_t>(wall_now_ns - file.version.mtime_ns, 0);
      return std::to_string(static_cast<Nanos>(age_ns) / kSecond);
    }
    default:
      return {};
  }
}

ParsedOrder parse_order(VirtualAttribute attribute, std::string_view value) {
  const bool is_state = attribute == VirtualAttribute::state;
  if (!is_state && attribute != VirtualAttribute::pinned) return {.error = EOPNOTSUPP};
  if (is_state && value == "warm") return {.order = AttributeOrder::warm};
  if (is_state && value == "evict") return {.order = AttributeOrder::evict};
  if (!is_state && value == "1") return {.order = AttributeOrder::pin};
  if (!is_state && value == "0") return {.order = AttributeOrder::unpin};
  return {.error = EINVAL};
}

CurvefsOrder parse_curvefs_order(std::string_view value, std::string_view path_of_file) {
  CurvefsOrder order;
  const std::vector<std::string_view> lines = lines_of(value);
  order.is_cancel = lines[0] == "cancel" && lines.size() == 2;
  const bool is_add = lines[0] == "add" && lines.size() == 6;
  if (!is_add && !order.is_cancel) return {.error = EINVAL};
  order.is_list = lines[1] == "list";
  if (!order.is_list && lines[1] != "single") return {.error = EINVAL};
  if (order.is_cancel) return order;
  for (const std::size_t place : {2U, 4U, 5U}) {
    if (!is_plain_path(lines[place])) return {.error = EINVAL};
  }
  for (const std::size_t place : {4U, 5U}) order.prefixes.emplace_back(lines[place]);
  order.prefixes.emplace_back("/");
  const bool is_this_file = std::ranges::any_of(order.prefixes, [&](const std::string& prefix) {
    return beneath(lines[2], prefix) == path_of_file;
  });
  if (!is_this_file) return {.error = EINVAL};
  if (lines[3] == "kvclient") return {.error = EOPNOTSUPP};
  if (lines[3] != "disk") return {.error = EINVAL};
  return order;
}

std::optional<std::vector<std::string>> parse_curvefs_list(
    std::string_view text, const std::vector<std::string>& prefixes) {
  std::vector<std::string> paths;
  for (const std::string_view line : lines_of(text)) {
    if (line.empty()) continue;
    if (!is_plain_path(line)) return std::nullopt;
    for (const std::string& prefix : prefixes) {
      const auto path = beneath(line, prefix);
      if (!path) continue;
      paths.emplace_back(*path);
      break;
    }
  }
  return paths;
}

}  // namespace ncfs
