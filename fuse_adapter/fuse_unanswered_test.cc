// Method: the backend is down when the test says so, by what its probes answer. Whatever asks it
// all the same is noticed, for it would be answered.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <string>

#include "fuse_adapter/backends.h"
#include "fuse_adapter/fuse_ops_fixture.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

class FuseUnansweredTest : public FuseOpsTest {
 protected:
  [[nodiscard]] MetadataConfig metadata() const override {
    MetadataConfig config = metadata_config(MetadataProfile::strict);
    config.stale_if_error = 3600 * kSecond;
    config.racy_window = 0;
    return config;
  }
  [[nodiscard]] std::shared_ptr<Backends> backends() const override {
    return std::make_shared<Backends>(
        Backends::Options{.root = backend_.get(),
                          .probe = [error = probe_error_](const auto&) { return error->load(); }});
  }
  [[nodiscard]] bool is_down() const { return core_->backends->is_down(core_->backends->root()); }
  void take_down() {
    *probe_error_ = ETIMEDOUT;
    core_->backends->answered(core_->backends->root(), ETIMEDOUT);
    ASSERT_TRUE(eventually([this] { return is_down(); }));
    looks_before_ = stats_->source_looks.value();
  }
  void bring_up() {
    EXPECT_EQ(stats_->source_looks.value(), looks_before_) << "it was asked while it was down";
    *probe_error_ = 0;
    ASSERT_TRUE(eventually([this] { return !is_down(); }));
  }
  Reply get_extended(NodeId node, const std::string& name, std::uint32_t size = 100) {
    fuse_getxattr_in request{};
    request.size = size;
    return ask(FUSE_GETXATTR, node, raw(request) + name + '\0');
  }
  // The bytes of one answer to READDIR.
  std::string list(NodeId node) {
    const Reply opened = ask(FUSE_OPENDIR, node, raw(fuse_open_in{}));
    EXPECT_EQ(opened.error, 0);
    if (opened.error != 0) return {};
    fuse_read_in request{};
    request.fh = opened.as<fuse_open_out>().fh;
    request.size = 4096;
    const std::string listed = ask(FUSE_READDIR, node, raw(request)).bytes;
    fuse_release_in ending{};
    ending.fh = request.fh;
    EXPECT_EQ(ask(FUSE_RELEASEDIR, node, raw(ending)).error, 0);
    return listed;
  }
  std::string read_whole(NodeId node) {
    const Reply opened = open(node);
    EXPECT_EQ(opened.error, 0);
    if (opened.error != 0) return {};
    const auto handle = opened.as<fuse_open_out>().fh;
    const std::string text = read(node, handle, 0, kBlock).bytes;
    release(node, handle);
    return text;
  }

  const std::shared_ptr<std::atomic<int>> probe_error_ = std::make_shared<std::atomic<int>>(0);
  std::uint64_t looks_before_ = 0;
};

TEST_F(FuseUnansweredTest, WhatIsKnownAndCachedIsToldUntilTheBackendIsBack) {
  write("file", "12345");
  ASSERT_EQ(::symlink("target", directory_.path("link").c_str()), 0);
  engine_.on_open = [residency = cache("12345", 5)](const std::string&) {
    return OpenResult{residency, true, OpenReason::cached};
  };
  const NodeId node = find("file");
  const NodeId link = find("link");
  EXPECT_EQ(ask(FUSE_READLINK, link, {}).bytes, "target");
  EXPECT_EQ(get_attributes(kRootNode).error, 0);
  EXPECT_EQ(read_whole(node), "12345");
  const std::string listed = list(kRootNode);
  EXPECT_NE(listed.find("file"), std::string::npos);
  EXPECT_EQ(get_attributes(node).error, 0);
  const int no_acl = get_extended(node, "system.posix_acl_access").error;
  EXPECT_NE(no_acl, 0);

  take_down();
  write("file", "1234567");
  const auto entry = look_up("file").as<fuse_entry_out>();
  EXPECT_EQ(entry.nodeid, node);
  EXPECT_EQ(entry.attr.size, 5U);
  EXPECT_EQ(entry.entry_valid + entry.attr_valid + entry.entry_valid_nsec + entry.attr_valid_nsec,
            0U);
  const auto attributes = get_attributes(node).as<fuse_attr_out>();
  EXPECT_EQ(attributes.attr.size, 5U);
  EXPECT_EQ(attributes.attr_valid + attributes.attr_valid_nsec, 0U);
  EXPECT_EQ(get_attributes(kRootNode).error, 0);
  EXPECT_EQ(ask(FUSE_READLINK, link, {}).bytes, "target");
  EXPECT_EQ(get_extended(node, "system.posix_acl_access").error, no_acl);
  EXPECT_EQ(list(kRootNode), listed);
  EXPECT_EQ(read_whole(node), "12345");
  EXPECT_THAT(get_extended(node, "user.cachefs.metadata_age_s").bytes,
              testing::MatchesRegex("[0-9]+\\.[0-9][0-9][0-9]"));
  EXPECT_GT(core_->known_metadata.status().stats.unasked_hits, 5U);
  EXPECT_GT(core_->known_metadata.status().stats.unasked_age_max, 0U);
  // What is not known, and every change, is the backend's to answer.
  EXPECT_EQ(look_up("unknown").error, ETIMEDOUT);
  EXPECT_EQ(open(node, O_WRONLY).error, ETIMEDOUT);
  EXPECT_EQ(open(node, O_RDONLY | O_TRUNC).error, ETIMEDOUT);

  bring_up();
  EXPECT_EQ(look_up("file").as<fuse_entry_out>().attr.size, 7U);
}

TEST_F(FuseUnansweredTest, NobodyIsLetInWhoWasNotBefore) {
  write("file", "12345");
  const NodeId node = find("file");
  EXPECT_EQ(get_attributes(node).error, 0);
  take_down();
  EXPECT_EQ(open(node).error, ETIMEDOUT);
  EXPECT_EQ(ask(FUSE_OPENDIR, kRootNode, raw(fuse_open_in{})).error, ETIMEDOUT);
  EXPECT_EQ(get_extended(node, "system.posix_acl_access").error, ETIMEDOUT);
  bring_up();
}

TEST_F(FuseUnansweredTest, AnOpenDirectoryIsListedOn) {
  write("file", "12345");
  const auto handle = ask(FUSE_OPENDIR, kRootNode, raw(fuse_open_in{})).as<fuse_open_out>().fh;
  fuse_read_in request{};
  request.fh = handle;
  request.size = 4096;
  const std::string listed = ask(FUSE_READDIR, kRootNode, raw(request)).bytes;
  take_down();
  EXPECT_EQ(ask(FUSE_READDIR, kRootNode, raw(request)).bytes, listed);
  bring_up();
  fuse_release_in ending{};
  ending.fh = handle;
  EXPECT_EQ(ask(FUSE_RELEASEDIR, kRootNode, raw(ending)).error, 0);
}

TEST_F(FuseUnansweredTest, AnOpenDirectoryThatWasNotListedIsListedAsAnotherOneWas) {
  write("file", "12345");
  fuse_read_in request{};
  request.fh = ask(FUSE_OPENDIR, kRootNode, raw(fuse_open_in{})).as<fuse_open_out>().fh;
  request.size = 4096;
  const std::string listed = list(kRootNode);
  take_down();
  const std::string first = ask(FUSE_READDIR, kRootNode, raw(request)).bytes;
  EXPECT_EQ(first, listed);
  request.offset = 1;
  const std::string rest = ask(FUSE_READDIR, kRootNode, raw(request)).bytes;
  EXPECT_FALSE(rest.empty());
  EXPECT_TRUE(first.ends_with(rest));
  bring_up();
  write("another", "");
  request.offset = 0;
  EXPECT_THAT(ask(FUSE_READDIR, kRootNode, raw(request)).bytes, testing::HasSubstr("another"));
  fuse_release_in ending{};
  ending.fh = request.fh;
  EXPECT_EQ(ask(FUSE_RELEASEDIR, kRootNode, raw(ending)).error, 0);
}

TEST_F(FuseUnansweredTest, AnOpenDirectoryThatNobodyHasListedIsNotListed) {
  write("file", "12345");
  fuse_read_in request{};
  request.fh = ask(FUSE_OPENDIR, kRootNode, raw(fuse_open_in{})).as<fuse_open_out>().fh;
  request.size = 4096;
  take_down();
  EXPECT_EQ(ask(FUSE_READDIR, kRootNode, raw(request)).error, ETIMEDOUT);
  bring_up();
  EXPECT_THAT(ask(FUSE_READDIR, kRootNode, raw(request)).bytes, testing::HasSubstr("file"));
  fuse_release_in ending{};
  ending.fh = request.fh;
  EXPECT_EQ(ask(FUSE_RELEASEDIR, kRootNode, raw(ending)).error, 0);
}

// Without stale_if_error.
class FuseDownTest : public FuseUnansweredTest {
 protected:
  [[nodiscard]] MetadataConfig metadata() const override {
    return metadata_config(MetadataProfile::strict);
  }
};

TEST_F(FuseDownTest, NothingIsToldThatIsNotFresh) {
  write("file", "12345");
  const NodeId node = find("file");
  read_through();
  EXPECT_EQ(read_whole(node), "12345");
  list(kRootNode);
  take_down();
  EXPECT_EQ(look_up("file").error, ETIMEDOUT);
  EXPECT_EQ(get_attributes(node).error, ETIMEDOUT);
  EXPECT_EQ(open(node).error, ETIMEDOUT);
  EXPECT_EQ(ask(FUSE_OPENDIR, kRootNode, raw(fuse_open_in{})).error, ETIMEDOUT);
  bring_up();
}

class FuseDownNoctoTest : public FuseUnansweredTest {
 protected:
  [[nodiscard]] MetadataConfig metadata() const override {
    MetadataConfig config = metadata_config(MetadataProfile::unchanged);
    config.racy_window = 0;
    return config;
  }
};

TEST_F(FuseDownNoctoTest, WhatNeedsNoQuestionIsAnsweredAsEver) {
  write("file", "12345");
  engine_.on_open = [residency = cache("12345", 5)](const std::string&) {
    return OpenResult{residency, true, OpenReason::cached};
  };
  const NodeId node = find("file");
  EXPECT_EQ(read_whole(node), "12345");
  const std::string listed = list(kRootNode);
  take_down();
  EXPECT_EQ(find("file"), node);
  EXPECT_EQ(read_whole(node), "12345");
  EXPECT_EQ(list(kRootNode), listed);
  bring_up();
}

}  // namespace
}  // namespace ncfs
