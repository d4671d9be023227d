// Files that are kept whatever happens: neither space nor age evicts them.
//
// A pin belongs to a file: to its file id, and to its path when that comes to name another file, as
// it does when a new version is moved over an old one. Each new version is kept like the one
// before. The sidecar of a copy records whether its file is pinned; that of a complete object is
// replaced (record.cc). A pin whose file has no copy at all is known to this run only.

#include <utility>

#include "engine/core.h"
#include "io/assert.h"

namespace ncfs {

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

}  // namespace ncfs
