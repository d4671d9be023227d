// For tests: a real NFS server, nfs-ganesha, that exports a directory on a port of its own of the
// loopback interface. It needs no other service, and dies with the thread that made it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

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

  // It stops to answer, but its connections stay.
  void stop_process();
  void continue_process();
  // Whether there are calls that it has not read, while it is stopped.
  [[nodiscard]] bool has_unread_calls() const;
  // Without any warning to its clients.
  void kill_process();
  // After it was killed: as it was, on the same port. Waits until it takes connections.
  void start();

 private:
  void write_configuration() const;
  // False if it has ended before: the port is somebody's.
  [[nodiscard]] bool start_once();

  const std::string place_;
  const std::string exported_;
  const Options options_;
  std::uint16_t port_ = 0;
  pid_t server_ = -1;
};

}  // namespace ncfs
