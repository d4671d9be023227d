// What is open of one file of the source, under whatever nodes, and our own changes of it.
//
// Our own change of a file must be seen by everybody who reads it through the mount, once it is
// answered. Two kinds of readers would not see it: who is served from what the cache holds of the
// version before, and who has pages of it in the kernel under another node. So
//   * every reader that was opened before a change reads the source from the change on, past the
//     cache (OpenFile::read_past_cache);
//   * so does a reader that is opened while somebody has the file open for writing, and one that
//     looked at the source before a change and is answered after it; neither is passed through to
//     the cache file;
//   * a change tells which other nodes hold pages, and which handles pass a cache file through.
//
// Or the kernel writes to the source's file without the daemon. Nobody hears of such a change, so
// it is let do so only while all who have the file open are passed through to the source as well,
// and everybody who opens it until the writer has closed it is, too: what they all read, write and
// map are the pages of one file, that of the source.
//
// Any thread. Lock order: this, then the InodeTable.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "fuse_adapter/inode_table.h"

namespace ncfs {

class OpenFile;

class SharedFile {
 public:
  explicit SharedFile(const FileKey& of_file) : key(of_file) {}
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  const FileKey key;

  // Changes so far. A reader asks before it looks at the source and says so when it joins; nothing
  // if it did not.
  [[nodiscard]] std::uint64_t changes() const;

  // What a file that was just opened saw of the source.
  struct Look {
    std::optional<std::uint64_t> changes;  // before it looked
    SourceVersion version;
  };
  struct Advice {
    bool may_pass = true;  // the kernel may read, or write, without the daemon
    // The kernel writes to the source without the daemon: to be passed through to it, too.
    bool is_written_unseen = false;
    // Somebody else changed the file while we have it open for writing, but do not write just now.
    bool is_foreign = false;
  };
  // `decide` sets the mode of the file, under the lock; false makes the file not join after all.
  using Decide = std::function<bool(const Advice&)>;
  bool join_reader(OpenFile& file, const Look& look, const Decide& decide);
  bool join_writer(OpenFile& file, const Look& look, const Decide& decide);
  // Somebody who wants to write was told to look up again: until then, or `until`, no reader makes
  // the file's new node one that cannot be written to.
  void expect_writer(Nanos until);
  void leave(OpenFile& file);  // by ~OpenFile

  // Somebody may change the file from now on, until end_writes().
  void begin_writes();
  void end_writes();
  [[nodiscard]] bool is_written() const;

  // The file was changed through the page cache of `node`, or past all page caches (0). Who has to
  // be told before the change is answered.
  struct Audience {
    std::vector<NodeId> nodes;                      // others, that are read through the kernel
    std::vector<std::shared_ptr<OpenFile>> passed;  // the kernel reads their cache files
  };
  [[nodiscard]] Audience note_change(NodeId node);

  // The audience of a change that nobody waits for is told while the returned pointer lives.
  [[nodiscard]] std::shared_ptr<void> begin_late_notice();
  // Keeps `held` until all such notices that have begun are over.
  void hold_for_late_notices(std::shared_ptr<void> held);

 private:
  [[nodiscard]] bool is_foreign(const Look& look);
  void add(OpenFile& file);

  mutable std::mutex mutex_;
  // Very many may have the same file open: of them all only changes are told.
  std::vector<OpenFile*> files_;
  std::size_t passed_to_source_ = 0;  // of files_
  std::size_t unseen_writers_ = 0;    // of these
  Look last_look_;
  std::uint64_t changes_ = 0;
  std::uint32_t writers_ = 0;
  Nanos writer_expected_until_ = 0;
  // Of the notices begun since hold_for_late_notices() was last called: what is held for them, and
  // the same of those that followed.
  using Held = std::vector<std::shared_ptr<void>>;
  std::weak_ptr<Held> late_notices_;
};

using SharedFilePointer = std::shared_ptr<SharedFile>;

// The files that are open or being opened.
class SharedFiles {
 public:
  [[nodiscard]] SharedFilePointer of(const FileKey& file);
  // Whether somebody may change the file just now, unseen by all but himself.
  [[nodiscard]] bool is_written(const FileKey& file) const;

 private:
  struct Table {
    std::mutex mutex;
    std::map<FileKey, std::weak_ptr<SharedFile>> files;
  };
  const std::shared_ptr<Table> table_ = std::make_shared<Table>();
};

// For as long as it lives a file may be changed through a node: whatever version is found of it is
// taken for our own. At its end the node stands for the version last noted, and is retired if none
// was.
class WriteSession {
 public:
  // The table lives as long as `owner`.
  WriteSession(InodeTable& nodes, std::shared_ptr<void> owner, NodeId node, SharedFilePointer file);
  ~WriteSession();
  WriteSession(const WriteSession&) = delete;
  WriteSession& operator=(const WriteSession&) = delete;

  void note(const FileFacts& facts) { facts_ = facts; }
  // Until its end `held` lives.
  void keep(std::shared_ptr<void> held) { held_ = std::move(held); }

 private:
  const std::shared_ptr<void> owner_;
  InodeTable& nodes_;
  const NodeId node_;
  const SharedFilePointer file_;
  std::optional<FileFacts> facts_;
  std::shared_ptr<void> held_;
};

}  // namespace ncfs
