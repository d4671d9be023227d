// Listing directories.
#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "fuse_adapter/fuse_ops.h"

namespace ncfs {
namespace {

// The kernel asks for a page, newer ones for up to as much as one read.
constexpr std::size_t kListingMax = kMiB;

void opendir(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info) {
  if (FuseCore::of(raw).refuse_open(raw)) return;
  FuseCore::of(raw).post(raw, [node, answer = *info](FuseCore& core,
                                                     const KernelRequestPointer& request) mutable {
    const FoundFile found = core.find(node, request->caller());
    int error = found.error;
    Descriptor opened;
    if (error == 0) {
      opened = core.tree.reopen(found.file.get(), O_RDONLY | O_DIRECTORY, request->caller(), error);
    }
    DIR* const stream = error == 0 ? ::fdopendir(opened.get()) : nullptr;
    if (stream == nullptr) {
      request->error(error != 0 ? error : errno);
      return;
    }
    static_cast<void>(opened.release());  // the stream's now
    auto directory = std::make_shared<OpenDirectory>(stream, found.attributes.st_dev);
    core.directories.add(directory);
    answer.fh = number_of(*directory);
    if (!request->opened(answer)) core.directories.remove(*directory);
  });
}

void releasedir(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info) {
  FuseCore& core = FuseCore::of(raw);
  auto directory = core.directories.remove(handle_of<OpenDirectory>(info->fh));
  // Nobody waits for the answer. Closing may wait for the source; a pool that is full drops it
  // here.
  fuse_reply_err(raw, 0);
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
    if (offset != directory_.position) {
      ::seekdir(directory_.stream, offset);
      directory_.position = offset;
      directory_.next = nullptr;
    }
    while (true) {
      if (directory_.next == nullptr) {
        errno = 0;
        directory_.next = ::readdir(directory_.stream);
        if (directory_.next == nullptr) return used_ == 0 ? errno : 0;
      }
      const bool fits = with_attributes ? add_with_attributes(node, *directory_.next)
                                        : add_plain(*directory_.next);
      if (!fits) return 0;
      directory_.position = directory_.next->d_off;
      directory_.next = nullptr;
    }
  }

  void answer() {
    const auto bytes = std::as_bytes(std::span(buffer_).first(used_));
    if (request_.bytes(bytes)) return;
    for (const NodeId node : looked_up_) core_.nodes.forget(node, 1);
  }

 private:
  [[nodiscard]] ino_t shown_inode(const dirent& entry) const {
    return core_.channel->shown_inode(directory_.device, entry.d_ino);
  }

  bool add_plain(const dirent& entry) {
    struct stat attributes {};
    attributes.st_ino = shown_inode(entry);
    attributes.st_mode = static_cast<mode_t>(DTTOIF(entry.d_type));
    const std::size_t needed =
        fuse_add_direntry(nullptr, nullptr, 0, entry.d_name, &attributes, entry.d_off);
    if (needed > room_ - used_) return false;
    fuse_add_direntry(nullptr, buffer_.data() + used_, needed, entry.d_name, &attributes,
                      entry.d_off);
    used_ += needed;
    return true;
  }

  // A name whose attributes cannot be had is listed without, and so is what is mounted there: that
  // is another file system's to answer. The kernel will look it up if need be.
  bool add_with_attributes(NodeId parent, const dirent& entry) {
    const std::size_t needed =
        fuse_add_direntry_plus(nullptr, nullptr, 0, entry.d_name, nullptr, entry.d_off);
    if (needed > room_ - used_) return false;
    fuse_entry_param found{};
    found.attr.st_ino = shown_inode(entry);
    found.attr.st_mode = static_cast<mode_t>(DTTOIF(entry.d_type));
    const std::string_view name(entry.d_name);
    struct stat attributes {};
    const bool is_child = name != "." && name != ".." &&
                          (!core_.backends->are_several() ||
                           core_.device_of(parent) == core_.device_of(parent, std::string(name)));
    if (is_child && stat_child(core_, ::dirfd(directory_.stream), entry.d_name, request_.caller(),
                               attributes) == 0) {
      const NodeId node = core_.nodes.look_up(parent, name, FileFacts::of(attributes));
      looked_up_.push_back(node);
      found = entry_of(node, attributes);
      found.attr.st_ino = core_.channel->shown_inode(attributes.st_dev, attributes.st_ino);
    }
    fuse_add_direntry_plus(nullptr, buffer_.data() + used_, needed, entry.d_name, &found,
                           entry.d_off);
    used_ += needed;
    return true;
  }

  FuseCore& core_;
  KernelRequest& request_;
  OpenDirectory& directory_;
  const std::size_t room_;
  std::vector<char> buffer_ = std::vector<char>(room_);
  std::size_t used_ = 0;
  std::vector<NodeId> looked_up_;
};

void list(fuse_req_t raw, NodeId node, std::size_t size, off_t offset, const fuse_file_info& info,
          bool with_attributes) {
  auto directory = handle_of<OpenDirectory>(info.fh).shared_from_this();
  FuseCore::of(raw).post(raw,
                         [directory = std::move(directory), node, size, offset, with_attributes](
                             FuseCore& core, const KernelRequestPointer& request) {
                           const std::lock_guard lock(directory->mutex);
                           Listing listing(core, *request, *directory, size);
                           const int error = listing.fill(offset, node, with_attributes);
                           if (error != 0) {
                             request->error(error);
                           } else {
                             listing.answer();
                           }
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
