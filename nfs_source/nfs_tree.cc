#include "nfs_source/nfs_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "io/descriptor.h"

namespace ncfs {
namespace {

// The largest request: what the kernel hands over at once.
constexpr std::uint32_t kRequestBytes = 1 << 20U;
// A request holds a thread while it waits for the server. More than this only wait at the server.
constexpr unsigned kThreadsMax = 256;
constexpr unsigned kThreadsIdle = 32;
constexpr std::size_t kGroupsMax = 16;                 // that AUTH_SYS can tell
constexpr std::uint32_t kPreferredBytes = 256 << 10U;  // of a read, told by stat(2)
constexpr std::uint64_t kDot = 1;     // offsets in a directory: NFS gives no cookies 1 and 2
constexpr std::uint64_t kDotDot = 2;  // (RFC 7530, section 16.24.4)

// Supplementary groups come from /proc and cost about 20 us. Root's are not told: where they
// mattered, the server squashes them.
Credentials credentials_of(fuse_req_t request) {
  const fuse_ctx* const context = fuse_req_ctx(request);
  Credentials result{.user = context->uid, .group = context->gid, .groups = {}};
  if (context->uid == 0) return result;
  std::array<gid_t, kGroupsMax> groups{};
  const int count = fuse_req_getgroups(request, static_cast<int>(groups.size()), groups.data());
  if (count > 0) {
    result.groups.assign(groups.begin(),
                         groups.begin() + std::min<std::ptrdiff_t>(count, std::ssize(groups)));
  }
  return result;
}

// libfuse 3.14 forgets to tell the kernel that look-ups in one directory need not wait for each
// other, and that the server takes set-user-id bits away, which who writes may not be allowed to
// do. The first reply of a session is the one to INIT.
ssize_t write_reply(int device, iovec* parts, int count, void*) {
  static std::atomic<bool> is_first{true};
  if (count != 2 || !is_first.exchange(false)) return ::writev(device, parts, count);
  std::array<std::byte, sizeof(fuse_init_out)> reply{};
  const std::size_t size = std::min(parts[1].iov_len, reply.size());
  std::memcpy(reply.data(), parts[1].iov_base, size);
  std::uint32_t flags = 0;
  std::memcpy(&flags, reply.data() + offsetof(fuse_init_out, flags), sizeof(flags));
  flags |= FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV;
  std::memcpy(reply.data() + offsetof(fuse_init_out, flags), &flags, sizeof(flags));
  const std::array<iovec, 2> patched{parts[0], {reply.data(), size}};
  return ::writev(device, patched.data(), 2);
}

struct stat shown(const FileAttributes& attributes) {
  struct stat status = attributes.status;
  status.st_blksize = kPreferredBytes;
  return status;
}

// Numbers of one program: more than it ever needs.
std::uint64_t first_number(std::uint32_t run) {
  return std::uint64_t{run} << 40U;
}

}  // namespace

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

// One function for each request. An exception, of memory, ends only the request.
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

  static void look_up(fuse_req_t request, fuse_ino_t parent, const char* name) {
    answer(request, [&](NfsTree& tree) {
      NfsServer::Found found;
      const int error =
          tree.server_.look_up(credentials_of(request), node(tree, parent)->handle, name, found);
      return error != 0 ? error : reply_entry(request, tree, found);
    });
  }

  static void forget(fuse_req_t request, fuse_ino_t number, std::uint64_t times) {
    static_cast<NfsTree*>(fuse_req_userdata(request))->nodes_.forget(number, times);
    fuse_reply_none(request);
  }

  static void forget_many(fuse_req_t request, std::size_t count, fuse_forget_data* forgets) {
    for (std::size_t index = 0; index < count; ++index) {
      static_cast<NfsTree*>(fuse_req_userdata(request))
          ->nodes_.forget(forgets[index].ino, forgets[index].nlookup);
    }
    fuse_reply_none(request);
  }

  static void get_attributes(fuse_req_t request, fuse_ino_t number, fuse_file_info*) {
    answer(request, [&](NfsTree& tree) {
      FileAttributes found;
      const int error =
          tree.server_.attributes(credentials_of(request), node(tree, number)->handle, found);
      if (error != 0) return error;
      const struct stat status = shown(found);
      fuse_reply_attr(request, &status, 0);
      return kAnswered;
    });
  }

  static void set_attributes(fuse_req_t request, fuse_ino_t number, struct stat* wanted, int which,
                             fuse_file_info* info) {
    answer(request, [&](NfsTree& tree) {
      AttributeChanges changes;
      if ((which & FUSE_SET_ATTR_SIZE) != 0) {
        changes.size = static_cast<std::uint64_t>(wanted->st_size);
      }
      if ((which & FUSE_SET_ATTR_MODE) != 0) changes.mode = wanted->st_mode;
      if ((which & FUSE_SET_ATTR_UID) != 0) changes.user = wanted->st_uid;
      if ((which & FUSE_SET_ATTR_GID) != 0) changes.group = wanted->st_gid;
      if ((which & FUSE_SET_ATTR_ATIME) != 0) changes.access_time = wanted->st_atim;
      if ((which & FUSE_SET_ATTR_MTIME) != 0) changes.modify_time = wanted->st_mtim;
      if ((which & FUSE_SET_ATTR_ATIME_NOW) != 0) changes.access_time = AttributeChanges::kNow;
      if ((which & FUSE_SET_ATTR_MTIME_NOW) != 0) changes.modify_time = AttributeChanges::kNow;
      // ftruncate(2) is a right of the descriptor.
      const auto file = info != nullptr ? tree.files_.find(info->fh) : nullptr;
      if (info != nullptr && !file) return ESTALE;
      const Credentials as = file ? file->opener : credentials_of(request);
      const std::shared_ptr<Node> changed = node(tree, number);
      FileAttributes found;
      const int error = tree.server_.change_attributes(as, changed->handle, changes, found);
      if (error != 0) return error;
      const struct stat status = shown(found);
      fuse_reply_attr(request, &status, 0);
      return kAnswered;
    });
  }

  static void read_link(fuse_req_t request, fuse_ino_t number) {
    answer(request, [&](NfsTree& tree) {
      std::string target;
      const int error =
          tree.server_.read_link(credentials_of(request), node(tree, number)->handle, target);
      if (error != 0) return error;
      fuse_reply_readlink(request, target.c_str());
      return kAnswered;
    });
  }

  static void access(fuse_req_t request, fuse_ino_t number, int mask) {
    answer(request, [&](NfsTree& tree) {
      std::uint32_t wanted = 0;
      if ((mask & R_OK) != 0) wanted |= ACCESS4_READ;
      if ((mask & W_OK) != 0) wanted |= ACCESS4_MODIFY | ACCESS4_EXTEND;
      if ((mask & X_OK) != 0) wanted |= ACCESS4_EXECUTE | ACCESS4_LOOKUP;
      std::uint32_t granted = 0;
      const int error =
          tree.server_.access(credentials_of(request), node(tree, number)->handle, wanted, granted);
      if (error != 0) return error;
      // What makes no sense for a directory or a file is not granted, and not needed.
      const bool may_read = (mask & R_OK) == 0 || (granted & ACCESS4_READ) != 0;
      const bool may_write =
          (mask & W_OK) == 0 || (granted & (ACCESS4_MODIFY | ACCESS4_EXTEND)) != 0;
      const bool may_execute =
          (mask & X_OK) == 0 || (granted & (ACCESS4_EXECUTE | ACCESS4_LOOKUP)) != 0;
      return may_read && may_write && may_execute ? 0 : EACCES;
    });
  }

  // --- names ------------------------------------------------------------------------------------

  static void make(fuse_req_t request, fuse_ino_t parent, const NfsServer::Creation& what) {
    answer(request, [&](NfsTree& tree) {
      NfsServer::Found found;
      const int error =
          tree.server_.create(credentials_of(request), node(tree, parent)->handle, what, found);
      return error != 0 ? error : reply_entry(request, tree, found);
    });
  }

  static void make_directory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
    make(request, parent, {.name = name, .mode = (mode & 07777U) | S_IFDIR, .target = {}});
  }

  static void make_link(fuse_req_t request, const char* target, fuse_ino_t parent,
                        const char* name) {
    make(request, parent, {.name = name, .mode = S_IFLNK | 0777, .target = target});
  }

  static void make_node(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
                        dev_t device) {
    if (!S_ISREG(mode)) {
      make(request, parent, {.name = name, .mode = mode, .device = device, .target = {}});
      return;
    }
    answer(request, [&](NfsTree& tree) {
      NfsServer::Found found;
      const int error =
          tree.server_.create_file(credentials_of(request), node(tree, parent)->handle,
                                   {.name = name, .mode = mode, .must_be_new = true}, found);
      return error != 0 ? error : reply_entry(request, tree, found);
    });
  }

  // Gives the file another name if somebody has it open. True if it is then gone from `name`.
  static bool hide_if_open(NfsTree& tree, const Credentials& as, const FileHandle4& directory,
                           const std::string& name) {
    NfsServer::Found found;
    if (tree.server_.look_up(as, directory, name, found) != 0) return false;
    const std::shared_ptr<Node> removed = tree.nodes_.find(found.handle);
    if (!removed || !S_ISREG(found.attributes.status.st_mode)) return false;
    const std::lock_guard lock(removed->mutex);
    // One of several names may go: the file stays.
    if (removed->opens == 0 || removed->is_hidden || found.attributes.status.st_nlink > 1) {
      return false;
    }
    static std::atomic<std::uint64_t> count{0};
    std::string hidden = fmt::format(".nfs{:016x}{:08x}{:08x}", found.attributes.status.st_ino,
                                     static_cast<std::uint32_t>(::getpid()), ++count);
    if (tree.server_.rename(as, directory, name, directory, hidden) != 0) return false;
    removed->is_hidden = true;
    removed->hidden_in = directory;
    removed->hidden_name = std::move(hidden);
    return true;
  }

  static void unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
    answer(request, [&](NfsTree& tree) {
      const Credentials as = credentials_of(request);
      const std::shared_ptr<Node> directory = node(tree, parent);
      if (hide_if_open(tree, as, directory->handle, name)) return 0;
      return tree.server_.remove(as, directory->handle, name);
    });
  }

  // REMOVE takes files too, which rmdir(2) must not; the kernel has looked what it is.
  static void remove_directory(fuse_req_t request, fuse_ino_t parent, const char* name) {
    answer(request, [&](NfsTree& tree) {
      return tree.server_.remove(credentials_of(request), node(tree, parent)->handle, name);
    });
  }

  static void rename(fuse_req_t request, fuse_ino_t from, const char* old_name, fuse_ino_t to,
                     const char* new_name, unsigned flags) {
    answer(request, [&](NfsTree& tree) {
      if (flags != 0) return EINVAL;  // NFS cannot exchange, nor refuse to replace
      const Credentials as = credentials_of(request);
      const std::shared_ptr<Node> target = node(tree, to);
      const std::shared_ptr<Node> origin = node(tree, from);
      // Two names of one file stay as they are.
      NfsServer::Found moved;
      NfsServer::Found replaced;
      const bool is_same = tree.server_.look_up(as, origin->handle, old_name, moved) == 0 &&
                           tree.server_.look_up(as, target->handle, new_name, replaced) == 0 &&
                           moved.handle == replaced.handle;
      if (!is_same && !replaced.handle.empty()) hide_if_open(tree, as, target->handle, new_name);
      return tree.server_.rename(as, origin->handle, old_name, target->handle, new_name);
    });
  }

  static void link(fuse_req_t request, fuse_ino_t number, fuse_ino_t parent, const char* name) {
    answer(request, [&](NfsTree& tree) {
      NfsServer::Found found{.handle = node(tree, number)->handle, .attributes = {}};
      const int error = tree.server_.link(credentials_of(request), found.handle,
                                          node(tree, parent)->handle, name, found.attributes);
      return error != 0 ? error : reply_entry(request, tree, found);
    });
  }

  // --- open files -------------------------------------------------------------------------------

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

  static void get_space(fuse_req_t request, fuse_ino_t number) {
    answer(request, [&](NfsTree& tree) {
      struct statvfs space {};
      const int error =
          tree.server_.space(credentials_of(request), node(tree, number)->handle, space);
      if (error != 0) return error;
      fuse_reply_statfs(request, &space);
      return kAnswered;
    });
  }

  // NFSv4.0 has none. Who lists them to copy a tree need not be warned of every file.
  static void list_attributes(fuse_req_t request, fuse_ino_t, std::size_t size) {
    if (size == 0) {
      fuse_reply_xattr(request, 0);
    } else {
      fuse_reply_buf(request, nullptr, 0);
    }
  }

  // --- directories ------------------------------------------------------------------------------

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

  static void initialise(void*, fuse_conn_info* connection) {
    connection->max_write = kRequestBytes;
    connection->max_background = kThreadsMax;
    connection->congestion_threshold = kThreadsMax;
    connection->time_gran = 1;
    connection->want |= connection->capable & (FUSE_CAP_ASYNC_DIO | FUSE_CAP_ASYNC_READ);
    // Truncating is a call of its own.
    connection->want &= ~FUSE_CAP_ATOMIC_O_TRUNC;
  }
};

NfsTree::NfsTree(NfsServer& server, const NfsServer::Found& root, std::uint32_t run)
    : server_(server),
      filesystem_major_(root.attributes.filesystem_major),
      filesystem_minor_(root.attributes.filesystem_minor),
      nodes_(root.handle, first_number(run)),
      files_(first_number(run)),
      directories_(first_number(run)) {}

NfsTree::~NfsTree() {
  if (session_ != nullptr) fuse_session_destroy(session_);
}

std::string NfsTree::mount(const std::string& source, const std::string& place, int device,
                           int memory) {
  fuse_lowlevel_ops operations{};
  operations.init = Operations::initialise;
  operations.lookup = Operations::look_up;
  operations.forget = Operations::forget;
  operations.forget_multi = Operations::forget_many;
  operations.getattr = Operations::get_attributes;
  operations.setattr = Operations::set_attributes;
  operations.readlink = Operations::read_link;
  operations.access = Operations::access;
  operations.mkdir = Operations::make_directory;
  operations.symlink = Operations::make_link;
  operations.mknod = Operations::make_node;
  operations.unlink = Operations::unlink;
  operations.rmdir = Operations::remove_directory;
  operations.rename = Operations::rename;
  operations.link = Operations::link;
  operations.open = Operations::open;
  operations.create = Operations::create;
  operations.release = Operations::release;
  operations.read = Operations::read;
  operations.write = Operations::write;
  operations.flush = Operations::flush;
  operations.fsync = Operations::sync;
  operations.statfs = Operations::get_space;
  operations.listxattr = Operations::list_attributes;
  operations.opendir = Operations::open_directory;
  operations.readdir = Operations::read_directory;
  operations.releasedir = Operations::close_directory;
  std::array<char*, 1> names{const_cast<char*>("nfs-cachefs-nfs")};
  fuse_args arguments = FUSE_ARGS_INIT(1, names.data());
  session_ = fuse_session_new(&arguments, &operations, sizeof(operations), this);
  if (session_ == nullptr) return "libfuse does not start";
  fuse_custom_io io{};
  io.writev = write_reply;
  io.read = [](int from, void* buffer, std::size_t size, void*) {
    return ::read(from, buffer, size);
  };
  if (fuse_session_custom_io(session_, &io, device) != 0) return "libfuse does not start";
  struct stat remembered {};
  if (::fstat(memory, &remembered) != 0) return fmt::format("memory: {}", std::strerror(errno));
  if (remembered.st_size > 0) return greet(memory);
  // Whoever comes here acts for somebody else, and the server decides what he may do.
  const std::string options =
      fmt::format("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device);
  if (::mount(source.c_str(), place.c_str(), "fuse.nfs-cachefs-nfs", MS_NOSUID | MS_NODEV,
              options.c_str()) != 0) {
    return fmt::format("mount on {}: {}", place, std::strerror(errno));
  }
  std::vector<char> first(FUSE_MIN_READ_BUFFER);
  const ssize_t size = ::read(device, first.data(), first.size());
  if (size <= 0 || ::pwrite(memory, first.data(), static_cast<std::size_t>(size), 0) != size) {
    return fmt::format("the kernel does not answer: {}", std::strerror(errno));
  }
  return greet(memory);
}

// Learns what the kernel can do. It takes the answer from the first program of a mount only. From
// then on this program has a queue of its own for requests under way, which end with it.
std::string NfsTree::greet(int memory) {
  std::vector<char> first(FUSE_MIN_READ_BUFFER);
  const ssize_t size = ::pread(memory, first.data(), first.size(), 0);
  if (size <= 0) return fmt::format("memory: {}", std::strerror(errno));
  fuse_buf message{};
  message.mem = first.data();
  message.size = static_cast<std::size_t>(size);
  fuse_session_process_buf(session_, &message);
  const int device = fuse_session_fd(session_);
  const Descriptor own(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  auto shared = static_cast<std::uint32_t>(device);
  if (::ioctl(own.get(), FUSE_DEV_IOC_CLONE, &shared) != 0 ||
      ::dup3(own.get(), device, O_CLOEXEC) < 0) {
    return fmt::format("/dev/fuse: {}", std::strerror(errno));
  }
  return {};
}

void NfsTree::serve() {
  fuse_loop_config* const config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(config, kThreadsMax);
  fuse_loop_cfg_set_idle_threads(config, kThreadsIdle);
  fuse_session_loop_mt(session_, config);
  fuse_loop_cfg_destroy(config);
}

}  // namespace ncfs
