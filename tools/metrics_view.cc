#include "tools/metrics_view.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

namespace ncfs {
namespace {

struct Family {
  std::string name;
  std::string help;
  std::string type;
  std::vector<std::string> samples;
};

// The rest of "# HELP name rest" or "# TYPE name rest"; the name goes to `name`.
std::string rest_of(const std::string& line, std::string& name) {
  const std::size_t begin = std::string_view("# HELP ").size();
  const std::size_t end = std::min(line.find(' ', begin), line.size());
  name = line.substr(begin, end - begin);
  return end < line.size() ? line.substr(end + 1) : "";
}

// Samples follow the lines that describe their family.
void add_families(std::vector<Family>& families, const std::string& text) {
  std::istringstream lines(text);
  Family* current = nullptr;
  for (std::string line; std::getline(lines, line);) {
    const bool is_help = line.starts_with("# HELP ");
    if (is_help || line.starts_with("# TYPE ")) {
      std::string name;
      const std::string rest = rest_of(line, name);
      auto place = std::ranges::find(families, name, &Family::name);
      if (place == families.end()) place = families.insert(place, Family{name, "", "", {}});
      current = &*place;
      (is_help ? current->help : current->type) = rest;
    } else if (current != nullptr && !line.empty() && !line.starts_with('#')) {
      current->samples.push_back(line);
    }
  }
}

}  // namespace

std::string merge_metrics(const std::vector<std::string>& texts) {
  std::vector<Family> families;
  for (const std::string& text : texts) add_families(families, text);
  std::string result;
  for (const Family& family : families) {
    result += "# HELP " + family.name + " " + family.help + "\n";
    result += "# TYPE " + family.name + " " + family.type + "\n";
    for (const std::string& sample : family.samples) result += sample + "\n";
  }
  return result;
}

nlohmann::json metrics_json(const std::string& text) {
  std::vector<Family> families;
  add_families(families, text);
  nlohmann::json result = nlohmann::json::array();
  for (const Family& family : families) {
    result.push_back({{"name", family.name},
                      {"type", family.type},
                      {"help", family.help},
                      {"samples", family.samples}});
  }
  return result;
}

}  // namespace ncfs
