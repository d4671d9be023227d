// Makes a failing plan small: ddmin over its steps, then smaller arguments.
//
// The plan is cut into ever more chunks, and each chunk is left out if the rest still fails the
// same way; a few dozen runs turn thousands of steps into a story.
#pragma once

#include <algorithm>
#include <cstdint>

#include "sim/plan.h"

namespace ncfs {

// `fails(plan)` tells whether a plan still fails in the way that matters; it must be true for the
// plan given. The result fails, and no single step can be left out of it. Runs at most `runs_max`
// plans, and returns the smallest found when they are used up.
template <typename Fails>
[[nodiscard]] Plan shrink_plan(Plan plan, std::uint64_t runs_max, Fails fails) {
  std::uint64_t runs = 0;
  const auto still_fails = [&](const Plan& candidate) {
    return runs < runs_max && (++runs, fails(candidate));
  };
  std::size_t chunk = std::max<std::size_t>(plan.size() / 2, 1);
  while (runs < runs_max) {
    bool is_smaller = false;
    for (std::size_t begin = 0; begin < plan.size();) {
      Plan candidate(plan.begin(), plan.begin() + static_cast<std::ptrdiff_t>(begin));
      const std::size_t end = std::min(begin + chunk, plan.size());
      candidate.insert(candidate.end(), plan.begin() + static_cast<std::ptrdiff_t>(end),
                       plan.end());
      if (still_fails(candidate)) {
        plan = std::move(candidate);
        is_smaller = true;
      } else {
        begin = end;
      }
    }
    if (chunk == 1 && !is_smaller) break;
    if (!is_smaller || chunk > plan.size()) chunk = std::max<std::size_t>(chunk / 2, 1);
  }
  for (std::size_t index = 0; index < plan.size(); ++index) {
    for (std::uint64_t Step::*argument : {&Step::a, &Step::b, &Step::c}) {
      // 0 at once, else halves as long as they do: a step more or less tells nothing.
      std::uint64_t smaller = 0;
      while (smaller < plan[index].*argument) {
        Plan candidate = plan;
        candidate[index].*argument = smaller;
        if (still_fails(candidate)) {
          plan = std::move(candidate);
        } else if (smaller > 0) {
          break;
        }
        smaller = plan[index].*argument / 2;
        if (smaller == 0) break;
      }
    }
  }
  return plan;
}

}  // namespace ncfs
