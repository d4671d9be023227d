// What is fetched ahead for whom, and what became of it.
//
// A block that was fetched ahead has an entry with the handle it was fetched for until its fate is
// known: it is in a buffer, where the engine hears of readers, or in the cache file, where they
// clear a bit (engine/residency.h). Of the blocks of a handle only the latest are waited for, as
// many as all of its streams may have ahead of them.

#include <algorithm>
#include <utility>

#include "engine/core.h"
#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {

std::string_view to_string(AheadReason reason) {
  switch (reason) {
    case AheadReason::stream:
      return "stream";
    case AheadReason::stride:
      return "stride";
    case AheadReason::tensor:
      return "tensor";
  }
  return "unknown";
}

// --- What is fetched -------------------------------------------------------------------------

Streams::Window Core::prefetch_window(const Handle& h) const {
  const std::uint64_t ramp = config_.readahead_bytes / config_.block_size_bytes;
  const std::uint64_t max = prefetch_blocks_max();
  return {.ramp_blocks = ramp, .max_blocks = max, .limit_blocks = h.ahead_limit.of(max)};
}

std::uint64_t Core::prefetch_blocks_max() const {
  return std::max(config_.readahead_bytes, config_.readahead_max_bytes) / config_.block_size_bytes;
}

// Who begins at the beginning will go on. But a program waits for the first bytes of a large file
// before anything else: they come alone, and once more with their block.
void Core::note_read(Handle& h, const Object& o, ByteRange range) {
  const std::uint64_t block = range.offset / config_.block_size_bytes;
  const std::uint64_t count = block_count_of(o.version.size, config_.block_size_bytes);
  h.is_sequential = false;
  if (config_.prefetch == Prefetch::off) return;
  settle_ahead(h);
  bool begins_tensor = false;
  if (o.model && !o.model->tensors().empty()) {
    const Streams::Window window = prefetch_window(h);
    begins_tensor = h.tensors.note(range, o.model->tensors(), config_.block_size_bytes,
                                   std::min(window.max_blocks, window.limit_blocks));
    if (h.tensors.has_next()) prefetching_.insert(h.id);
  }
  if (note_stride(h, o, range)) return;
  const Streams::Window window = prefetch_window(h);
  const bool goes_on = h.streams.note(block, count, window);
  const bool is_next_block = std::exchange(h.last_block, block) != block && goes_on;
  if (window.limit_blocks == 0 && window.max_blocks > 0 && (is_next_block || !goes_on)) {
    h.ahead_limit.judge(is_next_block, window.max_blocks);
  }
  const bool begins = !std::exchange(h.has_read, true) && block == 0 &&
                      range.length * kFirstBytesShare > o.version.size;
  // Reads at random places come near each other at times: who has shown to waste what is fetched
  // ahead gets exactly his bytes.
  const bool is_stream = goes_on && (window.limit_blocks > 0 || window.max_blocks == 0);
  h.is_sequential = is_stream || begins || begins_tensor;
  if (h.streams.has_next()) prefetching_.insert(h.id);
}

// A model's header is read from what is fetched of its beginning, for whatever reason. What the
// cache has already is not looked at.
void Core::open_model(Object& o) {
  if (config_.prefetch != Prefetch::smart || o.model || o.state == ObjectState::cached) return;
  const std::optional<ModelFormat> format = model_format_of(o.path);
  if (format) o.model = std::make_unique<ModelHeader>(*format, o.version.size);
}

void Core::read_model(const Object& o, const Fetch& fetch, const Completion& completion) {
  if (o.model) o.model->feed(fetch.range.offset + fetch.length, completion.bytes);
}

// Blocks of a pattern are fetched ahead if they would not be fetched for a few bytes each, or are
// wanted by the cache all the same.
bool Core::note_stride(Handle& h, const Object& o, ByteRange range) {
  if (config_.prefetch != Prefetch::smart) return false;
  const std::uint64_t block = range.offset / config_.block_size_bytes;
  const std::uint64_t count = block_count_of(o.version.size, config_.block_size_bytes);
  const Streams::Window window = prefetch_window(h);
  const bool is_worth_it = may_keep(o) || is_much_of_block(o, range);
  const std::uint64_t blocks = std::min(window.ramp_blocks, window.limit_blocks);
  if (!h.strides.note(block, count, is_worth_it ? blocks : 0)) return false;
  h.is_sequential = h.strides.is_in_run();
  if (h.strides.has_next()) prefetching_.insert(h.id);
  return true;
}

std::optional<Core::Ahead> Core::next_ahead(Handle& h) {
  if (const auto block = h.streams.next()) return Ahead{*block, AheadReason::stream};
  if (const auto block = h.strides.next()) return Ahead{*block, AheadReason::stride};
  if (const auto block = h.tensors.next()) return Ahead{*block, AheadReason::tensor};
  return std::nullopt;
}

bool Core::start_prefetch() {
  for (auto next = prefetching_.begin(); next != prefetching_.end();) {
    Handle& h = handles_.at(*next);
    Object& o = object(h.object);
    if (!may_read_in_background(o)) {
      ++next;
      continue;
    }
    // What can go neither to the cache nor to memory would be fetched twice. A quarter of the
    // memory is left to the blocks that readers are at.
    const bool has_place = may_keep(o) || ahead_fetches_ < idle_fetches_max() * 3 / 4;
    while (const std::optional<Ahead> ahead = has_place ? next_ahead(h) : std::nullopt) {
      const std::uint64_t block = ahead->block;
      // A block that is being verified is about to be there.
      const bool is_resident = o.residency && o.residency->is_resident(block);
      const bool is_there = (is_resident && !NCFS_PLANT(resident_prefetched)) ||
                            o.block_fetches.contains(block) || o.is_unverified(block);
      if (is_there) continue;
      Fetch& fetch = add_fetch(o, h.source, block_range(o, block), block, FetchKind::prefetch);
      fetch.ahead = FetchAhead{ahead->reason, h.id};
      ++ahead_fetches_;
      fetch.buffer = free_buffers_.back();
      free_buffers_.pop_back();
      issue(fetch, fetch.range.length);
      return true;
    }
    next = prefetching_.erase(next);
  }
  return false;
}

// --- What became of it -----------------------------------------------------------------------

// It is loaded, and those who waited for it have not been answered yet.
void Core::count_ahead(Fetch& fetch) {
  if (!fetch.ahead) return;
  AheadCounts& counts = counters_.ahead[static_cast<std::size_t>(fetch.ahead->reason)];
  counts.fetched += fetch.length;
  const auto entry = handles_.find(fetch.ahead->handle);
  if (entry == handles_.end() || entry->second.object != fetch.object) {
    (fetch.waiters.empty() ? counts.wasted : counts.used) += fetch.length;
    forget_ahead(fetch);
    return;
  }
  Handle& h = entry->second;
  h.unread.push_back({*fetch.block, fetch.length, fetch.ahead->reason, fetch.id, false});
  const std::uint64_t limit = std::max<std::uint64_t>(1, h.ahead_limit.of(prefetch_blocks_max()));
  if (fetch.waiters.empty() && h.unread.size() > limit * Streams::kStreamsMax) {
    judge_ahead(h, h.unread.begin(), false);
  }
  waiting_for_readers_.insert(h.id);
}

void Core::forget_ahead(Fetch& fetch) {
  if (fetch.ahead) --ahead_fetches_;
  fetch.ahead.reset();
}

// `was_used`: else its bytes are dropped.
void Core::judge_ahead(Fetch& fetch, bool was_used) {
  if (!fetch.ahead) return;
  const bool is_counted = fetch.phase == FetchPhase::loaded || fetch.phase == FetchPhase::writing;
  if (!is_counted) return forget_ahead(fetch);
  Handle& h = handles_.at(fetch.ahead->handle);
  const auto entry = std::ranges::find(h.unread, fetch.id, &UnreadBlock::fetch);
  judge_ahead(h, entry, was_used);
}

void Core::judge_ahead(Handle& h, std::vector<UnreadBlock>::iterator entry, bool was_used) {
  NCFS_ASSERT(entry != h.unread.end());
  const UnreadBlock unread = *entry;
  h.unread.erase(entry);
  if (h.unread.empty()) waiting_for_readers_.erase(h.id);
  h.ahead_limit.judge(was_used, prefetch_blocks_max());
  AheadCounts& counts = counters_.ahead[static_cast<std::size_t>(unread.reason)];
  if (was_used) {
    counts.used += unread.bytes;
  } else if (!NCFS_PLANT(waste_not_counted)) {
    counts.wasted += unread.bytes;
  }
  if (!unread.is_in_file) {
    forget_ahead(fetches_.at(unread.fetch));
  } else if (const Object& o = object(h.object); o.residency) {
    o.residency->take_unread(unread.block);
  }
}

// The block is in the cache file from now on; before readers are told.
void Core::move_ahead_to_file(Fetch& fetch, Object& o) {
  if (!fetch.ahead) return;
  Handle& h = handles_.at(fetch.ahead->handle);
  const auto entry = std::ranges::find(h.unread, fetch.id, &UnreadBlock::fetch);
  NCFS_ASSERT(entry != h.unread.end());
  entry->is_in_file = true;
  forget_ahead(fetch);
  o.residency->mark_unread(*fetch.block);
}

// Looks which blocks in the cache file have been read meanwhile.
void Core::settle_ahead(Handle& h) {
  const Object& o = object(h.object);
  for (std::size_t index = 0; index < h.unread.size();) {
    const UnreadBlock& unread = h.unread[index];
    if (unread.is_in_file && o.residency && !o.residency->is_unread(unread.block)) {
      judge_ahead(h, h.unread.begin() + static_cast<std::ptrdiff_t>(index), true);
    } else {
      ++index;
    }
  }
}

// The handle is closed, or its cache file goes.
void Core::end_ahead(Handle& h) {
  settle_ahead(h);
  while (!h.unread.empty()) judge_ahead(h, h.unread.begin(), false);
}

}  // namespace ncfs
