#include "fuse_adapter/closing_handles.h"

#include <gtest/gtest.h>

#include <atomic>

#include "io/test_wait.h"

namespace ncfs {
namespace {

constexpr FileKey kFile{1, 2};
constexpr FileKey kOther{1, 3};
constexpr Nanos kForEver = 3600 * kSecond;

TEST(ClosingHandles, WhoAsksWaitsForTheEndOfAHandleThatWasFlushed) {
  ClosingHandles closing(kForEver);
  int runs = 0;
  const auto run = [&runs] { ++runs; };
  closing.locked(7);
  EXPECT_FALSE(closing.later(kFile, run));
  closing.flushed(kFile, 7);
  EXPECT_FALSE(closing.later(kOther, run));
  EXPECT_TRUE(closing.later(kFile, run));
  EXPECT_TRUE(closing.later(kFile, run));
  EXPECT_EQ(runs, 0);
  closing.released(kFile, 7);
  EXPECT_EQ(runs, 2);
  EXPECT_FALSE(closing.later(kFile, run));
}

TEST(ClosingHandles, AllThatMayEndAreWaitedFor) {
  ClosingHandles closing(kForEver);
  int runs = 0;
  closing.locked(7);
  closing.locked(8);
  closing.flushed(kFile, 7);
  closing.flushed(kFile, 8);
  EXPECT_TRUE(closing.later(kFile, [&runs] { ++runs; }));
  closing.released(kFile, 7);
  EXPECT_EQ(runs, 0);
  closing.released(kFile, 8);
  EXPECT_EQ(runs, 1);
}

TEST(ClosingHandles, HandlesWithoutLocksAreNotWaitedFor) {
  ClosingHandles closing(kForEver);
  closing.flushed(kFile, 7);
  EXPECT_FALSE(closing.later(kFile, [] {}));
  closing.locked(8);
  closing.flushed(kFile, 7);
  EXPECT_FALSE(closing.later(kFile, [] {}));
}

TEST(ClosingHandles, ADescriptorOfManyIsNotWaitedForForEver) {
  ClosingHandles closing(kMillisecond);
  std::atomic<int> runs = 0;
  closing.locked(7);
  // The patience may be over before the question is put.
  EXPECT_TRUE(eventually([&] {
    closing.flushed(kFile, 7);
    return closing.later(kFile, [&runs] { ++runs; });
  }));
  EXPECT_TRUE(eventually([&] { return runs == 1; }));
}

TEST(ClosingHandles, TheEndAnswersAll) {
  ClosingHandles closing(kForEver);
  int runs = 0;
  closing.locked(7);
  closing.flushed(kFile, 7);
  EXPECT_TRUE(closing.later(kFile, [&runs] { ++runs; }));
  closing.stop();
  EXPECT_EQ(runs, 1);
  EXPECT_FALSE(closing.later(kFile, [&runs] { ++runs; }));
}

}  // namespace
}  // namespace ncfs
