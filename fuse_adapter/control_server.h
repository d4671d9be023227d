// The control API of one mount: HTTP and JSON on a Unix socket, described by openapi.json, which it
// serves, too. nfs-cachefs-ctl is a client of it.
//
// Who may do what is decided by the credentials of the process at the other end:
//   * root may do everything;
//   * other users of the machine may ask what the cache does and whether it is well. That tells
//     them no name of any file, which the permissions of the backend may hide from them;
//   * over TCP, if there is a port, only metrics and the word whether the cache is well are told.
// So the socket itself is open to all, and monitoring needs no root.
//
// Long work is a resource that the client looks at again: it goes on when the client goes away.
// Bounds: those of HttpServer and WarmJobs, and kVerificationsMax verifications remembered.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "engine/metadata.h"
#include "fuse_adapter/adapter_stats.h"
#include "fuse_adapter/backends.h"
#include "fuse_adapter/hot_files.h"
#include "fuse_adapter/invalidation.h"
#include "fuse_adapter/warm_jobs.h"

namespace ncfs {

// One mount option as it was given at the mount.
struct ConfigEntry {
  std::string name;
  std::string value;    // in force; empty if there is none
  std::string initial;  // without the option; empty if there is none
  std::string help;
  bool is_given = false;
};

// What the server tells about. The functions may be called from any thread and do not block.
struct ControlSubject {
  std::string mountpoint;
  std::string backend;
  std::string cache_dir;
  std::string backend_device;  // of the backend in the mount table when it was mounted
  std::string version;
  bool passthrough_active = false;
  bool passthrough_wanted = false;  // not switched off by an option
  std::string passthrough_detail;   // why it is or is not active
  std::vector<ConfigEntry> config;
  std::function<std::string()> log_level;
  std::function<bool(const std::string& level)> set_log_level;  // false: there is no such level
  std::function<void(std::uint64_t bytes_per_second)> set_copy_rate;
  std::function<bool()> is_access_logged = [] { return false; };
  std::function<void(bool is_logged)> set_access_logged;
  std::uint64_t buffer_bytes = 0;                               // all buffers together
  std::uint64_t block_size_bytes = 0;
  std::function<EngineStatus()> engine_status;
  std::function<MetadataStatus()> metadata_status = [] { return MetadataStatus{}; };
  // As Backends::status(); not empty.
  std::function<std::vector<BackendStatus>()> backends = [] {
    return std::vector<BackendStatus>(1);
  };
  std::function<std::vector<FileReport>(const FileQuery&)> files;  // as Engine::files()
  // As Runtime::verify().
  std::function<VerifyToken(std::vector<std::string> paths,
                            std::function<void(const VerifyResult&)> done)>
      verify;
  // As the functions of Runtime.
  std::function<EngineStatus(std::uint64_t bytes)> set_limit;
  using ControlDone = std::function<void(const ControlResult&)>;
  std::function<void(std::vector<std::string> paths, Nanos idle_min, ControlDone done)> evict;
  std::function<void(std::vector<std::string> paths, ControlDone done)> unpin;
  std::function<std::vector<HotFiles::File>()> hot_files;
  // As CacheFs::invalidate().
  std::function<void(std::vector<std::string> paths,
                     std::function<void(const InvalidationResult&)> done)>
      invalidate;
  std::function<Nanos()> now;                   // the clock of EngineStatus
  const AdapterStats* adapter_stats = nullptr;  // outlives the server, as do the next
  const Histogram* copy_time = nullptr;
};

// openapi.json.
[[nodiscard]] std::string_view openapi_document();

class ControlServer {
 public:
  static constexpr std::size_t kVerificationsMax = 16;
  static constexpr std::size_t kFilesMax = 1000;  // in one reply

  struct Options {
    std::string socket_path;
    uid_t administrator = 0;  // who may do everything
    // Where metrics are told over TCP, an IP address; empty: nowhere.
    std::string metrics_address;
    std::uint16_t metrics_port = 0;
    // As in HttpServer.
    std::chrono::milliseconds client_deadline{30'000};
    std::chrono::milliseconds reply_deadline{30'000};
  };

  // One operation of the API; `pattern` as in OpenAPI, such as "/v1/warm/{id}".
  struct Route {
    std::string_view method;
    std::string_view pattern;
  };
  [[nodiscard]] static std::vector<Route> routes();

  ControlServer(Options options, ControlSubject subject, std::shared_ptr<WarmJobs> warm_jobs);
  ~ControlServer();  // stops
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Makes the socket, and its directory if missing, and answers from now on. Empty, or one line
  // that says what failed. A socket left by a daemon that has died is replaced.
  [[nodiscard]] std::string start();
  // Empty, or why nothing is told over TCP. After start().
  [[nodiscard]] std::string metrics_error() const;
  // After start(), if it is told there.
  [[nodiscard]] std::uint16_t metrics_port() const;

  // Ends all connections and removes the socket. Nothing of the subject is called after it; warm-ups
  // go on. Idempotent.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ncfs
