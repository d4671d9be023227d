// What the outside may tell the engine, and what the engine tells it back.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "engine/residency.h"
#include "io/io.h"
#include "io/types.h"

namespace ncfs {

enum class HandleId : std::uint64_t {};   // one open file of an application; chosen by the caller
enum class ReadToken : std::uint64_t {};  // one read waiting for an answer; chosen by the caller
enum class WarmToken : std::uint64_t {};  // one file of a warm-up; chosen by the caller
enum class ControlToken : std::uint64_t {};  // one EvictEvent or UnpinEvent; chosen by the caller
enum class VerifyToken : std::uint64_t {};   // one verification; chosen by the caller
enum class DisownToken : std::uint64_t {};   // one DisownEvent; chosen by the caller
enum class GrowToken : std::uint64_t {};     // one GrowEvent; chosen by the caller

// A file was opened and its source looked at. Answered by Host::on_open. The engine owns `source`
// from here on and closes it when the handle is closed and nothing reads from it any more.
struct OpenEvent {
  HandleId handle{};
  FileHandle source = FileHandle::none;
  SourceState state;
  std::string path;  // relative to the source's root; for logs and for resuming after a restart
  // The reader takes what the cache lacks from the source's page cache, past the engine. Reads of
  // this handle may be asked of the engine all the same.
  bool reads_source = false;
};

// The handle is closed and no read of it is in flight. Also closes a handle whose on_open has not
// come yet; on_open then never comes.
struct CloseEvent {
  HandleId handle{};
};

// Bytes that plan_read() called missing. `range` is not empty and lies within one block and within
// the file's size at open. Answered by Host::on_read.
struct ReadEvent {
  ReadToken token{};
  HandleId handle{};
  ByteRange range;
  bool skip_cache = false;  // reading the cache file failed: take the bytes from the source
};

// The bytes named by a ReadResult have been used; the buffer may be reused. Sent exactly once for
// every ReadResult of kind `bytes`.
struct ReadDoneEvent {
  ReadToken token{};
};

// A ceiling for reading the source, shared by all files that are warmed with the same number.
struct WarmPace {
  std::uint64_t number = 0;            // chosen by the caller; 0: none
  std::uint64_t bytes_per_second = 0;  // as in TokenBucket
};

// Bring a file into the cache though nobody reads it. Answered by Host::on_warm once the file is
// cached or known not to become so. The engine owns `source` from here on.
struct WarmEvent {
  WarmToken token{};
  FileHandle source = FileHandle::none;
  SourceState state;
  std::string path;
  // Keep it from now on: a pinned file is evicted neither for space nor for age, and so is every
  // later version of it, until UnpinEvent. The pin is recorded with the copy and survives restarts;
  // `copied` and `already_cached` are answered when it is durable.
  bool pin = false;
  // For the copy that this begins, until somebody opens the file or warms it without one.
  WarmPace pace = {};
};

// A read of a handle's cache file failed: the object is not trusted any more, unless the read was
// only late (ETIMEDOUT).
struct CacheFaultEvent {
  HandleId handle{};
  int error = 0;  // errno; EIO for a file that is too short
};

// Time passes. Expected about once a second; drives retries and time-based checkpoints.
struct TickEvent {};

// The hard limit is another one from now on. Lowering it evicts at once; what is open, being copied
// or pinned stays, and as long as that is more than the limit allows nothing new is stored.
struct LimitEvent {
  std::uint64_t bytes = 0;
};

// Drop from the cache what has one of `paths` as its last known path or above it ("" is above
// everything), was not used for `idle_min`, and is neither open, being copied nor pinned. Answered
// by Host::on_control.
struct EvictEvent {
  ControlToken token{};
  std::vector<std::string> paths;
  Nanos idle_min = 0;
};

// Take the pins from the files at and beneath `paths`, as in EvictEvent. Answered by
// Host::on_control, without those that recovery has yet to find: they lose theirs, too.
struct UnpinEvent {
  ControlToken token{};
  std::vector<std::string> paths;
};

// Stop copying, make what is already copied durable, then call Host::on_stopped.
struct StopEvent {};

// Compare complete objects with their checksums. Answered by Host::on_verify when all are done.
struct VerifyEvent {
  VerifyToken token{};
  // Last known paths of files and directories; empty means everything.
  std::vector<std::string> paths;
};

// Our own mount is about to change the content of a file. What the cache has of it, in whatever
// state, is no copy of anything any more: no open is given it, copies in flight are given up, and
// no restart finds it. Answered by Host::on_disowned.
//
// Handles opened before keep the cache file they were given: it loses its name, and its bytes are
// charged, until they are closed. Nothing is resident for them any more; a ReadEvent of theirs is
// answered by a read of the source that begins after the ReadEvent came, is shared with nobody and
// kept nowhere, so it sees every write that was complete when it was asked for. Reads asked for
// before the DisownEvent may still be answered with older bytes. Later opens begin afresh, also of
// an equal version, and what they cache is disowned by another event.
//
// Objects that recovery has yet to find are left alone: no handle of this run has their files, and
// the write to come gives the file another version. Without anything to disown the answer comes at
// once.
struct DisownEvent {
  DisownToken token{};
  FileId file;
};

// Our own mount has changed attributes or a name of a file (chmod, chown, link, unlink, rename,
// xattr), and its content not. What the cache has as version `before` is of version `after` from
// now on, in whatever state: complete objects, copies in flight, pins. Open handles go on as they
// are. Both states were asked of the server, of one inode, the one just before the change and the
// other just after; events about one file come in the order of the changes.
//
// The cache believes it if size and mtime are equal and mtime was older than Config::racy_window
// both at `before`, by this host's clock, and at the change, by the server's. Then whoever wrote
// between the two looks has changed the mtime. Unseen remains a client that does so and sets the
// mtime back, both between the two looks or within that tick of the server's clock which is our
// change's ctime: nothing that a server tells to everybody can show it. What is not believed is
// left as it is, and ends as with any other change of the source.
//
// It is recorded in the sidecar, in the background; a crash before that costs the cached bytes.
struct RekeyEvent {
  SourceState before;
  SourceState after;
  std::string path;  // the last known path from now on; empty: as before
};

// The cache file that `handle` was given as complete, and that was disowned since without an error,
// is to be written up to `size_bytes`. Answered by Host::on_grown. What the object is charged never
// shrinks; it is given back as a whole when the object goes.
struct GrowEvent {
  GrowToken token{};
  HandleId handle{};
  std::uint64_t size_bytes = 0;
};

// Config::copy_bytes_per_second is another one from now on.
struct CopyRateEvent {
  std::uint64_t bytes_per_second = 0;
};

// Engine::wake_at() has come.
struct WakeEvent {};

using Event =
    std::variant<OpenEvent, CloseEvent, ReadEvent, ReadDoneEvent, WarmEvent, CacheFaultEvent,
                 TickEvent, StopEvent, VerifyEvent, LimitEvent, EvictEvent, UnpinEvent, DisownEvent,
                 RekeyEvent, GrowEvent, CopyRateEvent, WakeEvent>;

// Why an open was a hit or a miss.
enum class OpenReason : std::uint8_t {
  cached,             // hit: complete
  partial,            // some blocks are cached; the rest is read from the source
  first_use,          // not seen before; a copy is wanted
  changed,            // another version was cached or being copied; a copy of the new one is wanted
  recently_changed,   // within the racy window; a copy starts when it has passed
  too_small,          // below min_file_size, or empty
  too_large,          // larger than the whole cache
  no_space,           // everything in the cache is in use
  backing_off,        // the last copy failed; tried again later
  cache_unavailable,  // the cache did not answer within open_patience
  pins_full,          // larger than what the pinned files leave of the cache
  above_max_size,     // above max_file_size
  excluded,           // include and exclude do not admit its path
  not_read,           // cache_on=read: it was not read yet
  opened_once,        // cache_on=second-open: this is the first open that is remembered
};
[[nodiscard]] const char* to_string(OpenReason reason);

struct OpenResult {
  // Null if no byte of the file is or will be in the cache for this handle yet; ask again by
  // `residency` of a later ReadResult. Always null with Checksum::read: the engine is asked for
  // every byte.
  std::shared_ptr<Residency> residency;
  bool is_complete = false;  // every block is cached and the cache file has its final name
  OpenReason reason{};
};

struct ReadResult {
  enum class Kind : std::uint8_t {
    bytes,     // in `buffer`, from `buffer_offset`, `length` of them; ReadDoneEvent must follow
    resident,  // became resident in the meantime: read `residency->cache_file()`
    error,     // `error` is an errno of the source
  };
  Kind kind{};
  int error = 0;
  BufferId buffer{};
  std::uint64_t buffer_offset = 0;
  std::uint64_t length = 0;              // shorter than asked for only at the end of the file
  std::shared_ptr<Residency> residency;  // of the handle's file, when it has one
};

struct WarmResult {
  enum class Kind : std::uint8_t { copied, already_cached, skipped, failed };
  Kind kind{};
  OpenReason reason{};  // why skipped
  int error = 0;        // why failed; 0: because of `reason`
};

// What came of an EvictEvent or UnpinEvent.
struct ControlResult {
  struct Count {
    std::uint64_t files = 0;
    std::uint64_t bytes = 0;
  };
  Count done;    // evicted, or no longer pinned
  Count in_use;  // left alone: open, mapped or being copied
  Count pinned;  // left alone: pinned
  Count failed;  // the cache disk did not let go of it
};

// found = intact + damaged + skipped + what is still to be done.
struct VerifyResult {
  struct Count {
    std::uint64_t files = 0;
    std::uint64_t bytes = 0;  // sizes of the files
  };
  Count found;
  Count intact;
  Count damaged;  // removed from the cache
  Count skipped;  // no checksums, not complete, gone meanwhile, or the disk did not answer
  std::uint64_t bytes_verified = 0;  // compared, also of files not done yet
  bool is_cancelled = false;         // by a StopEvent, or refused as too many are running
};

// Something worth a log line. `path` is the file's last known path.
struct Notice {
  enum class Kind : std::uint8_t {
    copy_started,
    copy_resumed,  // from a partial object; `bytes` are already there
    copy_finished,
    copy_failed,     // `error`
    copy_abandoned,  // the source changed while it was copied, or space ran out
    evicted,         // `bytes` given back
    object_removed,  // damaged, unfinished or unreachable object found and removed; `detail` says
                     // what
    name_ignored,    // recovery found a name that is not ours; left alone
    pin_dropped,     // a new version of a pinned file does not fit beside the other pinned files
    cache_error,     // `error` of an operation on the cache directory; `detail` names it
    cache_health,    // the cache disk's state is now `path`, for the reason in `detail`
    source_health,   // background work pauses or goes on, for the reason in `path` and `detail`
    damaged,         // does not match its checksum, or cannot be read; `detail` says what
  };
  Kind kind{};
  std::string path;
  std::string detail;
  std::uint64_t bytes = 0;
  int error = 0;
  Nanos duration = 0;  // copy_finished: since the copy was started or resumed
};
[[nodiscard]] const char* to_string(Notice::Kind kind);

// What the engine says. Called on the control thread from within handle() and complete(); an
// implementation must not call back into the engine.
class Host {
 public:
  virtual void on_open(HandleId handle, const OpenResult& result) = 0;
  virtual void on_read(ReadToken token, const ReadResult& result) = 0;
  virtual void on_warm(WarmToken token, const WarmResult& result) = 0;
  virtual void on_control(ControlToken token, const ControlResult& result) = 0;
  virtual void on_notice(const Notice& notice) = 0;
  virtual void on_stopped() = 0;
  virtual void on_verify(VerifyToken token, const VerifyResult& result) = 0;
  // Exactly once for each DisownEvent. `error` 0: no restart finds what was disowned, so the cache
  // files that handles still hold may be changed. Else an errno of the cache disk, or EIO because
  // it is down: a restart may find it, and its cache files must stay as they are. Comes at the
  // latest shortly after the deadlines of the requests it takes, those in flight on the file
  // included.
  virtual void on_disowned(DisownToken token, int error) = 0;
  // Exactly once for each GrowEvent, at the latest at the first tick after Config::cache_deadline.
  // `error` 0: there is room, and it is charged. Else the file must not become larger than it was
  // allowed to be before: ENOSPC as there is no room, or none in time; EIO as the disk is down, the
  // engine stops, or the file is not what GrowEvent asks for; ECANCELED as the handle was closed.
  virtual void on_grown(GrowToken token, int error) = 0;

 protected:
  ~Host() = default;
};

}  // namespace ncfs
