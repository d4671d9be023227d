// Which paths are cached: the globs of the options include and exclude.
//
// A glob names files, and directories with all that is beneath them. Its parts between slashes are
// compared with those of the path as fnmatch(3) does: `*` and `?` stand for any bytes of a name, a
// dot at its beginning included, `[...]` for one of a set, and `\` takes the meaning from what
// follows. A part `**` stands for any number of directories, also none. A glob without a slash is
// compared with every part of the path, any other from the root of the mount on, with or without a
// slash at its beginning.
//
//   *.tmp         files and directories of such names, wherever they are
//   /scratch      at the root of the mount
//   data/*/raw    data/a/raw and what is beneath, not data/a/b/raw
//   data/**/raw   that, too
//
// Time of a match: the parts of the glob times those of the path. Names are compared byte by byte.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ncfs {

class PathGlob {
 public:
  // More serves nobody, and a mount's options have to fit a page.
  static constexpr std::size_t kLengthMax = 1024;

  // Nullopt if it is empty, has an empty part, `.` or `..`, or is longer than kLengthMax.
  [[nodiscard]] static std::optional<PathGlob> parse(std::string_view text);

  // `path` as in OpenEvent.
  [[nodiscard]] bool matches(std::string_view path) const;
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::vector<std::string> parts_;
};

struct PathRules {
  // Of each kind; every one is compared with the path at every first open.
  static constexpr std::size_t kGlobsMax = 64;

  std::vector<PathGlob> include;  // none: everything
  std::vector<PathGlob> exclude;  // wins

  [[nodiscard]] bool admit(std::string_view path) const;
};

}  // namespace ncfs
