// Runs as root, as the daemon does: acting as somebody else is what is tested.
#include "fuse_adapter/caller_credentials.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <future>
#include <string>
#include <thread>

#include "io/descriptor.h"

namespace ncfs {
namespace {

constexpr uid_t kNobody = 65534;

// In /tmp: everybody must be able to get there.
class CallerCredentialsTest : public testing::Test {
 protected:
  CallerCredentialsTest() {
    EXPECT_NE(::mkdtemp(directory_.data()), nullptr);
    EXPECT_EQ(::chmod(directory_.c_str(), 01777), 0);
  }
  ~CallerCredentialsTest() override {
    for (const char* name : {"file", "made"}) ::unlink(path(name).c_str());
    EXPECT_EQ(::rmdir(directory_.c_str()), 0);
  }
  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }
  void write(mode_t mode) {
    std::ofstream(path("file")) << "text";
    EXPECT_EQ(::chmod(path("file").c_str(), mode), 0);
  }
  // The errno of `call` made as nobody.
  template <typename Call>
  int as_nobody(const Call& call) {
    const CallerCredentials credentials({.user = kNobody, .group = kNobody}, groups_);
    EXPECT_EQ(credentials.error(), 0);
    return call() < 0 ? errno : 0;
  }
  [[nodiscard]] struct stat attributes(const std::string& name) const {
    struct stat result {};
    EXPECT_EQ(::lstat(path(name).c_str(), &result), 0);
    return result;
  }

  std::string directory_ = "/tmp/ncfs-credentials-XXXXXX";
  CallerGroups groups_;
};

TEST_F(CallerCredentialsTest, WhoIsNotRootHasNoneOfTheDaemonsPrivileges) {
  write(0444);
  const std::string file = path("file");
  EXPECT_EQ(as_nobody([&] { return ::chown(file.c_str(), kNobody, kNobody); }), EPERM);
  EXPECT_EQ(as_nobody([&] { return ::chmod(file.c_str(), 0777); }), EPERM);
  EXPECT_EQ(as_nobody([&] { return ::unlink(file.c_str()); }), EPERM);  // sticky directory
  EXPECT_EQ(as_nobody([&] { return Descriptor(::open(file.c_str(), O_WRONLY)).get(); }), EACCES);
  EXPECT_EQ(as_nobody([&] { return ::mknod(path("made").c_str(), S_IFCHR | 0666, 0x103); }), EPERM);
  EXPECT_EQ(as_nobody([&] { return ::setxattr(file.c_str(), "trusted.x", "y", 1, 0); }), EPERM);
  // The thread is itself again.
  EXPECT_EQ(::chown(file.c_str(), 1, 1), 0);
  EXPECT_EQ(::setxattr(file.c_str(), "trusted.x", "y", 1, 0), 0);
}

TEST_F(CallerCredentialsTest, WhatIsCreatedIsTheCallers) {
  EXPECT_EQ(as_nobody([&] {
              return Descriptor(::open(path("made").c_str(), O_CREAT | O_WRONLY, 0600)).get();
            }),
            0);
  EXPECT_EQ(attributes("made").st_uid, kNobody);
  EXPECT_EQ(attributes("made").st_gid, kNobody);
}

TEST_F(CallerCredentialsTest, TheUmaskIsTheThreadsAlone) {
  const mode_t before = ::umask(0);
  std::promise<void> has_mask;
  std::promise<void> is_over;
  std::thread other([&] {
    const CallerUmask mask(027);
    EXPECT_EQ(::mkfifo(path("made").c_str(), 0777), 0);
    has_mask.set_value();
    is_over.get_future().wait();
  });
  has_mask.get_future().wait();
  EXPECT_EQ(::mkfifo(path("file").c_str(), 0777), 0);
  is_over.set_value();
  other.join();
  EXPECT_EQ(attributes("made").st_mode & 0777U, 0750U);
  EXPECT_EQ(attributes("file").st_mode & 0777U, 0777U);
  EXPECT_EQ(::umask(before), 0U);
}

}  // namespace
}  // namespace ncfs
