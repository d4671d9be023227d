// Which object is copied when.
//
// Files that were opened or warmed wait for one of copies_max slots, those that were opened before
// those that are only warmed (CopyRank), each kind in order of arrival; a copy gives up its slot to
// one of a better rank and goes on later where it was. Room is made for the first in line before it
// gets a slot, so a large file is not starved by small ones. A copy that failed, found no room, or
// was asked for within the racy window is set aside until its time has come.

#include <algorithm>
#include <utility>

#include "engine/core.h"
#include "engine/marks.h"
#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// Wanted copies kept in mind; each costs a few hundred bytes. Further files are read through and
// wanted again when they are next opened.
constexpr std::size_t kCopyQueueMax = 65536;

// When everything in the cache is in use, somebody has to close a file first. Looking again costs
// next to nothing; ten seconds keep the log and the queue calm.
constexpr Nanos kRoomRetry = 10 * kSecond;
// A closed file that found no room is wanted for so long after its last use. Room that comes much
// later is better left to what is used then.
constexpr std::int64_t kRoomPatience = 60 * kSecond;

}  // namespace

void Core::want_copy(Object& o) {
  const bool is_done = o.state == ObjectState::cached || o.state == ObjectState::committing;
  if (is_done || o.is_stale || is_stopping_ || o.copy != CopyPhase::none || refusal(o)) return;
  if (o.deferral) return;
  if (copy_queue_.size() + delayed_copies_.size() >= kCopyQueueMax) return;
  if (now_ < o.trusted_at) return delay_copy(o, o.trusted_at);
  queue_copy(o);
  try_storage(o);
  schedule_copies();
}

// A reader's blocks are kept though its file has no copy slot yet, if there is room for it.
void Core::try_storage(Object& o) {
  const bool may_store = may_start_copies() || NCFS_PLANT(stored_before_recovered);
  if (!may_store || o.state != ObjectState::absent || o.handles.empty()) return;
  if (room_for(o) == Room::now && disk_full_.take(now_)) create_storage(o);
}

Core::Room Core::room_for(const Object& o) {
  return make_room(object_charge(o.version.size, config_.block_size_bytes),
                   eviction_key(o.file, o.version));
}

void Core::queue_copy(Object& o) {
  if (o.copy == CopyPhase::delayed) delayed_copies_.erase({o.copy_at, o.id});
  o.copy = CopyPhase::queued;
  o.copy_place.arrival = next_id_++;
  copy_queue_.emplace(o.copy_place, o.id);
}

// Somebody wants the file now for whom it has at least this rank.
void Core::raise_rank(Object& o, CopyRank rank) {
  if (rank >= o.copy_place.rank) return;
  const bool is_queued = o.copy == CopyPhase::queued;
  if (is_queued) copy_queue_.erase(o.copy_place);
  set_pace(o, {});
  o.copy_place.rank = rank;
  if (is_queued) queue_copy(o);
}

// Finds a slot for the first in line, if need be one that a copy of a lower rank gives up.
bool Core::make_way() {
  if (active_copies_.size() < active_copies_max()) return true;
  if (active_copies_.size() > active_copies_max()) return false;
  Object* last = nullptr;
  for (const ObjectId id : active_copies_) {
    Object& o = object(id);
    const bool is_lower = last == nullptr || o.copy_place > last->copy_place;
    if (o.takes_blocks() && is_lower) last = &o;
  }
  if (last == nullptr || last->copy_place.rank <= copy_queue_.begin()->first.rank) return false;
  NCFS_MARK(copy_makes_way);
  std::erase(active_copies_, last->id);
  last->copy = CopyPhase::queued;
  copy_queue_.emplace(last->copy_place, last->id);
  attention_.insert(last->id);  // it may be at rest now
  return true;
}

void Core::set_pace(Object& o, const WarmPace& pace) {
  if (o.pace != 0) --paces_.at(o.pace).objects;
  o.pace = pace.number;
  if (o.pace == 0) return;
  Pace& own = paces_[o.pace];
  own.bucket.set_rate(pace.bytes_per_second);
  ++own.objects;
}

// What was taken is not forgotten between two files of a warm-up.
void Core::forget_paces() {
  std::erase_if(paces_, [this](const auto& entry) {
    return entry.second.objects == 0 && entry.second.bucket.is_full(now_);
  });
}

void Core::on(CopyRateEvent&& event) {
  copy_bucket_.set_rate(event.bytes_per_second);
}

// Copies go on in pump().
void Core::on(WakeEvent&&) {}

void Core::delay_copy(Object& o, Nanos until) {
  NCFS_ASSERT(o.copy == CopyPhase::none);
  o.copy = CopyPhase::delayed;
  o.copy_at = until;
  delayed_copies_.insert({until, o.id});
}

void Core::wake_delayed() {
  while (!delayed_copies_.empty() && delayed_copies_.begin()->first <= now_) {
    Object& o = object(delayed_copies_.begin()->second);
    queue_copy(o);
    attention_.insert(o.id);
    try_storage(o);
  }
  if (NCFS_PLANT(wake_up_lost)) return;
  schedule_copies();
}

// Takes the object out of the queue, the waiting room or its slot.
void Core::leave_copy(Object& o) {
  if (o.copy == CopyPhase::queued) copy_queue_.erase(o.copy_place);
  if (o.copy == CopyPhase::delayed) delayed_copies_.erase({o.copy_at, o.id});
  if (o.copy == CopyPhase::active) std::erase(active_copies_, o.id);
  o.copy = CopyPhase::none;
  if (o.copy_source != FileHandle::none) {
    drop_source(std::exchange(o.copy_source, FileHandle::none));
  }
}

void Core::set_copy_source(Object& o, FileHandle source) {
  if (o.copy_source != FileHandle::none) return;
  o.copy_source = source;
  hold_source(source);
}

// The source has another version now. What is complete stays readable for those who have it open.
void Core::mark_changed(Object& o, std::optional<SourceVersion> seen) {
  o.is_stale = true;
  expect_rekey(o, seen);
  const bool was_wanted = o.copy != CopyPhase::none || o.is_unpublished();
  leave_copy(o);
  answer_warms(o, {WarmResult::Kind::failed, {}, kSourceChanged});
  if (was_wanted) notice(Notice::Kind::copy_abandoned, o);
  settle(o);
}

// The limit was lowered, or others were pinned.
void Core::refuse_copy(Object& o, OpenReason reason) {
  leave_copy(o);
  answer_warms(o, {WarmResult::Kind::skipped, reason, 0});
}

void Core::on_copy_failed(Object& o, int error) {
  ++counters_.copies_failed;
  o.last_error = error;
  notice(Notice::Kind::copy_failed, o, 0, error);
  leave_copy(o);
  const Nanos pause = back_off(o.failures++);
  answer_warms(o, {WarmResult::Kind::failed, {}, error});
  if (const auto refused = refusal(o)) {
    refuse_copy(o, *refused);
  } else {
    delay_copy(o, now_ + pause);
  }
  settle(o);
  schedule_copies();
}

// After so many failures in a row before this one.
Nanos Core::back_off(std::uint32_t failures) const {
  return std::min(config_.retry_max, config_.retry_min << std::min(failures, 16U));
}

// Who writes waits for the room that there may be now, and comes first.
void Core::schedule_copies() {
  pump_growths();
  if (!may_start_copies()) return;
  while (!copy_queue_.empty() && make_way()) {
    if (!activate(object(copy_queue_.begin()->second))) return;
  }
}

// False if the first in line has to wait for room. Whoever asked for copies may still hold an
// object that gets none: it is settled at the next tick.
bool Core::activate(Object& o) {
  if (o.state == ObjectState::cached) {
    leave_copy(o);
    settle(o);
    return true;
  }
  // The limit was lowered, or others were pinned, while it waited.
  if (const auto refused = refusal(o)) {
    refuse_copy(o, *refused);
    attention_.insert(o.id);
    return true;
  }
  if (o.state == ObjectState::removing) {
    leave_copy(o);  // until it is gone, or stays after all
    delay_copy(o, now_ + config_.retry_min);
    return true;
  }
  if (o.state == ObjectState::absent) {
    const Room room = room_for(o);
    if (room == Room::soon) {
      NCFS_MARK(copy_waits_for_room);
      return false;
    }
    if (room == Room::never) {
      NCFS_MARK(copy_finds_no_room);
      answer_warms(o, {WarmResult::Kind::skipped, OpenReason::no_space, 0});
      leave_copy(o);
      o.last_error = kNoSpace;
      o.failures = std::max(o.failures, 1U);
      const bool is_fresh = static_cast<std::int64_t>(now_) - o.used_at < kRoomPatience;
      if (is_fresh || !o.handles.empty() || is_pinned(o)) delay_copy(o, now_ + kRoomRetry);
      attention_.insert(o.id);
      return true;
    }
    if (!disk_full_.take(now_)) return false;
    create_storage(o);
  }
  copy_queue_.erase(o.copy_place);
  o.copy = CopyPhase::active;
  active_copies_.push_back(o.id);
  update_evictable(o);
  o.copy_started_at = now_;
  o.copy_bytes_at_start = o.state == ObjectState::partial
                              ? (o.written.block_count() - o.blocks_missing + o.unverified_count) *
                                    config_.block_size_bytes
                              : 0;
  notice(o.copy_bytes_at_start > 0 ? Notice::Kind::copy_resumed : Notice::Kind::copy_started, o,
         o.copy_bytes_at_start);
  advance_copy(o);
  settle(o);  // it may lack nothing but the commit
  return true;
}

// A copy needs its cache file and a descriptor of the source: a reader's, which may read what the
// daemon may not, else its own. After a restart of the server the readers' are of no use.
void Core::advance_copy(Object& o) {
  if (o.state == ObjectState::partial && !o.is_open()) open_cache(o);
  if (o.copy_source != FileHandle::none || o.is_opening_source) return;
  const bool is_stale_handle = o.failures > 0 && o.last_error == kStaleHandle;
  if (!o.handles.empty() && !is_stale_handle) {
    set_copy_source(o, handles_.at(*o.handles.begin()).source);
    return;
  }
  if (!source_rest_.take(now_)) return;  // asked again at every tick
  if (is_stale_handle) NCFS_MARK(copy_avoids_stale_handle);
  NCFS_MARK(copy_opens_source);
  o.is_opening_source = true;
  Request request = make_request(Op::source_open, config_.source_deadline);
  request.name = o.path;
  submit({.step = Step::open_source, .object = o.id}, std::move(request));
}

void Core::on_source_opened(Object& o, const Completion& completion) {
  o.is_opening_source = false;
  if (completion.result < 0) {
    const int error = static_cast<int>(-completion.result);
    if (o.copy != CopyPhase::active) return settle(o);
    source_fails(o, error);
    return error == kNoEntry ? mark_changed(o, std::nullopt) : on_copy_failed(o, error);
  }
  const auto source = static_cast<FileHandle>(completion.result);
  hold_source(source);
  const bool is_same_file = completion.source.file == o.file;
  const bool is_same = is_same_file && has_version(o, completion.source.version);
  if (is_same && o.copy == CopyPhase::active) set_copy_source(o, source);
  drop_source(source);
  if (!is_same) {
    NCFS_MARK(copy_overtaken);
    return mark_changed(o, is_same_file ? std::optional(completion.source.version) : std::nullopt);
  }
  settle(o);
}

}  // namespace ncfs
