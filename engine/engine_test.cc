// The engine's stories, one at a time, with every request answered by hand. What happens in all
// orders and under all faults is the business of the simulator.

#include "engine/engine_fixture.h"
#include "engine/token_bucket.h"

namespace ncfs {
namespace {

TEST_F(EngineTest, FirstOpenIsAnsweredWithoutWaitingForTheCache) {
  start();
  open(1, state(1, 3));
  ASSERT_TRUE(opened_.contains(1));
  EXPECT_EQ(opened_[1].reason, OpenReason::first_use);
  EXPECT_TRUE(pending(Op::cache_create));
}

TEST_F(EngineTest, ReaderJoinsTheCopyOfItsBlock) {
  start();
  open(1, state(1, 3));
  answer(Op::cache_create, 10);
  EXPECT_EQ(count(Op::source_read), 3U);
  read(1, 1, {100, 50});
  EXPECT_EQ(count(Op::source_read), 3U) << "the block is on its way already";
  answer(Op::source_read, kBlock);
  ASSERT_TRUE(answered_.contains(1));
  EXPECT_EQ(answered_[1].kind, ReadResult::Kind::bytes);
  EXPECT_EQ(answered_[1].buffer_offset, 100U);
  EXPECT_EQ(answered_[1].length, 50U);
  EXPECT_TRUE(pending(Op::cache_write)) << "the same bytes go to the cache";
}

TEST_F(EngineTest, RandomReaderFetchesExactlyItsBytes) {
  config_.copies_max = 1;
  start();
  open(1, state(1, 8));  // holds the only copy slot
  open(2, state(2, 8));
  read(1, 2, {5 * kBlock + 10, 20});
  bool found = false;
  for (const Request& request : requests_) {
    found |= request.op == Op::source_read && request.range == ByteRange{5 * kBlock + 10, 20};
  }
  EXPECT_TRUE(found);
}

TEST_F(EngineTest, ReaderOfAQuarterOfABlockFetchesAllOfIt) {
  config_.copies_max = 1;
  start();
  open(1, state(1, 8));  // holds the only copy slot
  open(2, state(2, 8));
  read(1, 2, {5 * kBlock + 10, kBlock / 4});
  EXPECT_EQ(requests_.back().range, (ByteRange{5 * kBlock, kBlock}));
}

TEST_F(EngineTest, TheFirstBytesOfALargeFileComeAlone) {
  config_.min_file_size_bytes = 1 * kGiB;
  config_.readahead_bytes = 4 * kBlock;
  start();
  open(1, state(1, 200));
  read(1, 1, {0, kBlock / 2});
  EXPECT_EQ(count(Op::source_read), 1U);
  EXPECT_EQ(pending(Op::source_read)->range, (ByteRange{0, kBlock / 2}));
  answer(Op::source_read, kBlock / 2);
  read(2, 1, {kBlock / 2, kBlock / 2});
  EXPECT_EQ(pending(Op::source_read)->range, (ByteRange{0, kBlock}));
  EXPECT_EQ(count(Op::source_read), 2U) << "and the next block ahead";
}

TEST_F(EngineTest, CopiesLeaveSourceReadsToReaders) {
  config_.source_reads_max = 4;
  config_.source_reads_reserved = 2;
  config_.copy_depth = 16;
  start();
  open(1, state(1, 8));
  answer(Op::cache_create, 10);
  EXPECT_EQ(count(Op::source_read), 2U);
  open(2, state(2, 8));
  read(1, 2, {0, 10});
  EXPECT_EQ(count(Op::source_read), 3U) << "a reader does not queue behind the copy";
}

TEST_F(EngineTest, FileSystemThatHangsLeavesSourceReadsToAnother) {
  config_.source_reads_max = 4;
  config_.source_reads_reserved = 2;
  start();
  const auto read_of = [this](std::uint64_t filesystem, std::uint64_t number) {
    SourceState source = state(number, 8);
    source.file.filesystem = filesystem;
    open(number, source);
    read(number, number, {5 * kBlock, 20});
  };
  for (std::uint64_t number = 1; number <= 10; ++number) read_of(1, number);
  EXPECT_EQ(count(Op::source_read), 4U) << "as many as one file system may have";
  for (std::uint64_t number = 11; number <= 20; ++number) read_of(2, number);
  EXPECT_EQ(count(Op::source_read), 6U) << "half of what is left";
  read_of(3, 21);
  EXPECT_EQ(count(Op::source_read), 7U);
}

TEST_F(EngineTest, BesideAReaderOfTheSourceTheCopySharesThePageCacheAndHoldsBack) {
  start();
  open(1, state(1, 8), true);
  answer(Op::cache_create, 10);
  EXPECT_EQ(count(Op::source_read), 1U);
  EXPECT_TRUE(pending(Op::source_read)->through_page_cache);
  close(1);
  answer(Op::source_read, static_cast<std::int64_t>(kBlock));
  EXPECT_GT(count(Op::source_read), 1U);
  EXPECT_FALSE(pending(Op::source_read)->through_page_cache);
}

TEST_F(EngineTest, CommitGoesThroughEveryStepInOrder) {
  start();
  open(1, state(1, 2));
  run(state(1, 2));
  const std::vector<Op> expected = {
      Op::cache_create, Op::source_read,          Op::source_read,  Op::cache_write,
      Op::cache_write,  Op::cache_sync,           Op::source_stat,  Op::cache_store,
      Op::cache_rename, Op::cache_sync_directory, Op::cache_rename, Op::cache_sync_directory};
  EXPECT_EQ(order_, expected);
  ASSERT_TRUE(stored_);
  EXPECT_TRUE(stored_->durable.is_full());
  EXPECT_EQ(engine_->status().objects_cached, 1U);
  EXPECT_EQ(engine_->status().used_bytes, object_charge(2 * kBlock, kBlock));
  EXPECT_EQ(engine_->status().source_bytes, 2 * kBlock) << "every byte once";
}

TEST_F(EngineTest, SecondOpenOfACachedFileIsAHit) {
  start();
  open(1, state(1, 2));
  run(state(1, 2));
  close(1);
  run(state(1, 2));
  open(2, state(1, 2));
  EXPECT_FALSE(opened_.contains(2)) << "waits for the cache file to be opened";
  run(state(1, 2));
  EXPECT_EQ(opened_[2].reason, OpenReason::cached);
  EXPECT_TRUE(opened_[2].is_complete);
  EXPECT_TRUE(plan_read(*opened_[2].residency, {0, 2 * kBlock}).resident);
}

TEST_F(EngineTest, OpenGivesUpOnASilentCacheDisk) {
  start();
  open(1, state(1, 2));
  run(state(1, 2));
  close(1);
  run(state(1, 2));
  open(2, state(1, 2));
  tick(config_.open_patience);
  ASSERT_TRUE(opened_.contains(2));
  EXPECT_EQ(opened_[2].reason, OpenReason::cache_unavailable);
  EXPECT_EQ(opened_[2].residency, nullptr);
}

TEST_F(EngineTest, ChangeDuringTheCopyThrowsTheCopyAway) {
  start();
  open(1, state(1, 2));
  run(state(1, 2, 2));  // the stat before the commit sees another mtime
  EXPECT_EQ(engine_->status().objects_cached, 0U);
  EXPECT_EQ(engine_->status().used_bytes + engine_->status().reserved_bytes,
            object_charge(2 * kBlock, kBlock))
      << "charged while a handle may hold the file";
  close(1);
  run(state(1, 2, 2));
  EXPECT_EQ(engine_->status().used_bytes + engine_->status().reserved_bytes, 0U);
}

TEST_F(EngineTest, YoungFileIsNotCopiedBeforeItsWindowHasPassed) {
  start();
  open(1, state(1, 2, 1, 0));
  EXPECT_EQ(opened_[1].reason, OpenReason::recently_changed);
  EXPECT_FALSE(pending(Op::cache_create));
  read(1, 1, {0, kBlock});
  answer(Op::source_read, kBlock);
  EXPECT_FALSE(pending(Op::cache_write));
  handle_event(ReadDoneEvent{ReadToken{1}});
  tick(config_.racy_window);
  EXPECT_TRUE(pending(Op::cache_create));
  run(state(1, 2));
  EXPECT_EQ(engine_->status().source_bytes, 3 * kBlock) << "the early block is read again";
}

TEST_F(EngineTest, NewVersionIsANewObjectAndTheOldOneGoesWhenItIsClosed) {
  start();
  open(1, state(1, 2, 1));
  run(state(1, 2, 1));
  open(2, state(1, 2, 2));
  EXPECT_EQ(opened_[2].reason, OpenReason::changed);
  run(state(1, 2, 2));
  EXPECT_EQ(engine_->status().objects_cached, 2U) << "a handle still reads the old version";
  close(1);
  run(state(1, 2, 2));
  EXPECT_EQ(engine_->status().objects_cached, 1U);
}

TEST_F(EngineTest, LeastRecentlyUsedObjectMakesRoom) {
  config_.cache_size_bytes = 2 * object_charge(4 * kBlock, kBlock);
  start();
  for (const std::uint64_t inode : {1, 2}) {
    open(inode, state(inode, 4));
    run(state(inode, 4));
    close(inode);
    run(state(inode, 4));
  }
  open(3, state(1, 4));  // uses the older one again
  run(state(1, 4));
  close(3);
  run(state(1, 4));
  open(4, state(3, 4));
  run(state(3, 4));
  EXPECT_EQ(engine_->status().evictions, 1U);
  bool was_second = false;
  for (const Notice& notice : notices_) {
    if (notice.kind == Notice::Kind::evicted) was_second = notice.path == "file2";
  }
  EXPECT_TRUE(was_second);
  EXPECT_EQ(engine_->status().objects_cached, 2U);
}

TEST_F(EngineTest, WhatWasOpenedOftenOutlivesAScanUnlessThePolicyIsLru) {
  config_.cache_size_bytes = 3 * object_charge(4 * kBlock, kBlock);
  for (const Eviction eviction : {Eviction::lru, Eviction::lfu, Eviction::arc, Eviction::s3fifo}) {
    config_.eviction = eviction;
    start();
    std::uint64_t handle = 0;
    for (const std::uint64_t inode : {1, 1, 1, 2, 3, 4, 5, 6, 1}) {
      open(++handle, state(inode, 4));
      run(state(inode, 4));
      close(handle);
      run(state(inode, 4));
    }
    EXPECT_EQ(opened_[handle].reason == OpenReason::cached, eviction != Eviction::lru)
        << to_string(eviction);
    EXPECT_EQ(engine_->status().eviction, eviction);
  }
}

TEST_F(EngineTest, ObjectThatIsStillMappedIsNotEvicted) {
  config_.cache_size_bytes = object_charge(4 * kBlock, kBlock);
  start();
  open(1, state(1, 4));
  run(state(1, 4));
  close(1);
  run(state(1, 4));
  open(2, state(2, 4));
  EXPECT_TRUE(pending(Op::cache_open));
  answer(Op::cache_open, 50);
  const auto unlink = pending(Op::cache_unlink);
  ASSERT_TRUE(unlink);
  EXPECT_EQ(unlink->file, FileHandle{50}) << "asks whether anybody else has it";
  answer(Op::cache_unlink, -16);
  EXPECT_EQ(engine_->status().objects_cached, 1U);
  run(state(2, 4));
  EXPECT_EQ(engine_->status().evictions, 0U);
  EXPECT_EQ(engine_->status().used_bytes, object_charge(4 * kBlock, kBlock));
}

TEST_F(EngineTest, CopyOfAFileThatIsJustBeingEvictedBeginsWhenItIsGone) {
  start();
  open(1, state(1, 4));
  run(state(1, 4));
  close(1);
  run(state(1, 4));
  handle_event(EvictEvent{ControlToken{1}, {"file1"}});
  ASSERT_TRUE(pending(Op::cache_open));
  open(2, state(1, 4));
  EXPECT_EQ(engine_->status().objects_cached, 0U);
  run(state(1, 4));
  EXPECT_EQ(engine_->status().evictions, 1U);
  EXPECT_EQ(engine_->status().objects_cached, 1U);
}

TEST_F(EngineTest, FileLargerThanTheCacheIsReadThrough) {
  config_.cache_size_bytes = object_charge(4 * kBlock, kBlock);
  start();
  open(1, state(1, 5));
  EXPECT_EQ(opened_[1].reason, OpenReason::too_large);
  EXPECT_FALSE(pending(Op::cache_create));
  read(1, 1, {0, 10});
  answer(Op::source_read, 10);
  EXPECT_EQ(answered_[1].kind, ReadResult::Kind::bytes);
}

TEST_F(EngineTest, FullDiskCostsTheCopyAndNotTheReader) {
  start();
  open(1, state(1, 2));
  answer(Op::cache_create, 10);
  read(1, 1, {0, kBlock});
  answer(Op::source_read, kBlock);
  EXPECT_EQ(answered_[1].kind, ReadResult::Kind::bytes);
  answer(Op::cache_write, -28);
  read(2, 1, {kBlock, kBlock});
  answer(Op::source_read, kBlock);
  EXPECT_EQ(answered_[2].kind, ReadResult::Kind::bytes);
  EXPECT_EQ(engine_->status().cache_errors, 1U);
}

TEST_F(EngineTest, TellsOfEveryFileWhatIsStoredAndWhyNotMore) {
  config_.cache_size_bytes = 16 * kBlock;
  config_.copies_max = 1;
  start();
  open(1, state(1, 2));
  run(state(1, 2));
  open(2, state(2, 4));
  open(3, state(3, 1));
  open(4, state(4, 17));
  const auto files = engine_->files({{""}, 0, 10});
  ASSERT_EQ(files.size(), 4U);
  EXPECT_EQ(files[0].state, FileReport::State::complete);
  EXPECT_EQ(files[0].cached_bytes, 2 * kBlock);
  EXPECT_FALSE(files[0].reason);
  EXPECT_TRUE(files[0].is_open);
  EXPECT_EQ(files[1].state, FileReport::State::copying);
  EXPECT_EQ(files[1].cached_bytes, 0U);
  EXPECT_EQ(files[2].state, FileReport::State::waiting);
  EXPECT_EQ(files[2].reason, OpenReason::first_use);
  EXPECT_EQ(files[3].state, FileReport::State::absent);
  EXPECT_EQ(files[3].reason, OpenReason::too_large);
  const auto page = engine_->files({{""}, files[0].id, 2});
  ASSERT_EQ(page.size(), 2U);
  EXPECT_EQ(page[0].id, files[1].id);
  EXPECT_EQ(page[1].id, files[2].id);
  EXPECT_EQ(engine_->files({{files[1].path}, 0, 10}).size(),
            static_cast<std::size_t>(std::ranges::count(files, files[1].path, &FileReport::path)));
  EXPECT_TRUE(engine_->files({{"elsewhere"}, 0, 10}).empty());
  const auto one = engine_->files({{""}, 0, 10, state(2, 4).file});
  ASSERT_EQ(one.size(), 1U);
  EXPECT_EQ(one[0].id, files[1].id);
  EXPECT_TRUE(engine_->files({{""}, files[1].id, 10, state(2, 4).file}).empty());
  EXPECT_TRUE(engine_->files({{""}, 0, 10, state(9, 1).file}).empty());
}

TEST_F(EngineTest, TheRulesLeaveFilesOutAndSaySo) {
  config_.max_file_size_bytes = 4 * kBlock;
  config_.paths.include = {*PathGlob::parse("file[1-4]")};
  config_.paths.exclude = {*PathGlob::parse("file3")};
  start();
  for (std::uint64_t file = 1; file <= 5; ++file) {
    const SourceState source = state(file, file == 2 ? 5 : 1);
    open(file, source);
    run(source);
  }
  EXPECT_EQ(opened_[1].reason, OpenReason::first_use);
  EXPECT_EQ(opened_[2].reason, OpenReason::above_max_size);
  EXPECT_EQ(opened_[3].reason, OpenReason::excluded);
  EXPECT_EQ(opened_[5].reason, OpenReason::excluded);
  EXPECT_EQ(engine_->status().objects_cached, 2U);
  const auto files = engine_->files({{""}, 0, 10});
  EXPECT_EQ(files[2].reason, OpenReason::excluded);
  EXPECT_EQ(files[2].state, FileReport::State::absent);
  // Whoever names it, too; that is no failure, as with files that are too small.
  handle_event(WarmEvent{WarmToken{1}, FileHandle{80}, state(3, 1), "file3", true});
  EXPECT_EQ(warmed_[1].kind, WarmResult::Kind::skipped);
  EXPECT_EQ(warmed_[1].reason, OpenReason::excluded);
  EXPECT_EQ(engine_->status().pinned_files, 0U);
  // By the name it has now.
  handle_event(RekeyEvent{state(3, 1), state(3, 1), "file4"});
  run(state(3, 1));
  EXPECT_EQ(engine_->status().objects_cached, 3U);
}

TEST_F(EngineTest, WithCacheOnReadAnOpenIsNotEnough) {
  config_.cache_on = CacheOn::read;
  start();
  open(1, state(1, 2));
  run(state(1, 2));
  EXPECT_EQ(opened_[1].reason, OpenReason::not_read);
  EXPECT_EQ(engine_->files({{""}, 0, 10})[0].reason, OpenReason::not_read);
  EXPECT_EQ(engine_->status().objects_cached, 0U);
  read(1, 1, {0, 10});
  run_on(state(1, 2));
  EXPECT_EQ(engine_->status().objects_cached, 1U);
  // Warming is reason enough.
  open(2, state(2, 2));
  handle_event(WarmEvent{WarmToken{1}, FileHandle{80}, state(2, 2), "file2"});
  run(state(2, 2));
  EXPECT_EQ(warmed_[1].kind, WarmResult::Kind::copied);
}

TEST_F(EngineTest, WithCacheOnSecondOpenTheFirstIsNotEnough) {
  config_.cache_on = CacheOn::second_open;
  start();
  open(1, state(1, 2));
  read(1, 1, {0, 10});
  run(state(1, 2));
  handle_event(ReadDoneEvent{ReadToken{1}});
  EXPECT_EQ(opened_[1].reason, OpenReason::opened_once);
  EXPECT_EQ(engine_->status().objects_cached, 0U);
  close(1);
  run(state(1, 2));
  // A new version is the same file.
  open(2, state(1, 2, 7));
  run_on(state(1, 2, 7));
  EXPECT_EQ(opened_[2].reason, OpenReason::first_use);
  EXPECT_EQ(engine_->status().objects_cached, 1U);
  open(3, state(1, 2, 7));
  run(state(1, 2, 7));
  EXPECT_EQ(opened_[3].reason, OpenReason::cached);
}

TEST_F(EngineTest, FilesOpenedOnceAreForgottenWhenThereAreTooMany) {
  config_.cache_on = CacheOn::second_open;
  start();
  constexpr std::uint64_t kMany = 100'000;
  for (std::uint64_t file = 1; file <= kMany; ++file) {
    engine_->handle(now_, OpenEvent{HandleId{file}, FileHandle{100}, state(file, 1), "f", false});
    engine_->handle(now_, CloseEvent{HandleId{file}});
    requests_.clear();
    opened_.clear();
  }
  open(kMany + 1, state(1, 1));
  EXPECT_EQ(opened_[kMany + 1].reason, OpenReason::opened_once);
  open(kMany + 2, state(kMany, 1));
  EXPECT_EQ(opened_[kMany + 2].reason, OpenReason::first_use);
}

TEST_F(EngineTest, FailedSyncIsNotTriedAgain) {
  start();
  open(1, state(1, 1));
  answer(Op::cache_create, 10);
  answer(Op::source_read, kBlock);
  answer(Op::cache_write, kBlock);
  answer(Op::cache_sync, -5);
  EXPECT_FALSE(pending(Op::cache_sync));
  EXPECT_FALSE(pending(Op::cache_unlink)) << "a handle may still hold the file";
  close(1);
  EXPECT_FALSE(pending(Op::cache_sync));
  EXPECT_TRUE(pending(Op::cache_unlink));
}

TEST_F(EngineTest, FailingCopyBacksOffTwiceAsLongEachTime) {
  start();
  open(1, state(1, 1));
  answer(Op::cache_create, 10);
  answer(Op::source_read, -5);
  EXPECT_EQ(engine_->status().copies_failed, 1U);
  EXPECT_FALSE(pending(Op::source_read));
  tick(config_.retry_min);
  ASSERT_TRUE(pending(Op::source_read));
  answer(Op::source_read, -5);
  tick(config_.retry_min);
  EXPECT_FALSE(pending(Op::source_read)) << "twice as long now";
  tick(config_.retry_min);
  EXPECT_TRUE(pending(Op::source_read));
}

TEST_F(EngineTest, ReaderThatJoinedAFailingFetchTriesWithItsOwnDescriptor) {
  start();
  open(1, state(1, 1));
  answer(Op::cache_create, 10);
  const auto copy = pending(Op::source_read);
  ASSERT_TRUE(copy);
  open(2, state(1, 1));
  read(1, 2, {0, 100});
  answer(Op::source_read, -13);
  EXPECT_FALSE(answered_.contains(1));
  const auto own = pending(Op::source_read);
  ASSERT_TRUE(own);
  EXPECT_NE(own->file, copy->file);
  EXPECT_EQ(own->range, (ByteRange{0, 100}));
  answer(Op::source_read, -13);
  EXPECT_EQ(answered_[1].kind, ReadResult::Kind::error);
  EXPECT_EQ(answered_[1].error, 13);
}

TEST_F(EngineTest, ShortReadIsTheEndOnlyIfTheSourceHasShrunk) {
  start();
  open(1, state(1, 1, 1, 0));
  read(1, 1, {0, kBlock});
  answer(Op::source_read, 100);
  EXPECT_FALSE(answered_.contains(1));
  answer_stat(state(1, 1));
  answer(Op::source_read, 100);
  SourceState shrunk = state(1, 1, 2);
  shrunk.version.size = 100;
  answer_stat(shrunk);
  ASSERT_TRUE(answered_.contains(1));
  EXPECT_EQ(answered_[1].length, 100U);
}

TEST_F(EngineTest, StopMakesTheCopiedPartDurable) {
  start();
  open(1, state(1, 3));
  answer(Op::cache_create, 10);
  answer(Op::source_read, kBlock);
  answer(Op::cache_write, kBlock);
  handle_event(StopEvent{});
  EXPECT_EQ(stopped_, 0);
  run(state(1, 3));
  EXPECT_EQ(stopped_, 1);
  ASSERT_TRUE(stored_);
  EXPECT_TRUE(stored_->durable.test(0));
  EXPECT_FALSE(stored_->durable.is_full());
}

TEST_F(EngineTest, PartialObjectIsResumedAfterARestart) {
  Sidecar sidecar;
  const SourceState source = state(1, 3);
  sidecar.file = source.file;
  sidecar.version = source.version;
  sidecar.serial = 5;
  sidecar.block_size_bytes = kBlock;
  sidecar.path = "file1";
  sidecar.durable = BlockSet(3);
  sidecar.durable.set(1);
  const std::string stem = object_stem(source.file, source.version, 5);
  on_disk_[stem.substr(0, 2)] = {{stem.substr(3) + ".meta", 200, kBlock, 0},
                                 {stem.substr(3) + ".part", 3 * kBlock, 3 * kBlock, 0}};
  start();
  const auto load = pending(Op::cache_load);
  ASSERT_TRUE(load);
  EXPECT_EQ(load->name, stem + ".meta");
  Completion loaded;
  loaded.bytes = encode(sidecar);
  answer(*load, std::move(loaded));
  EXPECT_TRUE(pending(Op::source_open)) << "nobody has it open: the daemon opens it by its path";
  run(source);
  EXPECT_EQ(engine_->status().objects_cached, 1U);
  EXPECT_EQ(engine_->status().source_bytes, 2 * kBlock) << "the durable block is not read again";
}

TEST_F(EngineTest, ObjectUsedDuringRecoveryIsNotTheFirstToMakeRoom) {
  config_.cache_size_bytes = 3 * object_charge(4 * kBlock, kBlock);
  std::map<std::string, Sidecar> sidecars;
  for (const std::uint64_t inode : {1, 2, 3}) {
    const SourceState source = state(inode, 4);
    const std::string stem = object_stem(source.file, source.version, inode);
    on_disk_[stem.substr(0, 2)] = {
        {stem.substr(3) + ".meta", 200, kBlock, 0},
        {stem.substr(3) + ".data", 4 * kBlock, 4 * kBlock, static_cast<std::int64_t>(inode)}};
    Sidecar& sidecar = sidecars[stem + ".meta"];
    sidecar = {source.file, source.version, inode, kBlock, "file", BlockSet(4), {}};
    sidecar.durable.set_all();
  }
  start();
  const auto answer_load = [&](const std::string& name) {
    for (const Request& request : std::deque(requests_)) {
      if (request.op != Op::cache_load || request.name != name) continue;
      Completion loaded;
      loaded.bytes = encode(sidecars.at(name));
      answer(request, std::move(loaded));
    }
  };
  const SourceState oldest = state(1, 4);
  const std::string oldest_name = object_stem(oldest.file, oldest.version, 1) + ".meta";
  answer_load(oldest_name);
  open(1, oldest);
  answer(Op::cache_open, 50);
  close(1);
  answer(Op::cache_touch, 0);
  answer(Op::cache_close, 0);
  EXPECT_TRUE(engine_->status().is_recovering);
  for (const auto& [name, sidecar] : sidecars) answer_load(name);
  EXPECT_FALSE(engine_->status().is_recovering);
  open(2, state(4, 4));
  run(state(4, 4));
  EXPECT_EQ(engine_->status().evictions, 1U);
  open(3, oldest);
  run(oldest);
  EXPECT_EQ(opened_[3].reason, OpenReason::cached);
}

TEST_F(EngineTest, DebrisOfACrashIsRemovedAndStrangersAreLeftAlone) {
  const std::string stem = object_stem({1, 1}, {kBlock, 1, 1}, 5);
  on_disk_[stem.substr(0, 2)] = {{stem.substr(3) + ".part", kBlock, kBlock, 0},
                                 {"precious.txt", 1, kBlock, 0}};
  start();
  EXPECT_EQ(count(Op::cache_unlink), 1U);
  EXPECT_EQ(pending(Op::cache_unlink)->name, stem + ".part");
  run({});
  EXPECT_FALSE(engine_->status().is_recovering);
}

TEST_F(EngineTest, WhatExceedsTheLimitAfterARestartGoesWhenItIsClosed) {
  config_.cache_size_bytes = 40 * kKiB;  // holds one of them
  std::map<std::string, std::vector<std::byte>> sidecars;
  for (const std::uint64_t inode : {1, 2}) {
    const SourceState source = state(inode, 3);
    Sidecar sidecar{source.file, source.version, inode, kBlock, "file", BlockSet(3), {}};
    sidecar.durable.set_all();
    const std::string stem = object_stem(source.file, source.version, inode);
    sidecars[stem + ".meta"] = encode(sidecar);
    std::vector<CacheEntry>& entries = on_disk_[stem.substr(0, 2)];
    entries.push_back({stem.substr(3) + ".data", 3 * kBlock, 3 * kBlock, 0});
    entries.push_back({stem.substr(3) + ".meta", 200, kBlock, 0});
  }
  begin();
  open(1, state(1, 3));
  open(2, state(2, 3));
  while (const auto list = pending(Op::cache_list)) {
    Completion listed;
    listed.entries = on_disk_[list->name];
    answer(*list, std::move(listed));
  }
  while (const auto load = pending(Op::cache_load)) {
    Completion loaded;
    loaded.bytes = sidecars.at(load->name);
    answer(*load, std::move(loaded));
  }
  run(state(1, 3));
  ASSERT_EQ(engine_->status().objects_cached, 2U);
  ASSERT_GT(engine_->status().used_bytes, engine_->status().limit_bytes);
  close(1);
  run({});
  tick(kSecond);
  run({});
  EXPECT_EQ(engine_->status().objects_cached, 1U);
  EXPECT_LE(engine_->status().used_bytes, engine_->status().limit_bytes);
}

TEST_F(EngineTest, AnOpenWaitsForItsOwnShardAndNotForTheOthers) {
  const SourceState source = state(7, 1);
  const std::string shard = shard_name(shard_of(source.file));
  begin();
  const auto listed_with = [](std::uint64_t objects) {
    Completion listed;
    for (std::uint64_t inode = 0; inode < objects; ++inode) {
      listed.entries.push_back({object_stem({1, inode}, {}, inode).substr(3) + ".meta", 90, 90, 1});
    }
    return listed;
  };
  // Far more sidecars than requests may be in flight.
  while (const auto list = pending(Op::cache_list)) answer(*list, listed_with(50));
  for (const Request& load : requests_) ASSERT_NE(load.name.substr(0, 2), shard);
  open(1, source);
  answer(Op::cache_load, -2);
  answer(Op::cache_unlink, 0);
  const auto list = pending(Op::cache_list);
  ASSERT_TRUE(list);
  ASSERT_EQ(list->name, shard);
  answer(*list, listed_with(2));
  EXPECT_EQ(requests_.back().op, Op::cache_load);
  EXPECT_EQ(requests_.back().name.substr(0, 2), shard);
}

TEST_F(EngineTest, WarmingAnswersWithWhatBecameOfTheFile) {
  start();
  handle_event(WarmEvent{WarmToken{1}, FileHandle{80}, state(1, 2), "file1"});
  run(state(1, 2));
  EXPECT_EQ(warmed_[1].kind, WarmResult::Kind::copied);
  handle_event(WarmEvent{WarmToken{2}, FileHandle{81}, state(1, 2), "file1"});
  EXPECT_EQ(warmed_[2].kind, WarmResult::Kind::already_cached);
  handle_event(WarmEvent{WarmToken{3}, FileHandle{82}, state(2, 0), "empty"});
  EXPECT_EQ(warmed_[3].kind, WarmResult::Kind::skipped);
  EXPECT_EQ(warmed_[3].reason, OpenReason::too_small);
  EXPECT_EQ(count(Op::source_close), 2U) << "descriptors it was given are given back";
}

TEST_F(EngineTest, ACopyForAWarmUpMakesWayForOneThatIsUsed) {
  config_.copies_max = 1;
  start();
  handle_event(WarmEvent{WarmToken{1}, FileHandle{80}, state(1, 8), "file1"});
  handle_event(WarmEvent{WarmToken{2}, FileHandle{81}, state(2, 2), "file2"});
  open(3, state(3, 1));
  ASSERT_EQ(engine_->status().copies.size(), 1U);
  EXPECT_EQ(engine_->status().copies[0].path, "file3");
  // Who opens a file that waits for a warm-up takes it with him.
  open(2, state(2, 2));
  handle_event(WarmEvent{WarmToken{4}, FileHandle{82}, state(4, 1), "file4"});
  states_ = {
      {FileHandle{80}, state(1, 8)}, {FileHandle{81}, state(2, 2)}, {FileHandle{82}, state(4, 1)}};
  run(state(3, 1));
  EXPECT_TRUE(warmed_.contains(1) && warmed_.contains(2) && warmed_.contains(4));
  std::vector<std::string> started;
  for (const Notice& notice : notices_) {
    if (notice.kind == Notice::Kind::copy_started) started.push_back(notice.path);
  }
  EXPECT_EQ(started, (std::vector<std::string>{"file1", "file3", "file2", "file1", "file4"}));
}

TEST_F(EngineTest, CopiesKeepToTheirCeilingHoweverManyTheyAre) {
  config_.copy_bytes_per_second = 8 * kBlock;
  start();
  open(1, state(1, 20));
  open(2, state(2, 20));
  const Nanos begun = now_;
  std::uint64_t wakes = 0;
  while (engine_->status().objects_cached < 2) {
    run(state(engine_->status().copies.empty() ? 1 : 2, 20));
    const double seconds = static_cast<double>(now_ - begun) / kSecond;
    const auto copied = static_cast<double>(engine_->status().source_bytes_copies);
    ASSERT_LE(copied, (seconds + 0.1) * 8 * kBlock + kBlock);
    if (!engine_->wake_at()) break;
    ASSERT_GT(*engine_->wake_at(), now_);
    now_ = *engine_->wake_at();
    handle_event(WakeEvent{});
    ASSERT_LT(++wakes, 100U);
  }
  EXPECT_EQ(engine_->status().source_bytes_copies, 40 * kBlock);
  EXPECT_GE(now_ - begun, 39 * kSecond / 8 - TokenBucket::kBurst);
  EXPECT_LE(now_ - begun, 39 * kSecond / 8) << "and pause no longer than they must";
  // Readers keep to none.
  read(1, 1, {0, 10});
  // Nor does anybody once it is lifted.
  handle_event(CopyRateEvent{0});
  open(3, state(3, 20));
  run(state(3, 20));
  EXPECT_EQ(engine_->status().copy_bytes_per_second, 0U);
  EXPECT_FALSE(engine_->wake_at());
}

TEST_F(EngineTest, TheFilesOfAWarmUpShareItsCeilingUntilSomebodyOpensThem) {
  start();
  const WarmPace pace{7, 2 * kBlock};
  // One after the other: what one has taken, the next one waits for.
  for (std::uint64_t file = 1; file <= 3; ++file) {
    handle_event(WarmEvent{WarmToken{file}, FileHandle(79 + static_cast<int>(file)), state(file, 1),
                           "file" + std::to_string(file), false, pace});
    run(state(file, 1));
    if (file > 1) {
      EXPECT_FALSE(warmed_.contains(file));
      ASSERT_TRUE(engine_->wake_at());
      now_ = *engine_->wake_at();
      handle_event(WakeEvent{});
      run(state(file, 1));
    }
    EXPECT_TRUE(warmed_.contains(file)) << file;
    tick(0);
  }
  EXPECT_EQ(now_, kSecond + kSecond - TokenBucket::kBurst);
  handle_event(WarmEvent{WarmToken{4}, FileHandle{90}, state(4, 8), "file4", false, pace});
  run(state(4, 8));
  EXPECT_FALSE(warmed_.contains(4));
  open(4, state(4, 8));
  run(state(4, 8));
  EXPECT_TRUE(warmed_.contains(4));
}

TEST_F(EngineTest, FaultyCacheFileIsDroppedAndReadFromTheSource) {
  start();
  open(1, state(1, 2));
  run(state(1, 2));
  const auto residency = opened_[1].residency;
  handle_event(CacheFaultEvent{HandleId{1}, 5});
  read(1, 1, {0, 100}, true);
  ASSERT_TRUE(pending(Op::source_read));
  run(state(1, 2));
  EXPECT_EQ(answered_[1].kind, ReadResult::Kind::bytes);
  EXPECT_EQ(engine_->status().objects_cached, 0U);
}

// What the adapter reads of the cache says as much about the disk as what the engine asks of it.
TEST_F(EngineTest, DeadlinesThatReadersMissTakeTheDiskDownAndSpareTheFile) {
  start();
  open(1, state(1, 2));
  run(state(1, 2));
  for (int time = 0; time < 2; ++time) handle_event(CacheFaultEvent{HandleId{1}, 110});
  const EngineStatus status = engine_->status();
  EXPECT_EQ(status.cache_health.state, HealthState::down);
  EXPECT_EQ(status.cache_health.last_error, 110);
  EXPECT_EQ(status.objects_cached, 1U) << "slow is not wrong";
}

}  // namespace
}  // namespace ncfs
