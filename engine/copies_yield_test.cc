// Copies beside a reader of the same file system, piece by piece (engine/yield.h), with every
// request answered by hand.
#include "engine/engine_fixture.h"
#include "engine/token_bucket.h"
#include "engine/yield.h"

namespace ncfs {
namespace {

class Yielding : public EngineTest {
 protected:
  static constexpr std::uint64_t kPiece = kBlock / 4;

  // A reader of file 2, which is larger than the cache, and a copy of file 1.
  void begin_beside() {
    config_.copy_piece_bytes = kPiece;
    config_.prefetch = Prefetch::off;
    start();
    open(2, state(2, 200'000));
    for (std::uint64_t token = 1; token <= 2 * YieldWindow::kClean; ++token) read_once(token);
    open(1, state(1, 200));
    answer(Op::cache_create, 10);
  }
  void read_once(std::uint64_t token) {
    read(token, 2, {100 * kBlock, 10});
    now_ += kMillisecond;
    answer_read_of(reader());
    handle_event(ReadDoneEvent{ReadToken{token}});
  }
  [[nodiscard]] std::optional<Request> reader() const { return read_by(false); }
  [[nodiscard]] std::optional<Request> copier() const { return read_by(true); }
  [[nodiscard]] std::optional<Request> read_by(bool is_copy) const {
    for (const Request& request : requests_) {
      const bool is_of_readers = request.range.length == 10;
      if (request.op == Op::source_read && is_of_readers != is_copy) return request;
    }
    return std::nullopt;
  }
  void answer_read_of(const std::optional<Request>& request) {
    ASSERT_TRUE(request);
    Completion completion;
    completion.result = static_cast<std::int64_t>(request->range.length);
    answer(*request, std::move(completion));
  }
};

TEST_F(Yielding, ACopyReadsAPieceAtATimeIntoItsPlaceInTheBlock) {
  begin_beside();
  read(100, 2, {100 * kBlock, 10});
  ASSERT_TRUE(reader());
  std::uint64_t offset = 0;
  for (; offset < kBlock; offset += kPiece) {
    const auto piece = copier();
    ASSERT_TRUE(piece);
    EXPECT_EQ(piece->range, (ByteRange{offset, kPiece}));
    EXPECT_EQ(piece->buffer_offset, offset);
    EXPECT_EQ(engine_->status().yields.at(0).copies_in_flight, kPiece);
    EXPECT_EQ(count(Op::source_read), 2U) << "and no other copy beside it";
    EXPECT_EQ(count(Op::cache_write), 0U);
    answer_read_of(piece);
  }
  const auto write = pending(Op::cache_write);
  ASSERT_TRUE(write);
  EXPECT_EQ(write->range, (ByteRange{0, kBlock}));
  EXPECT_EQ(engine_->status().source_bytes_copies, kBlock + kPiece) << "the next one has begun";
}

TEST_F(Yielding, WhenNobodyReadsABlockIsFetchedAsAWhole) {
  begin_beside();
  ASSERT_EQ(copier()->range, (ByteRange{0, kPiece}));
  now_ += YieldWindow::kForget;
  answer_read_of(copier());
  EXPECT_EQ(copier()->range, (ByteRange{kPiece, kBlock - kPiece})) << "what was begun goes on";
  EXPECT_EQ(count(Op::source_read), config_.copy_depth);
  EXPECT_EQ(requests_.back().range.length, kBlock);
}

TEST_F(Yielding, WhoNeedsTheBlockGetsTheRestOfItAtOnce) {
  begin_beside();
  read(100, 2, {100 * kBlock, 10});
  const auto piece = copier();
  read(101, 1, {0, kBlock});
  answer_read_of(piece);
  EXPECT_EQ(copier()->range, (ByteRange{kPiece, kBlock - kPiece}));
  EXPECT_FALSE(answered_.contains(101));
  answer_read_of(copier());
  EXPECT_EQ(answered_.at(101).length, kBlock);
}

TEST_F(Yielding, WhoNeedsAFewBytesOfItDoesNotWaitForTheRest) {
  begin_beside();
  read(100, 2, {100 * kBlock, 10});
  ASSERT_LT(copier()->range.length, kBlock);
  read(101, 1, {kPiece, 7});
  EXPECT_EQ(requests_.back().range, (ByteRange{kPiece, 7}));
}

TEST_F(Yielding, CopiesPauseWhileTheReadersLatencyAloneIsMeasured) {
  begin_beside();
  // Beside the copy, until the latency without it has to be measured again.
  std::uint64_t token = 100;
  for (; copier() && token < 300; ++token) {
    read_once(token);
    if (copier()) answer_read_of(copier());
    if (pending(Op::cache_write)) answer(Op::cache_write, static_cast<std::int64_t>(kBlock));
  }
  ASSERT_LT(token, 300U);
  EXPECT_LT(engine_->status().copies.at(0).done_bytes, 200 * kBlock);
  for (std::uint64_t clean = 0; clean < YieldWindow::kClean; ++clean) {
    EXPECT_FALSE(copier());
    read_once(++token);
  }
  EXPECT_TRUE(copier());
  // If no read comes the pause ends by itself.
  answer_read_of(copier());
}

TEST_F(Yielding, APieceOfACopyThatNobodyWantsAnyMoreIsNotFollowedByTheNext) {
  begin_beside();
  read(100, 2, {100 * kBlock, 10});
  const auto piece = copier();
  handle_event(StopEvent{});
  answer_read_of(piece);
  EXPECT_FALSE(copier());
  EXPECT_EQ(engine_->status().buffers_in_use, 1U) << "that of the reader";
}

TEST_F(Yielding, ThePiecesOfACopyKeepToItsCeiling) {
  config_.copy_bytes_per_second = kBlock;
  begin_beside();
  Nanos end = now_;
  for (std::uint64_t token = 100; engine_->status().source_bytes_copies < 2 * kBlock; ++token) {
    ASSERT_LT(token, 10'000U);
    read_once(token);
    if (copier()) answer_read_of(copier());
    if (pending(Op::cache_write)) answer(Op::cache_write, static_cast<std::int64_t>(kBlock));
    end = now_;
  }
  EXPECT_GE(end, 2 * kSecond - kSecond / 4 - TokenBucket::kBurst);
}

}  // namespace
}  // namespace ncfs
