// For tests: waiting for what other threads or the kernel bring about, by looking again and again.
#pragma once

#include <chrono>
#include <thread>

namespace ncfs {

// What waits this long waits for ever: far more than the slowest machine needs.
constexpr std::chrono::seconds kTestPatience(60);

// False if the condition does not come true within `patience`. Sleeps between two looks: on
// Linux 6.18 two threads in a loop of sched_yield keep two processors from everybody else, and an
// fsync took 60 s.
template <typename Condition>
[[nodiscard]] bool eventually(Condition condition,
                              std::chrono::steady_clock::duration patience = kTestPatience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace ncfs
