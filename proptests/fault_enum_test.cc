// The n-th request of a small scenario fails, for all n, with every errno that its system calls are
// known to give (open(2), read(2), write(2), fsync(2), rename(2), unlink(2), nfs(5)): once, and
// from then on; with nothing and with something of it done. Readers get what the source holds or
// the source's own error; healed, everything settles.
#include <cerrno>
#include <span>

#include "proptests/plan_runner.h"

namespace ncfs {
namespace {

// ETIMEDOUT is what the driver says when the deadline has passed.
std::span<const int> errors_of(Op op) {
  static constexpr int kSourceOpen[] = {EIO, ESTALE, ETIMEDOUT, ENOENT, EACCES, EMFILE};
  static constexpr int kSource[] = {EIO, ESTALE, ETIMEDOUT, EACCES};
  static constexpr int kClose[] = {EIO, EDQUOT};
  static constexpr int kLook[] = {EIO, ETIMEDOUT, ENOENT, EACCES, EMFILE};
  static constexpr int kChange[] = {EIO, ETIMEDOUT, ENOSPC, EDQUOT, EROFS, EPERM};
  static constexpr int kUnlink[] = {EIO, ETIMEDOUT, EBUSY, EROFS, EPERM};
  static constexpr int kSync[] = {EIO, ETIMEDOUT, ENOSPC, EDQUOT};
  switch (op) {
    case Op::source_open:
      return kSourceOpen;
    case Op::source_stat:
    case Op::source_read:
      return kSource;
    case Op::source_close:
    case Op::cache_close:
      return kClose;
    case Op::cache_list:
    case Op::cache_load:
    case Op::cache_open:
      return kLook;
    case Op::cache_unlink:
      return kUnlink;
    case Op::cache_sync:
    case Op::cache_sync_directory:
      return kSync;
    default:
      return kChange;
  }
}
constexpr std::size_t kErrorsMax = 6;
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
  std::size_t error = 0;  // of those that the request can give
  bool is_half_done = false;
};

// How many requests the scenario has made, after which nothing was left to do.
std::uint64_t run_with_fault(const Scenario& scenario, const Fault& fault) {
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
      const std::span<const int> errors = errors_of(world.life()->io().pending()[0].request.op);
      // A single fault that this request cannot give is another run's.
      if (fault.count == 1 && fault.error >= errors.size()) return completions + 1;
      answer = {.kind = Answer::Kind::error,
                .error = errors[fault.error % errors.size()],
                .is_half_done = fault.is_half_done};
    }
    ++completions;
    world.complete(0, answer);
  }
  std::optional<Violation> violation = world.violation();
  if (!violation) violation = check_liveness(world);
  EXPECT_FALSE(violation) << describe(violation) << "\nin " << scenario.name << ", error "
                          << fault.error << " from completion " << fault.first << " for "
                          << fault.count << (fault.is_half_done ? ", half done" : "");
  return completions;
}

class FaultEnumeration : public testing::TestWithParam<Scenario> {};

TEST_P(FaultEnumeration, EachRequestMayFailOnceOrForLong) {
  for (std::size_t error = 0; error < kErrorsMax; ++error) {
    for (const bool is_half_done : {false, true}) {
      for (const std::uint64_t count : {std::uint64_t{1}, kPersistent}) {
        std::uint64_t first = 0;
        while (run_with_fault(GetParam(), {first, count, error, is_half_done}) > first) {
          if (HasFailure()) return;
          ++first;
        }
        EXPECT_GT(first, 1U) << "the scenario asks for next to nothing";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, FaultEnumeration, testing::ValuesIn(kScenarios),
                         [](const auto& scenario) { return scenario.param.name; });

}  // namespace
}  // namespace ncfs
