// A simulated backend tree that several clients change, and everything it ever was: what the cache
// tells of names and attributes is compared with its history.
//
// The server stamps files with a clock that has ticks and may be ahead; it may tell a change
// attribute; it may give a removed file's number to a new one. A private directory shows what is in
// it to its owner only, to no other caller and not to the daemon (root squash).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/metadata.h"

namespace ncfs {

using Inode = std::uint64_t;

struct RemoteFile {
  std::uint32_t type = 0;     // S_IFMT part of st_mode
  std::uint64_t content = 0;  // a number for all bytes; the target, of a link
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;
  std::int64_t ctime_ns = 0;
  std::uint64_t change = 0;
  std::uint32_t mode = 0644;
  bool is_private = false;             // directories
  std::map<std::string, Inode> names;  // directories
  friend bool operator==(const RemoteFile&, const RemoteFile&) = default;
};
using RemoteState = std::map<Inode, RemoteFile>;

enum class RemoteOp : std::uint8_t {
  create,
  symlink,
  unlink,
  rename,        // onto whatever has the other name
  link,          // another name of the same file
  grow,          // new content
  shrink,        // new content
  rewrite,       // new content, same size
  restore,       // new content, same size, mtime put back
  chmod,         // other permissions of the file
  make_private,  // the directory; or shows it again
  swap_folders,  // the two directories in the root exchange their names
  kCount,
};

struct RemoteChange {
  RemoteOp op{};
  Inode directory = 0;
  std::string name;
  Inode other_directory = 0;  // rename and link
  std::string other_name;
};

// What a change did, for who has to tell a cache of it.
struct RemoteEffect {
  bool is_done = false;
  Inode file = 0;      // that `name` led to, or leads to now
  Inode replaced = 0;  // that the other name led to
};

class RemoteTree {
 public:
  struct Knobs {
    Nanos tick = 1;  // of the server's clock
    Nanos ahead = 0;
    bool tells_change = false;
    bool reuses_inodes = false;
  };
  static constexpr Inode kRoot = 1;
  static constexpr Inode kFolders[2] = {2, 3};  // "d0" and "d1" in the root

  explicit RemoteTree(const Knobs& knobs);

  RemoteEffect apply(Nanos now, const RemoteChange& change);

  [[nodiscard]] const RemoteState& state() const { return history_.back().state; }
  // States are numbered from 0; each is true from its time to that of the next.
  [[nodiscard]] std::size_t last() const { return history_.size() - 1; }
  struct Moment {
    Nanos at = 0;
    RemoteState state;
  };
  [[nodiscard]] const std::vector<Moment>& history() const { return history_; }

  // As a stat tells them now. Nothing if there is no such file.
  [[nodiscard]] std::optional<FileAttributes> attributes(Nanos now, Inode file) const;

  static constexpr std::uint32_t kOwner = 1;  // the user that private directories belong to
  [[nodiscard]] static bool may_search(const RemoteState& state, Inode directory,
                                       const Viewer& viewer);
  [[nodiscard]] static std::optional<Inode> look_up(const RemoteState& state, Inode directory,
                                                    const std::string& name);

 private:
  [[nodiscard]] std::int64_t stamp(Nanos now) const;
  void touch(RemoteState& state, Nanos now, Inode file, bool is_modified);
  Inode new_inode(const RemoteState& state);
  void drop_if_nameless(RemoteState& state, Nanos now, Inode file);
  RemoteEffect apply_to(RemoteState& state, Nanos now, const RemoteChange& change);
  RemoteEffect apply_to_names(RemoteState& state, Nanos now, const RemoteChange& change);
  RemoteEffect apply_to_file(RemoteState& state, Nanos now, const RemoteChange& change);

  const Knobs knobs_;
  std::vector<Moment> history_;
  std::uint64_t next_content_ = 1;
  std::uint64_t next_change_ = 1;
  Inode next_inode_ = 4;
};

}  // namespace ncfs
