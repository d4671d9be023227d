// Files that may still be mapped for writing though their descriptors are closed.
//
// A mapping of a file that is passed through to the source is one of the source's own file: it
// outlives the handle unseen, and what it stores in a page that is dirty already changes no time of
// the file. So whoever could have mapped it that way counts as its writer, with all that follows
// for those who open the file, until nobody has it open for writing: the kernel grants a read lease
// (fcntl(2), F_SETLEASE) only then. File systems without leases, such as NFS, never say so, and the
// mount's end ends it.
//
// Any thread; the calls open and ask for leases on the source, so not dispatch threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "fuse_adapter/inode_table.h"

namespace ncfs {

class OpenFile;

// Whether the file system of an open file grants such leases, and changes a file's times when a
// mapping first stores into one of its pages: then a file whose times are what they were was not
// stored into meanwhile.
[[nodiscard]] bool tells_of_mappings(int descriptor);

class LeftMappings {
 public:
  // A file for writing, that was passed through, whose handle the kernel has released. False, and
  // it is not kept, if nobody has it mapped, or if another one of the same node is kept: one counts
  // as the writer for all of them.
  bool keep(const std::shared_ptr<OpenFile>& file);
  // Returns those of `file` that nobody has mapped any more.
  [[nodiscard]] std::vector<std::shared_ptr<OpenFile>> take(const FileKey& file);
  // The same of one file after the other: called now and then, it finds them all.
  [[nodiscard]] std::vector<std::shared_ptr<OpenFile>> take_next();
  void clear();
  [[nodiscard]] std::size_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  using Files = std::map<FileKey, std::vector<std::shared_ptr<OpenFile>>>;
  std::vector<std::shared_ptr<OpenFile>> take_locked(Files::iterator place);

  std::mutex mutex_;
  Files files_;
  FileKey last_;  // that take_next() looked at
  std::atomic<std::size_t> count_{0};
};

}  // namespace ncfs
