// The streams among the reads of one open file, and how far to fetch ahead of each.
//
// A read belongs to a stream if it comes near its edge: the kernel's readahead sends several reads
// at a time, so they arrive out of order. Some programs read several places of one descriptor in
// turns, forward or backward, so a few streams are known at a time; the one that was not read for
// longest makes way for a new one. (Similar: the prefetcher of ZFS, dmu_zfetch.c, with 8 streams to
// a file and a distance that doubles.)
//
// The window, the number of blocks to fetch ahead, is one block when a stream is recognized and
// doubles whenever the stream moves on, up to `ramp_blocks`: a reader of a few bytes costs little.
// Beyond that it doubles when the reader had to wait for a block that was being fetched ahead, as
// the link is longer than the window then, up to `max_blocks`.
//
// Not thread-safe. Time of each call: constant.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace ncfs {

class Streams {
 public:
  struct Window {
    std::uint64_t ramp_blocks = 0;            // 0: nothing is fetched ahead
    std::uint64_t max_blocks = 0;             // at least ramp_blocks
    std::uint64_t limit_blocks = UINT64_MAX;  // no window is larger
  };
  // As many threads as commonly read one descriptor.
  static constexpr std::size_t kStreamsMax = 4;

  // A read of a block of a file of `block_count` blocks. Whether it goes on with a stream.
  bool note(std::uint64_t block, std::uint64_t block_count, const Window& window);
  // The reader waits for this block, which is being fetched ahead.
  void widen(std::uint64_t block, const Window& window);

  // The next block to fetch ahead of any stream; it is not told again.
  std::optional<std::uint64_t> next();
  [[nodiscard]] bool has_next() const;

 private:
  struct Stream {
    bool is_backward = false;
    bool has_moved = false;
    std::uint64_t edge = 0;     // the furthest block that was read
    std::uint64_t told = 0;     // the furthest block told by next(), or the edge
    std::uint64_t limit = 0;    // the furthest block that may be told
    std::uint64_t window = 0;   // in blocks; 0: one read so far
    std::uint64_t widened = 0;  // not widened again until the edge has got here
    std::uint64_t used = 0;     // when, by the count of reads; 0: never
  };

  static bool is_further(const Stream& stream, std::uint64_t block, std::uint64_t than) {
    return stream.is_backward ? block < than : block > than;
  }
  static void set_limit(Stream& stream, std::uint64_t block_count);
  static void go_on(Stream& stream, std::uint64_t block, const Window& window);

  std::array<Stream, kStreamsMax> streams_;
  std::uint64_t reads_ = 0;
  std::uint64_t block_count_ = 0;
};

}  // namespace ncfs
