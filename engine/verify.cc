// Comparing cached bytes with the checksums they got when they were copied.
//
// Invariants:
//   Rot   a block found by recovery in a partial object is neither served nor copied over before it
//         was compared; with Checksum::read every cached block is compared in the buffer it is then
//         served from; what does not match is never served afterwards.
//
// An object is compared in a pass, one block in flight at a time. Passes are made for VerifyEvents
// and for partial objects of an earlier run as soon as their file is open; and by the scrub, one at
// a time and within a budget of bytes that grows at every tick. A complete object that was found
// intact gets the time noted as the mtime of its sidecar, so that the scrub goes on where it was
// after a restart. A pass is no use of an object: its place in the eviction order does not change.
//
// A damaged block of a partial object is fetched again; the sidecar that vouches for it is replaced
// first. A complete object is removed.

#include <algorithm>
#include <utility>

#include "engine/core.h"
#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// Passes at a time besides the scrub's: a quarter of the driver's threads of the cache disk.
constexpr std::size_t kVerifyingMax = 4;
// VerifyEvents at a time; each keeps a set of the objects still to be done.
constexpr std::size_t kVerifyJobsMax = 16;
// What an object costs the scrub's budget beyond its bytes: half a dozen requests, which small
// files would otherwise send by the thousand in a second.
constexpr std::uint64_t kScrubObjectCost = kMiB;

bool is_at_or_beneath(const std::string& path, const std::string& parent) {
  if (parent.empty() || path == parent) return true;
  return path.size() > parent.size() && path.starts_with(parent) && path[parent.size()] == '/';
}

void add(VerifyResult::Count& count, const Object& o) {
  ++count.files;
  count.bytes += o.version.size;
}

}  // namespace

bool Core::wants_checksums(const Object& o) const {
  return config_.checksum != Checksum::off &&
         block_count_of(o.version.size, config_.block_size_bytes) <= kChecksumCountMax;
}

std::shared_ptr<Residency> Core::residency_for_readers(const Object& o) const {
  const bool is_hidden = o.state == ObjectState::removing || config_.checksum == Checksum::read;
  return is_hidden ? nullptr : o.residency;
}

// --- Who is compared -------------------------------------------------------------------------

void Core::on(VerifyEvent&& event) {
  if (is_stopping_ || verify_jobs_.size() >= kVerifyJobsMax) {
    VerifyResult refused;
    refused.is_cancelled = true;
    host_.on_verify(event.token, refused);
    return;
  }
  const auto [entry, is_new] = verify_jobs_.try_emplace(event.token);
  NCFS_ASSERT(is_new);
  entry->second.paths = std::move(event.paths);
  if (is_recovered_) start_job(entry->second);
}

void Core::start_job(VerifyJob& job) {
  job.is_started = true;
  for (auto& [id, o] : objects_) {
    const bool is_asked_for =
        job.paths.empty() || std::ranges::any_of(job.paths, [&o = o](const std::string& path) {
          return is_at_or_beneath(o.path, path);
        });
    if (!is_asked_for || !o.is_on_disk() || o.state == ObjectState::removing) continue;
    add(job.result.found, o);
    if (o.state == ObjectState::cached && o.has_checksums) {
      job.todo.insert(id);
      queue_verify(o);
    } else {
      add(job.result.skipped, o);
    }
  }
}

void Core::finish_jobs() {
  for (auto entry = verify_jobs_.begin(); entry != verify_jobs_.end();) {
    const VerifyJob& job = entry->second;
    if (!job.is_started || !job.todo.empty()) {
      ++entry;
      continue;
    }
    host_.on_verify(entry->first, job.result);
    entry = verify_jobs_.erase(entry);
  }
}

// What is compared already begins again: the result is to be about a time after the question.
void Core::queue_verify(Object& o) {
  if (is_stopping_) return;
  o.is_scrub = false;
  o.verify_next = 0;
  o.verify_bytes = 0;
  if (o.verify == VerifyPhase::queued || o.verify == VerifyPhase::active) return;
  o.verify = VerifyPhase::queued;
  if (o.state == ObjectState::partial) {
    verify_queue_.push_front(o.id);  // somebody waits for its copy
  } else {
    verify_queue_.push_back(o.id);
  }
}

void Core::grow_scrub_budget() {
  const Nanos elapsed = std::min(now_ - scrub_budget_at_, kSecond);
  scrub_budget_at_ = now_;
  // In milliseconds, far from any overflow.
  const std::uint64_t grown =
      config_.scrub_bytes_per_second / 1000 * (elapsed / kMillisecond) + scrub_budget_bytes_;
  scrub_budget_bytes_ = std::min(grown, config_.scrub_bytes_per_second);
}

void Core::start_scrub() {
  if (config_.checksum == Checksum::off || config_.scrub_interval == 0 || is_stopping_) return;
  if (scrub_budget_bytes_ == 0 || scrub_order_.empty()) return;
  if (scrub_order_.begin()->first > now_) return;
  const bool is_scrubbing =
      std::ranges::any_of(verifying_, [this](ObjectId id) { return object(id).is_scrub; });
  if (is_scrubbing) return;
  Object& o = object(scrub_order_.begin()->second);
  postpone_scrub(o);
  scrub_budget_bytes_ -= std::min(scrub_budget_bytes_, kScrubObjectCost);
  if (o.verify == VerifyPhase::queued || o.verify == VerifyPhase::active) return;
  o.verify = VerifyPhase::active;
  o.is_scrub = true;
  o.verify_next = 0;
  o.verify_bytes = 0;
  verifying_.push_back(o.id);
}

void Core::postpone_scrub(Object& o) {
  scrub_order_.erase({o.scrub_at, o.id});
  o.scrub_at = now_ + config_.scrub_interval;
  scrub_order_.insert({o.scrub_at, o.id});
}

void Core::pump_verifies() {
  start_scrub();
  std::size_t slots =
      std::ranges::count_if(verifying_, [this](ObjectId id) { return !object(id).is_scrub; });
  for (; slots < kVerifyingMax && !verify_queue_.empty(); ++slots) {
    Object& o = object(verify_queue_.front());
    verify_queue_.pop_front();
    o.verify = VerifyPhase::active;
    verifying_.push_back(o.id);
  }
  const std::vector<ObjectId> ids = verifying_;
  for (const ObjectId id : ids) {
    const auto entry = objects_.find(id);
    if (entry != objects_.end() && entry->second.verify == VerifyPhase::active) {
      advance_verify(entry->second);
    }
  }
  finish_jobs();
}

// --- One pass --------------------------------------------------------------------------------

// `o` may be gone when this returns.
void Core::advance_verify(Object& o) {
  if (o.is_verify_read) return;
  if (o.checksums.empty()) return load_checksums(o);
  if (!o.is_open()) return open_cache(o);
  const std::optional<std::uint64_t> block = next_verify_block(o);
  if (!block) {
    end_verify(o, Verdict::intact);
    return settle(o);
  }
  const ByteRange range = checksum_range(o, *block);
  if (o.is_scrub) {
    // What somebody wants comes first; a write that has completed brings us back.
    if (cache_writes_ > 0 || !write_queue_.empty()) return;
    if (scrub_budget_bytes_ == 0) return;
    scrub_budget_bytes_ -= std::min(scrub_budget_bytes_, range.length);
  }
  o.verify_next = o.verify_block = *block;
  o.is_verify_read = true;
  ++o.io_in_flight;
  Request request = cache_request(Op::cache_verify);
  request.file = o.cache_file;
  request.range = range;
  submit({.step = Step::verify_read, .object = o.id}, std::move(request));
}

std::optional<std::uint64_t> Core::next_verify_block(const Object& o) const {
  for (std::uint64_t block = o.verify_next; block < o.checksums.size(); ++block) {
    if (o.state == ObjectState::cached || o.is_unverified(block)) return block;
  }
  return std::nullopt;
}

ByteRange Core::checksum_range(const Object& o, std::uint64_t block) const {
  const std::uint64_t offset = block * o.checksum_block_bytes;
  return {offset, std::min(o.checksum_block_bytes, o.version.size - offset)};
}

void Core::on_verify_read(Object& o, const Completion& completion) {
  --o.io_in_flight;
  o.is_verify_read = false;
  // Ended meanwhile, or begun again.
  if (o.verify != VerifyPhase::active || o.verify_block != o.verify_next) return settle(o);
  const std::uint64_t block = o.verify_block;
  const ByteRange range = checksum_range(o, block);
  const int error = completion.result < 0 ? static_cast<int>(-completion.result) : 0;
  if (error == kTimedOut) {
    // Slow is not wrong, but a copy cannot go on before it knows.
    if (o.state == ObjectState::partial) return on_cache_error(o, error, "verifying a copy");
    ++counters_.cache_errors;
    notice(Notice::Kind::cache_error, o, 0, error, "verifying a cached file");
    end_verify(o, Verdict::skipped);
    return settle(o);
  }
  const bool is_good = completion.result == static_cast<std::int64_t>(range.length) &&
                       completion.checksum == o.checksums[block];
  if (!is_good) return on_block_damaged(o, block, error);
  counters_.verified_bytes += range.length;
  o.verify_bytes += range.length;
  ++o.verify_next;
  if (o.state == ObjectState::partial) {
    o.unverified.reset(block);
    --o.unverified_count;
    o.written.set(block);
    --o.blocks_missing;
    o.residency->publish(block);
  }
  settle(o);
}

// `o` may be gone when this returns.
void Core::on_block_damaged(Object& o, std::uint64_t block, int error) {
  ++counters_.damaged_blocks;
  const std::string what = "block " + std::to_string(block) +
                           (error == 0 ? " does not match its checksum" : " cannot be read");
  if (!o.is_unverified(block)) return on_damaged(o, what, error);
  notice(Notice::Kind::damaged, o, o.checksum_block_bytes, error, what);
  o.unverified.reset(block);
  --o.unverified_count;
  o.durable.reset(block);
  // A sidecar on its way may vouch for the block still.
  if (o.is_persisting) {
    o.persisting.reset(block);
    o.is_sidecar_outdated = true;
  }
  o.needs_sidecar = true;
  ++o.verify_next;
  settle(o);
}

// `o` may be gone when this returns.
void Core::on_damaged(Object& o, const std::string& what, int error) {
  ++counters_.damaged_objects;
  notice(Notice::Kind::damaged, o, 0, error, what);
  remove(o, RemovalReason::damaged);
  if (o.copy != CopyPhase::none || !o.warms.empty()) return on_copy_failed(o, kInputOutputError);
  if (!o.handles.empty()) want_copy(o);
  settle(o);
}

// The pass is over, or will not take place.
void Core::end_verify(Object& o, Verdict verdict) {
  if (o.verify == VerifyPhase::queued) std::erase(verify_queue_, o.id);
  if (o.verify == VerifyPhase::active) std::erase(verifying_, o.id);
  const bool is_closing =
      o.verify == VerifyPhase::active && o.state == ObjectState::cached && o.handles.empty();
  o.verify = is_closing ? VerifyPhase::closing : VerifyPhase::none;
  o.is_scrub = false;
  for (auto& [token, job] : verify_jobs_) {
    if (job.todo.erase(o.id) == 0) continue;
    job.result.bytes_verified += o.verify_bytes;
    add(verdict == Verdict::intact    ? job.result.intact
        : verdict == Verdict::damaged ? job.result.damaged
                                      : job.result.skipped,
        o);
  }
  if (o.state != ObjectState::cached) return;
  if (config_.checksum != Checksum::read) o.checksums = {};
  if (verdict != Verdict::intact) return;
  postpone_scrub(o);
  ++o.io_in_flight;
  Request request = cache_request(Op::cache_touch);
  request.name = name_of(o, NameKind::sidecar);
  submit({.step = Step::touch, .object = o.id}, std::move(request));
}

// --- Checksums of complete objects -----------------------------------------------------------

void Core::load_checksums(Object& o) {
  if (o.is_loading_checksums) return;
  o.is_loading_checksums = true;
  ++o.io_in_flight;
  Request request = cache_request(Op::cache_load);
  request.name = name_of(o, NameKind::sidecar);
  submit({.step = Step::load_checksums, .object = o.id}, std::move(request));
}

void Core::on_checksums_loaded(Object& o, const Completion& completion) {
  --o.io_in_flight;
  o.is_loading_checksums = false;
  if (o.state != ObjectState::cached || !o.checksums.empty()) return settle(o);
  const bool is_waited_for = config_.checksum == Checksum::read && !o.handles.empty();
  if (completion.result == -kTimedOut && !is_waited_for) {
    ++counters_.cache_errors;
    notice(Notice::Kind::cache_error, o, 0, kTimedOut, "reading a sidecar");
    if (o.verify == VerifyPhase::active) end_verify(o, Verdict::skipped);
    return settle(o);
  }
  if (completion.result < 0) {
    return on_cache_error(o, static_cast<int>(-completion.result), "reading a sidecar");
  }
  std::optional<Sidecar> sidecar = decode(completion.bytes);
  const bool is_good = sidecar && !sidecar->checksums.empty() && sidecar->durable.is_full() &&
                       is_stem_of(o.stem, *sidecar);
  if (!is_good) return on_damaged(o, "its sidecar is not intact", 0);
  // Nobody needs them any more: its readers have closed, or the pass was ended.
  const bool is_needed = o.verify == VerifyPhase::active || is_waited_for;
  if (is_needed) {
    o.checksums = std::move(sidecar->checksums);
    o.checksum_block_bytes = sidecar->block_size_bytes;
  }
  settle(o);
}

// --- Reading through the checksums -----------------------------------------------------------

// With Checksum::read. Starts one read, or sends it to the source; false if there is none to start.
bool Core::start_cached_reads() {
  for (auto entry = cached_queue_.begin(); entry != cached_queue_.end(); ++entry) {
    Fetch& fetch = fetches_.at(*entry);
    Object& o = object(fetch.object);
    if (!o.residency || !o.residency->is_resident(*fetch.block)) {
      cached_queue_.erase(entry);
      fetch.is_from_cache = false;
      demand_queue_.push_back(fetch.id);
      return true;
    }
    if (o.checksums.empty()) {
      load_checksums(o);
      continue;
    }
    if (cache_reads_ >= config_.cache_writes_max || !may_hold_one_more_buffer()) return false;
    fetch.buffer = take_buffer_for_demand();
    if (!fetch.buffer) return false;
    cached_queue_.erase(entry);
    fetch.phase = FetchPhase::reading_cache;
    fetch.issued_at = now_;
    ++cache_reads_;
    ++o.io_in_flight;
    Request request = cache_request(Op::cache_read);
    request.file = o.cache_file;
    request.range = fetch.range;
    request.buffer = *fetch.buffer;
    submit({.step = Step::cached_read, .object = o.id, .fetch = fetch.id}, std::move(request));
    return true;
  }
  return false;
}

void Core::on_cached_read(FetchId id, const Completion& completion) {
  Fetch& fetch = fetches_.at(id);
  const ObjectId object_id = fetch.object;
  Object& o = object(object_id);
  --cache_reads_;
  --o.io_in_flight;
  NCFS_ASSERT(!o.checksums.empty());
  const std::uint64_t block = *fetch.block;
  const bool is_good =
      completion.result == static_cast<std::int64_t>(fetch.range.length) &&
      (completion.checksum == o.checksums[block] || NCFS_PLANT(checksum_not_compared));
  fetch.is_from_cache = false;
  if (is_good) {
    counters_.verified_bytes += fetch.range.length;
    fetch.length = fetch.range.length;
    on_fetch_loaded(fetch);
    if (const auto entry = objects_.find(object_id); entry != objects_.end()) settle(entry->second);
    return;
  }
  free_buffers_.push_back(*std::exchange(fetch.buffer, std::nullopt));
  fetch.phase = FetchPhase::queued;
  demand_queue_.push_back(id);
  if (!o.has_cache_file()) return settle(o);
  if (completion.result < 0) {
    return on_cache_error(o, static_cast<int>(-completion.result), "reading a cached file");
  }
  on_block_damaged(o, block, 0);
}

}  // namespace ncfs
