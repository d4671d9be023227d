#include "fuse_adapter/virtual_attributes.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

namespace ncfs {
namespace {

using namespace std::string_literals;

TEST(VirtualAttributes, AreThoseOfTheTwoBeginningsAndNoOthers) {
  EXPECT_EQ(virtual_attribute("user.cachefs.state"), VirtualAttribute::state);
  EXPECT_EQ(virtual_attribute("user.cachefs.age"), VirtualAttribute::age);
  EXPECT_EQ(virtual_attribute("user.cachefs.statement"), VirtualAttribute::unknown);
  EXPECT_EQ(virtual_attribute("user.cachefs."), VirtualAttribute::unknown);
  EXPECT_EQ(virtual_attribute("curvefs.warmup.op"), VirtualAttribute::curvefs_warmup);
  EXPECT_EQ(virtual_attribute("curvefs.warmup.op.list"), VirtualAttribute::curvefs_warmups);
  for (const char* name : {"user.cachefs", "user.cachefstate", "user.a", "security.selinux",
                           "system.posix_acl_access", "curvefs.warmup", ""}) {
    EXPECT_FALSE(virtual_attribute(name)) << name;
  }
}

TEST(VirtualAttributes, AreInNoList) {
  EXPECT_EQ(without_virtual_attributes("user.a\0user.cachefs.state\0user.b\0"s),
            "user.a\0user.b\0"s);
  EXPECT_EQ(without_virtual_attributes("user.cachefs.mine\0"s), "");
  EXPECT_EQ(without_virtual_attributes(""), "");
}

TEST(VirtualAttributes, TellWhatTheCacheHolds) {
  constexpr auto kNow = std::int64_t{1'000'000'000} * 1000;
  FileReport file;
  file.version = {1000, kNow - 12'345'678'901, 1'700'000'000'000'000'005};
  EXPECT_EQ(value_of(VirtualAttribute::state, file, kNow), "absent");
  EXPECT_EQ(value_of(VirtualAttribute::percent, file, kNow), "0");
  EXPECT_EQ(value_of(VirtualAttribute::tier, file, kNow), "backend");
  EXPECT_EQ(value_of(VirtualAttribute::pinned, file, kNow), "0");
  EXPECT_EQ(value_of(VirtualAttribute::age, file, kNow), "12");
  EXPECT_EQ(value_of(VirtualAttribute::age, file, 0), "0");  // the server's clock is ahead
  EXPECT_EQ(value_of(VirtualAttribute::version, file, kNow),
            "size=1000 mtime=987.654321099 ctime=1700000000.000000005");
  file.state = FileReport::State::partial;
  file.cached_bytes = 999;
  file.is_pinned = true;
  EXPECT_EQ(value_of(VirtualAttribute::percent, file, kNow), "99");
  EXPECT_EQ(value_of(VirtualAttribute::tier, file, kNow), "disk+backend");
  EXPECT_EQ(value_of(VirtualAttribute::pinned, file, kNow), "1");
  file.cached_bytes = 1000;  // all its blocks, but not published
  EXPECT_EQ(value_of(VirtualAttribute::percent, file, kNow), "99");
  file.state = FileReport::State::complete;
  EXPECT_EQ(value_of(VirtualAttribute::percent, file, kNow), "100");
  EXPECT_EQ(value_of(VirtualAttribute::tier, file, kNow), "disk");
}

TEST(VirtualAttributes, OrdersAreTakenToTheByte) {
  EXPECT_EQ(parse_order(VirtualAttribute::state, "warm").order, AttributeOrder::warm);
  EXPECT_EQ(parse_order(VirtualAttribute::state, "evict").order, AttributeOrder::evict);
  EXPECT_EQ(parse_order(VirtualAttribute::pinned, "1").order, AttributeOrder::pin);
  EXPECT_EQ(parse_order(VirtualAttribute::pinned, "0").order, AttributeOrder::unpin);
  for (const std::string& value : {""s, "warm\n"s, "Warm"s, "warm\0"s, "1"s, "complete"s}) {
    EXPECT_EQ(parse_order(VirtualAttribute::state, value).error, EINVAL) << value;
  }
  for (const std::string& value : {""s, "2"s, "01"s, "true"s, "warm"s}) {
    EXPECT_EQ(parse_order(VirtualAttribute::pinned, value).error, EINVAL) << value;
  }
  EXPECT_EQ(parse_order(VirtualAttribute::percent, "1").error, EOPNOTSUPP);
  EXPECT_EQ(parse_order(VirtualAttribute::unknown, "1").error, EOPNOTSUPP);
}

TEST(VirtualAttributes, CurvefsOrdersNameTheFileFromAnyRoot) {
  for (const char* path : {"/a/b", "/mnt/curve/a/b", "/sub/a/b"}) {
    const auto order =
        parse_curvefs_order("add\nsingle\n"s + path + "\ndisk\n/mnt/curve\n/sub", "a/b");
    EXPECT_EQ(order.error, 0) << path;
    EXPECT_FALSE(order.is_list || order.is_cancel);
  }
  EXPECT_EQ(parse_curvefs_order("add\nsingle\n/\ndisk\n/mnt\n/", "").error, 0);
  EXPECT_EQ(parse_curvefs_order("add\nsingle\n/mnt\ndisk\n/mnt\n/", "").error, 0);
  EXPECT_TRUE(parse_curvefs_order("add\nlist\n/l\ndisk\n/mnt\n/", "l").is_list);
  const auto cancel = parse_curvefs_order("cancel\nlist", "l");
  EXPECT_EQ(cancel.error, 0);
  EXPECT_TRUE(cancel.is_cancel && cancel.is_list);
  EXPECT_EQ(parse_curvefs_order("add\nsingle\n/a\nkvclient\n/mnt\n/", "a").error, EOPNOTSUPP);
}

TEST(VirtualAttributes, CurvefsOrdersThatAreNotWholeAreRefused) {
  for (const std::string& value : {""s,
                                   "\n"s,
                                   "add"s,
                                   "add\nsingle"s,
                                   "add\nsingle\n/a\ndisk\n/mnt"s,
                                   "add\nsingle\n/a\ndisk\n/mnt\n/\n"s,
                                   "add\nboth\n/a\ndisk\n/mnt\n/"s,
                                   "add\nsingle\n/a\ntape\n/mnt\n/"s,
                                   "add\nsingle\n/b\ndisk\n/mnt\n/"s,
                                   "add\nsingle\na\ndisk\n/mnt\n/"s,
                                   "add\nsingle\n/x/../a\ndisk\n/mnt\n/"s,
                                   "add\nsingle\n/a/\ndisk\n/mnt\n/"s,
                                   "add\nsingle\n//a\ndisk\n/mnt\n/"s,
                                   "add\nsingle\n/a\0\ndisk\n/mnt\n/"s,
                                   "add\nsingle\n/mntx/a\ndisk\n/mnt\n/"s,
                                   "add\nsingle\n/a\ndisk\nmnt\n/"s,
                                   "ADD\nsingle\n/a\ndisk\n/mnt\n/"s,
                                   "cancel"s,
                                   "cancel\nsingle\n"s,
                                   "cancel\nall"s,
                                   std::string(100000, '\n')}) {
    EXPECT_EQ(parse_curvefs_order(value, "a").error, EINVAL) << value.substr(0, 80);
  }
}

TEST(VirtualAttributes, CurvefsListsHoldAbsolutePaths) {
  const std::vector<std::string> prefixes = {"/mnt/curve", "/"};
  using Paths = std::vector<std::string>;
  EXPECT_EQ(parse_curvefs_list("/a\n\n/mnt/curve/b/c\n", prefixes), (Paths{"a", "b/c"}));
  EXPECT_EQ(parse_curvefs_list("", prefixes), Paths{});
  for (const char* text : {"a", "/a\n../b", "/a/../../b", "/a/./b", "/a//b"}) {
    EXPECT_FALSE(parse_curvefs_list(text, prefixes)) << text;
  }
}

// Method: bytes of the grammar in any order, which comes nearer to it than any bytes do.
TEST(VirtualAttributes, NoBytesBringTheParsersDown) {
  const std::vector<std::string> pieces = {"add",      "cancel", "single", "list", "disk",
                                           "kvclient", "\n",     "/",      "a",    "..",
                                           "\0"s,      "\xff",   "/mnt",   "/a",   ""};
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string value;
    for (auto count = random() % 16; count > 0; --count) value += pieces[random() % pieces.size()];
    const CurvefsOrder order = parse_curvefs_order(value, "a");
    EXPECT_TRUE(order.error == 0 || order.error == EINVAL || order.error == EOPNOTSUPP);
    if (const auto paths = parse_curvefs_list(value, {"/mnt", "/"})) {
      for (const std::string& path : *paths) {
        EXPECT_FALSE(path.starts_with('/') || ("/" + path + "/").find("/../") != std::string::npos)
            << path;
      }
    }
    (void)without_virtual_attributes(value);
  }
}

}  // namespace
}  // namespace ncfs
