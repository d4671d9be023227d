// What our own mount does to a file, as the engine is told.

#include "engine/engine_fixture.h"

namespace ncfs {
namespace {

constexpr int kEio = 5;
constexpr int kNoSpace = 28;
constexpr int kCanceled = 125;
constexpr int kEtimedout = 110;

class OwnChangesTest : public EngineTest {
 protected:
  // A later state of the file: our chmod at this second.
  static SourceState changed(SourceState source, std::int64_t second) {
    source.version.ctime_ns = second * static_cast<std::int64_t>(kSecond);
    source.age_ns = 0;
    return source;
  }
  void cache(std::uint64_t handle, const SourceState& source) {
    open(handle, source);
    run(source);
  }
  void disown(std::uint64_t token, const SourceState& source) {
    handle_event(DisownEvent{DisownToken{token}, source.file});
  }
  void rekey(const SourceState& before, const SourceState& after, std::string path = {}) {
    handle_event(RekeyEvent{before, after, std::move(path)});
  }
};

TEST_F(OwnChangesTest, NothingToDisownIsAnsweredAtOnce) {
  start();
  disown(1, state(1, 2));
  EXPECT_EQ(disowned_.at(1), 0);
  EXPECT_TRUE(requests_.empty());
}

TEST_F(OwnChangesTest, DisownedWhenTheSidecarIsGoneDurably) {
  start();
  cache(1, state(1, 2));
  disown(1, state(1, 2));
  EXPECT_EQ(pending(Op::cache_unlink)->name.substr(pending(Op::cache_unlink)->name.size() - 5),
            ".temp");
  answer(Op::cache_unlink, -2);
  EXPECT_EQ(pending(Op::cache_unlink)->name.substr(pending(Op::cache_unlink)->name.size() - 5),
            ".meta");
  answer(Op::cache_unlink, 0);
  EXPECT_TRUE(disowned_.empty());
  answer(Op::cache_sync_directory, 0);
  EXPECT_EQ(disowned_.at(1), 0);
  EXPECT_TRUE(requests_.empty()) << "its data stays while a handle is open";
  disown(2, state(1, 2));
  EXPECT_EQ(disowned_.at(2), 0) << "again: at once";
  EXPECT_GT(engine_->status().used_bytes, 0U);
  close(1);
  run(state(1, 2));
  EXPECT_EQ(engine_->status().used_bytes, 0U);
}

TEST_F(OwnChangesTest, AfterADisownReadersAreSentToTheSourceEachForItself) {
  start();
  cache(1, state(1, 2));
  open(2, state(1, 2));
  disown(1, state(1, 2));
  EXPECT_FALSE(plan_read(*opened_[2].residency, {0, kBlock}).resident);
  read(1, 1, {0, kBlock});
  read(2, 2, {0, kBlock});
  EXPECT_EQ(count(Op::source_read), 2U);
  run(state(1, 2));
  read(3, 1, {0, kBlock});
  EXPECT_EQ(count(Op::source_read), 1U) << "not from memory either";
}

TEST_F(OwnChangesTest, AnOpenAfterADisownBeginsAfresh) {
  start();
  cache(1, state(1, 2));
  disown(1, state(1, 2));
  run(state(1, 2));
  open(2, state(1, 2));
  EXPECT_FALSE(opened_[2].is_complete);
  EXPECT_TRUE(pending(Op::cache_create));
  run(state(1, 2));
  close(1);
  run(state(1, 2));
  EXPECT_EQ(engine_->status().objects_cached, 1U);
}

TEST_F(OwnChangesTest, ADisownedCopyIsGivenUp) {
  start();
  open(1, state(1, 3));
  answer(Op::cache_create, 10);
  answer(Op::source_read, kBlock);
  disown(1, state(1, 3));
  EXPECT_TRUE(disowned_.empty()) << "waits for the write in flight";
  run(state(1, 3));
  EXPECT_EQ(disowned_.at(1), 0);
  EXPECT_EQ(engine_->status().objects_cached + engine_->status().objects_partial, 0U);
}

TEST_F(OwnChangesTest, ADiskThatKeepsTheSidecarIsToldAndSoIsWhoAsksAgain) {
  start();
  cache(1, state(1, 2));
  disown(1, state(1, 2));
  answer(Op::cache_unlink, 0);
  answer(Op::cache_unlink, 0);
  answer(Op::cache_sync_directory, -kEio);
  EXPECT_EQ(disowned_.at(1), kEio);
  disown(2, state(1, 2));
  EXPECT_EQ(disowned_.at(2), kEio);
}

TEST_F(OwnChangesTest, ARenameThatMayStillHappenIsNoGoodStateToWriteIn) {
  start();
  handle_event(WarmEvent{WarmToken{1}, FileHandle{80}, state(1, 2), "file1"});
  run(state(1, 2));
  open(1, state(1, 2));
  run(state(1, 2));
  const SourceState after = changed(state(1, 2), 60);
  rekey(state(1, 2), after);
  Completion loaded;
  loaded.bytes = encode(*stored_);
  answer(*pending(Op::cache_load), std::move(loaded));
  answer(Op::cache_store, 0);
  answer(Op::cache_rename, -kEtimedout);
  disown(1, after);
  EXPECT_EQ(disowned_.at(1), kEtimedout);
}

TEST_F(OwnChangesTest, ADiskThatIsDownKeepsNobodyWaiting) {
  start();
  cache(1, state(1, 2));
  disown(1, state(1, 2));
  for (int failures = 0; engine_->status().cache_health.state != HealthState::down; ++failures) {
    ASSERT_LT(failures, 100);
    handle_event(CacheFaultEvent{HandleId{1}, kEio});
    if (pending(Op::cache_unlink)) answer(Op::cache_unlink, -kEio);
    open(1000 + next_file_, state(static_cast<std::uint64_t>(next_file_), 2));
    ++next_file_;
    if (pending(Op::cache_create)) answer(Op::cache_create, -kEio);
    tick(kSecond);
  }
  disown(2, state(1, 2));
  EXPECT_NE(disowned_.at(1), 0);
  EXPECT_NE(disowned_.at(2), 0);
}

// --- A cache file that readers hold becomes larger -----------------------------------------------

class GrowTest : public OwnChangesTest {
 protected:
  static constexpr std::uint64_t kBlocks = 4;

  // The object, open and disowned.
  void disown_open(std::uint64_t inode) {
    cache(inode, state(inode, kBlocks));
    disown(inode, state(inode, kBlocks));
    run(state(inode, kBlocks));
    ASSERT_EQ(disowned_.at(inode), 0);
  }
  void cache_closed(std::uint64_t inode) {
    cache(inode, state(inode, kBlocks));
    close(inode);
    run(state(inode, kBlocks));
  }
  void grow(std::uint64_t token, std::uint64_t handle, std::uint64_t blocks) {
    handle_event(GrowEvent{GrowToken{token}, HandleId{handle}, blocks * kBlock});
  }
  static std::uint64_t charge(std::uint64_t blocks) {
    return object_charge(blocks * kBlock, kBlock);
  }
  std::uint64_t used() { return engine_->status().used_bytes; }
};

TEST_F(GrowTest, WhatGrowsIsChargedUntilItIsClosed) {
  start();
  disown_open(1);
  EXPECT_EQ(used(), charge(kBlocks));
  grow(1, 1, 20);
  EXPECT_EQ(grown_.at(1), 0);
  EXPECT_EQ(used(), charge(20));
  grow(2, 1, 10);
  EXPECT_EQ(grown_.at(2), 0) << "less than it may have";
  EXPECT_EQ(used(), charge(20));
  close(1);
  run(state(1, kBlocks));
  EXPECT_EQ(used(), 0U);
}

TEST_F(GrowTest, OthersAreEvictedForIt) {
  config_.cache_size_bytes = charge(20);
  start();
  disown_open(1);
  cache_closed(2);
  grow(1, 1, 20);
  EXPECT_TRUE(grown_.empty()) << "before they are gone";
  open(3, state(3, kBlocks));
  EXPECT_FALSE(pending(Op::cache_create)) << "the room is taken";
  run(state(3, kBlocks));
  EXPECT_EQ(grown_.at(1), 0);
  EXPECT_EQ(engine_->status().evictions, 1U);
  EXPECT_EQ(used(), config_.cache_size_bytes);
}

TEST_F(GrowTest, WithoutRoomItIsRefusedAtOnceAndNothingIsEvicted) {
  config_.cache_size_bytes = charge(20);
  start();
  disown_open(1);
  cache_closed(2);
  grow(1, 1, 21);
  EXPECT_EQ(grown_.at(1), kNoSpace);
  grow(2, 1, std::uint64_t{1} << 50);
  EXPECT_EQ(grown_.at(2), kNoSpace);
  EXPECT_EQ(engine_->status().objects_cached, 1U);
  EXPECT_TRUE(requests_.empty());
}

TEST_F(GrowTest, NobodyWaitsLongerThanForADisk) {
  config_.cache_size_bytes = 2 * charge(kBlocks);
  start();
  disown_open(1);
  cache_closed(2);
  grow(1, 1, 5);
  tick(config_.cache_deadline - 1);
  EXPECT_TRUE(grown_.empty());
  tick(1);
  EXPECT_EQ(grown_.at(1), kNoSpace);
}

TEST_F(GrowTest, WhoClosesWaitsNoMore) {
  config_.cache_size_bytes = 3 * charge(kBlocks);
  start();
  disown_open(1);
  disown_open(2);
  cache_closed(3);
  grow(1, 1, 5);
  grow(2, 2, 5);
  close(1);
  EXPECT_EQ(grown_.at(1), kCanceled);
  EXPECT_FALSE(grown_.contains(2));
  run(state(3, kBlocks));
  EXPECT_EQ(grown_.at(2), 0);
}

TEST_F(GrowTest, NothingGrowsThatIsNotDisownedForGood) {
  start();
  cache(1, state(1, kBlocks));
  grow(1, 1, 5);
  EXPECT_EQ(grown_.at(1), kEio);
  disown(1, state(1, kBlocks));
  grow(2, 1, 5);
  EXPECT_EQ(grown_.at(2), kEio) << "a restart may find it";
  answer(Op::cache_unlink, -kEio);
  grow(3, 1, 5);
  EXPECT_EQ(grown_.at(3), kEio);
  open(2, state(2, kBlocks));
  run(state(2, kBlocks));
  disown(2, state(2, kBlocks));
  run(state(2, kBlocks));
  EXPECT_EQ(used(), 2 * charge(kBlocks));
}

TEST_F(GrowTest, AnEngineThatStopsRefuses) {
  config_.cache_size_bytes = 2 * charge(kBlocks);
  start();
  disown_open(1);
  cache_closed(2);
  grow(1, 1, 5);
  handle_event(StopEvent{});
  EXPECT_EQ(grown_.at(1), kEio);
  grow(2, 1, 5);
  EXPECT_EQ(grown_.at(2), kEio);
}

TEST_F(GrowTest, ADiskThatIsDownKeepsNoGrowthWaiting) {
  config_.cache_size_bytes = 2 * charge(kBlocks);
  start();
  disown_open(1);
  cache_closed(2);
  grow(1, 1, 5);
  for (int failures = 0; grown_.empty(); ++failures) {
    ASSERT_LT(failures, 100);
    handle_event(CacheFaultEvent{HandleId{1}, kEio});
  }
  EXPECT_EQ(grown_.at(1), kEio);
  grow(2, 1, 5);
  EXPECT_EQ(grown_.at(2), kEio);
}

TEST_F(GrowTest, TheFloorOfFreeSpaceHoldsForIt) {
  config_.min_free_percent = 10;
  space_ = {100 * kBlock, 60 * kBlock};
  start();
  run(state(1, kBlocks));
  disown_open(1);
  grow(1, 1, 20);
  EXPECT_EQ(grown_.at(1), 0);
  grow(2, 1, 60);
  EXPECT_EQ(grown_.at(2), kNoSpace);
  space_.free_bytes = 100 * kBlock;
  tick(kSecond);
  run(state(1, kBlocks));
  grow(3, 1, 60);
  EXPECT_EQ(grown_.at(3), 0);
}

TEST_F(OwnChangesTest, AfterOurChmodACachedFileIsStillCached) {
  start();
  cache(1, state(1, 2));
  close(1);
  run(state(1, 2));
  const SourceState after = changed(state(1, 2), 60);
  rekey(state(1, 2), after, "renamed");
  Completion loaded;
  loaded.bytes = encode(*stored_);
  answer(*pending(Op::cache_load), std::move(loaded));
  run(after);
  EXPECT_EQ(stored_->version, after.version);
  EXPECT_EQ(stored_->path, "renamed");
  open(2, after);
  run(after);
  EXPECT_TRUE(opened_[2].is_complete);
  EXPECT_EQ(engine_->status().source_bytes, 2 * kBlock);
}

TEST_F(OwnChangesTest, ACopyIsCommittedUnderTheNewVersion) {
  start();
  open(1, state(1, 2));
  answer(Op::cache_create, 10);
  const SourceState after = changed(state(1, 2), 60);
  rekey(state(1, 2), after);
  run(after);
  EXPECT_EQ(stored_->version, after.version);
  EXPECT_EQ(engine_->status().objects_cached, 1U);
  EXPECT_EQ(engine_->status().source_bytes, 2 * kBlock);
}

TEST_F(OwnChangesTest, ACopyThatSawTheChangeBeforeItWasToldGoesOn) {
  start();
  open(1, state(1, 2));
  const SourceState after = changed(state(1, 2), 60);
  run(after);  // the stat before the commit sees a version that nobody has explained
  EXPECT_EQ(engine_->status().objects_cached, 0U);
  rekey(state(1, 2), after);
  run(after);
  EXPECT_EQ(engine_->status().objects_cached, 1U);
  EXPECT_EQ(engine_->status().source_bytes, 2 * kBlock);
}

TEST_F(OwnChangesTest, AnOpenThatSawTheChangeFirstFindsTheObject) {
  start();
  cache(1, state(1, 2));
  close(1);
  run(state(1, 2));
  const SourceState after = changed(state(1, 2), 60);
  open(2, after);
  EXPECT_FALSE(opened_[2].is_complete);
  read(1, 2, {0, 10});
  rekey(state(1, 2), after);
  open(3, after);
  Completion loaded;
  loaded.bytes = encode(*stored_);
  answer(*pending(Op::cache_load), std::move(loaded));
  run(after);
  EXPECT_TRUE(opened_[3].is_complete);
  EXPECT_TRUE(answered_.contains(1));
  read(2, 2, {0, kBlock});
  EXPECT_EQ(answered_.at(2).kind, ReadResult::Kind::resident);
}

TEST_F(OwnChangesTest, AnOpenThatLookedBeforeTheChangeFindsTheObjectToo) {
  start();
  cache(1, state(1, 2));
  const SourceState after = changed(state(1, 2), 60);
  rekey(state(1, 2), after);
  open(2, state(1, 2));
  run(after);
  EXPECT_TRUE(opened_[2].is_complete);
}

TEST_F(OwnChangesTest, WhatSomebodyElseCouldHideBehindIsNotBelieved) {
  start();
  cache(1, state(1, 2));
  const SourceState after = changed(state(1, 2), 60);
  SourceState young = state(1, 2);
  young.age_ns = static_cast<std::int64_t>(config_.racy_window) - 1;
  rekey(young, after);
  SourceState written = after;
  written.version.mtime_ns = written.version.ctime_ns;
  rekey(state(1, 2), written);
  SourceState other = after;
  other.file.inode = 2;
  rekey(state(1, 2), other);
  rekey(state(1, 2), changed(state(1, 2), 1));  // the server says that the mtime is young
  open(2, after);
  EXPECT_FALSE(opened_[2].is_complete);
}

TEST_F(OwnChangesTest, AChangeOfTheOwnerJustAfterOneOfTheModeIsBelieved) {
  start();
  cache(1, state(1, 2));
  const SourceState first = changed(state(1, 2), 60);
  const SourceState second = changed(state(1, 2), 61);
  rekey(state(1, 2), first);
  rekey(first, second);
  open(2, second);
  EXPECT_TRUE(opened_[2].is_complete);
}

TEST_F(OwnChangesTest, AChangeDuringRecoveryIsKnownWhenTheFileIsFound) {
  const SourceState source = state(1, 3);
  const std::string stem = object_stem(source.file, source.version, 1);
  Sidecar sidecar{source.file, source.version, 1, kBlock, "file1", BlockSet(3)};
  sidecar.durable.set_all();
  on_disk_[stem.substr(0, 2)] = {{stem.substr(3) + ".data", 3 * kBlock, 3 * kBlock, 0},
                                 {stem.substr(3) + ".meta", 200, kBlock, 0}};
  begin();
  const SourceState after = changed(source, 60);
  rekey(source, after, "renamed");
  while (!requests_.empty()) {
    const Request request = requests_.front();
    Completion completion;
    if (request.op == Op::cache_list) completion.entries = on_disk_[request.name];
    if (request.op == Op::cache_load) completion.bytes = encode(sidecar);
    if (request.op == Op::cache_store) stored_ = decode(request.bytes);
    answer(request, std::move(completion));
  }
  ASSERT_TRUE(stored_);
  EXPECT_EQ(stored_->version, after.version);
  EXPECT_EQ(stored_->path, "renamed");
  open(1, after);
  run(after);
  EXPECT_TRUE(opened_[1].is_complete);
}

}  // namespace
}  // namespace ncfs
