// One TCP connection of ONC RPC (RFC 5531) on which many calls are under way at once.
//
// A thread of its own connects, again and again if need be, and receives; calls are sent by the
// threads that make them. What the server sends is checked: a reply that makes no sense ends the
// connection, which is then made anew.
//
// Any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <thread>

#include "io/descriptor.h"
#include "nfs_source/rpc_message.h"

namespace ncfs {

class RpcConnection;

// One call; its maker keeps it where it is from start() until finish() has returned.
struct RpcCall {
  using Deadline = std::chrono::steady_clock::time_point;

  std::uint32_t id = 0;  // the XID, also the first four bytes of `sent`
  RpcMessage sent;       // without the record mark
  Deadline deadline;

  enum class State : std::uint8_t {
    idle,
    waiting,
    answered,  // `reply` is there
    lost,      // the connection was; the server may have carried the call out
    failed,    // `error` tells why: the deadline has passed
  };
  State state = State::idle;
  int error = 0;
  RpcMessage reply;  // from the XID on

  RpcConnection* connection = nullptr;  // that it was last started on

  std::condition_variable changed;
  std::uint64_t received_before = 0;  // RpcConnection's
};

class RpcConnection {
 public:
  // `silence`: how long a connection on which calls wait may be silent before it is made anew.
  RpcConnection(std::string server, std::uint16_t port, std::chrono::milliseconds silence);
  // No call is under way.
  ~RpcConnection();
  RpcConnection(const RpcConnection&) = delete;
  RpcConnection& operator=(const RpcConnection&) = delete;

  // Waits for the connection and for its turn to send, until the deadline.
  void start(RpcCall& call);
  // Waits for the reply, until the deadline; then the call is answered, lost or failed.
  void finish(RpcCall& call);

  [[nodiscard]] bool is_connected() const { return is_connected_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::size_t calls() const { return calls_.load(std::memory_order_relaxed); }
  // Why it is not connected; empty if it has not been tried.
  [[nodiscard]] std::string last_error() const;

 private:
  void live();
  [[nodiscard]] Descriptor connect_once();
  void receive_all(int socket);
  [[nodiscard]] bool send_all(int socket, std::span<const char> bytes, RpcCall::Deadline deadline);
  void deliver(RpcMessage message);
  void tell_error(int error, std::string text);
  void lose_calls();

  const std::string server_;
  const std::uint16_t port_;
  const std::chrono::milliseconds silence_;
  std::atomic<bool> is_connected_{false};
  std::atomic<std::size_t> calls_{0};
  std::atomic<std::uint64_t> received_{0};  // replies

  mutable std::mutex mutex_;  // of all that follows
  Descriptor socket_;         // changed by the thread of its own only, and while nobody sends
  bool is_sending_ = false;
  std::condition_variable can_send_;
  std::condition_variable has_sent_;
  std::condition_variable stopped_;
  std::map<std::uint32_t, RpcCall*> waiting_;  // by id
  int last_error_ = 0;
  std::string last_error_text_;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace ncfs
