#include "engine/health.h"

#include <algorithm>
#include <utility>

namespace ncfs {

const char* to_string(HealthState state) {
  switch (state) {
    case HealthState::normal:
      return "normal";
    case HealthState::unstable:
      return "unstable";
    case HealthState::down:
      return "down";
  }
  return "unknown";
}

void CacheHealth::on_answer(Nanos now, DiskAnswer answer, int error) {
  if (answer == DiskAnswer::neutral) return;
  if (answer == DiskAnswer::good) {
    faults_in_row_ = 0;
    timeouts_in_row_ = 0;
    return;
  }
  note_fault(now, answer, error);
}

void CacheHealth::note_fault(Nanos now, DiskAnswer answer, int error) {
  last_error_ = error;
  probes_in_row_ = 0;
  if (is_down()) return;
  fault_times_[faults_++ % kFaultsForUnstable] = now;
  const Nanos oldest = fault_times_[faults_ % kFaultsForUnstable];
  if (answer != DiskAnswer::read_only) ++faults_in_row_;
  if (answer == DiskAnswer::timeout) ++timeouts_in_row_;
  if (timeouts_in_row_ >= kTimeoutsInRowForDown) {
    change(now, HealthState::down, "deadlines were missed twice in a row");
  } else if (faults_in_row_ >= kFaultsInRowForDown) {
    change(now, HealthState::down,
           std::to_string(kFaultsInRowForDown) + " requests failed in a row");
  } else if (!is_normal()) {
    return;
  } else if (answer == DiskAnswer::timeout) {
    change(now, HealthState::unstable, "a deadline was missed");
  } else if (answer == DiskAnswer::read_only) {
    change(now, HealthState::unstable, "the file system is read-only");
  } else if (faults_ >= kFaultsForUnstable && now - oldest <= kFaultWindow) {
    change(now, HealthState::unstable,
           std::to_string(kFaultsForUnstable) + " requests failed within a minute");
  }
}

void CacheHealth::on_probe_answer(Nanos now, DiskAnswer answer, int error) {
  const bool is_good = answer == DiskAnswer::good || answer == DiskAnswer::neutral;
  if (is_good) {
    probe_failures_ = 0;
    faults_in_row_ = 0;
    timeouts_in_row_ = 0;
    if (++probes_in_row_ >= kProbesForNormal) {
      change(now, HealthState::normal, std::to_string(kProbesForNormal) + " probes succeeded");
    }
  } else {
    ++probe_failures_;
    note_fault(now, answer, error);
    if (state_ == HealthState::unstable && answer != DiskAnswer::read_only &&
        probe_failures_ >= kProbeFailuresForDown) {
      change(now, HealthState::down, std::to_string(kProbeFailuresForDown) + " probes failed");
    }
  }
  next_probe_at_ = now + probe_interval();
}

Nanos CacheHealth::probe_interval() const {
  const std::uint32_t doublings = std::min(relapses_ + probe_failures_, 16U);
  return std::min(kProbeIntervalMax, kProbeIntervalMin << doublings);
}

void CacheHealth::change(Nanos now, HealthState to, std::string reason) {
  if (is_normal()) {
    const bool is_relapse = changes_ > 0 && now - since_ < kRelapse;
    relapses_ = is_relapse ? relapses_ + 1 : 0;
    probe_failures_ = 0;
    probes_in_row_ = 0;
    next_probe_at_ = now + probe_interval();
  }
  if (to == HealthState::normal) faults_ = 0;
  state_ = to;
  reason_ = std::move(reason);
  since_ = now;
  ++changes_;
}

void BackOff::begin(Nanos now) {
  if (is_active()) return;
  interval_ = min_;
  next_try_at_ = now + interval_;
}

bool BackOff::take(Nanos now) {
  if (!is_active()) return true;
  if (now < next_try_at_) return false;
  interval_ = std::min(max_, 2 * interval_);
  next_try_at_ = now + interval_;
  return true;
}

}  // namespace ncfs
