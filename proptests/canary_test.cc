// Does the net catch fish? Each canary plants one bug between the engine and its driver and must be
// caught, under the name of the invariant it breaks, within a stated number of plans.
#include <gmock/gmock.h>

#include "engine/format.h"
#include "proptests/plan_runner.h"
#include "sim/swarm.h"

namespace ncfs {
namespace {

// Seen in practice: the rarest is caught by some hundredth plan, most by the first. Ten times that
// leaves room for changes of the engine and still says that the net is tight.
constexpr std::uint64_t kPlansMax = 3000;

// The name of the invariant that is reported first.
std::string first_catch(Tamper& tamper, std::uint64_t plans_max = kPlansMax) {
  for (std::uint64_t seed = 0; seed < plans_max; ++seed) {
    Rng rng(seed);
    const Plan plan = make_swarm_plan(rng, 200);
    const std::optional<Violation> violation = run_guarded(plan, {.tamper = &tamper});
    if (violation) return violation->name;
  }
  return "nothing";
}

// Acknowledges the requests that `Condition` selects and does nothing for them.
template <typename Condition>
class Idler final : public Tamper {
 public:
  explicit Idler(Condition is_skipped) : is_skipped_(is_skipped) {}
  void submit(Request request) override {
    if (is_skipped_(request)) {
      next().submit_without_effect(std::move(request));
    } else {
      next().submit(std::move(request));
    }
  }

 private:
  Condition is_skipped_;
};

TEST(Canary, MissingSyncOfTheDataIsCaught) {
  Idler tamper([](const Request& request) { return request.op == Op::cache_sync; });
  // S2 if the first power loss comes after the commit.
  EXPECT_THAT(first_catch(tamper), testing::AnyOf("S3 Residency", "S2 CommitTruth"));
}

TEST(Canary, MissingSyncOfTheDirectoryIsCaught) {
  Idler tamper([](const Request& request) { return request.op == Op::cache_sync_directory; });
  EXPECT_EQ(first_catch(tamper), "S3 Residency");
}

TEST(Canary, WriteAcknowledgedButNotMadeIsCaught) {
  Idler tamper([](const Request& request) { return request.op == Op::cache_write; });
  EXPECT_EQ(first_catch(tamper), "S3 Residency");
}

TEST(Canary, UnlinkThatLeavesTheFileIsCaught) {
  Idler tamper([](const Request& request) {
    return request.op == Op::cache_unlink && request.name.ends_with(suffix(NameKind::partial));
  });
  // Where nobody has looked at the sum yet, the file itself is seen first.
  EXPECT_THAT(first_catch(tamper), testing::AnyOf("S4 Space", "S11 Books"));
}

TEST(Canary, CloseThatKeepsTheFileOpenIsCaught) {
  Idler tamper([](const Request& request) { return request.op == Op::cache_close; });
  const auto violation = run_guarded({{StepOp::open}}, {.tamper = &tamper}, &check_liveness);
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "L2 Zero");
}

// Writes the second block where the third belongs, as a misdirecting disk does.
class Misdirector final : public Tamper {
 public:
  void submit(Request request) override {
    if (request.op == Op::cache_write && request.range.offset == request.range.length) {
      request.range.offset += request.range.length;
    }
    next().submit(std::move(request));
  }
};

TEST(Canary, WriteToTheWrongPlaceIsCaught) {
  Misdirector tamper;
  // One write at a time: two that meet would be caught before they are made.
  const Plan plan = parse_plan("knob 6 1\nopen 0\nrun 7\nrun 7\n").plan;
  const auto violation = run_guarded(plan, {.tamper = &tamper});
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "S3 Residency");
}

// A client that answers stat from its attribute cache: the check before the commit sees nothing.
TEST(Canary, CommitOfAFileThatChangedMeanwhileIsCaught) {
  Idler tamper([](const Request& request) { return request.op == Op::source_stat; });
  EXPECT_EQ(first_catch(tamper), "S14 Fresh");
}

// A client that keeps what it read before across opens, as one without close-to-open does.
class OldMemory final : public Tamper {
 public:
  void submit(Request request) override {
    if (request.op == Op::source_read) {
      next().submit_from_old_memory(std::move(request));
    } else {
      next().submit(std::move(request));
    }
  }
};

TEST(Canary, BytesFromBeforeTheOpenAreCaught) {
  OldMemory tamper;
  const Plan plan = parse_plan("source_write 0 0 4095\nopen 0\nread 0 0 4095\nrun 3\n").plan;
  const auto violation = run_guarded(plan, {.tamper = &tamper});
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "S14 Fresh");
}

// Sidecars of partial files that vouch for nothing: every crash starts the copy from its beginning.
class Forgetter final : public Tamper {
 public:
  void submit(Request request) override {
    if (request.op == Op::cache_store) {
      std::optional<Sidecar> sidecar = decode(request.bytes);
      if (sidecar && !sidecar->durable.is_full()) {
        sidecar->durable = BlockSet(sidecar->durable.block_count());
        request.bytes = encode(*sidecar);
      }
    }
    next().submit(std::move(request));
  }
};

TEST(Canary, CheckpointThatRecordsNothingIsCaught) {
  Forgetter tamper;
  std::string text = "open 4\n";
  for (int count = 0; count < 40; ++count) text += "run\n";
  const auto violation = run_guarded(parse_plan(text + "kill\n").plan, {.tamper = &tamper});
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "L3 Resume");
}

// An engine whose pauses never grow.
TEST(Canary, RetryWithoutBackOffIsCaught) {
  const auto violation = run_guarded({{StepOp::open}}, {.retry_max = kSecond}, &check_liveness);
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "L4 BackOff");
}

// Probes the disk under a name that is not the probe's.
class Prober final : public Tamper {
 public:
  void submit(Request request) override {
    if (request.name.ends_with(kProbeName)) request.name = shard_name(0) + "/other";
    next().submit(std::move(request));
  }
};

TEST(Canary, AskingADiskThatIsDownIsCaught) {
  Prober tamper;
  const auto violation = run_guarded(
      {{StepOp::open, 0}, {StepOp::open, 1}, {StepOp::open, 2}, {StepOp::outage, 0, 60}},
      {.tamper = &tamper});
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "S8 Degrade");
}

// A limit that is lowered in vain: what was evicted is still there.
TEST(Canary, EvictionThatLeavesTheDataIsCaught) {
  Idler tamper([](const Request& request) {
    return request.op == Op::cache_unlink && request.name.ends_with(suffix(NameKind::data));
  });
  std::string text = "open 4\n";
  for (int count = 0; count < 40; ++count) text += "run\n";
  text += "close\nrun 7\nlimit 2\nrun 7\n";
  const auto violation = run_guarded(parse_plan(text).plan, {.tamper = &tamper});
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "S4 Space");
}

// Eviction on demand that asks nobody whether the file is still in use.
class Ruffian final : public Tamper {
 public:
  void submit(Request request) override {
    if (request.op == Op::cache_unlink) request.file = FileHandle::none;
    next().submit(std::move(request));
  }
};

TEST(Canary, EvictionOfAFileInUseIsCaught) {
  Ruffian tamper;
  const Plan plan = {{StepOp::open},       {StepOp::run, 7},  {StepOp::run, 7}, {StepOp::run, 7},
                     {StepOp::close},      {StepOp::run, 7},  {StepOp::open},   {StepOp::run, 7},
                     {StepOp::kill, 0, 1}, {StepOp::remount}, {StepOp::evict},  {StepOp::run, 7}};
  const auto violation = run_guarded(plan, {.tamper = &tamper});
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "S4 Space");
}

// Writes sidecars that do not say what is pinned.
class PinForgetter final : public Tamper {
 public:
  void submit(Request request) override {
    if (request.op == Op::cache_store) {
      auto sidecar = decode(request.bytes);
      if (sidecar) {
        sidecar->is_pinned = false;
        request.bytes = encode(*sidecar);
      }
    }
    next().submit(std::move(request));
  }
};

TEST(Canary, PinThatIsNotRecordedIsCaught) {
  PinForgetter tamper;
  const Plan plan = {{StepOp::remount}, {StepOp::pin},     {StepOp::run, 7}, {StepOp::run, 7},
                     {StepOp::run, 7},  {StepOp::remount}, {StepOp::evict},  {StepOp::run, 7}};
  EXPECT_FALSE(run_guarded(plan, {}));
  const auto violation = run_guarded(plan, {.tamper = &tamper});
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "S5 Pins");
}

TEST(Canary, UntamperedWorldIsNotCaught) {
  Idler tamper([](const Request&) { return false; });
  EXPECT_EQ(first_catch(tamper, 100), "nothing");
}

}  // namespace
}  // namespace ncfs
