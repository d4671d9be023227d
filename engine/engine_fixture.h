// For tests of the engine by hand: every request is answered by the test.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/format.h"

namespace ncfs {

inline constexpr std::uint64_t kBlock = 4 * kKiB;
inline constexpr std::int64_t kOld = 3600 * static_cast<std::int64_t>(kSecond);

class EngineTest : public testing::Test, private Io, private Host {
 protected:
  EngineTest() {
    config_.cache_size_bytes = 1 * kMiB;
    config_.block_size_bytes = kBlock;
    config_.buffers = 16;
    config_.buffers_reserved = 4;
    config_.readahead_bytes = 0;
    config_.min_free_percent = 0;
  }

  void begin() {
    engine_.emplace(config_, static_cast<Io&>(*this), static_cast<Host&>(*this));
    engine_->start(now_);
  }
  void start() {
    begin();
    while (const auto list = pending(Op::cache_list)) {
      Completion listed;
      if (const auto entries = on_disk_.find(list->name); entries != on_disk_.end()) {
        listed.entries = entries->second;
      }
      answer(*list, std::move(listed));
    }
  }

  SourceState state(std::uint64_t inode, std::uint64_t blocks, std::int64_t mtime = 1,
                    std::int64_t age = kOld) {
    return {{1, inode}, {blocks * kBlock, mtime, mtime}, age};
  }

  void open(std::uint64_t handle, const SourceState& source, bool reads_source = false) {
    open_path(handle, source, "file" + std::to_string(source.file.inode), reads_source);
  }
  void open_path(std::uint64_t handle, const SourceState& source, const std::string& path,
                 bool reads_source = false) {
    handle_event(OpenEvent{HandleId{handle}, FileHandle(100 + static_cast<int>(handle)), source,
                           path, reads_source});
  }
  void close(std::uint64_t handle) { handle_event(CloseEvent{HandleId{handle}}); }
  void read(std::uint64_t token, std::uint64_t handle, ByteRange range, bool skip_cache = false) {
    handle_event(ReadEvent{ReadToken{token}, HandleId{handle}, range, skip_cache});
  }
  void tick(Nanos passed) {
    now_ += passed;
    handle_event(TickEvent{});
  }
  void handle_event(Event event) {
    engine_->handle(now_, std::move(event));
    engine_->check_invariants();
  }

  // The oldest pending request of a kind.
  std::optional<Request> pending(Op op) const {
    for (const Request& request : requests_) {
      if (request.op == op) return request;
    }
    return std::nullopt;
  }
  std::size_t count(Op op) const {
    std::size_t found = 0;
    for (const Request& request : requests_) found += request.op == op ? 1 : 0;
    return found;
  }
  void answer(const Request& request, Completion completion) {
    completion.ticket = request.ticket;
    std::erase_if(requests_, [&](const Request& one) { return one.ticket == request.ticket; });
    engine_->complete(now_, std::move(completion));
    engine_->check_invariants();
  }
  void answer(Op op, std::int64_t result) {
    const auto request = pending(op);
    ASSERT_TRUE(request) << static_cast<int>(op);
    Completion completion;
    completion.result = result;
    answer(*request, std::move(completion));
  }
  void answer_stat(const SourceState& source) {
    const auto request = pending(Op::source_stat);
    ASSERT_TRUE(request);
    Completion completion;
    completion.source = source;
    answer(*request, std::move(completion));
  }
  // Answers everything as a healthy world does, until nothing is pending. `source` is what all
  // files are that states_ does not know.
  void run(const SourceState& source) {
    while (!requests_.empty()) {
      const Request request = requests_.front();
      Completion completion;
      const auto own = states_.find(request.file);
      completion.source = own == states_.end() ? source : own->second;
      completion.space = space_;
      switch (request.op) {
        case Op::source_read:
        case Op::cache_write:
          completion.result = static_cast<std::int64_t>(request.range.length);
          break;
        case Op::source_open:
          completion.result = 90;
          break;
        case Op::cache_create:
        case Op::cache_open:
          completion.result = next_file_++;
          break;
        case Op::cache_store:
          stored_ = decode(request.bytes);
          break;
        default:
          break;
      }
      order_.push_back(request.op);
      answer(request, std::move(completion));
    }
  }

  // The same, and lets time pass for what only waits for its time.
  void run_on(const SourceState& source) {
    run(source);
    for (int wake = 0; engine_->wake_at() && wake < 100; ++wake) {
      ASSERT_GT(*engine_->wake_at(), now_);
      now_ = *engine_->wake_at();
      handle_event(WakeEvent{});
      run(source);
    }
  }

  Config config_;
  std::map<FileHandle, SourceState> states_;
  std::map<std::string, std::vector<CacheEntry>> on_disk_;
  std::optional<Engine> engine_;
  Nanos now_ = kSecond;
  std::deque<Request> requests_;
  std::map<std::uint64_t, OpenResult> opened_;
  std::map<std::uint64_t, ReadResult> answered_;
  std::map<std::uint64_t, WarmResult> warmed_;
  std::vector<Notice> notices_;
  std::vector<VerifyResult> verified_;
  std::map<std::uint64_t, int> disowned_;  // errors, by token
  std::map<std::uint64_t, int> grown_;     // the same
  FileSystemSpace space_;                  // what run() tells of the cache's file system
  std::vector<Op> order_;
  std::optional<Sidecar> stored_;
  int stopped_ = 0;
  int next_file_ = 10;

 private:
  void submit(Request request) override { requests_.push_back(std::move(request)); }
  void on_open(HandleId handle, const OpenResult& result) override {
    opened_[static_cast<std::uint64_t>(handle)] = result;
  }
  void on_read(ReadToken token, const ReadResult& result) override {
    answered_[static_cast<std::uint64_t>(token)] = result;
  }
  void on_warm(WarmToken token, const WarmResult& result) override {
    warmed_[static_cast<std::uint64_t>(token)] = result;
  }
  void on_control(ControlToken, const ControlResult&) override {}
  void on_notice(const Notice& notice) override { notices_.push_back(notice); }
  void on_stopped() override { ++stopped_; }
  void on_verify(VerifyToken, const VerifyResult& result) override { verified_.push_back(result); }
  void on_disowned(DisownToken token, int error) override {
    EXPECT_TRUE(disowned_.emplace(static_cast<std::uint64_t>(token), error).second);
  }
  void on_grown(GrowToken token, int error) override {
    EXPECT_TRUE(grown_.emplace(static_cast<std::uint64_t>(token), error).second);
  }
};

}  // namespace ncfs
