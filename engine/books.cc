// What the engine says about itself: status, and the proof that its books are right.

#include <algorithm>

#include "engine/core.h"
#include "io/assert.h"

namespace ncfs {

EngineStatus Core::status() const {
  EngineStatus status = counters_;
  status.is_recovering = !is_recovered_;
  status.eviction = config_.eviction;
  status.limit_bytes = space_.limit();
  status.used_bytes = space_.used();
  status.reserved_bytes = space_.reserved();
  for (const auto& [name, debris] : debris_) {
    if (debris.is_given_up()) status.debris_bytes += debris.charge_bytes;
  }
  status.leaving_bytes = bytes_leaving();
  status.pinned_files = pins_.size();
  status.pinned_bytes = pinned_bytes_;
  status.disk_free_bytes = disk_space_.free_bytes;
  status.min_free_bytes = min_free_bytes();
  status.handles_open = handles_.size();
  status.copy_bytes_per_second = copy_bucket_.rate();
  status.copies_queued = copy_queue_.size() + delayed_copies_.size();
  status.cache_health = {health_.state(), health_.reason(),  health_.last_error(),
                         health_.since(), health_.changes(), health_.next_probe_at()};
  status.is_disk_full = disk_full_.is_active();
  status.is_source_resting = source_rest_.is_active();
  status.source_error = source_error_;
  status.next_copy_try_at =
      source_rest_.is_active() ? source_rest_.next_try_at() : disk_full_.next_try_at();
  for (const auto& [filesystem, window] : yields_) {
    status.yields.push_back({filesystem, window.limit(now_), window.copies_in_flight(),
                             window.latency_alone(), window.latency_beside()});
  }
  status.buffers_in_use = config_.buffers - static_cast<std::uint32_t>(free_buffers_.size());
  for (const auto& [id, o] : objects_) {
    if (o.state == ObjectState::cached) ++status.objects_cached;
    if (o.has_some_blocks()) {
      ++status.objects_partial;
    }
  }
  status.objects_verifying = verify_queue_.size() + verifying_.size();
  for (const auto& [token, job] : verify_jobs_) {
    VerifyStatus& verification = status.verifications.emplace_back();
    verification.token = token;
    verification.result = job.result;
    for (const ObjectId id : verifying_) {
      if (job.todo.contains(id)) verification.result.bytes_verified += objects_.at(id).verify_bytes;
    }
  }
  for (const ObjectId id : active_copies_) {
    const Object& o = objects_.at(id);
    const std::uint64_t missing = o.blocks_missing * config_.block_size_bytes;
    const std::uint64_t done =
        o.has_some_blocks() && missing < o.version.size ? o.version.size - missing : 0;
    status.copies.push_back(
        {o.path, o.version.size, done, o.copy_started_at, o.copy_bytes_at_start});
  }
  return status;
}

void Core::check_invariants() const {
  std::uint64_t used = 0;
  std::uint64_t reserved = 0;
  std::uint64_t unwritten = 0;
  std::size_t drops = 0;
  std::size_t evictable = 0;
  std::size_t on_disk = 0;
  std::uint64_t on_disk_bytes = 0;
  std::size_t versions = 0;
  std::map<FileHandle, std::uint32_t> references;
  for (const auto& [id, o] : objects_) {
    if (o.is_disowned()) {
      NCFS_ASSERT(disowned_.contains({o.file, id}));
      NCFS_ASSERT(o.is_stale && o.copy == CopyPhase::none);
      NCFS_ASSERT(o.state == ObjectState::removing || o.state == ObjectState::absent);
      NCFS_ASSERT(o.disown == DisownPhase::done || o.state == ObjectState::removing);
      NCFS_ASSERT(o.disown != DisownPhase::running || o.io_in_flight > 0);
    } else {
      ++versions;
      NCFS_ASSERT(by_version_.at({o.file, o.version}) == id);
      for (const SourceVersion& version : o.former_versions) {
        ++versions;
        NCFS_ASSERT(by_version_.at({o.file, version}) == id);
        NCFS_ASSERT(version.size == o.version.size);
      }
    }
    NCFS_ASSERT((o.charge_bytes > 0) == o.is_on_disk());
    NCFS_ASSERT(o.is_excluded == !config_.paths.admit(o.path) || o.path.empty());
    NCFS_ASSERT(!o.deferral || config_.cache_on != CacheOn::open);
    NCFS_ASSERT(!o.deferral || (!o.is_on_disk() && o.copy == CopyPhase::none));
    (o.charge_is_used ? used : reserved) += o.charge_bytes;
    NCFS_ASSERT(removing_.contains(id) == (o.state == ObjectState::removing));
    const bool can_make_room = is_recovered_ && o.is_on_disk() && o.state != ObjectState::removing;
    NCFS_ASSERT(eviction_->contains(id) == can_make_room);
    if (can_make_room) {
      ++on_disk;
      on_disk_bytes += o.charge_bytes;
    }
    if (eviction_->is_evictable(id)) {
      ++evictable;
      NCFS_ASSERT(o.handles.empty() && "S5 Pins");
      NCFS_ASSERT((o.is_verifying() || (!o.is_open() && o.io_in_flight == 0)) && "S5 Pins");
      NCFS_ASSERT(o.may_be_opened());
      NCFS_ASSERT(!is_pinned(o));
    }
    const bool is_aging = config_.cache_ttl > 0 && eviction_->is_evictable(id);
    NCFS_ASSERT(by_use_.contains({o.used_at, id}) == is_aging);
    NCFS_ASSERT(o.unwritten_bytes <= o.charge_bytes);
    unwritten += o.unwritten_bytes;
    drops += o.drops.size();
    if (o.has_some_blocks()) {
      NCFS_ASSERT(o.blocks_missing == o.written.block_count() - o.written.count());
      NCFS_ASSERT(o.unverified_count == o.unverified.count());
      NCFS_ASSERT(o.checksums.size() == (o.has_checksums ? o.written.block_count() : 0));
      for (std::size_t word = 0; word < o.durable.words().size(); ++word) {
        NCFS_ASSERT((o.durable.words()[word] & ~o.written.words()[word] &
                     ~o.unverified.words()[word]) == 0);
        NCFS_ASSERT((o.written.words()[word] & o.unverified.words()[word]) == 0);
        if (o.residency && o.residency->is_resident(word * 64)) {
          NCFS_ASSERT(o.written.test(word * 64) && "S3 Residency");
        }
      }
    }
    NCFS_ASSERT((o.copy == CopyPhase::active) == std::ranges::count(active_copies_, id));
    NCFS_ASSERT((o.copy == CopyPhase::delayed) == delayed_copies_.contains({o.copy_at, id}));
    if (o.copy == CopyPhase::queued) NCFS_ASSERT(copy_queue_.at(o.copy_place) == id);
    const bool is_in_order = o.handles.empty() || o.copy_place.rank == CopyRank::opened;
    NCFS_ASSERT((o.copy != CopyPhase::queued || is_in_order) && "S17 Order");
    NCFS_ASSERT((o.copy_place.rank == CopyRank::paced) == (o.pace != 0));
    NCFS_ASSERT(o.pace == 0 || paces_.contains(o.pace));
    NCFS_ASSERT((o.verify == VerifyPhase::queued) == std::ranges::count(verify_queue_, id));
    NCFS_ASSERT((o.verify == VerifyPhase::active) == std::ranges::count(verifying_, id));
    NCFS_ASSERT(scrub_order_.contains({o.scrub_at, id}) ==
                (o.state == ObjectState::cached && o.has_checksums));
    if (o.copy_source != FileHandle::none) ++references[o.copy_source];
    if (o.commit_source != FileHandle::none) ++references[o.commit_source];
    std::uint32_t source_readers = 0;
    for (const HandleId handle : o.handles) {
      NCFS_ASSERT(handles_.at(handle).object == id);
      if (handles_.at(handle).reads_source) ++source_readers;
    }
    NCFS_ASSERT(o.source_readers == source_readers);
    for (const auto& [block, fetch] : o.block_fetches) {
      NCFS_ASSERT(fetches_.at(fetch).object == id && fetches_.at(fetch).block == block);
    }
  }
  std::uint64_t leaving = 0;
  std::uint32_t debris_requests = 0;
  for (const auto& [name, debris] : debris_) {
    used += debris.charge_bytes;
    if (!debris.is_busy) continue;
    leaving += debris.charge_bytes;
    ++debris_requests;
  }
  NCFS_ASSERT(leaving == debris_leaving_bytes_ && debris_requests == debris_requests_);
  NCFS_ASSERT(used == space_.used());
  NCFS_ASSERT(unwritten == unwritten_bytes_);
  check_pins_and_controls(drops);
  NCFS_ASSERT(reserved + probe_charge_ == space_.reserved());
  NCFS_ASSERT(evictable == eviction_->evictable_count());
  NCFS_ASSERT(on_disk == eviction_->size() && on_disk_bytes == eviction_->total_bytes());
  eviction_->check_invariants();
  NCFS_ASSERT(by_version_.size() == versions);
  for (const auto& [file, id] : disowned_) NCFS_ASSERT(objects_.at(id).is_disowned());
  for (const auto& [token, disowning] : disownings_) {
    NCFS_ASSERT(!disowning.todo.empty() && !health_.is_down());
    for (const ObjectId id : disowning.todo) {
      NCFS_ASSERT(objects_.at(id).is_disowned() && objects_.at(id).disown != DisownPhase::done);
    }
  }
  NCFS_ASSERT(growths_.empty() || !(health_.is_down() || is_stopping_));
  NCFS_ASSERT(std::ranges::is_sorted(growths_, {}, &Growth::answer_by));
  for (const Growth& growth : growths_) NCFS_ASSERT(handles_.contains(growth.handle));
  std::map<std::uint64_t, std::size_t> paced;
  for (const auto& [number, pace] : paces_) paced[number] = 0;
  for (const auto& [id, o] : objects_) {
    if (o.pace != 0) ++paced[o.pace];
  }
  for (const auto& [number, pace] : paces_) NCFS_ASSERT(pace.objects == paced[number]);
  NCFS_ASSERT(std::ranges::count_if(objects_, [](const auto& entry) {
                return entry.second.copy == CopyPhase::queued;
              }) == static_cast<std::ptrdiff_t>(copy_queue_.size()));
  NCFS_ASSERT(opened_once_.size() <= kOpenedOnceMax);
  NCFS_ASSERT(active_copies_.size() <= config_.copies_max);
  NCFS_ASSERT(held_.empty() || health_.is_down());
  NCFS_ASSERT(probe_charge_ == 0 || is_probing_ || !health_.is_normal());
  if (health_.is_down()) {
    for (const auto& [id, h] : handles_) NCFS_ASSERT(h.is_answered);
  }

  std::size_t buffers = free_buffers_.size();
  std::uint32_t reads = 0;
  std::uint32_t writes = 0;
  std::uint32_t cache_reads = 0;
  std::size_t users = 0;
  std::map<std::uint64_t, SourceReads> reads_of;
  struct Yielding {
    std::uint32_t reads = 0;
    std::uint64_t copies_bytes = 0;
  };
  std::map<std::uint64_t, Yielding> yielding;
  std::size_t resting = 0;
  for (const auto& [id, fetch] : fetches_) {
    if (fetch.buffer) ++buffers;
    if (fetch.phase == FetchPhase::reading || fetch.phase == FetchPhase::checking) {
      ++reads;
      SourceReads& own = reads_of[objects_.at(fetch.object).file.filesystem];
      ++own.all;
      if (fetch.kind == FetchKind::demand) ++own.demand;
      if (fetch.kind == FetchKind::copy) ++own.copies;
    }
    if (fetch.phase == FetchPhase::reading) {
      Yielding& own = yielding[objects_.at(fetch.object).file.filesystem];
      if (is_for_reader(fetch)) ++own.reads;
      if (fetch.yields) own.copies_bytes += fetch.asked;
      NCFS_ASSERT(fetch.length + fetch.asked <= fetch.range.length);
    }
    if (fetch.phase == FetchPhase::resting) {
      ++resting;
      NCFS_ASSERT(fetch.kind == FetchKind::copy && fetch.length < fetch.range.length);
      NCFS_ASSERT(std::ranges::count(resting_, id) == 1);
    }
    if (fetch.phase == FetchPhase::writing) ++writes;
    if (fetch.phase == FetchPhase::reading_cache) ++cache_reads;
    users += fetch.users;
    ++references[fetch.source];
    NCFS_ASSERT((fetch.phase == FetchPhase::queued) == !fetch.buffer.has_value());
    if (idle_fetches_.contains(id)) {
      NCFS_ASSERT(fetch.phase == FetchPhase::loaded && fetch.users == 0);
      NCFS_ASSERT(!fetch.is_wanted_on_disk);
    }
  }
  for (const auto& [id, h] : handles_) ++references[h.source];
  NCFS_ASSERT(buffers == config_.buffers);
  NCFS_ASSERT(reads == source_reads_ && writes == cache_writes_ && cache_reads == cache_reads_);
  NCFS_ASSERT(reads < 2 * config_.source_reads_max && "S6 OneFetch");
  NCFS_ASSERT(reads_of == source_reads_of_);
  for (const auto& [filesystem, own] : source_reads_of_) {
    NCFS_ASSERT(own.all <= config_.source_reads_max && "S6 OneFetch");
  }
  NCFS_ASSERT(resting == resting_.size());
  for (const auto& [filesystem, window] : yields_) {
    NCFS_ASSERT(window.reads_in_flight() == yielding[filesystem].reads);
    NCFS_ASSERT(window.copies_in_flight() == yielding[filesystem].copies_bytes);
  }
  NCFS_ASSERT(writes <= config_.cache_writes_max && "S6 OneFetch");
  NCFS_ASSERT(cache_reads <= config_.cache_writes_max && "S6 OneFetch");
  NCFS_ASSERT(users == answers_.size());
  for (const auto& [token, job] : verify_jobs_) {
    const auto& [found, intact, damaged, skipped, bytes, is_cancelled] = job.result;
    NCFS_ASSERT(found.files == intact.files + damaged.files + skipped.files + job.todo.size());
    for (const ObjectId id : job.todo) {
      NCFS_ASSERT(objects_.at(id).verify == VerifyPhase::queued ||
                  objects_.at(id).verify == VerifyPhase::active);
    }
  }
  NCFS_ASSERT(references == sources_);
  check_ahead();
}

void Core::check_ahead() const {
  AheadBooks books{};
  std::size_t in_memory = 0;
  for (const auto& [id, h] : handles_) {
    NCFS_ASSERT(waiting_for_readers_.contains(id) == !h.unread.empty());
    for (const UnreadBlock& unread : h.unread) {
      books.at(static_cast<std::size_t>(unread.reason)).fetched += unread.bytes;
      if (unread.is_in_file) continue;
      ++in_memory;
      const Fetch& fetch = fetches_.at(unread.fetch);
      NCFS_ASSERT(fetch.ahead && fetch.ahead->handle == id && fetch.length == unread.bytes);
    }
  }
  std::size_t fetches = 0;
  for (const auto& [id, fetch] : fetches_) {
    if (!fetch.ahead) continue;
    ++fetches;
    NCFS_ASSERT(fetch.kind == FetchKind::prefetch);
    if (fetch.phase == FetchPhase::loaded || fetch.phase == FetchPhase::writing) --in_memory;
  }
  NCFS_ASSERT(in_memory == 0 && fetches == ahead_fetches_);
  for (std::size_t reason = 0; reason < kAheadReasonCount; ++reason) {
    const AheadCounts& counts = counters_.ahead.at(reason);
    NCFS_ASSERT(counts.fetched == counts.used + counts.wasted + books.at(reason).fetched);
  }
}

void Core::check_pins_and_controls(std::size_t drops) const {
  std::uint64_t pinned = 0;
  for (const auto& [file, pin] : pins_) {
    pinned += pin.charge_bytes;
    NCFS_ASSERT(pinned_paths_.at(pin.path) == file);
  }
  NCFS_ASSERT(pinned == pinned_bytes_);
  NCFS_ASSERT(pins_.size() == pinned_paths_.size());
  std::size_t pending = 0;
  for (const auto& [token, control] : controls_) pending += control.pending;
  NCFS_ASSERT(pending == drops + drops_.size());
}

}  // namespace ncfs
