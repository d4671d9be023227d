// The simulator's driver of Io: a list of pending requests over a SimDisk and a SimNfs.
//
// Nothing completes by itself: the caller decides which request is completed next, when and how. A
// request takes effect at the moment of its completion; if the process dies before, Survivors
// decide whether it took effect. A source read may be answered with what the file held when it was
// submitted, as the server may have executed it at any moment since.
//
// One SimIo is one life of the process. It also watches its caller: what breaks the laws of io.h is
// kept as a Violation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "engine/config.h"
#include "io/io.h"
#include "sim/disk.h"
#include "sim/nfs.h"
#include "sim/survivors.h"
#include "sim/trace.h"
#include "sim/violation.h"

namespace ncfs {

[[nodiscard]] bool is_source_operation(Op op);
[[nodiscard]] const char* to_string(Op op);

// How a request is answered.
struct Answer {
  enum class Kind : std::uint8_t { success, short_count, error };
  Kind kind = Kind::success;
  int error = 0;                // error: an errno
  std::uint64_t length = 0;     // short_count: taken modulo what is possible
  bool is_early = false;        // source_read: executed when it was submitted
  bool is_half_done = false;    // error: something of it took effect
  bool is_misdirected = false;  // cache_verify, cache_read: the disk returns the next sector on
};

// What is wrong with the world as a whole.
struct Weather {
  bool nfs_hangs = false;
  bool disk_hangs = false;
  bool disk_is_readonly = false;  // EROFS for all that would change the disk, and its opens
  int nfs_error = 0;              // errno of every source operation, 0 if none
  int disk_error = 0;  // errno of every cache operation, and of readers' reads of cache files
};

// A source operation that failed, or a read that came back short (error 0): what may explain an
// error that a reader gets.
struct SourceFailure {
  SourceInode inode{};
  int error = 0;
};

class SimIo final : public Io {
 public:
  struct Pending {
    Request request;
    std::uint64_t sequence = 0;
    bool is_hung = false;
    bool has_effect = true;
    std::size_t revision = 0;  // source_read: of the file when submitted
    bool is_from_old_memory = false;
    SimDisk::SyncPoint sync_point = 0;  // what a sync is bound to make durable
    std::optional<InodeId> inode;       // cache operations on a handle
  };

  // The engine's clock shows `clock_origin` less than the world's.
  SimIo(const Config& config, Nanos clock_origin, SimDisk& disk, SimNfs& nfs, Trace& trace);

  void submit(Request request) override;
  // Will be acknowledged like any other and do nothing: how a test plants a driver that lies. A
  // source_stat is answered with what the file was when the handle was opened.
  void submit_without_effect(Request request);
  // A source_read answered with what the file held first, as a client that keeps its page cache
  // across opens would do.
  void submit_from_old_memory(Request request);

  // From now on checksums of reads are those of what was once written: how a test plants a driver,
  // or an engine, that does not look.
  void look_away() { looks_away_ = true; }

  void set_now(Nanos now) { now_ = now; }
  // From now on Completion::bytes of the source are a model's header, a damaged one of some
  // revisions, whatever the file holds: nothing that is read may depend on it.
  void invent_models() { invents_models_ = true; }
  [[nodiscard]] Nanos now() const { return now_; }
  Weather& weather() { return weather_; }
  [[nodiscard]] const Weather& weather() const { return weather_; }

  [[nodiscard]] const std::vector<Pending>& pending() const { return pending_; }
  [[nodiscard]] bool is_stuck(const Pending& pending) const;
  void set_hung(std::size_t index, bool is_hung) { pending_[index].is_hung = is_hung; }

  [[nodiscard]] Completion complete(std::size_t index, const Answer& answer);
  // Completes one request whose deadline has passed. Bit (sequence % 32) of `effects` says whether
  // it takes effect nonetheless; a write then does so later, by land_late_writes().
  [[nodiscard]] std::optional<Completion> expire(std::uint32_t effects);
  void land_late_writes();
  // The process dies. Every request in flight may have taken effect.
  void crash(Survivors& survivors);

  [[nodiscard]] std::span<std::byte> buffer(BufferId id);
  // While lent, a reader looks at the buffer and nothing may be read into it.
  void lend(BufferId id) { ++lent_[id]; }
  void give_back(BufferId id);

  // Of an open handle of the source: what the file was at its open.
  void note_source_handle(FileHandle handle, const SourceState& state);
  // Whoever has the file open from before one of our own writes reads for itself from then on.
  void note_disowned(const FileId& file);
  [[nodiscard]] bool reads_alone(FileHandle source) const { return reads_alone_.contains(source); }
  [[nodiscard]] const SourceState& source_state(FileHandle handle) const {
    return source_handles_.at(handle);
  }

  [[nodiscard]] const std::optional<Violation>& violation() const { return violation_; }
  [[nodiscard]] const std::vector<SourceFailure>& source_failures() const { return failures_; }
  // How often a request of the cache failed or timed out.
  [[nodiscard]] std::uint64_t cache_failures() const { return cache_failures_; }
  // How many there were that are no probe of the disk.
  [[nodiscard]] std::uint64_t cache_requests() const { return cache_requests_; }
  [[nodiscard]] std::uint64_t source_bytes() const { return source_bytes_; }
  // The ranges of one cache file that were written in this life.
  [[nodiscard]] std::vector<ByteRange> written_ranges(InodeId inode) const;
  // True if a source operation on the file failed or came back short in this life.
  [[nodiscard]] bool has_failed(SourceInode inode) const;
  [[nodiscard]] std::uint64_t next_sequence() const { return next_sequence_; }
  [[nodiscard]] std::uint64_t misdirections() const { return misdirections_; }
  // Whether the disk gave other bytes for the buffer than were once written.
  [[nodiscard]] bool is_tainted(BufferId id) const { return tainted_.contains(id); }

 private:
  // What was asked of one cache file and answered, for SyncOnce and Transitions.
  struct FileBooks {
    bool has_unsynced_writes = false;
    bool has_failed_sync = false;
    // Writes completed since the sync in flight was submitted stay unsynced when it completes.
    std::uint64_t writes = 0;
    std::uint64_t writes_at_sync = 0;
    std::vector<ByteRange> written;
    std::uint64_t last_write = 0;  // number of the completion
  };

  struct LateWrite {
    InodeId inode{};
    std::uint64_t offset = 0;
    std::vector<std::byte> bytes;
  };

  void report(const char* name, const Request& request, const char* what);
  Pending& enqueue(Request request);
  void check_common(const Request& request);
  void check_buffer(const Request& request);
  [[nodiscard]] bool has_failed(FileHandle source) const;
  bool invents_models_ = false;
  [[nodiscard]] int weather_error(Op op) const;
  void check_source_read(const Request& request);
  void check_cache_write(const Request& request);
  void check_checked_read(const Request& request);
  void check_close(const Request& request);
  void check_rename(const Request& request);
  void check_create(const Request& request);
  [[nodiscard]] ByteRange block_of(FileHandle file, ByteRange range) const;

  void perform(const Pending& pending, const Answer& answer, Completion& completion);
  void perform_source(const Pending& pending, const Answer& answer, Completion& completion);
  void perform_source_read(const Pending& pending, const Answer& answer, Completion& completion);
  void perform_cache(const Pending& pending, const Answer& answer, Completion& completion);
  void perform_checked_read(const Request& request, bool is_misdirected, Completion& completion);
  void perform_store(const Request& request, Completion& completion);
  void perform_in_spite_of_error(const Pending& pending);
  void note_outcome(const Pending& pending, std::int64_t result);
  Pending take(std::size_t index);
  void finish(const Pending& pending, const Completion& completion);

  [[nodiscard]] Nanos deadline_of(const Request& request) const {
    return request.deadline + clock_origin_;
  }

  const Config config_;
  const Nanos clock_origin_;
  SimDisk& disk_;
  SimNfs& nfs_;
  Trace& trace_;
  Nanos now_ = 0;
  Weather weather_;
  std::vector<Pending> pending_;
  std::vector<std::vector<std::byte>> buffers_;
  std::map<BufferId, std::uint32_t> lent_;
  std::vector<LateWrite> late_writes_;
  std::map<FileHandle, SourceState> source_handles_;
  std::set<FileHandle> reads_alone_;
  std::map<InodeId, FileBooks> books_;
  // The number of the completion of the newest source_stat that told of a version.
  std::map<std::pair<FileId, SourceVersion>, std::uint64_t> looked_at_;
  std::uint64_t completions_ = 0;
  std::vector<SourceFailure> failures_;
  // What the disk told last, and how often others had changed its capacity before.
  struct SpaceTold {
    std::uint64_t capacity_changes = 0;
    FileSystemSpace space;
  };
  std::optional<SpaceTold> space_told_;
  std::optional<Violation> violation_;
  std::uint64_t next_sequence_ = 0;
  std::uint64_t cache_failures_ = 0;
  std::uint64_t cache_requests_ = 0;
  std::uint64_t source_bytes_ = 0;
  std::uint64_t misdirections_ = 0;
  bool looks_away_ = false;
  std::set<BufferId> tainted_;
};

}  // namespace ncfs
