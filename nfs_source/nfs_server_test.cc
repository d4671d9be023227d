// What no real server sends.
#include "nfs_source/nfs_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <string>
#include <thread>

#include "io/descriptor.h"

namespace ncfs {
namespace {

using namespace std::chrono_literals;

std::string words(std::initializer_list<std::uint32_t> values) {
  std::string text;
  for (const std::uint32_t value : values) {
    const std::uint32_t word = htonl(value);
    text.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  return text;
}

// Takes connections one after the other and answers each call with what it is told to, as it is.
class OddServer {
 public:
  // `reply` gets the id of the call; if it returns nothing the connection is closed.
  explicit OddServer(std::function<std::string(std::uint32_t id)> reply)
      : reply_(std::move(reply)), socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(socket_.get(), 16), 0);
    EXPECT_EQ(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { live(); });
  }
  ~OddServer() {
    is_ending_ = true;
    ::shutdown(socket_.get(), SHUT_RDWR);
    if (const int now = connection_.load(); now >= 0) ::shutdown(now, SHUT_RDWR);
    thread_.join();
  }

  [[nodiscard]] NfsUrl url() const {
    NfsUrl url;
    url.server = "127.0.0.1";
    url.port = port_;
    url.path = {"data"};
    url.connections = 1;
    return url;
  }
  [[nodiscard]] int calls() const { return calls_; }

 private:
  void live() {
    while (!is_ending_) {
      const Descriptor connection(::accept(socket_.get(), nullptr, nullptr));
      if (!connection.is_open()) return;
      connection_ = connection.get();
      while (!is_ending_ && answer(connection.get())) {
      }
      connection_ = -1;
    }
  }
  bool answer(int connection) {
    std::uint32_t mark = 0;
    if (::recv(connection, &mark, sizeof(mark), MSG_WAITALL) != sizeof(mark)) return false;
    std::string call(ntohl(mark) & 0x7fff'ffffU, '\0');
    if (::recv(connection, call.data(), call.size(), MSG_WAITALL) != std::ssize(call)) return false;
    ++calls_;
    std::uint32_t id = 0;
    std::memcpy(&id, call.data(), sizeof(id));
    const std::string reply = reply_(ntohl(id));
    return !reply.empty() &&
           ::send(connection, reply.data(), reply.size(), MSG_NOSIGNAL) == std::ssize(reply);
  }

  const std::function<std::string(std::uint32_t id)> reply_;
  const Descriptor socket_;
  std::uint16_t port_ = 0;
  std::atomic<bool> is_ending_{false};
  std::atomic<int> connection_{-1};
  std::atomic<int> calls_{0};
  std::thread thread_;
};

std::string record(const std::string& bytes) {
  return words({0x8000'0000U | static_cast<std::uint32_t>(bytes.size())}) + bytes;
}

int find_root(OddServer& odd, std::chrono::milliseconds timeout) {
  NfsServer server(odd.url(), timeout);
  NfsServer::Found root;
  return server.find_root(root);
}

// One reply each, of which all is as it should be but one thing.
TEST(NfsServer, RepliesThatMakeNoSenseAreErrors) {
  const std::vector<std::string> after_id = {
      "",                                             // nothing
      words({0}),                                     // a call
      words({1, 1, 1, 1}),                            // denied
      words({1, 0, 0, 0xffff'ffff}),                  // an endless verifier
      words({1, 0, 0, 0x8000'0000, 0, 0, 0, 0}),      // one that is negative if one is careless
      words({1, 0, 0, 0, 2, 4, 4}),                   // another version of NFS
      words({1, 0, 0, 0, 0}),                         // no status
      words({1, 0, 0, 0, 0, 0, 0xffff'ffff}),         // an endless tag
      words({1, 0, 0, 0, 0, 0, 0, 0xffff'ffff}),      // very many operations, all missing
      words({1, 0, 0, 0, 0, 0, 0, 4, 24, 0, 15, 0}),  // two of four
      words({1, 0, 0, 0, 0, 0, 0, 4, 24, 0, 15, 0, 10, 0, 0xffff'fff0}),  // an endless handle
      words({1, 0, 0, 0, 0, 0, 0, 4, 24, 0, 15, 0, 10, 0, 4, 7, 9, 0, 0xffff'ffff}),  // attributes
      words({1, 0, 0, 0, 0, 0, 0, 4, 24, 0, 15, 0, 10, 0, 4, 7, 9, 0, 1, 2, 0xffff'ffff, 0}),
      words(
          {1, 0, 0, 0, 0, 0, 0, 4, 24, 0, 15, 0, 10, 0, 4, 7, 9, 0, 1, 2, 4, 99}),  // no such kind
      words({1, 0, 0, 0, 0, 123456}),  // an unknown status
  };
  for (std::size_t index = 0; index < after_id.size(); ++index) {
    OddServer odd([&](std::uint32_t id) { return record(words({id}) + after_id[index]); });
    EXPECT_NE(find_root(odd, 10s), 0) << index;
    EXPECT_EQ(odd.calls(), 1) << index;
  }
}

// What is no message at all ends the connection, and the call is made again until its deadline.
TEST(NfsServer, BrokenFramesEndTheConnection) {
  const std::vector<std::string> frames = {
      words({0x8000'0000}),                         // empty
      words({0x8000'0002, 0x1234'0000}),            // less than an id
      words({0xffff'ffff}) + std::string(64, 'x'),  // 2 GiB
      words({4, 0x1234, 0}),                        // fragments without an end
      "HTTP/1.1 400 Bad Request\r\n\r\n",
      "",
  };
  for (std::size_t index = 0; index < frames.size(); ++index) {
    OddServer odd([&](std::uint32_t) { return frames[index]; });
    EXPECT_NE(find_root(odd, 100ms), 0) << index;
    EXPECT_GE(odd.calls(), 1) << index;
  }
}

TEST(NfsServer, RepliesToNobodyAreIgnored) {
  OddServer odd([](std::uint32_t id) {
    return record(words({id + 1, 1, 0, 0, 0, 0, 0, 0, 0})) +
           record(words({id, 1, 0, 0, 0, 0, NFS4ERR_NOENT, 0, 0}));
  });
  EXPECT_EQ(find_root(odd, 10s), ENOENT);
}

TEST(NfsServer, AMessageMayComeInFragments) {
  OddServer odd([](std::uint32_t id) {
    return words({4, id}) + words({12, 1, 0, 0}) + record(words({0, 0, 2, 0, 0}));
  });
  EXPECT_EQ(find_root(odd, 10s), ENOENT);
}

TEST(NfsServer, ABusyServerIsAskedAgain) {
  std::atomic<int> calls{0};
  OddServer odd([&](std::uint32_t id) {
    const std::uint32_t status = ++calls < 4 ? NFS4ERR_DELAY : NFS4ERR_NOENT;
    return record(words({id, 1, 0, 0, 0, 0, status, 0, 0}));
  });
  EXPECT_EQ(find_root(odd, 10s), ENOENT);
  EXPECT_EQ(calls, 4);
}

// By the id the server knows that it has carried the call out.
TEST(NfsServer, ACallWhoseConnectionIsLostIsSentAgainWithItsId) {
  std::atomic<std::uint32_t> first{0};
  std::atomic<std::uint32_t> second{0};
  OddServer odd([&](std::uint32_t id) {
    if (first == 0) {
      first = id;
      return std::string();
    }
    second = id;
    return record(words({id, 1, 0, 0, 0, 0, NFS4ERR_NOENT, 0, 0}));
  });
  EXPECT_EQ(find_root(odd, 10s), ENOENT);
  EXPECT_EQ(first, second);
}

}  // namespace
}  // namespace ncfs
