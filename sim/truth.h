// What bytes may be where: comparisons with the source's history.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "sim/nfs.h"

namespace ncfs {

// Nothing if each of `bytes`, which stand at `offset`, is what some revision of the file in
// [first, last] held there; else says which is not.
[[nodiscard]] std::optional<std::string> find_lie(const SimNfs& nfs, SourceInode inode,
                                                  std::size_t first, std::size_t last,
                                                  std::uint64_t offset,
                                                  std::span<const std::byte> bytes);

// The name of the invariant that such a lie breaks: S14 if the bytes were all true before revision
// `first`, else `usual`.
[[nodiscard]] const char* name_of_lie(const char* usual, const SimNfs& nfs, SourceInode inode,
                                      std::size_t first, std::uint64_t offset,
                                      std::span<const std::byte> bytes);

// The revisions of one version: [first, last]. Nothing if there never was such a version. There are
// several if changes fell into one tick of the server's clock, or changed nothing but attributes.
struct RevisionSpan {
  std::size_t first = 0;
  std::size_t last = 0;
};
[[nodiscard]] std::optional<RevisionSpan> revisions_of(const SimNfs& nfs, const FileId& file,
                                                       const SourceVersion& version);

}  // namespace ncfs
