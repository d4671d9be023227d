// Bytes with the checksum at their end that files of the cache directory have: without it nearly
// nothing of what a fuzzer makes would get past the first comparison.
#pragma once

#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace ncfs::fuzz {

inline std::vector<std::byte> sealed(std::span<const std::byte> bytes) {
  std::vector<std::byte> result(bytes.begin(), bytes.end());
  const std::uint64_t checksum = XXH3_64bits(bytes.data(), bytes.size());
  result.resize(bytes.size() + sizeof(checksum));
  std::memcpy(result.data() + bytes.size(), &checksum, sizeof(checksum));
  return result;
}

}  // namespace ncfs::fuzz
