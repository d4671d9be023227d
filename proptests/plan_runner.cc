#include "proptests/plan_runner.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <ostream>

#include "sim/survivors.h"

namespace ncfs {
namespace {

// rapidcheck reads it when the first property runs, and would else take a seed of the moment. 200
// plans of up to 200 steps take some seconds with sanitizers.
const bool kIsSeeded = ::setenv("RC_PARAMS", "seed=20 max_success=200", 0) == 0;

std::string& running_plan() {
  static std::string text;
  return text;
}

void print_running_plan(int) {
  const std::string& text = running_plan();
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) ::_exit(1);
}

}  // namespace

std::optional<Violation> run_guarded(const Plan& plan, const World::Options& options,
                                     std::optional<Violation> (*then)(World&)) {
  running_plan() = "The plan that aborted:\n" + to_string(plan);
  const auto previous = std::signal(SIGABRT, print_running_plan);
  World world(options);
  for (const Step& step : plan) world.apply(step);
  if (!world.violation() && then != nullptr) {
    if (auto violation = then(world)) world.fail(std::move(*violation));
  }
  std::signal(SIGABRT, previous);
  return world.violation();
}

std::string describe(const std::optional<Violation>& violation) {
  return violation ? violation->name + ": " + violation->message : "";
}

std::vector<SavedPlan> saved_plans(const std::string& directory) {
  std::vector<SavedPlan> plans;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".plan") continue;
    std::ifstream file(entry.path());
    const std::string text(std::istreambuf_iterator<char>(file), {});
    plans.push_back({entry.path().string(), parse_plan(text)});
  }
  std::sort(plans.begin(), plans.end(),
            [](const SavedPlan& one, const SavedPlan& other) { return one.path < other.path; });
  return plans;
}

void showValue(const Step& step, std::ostream& out) {
  out << to_string(step);
}

}  // namespace ncfs

namespace rc {
namespace {

using ncfs::Step;
using ncfs::StepOp;

// Readers and completions most of all, as a crash of an idle cache teaches nothing; healing as
// often as what it heals.
Gen<StepOp> weighted_op() {
  return gen::weightedElement<StepOp>({
      {60, StepOp::open},
      {30, StepOp::close},
      {80, StepOp::read},
      {80, StepOp::advance},
      {10, StepOp::warm},
      {40, StepOp::tick},
      {200, StepOp::complete},
      {8, StepOp::short_count},
      {8, StepOp::fail},
      {8, StepOp::hang},
      {8, StepOp::release},
      {40, StepOp::run},
      {6, StepOp::kill},
      {6, StepOp::power},
      {2, StepOp::stop},
      {4, StepOp::remount},
      {3, StepOp::release_holds},
      {6, StepOp::source_write},
      {3, StepOp::source_restore},
      {2, StepOp::source_mode},
      {3, StepOp::source_truncate},
      {3, StepOp::source_replace},
      {2, StepOp::source_delete},
      {2, StepOp::disk_full},
      {2, StepOp::disk_error},
      {2, StepOp::disk_hang},
      {6, StepOp::disk_heal},
      {2, StepOp::nfs_error},
      {2, StepOp::nfs_hang},
      {4, StepOp::nfs_heal},
      {2, StepOp::rot},
      {4, StepOp::knob},
      {8, StepOp::wait},
      {40, StepOp::deliver},
      {1, StepOp::disk_readonly},
      {1, StepOp::disk_lies},
      {1, StepOp::disk_stick},
      {2, StepOp::nfs_reboot},
      {1, StepOp::outage},
      {3, StepOp::rot_data},
      {2, StepOp::misdirect},
      {4, StepOp::verify},
      {4, StepOp::limit},
      {6, StepOp::pin},
      {4, StepOp::unpin},
      {4, StepOp::evict},
      {6, StepOp::own_write},
      {6, StepOp::own_chmod},
      {2, StepOp::own_rename},
      {4, StepOp::own_append},
  });
}

// Small numbers become what the step needs; 0 stays 0, so that shrinking reaches the plainest.
Step scaled(Step step) {
  if (step.op == StepOp::tick || step.op == StepOp::wait) step.a *= 250 * ncfs::kMillisecond;
  if ((step.op == StepOp::kill || step.op == StepOp::power) && step.a > 16) {
    step.a += ncfs::kRandomMask;
  }
  if (step.op == StepOp::complete) step.b %= 2;
  return step;
}

}  // namespace

Gen<Step> Arbitrary<Step>::arbitrary() {
  const auto small = gen::inRange<std::uint64_t>(0, 66);
  const auto bytes = gen::inRange<std::uint64_t>(0, 64 * ncfs::kKiB);
  return gen::map(gen::build<Step>(gen::set(&Step::op, weighted_op()), gen::set(&Step::a, small),
                                   gen::set(&Step::b, bytes), gen::set(&Step::c, bytes)),
                  &scaled);
}

Gen<ncfs::Plan> arbitrary_plan() {
  return gen::scale(2.0, gen::container<ncfs::Plan>(gen::arbitrary<Step>()));
}

}  // namespace rc
