// Method: made-up mount tables; sockets are plain files in a temporary directory, as only their
// existence counts here.
#include "tools/control_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fuse_adapter/control_socket.h"

namespace ncfs {
namespace {

using ::testing::HasSubstr;

class ControlClientTest : public ::testing::Test {
 protected:
  ControlClientTest() {
    std::string pattern = ::testing::TempDir() + "ncfs-ctl-XXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~ControlClientTest() override { std::filesystem::remove_all(directory_); }

  void make_socket(const std::string& mountpoint) {
    std::ofstream(control_socket_path(directory_, mountpoint)) << "";
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& mount : known_mounts(table_, directory_)) names.push_back(mount.mountpoint);
    return names;
  }

  std::string directory_;
  const std::vector<MountEntry> table_ = {
      {"254:0", "/", "/", "ext4", "rw"},
      {"0:51", "/", "/mnt/cached", "fuse.cachefs", "rw"},
      {"0:51", "/", "/srv/bound", "fuse.cachefs", "rw"},
      {"0:51", "/models", "/srv/models", "fuse.cachefs", "rw"},
      {"0:52", "/", "/mnt/dead", "fuse.cachefs", "rw"},
  };
};

TEST_F(ControlClientTest, ListsMountsButNotTheirBinds) {
  make_socket("/mnt/cached");
  EXPECT_EQ(names(), (std::vector<std::string>{"/mnt/cached", "/mnt/dead"}));
}

TEST_F(ControlClientTest, ListsSocketsOfMountsThatAreNotSeenFromHere) {
  make_socket("/mnt/cached");
  make_socket("/elsewhere");
  EXPECT_EQ(names(), (std::vector<std::string>{"/mnt/cached", "/mnt/dead", ""}));
}

TEST_F(ControlClientTest, FindsTheMountOfAPath) {
  make_socket("/mnt/cached");
  const PathInMount found = locate(table_, directory_, "/mnt/cached/a/b");
  EXPECT_EQ(found.error, "");
  EXPECT_EQ(found.mount.mountpoint, "/mnt/cached");
  EXPECT_EQ(found.path, "/mnt/cached/a/b");
}

TEST_F(ControlClientTest, FindsTheMountBehindABind) {
  make_socket("/mnt/cached");
  EXPECT_EQ(locate(table_, directory_, "/srv/models/a").path, "/mnt/cached/models/a");
  EXPECT_EQ(locate(table_, directory_, "/srv/models").path, "/mnt/cached/models");
  EXPECT_EQ(locate(table_, directory_, "/srv/bound/x").path, "/mnt/cached/x");
}

TEST_F(ControlClientTest, APathElsewhereIsAnError) {
  EXPECT_THAT(locate(table_, directory_, "/etc/passwd").error,
              HasSubstr("/etc/passwd: not in a cachefs mount"));
  EXPECT_THAT(locate({}, directory_, "/etc").error, HasSubstr("not in a cachefs mount"));
}

TEST_F(ControlClientTest, AMissingDaemonIsAClearError) {
  ControlClient client(ControlClient::kStatusDeadline);
  EXPECT_EQ(client.connect(directory_ + "/nothing.sock"), "its daemon does not run");
}

}  // namespace
}  // namespace ncfs
