// Changing attributes, as the caller: it is the source that says who may, and what else changes by
// it (a setgid bit that is lost, the mode that follows an ACL).
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/xattr.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuse_adapter/fuse_ops.h"

namespace ncfs {
namespace {

constexpr int kOwner = FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;
// chown(2) to the owner that is, which still changes the ctime; also what the kernel asks before it
// passes on a write that takes privileges away, which the write itself does on the source: so the
// attributes that are answered are soon others.
constexpr int kNothing = 0;
constexpr int kAccessTime = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW;
constexpr int kModifyTime = FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW;

struct Wanted {
  struct stat attributes = {};
  int which = 0;  // FUSE_SET_ATTR_*
  [[nodiscard]] bool has(int any) const { return (which & any) != 0; }
};

timespec time_of(const Wanted& wanted, int any, int now, const timespec& value) {
  if (!wanted.has(any)) return {.tv_sec = 0, .tv_nsec = UTIME_OMIT};
  return wanted.has(now) ? timespec{.tv_sec = 0, .tv_nsec = UTIME_NOW} : value;
}

// On a thread that acts as the caller. An errno.
int set_attributes(int file, const Wanted& wanted) {
  const std::string path = fmt::format("/proc/self/fd/{}", file);
  if (wanted.has(kOwner) || wanted.which == kNothing) {
    const uid_t user =
        wanted.has(FUSE_SET_ATTR_UID) ? wanted.attributes.st_uid : static_cast<uid_t>(-1);
    const gid_t group =
        wanted.has(FUSE_SET_ATTR_GID) ? wanted.attributes.st_gid : static_cast<gid_t>(-1);
    if (::fchownat(file, "", user, group, AT_EMPTY_PATH) != 0) return errno;
  }
  // After the owner, which takes setuid away.
  if (wanted.has(FUSE_SET_ATTR_MODE) &&
      ::chmod(path.c_str(), wanted.attributes.st_mode & 07777U) != 0) {
    return errno;
  }
  if (wanted.has(kAccessTime | kModifyTime)) {
    const std::array<timespec, 2> times{
        time_of(wanted, kAccessTime, FUSE_SET_ATTR_ATIME_NOW, wanted.attributes.st_atim),
        time_of(wanted, kModifyTime, FUSE_SET_ATTR_MTIME_NOW, wanted.attributes.st_mtim)};
    if (::utimensat(AT_FDCWD, path.c_str(), times.data(), 0) != 0) return errno;
  }
  return 0;
}

// What an application changes through a descriptor changes even if the file has no name.
FoundFile find_through(FuseCore& core, NodeId node, const OpenFile* handle, const Caller& caller) {
  if (handle == nullptr) return find_or_held(core, node, caller);
  FoundFile found;
  found.file = Descriptor(::fcntl(handle->source, F_DUPFD_CLOEXEC, 0));
  const bool is_known = found.file.is_open() && ::fstat(found.file.get(), &found.attributes) == 0;
  if (!is_known) found.error = errno;
  return found;
}

void answer_attributes(FuseCore& core, KernelRequest& request, NodeId node, int file,
                       bool are_soon_others = false) {
  const auto location = core.nodes.locate(node);
  KnownMetadata::Ticket ticket;
  if (location) {
    core.known_metadata.file_changed(location->file);
    ticket = core.known_metadata.begin(location->file);
  }
  struct stat attributes {};
  if (::fstat(file, &attributes) != 0) {
    request.error(errno);
    return;
  }
  // Who may see them was not asked.
  const double left = core.known_metadata.learn(ticket, attributes, request.caller(), true);
  core.nodes.observe(node, FileFacts::of(attributes));
  core.files.note_source_size(node, static_cast<std::uint64_t>(attributes.st_size));
  request.attributes(attributes, are_soon_others ? 0 : left);
}

void change_attributes(FuseCore& core, const KernelRequestPointer& request, NodeId node,
                       const std::shared_ptr<OpenFile>& handle, Wanted wanted) {
  FoundFile found = find_through(core, node, handle.get(), request->caller());
  if (found.error != 0) {
    request->error(found.error);
    return;
  }
  // Changing the size changes this time, too, and takes no more rights than that.
  if (wanted.has(FUSE_SET_ATTR_SIZE)) wanted.which &= ~kModifyTime;
  constexpr int kAll = kOwner | FUSE_SET_ATTR_MODE | kAccessTime | kModifyTime;
  if (wanted.has(kAll) || wanted.which == kNothing) {
    OwnChange change(core, found);
    int error = 0;
    {
      const CallerCredentials credentials(request->caller(), core.groups);
      error =
          credentials.error() != 0 ? credentials.error() : set_attributes(found.file.get(), wanted);
    }
    // Who may write need not be the owner.
    if (wanted.which == kNothing && error == EPERM) error = 0;
    core.known_metadata.file_changed(key_of(found.attributes));
    // Once we have set this time, it does not tell whether others changed the content.
    if (!wanted.has(kModifyTime)) change.end();
    if (error != 0) {
      request->error(error);
      return;
    }
  }
  if (!wanted.has(FUSE_SET_ATTR_SIZE)) {
    answer_attributes(core, *request, node, found.file.get(), wanted.which == kNothing);
    return;
  }
  set_size(core, request, node, handle.get(), static_cast<std::uint64_t>(wanted.attributes.st_size),
           [core = core.shared_from_this(), request, node, handle,
            file = std::make_shared<Descriptor>(std::move(found.file))](int error) {
             if (error != 0) {
               request->error(error);
             } else {
               answer_attributes(*core, *request, node, file->get());
             }
           });
}

void setattr(fuse_req_t raw, fuse_ino_t node, struct stat* attributes, int which,
             fuse_file_info* info) {
  auto handle = info != nullptr ? handle_of<OpenFile>(info->fh).shared_from_this() : nullptr;
  FuseCore::of(raw).post(raw,
                         [node, handle = std::move(handle), wanted = Wanted{*attributes, which}](
                             FuseCore& core, const KernelRequestPointer& request) {
                           change_attributes(core, request, node, handle, wanted);
                         });
}

// `call(path)` returns 0 or sets errno. With `is_allowed` the kernel has said who may, and the
// daemon does what the source refuses the caller.
template <typename Call>
void change_extended(fuse_req_t raw, NodeId node, Call call, bool is_allowed = false) {
  FuseCore::of(raw).post(raw, [node, call = std::move(call), is_allowed](
                                  FuseCore& core, const KernelRequestPointer& request) {
    const FoundFile found = find_or_held(core, node, request->caller());
    int error = found.error;
    if (error == 0) {
      OwnChange change(core, found);
      const std::string path = fmt::format("/proc/self/fd/{}", found.file.get());
      {
        const CallerCredentials credentials(request->caller(), core.groups);
        error = credentials.error() != 0  ? credentials.error()
                : call(path.c_str()) == 0 ? 0
                                          : errno;
      }
      if (error == EPERM && is_allowed) error = call(path.c_str()) == 0 ? 0 : errno;
      core.known_metadata.file_changed(key_of(found.attributes));
      change.end();
    }
    request->error(error);
  });
}

void setxattr(fuse_req_t raw, fuse_ino_t node, const char* name, const char* value,
              std::size_t size, int flags) {
  if (const auto ours = virtual_attribute(name)) {
    set_virtual_attribute(FuseCore::of(raw), raw, node, *ours, std::string(value, size), flags);
    return;
  }
  change_extended(raw, node,
                  [name = std::string(name), bytes = std::vector<char>(value, value + size),
                   flags](const char* path) {
                    return ::setxattr(path, name.c_str(), bytes.data(), bytes.size(), flags);
                  });
}

void removexattr(fuse_req_t raw, fuse_ino_t node, const char* name) {
  if (virtual_attribute(name)) {
    fuse_reply_err(raw, EOPNOTSUPP);
    return;
  }
  // Who writes to a program takes its capabilities away, as whoever he is: the kernel asks for that
  // on his behalf, and for nobody else who may not remove them (cap_inode_removexattr() of
  // security/commoncap.c).
  const bool is_capability = std::string_view(name) == XATTR_NAME_CAPS;
  change_extended(
      raw, node,
      [name = std::string(name)](const char* path) { return ::removexattr(path, name.c_str()); },
      is_capability);
}

}  // namespace

void add_attribute_operations(fuse_lowlevel_ops& table) {
  table.setattr = setattr;
  table.setxattr = setxattr;
  table.removexattr = removexattr;
}

}  // namespace ncfs
