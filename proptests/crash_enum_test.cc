// Every crash point of the copy of a small file, with every subset of what was not yet durable: all
// of them for files of one and two blocks, and for longer scenarios where they are few. After each
// crash the cache is mounted again, heals, and must hold the truth; the oracle looks on all the
// time. What was durable is not fetched again.
#include "engine/format.h"
#include "proptests/plan_runner.h"

namespace ncfs {
namespace {

// Beyond this many outcomes of one crash point a sample is taken, in the scenarios that say so. The
// points with more are those where a few writes can each be torn in four ways; neighbours differ
// little.
constexpr std::uint64_t kSample = 48;
// Far above what the small worlds need: they are enumerated to the end, which the test asserts.
constexpr std::uint64_t kAll = 4096;
constexpr std::size_t kStepsMax = 200;

struct Scenario {
  const char* name;
  const char* text;  // before the completions
  std::uint64_t outcomes_max;
  friend void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.name; }
};

// A copy with a checkpoint after every block; one that is read meanwhile and has none; one that
// replaces another file in a full cache; one that continues after an earlier crash.
constexpr Scenario kScenarios[] = {
    {"checkpoints", "knob 8 1\nopen 0\n", kSample},
    {"reader", "knob 8 2\nopen 0\nread 0 0 12287\n", kSample},
    {"eviction", "knob 1 2\nopen 0\nrun 7\nrun 7\nclose 0\nrun 7\nopen 2\n", kSample},
    {"resumed", "knob 8 1\nopen 0\nrun\nrun\nrun\nrun\npower 3\nopen 0\n", kSample},
    // To the end: one block; one block on a disk of tiny sectors, whose torn writes keep their
    // ends as well, with its directory replayed in order; two blocks with a checkpoint between.
    {"one_block", "open 1\n", kAll},
    {"tiny_sectors", "knob 13 1\nknob 15 2\nopen 1\n", kAll},
    {"two_blocks", "knob 0 1\nknob 8 1\nknob 3 1\nknob 13 1\nopen 0\n", kAll},
    // Our own chmod of a complete file and of a copy.
    {"rekeyed",
     "open 1\nrun 7\nrun 7\nclose 0\nrun\nopen 0\ncomplete 0\nown_chmod 1\nown_chmod 0\n", kSample},
    // Our own write into a complete file that a reader has open, and into a copy.
    {"disowned",
     "open 1\nrun 7\nrun 7\nclose 0\nrun\nopen 1\nrun\nopen 0\ncomplete 0\ncomplete 0\nown_write 1 "
     "0 99\nown_write 0 0 99\n",
     kSample},
    {"damaged", "knob 64 1\nknob 8 1\nopen 0\nrun\nrun\nrun\nrun\nkill\nrot_data 0 1\nopen 0\n",
     kSample},
};

Plan plan_until(const Scenario& scenario, std::size_t completions) {
  ParsedPlan parsed = parse_plan(scenario.text);
  EXPECT_EQ(parsed.error, "");
  for (std::size_t count = 0; count < completions; ++count) {
    parsed.plan.push_back({StepOp::complete});
    parsed.plan.push_back({StepOp::advance});
  }
  return parsed.plan;
}

// The completions until nothing is in flight any more.
std::size_t completions_of(const Scenario& scenario) {
  World world;
  for (const Step& step : plan_until(scenario, 0)) world.apply(step);
  std::size_t count = 0;
  for (; count < kStepsMax && !world.life()->io().pending().empty(); ++count) {
    world.apply({StepOp::complete});
    world.apply({StepOp::advance});
  }
  EXPECT_LT(count, kStepsMax) << scenario.name << " does not end";
  return count;
}

// Bytes of the file that the objects found after the crash hold: data, and a sidecar that says so.
std::uint64_t durable_bytes(const World& world, const std::string& path) {
  std::uint64_t bytes = 0;
  const SimDisk::Names names = world.disk().names_cached();
  for (const auto& [name, inode] : names) {
    if (!name.ends_with(suffix(NameKind::sidecar))) continue;
    const std::string stem = name.substr(0, name.size() - suffix(NameKind::sidecar).size());
    const bool has_data = names.contains(stem + std::string(suffix(NameKind::data))) ||
                          names.contains(stem + std::string(suffix(NameKind::partial)));
    if (!has_data) continue;
    const std::optional<Sidecar> sidecar = decode(world.disk().view(inode).cached);
    if (!sidecar || sidecar->path != path) continue;
    const SourceInode source = world.nfs().inode_at(path);
    if (sidecar->version != world.nfs().history(source).back().version) continue;
    for (std::uint64_t block = 0; block < sidecar->durable.block_count(); ++block) {
      const std::uint64_t begin = block * sidecar->block_size_bytes;
      if (!sidecar->durable.test(block)) continue;
      bytes += std::min(sidecar->block_size_bytes, sidecar->version.size - begin);
    }
  }
  return bytes;
}

// The file of the scenario's last open is opened again: no byte that was durable is fetched.
std::optional<Violation> check_resumes(World& world, const Plan& before) {
  const auto open = std::find_if(before.rbegin(), before.rend(),
                                 [](const Step& step) { return step.op == StepOp::open; });
  const std::string& path = world.paths()[open->a];
  const std::uint64_t size = world.nfs().history(world.nfs().inode_at(path)).back().version.size;
  const std::uint64_t durable = durable_bytes(world, path);
  world.apply(*open);
  if (!world.settle(100)) return Violation{"L1 Cached", "does not settle: " + world.describe()};
  const std::uint64_t fetched = world.life()->io().source_bytes();
  if (world.violation() || fetched + durable <= size) return world.violation();
  return Violation{"L3 Resume", std::to_string(fetched) + " bytes fetched, though of " +
                                    std::to_string(size) + " there were " +
                                    std::to_string(durable)};
}

// What is lost decides what else there is to choose (the data of a file whose name is lost is not),
// so masks differ in how many outcomes they see. Counting to the most that any mask saw reaches
// all: a mask of zeros but for its first digits sees how many values the next digit has. Beyond
// what it sees itself a mask repeats another. False then.
bool crash_and_recover(const Plan& before, Step crash, std::uint64_t& outcomes) {
  World world;
  for (const Step& step : before) world.apply(step);
  world.apply(crash);
  outcomes = std::max(outcomes, world.crash_combinations());
  if (crash.a < kRandomMask && crash.a >= world.crash_combinations()) return false;
  std::optional<Violation> violation = world.violation();
  if (!violation) violation = check_resumes(world, before);
  if (!violation) violation = check_liveness(world);
  Plan plan = before;
  plan.push_back(crash);
  EXPECT_FALSE(violation) << describe(violation) << '\n' << to_string(plan);
  return true;
}

class CrashEnumeration : public testing::TestWithParam<Scenario> {};

TEST_P(CrashEnumeration, LeavesTheTruthAfterEveryCrash) {
  const std::size_t completions = completions_of(GetParam());
  ASSERT_GT(completions, 5U);
  std::uint64_t crashes = 0;
  for (std::size_t point = 0; point <= completions; ++point) {
    const Plan before = plan_until(GetParam(), point);
    for (const StepOp op : {StepOp::kill, StepOp::power}) {
      std::uint64_t outcomes = 1;
      const std::uint64_t outcomes_max = GetParam().outcomes_max;
      for (std::uint64_t index = 0; index < std::min(outcomes, outcomes_max); ++index) {
        // Counted when all can be; else seeds of random outcomes, beginning with "all is lost".
        const bool is_sampled = outcomes > outcomes_max && index > 0;
        const std::uint64_t mask = is_sampled ? kRandomMask + 1000 * point + index : index;
        if (crash_and_recover(before, {op, mask, index % 2}, outcomes)) ++crashes;
        if (HasFailure()) return;
      }
      EXPECT_TRUE(outcomes_max != kAll || outcomes <= kAll) << outcomes << " at " << point;
    }
  }
  EXPECT_GT(crashes, 2 * completions);
  RecordProperty("crashes", static_cast<int>(crashes));
}

INSTANTIATE_TEST_SUITE_P(All, CrashEnumeration, testing::ValuesIn(kScenarios),
                         [](const auto& scenario) { return scenario.param.name; });

}  // namespace
}  // namespace ncfs
