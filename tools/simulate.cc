// simulate: random worlds until one breaks a promise, then the shortest story of how.
//
// Every plan runs in a process of its own, so that an engine that aborts on a broken assertion is a
// failure like any other: it can be shrunk and saved. After its steps a plan is healed and has to
// settle (L1, L2). Every other plan completes its requests in an order chosen to do harm; the rest
// take the times of real devices (sim/latency.h). What is saved is the steps up to the failure.
//
// Exit status: 0 nothing found, 2 wrong usage, 127 broken assertion or crash, 128 liveness,
// 129 correctness, 130 a coverage mark was required and not reached.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "sim/latency.h"
#include "sim/oracle.h"
#include "sim/plan.h"
#include "sim/shrink.h"
#include "sim/swarm.h"
#include "sim/world.h"
#include "tools/coverage_report.h"

namespace {

constexpr int kExitUsage = 2;
constexpr int kExitAssertion = 127;
constexpr int kExitLiveness = 128;
constexpr int kExitCorrectness = 129;
constexpr int kExitCoverage = 130;
constexpr std::uint32_t kJobsMax = 256;
// Enough to shrink some thousand steps to a dozen; a fork and a run take a few milliseconds.
constexpr std::uint64_t kShrinkRunsMax = 5000;

struct Outcome {
  int status = 0;       // as this program would exit
  std::string name;     // what broke
  std::string message;  // one line
};

int status_of(const std::string& invariant) {
  return invariant.starts_with('L') ? kExitLiveness : kExitCorrectness;
}

std::optional<ncfs::Violation> run(const ncfs::Plan& plan, bool is_verbose) {
  ncfs::World world;
  for (const ncfs::Step& step : plan) {
    world.apply(step);
    if (is_verbose) {
      fmt::print("{:<32} {}\n", to_string(step), world.describe());
      std::fflush(stdout);  // the next step may abort
    }
    if (world.violation()) return world.violation();
  }
  if (is_verbose) fmt::print("(healing)\n");
  return check_liveness(world);
}

// Memory that a worker shares with this process: what it did is known even if it aborts.
struct Shared {
  // A run ends here: far beyond what can still be shrunk. Only what is used takes memory.
  static constexpr std::size_t kStepsMax = 1 << 20;
  ncfs::Coverage coverage;
  std::uint64_t steps_in_all = 0;
  std::size_t step_count = 0;  // of the plan that runs or ran last
  std::array<ncfs::Step, kStepsMax> steps;

  [[nodiscard]] ncfs::Plan plan() const { return {steps.begin(), steps.begin() + step_count}; }
};

Shared& map_shared() {
  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::system_error(errno, std::system_category());
  return *static_cast<Shared*>(memory);  // zeros are a valid, empty one
}

void record_and_apply(ncfs::World& world, const ncfs::Step& step, Shared& shared) {
  shared.steps[shared.step_count++] = step;
  ++shared.steps_in_all;
  world.apply(step);
}

bool has_room(const Shared& shared) {
  return shared.step_count < Shared::kStepsMax;
}

struct Assignment {
  ncfs::Plan plan;
  std::optional<ncfs::Rng> latency_rng;  // of a plan whose order is that of latencies
};

std::optional<ncfs::Violation> run_recorded(const Assignment& assignment, Shared& shared) {
  ncfs::World world;
  if (assignment.latency_rng) {
    ncfs::LatencyDriver driver(world, assignment.plan, *assignment.latency_rng);
    while (!world.violation() && has_room(shared)) {
      const std::optional<ncfs::Step> step = driver.next();
      if (!step) break;
      record_and_apply(world, *step, shared);
    }
  } else {
    for (const ncfs::Step& step : assignment.plan) {
      if (world.violation() || !has_room(shared)) break;
      record_and_apply(world, step, shared);
    }
  }
  return world.violation() ? world.violation() : check_liveness(world);
}

// The child tells what it found on its standard error, where an aborting assertion tells it, too.
[[noreturn]] void run_in_child(const Assignment& assignment, Shared& shared, int out) {
  ::dup2(out, STDERR_FILENO);
  ncfs::coverage_sink = &shared.coverage;
  const std::optional<ncfs::Violation> violation = run_recorded(assignment, shared);
  if (!violation) ::_exit(0);
  fmt::print(stderr, "{}\n{}\n", violation->name, violation->message);
  ::_exit(status_of(violation->name));
}

std::string read_all(int in) {
  std::string text;
  std::array<char, 4096> part{};
  for (ssize_t length = 0; (length = ::read(in, part.data(), part.size())) > 0;) {
    text.append(part.data(), static_cast<std::size_t>(length));
  }
  return text;
}

struct Worker {
  pid_t process = -1;
  int out = -1;
  std::uint64_t index = 0;  // of the plan
};

Worker start_worker(const Assignment& assignment, std::uint64_t index, Shared& shared) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::system_error(errno, std::system_category());
  shared.step_count = 0;
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::system_error(errno, std::system_category());
  if (child == 0) run_in_child(assignment, shared, ends[1]);
  ::close(ends[1]);
  return {child, ends[0], index};
}

Outcome wait_for(const Worker& worker) {
  const std::string text = read_all(worker.out);
  ::close(worker.out);
  int wait_status = 0;
  ::waitpid(worker.process, &wait_status, 0);
  const int status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : kExitAssertion;
  if (status == 0) return {};
  const std::size_t first_end = std::min(text.find('\n'), text.size());
  if (status == kExitLiveness || status == kExitCorrectness) {
    return {status, text.substr(0, first_end), text.substr(std::min(first_end + 1, text.size()))};
  }
  return {kExitAssertion, text.substr(0, first_end), {}};
}

Outcome run_isolated(const ncfs::Plan& plan, Shared& shared) {
  return wait_for(start_worker({plan, {}}, 0, shared));
}

// A commit hash is a seed as well: each commit tries something new and can be repeated.
std::uint64_t parse_seed(const std::string& text) {
  const bool is_hash = text.size() == 40;
  std::size_t used = 0;
  const std::uint64_t seed =
      std::stoull(is_hash ? text.substr(0, 15) : text, &used, is_hash ? 16 : 10);
  if (used != (is_hash ? 15 : text.size())) throw std::invalid_argument(text);
  return seed;
}

struct Options {
  std::string seed_text = "1";
  std::uint64_t step_count = 300;
  std::uint64_t plan_count = 0;
  double minutes = 0;
  std::uint32_t jobs = 1;
  bool shows_coverage = false;
  bool requires_coverage = false;
  std::string replay;
  std::string output = std::filesystem::temp_directory_path() / "nfs-cachefs-failure.plan";
  bool is_verbose = false;
  bool is_shrinking = false;
};

int report(const ncfs::Plan& plan, const Outcome& outcome, const Options& options, Shared& shared) {
  fmt::print("{}\n{}\n", outcome.name, outcome.message);
  const ncfs::Plan small = shrink_plan(plan, kShrinkRunsMax, [&](const ncfs::Plan& candidate) {
    const Outcome again = run_isolated(candidate, shared);
    return again.status == outcome.status && again.name == outcome.name;
  });
  std::ofstream(options.output) << "# " << outcome.name << '\n' << to_string(small);
  fmt::print("{} steps of {} are enough, saved as {}:\n{}", small.size(), plan.size(),
             options.output, to_string(small));
  return outcome.status;
}

int replay(const Options& options) {
  std::ifstream file(options.replay);
  if (!file) {
    fmt::print(stderr, "cannot read {}\n", options.replay);
    return kExitUsage;
  }
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const ncfs::ParsedPlan parsed = ncfs::parse_plan(text);
  if (!parsed.error.empty()) {
    fmt::print(stderr, "{}: {}\n", options.replay, parsed.error);
    return kExitUsage;
  }
  if (options.is_shrinking) {
    Shared& shared = map_shared();
    const Outcome outcome = run_isolated(parsed.plan, shared);
    return outcome.status == 0 ? 0 : report(shared.plan(), outcome, options, shared);
  }
  const std::optional<ncfs::Violation> violation = run(parsed.plan, options.is_verbose);
  if (!violation) return 0;
  fmt::print("{}\n{}\n", violation->name, violation->message);
  return status_of(violation->name);
}

Assignment assignment_of(const ncfs::Rng& root, std::uint64_t index, std::uint64_t step_count) {
  ncfs::Rng rng = root.fork("plan " + std::to_string(index));
  Assignment assignment{ncfs::make_swarm_plan(rng, step_count), {}};
  if (index % 2 == 1) assignment.latency_rng = rng.fork("latency");
  return assignment;
}

int report_coverage(const ncfs::Coverage& coverage, const Options& options) {
  if (options.shows_coverage) fmt::print("{}", report_of(coverage));
  const std::vector<std::string> missing = never_reached(coverage);
  for (const std::string& name : missing) fmt::print("never reached: {}\n", name);
  return options.requires_coverage && !missing.empty() ? kExitCoverage : 0;
}

// Each job runs plans of its own, one at a time, each in a process. The jobs' plans are begun and
// awaited in turns, so that of several failures the first is reported, whatever the timing.
int search(const Options& options, std::uint64_t seed) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double, std::ratio<60>>(options.minutes);
  const std::uint64_t plan_count =
      options.plan_count == 0 && options.minutes == 0 ? 1000 : options.plan_count;
  const ncfs::Rng root(seed);
  std::vector<Shared*> shared;
  std::vector<std::optional<Worker>> workers(options.jobs);
  for (std::uint32_t job = 0; job < options.jobs; ++job) shared.push_back(&map_shared());
  std::uint64_t started = 0;
  std::uint64_t done = 0;
  std::optional<std::pair<ncfs::Plan, Outcome>> failure;
  const auto may_start = [&] {
    const bool is_over = options.minutes > 0 && Clock::now() >= end;
    return !failure && !is_over && (plan_count == 0 || started < plan_count);
  };
  while (may_start() || done < started) {
    const std::size_t job = done % options.jobs;
    while (may_start() && started < done + options.jobs) {
      workers[started % options.jobs] =
          start_worker(assignment_of(root, started, options.step_count), started,
                       *shared[started % options.jobs]);
      ++started;
    }
    const Worker worker = *workers[job];
    const Outcome outcome = wait_for(worker);
    ++done;
    if (outcome.status == 0 || failure) continue;
    fmt::print("seed {}, plan {}: ", options.seed_text, worker.index);
    failure = {shared[job]->plan(), outcome};
  }
  if (failure) return report(failure->first, failure->second, options, *shared.front());
  ncfs::Coverage coverage;
  std::uint64_t steps = 0;
  for (const Shared* one : shared) {
    add(coverage, one->coverage);
    steps += one->steps_in_all;
  }
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  const double cpu_seconds = static_cast<double>(usage.ru_utime.tv_sec) +
                             static_cast<double>(usage.ru_utime.tv_usec) / 1e6;
  fmt::print("{} plans, {} steps, kept every promise; {:.0f} steps/s on one core\n", done, steps,
             static_cast<double>(steps) / cpu_seconds);
  const bool is_asked = options.shows_coverage || options.requires_coverage;
  return is_asked ? report_coverage(coverage, options) : 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Runs the cache in simulated worlds and shrinks what breaks it.");
  Options options;
  app.add_option("--seed", options.seed_text, "a number or a commit hash of 40 digits")
      ->capture_default_str();
  app.add_option("--steps", options.step_count, "steps per plan")
      ->check(CLI::Range(std::size_t{1}, Shared::kStepsMax))
      ->capture_default_str();
  app.add_option("--plans", options.plan_count,
                 "plans to run (1000, or as many as --minutes allows)");
  app.add_option("--minutes", options.minutes, "time after which to stop");
  app.add_option("--jobs", options.jobs, "processes at a time")
      ->check(CLI::Range(1U, kJobsMax))
      ->capture_default_str();
  app.add_flag("--coverage", options.shows_coverage, "tell which rare branches were reached");
  app.add_flag("--require-coverage", options.requires_coverage,
               "fail if a mark or a way between states was never reached");
  app.add_option("--output", options.output, "where to save a failing plan")->capture_default_str();
  app.add_option("--replay", options.replay, "run this plan instead");
  app.add_flag("--shrink", options.is_shrinking, "with --replay: make the plan smaller");
  app.add_flag("-v", options.is_verbose, "with --replay: one line per step");
  std::uint64_t seed = 0;
  try {
    app.parse(argc, argv);
    seed = parse_seed(options.seed_text);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  } catch (const std::logic_error&) {
    fmt::print(stderr, "--seed: \"{}\" is neither a number nor a commit hash\n", options.seed_text);
    return kExitUsage;
  }
  return options.replay.empty() ? search(options, seed) : replay(options);
}
