// Method: a real server on a socket in a temporary directory, a client of a few lines, an engine
// that says what the test wants. It is changed only while no request is under way. Receive timeouts
// only keep a failing test from hanging.
#include "fuse_adapter/control_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <functional>
#include <nlohmann/json.hpp>

#include "fuse_adapter/fake_warm_target.h"
#include "io/descriptor.h"

namespace ncfs {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const WarmResult kCopied{WarmResult::Kind::copied, {}, 0};

// One request on a connection of its own.
struct Reply {
  unsigned status = 0;
  json body;
};

Reply exchange(const Descriptor& client, const std::string& method, const std::string& target,
               const std::string& body) {
  const timeval patience{FakeWarmTarget::kPatience.count(), 0};
  setsockopt(client.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const std::string request = method + " " + target +
                              " HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) +
                              "\r\n\r\n" + body;
  if (send(client.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) return {};
  std::string input;
  char bytes[4096];
  for (ssize_t count = 0; (count = recv(client.get(), bytes, sizeof bytes, 0)) > 0;) {
    input.append(bytes, static_cast<std::size_t>(count));
  }
  if (!input.starts_with("HTTP/1.1 ")) return {};
  return {static_cast<unsigned>(std::stoul(input.substr(9))),
          json::parse(input.substr(input.find("\r\n\r\n") + 4), nullptr, false)};
}

Reply ask(const std::string& path, const std::string& method, const std::string& target,
          const std::string& body = "") {
  const Descriptor client(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return {};
  }
  return exchange(client, method, target, body);
}

class ControlServerTest : public ::testing::Test {
 protected:
  ControlServerTest() {
    std::string pattern = ::testing::TempDir() + "ncfs-control-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    options_.socket_path = directory_ / "run/mount.sock";
    options_.administrator = geteuid();
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
    subject.metadata_status = [this] { return metadata_; };
    subject.block_size_bytes = 1;
    subject.config = {{"cache_size", "", "", "the limit", true},
                      {"eviction", "arc", "lru", "what goes", true},
                      {"log_level", "info", "info", "how much", false}};
    subject.log_level = [this] { return log_level_; };
    subject.set_log_level = [this](const std::string& level) {
      log_level_ = level;
      return level != "loud";
    };
    subject.verify = [this](std::vector<std::string> paths, auto done) {
      verify_paths_ = std::move(paths);
      verify_done_ = std::move(done);
      VerifyResult refused;
      refused.is_cancelled = true;
      if (refuses_verify_) verify_done_(refused);
      return VerifyToken{7};
    };
    subject.files = [this](const FileQuery& query) {
      file_query_ = query;
      return files_;
    };
    subject.evict = [](const auto&, Nanos idle_min, auto done) {
      done({.done = {idle_min / kSecond, 0}, .in_use = {}, .pinned = {1, 1}, .failed = {}});
    };
    subject.invalidate = [](const auto&, auto done) {
      done(InvalidationResult{.names = 3, .dropped = {1, 5}, .is_complete = true});
    };
    subject.unpin = [](const auto&, auto done) {
      done({.done = {2, 0}, .in_use = {}, .pinned = {}, .failed = {}});
    };
    subject.set_limit = [this](std::uint64_t bytes) {
      EngineStatus after = engine_;
      after.limit_bytes = bytes;
      return after;
    };
    subject.now = [] { return Nanos{10 * kSecond}; };
    subject.adapter_stats = &stats_;
    subject.copy_time = &copy_time_;
    return subject;
  }

  std::string start() {
    server_ = std::make_unique<ControlServer>(options_, subject(), jobs_);
    return server_->start();
  }

  Reply ask(const std::string& method, const std::string& target, const std::string& body = "") {
    return ncfs::ask(options_.socket_path, method, target, body);
  }
  json status() { return ask("GET", "/v1/status").body; }

  std::filesystem::path directory_;
  FakeWarmTarget fake_{::testing::TempDir()};
  std::shared_ptr<WarmJobs> jobs_ = std::make_shared<WarmJobs>(fake_.target());
  EngineStatus engine_;
  MetadataStatus metadata_;
  bool refuses_verify_ = false;
  std::string log_level_ = "info";
  FileQuery file_query_;
  std::vector<FileReport> files_;
  std::vector<std::string> verify_paths_;
  std::function<void(const VerifyResult&)> verify_done_;
  AdapterStats stats_;
  Histogram copy_time_;
  ControlServer::Options options_;
  std::unique_ptr<ControlServer> server_;
};

TEST_F(ControlServerTest, StatusTellsMountCacheAndCounters) {
  engine_.copies.push_back({"models/big", 1000, 600, 6 * kSecond, 200});
  stats_.opens_hit.add(3);
  stats_.opens_miss.add(1);
  stats_.cache_bytes.add(30);
  stats_.source_bytes.add(10);
  stats_.opens_for_writing.add(5);
  stats_.writes.add(6);
  stats_.written_bytes.add(7);
  stats_.mirror_failures.add(8);
  ASSERT_EQ(start(), "");
  const json status = this->status();
  EXPECT_EQ(status["state"], "running");
  EXPECT_EQ(status["mountpoint"], "/mnt/cached");
  EXPECT_EQ(status["version"], "1.2.3");
  EXPECT_EQ(status["pid"], getpid());
  EXPECT_EQ(status["cache"]["limit_bytes"], 1000);
  EXPECT_EQ(status["cache"]["used_bytes"], 600);
  EXPECT_EQ(status["opens"]["hit_ratio"], 0.75);
  EXPECT_EQ(status["reads_by_daemon"]["hit_ratio"], 0.75);
  EXPECT_EQ(status["writes"],
            json({{"opens", 5}, {"requests", 6}, {"bytes", 7}, {"mirror_failures", 8}}));
  EXPECT_EQ(status["passthrough"]["detail"], "switched off");
  const json copy = status["copies"]["in_progress"][0];
  EXPECT_EQ(copy["path"], "models/big");
  EXPECT_EQ(copy["bytes_per_second"], 100.0);  // 400 bytes in 4 s, those resumed not counted
  EXPECT_EQ(copy["eta_seconds"], 4.0);
}

TEST_F(ControlServerTest, StatusTellsWhatIsKnownOfNamesAndAttributes) {
  metadata_ = {.stats = {},
               .facts_bytes = 10,
               .facts_bytes_max = 100,
               .listings_bytes = 20,
               .listings_bytes_max = 200};
  metadata_.stats.name_hits = 3;
  metadata_.stats.name_misses = 1;
  metadata_.stats.negative_hits = 2;
  metadata_.stats.opens_same = 4;
  metadata_.stats.opens_changed = 5;
  metadata_.stats.opens_estale = 6;
  metadata_.stats.stale_avoided = 7;
  metadata_.stats.unasked_hits = 9;
  metadata_.stats.unasked_age_max = 1500 * kMillisecond;
  stats_.source_looks.add(8);
  stats_.retries.add(3);
  ASSERT_EQ(start(), "");
  const json metadata = status()["metadata"];
  EXPECT_EQ(metadata["names"]["hit_ratio"], 0.75);
  EXPECT_TRUE(metadata["links"]["hit_ratio"].is_null());
  EXPECT_EQ(metadata["negative_hits"], 2);
  EXPECT_EQ(metadata["revalidations"]["same"], 4);
  EXPECT_EQ(metadata["revalidations"]["changed"], 5);
  EXPECT_EQ(metadata["revalidations"]["estale"], 6);
  EXPECT_EQ(metadata["stale_avoided"], 7);
  EXPECT_EQ(metadata["unanswered"]["hits"], 9);
  EXPECT_EQ(metadata["unanswered"]["oldest_seconds"], 1.5);
  EXPECT_EQ(metadata["backend_looks"], 8);
  EXPECT_EQ(status()["errors"]["retries"], 3);
  EXPECT_EQ(metadata["bytes"]["names_and_attributes"], 10);
  EXPECT_EQ(metadata["bytes"]["listings"], 20);
  EXPECT_EQ(metadata["limit_bytes"]["listings"], 200);
}

TEST_F(ControlServerTest, StatusTellsWhatFails) {
  ASSERT_EQ(start(), "");
  json health = status()["health"];
  EXPECT_EQ(health["cache_disk"]["state"], "normal");
  EXPECT_EQ(health["backends"].size(), 1U);
  EXPECT_EQ(health["backends"][0]["path"], "");
  EXPECT_EQ(health["backends"][0]["state"], "up");
  EXPECT_TRUE(health["backends"][0]["seconds"].is_null());
  EXPECT_TRUE(health["cache_disk"]["reason"].is_null());
  EXPECT_TRUE(health["copying"]["paused_by"].is_null());

  engine_.cache_health = {HealthState::down, "it burns", EIO, 4 * kSecond, 2, 13 * kSecond};
  health = status()["health"];
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
  health = status()["health"];
  EXPECT_EQ(health["copying"]["paused_by"], "backend");
  EXPECT_EQ(health["copying"]["last_error"], "Connection timed out");
  EXPECT_EQ(health["copying"]["next_try_seconds"], 8.0);
}

TEST_F(ControlServerTest, RatiosOfNothingAreNullAndRecoveryIsTold) {
  engine_.is_recovering = true;
  ASSERT_EQ(start(), "");
  const json status = this->status();
  EXPECT_EQ(status["state"], "recovering");
  EXPECT_TRUE(status["opens"]["hit_ratio"].is_null());
}

TEST_F(ControlServerTest, FileNamesThatAreNoTextAreShownAllTheSame) {
  engine_.copies.push_back({"bad\xff name", 10, 5, 0, 0});
  ASSERT_EQ(start(), "");
  const json status = this->status();
  EXPECT_EQ(status["copies"]["in_progress"][0]["path"], "bad\xef\xbf\xbd name");
}

TEST_F(ControlServerTest, WrongBodiesAreErrorsThatNameWhatIsWrong) {
  ASSERT_EQ(start(), "");
  const auto error = [this](const char* target, const char* body) {
    const Reply reply = ask("POST", target, body);
    EXPECT_EQ(reply.status, 400U) << body;
    return reply.body.value("error", "(no error)");
  };
  for (const char* body : {"", "{", "[]", "nonsense"}) {
    EXPECT_EQ(error("/v1/warm", body), "the body is not a JSON object");
  }
  EXPECT_EQ(error("/v1/warm", "{}"), "\"paths\" is missing");
  for (const char* body : {R"({"paths":[]})", R"({"paths":"/mnt/cached"})"}) {
    EXPECT_THAT(error("/v1/warm", body), HasSubstr("\"paths\" must be an array"));
  }
  EXPECT_EQ(error("/v1/warm", R"({"paths":[7]})"), "not a path: 7");
  EXPECT_EQ(error("/v1/warm", R"({"paths":["/mnt/cached"],"pin":"yes"})"),
            "\"pin\" must be true or false");
  EXPECT_EQ(error("/v1/warm", R"({"paths":["/mnt/cached"],"wait":true})"),
            "unknown member \"wait\"");
  EXPECT_EQ(error("/v1/verify", R"({"pin":true})"), "unknown member \"pin\"");
  EXPECT_THAT(error("/v1/evict", R"({"paths":["/mnt/cached"],"idle_seconds":-1})"),
              HasSubstr("\"idle_seconds\" must be a whole number"));
}

TEST_F(ControlServerTest, WhatThereIsNotIsAnError) {
  ASSERT_EQ(start(), "");
  EXPECT_EQ(ask("GET", "/").status, 404U);
  EXPECT_EQ(ask("GET", "/v1/warm/x").status, 404U);
  EXPECT_EQ(ask("GET", "/v1/warm/99999999999999999999999").status, 404U);
  EXPECT_EQ(ask("GET", "/v1/warm/7").status, 404U);
  EXPECT_EQ(ask("DELETE", "/v1/warm/7").status, 404U);
  EXPECT_EQ(ask("GET", "/v1/verify/7").status, 404U);
  const Reply reply = ask("DELETE", "/v1/status");
  EXPECT_EQ(reply.status, 405U);
  EXPECT_EQ(reply.body["error"], "/v1/status has no DELETE, but GET");
}

TEST_F(ControlServerTest, OtherUsersAreToldNoNamesAndMayChangeNothing) {
  options_.administrator = geteuid() + 1;
  engine_.copies.push_back({"secret/name", 1000, 600, 6 * kSecond, 200});
  ASSERT_EQ(start(), "");
  const Reply reply = ask("GET", "/v1/status");
  EXPECT_EQ(reply.status, 200U);
  EXPECT_EQ(reply.body["copies"]["in_progress"][0]["size_bytes"], 1000);
  EXPECT_THAT(reply.body.dump(), ::testing::Not(HasSubstr("secret")));
  EXPECT_EQ(ask("GET", "/v1/openapi.json").body["openapi"], "3.1.0");
  std::vector<std::string> harmless;
  for (const auto& route : ControlServer::routes()) {
    if (route.method == "GET" && ask("GET", std::string(route.pattern)).status == 200) {
      harmless.emplace_back(route.pattern);
      continue;
    }
    std::string target(route.pattern);
    if (target.ends_with("{id}")) target.replace(target.find("{id}"), 4, "1");
    EXPECT_EQ(ask(std::string(route.method), target, "{}").status, 403U) << target;
  }
  EXPECT_THAT(harmless,
              ::testing::UnorderedElementsAre("/v1/openapi.json", "/v1/status", "/v1/health",
                                              "/v1/config", "/metrics", "/healthz"));
}

TEST_F(ControlServerTest, OverTcpThereAreOnlyMetricsAndTheWordWhetherItIsWell) {
  options_.metrics_address = "127.0.0.1";
  ASSERT_EQ(start(), "");
  ASSERT_EQ(server_->metrics_error(), "");
  const auto status_of = [this](const std::string& method, const std::string& target) {
    Descriptor client(socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server_->metrics_port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      return 0U;
    }
    return exchange(client, method, target, "{}").status;
  };
  EXPECT_EQ(status_of("GET", "/metrics"), 200U);
  EXPECT_EQ(status_of("GET", "/healthz"), 200U);
  engine_.cache_health.state = HealthState::down;
  EXPECT_EQ(status_of("GET", "/healthz"), 503U);
  for (const auto& route : ControlServer::routes()) {
    if (route.pattern == "/metrics" || route.pattern == "/healthz") continue;
    std::string target(route.pattern);
    if (target.ends_with("{id}")) target.replace(target.find("{id}"), 4, "1");
    EXPECT_EQ(status_of(std::string(route.method), target), 403U) << target;
  }
}

TEST_F(ControlServerTest, APortThatIsTakenIsToldOfAndTheRestWorks) {
  options_.metrics_address = "127.0.0.1";
  ASSERT_EQ(start(), "");
  ControlServer::Options options = options_;
  options.socket_path = directory_ / "run/other.sock";
  options.metrics_port = server_->metrics_port();
  ControlServer second(options, subject(), jobs_);
  ASSERT_EQ(second.start(), "");
  EXPECT_THAT(second.metrics_error(), HasSubstr("in use"));
  const json health = ncfs::ask(options.socket_path, "GET", "/v1/health").body;
  EXPECT_EQ(health["state"], "warning");
}

TEST_F(ControlServerTest, TheDocumentDescribesExactlyTheOperationsThereAre) {
  std::vector<std::string> described;
  const json document = json::parse(openapi_document());
  for (const auto& [path, operations] : document["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      std::string name = method;
      std::ranges::transform(name, name.begin(), [](char letter) {
        return static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
      });
      described.push_back(name + " " + path);
    }
  }
  std::vector<std::string> served;
  for (const auto& route : ControlServer::routes()) {
    served.push_back(std::string(route.method) + " " + std::string(route.pattern));
  }
  EXPECT_THAT(described, ::testing::UnorderedElementsAreArray(served));
}

TEST_F(ControlServerTest, AWarmUpIsAJobThatIsLookedAtUntilItIsDone) {
  fake_.write("models/a", 100);
  fake_.write("models/b", 200);
  ASSERT_EQ(start(), "");
  const Reply begun = ask("POST", "/v1/warm", R"({"paths":["/mnt/cached/models/"]})");
  EXPECT_EQ(begun.status, 202U);
  const std::string job = "/v1/warm/" + std::to_string(begun.body["id"].get<int>());
  ASSERT_TRUE(fake_.wait_for(2));
  engine_.copies.push_back({"models/b", 200, 50, 6 * kSecond, 0});
  fake_.answer("models/a", kCopied);
  json progress = ask("GET", job).body;
  EXPECT_EQ(progress["copied"]["bytes"], 100);
  EXPECT_EQ(progress["in_work_done_bytes"], 50);
  EXPECT_NE(progress["state"], "done");
  fake_.answer("models/b", kCopied);
  while (progress.is_object() && progress["state"] != "done") progress = ask("GET", job).body;
  EXPECT_EQ(progress["found"]["bytes"], 300);
  EXPECT_EQ(progress["copied"]["files"], 2);
  EXPECT_EQ(ask("GET", "/v1/warm").body["jobs"][0], progress);
  EXPECT_EQ(status()["warm_jobs"][0], progress);
}

TEST_F(ControlServerTest, ACancelledWarmUpHandsOutNoMoreFiles) {
  for (std::size_t file = 0; file <= WarmJobs::kOutstandingMax; ++file) {
    fake_.write("many/" + std::to_string(file), 1);
  }
  ASSERT_EQ(start(), "");
  const json begun = ask("POST", "/v1/warm", R"({"paths":["/mnt/cached"]})").body;
  const std::string job = "/v1/warm/" + std::to_string(begun["id"].get<int>());
  ASSERT_TRUE(fake_.wait_for(WarmJobs::kOutstandingMax));
  EXPECT_EQ(ask("DELETE", job).body["state"], "cancelled");
  fake_.answer_all(kCopied);
  const json last = ask("GET", job).body;
  EXPECT_EQ(last["state"], "cancelled");
  EXPECT_EQ(last["copied"]["files"], WarmJobs::kOutstandingMax);
  server_->stop();
  EXPECT_EQ(fake_.unanswered(), 0U);
}

TEST_F(ControlServerTest, AVerificationIsAJobThatIsLookedAtUntilItIsDone) {
  VerifyStatus running;
  running.token = VerifyToken{7};
  running.result.found = {2, 3000};
  running.result.bytes_verified = 1000;
  engine_.verifications = {running};
  ASSERT_EQ(start(), "");
  const Reply begun = ask("POST", "/v1/verify", R"({"paths":["/mnt/cached/models"]})");
  EXPECT_EQ(begun.status, 202U);
  EXPECT_EQ(begun.body["state"], "running");
  EXPECT_EQ(begun.body["bytes_verified"], 1000);
  EXPECT_EQ(verify_paths_, std::vector<std::string>{"models"});
  const std::string job = "/v1/verify/" + std::to_string(begun.body["id"].get<int>());
  VerifyResult result = running.result;
  result.intact = {1, 1000};
  result.damaged = {1, 2000};
  verify_done_(result);
  engine_.verifications.clear();
  const json done = ask("GET", job).body;
  EXPECT_EQ(done["state"], "done");
  EXPECT_EQ(done["damaged"]["files"], 1);
  EXPECT_EQ(done["intact"]["bytes"], 1000);
  EXPECT_EQ(ask("GET", "/v1/verify").body["jobs"], json::array({done}));
  EXPECT_EQ(status()["integrity"]["verifications"], json::array({done}));
  EXPECT_EQ(ask("POST", "/v1/verify", "{}").status, 202U);
  EXPECT_TRUE(verify_paths_.empty());
}

TEST_F(ControlServerTest, AVerificationThatIsRefusedIsAnError) {
  refuses_verify_ = true;
  ASSERT_EQ(start(), "");
  EXPECT_EQ(ask("POST", "/v1/verify", "{}").status, 503U);
}

TEST_F(ControlServerTest, ABoundedNumberOfVerificationsIsRemembered) {
  ASSERT_EQ(start(), "");
  for (std::size_t job = 0; job < ControlServer::kVerificationsMax; ++job) {
    ASSERT_EQ(ask("POST", "/v1/verify", "{}").status, 202U);
  }
  EXPECT_EQ(ask("POST", "/v1/verify", "{}").status, 503U);
  verify_done_({});  // the last of them
  EXPECT_EQ(ask("POST", "/v1/verify", "{}").status, 202U);
  EXPECT_EQ(ask("GET", "/v1/verify").body["jobs"].size(), ControlServer::kVerificationsMax);
}

TEST_F(ControlServerTest, PathsThatAreNotInTheMountOrDoNotExistAreErrors) {
  fake_.write("a", 100);
  ASSERT_EQ(start(), "");
  const auto error = [&](const std::string& path, unsigned status) {
    const Reply reply = ask("POST", "/v1/warm", json{{"paths", {path}}}.dump());
    EXPECT_EQ(reply.status, status);
    return reply.body.value("error", "(no error)");
  };
  EXPECT_THAT(error("/etc/passwd", 400), HasSubstr("not beneath the mount point /mnt/cached"));
  EXPECT_THAT(error("/mnt/cached/../other", 400), HasSubstr("not beneath"));
  EXPECT_THAT(error("/mnt/cachedx", 400), HasSubstr("not beneath"));
  EXPECT_THAT(error("a", 400), HasSubstr("not beneath"));
  EXPECT_EQ(error("/mnt/cached/nothing", 422), "nothing: No such file or directory");
  EXPECT_TRUE(ask("GET", "/v1/warm").body["jobs"].empty());
}

TEST_F(ControlServerTest, TheConfigurationTellsWhatIsInForceAndTheLevelCanBeChanged) {
  ASSERT_EQ(start(), "");
  const json changed = ask("PUT", "/v1/log-level", R"({"level":"debug"})").body;
  EXPECT_EQ(changed["level"], "debug");
  EXPECT_EQ(changed["previous"], "info");
  const json options = ask("GET", "/v1/config").body["options"];
  ASSERT_EQ(options.size(), 3U);
  EXPECT_EQ(options[0]["value"], "1000B");
  EXPECT_EQ(options[0]["hot"], true);
  EXPECT_TRUE(options[0]["default"].is_null());
  EXPECT_EQ(options[1]["value"], "arc");
  EXPECT_EQ(options[1]["default"], "lru");
  EXPECT_EQ(options[1]["hot"], false);
  EXPECT_EQ(options[2]["value"], "debug");
  EXPECT_EQ(options[2]["given"], false);
  const Reply wrong = ask("PUT", "/v1/log-level", R"({"level":"loud"})");
  EXPECT_EQ(wrong.status, 400U);
  EXPECT_EQ(wrong.body["error"], "level loud: must be trace, debug, info, warn, error");
}

TEST_F(ControlServerTest, FilesAreListedInParts) {
  files_.resize(2);
  files_[0] = {.id = 3,
               .path = "a b",
               .state = FileReport::State::partial,
               .reason = OpenReason::backing_off,
               .version = {1000, 2 * kSecond, 0},
               .cached_bytes = 600,
               .is_pinned = true,
               .idle = 3 * kSecond,
               .last_error = EIO};
  files_[1].id = 7;
  ASSERT_EQ(start(), "");
  const json part = ask("GET", "/v1/files?path=%2Fmnt%2Fcached/a%20b+c&after=2&limit=2").body;
  EXPECT_EQ(file_query_.paths, std::vector<std::string>{"a b c"});
  EXPECT_EQ(file_query_.after, 2U);
  EXPECT_EQ(part["next"], 7);
  const json& file = part["files"][0];
  EXPECT_EQ(file["path"], "a b");
  EXPECT_EQ(file["state"], "partial");
  EXPECT_EQ(file["reason"], to_string(OpenReason::backing_off));
  EXPECT_EQ(file["cached_bytes"], 600);
  EXPECT_EQ(file["modified_seconds"], 2.0);
  EXPECT_EQ(file["last_error"], "Input/output error");
  EXPECT_TRUE(ask("GET", "/v1/files").body["next"].is_null());
  EXPECT_EQ(file_query_.max, ControlServer::kFilesMax);
  EXPECT_EQ(file_query_.paths, std::vector<std::string>{""});
  for (const char* wrong : {"path=/etc", "path=%2", "path=%zz", "limit=0", "limit=1001", "after=x",
                            "colour=red", "path=%00"}) {
    EXPECT_EQ(ask("GET", std::string("/v1/files?") + wrong).status, 400U) << wrong;
  }
}

TEST_F(ControlServerTest, TheEnginesWordOnEvictionIsPassedOn) {
  ASSERT_EQ(start(), "");
  const Reply reply = ask("POST", "/v1/evict", R"({"paths":["/mnt/cached/a"],"idle_seconds":60})");
  EXPECT_EQ(reply.status, 200U);
  EXPECT_EQ(reply.body["evicted"]["files"], 60);
  EXPECT_EQ(reply.body["pinned"]["bytes"], 1);
  EXPECT_EQ(ask("POST", "/v1/unpin", R"({"paths":["/mnt/cached/a"]})").body["unpinned"]["files"],
            2);
  engine_.is_recovering = true;
  for (const char* target : {"/v1/evict", "/v1/unpin"}) {
    EXPECT_EQ(ask("POST", target, R"({"paths":["/mnt/cached/a"]})").status, 503U);
  }
}

TEST_F(ControlServerTest, TheLimitTellsWhatStaysAboveIt) {
  engine_.leaving_bytes = 50;
  ASSERT_EQ(start(), "");
  const Reply reply = ask("PUT", "/v1/limit", R"({"size":"500B"})");
  EXPECT_EQ(reply.status, 200U) << reply.body;
  EXPECT_EQ(reply.body["previous_bytes"], 1000);
  EXPECT_EQ(reply.body["limit_bytes"], 500);
  EXPECT_EQ(reply.body["above_bytes"], 50);
  EXPECT_THAT(ask("PUT", "/v1/limit", R"({"size":"much"})").body["error"].get<std::string>(),
              HasSubstr("size much: must be"));
}

TEST_F(ControlServerTest, StopEndsWarmUpsAndTheSocket) {
  fake_.write("a", 100);
  ASSERT_EQ(start(), "");
  ASSERT_EQ(ask("POST", "/v1/warm", R"({"paths":["/mnt/cached"]})").status, 202U);
  ASSERT_TRUE(fake_.wait_for(1));
  server_->stop();
  EXPECT_EQ(ask("GET", "/v1/status").status, 0U);
  EXPECT_FALSE(std::filesystem::exists(options_.socket_path));
}

}  // namespace
}  // namespace ncfs
