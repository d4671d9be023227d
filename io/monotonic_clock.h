// The clock of all deadlines of the real driver: CLOCK_MONOTONIC, which is also that of
// std::chrono::steady_clock and so of the Asio timers.
#pragma once

#include <chrono>

#include "io/types.h"

namespace ncfs {

[[nodiscard]] inline Nanos monotonic_now() {
  return static_cast<Nanos>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                std::chrono::steady_clock::now().time_since_epoch())
                                .count());
}

}  // namespace ncfs
