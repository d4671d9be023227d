// What a soak reached: the engine's coverage marks and the ways between its states.
#pragma once

#include <string>
#include <vector>

#include "engine/marks.h"

namespace ncfs {

// Names of marks, and of transitions that is_transition() allows, which were never reached.
[[nodiscard]] std::vector<std::string> never_reached(const Coverage& coverage);

// A table of all marks and the matrix of transitions, with counts.
[[nodiscard]] std::string report_of(const Coverage& coverage);

void add(Coverage& total, const Coverage& part);

}  // namespace ncfs
