// Whether a backend can be relied on, judged by how calls to it end.
//
//   up ──► suspect ──► down        only an unanswered or failed probe leads to down
//   ▲         │          │
//   └─────────┴──────────┘         only probes lead back
//
//   suspect  calls are made as ever, and a probe is under way
//   down     no call is made but one probe at a time
//
// Calls about one file may fail or hang while the backend is well: that is why a probe decides. A
// probe is a small question about something that must be there. One that hangs stays out until it
// returns, which is how the end of a hang is seen.
//
// Time is an argument. Pure state; not locked.
#pragma once

#include <cstdint>
#include <string>

#include "io/types.h"

namespace ncfs {

enum class BackendState : std::uint8_t { up, suspect, down };
[[nodiscard]] const char* to_string(BackendState state);

// What the end of one call says about the backend.
enum class BackendAnswer : std::uint8_t {
  good,         // it answered, if only that there is no such file or that it may not be read
  transient,    // an error that also one bad file may give: EIO
  unreachable,  // connection and network errors
  timeout,      // no answer in time
};
// `error` is an errno, or 0.
[[nodiscard]] BackendAnswer judge_backend(int error);

class BackendHealth {
 public:
  // One EIO is a bad sector of the server; two with no success between them are worth a question.
  static constexpr std::uint32_t kTransientsForSuspect = 2;
  static constexpr std::uint32_t kProbeFailuresForDown = 2;
  // When a probe has cleared the backend, what fails is something else, and fails again soon.
  static constexpr Nanos kCalm = 10 * kSecond;
  // Between probes that return: one getattr each. A return is noticed at most 10 s late.
  static constexpr Nanos kProbeIntervalMin = 1 * kSecond;
  static constexpr Nanos kProbeIntervalMax = 10 * kSecond;
  // A backend that fails again so soon after its return needs twice as many good probes in a row,
  // up to eight: one that comes and goes every minute is left alone for most of it.
  static constexpr Nanos kRelapse = 600 * kSecond;
  static constexpr std::uint32_t kProbesForUpMax = 8;

  // `probe_patience`: how long a probe may be out before the backend is down.
  explicit BackendHealth(Nanos probe_patience) : probe_patience_(probe_patience) {}

  [[nodiscard]] BackendState state() const { return state_; }
  [[nodiscard]] bool is_up() const { return state_ == BackendState::up; }
  [[nodiscard]] bool is_down() const { return state_ == BackendState::down; }
  // Why it is in this state; empty until the first change.
  [[nodiscard]] const std::string& reason() const { return reason_; }
  [[nodiscard]] int last_error() const { return last_error_; }  // errno of the last fault, or 0
  [[nodiscard]] Nanos since() const { return since_; }
  [[nodiscard]] std::uint64_t changes() const { return changes_; }

  // Down from the beginning: it could not be asked even once. Before anything else.
  void begin_down(Nanos now, std::string reason, int error);
  // Of every call but probes.
  void on_answer(Nanos now, BackendAnswer answer, int error);
  // Whether a probe is to be made now; if so, it is out until on_probe_answer().
  [[nodiscard]] bool take_probe(Nanos now);
  void on_probe_answer(Nanos now, BackendAnswer answer, int error);
  // Now and then, and before the state is asked for.
  void tick(Nanos now);

 private:
  void suspect(Nanos now, std::string reason);
  void change(Nanos now, BackendState to, std::string reason);

  const Nanos probe_patience_;
  BackendState state_ = BackendState::up;
  std::string reason_;
  int last_error_ = 0;
  Nanos since_ = 0;
  std::uint64_t changes_ = 0;
  std::uint32_t transients_in_row_ = 0;
  Nanos calm_until_ = 0;
  bool has_been_down_ = false;
  Nanos returned_at_ = 0;  // from down
  std::uint32_t probes_for_up_ = 1;
  std::uint32_t probes_in_row_ = 0;   // good ones
  std::uint32_t probe_failures_ = 0;  // in a row
  bool is_probe_out_ = false;
  Nanos probe_began_at_ = 0;
  Nanos next_probe_at_ = 0;
};

}  // namespace ncfs
