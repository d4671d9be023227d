// What the engine fetches before anybody asks for it. The files are not cached, so that no copy
// fetches anything.
#include <cstring>
#include <string>
#include <utility>
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

  // A model's header of one block, with tensors of 10, 4, 30 and 6 blocks behind it.
  static std::vector<std::byte> header_bytes(ByteRange range) {
    std::string json = "{";
    std::uint64_t begin = 0;
    for (const std::uint64_t blocks : {10, 4, 30, 6}) {
      const std::uint64_t end = begin + blocks * kBlock;
      json += (begin == 0 ? "" : ",") + ("\"t" + std::to_string(begin)) + "\":{\"data_offsets\":[" +
              std::to_string(begin) + "," + std::to_string(end) + "]}";
      begin = end;
    }
    json += "}";
    json.resize(kBlock - sizeof(std::uint64_t), ' ');
    const std::uint64_t length = json.size();
    std::vector<std::byte> bytes(kBlock + 60 * kBlock);
    std::memcpy(bytes.data(), &length, sizeof length);
    std::memcpy(bytes.data() + sizeof length, json.data(), json.size());
    bytes.resize(range.end());
    bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(range.offset));
    return bytes;
  }

  // Of the source, as often as there are any; in order.
  std::vector<ByteRange> answer_reads() {
    std::vector<ByteRange> ranges;
    while (const auto request = pending(Op::source_read)) {
      ranges.push_back(request->range);
      bytes_fetched_ += request->range.length;
      Completion completion;
      completion.result = static_cast<std::int64_t>(request->range.length);
      if (request->wants_bytes) completion.bytes = header_bytes(request->range);
      answer(*request, std::move(completion));
    }
    return ranges;
  }

  // Reads, and returns the blocks of the fetches that began, in order.
  std::vector<std::uint64_t> fetched_by_read(std::uint64_t block, std::uint64_t length = kBlock) {
    std::vector<std::uint64_t> blocks;
    read(++token_, 1, {block * kBlock, length});
    for (const ByteRange& range : answer_reads()) blocks.push_back(range.offset / kBlock);
    EXPECT_EQ(answered_.at(token_).kind, ReadResult::Kind::bytes);
    handle_event(ReadDoneEvent{ReadToken{token_}});
    return blocks;
  }
  AheadCounts ahead(AheadReason reason) const {
    return engine_->status().ahead.at(static_cast<std::size_t>(reason));
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

TEST_F(PrefetchTest, SmartFetchesTheTensorThatBeginsAndTheNextOne) {
  start();
  open_path(1, state(1, 51), "model.safetensors");
  EXPECT_EQ(fetched_by_read(0, kBlock / 4), Blocks{0});
  EXPECT_EQ(fetched_by_read(0), (Blocks{0, 1}));  // all of the header
  EXPECT_EQ(fetched_by_read(11), (Blocks{11, 12, 13, 14, 15}));
  EXPECT_EQ(fetched_by_read(12), Blocks{16});
  EXPECT_EQ(fetched_by_read(15), (Blocks{17, 18, 19})) << "of the next tensor";
  EXPECT_EQ(ahead(AheadReason::tensor).used, 2 * kBlock);
}

TEST_F(PrefetchTest, ModelsAreReadAsOtherFilesByWhoDoesNotWantIt) {
  config_.prefetch = Prefetch::sequential;
  start();
  open_path(1, state(1, 51), "model.safetensors");
  fetched_by_read(0);
  EXPECT_EQ(fetched_by_read(11), Blocks{11});
}

TEST_F(PrefetchTest, AModelThatIsNoneIsReadAsOtherFiles) {
  start();
  open_path(1, state(1, 20), "model.safetensors");  // its tensors would be beyond its end
  fetched_by_read(0);
  EXPECT_EQ(fetched_by_read(11), Blocks{11});
  EXPECT_FALSE(pending(Op::source_read));
}

TEST_F(PrefetchTest, WhatWasReadMakesWayForWhatIsAhead) {
  config_.buffers = 16;  // a quarter of them for blocks in memory
  config_.buffers_reserved = 4;
  start();
  open(1, state(1, kBlocks));
  for (std::uint64_t piece = 0; piece < 4 * kBlocks; ++piece) {
    read(++token_, 1, {piece * kBlock / 4, kBlock / 4});
    answer_reads();
    handle_event(ReadDoneEvent{ReadToken{token_}});
  }
  EXPECT_EQ(bytes_fetched_, kBlocks * kBlock + kBlock / 4) << "the first bytes come alone";
  EXPECT_GT(ahead(AheadReason::stream).used, (kBlocks - 10) * kBlock);
  EXPECT_EQ(ahead(AheadReason::stream).wasted, 0U);
}

TEST_F(PrefetchTest, EveryBlockIsUsedOrWasted) {
  start();
  open(1, state(1, kBlocks));
  for (const std::uint64_t block : {0, 1, 2}) fetched_by_read(block);  // and 3 and 4
  EXPECT_EQ(ahead(AheadReason::stream), (AheadCounts{3 * kBlock, kBlock, 0}));
  fetched_by_read(3);  // and 5, 6 and 7
  fetched_by_read(3);
  EXPECT_EQ(ahead(AheadReason::stream), (AheadCounts{6 * kBlock, 2 * kBlock, 0}));
  close(1);
  EXPECT_EQ(ahead(AheadReason::stream), (AheadCounts{6 * kBlock, 2 * kBlock, 4 * kBlock}));
  EXPECT_EQ(ahead(AheadReason::stride), AheadCounts{});
}

TEST_F(PrefetchTest, BlocksReadFromTheCacheFileAreUsed) {
  config_.min_file_size_bytes = 1;
  config_.copies_max = 1;
  start();
  open(9, state(9, 8));  // holds the only copy slot
  open(1, state(1, 20));
  answer(Op::cache_create, 10);
  answer(Op::cache_create, 11);
  requests_.clear();  // the copy's reads; they never end
  for (const std::uint64_t block : {3, 4}) {
    read(++token_, 1, {block * kBlock, kBlock});
    answer_reads();
    while (pending(Op::cache_write)) answer(Op::cache_write, kBlock);
    handle_event(ReadDoneEvent{ReadToken{token_}});
  }
  const auto residency = answered_.at(token_).residency;
  ASSERT_TRUE(residency && residency->is_resident(5));
  tick(kSecond);
  EXPECT_EQ(ahead(AheadReason::stream), (AheadCounts{kBlock, 0, 0}));
  EXPECT_TRUE(plan_read(*residency, {5 * kBlock, 10}).resident);
  tick(kSecond);
  EXPECT_EQ(ahead(AheadReason::stream), (AheadCounts{kBlock, kBlock, 0}));
}

// Two blocks here, two there: the block after them is fetched for nothing, until it is not any
// more.
TEST_F(PrefetchTest, WasteTurnsItDownAndUseUpAgain) {
  config_.prefetch = Prefetch::sequential;
  start();
  open(1, state(1, 100'000));
  std::uint64_t at = 0;
  const auto read_runs = [&](std::uint64_t runs, std::uint64_t length) {
    for (std::uint64_t run = 0; run < runs; ++run) {
      at = (at + 7919) % 90'000;
      for (std::uint64_t block = 0; block < length; ++block) fetched_by_read(at + block);
    }
  };
  read_runs(100, 2);
  const AheadCounts before = ahead(AheadReason::stream);
  EXPECT_GT(before.wasted, 8 * kBlock);
  EXPECT_LT(before.wasted, 60 * kBlock);
  read_runs(1000, 2);
  EXPECT_EQ(ahead(AheadReason::stream).fetched, before.fetched);
  read_runs(1, 200);
  EXPECT_GT(ahead(AheadReason::stream).used, 150 * kBlock);
}

// In a file of some hundred blocks random places are often near to one of the last ones.
TEST_F(PrefetchTest, RandomReaderGetsExactlyItsBytesOnceThatIsSeen) {
  start();
  open(1, state(1, kBlocks));
  std::uint64_t at = 1;
  const auto read_some = [&](int reads) {
    for (int count = 0; count < reads; ++count) {
      at = (at * 6364136223846793005 + 1442695040888963407) % (std::uint64_t{1} << 62);
      fetched_by_read((at >> 32) % kBlocks, kBlock / 8);
    }
  };
  read_some(1000);
  const std::uint64_t before = bytes_fetched_;
  read_some(1000);
  EXPECT_LE(bytes_fetched_ - before, 1000 * kBlock / 8);
}

}  // namespace
}  // namespace ncfs
