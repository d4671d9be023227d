#include "engine/backend_health.h"

#include <algorithm>
#include <utility>

#include "io/assert.h"

namespace ncfs {

const char* to_string(BackendState state) {
  switch (state) {
    case BackendState::up:
      return "up";
    case BackendState::suspect:
      return "suspect";
    case BackendState::down:
      return "down";
  }
  return "unknown";
}

// Linux errno values; see core.h.
BackendAnswer judge_backend(int error) {
  switch (error) {
    case 5:    // EIO
    case 121:  // EREMOTEIO, what NFS says for an error it has no name for
      return BackendAnswer::transient;
    case 19:   // ENODEV
    case 32:   // EPIPE
    case 70:   // ECOMM
    case 71:   // EPROTO
    case 100:  // ENETDOWN
    case 101:  // ENETUNREACH
    case 102:  // ENETRESET
    case 103:  // ECONNABORTED
    case 104:  // ECONNRESET
    case 107:  // ENOTCONN, what the kernel says for a FUSE mount without a daemon
    case 108:  // ESHUTDOWN
    case 111:  // ECONNREFUSED
    case 112:  // EHOSTDOWN
    case 113:  // EHOSTUNREACH
      return BackendAnswer::unreachable;
    case 110:  // ETIMEDOUT
      return BackendAnswer::timeout;
    default:
      return BackendAnswer::good;
  }
}

void BackendHealth::begin_down(Nanos now, std::string reason, int error) {
  NCFS_ASSERT(changes_ == 0);
  last_error_ = error;
  next_probe_at_ = now + kProbeIntervalMin;
  change(now, BackendState::down, std::move(reason));
}

void BackendHealth::on_answer(Nanos now, BackendAnswer answer, int error) {
  if (answer == BackendAnswer::good) {
    transients_in_row_ = 0;
    // A call that hung has come back: worth a look at once.
    if (!is_up() && !is_probe_out_) next_probe_at_ = std::min(next_probe_at_, now);
    return;
  }
  last_error_ = error;
  if (!is_up()) return;
  if (answer == BackendAnswer::timeout) return suspect(now, "a call was not answered in time");
  if (answer == BackendAnswer::unreachable) return suspect(now, "it cannot be reached");
  if (++transients_in_row_ >= kTransientsForSuspect) suspect(now, "calls fail");
}

void BackendHealth::suspect(Nanos now, std::string reason) {
  if (now < calm_until_) return;
  transients_in_row_ = 0;
  probe_failures_ = 0;
  probes_in_row_ = 0;
  next_probe_at_ = now;
  change(now, BackendState::suspect, std::move(reason));
}

bool BackendHealth::take_probe(Nanos now) {
  if (is_up() || is_probe_out_ || now < next_probe_at_) return false;
  is_probe_out_ = true;
  probe_began_at_ = now;
  return true;
}

void BackendHealth::on_probe_answer(Nanos now, BackendAnswer answer, int error) {
  NCFS_ASSERT(is_probe_out_);
  is_probe_out_ = false;
  if (answer == BackendAnswer::good) {
    probe_failures_ = 0;
    next_probe_at_ = now + kProbeIntervalMin;
    const std::uint32_t needed = is_down() ? probes_for_up_ : 1;
    if (++probes_in_row_ < needed) return;
    if (is_down()) returned_at_ = now;
    calm_until_ = now + kCalm;
    change(now, BackendState::up, "it answers");
    return;
  }
  last_error_ = error;
  probes_in_row_ = 0;
  ++probe_failures_;
  next_probe_at_ =
      now + std::min(kProbeIntervalMax, kProbeIntervalMin << std::min(probe_failures_ - 1, 16U));
  if (is_down()) return;
  if (answer == BackendAnswer::timeout || probe_failures_ >= kProbeFailuresForDown) {
    change(now, BackendState::down, "probes fail");
  }
}

void BackendHealth::tick(Nanos now) {
  if (state_ != BackendState::suspect || !is_probe_out_) return;
  if (now - probe_began_at_ < probe_patience_) return;
  change(now, BackendState::down, "a probe is not answered");
}

void BackendHealth::change(Nanos now, BackendState to, std::string reason) {
  if (to == BackendState::down) {
    const bool is_relapse = has_been_down_ && now - returned_at_ < kRelapse;
    probes_for_up_ = is_relapse ? std::min(kProbesForUpMax, 2 * probes_for_up_) : 1;
    has_been_down_ = true;
    probes_in_row_ = 0;
  }
  state_ = to;
  reason_ = std::move(reason);
  since_ = now;
  ++changes_;
}

}  // namespace ncfs
