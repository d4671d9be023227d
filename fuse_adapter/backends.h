// How the file systems of the source are: that of its root and those mounted beneath it, each
// judged by itself (engine/backend_health.h) from how calls to it end.
//
// While one is down it is asked nothing but one probe at a time, which is a look at its root
// directory. Only file systems that gave trouble are kept in mind, kDevicesMax at most; others are
// up. A watch thread follows the mount table and makes the probes, each on a thread of its own that
// lives as long as the probe.
//
// Any thread; no function waits for a backend.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend_health.h"
#include "io/types.h"

namespace ncfs {

struct BackendStatus {
  std::string path;  // where it is mounted, relative to the source's root; "" is the root's
  BackendState state = BackendState::up;
  std::string reason;  // of the state; empty if it never changed
  int last_error = 0;  // errno
  Nanos since = 0;     // as monotonic_now()
  std::uint64_t changes = 0;
};

class Backends {
 public:
  using Device = std::uint64_t;  // st_dev
  // More would be a tree of mounts, all of which fail; those beyond are asked as if they were well.
  static constexpr std::size_t kDevicesMax = 64;

  struct Options {
    int root = -1;  // of the source; O_PATH will do; needed by the constructor only, or by `find`
    // The root cannot be asked yet, for the errno `absent` (0: it can). It is down, and its probes
    // are calls of `find`, which makes `root` stand for it: 0, or an errno. May block for ever, and
    // be called after the Backends' end. Until then `path` is what the log says of it.
    int absent = 0;
    std::function<int()> find = {};
    std::string path = {};
    // A small question to the file system at a path relative to the source's root; an errno. May
    // block for ever, and be called after the Backends' end. None: the directory's attributes, from
    // the server.
    std::function<int(const std::string& path)> probe = {};
    // What a backend that works needs at most for a probe.
    Nanos probe_patience = 5 * kSecond;
  };

  explicit Backends(Options options);  // throws std::system_error
  ~Backends();                         // probes that are out are left behind
  Backends(const Backends&) = delete;
  Backends& operator=(const Backends&) = delete;

  // The file system that holds `path`, relative to the source's root, by the mount table.
  [[nodiscard]] Device device_at(const std::string& path) const;
  // Whether there is more than that of the root.
  [[nodiscard]] bool are_several() const;
  [[nodiscard]] Device root() const;  // 0: not known yet

  // A call to it has ended; ETIMEDOUT also if it has not ended in time.
  void answered(Device device, int error);
  // Whether calls to it are to fail at once.
  [[nodiscard]] bool is_down(Device device) const;

  // The root's first, then all that ever gave trouble.
  [[nodiscard]] std::vector<BackendStatus> status() const;

 private:
  class Shared;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace ncfs
