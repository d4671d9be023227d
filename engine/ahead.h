// What is fetched before anybody asks for it: why, what became of it, and how much of it pays.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ncfs {

enum class AheadReason : std::uint8_t {
  stream,  // a reader goes on forward or backward (engine/streams.h)
  stride,  // a reader leaves out as much each time (engine/strides.h)
  tensor,  // a reader of a model has begun a tensor (engine/tensors.h)
};
inline constexpr std::size_t kAheadReasonCount = 3;
[[nodiscard]] std::string_view to_string(AheadReason reason);

// Bytes, in whole blocks: who reads one byte has used the block. Each is in `used` or `wasted` once
// its fate is known: used, if anybody reads of the block while the file that it was fetched for is
// open; else wasted, even if the cache keeps it.
struct AheadCounts {
  std::uint64_t fetched = 0;
  std::uint64_t used = 0;
  std::uint64_t wasted = 0;
  bool operator==(const AheadCounts&) const = default;
};
using AheadBooks = std::array<AheadCounts, kAheadReasonCount>;

// How many blocks may be fetched ahead at a time for one open file, by the fate of those before.
// After each group of blocks: with more wasted than used it is a quarter of that, down to none;
// with three quarters used or more it is twice that again. Coming down fast bounds what a reader
// costs whose pattern breaks all the time; the gap between the two keeps it from swinging.
// (Accuracy in intervals with two thresholds: Srinath et al., Feedback Directed Prefetching, HPCA
// 2007.)
class AheadLimit {
 public:
  // Blocks of a group.
  static constexpr std::uint32_t kJudged = 8;

  // Of `blocks` that may be fetched at most.
  [[nodiscard]] std::uint64_t of(std::uint64_t blocks) const { return blocks >> halvings_; }
  // The fate of a block. While nothing is fetched: whether it would have been used.
  void judge(bool was_used, std::uint64_t blocks) {
    ++judged_;
    if (was_used) ++used_;
    if (judged_ < kJudged) return;
    if (2 * used_ < judged_) {
      for (int halving = 0; halving < 2 && of(blocks) > 0; ++halving) ++halvings_;
    } else if (4 * used_ >= 3 * judged_ && halvings_ > 0) {
      --halvings_;
    }
    judged_ = used_ = 0;
  }

 private:
  std::uint32_t halvings_ = 0;
  std::uint32_t judged_ = 0;  // of this group
  std::uint32_t used_ = 0;    // of these
};

}  // namespace ncfs
