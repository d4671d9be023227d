// What a crash leaves of the operations that were not yet durable: a sequence of choices.
//
// A mask below kRandomMask is a mixed-radix number whose digits are the choices, lowest first, so
// that counting from 0 to combinations() - 1 visits every outcome once. Digit 0 is always "lost";
// mask 0 therefore loses everything that was pending, and shrinking a mask towards 0 shrinks
// towards the plainest crash. Larger masks seed a random stream, for crashes with more outcomes
// than can be counted.
#pragma once

#include <cstdint>
#include <limits>

#include "sim/rng.h"

namespace ncfs {

inline constexpr std::uint64_t kRandomMask = std::uint64_t{1} << 40;

class Survivors {
 public:
  explicit Survivors(std::uint64_t mask)
      : is_random_(mask >= kRandomMask), digits_(mask), rng_(mask) {}

  // A number in [0, outcomes).
  std::uint64_t choose(std::uint64_t outcomes) {
    NCFS_ASSERT(outcomes > 0);
    const bool overflows = combinations_ > std::numeric_limits<std::uint64_t>::max() / outcomes;
    combinations_ =
        overflows ? std::numeric_limits<std::uint64_t>::max() : combinations_ * outcomes;
    if (is_random_) return rng_.below(outcomes);
    const std::uint64_t digit = digits_ % outcomes;
    digits_ /= outcomes;
    return digit;
  }

  // Where to tear something of `length` parts: not a digit of the mask, as the cuts in between
  // would multiply the outcomes without telling anything new. At least one part on either side.
  std::uint64_t cut(std::uint64_t length) {
    NCFS_ASSERT(length >= 2);
    return is_random_ ? 1 + rng_.below(length - 1) : length / 2;
  }

  // How many masks lead to different outcomes, as far as was asked.
  [[nodiscard]] std::uint64_t combinations() const { return combinations_; }

 private:
  const bool is_random_;
  std::uint64_t digits_;
  Rng rng_;
  std::uint64_t combinations_ = 1;
};

}  // namespace ncfs
