#include "fuse_adapter/hot_files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace ncfs {
namespace {

TEST(HotFiles, FindsWhatIsOpenedOftenAmongManyThatAreOpenedOnce) {
  HotFiles hot;
  for (int round = 0; round < 100; ++round) {
    for (int once = 0; once < 20; ++once) hot.opened(fmt::format("{}/{}", round, once), 1, kSecond);
    hot.opened("hot", 5, kSecond);
    if (round % 2 == 0) hot.opened("warm", 6, kSecond);
    for (int more = 0; more < 4; ++more) hot.opened("hot", 7, kSecond);
  }
  const auto files = hot.list(kSecond);
  ASSERT_EQ(files.size(), HotFiles::kFilesMax);
  EXPECT_EQ(files[0].path, "hot");
  EXPECT_GE(files[0].opens, 500U);
  EXPECT_EQ(files[0].size_bytes, 7U);
}

TEST(HotFiles, CountsAreHalvedEveryMinuteUntilTheFileIsForgotten) {
  HotFiles hot;
  for (int count = 0; count < 4; ++count) hot.opened("a", 1, 60 * kSecond);
  EXPECT_EQ(hot.list(60 * kSecond).at(0).opens, 4U);
  EXPECT_EQ(hot.list(119 * kSecond).at(0).opens, 4U);
  EXPECT_EQ(hot.list(120 * kSecond).at(0).opens, 2U);
  EXPECT_TRUE(hot.list(300 * kSecond).empty());
}

}  // namespace
}  // namespace ncfs
