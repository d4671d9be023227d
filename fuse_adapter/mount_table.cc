#include "fuse_adapter/mount_table.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

namespace ncfs {
namespace {

// Space, tab, newline and backslash are written as a backslash and three octal digits.
std::string unescape(std::string_view text) {
  const auto is_octal = [](char letter) { return letter >= '0' && letter <= '7'; };
  std::string result;
  for (std::size_t index = 0; index < text.size(); ++index) {
    if (text[index] == '\\' && index + 3 < text.size() && is_octal(text[index + 1]) &&
        is_octal(text[index + 2]) && is_octal(text[index + 3])) {
      result += static_cast<char>((text[index + 1] - '0') * 64 + (text[index + 2] - '0') * 8 +
                                  (text[index + 3] - '0'));
      index += 3;
    } else {
      result += text[index];
    }
  }
  return result;
}

}  // namespace

std::vector<MountEntry> parse_mount_table(std::string_view mountinfo) {
  std::vector<MountEntry> mounts;
  std::istringstream lines{std::string(mountinfo)};
  for (std::string line; std::getline(lines, line);) {
    // "id parent major:minor root mountpoint options [tags...] - type source super-options"
    std::istringstream words(line);
    std::string id, parent, word;
    MountEntry entry;
    words >> id >> parent >> entry.device >> entry.root >> entry.mountpoint;
    while (words >> word && word != "-") {
    }
    if (!(words >> entry.type)) continue;
    words >> word >> entry.options;
    entry.root = unescape(entry.root);
    entry.mountpoint = unescape(entry.mountpoint);
    mounts.push_back(std::move(entry));
  }
  return mounts;
}

std::vector<MountEntry> read_mount_table() {
  std::ifstream file("/proc/self/mountinfo");
  return parse_mount_table(std::string(std::istreambuf_iterator<char>(file), {}));
}

bool is_within(std::string_view path, std::string_view directory) {
  if (directory == "/") return path.starts_with('/');
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

bool lies_in_missing_mount(const std::string& fstab, const std::vector<MountEntry>& mounts,
                           std::string_view path) {
  // "source mountpoint type options dump pass"
  std::istringstream lines(fstab);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string source, mountpoint, type;
    if (!(words >> source >> mountpoint >> type) || source.starts_with('#')) continue;
    mountpoint = unescape(mountpoint);
    while (mountpoint.size() > 1 && mountpoint.ends_with('/')) mountpoint.pop_back();
    const bool is_ours = type == "cachefs" || type == kMountType;
    if (is_ours || !mountpoint.starts_with('/') || !is_within(path, mountpoint)) continue;
    const bool is_mounted = std::any_of(mounts.begin(), mounts.end(), [&](const auto& mount) {
      return mount.mountpoint == mountpoint;
    });
    if (!is_mounted) return true;
  }
  return false;
}

const MountEntry* find_mount(const std::vector<MountEntry>& mounts, std::string_view path) {
  const MountEntry* best = nullptr;
  for (const MountEntry& mount : mounts) {
    if (!is_within(path, mount.mountpoint)) continue;
    if (best == nullptr || mount.mountpoint.size() >= best->mountpoint.size()) best = &mount;
  }
  return best;
}

}  // namespace ncfs
