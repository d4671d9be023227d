// A simulated NFS server and the files other clients change on it.
//
// A file's content is a pure function of (inode, revision, offset), so that the oracle can say what
// any byte was at any time and nothing needs to be stored. A revision is one state of one inode;
// each change appends one. Several revisions can have equal SourceVersions when they fall into one
// tick of the server's clock: that is the trap which the racy window is for.
//
// Times are virtual nanoseconds; the wall clock of this host is kWallEpoch later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "io/io.h"

namespace ncfs {

inline constexpr std::int64_t kWallEpoch = 1'700'000'000'000'000'000;

[[nodiscard]] constexpr std::int64_t wall_clock(Nanos now) {
  return kWallEpoch + static_cast<std::int64_t>(now);
}

// One file on the server; a file replaced by rename gets a new one.
enum class SourceInode : std::uint64_t {};

struct SourceRevision {
  SourceVersion version;
  ByteRange edited;                // the bytes that differ from the revision before
  bool is_zeros = false;           // edited by growing the file
  std::vector<std::byte> literal;  // the edited bytes, where a test wants to choose them
};

class SimNfs {
 public:
  struct Options {
    // Granularity of the server's timestamps, and how far its clock is ahead of this host's.
    std::int64_t tick_ns = 1;
    std::int64_t lead_ns = 0;
  };

  explicit SimNfs(const Options& options) : options_(options) {}
  void set_options(const Options& options) { options_ = options; }

  // What other clients do. False if there is no such file (or, for add, if there is one).
  bool add(const std::string& path, std::uint64_t size_bytes, Nanos now);
  // Creates the file or overwrites it in place.
  void put(const std::string& path, std::span<const std::byte> bytes, Nanos now);
  // `range` begins within the file or at its end.
  bool write(const std::string& path, ByteRange range, Nanos now);
  bool write_and_restore_mtime(const std::string& path, ByteRange range, Nanos now);
  bool change_mode(const std::string& path, Nanos now);  // ctime changes, the content does not
  // The same, and the name, by our own mount. In the tick of its ctime nobody restores an mtime:
  // see RekeyEvent.
  bool change_mode_ourselves(const std::string& path, Nanos now);
  bool rename_ourselves(const std::string& from, const std::string& to, Nanos now);
  bool truncate(const std::string& path, std::uint64_t size_bytes, Nanos now);  // or grow
  // A new file takes the name; open handles of the old one go on if `keeps_old`, else are stale.
  bool replace(const std::string& path, std::uint64_t size_bytes, bool keeps_old, Nanos now);
  bool remove(const std::string& path, bool keeps_old);

  // What this client does. Values >= 0 or -errno.
  std::int64_t open(const std::string& path, SourceState& state, Nanos now);
  std::int64_t stat(FileHandle handle, SourceState& state, Nanos now) const;
  // Bytes of one revision, which must not be later than the current one.
  std::int64_t read(FileHandle handle, std::size_t revision, ByteRange range,
                    std::span<std::byte> bytes) const;
  std::int64_t close(FileHandle handle);
  void close_all() {  // this client died
    handles_.clear();
    lost_.clear();
  }
  // The server restarts and knows none of the handles open now.
  void reboot();

  // For the oracle. changes() grows with every revision of any file.
  [[nodiscard]] std::uint64_t changes() const { return changes_; }
  [[nodiscard]] bool is_open(FileHandle handle) const { return handles_.contains(handle); }
  [[nodiscard]] bool is_stale(FileHandle handle) const;
  [[nodiscard]] std::size_t handles_open() const { return handles_.size(); }
  [[nodiscard]] bool exists(const std::string& path) const { return paths_.contains(path); }
  [[nodiscard]] SourceInode inode_of(FileHandle handle) const;
  [[nodiscard]] SourceInode inode_at(const std::string& path) const;
  [[nodiscard]] FileId file_id(SourceInode inode) const;
  [[nodiscard]] const std::vector<SourceRevision>* history(const FileId& file) const;
  [[nodiscard]] const std::vector<SourceRevision>& history(SourceInode inode) const;
  // Fills `bytes` with what revision `revision` held from `offset`; all of it must be in the file.
  void content(SourceInode inode, std::size_t revision, std::uint64_t offset,
               std::span<std::byte> bytes) const;
  [[nodiscard]] std::size_t current_revision(SourceInode inode) const {
    return history(inode).size() - 1;
  }

 private:
  struct File {
    std::vector<SourceRevision> history;
    bool is_stale = false;
    std::int64_t own_change_ns = 0;  // ctime of the last one of ours
  };

  File* find(const std::string& path);
  void append(File& file, SourceRevision revision, std::uint64_t size_bytes, Nanos now);
  void create(const std::string& path, std::uint64_t size_bytes, Nanos now);
  [[nodiscard]] std::int64_t timestamp(Nanos now) const;
  [[nodiscard]] SourceState state_of(SourceInode inode, Nanos now) const;

  Options options_;
  std::map<SourceInode, File> files_;
  std::map<std::string, SourceInode> paths_;
  std::map<FileHandle, SourceInode> handles_;
  std::set<FileHandle> lost_;  // open, but the server knows them no more
  std::uint64_t next_inode_ = 1;
  std::uint64_t changes_ = 0;
  // Far from SimDisk's, so that a handle used on the wrong side is never valid there.
  std::int32_t next_handle_ = 1'000'000'000;
};

}  // namespace ncfs
