// Shows a tree of an NFS server as a FUSE file system that caches nothing: every question goes to
// the server, as the process that asks. Files are known by their handles, so that a descriptor
// keeps its file whatever becomes of its name.
//
// The mount outlives this program, as its device is open in the one that started it: should this
// one die, the next one goes on with the same mount. Then requests under way fail with
// ECONNABORTED, and what was open with ESTALE; names lead to their files as before.
#pragma once

#include <functional>
#include <string>

#include "nfs_source/nfs_server.h"
#include "nfs_source/node_table.h"
#include "nfs_source/open_table.h"

struct fuse_lowlevel_ops;
struct fuse_session;

namespace ncfs {

class NfsTree {
 public:
  // `server` outlives this. `run` tells how many programs had the mount before.
  NfsTree(NfsServer& server, const NfsServer::Found& root, std::uint32_t run);
  ~NfsTree();
  NfsTree(const NfsTree&) = delete;
  NfsTree& operator=(const NfsTree&) = delete;

  // Empty, or what went wrong. `source` is what /proc/mounts shows. `device` is /dev/fuse; in
  // `memory`, an empty file at first, is what the kernel said at the start of the mount. Needs
  // root.
  std::string mount(const std::string& source, const std::string& place, int device, int memory);
  // Until it is unmounted.
  void serve();

 private:
  struct Operations;
  struct NameOperations;
  struct FileOperations;
  struct DirectoryOperations;
  static void add_names(fuse_lowlevel_ops& operations);
  static void add_files(fuse_lowlevel_ops& operations);
  static void add_directories(fuse_lowlevel_ops& operations);
  struct OpenFile;
  struct OpenDirectory;

  std::string greet(int memory);

  NfsServer& server_;
  const std::uint64_t filesystem_major_;
  const std::uint64_t filesystem_minor_;
  NodeTable nodes_;
  OpenTable<OpenFile> files_;
  OpenTable<OpenDirectory> directories_;
  fuse_session* session_ = nullptr;
};

}  // namespace ncfs
