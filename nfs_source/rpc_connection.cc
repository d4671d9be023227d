#include "nfs_source/rpc_connection.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <random>
#include <system_error>
#include <utility>

namespace ncfs {
namespace {

using Clock = std::chrono::steady_clock;

// Between attempts to connect: a server that has restarted is found within a second.
constexpr std::chrono::milliseconds kPauseMin{20};
constexpr std::chrono::milliseconds kPauseMax{1000};
// How long one attempt may take: twice the first retransmission of a lost SYN, and more.
constexpr std::chrono::seconds kConnectPatience{5};

std::uint32_t word_at(const char* bytes) {
  std::uint32_t value = 0;
  std::memcpy(&value, bytes, sizeof(value));
  return ntohl(value);
}

// A port that only root has, where the server asks for one; any port if there is none.
void bind_to_reserved_port(int socket, int family) {
  constexpr unsigned kFirst = 665;  // below are those of services; RFC 2623, section 2.1
  constexpr unsigned kLast = 1023;
  static thread_local std::minstd_rand random{std::random_device{}()};
  const unsigned count = kLast - kFirst + 1;
  const auto start = static_cast<unsigned>(random() % count);
  for (unsigned index = 0; index < count; ++index) {
    const auto port = htons(static_cast<std::uint16_t>(kFirst + (start + index) % count));
    sockaddr_in ipv4{};
    ipv4.sin_family = AF_INET;
    ipv4.sin_port = port;
    sockaddr_in6 ipv6{};
    ipv6.sin6_family = AF_INET6;
    ipv6.sin6_port = port;
    const bool is_ipv6 = family == AF_INET6;
    const auto* address = is_ipv6 ? reinterpret_cast<const sockaddr*>(&ipv6)
                                  : reinterpret_cast<const sockaddr*>(&ipv4);
    if (::bind(socket, address, is_ipv6 ? sizeof(ipv6) : sizeof(ipv4)) == 0) return;
    if (errno != EADDRINUSE) return;
  }
}

// An errno, or 0 once connected.
int connect_within(int socket, const addrinfo& address, std::chrono::milliseconds patience) {
  if (::connect(socket, address.ai_addr, address.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  pollfd waiting{socket, POLLOUT, 0};
  if (::poll(&waiting, 1, static_cast<int>(patience.count())) <= 0) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof(error);
  return ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

void set_option(int socket, int level, int name, int value) {
  // Without it the connection works as well, if less well.
  ::setsockopt(socket, level, name, &value, sizeof(value));
}

// Whether all came.
bool receive(int socket, std::span<char> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::recv(socket, bytes.data(), bytes.size(), MSG_WAITALL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return true;
}

}  // namespace

RpcConnection::RpcConnection(std::string server, std::uint16_t port,
                             std::chrono::milliseconds silence)
    : server_(std::move(server)), port_(port), silence_(silence) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { live(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

RpcConnection::~RpcConnection() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
    if (socket_.is_open()) ::shutdown(socket_.get(), SHUT_RDWR);
  }
  stopped_.notify_all();
  thread_.join();
}

void RpcConnection::start(RpcCall& call) {
  std::unique_lock lock(mutex_);
  const auto can_send = [&] { return socket_.is_open() && !is_sending_; };
  if (!can_send_.wait_until(lock, call.deadline, can_send)) {
    call.error = !socket_.is_open() && last_error_ != 0 ? last_error_ : ETIMEDOUT;
    call.state = RpcCall::State::failed;
    return;
  }
  call.state = RpcCall::State::waiting;
  call.received_before = received_.load(std::memory_order_relaxed);
  waiting_.emplace(call.id, &call);
  calls_.store(waiting_.size(), std::memory_order_relaxed);
  is_sending_ = true;
  const int socket = socket_.get();
  lock.unlock();
  // Where sending fails the connection is lost, and finish() tells.
  if (!send_all(socket, call.sent.view(), call.deadline)) ::shutdown(socket, SHUT_RDWR);
  lock.lock();
  is_sending_ = false;
  has_sent_.notify_one();
  can_send_.notify_one();
}

void RpcConnection::finish(RpcCall& call) {
  std::unique_lock lock(mutex_);
  const auto is_over = [&] { return call.state != RpcCall::State::waiting; };
  if (call.changed.wait_until(lock, call.deadline, is_over)) return;
  waiting_.erase(call.id);
  calls_.store(waiting_.size(), std::memory_order_relaxed);
  call.state = RpcCall::State::failed;
  call.error = ETIMEDOUT;
  // A connection that has been silent all the time may have died without notice.
  if (call.received_before == received_.load(std::memory_order_relaxed) && socket_.is_open()) {
    ::shutdown(socket_.get(), SHUT_RDWR);
  }
}

std::string RpcConnection::last_error() const {
  const std::lock_guard lock(mutex_);
  return last_error_text_;
}

void RpcConnection::live() {
  pthread_setname_np(pthread_self(), "nfs-connection");
  auto pause = kPauseMin;
  while (true) {
    Descriptor socket = connect_once();
    if (socket.is_open()) {
      pause = kPauseMin;
      const int descriptor = socket.get();
      {
        const std::lock_guard lock(mutex_);
        if (is_stopping_) return;
        socket_ = std::move(socket);
        is_connected_.store(true, std::memory_order_relaxed);
      }
      can_send_.notify_all();
      receive_all(descriptor);
      lose_calls();
    }
    std::unique_lock lock(mutex_);
    if (stopped_.wait_for(lock, pause, [&] { return is_stopping_; })) return;
    pause = std::min(2 * pause, kPauseMax);
  }
}

Descriptor RpcConnection::connect_once() {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  // Each time, as the server may have moved.
  const std::string port = std::to_string(port_);
  if (const int problem = ::getaddrinfo(server_.c_str(), port.c_str(), &hints, &found);
      problem != 0) {
    tell_error(EHOSTUNREACH, ::gai_strerror(problem));
    return {};
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, ::freeaddrinfo);
  int error = EHOSTUNREACH;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    Descriptor socket(::socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket.is_open()) {
      error = errno;
      continue;
    }
    bind_to_reserved_port(socket.get(), address->ai_family);
    error = connect_within(socket.get(), *address, kConnectPatience);
    if (error != 0) continue;
    ::fcntl(socket.get(), F_SETFL, 0);  // receives block
    set_option(socket.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(socket.get(), SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(socket.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(silence_.count()));
    return socket;
  }
  tell_error(error, std::strerror(error));
  return {};
}

void RpcConnection::receive_all(int socket) {
  while (true) {
    RpcMessage message =
        receive_message([&](std::span<char> bytes) { return receive(socket, bytes); });
    if (message.size < sizeof(std::uint32_t)) return;
    deliver(std::move(message));
  }
}

void RpcConnection::deliver(RpcMessage message) {
  received_.fetch_add(1, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  const auto call = waiting_.find(word_at(message.bytes.get()));
  if (call == waiting_.end()) return;  // its deadline has passed
  call->second->reply = std::move(message);
  call->second->state = RpcCall::State::answered;
  call->second->changed.notify_one();
  waiting_.erase(call);
  calls_.store(waiting_.size(), std::memory_order_relaxed);
}

void RpcConnection::lose_calls() {
  // By a reset: who is sending stops, and neither side keeps the ports of a connection that nobody
  // misses, of which there are few and which a server that restarts may have to wait for.
  sockaddr nobody{};
  nobody.sa_family = AF_UNSPEC;
  if (::connect(socket_.get(), &nobody, sizeof(nobody)) != 0) {
    ::shutdown(socket_.get(), SHUT_RDWR);
  }
  std::unique_lock lock(mutex_);
  has_sent_.wait(lock, [&] { return !is_sending_; });
  socket_.reset();
  is_connected_.store(false, std::memory_order_relaxed);
  last_error_ = ECONNRESET;
  last_error_text_ = std::strerror(ECONNRESET);
  for (const auto& [id, call] : waiting_) {
    call->state = RpcCall::State::lost;
    call->changed.notify_one();
  }
  waiting_.clear();
  calls_.store(0, std::memory_order_relaxed);
  if (!is_stopping_) spdlog::warn("NFS_CONNECTION: {}:{}: connection lost", server_, port_);
}

bool RpcConnection::send_all(int socket, std::span<const char> bytes, RpcCall::Deadline deadline) {
  std::uint32_t mark = htonl(static_cast<std::uint32_t>(bytes.size()) | kLastFragment);
  std::array<iovec, 2> parts{iovec{&mark, sizeof(mark)},
                             iovec{const_cast<char*>(bytes.data()), bytes.size()}};
  std::span<iovec> left(parts);
  while (!left.empty()) {
    msghdr message{};
    message.msg_iov = left.data();
    message.msg_iovlen = left.size();
    ssize_t count = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      const auto patience =
          std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
      pollfd waiting{socket, POLLOUT, 0};
      if (patience <= 0 || ::poll(&waiting, 1, static_cast<int>(patience)) == 0) return false;
      continue;
    }
    if (count < 0) return false;
    while (!left.empty() && count >= static_cast<ssize_t>(left.front().iov_len)) {
      count -= static_cast<ssize_t>(left.front().iov_len);
      left = left.subspan(1);
    }
    if (!left.empty()) {
      left.front().iov_base = static_cast<char*>(left.front().iov_base) + count;
      left.front().iov_len -= static_cast<std::size_t>(count);
    }
  }
  return true;
}

void RpcConnection::tell_error(int error, std::string text) {
  const std::lock_guard lock(mutex_);
  if (last_error_text_ != text && !is_stopping_) {
    spdlog::warn("NFS_CONNECTION: {}:{}: {}", server_, port_, text);
  }
  last_error_ = error;
  last_error_text_ = std::move(text);
}

}  // namespace ncfs
