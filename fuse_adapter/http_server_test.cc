// Method: a real server, handlers that answer when the test says so, and clients that send bytes as
// they like. Receive timeouts only keep a failing test from hanging.
#include "fuse_adapter/http_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <mutex>
#include <vector>

#include "io/descriptor.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

using Caller = HttpRequest::Caller;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Client {
 public:
  explicit Client(const std::string& path) : socket_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    connect_to(reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  explicit Client(std::uint16_t port) : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connect_to(reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }

  [[nodiscard]] bool is_connected() const { return is_connected_; }

  void send(const std::string& text) {
    std::size_t sent = 0;
    while (sent < text.size()) {
      const ssize_t now =
          ::send(socket_.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (now <= 0) return;
      sent += static_cast<std::size_t>(now);
    }
  }

  // All that comes until `end` or the end of the connection.
  std::string receive(const std::string& end) {
    std::string text;
    while (!text.ends_with(end)) {
      char byte = 0;
      const ssize_t count = recv(socket_.get(), &byte, 1, 0);
      if (count < 0 && errno == EAGAIN) return text + "(silence)";
      if (count <= 0) return text + "(closed)";
      text += byte;
    }
    return text;
  }

 private:
  void connect_to(const sockaddr* address, socklen_t length) {
    is_connected_ = connect(socket_.get(), address, length) == 0;
    const timeval patience{60, 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }

  Descriptor socket_;
  bool is_connected_ = false;
};

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    std::string pattern = ::testing::TempDir() + "ncfs-http-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    path_ = directory_ / "run/server.sock";
    options_.administrator = geteuid();
  }
  ~HttpServerTest() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  // Answers what was asked; "/later" is kept.
  void start() {
    server_ = std::make_unique<HttpServer>(
        options_, [this](HttpRequest request, HttpServer::Respond respond) {
          if (request.path == "/later") {
            const std::lock_guard lock(mutex_);
            kept_.push_back(std::move(respond));
            return;
          }
          HttpReply reply;
          reply.body = fmt::format("{} {} {} {} {};", static_cast<int>(request.caller),
                                   request.method, request.path, request.query, request.body);
          respond(std::move(reply));
        });
    ASSERT_EQ(server_->listen_unix(path_), "");
    ASSERT_EQ(server_->listen_tcp("127.0.0.1", 0), "");
    server_->start();
  }

  std::size_t kept() {
    const std::lock_guard lock(mutex_);
    return kept_.size();
  }

  std::filesystem::path directory_;
  std::string path_;
  HttpServer::Options options_;
  std::unique_ptr<HttpServer> server_;
  std::mutex mutex_;
  std::vector<HttpServer::Respond> kept_;
};

constexpr const char* kGet = "GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n";

TEST_F(HttpServerTest, AnswersSeveralRequestsOfOneConnection) {
  start();
  Client client(path_);
  for (int round = 0; round < 3; ++round) {
    client.send(kGet);
    EXPECT_THAT(client.receive(";"), EndsWith("2 GET /a b=c ;"));
  }
  client.send(std::string(kGet) + "PUT /d HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyz");
  EXPECT_THAT(client.receive("c ;"), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_THAT(client.receive("z;"), EndsWith("2 PUT /d  xyz;"));
}

TEST_F(HttpServerTest, EndsTheConnectionWhenAsked) {
  start();
  Client client(path_);
  client.send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_THAT(client.receive("(never)"), EndsWith("2 GET /  ;(closed)"));
}

TEST_F(HttpServerTest, TellsWhoAsks) {
  options_.administrator = geteuid() + 1;
  start();
  Client user(path_);
  user.send(kGet);
  EXPECT_THAT(user.receive(";"), EndsWith("1 GET /a b=c ;"));
  Client remote(server_->tcp_port());
  remote.send(kGet);
  EXPECT_THAT(remote.receive(";"), EndsWith("0 GET /a b=c ;"));
}

TEST_F(HttpServerTest, EverybodyMayConnectButNotReplaceTheSocket) {
  start();
  struct stat status {};
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0666U);
  ASSERT_EQ(stat((directory_ / "run").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0755U);
}

TEST_F(HttpServerTest, GarbageIsAnErrorAndEndsTheConnection) {
  start();
  for (const std::string garbage :
       {"\r\n\r\n\x01\x02 nonsense\r\n\r\n", "{\"command\":\"status\"}\n\r\n\r\n",
        "GET / HTTP/7.5\r\n\r\n", "GET / HTTP/1.1\r\nContent-Length: minus\r\n\r\n"}) {
    Client client(path_);
    client.send(garbage);
    EXPECT_THAT(client.receive("(never)"),
                ::testing::AllOf(StartsWith("HTTP/1.1 400"), HasSubstr("not an HTTP request"),
                                 EndsWith("(closed)")))
        << garbage;
  }
}

TEST_F(HttpServerTest, BodiesAndHeadersAreBounded) {
  start();
  Client announced(path_);
  announced.send(
      fmt::format("PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", HttpServer::kBodyMax + 1));
  EXPECT_THAT(announced.receive("(never)"),
              ::testing::AllOf(StartsWith("HTTP/1.1 413"), HasSubstr("the body is longer than")));
  Client chunked(path_);
  const std::string chunk = fmt::format("{:x}\r\n{}\r\n", 65536, std::string(65536, 'x'));
  std::string request = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (std::size_t sent = 0; sent <= HttpServer::kBodyMax; sent += 65536) request += chunk;
  chunked.send(request);
  EXPECT_THAT(chunked.receive("}"), StartsWith("HTTP/1.1 413"));
  Client header(path_);
  header.send("GET / HTTP/1.1\r\nX: " + std::string(HttpServer::kHeaderMax, 'x') + "\r\n\r\n");
  EXPECT_THAT(header.receive("}"), StartsWith("HTTP/1.1 431"));
  Client largest(path_);
  largest.send(fmt::format("PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}", HttpServer::kBodyMax,
                           std::string(HttpServer::kBodyMax, 'x')));
  EXPECT_THAT(largest.receive(";"), HasSubstr("200 OK"));
}

TEST_F(HttpServerTest, SlowClientsAreDisconnected) {
  options_.client_deadline = std::chrono::milliseconds(10);
  start();
  EXPECT_EQ(Client(path_).receive("(never)"), "(closed)");
  Client half(path_);
  half.send("GET / HTTP/1.1\r\nHo");
  EXPECT_EQ(half.receive("(never)"), "(closed)");
}

TEST_F(HttpServerTest, ClientsThatLeaveEarlyDoNoHarm) {
  start();
  for (const char* part : {"", "G", "PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc",
                           "GET /later HTTP/1.1\r\n\r\n"}) {
    Client(path_).send(part);
  }
  ASSERT_TRUE(eventually([&] { return kept() > 0; }));
  kept_[0]({});
  Client client(path_);
  client.send(kGet);
  EXPECT_THAT(client.receive(";"), HasSubstr("200 OK"));
}

TEST_F(HttpServerTest, AHandlerThatTakesTooLongIsToldOfAndItsAnswerDropped) {
  options_.reply_deadline = std::chrono::milliseconds(10);
  start();
  Client client(path_);
  client.send("GET /later HTTP/1.1\r\n\r\n");
  EXPECT_THAT(client.receive("}"), StartsWith("HTTP/1.1 504"));
  kept_[0]({200, "", "late.", "", ""});
  client.send("GET /later HTTP/1.1\r\n\r\n");
  EXPECT_THAT(client.receive("}"), StartsWith("HTTP/1.1 504"));
}

TEST_F(HttpServerTest, EachKindOfCallerHasItsOwnPlaces) {
  start();
  std::vector<std::unique_ptr<Client>> clients;
  for (std::size_t index = 0; index < HttpServer::kAdministratorsMax; ++index) {
    clients.push_back(std::make_unique<Client>(path_));
    clients.back()->send(kGet);
    ASSERT_THAT(clients.back()->receive(";"), HasSubstr("200 OK"));
  }
  EXPECT_THAT(Client(path_).receive("}"),
              ::testing::AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("too many clients")));
  Client remote(server_->tcp_port());
  remote.send(kGet);
  EXPECT_THAT(remote.receive(";"), HasSubstr("200 OK"));
}

TEST_F(HttpServerTest, ReplacesTheSocketOfADeadProcessButNotOfALivingOne) {
  start();
  HttpServer second(options_, [](const HttpRequest&, const HttpServer::Respond&) {});
  EXPECT_THAT(second.listen_unix(path_), HasSubstr("another daemon listens there"));
  server_.reset();
  // A socket nobody listens on any more, as kill -9 leaves it.
  const Descriptor dead(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  start();
  EXPECT_TRUE(Client(path_).is_connected());
}

TEST_F(HttpServerTest, StopEndsConnectionsAndTheSocketThoughAnAnswerIsOwed) {
  start();
  Client idle(path_);
  idle.send(kGet);
  idle.receive(";");
  Client waiting(path_);
  waiting.send("GET /later HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return kept() > 0; }));
  server_->stop();
  EXPECT_EQ(idle.receive("(never)"), "(closed)");
  EXPECT_EQ(waiting.receive("(never)"), "(closed)");
  EXPECT_FALSE(std::filesystem::exists(path_));
  server_.reset();
  kept_[0]({});
}

TEST_F(HttpServerTest, PlacesThatCannotBeListenedAtAreClearErrors) {
  start();
  HttpServer other(options_, [](const HttpRequest&, const HttpServer::Respond&) {});
  EXPECT_EQ(other.listen_unix(directory_ / "missing/parent/a.sock"),
            (directory_ / "missing/parent").string() + ": No such file or directory");
  EXPECT_THAT(other.listen_tcp("127.0.0.1", server_->tcp_port()), HasSubstr("in use"));
  EXPECT_THAT(other.listen_tcp("nowhere", 1), StartsWith("nowhere:1: "));
}

}  // namespace
}  // namespace ncfs
