// Our own mount has changed attributes of a file, or its name: the object goes on under the version
// the file has now.
//
// Invariants:
//   an object is known under its version and those it had before, all of which have its bytes;
//   its sidecar names one of them, and the name it was created under is never changed;
//   nothing is re-keyed that somebody else's write could hide behind (is_own_change()).
//
// The event comes after the change. Whoever looks at the source in between, an open or the question
// before a commit, sees a version that nobody has explained yet. What differs by nothing but its
// ctime is therefore kept, unused, for a moment; when the event comes it is taken up again, and the
// object that the open has brought into being is merged into it.

#include <algorithm>
#include <utility>

#include "engine/core.h"
#include "engine/marks.h"
#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// A look at the source is late by no more than what one program changes in a row: owner, mode,
// access control list, name.
constexpr std::size_t kFormerVersionsMax = 4;

// Waiting for their shard; chmod -R in the second after a start. A few hundred bytes each.
constexpr std::size_t kEarlyRekeysMax = 4096;

bool differs_by_ctime_alone(const SourceVersion& one, const SourceVersion& other) {
  return one.size == other.size && (one.mtime_ns == other.mtime_ns || NCFS_PLANT(mtime_ignored)) &&
         one.ctime_ns != other.ctime_ns;
}

}  // namespace

// See RekeyEvent.
bool Core::is_own_change(const RekeyEvent& event) const {
  const SourceVersion& before = event.before.version;
  const SourceVersion& after = event.after.version;
  if (event.before.file != event.after.file) return false;
  if (before == after) return true;
  if (!differs_by_ctime_alone(before, after)) return false;
  const auto window = static_cast<std::int64_t>(config_.racy_window);
  const std::int64_t newest = std::max(before.mtime_ns, before.ctime_ns);
  const std::int64_t mtime_age = event.before.age_ns + (newest - before.mtime_ns);
  return mtime_age >= window && after.ctime_ns - before.mtime_ns >= window;
}

void Core::on(RekeyEvent&& event) {
  if (!is_own_change(event)) {
    NCFS_MARK(rekey_refused);
    return;
  }
  Shard& shard = shards_[shard_of(event.before.file)];
  const auto known = by_version_.find({event.before.file, event.before.version});
  if (known != by_version_.end()) {
    rekey(object(known->second), event.after.version, event.path);
  } else if (shard.phase != ShardPhase::recovered && shard.rekeys.size() < kEarlyRekeysMax) {
    NCFS_MARK(rekey_before_recovery);
    shard.rekeys.push_back(std::move(event));
  }
}

// Its objects are known now.
void Core::rekey_recovered(Shard& shard) {
  for (const RekeyEvent& event : std::exchange(shard.rekeys, {})) {
    const auto known = by_version_.find({event.before.file, event.before.version});
    if (known != by_version_.end()) rekey(object(known->second), event.after.version, event.path);
  }
}

// `o` may be gone when this returns.
void Core::rekey(Object& o, const SourceVersion& version, const std::string& path) {
  const auto known = by_version_.find({o.file, version});
  if (known != by_version_.end() && known->second != o.id) {
    Object& other = object(known->second);
    if (!may_merge(other)) return;
    NCFS_MARK(rekey_merges);
    merge(o, other);
  }
  add_version(o, version);
  // What the merged one was told is newer.
  if (!path.empty() && version == o.version) set_path(o, path);
  if (o.is_stale && o.changed_to == o.version) {
    NCFS_MARK(rekey_takes_up_again);
    o.is_stale = false;
    o.retire_at = 0;
  }
  if (o.takes_blocks() || !o.handles.empty()) want_copy(o);
  settle(o);
}

// The object has the bytes of this version, too; the newest one is its own.
void Core::add_version(Object& o, const SourceVersion& version) {
  if (!by_version_.try_emplace({o.file, version}, o.id).second) return;
  if (version.ctime_ns > o.version.ctime_ns) {
    o.former_versions.push_back(std::exchange(o.version, version));
    ++o.rekeys;
    if (eviction_->contains(o.id)) eviction_->set_key(o.id, eviction_key(o.file, o.version));
  } else {
    o.former_versions.push_back(version);
  }
  if (o.former_versions.size() > kFormerVersionsMax) {
    by_version_.erase({o.file, o.former_versions.front()});
    o.former_versions.erase(o.former_versions.begin());
  }
}

void Core::set_path(Object& o, const std::string& path) {
  if (path == o.path) return;
  name_path(o, path);
  ++o.rekeys;
  follow_pin(o);
}

// Nothing of it is on the disk, or on its way there.
bool Core::may_merge(const Object& o) const {
  return o.state == ObjectState::absent && o.io_in_flight == 0 && !o.is_opening_source &&
         o.verify == VerifyPhase::none;
}

// Whoever has opened or warmed `from` has `to` from now on; `from` is gone when this returns.
void Core::merge(Object& to, Object& from) {
  leave_copy(from);
  for (const FetchId id : idle_fetches_of(from)) retire(id);
  for (auto& [id, fetch] : fetches_) {
    if (fetch.object != from.id) continue;
    fetch.object = to.id;
    ++to.fetches;
    if (fetch.kind == FetchKind::copy) ++to.copy_fetches;
    const auto shared =
        fetch.block ? from.block_fetches.find(*fetch.block) : from.block_fetches.end();
    // Where both are fetching a block, one of them serves those who have it.
    if (shared != from.block_fetches.end() && shared->second == id) {
      to.block_fetches.emplace(*fetch.block, id);
    }
  }
  for (const HandleId id : from.handles) handles_.at(id).object = to.id;
  to.handles.merge(from.handles);
  to.source_readers += from.source_readers;
  to.warms.insert(to.warms.end(), from.warms.begin(), from.warms.end());
  to.is_looked_at = to.is_looked_at || from.is_looked_at;
  if (!from.deferral) to.deferral.reset();
  if (from.pace != 0 && to.copy_place.rank > CopyRank::paced) {
    raise_rank(to, CopyRank::paced);
    set_pace(to, {from.pace, paces_.at(from.pace).bucket.rate()});
  }
  raise_rank(to, from.copy_place.rank);
  set_pace(from, {});
  forget_versions(from);
  for (const SourceVersion& version : from.former_versions) add_version(to, version);
  add_version(to, from.version);
  if (!from.path.empty()) set_path(to, from.path);
  attention_.erase(from.id);
  const ObjectId gone = from.id;
  objects_.erase(gone);
}

// No look at the source finds the object any more.
void Core::forget_versions(const Object& o) {
  by_version_.erase({o.file, o.version});
  for (const SourceVersion& version : o.former_versions) by_version_.erase({o.file, version});
}

// `o` is stale. If what was seen may be our own change, it is kept until we would have been told:
// no copy of the new version starts before that, as its ctime is within the racy window.
void Core::expect_rekey(Object& o, std::optional<SourceVersion> seen) {
  const bool may_be_own = seen && differs_by_ctime_alone(*seen, o.version);
  if (may_be_own && o.changed_to == *seen) return;  // waits already, or has waited
  o.changed_to = may_be_own ? *seen : SourceVersion();
  o.retire_at = may_be_own ? now_ + config_.racy_window : 0;
}

// Whether the object's bytes are those of this version.
bool Core::has_version(const Object& o, const SourceVersion& version) const {
  const auto entry = by_version_.find({o.file, version});
  return entry != by_version_.end() && entry->second == o.id;
}

std::vector<ObjectId> Core::objects_of(const FileId& file) const {
  std::vector<ObjectId> ids;
  for (auto entry = by_version_.lower_bound({file, SourceVersion{0, INT64_MIN, INT64_MIN}});
       entry != by_version_.end() && entry->first.first == file; ++entry) {
    if (std::ranges::find(ids, entry->second) == ids.end()) ids.push_back(entry->second);
  }
  return ids;
}

}  // namespace ncfs
