#include "fuse_adapter/control_socket.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

TEST(ControlSocket, IsNamedAsSystemdEscapesPaths) {
  EXPECT_EQ(control_socket_path("/run/x", "/mnt/cached"), "/run/x/mnt-cached.sock");
  EXPECT_EQ(control_socket_path("/run/x", "/mnt/a-b c/.d"), "/run/x/mnt-a\\x2db\\x20c-.d.sock");
  EXPECT_EQ(control_socket_path("/run/x", "/"), "/run/x/-.sock");
}

TEST(ControlSocket, LongMountPointsStillFitTheAddressAndStayApart) {
  const std::string deep = "/" + std::string(200, 'd');
  const std::string one = control_socket_path("/run/nfs-cachefs", deep + "/one");
  const std::string two = control_socket_path("/run/nfs-cachefs", deep + "/two");
  EXPECT_LT(one.size(), 108U);
  EXPECT_TRUE(one.ends_with(".sock"));
  EXPECT_NE(one, two);
}

}  // namespace
}  // namespace ncfs
