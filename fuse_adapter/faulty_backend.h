// For tests: a file system that shows a directory and can be told to hang, to be slow or to fail,
// by kind of operation. A FUSE mount without any caching, served by a process of its own.
//
// The process dies with the thread that made it, and what is mounted lies below the directory of a
// TestMount, whose guard takes away what a test has left. To be made before there are threads, and
// destroyed before the TestMount; who waits for it then is told that it is gone.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace ncfs {

class FaultyBackend {
 public:
  enum class Operation : std::uint8_t {
    attributes,  // look-ups, too
    open,
    read,
    list,
    statfs,
    change,  // everything that changes something
    close,   // each close(2), not only the last one
  };
  static constexpr std::size_t kOperations = 7;

  // Shows `origin` at `place`, both of which exist. Throws std::system_error.
  FaultyBackend(const std::string& origin, std::string place);
  ~FaultyBackend();
  FaultyBackend(const FaultyBackend&) = delete;
  FaultyBackend& operator=(const FaultyBackend&) = delete;

  void hang(Operation operation);
  void delay(Operation operation, std::chrono::milliseconds time);
  void fail(Operation operation, int error);
  void fail_once(Operation operation, int error);
  // Everything but close, which would keep processes alive that a test has forked: they hold what
  // the daemon, in the test's process, had open.
  void hang();
  // What hangs is carried out, late.
  void recover();

  // The same by signals: then not even what the kernel could answer by itself is.
  void stop_process();
  void continue_process();

  [[nodiscard]] std::size_t hanging() const;  // calls
  [[nodiscard]] std::size_t calls(Operation operation) const;

 private:
  struct Shared;

  const std::string place_;
  Shared* const shared_;
  pid_t server_ = -1;
};

}  // namespace ncfs
