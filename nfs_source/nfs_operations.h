// What the requests of nfs_tree.h have in common; each kind of them has a file of its own.
#pragma once

#include <fuse3/fuse_lowlevel.h>

#include <cerrno>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>

#include "nfs_source/nfs_tree.h"

namespace ncfs {

struct NfsTree::OpenFile {
  std::shared_ptr<Node> node;
  Credentials opener;       // reads and writes are made as who opened the file, whoever does them
  bool is_durable = false;  // O_SYNC and O_DSYNC
  bool appends = false;
  std::uint64_t losses_told = 0;  // of the node's; with its lock
};

struct NfsTree::OpenDirectory {
  std::shared_ptr<Node> node;
  std::mutex mutex;
  NfsServer::Listing listing;  // a part of it
  std::uint64_t from = 0;      // the cookie that the part follows
  bool has_listing = false;
};

// A function of a derived class answers one request. An exception, of memory, ends only the
// request.
struct NfsTree::Operations {
  template <typename Body>
  static void answer(fuse_req_t request, const Body& body) {
    int error = ENOMEM;
    try {
      error = body(*static_cast<NfsTree*>(fuse_req_userdata(request)));
    } catch (const std::exception&) {
      // No memory.
    }
    if (error != kAnswered) fuse_reply_err(request, error);
  }
  static constexpr int kAnswered = -1;

  static std::shared_ptr<Node> node(NfsTree& tree, fuse_ino_t number) {
    std::shared_ptr<Node> found = tree.nodes_.find(number);
    return found ? found : std::make_shared<Node>(FileHandle4{});  // BADHANDLE, so ESTALE
  }

  // An entry of which the kernel keeps nothing.
  static int fill_entry(NfsTree& tree, const NfsServer::Found& found, fuse_entry_param& entry) {
    // File ids are those of one file system.
    if (found.attributes.filesystem_major != tree.filesystem_major_ ||
        found.attributes.filesystem_minor != tree.filesystem_minor_) {
      return EREMOTE;
    }
    entry = {};
    entry.ino = tree.nodes_.remember(found.handle);
    entry.attr = shown(found.attributes);
    return 0;
  }

  static int reply_entry(fuse_req_t request, NfsTree& tree, const NfsServer::Found& found) {
    fuse_entry_param entry{};
    if (const int error = fill_entry(tree, found, entry); error != 0) return error;
    if (fuse_reply_entry(request, &entry) != 0) tree.nodes_.forget(entry.ino, 1);
    return kAnswered;
  }

  // Who asks. Supplementary groups come from /proc and cost about 20 us. Root's are not told: where
  // they mattered, the server squashes them.
  static Credentials credentials_of(fuse_req_t request);
  static struct stat shown(const FileAttributes& attributes);
};

}  // namespace ncfs
