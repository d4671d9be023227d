// Room for what is to be stored, and what has to go for it.
//
// Two limits hold at once: the ledger's, of all that the cache occupies, and a floor of free space
// on the file system, which others fill, too. The first is known at every instant. The second is
// asked of the file system, at every tick and while a copy waits for it; in between, what was
// promised since the question counts as taken, and what was given back does not yet count as free.

#include <algorithm>
#include <utility>

#include "engine/core.h"
#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// Removals under way at a time when many objects have to go: enough to keep a disk busy, few enough
// to leave room in the driver's queue for readers.
constexpr std::size_t kRemovalsMax = 256;

}  // namespace

bool is_beneath(const std::string& path, const std::vector<std::string>& roots) {
  return std::any_of(roots.begin(), roots.end(), [&](const std::string& root) {
    return root.empty() || path == root ||
           (path.size() > root.size() && path.starts_with(root) && path[root.size()] == '/');
  });
}

// --- Room ------------------------------------------------------------------------------------

// By how much the ledger, with `bytes` more in it, would exceed the limit.
std::uint64_t Core::excess(std::uint64_t bytes) const {
  const std::uint64_t needed = space_.used() + space_.reserved() + bytes;
  return needed > space_.limit() ? needed - space_.limit() : 0;
}

std::uint64_t Core::min_free_bytes() const {
  return disk_space_.total_bytes / 100 * config_.min_free_percent;
}

// By how much the file system's free space, with `bytes` more taken from it, would be below the
// floor.
std::uint64_t Core::lack_of_free_space(std::uint64_t bytes) const {
  if (config_.min_free_percent == 0) return 0;
  const std::uint64_t needed = min_free_bytes() + promised_bytes_ + bytes;
  return needed > disk_space_.free_bytes ? needed - disk_space_.free_bytes : 0;
}

// What has to leave for `bytes` more. What has been given back is on its way out of the file
// system.
std::uint64_t Core::bytes_to_evict(std::uint64_t bytes) const {
  const std::uint64_t lack = is_disk_space_known_ ? lack_of_free_space(bytes) : 0;
  return std::max(excess(bytes), lack - std::min(lack, returned_bytes_));
}

// Evicts as needed. `soon`: enough is on its way out, or the file system has yet to say how much
// is free.
Core::Room Core::make_room(std::uint64_t bytes, std::optional<EvictionKey> incoming) {
  if (config_.min_free_percent > 0 && !is_disk_space_known_) {
    ask_free_space();
    return Room::soon;
  }
  const bool is_there = excess(bytes) == 0 && lack_of_free_space(bytes) == 0;
  if (is_there || NCFS_PLANT(room_not_made)) return Room::now;
  if (bytes_to_evict(bytes) > bytes_leaving() + eviction_->evictable_bytes()) return Room::never;
  while (bytes_to_evict(bytes) > bytes_leaving() && eviction_->evictable_count() > 0) {
    evict_one(incoming);
  }
  // What has been given back counts when the file system says so.
  waits_for_disk_space_ = lack_of_free_space(bytes) > 0;
  if (waits_for_disk_space_ && removing_.empty()) ask_free_space();
  return Room::soon;
}

std::uint64_t Core::bytes_leaving() const {
  std::uint64_t bytes = debris_leaving_bytes_;
  for (const ObjectId id : removing_) {
    const Object& o = objects_.at(id);
    if (o.handles.empty()) bytes += o.charge_bytes;
  }
  return bytes;
}

std::uint64_t Core::evict_one(std::optional<EvictionKey> incoming) {
  Object& victim = object(eviction_->evict(incoming));
  const std::uint64_t bytes = victim.charge_bytes;
  leave_copy(victim);
  remove(victim, RemovalReason::evicted);
  settle(victim);
  return bytes;
}

// The limit was lowered, here or since the last run, or others fill the disk.
void Core::evict_to_limit() {
  if (!is_recovered_) return;
  while (eviction_->evictable_count() > 0 && removing_.size() < kRemovalsMax &&
         bytes_to_evict(0) > 0 && bytes_to_evict(0) > bytes_leaving()) {
    evict_one(std::nullopt);
  }
}

void Core::on(LimitEvent&& event) {
  space_.set_limit(event.bytes);
  eviction_->set_capacity(event.bytes);
  reconsider_copies();
}

// Other files fit than before.
void Core::reconsider_copies() {
  std::vector<ObjectId> ids;
  for (const auto& [id, o] : objects_) {
    if (o.copy != CopyPhase::none || !o.handles.empty() || o.takes_blocks()) {
      ids.push_back(id);
    }
  }
  for (const ObjectId id : ids) {
    const auto entry = objects_.find(id);
    if (entry == objects_.end()) continue;
    Object& o = entry->second;
    if (const auto refused = refusal(o)) {
      refuse_copy(o, *refused);
      settle(o);
    } else if (o.copy == CopyPhase::delayed && o.last_error == kNoSpace && now_ >= o.trusted_at) {
      queue_copy(o);
    } else {
      want_copy(o);
    }
  }
  schedule_copies();
}

// --- The floor of free space -----------------------------------------------------------------

void Core::ask_free_space() {
  if (is_asking_disk_space_ || config_.min_free_percent == 0) return;
  if (is_stopping_ || health_.is_down()) return;
  is_asking_disk_space_ = true;
  promised_bytes_next_ = unwritten_bytes_;
  returned_bytes_next_ = 0;
  submit({.step = Step::free_space}, cache_request(Op::cache_statfs));
}

void Core::on_free_space(const Completion& completion) {
  is_asking_disk_space_ = false;
  if (completion.result < 0) {
    ++counters_.cache_errors;  // what was known is still the best guess; asked again at a tick
    return;
  }
  is_disk_space_known_ = true;
  disk_space_ = completion.space;
  promised_bytes_ = promised_bytes_next_;
  returned_bytes_ = returned_bytes_next_;
  waits_for_disk_space_ = false;
  evict_to_limit();
  schedule_copies();
}

// Of the object's charge, `bytes` have not been taken from the file system yet.
void Core::promise_space(Object& o, std::uint64_t bytes) {
  o.unwritten_bytes += bytes;
  unwritten_bytes_ += bytes;
  promised_bytes_ += bytes;
  promised_bytes_next_ += bytes;
}

void Core::take_promised(Object& o, std::uint64_t bytes) {
  const std::uint64_t taken = std::min(bytes, o.unwritten_bytes);
  o.unwritten_bytes -= taken;
  unwritten_bytes_ -= taken;
}

// --- Age -------------------------------------------------------------------------------------

void Core::note_use(Object& o, std::int64_t at) {
  const auto entry = by_use_.find({o.used_at, o.id});
  o.used_at = at;
  if (entry == by_use_.end()) return;
  by_use_.erase(entry);
  by_use_.emplace(at, o.id);
}

void Core::expire_unused() {
  const auto ttl = static_cast<std::int64_t>(config_.cache_ttl);
  const auto now = static_cast<std::int64_t>(now_);
  while (!by_use_.empty() && removing_.size() < kRemovalsMax &&
         by_use_.begin()->first <= now - ttl) {
    Object& o = object(by_use_.begin()->second);
    leave_copy(o);
    remove(o, RemovalReason::expired);
    settle(o);
  }
}

// --- Eviction on demand ----------------------------------------------------------------------

void Core::on(EvictEvent&& event) {
  const auto now = static_cast<std::int64_t>(now_);
  const auto idle_min = static_cast<std::int64_t>(event.idle_min);
  Control& control = controls_[event.token];
  for (auto& [id, o] : objects_) {
    if (!o.is_on_disk() || !is_beneath(o.path, event.paths)) continue;
    const bool is_leaving = o.state == ObjectState::removing && o.handles.empty();
    ControlResult::Count* fate = nullptr;
    if (is_pinned(o)) {
      fate = &control.result.pinned;
    } else if (!eviction_->is_evictable(id) && !is_leaving) {
      fate = &control.result.in_use;
    } else if (is_leaving || o.used_at <= now - idle_min) {
      ++control.pending;
      drops_.emplace_back(id, event.token);
    }
    if (fate == nullptr) continue;
    ++fate->files;
    fate->bytes += o.version.size;
  }
  pump_drops();
}

// Asked to go are removed in turn; what became of an object meanwhile decides. A disk that is down
// removes nothing.
void Core::pump_drops() {
  const bool is_refused = is_stopping_ || health_.is_down();
  while (!drops_.empty() && (removing_.size() < kRemovalsMax || is_refused)) {
    const auto [id, token] = drops_.front();
    drops_.pop_front();
    const auto entry = objects_.find(id);
    if (entry == objects_.end() || !entry->second.is_on_disk()) {
      --controls_.at(token).pending;  // went by itself
      continue;
    }
    Object& o = entry->second;
    o.drops.push_back(token);
    if (health_.is_down()) {
      count_drop(o, &ControlResult::failed);
      continue;
    }
    if (o.state == ObjectState::removing && !is_stopping_) continue;
    if (!eviction_->is_evictable(id) || is_stopping_) {
      count_drop(o, &ControlResult::in_use);
      continue;
    }
    leave_copy(o);
    remove(o, RemovalReason::evicted);
    settle(o);
  }
  answer_controls();
}

void Core::count_drop(Object& o, ControlResult::Count ControlResult::*fate) {
  for (const ControlToken token : std::exchange(o.drops, {})) {
    Control& control = controls_.at(token);
    --control.pending;
    ++(control.result.*fate).files;
    (control.result.*fate).bytes += o.version.size;
  }
}

void Core::answer_controls() {
  for (auto entry = controls_.begin(); entry != controls_.end();) {
    if (entry->second.pending > 0) {
      ++entry;
      continue;
    }
    host_.on_control(entry->first, entry->second.result);
    entry = controls_.erase(entry);
  }
}

bool Core::was_unpinned(const Object& o) const {
  return !pins_.contains(o.file) && is_beneath(o.path, unpinned_paths_);
}

void Core::on(UnpinEvent&& event) {
  if (!is_recovered_) {
    unpinned_paths_.insert(unpinned_paths_.end(), event.paths.begin(), event.paths.end());
  }
  std::vector<FileId> files;
  for (const auto& [path, file] : pinned_paths_) {
    if (is_beneath(path, event.paths)) files.push_back(file);
  }
  ControlResult result;
  for (const FileId& file : files) {
    ++result.done.files;
    result.done.bytes += pins_.at(file).charge_bytes;
    unpin(file);
  }
  host_.on_control(event.token, result);
  reconsider_copies();
}

}  // namespace ncfs
