// The fetch scheduler: reads of the source, shared by readers, prefetch and the copier.
//
// Invariants:
//   OneFetch   at most one whole-block fetch per block and version is alive, and everybody who
//              wants bytes of that block joins it;
//   NeverWait  a reader's fetch waits only for a source read and a buffer, and background fetches
//              never hold the last `source_reads_reserved` reads, nor they and writes of the cache
//              the last `buffers_reserved` buffers; blocks waiting to be written give up their
//              buffers to a reader;
//   Share      a file system of the source has at most `source_reads_max` reads in flight, and
//              begins one only while it has fewer than are left of twice as many. So one that hangs
//              leaves reads for another, that one for a third (as fuse_adapter/job_pool.h does);
//   a buffer is free, or belongs to exactly one fetch.

#include <algorithm>
#include <utility>

#include "engine/core.h"
#include "engine/marks.h"
#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// A fetch that comes back short although the source says that the file is long enough is tried
// again; three in a row are an I/O error.
constexpr std::uint32_t kAttemptsMax = 3;

// Who asks for a quarter of a block that the cache wants, too, waits for four times as much at
// most, and it is not fetched again.
constexpr std::uint64_t kMuchOfABlock = 4;

}  // namespace

ByteRange Core::block_range(const Object& o, std::uint64_t block) const {
  const std::uint64_t offset = block * config_.block_size_bytes;
  NCFS_ASSERT(offset < o.version.size);
  return {offset, std::min(config_.block_size_bytes, o.version.size - offset)};
}

bool Core::is_much_of_block(const Object& o, ByteRange range) const {
  const ByteRange all = block_range(o, range.offset / config_.block_size_bytes);
  return range.length >= all.length / kMuchOfABlock;
}

Fetch& Core::add_fetch(Object& o, FileHandle source, ByteRange range,
                       std::optional<std::uint64_t> block, FetchKind kind) {
  const FetchId id{next_id_++};
  Fetch& fetch = fetches_[id];
  fetch.id = id;
  fetch.object = o.id;
  fetch.source = source;
  fetch.range = range;
  fetch.block = block;
  fetch.kind = kind;
  hold_source(source);
  ++o.fetches;
  if (kind == FetchKind::copy) ++o.copy_fetches;
  if (block) {
    const bool is_only = o.block_fetches.emplace(*block, id).second;
    NCFS_ASSERT(is_only && "S6 OneFetch");
  }
  return fetch;
}

// Sequential readers get whole blocks, which others can share and the cache can keep, and so do
// those who ask for much of one; a random reader fetches exactly its bytes.
void Core::fetch_for_reader(Handle& h, const Waiter& waiter, bool is_cached) {
  Object& o = object(h.object);
  const std::uint64_t block = waiter.range.offset / config_.block_size_bytes;
  if (const auto entry = o.block_fetches.find(block);
      entry != o.block_fetches.end() && !NCFS_PLANT(fetch_not_shared)) {
    Fetch& fetch = fetches_.at(entry->second);
    if (may_join(h, fetch) && is_in_pieces(fetch) && !h.is_sequential &&
        !is_much_of_block(o, waiter.range)) {
      return fetch_alone(waiter);
    }
    if (may_join(h, fetch)) {
      if (fetch.phase == FetchPhase::loaded || fetch.phase == FetchPhase::writing) {
        NCFS_MARK(fetch_shared_from_memory);
        answer_bytes(fetch, waiter);
      } else {
        NCFS_MARK(fetch_joined);
        fetch.waiters.push_back(waiter);
        if (fetch.kind == FetchKind::prefetch) {
          h.streams.widen(block, prefetch_window(h));
          if (h.streams.has_next()) prefetching_.insert(h.id);
        }
      }
      return;
    }
    // It serves those who have it and makes way for one that can be shared.
    NCFS_MARK(fetch_makes_way);
    o.block_fetches.erase(entry);
    if (idle_fetches_.contains(fetch.id)) retire(fetch.id);
  }
  const ByteRange all = block_range(o, block);
  const bool is_much = may_keep(o) && is_much_of_block(o, waiter.range);
  const bool is_whole = h.is_sequential || is_cached || is_much || waiter.range == all;
  if (!is_whole) NCFS_MARK(fetch_of_a_few_bytes);
  Fetch& fetch = is_whole ? add_fetch(o, h.source, all, block, FetchKind::demand)
                          : add_fetch(o, h.source, waiter.range, std::nullopt, FetchKind::demand);
  fetch.waiters.push_back(waiter);
  fetch.is_from_cache = is_cached;
  (is_cached ? cached_queue_ : demand_queue_).push_back(fetch.id);
}

// Within the racy window two contents may have one version: what was asked for before an open may
// be older than what that open promises.
bool Core::may_join(const Handle& h, const Fetch& fetch) const {
  const Object& o = objects_.at(fetch.object);
  if (NCFS_PLANT(old_fetch_joined)) return true;
  return fetch.phase == FetchPhase::queued || fetch.issued_at >= o.trusted_at ||
         static_cast<std::uint64_t>(fetch.id) > h.opened_as;
}

// A fetch that somebody else started has failed with that one's credentials or connection; a reader
// that only joined it gets its own try.
void Core::fetch_alone(const Waiter& waiter) {
  const Handle& h = handles_.at(waiter.handle);
  Fetch& fetch =
      add_fetch(object(h.object), h.source, waiter.range, std::nullopt, FetchKind::demand);
  fetch.waiters.push_back(waiter);
  demand_queue_.push_back(fetch.id);
}

// --- Choosing what to read next --------------------------------------------------------------

void Core::pump() {
  wake_at_.reset();
  pump_verifies();
  while (start_cached_reads()) {
  }
  while (start_demand()) {
  }
  continue_copies();
  while (start_background()) {
  }
  pump_writes();
}

Core::SourceReads Core::source_reads_of(const Object& o) const {
  const auto own = source_reads_of_.find(o.file.filesystem);
  return own == source_reads_of_.end() ? SourceReads{} : own->second;
}

bool Core::may_read_source(const Object& o, std::uint32_t reserved) const {
  const std::uint32_t reads = source_reads_of(o).all;
  return reads + reserved < config_.source_reads_max &&
         reads < 2 * config_.source_reads_max - source_reads_;
}

bool Core::start_demand() {
  const auto next = std::find_if(demand_queue_.begin(), demand_queue_.end(), [this](FetchId id) {
    return may_read_source(object(fetches_.at(id).object), 0) || NCFS_PLANT(source_reads_unbounded);
  });
  if (next == demand_queue_.end()) return false;
  if (NCFS_PLANT(reader_behind_copies) && background_reads_ > 0) return false;
  const std::optional<BufferId> buffer = take_buffer_for_demand();
  if (!buffer) return false;
  Fetch& fetch = fetches_.at(*next);
  demand_queue_.erase(next);
  fetch.buffer = buffer;
  issue(fetch, fetch.range.length);
  return true;
}

bool Core::start_background() {
  // What the cache disk cannot take yet need not be fetched yet.
  if (is_stopping_ || write_queue_.size() >= config_.cache_writes_max) return false;
  if (free_buffers_.size() <= config_.buffers_reserved || !may_hold_one_more_buffer()) return false;
  return start_prefetch() || start_copy_block();
}

bool Core::may_read_in_background(const Object& o) const {
  return may_read_source(o, NCFS_PLANT(copies_take_all_reads) ? 0 : config_.source_reads_reserved);
}

// One block for each active copy in turn, of the best rank that can take one.
bool Core::start_copy_block() {
  if (health_.is_down()) return false;
  for (std::size_t rank = 0; rank < kCopyRanks; ++rank) {
    for (std::size_t tried = 0; tried < active_copies_.size(); ++tried) {
      copy_turn_ = (copy_turn_ + 1) % active_copies_.size();
      Object& o = object(active_copies_[copy_turn_]);
      if (o.copy_place.rank == CopyRank{static_cast<std::uint8_t>(rank)} &&
          start_copy_block_of(o)) {
        return true;
      }
    }
  }
  return false;
}

bool Core::start_copy_block_of(Object& o) {
  if (o.state != ObjectState::partial || !o.is_open()) return false;
  // Beside a reader of the source one block at a time: it is the reader's device, too.
  const std::uint32_t depth = o.source_readers > 0 ? 1 : config_.copy_depth;
  if (o.copy_source == FileHandle::none || o.copy_fetches >= depth) return false;
  if (!may_read_in_background(o)) return false;
  const std::uint64_t piece = copy_piece(o);
  if (piece == 0) return false;
  const std::optional<std::uint64_t> block = next_copy_block(o);
  if (!block) return false;
  if (const Nanos at = copy_ready_at(o); at > now_ && !NCFS_PLANT(ceiling_ignored)) {
    NCFS_MARK(copy_paced);
    o.cursor = *block;  // not taken
    wake_at_ = std::min(wake_at_.value_or(at), at);
    return false;
  }
  if (!source_rest_.take(now_)) return false;
  Fetch& fetch = add_fetch(o, o.copy_source, block_range(o, *block), block, FetchKind::copy);
  fetch.buffer = free_buffers_.back();
  free_buffers_.pop_back();
  issue_piece(fetch, piece);
  return true;
}

// What a copy may ask for beside readers of the same file system; 0: nothing yet.
std::uint64_t Core::copy_piece(const Object& o) {
  const YieldWindow& window = yield_of(o);
  const std::uint64_t piece = window.piece(now_);
  if (piece > 0) return piece;
  NCFS_MARK(copy_yields);
  if (const std::optional<Nanos> at = window.ready_at(now_)) {
    wake_at_ = std::min(wake_at_.value_or(*at), *at);
  }
  return 0;
}

void Core::issue_piece(Fetch& fetch, std::uint64_t piece) {
  const Object& o = object(fetch.object);
  const std::uint64_t bytes = std::min(piece, fetch.range.length - fetch.length);
  const YieldWindow& window = yield_of(o);
  NCFS_ASSERT(window.copies_in_flight() + bytes <= window.limit(now_) && "S19 Yield");
  copy_bucket_.take(now_, bytes);
  if (o.pace != 0) paces_.at(o.pace).bucket.take(now_, bytes);
  counters_.source_bytes_copies += bytes;
  issue(fetch, bytes);
}

// Blocks of which copies have read a part. Who waits for one gets all of the rest.
void Core::continue_copies() {
  for (const FetchId id : std::vector(resting_)) {
    Fetch& fetch = fetches_.at(id);
    Object& o = object(fetch.object);
    const std::uint64_t rest = fetch.range.length - fetch.length;
    if (!fetch.waiters.empty()) {
      if (!may_read_source(o, 0)) continue;
      std::erase(resting_, id);
      issue(fetch, rest);
    } else if (!may_keep(o)) {
      std::erase(resting_, id);
      retire(id);
      settle(o);
    } else if (may_read_in_background(o)) {
      const std::uint64_t piece = copy_piece(o);
      if (piece == 0) continue;
      if (const Nanos at = copy_ready_at(o); at > now_ && !NCFS_PLANT(ceiling_ignored)) {
        wake_at_ = std::min(wake_at_.value_or(at), at);
        continue;
      }
      std::erase(resting_, id);
      issue_piece(fetch, piece);
    }
  }
}

void Core::rest(Fetch& fetch) {
  fetch.phase = FetchPhase::resting;
  resting_.push_back(fetch.id);
}

bool Core::is_for_reader(const Fetch& fetch) {
  return fetch.kind == FetchKind::demand || (fetch.kind == FetchKind::copy && !fetch.yields);
}

bool Core::is_in_pieces(const Fetch& fetch) {
  return fetch.phase == FetchPhase::resting ||
         (fetch.phase == FetchPhase::reading && fetch.length + fetch.asked < fetch.range.length);
}

YieldWindow& Core::yield_of(const Object& o) {
  const std::uint64_t most =
      std::uint64_t{config_.copies_max} * config_.copy_depth * config_.block_size_bytes;
  return yields_.try_emplace(o.file.filesystem, config_.copy_piece_bytes, most).first->second;
}

void Core::forget_yields() {
  std::erase_if(yields_, [this](const auto& entry) { return entry.second.is_idle(now_); });
}

Nanos Core::copy_ready_at(const Object& o) const {
  const Nanos own = o.pace == 0 ? 0 : paces_.at(o.pace).bucket.ready_at();
  return std::max(copy_bucket_.ready_at(), own);
}

std::optional<std::uint64_t> Core::next_copy_block(Object& o) {
  const std::uint64_t count = o.written.block_count();
  // Blocks that readers left in memory before there was a file to put them into.
  for (const FetchId id : idle_fetches_of(o)) {
    keep_or_drop(fetches_.at(id));
    if (idle_fetches_.contains(id)) retire(id);
  }
  // When every missing block has a fetch already there is no need to walk the bitmap.
  const std::uint64_t to_fetch = o.blocks_missing - o.unverified_count;
  for (std::uint64_t walked = 0; to_fetch > o.block_fetches.size() && walked < count; ++walked) {
    const std::uint64_t block = o.cursor;
    o.cursor = (o.cursor + 1) % count;
    if (!o.written.test(block) && !o.is_unverified(block) && !o.block_fetches.contains(block)) {
      return block;
    }
  }
  return std::nullopt;
}

// Free buffers first, then blocks nobody waits for, then blocks that only the cache wants: a slow
// cache disk costs a fetch later, never a reader's time now.
std::optional<BufferId> Core::take_buffer_for_demand() {
  if (free_buffers_.empty() && !idle_fetches_.empty()) {
    retire(oldest_read_idle().value_or(*idle_fetches_.begin()));
  }
  if (free_buffers_.empty()) {
    const auto victim = std::find_if(write_queue_.begin(), write_queue_.end(),
                                     [this](FetchId id) { return fetches_.at(id).users == 0; });
    if (victim != write_queue_.end()) {
      NCFS_MARK(reader_takes_buffer);
      Fetch& fetch = fetches_.at(*victim);
      attention_.insert(fetch.object);  // it may be at rest now
      unwant(fetch);
      retire(fetch.id);
    }
  }
  if (free_buffers_.empty()) return std::nullopt;
  const BufferId buffer = free_buffers_.back();
  free_buffers_.pop_back();
  return buffer;
}

void Core::begin_source_read(const Fetch& fetch) {
  ++source_reads_;
  SourceReads& own = source_reads_of_[object(fetch.object).file.filesystem];
  ++own.all;
  if (fetch.kind == FetchKind::demand) ++own.demand;
  if (fetch.kind == FetchKind::copy) ++own.copies;
  if (fetch.kind != FetchKind::demand) ++background_reads_;
}

void Core::end_source_read(const Fetch& fetch) {
  --source_reads_;
  const auto entry = source_reads_of_.find(object(fetch.object).file.filesystem);
  SourceReads& own = entry->second;
  if (fetch.kind == FetchKind::demand) --own.demand;
  if (fetch.kind == FetchKind::copy) --own.copies;
  if (--own.all == 0) source_reads_of_.erase(entry);
  if (fetch.kind != FetchKind::demand) --background_reads_;
}

// So many bytes of what is not loaded yet.
void Core::issue(Fetch& fetch, std::uint64_t bytes) {
  fetch.phase = FetchPhase::reading;
  if (fetch.length == 0) fetch.issued_at = now_;
  fetch.asked = bytes;
  begin_source_read(fetch);
  const Object& o = object(fetch.object);
  fetch.yields = fetch.kind == FetchKind::copy && fetch.waiters.empty();
  if (fetch.yields) yield_of(o).copy_begins(bytes);
  if (is_for_reader(fetch)) yield_of(o).read_begins(now_);
  Request request = make_request(Op::source_read, config_.source_deadline);
  request.file = fetch.source;
  request.range = {fetch.range.offset + fetch.length, bytes};
  request.buffer = *fetch.buffer;
  request.buffer_offset = fetch.length;
  request.through_page_cache = o.source_readers > 0;
  request.wants_bytes = o.model && o.model->wants(request.range);
  submit({.step = Step::fetch_read, .object = fetch.object, .fetch = fetch.id}, std::move(request));
}

// --- What came of it -------------------------------------------------------------------------

void Core::on_fetch_read(FetchId id, const Completion& completion) {
  Fetch& fetch = fetches_.at(id);
  const std::int64_t result = completion.result;
  end_source_read(fetch);
  const Object& o = object(fetch.object);
  const bool is_whole = result == static_cast<std::int64_t>(fetch.asked);
  if (fetch.yields) yield_of(o).copy_ends(now_, fetch.asked);
  if (is_for_reader(fetch)) {
    const bool is_measured = is_whole && fetch.kind == FetchKind::demand;
    yield_of(o).read_ends(now_, fetch.issued_at, is_measured ? fetch.asked : 0);
  }
  read_model(o, fetch, completion);
  if (result < 0) return on_fetch_failed(fetch, static_cast<int>(-result));
  const auto count = static_cast<std::uint64_t>(result);
  NCFS_ASSERT(count <= fetch.asked);
  fetch.length += count;
  counters_.source_bytes += count;
  if (fetch.kind == FetchKind::demand) counters_.source_bytes_demand += count;
  if (fetch.length == fetch.range.length) return on_fetch_loaded(fetch);
  if (is_whole) return rest(fetch);
  if (NCFS_PLANT(short_read_handed_on)) return on_fetch_loaded(fetch);
  // Only a shrunk file ends early. Short bytes must not be handed on before that is known: a kernel
  // takes a short answer for the end of the file.
  fetch.phase = FetchPhase::checking;
  begin_source_read(fetch);
  Request request = make_request(Op::source_stat, config_.source_deadline);
  request.file = fetch.source;
  submit({.step = Step::fetch_check, .object = fetch.object, .fetch = id}, std::move(request));
}

void Core::on_fetch_checked(FetchId id, const Completion& completion) {
  Fetch& fetch = fetches_.at(id);
  end_source_read(fetch);
  if (completion.result < 0) return on_fetch_failed(fetch, static_cast<int>(-completion.result));
  const SourceVersion& version = completion.source.version;
  Object& o = object(fetch.object);
  if (!has_version(o, version)) mark_changed(o, version);
  if (version.size <= fetch.range.offset + fetch.length) {
    NCFS_MARK(source_shrank);
    return on_fetch_loaded(fetch);
  }
  NCFS_MARK(short_read_repeated);
  if (++fetch.attempts >= kAttemptsMax) return on_fetch_failed(fetch, kInputOutputError);
  fetch.length = 0;
  if (fetch.kind == FetchKind::copy) return rest(fetch);
  issue(fetch, fetch.range.length);
}

void Core::on_fetch_failed(Fetch& fetch, int error) {
  ++counters_.source_errors;
  const bool is_copy = fetch.kind == FetchKind::copy;
  if (fetch.kind != FetchKind::demand) source_fails(object(fetch.object), error);
  const FileHandle source = fetch.source;
  const ObjectId id = fetch.object;
  // Keeps the source's number from being reused while the readers are compared with it.
  hold_source(source);
  const std::vector<Waiter> waiters = std::exchange(fetch.waiters, {});
  forget_ahead(fetch);
  fetch.phase = FetchPhase::loaded;
  retire(fetch.id);
  for (const Waiter& waiter : waiters) {
    if (handles_.at(waiter.handle).source == source) {
      answer_error(waiter, error);
    } else {
      NCFS_MARK(fetch_tried_alone);
      fetch_alone(waiter);
    }
  }
  drop_source(source);
  Object& o = object(id);
  if (is_copy && o.copy == CopyPhase::active) {
    on_copy_failed(o, error);
  } else {
    settle(o);
  }
}

void Core::on_fetch_loaded(Fetch& fetch) {
  fetch.phase = FetchPhase::loaded;
  count_ahead(fetch);
  for (const Waiter& waiter : std::exchange(fetch.waiters, {})) answer_bytes(fetch, waiter);
  keep_or_drop(fetch);
}

void Core::answer_bytes(Fetch& fetch, const Waiter& waiter) {
  const std::uint64_t loaded_end = fetch.range.offset + fetch.length;
  ReadResult result;
  result.kind = ReadResult::Kind::bytes;
  result.buffer = *fetch.buffer;
  result.buffer_offset = waiter.range.offset - fetch.range.offset;
  if (NCFS_PLANT(joined_bytes_misplaced)) result.buffer_offset = 0;
  result.length = waiter.range.offset >= loaded_end
                      ? 0
                      : std::min(waiter.range.end(), loaded_end) - waiter.range.offset;
  result.residency = residency_for_readers(object(fetch.object));
  judge_ahead(fetch, true);
  idle_fetches_.erase(fetch.id);
  ++fetch.users;
  const bool is_new = answers_.emplace(waiter.token, fetch.id).second;
  NCFS_ASSERT(is_new);
  host_.on_read(waiter.token, result);
}

void Core::answer_error(const Waiter& waiter, int error) {
  ReadResult result;
  result.kind = ReadResult::Kind::error;
  result.error = NCFS_PLANT(errno_of_source_lost) ? kInputOutputError : error;
  host_.on_read(waiter.token, result);
}

// --- What becomes of the bytes ---------------------------------------------------------------

bool Core::may_keep(const Object& o) const {
  return o.takes_blocks() && !o.is_stale && !is_stopping_ && !health_.is_down();
}

// A loaded fetch goes to the cache if that wants it, is held while a reader uses it, stays in
// memory for the next reader if it is a block the cache cannot keep, and else frees its buffer.
// Nothing may be assumed of `fetch` afterwards.
void Core::keep_or_drop(Fetch& fetch) {
  if (fetch.phase != FetchPhase::loaded || fetch.is_wanted_on_disk) return;
  Object& o = object(fetch.object);
  // A block that has been to the cache, well or not, is not shared any more.
  bool is_shared = false;
  if (fetch.block) {
    const auto own = o.block_fetches.find(*fetch.block);
    is_shared = own != o.block_fetches.end() && own->second == fetch.id;
  }
  if (is_shared && fetch.length == fetch.range.length && may_keep(o) &&
      fetch.issued_at >= o.trusted_at && !o.written.test(*fetch.block) &&
      !o.is_unverified(*fetch.block)) {
    fetch.is_wanted_on_disk = true;
    idle_fetches_.erase(fetch.id);
    write_queue_.push_back(fetch.id);
    return;
  }
  if (fetch.issued_at < o.trusted_at) NCFS_MARK(racy_block_not_kept);
  if (fetch.users > 0) return;
  const bool is_in_file = is_shared && o.residency && o.residency->is_resident(*fetch.block);
  const bool is_useful =
      is_shared && !o.handles.empty() && (!is_in_file || config_.checksum == Checksum::read);
  if (is_useful && (idle_fetches_.contains(fetch.id) || make_place_for_idle())) {
    idle_fetches_.insert(fetch.id);
    return;
  }
  retire(fetch.id);
  settle(o);
}

std::optional<FetchId> Core::oldest_read_idle() const {
  const auto oldest = std::ranges::find_if(
      idle_fetches_, [this](FetchId id) { return !fetches_.at(id).ahead.has_value(); });
  return oldest == idle_fetches_.end() ? std::nullopt : std::optional(*oldest);
}

// What has been read makes way: its reader has gone on.
bool Core::make_place_for_idle() {
  if (idle_fetches_.size() < idle_fetches_max()) return true;
  const std::optional<FetchId> oldest = oldest_read_idle();
  if (oldest) retire(*oldest);
  return oldest.has_value();
}

void Core::unwant(Fetch& fetch) {
  if (!fetch.is_wanted_on_disk) return;
  fetch.is_wanted_on_disk = false;
  std::erase(write_queue_, fetch.id);
}

std::vector<FetchId> Core::idle_fetches_of(const Object& o) const {
  std::vector<FetchId> idle;
  if (idle_fetches_.empty()) return idle;
  for (const auto& [block, id] : o.block_fetches) {
    if (idle_fetches_.contains(id)) idle.push_back(id);
  }
  return idle;
}

void Core::retire(FetchId id) {
  const auto entry = fetches_.find(id);
  NCFS_ASSERT(entry != fetches_.end());
  Fetch& fetch = entry->second;
  judge_ahead(fetch, false);
  NCFS_ASSERT(fetch.users == 0 && fetch.waiters.empty() && !fetch.is_wanted_on_disk);
  Object& o = object(fetch.object);
  --o.fetches;
  if (fetch.kind == FetchKind::copy) --o.copy_fetches;
  if (fetch.block) {
    if (const auto own = o.block_fetches.find(*fetch.block);
        own != o.block_fetches.end() && own->second == id) {
      o.block_fetches.erase(own);
    }
  }
  if (fetch.buffer) free_buffers_.push_back(*fetch.buffer);
  idle_fetches_.erase(id);
  drop_source(fetch.source);
  fetches_.erase(entry);
}

}  // namespace ncfs
