// Listing directories.
#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuse_adapter/fuse_ops.h"

namespace ncfs {
namespace {

// The kernel asks for a page, newer ones for up to as much as one read.
constexpr std::size_t kListingMax = kMiB;

// Opens the directory for reading as the caller, whom the source may refuse. An errno.
int open_stream(FuseCore& core, const Caller& caller, OpenDirectory& directory) {
  int error = 0;
  Descriptor opened =
      core.tree.reopen(directory.found.file.get(), O_RDONLY | O_DIRECTORY, caller, error);
  if (error != 0) return error;
  directory.stream.reset(::fdopendir(opened.get()));
  if (!directory.stream) return errno;
  static_cast<void>(opened.release());  // the stream's now
  return 0;
}

// Gets ready to list the directory as it is now: from memory if it has not changed, which takes one
// question, or none with nocto; else from a stream. An errno.
int prepare(FuseCore& core, const Caller& caller, NodeId node, OpenDirectory& directory) {
  using Step = KnownMetadata::ListingPlan::Step;
  const auto file = core.nodes.file_of(node);
  if (!file) return ESTALE;
  directory.file = *file;
  const KnownMetadata::ListingPlan plan = core.known_metadata.plan_listing(*file, caller);
  directory.is_at_start = true;
  directory.names = plan.snapshot;
  directory.stream.reset();
  directory.next = nullptr;
  if (plan.step == Step::serve) return 0;
  const KnownMetadata::Ticket ticket = core.known_metadata.begin(*file);
  FoundFile& found = directory.found;
  if (!found.file.is_open()) {
    found = core.find(node, caller);
  } else {
    core.stats->source_looks.add();
    found.error = stat_at(found.file.get(), "", AT_EMPTY_PATH, found.attributes);
  }
  if (found.error != 0) return found.error;
  if (plan.step == Step::validate && !plan.must_open) {
    directory.names =
        core.known_metadata.validate(ticket, found.attributes, caller, found.as_caller, false);
    if (directory.names) return 0;
  }
  if (const int error = open_stream(core, caller, directory); error != 0) return error;
  if (plan.step == Step::validate && plan.must_open) {
    struct stat attributes {};
    if (::fstat(::dirfd(directory.stream.get()), &attributes) != 0) return errno;
    directory.names =
        core.known_metadata.validate(ticket, attributes, caller, found.as_caller, true);
    if (directory.names) directory.stream.reset();
  }
  return 0;
}

// Reads the stream into memory, and goes back to its start if that is too much. An errno.
int read_names(FuseCore& core, const Caller& caller, OpenDirectory& directory) {
  DIR* const stream = directory.stream.get();
  struct stat before {};
  if (::fstat(::dirfd(stream), &before) != 0) return errno;
  const std::int64_t age_ns = KnownMetadata::age_of(before);
  const KnownMetadata::Ticket ticket = core.known_metadata.begin(key_of(before));
  auto names = std::make_shared<DirectorySnapshot>();
  core.stats->listings_read.add();
  core.stats->source_looks.add();
  while (true) {
    errno = 0;
    const dirent* const entry = ::readdir(stream);
    if (entry == nullptr) break;
    names->add(entry->d_name, entry->d_ino, static_cast<std::uint32_t>(DTTOIF(entry->d_type)));
    if (names->bytes() > core.settings.metadata.listings_bytes_max) {
      ::rewinddir(stream);
      directory.position = 0;
      return 0;
    }
  }
  if (errno != 0) return errno;
  names->finish();
  struct stat after {};
  if (::fstat(::dirfd(stream), &after) != 0) return errno;
  core.known_metadata.learn_listing(ticket, before, age_ns, after, names, caller);
  directory.names = std::move(names);
  directory.stream.reset();
  return 0;
}

// With nocto the kernel may keep the listing, too, until the next open that finds another one.
void let_kernel_keep(FuseCore& core, NodeId node, OpenDirectory& directory, fuse_file_info& info) {
  if (core.settings.metadata.is_close_to_open || !directory.names) return;
  const auto answer = core.nodes.open_listing(node, directory.names);
  if (!answer.may_fill) return;
  directory.filled_node = node;
  info.cache_readdir = 1;
  info.keep_cache = answer.keep ? 1 : 0;
}

void forget_directory(FuseCore& core, const OpenDirectory& directory) {
  core.directories.remove(directory);
  if (directory.filled_node != 0) core.nodes.release_listing(directory.filled_node);
}

void answer_opened(FuseCore& core, KernelRequest& request,
                   const std::shared_ptr<OpenDirectory>& directory, fuse_file_info answer) {
  core.directories.add(directory);
  answer.fh = number_of(*directory);
  if (!request.opened(answer)) forget_directory(core, *directory);
}

// While the backend does not answer: true if this did.
bool open_unasked(FuseCore& core, KernelRequest& request, NodeId node, const fuse_file_info& info) {
  using Step = KnownMetadata::ListingPlan::Step;
  const auto file = core.nodes.file_of(node);
  if (!file) return false;
  for (const Belief belief : {Belief::fresh, Belief::unasked}) {
    const auto plan = core.known_metadata.plan_listing(*file, request.caller(), belief);
    if (plan.step != Step::serve) continue;
    auto directory = std::make_shared<OpenDirectory>(node);
    directory->file = *file;
    directory->names = plan.snapshot;
    answer_opened(core, request, directory, info);
    return true;
  }
  return false;
}

// With nocto, on the dispatch thread: true if this answered.
bool open_from_memory(FuseCore& core, fuse_req_t raw, NodeId node, fuse_file_info answer) {
  using Step = KnownMetadata::ListingPlan::Step;
  if (core.settings.metadata.is_close_to_open) return false;
  const auto file = core.nodes.file_of(node);
  if (!file) return false;
  const auto plan = core.known_metadata.plan_listing(*file, caller_of(raw));
  if (plan.step != Step::serve) return false;
  auto directory = std::make_shared<OpenDirectory>(node);
  directory->file = *file;
  directory->names = plan.snapshot;
  directory->is_at_start = true;
  let_kernel_keep(core, node, *directory, answer);
  core.directories.add(directory);
  answer.fh = number_of(*directory);
  if (fuse_reply_open(raw, &answer) != 0) forget_directory(core, *directory);
  return true;
}

void opendir(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info) {
  if (FuseCore::of(raw).refuse_open(raw)) return;
  if (open_from_memory(FuseCore::of(raw), raw, node, *info)) return;
  FuseCore::of(raw).post(
      raw,
      [node, answer = *info](FuseCore& core, const KernelRequestPointer& request) mutable {
        auto directory = std::make_shared<OpenDirectory>(node);
        const Caller& caller = request->caller();
        int error = prepare(core, caller, node, *directory);
        const bool reads_ahead = !core.settings.metadata.is_close_to_open && directory->stream;
        if (error == 0 && reads_ahead) error = read_names(core, caller, *directory);
        if (error != 0) {
          request->error(error);
          return;
        }
        let_kernel_keep(core, node, *directory, answer);
        answer_opened(core, *request, directory, answer);
      },
      [node, info = *info](FuseCore& core, const KernelRequestPointer& request) {
        return open_unasked(core, *request, node, info);
      },
      {.is_repeatable = true});
}

void releasedir(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info) {
  FuseCore& core = FuseCore::of(raw);
  auto directory = core.directories.remove(handle_of<OpenDirectory>(info->fh));
  if (directory && directory->filled_node != 0) {
    core.nodes.release_listing(directory->filled_node);
  }
  // Nobody waits for the answer. Closing may wait for the source; a pool that is full drops it
  // here.
  fuse_reply_err(raw, 0);
  if (!directory || (!directory->stream && !directory->found.file.is_open())) return;
  static_cast<void>(core.metadata.submit({.run = [directory = std::move(directory)] {},
                                          .expire = [] {},
                                          .lane = core.device_of(node)}));
}

// One answer to READDIR or READDIRPLUS.
class Listing {
 public:
  Listing(FuseCore& core, KernelRequest& request, OpenDirectory& directory, std::size_t size)
      : core_(core), request_(request), directory_(directory), room_(std::min(size, kListingMax)) {}

  // An errno, if there is nothing else to tell.
  int fill(off_t offset, NodeId node, bool with_attributes) {
    // Rewound: what was listed may not be true any more.
    if (offset == 0 && !directory_.is_at_start) {
      const int error = prepare(core_, request_.caller(), node, directory_);
      if (error != 0) return error;
    }
    if (directory_.is_at_start && directory_.stream) {
      const int error = read_names(core_, request_.caller(), directory_);
      if (error != 0) return error;
    }
    directory_.is_at_start = false;
    return directory_.names ? fill_from_memory(offset, node, with_attributes)
                            : fill_from_stream(offset, node, with_attributes);
  }

  // While the backend does not answer: of `names`.
  void fill_unasked(off_t offset, NodeId node, bool with_attributes) {
    belief_ = Belief::unasked;
    fill_from_memory(offset, node, with_attributes);
  }

  void answer() {
    const auto bytes = std::as_bytes(std::span(buffer_).first(used_));
    if (request_.bytes(bytes)) return;
    for (const NodeId node : looked_up_) core_.nodes.forget(node, 1);
  }

 private:
  struct Entry {
    const char* name = nullptr;
    std::uint64_t inode = 0;
    std::uint32_t type = 0;
    off_t next = 0;  // position of the one after it
  };

  int fill_from_memory(off_t offset, NodeId node, bool with_attributes) {
    const DirectorySnapshot& names = *directory_.names;
    std::string name;
    for (auto position = static_cast<std::uint64_t>(offset); position < names.size(); ++position) {
      const DirectorySnapshot::Entry entry = names.at(position);
      name = entry.name;
      const auto next = static_cast<off_t>(position + 1);
      if (!add({name.c_str(), entry.inode, entry.type, next}, node, with_attributes)) return 0;
    }
    return 0;
  }

  int fill_from_stream(off_t offset, NodeId node, bool with_attributes) {
    DIR* const stream = directory_.stream.get();
    if (offset != directory_.position) {
      ::seekdir(stream, offset);
      directory_.position = offset;
      directory_.next = nullptr;
    }
    while (true) {
      if (directory_.next == nullptr) {
        errno = 0;
        directory_.next = ::readdir(stream);
        if (directory_.next == nullptr) return used_ == 0 ? errno : 0;
      }
      const dirent& entry = *directory_.next;
      const auto type = static_cast<std::uint32_t>(DTTOIF(entry.d_type));
      if (!add({entry.d_name, entry.d_ino, type, entry.d_off}, node, with_attributes)) return 0;
      directory_.position = entry.d_off;
      directory_.next = nullptr;
    }
  }

  // False if there is no room for it.
  bool add(const Entry& entry, NodeId parent, bool with_attributes) {
    return with_attributes ? add_with_attributes(parent, entry) : add_plain(entry);
  }

  [[nodiscard]] ino_t shown_inode(const Entry& entry) const {
    return core_.channel->shown_inode(directory_.file.device, entry.inode);
  }

  bool add_plain(const Entry& entry) {
    struct stat attributes {};
    attributes.st_ino = shown_inode(entry);
    attributes.st_mode = entry.type;
    const std::size_t needed =
        fuse_add_direntry(nullptr, nullptr, 0, entry.name, &attributes, entry.next);
    if (needed > room_ - used_) return false;
    fuse_add_direntry(nullptr, buffer_.data() + used_, needed, entry.name, &attributes, entry.next);
    used_ += needed;
    return true;
  }

  // A name whose attributes cannot be had is listed without, and so is what is mounted there: that
  // is another file system's to answer. The kernel will look it up if need be.
  bool add_with_attributes(NodeId parent, const Entry& entry) {
    const std::size_t needed =
        fuse_add_direntry_plus(nullptr, nullptr, 0, entry.name, nullptr, entry.next);
    if (needed > room_ - used_) return false;
    fuse_entry_param found{};
    found.attr.st_ino = shown_inode(entry);
    found.attr.st_mode = entry.type;
    const std::string_view name(entry.name);
    const bool is_child = name != "." && name != ".." &&
                          (!core_.backends->are_several() ||
                           core_.device_of(parent) == core_.device_of(parent, std::string(name)));
    if (is_child) {
      const FoundChild child = look_up(parent, entry.name);
      if (child.error == 0) {
        const NodeId node = core_.nodes.look_up(parent, name, FileFacts::of(child.attributes));
        looked_up_.push_back(node);
        found = entry_of(node, core_.channel->shown(child.attributes), child.left);
      }
    }
    fuse_add_direntry_plus(nullptr, buffer_.data() + used_, needed, entry.name, &found, entry.next);
    used_ += needed;
    return true;
  }

  FoundChild look_up(NodeId parent, const char* name) {
    auto known = core_.known_metadata.find_name(directory_.file, name, request_.caller());
    if (!known && belief_ == Belief::unasked) {
      known = core_.known_metadata.find_name(directory_.file, name, request_.caller(), belief_);
    }
    const bool is_written = known && is_being_written(core_, known->attributes);
    if (known && known->exists && !is_written) return {0, known->attributes, known->left};
    if (belief_ == Belief::unasked) return {ETIMEDOUT, {}, {}};
    if (!directory_.found.file.is_open()) {
      directory_.found = core_.find(parent, request_.caller(), AT_STATX_DONT_SYNC);
      if (directory_.found.error != 0) return {directory_.found.error, {}, {}};
    }
    return find_child(core_, directory_.found, name, request_.caller());
  }

  FuseCore& core_;
  KernelRequest& request_;
  OpenDirectory& directory_;
  const std::size_t room_;
  Belief belief_ = Belief::fresh;
  std::vector<char> buffer_ = std::vector<char>(room_);
  std::size_t used_ = 0;
  std::vector<NodeId> looked_up_;
};

// While the backend does not answer: a handle that has listed nothing yet gets what another one
// has, if there is such. The stream is left alone, as closing it may wait.
void recall_names(FuseCore& core, const Caller& caller, OpenDirectory& directory) {
  const auto plan = core.known_metadata.plan_listing(directory.file, caller, Belief::unasked);
  if (plan.step != KnownMetadata::ListingPlan::Step::serve) return;
  directory.names = plan.snapshot;
  directory.is_at_start = false;
}

void list(fuse_req_t raw, NodeId node, std::size_t size, off_t offset, const fuse_file_info& info,
          bool with_attributes) {
  auto directory = handle_of<OpenDirectory>(info.fh).shared_from_this();
  FuseCore::of(raw).post(
      raw,
      [directory, node, size, offset, with_attributes](FuseCore& core,
                                                       const KernelRequestPointer& request) {
        Listing listing(core, *request, *directory, size);
        int error = 0;
        {
          const std::lock_guard lock(directory->mutex);
          error = listing.fill(offset, node, with_attributes);
        }
        // Without the lock: whoever has the answer may ask on at once, and not find it free.
        error == 0 ? listing.answer() : static_cast<void>(request->error(error));
      },
      [directory, node, size, offset, with_attributes](FuseCore& core,
                                                       const KernelRequestPointer& request) {
        Listing listing(core, *request, *directory, size);
        {
          // A call that hangs may hold it.
          const std::unique_lock lock(directory->mutex, std::try_to_lock);
          if (!lock.owns_lock()) return false;
          if (!directory->names && offset == 0) recall_names(core, request->caller(), *directory);
          if (!directory->names) return false;
          listing.fill_unasked(offset, node, with_attributes);
        }
        listing.answer();
        return true;
      });
}

void readdir(fuse_req_t raw, fuse_ino_t node, std::size_t size, off_t offset,
             fuse_file_info* info) {
  list(raw, node, size, offset, *info, false);
}

void readdirplus(fuse_req_t raw, fuse_ino_t node, std::size_t size, off_t offset,
                 fuse_file_info* info) {
  list(raw, node, size, offset, *info, true);
}

}  // namespace

void add_directory_operations(fuse_lowlevel_ops& table) {
  table.opendir = opendir;
  table.releasedir = releasedir;
  table.readdir = readdir;
  table.readdirplus = readdirplus;
}

}  // namespace ncfs
