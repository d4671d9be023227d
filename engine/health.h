// Whether the cache disk can be relied on, judged by how its requests end.
//
//   normal ──► unstable ──► down        faults lead to the right, also in one step;
//     ▲            │          │         only probes lead back, and always to normal
//     └────────────┴──────────┘
//
//   unstable  no new copies are started; what is cached is read, copies under way go on
//   down      nothing is asked of the disk but a probe now and then
//
// Faults are errors and missed deadlines. A full disk is none: it answers, see BackOff. A read-only
// disk makes `unstable`, never `down`: it serves what it holds.
//
// Pure state; control thread only.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "io/types.h"

namespace ncfs {

enum class HealthState : std::uint8_t { normal, unstable, down };
[[nodiscard]] const char* to_string(HealthState state);

// What the end of one request says about the disk.
enum class DiskAnswer : std::uint8_t {
  good,
  neutral,  // an answer, but one that a healthy and a broken disk may give: full, busy, no such
            // name
  fault,
  read_only,
  timeout,
};

class CacheHealth {
 public:
  // One bad sector spoils one file, which is given up at its first fault; three faults within a
  // minute are more than one file.
  static constexpr std::uint32_t kFaultsForUnstable = 3;
  static constexpr Nanos kFaultWindow = 60 * kSecond;
  // Without one success between them. More than the requests of one file that a bad sector fails.
  static constexpr std::uint32_t kFaultsInRowForDown = 8;
  // A local disk that needs longer than Config::cache_deadline (10 s) is broken or hangs: one such
  // request is a warning, a second one with no success in between is enough.
  static constexpr std::uint32_t kTimeoutsInRowForDown = 2;
  static constexpr std::uint32_t kProbeFailuresForDown = 3;
  // Hysteresis: a disk that comes and goes seldom comes three times in a row.
  static constexpr std::uint32_t kProbesForNormal = 3;
  // Between probes: a tick at first, twice as long after each failure. At most a minute: a probe
  // costs two small requests, and a return noticed a minute late is little after a long outage.
  static constexpr Nanos kProbeIntervalMin = 1 * kSecond;
  static constexpr Nanos kProbeIntervalMax = 60 * kSecond;
  // A disk that fails again within this time of its return has to prove itself for twice as long.
  static constexpr Nanos kRelapse = 600 * kSecond;

  [[nodiscard]] HealthState state() const { return state_; }
  [[nodiscard]] bool is_normal() const { return state_ == HealthState::normal; }
  [[nodiscard]] bool is_down() const { return state_ == HealthState::down; }
  // Why it is in this state; empty until the first change.
  [[nodiscard]] const std::string& reason() const { return reason_; }
  [[nodiscard]] int last_error() const { return last_error_; }  // errno of the last fault, or 0
  [[nodiscard]] Nanos since() const { return since_; }
  [[nodiscard]] std::uint64_t changes() const { return changes_; }
  [[nodiscard]] Nanos next_probe_at() const { return next_probe_at_; }  // unless normal

  // Of every request but probes. `error` is 0 if there was none.
  void on_answer(Nanos now, DiskAnswer answer, int error);
  [[nodiscard]] bool is_probe_due(Nanos now) const { return !is_normal() && now >= next_probe_at_; }
  void on_probe_answer(Nanos now, DiskAnswer answer, int error);

 private:
  void note_fault(Nanos now, DiskAnswer answer, int error);
  void change(Nanos now, HealthState to, std::string reason);
  [[nodiscard]] Nanos probe_interval() const;

  HealthState state_ = HealthState::normal;
  std::string reason_;
  int last_error_ = 0;
  Nanos since_ = 0;
  std::uint64_t changes_ = 0;
  std::array<Nanos, kFaultsForUnstable> fault_times_{};  // the latest; a ring
  std::uint64_t faults_ = 0;                             // since normal began
  std::uint32_t faults_in_row_ = 0;
  std::uint32_t timeouts_in_row_ = 0;
  std::uint32_t probes_in_row_ = 0;
  std::uint32_t probe_failures_ = 0;  // in a row
  std::uint32_t relapses_ = 0;
  Nanos next_probe_at_ = 0;
};

// A pause of everything of one kind, with one try at a time: the first after `min`, each further
// one after twice the time, up to `max`.
class BackOff {
 public:
  BackOff(Nanos min, Nanos max) : min_(min), max_(max) {}

  [[nodiscard]] bool is_active() const { return interval_ > 0; }
  [[nodiscard]] Nanos next_try_at() const { return next_try_at_; }  // while active

  // No effect while it is active: the next try is set already.
  void begin(Nanos now);
  // Whether it may be done now. Uses up the try.
  [[nodiscard]] bool take(Nanos now);
  void end() { interval_ = 0; }

 private:
  Nanos min_;
  Nanos max_;
  Nanos interval_ = 0;
  Nanos next_try_at_ = 0;
};

}  // namespace ncfs
