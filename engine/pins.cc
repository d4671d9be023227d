// Files that are kept whatever happens: neither space nor age evicts them.
//
// A pin belongs to a file: to its file id, and to its path when that comes to name another file, as
// it does when a new version is moved over an old one. Each new version is kept like the one
// before. The sidecar of a copy records whether its file is pinned; that of a complete object is
// read, changed and replaced by the same steps as a checkpoint's. A pin whose file has no copy at
// all is known to this run only.

#include <utility>

#include "engine/core.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// The disk did not take it: asked again this much later.
constexpr Nanos kRecordRetry = 10 * kSecond;

}  // namespace

// False if the file does not fit beside the other pinned ones: nothing is pinned then.
bool Core::pin(const Object& o) {
  const std::uint64_t charge = object_charge(o.version.size, config_.block_size_bytes);
  const auto entry = pins_.find(o.file);
  const std::uint64_t others =
      pinned_bytes_ - (entry == pins_.end() ? 0 : entry->second.charge_bytes);
  if (others + charge > space_.limit()) return false;
  // Another file that was pinned under this path has lost it.
  if (const auto path = pinned_paths_.find(o.path);
      path != pinned_paths_.end() && path->second != o.file) {
    unpin(path->second);
  }
  Pin& pin = pins_[o.file];
  if (pin.path != o.path) pinned_paths_.erase(pin.path);
  pinned_bytes_ += charge - pin.charge_bytes;
  pin = {o.path, charge};
  pinned_paths_[o.path] = o.file;
  settle_versions(o.file);
  return true;
}

void Core::unpin(FileId file) {
  const auto entry = pins_.find(file);
  NCFS_ASSERT(entry != pins_.end());
  pinned_bytes_ -= entry->second.charge_bytes;
  pinned_paths_.erase(entry->second.path);
  pins_.erase(entry);
  settle_versions(file);
}

// `o` was looked at under its path: it may be a new version of a pinned file.
void Core::follow_pin(const Object& o) {
  const auto by_path = pinned_paths_.find(o.path);
  const auto by_file = pins_.find(o.file);
  if (by_file == pins_.end() && by_path == pinned_paths_.end()) return;
  const std::uint64_t charge = object_charge(o.version.size, config_.block_size_bytes);
  if (by_file != pins_.end() && by_file->second.path == o.path &&
      by_file->second.charge_bytes == charge) {
    return;
  }
  if (by_path != pinned_paths_.end() && by_path->second != o.file) unpin(by_path->second);
  if (!pin(o)) {
    if (pins_.contains(o.file)) unpin(o.file);
    notice(Notice::Kind::pin_dropped, o, o.version.size);
  }
  reconsider_copies();
}

// What is on the disk is on the disk, whatever the limit says.
void Core::recover_pin(const Object& o) {
  const auto path = pinned_paths_.find(o.path);
  if (path != pinned_paths_.end() && path->second != o.file) return;  // looked at in this run
  const auto [entry, is_new] = pins_.try_emplace(o.file, Pin{o.path, 0});
  if (is_new) pinned_paths_[o.path] = o.file;
  Pin& pin = entry->second;
  if (o.charge_bytes <= pin.charge_bytes) return;
  pinned_bytes_ += o.charge_bytes - pin.charge_bytes;
  pin.charge_bytes = o.charge_bytes;
}

void Core::settle_versions(FileId file) {
  for (const ObjectId id : objects_of(file)) {
    const auto entry = objects_.find(id);
    if (entry != objects_.end() && entry->second.is_on_disk()) settle(entry->second);
  }
}

// --- Recording -------------------------------------------------------------------------------

void Core::record_pin(Object& o) {
  NCFS_ASSERT(o.state == ObjectState::cached && !o.is_persisting);
  o.is_persisting = true;
  ++o.io_in_flight;
  Request request = cache_request(Op::cache_load);
  request.name = name_of(o, NameKind::sidecar);
  submit({.step = Step::pin_load, .object = o.id}, std::move(request));
}

void Core::on_record_pin_step(Object& o, Step step, const Completion& completion) {
  --o.io_in_flight;
  if (o.state != ObjectState::cached) return finish_persist(o);  // being removed
  if (completion.result < 0) {
    const int error = static_cast<int>(-completion.result);
    ++counters_.cache_errors;
    notice(Notice::Kind::cache_error, o, 0, error, "replacing a sidecar");
    end_persist(o);
    o.record_pin_at = now_ + kRecordRetry;
    answer_warms(o, {WarmResult::Kind::failed, {}, error});
    return settle(o);
  }
  Request request = cache_request(Op::cache_sync_directory);
  request.name = shard_name(shard_of(o.file));
  Step next = Step::pin_sync_directory;
  switch (step) {
    case Step::pin_load: {
      std::optional<Sidecar> sidecar = decode(completion.bytes);
      if (!sidecar) {
        end_persist(o);
        return on_cache_error(o, kInputOutputError, "reading a sidecar");
      }
      sidecar->is_pinned = o.persisting_pin = is_pinned(o);
      sidecar->version = o.version;
      sidecar->path = o.path;
      o.rekeys_persisting = o.rekeys;
      next = Step::pin_store;
      request = cache_request(Op::cache_store);
      request.name = name_of(o, NameKind::sidecar_temp);
      request.bytes = encode(*sidecar);
      break;
    }
    case Step::pin_store:
      next = Step::pin_rename;
      request = cache_request(Op::cache_rename);
      request.name = name_of(o, NameKind::sidecar_temp);
      request.new_name = name_of(o, NameKind::sidecar);
      break;
    case Step::pin_rename:
      break;
    default:
      o.is_pin_recorded = o.persisting_pin;
      o.rekeys_recorded = o.rekeys_persisting;
      end_persist(o);
      return settle(o);
  }
  ++o.io_in_flight;
  submit({.step = next, .object = o.id}, std::move(request));
}

}  // namespace ncfs
