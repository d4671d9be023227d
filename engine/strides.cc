#include "engine/strides.h"

#include <algorithm>

namespace ncfs {

bool Strides::note(std::uint64_t block, std::uint64_t block_count, std::uint64_t blocks_max) {
  block_count_ = block_count;
  is_in_run_ = length_ > 0 && block >= start_ && block <= start_ + length_;
  if (!is_in_run_) {
    begin_run(block, blocks_max);
  } else if (block == start_ + length_) {
    ++length_;
  }
  // What is read almost as a whole is a stream.
  const auto distance = static_cast<std::uint64_t>(stride_ < 0 ? -stride_ : stride_);
  const bool is_pattern = strides_ >= kStridesMin && 2 * std::max(length_, run_blocks_) <= distance;
  if (!is_pattern) ahead_ = told_ = told_blocks_ = 0;
  return is_pattern;
}

void Strides::begin_run(std::uint64_t block, std::uint64_t blocks_max) {
  const auto stride = static_cast<std::int64_t>(block - start_);
  const bool goes_on = strides_ > 0 && stride % stride_ == 0 && stride / stride_ > 0;
  const bool is_equal = goes_on && (stride == stride_ || strides_ >= kStridesMin);
  if (is_equal) {
    run_blocks_ = std::max(run_blocks_, length_);
    strides_ = std::min(strides_ + 1, kStridesMin);
    const auto passed = static_cast<std::uint64_t>(stride / stride_);
    if (passed > told_) told_blocks_ = 0;
    told_ -= std::min(told_, passed);
    if (strides_ == kStridesMin) {
      ahead_ = std::min(std::max<std::uint64_t>(1, 2 * ahead_), blocks_max / run_blocks_);
    }
  } else {
    stride_ = length_ > 0 ? stride : 0;
    strides_ = stride_ != 0 ? 1 : 0;
    run_blocks_ = 1;
    ahead_ = told_ = told_blocks_ = 0;
  }
  start_ = block;
  length_ = 1;
}

bool Strides::has_next() const {
  if (told_ >= ahead_) return false;
  const std::int64_t start =
      static_cast<std::int64_t>(start_) + stride_ * static_cast<std::int64_t>(told_ + 1);
  return start >= 0 && static_cast<std::uint64_t>(start) + told_blocks_ < block_count_;
}

std::optional<std::uint64_t> Strides::next() {
  if (!has_next()) return std::nullopt;
  const std::int64_t start =
      static_cast<std::int64_t>(start_) + stride_ * static_cast<std::int64_t>(told_ + 1);
  const std::uint64_t block = static_cast<std::uint64_t>(start) + told_blocks_;
  if (++told_blocks_ == run_blocks_) {
    ++told_;
    told_blocks_ = 0;
  }
  return block;
}

}  // namespace ncfs
