#include "engine/tensors.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

constexpr std::uint64_t kBlock = 1000;

class TensorOrderTest : public testing::Test {
 protected:
  bool note(std::uint64_t offset, std::uint64_t length = 100, std::uint64_t max = 4) {
    return order_.note({offset, length}, tensors_, kBlock, max);
  }
  std::vector<std::uint64_t> ahead() {
    std::vector<std::uint64_t> blocks;
    while (const auto block = order_.next()) blocks.push_back(*block);
    EXPECT_FALSE(order_.has_next());
    return blocks;
  }
  using Blocks = std::vector<std::uint64_t>;

  std::vector<ByteRange> tensors_ = {{500, 9500}, {10'000, 2000}, {12'000, 8000}, {20'000, 10}};
  TensorOrder order_;
};

TEST_F(TensorOrderTest, TheRestOfTheTensorAndTheNextOne) {
  EXPECT_TRUE(note(10'000, 1000));
  EXPECT_EQ(ahead(), (Blocks{11, 12, 13, 14}));
  EXPECT_FALSE(note(11'000, 1000));
  EXPECT_EQ(ahead(), (Blocks{15}));
  note(13'000, 1000);
  EXPECT_EQ(ahead(), (Blocks{16, 17}));
}

TEST_F(TensorOrderTest, NothingWhereNoTensorBegins) {
  note(3000, 1000);
  EXPECT_EQ(ahead(), Blocks{});
  note(0, 400);
  EXPECT_EQ(ahead(), Blocks{});
}

TEST_F(TensorOrderTest, AReadOfAPageBeginsTheTensorInIt) {
  note(0, 600);
  EXPECT_EQ(ahead(), (Blocks{0, 1, 2, 3, 4}));
}

TEST_F(TensorOrderTest, TheOrderOfTwoStepsIsExpected) {
  EXPECT_FALSE(note(20'000, 10));
  EXPECT_EQ(ahead(), Blocks{}) << "it is the last one";
  note(12'000, 8000);
  EXPECT_EQ(ahead(), (Blocks{20})) << "that of the file";
  note(10'000, 2000, 20);
  EXPECT_EQ(ahead(), (Blocks{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})) << "backward";
}

TEST_F(TensorOrderTest, NothingWithoutAWindow) {
  note(10'000, 100, 0);
  EXPECT_EQ(ahead(), Blocks{});
}

TEST_F(TensorOrderTest, ManySmallTensorsAreABoundedPlan) {
  tensors_.clear();
  for (std::uint64_t tensor = 0; tensor < 5000; ++tensor) tensors_.push_back({tensor * 10, 10});
  note(0, 10, 1000);
  EXPECT_EQ(ahead(), Blocks{0});
}

}  // namespace
}  // namespace ncfs
