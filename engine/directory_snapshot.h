// The names in a directory at one moment. Immutable once finished, so any number of handles read it
// without a lock, however often the directory changes meanwhile.
//
// A position is the number of the entries before it: it stays good as long as the snapshot.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/assert.h"

namespace ncfs {

class DirectorySnapshot {
 public:
  struct Entry {
    std::string_view name;  // lives as long as the snapshot
    std::uint64_t inode = 0;
    std::uint32_t type = 0;  // S_IFMT part of st_mode; 0 if the backend did not tell
  };

  // Names come in the backend's order, "." and ".." included if it tells them.
  void add(std::string_view name, std::uint64_t inode, std::uint32_t type) {
    NCFS_ASSERT(!name.empty());
    ends_.push_back({inode, names_.size() + name.size(), type});
    names_ += name;
  }
  // Nothing is added any more: gives back what was reserved for growth.
  void finish() {
    names_.shrink_to_fit();
    ends_.shrink_to_fit();
  }

  [[nodiscard]] std::uint64_t size() const { return ends_.size(); }
  [[nodiscard]] Entry at(std::uint64_t position) const {
    NCFS_ASSERT(position < ends_.size());
    const End& end = ends_[position];
    const std::uint64_t begin = position == 0 ? 0 : ends_[position - 1].name_end;
    return {std::string_view(names_).substr(begin, end.name_end - begin), end.inode, end.type};
  }
  [[nodiscard]] std::uint64_t bytes() const {
    return sizeof(*this) + names_.capacity() + ends_.capacity() * sizeof(End);
  }

 private:
  struct End {
    std::uint64_t inode;
    std::uint64_t name_end;  // in names_, where the next name begins
    std::uint32_t type;
  };
  std::string names_;
  std::vector<End> ends_;
};

}  // namespace ncfs
