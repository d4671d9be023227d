// The other order of things: requests take the time that disks and networks take, and complete in
// the order in which they are ready. Adversarial plans find what can go wrong; these find what does
// go wrong when much is in flight, as most requests overtake few others, and few very many.
//
// The steps are ordinary ones (`wait`, `complete`, ...): what was run is a plan like any other.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "sim/plan.h"
#include "sim/rng.h"
#include "sim/world.h"

namespace ncfs {

class LatencyDriver {
 public:
  // `workload` is a plan; its steps arrive one by one, those about time and completions left out.
  // The world is looked at, never changed, and outlives the driver.
  LatencyDriver(const World& world, const Plan& workload, Rng rng);

  // What happens next, to be applied before the next call; nothing when the workload is done.
  [[nodiscard]] std::optional<Step> next();

 private:
  [[nodiscard]] Nanos exponential(Nanos mean);
  [[nodiscard]] Nanos latency(Op op);
  void note_new_requests();

  const World& world_;
  Plan workload_;  // the next one last
  Rng rng_;
  std::map<Ticket, Nanos> ready_at_;  // of what is in flight
  Nanos arrival_at_ = 0;
  Nanos tick_at_ = 0;
};

}  // namespace ncfs
