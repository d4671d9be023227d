#include "engine/streams.h"

#include <algorithm>

namespace ncfs {

bool Streams::note(std::uint64_t block, std::uint64_t block_count, const Window& window) {
  block_count_ = block_count;
  ++reads_;
  for (Stream& stream : streams_) {
    const std::uint64_t reach = std::max({std::uint64_t{1}, window.ramp_blocks, stream.window});
    // What the cache has is read unseen, up to where the fetches ahead ended.
    const bool is_near = (block <= stream.edge + reach && stream.edge <= block + reach) ||
                         block == (stream.is_backward ? stream.told - 1 : stream.told + 1);
    if (stream.used == 0 || !is_near) continue;
    stream.used = reads_;
    go_on(stream, block, window);
    set_limit(stream, block_count);
    return true;
  }
  const auto oldest = std::min_element(
      streams_.begin(), streams_.end(),
      [](const Stream& one, const Stream& other) { return one.used < other.used; });
  *oldest = Stream{.edge = block, .told = block, .limit = block, .widened = block, .used = reads_};
  return false;
}

void Streams::go_on(Stream& stream, std::uint64_t block, const Window& window) {
  if (!stream.has_moved && block != stream.edge) {
    stream.is_backward = block < stream.edge;
    stream.told = stream.edge;
  }
  const bool is_moving = is_further(stream, block, stream.edge);
  if (is_moving) {
    stream.has_moved = true;
    stream.edge = block;
    if (is_further(stream, stream.edge, stream.told)) stream.told = stream.edge;
  }
  const std::uint64_t ramp = std::min(window.ramp_blocks, window.limit_blocks);
  if (stream.window == 0) {
    stream.window = std::min<std::uint64_t>(1, ramp);
  } else if (is_moving && stream.window < ramp) {
    stream.window = std::min(stream.window * 2, ramp);
  }
  stream.window = std::min(stream.window, window.limit_blocks);
}

void Streams::set_limit(Stream& stream, std::uint64_t block_count) {
  stream.limit = stream.is_backward ? stream.edge - std::min(stream.edge, stream.window)
                                    : std::min(stream.edge + stream.window, block_count - 1);
}

void Streams::widen(std::uint64_t block, const Window& window) {
  const std::uint64_t max = std::min(window.max_blocks, window.limit_blocks);
  for (Stream& stream : streams_) {
    const bool is_ahead = stream.used == reads_ && stream.window >= window.ramp_blocks &&
                          stream.window > 0 && stream.window < max;
    if (!is_ahead || is_further(stream, stream.widened, block)) continue;
    stream.widened = stream.limit;
    stream.window = std::min(stream.window * 2, max);
    set_limit(stream, block_count_);
    return;
  }
}

std::optional<std::uint64_t> Streams::next() {
  for (Stream& stream : streams_) {
    if (!is_further(stream, stream.limit, stream.told)) continue;
    return stream.is_backward ? --stream.told : ++stream.told;
  }
  return std::nullopt;
}

bool Streams::has_next() const {
  return std::any_of(streams_.begin(), streams_.end(), [](const Stream& stream) {
    return is_further(stream, stream.limit, stream.told);
  });
}

}  // namespace ncfs
