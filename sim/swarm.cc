#include "sim/swarm.h"

#include <array>
#include <numeric>

#include "io/types.h"
#include "sim/knobs.h"
#include "sim/survivors.h"

namespace ncfs {
namespace {

struct Weight {
  StepOp op;
  std::uint64_t usual;
  bool is_optional;  // left out of about half of the plans
};

// What applications and time do is always there; everything else comes and goes. Healing has the
// weight of what it heals, or most of a plan would be spent with everything broken.
constexpr std::array<Weight, kStepOpCount> kWeights = {{
    {StepOp::open, 60, false},
    {StepOp::close, 30, false},
    {StepOp::read, 80, false},
    {StepOp::advance, 80, false},
    {StepOp::warm, 10, true},
    {StepOp::tick, 40, false},
    {StepOp::complete, 200, false},
    {StepOp::short_count, 10, true},
    {StepOp::fail, 10, true},
    {StepOp::hang, 10, true},
    {StepOp::release, 10, true},
    {StepOp::run, 40, true},
    {StepOp::kill, 6, true},
    {StepOp::power, 6, true},
    {StepOp::stop, 2, true},
    {StepOp::remount, 4, true},
    {StepOp::release_holds, 4, true},
    {StepOp::source_write, 8, true},
    {StepOp::source_restore, 4, true},
    {StepOp::source_mode, 3, true},
    {StepOp::source_truncate, 4, true},
    {StepOp::source_replace, 4, true},
    {StepOp::source_delete, 2, true},
    {StepOp::disk_full, 3, true},
    {StepOp::disk_error, 3, true},
    {StepOp::disk_hang, 3, true},
    {StepOp::disk_heal, 9, false},
    {StepOp::nfs_error, 3, true},
    {StepOp::nfs_hang, 3, true},
    {StepOp::nfs_heal, 6, false},
    {StepOp::rot, 6, true},
    {StepOp::knob, 6, true},
    {StepOp::wait, 10, true},
    {StepOp::deliver, 100, false},
    {StepOp::disk_readonly, 2, true},
    {StepOp::disk_lies, 2, true},
    {StepOp::disk_stick, 12, true},
    {StepOp::nfs_reboot, 3, true},
    {StepOp::outage, 1, true},
    {StepOp::rot_data, 4, true},
    {StepOp::misdirect, 3, true},
    {StepOp::verify, 6, true},
    {StepOp::limit, 6, true},
    {StepOp::pin, 10, true},
    {StepOp::unpin, 6, true},
    {StepOp::evict, 6, true},
    {StepOp::own_write, 10, true},
    {StepOp::own_chmod, 10, true},
    {StepOp::own_rename, 3, true},
    {StepOp::own_append, 14, true},
}};

// The number of ETIMEDOUT among the errors of World.
constexpr std::uint64_t kErrorTimedOut = 6;

std::uint64_t pick_duration(Rng& rng) {
  constexpr std::array<Nanos, 6> kDurations = {kSecond,     kMillisecond, 100 * kMillisecond,
                                               3 * kSecond, 12 * kSecond, 40 * kSecond};
  return kDurations[rng.below(rng.chance({1, 8}) ? kDurations.size() : 4)];
}

Step fill_in(StepOp op, Rng& rng) {
  Step step{op, rng.below(8), 0, 0};
  switch (op) {
    case StepOp::rot:
      // Half of it in the bitmap, where it does most harm: behind 72 bytes and a path of five.
      step.b = rng.chance({1, 2}) ? rng.below(64 * kKiB) : 8 * (72 + 5) + rng.below(16);
      break;
    case StepOp::read:
      // Half of the reads are sequential in the large: from the start of the file.
      step.b = rng.chance({1, 2}) ? 0 : rng.below(64 * kKiB);
      step.c = rng.below(16 * kKiB);
      break;
    case StepOp::wait:
    case StepOp::tick:
      step.a = pick_duration(rng);
      step.b = rng.below(std::uint64_t{1} << 32);
      break;
    case StepOp::complete:
      step.a = rng.chance({1, 2}) ? 0 : rng.below(16);
      step.b = rng.below(2);
      break;
    case StepOp::run:
      step.a = rng.below(4);
      break;
    case StepOp::kill:
    case StepOp::power:
      step.a = kRandomMask + rng.below(kRandomMask);
      step.b = rng.below(2);
      break;
    case StepOp::disk_full:
      step.a = rng.below(64 * kKiB);
      break;
    case StepOp::knob:
      step.a =
          rng.chance({1, 8}) ? kKnobChecksum + rng.below(kNewKnobCount) : rng.below(kKnobChecksum);
      step.b = rng.below(8);
      break;
    case StepOp::outage:
      step.b = rng.below(200);
      break;
    case StepOp::own_chmod:
      step.b = rng.chance({1, 2}) ? 0 : rng.below(4);
      break;
    case StepOp::own_rename:
      step.b = rng.below(8);
      step.c = rng.chance({1, 2}) ? 0 : rng.below(4);
      break;
    case StepOp::evict:
      step.b = rng.chance({1, 2}) ? 0 : rng.below(10);
      break;
    default:
      step.b = rng.below(64 * kKiB);
      step.c = rng.below(16 * kKiB);
      break;
  }
  return step;
}

bool names_file(StepOp op) {
  return op == StepOp::open || op == StepOp::warm ||
         (op >= StepOp::source_write && op <= StepOp::source_delete) ||
         (op >= StepOp::own_write && op <= StepOp::own_append);
}

// An append to a file that is open and complete in the cache, with others there that can make room
// for it; in some of them nothing happens for longer than a disk may take.
void add_append_in_need_of_room(Plan& plan, const Step& append, Rng& rng) {
  const std::uint64_t file = append.a;
  // In the fourth of the limits the file has to grow far before others have to go.
  const std::uint64_t limit = rng.chance({3, 4}) ? 3 : rng.below(5);
  for (const Step& step : Plan{{StepOp::disk_heal},
                               {StepOp::nfs_heal},
                               {StepOp::warm, file + 1},
                               {StepOp::warm, file + 2},
                               {StepOp::open, file},
                               {StepOp::tick, 3 * kSecond},
                               {StepOp::run, 7},
                               {StepOp::run, 7},
                               {StepOp::run, 7},
                               {StepOp::run, 7},
                               {StepOp::open, file},
                               {StepOp::limit, limit},
                               {StepOp::run},
                               append,
                               {StepOp::run, 2},
                               {StepOp::deliver}}) {
    plan.push_back(step);
  }
  if (rng.chance({3, 4})) plan.push_back({StepOp::tick, 12 * kSecond});
}

}  // namespace

Plan make_swarm_plan(Rng& rng, std::uint64_t step_count) {
  std::array<std::uint64_t, kStepOpCount> weights{};
  for (std::size_t index = 0; index < kWeights.size(); ++index) {
    const Weight& weight = kWeights[index];
    // Times one to eight, and an eighth unchanged: four octaves apart at most.
    weights[index] = weight.usual * (1 + rng.below(8));
    if (weight.is_optional && rng.chance({1, 2})) weights[index] = 0;
  }
  const std::uint64_t total = std::accumulate(weights.begin(), weights.end(), std::uint64_t{0});
  // Half of the plans are about one or two files: what goes wrong between uses of one file is else
  // too seldom.
  const std::uint64_t files = rng.chance({1, 2}) ? 8 : 1 + rng.below(2);
  const std::uint64_t first_file = rng.below(5);
  Plan plan;
  // Knobs first: they are in force from the first start on.
  plan.push_back({StepOp::knob, kKnobChecksum, rng.below(3)});
  for (std::uint64_t count = rng.below(8); count > 0; --count) {
    plan.push_back(fill_in(StepOp::knob, rng));
  }
  while (plan.size() < step_count) {
    std::uint64_t ticket = rng.below(total);
    std::size_t index = 0;
    while (ticket >= weights[index]) ticket -= weights[index++];
    plan.push_back(fill_in(kWeights[index].op, rng));
    Step& step = plan.back();
    if (names_file(step.op)) step.a = first_file + step.a % files;
    // Our own write waits for what is in flight: half of the time something of it times out.
    if (step.op == StepOp::own_write && rng.chance({1, 2})) {
      plan.push_back({StepOp::fail, rng.below(8), kErrorTimedOut, rng.below(2)});
    } else if (step.op == StepOp::own_append && rng.chance({1, 2})) {
      const Step append = step;
      plan.pop_back();
      add_append_in_need_of_room(plan, append, rng);
    }
  }
  return plan;
}

}  // namespace ncfs
