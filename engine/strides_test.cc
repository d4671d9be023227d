#include "engine/strides.h"

#include <gtest/gtest.h>

#include <vector>

namespace ncfs {
namespace {

constexpr std::uint64_t kBlocks = 1000;

class StridesTest : public testing::Test {
 protected:
  bool note(std::uint64_t block) { return strides_.note(block, kBlocks, 8); }
  std::vector<std::uint64_t> ahead() {
    std::vector<std::uint64_t> blocks;
    while (const auto block = strides_.next()) blocks.push_back(*block);
    EXPECT_FALSE(strides_.has_next());
    return blocks;
  }
  using Blocks = std::vector<std::uint64_t>;

  Strides strides_;
};

TEST_F(StridesTest, FourEqualStridesAreAPattern) {
  for (const std::uint64_t block : {5, 25, 45, 65}) EXPECT_FALSE(note(block));
  EXPECT_EQ(ahead(), Blocks{});
  EXPECT_TRUE(note(85));
  EXPECT_EQ(ahead(), (Blocks{105}));
  EXPECT_TRUE(note(105));
  EXPECT_EQ(ahead(), (Blocks{125, 145}));
  EXPECT_TRUE(note(125));
  EXPECT_EQ(ahead(), (Blocks{165, 185, 205}));
}

TEST_F(StridesTest, NoMoreThanSoManyBlocksAhead) {
  for (std::uint64_t block = 0; block <= 180; block += 10) note(block);
  EXPECT_EQ(ahead(), (Blocks{190, 200, 210, 220, 230, 240, 250, 260}));
  note(190);
  EXPECT_EQ(ahead(), (Blocks{270}));
}

TEST_F(StridesTest, BackwardToTheBeginningOfTheFile) {
  for (const std::uint64_t block : {95, 75, 55, 35}) EXPECT_FALSE(note(block));
  EXPECT_TRUE(note(15));
  EXPECT_EQ(ahead(), Blocks{});
}

TEST_F(StridesTest, AllOfTheRunIsFetched) {
  for (const std::uint64_t start : {100, 120, 140, 160, 180}) {
    note(start);
    note(start);
    note(start + 1);
    note(start + 2);
  }
  EXPECT_EQ(ahead(), (Blocks{200, 201, 202}));
}

TEST_F(StridesTest, WhatWasReadUnseenDoesNotEndThePattern) {
  for (const std::uint64_t block : {0, 20, 40, 60, 80}) note(block);
  EXPECT_EQ(ahead(), (Blocks{100}));
  EXPECT_TRUE(note(140));
  EXPECT_EQ(ahead(), (Blocks{160, 180}));
}

TEST_F(StridesTest, AnotherStrideEndsThePattern) {
  for (const std::uint64_t block : {0, 20, 40, 60, 80}) note(block);
  EXPECT_FALSE(note(95));
  EXPECT_EQ(ahead(), Blocks{});
}

TEST_F(StridesTest, StreamsAreNoPattern) {
  for (std::uint64_t block = 0; block < 50; ++block) EXPECT_FALSE(note(block));
  for (std::uint64_t block = 50; block-- > 0;) EXPECT_FALSE(note(block));
  // Four streams read in turns.
  for (std::uint64_t read = 0; read < 50; ++read) {
    for (std::uint64_t stream = 0; stream < 4; ++stream) EXPECT_FALSE(note(100 * stream + read));
  }
  // Every second one of three blocks left out.
  for (std::uint64_t block = 0; block < 90; block += 3) {
    note(block);
    EXPECT_FALSE(note(block + 1));
  }
  EXPECT_EQ(ahead(), Blocks{});
}

TEST_F(StridesTest, RandomReadsAreNoPattern) {
  for (std::uint64_t read = 0; read < 300; ++read) {
    EXPECT_FALSE(note(read * read * 617 % 997));
  }
}

TEST_F(StridesTest, WithoutRoomThePatternIsStillRecognized) {
  for (const std::uint64_t block : {0, 20, 40, 60}) strides_.note(block, kBlocks, 0);
  EXPECT_TRUE(strides_.note(80, kBlocks, 0));
  EXPECT_EQ(ahead(), Blocks{});
}

TEST_F(StridesTest, NothingBeyondTheFileIsTold) {
  for (std::uint64_t block = 0; block < kBlocks; block += 7) {
    note(block);
    for (const std::uint64_t told : ahead()) EXPECT_LT(told, kBlocks);
  }
}

}  // namespace
}  // namespace ncfs
