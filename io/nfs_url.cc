#include "io/nfs_url.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <system_error>

namespace ncfs {
namespace {

constexpr std::string_view kScheme = "nfs://";

std::optional<std::uint32_t> number(std::string_view text, std::uint32_t least,
                                    std::uint32_t most) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (value < least || value > most) return std::nullopt;
  return value;
}

// Cuts off what stands before `separator`, and that too.
std::string_view take_until(std::string_view& text, char separator) {
  const std::string_view part = text.substr(0, text.find(separator));
  text.remove_prefix(std::min(part.size() + 1, text.size()));
  return part;
}

std::optional<std::string> decoded(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    if (text.front() != '%') {
      result += text.front();
      text.remove_prefix(1);
      continue;
    }
    unsigned byte = 0;
    const std::string_view digits = text.substr(1, 2);
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (error != std::errc{} || end != digits.data() + 2 || byte == 0 || byte == '/') {
      return std::nullopt;
    }
    result += static_cast<char>(byte);
    text.remove_prefix(3);
  }
  return result;
}

// What is wrong, or nothing.
std::string take_options(std::string_view options, NfsUrl& url) {
  while (!options.empty()) {
    std::string_view value = take_until(options, '&');
    const std::string_view name = take_until(value, '=');
    if (name == "version") {
      if (value != "4") {
        return fmt::format("version={}: must be 4 (NFSv4.0); use the path of an NFS mount", value);
      }
    } else if (name == "nconnect") {
      const auto count = number(value, 1, NfsUrl::kConnectionsMax);
      if (!count) {
        return fmt::format("nconnect={}: must be 1..{}", value, NfsUrl::kConnectionsMax);
      }
      url.connections = *count;
    } else if (name == "nfsport") {
      const auto port = number(value, 1, 65535);
      if (!port) return fmt::format("nfsport={}: must be 1..65535", value);
      url.port = static_cast<std::uint16_t>(*port);
    } else {
      return fmt::format("unknown option {}; known are version, nconnect, nfsport", name);
    }
  }
  return {};
}

}  // namespace

std::string NfsUrl::name() const {
  const bool is_ipv6 = server.find(':') != std::string::npos;
  std::string text =
      is_ipv6 ? fmt::format("[{}]:{}:", server, port) : fmt::format("{}:{}:", server, port);
  for (const std::string& part : path) text += '/' + part;
  return path.empty() ? text + '/' : text;
}

bool is_nfs_url(std::string_view text) {
  return text.starts_with(kScheme);
}

std::variant<NfsUrl, NfsUrlError> parse_nfs_url(std::string_view text) {
  if (!is_nfs_url(text)) return NfsUrlError{"must begin with nfs://"};
  text.remove_prefix(kScheme.size());
  NfsUrl url;
  std::string_view place = text.substr(0, text.find('?'));
  const std::string_view options = text.substr(std::min(place.size() + 1, text.size()));
  const std::size_t slash = place.find('/');
  if (slash == std::string_view::npos) {
    return NfsUrlError{"must name an export, as in nfs://server/export"};
  }
  std::string_view server = place.substr(0, slash);
  std::string_view path = place.substr(slash);
  std::string_view port;
  if (server.starts_with('[')) {
    const std::size_t end = server.find(']');
    if (end == std::string_view::npos) return NfsUrlError{"has [ without ]"};
    url.server = server.substr(1, end - 1);
    port = server.substr(end + 1);
  } else {
    url.server = server.substr(0, server.find(':'));
    port = server.substr(url.server.size());
  }
  if (url.server.empty()) return NfsUrlError{"names no server"};
  if (!port.empty()) {
    const auto value = number(port.substr(1), 1, 65535);
    if (port.front() != ':' || !value) {
      return NfsUrlError{fmt::format("port {}: must be 1..65535", port.substr(1))};
    }
    url.port = static_cast<std::uint16_t>(*value);
  }
  while (!path.empty()) {
    const auto part = decoded(take_until(path, '/'));
    if (!part) return NfsUrlError{"has a % in its path that no two hexadecimal digits follow"};
    if (*part == "..") return NfsUrlError{"may not contain .."};
    if (!part->empty() && *part != ".") url.path.push_back(*part);
  }
  if (std::string problem = take_options(options, url); !problem.empty()) {
    return NfsUrlError{std::move(problem)};
  }
  return url;
}

}  // namespace ncfs
