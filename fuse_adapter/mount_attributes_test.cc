// The extended attributes that the mount itself answers, asked for as getfattr(1) and setfattr(1)
// ask.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "fuse_adapter/mount_fixture.h"
#include "fuse_adapter/warm_jobs.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

constexpr uid_t kOwner = 4711;
constexpr uid_t kOther = 4712;
constexpr uid_t kNobody = 65534;

// The value, or "errno N".
std::string get(const std::string& path, const std::string& name) {
  std::string value(4096, '\0');
  const ssize_t length = ::getxattr(path.c_str(), name.c_str(), value.data(), value.size());
  if (length < 0) return "errno " + std::to_string(errno);
  value.resize(static_cast<std::size_t>(length));
  return value;
}

// 0 or an errno.
int set(const std::string& path, const std::string& name, const std::string& value, int flags = 0) {
  return ::setxattr(path.c_str(), name.c_str(), value.data(), value.size(), flags) == 0 ? 0 : errno;
}

std::string list(const std::string& path) {
  std::string names(4096, '\0');
  const ssize_t length = ::listxattr(path.c_str(), names.data(), names.size());
  EXPECT_EQ(::listxattr(path.c_str(), nullptr, 0), length);
  names.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
  return names;
}

class MountAttributesTest : public testing::TestWithParam<PassedFiles> {
 protected:
  void SetUp() override { write_content(mount_.backend("file"), content(1, 0, 3 * kMiB)); }
  void start() {
    mount_.start({.passthrough = GetParam()});
    ASSERT_TRUE(
        mount_.wait_until([](const EngineStatus& status) { return !status.is_recovering; }));
  }
  std::string attribute(const std::string& name) {
    return get(mount_.mounted("file"), "user.cachefs." + name);
  }
  int order(const std::string& name, const std::string& value) {
    return set(mount_.mounted("file"), "user.cachefs." + name, value);
  }
  // What was just closed is in use for another moment.
  void expect_evicted() {
    EXPECT_TRUE(eventually([&] { return order("state", "evict") == 0; }));
    EXPECT_EQ(attribute("state"), "absent");
  }

  TestMount mount_;
};

INSTANTIATE_TEST_SUITE_P(Passthrough, MountAttributesTest,
                         testing::Values(PassedFiles::all, PassedFiles::none), passthrough_name);

TEST_P(MountAttributesTest, TellWhatTheCacheHoldsAndAreSetToChangeIt) {
  start();
  EXPECT_EQ(attribute("state"), "absent");
  EXPECT_EQ(attribute("percent"), "0");
  EXPECT_EQ(attribute("tier"), "backend");
  EXPECT_EQ(attribute("pinned"), "0");
  const std::string version = attribute("version");
  EXPECT_TRUE(version.starts_with("size=3145728 mtime=")) << version;
  EXPECT_EQ(order("state", "warm"), 0);
  ASSERT_TRUE(eventually([&] { return attribute("state") == "complete"; }));
  EXPECT_EQ(attribute("percent"), "100");
  EXPECT_EQ(attribute("tier"), "disk");
  EXPECT_EQ(attribute("version"), version);
  EXPECT_EQ(order("state", "warm"), 0);  // it is
  EXPECT_EQ(order("pinned", "1"), 0);
  EXPECT_EQ(attribute("pinned"), "1");
  EXPECT_EQ(order("state", "evict"), EBUSY);
  EXPECT_EQ(attribute("state"), "complete");
  EXPECT_EQ(order("pinned", "0"), 0);
  EXPECT_EQ(attribute("pinned"), "0");
  expect_evicted();
  EXPECT_EQ(order("state", "evict"), 0);  // it is not there
}

TEST_P(MountAttributesTest, SpeakOfTheVersionThatTheBackendHas) {
  start();
  mount_.bring_into_cache("file");
  EXPECT_EQ(attribute("state"), "complete");
  // Our own changes of attributes keep what is cached.
  ASSERT_EQ(::chmod(mount_.mounted("file").c_str(), 0640), 0);
  EXPECT_EQ(attribute("state"), "complete");
  write_content(mount_.backend("file"), content(1, 1, 2 * kMiB));
  EXPECT_EQ(attribute("state"), "absent");
  EXPECT_TRUE(attribute("version").starts_with("size=2097152 "));
}

TEST_P(MountAttributesTest, RefuseWhatMakesNoSense) {
  std::filesystem::create_directory(mount_.backend("directory"));
  write_content(mount_.backend("empty"), {});
  start();
  EXPECT_EQ(order("state", "warmer"), EINVAL);
  EXPECT_EQ(order("pinned", "yes"), EINVAL);
  EXPECT_EQ(order("percent", "50"), EOPNOTSUPP);
  EXPECT_EQ(order("colour", "red"), EOPNOTSUPP);
  EXPECT_EQ(set(mount_.mounted("file"), "user.cachefs.pinned", "1", XATTR_CREATE), EEXIST);
  EXPECT_EQ(::removexattr(mount_.mounted("file").c_str(), "user.cachefs.pinned"), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(set(mount_.mounted("directory"), "user.cachefs.state", "warm"), EOPNOTSUPP);
  EXPECT_EQ(set(mount_.mounted("empty"), "user.cachefs.state", "warm"), EOPNOTSUPP);
  EXPECT_EQ(get(mount_.mounted("directory"), "user.cachefs.state"),
            "errno " + std::to_string(ENODATA));
  EXPECT_EQ(attribute("colour"), "errno " + std::to_string(ENODATA));
  char byte = 0;
  EXPECT_EQ(::getxattr(mount_.mounted("file").c_str(), "user.cachefs.state", &byte, 1), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(::getxattr(mount_.mounted("file").c_str(), "user.cachefs.state", nullptr, 0), 6);
}

TEST_P(MountAttributesTest, WhatDoesNotFitBesideOtherPinsIsTold) {
  write_content(mount_.backend("other"), content(2, 0, 6 * kMiB));
  mount_.start({.passthrough = GetParam(), .cache_size_bytes = 8 * kMiB});
  ASSERT_TRUE(mount_.wait_until([](const EngineStatus& status) { return !status.is_recovering; }));
  EXPECT_EQ(order("pinned", "1"), 0);
  EXPECT_EQ(set(mount_.mounted("other"), "user.cachefs.pinned", "1"), ENOSPC);
  EXPECT_EQ(get(mount_.mounted("other"), "user.cachefs.pinned"), "0");
}

TEST_P(MountAttributesTest, NeverReachTheBackendAndHideWhatItHasUnderTheirNames) {
  ASSERT_EQ(set(mount_.backend("file"), "user.cachefs.state", "theirs"), 0);
  ASSERT_EQ(set(mount_.backend("file"), "user.plain", "x"), 0);
  start();
  EXPECT_EQ(attribute("state"), "absent");
  EXPECT_EQ(order("state", "warm"), 0);
  EXPECT_EQ(order("pinned", "1"), 0);
  using namespace std::string_literals;
  EXPECT_EQ(list(mount_.mounted("file")), "user.plain\0"s);
  EXPECT_EQ(get(mount_.backend("file"), "user.cachefs.state"), "theirs");
  EXPECT_EQ(list(mount_.backend("file")).find("user.cachefs.pinned"), std::string::npos);
  // A copy within the mount carries the one and leaves the others.
  const std::string command = "cp -a " + mount_.mounted("file") + " " + mount_.mounted("copy");
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(get(mount_.backend("copy"), "user.plain"), "x");
  EXPECT_EQ(list(mount_.backend("copy")), "user.plain\0"s);
  EXPECT_EQ(get(mount_.mounted("copy"), "user.cachefs.pinned"), "0");
}

TEST_P(MountAttributesTest, AreForTheOwnerAndRootToSet) {
  ASSERT_EQ(::chown(mount_.backend("file").c_str(), kOwner, kOwner), 0);
  ASSERT_EQ(::chmod(mount_.backend("file").c_str(), 0666), 0);
  start();
  const std::string file = mount_.mounted("file");
  for (const uid_t user : {kOther, kNobody}) {
    EXPECT_TRUE(as_user(user, user, [&] {
      return get(file, "user.cachefs.state") == "absent" &&
             set(file, "user.cachefs.state", "warm") == EPERM &&
             set(file, "user.cachefs.state", "evict") == EPERM &&
             set(file, "user.cachefs.pinned", "1") == EPERM &&
             set(file, "user.cachefs.pinned", "0") == EPERM;
    }));
  }
  EXPECT_EQ(attribute("state"), "absent");
  EXPECT_TRUE(as_user(kOwner, kOwner, [&] { return set(file, "user.cachefs.pinned", "1") == 0; }));
  EXPECT_TRUE(eventually([&] { return attribute("state") == "complete"; }));
  EXPECT_TRUE(as_user(kOwner, kOwner, [&] {
    return set(file, "user.cachefs.pinned", "0") == 0 &&
           set(file, "curvefs.warmup.op", "add\nsingle\n/file\ndisk\n/mnt\n/") == EPERM;
  }));
}

TEST_P(MountAttributesTest, CurvefsWarmUpsAreStartedAndFollowed) {
  std::filesystem::create_directories(mount_.backend("tree/deep"));
  write_content(mount_.backend("tree/one"), content(2, 0, kMiB));
  write_content(mount_.backend("tree/deep/two"), content(3, 0, 2 * kMiB));
  const std::string listed = "/file\n/mnt/curve/tree/one\n";
  write_content(mount_.backend("list"), std::as_bytes(std::span(listed)));
  start();
  const std::string tree = mount_.mounted("tree");
  EXPECT_EQ(get(tree, "curvefs.warmup.op"), "errno " + std::to_string(ENODATA));
  EXPECT_EQ(set(tree, "curvefs.warmup.op", "add\nsingle"), EINVAL);
  EXPECT_EQ(set(tree, "curvefs.warmup.op", "add\nsingle\n/tree\nkvclient\n/mnt\n/"), EOPNOTSUPP);
  EXPECT_EQ(set(tree, "curvefs.warmup.op", "cancel\nsingle"), ENODATA);
  EXPECT_EQ(set(tree, "curvefs.warmup.op", "add\nsingle\n/tree\ndisk\n/mnt/curve\n/"), 0);
  EXPECT_TRUE(eventually([&] { return get(tree, "curvefs.warmup.op") == "finished"; }));
  EXPECT_EQ(get(mount_.mounted("tree/deep/two"), "user.cachefs.state"), "complete");
  const std::string list_file = mount_.mounted("list");
  EXPECT_EQ(set(list_file, "curvefs.warmup.op", "add\nlist\n/list\ndisk\n/mnt/curve\n/"), 0);
  EXPECT_TRUE(eventually([&] { return get(list_file, "curvefs.warmup.op") == "finished"; }));
  EXPECT_EQ(attribute("state"), "complete");
  EXPECT_EQ(get(tree, "curvefs.warmup.op.list"), "");
  EXPECT_EQ(list(tree), "");
  EXPECT_EQ(get(mount_.backend("tree"), "curvefs.warmup.op"),
            "errno " + std::to_string(EOPNOTSUPP));
}

}  // namespace
}  // namespace ncfs
