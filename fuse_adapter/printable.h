// Text from outside as part of one line that people and programs read.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace ncfs {

// Control characters as \x0a; all else as it is.
[[nodiscard]] inline std::string printable(std::string_view text) {
  std::string result;
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (byte < 0x20 || byte == 0x7f) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      result += letter;
    }
  }
  return result;
}

}  // namespace ncfs
