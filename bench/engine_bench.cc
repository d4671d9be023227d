// How many events and completions a second the engine handles, with devices that answer at once
// and without effort: all time measured is the engine's.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "io/assert.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kBlocksPerFile = 256;
constexpr std::uint64_t kFileBytes = kBlocksPerFile * kMiB;
constexpr std::int64_t kOldEnough = 3600 * static_cast<std::int64_t>(kSecond);

SourceState file_state(std::uint64_t inode) {
  return {{1, inode}, {kFileBytes, 1, 1}, kOldEnough};
}

// Devices that do nothing, and readers that want the next byte.
class World final : private Io, private Host {
 public:
  explicit World(const Config& config)
      : engine_(
            std::make_unique<Engine>(config, static_cast<Io&>(*this), static_cast<Host&>(*this))) {
    engine_->start(now_);
    answer_all();
  }

  // Whose state source_stat tells from now on.
  void use_file(std::uint64_t inode) { inode_ = inode; }

  void handle(Event event) {
    ++events_;
    engine_->handle(++now_, std::move(event));
    answer_all();
  }

  [[nodiscard]] std::uint64_t events() const { return events_; }
  [[nodiscard]] EngineStatus status() const { return engine_->status(); }
  [[nodiscard]] const ReadResult& last_read() const { return last_read_; }
  [[nodiscard]] const OpenResult& last_open() const { return last_open_; }

 private:
  void submit(Request request) override { requests_.push_back(std::move(request)); }

  void answer_all() {
    while (!requests_.empty()) {
      Completion completion = answer(requests_.front());
      requests_.pop_front();
      ++events_;
      engine_->complete(++now_, std::move(completion));
    }
  }

  Completion answer(const Request& request) {
    Completion completion;
    completion.ticket = request.ticket;
    switch (request.op) {
      case Op::source_open:
      case Op::source_stat:
        completion.source = file_state(inode_);
        break;
      case Op::cache_create:
      case Op::cache_open:
        completion.result = next_handle_++;
        break;
      case Op::source_read:
      case Op::cache_write:
        completion.result = static_cast<std::int64_t>(request.range.length);
        break;
      default:
        break;
    }
    return completion;
  }

  void on_open(HandleId, const OpenResult& result) override { last_open_ = result; }
  void on_read(ReadToken, const ReadResult& result) override { last_read_ = result; }
  void on_warm(WarmToken, const WarmResult&) override {}
  void on_control(ControlToken, const ControlResult&) override {}
  void on_notice(const Notice&) override {}
  void on_stopped() override {}
  void on_verify(VerifyToken, const VerifyResult&) override {}
  void on_disowned(DisownToken, int) override {}
  void on_grown(GrowToken, int) override {}

  Nanos now_ = 1;
  std::uint64_t inode_ = 1;  // of the only file in use
  std::uint64_t events_ = 0;
  std::int64_t next_handle_ = 1000;
  std::deque<Request> requests_;
  OpenResult last_open_;
  ReadResult last_read_;
  std::unique_ptr<Engine> engine_;  // last: calls back from its constructor on
};

Config config_for_benchmark() {
  Config config;
  config.cache_size_bytes = 4 * kFileBytes;  // so that files are evicted all the time
  config.min_free_percent = 0;
  return config;
}

// A file is read from end to end for the first time: demand, prefetch, copy, publication, and
// eviction of an older one.
void read_new_files(benchmark::State& state) {
  World world(config_for_benchmark());
  std::uint64_t token = 0;
  std::uint64_t inode = 0;
  for (auto _ : state) {
    world.use_file(++inode);
    const HandleId handle{inode};
    world.handle(OpenEvent{handle, FileHandle{5}, file_state(inode),
                           "models/file-" + std::to_string(inode)});
    for (std::uint64_t block = 0; block < kBlocksPerFile; ++block) {
      const ReadToken read{++token};
      world.handle(ReadEvent{read, handle, {block * kMiB, 128 * kKiB}});
      if (world.last_read().kind == ReadResult::Kind::bytes) world.handle(ReadDoneEvent{read});
    }
    world.handle(CloseEvent{handle});
  }
  NCFS_ASSERT(world.status().copies_finished != 0);
  NCFS_ASSERT(world.status().buffers_in_use == 0);
  state.SetItemsProcessed(static_cast<std::int64_t>(world.events()));
}
BENCHMARK(read_new_files);

// A cached file is opened and closed.
void open_cached_file(benchmark::State& state) {
  World world(config_for_benchmark());
  std::uint64_t handle = 0;
  world.handle(WarmEvent{WarmToken{1}, FileHandle{5}, file_state(1), "file"});
  for (auto _ : state) {
    world.handle(OpenEvent{HandleId{++handle}, FileHandle{5}, file_state(1), "file"});
    world.handle(CloseEvent{HandleId{handle}});
  }
  NCFS_ASSERT(world.last_open().is_complete);
  state.SetItemsProcessed(static_cast<std::int64_t>(world.events()));
}
BENCHMARK(open_cached_file);

}  // namespace
}  // namespace ncfs

BENCHMARK_MAIN();
