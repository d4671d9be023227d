// Everything but the warm-ups' walks runs on one thread, the one in io_context::run(), so sessions
// need no locks. A session is kept alive by its pending operations; closing its socket ends them.
#include "fuse_adapter/control_server.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "fuse_adapter/control_json.h"
#include "fuse_adapter/mount_options.h"
#include "io/descriptor.h"

namespace ncfs {

namespace asio = boost::asio;
using boost::system::error_code;
using Protocol = asio::local::stream_protocol;
using Clock = std::chrono::steady_clock;

namespace {

// What all sessions share.
struct Context {
  ControlServer::Options options;
  ControlSubject subject;
  WarmJobs jobs;
  const Clock::time_point started = Clock::now();
  asio::io_context io{1};
};

// Finished warm-ups are noticed this fast; a fraction of what a person notices.
constexpr std::chrono::milliseconds kPollInterval{50};

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<Context> context, Protocol::socket socket)
      : context_(std::move(context)),
        socket_(std::move(socket)),
        deadline_(context_->io),
        poll_(context_->io) {}

  void start() {
    ucred peer{};
    socklen_t length = sizeof peer;
    const int failed = getsockopt(socket_.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &length);
    if (failed != 0 || peer.uid != context_->options.allowed_user) {
      reply_and_close("permission denied: only root may control a cache");
      return;
    }
    read_request();
  }

  void reply_and_close(const std::string& error) {
    closing_ = true;
    reply(error_json(error));
  }

  void close() {
    error_code ignored;
    socket_.close(ignored);
    deadline_.cancel();
    poll_.cancel();
  }

 private:
  // The pending transfer ends with an error once the deadline has passed.
  void arm_deadline() {
    deadline_.expires_after(context_->options.client_deadline);
    deadline_.async_wait([self = shared_from_this()](error_code error) {
      if (!error) self->close();
    });
  }

  void read_request() {
    arm_deadline();
    asio::async_read_until(socket_, asio::dynamic_buffer(input_, ControlServer::kRequestMax), '\n',
                           [self = shared_from_this()](error_code error, std::size_t length) {
                             self->deadline_.cancel();
                             self->on_request(error, length);
                           });
  }

  void on_request(error_code error, std::size_t length) {
    if (error == asio::error::not_found) {
      reply_and_close(
          fmt::format("the request is longer than {} bytes", ControlServer::kRequestMax));
      return;
    }
    if (error) {
      close();
      return;
    }
    const std::string line = input_.substr(0, length - 1);
    input_.erase(0, length);
    ControlRequest request = parse_request(line, context_->subject.mountpoint);
    if (!request.error.empty()) {
      reply(error_json(request.error));
    } else if (request.command == ControlRequest::Command::status) {
      const auto uptime =
          std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - context_->started);
      reply(status_json(context_->subject, uptime, context_->jobs.all()));
    } else if (request.command == ControlRequest::Command::verify) {
      start_verify(std::move(request));
    } else if (request.command == ControlRequest::Command::limit) {
      set_limit(request.size);
    } else if (request.command == ControlRequest::Command::warm) {
      start_warm(std::move(request));
    } else {
      drop(std::move(request));
    }
  }

  void start_verify(ControlRequest request) {
    verified_.reset();
    auto done = [context = context_, session = weak_from_this()](const VerifyResult& result) {
      asio::post(context->io, [session, result] {
        if (const auto self = session.lock()) self->verified_ = result;
      });
    };
    verify_ = context_->subject.verify(std::move(request.paths), std::move(done));
    wait_for_job_ = request.wait;
    last_progress_ = Clock::now();
    follow_verify();
  }

  // As follow_job(). The engine is asked after it got the verification: what it does not know then
  // is done, and the result on its way.
  void follow_verify() {
    const bool is_time =
        !wait_for_job_ || Clock::now() - last_progress_ >= context_->options.progress_interval;
    if (verified_) {
      const VerifyResult result = *std::exchange(verified_, std::nullopt);
      reply(result.is_cancelled ? error_json("the daemon stops, or too many verifications run")
                                : verify_json(result, true));
      return;
    }
    if (is_time) {
      const EngineStatus status = context_->subject.engine_status();
      const auto mine = std::ranges::find(status.verifications, verify_, &VerifyStatus::token);
      if (mine != status.verifications.end()) {
        last_progress_ = Clock::now();
        follows_verify_ = wait_for_job_;
        reply(verify_json(mine->result, !wait_for_job_));
        return;
      }
    }
    poll_.expires_after(kPollInterval);
    poll_.async_wait([self = shared_from_this()](error_code error) {
      if (!error && self->socket_.is_open()) self->follow_verify();
    });
  }

  void set_limit(const std::string& size) {
    const auto parsed = parse_cache_size(size, context_->subject.block_size_bytes);
    if (const auto* error = std::get_if<OptionError>(&parsed)) {
      reply(error_json(error->message));
      return;
    }
    const EngineStatus before = context_->subject.engine_status();
    reply(limit_json(before, context_->subject.set_limit(std::get<std::uint64_t>(parsed))));
  }

  // Eviction and unpinning: the engine answers when the files are gone.
  void drop(ControlRequest request) {
    if (context_->subject.engine_status().is_recovering) {
      reply(error_json("the cache is still being looked through after the start: try again soon"));
      return;
    }
    const bool is_evict = request.command == ControlRequest::Command::evict;
    is_checked_ = false;
    auto done = [context = context_, session = weak_from_this(),
                 is_evict](const ControlResult& result) {
      asio::post(context->io, [session, text = is_evict ? evict_json(result) : unpin_json(result)] {
        if (const auto self = session.lock()) self->on_dropped(text);
      });
    };
    poll_.expires_after(context_->options.check_deadline);
    poll_.async_wait([self = shared_from_this()](error_code error) {
      if (!error) self->on_dropped(error_json("the cache disk does not answer in time"));
    });
    if (is_evict) {
      context_->subject.evict(std::move(request.paths), request.idle_seconds * kSecond,
                              std::move(done));
    } else {
      context_->subject.unpin(std::move(request.paths), std::move(done));
    }
  }

  void on_dropped(const std::string& text) {
    if (std::exchange(is_checked_, true) || !socket_.is_open()) return;
    poll_.cancel();
    reply(text);
  }

  void start_warm(ControlRequest request) {
    wait_for_job_ = request.wait;
    is_checked_ = false;
    auto on_checked = [context = context_, session = weak_from_this()](const std::string& error) {
      asio::post(context->io, [session, error] {
        if (const auto self = session.lock()) self->on_checked(error);
      });
    };
    const auto id =
        context_->jobs.start(std::move(request.paths), std::move(on_checked), request.pin);
    if (!id) {
      reply(error_json(fmt::format("{} warm-ups are running already", WarmJobs::kJobsMax)));
      return;
    }
    job_ = *id;
    poll_.expires_after(context_->options.check_deadline);
    poll_.async_wait([self = shared_from_this()](error_code error) {
      if (!error && !self->is_checked_) self->on_checked("the backend does not answer in time");
    });
  }

  // The paths of the warm-up have been looked at, or this took too long.
  void on_checked(const std::string& error) {
    if (std::exchange(is_checked_, true) || !socket_.is_open()) return;
    poll_.cancel();
    if (!error.empty()) {
      reply(error_json(error));
      return;
    }
    last_progress_ = Clock::now();
    follow_job();
  }

  // Tells of the progress when it is time to, else looks again soon.
  void follow_job() {
    const auto progress = context_->jobs.progress(job_);
    if (!progress) {
      reply(error_json("this warm-up has ended and newer ones have taken its place"));
      return;
    }
    const bool is_final = progress->is_finished() || !wait_for_job_;
    const bool is_time = Clock::now() - last_progress_ >= context_->options.progress_interval;
    if (is_final || is_time) {
      last_progress_ = Clock::now();
      follow_after_reply_ = !is_final;
      reply(warm_json(context_->subject, *progress, is_final));
      return;
    }
    poll_.expires_after(kPollInterval);
    poll_.async_wait([self = shared_from_this()](error_code error) {
      if (!error && self->socket_.is_open()) self->follow_job();
    });
  }

  void reply(std::string text) {
    output_ = std::move(text);
    output_ += '\n';
    arm_deadline();
    asio::async_write(socket_, asio::buffer(output_),
                      [self = shared_from_this()](error_code error, std::size_t) {
                        self->deadline_.cancel();
                        self->on_replied(error);
                      });
  }

  void on_replied(error_code error) {
    if (error || closing_) {
      close();
    } else if (std::exchange(follow_after_reply_, false)) {
      follow_job();
    } else if (std::exchange(follows_verify_, false)) {
      follow_verify();
    } else {
      read_request();
    }
  }

  // First, so that it is destroyed last: the others refer to its io_context.
  const std::shared_ptr<Context> context_;
  Protocol::socket socket_;
  asio::steady_timer deadline_;
  asio::steady_timer poll_;
  std::string input_;
  std::string output_;
  bool closing_ = false;

  // The warm-up in work.
  std::uint64_t job_ = 0;
  bool wait_for_job_ = false;
  bool is_checked_ = false;
  bool follow_after_reply_ = false;
  VerifyToken verify_{};  // the verification in work
  std::optional<VerifyResult> verified_;
  bool follows_verify_ = false;
  Clock::time_point last_progress_;
};

// Whether a daemon listens at `path`, also one too busy to accept.
bool is_in_use(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;  // bind() will tell
  path.copy(address.sun_path, path.size());
  const Descriptor client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
         errno == EAGAIN;
}

// The directory of the socket, for root alone. The error, if any.
std::string make_directory(const std::string& socket_path) {
  const std::string directory = socket_path.substr(0, socket_path.rfind('/'));
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return fmt::format("{}: {}", directory, std::strerror(errno));
  }
  return {};
}

}  // namespace

class ControlServer::Impl {
 public:
  Impl(Options options, ControlSubject subject, WarmTarget warm_target)
      : context_(
            new Context{std::move(options), std::move(subject), WarmJobs(std::move(warm_target))}),
        acceptor_(context_->io) {}

  std::string start() {
    const std::string& path = context_->options.socket_path;
    if (std::string error = make_directory(path); !error.empty()) return error;
    error_code error;
    if (is_in_use(path)) return fmt::format("{}: another daemon listens there", path);
    unlink(path.c_str());
    acceptor_.open(Protocol(), error);
    if (!error) acceptor_.bind(Protocol::endpoint(path), error);
    // The directory keeps everybody out between bind and chmod.
    if (!error && chmod(path.c_str(), 0600) != 0) error = {errno, boost::system::system_category()};
    if (!error) acceptor_.listen(static_cast<int>(kClientsMax), error);
    if (error) return fmt::format("{}: {}", path, error.message());
    accept();
    thread_ = std::thread([context = context_] { context->io.run(); });
    return {};
  }

  void stop(std::chrono::nanoseconds patience) {
    if (thread_.joinable()) {
      asio::post(context_->io, [this] {
        error_code ignored;
        acceptor_.close(ignored);
        retry_.cancel();
        for (const auto& weak : sessions_) {
          if (const auto session = weak.lock()) session->close();
        }
      });
      thread_.join();
      unlink(context_->options.socket_path.c_str());
    }
    context_->jobs.stop(patience);
  }

 private:
  void accept() {
    acceptor_.async_accept([this](error_code error, Protocol::socket socket) {
      if (!acceptor_.is_open()) return;
      // Without descriptors accept() fails at once, again and again; clients have to wait.
      if (error) {
        retry_.expires_after(std::chrono::milliseconds(100));
        retry_.async_wait([this](error_code) {
          if (acceptor_.is_open()) accept();
        });
        return;
      }
      serve(std::move(socket));
      accept();
    });
  }

  void serve(Protocol::socket socket) {
    std::erase_if(sessions_, [](const auto& weak) { return weak.expired(); });
    const auto session = std::make_shared<Session>(context_, std::move(socket));
    if (sessions_.size() >= 2 * kClientsMax) return;  // even refusals are bounded
    const bool is_full = sessions_.size() >= kClientsMax;
    sessions_.push_back(session);
    if (is_full) {
      session->reply_and_close(fmt::format("{} clients are connected already", kClientsMax));
      return;
    }
    session->start();
  }

  const std::shared_ptr<Context> context_;
  Protocol::acceptor acceptor_;
  asio::steady_timer retry_{context_->io};
  std::vector<std::weak_ptr<Session>> sessions_;
  std::thread thread_;
};

ControlServer::ControlServer(Options options, ControlSubject subject, WarmTarget warm_target)
    : impl_(
          std::make_unique<Impl>(std::move(options), std::move(subject), std::move(warm_target))) {}

ControlServer::~ControlServer() {
  stop(std::chrono::nanoseconds(0));
}

std::string ControlServer::start() {
  return impl_->start();
}

void ControlServer::stop(std::chrono::nanoseconds patience) {
  impl_->stop(patience);
}

}  // namespace ncfs
