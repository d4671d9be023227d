#include "fuse_adapter/known_metadata.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace ncfs {
namespace {

struct stat directory_with(ino_t inode) {
  struct stat attributes {};
  attributes.st_dev = 0x801;
  attributes.st_ino = inode;
  attributes.st_mode = S_IFDIR | 01755;
  attributes.st_uid = 5;
  attributes.st_gid = 6;
  attributes.st_nlink = 7;
  attributes.st_rdev = 8;
  attributes.st_size = 4096;
  attributes.st_blksize = 512;
  attributes.st_blocks = 9;
  attributes.st_mtim = {.tv_sec = 1'000'000'000, .tv_nsec = 1};
  attributes.st_ctim = {.tv_sec = 1'000'000'001, .tv_nsec = 999'999'999};
  attributes.st_atim = {.tv_sec = -2, .tv_nsec = 3};  // before 1970
  return attributes;
}

constexpr FileKey kParent{0x801, 2};

TEST(KnownMetadata, TellsEveryAttributeAsItWasLearnt) {
  CallerGroups groups;
  KnownMetadata known(metadata_config(MetadataProfile::unchanged), groups);
  const struct stat in = directory_with(10);
  const Caller caller{.thread = ::gettid()};
  const auto left = known.found(known.begin(kParent), kParent, "a", in, caller, false);
  EXPECT_GT(left.entry, 0);
  EXPECT_LE(left.entry, 3600);
  const auto found = known.find_name(kParent, "a", caller);
  ASSERT_TRUE(found);
  ASSERT_TRUE(found->exists);
  const struct stat& out = found->attributes;
  EXPECT_EQ(out.st_dev, in.st_dev);
  EXPECT_EQ(out.st_ino, in.st_ino);
  EXPECT_EQ(out.st_mode, in.st_mode);
  EXPECT_EQ(out.st_uid, in.st_uid);
  EXPECT_EQ(out.st_gid, in.st_gid);
  EXPECT_EQ(out.st_nlink, in.st_nlink);
  EXPECT_EQ(out.st_rdev, in.st_rdev);
  EXPECT_EQ(out.st_size, in.st_size);
  EXPECT_EQ(out.st_blksize, in.st_blksize);
  EXPECT_EQ(out.st_blocks, in.st_blocks);
  EXPECT_EQ(out.st_mtim.tv_sec, in.st_mtim.tv_sec);
  EXPECT_EQ(out.st_mtim.tv_nsec, in.st_mtim.tv_nsec);
  EXPECT_EQ(out.st_ctim.tv_nsec, in.st_ctim.tv_nsec);
  EXPECT_EQ(out.st_atim.tv_sec, in.st_atim.tv_sec);
  EXPECT_EQ(out.st_atim.tv_nsec, in.st_atim.tv_nsec);
}

TEST(KnownMetadata, WhatOnlyOneCallerMaySeeIsItsOwn) {
  CallerGroups groups;
  KnownMetadata known(metadata_config(MetadataProfile::unchanged), groups);
  const Caller alice{.user = 1000, .group = 1000, .thread = ::gettid()};
  const Caller bob{.user = 1001, .group = 1000, .thread = ::gettid()};
  const auto left =
      known.found(known.begin(kParent), kParent, "a", directory_with(10), alice, true);
  EXPECT_EQ(left.entry, 0);
  EXPECT_TRUE(known.find_name(kParent, "a", alice));
  EXPECT_FALSE(known.find_name(kParent, "a", bob));
  EXPECT_FALSE(known.find_name(kParent, "a", {}));  // squashed root
}

}  // namespace
}  // namespace ncfs
