// A row of a table in engine/planted.h, as the parameter of a test.
#pragma once

#include <ostream>

#include "engine/planted.h"

namespace ncfs {

struct PlantedBug {
  Bug bug;
  const char* name;
  const char* what_is_wrong;
  const char* invariants;  // or the only one
};

// The body of an array of PlantedBug: NCFS_BUGS(NCFS_PLANTED_BUG).
#define NCFS_PLANTED_BUG(name, what_is_wrong, invariants) \
  {Bug::name, #name, what_is_wrong, invariants},

inline void PrintTo(const PlantedBug& planted, std::ostream* out) {
  *out << planted.what_is_wrong;
}

}  // namespace ncfs
