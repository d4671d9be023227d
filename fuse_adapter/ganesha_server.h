// For tests: a real NFS server, nfs-ganesha, that exports a directory on a port of its own of the
// loopback interface. It needs no other service, and dies with the thread that made it.
//
// It is started by a process of its own, the keeper, that is forked while no file of a mount that
// depends on the server is open: at exec(2) such files are closed, which may wait for the server.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <ctime>
#include <string>

#include "io/descriptor.h"

namespace ncfs {

class GaneshaServer {
 public:
  struct Options {
    bool read_only = false;
    bool squashes_root = false;
  };
  // `place` is an empty directory for its files. Throws std::system_error.
  GaneshaServer(std::string place, std::string exported, Options options);
  GaneshaServer(std::string place, std::string exported)
      : GaneshaServer(std::move(place), std::move(exported), Options{}) {}
  ~GaneshaServer();
  GaneshaServer(const GaneshaServer&) = delete;
  GaneshaServer& operator=(const GaneshaServer&) = delete;

  // Of the exported directory.
  [[nodiscard]] std::string url(const std::string& path = "") const;

  // It stops to answer, but its connections stay. Waits for all of its threads.
  void stop_process();
  void continue_process();
  // Whether there are calls that it has not read, while it is stopped.
  [[nodiscard]] bool has_unread_calls() const;
  // Without any warning to its clients (SIGKILL), or in order (SIGTERM).
  void end_process(int signal);
  // After its end: as it was, on the same port. Waits until it takes connections, and is for its
  // clients another server than before.
  void start();

  [[nodiscard]] pid_t process() const { return server_; }

 private:
  void write_configuration() const;
  void start_keeper();
  // Whether there is no server any more, or will not be in time.
  [[nodiscard]] bool has_ended(std::chrono::milliseconds patience);

  const std::string place_;
  const std::string exported_;
  const Options options_;
  // Bound, and never listens: nobody else gets the port while no server has it.
  Descriptor reservation_;
  std::uint16_t port_ = 0;
  pid_t keeper_ = -1;
  Descriptor line_;  // to the keeper
  pid_t server_ = -1;
  std::time_t started_at_ = 0;
};

// Where there is no ganesha.nfsd all tests of the program are skipped, which ctest tells.
class GaneshaEnvironment : public testing::Environment {
 public:
  void SetUp() override;
};

}  // namespace ncfs
