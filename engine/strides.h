// Reads of one open file that leave out as much each time: the columns of a table, every n-th
// record.
//
// A run is a block and those read right after it; a stride is the distance between the beginnings
// of two runs. Four equal strides in a row are a pattern: four streams that are read in turns for
// the first time (engine/streams.h) make three. Blocks that the cache has are read unseen, so a
// multiple of the stride goes on with the pattern. As many blocks as the longest run so far had are
// fetched of each run to come, of one run at first and of twice as many each time the pattern goes
// on, up to `blocks_max` blocks.
//
// Not thread-safe. Time of each call: constant.
#pragma once

#include <cstdint>
#include <optional>

namespace ncfs {

class Strides {
 public:
  // A read of a block of a file of `block_count` blocks. Whether it is part of a pattern.
  bool note(std::uint64_t block, std::uint64_t block_count, std::uint64_t blocks_max);

  // Whether the last read was of a run begun before.
  [[nodiscard]] bool is_in_run() const { return is_in_run_; }

  // The next block to fetch ahead; it is not told again.
  std::optional<std::uint64_t> next();
  [[nodiscard]] bool has_next() const;

 private:
  static constexpr std::uint32_t kStridesMin = 4;

  void begin_run(std::uint64_t block, std::uint64_t blocks_max);

  bool is_in_run_ = false;
  std::uint64_t start_ = 0;       // of the run being read
  std::uint64_t length_ = 0;      // of that run; 0: nothing was read yet
  std::uint64_t run_blocks_ = 1;  // of the longest run of the pattern
  std::int64_t stride_ = 0;
  std::uint32_t strides_ = 0;      // equal ones in a row
  std::uint64_t ahead_ = 0;        // runs that may be told
  std::uint64_t told_ = 0;         // runs told as a whole, counted from start_
  std::uint64_t told_blocks_ = 0;  // of the run after those
  std::uint64_t block_count_ = 0;
};

}  // namespace ncfs
