// nfs_backend=nfs://...: nfs-cachefs-nfs, which shows the server's tree at a directory of its own.
// It is the child of a process that does nothing but start it, again if it dies: the mount stays,
// calls under way fail, and what was open answers ESTALE. Both end when the tree is unmounted, and
// at the latest with the thread that made them.
//
// A process of its own, as a fork of the daemon has its open files of the tree: exec(2) would close
// them, which waits for the program that is to be started.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <utility>

namespace ncfs {

// Beside the running program.
[[nodiscard]] std::string nfs_program();

// Below `parent`, the running process' own.
[[nodiscard]] std::string nfs_directory(const std::string& parent);
// Those of processes that have died.
void remove_abandoned_nfs_directories(const std::string& parent);

class NfsBackend {
 public:
  struct Options {
    std::string program = nfs_program();
    std::string url;
    std::string directory;             // made if missing; what is mounted there is taken away
    std::chrono::seconds timeout{30};  // of the start, and of every call to the server
  };
  explicit NfsBackend(Options options) : options_(std::move(options)) {}
  // Unmounts, at once for those who come, and waits a moment for those who are there.
  ~NfsBackend();
  NfsBackend(const NfsBackend&) = delete;
  NfsBackend& operator=(const NfsBackend&) = delete;

  // Empty once the tree can be used, or one line. To be called once.
  [[nodiscard]] std::string start();

  [[nodiscard]] const std::string& directory() const { return options_.directory; }
  // The program's; -1 while there is none.
  [[nodiscard]] pid_t process() const;

 private:
  const Options options_;
  pid_t keeper_ = -1;
};

}  // namespace ncfs
