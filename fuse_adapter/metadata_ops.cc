// Names and attributes.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuse_adapter/fuse_ops.h"
#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

// How long the source is waited for where something else can stand in for its answer. A server that
// is well and busy answers within this.
constexpr Nanos kShortPatience = kSecond;
// How long the kernel may believe attributes that nobody confirmed.
constexpr double kLateTimeoutSeconds = 5.0;

void answer_name(FuseCore& core, KernelRequest& request, NodeId parent, const std::string& name,
                 const struct stat& attributes, const KnownMetadata::Left& left) {
  const NodeId node = core.nodes.look_up(parent, name, FileFacts::of(attributes));
  if (!request.entry(entry_of(node, attributes, left))) core.nodes.forget(node, 1);
}

void answer_absence(KernelRequest& request, const KnownMetadata::Left& left) {
  fuse_entry_param absent{};
  absent.entry_timeout = left.entry;
  request.entry(absent);
}

// On a dispatch thread, as what is in memory needs nobody to wait.
bool look_up_in_memory(FuseCore& core, fuse_req_t raw, NodeId parent, std::string_view name) {
  const Caller caller = caller_of(raw);
  // After an ESTALE nothing that was known of the path is to be believed.
  if (core.stale.is_looking_up_again(caller.thread)) return false;
  const auto directory = core.nodes.file_of(parent);
  if (!directory) return false;
  const auto known = core.known_metadata.find_name(*directory, name, caller);
  if (!known || is_being_written(core, known->attributes)) return false;
  fuse_entry_param entry{};
  entry.entry_timeout = known->left.entry;
  if (known->exists) {
    const NodeId node = core.nodes.look_up(parent, name, FileFacts::of(known->attributes));
    entry = entry_of(node, core.channel->shown(known->attributes), known->left);
  }
  if (fuse_reply_entry(raw, &entry) != 0 && known->exists) core.nodes.forget(entry.ino, 1);
  return true;
}

void answer_look_up(FuseCore& core, const KernelRequestPointer& request, NodeId parent,
                    const std::string& name) {
  const FoundFile directory = core.find(parent, request->caller(), AT_STATX_DONT_SYNC);
  if (directory.error != 0) {
    request->error(directory.error);
    return;
  }
  const FoundChild child = find_child(core, directory, name.c_str(), request->caller());
  if (child.error == ENOENT) {
    answer_absence(*request, child.left);
  } else if (child.error != 0) {
    request->error(child.error);
  } else {
    answer_name(core, *request, parent, name, child.attributes, child.left);
  }
}

// The functions called "unasked" are for when the backend does not answer: true if they did.

bool look_up_unasked(FuseCore& core, const KernelRequestPointer& request, NodeId parent,
                     const std::string& name) {
  const auto directory = core.nodes.file_of(parent);
  if (!directory) return false;
  const Caller& caller = request->caller();
  const auto known = core.known_metadata.find_name(*directory, name, caller, Belief::unasked);
  if (!known || is_being_written(core, known->attributes)) return false;
  if (known->exists) {
    answer_name(core, *request, parent, name, known->attributes, known->left);
  } else {
    answer_absence(*request, known->left);
  }
  return true;
}

void look_up(fuse_req_t raw, fuse_ino_t parent, const char* name) {
  // Only a re-exporting server asks for these, and ".." could lead out of the tree.
  const std::string_view asked(name);
  if (asked == "." || asked == "..") {
    fuse_reply_err(raw, ESTALE);
    return;
  }
  if (look_up_in_memory(FuseCore::of(raw), raw, parent, asked)) return;
  FuseCore::of(raw).post(
      raw,
      [parent, name = std::string(name)](FuseCore& core, const KernelRequestPointer& request) {
        answer_look_up(core, request, parent, name);
      },
      [parent, name = std::string(name)](FuseCore& core, const KernelRequestPointer& request) {
        return look_up_unasked(core, request, parent, name);
      },
      {.child = name, .is_repeatable = true});
}

void forget(fuse_req_t raw, fuse_ino_t node, std::uint64_t lookups) {
  FuseCore::of(raw).nodes.forget(node, lookups);
  fuse_reply_none(raw);
}

void forget_multi(fuse_req_t raw, std::size_t count, fuse_forget_data* forgets) {
  FuseCore& core = FuseCore::of(raw);
  for (std::size_t index = 0; index < count; ++index) {
    core.nodes.forget(forgets[index].ino, forgets[index].nlookup);
  }
  fuse_reply_none(raw);
}

// A file that is open may have no name any more, or be written to: it is asked about.
bool get_attributes_from_memory(FuseCore& core, fuse_req_t raw, NodeId node) {
  const auto file = core.nodes.file_of(node);
  if (!file || core.files.any_of(node)) return false;
  const auto known = core.known_metadata.find_attributes(*file, caller_of(raw));
  if (!known || is_being_written(core, known->attributes)) return false;
  core.nodes.observe(node, FileFacts::of(known->attributes));
  const struct stat shown = core.channel->shown(known->attributes);
  fuse_reply_attr(raw, &shown, known->left);
  return true;
}

bool get_attributes_unasked(FuseCore& core, KernelRequest& request, NodeId node) {
  const auto file = core.nodes.file_of(node);
  if (!file) return false;
  const auto known = core.known_metadata.find_attributes(*file, request.caller(), Belief::unasked);
  if (!known || is_being_written(core, known->attributes)) return false;
  request.attributes(known->attributes, known->left);
  return true;
}

void getattr(fuse_req_t raw, fuse_ino_t node, fuse_file_info*) {
  if (get_attributes_from_memory(FuseCore::of(raw), raw, node)) return;
  const auto answer = [node](FuseCore& core, const KernelRequestPointer& request) {
    struct stat attributes {};
    const auto location = core.nodes.locate(node);
    KnownMetadata::Ticket ticket;  // of a file that has no name any more: of before anything
    if (location) ticket = core.known_metadata.begin(location->file);
    bool as_caller = false;
    const int error = stat_node(core, node, request->caller(), attributes, &as_caller);
    if (error != 0) {
      request->error(error);
      return;
    }
    const double left = core.known_metadata.learn(ticket, attributes, request->caller(), as_caller);
    core.nodes.observe(node, FileFacts::of(attributes));
    core.files.note_source_size(node, static_cast<std::uint64_t>(attributes.st_size));
    request->attributes(attributes, left);
  };
  // The kernel asks before it reads to the end of a file, and fails the read if there is no answer.
  // What is open for reading can be read while the source is silent, so it is soon told what is
  // known, and for some time, or every such read would wait anew.
  const auto answer_late = [node](FuseCore& core, const KernelRequestPointer& request) {
    const auto holder = core.files.any_of(node);
    struct stat attributes {};
    if (holder == nullptr) return get_attributes_unasked(core, *request, node);
    // By the kernel's memory: the source is not asked.
    const int flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
    if (stat_at(holder->source, "", flags, attributes) != 0) return false;
    request->attributes(attributes, kLateTimeoutSeconds);
    return true;
  };
  FuseCore& core = FuseCore::of(raw);
  const auto holder = core.files.any_of(node);
  const bool is_read_only = holder != nullptr && !holder->is_written();
  core.post(raw, answer, answer_late,
            {.patience = is_read_only ? kShortPatience : 0, .is_repeatable = true});
}

// Runs `use` with the file found, answering the error if it was not.
template <typename Use>
void post_with_file(fuse_req_t raw, NodeId node, Use use) {
  FuseCore::of(raw).post(
      raw, [node, use = std::move(use)](FuseCore& core, const KernelRequestPointer& request) {
        const FoundFile found = find_or_held(core, node, request->caller());
        if (found.error == 0) {
          use(core, *request, found);
        } else {
          request->error(found.error);
        }
      });
}

void answer_link(FuseCore& core, KernelRequest& request, NodeId node) {
  const auto known = core.nodes.file_of(node);
  KnownMetadata::Ticket ticket;
  if (known) ticket = core.known_metadata.begin(*known);
  const FoundFile link = find_or_held(core, node, request.caller());
  std::array<char, PATH_MAX> buffer{};
  ssize_t length = -1;
  int error = link.error;
  if (error == 0) {
    core.stats->source_looks.add();
    length = ::readlinkat(link.file.get(), "", buffer.data(), buffer.size());
    if (length < 0) error = errno;
  }
  if (error != 0) {
    request.error(error);
    return;
  }
  const std::string target(buffer.data(), static_cast<std::size_t>(length));
  core.known_metadata.learn_target(ticket, key_of(link.attributes), target, request.caller(),
                                   link.as_caller);
  request.link(target);
}

void readlink(fuse_req_t raw, fuse_ino_t node) {
  FuseCore& core = FuseCore::of(raw);
  const auto link = core.nodes.file_of(node);
  if (link) {
    if (const auto target = core.known_metadata.find_target(*link, caller_of(raw))) {
      fuse_reply_readlink(raw, target->c_str());
      return;
    }
  }
  core.post(
      raw,
      [node](FuseCore& mount, const KernelRequestPointer& request) {
        answer_link(mount, *request, node);
      },
      [link](FuseCore& mount, const KernelRequestPointer& request) {
        if (!link) return false;
        const auto target =
            mount.known_metadata.find_target(*link, request->caller(), Belief::unasked);
        if (target) request->link(*target);
        return target.has_value();
      },
      {.is_repeatable = true});
}

void access(fuse_req_t raw, fuse_ino_t node, int mask) {
  if ((mask & W_OK) != 0 && FuseCore::of(raw).settings.is_read_only()) {
    fuse_reply_err(raw, EROFS);
    return;
  }
  post_with_file(raw, node, [mask](FuseCore& core, KernelRequest& request, const FoundFile& found) {
    const CallerCredentials credentials(request.caller(), core.groups);
    int error = credentials.error();
    // AT_EACCESS: by the file ids of this thread, not by the real ids of the daemon.
    if (error == 0 &&
        ::syscall(SYS_faccessat2, found.file.get(), "", mask, AT_EMPTY_PATH | AT_EACCESS) != 0) {
      error = errno;
    }
    request.error(error);
  });
}

void statfs(fuse_req_t raw, fuse_ino_t node) {
  const NodeId asked = node == 0 ? kRootNode : node;
  const auto answer = [asked](FuseCore& core, const KernelRequestPointer& request) {
    LastSpaces::Space space;
    space.asked_at = monotonic_now();
    space.changes = core.known_metadata.changes();
    const FoundFile found = find_or_held(core, asked, request->caller());
    if (found.error != 0) {
      request->error(found.error);
    } else if (::fstatvfs(found.file.get(), &space.status) != 0) {
      request->error(errno);
    } else {
      core.spaces.note(core.device_of(asked), space);
      request->file_system(space.status);
    }
  };
  const auto answer_late = [asked](FuseCore& core, const KernelRequestPointer& request) {
    const auto known = core.spaces.find(core.device_of(asked));
    if (known) request->file_system(known->status);
    return known.has_value();
  };
  FuseCore& core = FuseCore::of(raw);
  const auto known = core.spaces.find(core.device_of(asked));
  const bool is_believed =
      known && monotonic_now() - known->asked_at < core.settings.metadata.dir_attr_timeout &&
      known->changes && known->changes == core.known_metadata.changes();
  if (is_believed) {
    fuse_reply_statfs(raw, &known->status);
    return;
  }
  core.post(raw, answer, answer_late,
            {.patience = known ? kShortPatience : 0, .is_repeatable = true});
}

// Answers what `call(path, buffer, size)` gives, by the protocol of xattr(7): size 0 asks for the
// size.
template <typename Call>
void answer_attribute(FuseCore& core, KernelRequest& request, const FoundFile& found,
                      std::size_t size, const Call& call) {
  const CallerCredentials credentials(request.caller(), core.groups);
  if (credentials.error() != 0) {
    request.error(credentials.error());
    return;
  }
  const std::string path = fmt::format("/proc/self/fd/{}", found.file.get());
  std::vector<std::byte> value(std::min<std::size_t>(size, XATTR_SIZE_MAX));
  const ssize_t length = call(path.c_str(), value.data(), value.size());
  if (length < 0) {
    request.error(errno);
  } else if (size == 0) {
    request.attribute_size(static_cast<std::size_t>(length));
  } else {
    request.bytes(std::span(value).first(static_cast<std::size_t>(length)));
  }
}

// How old what is known of the node's attributes is, in seconds: shown to whoever may see the file.
constexpr std::string_view kAgeAttribute = "user.cachefs.metadata_age_s";

void answer_age(FuseCore& core, fuse_req_t raw, NodeId node, std::size_t size) {
  const auto file = core.nodes.file_of(node);
  const auto age = file ? core.known_metadata.age_of_attributes(*file) : std::nullopt;
  if (!age) {
    fuse_reply_err(raw, ENODATA);
    return;
  }
  const std::string text = fmt::format("{:.3f}", static_cast<double>(*age) / kSecond);
  if (size == 0) {
    fuse_reply_xattr(raw, text.size());
  } else if (size < text.size()) {
    fuse_reply_err(raw, ERANGE);
  } else {
    fuse_reply_buf(raw, text.data(), text.size());
  }
}

// The kernel asks for it before it lets anybody but the owner get at a file.
void get_acl(fuse_req_t raw, NodeId node, std::string_view name, std::size_t size) {
  const auto answer = [node, name = std::string(name), size](FuseCore& core,
                                                             const KernelRequestPointer& request) {
    const bool is_remembered = core.settings.metadata.stale_if_error > 0;
    const auto file = is_remembered ? core.nodes.file_of(node) : std::nullopt;
    KnownMetadata::Ticket ticket;
    if (file) ticket = core.known_metadata.begin(*file);
    const FoundFile found = find_or_held(core, node, request->caller());
    if (found.error != 0) {
      request->error(found.error);
      return;
    }
    answer_attribute(core, *request, found, size,
                     [&](const char* path, void* acl, std::size_t room) {
                       const ssize_t length = ::getxattr(path, name.c_str(), acl, room);
                       const int error = length < 0 ? errno : 0;
                       const bool is_none = error == ENODATA || error == EOPNOTSUPP;
                       if (is_none && file) core.known_metadata.learn_no_acl(ticket, *file, error);
                       errno = error;
                       return length;
                     });
  };
  const auto answer_unasked = [node](FuseCore& core, const KernelRequestPointer& request) {
    const auto file = core.nodes.file_of(node);
    const auto error = file ? core.known_metadata.find_no_acl(*file) : std::nullopt;
    if (error) request->error(*error);
    return error.has_value();
  };
  FuseCore::of(raw).post(raw, answer, answer_unasked, {.is_repeatable = true});
}

void getxattr(fuse_req_t raw, fuse_ino_t node, const char* name, std::size_t size) {
  if (name == kAgeAttribute) {
    answer_age(FuseCore::of(raw), raw, node, size);
    return;
  }
  if (const auto ours = virtual_attribute(name)) {
    get_virtual_attribute(FuseCore::of(raw), raw, node, *ours, size);
    return;
  }
  if (std::string_view(name) == "system.posix_acl_access") {
    get_acl(raw, node, name, size);
    return;
  }
  post_with_file(raw, node,
                 [name = std::string(name), size](FuseCore& core, KernelRequest& request,
                                                  const FoundFile& found) {
                   answer_attribute(core, request, found, size,
                                    [&name](const char* path, void* value, std::size_t room) {
                                      return ::getxattr(path, name.c_str(), value, room);
                                    });
                 });
}

void listxattr(fuse_req_t raw, fuse_ino_t node, std::size_t size) {
  post_with_file(raw, node, [size](FuseCore& core, KernelRequest& request, const FoundFile& found) {
    answer_attribute(core, request, found, size,
                     [](const char* path, std::byte* list, std::size_t room) -> ssize_t {
                       std::string all(XATTR_LIST_MAX, '\0');
                       const ssize_t length = ::listxattr(path, all.data(), all.size());
                       if (length < 0) return length;
                       all.resize(static_cast<std::size_t>(length));
                       const std::string shown = without_virtual_attributes(all);
                       if (room > 0 && shown.size() > room) {
                         errno = ERANGE;
                         return -1;
                       }
                       if (room > 0) std::memcpy(list, shown.data(), shown.size());
                       return static_cast<ssize_t>(shown.size());
                     });
  });
}

}  // namespace

FoundFile find_or_held(FuseCore& core, NodeId node, const Caller& caller) {
  FoundFile found = core.find(node, caller);
  if (found.error != ESTALE) return found;
  const auto holder = core.files.any_of(node);
  found.file = holder ? Descriptor(::fcntl(holder->source, F_DUPFD_CLOEXEC, 0))
                      : core.directories.descriptor_of(node);
  const bool is_held = found.file.is_open() && ::fstat(found.file.get(), &found.attributes) == 0;
  found.error = is_held ? 0 : ESTALE;
  return found;
}

int stat_node(FuseCore& core, NodeId node, const Caller& caller, struct stat& attributes,
              bool* as_caller) {
  const auto open_file = core.files.any_of(node);
  if (open_file) core.stats->source_looks.add();
  if (open_file && ::fstat(open_file->source, &attributes) == 0) return 0;
  const FoundFile found = find_or_held(core, node, caller);
  attributes = found.attributes;
  if (as_caller != nullptr) *as_caller = found.as_caller;
  return found.error;
}

void add_metadata_operations(fuse_lowlevel_ops& table) {
  table.lookup = look_up;
  table.forget = forget;
  table.forget_multi = forget_multi;
  table.getattr = getattr;
  table.readlink = readlink;
  table.access = access;
  table.statfs = statfs;
  table.getxattr = getxattr;
  table.listxattr = listxattr;
}

}  // namespace ncfs
