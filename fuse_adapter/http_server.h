// HTTP/1.1 on a Unix socket and, if wanted, on a TCP port: the door of the control API.
//
// One thread of its own runs everything, the handler included. It knows nothing of the cache; who
// may ask for what is the handler's affair, who asks is told to it.
//
// Bounds: so many connections for each kind of caller, so that nobody keeps the administrator out;
// kHeaderMax bytes of header and kBodyMax of body per request; deadlines on every transfer and
// every answer. Requests of one connection are answered one after another.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace ncfs {

struct HttpRequest {
  // By the credentials the kernel vouches for (SO_PEERCRED), not by anything sent.
  enum class Caller : std::uint8_t {
    remote,         // over TCP
    user,           // over the Unix socket
    administrator,  // the same, as Options::administrator
  };
  Caller caller{};
  std::string method;
  std::string path;   // as sent, up to a '?'
  std::string query;  // as sent, what follows it
  std::string body;
};

struct HttpReply {
  unsigned status = 200;
  std::string content_type;
  std::string body;
  std::string location;  // not empty: where what was made is found
  std::string allow;     // not empty: the methods that are answered
};

// {"error": message}; the form of every error.
[[nodiscard]] HttpReply http_error(unsigned status, const std::string& message);

class HttpServer {
 public:
  static constexpr std::size_t kRemoteMax = 8;
  static constexpr std::size_t kUsersMax = 16;
  static constexpr std::size_t kAdministratorsMax = 16;
  static constexpr std::size_t kHeaderMax = std::size_t{8} * 1024;
  static constexpr std::size_t kBodyMax = std::size_t{1024} * 1024;  // some thousand paths

  struct Options {
    uid_t administrator = 0;
    // How long a client may take to send a request, the wait for it included, or to take a reply.
    std::chrono::milliseconds client_deadline{30'000};
    // How long the handler may take before the client is told that it has to look again.
    std::chrono::milliseconds reply_deadline{30'000};
  };

  // May be called from any thread, once; without effect when the client or the server is gone.
  using Respond = std::function<void(HttpReply reply)>;
  // Called on the server's thread; must not block for long.
  using Handler = std::function<void(HttpRequest request, Respond respond)>;

  HttpServer(Options options, Handler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Before start(). Empty, or one line that says what failed. Everybody may connect to the socket;
  // its directory is made if missing. A socket left by a process that has died is replaced.
  [[nodiscard]] std::string listen_unix(const std::string& path);
  // `address` is an IP address, port 0 any free one.
  [[nodiscard]] std::string listen_tcp(const std::string& address, std::uint16_t port);
  [[nodiscard]] std::uint16_t tcp_port() const;

  void start();
  // Ends all connections and the thread, removes the socket. The handler is not called after it.
  // Idempotent.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ncfs
