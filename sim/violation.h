// A broken promise, found by the simulator: a value, so that plans that break one can be shrunk.
#pragma once

#include <string>

namespace ncfs {

struct Violation {
  std::string name;     // of the invariant, as in oracle.h
  std::string message;  // what was seen
};

}  // namespace ncfs
