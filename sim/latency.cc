#include "sim/latency.h"

#include <algorithm>
#include <bit>

namespace ncfs {
namespace {

// A fast network and a slow disk on it; a local flash disk. What matters is their ratio.
constexpr Nanos kSourceMin = 200'000;
constexpr Nanos kSourceMean = kMillisecond;
constexpr Nanos kCacheMin = 20'000;
constexpr Nanos kCacheMean = 100'000;
// One request in 64 meets a retransmission, or a disk that tidies up.
constexpr std::uint64_t kSpikeOdds = 64;
constexpr Nanos kSpikeFactor = 200;
constexpr Nanos kArrivalMean = 300'000;

bool is_about_time(StepOp op) {
  return op == StepOp::tick || op == StepOp::wait || op == StepOp::complete || op == StepOp::run;
}

}  // namespace

LatencyDriver::LatencyDriver(const World& world, const Plan& workload, Rng rng)
    : world_(world), workload_(workload.rbegin(), workload.rend()), rng_(rng) {
  std::erase_if(workload_, [](const Step& step) { return is_about_time(step.op); });
  arrival_at_ = world.now();
  tick_at_ = world.now() + kSecond;
}

// -ln(u) in integers: the leading zeros of a random word count its octaves, of ln 2 = 693/1000
// each; within an octave the density is taken as flat.
Nanos LatencyDriver::exponential(Nanos mean) {
  const auto octaves = static_cast<std::uint64_t>(std::countl_zero(rng_.next() | 1));
  return mean * (octaves * 693 + rng_.below(693)) / 1000;
}

Nanos LatencyDriver::latency(Op op) {
  const bool is_source = is_source_operation(op);
  const Nanos usual =
      (is_source ? kSourceMin : kCacheMin) + exponential(is_source ? kSourceMean : kCacheMean);
  return rng_.chance({1, kSpikeOdds}) ? usual * kSpikeFactor : usual;
}

void LatencyDriver::note_new_requests() {
  std::map<Ticket, Nanos> ready_at;
  if (world_.life() != nullptr) {
    for (const SimIo::Pending& pending : world_.life()->io().pending()) {
      const auto known = ready_at_.find(pending.request.ticket);
      ready_at[pending.request.ticket] =
          known != ready_at_.end() ? known->second : world_.now() + latency(pending.request.op);
    }
  }
  ready_at_ = std::move(ready_at);
}

std::optional<Step> LatencyDriver::next() {
  if (workload_.empty()) return std::nullopt;
  note_new_requests();
  Nanos first_at = std::min(arrival_at_, tick_at_);
  std::optional<std::uint64_t> first;  // among the requests that can complete
  if (world_.life() != nullptr) {
    const SimIo& io = world_.life()->io();
    std::uint64_t index = 0;
    for (const SimIo::Pending& pending : io.pending()) {
      if (io.is_stuck(pending)) continue;
      const Nanos ready_at = ready_at_.at(pending.request.ticket);
      if (ready_at < first_at) {
        first_at = ready_at;
        first = index;
      }
      ++index;
    }
  }
  if (first_at > world_.now()) return Step{StepOp::wait, first_at - world_.now()};
  if (first) return Step{StepOp::complete, *first};
  if (tick_at_ <= arrival_at_) {
    tick_at_ = world_.now() + kSecond;
    return Step{StepOp::tick};
  }
  const Step step = workload_.back();
  workload_.pop_back();
  arrival_at_ = world_.now() + exponential(kArrivalMean);
  return step;
}

}  // namespace ncfs
