// Answers nfs-cachefs-ctl: a Unix socket that only root can use.
//
// Protocol: one JSON object per line in both directions, several requests per connection.
//   {"command":"status"}                               -> one line, "type":"status"
//   {"command":"warm","paths":[...],"wait":true|false} -> lines with "type":"warm" about once a
//       second until "final":true; without wait one line, the job then runs on by itself.
//       Paths are absolute and lie in the mount point.
//       With "pin":true what is found is pinned as well.
//   {"command":"verify","paths":[...],"wait":true|false} -> the same with "type":"verify"; no paths
//       mean everything in the cache
//   {"command":"unpin","paths":[...]}                  -> one line, "type":"unpin"
//   {"command":"evict","paths":[...],"idle_seconds":N} -> one line, "type":"evict"
//   {"command":"limit","size":"500M"}                  -> one line, "type":"limit"
// Every reply has "ok"; if it is false, "error" says why. A client that goes away does not end
// its warm-up.
//
// Bounds: kClientsMax connections, kRequestMax bytes per request, a deadline on every transfer.
// One thread of its own, and those of WarmJobs.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "fuse_adapter/adapter_stats.h"
#include "fuse_adapter/warm_jobs.h"

namespace ncfs {

// What the server tells about. The functions may be called from any thread and do not block.
struct ControlSubject {
  std::string mountpoint;
  std::string backend;
  std::string cache_dir;
  std::string version;
  bool passthrough_active = false;
  std::string passthrough_detail;  // why it is or is not active
  std::uint64_t buffer_bytes = 0;  // all buffers together
  std::uint64_t block_size_bytes = 0;
  std::function<EngineStatus()> engine_status;
  // As Runtime::verify().
  std::function<VerifyToken(std::vector<std::string> paths,
                            std::function<void(const VerifyResult&)> done)>
      verify;
  // As the functions of Runtime.
  std::function<EngineStatus(std::uint64_t bytes)> set_limit;
  using ControlDone = std::function<void(const ControlResult&)>;
  std::function<void(std::vector<std::string> paths, Nanos idle_min, ControlDone done)> evict;
  std::function<void(std::vector<std::string> paths, ControlDone done)> unpin;
  std::function<Nanos()> now;                   // the clock of EngineStatus
  const AdapterStats* adapter_stats = nullptr;  // outlives the server
};

class ControlServer {
 public:
  static constexpr std::size_t kClientsMax = 32;
  static constexpr std::size_t kRequestMax = std::size_t{1024} * 1024;  // some thousand paths

  struct Options {
    std::string socket_path;
    uid_t allowed_user = 0;  // the only one who is answered
    // How long a client may take to send a request or to take a reply.
    std::chrono::milliseconds client_deadline{30'000};
    // How long a warm-up's paths may take to be looked at on the backend before the client is told.
    std::chrono::milliseconds check_deadline{30'000};
    std::chrono::milliseconds progress_interval{1'000};
  };

  ControlServer(Options options, ControlSubject subject, WarmTarget warm_target);
  ~ControlServer();  // stops without patience
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Makes the socket, and its directory if missing, and answers from now on. Empty, or one line
  // that says what failed. A socket left by a daemon that has died is replaced.
  [[nodiscard]] std::string start();

  // Ends all connections, waits at most `patience` for warm-ups to notice, removes the socket.
  // Nothing of the subject and no WarmTarget::warm is called after it. Idempotent.
  void stop(std::chrono::nanoseconds patience);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ncfs
