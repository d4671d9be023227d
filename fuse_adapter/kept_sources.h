// Files of the source that were opened a while ago, for opens that do not ask the backend (nocto).
//
// A descriptor of each is held, which is as good as another open of the same file by somebody whom
// the backend let in. They are few, as each is an open file at the server, and what was used least
// recently is closed. Any thread; closing may wait for the source.
#pragma once

#include <cstddef>
#include <mutex>
#include <optional>

#include "engine/lru_map.h"
#include "fuse_adapter/inode_table.h"
#include "io/descriptor.h"
#include "io/io.h"

namespace ncfs {

class KeptSources {
 public:
  // Far below the descriptors a process may have (20 000 where limits are tight), and enough for
  // programs that open the same modules and headers again and again.
  static constexpr std::size_t kFilesMax = 1024;

  explicit KeptSources(std::size_t files_max = kFilesMax);

  // Duplicates `source`, which was opened for reading and looked at.
  void keep(const FileKey& file, int source, const SourceState& state);
  struct Kept {
    Descriptor source;  // a duplicate
    SourceState state;
  };
  // Nothing if the file is not kept in that version.
  [[nodiscard]] std::optional<Kept> find(const FileKey& file, const SourceVersion& version);
  // Before a name of the file is removed: an NFS client renames what is open instead.
  void drop(const FileKey& file);
  void clear();

 private:
  std::mutex mutex_;
  LruMap<FileKey, Kept> files_;  // guarded by mutex_
};

}  // namespace ncfs
