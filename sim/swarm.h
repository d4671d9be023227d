// Random plans for long runs. Each plan enables a random subset of the steps with wildly different
// weights: a world with every fault at once does less than one that does a few things a lot.
#pragma once

#include <cstdint>

#include "sim/plan.h"
#include "sim/rng.h"

namespace ncfs {

[[nodiscard]] Plan make_swarm_plan(Rng& rng, std::uint64_t step_count);

}  // namespace ncfs
