// Rot and misdirected reads, one story at a time; what happens in all orders is the business of the
// plans. Each canary is a driver that does not look at the bytes, as an engine that forgot to
// compare them would not.
#include "proptests/plan_runner.h"
#include "sim/swarm.h"

namespace ncfs {
namespace {

constexpr std::uint32_t kRoundsMax = 600;
// Enough for a copy of the largest file with all its checkpoints.
constexpr const char* kLongRun = "run 7\nrun 7\nrun 7\nrun 7\nrun 7\nrun 7\n";

class Integrity : public testing::Test {
 protected:
  void play(const std::string& text) {
    const ParsedPlan parsed = parse_plan(text);
    ASSERT_EQ(parsed.error, "");
    for (const Step& step : parsed.plan) world_.apply(step);
  }
  // Brings files 0 and 3 into the cache, in this order.
  void fill(const std::string& knobs) {
    std::string uses;
    for (const char* file : {"0", "4"}) {
      uses += std::string("open ") + file + '\n' + kLongRun + "close\n" + kLongRun;
    }
    play(knobs + uses);
    ASSERT_EQ(status().objects_cached, 2U);
  }
  void settle() {
    ASSERT_TRUE(world_.settle(kRoundsMax));
    EXPECT_EQ(describe(world_.violation()), "");
  }
  EngineStatus status() { return world_.life()->engine().status(); }

  World world_;
};

TEST_F(Integrity, AVerificationRemovesWhatIsRottenAndKeepsTheRest) {
  fill("knob 64 1\n");
  play("rot_data 0 77\nverify\n");
  settle();
  const auto result = world_.readers().last_verify();
  ASSERT_TRUE(result);
  EXPECT_EQ(result->found.files, 2U);
  EXPECT_EQ(result->intact.files, 1U);
  EXPECT_EQ(result->damaged.files, 1U);
  EXPECT_EQ(result->skipped.files, 0U);
  EXPECT_EQ(status().objects_cached, 1U);
  EXPECT_EQ(status().damaged_objects, 1U);
  EXPECT_EQ(status().verified_bytes, result->bytes_verified);
}

TEST_F(Integrity, AVerificationOfOneFileLooksAtNoOther) {
  fill("knob 64 1\n");
  play("verify 1\n");
  settle();
  EXPECT_EQ(world_.readers().last_verify()->found.files, 1U);
  EXPECT_EQ(status().verified_bytes, 12 * kKiB);
}

TEST_F(Integrity, WhatHasNoChecksumsIsSkippedAndKept) {
  fill("");
  play("rot_data 0 77\nknob 64 1\nremount\nverify\n");
  settle();
  EXPECT_EQ(world_.readers().last_verify()->skipped.files, 2U);
  EXPECT_EQ(status().objects_cached, 2U);
}

TEST_F(Integrity, WithChecksumReadWhatHasNoChecksumsIsRemoved) {
  fill("");
  play("knob 64 2\nremount\n");
  settle();
  EXPECT_EQ(status().objects_cached, 0U);
}

TEST_F(Integrity, AFileThatIsOpenWhenItIsFoundDamagedIsCopiedAgainWhenItIsClosed) {
  fill("knob 64 1\n");
  play("open 0\nrun 7\nrot_data 0 77\nrot_data 1 77\nverify\nrun 7\nrun 7\nrun 7\nrun 7\n");
  EXPECT_EQ(status().damaged_objects, 2U);
  EXPECT_EQ(status().objects_cached, 0U);
  world_.readers().close_all();
  play("run 7\nopen 0\n");
  settle();
  EXPECT_EQ(status().objects_cached, 1U);
}

TEST_F(Integrity, AReaderOfRottenBytesGetsThoseOfTheSource) {
  fill("knob 64 2\n");
  play("rot_data 0 77\nrot_data 1 77\nopen 0\nrun 7\nread 0 0 12287\nrun 7\nrun 7\n");
  EXPECT_EQ(world_.readers().reads_finished(), 1U);
  EXPECT_EQ(status().damaged_blocks, 1U);
  settle();
  EXPECT_EQ(status().objects_cached, 2U);
}

TEST_F(Integrity, AReaderOfAGoodFileReadsNothingFromTheSource) {
  fill("knob 64 2\n");
  const std::uint64_t before = status().source_bytes;
  play("open 0\nrun 7\nread 0 0 12287\nrun 7\nrun 7\nread 0 5000 99\nrun 7\n");
  EXPECT_EQ(world_.readers().reads_finished(), 2U);
  EXPECT_EQ(status().source_bytes, before);
  settle();
}

TEST_F(Integrity, AMisdirectedReadIsNotServed) {
  fill("knob 64 2\n");
  play("open 0\nrun 7\nread 0 0 12287\nrun\nmisdirect\nrun 7\nrun 7\n");
  EXPECT_EQ(world_.life()->io().misdirections(), 1U);
  EXPECT_EQ(world_.readers().reads_finished(), 1U);
  settle();
}

TEST_F(Integrity, TheScrubFindsRotWhenItsTimeHasCome) {
  fill("knob 64 1\nknob 65 1\n");
  play("rot_data 0 77\ntick 10000000000\nrun 7\nrun 7\n");
  EXPECT_EQ(status().damaged_objects, 0U);
  play("tick 12000000000\nrun 7\nrun 7\ntick 1000000000\nrun 7\n");
  EXPECT_EQ(status().damaged_objects, 1U);
  EXPECT_EQ(status().objects_cached, 1U);
}

// Half of the interval before a restart and half of it afterwards.
TEST_F(Integrity, TheScrubRemembersAcrossARestart) {
  fill("knob 64 1\nknob 65 1\n");
  play("tick 12000000000\nrun 7\nremount\n");
  EXPECT_EQ(status().verified_bytes, 0U);
  play("tick 12000000000\nrun 7\nrun 7\ntick 1000000000\nrun 7\nrun 7\n");
  EXPECT_EQ(status().verified_bytes, 60 * kKiB);
  play("remount\ntick 12000000000\nrun 7\nrun 7\n");
  EXPECT_EQ(status().verified_bytes, 0U);
}

// Files 0 and 4 fit, a third does not: the one that was used first has to go, though it was
// verified last.
TEST_F(Integrity, AVerificationIsNoUse) {
  fill("knob 64 1\nknob 1 3\n");
  play("verify 1\nrun 7\nrun 7\nrun 7\n");
  ASSERT_EQ(world_.readers().last_verify()->intact.files, 1U);
  play("open 2\nrun 7\nrun 7\nrun 7\nclose\nrun 7\nverify 5\nrun 7\nrun 7\nrun 7\n");
  EXPECT_EQ(status().evictions, 1U);
  EXPECT_EQ(world_.readers().last_verify()->intact.files, 1U) << "the other one was evicted";
}

TEST_F(Integrity, ACopyGoesOnFromItsGoodBlocksAlone) {
  // Two blocks are durable when the process dies, one of them rots.
  play("knob 64 1\nknob 8 1\nopen 4\n");
  while (status().cache_bytes_written < 24 * kKiB) play("run\n");
  play("run\nrun\nrun\nrun\nrun\nkill\nrot_data 0 77\n");
  play("remount\n");
  settle();
  EXPECT_EQ(status().objects_cached, 1U);
  EXPECT_EQ(status().damaged_blocks, 1U);
  EXPECT_EQ(status().damaged_objects, 0U);
  EXPECT_GT(status().verified_bytes, 0U);
  EXPECT_EQ(status().source_bytes + status().verified_bytes, 48 * kKiB);
  play("verify\n");
  settle();
  EXPECT_EQ(world_.readers().last_verify()->intact.files, 1U);
}

class BlindDriver final : public Tamper {
 public:
  void submit(Request request) override {
    next().look_away();
    next().submit(std::move(request));
  }
};

std::string caught(const char* text) {
  BlindDriver tamper;
  const ParsedPlan parsed = parse_plan(text);
  EXPECT_EQ(parsed.error, "");
  const auto violation = run_guarded(parsed.plan, {.tamper = &tamper});
  return violation ? violation->name : "nothing";
}

constexpr const char* kCached = "open 0\nrun 7\nrun 7\nclose\nrun 7\n";

TEST(IntegrityCanary, AVerificationThatComparesNothingIsCaught) {
  const std::string text =
      std::string("knob 64 1\n") + kCached + "rot_data 0 7\nverify\nrun 7\nrun 7\n";
  EXPECT_EQ(caught(text.c_str()), "S13 Rot");
}

TEST(IntegrityCanary, AReadThatComparesNothingIsCaught) {
  const std::string text =
      std::string("knob 64 2\n") + kCached + "rot_data 0 7\nopen 0\nrun 7\nread 0 0 99\nrun 7\n";
  EXPECT_EQ(caught(text.c_str()), "S13 Rot");
}

TEST(IntegrityCanary, AResumedCopyThatComparesNothingIsCaught) {
  EXPECT_EQ(
      caught("knob 64 1\nknob 8 1\nopen 4\nrun\nrun\nrun\nrun\nrun\nrun\nrun\nrun\nrun\nkill\n"
             "rot_data 0 7\nopen 4\nrun 7\n"),
      "S13 Rot");
}

// About one plan in three hundred serves a rotten byte; ten times that leave room for luck.
constexpr std::uint64_t kPlansMax = 3000;

TEST(IntegrityCanary, SwarmPlansCatchItToo) {
  BlindDriver tamper;
  for (std::uint64_t seed = 0; seed < kPlansMax; ++seed) {
    Rng rng(seed);
    const auto violation = run_guarded(make_swarm_plan(rng, 200), {.tamper = &tamper});
    if (!violation) continue;
    EXPECT_EQ(violation->name, "S13 Rot");
    return;
  }
  FAIL() << "the plans found nothing";
}

}  // namespace
}  // namespace ncfs
