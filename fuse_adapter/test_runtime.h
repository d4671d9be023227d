// For tests: the engine with the real driver over a source directory and a cache tree, no FUSE.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <future>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fuse_adapter/runtime.h"
#include "io/source_identity.h"
#include "io/test_wait.h"

namespace ncfs {

// Little of everything. `run_id` must differ between the runs on one cache tree, and leave room for
// the ids that each of them gives away.
inline Config small_config(std::uint64_t cache_size_bytes, std::uint64_t block_size_bytes,
                           std::uint64_t run_id) {
  Config config;
  config.cache_size_bytes = cache_size_bytes;
  config.block_size_bytes = block_size_bytes;
  config.racy_window = 0;  // the files were written a moment ago
  config.source_reads_max = 2;
  config.source_reads_reserved = 1;
  config.cache_writes_max = 2;
  config.buffers = 16;
  config.buffers_reserved = 4;
  config.cache_deadline = config.open_patience = 100 * kSecond;  // a busy machine is no fault
  config.run_id = run_id;
  return config;
}

class TestRuntime {
 public:
  // Both descriptors outlive it.
  TestRuntime(const Config& engine, int source_root, int cache_root)
      : block_size_(engine.block_size_bytes), source_root_(source_root) {
    Runtime::Options options;
    options.engine = engine;
    options.source_root = source_root;
    options.cache_root = cache_root;
    runtime_ = std::make_unique<Runtime>(options);
  }

  [[nodiscard]] EngineStatus status() { return runtime_->status(); }

  // False if the engine does not come to say so within far more time than it needs.
  template <typename Condition>
  [[nodiscard]] bool wait_until(Condition condition) {
    return eventually([&] { return condition(runtime_->status()); });
  }

  // Opens, reads as the FUSE side does (planned pieces from the cache file, missing ones from the
  // engine) and closes.
  struct FileRead {
    OpenReason reason{};
    std::vector<std::byte> bytes;
  };
  FileRead read_file(const std::string& name) {
    const int fd = ::openat(source_root_, name.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_GE(fd, 0) << name;
    const SourceState state = look_at_source(fd, Freshness::as_opened).state;
    const HandleId handle{++handles_};
    std::promise<OpenResult> answer;
    runtime_->open({handle, FileHandle{fd}, state, name, false},
                   [&](const OpenResult& result) { answer.set_value(result); });
    const OpenResult opened = answer.get_future().get();
    FileRead result{opened.reason, {}};
    std::shared_ptr<Residency> residency = opened.residency;
    while (result.bytes.size() < state.version.size && !testing::Test::HasFailure()) {
      read_piece(handle, state.version.size, residency, result.bytes);
    }
    residency = nullptr;
    runtime_->close(handle);
    return result;
  }

  // Brings the file into the cache.
  WarmResult warm(const std::string& name) {
    const int fd = ::openat(source_root_, name.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_GE(fd, 0) << name;
    std::promise<WarmResult> answer;
    runtime_->warm(FileHandle{fd}, look_at_source(fd, Freshness::as_opened).state, name,
                   [&](const WarmResult& result) { answer.set_value(result); });
    return answer.get_future().get();
  }

  void stop() { runtime_->stop(std::chrono::seconds(60)); }

 private:
  void read_piece(HandleId handle, std::uint64_t size, std::shared_ptr<Residency>& residency,
                  std::vector<std::byte>& bytes) {
    const std::uint64_t offset = bytes.size();
    ReadPlan plan{false, {offset, std::min(size - offset, block_size_ - offset % block_size_)}};
    if (residency) plan = plan_read(*residency, {offset, size - offset});
    if (plan.resident) {
      bytes.resize(offset + plan.range.length);
      EXPECT_EQ(::pread(static_cast<int>(residency->cache_file()), bytes.data() + offset,
                        plan.range.length, static_cast<off_t>(offset)),
                static_cast<ssize_t>(plan.range.length));
      return;
    }
    std::promise<void> answered;
    runtime_->read(handle, plan.range, false, [&](const ReadOutcome& outcome) {
      EXPECT_EQ(outcome.error, 0);
      bytes.insert(bytes.end(), outcome.bytes.begin(), outcome.bytes.end());
      if (!residency) residency = outcome.residency;
      answered.set_value();
    });
    answered.get_future().wait();
  }

  const std::uint64_t block_size_;
  const int source_root_;
  std::uint64_t handles_ = 0;
  std::unique_ptr<Runtime> runtime_;
};

}  // namespace ncfs
