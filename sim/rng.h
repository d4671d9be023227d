// Random numbers of the simulator: integers only, so that a seed means the same on every machine.
//
// Each component forks a stream of its own by name. A draw more in one component then does not
// shift what the others see, and a plan that fails keeps failing when a fault is added elsewhere.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string_view>

#include "io/assert.h"

namespace ncfs {

// A probability.
struct Ratio {
  std::uint64_t numerator = 0;
  std::uint64_t denominator = 1;
};

// One step of splitmix64: a bijection that spreads any change of its argument over all bits.
[[nodiscard]] constexpr std::uint64_t mix64(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// xoshiro256**.
class Rng {
 public:
  explicit constexpr Rng(std::uint64_t seed) {
    for (std::uint64_t& word : state_) word = seed = mix64(seed);
  }

  constexpr std::uint64_t next() {
    const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  // Uniform enough in [0, bound): bounds here are far below 2^32, so the bias is below 2^-32.
  constexpr std::uint64_t below(std::uint64_t bound) {
    NCFS_ASSERT(bound > 0);
    return next() % bound;
  }

  constexpr bool chance(Ratio ratio) { return below(ratio.denominator) < ratio.numerator; }

  // An independent stream. Does not advance this one.
  [[nodiscard]] constexpr Rng fork(std::string_view name) const {
    std::uint64_t digest = state_[0] ^ std::rotl(state_[3], 13);
    for (const char c : name) digest = mix64(digest ^ static_cast<std::uint8_t>(c));
    return Rng(digest);
  }

 private:
  std::array<std::uint64_t, 4> state_{};
};

}  // namespace ncfs
