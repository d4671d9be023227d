// Objects on disk: created, written block by block, made durable, published, evicted, removed.
//
// Invariants:
//   Residency    a block is published to readers only after its write has completed, and the
//                sidecar on disk vouches only for blocks written before a sync that succeeded;
//   CommitTruth  an object gets its final name only when every block is durable, the sidecar says
//                so durably, and the source still had the recorded version after the last fetch;
//   SyncOnce     after a failed write or sync the object is thrown away, never synced again;
//   a damaged object loses its sidecar first, which nobody reads;
//   no file is closed or unlinked while a request on it is in flight, nor closed while a handle
//   that may hold its Residency is open.
//
// A checkpoint is sync, store sidecar, rename sidecar, sync directory; a commit asks the source
// once more after the sync, and ends with the rename of the data and a second directory sync. Both
// are one chain of steps here.

#include <algorithm>
#include <utility>

#include "engine/core.h"
#include "engine/marks.h"
#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {

const char* to_string(ObjectState state) {
  switch (state) {
    case ObjectState::absent:
      return "absent";
    case ObjectState::creating:
      return "creating";
    case ObjectState::partial:
      return "partial";
    case ObjectState::committing:
      return "committing";
    case ObjectState::cached:
      return "cached";
    case ObjectState::removing:
      return "removing";
  }
  return "unknown";
}

bool is_transition(ObjectState from, ObjectState to) {
  using enum ObjectState;
  switch (from) {
    case absent:
      return to == creating || to == partial || to == cached;  // the latter by recovery
    case creating:
      return to == partial || to == removing;
    case partial:
      return to == committing || to == removing;
    case committing:
      return to == cached || to == partial || to == removing;
    case cached:
      return to == removing;
    case removing:
      return to == absent || to == cached;
  }
  return false;
}

void Core::set_state(Object& o, ObjectState state) {
  NCFS_ASSERT(is_transition(o.state, state) && "S10 Transitions");
  NCFS_TRANSITION(o.state, state);
  if (o.state == ObjectState::removing) removing_.erase(o.id);
  if (o.state == ObjectState::cached) scrub_order_.erase({o.scrub_at, o.id});
  o.state = state;
  if (state == ObjectState::removing) removing_.insert(o.id);
  if (state == ObjectState::cached && o.has_checksums) scrub_order_.insert({o.scrub_at, o.id});
  // What recovery finds is added when all of it is known, oldest first.
  const bool can_make_room = is_recovered_ && o.is_on_disk() && state != ObjectState::removing;
  if (can_make_room == eviction_->contains(o.id)) return;
  if (can_make_room) {
    eviction_->add(o.id, eviction_key(o.file, o.version), o.charge_bytes, Arrival::requested);
  } else {
    eviction_->remove(o.id);
  }
}

std::string Core::name_of(const Object& o, NameKind kind) const {
  return o.stem + std::string(suffix(kind));
}

// --- Creating and opening --------------------------------------------------------------------

// The caller has made sure that there is room.
void Core::create_storage(Object& o) {
  o.charge_bytes = object_charge(o.version.size, config_.block_size_bytes);
  if (NCFS_PLANT(sidecars_not_charged)) o.charge_bytes = o.version.size;
  space_.reserve(o.charge_bytes);
  promise_space(o, o.charge_bytes);
  o.charge_is_used = false;
  // Runs have distinct ids and a run never reuses a number, so the serial is new to the directory.
  o.serial = config_.run_id + next_id_++;
  if (NCFS_PLANT(serial_reused)) o.serial = 1;
  if (NCFS_PLANT(address_in_name)) o.serial += reinterpret_cast<std::uintptr_t>(this);
  o.stem = object_stem(o.file, o.version, o.serial);
  o.written = BlockSet(block_count_of(o.version.size, config_.block_size_bytes));
  o.durable = o.unverified = o.written;
  o.has_checksums = wants_checksums(o);
  if (o.has_checksums) o.checksums.assign(o.written.block_count(), 0);
  o.checksum_block_bytes = config_.block_size_bytes;
  o.blocks_missing = o.written.block_count();
  o.rekeys_recorded = o.rekeys;
  o.is_name_in_doubt = false;
  o.dirty_bytes = 0;
  o.cursor = 0;
  set_state(o, ObjectState::creating);
  ++o.io_in_flight;
  Request request = cache_request(Op::cache_create);
  request.name = name_of(o, NameKind::partial);
  request.range.length = o.version.size;
  submit({.step = Step::create, .object = o.id}, std::move(request));
}

void Core::on_created(Object& o, std::int64_t result) {
  --o.io_in_flight;
  if (result < 0) {
    NCFS_MARK(create_failed);
    // The file may exist all the same, or come into being late: removing it settles the matter.
    if (o.state == ObjectState::creating) {
      on_cache_error(o, static_cast<int>(-result), "creating a cache file");
    } else {
      settle(o);
    }
    return;
  }
  o.cache_file = static_cast<FileHandle>(result);
  take_promised(o, round_up_to_unit(o.version.size));
  if (o.state == ObjectState::creating) {
    set_state(o, ObjectState::partial);
    adopt_cache_file(o, o.cache_file);
  }
  if (o.copy == CopyPhase::active) advance_copy(o);
  settle(o);
}

void Core::open_cache(Object& o) {
  if (o.is_opening) return;
  o.is_opening = true;
  ++o.io_in_flight;
  Request request = cache_request(Op::cache_open);
  request.name = name_of(o, o.state == ObjectState::cached ? NameKind::data : NameKind::partial);
  submit({.step = Step::open_cache, .object = o.id}, std::move(request));
}

void Core::on_cache_opened(Object& o, std::int64_t result) {
  o.is_opening = false;
  --o.io_in_flight;
  if (result >= 0) {
    o.cache_file = static_cast<FileHandle>(result);
    if (o.may_be_opened()) adopt_cache_file(o, o.cache_file);
  } else if (o.may_be_opened() && result == -kTimedOut) {
    // Slow is not wrong: the object stays, this time it is not used.
    ++counters_.cache_errors;
    notice(Notice::Kind::cache_error, o, 0, kTimedOut, "opening a cached file");
    if (o.verify == VerifyPhase::active) end_verify(o, Verdict::skipped);
    if (o.copy == CopyPhase::active) on_copy_failed(o, kTimedOut);
  } else if (o.may_be_opened()) {
    on_cache_error(o, static_cast<int>(-result), "opening a cached file");
  }
  for (const HandleId id : std::exchange(o.waiting_opens, {})) answer_open(handles_.at(id));
  if (o.copy == CopyPhase::active) advance_copy(o);
  settle(o);
}

void Core::adopt_cache_file(Object& o, FileHandle file) {
  o.residency = std::make_shared<Residency>(file, o.version.size, config_.block_size_bytes);
  publish_blocks(o);
}

// To readers, unless the disk is down.
void Core::publish_blocks(Object& o) {
  if (health_.is_down()) return;
  const std::uint64_t count = o.residency->block_count();
  for (std::uint64_t block = 0; block < count; ++block) {
    if (o.state == ObjectState::cached || o.written.test(block)) o.residency->publish(block);
  }
  if (o.unverified_count > 0) queue_verify(o);
}

// A cached object coming to rest has just been used; its age in a later run is the mtime of its
// data. Once a minute is as exact as eviction needs.
void Core::record_use(Object& o) {
  if (!std::exchange(o.was_used, false)) return;
  if (o.touched_at != 0 && now_ < o.touched_at + 60 * kSecond) return;
  o.touched_at = now_;
  ++o.io_in_flight;
  Request request = cache_request(Op::cache_touch);
  request.name = name_of(o, NameKind::data);
  submit({.step = Step::touch, .object = o.id}, std::move(request));
}

void Core::close_cache(Object& o) {
  note_use(o, static_cast<std::int64_t>(now_));
  if (o.state == ObjectState::cached && !o.is_stale) record_use(o);
  ++o.io_in_flight;
  Request request = cache_request(Op::cache_close);
  request.file = std::exchange(o.cache_file, FileHandle::none);
  o.residency = nullptr;
  if (o.state == ObjectState::cached) o.checksums = {};
  submit({.step = Step::close_cache, .object = o.id}, std::move(request));
}

// --- Writing blocks --------------------------------------------------------------------------

void Core::pump_writes() {
  for (std::size_t i = 0; i < write_queue_.size() && cache_writes_ < config_.cache_writes_max &&
                          may_hold_one_more_buffer();) {
    Fetch& fetch = fetches_.at(write_queue_[i]);
    Object& o = object(fetch.object);
    if (!may_keep(o)) {
      unwant(fetch);
      keep_or_drop(fetch);
      continue;
    }
    if (o.state == ObjectState::partial && !o.is_open()) open_cache(o);
    const bool is_too_far =
        o.dirty_bytes >= config_.checkpoint_bytes && !NCFS_PLANT(checkpoint_not_awaited);
    if (is_too_far) NCFS_MARK(write_waits_for_checkpoint);
    if (!o.is_open() || o.needs_sidecar || is_too_far) {
      ++i;  // its file or its sidecar comes in a moment
      continue;
    }
    write_queue_.erase(write_queue_.begin() + static_cast<std::ptrdiff_t>(i));
    if (NCFS_PLANT(published_at_submit)) o.residency->publish(*fetch.block);
    fetch.phase = FetchPhase::writing;
    ++cache_writes_;
    ++o.io_in_flight;
    Request request = cache_request(Op::cache_write);
    request.file = o.cache_file;
    request.range = fetch.range;
    request.buffer = *fetch.buffer;
    request.wants_checksum = o.has_checksums;
    submit({.step = Step::block_write, .object = o.id, .fetch = fetch.id}, std::move(request));
  }
}

void Core::on_block_written(FetchId id, const Completion& completion) {
  std::int64_t result = completion.result;
  Fetch& fetch = fetches_.at(id);
  Object& o = object(fetch.object);
  --cache_writes_;
  --o.io_in_flight;
  fetch.phase = FetchPhase::loaded;
  fetch.is_wanted_on_disk = false;
  // From here on readers find the block in the cache file, or nowhere.
  o.block_fetches.erase(*fetch.block);
  if (NCFS_PLANT(failed_write_ignored)) result = static_cast<std::int64_t>(fetch.range.length);
  if (result < 0) {
    NCFS_MARK(write_failed);
    if (o.state == ObjectState::partial) {
      on_cache_error(o, static_cast<int>(-result), "writing a cache file");
    }
  } else if (o.state == ObjectState::partial) {
    NCFS_ASSERT(static_cast<std::uint64_t>(result) == fetch.range.length);
    NCFS_ASSERT(!o.written.test(*fetch.block));
    o.written.set(*fetch.block);
    if (o.has_checksums) o.checksums[*fetch.block] = completion.checksum;
    move_ahead_to_file(fetch, o);
    if (!health_.is_down()) o.residency->publish(*fetch.block);
    --o.blocks_missing;
    if (NCFS_PLANT(cached_without_commit) && o.blocks_missing == 0) {
      set_state(o, ObjectState::cached);
    }
    if (o.dirty_bytes == 0) o.checkpoint_at = now_ + config_.checkpoint_interval;
    o.dirty_bytes += fetch.range.length;
    attention_.insert(o.id);
    counters_.cache_bytes_written += fetch.range.length;
  }
  if (fetch.users == 0) retire(id);
  settle(o);
}

// --- Making durable, publishing --------------------------------------------------------------

// A source that did not answer the question before the last commit is given the back-off's time.
bool Core::can_commit(const Object& o) const {
  const bool is_backing_off = o.copy == CopyPhase::delayed && o.failures > 0;
  return o.blocks_missing == 0 && o.io_in_flight == 0 && !is_backing_off && !o.is_stale &&
         (o.copy_source != FileHandle::none || !o.handles.empty());
}

void Core::start_persist(Object& o) {
  NCFS_ASSERT(!o.is_persisting && o.is_open());
  o.is_persisting = true;
  o.persisting = o.written;
  for (std::size_t word = 0; o.unverified_count > 0 && word < o.persisting.words().size(); ++word) {
    o.persisting.words()[word] |= o.unverified.words()[word];
  }
  o.persisting_bytes = o.dirty_bytes;
  if (can_commit(o)) {
    o.commit_source =
        o.copy_source != FileHandle::none ? o.copy_source : handles_.at(*o.handles.begin()).source;
    hold_source(o.commit_source);
    set_state(o, ObjectState::committing);
  }
  ++o.io_in_flight;
  if (NCFS_PLANT(data_not_synced)) return on_persist_step(o, Step::persist_sync, {});
  if (NCFS_PLANT(renamed_before_sync) && o.state == ObjectState::committing) {
    return on_persist_step(o, Step::persist_sync_directory, {});
  }
  Request request = cache_request(Op::cache_sync);
  request.file = o.cache_file;
  submit({.step = Step::persist_sync, .object = o.id}, std::move(request));
}

void Core::end_persist(Object& o) {
  o.is_persisting = false;
  if (o.commit_source != FileHandle::none) {
    drop_source(std::exchange(o.commit_source, FileHandle::none));
  }
}

Request Core::store_sidecar(const Object& o, const Sidecar& sidecar) const {
  Request request = cache_request(Op::cache_store);
  request.name = name_of(o, NameKind::sidecar_temp);
  request.bytes = encode(sidecar);
  return request;
}

Request Core::rename_sidecar(const Object& o) const {
  Request request = cache_request(Op::cache_rename);
  request.name = name_of(o, NameKind::sidecar_temp);
  request.new_name = name_of(o, NameKind::sidecar);
  return request;
}

Request Core::sync_shard(const Object& o) const {
  Request request = cache_request(Op::cache_sync_directory);
  request.name = shard_name(shard_of(o.file));
  return request;
}

void Core::on_persist_step(Object& o, Step step, const Completion& completion) {
  --o.io_in_flight;
  const bool is_commit = o.state == ObjectState::committing;
  if (!is_commit && o.state != ObjectState::partial) return finish_persist(o);  // being removed
  const bool is_sync = step == Step::persist_sync;
  if (completion.result < 0 && !(NCFS_PLANT(failed_sync_ignored) && is_sync)) {
    const int error = static_cast<int>(-completion.result);
    end_persist(o);
    if (step == Step::persist_stat || (NCFS_PLANT(sync_retried) && is_commit && is_sync)) {
      NCFS_MARK(commit_unanswered);
      if (step == Step::persist_stat) source_fails(o, error);
      set_state(o, ObjectState::partial);
      on_copy_failed(o, error);
    } else {
      NCFS_MARK(checkpoint_failed);
      on_cache_error(o, error, "making a cache file durable");
    }
    return;
  }

  Request request = sync_shard(o);
  Step next = Step::persist_sync_directory;
  switch (step) {
    case Step::persist_sync:
      if (is_commit) {
        next = Step::persist_stat;
        request = make_request(Op::source_stat, config_.source_deadline);
        request.file = o.commit_source;
        break;
      }
      [[fallthrough]];
    case Step::persist_stat: {
      if (step == Step::persist_stat && !has_version(o, completion.source.version) &&
          !NCFS_PLANT(version_not_checked) &&
          !(NCFS_PLANT(rekeyed_copy_unchecked) && o.rekeys > 0)) {
        NCFS_MARK(changed_before_commit);
        end_persist(o);
        set_state(o, ObjectState::partial);
        mark_changed(o, completion.source.version);
        return;
      }
      next = Step::persist_store;
      if (NCFS_PLANT(sidecar_ahead_of_sync)) o.persisting = o.written;
      o.persisting_pin = is_pinned(o);
      o.rekeys_persisting = o.rekeys;
      request = store_sidecar(o, {o.file, o.version, o.serial, config_.block_size_bytes, o.path,
                                  o.persisting, o.checksums, o.persisting_pin});
      break;
    }
    case Step::persist_store:
      disk_full_.end();
      next = Step::persist_rename;
      request = rename_sidecar(o);
      break;
    case Step::persist_rename:
      break;
    case Step::persist_sync_directory:
      o.durable = o.persisting;
      o.needs_sidecar = std::exchange(o.is_sidecar_outdated, false);
      o.is_pin_recorded = o.persisting_pin;
      o.rekeys_recorded = o.rekeys_persisting;
      o.dirty_bytes -= o.persisting_bytes;
      if (!is_commit) return finish_persist(o);
      next = Step::publish_rename;
      request = cache_request(Op::cache_rename);
      request.name = name_of(o, NameKind::partial);
      request.new_name = name_of(o, NameKind::data);
      break;
    case Step::publish_rename:
      if (NCFS_PLANT(directory_not_synced)) return finish_commit(o);
      next = Step::publish_sync_directory;
      break;
    default:
      return finish_commit(o);
  }
  ++o.io_in_flight;
  submit({.step = next, .object = o.id}, std::move(request));
}

void Core::finish_persist(Object& o) {
  end_persist(o);
  if (o.dirty_bytes > 0) {
    o.checkpoint_at = now_ + config_.checkpoint_interval;
    attention_.insert(o.id);
  }
  settle(o);
}

void Core::finish_commit(Object& o) {
  NCFS_ASSERT(o.durable.is_full() && o.dirty_bytes == 0);
  end_persist(o);
  o.failures = 0;
  o.was_used = true;
  o.scrub_at = now_ + config_.scrub_interval;
  set_state(o, ObjectState::cached);
  space_.commit(o.charge_bytes);
  take_promised(o, o.unwritten_bytes);
  o.charge_is_used = true;
  o.written = o.durable = o.persisting = o.unverified = BlockSet();
  if (config_.checksum != Checksum::read) o.checksums = {};
  ++counters_.copies_finished;
  notice(Notice::Kind::copy_finished, o, o.version.size);
  leave_copy(o);
  if (!must_record(o)) answer_warms(o, {WarmResult::Kind::copied, {}, 0});
  settle(o);
  schedule_copies();
}

// The cache let us down: whatever was on its way is given up, and tried again later from the start.
void Core::on_cache_error(Object& o, int error, const char* operation) {
  ++counters_.cache_errors;
  notice(Notice::Kind::cache_error, o, 0, error, operation);
  o.last_error = error;
  if (error == kNoSpace || error == kOverQuota) {
    on_disk_full(o.state == ObjectState::creating ? o.charge_bytes : 0);
  }
  // A file being published is in no queue, but may be warmed all the same.
  const bool was_wanted =
      o.copy != CopyPhase::none || !o.handles.empty() || o.copy_source != FileHandle::none;
  remove(o, RemovalReason::failed);
  if (was_wanted && !o.is_stale) {
    on_copy_failed(o, error);
  } else {
    settle(o);
  }
}

// --- Removing --------------------------------------------------------------------------------

// From here on no reader is sent to the cache file. The names go when nobody who may hold the
// Residency is left and requests in flight are back; the bytes are given back to the ledger when
// the file is closed, too.
void Core::remove(Object& o, RemovalReason reason) {
  if (o.state == ObjectState::removing) return;
  by_use_.erase({o.used_at, o.id});
  for (const HandleId id : o.handles) end_ahead(handles_.at(id));
  if (o.residency) o.residency->revoke();
  if (o.verify != VerifyPhase::none) {
    end_verify(o, reason == RemovalReason::damaged ? Verdict::damaged : Verdict::skipped);
    o.verify = VerifyPhase::none;
  }
  o.removal = reason;
  o.removal_step = 0;
  o.removal_from = o.state;
  set_state(o, ObjectState::removing);
}

namespace {

// Step 0 opens the file of a complete object: only through it can be told whether somebody still
// maps it, or a kernel still reads it for a daemon that died. Steps 1 to 4 unlink these names.
constexpr std::array kRemovedNames = {NameKind::data, NameKind::partial, NameKind::sidecar,
                                      NameKind::sidecar_temp};
// Without its sidecar a damaged object is never found again, however long its data is in use.
constexpr std::array kDamagedNames = {NameKind::sidecar, NameKind::sidecar_temp, NameKind::data,
                                      NameKind::partial};
constexpr std::uint32_t kDamagedDataStep = 3;

}  // namespace

void Core::advance_removal(Object& o) {
  if (o.disown == DisownPhase::due && o.io_in_flight == 0) start_disowning(o);
  if (o.io_in_flight > 0) return;
  if (now_ < o.remove_at) {
    attention_.insert(o.id);
    return;
  }
  const bool is_damaged = o.removal == RemovalReason::damaged;
  const bool is_data_next = !is_damaged || o.removal_step >= kDamagedDataStep;
  const bool is_held = o.residency && !o.handles.empty() && config_.checksum != Checksum::read &&
                       !NCFS_PLANT(removed_under_reader);
  if (is_data_next && is_held) return;
  const bool was_complete = o.removal_from == ObjectState::cached;
  if (o.removal_step == 0) {
    if (was_complete && !o.is_open()) {
      ++o.io_in_flight;
      Request request = cache_request(Op::cache_open);
      request.name = name_of(o, NameKind::data);
      submit({.step = Step::remove_open, .object = o.id}, std::move(request));
      return;
    }
    o.removal_step = 1;
  }
  if (o.removal_step <= kRemovedNames.size()) {
    ++o.io_in_flight;
    if (NCFS_PLANT(sidecar_left_behind) && o.removal_step == 3) o.removal_step = 4;
    const NameKind kind = (is_damaged ? kDamagedNames : kRemovedNames)[o.removal_step - 1];
    Request request = cache_request(Op::cache_unlink);
    request.name = name_of(o, kind);
    const bool may_be_mapped = was_complete && kind == NameKind::data;
    if (may_be_mapped && !NCFS_PLANT(mapping_ignored)) request.file = o.cache_file;
    submit({.step = Step::remove_unlink, .object = o.id}, std::move(request));
    return;
  }
  if (o.is_open()) return close_cache(o);
  finish_removal(o);
}

// Also takes the completions that nothing depends on but that the object is at rest again.
void Core::on_removal_step(Object& o, Step step, std::int64_t result) {
  --o.io_in_flight;
  if (step == Step::remove_open) {
    if (result >= 0) o.cache_file = static_cast<FileHandle>(result);
    if (result >= 0 || result == -kNoEntry) {
      o.removal_step = 1;
    } else {
      return postpone_removal(o, static_cast<int>(-result));
    }
  } else if (step == Step::remove_unlink) {
    if (result == 0 || result == -kNoEntry) {
      ++o.removal_step;
    } else {
      return postpone_removal(o, static_cast<int>(-result));
    }
  }
  settle(o);
}

// Either somebody still maps the file or the disk does not let go of it. What is not to be trusted
// stays out of use and is tried again, at a tick or with back-off, charged until it is gone. A good
// object whose data still has its name is back in use; ten seconds are long enough not to busy
// ourselves with it, and short against the life of a mapping.
void Core::postpone_removal(Object& o, int error) {
  if (error != kBusy) {
    ++counters_.cache_errors;
    notice(Notice::Kind::cache_error, o, 0, error, "removing a cache file");
    o.remove_at = now_ + back_off(o.removal_failures++);
  }
  count_drop(o, error == kBusy ? &ControlResult::in_use : &ControlResult::failed);
  answer_controls();
  const bool is_good = o.removal_from == ObjectState::cached &&
                       o.removal != RemovalReason::failed && o.removal != RemovalReason::damaged &&
                       !o.is_disowned();
  if (!is_good || o.removal_step > 1) {
    NCFS_MARK(removal_postponed);
    attention_.insert(o.id);
    return;
  }
  NCFS_MARK(victim_in_use);
  o.evict_after = now_ + 10 * kSecond;
  o.removal = RemovalReason::none;
  set_state(o, o.removal_from);
  o.remove_at = 0;
  if (o.is_open()) close_cache(o);
  settle(o);
  schedule_copies();
}

void Core::finish_removal(Object& o) {
  if (o.charge_is_used) {
    if (!NCFS_PLANT(ledger_not_released)) space_.release_used(o.charge_bytes);
  } else if (!NCFS_PLANT(reservation_forgotten)) {
    space_.release_reserved(o.charge_bytes);
  }
  if (o.removal == RemovalReason::evicted) {
    ++counters_.evictions;
    counters_.evicted_bytes += o.version.size;
    notice(Notice::Kind::evicted, o, o.version.size);
  } else if (o.removal == RemovalReason::expired) {
    notice(Notice::Kind::object_removed, o, o.version.size, 0, "not used for cache_ttl_hours");
  } else if (o.removal == RemovalReason::disowned) {
    notice(Notice::Kind::object_removed, o, o.version.size, 0, "written through the mount");
  }
  count_drop(o, &ControlResult::done);
  take_promised(o, o.unwritten_bytes);
  returned_bytes_ += o.charge_bytes;
  returned_bytes_next_ += o.charge_bytes;
  o.is_pin_recorded = false;
  o.charge_bytes = 0;
  o.residency = nullptr;
  o.written = o.durable = o.persisting = o.unverified = BlockSet();
  o.unverified_count = 0;
  o.has_checksums = false;
  o.checksums = {};
  o.dirty_bytes = 0;
  o.blocks_missing = 0;
  o.needs_sidecar = o.is_sidecar_outdated = false;
  o.evict_after = 0;
  o.remove_at = 0;
  o.removal_failures = 0;
  o.removal = RemovalReason::none;
  set_state(o, ObjectState::absent);
  if (o.copy == CopyPhase::delayed && o.failures == 0 && now_ >= o.trusted_at) queue_copy(o);
  if (waits_for_disk_space_) ask_free_space();
  schedule_copies();
}

}  // namespace ncfs
