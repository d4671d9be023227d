#include "io/io_contract.h"

#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "io/test_bytes.h"

namespace ncfs {
namespace {

// Far beyond what any operation of a test takes; only a driver that hangs gets there.
constexpr Nanos kPatience = 60 * kSecond;

bool starts_with(std::span<const std::byte> bytes, std::span<const std::byte> prefix) {
  return bytes.size() >= prefix.size() && std::ranges::equal(bytes.first(prefix.size()), prefix);
}

}  // namespace

Request on_name(Op op, std::string name) {
  Request request;
  request.op = op;
  request.name = std::move(name);
  return request;
}

Request on_file(Op op, FileHandle file) {
  Request request;
  request.op = op;
  request.file = file;
  return request;
}

Request rename_request(std::string name, std::string new_name) {
  Request request = on_name(Op::cache_rename, std::move(name));
  request.new_name = std::move(new_name);
  return request;
}

Request store_request(std::string name, std::vector<std::byte> bytes) {
  Request request = on_name(Op::cache_store, std::move(name));
  request.bytes = std::move(bytes);
  return request;
}

Request create_request(std::string name, std::uint64_t length) {
  Request request = on_name(Op::cache_create, std::move(name));
  request.range.length = length;
  return request;
}

Request transfer_request(Op op, FileHandle file, ByteRange range, BufferId id) {
  Request request = on_file(op, file);
  request.range = range;
  request.buffer = id;
  return request;
}

Request unlink_request(std::string name, FileHandle file) {
  Request request = on_name(Op::cache_unlink, std::move(name));
  request.file = file;
  return request;
}

std::size_t IoWorld::times_delivered(Ticket ticket) const {
  return static_cast<std::size_t>(std::ranges::count(delivered_, ticket, &Completion::ticket));
}

Completion IoWorld::run_until(Ticket ticket) {
  while (true) {
    const auto found = std::ranges::find(delivered_, ticket, &Completion::ticket);
    if (found != delivered_.end()) return *found;
    if (!step()) {
      ADD_FAILURE() << "request " << static_cast<std::uint64_t>(ticket) << " is never completed";
      return {};
    }
  }
}

void IoContract::TearDown() {
  for (const Ticket ticket : tickets_) {
    world_->run_until(ticket);
    EXPECT_EQ(world_->times_delivered(ticket), 1U);
  }
}

Ticket IoContract::submit(Request request) {
  request.ticket = Ticket{tickets_.size() + 1};
  if (request.deadline == 0) request.deadline = world_->now() + kPatience;
  tickets_.push_back(request.ticket);
  const std::size_t before = world_->delivered().size();
  world_->io().submit(std::move(request));
  EXPECT_EQ(world_->delivered().size(), before) << "completed inline";
  return tickets_.back();
}

FileHandle IoContract::open_source(const std::string& path) {
  const std::int64_t opened = result(on_name(Op::source_open, path));
  EXPECT_GE(opened, 0);
  return FileHandle{static_cast<std::int32_t>(opened)};
}

FileHandle IoContract::create(const std::string& name, std::uint64_t length) {
  const std::int64_t created = result(create_request(name, length));
  EXPECT_GE(created, 0);
  return FileHandle{static_cast<std::int32_t>(created)};
}

FileHandle IoContract::open_cache(const std::string& name) {
  const std::int64_t opened = result(on_name(Op::cache_open, name));
  EXPECT_GE(opened, 0);
  return FileHandle{static_cast<std::int32_t>(opened)};
}

std::int64_t IoContract::read(FileHandle file, ByteRange range, BufferId id) {
  return result(transfer_request(Op::source_read, file, range, id));
}

std::int64_t IoContract::write(FileHandle file, std::uint64_t offset,
                               std::span<const std::byte> bytes) {
  constexpr BufferId kBuffer{1};
  std::ranges::copy(bytes, world_->buffer(kBuffer).begin());
  return result(transfer_request(Op::cache_write, file, {offset, bytes.size()}, kBuffer));
}

void IoContract::close(Op op, FileHandle file) {
  EXPECT_EQ(result(on_file(op, file)), 0);
}

std::vector<std::string> IoContract::names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const CacheEntry& entry : run(on_name(Op::cache_list, directory)).entries) {
    names.push_back(entry.name);
  }
  return names;
}

TEST_P(IoContract, SourceReadGoesToItsPlaceInTheBufferAndLeavesWhatIsBeforeIt) {
  const std::vector<std::byte> bytes = test_bytes(10'000);
  world_->put_source_file("a", bytes);
  const FileHandle file = open_source("a");
  EXPECT_EQ(read(file, {0, 1000}, BufferId{0}), 1000);
  Request rest = transfer_request(Op::source_read, file, {1000, 3000}, BufferId{0});
  rest.buffer_offset = 1000;
  EXPECT_EQ(result(std::move(rest)), 3000);
  EXPECT_TRUE(starts_with(world_->buffer(BufferId{0}), std::span(bytes).first(4000)));
  close(Op::source_close, file);
}

TEST_P(IoContract, SourceOpenTellsWhichFileAndWhichVersionItIs) {
  world_->put_source_file("a", test_bytes(10'000));
  world_->put_source_file("b", test_bytes(10));
  const Completion a = run(on_name(Op::source_open, "a"));
  const Completion again = run(on_name(Op::source_open, "a"));
  const Completion b = run(on_name(Op::source_open, "b"));
  ASSERT_GE(a.result, 0);
  EXPECT_NE(a.result, again.result);
  EXPECT_EQ(a.source.version.size, 10'000U);
  EXPECT_EQ(a.source.file, again.source.file);
  EXPECT_EQ(a.source.version, again.source.version);
  EXPECT_EQ(a.source.file.filesystem, b.source.file.filesystem);
  EXPECT_NE(a.source.file.inode, b.source.file.inode);
  for (const Completion& opened : {a, again, b}) {
    close(Op::source_close, FileHandle{static_cast<std::int32_t>(opened.result)});
  }
}

TEST_P(IoContract, SourceOpenOfWhatIsNotAFileIsAnError) {
  EXPECT_EQ(result(on_name(Op::source_open, "missing")), -ENOENT);
  EXPECT_EQ(result(on_name(Op::source_open, "")), -EINVAL);
}

TEST_P(IoContract, SourceStatSeesAChangeMadeAfterTheOpen) {
  world_->put_source_file("a", test_bytes(10));
  const Completion opened = run(on_name(Op::source_open, "a"));
  const FileHandle file{static_cast<std::int32_t>(opened.result)};
  const Completion same = run(on_file(Op::source_stat, file));
  EXPECT_EQ(same.result, 0);
  EXPECT_EQ(same.source.version, opened.source.version);
  world_->put_source_file("a", test_bytes(20));
  const Completion changed = run(on_file(Op::source_stat, file));
  EXPECT_EQ(changed.result, 0);
  EXPECT_EQ(changed.source.file, opened.source.file);
  EXPECT_EQ(changed.source.version.size, 20U);
  EXPECT_NE(changed.source.version, opened.source.version);
  close(Op::source_close, file);
}

TEST_P(IoContract, SourceReadsAreShortAtTheEndOfTheFile) {
  const std::uint64_t block = world_->block_size();
  const std::vector<std::byte> content = test_bytes(block + block / 2 + 1);
  world_->put_source_file("a", content);
  const FileHandle file = open_source("a");
  const BufferId id{0};
  EXPECT_EQ(read(file, {0, block}, id), static_cast<std::int64_t>(block));
  EXPECT_TRUE(starts_with(world_->buffer(id), std::span(content).first(block)));
  EXPECT_EQ(read(file, {block, block}, id), static_cast<std::int64_t>(block / 2 + 1));
  EXPECT_TRUE(starts_with(world_->buffer(id), std::span(content).subspan(block)));
  EXPECT_EQ(read(file, {content.size(), block}, id), 0);
  EXPECT_EQ(read(file, {7, 100}, id), 100);
  EXPECT_TRUE(starts_with(world_->buffer(id), std::span(content).subspan(7, 100)));
  close(Op::source_close, file);
}

TEST_P(IoContract, SourceReadsTellTheirBytesToWhoWantsThem) {
  const std::vector<std::byte> content = test_bytes(1000);
  world_->put_source_file("a", content);
  const FileHandle file = open_source("a");
  Request request = transfer_request(Op::source_read, file, {900, 200}, BufferId{0});
  EXPECT_TRUE(run(request).bytes.empty());
  request.wants_bytes = true;
  const Completion completion = run(request);
  EXPECT_EQ(completion.result, 100);
  EXPECT_EQ(completion.bytes, std::vector<std::byte>(content.begin() + 900, content.end()));
  EXPECT_TRUE(starts_with(world_->buffer(BufferId{0}), completion.bytes));
  close(Op::source_close, file);
}

TEST_P(IoContract, ReadsInFlightTogetherEachGetTheirOwnBytes) {
  const std::uint64_t block = world_->block_size();
  const std::vector<std::byte> content = test_bytes(4 * block);
  world_->put_source_file("a", content);
  const FileHandle file = open_source("a");
  std::vector<Ticket> tickets;
  for (std::uint32_t index = 0; index < 4; ++index) {
    tickets.push_back(
        submit(transfer_request(Op::source_read, file, {index * block, block}, BufferId{index})));
  }
  for (std::uint32_t index = 0; index < 4; ++index) {
    EXPECT_EQ(world_->run_until(tickets[index]).result, static_cast<std::int64_t>(block));
    const auto expected = std::span(content).subspan(index * block, block);
    EXPECT_TRUE(starts_with(world_->buffer(BufferId{index}), expected));
  }
  close(Op::source_close, file);
}

TEST_P(IoContract, ACreatedFileHasItsLengthAndItsSpace) {
  const std::uint64_t length = 3 * world_->block_size() + 5;
  const FileHandle file = create("3f/a", length);
  const Completion list = run(on_name(Op::cache_list, "3f"));
  ASSERT_EQ(list.entries.size(), 1U);
  EXPECT_EQ(list.entries[0].size_bytes, length);
  EXPECT_GE(list.entries[0].allocated_bytes, length);
  close(Op::cache_close, file);
}

TEST_P(IoContract, CreateNeverTakesOverAName) {
  close(Op::cache_close, create("3f/a", 1));
  EXPECT_EQ(result(create_request("3f/a", 1)), -EEXIST);
  EXPECT_EQ(result(create_request("missing/a", 1)), -ENOENT);
}

TEST_P(IoContract, WhatWasWrittenIsInTheFile) {
  const std::uint64_t block = world_->block_size();
  const std::vector<std::byte> content = test_bytes(block + 4096 + 17);
  const FileHandle file = create("3f/a", content.size());
  const auto first = std::span(content).first(block);
  const auto rest = std::span(content).subspan(block);
  EXPECT_EQ(write(file, block, rest), std::ssize(rest));
  EXPECT_EQ(write(file, 0, first), std::ssize(first));
  EXPECT_TRUE(starts_with(world_->buffer(BufferId{1}), first)) << "a write changed its buffer";
  EXPECT_EQ(result(on_file(Op::cache_sync, file)), 0);
  close(Op::cache_close, file);
  EXPECT_EQ(run(on_name(Op::cache_load, "3f/a")).bytes, content);
}

TEST_P(IoContract, AnOpenedCacheFileCanBeWritten) {
  close(Op::cache_close, create("3f/a", 100));
  const FileHandle file = open_cache("3f/a");
  const std::vector<std::byte> content = test_bytes(100, 2);
  EXPECT_EQ(write(file, 0, content), 100);
  close(Op::cache_close, file);
  EXPECT_EQ(run(on_name(Op::cache_load, "3f/a")).bytes, content);
  EXPECT_EQ(result(on_name(Op::cache_open, "3f/missing")), -ENOENT);
}

TEST_P(IoContract, StoreReplacesTheWholeContent) {
  EXPECT_EQ(result(store_request("3f/a", test_bytes(9000, 1))), 0);
  EXPECT_EQ(run(on_name(Op::cache_load, "3f/a")).bytes, test_bytes(9000, 1));
  EXPECT_EQ(result(store_request("3f/a", test_bytes(10, 2))), 0);
  EXPECT_EQ(run(on_name(Op::cache_load, "3f/a")).bytes, test_bytes(10, 2));
  EXPECT_EQ(result(store_request("3f/a", {})), 0);
  const Completion empty = run(on_name(Op::cache_load, "3f/a"));
  EXPECT_EQ(empty.result, 0);
  EXPECT_TRUE(empty.bytes.empty());
}

TEST_P(IoContract, LoadRefusesWhatIsMissingOrTooLarge) {
  EXPECT_EQ(result(on_name(Op::cache_load, "3f/missing")), -ENOENT);
  close(Op::cache_close, create("3f/a", kCacheLoadMax + 1));
  const Completion load = run(on_name(Op::cache_load, "3f/a"));
  EXPECT_EQ(load.result, -EFBIG);
  EXPECT_TRUE(load.bytes.empty());
}

TEST_P(IoContract, RenameReplacesTheNewName) {
  EXPECT_EQ(result(store_request("3f/a", test_bytes(10, 1))), 0);
  EXPECT_EQ(result(store_request("40/b", test_bytes(10, 2))), 0);
  EXPECT_EQ(result(rename_request("3f/a", "40/b")), 0);
  EXPECT_TRUE(names_in("3f").empty());
  EXPECT_EQ(names_in("40"), std::vector<std::string>{"b"});
  EXPECT_EQ(run(on_name(Op::cache_load, "40/b")).bytes, test_bytes(10, 1));
  EXPECT_EQ(result(rename_request("3f/a", "40/b")), -ENOENT);
}

TEST_P(IoContract, ListsAreSortedByName) {
  for (const char* name : {"3f/b", "3f/a.part", "3f/c", "3f/a"}) {
    EXPECT_EQ(result(store_request(name, {})), 0);
  }
  EXPECT_EQ(names_in("3f"), (std::vector<std::string>{"a", "a.part", "b", "c"}));
  EXPECT_EQ(result(on_name(Op::cache_list, "missing")), -ENOENT);
}

TEST_P(IoContract, DirectoriesCanBeSynced) {
  EXPECT_EQ(result(on_name(Op::cache_sync_directory, "3f")), 0);
  EXPECT_EQ(result(on_name(Op::cache_sync_directory, "missing")), -ENOENT);
}

TEST_P(IoContract, UnlinkSparesAFileThatSomebodyElseHasOpen) {
  const FileHandle file = create("3f/a", 10);
  const FileHandle other = open_cache("3f/a");
  EXPECT_EQ(result(unlink_request("3f/a", file)), -EBUSY);
  EXPECT_EQ(names_in("3f"), std::vector<std::string>{"a"});
  close(Op::cache_close, other);
  EXPECT_EQ(result(unlink_request("3f/a", file)), 0);
  EXPECT_TRUE(names_in("3f").empty());
  close(Op::cache_close, file);
}

TEST_P(IoContract, ChecksumsOfWritesAndReadsAreThoseOfTheBytes) {
  const std::uint64_t block = world_->block_size();
  const std::vector<std::byte> content = test_bytes(block + 5000);
  const FileHandle file = create("3f/a", content.size());
  constexpr BufferId kBuffer{1};
  const auto sum = [&](ByteRange range) {
    return XXH3_64bits(content.data() + range.offset, range.length);
  };
  for (const ByteRange range : {ByteRange{0, block}, ByteRange{block, 5000}}) {
    std::ranges::copy(std::span(content).subspan(range.offset, range.length),
                      world_->buffer(kBuffer).begin());
    Request request = transfer_request(Op::cache_write, file, range, kBuffer);
    request.wants_checksum = true;
    const Completion written = run(std::move(request));
    EXPECT_EQ(written.result, static_cast<std::int64_t>(range.length));
    EXPECT_EQ(written.checksum, sum(range));
    const Completion read = run(transfer_request(Op::cache_read, file, range, BufferId{2}));
    EXPECT_EQ(read.result, static_cast<std::int64_t>(range.length));
    EXPECT_EQ(read.checksum, sum(range));
    EXPECT_TRUE(starts_with(world_->buffer(BufferId{2}),
                            std::span(content).subspan(range.offset, range.length)));
  }
  // Longer than a buffer, and past the end of the file.
  Request request = on_file(Op::cache_verify, file);
  request.range = {0, 4 * block};
  const Completion verified = run(std::move(request));
  EXPECT_EQ(verified.result, std::ssize(content));
  EXPECT_EQ(verified.checksum, sum({0, content.size()}));
  close(Op::cache_close, file);
}

TEST_P(IoContract, AListTellsTheAgeOfAFile) {
  EXPECT_EQ(result(store_request("3f/a", {})), 0);
  world_->make_old("3f/a");
  const std::int64_t hour = 3600 * static_cast<std::int64_t>(kSecond);
  const std::int64_t old = run(on_name(Op::cache_list, "3f")).entries.at(0).age_ns;
  EXPECT_GE(old, hour);
  EXPECT_EQ(result(on_name(Op::cache_touch, "3f/a")), 0);
  EXPECT_LT(run(on_name(Op::cache_list, "3f")).entries.at(0).age_ns, hour);
}

TEST_P(IoContract, UnlinkIsNotHeldUpByWhatTheFileWentThroughBefore) {
  const std::uint64_t block = world_->block_size();
  const FileHandle file = create("3f/a.part", block);
  EXPECT_EQ(write(file, 0, test_bytes(block)), static_cast<std::int64_t>(block));
  EXPECT_EQ(result(on_file(Op::cache_sync, file)), 0);
  EXPECT_EQ(result(rename_request("3f/a.part", "3f/a")), 0);
  EXPECT_EQ(write(file, 0, test_bytes(block)), static_cast<std::int64_t>(block));
  EXPECT_EQ(result(unlink_request("3f/a", file)), 0);
  close(Op::cache_close, file);
}

TEST_P(IoContract, UnlinkWithoutAFileAsksNobody) {
  const FileHandle file = create("3f/a", 10);
  EXPECT_EQ(result(unlink_request("3f/a", FileHandle::none)), 0);
  EXPECT_TRUE(names_in("3f").empty());
  EXPECT_EQ(result(unlink_request("3f/a", FileHandle::none)), -ENOENT);
  EXPECT_EQ(write(file, 0, test_bytes(10)), 10) << "an unlinked file lives on while it is open";
  close(Op::cache_close, file);
}

TEST_P(IoContract, TouchMakesAFileYoung) {
  EXPECT_EQ(result(store_request("3f/a", {})), 0);
  const std::int64_t made = run(on_name(Op::cache_list, "3f")).entries.at(0).mtime_ns;
  world_->make_old("3f/a");
  EXPECT_LT(run(on_name(Op::cache_list, "3f")).entries.at(0).mtime_ns, made);
  EXPECT_EQ(result(on_name(Op::cache_touch, "3f/a")), 0);
  EXPECT_GE(run(on_name(Op::cache_list, "3f")).entries.at(0).mtime_ns, made);
  EXPECT_EQ(result(on_name(Op::cache_touch, "3f/missing")), -ENOENT);
}

TEST_P(IoContract, TheFileSystemTellsItsSpaceAndListsTellAges) {
  const Completion told = run(on_name(Op::cache_statfs, ""));
  EXPECT_EQ(told.result, 0);
  EXPECT_GT(told.space.total_bytes, 0U);
  EXPECT_LE(told.space.free_bytes, told.space.total_bytes);
  EXPECT_EQ(result(store_request("3f/a", {})), 0);
  world_->make_old("3f/a");
  const auto hour = static_cast<std::int64_t>(3600 * kSecond);
  EXPECT_GE(run(on_name(Op::cache_list, "3f")).entries.at(0).age_ns, hour);
}

TEST_P(IoContract, AStalledReadTimesOutAndItsBufferIsUsableAtOnce) {
  const std::vector<std::byte> content = test_bytes(world_->block_size());
  world_->put_source_file("a", content);
  const FileHandle file = open_source("a");
  const BufferId id{2};
  world_->stall_source();
  Request request = transfer_request(Op::source_read, file, {0, content.size()}, id);
  request.deadline = world_->now() + 200 * kMillisecond;
  EXPECT_EQ(run(std::move(request)).result, -ETIMEDOUT);
  std::ranges::fill(world_->buffer(id), std::byte{0x5a});
  world_->resume_source();
  // Once the file is closed nothing of the stuck read is left in the device.
  close(Op::source_close, file);
  EXPECT_TRUE(
      std::ranges::all_of(world_->buffer(id), [](std::byte b) { return b == std::byte{0x5a}; }));
  const FileHandle again = open_source("a");
  EXPECT_EQ(read(again, {0, content.size()}, id), std::ssize(content));
  EXPECT_TRUE(starts_with(world_->buffer(id), content));
  close(Op::source_close, again);
}

TEST_P(IoContract, AStalledSourceDoesNotHoldUpTheCache) {
  world_->put_source_file("a", test_bytes(100));
  const FileHandle file = open_source("a");
  world_->stall_source();
  const Ticket stuck = submit(transfer_request(Op::source_read, file, {0, 100}, BufferId{0}));
  EXPECT_EQ(result(store_request("3f/a", test_bytes(10))), 0);
  EXPECT_EQ(run(on_name(Op::cache_load, "3f/a")).bytes, test_bytes(10));
  EXPECT_EQ(world_->times_delivered(stuck), 0U);
  world_->resume_source();
  EXPECT_EQ(world_->run_until(stuck).result, 100);
  EXPECT_TRUE(starts_with(world_->buffer(BufferId{0}), test_bytes(100)));
  close(Op::source_close, file);
}

}  // namespace ncfs
