#include "engine/streams.h"

#include <gtest/gtest.h>

#include <vector>

namespace ncfs {
namespace {

constexpr std::uint64_t kBlocks = 1000;
constexpr Streams::Window kWindow{.ramp_blocks = 4, .max_blocks = 16};

class StreamsTest : public testing::Test {
 protected:
  bool note(std::uint64_t block) { return streams_.note(block, kBlocks, kWindow); }
  std::vector<std::uint64_t> ahead() {
    std::vector<std::uint64_t> blocks;
    while (const auto block = streams_.next()) blocks.push_back(*block);
    EXPECT_FALSE(streams_.has_next());
    return blocks;
  }
  using Blocks = std::vector<std::uint64_t>;

  Streams streams_;
};

TEST_F(StreamsTest, AWindowBeginsWithTheSecondReadAndDoubles) {
  EXPECT_FALSE(note(10));
  EXPECT_EQ(ahead(), Blocks{});
  EXPECT_TRUE(note(11));
  EXPECT_EQ(ahead(), (Blocks{12}));
  EXPECT_TRUE(note(12));
  EXPECT_EQ(ahead(), (Blocks{13, 14}));
  EXPECT_TRUE(note(13));
  EXPECT_EQ(ahead(), (Blocks{15, 16, 17}));
  EXPECT_TRUE(note(14));
  EXPECT_EQ(ahead(), (Blocks{18}));
}

TEST_F(StreamsTest, ReadsOfOneBlockAreAStreamButDoNotMoveIt) {
  EXPECT_FALSE(note(10));
  for (int read = 0; read < 5; ++read) EXPECT_TRUE(note(10));
  EXPECT_EQ(ahead(), (Blocks{11}));
}

TEST_F(StreamsTest, BackwardIsAStreamToo) {
  note(10);
  EXPECT_TRUE(note(9));
  EXPECT_EQ(ahead(), (Blocks{8}));
  EXPECT_TRUE(note(8));
  EXPECT_EQ(ahead(), (Blocks{7, 6}));
}

TEST_F(StreamsTest, ReadsThatOvertakeEachOtherAreOneStream) {
  for (const std::uint64_t block : {10, 11, 13, 12, 15, 14, 16}) {
    EXPECT_EQ(note(block), block != 10);
  }
  EXPECT_EQ(ahead().back(), 20U);
}

TEST_F(StreamsTest, SeveralStreamsAreReadInTurns) {
  for (std::uint64_t read = 0; read < 4; ++read) {
    for (std::uint64_t stream = 0; stream < Streams::kStreamsMax; ++stream) {
      EXPECT_EQ(note(100 * stream + read), read > 0);
    }
  }
  EXPECT_EQ(ahead().size(), 4 * Streams::kStreamsMax);
}

TEST_F(StreamsTest, RandomReadsFetchNothingAhead) {
  for (std::uint64_t read = 0; read < 100; ++read) EXPECT_FALSE(note(read * 617 % kBlocks));
  EXPECT_EQ(ahead(), Blocks{});
}

TEST_F(StreamsTest, WhoeverWaitsGetsALongerWindowOnceForEach) {
  for (std::uint64_t block = 0; block < 8; ++block) note(block);
  EXPECT_EQ(ahead().back(), 11U);
  note(8);
  streams_.widen(8, kWindow);
  EXPECT_EQ(ahead().back(), 16U);
  streams_.widen(8, kWindow);
  EXPECT_EQ(ahead(), Blocks{});
  for (std::uint64_t block = 9; block < 40; ++block) {
    note(block);
    streams_.widen(block, kWindow);
  }
  EXPECT_EQ(ahead().back(), 39 + kWindow.max_blocks);
}

TEST_F(StreamsTest, WhatWasFetchedAheadMayBeReadUnseen) {
  for (std::uint64_t block = 0; block < 8; ++block) note(block);
  ASSERT_EQ(ahead().back(), 11U);
  EXPECT_TRUE(note(12));
  EXPECT_EQ(ahead().back(), 16U);
  for (std::uint64_t block = 99; block > 90; --block) note(block);
  ASSERT_EQ(ahead().back(), 87U);
  EXPECT_TRUE(note(86));
  EXPECT_EQ(ahead().back(), 82U);
}

TEST_F(StreamsTest, NoWindowIsLargerThanItsLimit) {
  for (std::uint64_t block = 0; block < 8; ++block) note(block);
  ahead();
  Streams::Window limited = kWindow;
  limited.limit_blocks = 2;
  EXPECT_TRUE(streams_.note(10, kBlocks, limited));
  EXPECT_EQ(ahead(), (Blocks{12}));
  limited.limit_blocks = 0;
  EXPECT_TRUE(streams_.note(12, kBlocks, limited));
  streams_.widen(12, limited);
  EXPECT_EQ(ahead(), Blocks{});
}

TEST_F(StreamsTest, NothingBeyondTheFileIsToldAndNothingTwice) {
  std::vector<bool> was_told(kBlocks);
  for (std::uint64_t block = kBlocks - 20; block < kBlocks; ++block) {
    note(block);
    streams_.widen(block, kWindow);
    for (const std::uint64_t told : ahead()) {
      ASSERT_LT(told, kBlocks);
      EXPECT_FALSE(was_told[told]);
      was_told[told] = true;
    }
  }
  for (std::uint64_t block = 20; block-- > 0;) {
    note(block);
    for (const std::uint64_t told : ahead()) EXPECT_LT(told, 20U);
  }
}

TEST_F(StreamsTest, WithoutReadaheadAStreamIsStillRecognized) {
  const Streams::Window none;
  EXPECT_FALSE(streams_.note(5, kBlocks, none));
  EXPECT_TRUE(streams_.note(6, kBlocks, none));
  streams_.widen(6, none);
  EXPECT_EQ(ahead(), Blocks{});
}

}  // namespace
}  // namespace ncfs
