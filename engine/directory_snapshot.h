// The names in a directory at one moment. Immutable once finished, so any number of handles read it
// without a lock, however often the directory changes meanwhile.
//
// Each name has a position, by which a reader goes on after it; positions grow. In the backend's
// order they are the numbers of the entries, good as long as the snapshot. By hash they belong to
// the names: whoever goes on in a later snapshot of the directory is told once of what is in both
// (as in ext4's hashed directories). Of a directory that is too large such a snapshot may hold a
// part, the names of the lowest positions after a given one.
#pragma once

#include <xxhash.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/assert.h"

namespace ncfs {

class DirectorySnapshot {
 public:
  struct Entry {
    std::string_view name;  // lives as long as the snapshot
    std::uint64_t inode = 0;
    std::uint32_t type = 0;      // S_IFMT part of st_mode; 0 if the backend did not tell
    std::uint64_t position = 0;  // of the entry; never 0
  };

  DirectorySnapshot() = default;
  // By hash: names after position `begin`, of about `bytes_max`.
  DirectorySnapshot(std::uint64_t begin, std::uint64_t bytes_max)
      : is_by_hash_(true), begin_(begin), bytes_max_(bytes_max) {}

  // Names come in the backend's order, "." and ".." included if it tells them.
  void add(std::string_view name, std::uint64_t inode, std::uint32_t type) {
    NCFS_ASSERT(!name.empty());
    std::uint64_t position = ends_.size() + 1;
    if (is_by_hash_) {
      position = hashed_position(name);
      if (position <= begin_ || position > end_) return;
    }
    ends_.push_back({inode, names_.size() + name.size(), position, type});
    names_ += name;
    // Twice as many, so that sorting costs little for each.
    if (is_by_hash_ && names_.size() + ends_.size() * sizeof(End) > 2 * bytes_max_) {
      sort();
      cut();
    }
  }
  // Nothing is added any more: gives back what was reserved for growth.
  void finish() {
    if (is_by_hash_) sort();
    if (is_by_hash_ && names_.size() + ends_.size() * sizeof(End) > bytes_max_) cut();
    names_.shrink_to_fit();
    ends_.shrink_to_fit();
  }

  [[nodiscard]] std::uint64_t size() const { return ends_.size(); }
  [[nodiscard]] Entry at(std::uint64_t index) const {
    NCFS_ASSERT(index < ends_.size());
    const End& end = ends_[index];
    const std::uint64_t begin = index == 0 ? 0 : ends_[index - 1].name_end;
    return {std::string_view(names_).substr(begin, end.name_end - begin), end.inode, end.type,
            end.position};
  }
  // The index of the first entry after the position.
  [[nodiscard]] std::uint64_t after(std::uint64_t position) const {
    const auto next = std::ranges::upper_bound(ends_, position, {}, &End::position);
    return static_cast<std::uint64_t>(next - ends_.begin());
  }
  // Whether what comes next after the position is here, be it that nothing does.
  [[nodiscard]] bool covers(std::uint64_t position) const {
    return position >= begin_ && position < end_;
  }
  // Not a part.
  [[nodiscard]] bool is_whole() const { return begin_ == 0 && end_ == kEnd; }
  [[nodiscard]] std::uint64_t bytes() const {
    return sizeof(*this) + names_.capacity() + ends_.capacity() * sizeof(End);
  }

 private:
  struct End {
    std::uint64_t inode;
    std::uint64_t name_end;  // in names_, where the next name begins
    std::uint64_t position;
    std::uint32_t type;
  };
  // Of off_t, and beyond all positions.
  static constexpr std::uint64_t kEnd = INT64_MAX;

  static std::uint64_t hashed_position(std::string_view name) {
    if (name == ".") return 1;
    if (name == "..") return 2;
    return std::clamp<std::uint64_t>(XXH3_64bits(name.data(), name.size()) >> 1, 3, kEnd - 1);
  }

  // Names of one position, of which there are two once in many millions of directories, get one
  // after the other.
  void sort() {
    std::vector<Entry> entries;
    entries.reserve(ends_.size());
    for (std::uint64_t index = 0; index < ends_.size(); ++index) entries.push_back(at(index));
    std::ranges::sort(entries, {},
                      [](const Entry& entry) { return std::pair(entry.position, entry.name); });
    std::string names;
    names.reserve(names_.size());
    std::vector<End> ends;
    ends.reserve(ends_.size());
    std::uint64_t last = begin_;
    for (const Entry& entry : entries) {
      last = std::max(entry.position, last + 1);
      names += entry.name;
      ends.push_back({entry.inode, names.size(), last, entry.type});
    }
    names_ = std::move(names);
    ends_ = std::move(ends);
  }
  // Leaves the first, half of what there may be at least.
  void cut() {
    while (ends_.size() > 1 && names_.size() + ends_.size() * sizeof(End) > bytes_max_) {
      ends_.resize(ends_.size() - (ends_.size() + 1) / 2);
      names_.resize(ends_.back().name_end);
    }
    end_ = ends_.back().position;
  }

  bool is_by_hash_ = false;
  std::uint64_t begin_ = 0;
  std::uint64_t end_ = kEnd;  // of a part: the last position
  std::uint64_t bytes_max_ = 0;
  std::string names_;
  std::vector<End> ends_;
};

}  // namespace ncfs
