// The engine with the real driver on real files, without FUSE: what is promised to readers holds
// while a copy runs, after it, after a restart and after a restart in the middle of it.

#include "fuse_adapter/runtime.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "io/cache_directory.h"
#include "io/source_identity.h"
#include "io/temp_directory.h"
#include "io/test_bytes.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kBlock = 64 * kKiB;

class RuntimeTest : public testing::Test {
 protected:
  RuntimeTest() {
    std::filesystem::create_directory(temp_.path("source"));
    source_ = temp_.open("source", O_PATH | O_DIRECTORY);
  }

  void start(std::uint64_t run_id) {
    CacheDirectoryResult opened = open_cache_directory(temp_.path("cache"));
    ASSERT_TRUE(opened.directory) << opened.error;
    cache_.emplace(std::move(*opened.directory));
    Runtime::Options options;
    options.engine.cache_size_bytes = 64 * kMiB;
    options.engine.block_size_bytes = kBlock;
    options.engine.buffers =
        128;  // more than the blocks of a file: none is dropped, however slow the disk
    options.engine.racy_window = 0;  // the files of these tests were written a moment ago
    options.engine.run_id = run_id;
    options.source_root = source_.get();
    options.cache_root = cache_->objects.get();
    runtime_.emplace(options);
    wait_until([](const EngineStatus& status) { return !status.is_recovering; });
  }
  void stop() {
    runtime_->stop(std::chrono::seconds(30));
    runtime_.reset();
    cache_.reset();
  }

  struct Opened {
    HandleId handle{};
    OpenResult result;
  };
  Opened open(const std::string& name) {
    const int fd = ::openat(source_.get(), name.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_GE(fd, 0);
    const SourceLook look = look_at_source(fd, Freshness::as_opened);
    std::promise<OpenResult> answer;
    const HandleId handle{next_handle_++};
    runtime_->open({handle, FileHandle{fd}, look.state, name},
                   [&](const OpenResult& result) { answer.set_value(result); });
    return {handle, answer.get_future().get()};
  }

  // As the FUSE side reads: planned pieces from the cache file, missing ones from the engine.
  std::vector<std::byte> read(const Opened& opened, ByteRange range) {
    std::vector<std::byte> bytes;
    std::shared_ptr<Residency> residency = opened.result.residency;
    while (bytes.size() < range.length) {
      const std::uint64_t offset = range.offset + bytes.size();
      const std::uint64_t left = range.length - bytes.size();
      ReadPlan plan{false, {offset, std::min(left, kBlock - offset % kBlock)}};
      if (residency) plan = plan_read(*residency, {offset, left});
      if (plan.resident) {
        std::vector<std::byte> piece(plan.range.length);
        const int fd = static_cast<int>(residency->cache_file());
        EXPECT_EQ(::pread(fd, piece.data(), piece.size(), static_cast<off_t>(offset)),
                  std::ssize(piece));
        bytes.insert(bytes.end(), piece.begin(), piece.end());
        continue;
      }
      std::promise<bool> was_resident;
      runtime_->read(opened.handle, plan.range, false, [&](const ReadOutcome& outcome) {
        EXPECT_EQ(outcome.error, 0);
        bytes.insert(bytes.end(), outcome.bytes.begin(), outcome.bytes.end());
        if (!residency) residency = outcome.residency;
        was_resident.set_value(outcome.is_resident);
      });
      was_resident.get_future().wait();
    }
    return bytes;
  }

  template <typename Condition>
  void wait_until(Condition condition) {
    ASSERT_TRUE(eventually([&] { return condition(runtime_->status()); }));
  }
  void wait_until_cached(std::uint64_t objects) {
    wait_until([=](const EngineStatus& status) { return status.objects_cached == objects; });
  }

  TempDirectory temp_;
  Descriptor source_;
  std::optional<CacheDirectory> cache_;
  std::optional<Runtime> runtime_;
  std::atomic<std::uint64_t> next_handle_ = 1;
};

TEST_F(RuntimeTest, EveryByteIsRightWhileTheCopyRunsAndCrossesTheWireOnce) {
  const auto bytes = test_bytes(40 * kBlock + 123);
  write_file(temp_.path("source/model"), bytes);
  start(1);
  const Opened opened = open("model");
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&] {
      for (std::uint64_t offset = 0; offset < bytes.size(); offset += 100'000) {
        const std::uint64_t length = std::min<std::uint64_t>(100'000, bytes.size() - offset);
        const auto got = read(opened, {offset, length});
        ASSERT_EQ(std::memcmp(got.data(), bytes.data() + offset, length), 0) << offset;
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  wait_until_cached(1);
  EXPECT_EQ(runtime_->status().source_bytes, bytes.size());
  runtime_->close(opened.handle);
  const Opened again = open("model");
  EXPECT_EQ(again.result.reason, OpenReason::cached);
  EXPECT_EQ(read(again, {0, bytes.size()}), bytes);
  runtime_->close(again.handle);
  stop();
}

TEST_F(RuntimeTest, CacheSurvivesARestart) {
  const auto bytes = test_bytes(3 * kBlock);
  write_file(temp_.path("source/model"), bytes);
  start(1);
  const Opened first = open("model");
  wait_until_cached(1);
  runtime_->close(first.handle);
  stop();
  start(1'000'000);
  const Opened opened = open("model");
  EXPECT_EQ(opened.result.reason, OpenReason::cached);
  EXPECT_EQ(read(opened, {0, bytes.size()}), bytes);
  EXPECT_EQ(runtime_->status().source_bytes, 0U);
  runtime_->close(opened.handle);
  stop();
}

TEST_F(RuntimeTest, InterruptedCopyIsResumedByItself) {
  const auto bytes = test_bytes(300 * kBlock);
  write_file(temp_.path("source/model"), bytes);
  start(1);
  const Opened first = open("model");
  (void)read(first, {0, kBlock});
  wait_until([](const EngineStatus& status) { return status.cache_bytes_written > 0; });
  runtime_->close(first.handle);
  stop();
  start(1'000'000);
  wait_until_cached(1);
  const Opened opened = open("model");
  EXPECT_EQ(read(opened, {0, bytes.size()}), bytes);
  EXPECT_LT(runtime_->status().source_bytes, bytes.size()) << "the durable part was not read again";
  runtime_->close(opened.handle);
  stop();
}

TEST_F(RuntimeTest, WarmedFileIsAHitAtItsFirstOpen) {
  const auto bytes = test_bytes(5 * kBlock);
  write_file(temp_.path("source/model"), bytes);
  start(1);
  const int fd = ::openat(source_.get(), "model", O_RDONLY | O_CLOEXEC);
  std::promise<WarmResult> warmed;
  runtime_->warm(FileHandle{fd}, look_at_source(fd, Freshness::as_opened).state, "model",
                 [&](const WarmResult& result) { warmed.set_value(result); });
  EXPECT_EQ(warmed.get_future().get().kind, WarmResult::Kind::copied);
  const Opened opened = open("model");
  EXPECT_TRUE(opened.result.is_complete);
  runtime_->close(opened.handle);
  stop();
}

TEST_F(RuntimeTest, OurChmodCostsNoCopyNotEvenAcrossARestart) {
  const auto bytes = test_bytes(3 * kBlock);
  write_file(temp_.path("source/model"), bytes);
  start(1);
  const Opened first = open("model");
  wait_until_cached(1);
  runtime_->close(first.handle);
  const Descriptor source(::openat(source_.get(), "model", O_RDONLY | O_CLOEXEC));
  const SourceState before = look_at_source(source.get(), Freshness::from_server).state;
  ASSERT_EQ(::fchmod(source.get(), 0600), 0);
  const SourceState after = look_at_source(source.get(), Freshness::from_server).state;
  ASSERT_NE(before.version, after.version);
  runtime_->rekey(before, after, {});
  const Opened again = open("model");
  EXPECT_EQ(again.result.reason, OpenReason::cached);
  runtime_->close(again.handle);
  stop();
  start(1'000'000);
  const Opened opened = open("model");
  EXPECT_EQ(opened.result.reason, OpenReason::cached);
  EXPECT_EQ(read(opened, {0, bytes.size()}), bytes);
  EXPECT_EQ(runtime_->status().source_bytes, 0U);
  runtime_->close(opened.handle);
  stop();
}

TEST_F(RuntimeTest, WhatIsDisownedIsNotFoundAgain) {
  const auto bytes = test_bytes(3 * kBlock);
  write_file(temp_.path("source/model"), bytes);
  start(1);
  const Opened first = open("model");
  wait_until_cached(1);
  const Opened reader = open("model");
  ASSERT_TRUE(reader.result.is_complete);
  const Descriptor source(::openat(source_.get(), "model", O_RDONLY | O_CLOEXEC));
  const SourceState state = look_at_source(source.get(), Freshness::from_server).state;
  std::promise<int> disowned;
  runtime_->disown(state.file, [&](int error) { disowned.set_value(error); });
  EXPECT_EQ(disowned.get_future().get(), 0);
  // The adapter may write into the cache file now; nobody is given it any more.
  const int cache_file = static_cast<int>(reader.result.residency->cache_file());
  ASSERT_EQ(::pwrite(cache_file, "written", 7, 0), 7);
  EXPECT_EQ(read(reader, {0, bytes.size()}), bytes) << "of the source";
  const auto error_of_growth = [&](std::uint64_t size) {
    std::promise<int> grown;
    runtime_->grow(reader.handle, size, [&](int error) { grown.set_value(error); });
    return grown.get_future().get();
  };
  EXPECT_EQ(error_of_growth(4 * kBlock), 0);
  EXPECT_EQ(error_of_growth(std::uint64_t{1} << 40U), ENOSPC);
  stop();
  start(1'000'000);
  EXPECT_EQ(runtime_->status().objects_cached, 0U);
  const Opened opened = open("model");
  EXPECT_NE(opened.result.reason, OpenReason::cached);
  EXPECT_EQ(read(opened, {0, bytes.size()}), bytes);
  runtime_->close(opened.handle);
  stop();
}

}  // namespace
}  // namespace ncfs
