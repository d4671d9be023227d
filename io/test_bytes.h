// For tests: bytes that differ from page to page and from seed to seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ncfs {

inline std::vector<std::byte> test_bytes(std::uint64_t size, unsigned seed = 1) {
  std::vector<std::byte> bytes(size);
  for (std::uint64_t index = 0; index < size; ++index) {
    bytes[index] = static_cast<std::byte>((index * 31 + index / 4096 * 7 + seed * 101) & 0xff);
  }
  return bytes;
}

}  // namespace ncfs
