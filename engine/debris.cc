// Data files under our names that no sidecar describes. A kernel that was given one by a daemon
// that died may still read it; its bytes then stay on the disk whether it has a name or not. So it
// is unlinked only when nobody else has it open, asked again at every tick, and charged until it is
// gone.

#include <utility>

#include "engine/core.h"
#include "io/assert.h"

namespace ncfs {

void Core::remove_unknown_data(std::string name, std::uint64_t allocated_bytes) {
  const auto [entry, is_new] = debris_.try_emplace(std::move(name));
  if (!is_new) return;
  Debris& debris = entry->second;
  debris.charge_bytes = allocated_bytes;
  space_.found_used(debris.charge_bytes);
  advance_debris(entry->first, debris);
}

void Core::advance_debris(const std::string& name, Debris& debris) {
  NCFS_ASSERT(!debris.is_busy);
  debris.is_busy = true;
  const bool is_open = debris.file != FileHandle::none;
  Request request = cache_request(is_open ? Op::cache_unlink : Op::cache_open);
  request.name = name;
  request.file = debris.file;
  submit({.step = is_open ? Step::debris_unlink : Step::debris_open, .stem = name},
         std::move(request));
}

void Core::on_debris_step(const std::string& name, Step step, std::int64_t result) {
  Debris& debris = debris_.at(name);
  debris.is_busy = false;
  switch (step) {
    case Step::debris_open:
      if (result >= 0) {
        debris.file = static_cast<FileHandle>(result);
        return advance_debris(name, debris);
      }
      debris.is_gone = result == -kNoEntry;
      break;
    case Step::debris_unlink: {
      debris.is_gone = result == 0 || result == -kNoEntry;
      debris.is_busy = true;
      Request request = cache_request(Op::cache_close);
      request.file = debris.file;
      submit({.step = Step::debris_close, .stem = name}, std::move(request));
      return;
    }
    default:
      debris.file = FileHandle::none;
      break;
  }
  if (!debris.is_gone) return;  // until the next tick
  space_.release_used(debris.charge_bytes);
  returned_bytes_ += debris.charge_bytes;
  returned_bytes_next_ += debris.charge_bytes;
  debris_.erase(name);
  schedule_copies();
}

void Core::retry_debris() {
  for (auto& [name, debris] : debris_) {
    if (!debris.is_busy) advance_debris(name, debris);
  }
}

}  // namespace ncfs
