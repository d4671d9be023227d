// Which blocks a reader of a model will want next: the rest of the tensor that it begins, and the
// tensors after that, until there are as many blocks as may be fetched ahead.
//
// The order is that of the file, or what two steps in a row have shown: every second tensor, or
// backward. No more blocks are told ahead of the reader's place in that order than are allowed.
//
// Not thread-safe. Time of note(): logarithmic in the tensors.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "io/types.h"

namespace ncfs {

class TensorOrder {
 public:
  // A read. `tensors` as in ModelHeader; the same each time. Whether a tensor begins in it that
  // goes on beyond its block.
  bool note(ByteRange read, const std::vector<ByteRange>& tensors, std::uint64_t block_size_bytes,
            std::uint64_t blocks_max);

  // The next block to fetch ahead; it is not told again until another tensor begins.
  std::optional<std::uint64_t> next();
  [[nodiscard]] bool has_next() const;

 private:
  // Tensors planned for at a time: many small ones share a block.
  static constexpr std::size_t kPlannedMax = 64;

  struct Blocks {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
  };
  void plan(ByteRange read, std::size_t tensor, const std::vector<ByteRange>& tensors,
            std::uint64_t block_size_bytes, std::uint64_t blocks_max);

  std::vector<Blocks> plan_;
  std::uint64_t planned_ = 0;  // blocks
  std::uint64_t told_ = 0;     // of these
  std::uint64_t limit_ = 0;    // of these; beyond the reader's place by blocks_max
  std::int64_t last_ = -1;     // the tensor that began last
  std::int64_t step_ = 0;      // from the one before to that
  std::int64_t order_ = 1;     // step to the tensor expected next
};

}  // namespace ncfs
