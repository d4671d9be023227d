// For tests: what this program changes below a directory, system call by system call.
//
// Linking recorded_calls.cc puts it between the program and the C library's calls that write, name
// and sync files. While a CallRecorder lives, calls that succeed on files below its directory are
// recorded. They are let through one at a time, so the order of the record is the order in which
// they took effect, and a sync covers all that stands before it.
//
// Not seen: calls that the real driver does not use (write(2), mmap, rename(2) ...). A test makes
// sure that none is missing by comparing what the record amounts to with the directory.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ncfs {

struct RecordedCall {
  enum class Kind : std::uint8_t {
    create,          // name, inode
    truncate,        // name, inode: opened with O_TRUNC, now empty
    extend,          // inode: at least `offset` bytes long
    write,           // inode, offset, bytes
    sync,            // inode: fsync or fdatasync
    rename,          // name, new_name
    unlink,          // name
    sync_directory,  // name
  };
  Kind kind{};
  std::string name{};  // relative to the directory
  std::string new_name{};
  ino_t inode = 0;  // may be given to another file after its last name is gone
  std::uint64_t offset = 0;
  std::vector<std::byte> bytes{};
};

// One at a time.
class CallRecorder {
 public:
  // `directory`: of subdirectories that hold files; calls name files relative to a descriptor of
  // it.
  explicit CallRecorder(const std::string& directory);
  ~CallRecorder();
  CallRecorder(const CallRecorder&) = delete;
  CallRecorder& operator=(const CallRecorder&) = delete;

  [[nodiscard]] std::vector<RecordedCall> calls() const;
};

}  // namespace ncfs
