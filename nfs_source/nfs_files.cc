// Requests about open files.
#include <fcntl.h>
#include <sys/uio.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "nfs_source/nfs_operations.h"

namespace ncfs {

struct NfsTree::FileOperations : NfsTree::Operations {
  static std::shared_ptr<OpenFile> open_file(std::shared_ptr<Node> file, Credentials as,
                                             int flags) {
    std::uint64_t losses = 0;
    {
      const std::lock_guard lock(file->mutex);
      ++file->opens;
      losses = file->losses;
    }
    return std::make_shared<OpenFile>(OpenFile{std::move(file), std::move(as),
                                               (flags & (O_SYNC | O_DSYNC)) != 0,
                                               (flags & O_APPEND) != 0, losses});
  }

  // Past the page cache: what is read is what the server has now.
  static void describe(NfsTree& tree, fuse_file_info* info, std::shared_ptr<OpenFile> file) {
    info->direct_io = 1;
    info->keep_cache = 0;
    info->fh = tree.files_.add(std::move(file));
  }

  static int may_open(NfsTree& tree, const Credentials& as, const FileHandle4& file, int flags) {
    const int mode = flags & O_ACCMODE;
    std::uint32_t wanted = 0;
    if (mode != O_WRONLY) wanted |= ACCESS4_READ;
    if (mode != O_RDONLY) wanted |= ACCESS4_MODIFY;
    std::uint32_t granted = 0;
    const int error = tree.server_.access(as, file, wanted, granted);
    if (error != 0) return error;
    if ((granted & wanted) == wanted) return 0;
    if (mode == O_RDONLY || (mode == O_RDWR && (granted & ACCESS4_READ) == 0)) return EACCES;
    // Why one may not write only a write tells.
    NfsServer::Written written;
    const int reason = tree.server_.write(as, file, 0, {}, false, written);
    return reason == EROFS ? EROFS : EACCES;
  }

  static void open(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      const std::shared_ptr<Node> file = node(tree, number);
      Credentials as = credentials_of(request);
      if (const int error = may_open(tree, as, file->handle, info->flags); error != 0) {
        return error;
      }
      describe(tree, info, open_file(file, std::move(as), info->flags));
      if (fuse_reply_open(request, info) != 0) close(tree, info);
      return kAnswered;
    });
  }

  static void create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
                     fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      NfsServer::FileCreation what{.name = name, .mode = mode};
      what.must_be_new = (info->flags & O_EXCL) != 0;
      what.truncates = (info->flags & O_TRUNC) != 0;
      what.share_access = (info->flags & O_ACCMODE) == O_RDONLY   ? OPEN4_SHARE_ACCESS_READ
                          : (info->flags & O_ACCMODE) == O_WRONLY ? OPEN4_SHARE_ACCESS_WRITE
                                                                  : OPEN4_SHARE_ACCESS_BOTH;
      Credentials as = credentials_of(request);
      NfsServer::Found found;
      int error = tree.server_.create_file(as, node(tree, parent)->handle, what, found);
      if (error != 0) return error;
      fuse_entry_param entry{};
      error = fill_entry(tree, found, entry);
      if (error != 0) return error;
      describe(tree, info, open_file(node(tree, entry.ino), std::move(as), info->flags));
      if (fuse_reply_create(request, &entry, info) != 0) {
        close(tree, info);
        tree.nodes_.forget(entry.ino, 1);
      }
      return kAnswered;
    });
  }

  static void close(NfsTree& tree, fuse_file_info* info) {
    const std::shared_ptr<OpenFile> file = tree.files_.take(info->fh);
    if (!file) return;
    Node& closed = *file->node;
    FileHandle4 directory;
    std::string name;
    {
      const std::lock_guard lock(closed.mutex);
      if (--closed.opens > 0 || !closed.is_hidden) return;
      closed.is_hidden = false;
      directory = closed.hidden_in;
      name = closed.hidden_name;
    }
    // If it fails the name stays, as it does when a client dies.
    tree.server_.remove(file->opener, directory, name);
  }

  static void release(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      close(tree, info);
      return 0;
    });
  }

  static void read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset,
                   fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      const auto file = tree.files_.find(info->fh);
      if (!file) return ESTALE;
      std::vector<NfsServer::ReadPiece> pieces;
      const int error = tree.server_.read(file->opener, file->node->handle,
                                          static_cast<std::uint64_t>(offset), size, pieces);
      if (error != 0) return error;
      std::vector<iovec> parts;
      for (const auto& piece : pieces) {
        parts.push_back({const_cast<char*>(piece.bytes.data()), piece.bytes.size()});
      }
      fuse_reply_iov(request, parts.data(), static_cast<int>(parts.size()));
      return kAnswered;
    });
  }

  static void write(fuse_req_t request, fuse_ino_t, const char* bytes, std::size_t size,
                    off_t offset, fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      const auto file = tree.files_.find(info->fh);
      if (!file) return ESTALE;
      auto place = static_cast<std::uint64_t>(offset);
      if (file->appends) {
        // The kernel's idea of the end may be old.
        FileAttributes now;
        const int error = tree.server_.attributes(file->opener, file->node->handle, now);
        if (error != 0) return error;
        place = static_cast<std::uint64_t>(now.status.st_size);
      }
      NfsServer::Written written;
      const int error = tree.server_.write(file->opener, file->node->handle, place, {bytes, size},
                                           file->is_durable, written);
      if (error != 0) return error;
      note_write(*file->node, written);
      fuse_reply_write(request, size);
      return kAnswered;
    });
  }

  static void note_write(Node& file, const NfsServer::Written& written) {
    const std::lock_guard lock(file.mutex);
    ++file.writes;
    if (written.is_durable) return;
    const bool has_changed = file.is_unstable && file.verifier != written.verifier;
    if (written.has_restarted || has_changed) ++file.losses;
    file.is_unstable = true;
    file.verifier = written.verifier;
  }

  // All that has been written is durable, or EIO: a server that restarted may have forgotten it.
  // That is told once to each who has the file open.
  static int make_durable(NfsTree& tree, OpenFile& opened_file) {
    Node& file = *opened_file.node;
    const auto outcome = [&] {
      return std::exchange(opened_file.losses_told, file.losses) == file.losses ? 0 : EIO;
    };
    std::uint64_t writes = 0;
    {
      const std::lock_guard lock(file.mutex);
      if (!file.is_unstable) return outcome();
      writes = file.writes;
    }
    std::uint64_t verifier = 0;
    const int error = tree.server_.commit(opened_file.opener, file.handle, verifier);
    if (error != 0) return error;
    const std::lock_guard lock(file.mutex);
    const bool is_lost = file.is_unstable && file.verifier != verifier;
    if (is_lost) ++file.losses;
    if (is_lost || file.writes == writes) file.is_unstable = false;
    return outcome();
  }

  static void flush(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      const auto file = tree.files_.find(info->fh);
      return file ? make_durable(tree, *file) : ESTALE;
    });
  }

  static void sync(fuse_req_t request, fuse_ino_t, int, fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      const auto file = tree.files_.find(info->fh);
      return file ? make_durable(tree, *file) : ESTALE;
    });
  }
};

void NfsTree::add_files(fuse_lowlevel_ops& operations) {
  operations.open = FileOperations::open;
  operations.create = FileOperations::create;
  operations.release = FileOperations::release;
  operations.read = FileOperations::read;
  operations.write = FileOperations::write;
  operations.flush = FileOperations::flush;
  operations.fsync = FileOperations::sync;
}

}  // namespace ncfs
