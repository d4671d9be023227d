#include "fuse_adapter/attribute_changes.h"

#include <fcntl.h>

#include <algorithm>
#include <functional>

#include "fuse_adapter/fuse_ops.h"
#include "io/wall_clock.h"

namespace ncfs {

std::size_t ChangeLocks::index_of(const FileKey& file) const {
  return std::hash<std::uint64_t>()(file.inode ^ (file.device << 32U)) % mutexes_.size();
}

ChangeLocks::Lock ChangeLocks::serialize(const FileKey& file) {
  return Lock(mutexes_[index_of(file)]);
}

std::pair<ChangeLocks::Lock, ChangeLocks::Lock> ChangeLocks::serialize(const FileKey& first,
                                                                       const FileKey& second) {
  const auto [low, high] = std::minmax({index_of(first), index_of(second)});
  Lock outer(mutexes_[low]);
  if (low == high) return {std::move(outer), Lock()};
  return {std::move(outer), Lock(mutexes_[high])};
}

std::optional<SeenFile> see(int file) {
  const std::int64_t now = wall_now();
  struct stat attributes {};
  const int error = stat_at(file, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, attributes);
  if (error != 0) return std::nullopt;
  return SeenFile{FileFacts::of(attributes), now};
}

std::optional<SeenFile> see_child(const FuseCore& core, int directory, const std::string& name,
                                  const Caller& caller) {
  const std::int64_t now = wall_now();
  struct stat attributes {};
  const int error =
      stat_child(core, directory, name.c_str(), caller, attributes, AT_STATX_FORCE_SYNC);
  if (error != 0) return std::nullopt;
  return SeenFile{FileFacts::of(attributes), now};
}

// The file may have changed since it was found and before the lock was had.
OwnChange::OwnChange(FuseCore& core, const FoundFile& file)
    : core_(core),
      file_(file.file.get()),
      lock_(core.changes.serialize(FileFacts::of(file.attributes).file)),
      before_(see(file_)) {}

void OwnChange::end() {
  const auto after = see(file_);
  if (!before_ || !after) return;
  core_.own_change(*before_, after->facts, core_.path_of(after->facts.file), file_);
}

}  // namespace ncfs
