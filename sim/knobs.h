// What can be turned in a simulated world. Small numbers make the corners of the engine come soon:
// a cache of two files, four buffers, one source read at a time.
#pragma once

#include <cstdint>

#include "engine/config.h"
#include "sim/disk.h"
#include "sim/nfs.h"

namespace ncfs {

// Numbers below stand for the first knobs, again and again.
inline constexpr std::uint64_t kKnobChecksum = 64;
inline constexpr std::uint64_t kKnobScrub = 65;
inline constexpr std::uint64_t kKnobMinFree = 66;
inline constexpr std::uint64_t kKnobTtl = 67;
inline constexpr std::uint64_t kKnobPrefetch = 68;
inline constexpr std::uint64_t kKnobRules = 69;
inline constexpr std::uint64_t kKnobCopyRate = 70;
inline constexpr std::uint64_t kKnobCopyPiece = 71;
inline constexpr std::uint64_t kNewKnobCount = 8;

struct Knobs {
  Knobs();

  // Any numbers will do; value 0 is what the constructor sets.
  void set(std::uint64_t which, std::uint64_t value);

  // The sizes that the cache may have.
  [[nodiscard]] static std::uint64_t cache_size(std::uint64_t value);

  Config engine;  // in force from the next start of a process on
  // In force from the first start on: servers and disks keep their nature.
  SimNfs::Options nfs;
  SimDisk::Options disk;
  // Events that wait until the engine takes them; with 0 it takes each at once.
  std::size_t mailbox_max = 0;
};

}  // namespace ncfs
