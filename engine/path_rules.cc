#include "engine/path_rules.h"

#include <fnmatch.h>

#include <algorithm>

namespace ncfs {
namespace {

std::vector<std::string> parts_of(std::string_view text) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t slash = text.find('/');
    parts.emplace_back(text.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    text.remove_prefix(slash + 1);
  }
}

bool is_part(const std::string& part) {
  return !part.empty() && part != "." && part != "..";
}

}  // namespace

std::optional<PathGlob> PathGlob::parse(std::string_view text) {
  if (text.size() > kLengthMax) return std::nullopt;
  PathGlob glob;
  glob.text_ = text;
  const bool is_anywhere = text.find('/') == std::string_view::npos;
  if (text.starts_with('/')) text.remove_prefix(1);
  glob.parts_ = parts_of(text);
  if (!std::ranges::all_of(glob.parts_, is_part)) return std::nullopt;
  if (is_anywhere) glob.parts_.insert(glob.parts_.begin(), "**");
  return glob;
}

// Like a glob within a name: when the rest does not fit, the last `**` takes one more directory.
bool PathGlob::matches(std::string_view path) const {
  const std::vector<std::string> names = parts_of(path);
  std::size_t name = 0;
  std::size_t part = 0;
  std::optional<std::size_t> stars;  // the last of them that was met
  std::size_t taken = 0;             // by these: names before this one
  while (part < parts_.size()) {
    if (parts_[part] == "**") {
      stars = part++;
      taken = name;
      // At the end it stands for what is beneath, which is not the directory itself.
      if (part == parts_.size()) return name < names.size();
    } else if (name < names.size() && fnmatch(parts_[part].c_str(), names[name].c_str(), 0) == 0) {
      ++part;
      ++name;
    } else if (stars && taken + 1 < names.size()) {
      name = ++taken;
      part = *stars + 1;
    } else {
      return false;
    }
  }
  return true;
}

bool PathRules::admit(std::string_view path) const {
  const auto fits = [path](const PathGlob& glob) { return glob.matches(path); };
  return (include.empty() || std::ranges::any_of(include, fits)) &&
         std::ranges::none_of(exclude, fits);
}

}  // namespace ncfs
