// Method: a real server on a socket in a temporary directory, a client of a few lines, an engine
// that says what the test wants. Receive timeouts only keep a failing test from hanging.
#include "fuse_adapter/control_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>

#include "fuse_adapter/fake_warm_target.h"
#include "io/descriptor.h"

namespace ncfs {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const WarmResult kCopied{WarmResult::Kind::copied, {}, 0};

class Client {
 public:
  explicit Client(const std::string& path) : socket_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    is_connected_ =
        connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    const timeval patience{FakeWarmTarget::kPatience.count(), 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }

  bool is_connected() const { return is_connected_; }

  void send(const std::string& text) {
    std::size_t sent = 0;
    while (sent < text.size()) {
      const ssize_t now =
          ::send(socket_.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (now <= 0) return;
      sent += static_cast<std::size_t>(now);
    }
  }

  // The next line as JSON; "closed" at the end of the connection, "silence" if none comes.
  json receive() {
    while (input_.find('\n') == std::string::npos) {
      char bytes[4096];
      const ssize_t count = recv(socket_.get(), bytes, sizeof bytes, 0);
      if (count < 0 && errno == EAGAIN) return "silence";
      if (count <= 0) return "closed";
      input_.append(bytes, static_cast<std::size_t>(count));
    }
    const std::size_t end = input_.find('\n');
    json reply = json::parse(input_.substr(0, end), nullptr, false);
    input_.erase(0, end + 1);
    return reply;
  }

  json ask(const std::string& request) {
    send(request + "\n");
    return receive();
  }

 private:
  Descriptor socket_;
  std::string input_;
  bool is_connected_ = false;
};

class ControlServerTest : public ::testing::Test {
 protected:
  ControlServerTest() {
    std::string pattern = ::testing::TempDir() + "ncfs-control-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    options_.socket_path = directory_ / "run/mount.sock";
    options_.allowed_user = geteuid();
    options_.progress_interval = std::chrono::milliseconds(1);
    engine_.limit_bytes = 1000;
    engine_.used_bytes = 600;
  }
  ~ControlServerTest() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  ControlSubject subject() {
    ControlSubject subject;
    subject.mountpoint = "/mnt/cached";
    subject.backend = "/mnt/nfs";
    subject.version = "1.2.3";
    subject.passthrough_detail = "switched off";
    subject.engine_status = [this] { return engine_; };
    subject.verify = [this](std::vector<std::string> paths, auto done) {
      const std::lock_guard lock(verify_mutex_);
      verify_paths_ = std::move(paths);
      verify_done_ = std::move(done);
      return VerifyToken{7};
    };
    subject.now = [] { return Nanos{10 * kSecond}; };
    subject.adapter_stats = &stats_;
    return subject;
  }

  std::string start() {
    server_ = std::make_unique<ControlServer>(options_, subject(), fake_.target());
    return server_->start();
  }

  Client client() { return Client(options_.socket_path); }

  std::filesystem::path directory_;
  FakeWarmTarget fake_{::testing::TempDir()};
  EngineStatus engine_;
  std::mutex verify_mutex_;
  std::vector<std::string> verify_paths_;
  std::function<void(const VerifyResult&)> verify_done_;
  AdapterStats stats_;
  ControlServer::Options options_;
  std::unique_ptr<ControlServer> server_;
};

TEST_F(ControlServerTest, StatusTellsMountCacheAndCounters) {
  engine_.copies.push_back({"models/big", 1000, 600, 6 * kSecond, 200});
  stats_.opens_hit.add(3);
  stats_.opens_miss.add(1);
  stats_.cache_bytes.add(30);
  stats_.source_bytes.add(10);
  ASSERT_EQ(start(), "");
  const json status = client().ask(R"({"command":"status"})");
  EXPECT_EQ(status["ok"], true);
  EXPECT_EQ(status["state"], "running");
  EXPECT_EQ(status["mountpoint"], "/mnt/cached");
  EXPECT_EQ(status["version"], "1.2.3");
  EXPECT_EQ(status["pid"], getpid());
  EXPECT_EQ(status["cache"]["limit_bytes"], 1000);
  EXPECT_EQ(status["cache"]["used_bytes"], 600);
  EXPECT_EQ(status["opens"]["hit_ratio"], 0.75);
  EXPECT_EQ(status["reads_by_daemon"]["hit_ratio"], 0.75);
  EXPECT_EQ(status["passthrough"]["detail"], "switched off");
  const json copy = status["copies"]["in_progress"][0];
  EXPECT_EQ(copy["path"], "models/big");
  EXPECT_EQ(copy["bytes_per_second"], 100.0);  // 400 bytes in 4 s, those resumed not counted
  EXPECT_EQ(copy["eta_seconds"], 4.0);
}

TEST_F(ControlServerTest, StatusTellsWhatFails) {
  ASSERT_EQ(start(), "");
  json health = client().ask(R"({"command":"status"})")["health"];
  EXPECT_EQ(health["cache_disk"]["state"], "normal");
  EXPECT_TRUE(health["cache_disk"]["reason"].is_null());
  EXPECT_TRUE(health["copying"]["paused_by"].is_null());

  engine_.cache_health = {HealthState::down, "it burns", EIO, 4 * kSecond, 2, 13 * kSecond};
  health = client().ask(R"({"command":"status"})")["health"];
  EXPECT_EQ(health["cache_disk"]["state"], "down");
  EXPECT_EQ(health["cache_disk"]["reason"], "it burns");
  EXPECT_EQ(health["cache_disk"]["last_error"], "Input/output error");
  EXPECT_EQ(health["cache_disk"]["seconds"], 6.0);
  EXPECT_EQ(health["cache_disk"]["next_probe_seconds"], 3.0);
  EXPECT_EQ(health["copying"]["paused_by"], "cache disk");

  engine_.cache_health = {};
  engine_.is_source_resting = true;
  engine_.source_error = ETIMEDOUT;
  engine_.next_copy_try_at = 18 * kSecond;
  health = client().ask(R"({"command":"status"})")["health"];
  EXPECT_EQ(health["copying"]["paused_by"], "backend");
  EXPECT_EQ(health["copying"]["last_error"], "Connection timed out");
  EXPECT_EQ(health["copying"]["next_try_seconds"], 8.0);
}

TEST_F(ControlServerTest, RatiosOfNothingAreNullAndRecoveryIsTold) {
  engine_.is_recovering = true;
  ASSERT_EQ(start(), "");
  const json status = client().ask(R"({"command":"status"})");
  EXPECT_EQ(status["state"], "recovering");
  EXPECT_TRUE(status["opens"]["hit_ratio"].is_null());
}

TEST_F(ControlServerTest, FileNamesThatAreNoTextAreShownAllTheSame) {
  engine_.copies.push_back({"bad\xff name", 10, 5, 0, 0});
  ASSERT_EQ(start(), "");
  const json status = client().ask(R"({"command":"status"})");
  EXPECT_EQ(status["copies"]["in_progress"][0]["path"], "bad\xef\xbf\xbd name");
}

TEST_F(ControlServerTest, MalformedRequestsAreErrorsAndTheConnectionGoesOn) {
  ASSERT_EQ(start(), "");
  Client peer = client();
  for (const char* request :
       {"", "{", "[]", "nonsense", R"({"command":7})", R"({"command":"format"})", "{}",
        R"({"command":"warm"})", R"({"command":"warm","paths":[]})",
        R"({"command":"warm","paths":"/mnt/cached"})", R"({"command":"warm","paths":[7]})",
        R"({"command":"warm","paths":["/mnt/cached"],"wait":"yes"})"}) {
    const json reply = peer.ask(request);
    ASSERT_TRUE(reply.is_object()) << request << " -> " << reply;
    EXPECT_EQ(reply["ok"], false) << request;
    EXPECT_FALSE(reply["error"].get<std::string>().empty());
  }
  EXPECT_EQ(peer.ask(R"({"command":"status"})")["ok"], true);
}

TEST_F(ControlServerTest, AnEndlessRequestIsCutOff) {
  ASSERT_EQ(start(), "");
  Client peer = client();
  peer.send(std::string(ControlServer::kRequestMax + 1, ' '));
  EXPECT_THAT(peer.receive()["error"].get<std::string>(), HasSubstr("longer than"));
  EXPECT_EQ(peer.receive(), "closed");
}

TEST_F(ControlServerTest, OtherUsersAreRefused) {
  options_.allowed_user = geteuid() + 1;
  ASSERT_EQ(start(), "");
  Client peer = client();
  EXPECT_THAT(peer.receive()["error"].get<std::string>(), HasSubstr("permission denied"));
  EXPECT_EQ(peer.receive(), "closed");
}

TEST_F(ControlServerTest, SocketAndDirectoryArePrivate) {
  ASSERT_EQ(start(), "");
  struct stat status {};
  ASSERT_EQ(stat(options_.socket_path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600U);
  ASSERT_EQ(stat((directory_ / "run").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700U);
}

TEST_F(ControlServerTest, OneClientTooManyIsTurnedAwayWithAReason) {
  ASSERT_EQ(start(), "");
  std::vector<std::unique_ptr<Client>> clients;
  for (std::size_t index = 0; index < ControlServer::kClientsMax; ++index) {
    clients.push_back(std::make_unique<Client>(options_.socket_path));
    ASSERT_EQ(clients.back()->ask(R"({"command":"status"})")["ok"], true);
  }
  EXPECT_THAT(client().receive()["error"].get<std::string>(), HasSubstr("clients are connected"));
}

TEST_F(ControlServerTest, ASilentClientIsDisconnected) {
  options_.client_deadline = std::chrono::milliseconds(10);
  ASSERT_EQ(start(), "");
  EXPECT_EQ(client().receive(), "closed");
}

TEST_F(ControlServerTest, WarmingWithWaitTellsProgressAndThenTheTotals) {
  fake_.write("models/a", 100);
  fake_.write("models/b", 200);
  ASSERT_EQ(start(), "");
  Client peer = client();
  peer.send("{\"command\":\"warm\",\"paths\":[\"/mnt/cached/models/\"],\"wait\":true}\n");
  ASSERT_TRUE(fake_.wait_for(2));
  fake_.answer("models/a", kCopied);
  json reply = peer.receive();
  while (reply.is_object() && reply["job"]["copied"]["files"] == 0) reply = peer.receive();
  EXPECT_EQ(reply["type"], "warm");
  EXPECT_EQ(reply["final"], false);
  EXPECT_EQ(reply["job"]["copied"]["bytes"], 100);
  fake_.answer("models/b", kCopied);
  while (reply.is_object() && reply["final"] == false) reply = peer.receive();
  EXPECT_EQ(reply["final"], true);
  EXPECT_EQ(reply["job"]["state"], "done");
  EXPECT_EQ(reply["job"]["found"]["bytes"], 300);
  EXPECT_EQ(reply["job"]["copied"]["files"], 2);
  EXPECT_EQ(peer.ask(R"({"command":"status"})")["ok"], true);
}

TEST_F(ControlServerTest, WarmingWithoutWaitReturnsAtOnceAndStatusShowsTheJob) {
  fake_.write("a", 100);
  ASSERT_EQ(start(), "");
  Client peer = client();
  const json reply = peer.ask(R"({"command":"warm","paths":["/mnt/cached"]})");
  EXPECT_EQ(reply["ok"], true);
  EXPECT_EQ(reply["final"], true);
  ASSERT_TRUE(fake_.wait_for(1));
  const json jobs = peer.ask(R"({"command":"status"})")["warm_jobs"];
  ASSERT_EQ(jobs.size(), 1U);
  EXPECT_EQ(jobs[0]["id"], reply["job"]["id"]);
  EXPECT_NE(jobs[0]["state"], "done");
  fake_.answer_all(kCopied);
}

TEST_F(ControlServerTest, VerifyingTellsProgressAndThenTheTotals) {
  VerifyStatus running;
  running.token = VerifyToken{7};
  running.result.found = {2, 3000};
  running.result.bytes_verified = 1000;
  engine_.verifications = {running};
  ASSERT_EQ(start(), "");
  Client waiting = client();
  const json progress =
      waiting.ask(R"({"command":"verify","paths":["/mnt/cached/models"],"wait":true})");
  EXPECT_EQ(progress["type"], "verify");
  EXPECT_EQ(progress["final"], false);
  EXPECT_EQ(progress["job"]["bytes_verified"], 1000);
  {
    const std::lock_guard lock(verify_mutex_);
    EXPECT_EQ(verify_paths_, std::vector<std::string>{"models"});
    VerifyResult result = running.result;
    result.intact = {1, 1000};
    result.damaged = {1, 2000};
    verify_done_(result);
  }
  json last = waiting.receive();
  while (last.is_object() && last["final"] == false) last = waiting.receive();
  EXPECT_EQ(last["job"]["damaged"]["files"], 1);
  EXPECT_EQ(last["job"]["intact"]["bytes"], 1000);
  // Without wait the first word is the last.
  const json started = client().ask(R"({"command":"verify"})");
  EXPECT_EQ(started["final"], true);
  EXPECT_EQ(started["job"]["found"]["files"], 2);
  const json status = client().ask(R"({"command":"status"})");
  EXPECT_EQ(status["integrity"]["verifications"][0]["found"]["bytes"], 3000);
}

TEST_F(ControlServerTest, AVerificationThatIsRefusedIsAnError) {
  ASSERT_EQ(start(), "");
  Client waiting = client();
  waiting.send(R"({"command":"verify","wait":true})"
               "\n");
  const auto deadline = std::chrono::steady_clock::now() + FakeWarmTarget::kPatience;
  std::function<void(const VerifyResult&)> done;
  while (!done && std::chrono::steady_clock::now() < deadline) {
    const std::lock_guard lock(verify_mutex_);
    done = verify_done_;
  }
  ASSERT_TRUE(done);
  VerifyResult refused;
  refused.is_cancelled = true;
  done(refused);
  EXPECT_EQ(waiting.receive()["ok"], false);
}

TEST_F(ControlServerTest, PathsThatAreNotInTheMountOrDoNotExistAreErrors) {
  fake_.write("a", 100);
  ASSERT_EQ(start(), "");
  Client peer = client();
  const auto error = [&](const std::string& path) {
    const json reply = peer.ask(json{{"command", "warm"}, {"paths", {path}}}.dump());
    return reply.value("error", "(no error)");
  };
  EXPECT_THAT(error("/etc/passwd"), HasSubstr("not beneath the mount point /mnt/cached"));
  EXPECT_THAT(error("/mnt/cached/../other"), HasSubstr("not beneath"));
  EXPECT_THAT(error("/mnt/cachedx"), HasSubstr("not beneath"));
  EXPECT_THAT(error("a"), HasSubstr("not beneath"));
  EXPECT_EQ(error("/mnt/cached/nothing"), "nothing: No such file or directory");
}

TEST_F(ControlServerTest, AClientThatGoesAwayDoesNotEndItsWarmUp) {
  fake_.write("a", 100);
  ASSERT_EQ(start(), "");
  {
    Client peer = client();
    peer.send("{\"command\":\"warm\",\"paths\":[\"/mnt/cached\"],\"wait\":true}\n");
    ASSERT_TRUE(fake_.wait_for(1));
  }
  Client other = client();
  EXPECT_EQ(other.ask(R"({"command":"status"})")["warm_jobs"][0]["state"] == "cancelled", false);
  fake_.answer_all(kCopied);
  json job;
  do {
    job = other.ask(R"({"command":"status"})")["warm_jobs"][0];
  } while (job["state"] != "done" && !job.is_null());
  EXPECT_EQ(job["copied"]["files"], 1);
}

TEST_F(ControlServerTest, ReplacesTheSocketOfADeadDaemonButNotOfALivingOne) {
  ASSERT_EQ(start(), "");
  ControlServer second(options_, subject(), fake_.target());
  EXPECT_THAT(second.start(), HasSubstr("another daemon listens there"));
  EXPECT_EQ(client().ask(R"({"command":"status"})")["ok"], true);
  // A socket nobody listens on any more, as kill -9 leaves it.
  server_.reset();
  const Descriptor dead(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  options_.socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(start(), "");
  EXPECT_EQ(client().ask(R"({"command":"status"})")["ok"], true);
}

TEST_F(ControlServerTest, StopEndsConnectionsWarmUpsAndTheSocket) {
  fake_.write("a", 100);
  ASSERT_EQ(start(), "");
  Client idle = client();
  Client warming = client();
  warming.send("{\"command\":\"warm\",\"paths\":[\"/mnt/cached\"],\"wait\":true}\n");
  ASSERT_TRUE(fake_.wait_for(1));
  server_->stop(FakeWarmTarget::kPatience);
  EXPECT_EQ(idle.receive(), "closed");
  json last = warming.receive();
  while (last.is_object()) last = warming.receive();
  EXPECT_EQ(last, "closed");
  EXPECT_FALSE(client().is_connected());
  EXPECT_FALSE(std::filesystem::exists(options_.socket_path));
}

TEST_F(ControlServerTest, ASocketThatCannotBeMadeIsAClearError) {
  options_.socket_path = directory_ / "missing/parent/mount.sock";
  EXPECT_EQ(start(), (directory_ / "missing/parent").string() + ": No such file or directory");
}

}  // namespace
}  // namespace ncfs
