// Power loss on the real code path: the calls that the real driver makes while files are copied,
// changed and evicted are recorded, and replayed up to each of them into the simulated disk, which
// tells what a power loss could leave of them: unsynced writes kept, lost or torn, unsynced names
// kept or lost. (The method of CrashMonkey and ALICE, OSDI 2018 and 2014.)
//
// In every such image what the sidecars vouch for must be true; and the real engine with the real
// driver, started on images written to a real file system, must serve what the source has.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <set>

#include "engine/format.h"
#include "fuse_adapter/test_runtime.h"
#include "io/cache_files.h"
#include "io/recorded_calls.h"
#include "io/temp_directory.h"
#include "io/test_bytes.h"
#include "sim/disk.h"
#include "sim/survivors.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kBlock = 16 * kKiB;
// Outcomes of one crash point that are looked at; beyond, a sample of so many is taken.
constexpr std::uint64_t kOutcomesMax = 256;

using Image = std::map<std::string, std::vector<std::byte>>;  // names and contents

Config config(std::uint64_t run_id) {
  // Two of the files with their sidecars, so that the third displaces one.
  Config result = small_config(200 * kKiB, kBlock, run_id);
  result.checkpoint_bytes = 3 * kBlock;
  return result;
}

void make_shards(int root) {
  for (std::uint32_t shard = 0; shard < kShardCount; ++shard) {
    ASSERT_EQ(::mkdirat(root, shard_name(shard).c_str(), 0700), 0);
  }
}

Image image_of(const std::string& root) {
  Image image;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file()) continue;
    std::vector<std::byte> bytes(entry.file_size());
    std::ifstream(entry.path(), std::ios::binary)
        .read(reinterpret_cast<char*>(bytes.data()), std::ssize(bytes));
    image.emplace(std::filesystem::relative(entry.path(), root), std::move(bytes));
  }
  return image;
}

Image image_of(const SimDisk& disk) {
  Image image;
  for (const auto& [name, inode] : disk.names_cached()) {
    const auto content = disk.view(inode).cached;
    image.emplace(name, std::vector<std::byte>(content.begin(), content.end()));
  }
  return image;
}

std::uint64_t digest_of(const Image& image) {
  std::uint64_t digest = 0;
  for (const auto& [name, bytes] : image) {
    digest = XXH3_64bits_withSeed(name.data(), name.size(), digest);
    digest = XXH3_64bits_withSeed(bytes.data(), bytes.size(), digest);
  }
  return digest;
}

// The recorded calls, one after the other, on the simulated disk.
class Replay {
 public:
  Replay() {
    for (std::uint32_t shard = 0; shard < kShardCount; ++shard) {
      disk_.make_directory(shard_name(shard));
    }
  }

  [[nodiscard]] const SimDisk& disk() const { return disk_; }

  void apply(const RecordedCall& call) {
    using Kind = RecordedCall::Kind;
    switch (call.kind) {
      case Kind::create:
        // Its handle stays open: the real file is there as long as calls name its inode.
        ASSERT_GT(disk_.create(call.name, 0, 0), 0);
        inodes_[call.inode] = disk_.inode_named(call.name).value();
        return;
      case Kind::truncate:
        ASSERT_EQ(disk_.replace_content(call.name, {}, 0), 0);
        return;
      case Kind::extend:
        // A zero at the end: lost or made, it tells as much as the call.
        ASSERT_EQ(disk_.write(inodes_.at(call.inode), call.offset - 1, {{std::byte{0}}}), 1);
        return;
      case Kind::write:
        ASSERT_EQ(disk_.write(inodes_.at(call.inode), call.offset, call.bytes),
                  std::ssize(call.bytes));
        return;
      case Kind::sync:
        return disk_.sync_file(inodes_.at(call.inode), disk_.file_sync_point());
      case Kind::rename:
        ASSERT_EQ(disk_.rename(call.name, call.new_name), 0);
        return;
      case Kind::unlink:
        ASSERT_EQ(disk_.unlink(call.name, FileHandle::none), 0);
        return;
      case Kind::sync_directory:
        ASSERT_EQ(disk_.sync_directory(call.name, disk_.file_sync_point()), 0);
        return;
    }
  }

 private:
  SimDisk disk_;
  std::map<ino_t, InodeId> inodes_;
};

class PowerLoss : public testing::TestWithParam<bool> {
 protected:
  PowerLoss() {
    std::filesystem::create_directory(temp_.path("source"));
    std::filesystem::create_directory(temp_.path("cache"));
    source_ = temp_.open("source", O_PATH | O_DIRECTORY);
    cache_ = temp_.open("cache", O_PATH | O_DIRECTORY);
    make_shards(cache_.get());
    image_root_ = detached_file_system("tmpfs", "16m");
    make_shards(image_root_.get());
  }

  // Another version of a file of the source.
  void put(const std::string& name, std::uint64_t size, unsigned seed) {
    write_file(temp_.path("source/" + name), test_bytes(size, seed));
    const Descriptor file = temp_.open("source/" + name, O_RDONLY);
    const SourceState state = look_at_source(file.get(), Freshness::from_server).state;
    history_[{state.file, state.version}] = test_bytes(size, seed);
    current_[name] = test_bytes(size, seed);
  }

  // Files are copied with checkpoints, read while they are, changed, evicted, resumed.
  std::vector<RecordedCall> record() {
    const CallRecorder recorder(temp_.path("cache"));
    put("a", 5 * kBlock + 123, 1);
    put("b", 3 * kBlock, 2);
    {
      TestRuntime runtime(config(1), source_.get(), cache_.get());
      EXPECT_TRUE(runtime.wait_until([](const EngineStatus& s) { return !s.is_recovering; }));
      EXPECT_EQ(runtime.warm("a").kind, WarmResult::Kind::copied);
      EXPECT_EQ(runtime.read_file("b").bytes, current_.at("b"));
      EXPECT_TRUE(runtime.wait_until([](const EngineStatus& s) { return s.objects_cached == 2; }));
      put("a", 4 * kBlock, 3);
      EXPECT_EQ(runtime.warm("a").kind, WarmResult::Kind::copied);
      put("c", 6 * kBlock + 1, 4);
      EXPECT_EQ(runtime.read_file("c").bytes, current_.at("c"));
      EXPECT_TRUE(runtime.wait_until([](const EngineStatus& s) { return s.evictions > 0; }));
      runtime.stop();  // whether in the middle of a copy or not
    }
    TestRuntime runtime(config(1'000'000), source_.get(), cache_.get());
    EXPECT_EQ(runtime.warm("c").error, 0);
    runtime.stop();
    return recorder.calls();
  }

  // S2 and S3 on the image as such: the blocks of every sidecar that has data are true.
  void check_sidecars(const Image& image) const {
    for (const auto& [name, bytes] : image) {
      if (!name.ends_with(suffix(NameKind::sidecar))) continue;
      const std::optional<Sidecar> sidecar = decode(bytes);
      // Renamed after it was synced: torn sidecars have another name.
      ASSERT_TRUE(sidecar) << name;
      const std::string stem = name.substr(0, name.size() - suffix(NameKind::sidecar).size());
      const auto complete = image.find(stem + std::string(suffix(NameKind::data)));
      const auto partial = image.find(stem + std::string(suffix(NameKind::partial)));
      ASSERT_TRUE(complete == image.end() || sidecar->durable.is_full()) << name;
      const std::vector<std::byte>& truth = history_.at({sidecar->file, sidecar->version});
      for (const auto& data : {complete, partial}) {
        if (data == image.end()) continue;
        ASSERT_EQ(data->second.size(), truth.size()) << data->first;
        for (std::uint64_t block = 0; block < sidecar->durable.block_count(); ++block) {
          if (!sidecar->durable.test(block)) continue;
          const auto begin = static_cast<std::ptrdiff_t>(block * kBlock);
          const auto end = std::min(begin + std::ptrdiff_t{kBlock}, std::ssize(truth));
          ASSERT_TRUE(
              std::equal(truth.begin() + begin, truth.begin() + end, data->second.begin() + begin))
              << data->first << " block " << block;
        }
      }
    }
  }

  // The real engine, the real driver, a real file system.
  void start_on(const Image& image) {
    const int root = image_root_.get();
    for (const auto& [name, bytes] : image) {
      const Descriptor file(::openat(root, name.c_str(), O_CREAT | O_WRONLY, 0600));
      ASSERT_EQ(::write(file.get(), bytes.data(), bytes.size()), std::ssize(bytes));
    }
    TestRuntime runtime(config(2'000'000 + ++starts_), source_.get(), root);
    for (const auto& [name, truth] : current_) {
      const TestRuntime::FileRead read = runtime.read_file(name);
      ASSERT_EQ(read.bytes, truth) << name;
      if (read.reason == OpenReason::cached) ++opens_cached_;
      if (read.reason == OpenReason::partial) ++opens_partial_;
    }
    const bool has_settled = runtime.wait_until([](const EngineStatus& s) {
      return !s.is_recovering && s.copies.empty() &&
             s.used_bytes + s.reserved_bytes <= s.limit_bytes;
    });
    const EngineStatus status = runtime.status();
    ASSERT_TRUE(has_settled) << "recovering " << status.is_recovering << ", copies "
                             << status.copies.size() << ", used " << status.used_bytes
                             << ", reserved " << status.reserved_bytes;
    runtime.stop();
    std::uint64_t occupied = 0;
    for (std::uint32_t shard = 0; shard < kShardCount; ++shard) {
      std::vector<CacheEntry> entries;
      ASSERT_EQ(list_directory(root, shard_name(shard), entries), 0);
      for (const CacheEntry& entry : entries) {
        occupied += entry.allocated_bytes;
        ASSERT_EQ(unlink_file(root, shard_name(shard) + '/' + entry.name), 0);
      }
    }
    ASSERT_LE(occupied, config(0).cache_size_bytes);
  }

  TempDirectory temp_;
  Descriptor source_;
  Descriptor cache_;
  Descriptor image_root_;  // empty between two starts
  std::map<std::pair<FileId, SourceVersion>, std::vector<std::byte>> history_;
  std::map<std::string, std::vector<std::byte>> current_;
  std::uint64_t starts_ = 0;
  std::uint64_t opens_cached_ = 0;
  std::uint64_t opens_partial_ = 0;
};

TEST_P(PowerLoss, LeavesTheTruthAfterEveryCall) {
  const std::vector<RecordedCall> calls = record();
  ASSERT_FALSE(HasFailure());
  Replay replay;
  std::uint64_t outcomes_looked_at = 0;
  std::set<std::uint64_t> images;
  for (std::size_t point = 0; point <= calls.size(); ++point) {
    std::uint64_t outcomes = 1;
    for (std::uint64_t index = 0; index < std::min(outcomes, kOutcomesMax); ++index) {
      const bool is_sampled = outcomes > kOutcomesMax && index > 0;
      Survivors survivors(is_sampled ? kRandomMask + 1000 * point + index : index);
      SimDisk disk = replay.disk();
      disk.set_options({.are_directories_ordered = GetParam()});
      disk.lose_power(survivors);
      outcomes = survivors.combinations();
      ++outcomes_looked_at;
      const Image image = image_of(disk);
      if (!images.insert(digest_of(image)).second) continue;
      check_sidecars(image);
      start_on(image);
      if (HasFatalFailure()) {
        FAIL() << "after call " << point << " of " << calls.size() << ", outcome " << index;
      }
    }
    if (point < calls.size()) replay.apply(calls[point]);
  }
  EXPECT_TRUE(image_of(replay.disk()) == image_of(temp_.path("cache")))
      << "calls were not recorded";
  std::cout << calls.size() << " calls, " << outcomes_looked_at << " outcomes, " << images.size()
            << " different images, each started on: " << opens_cached_ << " opens of complete and "
            << opens_partial_ << " of partial files\n";
  EXPECT_GT(opens_cached_, 0U);
  EXPECT_GT(opens_partial_, 0U);
}

INSTANTIATE_TEST_SUITE_P(Directories, PowerLoss, testing::Bool(), [](const auto& is_ordered) {
  return is_ordered.param ? "ordered" : "unordered";
});

}  // namespace
}  // namespace ncfs
