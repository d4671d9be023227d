// Method: files that nobody mounts; what they are told is looked at directly.
#include "fuse_adapter/shared_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fuse_adapter/fake_engine.h"
#include "fuse_adapter/open_files.h"
#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class SharedFileTest : public testing::Test {
 protected:
  SharedFileTest() { engine_->shut(); }

  [[nodiscard]] SharedFile::Look look() const { return {file_->changes(), version_}; }
  std::shared_ptr<OpenFile> reader(NodeId node) {
    OpenFile::Opened opened;
    opened.node = node;
    opened.shared = file_;
    return std::make_shared<OpenFile>(engine_, opened);
  }
  std::shared_ptr<OpenFile> joined_reader(NodeId node, OpenMode mode = OpenMode::page_cache) {
    auto opened = reader(node);
    EXPECT_TRUE(file_->join_reader(*opened, look(), [&](const auto&) {
      opened->mode = mode;
      return true;
    }));
    return opened;
  }
  SharedFile::Advice join(OpenFile& opened, const SharedFile::Look& look) {
    SharedFile::Advice told;
    file_->join_reader(opened, look, [&](const auto& advice) {
      told = advice;
      return true;
    });
    return told;
  }

  Runtime runtime_{{}};
  const std::shared_ptr<RuntimeGate> engine_ = std::make_shared<RuntimeGate>(runtime_);
  SharedFiles files_;
  const SharedFilePointer file_ = files_.of({1, 2});
  SourceVersion version_{.size = 10, .mtime_ns = 1, .ctime_ns = 1};
};

TEST_F(SharedFileTest, WhoOpenedBeforeAChangeReadsPastTheCacheFromThenOn) {
  const auto before = joined_reader(5);
  EXPECT_FALSE(before->is_past_cache());
  static_cast<void>(file_->note_change(0));
  EXPECT_TRUE(before->is_past_cache());
  EXPECT_FALSE(joined_reader(5)->is_past_cache());
}

TEST_F(SharedFileTest, WhoLookedBeforeAChangeAndIsAnsweredAfterItReadsPastTheCache) {
  const SharedFile::Look early = look();
  static_cast<void>(file_->note_change(0));
  const auto late = reader(5);
  EXPECT_FALSE(join(*late, early).may_pass);
  EXPECT_TRUE(late->is_past_cache());
  const auto unknown = reader(5);
  EXPECT_FALSE(join(*unknown, {std::nullopt, version_}).may_pass);
  EXPECT_TRUE(unknown->is_past_cache());
}

TEST_F(SharedFileTest, NobodyIsPassedThroughWhileSomebodyMayWrite) {
  file_->begin_writes();
  const auto during = reader(5);
  EXPECT_FALSE(join(*during, look()).may_pass);
  EXPECT_TRUE(during->is_past_cache());
  file_->end_writes();
  const auto after = reader(5);
  EXPECT_TRUE(join(*after, look()).may_pass);
  EXPECT_FALSE(after->is_past_cache());
}

TEST_F(SharedFileTest, AWriterThatIsExpectedIsWaitedForUntilHeComesOrTheTimeIsOver) {
  file_->expect_writer(monotonic_now() + 3600 * kSecond);
  const auto early = reader(5);
  EXPECT_FALSE(join(*early, look()).may_pass);
  EXPECT_FALSE(early->is_past_cache());
  const auto writer = reader(5);
  EXPECT_TRUE(file_->join_writer(*writer, look(), [](const auto&) { return true; }));
  const auto later = reader(5);
  EXPECT_TRUE(join(*later, look()).may_pass);
  file_->expect_writer(monotonic_now());
  const auto last = reader(5);
  EXPECT_TRUE(join(*last, look()).may_pass);
}

TEST_F(SharedFileTest, TheKernelMayWriteUnseenWhileAllArePassedThroughToTheSource) {
  const auto writer = [this] {
    OpenFile::Written written;
    written.shared = file_;
    return std::make_shared<OpenFile>(std::move(written));
  };
  SharedFile::Advice told;
  const auto ask = [&](OpenFile& opened) {
    return file_->join_writer(opened, look(), [&](const auto& advice) {
      told = advice;
      opened.mode = OpenMode::source_passthrough;
      return true;
    });
  };
  auto cold = joined_reader(5, OpenMode::source_passthrough);
  auto first = writer();
  EXPECT_TRUE(ask(*first));
  EXPECT_TRUE(told.may_pass);
  EXPECT_FALSE(told.is_written_unseen);
  EXPECT_TRUE(cold->is_past_cache());
  const auto next = reader(5);
  const SharedFile::Advice advice = join(*next, look());
  EXPECT_TRUE(advice.may_pass);
  EXPECT_TRUE(advice.is_written_unseen);
  first.reset();
  EXPECT_FALSE(join(*reader(5), look()).is_written_unseen);
  const auto cached = joined_reader(6);
  const auto second = writer();
  EXPECT_TRUE(ask(*second));
  EXPECT_FALSE(told.may_pass);
}

TEST_F(SharedFileTest, AChangeIsToldToOtherNodesOnceAndToWhoseCacheFilesArePassed) {
  const auto own = joined_reader(5);
  const auto other = joined_reader(6);
  const auto same = joined_reader(6);
  const auto passed = joined_reader(7, OpenMode::passthrough);
  const auto shares = joined_reader(7, OpenMode::passthrough);
  shares->passed = passed;
  SharedFile::Audience audience = file_->note_change(5);
  EXPECT_THAT(audience.nodes, ElementsAre(6, 7));
  EXPECT_THAT(audience.passed, ElementsAre(passed));
  EXPECT_THAT(file_->note_change(0).nodes, ElementsAre(5, 6, 7));
}

TEST_F(SharedFileTest, WhoIsGoneOrDidNotJoinIsNotTold) {
  joined_reader(5).reset();
  const auto refused = reader(6);
  EXPECT_FALSE(file_->join_reader(*refused, look(), [](const auto&) { return false; }));
  EXPECT_FALSE(file_->join_writer(*refused, look(), [](const auto&) { return false; }));
  EXPECT_THAT(file_->note_change(0).nodes, IsEmpty());
}

TEST_F(SharedFileTest, AVersionThatNoChangeOfOursExplainsIsForeign) {
  const auto opened = reader(5);
  EXPECT_FALSE(join(*opened, look()).is_foreign);
  EXPECT_FALSE(join(*opened, look()).is_foreign);
  version_.mtime_ns = 2;
  EXPECT_TRUE(join(*opened, look()).is_foreign);
  EXPECT_FALSE(join(*opened, look()).is_foreign);
  version_.mtime_ns = 3;
  static_cast<void>(file_->note_change(5));
  EXPECT_FALSE(join(*opened, look()).is_foreign);
}

TEST_F(SharedFileTest, WhatWaitsForLateNoticesIsHeldUntilThoseBegunBeforeAreOver) {
  const auto is_held = [](std::weak_ptr<int> held) { return !held.expired(); };
  const auto hold = [this] {
    auto held = std::make_shared<int>();
    const std::weak_ptr<int> watched = held;
    file_->hold_for_late_notices(std::move(held));
    return watched;
  };
  EXPECT_FALSE(is_held(hold()));
  auto first = file_->begin_late_notice();
  auto second = file_->begin_late_notice();
  const auto waits_for_both = hold();
  auto third = file_->begin_late_notice();
  const auto waits_for_all = hold();
  second.reset();
  third.reset();
  EXPECT_TRUE(is_held(waits_for_both));
  EXPECT_TRUE(is_held(waits_for_all));
  first.reset();
  EXPECT_FALSE(is_held(waits_for_both));
  EXPECT_FALSE(is_held(waits_for_all));
  EXPECT_FALSE(is_held(hold()));
}

TEST_F(SharedFileTest, AFileIsSharedAsLongAsSomebodyHasIt) {
  EXPECT_EQ(files_.of({1, 2}), file_);
  EXPECT_NE(files_.of({1, 3}), file_);
  SharedFilePointer other = files_.of({1, 4});
  static_cast<void>(other->note_change(0));
  other.reset();
  EXPECT_EQ(files_.of({1, 4})->changes(), 0U);
}

}  // namespace
}  // namespace ncfs
