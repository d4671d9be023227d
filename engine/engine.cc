// Events: who asks, who is told, and what an object does next.

#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "engine/core.h"
#include "engine/marks.h"
#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {

const char* to_string(OpenReason reason) {
  switch (reason) {
    case OpenReason::cached:
      return "cached";
    case OpenReason::partial:
      return "partially cached";
    case OpenReason::first_use:
      return "first use";
    case OpenReason::changed:
      return "changed at the source";
    case OpenReason::recently_changed:
      return "changed a moment ago";
    case OpenReason::too_small:
      return "smaller than min_file_size";
    case OpenReason::too_large:
      return "larger than the cache";
    case OpenReason::no_space:
      return "no space: all cached files are in use";
    case OpenReason::backing_off:
      return "last copy failed, waiting to retry";
    case OpenReason::cache_unavailable:
      return "cache disk does not answer";
    case OpenReason::pins_full:
      return "does not fit beside the pinned files";
    case OpenReason::above_max_size:
      return "larger than max_file_size";
    case OpenReason::excluded:
      return "left out by include or exclude";
    case OpenReason::not_read:
      return "not read yet, cache_on=read";
    case OpenReason::opened_once:
      return "opened once, cache_on=second-open";
  }
  return "unknown";
}

const char* to_string(Notice::Kind kind) {
  switch (kind) {
    case Notice::Kind::copy_started:
      return "copy started";
    case Notice::Kind::copy_resumed:
      return "copy resumed";
    case Notice::Kind::copy_finished:
      return "copy finished";
    case Notice::Kind::copy_failed:
      return "copy failed";
    case Notice::Kind::copy_abandoned:
      return "copy abandoned";
    case Notice::Kind::evicted:
      return "evicted";
    case Notice::Kind::object_removed:
      return "object removed";
    case Notice::Kind::name_ignored:
      return "unknown name ignored";
    case Notice::Kind::pin_dropped:
      return "pin dropped, the new version does not fit beside the pinned files";
    case Notice::Kind::cache_error:
      return "cache error";
    case Notice::Kind::cache_health:
      return "cache disk";
    case Notice::Kind::source_health:
      return "backend";
    case Notice::Kind::damaged:
      return "damaged in the cache";
  }
  return "unknown";
}

Engine::Engine(const Config& config, Io& io, Host& host)
    : core_(std::make_unique<Core>(config, io, host)) {}
Engine::~Engine() = default;
void Engine::start(Nanos now) {
  core_->start(now);
}
void Engine::handle(Nanos now, Event event) {
  core_->handle(now, std::move(event));
}
void Engine::complete(Nanos now, Completion completion) {
  core_->complete(now, std::move(completion));
}
EngineStatus Engine::status() const {
  return core_->status();
}
std::optional<Nanos> Engine::wake_at() const {
  return core_->wake_at();
}
std::vector<FileReport> Engine::files(const FileQuery& query) const {
  return core_->files(query);
}
void Engine::check_invariants() const {
  core_->check_invariants();
}

Core::Core(const Config& config, Io& io, Host& host)
    : config_(config),
      io_(io),
      host_(host),
      space_(config.cache_size_bytes),
      eviction_(make_eviction_policy(config.eviction, config.cache_size_bytes)),
      disk_full_(config.retry_min, config.retry_max),
      source_rest_(config.retry_min, config.retry_max) {
  copy_bucket_.set_rate(config.copy_bytes_per_second);
  NCFS_ASSERT(config.block_size_bytes > 0);
  NCFS_ASSERT(config.block_size_bytes % kAllocationUnit == 0);
  NCFS_ASSERT(config.buffers > config.buffers_reserved);
  NCFS_ASSERT(config.buffers_reserved > 0);
  NCFS_ASSERT(config.source_reads_max > config.source_reads_reserved);
  NCFS_ASSERT(config.source_reads_reserved > 0);
  NCFS_ASSERT(config.copies_max > 0 && config.copy_depth > 0 && config.cache_writes_max > 0);
  for (std::uint32_t buffer = config.buffers; buffer-- > 0;) {
    free_buffers_.push_back(BufferId{buffer});
  }
  shards_.resize(kShardCount);
}

void Core::start(Nanos now) {
  NCFS_ASSERT(!is_started_);
  is_started_ = true;
  now_ = now;
  for (std::uint32_t shard = 0; shard < kShardCount; ++shard) shards_to_list_.push_back(shard);
  ask_free_space();
  pump_recovery();
}

void Core::handle(Nanos now, Event event) {
  NCFS_ASSERT(is_started_ && now >= now_);
  now_ = now;
  std::visit([this](auto&& one) { on(std::forward<decltype(one)>(one)); }, std::move(event));
  evict_to_limit();
  pump();
  if (is_stopping_) check_stopped();
}

void Core::complete(Nanos now, Completion completion) {
  NCFS_ASSERT(now >= now_);
  now_ = now;
  const auto entry = pending_.find(completion.ticket);
  NCFS_ASSERT(entry != pending_.end());
  const Pending pending = std::move(entry->second);
  pending_.erase(entry);
  judge_result(pending, completion.result);
  const bool makes_a_name =
      pending.step == Step::persist_store || pending.step == Step::persist_rename ||
      pending.step == Step::record_store || pending.step == Step::record_rename;
  if (makes_a_name && completion.result == -kTimedOut) {
    object(pending.object).is_name_in_doubt = true;
  }
  dispatch(pending, completion);
  if (!controls_.empty()) pump_drops();
  evict_to_limit();
  pump();
  if (is_stopping_) check_stopped();
}

void Core::dispatch(const Pending& pending, Completion& completion) {
  switch (pending.step) {
    case Step::fetch_read:
      return on_fetch_read(pending.fetch, completion);
    case Step::fetch_check:
      return on_fetch_checked(pending.fetch, completion);
    case Step::block_write:
      return on_block_written(pending.fetch, completion);
    case Step::create:
      return on_created(object(pending.object), completion.result);
    case Step::open_cache:
      return on_cache_opened(object(pending.object), completion.result);
    case Step::open_source:
      return on_source_opened(object(pending.object), completion);
    case Step::close_source:
      return;
    case Step::touch:
    case Step::close_cache:
    case Step::remove_open:
    case Step::remove_unlink:
      return on_removal_step(object(pending.object), pending.step, completion.result);
    case Step::persist_sync:
    case Step::persist_stat:
    case Step::persist_store:
    case Step::persist_rename:
    case Step::persist_sync_directory:
    case Step::publish_rename:
    case Step::publish_sync_directory:
      return on_persist_step(object(pending.object), pending.step, completion);
    case Step::recover_list:
      return on_shard_listed(pending.shard, completion);
    case Step::recover_load:
      return on_sidecar_loaded(pending.shard, pending.stem, completion);
    case Step::recover_unlink:
      return settle_shard(pending.shard);
    case Step::probe_store:
    case Step::probe_unlink:
      return on_probe_step(pending.step, completion.result);
    case Step::load_checksums:
      return on_checksums_loaded(object(pending.object), completion);
    case Step::verify_read:
      return on_verify_read(object(pending.object), completion);
    case Step::cached_read:
      return on_cached_read(pending.fetch, completion);
    case Step::debris_open:
    case Step::debris_unlink:
    case Step::debris_close:
      return on_debris_step(pending.stem, pending.step, completion.result);
    case Step::record_load:
    case Step::record_store:
    case Step::record_rename:
    case Step::record_sync_directory:
      return on_record_step(object(pending.object), pending.step, completion);
    case Step::free_space:
      return on_free_space(completion);
    case Step::disown_temp:
    case Step::disown_sidecar:
    case Step::disown_sync_directory:
      return on_disown_step(object(pending.object), pending.step, completion.result);
  }
}

Request Core::make_request(Op op, Nanos patience) const {
  Request request;
  request.op = op;
  request.deadline = now_ + patience;
  return request;
}

// A request of a disk that is down waits here; to its maker it is in flight.
void Core::submit(Pending pending, Request request) {
  const bool is_probe = pending.step == Step::probe_store || pending.step == Step::probe_unlink;
  if (health_.is_down() && request.op >= Op::cache_list && !is_probe) {
    held_.emplace_back(std::move(pending), std::move(request));
    return;
  }
  request.ticket = Ticket{next_id_++};
  pending_.emplace(request.ticket, std::move(pending));
  io_.submit(std::move(request));
}

// --- Opening and closing ---------------------------------------------------------------------

Object& Core::object_for(const FileId& file, const SourceVersion& version) {
  const auto [entry, is_new] = by_version_.try_emplace({file, version}, ObjectId{next_id_});
  if (is_new) {
    Object added;
    added.id = ObjectId{next_id_++};
    added.file = file;
    added.version = version;
    objects_.emplace(added.id, std::move(added));
  }
  return object(entry->second);
}

// Fetches made while the timestamps are young are not kept: the file may still change under them
// without getting new timestamps.
void Core::look_at(Object& object, const SourceState& state) {
  object.is_stale = false;
  object.is_looked_at = true;
  const bool is_young = !NCFS_PLANT(racy_window_ignored) && !object.is_on_disk() &&
                        state.age_ns < static_cast<std::int64_t>(config_.racy_window);
  object.trusted_at = std::min(object.trusted_at, is_young ? now_ + config_.racy_window : now_);
  note_use(object, static_cast<std::int64_t>(now_));
}

// The newest look at a file decides which of its versions is current.
void Core::retire_other_versions(const Object& current, bool& had_other) {
  for (const ObjectId id : objects_of(current.file)) {
    if (id == current.id) continue;
    had_other = true;
    mark_changed(object(id), current.version);
  }
}

void Core::name_path(Object& o, std::string path) {
  if (path == o.path && !path.empty()) return;
  o.path = std::move(path);
  o.is_excluded = !config_.paths.admit(o.path);
}

// Whether the open is enough for a copy. What is wanted already, or was begun, goes on.
void Core::note_open(Object& o) {
  const bool is_wanted = o.copy != CopyPhase::none || o.is_on_disk() || is_pinned(o);
  if (config_.cache_on == CacheOn::read) {
    if (!is_wanted && o.handles.size() == 1) o.deferral = OpenReason::not_read;
  } else if (config_.cache_on == CacheOn::second_open) {
    o.deferral.reset();
    const bool is_first = opened_once_.find(o.file) == nullptr;
    if (is_first && !is_wanted) o.deferral = OpenReason::opened_once;
  }
  if (is_wanted) o.deferral.reset();
  if (config_.cache_on != CacheOn::second_open) return;
  opened_once_.put(o.file, 0);
  opened_once_.trim([](const auto&, const auto&) {});
}

void Core::on(OpenEvent&& event) {
  Object& o = object_for(event.state.file, event.state.version);
  look_at(o, event.state);
  name_path(o, std::move(event.path));
  const auto [entry, is_new] = handles_.try_emplace(event.handle);
  NCFS_ASSERT(is_new);
  Handle& h = entry->second;
  h.id = event.handle;
  h.object = o.id;
  h.source = event.source;
  h.opened_as = next_id_++;
  h.reads_source = event.reads_source;
  h.answer_by = now_ + config_.open_patience;
  hold_source(h.source);
  o.handles.insert(h.id);
  if (h.reads_source) ++o.source_readers;
  open_model(o);
  o.was_used = true;
  retire_other_versions(o, h.had_other_version);
  eviction_->access(o.id, eviction_key(o.file, o.version));
  follow_pin(o);
  note_open(o);
  if (!NCFS_PLANT(rank_ignored)) raise_rank(o, CopyRank::opened);
  update_evictable(o);

  Shard& shard = shards_[shard_of(o.file)];
  if (shard.phase != ShardPhase::recovered && !refusal(o) && !health_.is_down()) {
    NCFS_MARK(open_waits_for_shard);
    const bool is_first = shard.waiting_opens.empty();
    shard.waiting_opens.insert(h.id);
    if (is_first) hurry_shard(shard_of(o.file));
    return;
  }
  continue_open(h);
}

void Core::continue_open(Handle& h) {
  Object& o = object(h.object);
  want_copy(o);
  if (o.copy == CopyPhase::queued) schedule_copies();  // its rank may be better now
  if (o.may_be_opened() && !o.is_open() && !health_.is_down()) {
    o.waiting_opens.push_back(h.id);
    open_cache(o);
    return;
  }
  answer_open(h);
}

OpenReason Core::reason_of(const Object& o, const Handle& h) const {
  if (o.state == ObjectState::cached) {
    const bool is_readable = o.residency && !health_.is_down();
    return is_readable ? OpenReason::cached : OpenReason::cache_unavailable;
  }
  if (const auto refused = refusal(o)) return *refused;
  if (health_.is_down()) return OpenReason::cache_unavailable;
  if (o.has_some_blocks() && o.residency && o.blocks_missing < o.residency->block_count()) {
    return OpenReason::partial;
  }
  if (shards_[shard_of(o.file)].phase != ShardPhase::recovered || !health_.is_normal()) {
    return OpenReason::cache_unavailable;
  }
  if (o.deferral) return *o.deferral;
  if (now_ < o.trusted_at) return OpenReason::recently_changed;
  if (o.failures > 0) {
    return o.last_error == kNoSpace ? OpenReason::no_space : OpenReason::backing_off;
  }
  return h.had_other_version ? OpenReason::changed : OpenReason::first_use;
}

void Core::answer_open(Handle& h) {
  NCFS_ASSERT(!h.is_answered);
  h.is_answered = true;
  const Object& o = object(h.object);
  OpenResult result;
  result.residency = health_.is_down() ? nullptr : residency_for_readers(o);
  result.is_complete =
      o.state == ObjectState::cached && o.residency != nullptr && !health_.is_down();
  if (NCFS_PLANT(complete_too_early)) result.is_complete = result.residency != nullptr;
  result.reason = reason_of(o, h);
  ++(result.reason == OpenReason::cached ? counters_.opens_hit : counters_.opens_miss);
  host_.on_open(h.id, result);
}

void Core::stop_waiting(Handle& h) {
  Object& o = object(h.object);
  std::erase(o.waiting_opens, h.id);
  shards_[shard_of(o.file)].waiting_opens.erase(h.id);
  answer_open(h);
}

void Core::on(CloseEvent&& event) {
  const auto entry = handles_.find(event.handle);
  NCFS_ASSERT(entry != handles_.end());
  end_ahead(entry->second);
  const Handle h = entry->second;
  handles_.erase(entry);
  prefetching_.erase(h.id);
  Object& o = object(h.object);
  o.handles.erase(h.id);
  if (o.handles.empty()) o.model = nullptr;
  if (h.reads_source) --o.source_readers;
  std::erase(o.waiting_opens, h.id);
  shards_[shard_of(o.file)].waiting_opens.erase(h.id);
  drop_source(h.source);
  refuse_growths(kCanceled, h.id);
  settle(o);
}

// --- Reading ---------------------------------------------------------------------------------

void Core::on(ReadEvent&& event) {
  Handle& h = handles_.at(event.handle);
  Object& o = object(h.object);
  const std::uint64_t block = event.range.offset / config_.block_size_bytes;
  NCFS_ASSERT(h.is_answered);
  NCFS_ASSERT(!event.range.empty() && event.range.end() <= block_range(o, block).end());
  ++counters_.reads_missing;
  if (o.is_disowned() && !NCFS_PLANT(disowned_read_shared)) {
    NCFS_MARK(read_past_the_cache);
    return fetch_alone({event.token, event.handle, event.range});
  }
  note_read(h, o, event.range);
  if (o.deferral == OpenReason::not_read) {
    o.deferral.reset();
    want_copy(o);
  }
  const bool is_cached = !event.skip_cache && o.residency && o.residency->is_resident(block);
  if (is_cached) o.residency->take_unread(block);
  if (is_cached && config_.checksum != Checksum::read) {
    NCFS_MARK(read_found_resident);
    ReadResult result;
    result.kind = ReadResult::Kind::resident;
    result.residency = o.residency;
    host_.on_read(event.token, result);
    return;
  }
  if (NCFS_PLANT(cache_error_to_reader) && event.skip_cache) {
    return answer_error({event.token, event.handle, event.range}, kInputOutputError);
  }
  fetch_for_reader(h, {event.token, event.handle, event.range}, is_cached);
}

void Core::on(ReadDoneEvent&& event) {
  const auto entry = answers_.find(event.token);
  NCFS_ASSERT(entry != answers_.end());
  Fetch& fetch = fetches_.at(entry->second);
  answers_.erase(entry);
  --fetch.users;
  keep_or_drop(fetch);
}

void Core::on(CacheFaultEvent&& event) {
  Object& o = object(handles_.at(event.handle).object);
  // A plan made before says nothing about the object.
  if (health_.is_down()) return;
  judge_result({.step = Step::cached_read}, -event.error);
  if (!o.has_cache_file()) return;
  if (event.error != kTimedOut) return on_cache_error(o, event.error, "reading a cached file");
  ++counters_.cache_errors;
  notice(Notice::Kind::cache_error, o, 0, kTimedOut, "reading a cached file");
}

// --- Warming, time, stopping -----------------------------------------------------------------

void Core::on(WarmEvent&& event) {
  Object& o = object_for(event.state.file, event.state.version);
  look_at(o, event.state);
  name_path(o, std::move(event.path));
  o.deferral.reset();
  bool had_other = false;
  retire_other_versions(o, had_other);
  eviction_->access(o.id, eviction_key(o.file, o.version));
  hold_source(event.source);
  o.warms.push_back(event.token);
  follow_pin(o);
  // A pin is a promise that the disk has to record.
  const bool is_here = o.state == ObjectState::cached && !(event.pin && health_.is_down());
  auto refused = refusal(o);
  if (!refused && !health_.is_normal() && !is_here && o.copy != CopyPhase::active) {
    refused = OpenReason::cache_unavailable;
  }
  if (event.pin && !refused && !is_stopping_) pin(o);
  if (refused) {
    const bool is_rule = *refused == OpenReason::too_small ||
                         *refused == OpenReason::above_max_size ||
                         *refused == OpenReason::excluded;
    const bool is_failure = event.pin && !is_rule;
    answer_warms(o, {is_failure ? WarmResult::Kind::failed : WarmResult::Kind::skipped, *refused});
  } else if (is_stopping_) {
    answer_warms(o, {WarmResult::Kind::failed, {}, kCanceled});
  } else if (o.state == ObjectState::cached) {
    record_use(o);
  } else {
    const bool is_ours = o.copy == CopyPhase::none && o.handles.empty();
    if (is_ours) {
      set_pace(o, {});
      o.copy_place.rank = CopyRank::resumed;
    }
    if (event.pace.number == 0) {
      raise_rank(o, CopyRank::warmed);
    } else if (o.copy_place.rank > CopyRank::paced) {
      raise_rank(o, CopyRank::paced);
      set_pace(o, event.pace);
    }
    set_copy_source(o, event.source);
    want_copy(o);
    // Asked for by name: no reason to sit out a back-off.
    if (o.copy == CopyPhase::delayed && now_ >= o.trusted_at) queue_copy(o);
    schedule_copies();
    if (o.copy == CopyPhase::none && o.state != ObjectState::committing) {
      answer_warms(o,
                   {WarmResult::Kind::failed, {}, kBusy});  // more wanted than can be kept in mind
      leave_copy(o);
    }
  }
  drop_source(event.source);
  settle(o);
}

void Core::answer_warms(Object& o, const WarmResult& result) {
  for (const WarmToken token : std::exchange(o.warms, {})) host_.on_warm(token, result);
}

void Core::on(TickEvent&&) {
  for (const ObjectId id : std::exchange(attention_, {})) {
    if (const auto entry = objects_.find(id); entry != objects_.end()) settle(entry->second);
  }
  for (const HandleId id : std::set(waiting_for_readers_)) settle_ahead(handles_.at(id));
  ask_free_space();
  forget_paces();
  forget_yields();
  expire_growths();
  retry_debris();
  expire_unused();
  wake_delayed();
  for (const ObjectId id : active_copies_) advance_copy(object(id));
  if (health_.is_probe_due(now_) && !is_probing_ && !is_stopping_) start_probe();
  grow_scrub_budget();
  for (const std::uint32_t shard : std::exchange(shards_to_rescan_, {})) {
    shards_to_list_.push_back(shard);
  }
  pump_recovery();
  std::vector<HandleId> impatient;
  for (const auto& [id, h] : handles_) {
    if (NCFS_PLANT(open_without_patience)) break;
    if (!h.is_answered && now_ >= h.answer_by) impatient.push_back(id);
  }
  for (const HandleId id : impatient) {
    NCFS_MARK(open_loses_patience);
    stop_waiting(handles_.at(id));
  }
}

void Core::on(StopEvent&&) {
  is_stopping_ = true;
  refuse_growths(kInputOutputError, std::nullopt);
  for (auto& [token, job] : verify_jobs_) job.is_started = job.result.is_cancelled = true;
  std::vector<ObjectId> ids;
  for (const auto& [id, o] : objects_) ids.push_back(id);
  for (const ObjectId id : ids) {
    Object& o = object(id);
    leave_copy(o);
    answer_warms(o, {WarmResult::Kind::failed, {}, kCanceled});
    if (o.verify != VerifyPhase::none) end_verify(o, Verdict::skipped);
    count_drop(o, &ControlResult::in_use);
    settle(o);
  }
  pump_drops();
}

void Core::check_stopped() {
  if (is_stopped_) return;
  // What the disk does not take now is fetched again.
  if (health_.is_down()) {
    is_stopped_ = true;
    return host_.on_stopped();
  }
  if (cache_writes_ > 0 || !disownings_.empty()) return;
  for (const auto& [id, o] : objects_) {
    if (NCFS_PLANT(stopped_too_early)) break;
    if (o.is_persisting || o.state == ObjectState::committing) return;
    if (o.state == ObjectState::partial && o.is_open() && o.dirty_bytes > 0) return;
  }
  is_stopped_ = true;
  host_.on_stopped();
}

// --- What follows from an object's facts -----------------------------------------------------

std::optional<OpenReason> Core::refusal(const Object& o) const {
  if (config_.is_too_small(o.version.size)) return OpenReason::too_small;
  if (!NCFS_PLANT(rules_ignored)) {
    if (config_.is_above_max(o.version.size)) return OpenReason::above_max_size;
    if (o.is_excluded) return OpenReason::excluded;
  }
  const std::uint64_t blocks = block_count_of(o.version.size, config_.block_size_bytes);
  if (blocks > (config_.checksum == Checksum::read ? kChecksumCountMax : kBlockCountMax) ||
      object_charge(o.version.size, config_.block_size_bytes) > space_.limit()) {
    return OpenReason::too_large;
  }
  if (!pins_.empty()) {
    const auto own = pins_.find(o.file);
    const std::uint64_t others =
        pinned_bytes_ - (own == pins_.end() ? 0 : own->second.charge_bytes);
    if (object_charge(o.version.size, config_.block_size_bytes) + others > space_.limit()) {
      return OpenReason::pins_full;
    }
  }
  return std::nullopt;
}

// `o` may be gone when this returns.
void Core::settle(Object& o) {
  if (o.handles.empty()) {
    for (const FetchId id : idle_fetches_of(o)) retire(id);
  }
  if (o.state == ObjectState::partial && o.is_open() && !o.is_persisting) {
    // At half of what a crash may cost, so that writes go on while the first half is made durable.
    const bool is_due = o.dirty_bytes >= config_.checkpoint_bytes / 2 || now_ >= o.checkpoint_at ||
                        is_stopping_ || can_rest(o);
    if (can_commit(o) || o.needs_sidecar || must_record(o) || (o.dirty_bytes > 0 && is_due)) {
      start_persist(o);
    }
  }
  const bool is_record_due = must_record(o);
  if (is_record_due && o.state == ObjectState::cached && !o.is_persisting) {
    if (now_ >= o.record_at) record(o);
    if (now_ < o.record_at) attention_.insert(o.id);
  }
  // Who asked for a pin is told when it is recorded.
  if (o.state == ObjectState::cached && !o.is_persisting && !is_record_due) {
    answer_warms(o, {WarmResult::Kind::already_cached, {}, 0});
  }
  const bool is_outdated = o.is_stale && now_ >= o.retire_at;
  if (o.is_unpublished() && is_outdated) remove(o, RemovalReason::stale);
  if (o.is_stale && now_ < o.retire_at) attention_.insert(o.id);
  if (o.may_be_opened() && can_rest(o)) {
    // What is copied of a file that does not fit any more is only in the way.
    if (o.state == ObjectState::partial && o.copy == CopyPhase::none && refusal(o)) {
      o.is_stale = true;
    }
    if (o.is_stale && now_ >= o.retire_at && now_ >= o.evict_after) {
      remove(o, RemovalReason::stale);
    } else if (o.is_open()) {
      close_cache(o);
    }
  }
  const bool is_cached = o.state == ObjectState::cached;
  if (NCFS_PLANT(closed_under_reader) && is_cached && o.is_open()) close_cache(o);
  if (o.state == ObjectState::removing) advance_removal(o);
  if (o.verify == VerifyPhase::closing &&
      (!o.handles.empty() || (!o.is_open() && o.io_in_flight == 0))) {
    o.verify = VerifyPhase::none;
  }
  if (now_ < o.evict_after) attention_.insert(o.id);
  update_evictable(o);
  const bool is_idle = o.state == ObjectState::absent && o.handles.empty() && o.fetches == 0 &&
                       o.copy == CopyPhase::none && o.warms.empty() && o.io_in_flight == 0 &&
                       !o.is_opening_source && o.verify == VerifyPhase::none;
  if (is_idle) {
    NCFS_ASSERT(o.copy_source == FileHandle::none && o.commit_source == FileHandle::none);
    attention_.erase(o.id);
    set_pace(o, {});
    o.is_disowned() ? void(disowned_.erase({o.file, o.id})) : forget_versions(o);
    objects_.erase(o.id);
  }
}

// Nobody uses the object and nothing is under way.
bool Core::can_rest(const Object& o) const {
  return o.handles.empty() && o.copy != CopyPhase::active && o.io_in_flight == 0 &&
         o.fetches == 0 && !o.is_persisting && o.verify != VerifyPhase::active;
}

void Core::update_evictable(Object& o) {
  if (!eviction_->contains(o.id)) return;
  // A verification is no use: the object keeps its place, and may be evicted at any time.
  const bool is_idle = o.is_verifying() ? o.handles.empty() && o.copy != CopyPhase::active &&
                                              o.fetches == 0 && !o.is_persisting
                                        : can_rest(o) && !o.is_open();
  const bool is_at_rest = is_idle && o.warms.empty() && now_ >= o.evict_after && !is_pinned(o);
  const bool is_evictable = o.may_be_opened() && (is_at_rest || NCFS_PLANT(in_use_evictable));
  eviction_->set_evictable(o.id, is_evictable);
  if (!is_evictable) {
    by_use_.erase({o.used_at, o.id});
  } else if (config_.cache_ttl > 0) {
    by_use_.emplace(o.used_at, o.id);
  }
}

void Core::notice(Notice::Kind kind, const Object& o, std::uint64_t bytes, int error,
                  std::string detail) {
  const bool is_copied = kind == Notice::Kind::copy_finished && o.copy_started_at > 0;
  host_.on_notice(
      {kind, o.path, std::move(detail), bytes, error, is_copied ? now_ - o.copy_started_at : 0});
}

void Core::hold_source(FileHandle source) {
  ++sources_[source];
}

void Core::drop_source(FileHandle source) {
  const auto entry = sources_.find(source);
  NCFS_ASSERT(entry != sources_.end());
  if (--entry->second > 0) return;
  sources_.erase(entry);
  if (NCFS_PLANT(source_left_open)) return;
  Request request = make_request(Op::source_close, config_.source_deadline);
  request.file = source;
  submit({.step = Step::close_source}, std::move(request));
}

}  // namespace ncfs
