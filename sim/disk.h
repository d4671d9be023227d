// A simulated cache disk that keeps apart what POSIX keeps apart:
//
//   cached    what system calls see: content and names, as the page cache has them
//   pending   the difference, an ordered list per file and per directory
//   durable   what a power loss cannot take away
//
// sync_file() and sync_directory() move pending operations to durable, each only its own kind: a
// file whose data was synced but whose name was not is lost with the name. kill() is the end of the
// process (everything cached survives); lose_power() keeps, drops or tears each pending operation
// as its Survivors choose. A file without a name lives on while it is open.
//
// All functions return a value >= 0 or -errno and take effect at once; when they are called is the
// business of SimIo. Handles are never used twice, so that a use after close is always seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/io.h"
#include "sim/survivors.h"

namespace ncfs {

enum class InodeId : std::uint64_t {};

inline constexpr std::uint64_t kSectorBytes = 512;  // written whole or not at all
inline constexpr std::uint64_t kTinySectorBytes = 32;
inline constexpr std::uint64_t kAllocationBytes = 4096;
// Twice the largest cache of the simulator: how large the disk says it is.
inline constexpr std::uint64_t kDiskBytes = 512 * kKiB;

class SimDisk {
 public:
  struct Options {
    // A journalling file system replays directory operations in order; others keep any of them.
    bool are_directories_ordered = false;
    // What a write of several sectors that power cuts short may leave besides its beginning: its
    // end; and whether sectors are so small that a sidecar has several.
    bool can_keep_suffix = false;
    bool has_tiny_sectors = false;
  };

  // A place in the list of pending operations of a file or directory; a sync makes durable what
  // lies before the point at which it was asked for, not what came after.
  using SyncPoint = std::uint64_t;

  SimDisk() : SimDisk(Options{}) {}
  explicit SimDisk(const Options& options) : options_(options) {}
  void set_options(const Options& options) { options_ = options; }

  // Made durably: directories come and go only when no cache is running.
  void make_directory(const std::string& name) { existing_.insert(name); }

  // Names are "directory/name". An opened file has a handle > 0.
  std::int64_t create(const std::string& name, std::uint64_t length_bytes, std::int64_t wall_ns);
  std::int64_t open(const std::string& name);
  std::int64_t close(FileHandle handle);
  enum class Rot : std::uint8_t { seen, ignored };
  std::int64_t read(FileHandle handle, std::uint64_t offset, std::span<std::byte> bytes,
                    Rot rot = Rot::seen) const;
  std::int64_t write(InodeId inode, std::uint64_t offset, std::span<const std::byte> bytes);
  std::int64_t replace_content(const std::string& name, std::span<const std::byte> bytes,
                               std::int64_t wall_ns);  // not synced
  std::int64_t load(const std::string& name, std::vector<std::byte>& bytes) const;
  // Between two directories, a rename is two operations that a power loss can tell apart.
  std::int64_t rename(const std::string& from, const std::string& to);
  std::int64_t unlink(const std::string& name, FileHandle unless_others_have_it_open);
  std::int64_t touch(const std::string& name, std::int64_t wall_ns);
  std::int64_t list(const std::string& directory, std::vector<CacheEntry>& entries) const;

  [[nodiscard]] SyncPoint file_sync_point() const { return next_sequence_; }
  void sync_file(InodeId inode, SyncPoint point);
  // The kernel marks the pages clean though they never reached the disk: the next sync of the file
  // reports success and makes nothing durable.
  void fail_file_sync(InodeId inode);
  std::int64_t sync_directory(const std::string& directory, SyncPoint point);

  // A disk that acknowledges syncs and keeps the data in a cache of its own. What it acknowledged
  // falsely is durable only after a later, honest sync.
  void set_lying(bool is_lying) {
    is_lying_ = is_lying;
    has_lied_ = has_lied_ || is_lying;
  }
  // At any time until now.
  [[nodiscard]] bool has_lied() const { return has_lied_; }
  // Something of the file, or of the directory that holds the name, was falsely acknowledged and is
  // still not durable.
  [[nodiscard]] bool is_lied_about(InodeId inode) const;
  [[nodiscard]] bool is_lied_about(const std::string& name) const;
  // A power loss took what was acknowledged: the content is anything.
  [[nodiscard]] bool is_ruined(InodeId inode) const { return get(inode).is_ruined; }

  // A file that only an administrator could remove (chattr +i): -EPERM.
  void stick(InodeId inode) { stuck_.insert(inode); }
  void unstick_all() { stuck_.clear(); }

  void kill();
  void lose_power(Survivors& survivors);

  // On the medium and in the page cache alike.
  void flip_bit(InodeId inode, std::uint64_t bit);
  // Rot that is kept apart from the content, so that what should be there stays known: read() sees
  // it, load() and view() do not. A write over it heals it.
  void rot_bit(InodeId inode, std::uint64_t bit);
  void heal_rot() {
    for (auto& [id, inode] : inodes_) inode.rot.clear();
  }
  // Offsets of the bytes with a rotten bit.
  [[nodiscard]] std::set<std::uint64_t> rotten_bytes(InodeId inode) const;
  [[nodiscard]] bool is_rotten(InodeId inode, std::uint64_t offset, std::uint64_t length) const;

  // Another process, or the kernel for a mapping, has the file open.
  void hold(InodeId inode);
  void release_hold(InodeId inode);

  // What others leave of the disk.
  void limit_capacity(std::uint64_t bytes) {
    capacity_ = bytes;
    ++capacity_changes_;
  }
  [[nodiscard]] std::uint64_t capacity_changes() const { return capacity_changes_; }
  [[nodiscard]] FileSystemSpace space() const;
  [[nodiscard]] std::uint64_t allocated_bytes() const;  // open files without a name included
  // Of these, what has no name and is open in other processes only.
  [[nodiscard]] std::uint64_t invisible_bytes() const;

  [[nodiscard]] std::optional<InodeId> inode_of(FileHandle handle) const;
  [[nodiscard]] std::optional<InodeId> inode_named(const std::string& name) const;
  [[nodiscard]] bool exists(InodeId inode) const;
  [[nodiscard]] std::size_t handles_open() const { return handles_.size(); }
  [[nodiscard]] std::size_t names_count() const;

  // For the oracle. changes() grows whenever a name or a content does change, cached or durable;
  // `revision` whenever the content of the one file does.
  [[nodiscard]] std::uint64_t changes() const { return changes_; }
  struct FileView {
    std::span<const std::byte> cached;
    std::span<const std::byte> durable;
    std::uint64_t revision = 0;
    bool has_pending = false;
  };
  [[nodiscard]] FileView view(InodeId inode) const;
  using Names = std::map<std::string, InodeId>;  // "directory/name"
  [[nodiscard]] Names names_cached() const;
  [[nodiscard]] Names names_durable() const;

 private:
  struct DataOperation {
    SyncPoint sequence = 0;
    bool sets_size = false;
    std::uint64_t offset = 0;  // or the new size
    std::vector<std::byte> bytes;
  };
  struct Inode {
    std::vector<std::byte> cached;
    std::vector<std::byte> durable;
    std::vector<DataOperation> pending;
    std::set<std::uint64_t> rot;  // bits
    std::int64_t mtime_ns = 0;
    std::uint64_t revision = 0;
    std::uint32_t names = 0;    // in the cached view
    std::uint32_t handles = 0;  // of the process that dies in a crash
    std::uint32_t holds = 0;    // of others
    SyncPoint lied_until = 0;   // operations before it were acknowledged as durable
    bool has_lost_lie = false;  // of these, some were lost when a later sync failed
    bool is_ruined = false;
  };
  struct DirectoryOperation {
    SyncPoint sequence = 0;
    std::string removed;  // a name, or empty
    std::string added;    // a name, or empty
    InodeId inode{};
  };
  struct Directory {
    Names cached;
    Names durable;
    std::vector<DirectoryOperation> pending;
    SyncPoint lied_until = 0;
  };

  [[nodiscard]] static std::uint64_t allocated(const Inode& inode);
  [[nodiscard]] static bool is_live(const Inode& inode);
  [[nodiscard]] bool has_room(std::uint64_t bytes) const;
  static void apply(std::vector<std::byte>& content, const DataOperation& operation);
  static void apply(Names& names, const DirectoryOperation& operation);
  void apply_as_chosen(std::vector<std::byte>& content, const DataOperation& operation,
                       Survivors& survivors) const;
  void lose_names(Survivors& survivors);
  void add_data_operation(Inode& inode, DataOperation operation);
  void change_directory(Directory& directory, DirectoryOperation operation);
  InodeId new_inode(std::int64_t wall_ns);
  FileHandle new_handle(InodeId inode);
  void forget_unreachable();
  void touch_content(Inode& inode);
  Inode& get(InodeId inode);
  [[nodiscard]] const Inode& get(InodeId inode) const;

  Options options_;
  bool is_lying_ = false;
  bool has_lied_ = false;
  std::set<InodeId> stuck_;
  std::map<InodeId, Inode> inodes_;
  std::set<std::string> existing_;
  std::map<std::string, Directory> directories_;  // those with entries, now or once
  std::map<FileHandle, InodeId> handles_;
  std::uint64_t next_inode_ = 1;
  std::int32_t next_handle_ = 1;
  SyncPoint next_sequence_ = 1;
  std::uint64_t changes_ = 0;
  std::uint64_t capacity_ = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t capacity_changes_ = 0;
};

}  // namespace ncfs
