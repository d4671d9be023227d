// Shows a tree of an NFS server as a FUSE file system that caches nothing: every question goes to
// the server, as the process that asks. Files are known by their handles, so that a descriptor
// keeps its file whatever becomes of its name.
#pragma once

#include <functional>
#include <string>

#include "nfs_source/nfs_server.h"
#include "nfs_source/node_table.h"

struct fuse_session;

namespace ncfs {

class NfsTree {
 public:
  // `server` outlives this.
  NfsTree(NfsServer& server, const NfsServer::Found& root);
  ~NfsTree();
  NfsTree(const NfsTree&) = delete;
  NfsTree& operator=(const NfsTree&) = delete;

  // Empty, or what went wrong. `source` is what /proc/mounts shows. Needs root.
  std::string mount(const std::string& source, const std::string& place);
  // Until it is unmounted.
  void serve();

 private:
  struct Operations;

  NfsServer& server_;
  const std::uint64_t filesystem_major_;
  const std::uint64_t filesystem_minor_;
  NodeTable nodes_;
  fuse_session* session_ = nullptr;
};

}  // namespace ncfs
