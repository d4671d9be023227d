// Everything together: a source, a disk, the engine in its present life, and its readers, moved on
// by the steps of a plan. Time is virtual: a step takes a microsecond, a tick as long as it says.
//
// A world begins with its source files a minute old, an empty cache and no process; the first step
// that needs a process starts one. After each step the oracle looks at everything; the first
// Violation ends the run.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sim/disk.h"
#include "sim/knobs.h"
#include "sim/life.h"
#include "sim/nfs.h"
#include "sim/oracle.h"
#include "sim/plan.h"
#include "sim/readers.h"
#include "sim/trace.h"
#include "sim/violation.h"

namespace ncfs {

class World {
 public:
  struct Options {
    Tamper* tamper = nullptr;                       // outlives the world
    std::optional<Nanos> retry_max = std::nullopt;  // instead of what the knobs say
  };

  World() : World(Options{}) {}
  explicit World(const Options& options);
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  void apply(const Step& step);
  [[nodiscard]] const std::optional<Violation>& violation() const { return violation_; }
  [[nodiscard]] std::uint64_t trace_digest() const { return trace_.digest(); }

  // No faults any more, everything released, a process running.
  void heal();
  // Completes everything in order and lets time pass, until nothing is left to do. False if there
  // still is after `rounds_max` rounds.
  bool settle(std::uint32_t rounds_max);
  void fail(Violation violation);
  // Completes one pending request; everything is looked at afterwards, as after a step.
  void complete(std::size_t index, const Answer& answer);
  void advance_readers();

  // The parts, for tests and the oracle. life() is null while no process runs.
  [[nodiscard]] Life* life() { return life_.get(); }
  [[nodiscard]] const Life* life() const { return life_.get(); }
  [[nodiscard]] SimDisk& disk() { return disk_; }
  [[nodiscard]] const SimDisk& disk() const { return disk_; }
  [[nodiscard]] const SimNfs& nfs() const { return nfs_; }
  [[nodiscard]] Readers& readers() { return readers_; }
  [[nodiscard]] const Readers& readers() const { return readers_; }
  [[nodiscard]] Nanos now() const { return now_; }
  [[nodiscard]] const std::vector<std::string>& paths() const { return paths_; }
  // One line on what is going on, for logs of a replay.
  [[nodiscard]] std::string describe() const;
  // How many outcomes the last crash could have had; see Survivors.
  [[nodiscard]] std::uint64_t crash_combinations() const { return crash_combinations_; }

 private:
  void apply_reader_step(const Step& step);
  void apply_control_step(const Step& step);
  void apply_request_step(const Step& step);
  void apply_crash_step(const Step& step);
  void apply_source_step(const Step& step);
  void apply_weather_step(const Step& step);
  void suffer_outage(std::uint64_t kind, std::uint64_t seconds);
  void flip_bit_in_sidecar(std::uint64_t index, std::uint64_t bit);
  void stick_name(std::uint64_t index);
  void rot_data(std::uint64_t index, std::uint64_t bit);
  void misdirect(std::uint64_t k);

  void start();
  void finish_recovery();
  void crash(Survivors& survivors, bool is_power_loss, bool keeps_holds);
  void tick(Nanos duration, std::uint32_t effects);
  void complete_all();
  void complete_nth(std::uint64_t k, const Answer& answer);
  [[nodiscard]] std::optional<std::size_t> nth_request(std::uint64_t k, bool is_stuck) const;
  [[nodiscard]] const std::string& path(std::uint64_t index) const;
  [[nodiscard]] bool is_settled() const;
  void observe();

  const Options options_;
  Trace trace_;
  SimDisk disk_;
  SimNfs nfs_;
  Readers readers_;
  Oracle oracle_;
  Knobs knobs_;
  Weather weather_;
  std::vector<std::string> paths_;
  std::unique_ptr<Life> life_;
  Nanos now_;
  std::uint64_t lives_ = 0;
  std::uint64_t crash_combinations_ = 1;
  std::optional<Violation> violation_;
};

// Runs a plan to its end or its first violation. `steps_done` counts the steps that were applied,
// the one that broke something included.
struct PlanResult {
  std::optional<Violation> violation;
  std::size_t steps_done = 0;
  std::uint64_t trace_digest = 0;
};
[[nodiscard]] PlanResult run_plan(std::span<const Step> plan, const World::Options& options);
[[nodiscard]] inline PlanResult run_plan(std::span<const Step> plan) {
  return run_plan(plan, {});
}

}  // namespace ncfs
