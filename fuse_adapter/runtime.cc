#include "fuse_adapter/runtime.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "fuse_adapter/backends.h"
#include "fuse_adapter/event_log.h"
#include "io/assert.h"
#include "io/posix_io.h"

namespace ncfs {
namespace {

// Messages waiting for the control thread. It handles a million a second, so this is a burst of a
// few milliseconds; whoever finds it full waits for that long.
constexpr std::size_t kMailboxMax = 4096;

// Threads that copy fetched bytes to the kernel. One copies some 6 GB/s; two keep up with the
// fastest links without crowding a small machine.
constexpr std::size_t kReplyThreads = 2;

using OpenDone = std::function<void(const OpenResult&)>;
using ReadDone = std::function<void(const ReadOutcome&)>;
using WarmDone = std::function<void(const WarmResult&)>;
using VerifyDone = std::function<void(const VerifyResult&)>;
using DisownDone = std::function<void(int error)>;
using GrowDone = std::function<void(int error)>;
using ControlDone = std::function<void(const ControlResult&)>;

// The names that operators search the log for.
spdlog::level::level_enum level_of(Notice::Kind kind) {
  switch (kind) {
    case Notice::Kind::cache_error:
    case Notice::Kind::damaged:
      return spdlog::level::err;
    case Notice::Kind::copy_failed:
    case Notice::Kind::name_ignored:
    case Notice::Kind::cache_health:
    case Notice::Kind::source_health:
    case Notice::Kind::pin_dropped:
      return spdlog::level::warn;
    default:
      return spdlog::level::info;
  }
}

}  // namespace

class Runtime::Impl final : private Host {
 public:
  explicit Impl(const Options& options)
      : options_(options),
        io_(std::make_unique<PosixIo>(control_, io_options(options),
                                      [this](Completion completion) {
                                        engine_.complete(PosixIo::now(), std::move(completion));
                                        wake_when_due();
                                      })),
        engine_(options.engine, *io_, *this),
        ticker_(control_),
        waker_(control_) {
    // Posted first, so that nothing reaches the engine before it has started.
    boost::asio::post(control_, [this] {
      engine_.start(PosixIo::now());
      tick();
    });
    thread_ = std::thread([this] { run(); });
  }

  ~Impl() { stop(std::chrono::seconds(0)); }

  void open(OpenEvent event, OpenDone done) {
    send([this, event = std::move(event), done = std::move(done)]() mutable {
      opens_.emplace(event.handle, std::move(done));
      handle(std::move(event));
    });
  }

  void close(HandleId handle_id) {
    send([this, handle_id] {
      opens_.erase(handle_id);
      handle(CloseEvent{handle_id});
    });
  }

  void read(ReadEvent event, ReadDone done) {
    send([this, event, done = std::move(done)]() mutable {
      event.token = ReadToken{++last_token_};
      reads_.emplace(event.token, std::move(done));
      handle(event);
    });
  }

  void cache_fault(HandleId handle_id, int error) {
    send([this, handle_id, error] { handle(CacheFaultEvent{handle_id, error}); });
  }

  void warm(WarmEvent event, WarmDone done) {
    send([this, event = std::move(event), done = std::move(done)]() mutable {
      event.token = WarmToken{++last_token_};
      warms_.emplace(event.token, std::move(done));
      handle(std::move(event));
    });
  }

  VerifyToken verify(std::vector<std::string> paths, VerifyDone done) {
    const VerifyToken token{++last_verify_};
    send([this, token, paths = std::move(paths), done = std::move(done)]() mutable {
      verifies_.emplace(token, std::move(done));
      handle(VerifyEvent{token, std::move(paths)});
    });
    return token;
  }

  template <typename Event>
  void control(Event event, ControlDone done) {
    send([this, event = std::move(event), done = std::move(done)]() mutable {
      event.token = ControlToken{++last_token_};
      controls_.emplace(event.token, std::move(done));
      handle(std::move(event));
    });
  }

  void disown(const FileId& file, DisownDone done) {
    send([this, file, done = std::move(done)]() mutable {
      const DisownToken token{++last_token_};
      disowns_.emplace(token, std::move(done));
      handle(DisownEvent{token, file});
    });
  }

  void grow(HandleId handle_id, std::uint64_t size_bytes, GrowDone done) {
    send([this, handle_id, size_bytes, done = std::move(done)]() mutable {
      const GrowToken token{++last_token_};
      grows_.emplace(token, std::move(done));
      handle(GrowEvent{token, handle_id, size_bytes});
    });
  }

  void rekey(RekeyEvent event) {
    send([this, event = std::move(event)]() mutable { handle(std::move(event)); });
  }

  void source_found(bool is_on_network) {
    send([this, is_on_network] { io_->source_found(is_on_network); });
  }

  EngineStatus set_limit(std::uint64_t bytes) {
    std::promise<EngineStatus> promise;
    send([this, &promise, bytes] {
      handle(LimitEvent{bytes});
      promise.set_value(engine_.status());
    });
    return promise.get_future().get();
  }

  void set_copy_rate(std::uint64_t bytes_per_second) {
    send([this, bytes_per_second] { handle(CopyRateEvent{bytes_per_second}); });
  }

  EngineStatus status() {
    std::promise<EngineStatus> promise;
    send([this, &promise] { promise.set_value(engine_.status()); });
    return promise.get_future().get();
  }

  std::vector<FileReport> files(const FileQuery& query) {
    std::promise<std::vector<FileReport>> promise;
    send([this, &promise, &query] { promise.set_value(engine_.files(query)); });
    return promise.get_future().get();
  }

  [[nodiscard]] const Histogram& copy_time() const { return copy_time_; }

  void stop(std::chrono::nanoseconds patience) {
    if (!thread_.joinable()) return;
    send([this] { handle(StopEvent{}); });
    {
      std::unique_lock lock(mutex_);
      stopped_.wait_for(lock, patience, [this] { return is_stopped_; });
    }
    control_.stop();
    thread_.join();
    replies_.join();
    io_.reset();
  }

 private:
  using Message = std::function<void()>;  // run on the control thread

  static PosixIo::Options io_options(const Options& options) {
    PosixIo::Options result;
    result.source_root = options.source_root;
    result.cache_root = options.cache_root;
    result.source_threads = 2 * options.engine.source_reads_max;  // as many as may be in flight
    result.cache_threads = options.engine.cache_writes_max;
    result.buffers = options.engine.buffers;
    result.block_size_bytes = options.engine.block_size_bytes;
    result.direct_io = options.direct_io;
    if (const auto backends = options.backends) {
      const auto device_of = [backends](const SourcePlace& place) {
        return place.device != 0 ? place.device : backends->device_at(place.path);
      };
      result.may_ask_source = [backends, device_of](const SourcePlace& place) {
        return !backends->is_down(device_of(place));
      };
      result.on_source_answer = [backends, device_of](const SourcePlace& place, int error) {
        backends->answered(device_of(place), error);
      };
    }
    return result;
  }

  void run() {
    control_id_ = std::this_thread::get_id();
    const auto guard = boost::asio::make_work_guard(control_);
    control_.run();
  }

  void tick() {
    ticker_.expires_after(std::chrono::seconds(1));
    ticker_.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      handle(TickEvent{});
      tick();
    });
  }

  void send(Message message) {
    bool must_wake = false;
    {
      std::unique_lock lock(mutex_);
      // The control thread empties the mailbox and must not wait for itself.
      if (std::this_thread::get_id() != control_id_.load()) {
        has_room_.wait(lock, [this] { return mailbox_.size() < kMailboxMax; });
      }
      must_wake = mailbox_.empty();
      mailbox_.push_back(std::move(message));
    }
    if (must_wake) boost::asio::post(control_, [this] { drain(); });
  }

  void drain() {
    std::deque<Message> messages;
    {
      const std::lock_guard lock(mutex_);
      messages.swap(mailbox_);
    }
    has_room_.notify_all();
    for (const Message& message : messages) message();
  }

  void handle(Event event) {
    engine_.handle(PosixIo::now(), std::move(event));
    wake_when_due();
  }

  // A timer that is set already may be early; then it is set again.
  void wake_when_due() {
    const auto at = engine_.wake_at();
    if (!at || (waking_at_ && *waking_at_ <= *at)) return;
    waking_at_ = at;
    const Nanos now = PosixIo::now();
    waker_.expires_after(std::chrono::nanoseconds(*at > now ? *at - now : 0));
    waker_.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      waking_at_.reset();
      handle(WakeEvent{});
    });
  }

  template <typename Map, typename Key>
  static auto take(Map& map, Key key) {
    auto node = map.extract(key);
    NCFS_ASSERT(!node.empty());
    return std::move(node.mapped());
  }

  void on_open(HandleId handle, const OpenResult& result) override { take(opens_, handle)(result); }

  void on_read(ReadToken token, const ReadResult& result) override {
    ReadOutcome outcome;
    outcome.error = result.error;
    std::shared_ptr<const std::byte> memory;
    if (result.kind == ReadResult::Kind::bytes) {
      memory = io_->hold_buffer(result.buffer);
      outcome.bytes = {memory.get() + result.buffer_offset, result.length};
    }
    outcome.residency = result.residency;
    outcome.is_resident = result.kind == ReadResult::Kind::resident;
    boost::asio::post(replies_, [this, token, outcome = std::move(outcome),
                                 done = take(reads_, token), memory = std::move(memory)] {
      done(outcome);
      if (memory) send([this, token] { handle(ReadDoneEvent{token}); });
    });
  }

  void on_warm(WarmToken token, const WarmResult& result) override { take(warms_, token)(result); }

  void on_verify(VerifyToken token, const VerifyResult& result) override {
    take(verifies_, token)(result);
  }

  void on_disowned(DisownToken token, int error) override { take(disowns_, token)(error); }

  void on_grown(GrowToken token, int error) override { take(grows_, token)(error); }

  void on_control(ControlToken token, const ControlResult& result) override {
    take(controls_, token)(result);
  }

  void on_notice(const Notice& notice) override {
    if (notice.duration > 0) copy_time_.add(notice.duration);
    const std::string error = notice.error != 0 ? std::strerror(notice.error) : "";
    const std::string text = fmt::format(
        "{}: {}{}{}{}{}{}", to_string(notice.kind), notice.path, notice.detail.empty() ? "" : ": ",
        notice.detail, notice.bytes > 0 ? fmt::format(", {} bytes", notice.bytes) : std::string(),
        error.empty() ? "" : ": ", error);
    log_event(level_of(notice.kind), to_string(notice.kind), text,
              {{"PATH", notice.path},
               {"REASON", notice.detail},
               {"BYTES", std::to_string(notice.bytes)},
               {"ERROR", error}});
  }

  void on_stopped() override {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    stopped_.notify_all();
  }

  const Options options_;
  boost::asio::io_context control_{1};
  std::unique_ptr<PosixIo> io_;
  Engine engine_;  // control thread only
  boost::asio::steady_timer ticker_;
  boost::asio::steady_timer waker_;
  std::optional<Nanos> waking_at_;  // when that fires; control thread only
  boost::asio::thread_pool replies_{kReplyThreads};

  std::mutex mutex_;
  std::condition_variable has_room_;
  std::condition_variable stopped_;
  std::deque<Message> mailbox_;
  bool is_stopped_ = false;
  std::atomic<std::thread::id> control_id_;
  std::atomic<std::uint64_t> last_verify_{0};
  Histogram copy_time_;

  // Control thread only.
  std::uint64_t last_token_ = 0;
  std::unordered_map<HandleId, OpenDone> opens_;
  std::unordered_map<ReadToken, ReadDone> reads_;
  std::unordered_map<WarmToken, WarmDone> warms_;
  std::unordered_map<VerifyToken, VerifyDone> verifies_;
  std::unordered_map<ControlToken, ControlDone> controls_;
  std::unordered_map<DisownToken, DisownDone> disowns_;
  std::unordered_map<GrowToken, GrowDone> grows_;

  std::thread thread_;  // last: uses everything above
};

Runtime::Runtime(const Options& options) : impl_(std::make_unique<Impl>(options)) {}
Runtime::~Runtime() = default;

void Runtime::open(OpenEvent event, std::function<void(const OpenResult&)> done) {
  impl_->open(std::move(event), std::move(done));
}

void Runtime::close(HandleId handle) {
  impl_->close(handle);
}

void Runtime::read(HandleId handle, ByteRange range, bool skip_cache,
                   std::function<void(const ReadOutcome&)> done) {
  impl_->read({ReadToken{}, handle, range, skip_cache}, std::move(done));
}

void Runtime::cache_fault(HandleId handle, int error) {
  impl_->cache_fault(handle, error);
}

void Runtime::warm(FileHandle source, const SourceState& state, std::string path,
                   std::function<void(const WarmResult&)> done, bool pin, WarmPace pace) {
  impl_->warm({WarmToken{}, source, state, std::move(path), pin, pace}, std::move(done));
}

void Runtime::evict(std::vector<std::string> paths, Nanos idle_min,
                    std::function<void(const ControlResult&)> done) {
  impl_->control(EvictEvent{ControlToken{}, std::move(paths), idle_min}, std::move(done));
}

void Runtime::unpin(std::vector<std::string> paths,
                    std::function<void(const ControlResult&)> done) {
  impl_->control(UnpinEvent{ControlToken{}, std::move(paths)}, std::move(done));
}

void Runtime::set_copy_rate(std::uint64_t bytes_per_second) {
  impl_->set_copy_rate(bytes_per_second);
}

EngineStatus Runtime::set_limit(std::uint64_t bytes) {
  return impl_->set_limit(bytes);
}

VerifyToken Runtime::verify(std::vector<std::string> paths,
                            std::function<void(const VerifyResult&)> done) {
  return impl_->verify(std::move(paths), std::move(done));
}

void Runtime::disown(const FileId& file, std::function<void(int error)> done) {
  impl_->disown(file, std::move(done));
}

void Runtime::grow(HandleId handle, std::uint64_t size_bytes, std::function<void(int error)> done) {
  impl_->grow(handle, size_bytes, std::move(done));
}

void Runtime::rekey(const SourceState& before, const SourceState& after, std::string path) {
  impl_->rekey({before, after, std::move(path)});
}

void Runtime::source_found(bool is_on_network) {
  impl_->source_found(is_on_network);
}

EngineStatus Runtime::status() {
  return impl_->status();
}

std::vector<FileReport> Runtime::files(const FileQuery& query) {
  return impl_->files(query);
}

const Histogram& Runtime::copy_time() const {
  return impl_->copy_time();
}

void Runtime::stop(std::chrono::nanoseconds patience) {
  impl_->stop(patience);
}

}  // namespace ncfs
