// Running plans as tests: fixed seeds, plans that survive an abort, and one-line reports.
//
// Including this file makes the properties of a binary start from kSeed unless RC_PARAMS says
// otherwise; `RC_PARAMS="seed=123 max_success=5000" plan_prop_test` tries something new.
#pragma once

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>  // needs gtest.h before it

#include <optional>
#include <string>
#include <vector>

#include "sim/oracle.h"
#include "sim/plan.h"
#include "sim/world.h"

namespace ncfs {

// Runs the plan and, if `then` is not null, what is to hold at its end. While it runs, an abort of
// the process (a broken assertion of the engine) prints the plan to the standard error.
[[nodiscard]] std::optional<Violation> run_guarded(
    const Plan& plan, const World::Options& options,
    std::optional<Violation> (*then)(World&) = nullptr);

[[nodiscard]] inline std::optional<Violation> run_guarded(
    const Plan& plan, std::optional<Violation> (*then)(World&) = nullptr) {
  return run_guarded(plan, World::Options{}, then);
}

// "S1 ReadTruth: ...", or empty.
[[nodiscard]] std::string describe(const std::optional<Violation>& violation);

// The plans in a directory, such as regressions/, in the order of their names.
struct SavedPlan {
  std::string path;
  ParsedPlan parsed;
};
[[nodiscard]] std::vector<SavedPlan> saved_plans(const std::string& directory);

}  // namespace ncfs

namespace rc {

template <>
struct Arbitrary<ncfs::Step> {
  static Gen<ncfs::Step> arbitrary();
};

// Plans of up to twice the size of the test case: 200 steps at the largest.
[[nodiscard]] Gen<ncfs::Plan> arbitrary_plan();

}  // namespace rc

namespace ncfs {
// Found by rapidcheck when it prints a counterexample.
void showValue(const Step& step, std::ostream& out);
}  // namespace ncfs
