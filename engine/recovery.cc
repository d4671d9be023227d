// The cache directory at start: what is there is found again, debris of a crash is removed.
//
// Reads are served from the first moment. An open waits (at most open_patience) for the one shard
// its file would be in. Nothing new is stored before every shard is known, as the space that is
// taken is not known either. A shard that cannot be listed is tried again at every tick. Nothing
// waits for debris: it is charged until it is gone (debris.cc).

#include <utility>

#include "engine/core.h"
#include "engine/marks.h"
#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// Enough to keep a disk busy, few enough to leave it responsive for readers.
constexpr std::uint32_t kRecoveryRequestsMax = 32;

const CacheEntry* find_kind(const std::vector<CacheEntry>& entries, NameKind kind) {
  for (const CacheEntry& entry : entries) {
    if (entry.name.ends_with(suffix(kind))) return &entry;
  }
  return nullptr;
}

// Worth reading: a sidecar, of a size that one of this data can have, and nothing that is no file.
// What is not cannot be as we left it, and its sidecar could take any amount of memory.
bool is_plausible(const std::vector<CacheEntry>& entries) {
  const CacheEntry* sidecar = find_kind(entries, NameKind::sidecar);
  if (sidecar == nullptr) return false;
  std::uint64_t data_bytes = 0;
  for (const CacheEntry& entry : entries) {
    if (entry.kind != EntryKind::file) return false;
    if (&entry != sidecar) data_bytes = std::max(data_bytes, entry.size_bytes);
  }
  return sidecar->size_bytes <= sidecar_bytes_max(data_bytes);
}

}  // namespace

void Core::pump_recovery() {
  if (health_.is_down()) return;
  while (recovery_requests_ + debris_requests_ < kRecoveryRequestsMax) {
    Request request;
    Pending pending;
    const bool is_list_awaited =
        !shards_to_list_.empty() && !shards_[shards_to_list_.front()].waiting_opens.empty();
    if (!sidecars_to_load_.empty() && !is_list_awaited) {
      std::tie(pending.shard, pending.stem) = std::move(sidecars_to_load_.front());
      sidecars_to_load_.pop_front();
      pending.step = Step::recover_load;
      request = cache_request(Op::cache_load);
      request.name = shard_name(pending.shard) + '/' + pending.stem;
      request.name += suffix(NameKind::sidecar);
    } else if (!shards_to_list_.empty()) {
      pending.shard = shards_to_list_.front();
      shards_to_list_.pop_front();
      Shard& shard = shards_[pending.shard];
      if (shard.phase != ShardPhase::unlisted) continue;  // was moved to the front of the queue
      shard.phase = ShardPhase::listing;
      pending.step = Step::recover_list;
      request = cache_request(Op::cache_list);
      request.name = shard_name(pending.shard);
      ++shard.requests;
    } else {
      return;
    }
    ++recovery_requests_;
    submit(std::move(pending), std::move(request));
  }
}

// An open waits for the shard: it comes before all others.
void Core::hurry_shard(std::uint32_t id) {
  if (shards_[id].phase == ShardPhase::unlisted) {
    shards_to_list_.push_front(id);
  } else {
    std::stable_partition(sidecars_to_load_.begin(), sidecars_to_load_.end(),
                          [id](const auto& sidecar) { return sidecar.first == id; });
  }
  pump_recovery();
}

void Core::on_shard_listed(std::uint32_t id, Completion& completion) {
  Shard& shard = shards_[id];
  shard.phase = ShardPhase::loading;
  if (completion.result < 0) {
    ++counters_.cache_errors;
    host_.on_notice({Notice::Kind::cache_error, shard_name(id), "listing the cache directory", 0,
                     static_cast<int>(-completion.result)});
    shard.must_rescan = true;
  }
  for (CacheEntry& entry : completion.entries) {
    const std::optional<ObjectName> name = parse_object_name(entry.name);
    if (id == 0 && entry.name == kProbeName) {
      remove_debris(id, {}, {entry}, nullptr);
    } else if (!name) {
      host_.on_notice({Notice::Kind::name_ignored, shard_name(id) + '/' + entry.name, {}, 0, 0});
    } else if (debris_.contains(shard_name(id) + '/' + entry.name)) {
      continue;
    } else if (!recovered_stems_.contains(name->stem)) {
      shard.stems[name->stem].push_back(std::move(entry));
    }
  }
  for (auto stem = shard.stems.begin(); stem != shard.stems.end();) {
    if (is_plausible(stem->second)) {
      ++shard.requests;
      if (shard.waiting_opens.empty()) {
        sidecars_to_load_.emplace_back(id, stem->first);
      } else {
        sidecars_to_load_.emplace_front(id, stem->first);
      }
      ++stem;
    } else {
      const bool has_sidecar = find_kind(stem->second, NameKind::sidecar) != nullptr;
      remove_debris(id, stem->first, stem->second, has_sidecar ? "damaged" : "unfinished");
      stem = shard.stems.erase(stem);
    }
  }
  settle_shard(id);
}

void Core::on_sidecar_loaded(std::uint32_t id, const std::string& stem, Completion& completion) {
  Shard& shard = shards_[id];
  const std::vector<CacheEntry> entries = std::move(shard.stems.at(stem));
  shard.stems.erase(stem);
  if (completion.result == -kTimedOut) {
    shard.must_rescan = true;
  } else if (completion.result < 0) {
    remove_debris(id, stem, entries, "unreadable");
  } else {
    recover_object(id, stem, entries, decode(completion.bytes));
  }
  settle_shard(id);
}

void Core::recover_object(std::uint32_t id, const std::string& stem,
                          const std::vector<CacheEntry>& entries, std::optional<Sidecar> sidecar) {
  const std::string name = shard_name(id) + '/' + stem;
  if (!sidecar || !is_stem_of(name, *sidecar)) {
    NCFS_MARK(sidecar_damaged);
    return remove_debris(id, stem, entries, "damaged");
  }
  const CacheEntry* data = find_kind(entries, NameKind::data);
  const bool is_complete = data != nullptr;
  if (!is_complete) data = find_kind(entries, NameKind::partial);
  if (data == nullptr || data->size_bytes != sidecar->version.size ||
      (is_complete && !sidecar->durable.is_full()) ||
      sidecar->version.size / config_.block_size_bytes >= kBlockCountMax) {
    return remove_debris(id, stem, entries, "damaged");
  }
  const bool has_checksums = !sidecar->checksums.empty();
  const bool is_same_unit = sidecar->block_size_bytes == config_.block_size_bytes;
  if (config_.checksum == Checksum::read && !(has_checksums && is_same_unit)) {
    return remove_debris(id, stem, entries, "without checksums of blocks of this size");
  }
  Object& o = object_for(sidecar->file, sidecar->version);
  if (o.is_on_disk()) return remove_debris(id, stem, entries, "superseded");
  for (const CacheEntry& entry : entries) {
    if (entry.name.ends_with(suffix(NameKind::sidecar_temp))) {
      remove_leftover(id, entry);
    } else if (is_complete && entry.name.ends_with(suffix(NameKind::partial))) {
      remove_debris(id, stem, {entry}, nullptr);
    }
  }

  // Re-keyed before its sidecar was found.
  if (o.version != sidecar->version) ++o.rekeys;
  recovered_stems_.insert(stem);
  o.stem = name;
  o.serial = sidecar->serial;
  if (o.path.empty()) name_path(o, sidecar->path);
  o.deferral.reset();
  // Its sidecar may be longer than one of this run.
  o.charge_bytes = std::max(object_charge(o.version.size, config_.block_size_bytes),
                            object_charge(o.version.size, sidecar->block_size_bytes));
  o.charge_is_used = is_complete;
  o.trusted_at = 0;
  o.is_pin_recorded = sidecar->is_pinned;
  if (o.handles.empty() && o.warms.empty()) {
    note_use(o, static_cast<std::int64_t>(now_) - std::max<std::int64_t>(data->age_ns, 0));
  }
  if (is_complete) {
    space_.found_used(o.charge_bytes);
    o.has_checksums = has_checksums;
    // What has never been verified since it was stored is as old as its sidecar.
    const auto age = std::max<std::int64_t>(0, find_kind(entries, NameKind::sidecar)->age_ns);
    o.scrub_at =
        now_ + config_.scrub_interval - std::min(config_.scrub_interval, static_cast<Nanos>(age));
    set_state(o, ObjectState::cached);
  } else {
    space_.found_reserved(o.charge_bytes);
    o.durable = with_block_size(sidecar->durable, o.version.size, sidecar->block_size_bytes,
                                config_.block_size_bytes);
    if (NCFS_PLANT(partial_recovered_as_whole)) o.durable.set_all();
    o.unverified = BlockSet(o.durable.block_count());
    o.checksum_block_bytes = config_.block_size_bytes;
    o.needs_sidecar = !is_same_unit;
    if (o.needs_sidecar) NCFS_MARK(block_size_changed);
    // Blocks of another size cannot be compared: such an object goes on without checksums.
    o.has_checksums = has_checksums && is_same_unit && config_.checksum != Checksum::off;
    if (o.has_checksums) {
      o.checksums = std::move(sidecar->checksums);
      o.unverified = o.durable;
      o.unverified_count = o.unverified.count();
      o.written = BlockSet(o.durable.block_count());
    } else {
      o.written = o.durable;
    }
    o.blocks_missing = o.written.block_count() - o.written.count();
    set_state(o, ObjectState::partial);
  }
  if (sidecar->is_pinned && !was_unpinned(o)) recover_pin(o);
  // A version that was looked at in this run is newer than what is found beside it. Of two pinned
  // versions, which both would stay for ever, the later one is believed to be current.
  for (const ObjectId other : objects_of(o.file)) {
    if (other == o.id) continue;
    Object& beside = object(other);
    if (beside.is_looked_at) {
      o.is_stale = !o.is_looked_at;
      expect_rekey(o, beside.version);
    } else if (pins_.contains(o.file)) {
      const bool is_older = o.version.ctime_ns < beside.version.ctime_ns;
      (is_older && !o.is_looked_at ? o : beside).is_stale = true;
    }
  }
  recovered_by_age_.emplace_back(data->mtime_ns, o.id);
}

// `why` is null for a leftover beside a good object, which is not worth a word.
void Core::remove_debris(std::uint32_t id, const std::string& stem,
                         const std::vector<CacheEntry>& entries, const char* why) {
  std::uint64_t bytes = 0;
  bool is_any_removed = false;
  for (const CacheEntry& entry : entries) {
    if (entry.kind == EntryKind::directory) {
      host_.on_notice({Notice::Kind::name_ignored, shard_name(id) + '/' + entry.name, {}, 0, 0});
      continue;
    }
    NCFS_MARK(debris_removed);
    is_any_removed = true;
    bytes += entry.allocated_bytes;
    add_debris(shard_name(id) + '/' + entry.name, entry);
  }
  if (why == nullptr || !is_any_removed) return;
  host_.on_notice({Notice::Kind::object_removed, shard_name(id) + '/' + stem, why, bytes, 0});
}

// The object uses the name again: its shard waits. If it stays, the object's charge covers it.
void Core::remove_leftover(std::uint32_t id, const CacheEntry& entry) {
  NCFS_MARK(debris_removed);
  ++shards_[id].requests;
  ++recovery_requests_;
  Request request = cache_request(Op::cache_unlink);
  request.name = shard_name(id) + '/' + entry.name;
  submit({.step = Step::recover_unlink, .shard = id}, std::move(request));
}

// One request of the shard has come back.
void Core::settle_shard(std::uint32_t id) {
  Shard& shard = shards_[id];
  --recovery_requests_;
  --shard.requests;
  pump_recovery();
  if (shard.requests > 0) return;
  shard.phase = shard.must_rescan ? ShardPhase::unlisted : ShardPhase::recovered;
  if (shard.must_rescan) {
    NCFS_MARK(shard_scanned_again);
    shards_to_rescan_.push_back(id);
    shard.must_rescan = false;
  } else {
    ++shards_recovered_;
    rekey_recovered(shard);
  }
  for (const HandleId handle : std::exchange(shard.waiting_opens, {})) {
    continue_open(handles_.at(handle));
  }
  if (shards_recovered_ == kShardCount) finish_recovery();
}

void Core::finish_recovery() {
  is_recovered_ = true;
  recovered_stems_.clear();
  unpinned_paths_.clear();
  // What was used meanwhile is newer than any age on the disk.
  const auto recovered = std::exchange(recovered_by_age_, {});
  std::set<std::pair<std::int64_t, ObjectId>> by_age;
  for (const auto& [age, id] : recovered) {
    const auto entry = objects_.find(id);
    if (entry == objects_.end()) continue;
    const bool was_used = !entry->second.handles.empty() || entry->second.touched_at != 0;
    by_age.emplace(was_used ? INT64_MAX : age, id);
  }
  for (const auto& [age, id] : by_age) {
    const Object& o = object(id);
    if (!o.is_on_disk() || o.state == ObjectState::removing || eviction_->contains(id)) continue;
    eviction_->add(id, eviction_key(o.file, o.version), o.charge_bytes, Arrival::recovered);
  }
  for (const auto& [age, id] : by_age) {
    const auto entry = objects_.find(id);
    if (entry == objects_.end()) continue;
    Object& o = entry->second;
    if (o.state == ObjectState::partial && refusal(o)) o.is_stale = true;
    if (o.state == ObjectState::partial) want_copy(o);
    settle(o);
  }
  evict_to_limit();
  schedule_copies();
  for (auto& [token, job] : verify_jobs_) start_job(job);
}

}  // namespace ncfs
