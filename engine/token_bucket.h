// A ceiling for bytes per second, in virtual time.
//
// The generic cell rate algorithm (ITU-T I.371, virtual scheduling): each take moves the moment of
// the next one on by what it takes at this rate. What was not used for kBurst is lost: a pause is
// not made up for, but late timers are. A take may be larger than what is left, so that blocks of
// any size go with any rate: in any window are taken at most rate x (window + kBurst) and one take.
#pragma once

#include <algorithm>
#include <cstdint>

#include "io/types.h"

namespace ncfs {

class TokenBucket {
 public:
  // Longer than a busy machine is late with a timer, too short to be felt as a burst.
  static constexpr Nanos kBurst = 100 * kMillisecond;
  // A thousandth of the slowest disk; times in nanoseconds do not overflow.
  static constexpr std::uint64_t kRateMin = 4096;
  static constexpr std::uint64_t kRateMax = std::uint64_t{1} << 50;

  // In bytes per second, from kRateMin to kRateMax; 0: no limit. What was taken before counts.
  void set_rate(std::uint64_t bytes_per_second) { rate_ = bytes_per_second; }
  [[nodiscard]] std::uint64_t rate() const { return rate_; }

  // From when on something may be taken.
  [[nodiscard]] Nanos ready_at() const { return rate_ == 0 ? 0 : next_at_; }
  void take(Nanos now, std::uint64_t bytes) {
    if (rate_ == 0) return;
    const Nanos since = now > kBurst ? now - kBurst : 0;
    next_at_ = std::max(next_at_, since) + (bytes * kSecond + rate_ - 1) / rate_;
  }
  // As if nothing had been taken for kBurst.
  [[nodiscard]] bool is_full(Nanos now) const { return next_at_ + kBurst <= now; }

 private:
  std::uint64_t rate_ = 0;
  Nanos next_at_ = 0;
};

}  // namespace ncfs
