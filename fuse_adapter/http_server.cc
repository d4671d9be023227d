// Everything runs on the thread in io_context::run(), so sessions need no locks. A session is kept
// alive by its pending operations; closing its socket ends them. The only translation unit of the
// daemon that compiles Boost.Beast.
#include "fuse_adapter/http_server.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "io/descriptor.h"

namespace ncfs {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using Caller = HttpRequest::Caller;
using UnixSocket = asio::local::stream_protocol;
using Tcp = asio::ip::tcp;

namespace {

// What all sessions share; outlives the server in the hands of late answers.
struct Context {
  HttpServer::Options options;
  HttpServer::Handler handler;
  asio::io_context io{1};
};

// What is wrong with a request that cannot be understood; nothing if the client is just gone.
std::optional<HttpReply> reason_to_refuse(error_code error) {
  if (error == http::error::body_limit) {
    return http_error(413, fmt::format("the body is longer than {} bytes", HttpServer::kBodyMax));
  }
  if (error == http::error::header_limit) {
    return http_error(431,
                      fmt::format("the header is longer than {} bytes", HttpServer::kHeaderMax));
  }
  const bool is_gone = error == http::error::end_of_stream || error == http::error::partial_message;
  const error_code any_http = http::make_error_code(http::error::end_of_stream);
  if (is_gone || error.category() != any_http.category()) return std::nullopt;
  return http_error(400, fmt::format("not an HTTP request: {}", error.message()));
}

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<Context> context, asio::generic::stream_protocol::socket socket,
          Caller caller)
      : context_(std::move(context)),
        stream_(std::move(socket)),
        patience_(context_->io),
        caller_(caller) {}

  void read() {
    parser_.emplace();
    parser_->header_limit(HttpServer::kHeaderMax);
    parser_->body_limit(HttpServer::kBodyMax);
    stream_.expires_after(context_->options.client_deadline);
    http::async_read(
        stream_, buffer_, *parser_,
        [self = shared_from_this()](error_code error, std::size_t) { self->on_read(error); });
  }

  void reply_and_close(HttpReply reply) {
    closes_ = true;
    write(std::move(reply));
  }

  void close() {
    patience_.cancel();
    error_code ignored;
    stream_.socket().close(ignored);
  }

  [[nodiscard]] Caller caller() const { return caller_; }

 private:
  void on_read(error_code error) {
    if (error) {
      auto refusal = reason_to_refuse(error);
      if (refusal) return reply_and_close(std::move(*refusal));
      return close();
    }
    auto& message = parser_->get();
    closes_ = !message.keep_alive();
    HttpRequest request;
    request.caller = caller_;
    request.method = std::string(message.method_string());
    const std::string target(message.target());
    const std::size_t mark = std::min(target.find('?'), target.size());
    request.path = target.substr(0, mark);
    request.query = mark == target.size() ? "" : target.substr(mark + 1);
    request.body = std::move(message.body());
    const std::uint64_t number = ++asked_;
    patience_.expires_after(context_->options.reply_deadline);
    patience_.async_wait([self = shared_from_this(), number](error_code cancelled) {
      if (cancelled) return;
      self->answer(number, http_error(504, "no answer in time; what was asked for may go on"));
    });
    context_->handler(std::move(request), [context = context_, session = weak_from_this(),
                                           number](HttpReply reply) {
      asio::post(context->io, [session, number, reply = std::move(reply)]() mutable {
        if (const auto self = session.lock()) self->answer(number, std::move(reply));
      });
    });
  }

  // Of what the handler and the deadline say, the first counts.
  void answer(std::uint64_t number, HttpReply reply) {
    if (number != asked_ || answered_ == number || !stream_.socket().is_open()) return;
    answered_ = number;
    patience_.cancel();
    write(std::move(reply));
  }

  void write(HttpReply reply) {
    message_.emplace();
    message_->version(11);
    message_->result(reply.status);
    message_->keep_alive(!closes_);
    if (!reply.content_type.empty()) message_->set(http::field::content_type, reply.content_type);
    if (!reply.location.empty()) message_->set(http::field::location, reply.location);
    if (!reply.allow.empty()) message_->set(http::field::allow, reply.allow);
    message_->body() = std::move(reply.body);
    message_->prepare_payload();
    stream_.expires_after(context_->options.client_deadline);
    http::async_write(stream_, *message_,
                      [self = shared_from_this()](error_code error, std::size_t) {
                        if (error || self->closes_) return self->close();
                        self->read();
                      });
  }

  // First, so that it is destroyed last: the others refer to its io_context.
  const std::shared_ptr<Context> context_;
  boost::beast::basic_stream<asio::generic::stream_protocol> stream_;
  asio::steady_timer patience_;
  const Caller caller_;
  boost::beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  std::optional<http::response<http::string_body>> message_;
  std::uint64_t asked_ = 0;  // requests so far
  std::uint64_t answered_ = 0;
  bool closes_ = false;  // after the reply
};

// Whether somebody listens at `path`, also one too busy to accept.
bool is_in_use(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;  // bind() will tell
  path.copy(address.sun_path, path.size());
  const Descriptor client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
         errno == EAGAIN;
}

// The directory of the socket; only its owner may put sockets there. The error, if any.
std::string make_directory(const std::string& socket_path) {
  const std::string directory = socket_path.substr(0, socket_path.rfind('/'));
  if (mkdir(directory.c_str(), 0755) == 0) {
    // Whatever the umask is.
    if (chmod(directory.c_str(), 0755) == 0) return {};
  } else if (errno == EEXIST) {
    return {};
  }
  return fmt::format("{}: {}", directory, std::strerror(errno));
}

}  // namespace

HttpReply http_error(unsigned status, const std::string& message) {
  const nlohmann::json body = {{"error", message}};
  HttpReply reply;
  reply.status = status;
  reply.content_type = "application/json";
  reply.body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return reply;
}

class HttpServer::Impl {
 public:
  Impl(Options options, Handler handler) : context_(new Context{options, std::move(handler)}) {}

  std::string listen_unix(const std::string& path) {
    if (std::string error = make_directory(path); !error.empty()) return error;
    if (is_in_use(path)) return fmt::format("{}: another daemon listens there", path);
    unlink(path.c_str());
    error_code error;
    unix_.open(UnixSocket(), error);
    if (!error) unix_.bind(UnixSocket::endpoint(path), error);
    // Who asks for what is decided by credentials.
    if (!error && chmod(path.c_str(), 0666) != 0) error = {errno, boost::system::system_category()};
    if (!error) unix_.listen(asio::socket_base::max_listen_connections, error);
    if (!error) {
      socket_path_ = path;
      return {};
    }
    error_code ignored;
    unix_.close(ignored);
    return fmt::format("{}: {}", path, error.message());
  }

  std::string listen_tcp(const std::string& address, std::uint16_t port) {
    error_code error;
    const auto where = asio::ip::make_address(address, error);
    const Tcp::endpoint endpoint(where, port);
    if (!error) tcp_.open(endpoint.protocol(), error);
    if (!error) tcp_.set_option(Tcp::acceptor::reuse_address(true), error);
    if (!error) tcp_.bind(endpoint, error);
    if (!error) tcp_.listen(asio::socket_base::max_listen_connections, error);
    if (!error) return {};
    error_code ignored;
    tcp_.close(ignored);
    return fmt::format("{}:{}: {}", address, port, error.message());
  }

  [[nodiscard]] std::uint16_t tcp_port() const { return tcp_.local_endpoint().port(); }

  void start() {
    if (unix_.is_open()) accept(unix_, unix_retry_);
    if (tcp_.is_open()) accept(tcp_, tcp_retry_);
    thread_ = std::thread([context = context_] { context->io.run(); });
  }

  void stop() {
    if (thread_.joinable()) {
      asio::post(context_->io, [this] {
        error_code ignored;
        unix_.close(ignored);
        tcp_.close(ignored);
        unix_retry_.cancel();
        tcp_retry_.cancel();
        for (const auto& weak : sessions_) {
          if (const auto session = weak.lock()) session->close();
        }
      });
      thread_.join();
    }
    if (!socket_path_.empty()) unlink(std::exchange(socket_path_, {}).c_str());
  }

 private:
  template <typename Acceptor>
  void accept(Acceptor& acceptor, asio::steady_timer& retry) {
    acceptor.async_accept([this, &acceptor, &retry](error_code error, auto socket) {
      if (!acceptor.is_open()) return;
      // Without descriptors accept() fails at once, again and again; clients have to wait.
      if (error) {
        retry.expires_after(std::chrono::milliseconds(100));
        retry.async_wait([this, &acceptor, &retry](error_code) {
          if (acceptor.is_open()) accept(acceptor, retry);
        });
        return;
      }
      const Caller caller = caller_of(socket);
      serve(std::move(socket), caller);
      accept(acceptor, retry);
    });
  }

  [[nodiscard]] Caller caller_of(UnixSocket::socket& socket) const {
    ucred peer{};
    socklen_t length = sizeof peer;
    const int failed = getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &length);
    return failed == 0 && peer.uid == context_->options.administrator ? Caller::administrator
                                                                      : Caller::user;
  }
  [[nodiscard]] Caller caller_of(Tcp::socket&) const { return Caller::remote; }

  void serve(asio::generic::stream_protocol::socket socket, Caller caller) {
    static constexpr std::array kMax = {kRemoteMax, kUsersMax, kAdministratorsMax};
    const std::size_t clients_max = kMax[static_cast<std::size_t>(caller)];
    std::erase_if(sessions_, [](const auto& weak) { return weak.expired(); });
    const auto clients =
        static_cast<std::size_t>(std::ranges::count_if(sessions_, [caller](const auto& weak) {
          const auto session = weak.lock();
          return session && session->caller() == caller;
        }));
    if (clients >= 2 * clients_max) return;  // even refusals are bounded
    const auto session = std::make_shared<Session>(context_, std::move(socket), caller);
    sessions_.push_back(session);
    if (clients < clients_max) return session->read();
    session->reply_and_close(http_error(503, "too many clients are connected already"));
  }

  const std::shared_ptr<Context> context_;
  UnixSocket::acceptor unix_{context_->io};
  Tcp::acceptor tcp_{context_->io};
  asio::steady_timer unix_retry_{context_->io};
  asio::steady_timer tcp_retry_{context_->io};
  std::string socket_path_;
  std::vector<std::weak_ptr<Session>> sessions_;
  std::thread thread_;
};

HttpServer::HttpServer(Options options, Handler handler)
    : impl_(std::make_unique<Impl>(options, std::move(handler))) {}

HttpServer::~HttpServer() {
  stop();
}

std::string HttpServer::listen_unix(const std::string& path) {
  return impl_->listen_unix(path);
}

std::string HttpServer::listen_tcp(const std::string& address, std::uint16_t port) {
  return impl_->listen_tcp(address, port);
}

std::uint16_t HttpServer::tcp_port() const {
  return impl_->tcp_port();
}

void HttpServer::start() {
  impl_->start();
}

void HttpServer::stop() {
  impl_->stop();
}

}  // namespace ncfs
