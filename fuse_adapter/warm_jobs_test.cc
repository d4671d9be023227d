// Method: real small trees, an engine that answers only when the test says so.
#include "fuse_adapter/warm_jobs.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <string>
#include <utility>

#include "fuse_adapter/fake_warm_target.h"
#include "io/temp_directory.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

const WarmResult kCopied{WarmResult::Kind::copied, {}, 0};

class WarmJobsTest : public ::testing::Test {
 protected:
  // Starts a job and returns what its check said; the number of the job goes to `id_`.
  std::string start(std::vector<std::string> paths) {
    auto told = std::make_shared<std::promise<std::string>>();
    auto error = told->get_future();
    const auto id = jobs_.start(
        {.paths = std::move(paths)},
        [told](const WarmProgress&, const std::string& text) { told->set_value(text); });
    if (!id) return "refused";
    id_ = *id;
    if (error.wait_for(FakeWarmTarget::kPatience) != std::future_status::ready) return "silence";
    return error.get();
  }

  // Polls, as the books have no other way to tell; ends with the state asked for or in failure.
  WarmProgress wait_until(WarmProgress::State state) {
    std::optional<WarmProgress> progress;
    EXPECT_TRUE(eventually([&] {
      progress = jobs_.progress(id_);
      return progress && progress->state == state;
    })) << "the job never was "
        << to_string(state);
    return progress.value_or(WarmProgress{});
  }

  FakeWarmTarget fake_{::testing::TempDir()};
  WarmJobs jobs_{fake_.target()};
  std::uint64_t id_ = 0;
};

TEST_F(WarmJobsTest, CountsEveryFileExactlyOnce) {
  fake_.write("a/copied", 10);
  fake_.write("a/cached", 20);
  fake_.write("a/small", 1);
  fake_.write("a/broken", 40);
  std::filesystem::create_symlink("copied", fake_.tree() / "a/link");
  ASSERT_EQ(start({"a"}), "");
  ASSERT_TRUE(fake_.wait_for(4));
  fake_.answer("a/copied", kCopied);
  fake_.answer("a/cached", {WarmResult::Kind::already_cached, {}, 0});
  fake_.answer("a/small", {WarmResult::Kind::skipped, OpenReason::too_small, 0});
  fake_.answer("a/broken", {WarmResult::Kind::failed, {}, EIO});
  const WarmProgress progress = wait_until(WarmProgress::State::done);
  EXPECT_EQ(progress.found.files, 5U);
  EXPECT_EQ(progress.found.bytes, 71U);
  EXPECT_EQ(progress.copied.files, 1U);
  EXPECT_EQ(progress.copied.bytes, 10U);
  EXPECT_EQ(progress.already_cached.bytes, 20U);
  EXPECT_EQ(progress.skipped.files, 2U);
  EXPECT_EQ(progress.skipped.bytes, 1U);
  EXPECT_EQ(progress.skip_reasons.at("symbolic link"), 1U);
  EXPECT_EQ(progress.skip_reasons.at(to_string(OpenReason::too_small)), 1U);
  EXPECT_EQ(progress.failed.files, 1U);
  EXPECT_EQ(progress.failed.bytes, 40U);
  ASSERT_EQ(progress.failures.size(), 1U);
  EXPECT_EQ(progress.failures[0].path, "a/broken");
  EXPECT_EQ(progress.failures[0].error, "Input/output error");
  EXPECT_TRUE(progress.in_work.empty());
}

TEST_F(WarmJobsTest, APathThatDoesNotExistIsToldAtOnceAndStartsNothing) {
  fake_.write("a", 1);
  EXPECT_EQ(start({"a", "nothing"}), "nothing: No such file or directory");
  EXPECT_EQ(fake_.unanswered(), 0U);
  EXPECT_TRUE(jobs_.all().empty());
}

TEST_F(WarmJobsTest, HandsOverABoundedNumberOfFilesAtATime) {
  const std::size_t files = WarmJobs::kOutstandingMax + 10;
  for (std::size_t index = 0; index < files; ++index) fake_.write(std::to_string(index), 1);
  ASSERT_EQ(start({""}), "");
  ASSERT_TRUE(fake_.wait_for(WarmJobs::kOutstandingMax));
  EXPECT_EQ(fake_.unanswered(), WarmJobs::kOutstandingMax);
  EXPECT_EQ(jobs_.progress(id_)->in_work.size(), WarmJobs::kOutstandingMax);
  fake_.answer_all(kCopied);
  ASSERT_TRUE(fake_.wait_for(files));
  fake_.answer_all(kCopied);
  EXPECT_EQ(wait_until(WarmProgress::State::done).copied.files, files);
}

TEST_F(WarmJobsTest, KeepsTheFirstErrorsAndCountsAll) {
  const std::size_t files = WarmJobs::kFailuresKept + 5;
  for (std::size_t index = 0; index < files; ++index) fake_.write(std::to_string(index), 1);
  ASSERT_EQ(start({""}), "");
  ASSERT_TRUE(fake_.wait_for(files));
  fake_.answer_all({WarmResult::Kind::failed, {}, EIO});
  const WarmProgress progress = wait_until(WarmProgress::State::done);
  EXPECT_EQ(progress.failed.files, files);
  EXPECT_EQ(progress.failures.size(), WarmJobs::kFailuresKept);
}

TEST_F(WarmJobsTest, AFileThatWasChangedMeanwhileIsLookedAtAgain) {
  fake_.write("a/changed", 10);
  fake_.write("a/other", 1);
  ASSERT_EQ(start({"a"}), "");
  ASSERT_TRUE(fake_.wait_for(2));
  fake_.write("a/changed", 20);
  fake_.answer("a/changed", {WarmResult::Kind::failed, {}, ESTALE});
  ASSERT_TRUE(fake_.wait_for(3));
  fake_.answer_all(kCopied);
  const WarmProgress progress = wait_until(WarmProgress::State::done);
  EXPECT_EQ(progress.found.files, 2U);
  EXPECT_EQ(progress.copied.files, 2U);
  EXPECT_EQ(progress.copied.bytes, 21U);
  EXPECT_EQ(progress.failed.files, 0U);
}

TEST_F(WarmJobsTest, AFileThatIsAlwaysChangedOrGoneFails) {
  fake_.write("a/busy", 10);
  fake_.write("a/gone", 10);
  ASSERT_EQ(start({"a"}), "");
  ASSERT_TRUE(fake_.wait_for(2));
  std::filesystem::remove(fake_.tree() / "a/gone");
  const WarmResult overtaken{WarmResult::Kind::failed, {}, ESTALE};
  fake_.answer("a/gone", overtaken);
  for (unsigned look = 1; look <= WarmJobs::kLooksMax; ++look) {
    ASSERT_TRUE(fake_.wait_for(1 + look));
    fake_.answer("a/busy", overtaken);
  }
  const WarmProgress progress = wait_until(WarmProgress::State::done);
  EXPECT_EQ(progress.found.files, 2U);
  EXPECT_EQ(progress.failed.files, 2U);
  EXPECT_TRUE(progress.in_work.empty());
}

TEST_F(WarmJobsTest, ABoundedNumberOfJobsRunsAndFinishedOnesMakeRoom) {
  fake_.write("a", 1);
  for (std::size_t job = 0; job < WarmJobs::kJobsMax; ++job) ASSERT_EQ(start({"a"}), "");
  EXPECT_EQ(start({"a"}), "refused");
  ASSERT_TRUE(fake_.wait_for(1));
}

TEST_F(WarmJobsTest, FinishedJobsAreRememberedUntilNewerOnesNeedThePlace) {
  fake_.write("a", 1);
  for (std::size_t job = 0; job < WarmJobs::kJobsMax + 3; ++job) {
    ASSERT_EQ(start({"a"}), "");
    ASSERT_TRUE(fake_.wait_for(job + 1));
    fake_.answer_all(kCopied);
    wait_until(WarmProgress::State::done);
  }
  const auto all = jobs_.all();
  EXPECT_EQ(all.size(), WarmJobs::kJobsMax);
  EXPECT_EQ(all.front().id, 4U);
  EXPECT_EQ(all.back().id, WarmJobs::kJobsMax + 3);
}

TEST_F(WarmJobsTest, AJobThatNeedsMoreThanThereIsIsRefusedBeforeItsFirstCopy) {
  fake_.write("a/one", 10);
  fake_.write("a/two", 20);
  WarmTarget target = fake_.target();
  std::uint64_t room = 29;
  target.charge = [](const std::string&, std::uint64_t size_bytes) { return size_bytes; };
  target.capacity = [&room](const auto&) { return room; };
  WarmJobs jobs(std::move(target));
  const auto ended = [&jobs](WarmOrder order) {
    const bool is_measured = !order.best_effort;
    const auto id = jobs.start(std::move(order), [=](const WarmProgress& job, const auto&) {
      EXPECT_EQ(job.state,
                is_measured ? WarmProgress::State::measuring : WarmProgress::State::walking);
    });
    EXPECT_TRUE(eventually([&] {
      const auto job = jobs.progress(*id);
      return job->is_finished() || job->in_work.size() == 2;
    }));
    return *jobs.progress(*id);
  };
  const WarmProgress refused = ended({.paths = {"a"}});
  EXPECT_EQ(refused.state, WarmProgress::State::refused);
  EXPECT_EQ(refused.needed_bytes, 30U);
  EXPECT_EQ(refused.capacity_bytes, 29U);
  EXPECT_EQ(refused.found.files, 0U);
  EXPECT_EQ(ended({.paths = {"a"}, .best_effort = true}).in_work.size(), 2U);
  fake_.answer_all(kCopied);
  room = 30;
  EXPECT_EQ(ended({.paths = {"a"}}).in_work.size(), 2U);
  fake_.answer_all(kCopied);
}

TEST_F(WarmJobsTest, TheFilesOfAJobShareItsCeiling) {
  fake_.write("a", 1);
  jobs_.start({.paths = {"a"}, .bytes_per_second = 5000}, [](const auto&, const auto&) {});
  ASSERT_TRUE(fake_.wait_for(1));
  EXPECT_EQ(fake_.last_pace().bytes_per_second, 5000U);
  EXPECT_EQ(fake_.last_pace().number, jobs_.all().back().id);
  fake_.answer_all(kCopied);
  ASSERT_EQ(start({"a"}), "");
  ASSERT_TRUE(fake_.wait_for(2));
  EXPECT_EQ(fake_.last_pace().number, 0U);
}

class StoredWarmJobsTest : public WarmJobsTest {
 protected:
  void restart() {
    if (stored_) stored_->stop(FakeWarmTarget::kPatience);
    fake_.answer_all({WarmResult::Kind::failed, {}, ECANCELED});  // as an engine that stops
    WarmTarget target = fake_.target();
    target.warn = [this](const std::string& text) { warnings_ += text; };
    stored_ = std::make_unique<WarmJobs>(std::move(target), root_.get());
  }
  // The job, once it is written down.
  std::uint64_t order(WarmOrder order) {
    std::promise<void> told;
    const auto id = stored_->start(std::move(order), [&](const auto&, const std::string& error) {
      EXPECT_EQ(error, "");
      told.set_value();
    });
    EXPECT_EQ(told.get_future().wait_for(FakeWarmTarget::kPatience), std::future_status::ready);
    return id.value_or(0);
  }
  bool wait_until_ended(std::uint64_t id) {
    return eventually([&] { return stored_->progress(id)->is_finished(); });
  }

  TempDirectory directory_;
  Descriptor root_ = directory_.open("", O_RDONLY | O_DIRECTORY);
  std::string warnings_;
  std::unique_ptr<WarmJobs> stored_;
};

TEST_F(StoredWarmJobsTest, AnInterruptedJobGoesOnAndCountsAnew) {
  fake_.write("a/one", 10);
  fake_.write("a/two", 20);
  fake_.write("b", 30);
  restart();
  EXPECT_TRUE(stored_->all().empty());
  const std::uint64_t id = order({.paths = {"a", "b"}, .pin = true});
  ASSERT_TRUE(fake_.wait_for(3));
  fake_.answer("a/one", kCopied);
  restart();
  ASSERT_TRUE(fake_.wait_for(6));
  fake_.answer_all({WarmResult::Kind::already_cached, {}, 0});
  ASSERT_TRUE(wait_until_ended(id));
  const auto job = stored_->progress(id);
  EXPECT_EQ(job->state, WarmProgress::State::done);
  EXPECT_EQ(job->restarts, 1U);
  EXPECT_TRUE(job->order.pin);
  EXPECT_EQ(job->order.paths, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(job->found.files, 3U);
  EXPECT_EQ(job->already_cached.files, 3U);
  EXPECT_EQ(warnings_, "");
}

TEST_F(StoredWarmJobsTest, WhatCameOfThoseThatEndedIsRemembered) {
  fake_.write("a", 10);
  restart();
  const std::uint64_t done = order({.paths = {"a"}});
  ASSERT_TRUE(fake_.wait_for(1));
  fake_.answer_all(kCopied);
  ASSERT_TRUE(wait_until_ended(done));
  const std::uint64_t cancelled = order({.paths = {"a"}});
  ASSERT_TRUE(fake_.wait_for(2));
  EXPECT_TRUE(stored_->cancel(cancelled));
  restart();
  EXPECT_EQ(stored_->progress(done)->state, WarmProgress::State::done);
  EXPECT_EQ(stored_->progress(done)->copied.bytes, 10U);
  EXPECT_EQ(stored_->progress(cancelled)->state, WarmProgress::State::cancelled);
  EXPECT_GT(order({.paths = {"a"}}), cancelled);
}

TEST_F(StoredWarmJobsTest, APathThatHasGoneIsAFailureOfTheJobThatGoesOn) {
  fake_.write("a", 10);
  fake_.write("b", 10);
  restart();
  const std::uint64_t id = order({.paths = {"a", "b"}});
  ASSERT_TRUE(fake_.wait_for(2));
  stored_->stop(FakeWarmTarget::kPatience);
  std::filesystem::remove(fake_.tree() / "a");
  restart();
  ASSERT_TRUE(fake_.wait_for(3));
  fake_.answer_all(kCopied);
  ASSERT_TRUE(wait_until_ended(id));
  EXPECT_EQ(stored_->progress(id)->copied.files, 1U);
  ASSERT_EQ(stored_->progress(id)->failures.size(), 1U);
  EXPECT_EQ(stored_->progress(id)->failures[0].path, "a");
}

TEST_F(StoredWarmJobsTest, AFileThatMakesNoSenseIsToldOfAndForgotten) {
  write_file(directory_.path("WARM"), std::as_bytes(std::span("nonsense")));
  fake_.write("a", 10);
  restart();
  EXPECT_TRUE(warnings_.starts_with("the warm-ups of the last run cannot be read")) << warnings_;
  EXPECT_TRUE(stored_->all().empty());
  EXPECT_EQ(order({.paths = {"a"}}), 1U);
}

TEST_F(WarmJobsTest, StopEndsJobsInEveryState) {
  for (std::size_t index = 0; index <= WarmJobs::kOutstandingMax; ++index) {
    fake_.write("many/" + std::to_string(index), 1);
  }
  fake_.write("one", 1);
  ASSERT_EQ(start({"many"}), "");  // waits for a place
  ASSERT_TRUE(fake_.wait_for(WarmJobs::kOutstandingMax));
  const std::uint64_t walking = id_;
  ASSERT_EQ(start({"one"}), "");
  jobs_.stop(FakeWarmTarget::kPatience);
  EXPECT_EQ(jobs_.progress(walking)->state, WarmProgress::State::cancelled);
  EXPECT_EQ(jobs_.progress(id_)->state, WarmProgress::State::cancelled);
  EXPECT_EQ(start({"one"}), "refused");
  fake_.answer_all(kCopied);  // late answers are harmless
}

TEST_F(WarmJobsTest, ASourceThatIsDownIsWaitedForButRefusesToBegin) {
  std::atomic<bool> is_down{true};
  std::atomic<int> looks{0};
  std::atomic<int> judged{-1};
  WarmTarget target = fake_.target();
  target.is_down = [&](const std::string&) { return ++looks > 0 && is_down; };
  target.answered = [&](const std::string&, int error) { judged = error; };
  WarmJobs jobs(target);
  const auto start_all = [&] {
    std::promise<std::string> told;
    const auto id =
        jobs.start({.paths = {""}}, [&](const auto&, const auto& error) { told.set_value(error); });
    EXPECT_TRUE(id);
    return std::pair(id.value_or(0), told.get_future().get());
  };
  const std::size_t files = WarmJobs::kOutstandingMax + 10;
  for (std::size_t index = 0; index < files; ++index) fake_.write(std::to_string(index), 1);
  EXPECT_EQ(start_all().second, ".: Connection timed out");
  EXPECT_EQ(judged, -1) << "it was asked";
  is_down = false;
  const auto [id, error] = start_all();
  EXPECT_EQ(error, "");
  EXPECT_EQ(judged, 0);
  ASSERT_TRUE(fake_.wait_for(WarmJobs::kOutstandingMax));
  is_down = true;
  fake_.answer_all(kCopied);
  const int before = looks;
  EXPECT_TRUE(eventually([&] { return looks >= before + 2; }));
  EXPECT_LE(fake_.unanswered(), 1U) << "only what was found before";
  EXPECT_EQ(jobs.progress(id)->state, WarmProgress::State::walking);
  is_down = false;
  ASSERT_TRUE(fake_.wait_for(files));
  fake_.answer_all(kCopied);
  EXPECT_TRUE(eventually([&] { return jobs.progress(id)->state == WarmProgress::State::done; }));
  EXPECT_EQ(jobs.progress(id)->copied.files, files);
}

}  // namespace
}  // namespace ncfs
