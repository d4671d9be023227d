// Requests about names and attributes.
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <utility>

#include "nfs_source/nfs_operations.h"

namespace ncfs {

struct NfsTree::NameOperations : NfsTree::Operations {
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
};

void NfsTree::add_names(fuse_lowlevel_ops& operations) {
  operations.lookup = NameOperations::look_up;
  operations.forget = NameOperations::forget;
  operations.forget_multi = NameOperations::forget_many;
  operations.getattr = NameOperations::get_attributes;
  operations.setattr = NameOperations::set_attributes;
  operations.readlink = NameOperations::read_link;
  operations.access = NameOperations::access;
  operations.mkdir = NameOperations::make_directory;
  operations.symlink = NameOperations::make_link;
  operations.mknod = NameOperations::make_node;
  operations.unlink = NameOperations::unlink;
  operations.rmdir = NameOperations::remove_directory;
  operations.rename = NameOperations::rename;
  operations.link = NameOperations::link;
  operations.statfs = NameOperations::get_space;
  operations.listxattr = NameOperations::list_attributes;
}

}  // namespace ncfs
