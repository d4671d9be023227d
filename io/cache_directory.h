// The cache directory as a whole: who may use it, what makes it ours, how much room there is.
//
//   LOCK      flock()ed while a daemon uses the directory; holds its process id
//   FORMAT    "nfs-cachefs 1\n"; written last when the directory is made ours
//   UUID      random, made once
//   WARM      what warm-ups there are; fuse_adapter/warm_store.h
//   objects/  256 directories "00" to "ff": the tree behind the cache operations of io.h
//
// A directory with anything else in it and no FORMAT is somebody's files: it is refused and left
// untouched. One whose making was interrupted (our LOCK, no FORMAT) is completed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/descriptor.h"
#include "io/io.h"

namespace ncfs {

struct CacheDirectory {
  Descriptor root;
  Descriptor objects;
  Descriptor lock;  // closing it lets the next daemon in
  std::string uuid;
};

struct CacheDirectoryResult {
  std::optional<CacheDirectory> directory;
  std::string error;  // one line for the operator; set if there is no directory
};

// Creates the last component of `path` if it is missing. To be called by the process that will
// serve: a lock is shared with children, but the process id written to it is the caller's.
[[nodiscard]] CacheDirectoryResult open_cache_directory(const std::string& path);

// Of the file system that holds `fd`; nothing if it does not tell.
[[nodiscard]] std::optional<FileSystemSpace> file_system_space(int fd);

}  // namespace ncfs
