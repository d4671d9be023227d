// The engine at work: one control thread that owns the Engine and its Asio io_context, the real
// driver with its pools, and a small pool that hands read bytes to the kernel.
//
// Every public function may be called from any thread and never waits for a device. The mailbox to
// the control thread is bounded; a full one makes the caller wait for the control thread, which
// itself never waits for anything.
//
// Callbacks are called exactly once. open, warm, verify, disown and grow callbacks run on the
// control thread and must not block; read callbacks run on a reply thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/config.h"
#include "engine/engine.h"
#include "engine/event.h"
#include "fuse_adapter/adapter_stats.h"

namespace ncfs {

class Backends;

// What came of a read of missing bytes.
struct ReadOutcome {
  int error = 0;                     // errno of the source, 0 if none
  bool is_resident = false;          // no bytes: the range became resident, read the cache file
  std::span<const std::byte> bytes;  // valid until the callback returns; short only at the end
  // Of the handle's file, if it has one by now, also beside bytes: later plans are made with it.
  std::shared_ptr<Residency> residency;
};

class Runtime {
 public:
  struct Options {
    Config engine;
    int source_root = -1;   // O_PATH or O_DIRECTORY descriptor of the backend's root; not owned
    int cache_root = -1;    // descriptor of the prepared cache directory; not owned
    bool direct_io = true;  // keep the copier's bytes out of the page cache
    // Told how reads of the source end; one that is down is not read. None: nobody is.
    std::shared_ptr<Backends> backends = {};
  };

  explicit Runtime(const Options& options);  // throws std::system_error
  ~Runtime();                                // stops; see stop()

  // The engine takes over the event's source, the caller keeps the right to use it until close().
  void open(OpenEvent event, std::function<void(const OpenResult&)> done);
  void close(HandleId handle);

  // `range` as in ReadEvent.
  void read(HandleId handle, ByteRange range, bool skip_cache,
            std::function<void(const ReadOutcome&)> done);
  void cache_fault(HandleId handle, int error);  // as in CacheFaultEvent

  // As WarmEvent. Takes over `source`.
  void warm(FileHandle source, const SourceState& state, std::string path,
            std::function<void(const WarmResult&)> done, bool pin = false, WarmPace pace = {});

  // As EvictEvent and UnpinEvent. `done` runs on the control thread, or never after stop().
  void evict(std::vector<std::string> paths, Nanos idle_min,
             std::function<void(const ControlResult&)> done);
  void unpin(std::vector<std::string> paths, std::function<void(const ControlResult&)> done);

  // As LimitEvent; the status right after it.
  EngineStatus set_limit(std::uint64_t bytes);

  // As CopyRateEvent.
  void set_copy_rate(std::uint64_t bytes_per_second);

  // As VerifyEvent. By the token EngineStatus knows it until `done` is called.
  VerifyToken verify(std::vector<std::string> paths, std::function<void(const VerifyResult&)> done);

  // As DisownEvent; `done` is given the errno of Host::on_disowned and runs on the control thread.
  void disown(const FileId& file, std::function<void(int error)> done);
  // As GrowEvent; `done` is given the errno of Host::on_grown and runs on the control thread. The
  // handle is closed after the call, if at all.
  void grow(HandleId handle, std::uint64_t size_bytes, std::function<void(int error)> done);
  // As RekeyEvent.
  void rekey(const SourceState& before, const SourceState& after, std::string path);

  // As PosixIo::source_found().
  void source_found(bool is_on_network);

  [[nodiscard]] EngineStatus status();

  // As Engine::files().
  [[nodiscard]] std::vector<FileReport> files(const FileQuery& query);

  // How long the copies took that were finished.
  [[nodiscard]] const Histogram& copy_time() const;

  // Waits, at most `patience`, until what is copied so far is durable, then ends all threads.
  // Idempotent. No other function may be called after it.
  void stop(std::chrono::nanoseconds patience);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ncfs
