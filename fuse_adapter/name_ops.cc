// Making, linking, renaming and removing files. Each is done in the directory that was found, as
// the caller: it is the source that says who may, and with which owner and mode a file is born.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "fuse_adapter/fuse_ops.h"

namespace ncfs {
namespace {

// The errno of `call`, which returns 0 or sets errno, made as the caller.
template <typename Call>
int as_caller(FuseCore& core, const Caller& caller, const Call& call) {
  const CallerCredentials credentials(caller, core.groups);
  if (credentials.error() != 0) return credentials.error();
  const CallerUmask umask(caller.umask);
  return call() == 0 ? 0 : errno;
}

// Answers with what has the name now.
void answer_with_child(FuseCore& core, KernelRequest& request, const FoundFile& directory,
                       NodeId parent, const std::string& name) {
  const FoundChild child = find_child(core, directory, name.c_str(), request.caller());
  if (child.error != 0) {
    request.error(child.error);
    return;
  }
  const NodeId node = core.nodes.look_up(parent, name, FileFacts::of(child.attributes));
  if (!request.entry(entry_of(node, child.attributes, child.left))) core.nodes.forget(node, 1);
}

// Whatever came of it: EEXIST and ENOENT tell that what was known of the name was wrong, and after
// another error nobody knows. Before the application is told.
void note_name_changed(FuseCore& core, const FoundFile& directory, const std::string& name) {
  core.known_metadata.name_changed(key_of(directory.attributes), name);
}

// Runs `use` with the directory found, answering the error if it was not.
template <typename Use>
void post_in_directory(fuse_req_t raw, NodeId parent, Use use) {
  FuseCore::of(raw).post(
      raw, [parent, use = std::move(use)](FuseCore& core, const KernelRequestPointer& request) {
        const FoundFile directory = core.find(parent, request->caller(), AT_STATX_DONT_SYNC);
        if (directory.error == 0) {
          use(core, *request, directory);
        } else {
          request->error(directory.error);
        }
      });
}

// `make(directory, name)` returns 0 or sets errno.
template <typename Make>
void create(fuse_req_t raw, NodeId parent, const char* name, Make make) {
  post_in_directory(raw, parent,
                    [parent, name = std::string(name), make = std::move(make)](
                        FuseCore& core, KernelRequest& request, const FoundFile& directory) {
                      const int error = as_caller(core, request.caller(), [&] {
                        return make(directory.file.get(), name.c_str());
                      });
                      note_name_changed(core, directory, name);
                      if (error != 0) {
                        request.error(error);
                      } else {
                        answer_with_child(core, request, directory, parent, name);
                      }
                    });
}

void mknod(fuse_req_t raw, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  create(raw, parent, name, [mode, device](int directory, const char* child) {
    return ::mknodat(directory, child, mode, device);
  });
}

void mkdir(fuse_req_t raw, fuse_ino_t parent, const char* name, mode_t mode) {
  create(raw, parent, name,
         [mode](int directory, const char* child) { return ::mkdirat(directory, child, mode); });
}

void symlink(fuse_req_t raw, const char* target, fuse_ino_t parent, const char* name) {
  create(raw, parent, name, [target = std::string(target)](int directory, const char* child) {
    return ::symlinkat(target.c_str(), directory, child);
  });
}

void link(fuse_req_t raw, fuse_ino_t node, fuse_ino_t parent, const char* name) {
  post_in_directory(raw, parent,
                    [node, parent, name = std::string(name)](FuseCore& core, KernelRequest& request,
                                                             const FoundFile& directory) {
                      const FoundFile file = find_or_held(core, node, request.caller());
                      if (file.error != 0) {
                        request.error(file.error);
                        return;
                      }
                      OwnChange change(core, file);
                      // By the descriptor's link: to link the descriptor itself takes privileges.
                      const std::string path = fmt::format("/proc/self/fd/{}", file.file.get());
                      const int error = as_caller(core, request.caller(), [&] {
                        return ::linkat(AT_FDCWD, path.c_str(), directory.file.get(), name.c_str(),
                                        AT_SYMLINK_FOLLOW);
                      });
                      note_name_changed(core, directory, name);
                      core.known_metadata.file_changed(key_of(file.attributes));
                      if (error != 0) {
                        request.error(error);
                        return;
                      }
                      change.end();
                      answer_with_child(core, request, directory, parent, name);
                    });
}

// A name in a directory, and what it names; nothing if that cannot be told.
struct Named {
  NodeId parent = 0;
  const std::string& name;
  std::optional<SeenFile> seen;

  [[nodiscard]] FileKey file() const { return seen ? seen->facts.file : FileKey{}; }
  [[nodiscard]] bool is_directory() const { return seen && seen->facts.type == S_IFDIR; }
};

Named look_at(FuseCore& core, const FoundFile& directory, NodeId parent, const std::string& name,
              const Caller& caller) {
  return {
      .parent = parent, .name = name, .seen = see_child(core, directory.file.get(), name, caller)};
}

// The name is gone. The file may live on, by other names or because it is open; no descriptor was
// kept to see what it is like now, as that would make an NFS client rename it instead.
void note_removed(FuseCore& core, const Named& removed, int directory, const Caller& caller) {
  if (!removed.seen) return;
  core.nodes.remove_name(removed.file(), removed.parent, removed.name);
  if (removed.is_directory()) return;
  if (const auto node = core.nodes.current(removed.file())) {
    struct stat after {};
    const bool lives =
        stat_node(core, *node, caller, after) == 0 && FileFacts::of(after).file == removed.file();
    if (lives) {
      core.own_change(*removed.seen, FileFacts::of(after), core.path_of(removed.file()), directory);
      return;
    }
    // Its number may be given to another file.
    core.nodes.retire(*node);
  }
  // Whoever knows it by another name, under another node, is to count its links again.
  if (removed.seen->facts.links == 1) return;
  for (const NodeId node : core.nodes.all_of(removed.file())) core.channel->forget_attributes(node);
}

template <typename Remove>
void remove(fuse_req_t raw, NodeId parent, const char* name, Remove remove_child) {
  post_in_directory(raw, parent,
                    [parent, name = std::string(name), remove_child](
                        FuseCore& core, KernelRequest& request, const FoundFile& directory) {
                      const Named named = look_at(core, directory, parent, name, request.caller());
                      const auto lock = core.changes.serialize(named.file());
                      core.kept_sources.drop(named.file());
                      const int error = as_caller(core, request.caller(), [&] {
                        return remove_child(directory.file.get(), name.c_str());
                      });
                      note_name_changed(core, directory, name);
                      if (named.seen) core.known_metadata.file_changed(named.file());
                      if (error == 0)
                        note_removed(core, named, directory.file.get(), request.caller());
                      request.error(error);
                    });
}

void unlink(fuse_req_t raw, fuse_ino_t parent, const char* name) {
  remove(raw, parent, name,
         [](int directory, const char* child) { return ::unlinkat(directory, child, 0); });
}

void rmdir(fuse_req_t raw, fuse_ino_t parent, const char* name) {
  remove(raw, parent, name, [](int directory, const char* child) {
    return ::unlinkat(directory, child, AT_REMOVEDIR);
  });
}

// The file now has another name, which was a change of it.
void note_moved(FuseCore& core, const Named& from, NodeId parent, const std::string& name,
                int directory, const Caller& caller) {
  if (!from.seen) return;
  core.nodes.move_name(from.file(), from.parent, from.name, parent, name);
  if (from.is_directory()) return;
  const auto after = see_child(core, directory, name, caller);
  if (!after || after->facts.file != from.file()) return;
  core.own_change(*from.seen, after->facts, core.path_of(from.file()), directory);
}

void rename(fuse_req_t raw, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
            const char* new_name, unsigned flags) {
  post_in_directory(raw, parent,
                    [parent, name = std::string(name), new_parent, new_name = std::string(new_name),
                     flags](FuseCore& core, KernelRequest& request, const FoundFile& directory) {
                      const Caller& caller = request.caller();
                      const FoundFile new_directory =
                          core.find(new_parent, caller, AT_STATX_DONT_SYNC);
                      if (new_directory.error != 0) {
                        request.error(new_directory.error);
                        return;
                      }
                      const Named from = look_at(core, directory, parent, name, caller);
                      const Named to = look_at(core, new_directory, new_parent, new_name, caller);
                      const auto locks = core.changes.serialize(from.file(), to.file());
                      core.kept_sources.drop(to.file());
                      const int error = as_caller(core, caller, [&] {
                        return ::renameat2(directory.file.get(), name.c_str(),
                                           new_directory.file.get(), new_name.c_str(), flags);
                      });
                      note_name_changed(core, directory, name);
                      note_name_changed(core, new_directory, new_name);
                      if (from.seen) core.known_metadata.file_changed(from.file());
                      if (to.seen) core.known_metadata.file_changed(to.file());
                      // Two names of one file are left alone.
                      const bool has_moved = !to.seen || from.file() != to.file();
                      if (error == 0 && has_moved) {
                        const bool is_exchange = (flags & RENAME_EXCHANGE) != 0;
                        if (!is_exchange) note_removed(core, to, new_directory.file.get(), caller);
                        note_moved(core, from, new_parent, new_name, new_directory.file.get(),
                                   caller);
                        if (is_exchange)
                          note_moved(core, to, parent, name, directory.file.get(), caller);
                      }
                      request.error(error);
                    });
}

}  // namespace

void add_name_operations(fuse_lowlevel_ops& table) {
  table.mknod = mknod;
  table.mkdir = mkdir;
  table.symlink = symlink;
  table.link = link;
  table.unlink = unlink;
  table.rmdir = rmdir;
  table.rename = rename;
}

}  // namespace ncfs
