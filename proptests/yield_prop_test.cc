// Copies yield to readers (S19, an assertion of the engine), and yet they go on: beside
// readers who never stop, whatever the order and the time of completions.
#include "proptests/plan_runner.h"
#include "sim/latency.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kCopied = 0;          // files of the world: of three blocks of 4 KiB,
constexpr std::uint64_t kRead = 4;            // and of twelve, which the rules below leave out
constexpr std::uint64_t kOnlySmallFiles = 6;  // of kKnobRules
constexpr std::uint64_t kPrefetchOff = 1;     // of kKnobPrefetch
constexpr std::uint64_t kBlockKnob = 0;
// One every 300 us. The copy has twelve pieces of 1 KiB and is paused for a second at most.
constexpr std::uint64_t kReads = 10'000;

RC_GTEST_PROP(Yield, ACopyEndsBesideReadersWhoNeverStop, ()) {
  World world;
  world.apply({StepOp::knob, kKnobCopyPiece, *rc::gen::inRange<std::uint64_t>(0, 3)});
  world.apply({StepOp::knob, kBlockKnob, *rc::gen::inRange<std::uint64_t>(0, 3)});
  world.apply({StepOp::knob, kKnobPrefetch, kPrefetchOff});
  world.apply({StepOp::knob, kKnobRules, kOnlySmallFiles});
  world.apply({StepOp::remount});
  world.apply({StepOp::open, kRead});
  Plan workload;
  const std::uint64_t begins_at = *rc::gen::inRange<std::uint64_t>(0, 200);
  const std::uint64_t reads_at_a_time = *rc::gen::inRange<std::uint64_t>(1, 4);
  for (std::uint64_t count = 0; count < kReads; ++count) {
    if (count == begins_at) workload.push_back({StepOp::open, kCopied});
    const bool begins = count % 4 < reads_at_a_time;
    workload.push_back(begins ? Step{StepOp::read, 0, count * 4999 % (48 * kKiB), 100}
                              : Step{StepOp::advance, count});
    workload.push_back({StepOp::advance, count / 2});
  }
  LatencyDriver driver(world, workload, Rng(*rc::gen::arbitrary<std::uint64_t>()));
  std::uint64_t reads_after = 0;
  while (const auto step = driver.next()) {
    world.apply(*step);
    RC_ASSERT(!world.violation());
    const EngineStatus status = world.life()->engine().status();
    if (status.copies_finished == 0) continue;
    RC_ASSERT(status.objects_cached == 1U);
    if (++reads_after > 100) break;  // it was not the end of the reads that let it end
  }
  RC_ASSERT(reads_after > 100);
  RC_ASSERT(world.readers().reads_finished() > 0U);
}

}  // namespace
}  // namespace ncfs
