// Does the net catch fish? Each canary plants one bug between the engine and its driver and must be
// caught, under the name of the invariant it breaks, within a stated number of plans.
#include "engine/format.h"
#include "proptests/plan_runner.h"
#include "sim/swarm.h"

namespace ncfs {
namespace {

// Seen in practice: each canary is caught within a handful of plans. A hundred leaves room for
// changes of the engine and still says that the net is tight.
constexpr std::uint64_t kPlansMax = 100;

// The name of the invariant that is reported first.
std::string first_catch(Tamper& tamper) {
  for (std::uint64_t seed = 0; seed < kPlansMax; ++seed) {
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
  EXPECT_EQ(first_catch(tamper), "S3 Residency");
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
  EXPECT_EQ(first_catch(tamper), "S4 Space");
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
  EXPECT_EQ(first_catch(tamper), "S3 Residency");
}

// A client that answers stat from its attribute cache: the check before the commit sees nothing.
TEST(Canary, CommitOfAFileThatChangedMeanwhileIsCaught) {
  Idler tamper([](const Request& request) { return request.op == Op::source_stat; });
  EXPECT_EQ(first_catch(tamper), "S2 CommitTruth");
}

// A limit that is lowered in vain: what was evicted is still there.
TEST(Canary, EvictionThatLeavesTheDataIsCaught) {
  Idler tamper([](const Request& request) {
    return request.op == Op::cache_unlink && request.name.ends_with(suffix(NameKind::data));
  });
  const Plan plan = {{StepOp::open, 4}, {StepOp::run, 7},   {StepOp::run, 7}, {StepOp::close},
                     {StepOp::run, 7},  {StepOp::limit, 2}, {StepOp::run, 7}};
  const auto violation = run_guarded(plan, {.tamper = &tamper});
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
  const Plan plan = {{StepOp::open},  {StepOp::run, 7}, {StepOp::run, 7},     {StepOp::close},
                     {StepOp::open},  {StepOp::run, 7}, {StepOp::kill, 0, 1}, {StepOp::remount},
                     {StepOp::evict}, {StepOp::run, 7}};
  const auto violation = run_guarded(plan, {.tamper = &tamper});
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "S4 Space");
}

// Writes sidecars that do not say what is pinned.
class Forgetter final : public Tamper {
 public:
  void submit(Request request) override {
    if (request.op == Op::cache_store) {
      auto sidecar = decode(request.bytes);
      sidecar->is_pinned = false;
      request.bytes = encode(*sidecar);
    }
    next().submit(std::move(request));
  }
};

TEST(Canary, PinThatIsNotRecordedIsCaught) {
  Forgetter tamper;
  const Plan plan = {{StepOp::remount}, {StepOp::pin},   {StepOp::run, 7}, {StepOp::run, 7},
                     {StepOp::remount}, {StepOp::evict}, {StepOp::run, 7}};
  EXPECT_FALSE(run_guarded(plan, {}));
  const auto violation = run_guarded(plan, {.tamper = &tamper});
  ASSERT_TRUE(violation);
  EXPECT_EQ(violation->name, "S5 Pins");
}

TEST(Canary, UntamperedWorldIsNotCaught) {
  Idler tamper([](const Request&) { return false; });
  EXPECT_EQ(first_catch(tamper), "nothing");
}

}  // namespace
}  // namespace ncfs
