#include "fuse_adapter/control_socket.h"

#include <fmt/format.h>
#include <sys/un.h>
#include <xxhash.h>

#include <cctype>

namespace ncfs {
namespace {

constexpr std::string_view kSuffix = ".sock";
constexpr std::size_t kDigestLetters = 16;

std::string escape(std::string_view mountpoint) {
  while (mountpoint.starts_with('/')) mountpoint.remove_prefix(1);
  while (mountpoint.ends_with('/')) mountpoint.remove_suffix(1);
  if (mountpoint.empty()) return "-";
  std::string name;
  for (const char letter : mountpoint) {
    const bool is_plain = std::isalnum(static_cast<unsigned char>(letter)) != 0 || letter == ':' ||
                          letter == '_' || (letter == '.' && !name.empty());
    if (letter == '/') {
      name += '-';
    } else if (is_plain) {
      name += letter;
    } else {
      name += fmt::format("\\x{:02x}", static_cast<unsigned char>(letter));
    }
  }
  return name;
}

}  // namespace

std::string control_socket_path(std::string_view directory, std::string_view mountpoint) {
  std::string name = escape(mountpoint);
  // One byte for the slash, one for the terminating zero.
  const std::size_t taken = directory.size() + kSuffix.size() + 2;
  const std::size_t address_max = sizeof(sockaddr_un::sun_path);
  const std::size_t room = address_max > taken ? address_max - taken : 0;
  if (name.size() > room && room > kDigestLetters) {
    const auto digest = XXH64(name.data(), name.size(), 0);
    name.resize(room - kDigestLetters - 1);
    name += fmt::format("-{:016x}", digest);
  }
  return fmt::format("{}/{}{}", directory, name, kSuffix);
}

}  // namespace ncfs
