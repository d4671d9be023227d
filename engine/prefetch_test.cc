// What the engine fetches before anybody asks for it. The files are not cached, so that no copy
// fetches anything.
#include <vector>

#include "engine/engine_fixture.h"

namespace ncfs {
namespace {

class PrefetchTest : public EngineTest {
 protected:
  static constexpr std::uint64_t kBlocks = 200;

  PrefetchTest() {
    config_.buffers = 256;
    config_.buffers_reserved = 64;
    config_.min_file_size_bytes = 1 * kGiB;
    config_.readahead_bytes = 4 * kBlock;
    config_.readahead_max_bytes = 4 * kBlock;
  }

  // Reads, and returns the blocks of the fetches that began, in order.
  std::vector<std::uint64_t> fetched_by_read(std::uint64_t block, std::uint64_t length = kBlock) {
    std::vector<std::uint64_t> blocks;
    read(++token_, 1, {block * kBlock, length});
    while (const auto request = pending(Op::source_read)) {
      blocks.push_back(request->range.offset / kBlock);
      bytes_fetched_ += request->range.length;
      answer(Op::source_read, static_cast<std::int64_t>(request->range.length));
    }
    EXPECT_EQ(answered_.at(token_).kind, ReadResult::Kind::bytes);
    handle_event(ReadDoneEvent{ReadToken{token_}});
    return blocks;
  }
  using Blocks = std::vector<std::uint64_t>;

  std::uint64_t token_ = 0;
  std::uint64_t bytes_fetched_ = 0;
};

TEST_F(PrefetchTest, OffFetchesExactlyWhatIsAskedFor) {
  config_.prefetch = Prefetch::off;
  start();
  open(1, state(1, kBlocks));
  for (std::uint64_t block = 0; block < 10; ++block) {
    EXPECT_EQ(fetched_by_read(block, kBlock / 8), Blocks{block});
  }
  for (std::uint64_t block = 10; block < 100; block += 10) {
    EXPECT_EQ(fetched_by_read(block), Blocks{block});
  }
  EXPECT_EQ(bytes_fetched_, 10 * kBlock / 8 + 9 * kBlock);
}

TEST_F(PrefetchTest, SequentialFetchesAheadOfStreamsOnly) {
  config_.prefetch = Prefetch::sequential;
  start();
  open(1, state(1, kBlocks));
  EXPECT_EQ(fetched_by_read(0), Blocks{0});
  EXPECT_EQ(fetched_by_read(1), (Blocks{1, 2}));
  EXPECT_EQ(fetched_by_read(2), (Blocks{3, 4}));
  for (std::uint64_t block = 20; block < 200; block += 20) {
    EXPECT_EQ(fetched_by_read(block), Blocks{block});
  }
}

TEST_F(PrefetchTest, SmartFetchesAheadOfStreamsAndStrides) {
  start();
  open(1, state(1, kBlocks));
  EXPECT_EQ(fetched_by_read(0), Blocks{0});
  EXPECT_EQ(fetched_by_read(1), (Blocks{1, 2}));
  for (const std::uint64_t block : {20, 40, 60}) EXPECT_EQ(fetched_by_read(block), Blocks{block});
  EXPECT_EQ(fetched_by_read(80), (Blocks{80, 100}));
  EXPECT_EQ(fetched_by_read(100), (Blocks{120, 140}));
  EXPECT_EQ(fetched_by_read(120), (Blocks{160, 180}));
}

TEST_F(PrefetchTest, StridesOfAFewBytesFetchExactlyThose) {
  start();
  open(1, state(1, kBlocks));
  for (std::uint64_t block = 0; block < kBlocks; block += 20) {
    EXPECT_EQ(fetched_by_read(block, 100), Blocks{block});
  }
  EXPECT_EQ(bytes_fetched_, 10 * 100U);
}

TEST_F(PrefetchTest, RandomReadersFetchExactlyTheirBytes) {
  start();
  open(1, state(1, kBlocks));
  for (const std::uint64_t block : {150, 20, 90, 5, 190, 45, 120, 70}) {
    EXPECT_EQ(fetched_by_read(block, 1000), Blocks{block});
  }
  EXPECT_EQ(bytes_fetched_, 8 * 1000U);
}

}  // namespace
}  // namespace ncfs
