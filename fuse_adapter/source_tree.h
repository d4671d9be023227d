// Finding files of the source. No descriptor is kept for a file that nobody has open: a tree has
// more files than a process may have descriptors.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <string>

#include "fuse_adapter/adapter_stats.h"
#include "fuse_adapter/caller_credentials.h"
#include "fuse_adapter/inode_table.h"
#include "io/descriptor.h"

namespace ncfs {

// A file found in the source, as an O_PATH descriptor.
struct FoundFile {
  int error = 0;
  Descriptor file;
  struct stat attributes = {};
  bool as_caller = false;  // the daemon was refused, the caller was not
};

// stat(2) by statx(2): `flags` are AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW and AT_STATX_*. An errno.
[[nodiscard]] int stat_at(int directory, const char* name, int flags, struct stat& attributes);

class SourceTree {
 public:
  // `root` stays the caller's; the others outlive this.
  SourceTree(int root, CallerGroups& groups, AdapterStats& stats)
      : root_(root), groups_(groups), stats_(stats) {}

  // Walks as the daemon, and where that is refused as the caller. Never leaves the root and never
  // follows a symbolic link. ESTALE if there is nothing: the names have led to a file before, and
  // ESTALE makes the kernel look them up again. `sync` is one of AT_STATX_*: with DONT_SYNC the
  // attributes may be older than the question.
  [[nodiscard]] FoundFile find_whatever_is_at(const std::string& path, const Caller& caller,
                                              int sync = AT_STATX_SYNC_AS_STAT) const;
  // ESTALE also if it is another file than the location tells, which then is in `file`.
  [[nodiscard]] FoundFile find(const InodeTable::Location& location, const Caller& caller,
                               int sync = AT_STATX_SYNC_AS_STAT) const;

  // Opens the file behind a descriptor of any kind, as the caller. `error` is 0 or an errno.
  [[nodiscard]] Descriptor reopen(int descriptor, int flags, const Caller& caller,
                                  int& error) const;
  // The same, for reading, for a caller who may execute the file but not read it: what the kernel
  // runs it reads with rights of its own.
  [[nodiscard]] Descriptor reopen_to_execute(int descriptor, const Caller& caller,
                                             int& error) const;

  [[nodiscard]] int root() const { return root_; }
  [[nodiscard]] CallerGroups& groups() const { return groups_; }

 private:
  const int root_;
  CallerGroups& groups_;
  AdapterStats& stats_;
};

}  // namespace ncfs
