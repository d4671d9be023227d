// Requests about open directories.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "nfs_source/nfs_operations.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kDot = 1;     // offsets in a directory: NFS gives no cookies 1 and 2
constexpr std::uint64_t kDotDot = 2;  // (RFC 7530, section 16.24.4)

}  // namespace

struct NfsTree::DirectoryOperations : NfsTree::Operations {
  static void open_directory(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      auto directory = std::make_shared<OpenDirectory>();
      directory->node = node(tree, number);
      std::uint32_t granted = 0;
      const int error = tree.server_.access(credentials_of(request), directory->node->handle,
                                            ACCESS4_READ, granted);
      if (error != 0) return error;
      if ((granted & ACCESS4_READ) == 0) return EACCES;
      info->fh = tree.directories_.add(std::move(directory));
      if (fuse_reply_open(request, info) != 0) tree.directories_.take(info->fh);
      return kAnswered;
    });
  }

  static void close_directory(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      tree.directories_.take(info->fh);
      return 0;
    });
  }

  // What can be had of the listing after `cookie` without asking, or the next part of it.
  static int find_entries(NfsTree& tree, const Credentials& as, OpenDirectory& directory,
                          std::uint64_t cookie, std::size_t& first) {
    const auto& entries = directory.listing.entries;
    if (directory.has_listing) {
      const auto last = std::ranges::find(entries, cookie, &NfsServer::Entry::cookie);
      first = directory.from == cookie ? 0
              : last == entries.end()  ? entries.size()
                                       : static_cast<std::size_t>(last - entries.begin()) + 1;
      const bool is_known = directory.from == cookie || last != entries.end();
      if (is_known && (first < entries.size() || directory.listing.is_last)) return 0;
    }
    directory.has_listing = false;
    first = 0;
    const int error = tree.server_.list(as, directory.node->handle, cookie, directory.listing);
    if (error != 0) return error;
    directory.from = cookie;
    directory.has_listing = true;
    return 0;
  }

  static void read_directory(fuse_req_t request, fuse_ino_t number, std::size_t size, off_t offset,
                             fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      const auto opened = tree.directories_.find(info->fh);
      if (!opened) return ESTALE;
      OpenDirectory& directory = *opened;
      std::vector<char> reply(size);
      std::size_t used = 0;
      const auto add = [&](const char* name, std::uint64_t file_id, mode_t kind,
                           std::uint64_t next) {
        struct stat status {};
        status.st_ino = file_id;
        status.st_mode = kind;
        const std::size_t needed = fuse_add_direntry(request, reply.data() + used, size - used,
                                                     name, &status, static_cast<off_t>(next));
        if (needed > size - used) return false;
        used += needed;
        return true;
      };
      auto place = static_cast<std::uint64_t>(offset);
      if (place == 0 && add(".", number, S_IFDIR, kDot)) place = kDot;
      if (place == kDot && add("..", FUSE_ROOT_ID, S_IFDIR, kDotDot)) place = kDotDot;
      const std::uint64_t cookie = place <= kDotDot ? 0 : place;
      const std::lock_guard lock(directory.mutex);
      if (offset == 0) directory.has_listing = false;  // rewinddir(3): as it is now
      std::size_t first = 0;
      const int error = find_entries(tree, credentials_of(request), directory, cookie, first);
      if (error != 0) return error;
      const auto& entries = directory.listing.entries;
      for (std::size_t index = first; index < entries.size(); ++index) {
        const auto& entry = entries[index];
        if (!add(entry.name.c_str(), entry.file_id, entry.kind, entry.cookie)) break;
      }
      fuse_reply_buf(request, reply.data(), used);
      return kAnswered;
    });
  }
};

void NfsTree::add_directories(fuse_lowlevel_ops& operations) {
  operations.opendir = DirectoryOperations::open_directory;
  operations.readdir = DirectoryOperations::read_directory;
  operations.releasedir = DirectoryOperations::close_directory;
}

}  // namespace ncfs
