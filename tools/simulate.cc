// simulate: random worlds until one breaks a promise, then the shortest story of how.
//
// Every plan runs in a process of its own, so that an engine that aborts on a broken assertion is a
// failure like any other: it can be shrunk and saved. After its steps a plan is healed and has to
// settle (L1, L2).
//
// Exit status: 0 nothing found, 2 wrong usage, 127 broken assertion or crash, 128 liveness,
// 129 correctness.
#include <fcntl.h>
#include <fmt/core.h>
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

#include "sim/oracle.h"
#include "sim/plan.h"
#include "sim/shrink.h"
#include "sim/swarm.h"
#include "sim/world.h"

namespace {

constexpr int kExitUsage = 2;
constexpr int kExitAssertion = 127;
constexpr int kExitLiveness = 128;
constexpr int kExitCorrectness = 129;
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

// The child tells what it found on its standard error, where an aborting assertion tells it, too.
[[noreturn]] void run_in_child(const ncfs::Plan& plan, int out) {
  ::dup2(out, STDERR_FILENO);
  const std::optional<ncfs::Violation> violation = run(plan, false);
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

Outcome run_isolated(const ncfs::Plan& plan) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::system_error(errno, std::system_category());
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::system_error(errno, std::system_category());
  if (child == 0) run_in_child(plan, ends[1]);
  ::close(ends[1]);
  const std::string text = read_all(ends[0]);
  ::close(ends[0]);
  int wait_status = 0;
  ::waitpid(child, &wait_status, 0);
  const int status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : kExitAssertion;
  if (status == 0) return {};
  const std::size_t first_end = std::min(text.find('\n'), text.size());
  if (status == kExitLiveness || status == kExitCorrectness) {
    return {status, text.substr(0, first_end), text.substr(std::min(first_end + 1, text.size()))};
  }
  return {kExitAssertion, text.substr(0, first_end), {}};
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
  std::string replay;
  std::string output = std::filesystem::temp_directory_path() / "nfs-cachefs-failure.plan";
  bool is_verbose = false;
  bool is_shrinking = false;
};

int report(const ncfs::Plan& plan, const Outcome& outcome, const Options& options) {
  fmt::print("{}\n{}\n", outcome.name, outcome.message);
  const ncfs::Plan small = shrink_plan(plan, kShrinkRunsMax, [&](const ncfs::Plan& candidate) {
    const Outcome again = run_isolated(candidate);
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
    const Outcome outcome = run_isolated(parsed.plan);
    return outcome.status == 0 ? 0 : report(parsed.plan, outcome, options);
  }
  const std::optional<ncfs::Violation> violation = run(parsed.plan, options.is_verbose);
  if (!violation) return 0;
  fmt::print("{}\n{}\n", violation->name, violation->message);
  return status_of(violation->name);
}

int search(const Options& options, std::uint64_t seed) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double, std::ratio<60>>(options.minutes);
  const std::uint64_t plan_count =
      options.plan_count == 0 && options.minutes == 0 ? 1000 : options.plan_count;
  const ncfs::Rng root(seed);
  std::uint64_t index = 0;
  for (; plan_count == 0 || index < plan_count; ++index) {
    if (options.minutes > 0 && Clock::now() >= end) break;
    ncfs::Rng rng = root.fork("plan " + std::to_string(index));
    const ncfs::Plan plan = ncfs::make_swarm_plan(rng, options.step_count);
    const Outcome outcome = run_isolated(plan);
    if (outcome.status == 0) continue;
    fmt::print("seed {}, plan {}: ", options.seed_text, index);
    return report(plan, outcome, options);
  }
  fmt::print("{} plans of {} steps kept every promise\n", index, options.step_count);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Runs the cache in simulated worlds and shrinks what breaks it.");
  Options options;
  app.add_option("--seed", options.seed_text, "a number or a commit hash of 40 digits")
      ->capture_default_str();
  app.add_option("--steps", options.step_count, "steps per plan")->capture_default_str();
  app.add_option("--plans", options.plan_count,
                 "plans to run (1000, or as many as --minutes allows)");
  app.add_option("--minutes", options.minutes, "time after which to stop");
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
