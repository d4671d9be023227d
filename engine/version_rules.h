// When two looks at a source file saw the same file in the same state: the one place that says so.
//
//   file ids differ                                         changed   (replaced)
//   size, mtime or ctime differs                            changed   (ctime: a restored mtime)
//   both have a change attribute, and it differs            changed
//   both have a change attribute, and it is equal           same
//   all equal, the earlier look past the racy window        same
//   all equal, the earlier look within the racy window      unproven
//
// Unproven: timestamps have ticks, of a second on some servers. A change in the tick of the one
// before leaves them equal. Whoever looked when the newest timestamp was older than the window
// cannot be deceived: whatever happens afterwards gets a newer timestamp.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/planted.h"
#include "io/types.h"

namespace ncfs {

struct Observation {
  FileId file;
  SourceVersion version;
  // NFSv4's change attribute, the generation of an object: moves with every change. Most backends
  // tell none.
  std::optional<std::uint64_t> change;
  std::int64_t age_ns = 0;  // as in SourceState
};

enum class Sameness : std::uint8_t { same, unproven, changed };

// Whether no later change can have the timestamps that were seen. False if the server's clock is
// ahead.
[[nodiscard]] inline bool is_settled(const Observation& seen, Nanos racy_window) {
  if (NCFS_PLANT(young_timestamps_trusted)) return true;
  return seen.age_ns >= 0 && static_cast<Nanos>(seen.age_ns) >= racy_window;
}

[[nodiscard]] inline Sameness compare(const Observation& earlier, const Observation& later,
                                      Nanos racy_window) {
  SourceVersion was = earlier.version;
  if (NCFS_PLANT(only_mtime_compared)) was.ctime_ns = later.version.ctime_ns;
  if (earlier.file != later.file || was != later.version) return Sameness::changed;
  if (earlier.change && later.change) {
    return *earlier.change == *later.change ? Sameness::same : Sameness::changed;
  }
  return is_settled(earlier, racy_window) ? Sameness::same : Sameness::unproven;
}

}  // namespace ncfs
