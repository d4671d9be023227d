// One version of one source file, as the engine knows it.
//
// The states and the only ways between them (set_state() refuses all others):
//
//        ┌────────────► creating ───► partial ───► committing ───► cached
//     absent               │           ▲  │            │             │
//        ▲                 │  recovery─┘  │            │   recovery─►│
//        └─── removing ◄───┴──────────────┴────────────┴─────────────┘
//                 │    (an evicted object that turned out to be in use goes back)
//                 └───────────────────────────────────────────────────────► cached
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/event.h"
#include "engine/format.h"
#include "engine/model_file.h"
#include "engine/residency.h"
#include "io/types.h"

namespace ncfs {

enum class ObjectId : std::uint64_t {};
enum class FetchId : std::uint64_t {};

enum class ObjectState : std::uint8_t {
  absent,      // nothing on the disk, nothing charged
  creating,    // space reserved, the partial file is being made
  partial,     // a partial file with some good blocks; being filled when its file is open
  committing,  // all blocks written; on the way to its final name
  cached,      // complete under its final name
  removing,    // names being unlinked; charged until that is done and the file is closed
};
[[nodiscard]] const char* to_string(ObjectState state);
[[nodiscard]] bool is_transition(ObjectState from, ObjectState to);

// What the background copier has to do with the object.
enum class CopyPhase : std::uint8_t {
  none,     // nothing wanted, or nothing left to do
  queued,   // waits for a copy slot
  delayed,  // waits for `copy_at`: back-off or the racy window
  active,   // holds one of copies_max slots
};

// For whom a file is copied: who comes first, in every queue.
enum class CopyRank : std::uint8_t {
  opened,
  warmed,
  paced,    // warmed with a ceiling: it would hold up the others
  resumed,  // found unfinished at the start, wanted by nobody yet
};
inline constexpr std::size_t kCopyRanks = 4;
// In the copy queue, in order of arrival within a rank.
struct CopyPlace {
  CopyRank rank = CopyRank::resumed;
  std::uint64_t arrival = 0;
  auto operator<=>(const CopyPlace&) const = default;
};

// Why an object is being removed; decides what happens when it is gone.
enum class RemovalReason : std::uint8_t {
  none,
  evicted,
  stale,
  failed,
  damaged,
  expired,
  disowned,
};

// How far a disowned object is from never being found again; see disown.cc.
enum class DisownPhase : std::uint8_t {
  none,
  due,      // waits for the requests in flight
  running,  // the names of its sidecar are being unlinked
  done,     // with or without an error
};

// Whether the object is being compared with its checksums; see verify.cc.
enum class VerifyPhase : std::uint8_t {
  none,
  queued,   // waits for one of the slots
  active,   // holds one; its cache file is, or is being, opened for it
  closing,  // done; keeps its place in the eviction order until its cache file is closed
};

struct Object {
  ObjectId id{};
  FileId file;
  SourceVersion version;
  std::string path;
  bool is_excluded = false;  // by the rules about paths

  ObjectState state = ObjectState::absent;
  bool is_stale = false;      // the source has another version now: never copied, removed when idle
  bool is_looked_at = false;  // in this run
  std::set<HandleId> handles;
  std::uint32_t source_readers = 0;     // of the handles: OpenEvent::reads_source
  std::vector<HandleId> waiting_opens;  // answered when the cache file is open

  // On disk: valid in every state but absent.
  std::string stem;  // with the shard
  std::uint64_t serial = 0;
  std::uint64_t charge_bytes = 0;
  bool charge_is_used = false;  // in the ledger's `used`, else in its `reserved`
  FileHandle cache_file = FileHandle::none;
  std::shared_ptr<Residency> residency;  // exactly while cache_file is open
  BlockSet written;                      // blocks whose write has completed
  BlockSet durable;                      // blocks the sidecar on disk vouches for
  BlockSet unverified;                   // of `durable`, from an earlier run and not yet compared
  std::uint64_t unverified_count = 0;
  std::uint64_t blocks_missing = 0;  // not in `written`
  std::uint64_t dirty_bytes = 0;     // written but not durable
  Nanos checkpoint_at = 0;

  // Of a model: until its tensors are known, and while somebody has it open.
  std::unique_ptr<ModelHeader> model;

  // Requests in flight on the object's names or cache file; nothing is closed or unlinked before
  // they have come back.
  std::uint32_t io_in_flight = 0;
  bool is_opening = false;
  // The sidecar on disk speaks of blocks of another size, or vouches for one found damaged: a right
  // one comes before the first write, which may overwrite what the old one vouches for.
  bool needs_sidecar = false;
  // So will the one on its way be, as a block was found damaged.
  bool is_sidecar_outdated = false;
  bool is_persisting = false;  // a checkpoint or the commit is on its way
  BlockSet persisting;         // what it will vouch for
  std::uint64_t persisting_bytes = 0;
  FileHandle commit_source = FileHandle::none;  // asked before publishing; holds a reference

  // Fetches of whole blocks, by block: at most one each (OneFetch).
  std::map<std::uint64_t, FetchId> block_fetches;
  std::uint32_t fetches = 0;  // of any kind

  CopyPhase copy = CopyPhase::none;
  // Why Config::cache_on does not want it yet. Nothing of it is on the disk then.
  std::optional<OpenReason> deferral;
  CopyPlace copy_place;
  std::uint64_t pace = 0;  // WarmPace::number that its copy keeps to, rank `paced` only; 0: none
  Nanos copy_at = 0;             // delayed until then
  // Racy window: what was read before is not kept. Decided by the first look at the source; what
  // recovery finds was trusted when it was written.
  Nanos trusted_at = std::numeric_limits<Nanos>::max();
  std::uint32_t failures = 0;  // in a row
  int last_error = 0;          // errno of the last failure
  std::uint64_t cursor = 0;    // block the copier looks at next
  std::uint32_t copy_fetches = 0;
  Nanos copy_started_at = 0;
  std::uint64_t copy_bytes_at_start = 0;
  FileHandle copy_source = FileHandle::none;  // holds a reference of its own
  bool is_opening_source = false;
  std::vector<WarmToken> warms;

  RemovalReason removal = RemovalReason::none;
  std::uint32_t removal_step = 0;
  ObjectState removal_from = ObjectState::absent;
  Nanos remove_at = 0;  // removing: the disk did not let go of it; not tried again before
  std::uint32_t removal_failures = 0;
  std::vector<ControlToken> drops;  // told what comes of the removal
  // When it was last opened, warmed or closed; below 0 in an earlier run.
  std::int64_t used_at = 0;
  bool is_pin_recorded = false;       // what the sidecar on disk says
  bool persisting_pin = false;        // what the one on its way says
  Nanos record_at = 0;                // failed: not tried again before
  std::uint64_t unwritten_bytes = 0;  // of the charge: not yet taken from the file system
  Nanos touched_at = 0;               // when its last use was last recorded on disk
  Nanos evict_after = 0;              // found in use by a mapping: left alone until then

  // Checksums. In memory while the object is being filled, and of a complete object while they are
  // needed: during a verification, and with Checksum::read while its file is open.
  bool has_checksums = false;  // in the sidecar or, while it is being filled, to come
  bool is_loading_checksums = false;
  std::vector<std::uint64_t> checksums;
  std::uint64_t checksum_block_bytes = 0;
  VerifyPhase verify = VerifyPhase::none;
  bool is_scrub = false;           // verified for the scrub alone, and at its rate
  bool is_verify_read = false;     // one is in flight
  std::uint64_t verify_block = 0;  // that it reads
  std::uint64_t verify_next = 0;   // the first block not compared in this pass
  std::uint64_t verify_bytes = 0;  // compared in this pass
  Nanos scrub_at = 0;              // when its turn comes; key in the order of the scrub
  bool was_used = false;           // since the last record_use()

  // Written by our own mount: known by its id alone. No other object has its file.
  DisownPhase disown = DisownPhase::none;
  int disown_error = 0;
  // A request that may bring back a name timed out: it may still happen.
  bool is_name_in_doubt = false;

  // What it was before our own mount changed its attributes, the newest last. Whoever has looked at
  // the source before the change is still sent here.
  std::vector<SourceVersion> former_versions;
  // Version and path have changed so often; what the sidecar on disk, and the one on its way, know.
  std::uint32_t rekeys = 0;
  std::uint32_t rekeys_recorded = 0;
  std::uint32_t rekeys_persisting = 0;
  // Stale, but it may have been our own change: not removed before, in case we are told so.
  Nanos retire_at = 0;
  SourceVersion changed_to;  // stale: what was seen at the source

  [[nodiscard]] bool is_on_disk() const { return state != ObjectState::absent; }
  // On the way to `cached`.
  [[nodiscard]] bool is_unpublished() const {
    return takes_blocks() || state == ObjectState::committing;
  }
  // What is fetched now may be written.
  [[nodiscard]] bool takes_blocks() const {
    return state == ObjectState::creating || state == ObjectState::partial;
  }
  [[nodiscard]] bool has_some_blocks() const {
    return state == ObjectState::partial || state == ObjectState::committing;
  }
  [[nodiscard]] bool has_cache_file() const {
    return has_some_blocks() || state == ObjectState::cached;
  }
  // For those who read: its names stay as they are meanwhile.
  [[nodiscard]] bool may_be_opened() const {
    return state == ObjectState::cached || state == ObjectState::partial;
  }
  [[nodiscard]] bool is_disowned() const { return disown != DisownPhase::none; }
  [[nodiscard]] bool is_open() const { return cache_file != FileHandle::none; }
  [[nodiscard]] bool is_verifying() const {
    return verify == VerifyPhase::active || verify == VerifyPhase::closing;
  }
  [[nodiscard]] bool is_unverified(std::uint64_t block) const {
    return unverified_count > 0 && unverified.test(block);
  }
};

}  // namespace ncfs
