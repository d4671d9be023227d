// Method: small real trees beneath a temporary directory.
#include "fuse_adapter/source_walk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

namespace ncfs {
namespace {

class SourceWalkTest : public ::testing::Test {
 protected:
  SourceWalkTest() {
    std::string pattern = ::testing::TempDir() + "ncfs-walk-XXXXXX";
    tree_ = mkdtemp(pattern.data());
    root_ = open(tree_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
  ~SourceWalkTest() override {
    close(root_);
    std::filesystem::remove_all(tree_);
  }

  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((tree_ / path).parent_path());
    std::ofstream(tree_ / path) << text;
  }

  // What is found, by path: "file <size>", "skipped <what>" or "failed <errno>".
  std::map<std::string, std::string> walk(std::vector<std::string> paths) {
    std::map<std::string, std::string> result;
    SourceWalk source_walk(root_, std::move(paths));
    while (const auto found = source_walk.next()) {
      std::string text;
      if (found->kind == WalkedFile::Kind::file) {
        text = "file " + std::to_string(found->status.st_size);
        close(found->descriptor);
      } else if (found->kind == WalkedFile::Kind::skipped) {
        text = "skipped " + found->detail;
      } else {
        text = "failed " + std::to_string(found->error);
      }
      EXPECT_TRUE(result.emplace(found->path, text).second) << found->path << " found twice";
    }
    return result;
  }

  using Found = std::map<std::string, std::string>;
  std::filesystem::path tree_;
  int root_ = -1;
};

TEST_F(SourceWalkTest, FindsAllFilesOfATree) {
  write("a", "1");
  write("models/b", "22");
  write("models/deep/er/c", "333");
  std::filesystem::create_directory(tree_ / "empty");
  EXPECT_EQ(walk({""}),
            (Found{{"a", "file 1"}, {"models/b", "file 2"}, {"models/deep/er/c", "file 3"}}));
}

TEST_F(SourceWalkTest, TakesFilesAndDirectoriesAsStartingPoints) {
  write("a", "1");
  write("models/b", "22");
  write("other/c", "333");
  EXPECT_EQ(walk({"a", "models"}), (Found{{"a", "file 1"}, {"models/b", "file 2"}}));
}

TEST_F(SourceWalkTest, SaysWhatItSkips) {
  write("file", "1");
  std::filesystem::create_symlink("file", tree_ / "link");
  std::filesystem::create_directory_symlink("/", tree_ / "way-out");
  ASSERT_EQ(mkfifo((tree_ / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(walk({""}), (Found{{"file", "file 1"},
                               {"link", "skipped symbolic link"},
                               {"pipe", "skipped named pipe"},
                               {"way-out", "skipped symbolic link"}}));
}

TEST_F(SourceWalkTest, NeverLeavesTheRoot) {
  std::filesystem::create_directory_symlink("/etc", tree_ / "way-out");
  EXPECT_EQ(SourceWalk::check(root_, "way-out/passwd"), ELOOP);
  EXPECT_EQ(SourceWalk::check(root_, "../"), EXDEV);
  EXPECT_EQ(SourceWalk::check(root_, "/etc/passwd"), EXDEV);
}

TEST_F(SourceWalkTest, ChecksPathsBeforeTheWalk) {
  write("file", "1");
  ASSERT_EQ(mkfifo((tree_ / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(SourceWalk::check(root_, "file"), 0);
  EXPECT_EQ(SourceWalk::check(root_, ""), 0);
  EXPECT_EQ(SourceWalk::check(root_, "nothing"), ENOENT);
  EXPECT_EQ(SourceWalk::check(root_, "file/beneath"), ENOTDIR);
  EXPECT_EQ(SourceWalk::check(root_, "pipe"), EINVAL);
}

TEST_F(SourceWalkTest, ReportsAPathThatVanishedAndGoesOn) {
  write("b", "1");
  EXPECT_EQ(walk({"a", "b"}), (Found{{"a", "failed " + std::to_string(ENOENT)}, {"b", "file 1"}}));
}

TEST_F(SourceWalkTest, ReportsTooDeepTreesAndGoesOn) {
  std::string path = "d";
  for (std::size_t depth = 0; depth < SourceWalk::kDepthMax; ++depth) path += "/d";
  write(path + "/hidden", "1");
  write("seen", "1");
  const auto found = walk({""});
  EXPECT_EQ(found.size(), 2U);
  EXPECT_EQ(found.at("seen"), "file 1");
}

}  // namespace
}  // namespace ncfs
