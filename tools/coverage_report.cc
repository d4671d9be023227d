#include "tools/coverage_report.h"

#include <fmt/core.h>

#include <string_view>

#include "engine/object.h"

namespace ncfs {
namespace {

constexpr std::array<std::string_view, kMarkCount> kMarkNames = {
#define NCFS_MARK_NAME(name) #name,
    NCFS_MARKS_LIST(NCFS_MARK_NAME)
#undef NCFS_MARK_NAME
};

static_assert(static_cast<std::size_t>(ObjectState::removing) + 1 == kObjectStateCount);

ObjectState state_at(std::size_t index) {
  return static_cast<ObjectState>(index);
}

}  // namespace

std::vector<std::string> never_reached(const Coverage& coverage) {
  std::vector<std::string> names;
  for (std::size_t mark = 0; mark < kMarkCount; ++mark) {
    if (coverage.marks[mark] == 0) names.emplace_back(kMarkNames[mark]);
  }
  for (std::size_t from = 0; from < kObjectStateCount; ++from) {
    for (std::size_t to = 0; to < kObjectStateCount; ++to) {
      if (coverage.transitions[from][to] > 0) continue;
      if (!is_transition(state_at(from), state_at(to))) continue;
      names.push_back(fmt::format("{} -> {}", to_string(state_at(from)), to_string(state_at(to))));
    }
  }
  return names;
}

std::string report_of(const Coverage& coverage) {
  std::string text;
  for (std::size_t mark = 0; mark < kMarkCount; ++mark) {
    text += fmt::format("{:<28}{:>12}\n", kMarkNames[mark], coverage.marks[mark]);
  }
  text += fmt::format("\n{:<12}", "from \\ to");
  for (std::size_t to = 0; to < kObjectStateCount; ++to) {
    text += fmt::format("{:>12}", to_string(state_at(to)));
  }
  for (std::size_t from = 0; from < kObjectStateCount; ++from) {
    text += fmt::format("\n{:<12}", to_string(state_at(from)));
    for (std::size_t to = 0; to < kObjectStateCount; ++to) {
      const bool is_allowed = is_transition(state_at(from), state_at(to));
      text += is_allowed ? fmt::format("{:>12}", coverage.transitions[from][to])
                         : fmt::format("{:>12}", "-");
    }
  }
  return text + '\n';
}

void add(Coverage& total, const Coverage& part) {
  for (std::size_t mark = 0; mark < kMarkCount; ++mark) total.marks[mark] += part.marks[mark];
  for (std::size_t from = 0; from < kObjectStateCount; ++from) {
    for (std::size_t to = 0; to < kObjectStateCount; ++to) {
      total.transitions[from][to] += part.transitions[from][to];
    }
  }
}

}  // namespace ncfs
