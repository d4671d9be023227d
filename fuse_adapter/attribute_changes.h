// Our own changes of attributes, links and names of source files: what the caches know of a file
// goes on to stand for what it has become. Any thread.
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

#include "fuse_adapter/inode_table.h"
#include "fuse_adapter/source_tree.h"

namespace ncfs {

class FuseCore;

// One change of a file at a time, so that what a change finds before and after itself tells what it
// did. Files share locks; the source is asked while one is held.
class ChangeLocks {
 public:
  using Lock = std::unique_lock<std::mutex>;
  [[nodiscard]] Lock serialize(const FileKey& file);
  // Of two files, which may be the same.
  [[nodiscard]] std::pair<Lock, Lock> serialize(const FileKey& first, const FileKey& second);

 private:
  // Many times the threads that change files, so that these rarely wait for each other.
  static constexpr std::size_t kLocks = 256;

  [[nodiscard]] std::size_t index_of(const FileKey& file) const;
  std::array<std::mutex, kLocks> mutexes_;
};

// One change through a descriptor, from construction to end().
class OwnChange {
 public:
  // `file` was found and outlives this.
  OwnChange(FuseCore& core, const FoundFile& file);
  // What has changed is noted, unless somebody else changed the content meanwhile.
  void end();

 private:
  FuseCore& core_;
  const int file_;
  const ChangeLocks::Lock lock_;
  struct stat before_ = {};
};

}  // namespace ncfs
