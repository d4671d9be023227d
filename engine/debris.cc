// Names of ours that no object has: what a crash left. Charged from the moment they are found until
// they are gone.
//
// A kernel that was given a data file by a daemon that died may still read it; its bytes then stay
// on the disk whether it has a name or not. So it is unlinked only when nobody else has it open,
// and asked again at every tick. What cannot be removed for another reason is given up after some
// ticks and left to the next start.

#include <utility>

#include "engine/core.h"
#include "engine/marks.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// A name that could not be removed at five ticks is not the hiccup of a disk.
constexpr std::uint32_t kDebrisFailuresMax = 5;

}  // namespace

bool Core::Debris::is_given_up() const {
  return failures >= kDebrisFailuresMax;
}

void Core::add_debris(std::string name, const CacheEntry& entry) {
  const auto [added, is_new] = debris_.try_emplace(std::move(name));
  if (!is_new) return;
  Debris& debris = added->second;
  debris.charge_bytes = entry.allocated_bytes;
  debris.may_be_open =
      entry.kind == EntryKind::file && entry.name.ends_with(suffix(NameKind::data));
  space_.found_used(debris.charge_bytes);
  try_debris(added->first, debris);
}

void Core::try_debris(const std::string& name, Debris& debris) {
  NCFS_ASSERT(!debris.is_busy);
  debris.is_busy = true;
  debris_leaving_bytes_ += debris.charge_bytes;
  ++debris_requests_;
  Request request = cache_request(debris.may_be_open ? Op::cache_open : Op::cache_unlink);
  request.name = name;
  submit({.step = debris.may_be_open ? Step::debris_open : Step::debris_unlink, .stem = name},
         std::move(request));
}

void Core::on_debris_step(const std::string& name, Step step, std::int64_t result) {
  Debris& debris = debris_.at(name);
  if (step == Step::debris_open && result >= 0) {
    debris.file = static_cast<FileHandle>(result);
    Request request = cache_request(Op::cache_unlink);
    request.name = name;
    request.file = debris.file;
    return submit({.step = Step::debris_unlink, .stem = name}, std::move(request));
  }
  if (step != Step::debris_close) {
    debris.is_gone = result == 0 || result == -kNoEntry;
    // Slow is not wrong: a disk that hangs has no use for a cache, nor the cache for it.
    const bool is_failure = !debris.is_gone && result != -kBusy && result != -kTimedOut;
    if (is_failure && ++debris.failures == kDebrisFailuresMax) {
      NCFS_MARK(debris_given_up);
      ++counters_.cache_errors;
      host_.on_notice({Notice::Kind::cache_error, name, "removing what a crash left",
                       debris.charge_bytes, static_cast<int>(-result)});
    }
  }
  if (debris.file != FileHandle::none) {
    Request request = cache_request(Op::cache_close);
    request.file = std::exchange(debris.file, FileHandle::none);
    return submit({.step = Step::debris_close, .stem = name}, std::move(request));
  }
  debris.is_busy = false;
  debris_leaving_bytes_ -= debris.charge_bytes;
  --debris_requests_;
  if (debris.is_gone) {
    space_.release_used(debris.charge_bytes);
    returned_bytes_ += debris.charge_bytes;
    returned_bytes_next_ += debris.charge_bytes;
    debris_.erase(name);
  }
  pump_recovery();
  schedule_copies();
}

void Core::retry_debris() {
  for (auto& [name, debris] : debris_) {
    if (!debris.is_busy && !debris.is_given_up()) try_debris(name, debris);
  }
}

}  // namespace ncfs
