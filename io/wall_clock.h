// Wall clock timestamps as one number.
#pragma once

#include <cstdint>
#include <ctime>

#include "io/types.h"

namespace ncfs {

// Nanoseconds since 1970. Timestamps beyond the years 1678 to 2262, which servers do invent, wrap
// around: still distinct from one another, which is what a version needs.
[[nodiscard]] constexpr std::int64_t wall_nanos(std::int64_t seconds, std::int64_t nanoseconds) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(seconds) * kSecond +
                                   static_cast<std::uint64_t>(nanoseconds));
}

// Now, by this machine's clock, which may be set.
[[nodiscard]] inline std::int64_t wall_now() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return wall_nanos(now.tv_sec, now.tv_nsec);
}

}  // namespace ncfs
