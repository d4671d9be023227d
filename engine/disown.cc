// Our own mount writes into a file: what the cache has of it must never be taken for the file
// again.
//
// Invariants:
//   an object that is disowned is known by its id alone: no open, no look at the source and no
//   sidecar finds it;
//   the answer without an error comes after its sidecar's names are gone and the directory is
//   synced, and nothing is on its way that could bring one back;
//   after a sync that failed, or a request on its names that may still happen, the answer is an
//   error for as long as the object lives (SyncOnce): what is not modified may be found again;
//   a cache file grows only to what its object is charged for.
//
// The names of the sidecar go as soon as no request on the object is in flight, whoever has its
// data open. Then it is removed like any other.

#include <utility>

#include "engine/core.h"
#include "engine/marks.h"
#include "engine/planted.h"

namespace ncfs {

void Core::on(DisownEvent&& event) {
  for (const ObjectId id : objects_of(event.file)) disown(object(id));
  Disowning job;
  for (auto entry = disowned_.lower_bound({event.file, ObjectId{0}});
       entry != disowned_.end() && entry->first == event.file; ++entry) {
    const Object& o = object(entry->second);
    if (o.disown_error != 0) job.error = o.disown_error;
    if (o.disown != DisownPhase::done) job.todo.insert(o.id);
  }
  if (!job.todo.empty() && health_.is_down()) {
    NCFS_MARK(disown_refused);
    return host_.on_disowned(event.token, kInputOutputError);
  }
  if (job.todo.empty()) return host_.on_disowned(event.token, job.error);
  disownings_.emplace(event.token, std::move(job));
}

// `o` may be gone when this returns.
void Core::disown(Object& o) {
  if (NCFS_PLANT(disowned_copy_goes_on) && o.is_unpublished()) return;
  const bool was_wanted = o.copy != CopyPhase::none || o.is_unpublished();
  leave_copy(o);
  answer_warms(o, {WarmResult::Kind::failed, {}, kSourceChanged});
  if (was_wanted) notice(Notice::Kind::copy_abandoned, o);
  forget_versions(o);
  o.is_stale = true;
  o.disown = o.is_on_disk() ? DisownPhase::due : DisownPhase::done;
  disowned_.emplace(o.file, o.id);
  // What is in memory serves those who have asked for it, and nobody else.
  for (const FetchId id : idle_fetches_of(o)) retire(id);
  o.block_fetches.clear();
  for (const HandleId id : o.handles) prefetching_.erase(id);
  if (o.state == ObjectState::removing && o.removal != RemovalReason::damaged) {
    o.removal = RemovalReason::disowned;
  } else if (o.is_on_disk()) {
    remove(o, RemovalReason::disowned);
  }
  settle(o);
}

// No request on the object is in flight.
void Core::start_disowning(Object& o) {
  NCFS_ASSERT(o.disown == DisownPhase::due && o.io_in_flight == 0);
  if (o.is_name_in_doubt) {
    NCFS_MARK(disown_in_doubt);
    return end_disowning(o, kTimedOut);
  }
  NCFS_MARK(disown_of_an_object);
  o.disown = DisownPhase::running;
  ++o.io_in_flight;
  Request request = cache_request(Op::cache_unlink);
  request.name = name_of(o, NameKind::sidecar_temp);
  submit({.step = Step::disown_temp, .object = o.id}, std::move(request));
}

void Core::on_disown_step(Object& o, Step step, std::int64_t result) {
  --o.io_in_flight;
  const bool is_unlink = step != Step::disown_sync_directory;
  const bool is_done = result >= 0 || (is_unlink && result == -kNoEntry);
  if (!is_done) {
    const int error = static_cast<int>(-result);
    ++counters_.cache_errors;
    notice(Notice::Kind::cache_error, o, 0, error, "disowning a cached file");
    end_disowning(o, error);
    return settle(o);
  }
  Request request;
  Step next = Step::disown_sidecar;
  if (step == Step::disown_temp) {
    request = cache_request(Op::cache_unlink);
    request.name = name_of(o, NameKind::sidecar);
  } else if (step == Step::disown_sidecar && !NCFS_PLANT(disowned_before_sync)) {
    next = Step::disown_sync_directory;
    request = sync_shard(o);
  } else {
    end_disowning(o, 0);
    return settle(o);
  }
  ++o.io_in_flight;
  submit({.step = next, .object = o.id}, std::move(request));
}

void Core::end_disowning(Object& o, int error) {
  o.disown = DisownPhase::done;
  o.disown_error = error;
  for (auto entry = disownings_.begin(); entry != disownings_.end();) {
    Disowning& job = entry->second;
    if (job.todo.erase(o.id) > 0 && error != 0) job.error = error;
    if (!job.todo.empty()) {
      ++entry;
      continue;
    }
    host_.on_disowned(entry->first, job.error);
    entry = disownings_.erase(entry);
  }
}

// The disk is down: nobody who writes waits for it.
void Core::refuse_disownings() {
  for (const auto& [token, job] : std::exchange(disownings_, {})) {
    NCFS_MARK(disown_refused);
    host_.on_disowned(token, kInputOutputError);
  }
}

// --- A disowned cache file becomes larger ----------------------------------------------------

void Core::on(GrowEvent&& event) {
  growths_.push_back({event.token, event.handle, event.size_bytes, now_ + config_.cache_deadline});
  if (health_.is_down() || is_stopping_) return refuse_growths(kInputOutputError, std::nullopt);
  schedule_copies();
}

// One after the other: a small one does not take the room that was made for a large one.
void Core::pump_growths() {
  while (!growths_.empty()) {
    const std::optional<int> error = grow(growths_.front());
    if (!error) return;
    const GrowToken token = growths_.front().token;
    growths_.pop_front();
    host_.on_grown(token, *error);
  }
}

// The answer, or nothing while room is on its way.
std::optional<int> Core::grow(const Growth& growth) {
  Object& o = object(handles_.at(growth.handle).object);
  const bool may_grow = o.disown == DisownPhase::done && o.disown_error == 0 &&
                        o.state == ObjectState::removing && o.removal_from == ObjectState::cached;
  if (!may_grow) return kInputOutputError;
  const std::uint64_t charge = object_charge(growth.size_bytes, config_.block_size_bytes);
  if (charge <= o.charge_bytes || NCFS_PLANT(growth_not_charged)) return 0;
  if (!is_recovered_) return std::nullopt;  // what else is charged is not known yet
  const std::uint64_t bytes = charge - o.charge_bytes;
  const Room room = make_room(bytes, std::nullopt);
  if (room == Room::never) {
    NCFS_MARK(growth_refused);
    return kNoSpace;
  }
  if (room == Room::soon) {
    NCFS_MARK(growth_waits_for_room);
    return std::nullopt;
  }
  NCFS_MARK(growth_charged);
  NCFS_ASSERT(o.charge_is_used);
  space_.reserve(bytes);
  space_.commit(bytes);
  o.charge_bytes = charge;
  // Who asks again has written what he was granted before.
  take_promised(o, o.unwritten_bytes);
  promise_space(o, bytes);
  return 0;
}

void Core::expire_growths() {
  while (!growths_.empty() && growths_.front().answer_by <= now_) {
    NCFS_MARK(growth_loses_patience);
    const GrowToken token = growths_.front().token;
    growths_.pop_front();
    host_.on_grown(token, kNoSpace);
  }
}

// Those of one handle, or all.
void Core::refuse_growths(int error, std::optional<HandleId> only) {
  std::deque<Growth> kept;
  for (const Growth& growth : std::exchange(growths_, {})) {
    if (only && growth.handle != *only) {
      kept.push_back(growth);
    } else {
      host_.on_grown(growth.token, error);
    }
  }
  growths_ = std::move(kept);
}

}  // namespace ncfs
