#include "fuse_adapter/mount_table.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

constexpr std::string_view kTable =
    "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "90 22 0:51 / /mnt/cached rw,nosuid,nodev shared:7 master:3 - fuse.cachefs cachefs rw\n"
    "91 22 0:51 /models /srv/my\\040models ro - fuse.cachefs cachefs rw\n"
    "broken line\n"
    "92 90 0:52 / /mnt/cached/inner rw - tmpfs tmpfs rw\n";

TEST(MountTable, TellsDeviceRootMountPointAndType) {
  const auto mounts = parse_mount_table(kTable);
  ASSERT_EQ(mounts.size(), 4U);
  EXPECT_EQ(mounts[1].device, "0:51");
  EXPECT_EQ(mounts[1].root, "/");
  EXPECT_EQ(mounts[1].mountpoint, "/mnt/cached");
  EXPECT_EQ(mounts[1].type, "fuse.cachefs");
  EXPECT_EQ(mounts[2].root, "/models");
  EXPECT_EQ(mounts[2].mountpoint, "/srv/my models");
}

TEST(MountTable, AFileBelongsToTheLongestMountPointAboveIt) {
  const auto mounts = parse_mount_table(kTable);
  EXPECT_EQ(find_mount(mounts, "/mnt/cached/a/b")->mountpoint, "/mnt/cached");
  EXPECT_EQ(find_mount(mounts, "/mnt/cached")->mountpoint, "/mnt/cached");
  EXPECT_EQ(find_mount(mounts, "/mnt/cached/inner/x")->type, "tmpfs");
  EXPECT_EQ(find_mount(mounts, "/mnt/cachedx")->mountpoint, "/");
  EXPECT_EQ(find_mount({}, "/mnt"), nullptr);
}

TEST(MountTable, OfTwoMountsOnOnePlaceTheLaterHidesTheEarlier) {
  const auto mounts = parse_mount_table(
      "1 0 0:1 / /m rw - tmpfs a rw\n"
      "2 0 0:2 / /m rw - fuse.cachefs b rw\n");
  EXPECT_EQ(find_mount(mounts, "/m/file")->device, "0:2");
}

TEST(MountTable, OfThisProcessHasARoot) {
  EXPECT_NE(find_mount(read_mount_table(), "/"), nullptr);
}

TEST(MountTable, WhatFstabNamesMayBeMissing) {
  const auto mounts = parse_mount_table(
      "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
      "90 22 0:51 / /mnt/there rw - nfs4 server:/a rw\n");
  const std::string fstab =
      "# server:/no /mnt/comment nfs\n\n"
      "/dev/vda / ext4 defaults 0 1\n"
      "UUID=1 none swap sw 0 0\n"
      "server:/a /mnt/there/ nfs defaults,_netdev 0 0\n"
      "server:/b\t/mnt/my\\040models/\tnfs4 defaults\n"
      "cachefs /mnt/cached cachefs nfs_backend=/mnt/there 0 0\n";
  for (const char* there : {"/", "/mnt", "/mnt/there", "/mnt/there/models", "/mnt/my",
                            "/mnt/cached/x", "/mnt/comment"}) {
    EXPECT_FALSE(lies_in_missing_mount(fstab, mounts, there)) << there;
  }
  EXPECT_TRUE(lies_in_missing_mount(fstab, mounts, "/mnt/my models"));
  EXPECT_TRUE(lies_in_missing_mount(fstab, mounts, "/mnt/my models/a"));
}

}  // namespace
}  // namespace ncfs
