#include "io/cache_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "io/temp_directory.h"
#include "io/test_bytes.h"
#include "io/types.h"

namespace ncfs {
namespace {

using testing::HasSubstr;

class CacheDirectoryTest : public testing::Test {
 protected:
  [[nodiscard]] CacheDirectoryResult open() const { return open_cache_directory(path_); }
  [[nodiscard]] std::string error() const {
    const CacheDirectoryResult result = open();
    EXPECT_FALSE(result.directory);
    return result.error;
  }
  [[nodiscard]] std::string text(const std::string& name) const {
    std::ifstream file(path_ + "/" + name);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& name, const std::string& content) const {
    write_file(path_ + "/" + name, std::as_bytes(std::span(content)));
  }
  [[nodiscard]] std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      found.insert(entry.path().filename());
    }
    return found;
  }
  void make_directory() const { ASSERT_EQ(::mkdir(path_.c_str(), 0700), 0); }

  const TempDirectory parent_;
  const std::string path_ = parent_.path("cache");
};

TEST_F(CacheDirectoryTest, AMissingDirectoryIsMadePrivateAndComplete) {
  const CacheDirectoryResult result = open();
  ASSERT_TRUE(result.directory) << result.error;
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0700U);
  EXPECT_EQ(names(), (std::set<std::string>{"FORMAT", "LOCK", "UUID", "objects"}));
  EXPECT_EQ(text("FORMAT"), "nfs-cachefs 1\n");
  EXPECT_EQ(text("UUID"), result.directory->uuid + "\n");
  for (int index = 0; index < 256; ++index) {
    const std::string name = fmt::format("{:02x}", index);
    ASSERT_EQ(::fstatat(result.directory->objects.get(), name.c_str(), &status, 0), 0) << name;
    EXPECT_EQ(status.st_mode, S_IFDIR | 0700U);
  }
}

TEST_F(CacheDirectoryTest, ItsIdAndContentsSurviveAReopening) {
  std::string uuid;
  {
    const CacheDirectoryResult first = open();
    ASSERT_TRUE(first.directory) << first.error;
    uuid = first.directory->uuid;
    write("objects/3f/object", "bytes");
  }
  const CacheDirectoryResult second = open();
  ASSERT_TRUE(second.directory) << second.error;
  EXPECT_EQ(second.directory->uuid, uuid);
  EXPECT_EQ(text("objects/3f/object"), "bytes");
}

TEST_F(CacheDirectoryTest, TwoDirectoriesHaveDifferentIds) {
  const CacheDirectoryResult one = open();
  const CacheDirectoryResult other = open_cache_directory(parent_.path("other"));
  ASSERT_TRUE(one.directory && other.directory);
  EXPECT_NE(one.directory->uuid, other.directory->uuid);
}

TEST_F(CacheDirectoryTest, ASecondDaemonIsToldWhoHasIt) {
  const CacheDirectoryResult first = open();
  ASSERT_TRUE(first.directory) << first.error;
  const std::string second = error();
  EXPECT_THAT(second, HasSubstr(path_));
  EXPECT_THAT(second, HasSubstr(fmt::format("process {}", ::getpid())));
}

TEST_F(CacheDirectoryTest, SomebodysFilesAreRefusedAndLeftUntouched) {
  make_directory();
  write("thesis.tex", "years of work");
  EXPECT_THAT(error(), HasSubstr("thesis.tex"));
  EXPECT_EQ(names(), std::set<std::string>{"thesis.tex"});
}

TEST_F(CacheDirectoryTest, AForeignLockFileDoesNotMakeADirectoryOurs) {
  make_directory();
  write("LOCK", "somebody's");
  EXPECT_THAT(error(), HasSubstr("LOCK"));
  EXPECT_EQ(text("LOCK"), "somebody's");
}

TEST_F(CacheDirectoryTest, AnEmptyFileSystemIsWelcome) {
  make_directory();
  ASSERT_EQ(::mkdir((path_ + "/lost+found").c_str(), 0700), 0);
  EXPECT_TRUE(open().directory);
}

TEST_F(CacheDirectoryTest, AnInterruptedMakingIsCompleted) {
  for (const char* lock : {"nfs-cachefs 1\n", ""}) {
    std::filesystem::remove_all(path_);
    make_directory();
    write("LOCK", lock);
    write("UUID", "half");
    std::filesystem::create_directories(path_ + "/objects/00");
    const CacheDirectoryResult result = open();
    ASSERT_TRUE(result.directory) << result.error;
    EXPECT_EQ(result.directory->uuid.size(), 36U);
    EXPECT_TRUE(std::filesystem::is_directory(path_ + "/objects/ff"));
  }
}

TEST_F(CacheDirectoryTest, AnotherFormatIsRefused) {
  { ASSERT_TRUE(open().directory); }
  write("FORMAT", "nfs-cachefs 2\n");
  const std::string text = error();
  EXPECT_THAT(text, HasSubstr("\"nfs-cachefs 2\""));
  EXPECT_THAT(text, HasSubstr(path_));
}

TEST_F(CacheDirectoryTest, DamageIsNamed) {
  { ASSERT_TRUE(open().directory); }
  std::filesystem::remove(path_ + "/UUID");
  EXPECT_THAT(error(), HasSubstr("UUID"));
  std::filesystem::remove_all(path_ + "/objects");
  EXPECT_THAT(error(), HasSubstr("objects"));
}

// Without it nobody could tell what the cache holds, and nothing new would be kept.
TEST_F(CacheDirectoryTest, AMissingShardIsMadeAgain) {
  { ASSERT_TRUE(open().directory); }
  std::filesystem::remove(path_ + "/objects/3f");
  ASSERT_TRUE(open().directory);
  EXPECT_TRUE(std::filesystem::is_directory(path_ + "/objects/3f"));
  std::filesystem::remove(path_ + "/objects/3f");
  write("objects/3f", "no directory");
  EXPECT_THAT(error(), HasSubstr("objects/3f"));
}

TEST_F(CacheDirectoryTest, ADirectoryThatOthersMayWriteToIsRefused) {
  make_directory();
  for (const mode_t mode : {0720U, 0702U}) {
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    EXPECT_THAT(error(), HasSubstr("chmod"));
  }
  ASSERT_EQ(::chmod(path_.c_str(), 0755), 0);
  EXPECT_TRUE(open().directory);
}

TEST_F(CacheDirectoryTest, ADirectoryOfAnotherUserIsRefused) {
  constexpr uid_t kSomebody = 12345;
  make_directory();
  ASSERT_EQ(::chown(path_.c_str(), kSomebody, 0), 0);
  EXPECT_THAT(error(), HasSubstr("12345"));
}

TEST_F(CacheDirectoryTest, APathThatCannotBeADirectoryIsExplained) {
  EXPECT_THAT(open_cache_directory(parent_.path("missing/cache")).error, HasSubstr("parent"));
  write_file(path_, test_bytes(1));
  EXPECT_THAT(error(), HasSubstr("not a directory"));
}

TEST(FileSystemSpaceTest, TellsTotalAndFreeBytes) {
  const Descriptor root = detached_file_system("tmpfs", "1m");
  const auto before = file_system_space(root.get());
  ASSERT_TRUE(before);
  EXPECT_EQ(before->total_bytes, kMiB);
  EXPECT_EQ(before->free_bytes, kMiB);
  const Descriptor file(::openat(root.get(), "a", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  ASSERT_EQ(::fallocate(file.get(), 0, 0, 64 * 1024), 0);
  EXPECT_EQ(file_system_space(root.get())->free_bytes, kMiB - 64 * kKiB);
  EXPECT_FALSE(file_system_space(-1));
}

}  // namespace
}  // namespace ncfs
