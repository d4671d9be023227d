// "What is known of these files may be wrong": names and attributes are asked for anew, and what is
// cached of the files is compared with the backend at once instead of when they are opened next.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ncfs {

struct InvalidationResult {
  struct Count {
    std::uint64_t files = 0;
    std::uint64_t bytes = 0;  // cached
  };
  std::uint64_t names = 0;   // that the kernel asks for again
  Count kept{};              // still the version of the backend
  Count dropped{};           // another version, or not at its last known path any more
  Count failed{};            // the backend or the cache disk did not say
  bool is_complete = false;  // else time was over: more may be left as it was
};

class FuseCore;

// Of the files at and beneath `paths`, relative to the mount ("" is everything). The daemon forgets
// the names and attributes of everything. The server itself is asked, not what an NFS client
// remembers. `done` is called once, on any thread, within half a minute, or never after
// FuseCore::stop(). Any thread; does not wait.
void invalidate(FuseCore& core, std::vector<std::string> paths,
                std::function<void(const InvalidationResult&)> done);

}  // namespace ncfs
