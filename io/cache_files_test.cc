#include "io/cache_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "io/temp_directory.h"
#include "io/test_bytes.h"

namespace ncfs {
namespace {

class CacheFilesTest : public testing::Test {
 protected:
  Descriptor create(const std::string& name, std::uint64_t length = 8192) {
    const std::int64_t fd = create_file(root_.get(), name, length);
    EXPECT_GE(fd, 0);
    return Descriptor(static_cast<int>(fd));
  }
  [[nodiscard]] bool exists(const std::string& name) const {
    return ::faccessat(root_.get(), name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
  }

  const TempDirectory directory_;
  const Descriptor root_ = directory_.open();
};

TEST_F(CacheFilesTest, NamesThatCouldLeadOutOfTheTreeAreRefused) {
  for (const char* name :
       {"", "/", "/a", "..", "a/..", "../a", "a/../b", ".", "./a", "a//b", "a/"}) {
    EXPECT_FALSE(is_plain_name(name)) << name;
    EXPECT_EQ(create_file(root_.get(), name, 0), -EINVAL) << name;
    EXPECT_EQ(store_file(root_.get(), name, {}), -EINVAL) << name;
    EXPECT_EQ(rename_file(root_.get(), name, "a"), -EINVAL) << name;
    EXPECT_EQ(rename_file(root_.get(), "a", name), -EINVAL) << name;
    EXPECT_EQ(unlink_file(root_.get(), name), -EINVAL) << name;
    EXPECT_EQ(touch_file(root_.get(), name), -EINVAL) << name;
    std::vector<std::byte> bytes;
    EXPECT_EQ(load_file(root_.get(), name, bytes), -EINVAL) << name;
  }
  EXPECT_FALSE(is_plain_name(std::string("a\0b", 3)));
  for (const char* name : {"a", "a/b", "...", "..a", "a../b"}) EXPECT_TRUE(is_plain_name(name));
}

TEST_F(CacheFilesTest, SymbolicLinksAreNotFollowed) {
  std::filesystem::create_directory(directory_.path("directory"));
  write_file(directory_.path("directory/file"), test_bytes(10));
  std::filesystem::create_symlink("directory/file", directory_.path("link"));
  std::filesystem::create_symlink("directory", directory_.path("way"));
  EXPECT_EQ(open_regular(root_.get(), "link", O_RDONLY), -ELOOP);
  EXPECT_EQ(open_regular(root_.get(), "way/file", O_RDONLY), -ELOOP);
  EXPECT_EQ(store_file(root_.get(), "link", {}), -ELOOP);
}

TEST_F(CacheFilesTest, OnlyRegularFilesAreOpenedAndAFifoDoesNotBlock) {
  ASSERT_EQ(::mkfifo(directory_.path("fifo").c_str(), 0600), 0);
  std::filesystem::create_directory(directory_.path("directory"));
  for (const char* name : {"fifo", "directory", ""}) {
    EXPECT_EQ(open_regular(root_.get(), name, O_RDONLY), -EINVAL) << name;
    EXPECT_EQ(open_regular(root_.get(), name, O_WRONLY), -EINVAL) << name;
  }
}

TEST_F(CacheFilesTest, AnOpenedFileIsBlockingClosedOnExecAndPrivate) {
  const Descriptor created = create("a");
  const std::int64_t fd = open_regular(root_.get(), "a", O_RDWR);
  ASSERT_GE(fd, 0);
  const Descriptor opened(static_cast<int>(fd));
  for (const int file : {created.get(), opened.get()}) {
    EXPECT_EQ(::fcntl(file, F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_RDWR);
    EXPECT_EQ(::fcntl(file, F_GETFD), FD_CLOEXEC);
  }
  struct stat status {};
  ASSERT_EQ(::fstat(created.get(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
}

TEST_F(CacheFilesTest, AFileThatThereIsNoSpaceForIsNotLeftBehind) {
  const Descriptor small = detached_file_system("tmpfs", "1m");
  EXPECT_EQ(create_file(small.get(), "a", 8 * kMiB), -ENOSPC);
  EXPECT_EQ(create_file(small.get(), "a", ~std::uint64_t{0}), -EFBIG);
  EXPECT_EQ(::faccessat(small.get(), "a", F_OK, 0), -1);
}

TEST_F(CacheFilesTest, WhereSpaceCannotBeAllocatedTheFileStillGetsItsLength) {
  const Descriptor root = detached_file_system("ramfs");
  const std::int64_t fd = create_file(root.get(), "a", 10'000);
  ASSERT_GE(fd, 0);
  const Descriptor file(static_cast<int>(fd));
  struct stat status {};
  ASSERT_EQ(::fstat(file.get(), &status), 0);
  EXPECT_EQ(status.st_size, 10'000);
}

TEST_F(CacheFilesTest, AFileThatOnlyItsHandleUsesIsUnlinked) {
  const Descriptor file = create("a");
  EXPECT_EQ(unlink_unused_file(root_.get(), "a", file.get()), 0);
  EXPECT_FALSE(exists("a"));
  EXPECT_EQ(::fcntl(file.get(), F_GETLEASE), F_UNLCK);
}

TEST_F(CacheFilesTest, AnotherOpenOfAFileKeepsItsName) {
  const Descriptor file = create("a");
  for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR}) {
    const Descriptor other = directory_.open("a", flags);
    EXPECT_EQ(unlink_unused_file(root_.get(), "a", file.get()), -EBUSY);
    EXPECT_TRUE(exists("a"));
  }
  EXPECT_EQ(::fcntl(file.get(), F_GETLEASE), F_UNLCK);
  EXPECT_EQ(unlink_unused_file(root_.get(), "a", file.get()), 0);
}

TEST_F(CacheFilesTest, AMappingKeepsTheNameThoughItsDescriptorIsClosed) {
  const Descriptor file = create("a");
  for (const int sharing : {MAP_SHARED, MAP_PRIVATE}) {
    Descriptor other = directory_.open("a", O_RDONLY);
    void* memory = ::mmap(nullptr, 4096, PROT_READ, sharing, other.get(), 0);
    ASSERT_NE(memory, MAP_FAILED);
    other.reset();
    EXPECT_EQ(unlink_unused_file(root_.get(), "a", file.get()), -EBUSY);
    EXPECT_TRUE(exists("a"));
    ASSERT_EQ(::munmap(memory, 4096), 0);
  }
  EXPECT_EQ(unlink_unused_file(root_.get(), "a", file.get()), 0);
}

TEST_F(CacheFilesTest, UnlinkingByAClosedHandleDoesNothing) {
  create("a");
  EXPECT_EQ(unlink_unused_file(root_.get(), "a", -1), -EBADF);
  EXPECT_TRUE(exists("a"));
}

TEST_F(CacheFilesTest, ListsHoldEverythingWithItsSizes) {
  create("b", 5000);
  std::filesystem::create_directory(directory_.path("a"));
  std::filesystem::create_symlink("nowhere", directory_.path("c"));
  std::vector<CacheEntry> entries;
  EXPECT_EQ(list_directory(root_.get(), "", entries), 0);
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(entries[1].name, "b");
  EXPECT_EQ(entries[1].size_bytes, 5000U);
  EXPECT_EQ(entries[1].allocated_bytes, 8192U);
  EXPECT_GT(entries[1].mtime_ns, 0);
  EXPECT_EQ(entries[2].name, "c");
}

}  // namespace
}  // namespace ncfs
