// A digest of everything that happened, in order. Two runs of one plan must end with equal ones.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "sim/rng.h"

namespace ncfs {

class Trace {
 public:
  void add(std::uint64_t value) { digest_ = mix64(digest_ ^ value); }
  void add(std::string_view text) {
    add(text.size());
    for (const char c : text) add(static_cast<std::uint8_t>(c));
  }
  void add(std::span<const std::byte> bytes) {
    add(bytes.size());
    for (const std::byte byte : bytes) add(static_cast<std::uint64_t>(byte));
  }
  [[nodiscard]] std::uint64_t digest() const { return digest_; }

 private:
  std::uint64_t digest_ = 0;
};

}  // namespace ncfs
