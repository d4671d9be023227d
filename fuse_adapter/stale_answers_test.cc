#include "fuse_adapter/stale_answers.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

TEST(StaleAnswers, AThreadIsNotToldTwiceInARow) {
  StaleAnswers answers;
  EXPECT_TRUE(answers.try_answer(7, 100, 0));
  EXPECT_FALSE(answers.try_answer(7, 100, 1));
  EXPECT_TRUE(answers.try_answer(8, 100, 1));
}

TEST(StaleAnswers, WhoComesBackWithTheSameNodeInsists) {
  StaleAnswers answers;
  EXPECT_FALSE(answers.insists(7, 100));
  EXPECT_TRUE(answers.try_answer(7, 100, 0));
  EXPECT_TRUE(answers.insists(7, 100));
  EXPECT_FALSE(answers.insists(7, 101));
  EXPECT_FALSE(answers.insists(8, 100));
}

TEST(StaleAnswers, AnOpenThatIsServedStartsAnew) {
  StaleAnswers answers;
  EXPECT_TRUE(answers.try_answer(7, 100, 0));
  answers.clear(7);
  EXPECT_TRUE(answers.try_answer(7, 100, 1));
}

TEST(StaleAnswers, AThreadThatNeverCameBackMayBeToldAgainLater) {
  StaleAnswers answers;
  EXPECT_TRUE(answers.try_answer(7, 100, 0));
  EXPECT_FALSE(answers.try_answer(7, 100, 10 * kSecond - 1));
  EXPECT_TRUE(answers.try_answer(7, 100, 10 * kSecond));
}

TEST(StaleAnswers, WhoCannotBeToldApartIsNotTold) {
  StaleAnswers answers;
  EXPECT_FALSE(answers.try_answer(0, 100, 0));
}

TEST(StaleAnswers, AFullTableTellsNobodyUntilEntriesExpire) {
  StaleAnswers answers;
  pid_t thread = 1;
  while (answers.try_answer(thread, 100, 0)) ++thread;
  EXPECT_GT(thread, 1000);
  EXPECT_FALSE(answers.try_answer(thread, 100, 1));
  EXPECT_TRUE(answers.try_answer(thread, 100, 10 * kSecond));
}

TEST(StaleAnswers, LookUpsAreRepeatedUntilTheNextAnswer) {
  StaleAnswers answers;
  EXPECT_FALSE(answers.is_looking_up_again(1));
  EXPECT_TRUE(answers.try_answer(1, 10, 0));
  EXPECT_TRUE(answers.is_looking_up_again(1));
  EXPECT_FALSE(answers.is_looking_up_again(2));
  answers.clear(1);
  EXPECT_FALSE(answers.is_looking_up_again(1));
}

}  // namespace
}  // namespace ncfs
