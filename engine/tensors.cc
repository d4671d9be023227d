#include "engine/tensors.h"

#include <algorithm>
#include <iterator>

namespace ncfs {

bool TensorOrder::note(ByteRange read, const std::vector<ByteRange>& tensors,
                       std::uint64_t block_size_bytes, std::uint64_t blocks_max) {
  // The last tensor that begins in what is read.
  const auto after = std::ranges::lower_bound(tensors, read.end(), {}, &ByteRange::offset);
  const bool begins = after != tensors.begin() && std::prev(after)->offset >= read.offset;
  const std::int64_t tensor = after - tensors.begin() - 1;
  const std::uint64_t block = read.offset / block_size_bytes;
  if (begins && tensor != last_) {
    const std::int64_t step = last_ < 0 ? 1 : tensor - last_;
    order_ = step == step_ ? step : 1;
    step_ = step;
    last_ = tensor;
    plan(read, static_cast<std::size_t>(tensor), tensors, block_size_bytes, blocks_max);
  }
  std::uint64_t before = 0;
  for (const Blocks& blocks : plan_) {
    if (block >= blocks.first && block < blocks.first + blocks.count) {
      limit_ = std::max(limit_, before + block - blocks.first + 1 + blocks_max);
      break;
    }
    before += blocks.count;
  }
  if (blocks_max == 0) limit_ = 0;
  return begins && std::prev(after)->end() > (block + 1) * block_size_bytes;
}

void TensorOrder::plan(ByteRange read, std::size_t tensor, const std::vector<ByteRange>& tensors,
                       std::uint64_t block_size_bytes, std::uint64_t blocks_max) {
  plan_.clear();
  planned_ = told_ = 0;
  limit_ = blocks_max;
  auto next = static_cast<std::int64_t>(tensor);
  for (std::size_t count = 0; count < kPlannedMax; ++count, next += order_) {
    if (next < 0 || next >= static_cast<std::int64_t>(tensors.size())) break;
    if (count > 1 && planned_ >= blocks_max) break;
    const ByteRange& range = tensors[static_cast<std::size_t>(next)];
    // Of the first one, what is not being read.
    const std::uint64_t begin = count == 0 ? std::max(read.end(), range.offset) : range.offset;
    if (begin >= range.end()) continue;
    std::uint64_t first = begin / block_size_bytes;
    const std::uint64_t end = (range.end() - 1) / block_size_bytes + 1;
    // A block that ends one tensor and begins the next one.
    if (!plan_.empty() && plan_.back().first + plan_.back().count == first + 1) ++first;
    if (first == end) continue;
    plan_.push_back({first, end - first});
    planned_ += end - first;
  }
}

bool TensorOrder::has_next() const {
  return told_ < std::min(planned_, limit_);
}

std::optional<std::uint64_t> TensorOrder::next() {
  if (!has_next()) return std::nullopt;
  std::uint64_t index = told_++;
  for (const Blocks& blocks : plan_) {
    if (index < blocks.count) return blocks.first + index;
    index -= blocks.count;
  }
  return std::nullopt;
}

}  // namespace ncfs
