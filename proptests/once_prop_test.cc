// S15 OnceOverTheWire: without faults, and with room for everything, each byte of a file crosses
// the network once, however many read it, in whatever order the requests complete, while it is
// copied.
#include <array>

#include "proptests/plan_runner.h"

namespace ncfs {
namespace {

constexpr std::uint32_t kRounds = 200;

// Files of one to three blocks; all of their blocks fit into the buffers.
constexpr std::array<std::uint64_t, 3> kFiles = {0, 1, 2};

// What several readers do who each read a file from its beginning to its end.
Step scaled(Step step) {
  switch (step.op) {
    case StepOp::open:
    case StepOp::warm:
      step.a = kFiles[step.a % kFiles.size()];
      break;
    case StepOp::read:
      step.b = 0;
      step.c = 64 * kKiB - 1;
      break;
    default:
      break;
  }
  return step;
}

rc::Gen<Plan> plan_without_faults() {
  const auto op = rc::gen::weightedElement<StepOp>({{4, StepOp::open},
                                                    {1, StepOp::close},
                                                    {4, StepOp::read},
                                                    {8, StepOp::advance},
                                                    {1, StepOp::warm},
                                                    {16, StepOp::complete},
                                                    {1, StepOp::run}});
  const auto small = rc::gen::inRange<std::uint64_t>(0, 64);
  const auto step = rc::gen::map(
      rc::gen::build<Step>(rc::gen::set(&Step::op, op), rc::gen::set(&Step::a, small)), &scaled);
  return rc::gen::scale(2.0, rc::gen::container<Plan>(step));
}

std::uint64_t size_of(const World& world, std::uint64_t file) {
  const std::string& path = world.paths()[file];
  return world.nfs().history(world.nfs().inode_at(path)).back().version.size;
}

RC_GTEST_PROP(Once, EachByteCrossesOnceWithoutFaults, ()) {
  const Plan plan = *plan_without_faults();
  World world;
  std::array<bool, 5> is_used{};
  for (const Step& step : plan) {
    world.apply(step);
    if (step.op == StepOp::open || step.op == StepOp::warm) is_used[step.a] = true;
  }
  // Closed files are left as they are; copies that were begun go on and end.
  const bool is_settled = world.life() == nullptr || world.settle(kRounds);
  RC_ASSERT(is_settled);
  RC_ASSERT(!world.violation());
  if (world.life() == nullptr) return;
  std::uint64_t size = 0;
  for (const std::uint64_t file : kFiles) size += is_used[file] ? size_of(world, file) : 0;
  RC_ASSERT(world.life()->io().source_bytes() <= size);
}

// So that the property cannot pass by never reading anything: three readers and a copy.
TEST(Once, FileThatEverybodyReadsCrossesOnce) {
  World world;
  for (std::uint64_t reader = 0; reader < 3; ++reader) {
    world.apply({StepOp::open, 0});
    world.apply({StepOp::run});
    world.apply({StepOp::read, reader, 0, 12 * kKiB - 1});
  }
  ASSERT_TRUE(world.settle(kRounds));
  EXPECT_EQ(world.readers().reads_finished(), 3U);
  EXPECT_EQ(world.life()->io().source_bytes(), 12 * kKiB) << "S15 OnceOverTheWire";
}

// Our own changes of attributes cost nothing, whenever they come: before, during and after the
// copy. Every file is opened before the first of them: what is read within the racy window after a
// ctime that the cache knows nothing of is read again.
RC_GTEST_PROP(Once, OurOwnChangesCostNoCopy, ()) {
  const Plan plan = *plan_without_faults();
  // After each step: which file is changed, or none.
  const auto changes = *rc::gen::container<std::vector<std::size_t>>(
      plan.size(), rc::gen::inRange<std::size_t>(0, 4 * kFiles.size()));
  World world;
  for (const std::uint64_t file : kFiles) world.apply({StepOp::open, file});
  for (std::size_t index = 0; index < plan.size(); ++index) {
    world.apply(plan[index]);
    if (changes[index] < kFiles.size()) {
      world.apply({StepOp::own_chmod, kFiles[changes[index]]});
    }
  }
  RC_ASSERT(world.settle(kRounds));
  // What was opened is complete now, and stays so.
  world.readers().close_all();
  for (const std::uint64_t file : kFiles) {
    world.apply({StepOp::own_chmod, file});
    world.apply({StepOp::open, file});
  }
  RC_ASSERT(world.settle(kRounds));
  RC_ASSERT(!world.violation());
  std::uint64_t size = 0;
  for (const std::uint64_t file : kFiles) size += size_of(world, file);
  RC_ASSERT(world.life()->io().source_bytes() == size);
  RC_ASSERT(world.readers().files().size() == kFiles.size());
  for (const auto& [handle, file] : world.readers().files()) RC_ASSERT(file.result.is_complete);
}

}  // namespace
}  // namespace ncfs
