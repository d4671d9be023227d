#include "sim/truth.h"

#include <algorithm>
#include <vector>

namespace ncfs {

std::optional<std::string> find_lie(const SimNfs& nfs, SourceInode inode, std::size_t first,
                                    std::size_t last, std::uint64_t offset,
                                    std::span<const std::byte> bytes) {
  std::vector<bool> is_true(bytes.size(), false);
  std::vector<std::byte> expected(bytes.size());
  // The newest first: it is nearly always the one.
  for (std::size_t revision = last + 1; revision-- > first;) {
    const std::uint64_t size = nfs.history(inode)[revision].version.size;
    if (size <= offset) continue;
    const std::uint64_t length = std::min<std::uint64_t>(bytes.size(), size - offset);
    nfs.content(inode, revision, offset, std::span(expected).first(length));
    if (length == bytes.size() && std::equal(bytes.begin(), bytes.end(), expected.begin())) {
      return std::nullopt;
    }
    for (std::uint64_t at = 0; at < length; ++at) {
      if (bytes[at] == expected[at]) is_true[at] = true;
    }
  }
  const auto lie = std::find(is_true.begin(), is_true.end(), false);
  if (lie == is_true.end()) return std::nullopt;
  const auto count = std::count(is_true.begin(), is_true.end(), false);
  return std::to_string(count) + " of " + std::to_string(bytes.size()) + " bytes at " +
         std::to_string(offset) + " are not of revisions " + std::to_string(first) + " to " +
         std::to_string(last) + " of source inode " +
         std::to_string(static_cast<std::uint64_t>(inode)) + ", the first at " +
         std::to_string(offset + static_cast<std::uint64_t>(lie - is_true.begin()));
}

const char* name_of_lie(const char* usual, const SimNfs& nfs, SourceInode inode, std::size_t first,
                        std::uint64_t offset, std::span<const std::byte> bytes) {
  const bool was_true = first > 0 && !find_lie(nfs, inode, 0, first - 1, offset, bytes);
  return was_true ? "S14 Fresh" : usual;
}

std::optional<RevisionSpan> revisions_of(const SimNfs& nfs, const FileId& file,
                                         const SourceVersion& version) {
  const std::vector<SourceRevision>* history = nfs.history(file);
  if (history == nullptr) return std::nullopt;
  std::optional<RevisionSpan> span;
  for (std::size_t revision = 0; revision < history->size(); ++revision) {
    if ((*history)[revision].version != version) continue;
    if (!span) span = RevisionSpan{revision, revision};
    span->last = revision;
  }
  return span;
}

}  // namespace ncfs
