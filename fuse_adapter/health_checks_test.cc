#include "fuse_adapter/health_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

namespace ncfs {
namespace {

using State = HealthCheck::State;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class HealthChecks : public ::testing::Test {
 protected:
  HealthChecks() {
    subject_.backend = "/mnt/nfs/share";
    subject_.passthrough_wanted = true;
    subject_.passthrough_active = true;
    subject_.adapter_stats = &stats_;
    engine_.limit_bytes = 1000 * kMiB;
  }

  HealthCheck check(const std::string& name) {
    const auto checks = check_health(subject_, engine_, mounts_, metrics_error_);
    const auto found = std::ranges::find(checks, name, &HealthCheck::name);
    if (found == checks.end()) {
      ADD_FAILURE() << name;
      return {};
    }
    EXPECT_EQ(found->state == State::ok, found->remedy.empty()) << name;
    return *found;
  }

  void mount_backend(const std::string& type, const std::string& options) {
    mounts_ = {{"8:1", "/", "/", "ext4", "rw"}, {"0:50", "/", "/mnt/nfs", type, options}};
  }

  ControlSubject subject_;
  AdapterStats stats_;
  EngineStatus engine_;
  std::vector<MountEntry> mounts_;
  std::string metrics_error_;
};

TEST_F(HealthChecks, AreAllWellByDefault) {
  mount_backend("nfs4", "rw,vers=4.2,rsize=1048576,hard");
  for (const auto& check : check_health(subject_, engine_, mounts_, "")) {
    EXPECT_EQ(check.state, State::ok) << check.name << ": " << check.detail;
  }
}

TEST_F(HealthChecks, ABackendThatIsDownIsAFailureAndASuspectOneAWarning) {
  BackendStatus backend;
  backend.state = BackendState::suspect;
  backend.reason = "calls fail";
  backend.last_error = EIO;
  subject_.backends = [&backend] { return std::vector{BackendStatus{}, backend}; };
  EXPECT_EQ(check("backend").state, State::warning);
  EXPECT_EQ(check("backend").detail, "suspect: calls fail (Input/output error)");
  backend.path = "secret";
  backend.state = BackendState::down;
  EXPECT_EQ(check("backend").state, State::failed);
  EXPECT_THAT(check("backend").detail, Not(HasSubstr("secret")));
}

TEST_F(HealthChecks, ABackendThatFailsIsAFailure) {
  engine_.is_source_resting = true;
  engine_.source_error = ETIMEDOUT;
  EXPECT_EQ(check("backend").state, State::failed);
  EXPECT_THAT(check("backend").detail, HasSubstr("Connection timed out"));
}

TEST_F(HealthChecks, MountOptionsOfTheBackendThatCostAreNamedWithTheirRemedies) {
  mount_backend("nfs", "rw,vers=3,rsize=65536,soft,noac,lookupcache=none");
  const HealthCheck found = check("backend_mount");
  EXPECT_EQ(found.state, State::warning);
  for (const char* text : {"soft:", "attributes are not cached", "names are not cached",
                           "rsize=65536: one request reads only 64 KiB"}) {
    EXPECT_THAT(found.detail, HasSubstr(text));
  }
  for (const char* text : {"with hard", "noac", "lookupcache=none", "rsize=1048576"}) {
    EXPECT_THAT(found.remedy, HasSubstr(text));
  }
  mount_backend("nfs4", "rw,actimeo=0");
  EXPECT_EQ(check("backend_mount").state, State::warning);
  mount_backend("nfs4", "rw,softreval,actimeo=60,rsize=1048576");
  EXPECT_EQ(check("backend_mount").state, State::ok);
  mount_backend("ext4", "rw,soft");
  EXPECT_EQ(check("backend_mount").state, State::ok);
}

TEST_F(HealthChecks, ACacheDiskIsUnwellOrFails) {
  engine_.cache_health = {HealthState::unstable, "three errors", EIO, 0, 1, 0};
  EXPECT_EQ(check("cache_disk").state, State::warning);
  EXPECT_EQ(check("cache_disk").detail, "unstable: three errors (Input/output error)");
  engine_.cache_health.state = HealthState::down;
  EXPECT_EQ(check("cache_disk").state, State::failed);
}

TEST_F(HealthChecks, SpaceRunsOutInThreeWays) {
  engine_.used_bytes = 900 * kMiB;
  engine_.reserved_bytes = 200 * kMiB;
  engine_.leaving_bytes = 50 * kMiB;
  EXPECT_THAT(check("space").detail, HasSubstr("50 MiB above the limit"));
  engine_.leaving_bytes = 100 * kMiB;
  EXPECT_EQ(check("space").state, State::ok);
  engine_.disk_free_bytes = 1 * kMiB;
  engine_.min_free_bytes = 2 * kMiB;
  EXPECT_THAT(check("space").detail, HasSubstr("1 MiB free, 2 MiB should stay free"));
  engine_.is_disk_full = true;
  EXPECT_EQ(check("space").state, State::failed);
}

TEST_F(HealthChecks, PinsThatTakeNearlyAllAreAWarning) {
  engine_.pinned_bytes = 899 * kMiB;
  EXPECT_EQ(check("pins").state, State::ok);
  engine_.pinned_bytes = 910 * kMiB;
  EXPECT_EQ(check("pins").state, State::warning);
}

TEST_F(HealthChecks, PassthroughThatIsMissingIsAWarningUnlessItWasSwitchedOff) {
  stats_.passthrough_refused.add();
  EXPECT_THAT(check("passthrough").remedy, HasSubstr("plain local file system"));
  stats_.opens_passthrough.add();
  EXPECT_EQ(check("passthrough").state, State::ok);
  subject_.passthrough_active = false;
  EXPECT_THAT(check("passthrough").remedy, HasSubstr("6.9"));
  subject_.passthrough_wanted = false;
  EXPECT_EQ(check("passthrough").state, State::ok);
}

TEST_F(HealthChecks, DamageAndAPortThatIsTakenAreWarnings) {
  engine_.damaged_objects = 2;
  EXPECT_EQ(check("integrity").state, State::warning);
  metrics_error_ = "127.0.0.1:9100: Address already in use";
  EXPECT_THAT(check("metrics").detail, HasSubstr("already in use"));
  EXPECT_THAT(check("metrics").remedy, Not(IsEmpty()));
}

}  // namespace
}  // namespace ncfs
