// Real threads: readers plan and read while one thread writes blocks, publishes and revokes them.
// The bytes are plain memory, so that without the release in publish() and the acquire in
// plan_read() TSan reports the race, and a reader sees bytes that are not there yet.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "engine/residency.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kBlock = 4 * kKiB;
constexpr std::uint64_t kBlocks = 200;  // more than three words of bits
constexpr std::uint64_t kSize = kBlocks * kBlock - 100;
constexpr int kReaders = 3;
constexpr int kRounds = 20;

std::uint8_t expected_byte(std::uint64_t offset) {
  return static_cast<std::uint8_t>(1 + offset / kBlock % 255);
}

// A cache file with its residency: all zero until written.
struct CacheFile {
  std::vector<std::uint8_t> bytes = std::vector<std::uint8_t>(kSize, 0);
  Residency residency{FileHandle{3}, kSize, kBlock};

  void write_and_publish(std::uint64_t block) {
    const ByteRange range = residency.block_range(block);
    for (std::uint64_t at = range.offset; at < range.end(); ++at) bytes[at] = expected_byte(at);
    residency.publish(block);
  }
};

// Reads the file from end to end as plan_read() cuts it. Returns the number of resident bytes, or
// kSize + 1 if one of them was wrong.
std::uint64_t read_resident(const CacheFile& file) {
  std::uint64_t resident = 0;
  for (std::uint64_t offset = 0; offset < kSize;) {
    const ReadPlan plan = plan_read(file.residency, {offset, kSize - offset});
    EXPECT_EQ(plan.range.offset, offset);
    EXPECT_FALSE(plan.range.empty());
    for (std::uint64_t at = offset; plan.resident && at < plan.range.end(); at += 97) {
      if (file.bytes[at] != expected_byte(at)) return kSize + 1;
    }
    if (plan.resident) resident += plan.range.length;
    offset = plan.range.end();
  }
  return resident;
}

TEST(ResidencyRace, ReaderThatSeesABitSeesTheBytes) {
  for (int round = 0; round < kRounds; ++round) {
    CacheFile file;
    std::atomic<bool> is_wrong{false};
    std::vector<std::thread> readers;
    for (int reader = 0; reader < kReaders; ++reader) {
      readers.emplace_back([&] {
        std::uint64_t before = 0;
        while (before < kSize) {
          const std::uint64_t resident = read_resident(file);
          // Blocks are only added, so each pass sees at least what the one before saw.
          if (resident > kSize || resident < before) {
            is_wrong.store(true, std::memory_order_relaxed);
            return;
          }
          before = resident;
        }
      });
    }
    // Not in order: neighbours in one word of bits come from both ends.
    for (std::uint64_t block = 0; block < kBlocks / 2; ++block) {
      file.write_and_publish(block);
      file.write_and_publish(kBlocks - 1 - block);
    }
    for (std::thread& reader : readers) reader.join();
    EXPECT_FALSE(is_wrong.load(std::memory_order_relaxed));
  }
}

TEST(ResidencyRace, RevokedBlocksStayReadableForThoseWhoPlannedThem) {
  for (int round = 0; round < kRounds; ++round) {
    CacheFile file;
    for (std::uint64_t block = 0; block < kBlocks; ++block) file.write_and_publish(block);
    std::atomic<bool> is_wrong{false};
    std::vector<std::thread> readers;
    for (int reader = 0; reader < kReaders; ++reader) {
      readers.emplace_back([&] {
        std::uint64_t resident = kSize;
        while (resident > 0) {
          resident = read_resident(file);
          if (resident > kSize) {
            is_wrong.store(true, std::memory_order_relaxed);
            return;
          }
        }
      });
    }
    file.residency.revoke();
    for (std::thread& reader : readers) reader.join();
    EXPECT_FALSE(is_wrong.load(std::memory_order_relaxed));
  }
}

}  // namespace
}  // namespace ncfs
