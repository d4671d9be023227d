// The real driver: the laws of io.h kept by system calls on two pools of threads.
//
//   * Source and cache have pools of their own, so that a hung server never blocks the cache disk
//     nor the other way round.
//   * An operation that timed out is not undone: it may still take effect when the device answers.
//     What it would have handed over is given up: files it opened are closed and a file it created
//     is emptied, so that it holds no space nobody accounts for.
//   * A descriptor is closed only when no operation on it is left in the device, late ones
//     included, so that none of them can hit another file of the same number. Until then the close
//     is pending; past its deadline it is completed with -ETIMEDOUT and done later all the same.
//     A closed handle is not named again.
//   * Memory: the buffers, and one block more for each thread stuck in a transfer.
//   * Names that are absolute or hold ".." are -EINVAL. Symbolic links are not followed.
//
// Handles are plain descriptors: the caller may hand over files it opened itself, and may read
// cache files directly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "io/io.h"

namespace boost::asio {
class io_context;
}

namespace ncfs {

// Where a question to the source goes: to the file system of an open file, or to that of a path.
struct SourcePlace {
  std::uint64_t device = 0;  // st_dev; 0: by the path
  std::string path;          // relative to the source's root
};

class PosixIo final : public Io {
 public:
  struct Options {
    int source_root = -1;  // directories; O_PATH will do for both; outlive the PosixIo
    int cache_root = -1;
    std::size_t source_threads = 16;
    std::size_t cache_threads = 8;
    std::uint32_t buffers = 64;
    std::uint64_t block_size_bytes = kMiB;  // of each buffer; a multiple of 4 KiB
    // Source reads and cache writes leave no copy of the file in the page cache.
    bool direct_io = true;
    // Whether the source may be asked there; if not, the answer is -ETIMEDOUT. And what came of
    // asking, as an errno. Closing is neither asked for nor told. On the control thread; must not
    // block. None: always, and nobody is told.
    std::function<bool(const SourcePlace&)> may_ask_source = {};
    std::function<void(const SourcePlace&, int error)> on_source_answer = {};
  };

  // `control` outlives the driver; `on_complete` is called by its thread, never from submit(), and
  // may submit. Throws std::system_error if the threads cannot be started.
  PosixIo(boost::asio::io_context& control, const Options& options,
          std::function<void(Completion)> on_complete);
  // On the control thread. Waits shortly for running operations; what is not completed by then
  // never is. Files still open stay open.
  ~PosixIo();
  PosixIo(const PosixIo&) = delete;
  PosixIo& operator=(const PosixIo&) = delete;

  void submit(Request request) override;

  // Options::source_root, which stood for nothing so far, now is the source's root. Control thread.
  void source_found(bool is_on_network);

  // The memory behind a buffer now. A request that times out replaces it; a write that does keeps
  // the contents. Control thread only.
  [[nodiscard]] std::span<std::byte> buffer(BufferId id) const;
  // Keeps that memory valid for another thread that reads from it, whatever times out meanwhile.
  [[nodiscard]] std::shared_ptr<const std::byte> hold_buffer(BufferId id) const;

  // The clock of Request::deadline.
  [[nodiscard]] static Nanos now();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace ncfs
