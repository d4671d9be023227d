#include "sim/plan.h"

#include <array>
#include <charconv>
#include <optional>

namespace ncfs {
namespace {

struct StepForm {
  std::string_view name;
  std::uint32_t argument_count;
};

constexpr std::array<StepForm, kStepOpCount> kForms = {{
    {"open", 2},
    {"close", 1},
    {"read", 3},
    {"advance", 1},
    {"warm", 1},
    {"tick", 2},
    {"complete", 2},
    {"short", 2},
    {"fail", 3},
    {"hang", 1},
    {"release", 1},
    {"run", 1},
    {"kill", 2},
    {"power", 1},
    {"stop", 0},
    {"remount", 1},
    {"release_holds", 0},
    {"source_write", 3},
    {"source_restore", 3},
    {"source_mode", 1},
    {"source_truncate", 2},
    {"source_replace", 3},
    {"source_delete", 2},
    {"disk_full", 1},
    {"disk_error", 1},
    {"disk_hang", 0},
    {"disk_heal", 0},
    {"nfs_error", 1},
    {"nfs_hang", 0},
    {"nfs_heal", 0},
    {"rot", 2},
    {"knob", 2},
    {"wait", 1},
    {"deliver", 0},
    {"disk_readonly", 0},
    {"disk_lies", 0},
    {"disk_stick", 1},
    {"nfs_reboot", 0},
    {"outage", 2},
    {"rot_data", 2},
    {"misdirect", 1},
    {"verify", 1},
    {"limit", 1},
    {"pin", 1},
    {"unpin", 1},
    {"evict", 2},
    {"own_write", 3},
    {"own_chmod", 2},
    {"own_rename", 3},
    {"own_append", 2},
}};

const StepForm& form_of(StepOp op) {
  return kForms[static_cast<std::size_t>(op)];
}

constexpr std::string_view kSpaces = " \t\r";

// Cuts the next word off the front of `line`; empty at its end.
std::string_view next_word(std::string_view& line) {
  const std::size_t begin = line.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return line = {};
  const std::size_t end = std::min(line.find_first_of(kSpaces, begin), line.size());
  const std::string_view word = line.substr(begin, end - begin);
  line.remove_prefix(end);
  return word;
}

std::optional<StepOp> find_op(std::string_view name) {
  for (std::size_t index = 0; index < kForms.size(); ++index) {
    if (kForms[index].name == name) return static_cast<StepOp>(index);
  }
  return std::nullopt;
}

// The error, or nothing.
std::string parse_line(std::string_view line, Plan& plan) {
  line = line.substr(0, line.find('#'));
  const std::string_view name = next_word(line);
  if (name.empty()) return {};
  const std::optional<StepOp> op = find_op(name);
  if (!op) return "there is no step \"" + std::string(name) + "\"";
  std::array<std::uint64_t, 3> arguments{};
  std::uint32_t count = 0;
  for (std::string_view word = next_word(line); !word.empty(); word = next_word(line)) {
    if (count == argument_count(*op)) {
      return '"' + std::string(name) + "\" takes " + std::to_string(count) + " arguments";
    }
    const auto [end, error] =
        std::from_chars(word.data(), word.data() + word.size(), arguments[count++]);
    if (error != std::errc{} || end != word.data() + word.size()) {
      return '"' + std::string(word) + "\" is not a number";
    }
  }
  plan.push_back({*op, arguments[0], arguments[1], arguments[2]});
  return {};
}

}  // namespace

std::string_view to_string(StepOp op) {
  return form_of(op).name;
}

std::uint32_t argument_count(StepOp op) {
  return form_of(op).argument_count;
}

std::string to_string(const Step& step) {
  std::string text(to_string(step.op));
  const std::array<std::uint64_t, 3> arguments = {step.a, step.b, step.c};
  std::size_t count = argument_count(step.op);
  while (count > 0 && arguments[count - 1] == 0) --count;
  for (std::size_t index = 0; index < count; ++index) {
    text += ' ' + std::to_string(arguments[index]);
  }
  return text;
}

std::string to_string(std::span<const Step> plan) {
  std::string text;
  for (const Step& step : plan) text += to_string(step) + '\n';
  return text;
}

ParsedPlan parse_plan(std::string_view text) {
  ParsedPlan parsed;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string error = parse_line(text.substr(0, end), parsed.plan);
    if (!error.empty()) return {{}, "line " + std::to_string(number) + ": " + error};
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parsed;
}

}  // namespace ncfs
