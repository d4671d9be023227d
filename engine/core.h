// The inside of the engine: one state, changed by handlers in these files.
//
//   engine.cc    events: open, close, read, warm, tick, stop; who asks and who is told
//   prefetch.cc  what is fetched ahead for whom, and what became of it
//   fetch.cc     the fetch scheduler: demand, prefetch and copy share buffers and source reads
//   store.cc     objects on disk: create, write, checkpoint, commit, evict, remove
//   copier.cc    which object is copied when: queue, slots, room, back-off, the racy window
//   recovery.cc  the cache directory at start
//   degrade.cc   the cache disk or the source fails: what is left out meanwhile, and how it returns
//   verify.cc    comparing cached bytes with their checksums
//   debris.cc    names that a crash left, until they are gone; somebody else may have them open
//   limits.cc    room: the limit, the floor of free space, age, eviction on demand
//   pins.cc      which files are kept
//   record.cc    replacing the sidecar of a complete object
//   disown.cc    our own mount writes into a file, which may make it larger
//   rekey.cc     our own mount changes attributes or the name of a file
//
// A handler records what happened and then calls settle() on the object, which alone decides what
// follows from the object's facts. Nothing here recurses: settle() submits requests, and requests
// never complete inline.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/ahead.h"
#include "engine/config.h"
#include "engine/engine.h"
#include "engine/event.h"
#include "engine/eviction.h"
#include "engine/format.h"
#include "engine/health.h"
#include "engine/lru_map.h"
#include "engine/object.h"
#include "engine/space.h"
#include "engine/streams.h"
#include "engine/strides.h"
#include "engine/tensors.h"
#include "engine/token_bucket.h"
#include "engine/yield.h"
#include "io/io.h"

namespace ncfs {

// An errno the engine itself gives to a copy whose source changed under it.
inline constexpr int kSourceChanged = 116;  // ESTALE
// What a server says to a handle that it knows no more.
inline constexpr int kStaleHandle = 116;  // ESTALE
// Linux errno values the engine gives or looks for; <cerrno> is not included, as a pure engine has
// no errno of its own.
inline constexpr int kNotPermitted = 1;      // EPERM
inline constexpr int kNoEntry = 2;           // ENOENT
inline constexpr int kInputOutputError = 5;  // EIO
inline constexpr int kAccessDenied = 13;     // EACCES
inline constexpr int kBusy = 16;             // EBUSY
inline constexpr int kExists = 17;           // EEXIST
inline constexpr int kFileTooBig = 27;       // EFBIG
inline constexpr int kNoSpace = 28;          // ENOSPC
inline constexpr int kReadOnly = 30;         // EROFS
inline constexpr int kTimedOut = 110;        // ETIMEDOUT
inline constexpr int kOverQuota = 122;       // EDQUOT
inline constexpr int kCanceled = 125;        // ECANCELED

// Files remembered as opened once: about 10 MiB. Of more that are opened in turns none is opened
// twice soon.
inline constexpr std::uint64_t kOpenedOnceMax = 65536;

// What a completion is for.
enum class Step : std::uint8_t {
  fetch_read,
  fetch_check,
  block_write,
  create,
  open_cache,
  close_cache,
  open_source,
  close_source,
  touch,
  persist_sync,
  persist_stat,
  persist_store,
  persist_rename,
  persist_sync_directory,
  publish_rename,
  publish_sync_directory,
  remove_open,
  remove_unlink,
  recover_list,
  recover_load,
  recover_unlink,
  probe_store,
  probe_unlink,
  load_checksums,
  verify_read,
  cached_read,
  debris_open,
  debris_unlink,
  debris_close,
  record_load,
  record_store,
  record_rename,
  record_sync_directory,
  free_space,
  disown_temp,
  disown_sidecar,
  disown_sync_directory,
};

struct Pending {
  Step step{};
  ObjectId object{};
  FetchId fetch{};
  std::uint32_t shard = 0;
  std::string stem{};
};

struct Waiter {
  ReadToken token{};
  HandleId handle{};
  ByteRange range;
};

enum class FetchKind : std::uint8_t { demand, prefetch, copy };

enum class FetchPhase : std::uint8_t {
  queued,  // waits for a source read and a buffer
  reading,
  resting,   // a copy of which a piece is loaded: the rest waits for its turn (engine/yield.h)
  checking,  // came back short: asking the source whether it has shrunk; still counts as a read
  loaded,    // bytes in the buffer
  writing,   // bytes in the buffer, on the way to the cache file
  reading_cache,  // from the cache file, to be compared with the checksum; see verify.cc
};

// What may be fetched twice for the sake of the first bytes: less than a hundredth of the file.
inline constexpr std::uint64_t kFirstBytesShare = 128;

// Why a fetch began before anybody asked for its block, and for whom.
struct FetchAhead {
  AheadReason reason{};
  HandleId handle{};  // while the fetch is not loaded yet it may be closed
};

// One read of the source, or with Checksum::read of a cached block. Always within one block;
// `block` is set when it is all of that block, and only then are others let in on it and the bytes
// kept.
struct Fetch {
  FetchId id{};
  ObjectId object{};
  FileHandle source = FileHandle::none;  // holds a reference
  ByteRange range;
  std::optional<std::uint64_t> block;
  FetchKind kind{};
  FetchPhase phase = FetchPhase::queued;
  std::optional<BufferId> buffer;
  std::uint64_t length = 0;  // of the loaded bytes
  std::uint64_t asked = 0;   // of the bytes after those: being read
  bool yields = false;       // these, to readers: a copy that nobody waits for
  std::uint32_t users = 0;   // answers not yet acknowledged by ReadDoneEvent
  std::uint32_t attempts = 0;
  Nanos issued_at = 0;
  std::optional<FetchAhead> ahead;  // until the block's fate is known, or it is in the cache file
  bool is_wanted_on_disk = false;
  bool is_from_cache = false;  // queued or read there; on failure it turns to the source
  std::vector<Waiter> waiters;
};

// A block that was fetched ahead and that nobody has read yet, as far as is known.
struct UnreadBlock {
  std::uint64_t block = 0;
  std::uint64_t bytes = 0;
  AheadReason reason{};
  FetchId fetch{};
  bool is_in_file = false;  // else the fetch holds it
};

struct Handle {
  HandleId id{};
  ObjectId object{};
  FileHandle source = FileHandle::none;  // holds a reference
  std::uint64_t opened_as = 0;           // number from the sequence that also numbers fetches
  bool had_other_version = false;
  bool reads_source = false;
  bool is_answered = false;
  Nanos answer_by = 0;
  bool has_read = false;
  bool is_sequential = false;  // the last read went on with a stream
  Streams streams;
  Strides strides;
  TensorOrder tensors;
  std::uint64_t last_block = 0;     // of a stream
  std::vector<UnreadBlock> unread;  // oldest first; some tens
  AheadLimit ahead_limit;
};

// One VerifyEvent.
struct VerifyJob {
  std::vector<std::string> paths;
  bool is_started = false;  // not before all objects are known
  std::set<ObjectId> todo;
  VerifyResult result;  // bytes_verified: of objects done
};

enum class ShardPhase : std::uint8_t { unlisted, listing, loading, recovered };

struct Shard {
  ShardPhase phase = ShardPhase::unlisted;
  std::uint32_t requests = 0;  // in flight or still to be sent
  bool must_rescan = false;
  std::map<std::string, std::vector<CacheEntry>> stems;  // while loading
  std::set<HandleId> waiting_opens;
  std::vector<RekeyEvent> rekeys;  // of files that may be found yet
};

// Whether `path` is one of `roots` or beneath one; "" is above everything. limits.cc
[[nodiscard]] bool is_beneath(const std::string& path, const std::vector<std::string>& roots);

class Core {
 public:
  Core(const Config& config, Io& io, Host& host);

  void start(Nanos now);
  void handle(Nanos now, Event event);
  void complete(Nanos now, Completion completion);
  [[nodiscard]] EngineStatus status() const;
  [[nodiscard]] std::optional<Nanos> wake_at() const { return wake_at_; }
  [[nodiscard]] FileReport report_of(const Object& object) const;
  [[nodiscard]] std::vector<FileReport> files(const FileQuery& query) const;  // listing.cc
  void check_invariants() const;

 private:
  void check_pins_and_controls(std::size_t drops) const;  // books.cc

  // engine.cc
  void on(OpenEvent&& event);
  void on(CloseEvent&& event);
  void on(ReadEvent&& event);
  void on(ReadDoneEvent&& event);
  void on(WarmEvent&& event);
  void on(CacheFaultEvent&& event);
  void on(TickEvent&& event);
  void on(StopEvent&& event);
  void on(VerifyEvent&& event);
  void on(LimitEvent&& event);
  void on(EvictEvent&& event);
  void on(UnpinEvent&& event);
  void on(DisownEvent&& event);
  void on(RekeyEvent&& event);
  void on(GrowEvent&& event);
  void on(CopyRateEvent&& event);
  void on(WakeEvent&& event);
  void continue_open(Handle& handle);
  void answer_open(Handle& handle);
  void stop_waiting(Handle& handle);
  [[nodiscard]] OpenReason reason_of(const Object& object, const Handle& handle) const;
  [[nodiscard]] std::optional<OpenReason> refusal(const Object& object) const;
  Object& object_for(const FileId& file, const SourceVersion& version);
  void retire_other_versions(const Object& current, bool& had_other);
  void look_at(Object& object, const SourceState& state);
  void name_path(Object& object, std::string path);
  void note_open(Object& object);
  void settle(Object& object);
  [[nodiscard]] bool can_rest(const Object& object) const;
  void update_evictable(Object& object);
  void answer_warms(Object& object, const WarmResult& result);
  void notice(Notice::Kind kind, const Object& object, std::uint64_t bytes = 0, int error = 0,
              std::string detail = {});
  void hold_source(FileHandle source);
  void drop_source(FileHandle source);
  void check_stopped();
  Request make_request(Op op, Nanos patience) const;
  void submit(Pending pending, Request request);
  void dispatch(const Pending& pending, Completion& completion);

  // fetch.cc
  // Reads of one file system in flight.
  struct SourceReads {
    std::uint32_t all = 0;
    std::uint32_t demand = 0;
    std::uint32_t copies = 0;
    bool operator==(const SourceReads&) const = default;
  };
  Object& object(ObjectId id) { return objects_.at(id); }
  [[nodiscard]] ByteRange block_range(const Object& object, std::uint64_t block) const;
  [[nodiscard]] SourceReads source_reads_of(const Object& object) const;
  [[nodiscard]] bool is_much_of_block(const Object& object, ByteRange range) const;
  Fetch& add_fetch(Object& object, FileHandle source, ByteRange range,
                   std::optional<std::uint64_t> block, FetchKind kind);
  void fetch_for_reader(Handle& handle, const Waiter& waiter, bool is_cached);
  [[nodiscard]] bool may_join(const Handle& handle, const Fetch& fetch) const;
  void pump();
  bool start_demand();
  bool start_background();
  bool start_copy_block();
  bool start_copy_block_of(Object& object);
  [[nodiscard]] std::uint64_t copy_piece(const Object& object);
  [[nodiscard]] Nanos copy_ready_at(const Object& object) const;
  void issue(Fetch& fetch, std::uint64_t bytes);
  void issue_piece(Fetch& fetch, std::uint64_t piece);
  void continue_copies();
  void rest(Fetch& fetch);
  [[nodiscard]] static bool is_in_pieces(const Fetch& fetch);
  [[nodiscard]] static bool is_for_reader(const Fetch& fetch);
  [[nodiscard]] YieldWindow& yield_of(const Object& object);
  void forget_yields();
  [[nodiscard]] bool may_read_source(const Object& o, std::uint32_t reserved) const;
  [[nodiscard]] bool may_read_in_background(const Object& o) const;
  void begin_source_read(const Fetch& fetch);
  void end_source_read(const Fetch& fetch);
  // Reads and writes that no reader waits for, and that may never end, leave the reserved buffers.
  [[nodiscard]] bool may_hold_one_more_buffer() const {
    return background_reads_ + resting_.size() + cache_writes_ + cache_reads_ <
           config_.buffers - config_.buffers_reserved;
  }
  std::optional<BufferId> take_buffer_for_demand();
  void on_fetch_read(FetchId id, const Completion& completion);
  void on_fetch_checked(FetchId id, const Completion& completion);
  void on_fetch_failed(Fetch& fetch, int error);
  void on_fetch_loaded(Fetch& fetch);
  void answer_bytes(Fetch& fetch, const Waiter& waiter);
  void answer_error(const Waiter& waiter, int error);
  void fetch_alone(const Waiter& waiter);
  void keep_or_drop(Fetch& fetch);
  std::optional<std::uint64_t> next_copy_block(Object& object);
  void unwant(Fetch& fetch);
  [[nodiscard]] std::optional<FetchId> oldest_read_idle() const;
  bool make_place_for_idle();
  [[nodiscard]] std::vector<FetchId> idle_fetches_of(const Object& object) const;
  // A quarter of the buffers is memory enough: the reader that would come back for a block comes
  // soon or not at all.
  [[nodiscard]] std::size_t idle_fetches_max() const { return config_.buffers / 4; }
  void retire(FetchId id);
  [[nodiscard]] bool may_keep(const Object& object) const;

  // prefetch.cc
  struct Ahead {
    std::uint64_t block = 0;
    AheadReason reason{};
  };
  [[nodiscard]] Streams::Window prefetch_window(const Handle& handle) const;
  [[nodiscard]] std::uint64_t prefetch_blocks_max() const;
  void note_read(Handle& handle, const Object& object, ByteRange range);
  void open_model(Object& object);
  void read_model(const Object& object, const Fetch& fetch, const Completion& completion);
  [[nodiscard]] bool note_stride(Handle& handle, const Object& object, ByteRange range);
  [[nodiscard]] std::optional<Ahead> next_ahead(Handle& handle);
  bool start_prefetch();
  void count_ahead(Fetch& fetch);
  void forget_ahead(Fetch& fetch);
  void judge_ahead(Fetch& fetch, bool was_used);
  void judge_ahead(Handle& handle, std::vector<UnreadBlock>::iterator entry, bool was_used);
  void move_ahead_to_file(Fetch& fetch, Object& object);
  void settle_ahead(Handle& handle);
  void end_ahead(Handle& handle);
  void check_ahead() const;  // books.cc

  // store.cc
  void set_state(Object& object, ObjectState state);
  void create_storage(Object& object);
  void on_created(Object& object, std::int64_t result);
  void open_cache(Object& object);
  void on_cache_opened(Object& object, std::int64_t result);
  void close_cache(Object& object);
  void record_use(Object& object);
  void adopt_cache_file(Object& object, FileHandle file);
  void publish_blocks(Object& object);
  void pump_writes();
  void on_block_written(FetchId id, const Completion& completion);
  [[nodiscard]] bool can_commit(const Object& object) const;
  void start_persist(Object& object);
  void on_persist_step(Object& object, Step step, const Completion& completion);
  // The chain that replaces a sidecar and makes that durable.
  [[nodiscard]] Request store_sidecar(const Object& object, const Sidecar& sidecar) const;
  [[nodiscard]] Request rename_sidecar(const Object& object) const;
  [[nodiscard]] Request sync_shard(const Object& object) const;
  void finish_persist(Object& object);
  void end_persist(Object& object);
  void finish_commit(Object& object);
  void on_cache_error(Object& object, int error, const char* operation);
  void remove(Object& object, RemovalReason reason);
  void advance_removal(Object& object);
  void on_removal_step(Object& object, Step step, std::int64_t result);
  void finish_removal(Object& object);
  void postpone_removal(Object& object, int error);
  [[nodiscard]] std::string name_of(const Object& object, NameKind kind) const;
  Request cache_request(Op op) const { return make_request(op, config_.cache_deadline); }

  // copier.cc
  void want_copy(Object& object);
  void queue_copy(Object& object);
  void raise_rank(Object& object, CopyRank rank);
  [[nodiscard]] bool make_way();
  void set_pace(Object& object, const WarmPace& pace);
  void forget_paces();
  void delay_copy(Object& object, Nanos until);
  void leave_copy(Object& object);
  // `seen`: the version the source has instead; nothing if the file is gone.
  void mark_changed(Object& object, std::optional<SourceVersion> seen);
  void on_copy_failed(Object& object, int error);
  void refuse_copy(Object& object, OpenReason reason);
  void try_storage(Object& object);
  void schedule_copies();
  [[nodiscard]] Nanos back_off(std::uint32_t failures) const;
  bool activate(Object& object);
  void advance_copy(Object& object);
  void on_source_opened(Object& object, const Completion& completion);
  void wake_delayed();
  void set_copy_source(Object& object, FileHandle source);

  // recovery.cc
  void pump_recovery();
  void hurry_shard(std::uint32_t shard);
  void on_shard_listed(std::uint32_t shard, Completion& completion);
  void on_sidecar_loaded(std::uint32_t shard, const std::string& stem, Completion& completion);
  void recover_object(std::uint32_t shard, const std::string& stem,
                      const std::vector<CacheEntry>& entries, std::optional<Sidecar> sidecar);
  void remove_debris(std::uint32_t shard, const std::string& stem,
                     const std::vector<CacheEntry>& entries, const char* why);
  void remove_leftover(std::uint32_t shard, const CacheEntry& entry);
  void settle_shard(std::uint32_t shard);
  void finish_recovery();

  // degrade.cc
  void judge_result(const Pending& pending, std::int64_t result);
  void judge_answer(DiskAnswer answer, int error, bool is_of_probe = false);
  void on_health_changed();
  void use_cache_again();
  void start_probe();
  void on_probe_step(Step step, std::int64_t result);
  void on_disk_full(std::uint64_t bytes_needed);
  [[nodiscard]] bool may_start_copies() const;
  [[nodiscard]] std::size_t active_copies_max() const;
  void source_answers();
  void source_fails(const Object& object, int error);

  // verify.cc
  [[nodiscard]] bool wants_checksums(const Object& object) const;
  [[nodiscard]] std::shared_ptr<Residency> residency_for_readers(const Object& object) const;
  void start_job(VerifyJob& job);
  void finish_jobs();
  void queue_verify(Object& object);
  void grow_scrub_budget();
  void start_scrub();
  void postpone_scrub(Object& object);
  void pump_verifies();
  void advance_verify(Object& object);
  [[nodiscard]] std::optional<std::uint64_t> next_verify_block(const Object& object) const;
  [[nodiscard]] ByteRange checksum_range(const Object& object, std::uint64_t block) const;
  void on_verify_read(Object& object, const Completion& completion);
  void on_block_damaged(Object& object, std::uint64_t block, int error);
  void on_damaged(Object& object, const std::string& what, int error);
  enum class Verdict : std::uint8_t { intact, damaged, skipped };
  void end_verify(Object& object, Verdict verdict);
  void load_checksums(Object& object);
  void on_checksums_loaded(Object& object, const Completion& completion);
  bool start_cached_reads();
  void on_cached_read(FetchId id, const Completion& completion);

  // debris.cc
  struct Debris {
    std::uint64_t charge_bytes = 0;  // in the ledger's `used`
    FileHandle file = FileHandle::none;
    bool may_be_open = false;    // by somebody else
    bool is_busy = false;        // a request is in flight
    bool is_gone = false;        // has no name any more
    std::uint32_t failures = 0;  // of its removal; not for being in use or late
    [[nodiscard]] bool is_given_up() const;
  };
  void add_debris(std::string name, const CacheEntry& entry);
  void try_debris(const std::string& name, Debris& debris);
  void on_debris_step(const std::string& name, Step step, std::int64_t result);
  void retry_debris();

  // limits.cc
  enum class Room : std::uint8_t { now, soon, never };
  Room make_room(std::uint64_t bytes, std::optional<EvictionKey> incoming);
  Room room_for(const Object& object);                           // a copy of it; copier.cc
  std::uint64_t evict_one(std::optional<EvictionKey> incoming);  // the bytes that leave
  void evict_to_limit();
  [[nodiscard]] std::uint64_t bytes_leaving() const;
  [[nodiscard]] std::uint64_t min_free_bytes() const;
  [[nodiscard]] std::uint64_t excess(std::uint64_t bytes) const;
  [[nodiscard]] std::uint64_t lack_of_free_space(std::uint64_t bytes) const;
  [[nodiscard]] std::uint64_t bytes_to_evict(std::uint64_t bytes) const;
  void reconsider_copies();
  void ask_free_space();
  void on_free_space(const Completion& completion);
  void promise_space(Object& object, std::uint64_t bytes);
  void take_promised(Object& object, std::uint64_t bytes);
  void note_use(Object& object, std::int64_t at);
  void expire_unused();
  void pump_drops();
  void count_drop(Object& object, ControlResult::Count ControlResult::*fate);
  void answer_controls();

  // listing.cc
  [[nodiscard]] std::optional<OpenReason> reason_not_complete(const Object& object) const;

  // pins.cc
  struct Pin {
    std::string path;
    std::uint64_t charge_bytes = 0;
  };
  [[nodiscard]] bool is_pinned(const Object& object) const {
    return !object.is_stale && pins_.contains(object.file);
  }
  bool pin(const Object& object);
  void unpin(FileId file);
  void follow_pin(const Object& object);
  void recover_pin(const Object& object);
  [[nodiscard]] bool was_unpinned(const Object& object) const;  // limits.cc
  void settle_versions(FileId file);

  // record.cc
  [[nodiscard]] bool must_record(const Object& object) const;
  void record(Object& object);
  void on_record_step(Object& object, Step step, const Completion& completion);

  // disown.cc
  struct Disowning {
    std::set<ObjectId> todo;
    int error = 0;
  };
  void disown(Object& object);
  void start_disowning(Object& object);
  void on_disown_step(Object& object, Step step, std::int64_t result);
  void end_disowning(Object& object, int error);
  void refuse_disownings();
  struct Growth {
    GrowToken token{};
    HandleId handle{};
    std::uint64_t size_bytes = 0;
    Nanos answer_by = 0;
  };
  [[nodiscard]] std::optional<int> grow(const Growth& growth);
  void pump_growths();
  void expire_growths();
  void refuse_growths(int error, std::optional<HandleId> only);

  // rekey.cc
  [[nodiscard]] bool is_own_change(const RekeyEvent& event) const;
  void rekey(Object& object, const SourceVersion& version, const std::string& path);
  void rekey_recovered(Shard& shard);
  void add_version(Object& object, const SourceVersion& version);
  void set_path(Object& object, const std::string& path);
  [[nodiscard]] bool may_merge(const Object& object) const;
  void merge(Object& to, Object& from);
  void forget_versions(const Object& object);
  void expect_rekey(Object& object, std::optional<SourceVersion> seen);
  [[nodiscard]] bool has_version(const Object& object, const SourceVersion& version) const;
  [[nodiscard]] std::vector<ObjectId> objects_of(const FileId& file) const;

  const Config config_;
  Io& io_;
  Host& host_;
  Nanos now_ = 0;
  std::uint64_t next_id_ = 1;  // tickets, objects, fetches and serials: never reused
  bool is_started_ = false;
  bool is_stopping_ = false;
  bool is_stopped_ = false;

  std::map<Ticket, Pending> pending_;
  std::map<ObjectId, Object> objects_;
  std::map<std::pair<FileId, SourceVersion>, ObjectId> by_version_;  // of all but `disowned_`
  std::map<HandleId, Handle> handles_;
  std::map<FileHandle, std::uint32_t> sources_;  // references

  SpaceLedger space_;
  const std::unique_ptr<EvictionPolicy> eviction_;  // what is on the disk and not being removed
  std::set<ObjectId> removing_;                     // state removing
  std::set<ObjectId> attention_;                    // settled again at the next tick

  std::map<FetchId, Fetch> fetches_;
  std::deque<FetchId> demand_queue_;
  std::deque<FetchId> write_queue_;
  std::set<FetchId> idle_fetches_;  // loaded blocks kept in memory until the buffer is needed
  std::size_t ahead_fetches_ = 0;   // Fetch::ahead is set
  std::set<HandleId> waiting_for_readers_;  // Handle::unread is not empty
  std::map<ReadToken, FetchId> answers_;    // not yet acknowledged
  std::set<HandleId> prefetching_;
  std::vector<BufferId> free_buffers_;
  std::uint32_t source_reads_ = 0;
  std::map<std::uint64_t, SourceReads> source_reads_of_;  // by file system; none is without any
  std::uint32_t background_reads_ = 0;                    // for prefetch and copies
  std::vector<FetchId> resting_;                          // phase resting, in order
  std::map<std::uint64_t, YieldWindow> yields_;           // by file system of the source
  std::uint32_t cache_writes_ = 0;
  std::uint32_t cache_reads_ = 0;     // fetches of phase reading_cache
  std::deque<FetchId> cached_queue_;  // wait for that

  std::map<CopyPlace, ObjectId> copy_queue_;
  TokenBucket copy_bucket_;  // Config::copy_bytes_per_second
  // Ceilings of warm-ups: as long as objects keep to them, or what they took is not paid off.
  struct Pace {
    TokenBucket bucket;
    std::size_t objects = 0;
  };
  std::map<std::uint64_t, Pace> paces_;
  std::optional<Nanos> wake_at_;  // when a copy that only waits for its ceiling may go on
  std::set<std::pair<Nanos, ObjectId>> delayed_copies_;
  std::vector<ObjectId> active_copies_;
  std::size_t copy_turn_ = 0;

  std::vector<Shard> shards_;
  std::deque<std::uint32_t> shards_to_list_;
  std::vector<std::uint32_t> shards_to_rescan_;  // at the next tick
  std::set<std::string> recovered_stems_;        // until recovery is done
  std::deque<std::pair<std::uint32_t, std::string>> sidecars_to_load_;
  std::uint32_t shards_recovered_ = 0;
  std::uint32_t recovery_requests_ = 0;
  bool is_recovered_ = false;
  std::vector<std::pair<std::int64_t, ObjectId>> recovered_by_age_;

  CacheHealth health_;
  std::deque<std::pair<Pending, Request>> held_;  // requests of the cache while it is down
  bool is_probing_ = false;
  bool is_probe_stored_ = false;
  std::uint64_t probe_charge_ = 0;    // of the ledger's `reserved`, until the probe's file is gone
  BackOff disk_full_;                 // of new cache files
  BackOff source_rest_;               // of reads of the source for copies
  std::set<ObjectId> failed_in_row_;  // copies, since a read of the source last succeeded
  int source_error_ = 0;              // why source_rest_ began

  std::map<VerifyToken, VerifyJob> verify_jobs_;
  std::deque<ObjectId> verify_queue_;                 // phase queued
  std::vector<ObjectId> verifying_;                   // phase active
  std::set<std::pair<Nanos, ObjectId>> scrub_order_;  // cached objects with checksums
  std::uint64_t scrub_budget_bytes_ = 0;
  Nanos scrub_budget_at_ = 0;

  std::map<std::string, Debris> debris_;    // by name, with the shard
  std::uint64_t debris_leaving_bytes_ = 0;  // of those with a request in flight
  std::uint32_t debris_requests_ = 0;

  // With CacheOn::second_open: files that were opened in this run.
  LruMap<FileId, bool> opened_once_{kOpenedOnceMax *
                                    LruMap<FileId, bool>::kOverheadBytes};

  std::map<FileId, Pin> pins_;
  std::map<std::string, FileId> pinned_paths_;
  std::vector<std::string> unpinned_paths_;  // with what is beneath; until recovery is done
  std::uint64_t pinned_bytes_ = 0;

  std::set<std::pair<FileId, ObjectId>> disowned_;
  std::map<DisownToken, Disowning> disownings_;  // not answered yet
  std::deque<Growth> growths_;                   // not answered yet; oldest first

  // Objects at rest by their last use; empty without a TTL.
  std::set<std::pair<std::int64_t, ObjectId>> by_use_;
  struct Control {
    ControlResult result;
    std::uint64_t pending = 0;
  };
  std::map<ControlToken, Control> controls_;
  std::deque<std::pair<ObjectId, ControlToken>> drops_;

  // What the file system told last, and what the cache has promised to take and given back since it
  // was asked; the same for a question on its way.
  FileSystemSpace disk_space_;
  bool is_disk_space_known_ = false;
  bool is_asking_disk_space_ = false;
  bool waits_for_disk_space_ = false;
  std::uint64_t unwritten_bytes_ = 0;  // sum over the objects
  std::uint64_t promised_bytes_ = 0;
  std::uint64_t returned_bytes_ = 0;
  std::uint64_t promised_bytes_next_ = 0;
  std::uint64_t returned_bytes_next_ = 0;

  EngineStatus counters_;  // only its counters since start are used
};

}  // namespace ncfs
