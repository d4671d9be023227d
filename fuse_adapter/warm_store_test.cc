#include "fuse_adapter/warm_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <cerrno>
#include <functional>
#include <random>

#include "io/cache_files.h"
#include "io/descriptor.h"
#include "io/temp_directory.h"

namespace ncfs {
namespace {

std::vector<WarmProgress> two_jobs() {
  WarmProgress ended;
  ended.id = 3;
  ended.state = WarmProgress::State::done;
  ended.order = {.paths = {"", "models/a\nb\xff"}, .pin = true, .list = "list"};
  ended.found = {9, 900};
  ended.copied = {1, 100};
  ended.already_cached = {2, 200};
  ended.skipped = {3, 300};
  ended.failed = {3, 300};
  ended.skip_reasons = {{"symbolic link", 3}};
  ended.failures = {{"models/x", "Input/output error"}};
  ended.needed_bytes = 1000;
  ended.seconds = 1.5;
  WarmProgress running;
  running.id = 7;
  running.state = WarmProgress::State::copying;
  running.order = {.paths = {"data"}, .best_effort = true, .bytes_per_second = 1 << 20};
  running.in_work = {"data/1"};
  running.restarts = 2;
  return {ended, running};
}

TEST(WarmStore, WhatIsReadIsWhatWasWritten) {
  const auto jobs = two_jobs();
  const auto read = decode_warm_jobs(encode_warm_jobs(jobs));
  ASSERT_TRUE(read);
  ASSERT_EQ(read->size(), 2U);
  const WarmProgress& ended = (*read)[0];
  EXPECT_EQ(ended.id, 3U);
  EXPECT_EQ(ended.state, WarmProgress::State::done);
  EXPECT_EQ(ended.order.paths, jobs[0].order.paths);
  EXPECT_TRUE(ended.order.pin);
  EXPECT_FALSE(ended.order.best_effort);
  EXPECT_EQ(ended.order.list, "list");
  EXPECT_EQ(ended.found.bytes, 900U);
  EXPECT_EQ(ended.failed.files, 3U);
  EXPECT_EQ(ended.skip_reasons, jobs[0].skip_reasons);
  ASSERT_EQ(ended.failures.size(), 1U);
  EXPECT_EQ(ended.failures[0].error, "Input/output error");
  EXPECT_EQ(ended.needed_bytes, 1000U);
  EXPECT_EQ(ended.seconds, 1.5);
  const WarmProgress& running = (*read)[1];
  EXPECT_FALSE(running.is_finished());
  EXPECT_TRUE(running.order.best_effort);
  EXPECT_EQ(running.order.bytes_per_second, 1U << 20U);
  EXPECT_EQ(running.restarts, 2U);
  EXPECT_TRUE(running.in_work.empty());
  EXPECT_EQ(decode_warm_jobs(encode_warm_jobs({}))->size(), 0U);
}

TEST(WarmStore, EveryChangedBitAndEveryShorterFileIsRefused) {
  const auto bytes = encode_warm_jobs(two_jobs());
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    auto changed = bytes;
    changed[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    EXPECT_FALSE(decode_warm_jobs(changed)) << bit;
  }
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode_warm_jobs(std::span(bytes).first(size))) << size;
  }
}

TEST(WarmStore, WhatBreaksABoundIsRefusedThoughItsChecksumIsRight) {
  const auto refused = [](const std::function<void(std::vector<WarmProgress>&)>& change) {
    auto jobs = two_jobs();
    change(jobs);
    return !decode_warm_jobs(encode_warm_jobs(jobs));
  };
  EXPECT_FALSE(refused([](auto&) {}));
  EXPECT_TRUE(refused([](auto& jobs) { jobs[1].id = jobs[0].id; }));
  EXPECT_TRUE(refused([](auto& jobs) { jobs[0].id = 0; }));
  EXPECT_TRUE(refused([](auto& jobs) { jobs[0].order.paths.clear(); }));
  EXPECT_TRUE(refused([](auto& jobs) { jobs[0].order.bytes_per_second = 1; }));
  for (const char* path : {"/etc", "a/../b", "..", "a//b", "./a"}) {
    EXPECT_TRUE(refused([path](auto& jobs) { jobs[0].order.paths[0] = path; })) << path;
  }
  EXPECT_TRUE(refused([](auto& jobs) { jobs[0].failures.resize(WarmJobs::kFailuresKept + 1); }));
  EXPECT_TRUE(refused([](auto& jobs) {
    for (int reason = 0; reason < 100; ++reason) jobs[0].skip_reasons[std::to_string(reason)] = 1;
  }));
  EXPECT_TRUE(refused([](auto& jobs) {
    jobs.resize(WarmJobs::kJobsMax + 1, jobs[1]);
    for (std::size_t job = 0; job < jobs.size(); ++job) jobs[job].id = job + 1;
  }));
}

// Method: the checksum is made right after every change, so that the parser has to hold by itself.
TEST(WarmStore, NoBytesBringTheParserDown) {
  const auto good = encode_warm_jobs(two_jobs());
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::byte> bytes(good.begin(), good.end() - 8);
    for (int change = 0; change < 3; ++change) {
      bytes[random() % bytes.size()] = static_cast<std::byte>(random() % 4 == 0 ? random() : 255);
    }
    bytes.resize(bytes.size() - random() % 4);
    const std::uint64_t sum = XXH3_64bits(bytes.data(), bytes.size());
    const auto sum_bytes = std::as_bytes(std::span(&sum, 1));  // of a little-endian machine
    bytes.insert(bytes.end(), sum_bytes.begin(), sum_bytes.end());
    if (const auto jobs = decode_warm_jobs(bytes)) {
      EXPECT_LE(jobs->size(), WarmJobs::kJobsMax);
    }
  }
}

TEST(WarmStore, IsReplacedAsAWholeAndMayBeMissing) {
  const TempDirectory directory;
  const Descriptor root = directory.open("", O_RDONLY | O_DIRECTORY);
  std::vector<WarmProgress> jobs;
  EXPECT_EQ(load_warm_jobs(root.get(), jobs), 0);
  EXPECT_TRUE(jobs.empty());
  EXPECT_EQ(store_warm_jobs(root.get(), two_jobs()), 0);
  EXPECT_EQ(load_warm_jobs(root.get(), jobs), 0);
  EXPECT_EQ(jobs.size(), 2U);
  // What a crash leaves of the next one is not looked at.
  EXPECT_EQ(store_file(root.get(), "WARM.new", {}), 0);
  EXPECT_EQ(load_warm_jobs(root.get(), jobs), 0);
  EXPECT_EQ(store_warm_jobs(root.get(), {}), 0);
  EXPECT_EQ(load_warm_jobs(root.get(), jobs), 0);
  EXPECT_TRUE(jobs.empty());
  EXPECT_EQ(store_file(root.get(), "WARM", std::as_bytes(std::span("nonsense"))), 0);
  EXPECT_EQ(load_warm_jobs(root.get(), jobs), EBADMSG);
}

}  // namespace
}  // namespace ncfs
