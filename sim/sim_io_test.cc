// What the simulated driver does beyond the laws that every driver keeps: orders, faults, crashes,
// and watching its caller.
#include "sim/sim_io.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

namespace ncfs {
namespace {

constexpr std::uint64_t kBlock = 4 * kKiB;

class SimIoTest : public testing::Test {
 protected:
  SimIoTest() : nfs_(SimNfs::Options{}), io_(config(), 0, disk_, nfs_, trace_) {
    disk_.make_directory("3f");
    nfs_.add("a", 3 * kBlock, 0);
    io_.set_now(10 * kSecond);  // the file is old enough not to be racy
  }

  static Config config() {
    Config config;
    config.block_size_bytes = kBlock;
    config.buffers = 4;
    config.min_free_percent = 0;
    return config;
  }

  Request request(Op op) {
    Request made;
    made.ticket = Ticket{++last_ticket_};
    made.op = op;
    made.deadline = 20 * kSecond;
    return made;
  }
  std::size_t submit(Request made) {
    io_.submit(std::move(made));
    return io_.pending().size() - 1;
  }
  FileHandle open_source() {
    Request made = request(Op::source_open);
    made.name = "a";
    return FileHandle{static_cast<std::int32_t>(io_.complete(submit(made), {}).result)};
  }
  FileHandle create(const std::string& name) {
    Request made = request(Op::cache_create);
    made.name = name;
    made.range.length = 3 * kBlock;
    return FileHandle{static_cast<std::int32_t>(io_.complete(submit(made), {}).result)};
  }
  Request transfer(Op op, FileHandle file, std::uint32_t buffer, std::uint64_t block = 0) {
    Request made = request(op);
    made.file = file;
    made.range = {block * kBlock, kBlock};
    made.buffer = BufferId{buffer};
    return made;
  }
  Request on_file(Op op, FileHandle file) {
    Request made = request(op);
    made.file = file;
    return made;
  }
  std::int64_t run(Request made) { return io_.complete(submit(std::move(made)), {}).result; }
  std::vector<std::byte> load(const std::string& name) {
    std::vector<std::byte> bytes;
    EXPECT_EQ(disk_.load(name, bytes), 0);
    return bytes;
  }
  void fill(std::uint32_t buffer, std::byte value) {
    std::ranges::fill(io_.buffer(BufferId{buffer}), value);
  }
  std::string complaint() const { return io_.violation() ? io_.violation()->name : ""; }

  Trace trace_;
  SimDisk disk_;
  SimNfs nfs_;
  SimIo io_;
  std::uint64_t last_ticket_ = 0;
};

TEST_F(SimIoTest, ReadIsAnsweredWithTheFileAsItWasThenOrIsNow) {
  const FileHandle file = open_source();
  std::vector<std::byte> before(kBlock);
  nfs_.content(nfs_.inode_at("a"), 0, 0, before);
  for (const bool is_early : {true, false}) {
    const std::size_t index = submit(transfer(Op::source_read, file, 0));
    nfs_.write("a", {0, kBlock}, kSecond);
    EXPECT_EQ(io_.complete(index, {.is_early = is_early}).result, std::int64_t{kBlock});
    EXPECT_EQ(std::ranges::equal(io_.buffer(BufferId{0}), before), is_early);
    before.assign(kBlock, std::byte{0});
  }
}

TEST_F(SimIoTest, ShortReadLeavesJunkBehind) {
  const std::size_t index = submit(transfer(Op::source_read, open_source(), 0));
  const std::int64_t result =
      io_.complete(index, {.kind = Answer::Kind::short_count, .length = 99}).result;
  EXPECT_EQ(result, 100);
  const auto rest = io_.buffer(BufferId{0}).subspan(100);
  EXPECT_TRUE(std::ranges::all_of(rest, [&](std::byte one) { return one == rest[0]; }));
}

TEST_F(SimIoTest, TimedOutWriteMayLandLater) {
  const FileHandle file = create("3f/x");
  fill(1, std::byte{7});
  submit(transfer(Op::cache_write, file, 1));
  io_.set_now(20 * kSecond);
  ASSERT_EQ(io_.expire(~0U)->result, -ETIMEDOUT);
  fill(1, std::byte{8});
  EXPECT_EQ(load("3f/x")[0], std::byte{0});
  io_.land_late_writes();
  EXPECT_EQ(load("3f/x")[0], std::byte{7}) << "of what was in the buffer then";
}

TEST_F(SimIoTest, CloseTakesEffectEvenWhenItFails) {
  const FileHandle file = create("3f/x");
  const std::size_t index = submit(on_file(Op::cache_close, file));
  EXPECT_EQ(io_.complete(index, {.kind = Answer::Kind::error, .error = EIO}).result, -EIO);
  EXPECT_EQ(disk_.handles_open(), 0U);
}

TEST_F(SimIoTest, CrashLeavesRequestsInFlightDoneOrNot) {
  for (const std::uint64_t mask : {0U, 1U}) {
    SimIo life(config(), 0, disk_, nfs_, trace_);
    life.set_now(kSecond);
    Request made = request(Op::cache_store);
    made.name = mask == 0 ? "3f/never" : "3f/torn";
    made.bytes.assign(10, std::byte{1});
    life.submit(made);
    Survivors survivors(mask);
    life.crash(survivors);
    EXPECT_EQ(survivors.combinations(), 3U) << "not begun, written, synced";
  }
  EXPECT_FALSE(disk_.inode_named("3f/never"));
  EXPECT_TRUE(disk_.inode_named("3f/torn"));
}

TEST_F(SimIoTest, HangingSideOfTheWorldCompletesNothing) {
  const FileHandle file = open_source();
  submit(transfer(Op::source_read, file, 0));
  create("3f/x");
  EXPECT_FALSE(io_.is_stuck(io_.pending()[0]));
  io_.weather().nfs_hangs = true;
  EXPECT_TRUE(io_.is_stuck(io_.pending()[0]));
}

TEST_F(SimIoTest, LyingSyncIsAcknowledgedAndMakesNothingDurable) {
  const FileHandle file = create("3f/x");
  const InodeId inode = *disk_.inode_of(file);
  EXPECT_EQ(run(transfer(Op::cache_write, file, 0)), std::int64_t{kBlock});
  io_.submit_without_effect(on_file(Op::cache_sync, file));
  EXPECT_EQ(io_.complete(0, {}).result, 0);
  EXPECT_TRUE(disk_.view(inode).has_pending);
}

TEST_F(SimIoTest, ComplainsOfARequestWithoutADeadline) {
  Request made = on_file(Op::source_stat, open_source());
  made.deadline = 0;
  submit(made);
  EXPECT_EQ(complaint(), "IoLaws");
}

TEST_F(SimIoTest, ComplainsOfABufferUsedTwice) {
  const FileHandle file = open_source();
  submit(transfer(Op::source_read, file, 2, 0));
  EXPECT_EQ(complaint(), "");
  submit(transfer(Op::source_read, file, 2, 1));
  EXPECT_EQ(complaint(), "IoLaws");
}

TEST_F(SimIoTest, ComplainsOfOverlappingWrites) {
  const FileHandle file = create("3f/x");
  submit(transfer(Op::cache_write, file, 0));
  Request made = transfer(Op::cache_write, file, 1);
  made.range.offset = kBlock - 1;
  submit(made);
  EXPECT_EQ(complaint(), "IoLaws");
}

TEST_F(SimIoTest, ComplainsOfAHandleClosedWhileInUse) {
  const FileHandle file = open_source();
  submit(transfer(Op::source_read, file, 0));
  submit(on_file(Op::source_close, file));
  EXPECT_EQ(complaint(), "S5 Pins");
}

TEST_F(SimIoTest, ComplainsOfAReadIntoABufferThatAReaderLooksAt) {
  io_.lend(BufferId{3});
  submit(transfer(Op::source_read, open_source(), 3));
  EXPECT_EQ(complaint(), "S5 Pins");
}

TEST_F(SimIoTest, ComplainsOfABlockFetchedTwice) {
  submit(transfer(Op::source_read, open_source(), 0));
  submit(transfer(Op::source_read, open_source(), 1));
  EXPECT_EQ(complaint(), "S6 OneFetch");
}

TEST_F(SimIoTest, ComplainsOfASecondSyncAfterAFailedOne) {
  const FileHandle file = create("3f/x");
  const std::size_t index = submit(on_file(Op::cache_sync, file));
  EXPECT_EQ(io_.complete(index, {.kind = Answer::Kind::error, .error = EIO}).result, -EIO);
  submit(on_file(Op::cache_sync, file));
  EXPECT_EQ(complaint(), "S9 SyncOnce");
}

TEST_F(SimIoTest, ComplainsOfPublishingDataThatWasNotSynced) {
  const FileHandle file = create("3f/x.part");
  EXPECT_EQ(run(transfer(Op::cache_write, file, 0)), std::int64_t{kBlock});
  Request made = request(Op::cache_rename);
  made.name = "3f/x.part";
  made.new_name = "3f/x.data";
  submit(made);
  EXPECT_EQ(complaint(), "S10 Transitions");
}

}  // namespace
}  // namespace ncfs
