// A fuzz target is a function that is given any bytes and returns; what must hold is asserted in
// it.
//
// Built with clang and libFuzzer (preset fuzz, tools/fuzz) it is given ever new bytes; in every
// other build it is given those of corpus/, as a test (replay_main.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace ncfs::fuzz {

inline void require(bool condition, const char* law) {
  if (condition) return;
  std::fprintf(stderr, "broken: %s\n", law);
  std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

inline std::span<const std::byte> bytes_of(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}

}  // namespace ncfs::fuzz
