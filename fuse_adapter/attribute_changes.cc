#include "fuse_adapter/attribute_changes.h"

#include <algorithm>
#include <functional>

#include "fuse_adapter/fuse_ops.h"

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

// The file may have changed since it was found and before the lock was had.
OwnChange::OwnChange(FuseCore& core, const FoundFile& file)
    : core_(core),
      file_(file.file.get()),
      lock_(core.changes.serialize(FileFacts::of(file.attributes).file)) {
  if (::fstat(file_, &before_) != 0) before_ = {};
}

void OwnChange::end() {
  struct stat after {};
  if (before_.st_mode == 0 || ::fstat(file_, &after) != 0) return;
  const FileFacts facts = FileFacts::of(after);
  core_.own_change(FileFacts::of(before_), facts, core_.path_of(facts.file));
}

}  // namespace ncfs
