// The n-th request of a small scenario fails, for all n: once, and from then on. Readers get what
// the source holds or the source's own error; healed, everything settles.
#include <cerrno>

#include "proptests/plan_runner.h"

namespace ncfs {
namespace {

// Plausible for some request each; what a request cannot return costs nothing to try.
constexpr int kErrors[] = {EIO, ENOSPC, ESTALE, EACCES};
// A persistent fault lasts this many completions: longer than any chain of requests.
constexpr std::uint64_t kPersistent = 60;
constexpr std::uint64_t kRoundsMax = 2000;

struct Scenario {
  const char* name;
  const char* text;
  friend void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.name; }
};

// A first read with the copy behind it; a reopen of what is cached; a full cache that evicts.
constexpr Scenario kScenarios[] = {
    {"first_read", "open 0\nread 0 0 12287\n"},
    {"reopen", "open 0\nrun 7\nrun 7\nclose\nrun 7\nopen 0\nread 0 0 12287\nclose\n"},
    {"eviction", "knob 1 2\nopen 0\nrun 7\nrun 7\nclose\nrun 7\nopen 2\nread 0 0 8192\n"},
    {"recovery", "knob 8 1\nopen 0\nrun 3\nkill\nopen 0\nread 0 0 12287\n"},
    {"checked_reads",
     "knob 64 2\nopen 0\nrun 7\nrun 7\nclose\nrun 7\nopen 0\nrun\nread 0 0 12287\n"},
    {"checked_recovery", "knob 64 1\nknob 8 1\nopen 0\nrun 3\nkill\nopen 0\nread 0 0 12287\n"},
    {"verification", "knob 64 1\nopen 0\nrun 7\nrun 7\nclose\nrun 7\nrot_data\nverify\n"},
};

struct Fault {
  std::uint64_t first = 0;  // of the completions after the scenario's steps
  std::uint64_t count = 1;
  int error = 0;
  bool is_half_done = false;
};

// True if the fault came to pass.
bool run_with_fault(const Scenario& scenario, const Fault& fault) {
  const ParsedPlan parsed = parse_plan(scenario.text);
  EXPECT_EQ(parsed.error, "");
  World world;
  for (const Step& step : parsed.plan) world.apply(step);
  std::uint64_t completions = 0;
  for (std::uint64_t round = 0; round < kRoundsMax; ++round) {
    world.advance_readers();
    if (world.life()->io().pending().empty()) break;
    Answer answer;
    if (completions >= fault.first && completions < fault.first + fault.count) {
      answer = {
          .kind = Answer::Kind::error, .error = fault.error, .is_half_done = fault.is_half_done};
    }
    ++completions;
    world.complete(0, answer);
  }
  std::optional<Violation> violation = world.violation();
  if (!violation) violation = check_liveness(world);
  EXPECT_FALSE(violation) << describe(violation) << "\nin " << scenario.name << ", errno "
                          << fault.error << " from completion " << fault.first << " for "
                          << fault.count << (fault.is_half_done ? ", half done" : "");
  return completions > fault.first;
}

class FaultEnumeration : public testing::TestWithParam<Scenario> {};

TEST_P(FaultEnumeration, EachRequestMayFailOnceOrForLong) {
  for (const int error : kErrors) {
    for (const std::uint64_t count : {std::uint64_t{1}, kPersistent}) {
      std::uint64_t first = 0;
      while (run_with_fault(GetParam(), {first, count, error, first % 2 == 1})) {
        if (HasFailure()) return;
        ++first;
      }
      EXPECT_GT(first, 1U) << "the scenario asks for next to nothing";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, FaultEnumeration, testing::ValuesIn(kScenarios),
                         [](const auto& scenario) { return scenario.param.name; });

}  // namespace
}  // namespace ncfs
