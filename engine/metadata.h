// Values of the metadata cache: what it keeps, for whom, and for how long.
#pragma once

#include <compare>
#include <cstdint>

#include "engine/open_rules.h"
#include "engine/version_rules.h"
#include "io/types.h"

namespace ncfs {

// What a stat told. Here FileId::filesystem is any number that tells the file systems of the
// backend's tree apart while it is mounted, such as st_dev.
struct FileAttributes {
  Observation seen;        // which file, its size, mtime and ctime
  std::uint32_t mode = 0;  // as st_mode: type and permissions
  std::uint32_t owner = 0;
  std::uint32_t group = 0;
  std::uint32_t block_size = 0;
  std::uint64_t links = 0;
  std::uint64_t device = 0;  // as st_rdev
  std::uint64_t blocks = 0;  // of 512 bytes
  std::int64_t atime_ns = 0;

  // S_ISDIR, whose number is the same on every Linux.
  [[nodiscard]] bool is_directory() const { return (mode & 0170000U) == 0040000U; }
};

// As whom the backend was asked, and so who may see its answer.
//
// Anyone: the daemon itself was answered. Who may then get at the answer is decided by the kernel,
// by the permissions of the directories on the way (default_permissions). A server that squashes
// root refuses the daemon what it shows to the owner: that answer is kept for this caller alone,
// and the kernel, whose caches know no callers, may not keep the name at all.
class Viewer {
 public:
  [[nodiscard]] static constexpr Viewer anyone() { return {}; }
  // `groups_digest` tells sets of supplementary groups apart.
  [[nodiscard]] static constexpr Viewer caller(std::uint32_t user, std::uint32_t group,
                                               std::uint64_t groups_digest) {
    Viewer viewer;
    viewer.is_anyone_ = false;
    viewer.user_ = user;
    viewer.group_ = group;
    viewer.groups_digest_ = groups_digest;
    return viewer;
  }

  [[nodiscard]] constexpr bool is_anyone() const { return is_anyone_; }
  // Whether what this viewer was told may be shown to `asker`.
  [[nodiscard]] bool covers(const Viewer& asker) const {
    return is_anyone_ || *this == asker || NCFS_PLANT(viewer_ignored);
  }
  friend constexpr bool operator==(const Viewer&, const Viewer&) = default;

 private:
  bool is_anyone_ = true;
  std::uint32_t user_ = 0;
  std::uint32_t group_ = 0;
  std::uint64_t groups_digest_ = 0;
};

// How long answers of the backend are believed, here and in the kernel together, and what may be
// kept.
struct MetadataConfig {
  // Room for a few files: less is no cache.
  static constexpr std::uint64_t kFactsBytesMin = 4 * kKiB;

  Nanos entry_timeout = kSecond;      // what a name leads to, if not to a directory
  Nanos dir_entry_timeout = kSecond;  // that a name leads to a directory
  Nanos attr_timeout = kSecond;       // attributes of what is no directory, targets of links
  Nanos dir_attr_timeout = kSecond;   // attributes of directories
  // That there is no such name, once it was missed `negative_min_uses` times, each time no later
  // than `negative_window` after the first of them. Not by default: an open of a name believed to
  // be absent asks nobody, so it would miss what was closed elsewhere before.
  Nanos negative_timeout = 0;
  std::uint32_t negative_min_uses = 1;
  Nanos negative_window = 60 * kSecond;
  Nanos racy_window = 2 * kSecond;  // as Config::racy_window
  // How old an answer may be that is given while the backend does not answer; see Belief.
  Nanos stale_if_error = 0;
  // Every open, of files and of directories, asks the backend. Without it (nocto) an open within
  // the attribute timeout does not, if this caller was let in before.
  bool is_close_to_open = true;
  // Memory for listings, and for names and attributes in equal parts: enough for 150 000 files.
  std::uint64_t listings_bytes_max = 256 * kMiB;
  std::uint64_t facts_bytes_max = 128 * kMiB;
};

// What an answer from memory is worth.
enum class Belief : std::uint8_t {
  fresh,   // it is given until its age reaches its timeout
  unasked  // the backend does not answer: until MetadataConfig::stale_if_error, and the kernel may
           // not believe it at all, so that it asks again once the backend is back
};

enum class MetadataProfile : std::uint8_t {
  strict,     // nothing is believed: every question goes to the backend
  normal,     // one second, as long as NFS clients believe at least
  unchanged,  // "static": the tree is not changed by others; an hour, and opens do not ask
};
[[nodiscard]] MetadataConfig metadata_config(MetadataProfile profile);

// Since the start.
struct MetadataStats {
  std::uint64_t name_hits = 0;
  std::uint64_t name_misses = 0;
  std::uint64_t negative_hits = 0;  // answered "no such name" without the backend
  std::uint64_t attribute_hits = 0;
  std::uint64_t attribute_misses = 0;
  std::uint64_t link_hits = 0;
  std::uint64_t link_misses = 0;
  std::uint64_t listing_hits = 0;  // listed from memory, after at most one question
  std::uint64_t listing_misses = 0;
  std::uint64_t opens_unasked = 0;  // nocto
  std::uint64_t opens_same = 0;     // asked: what the kernel has is right
  std::uint64_t opens_unproven = 0;
  std::uint64_t opens_changed = 0;  // served although the kernel holds something else
  std::uint64_t opens_estale = 0;
  std::uint64_t changes_seen = 0;   // answers that showed that somebody else changed something
  std::uint64_t stale_avoided = 0;  // answers not kept, as something changed while they came
  std::uint64_t evicted = 0;        // entries that made room for others
  std::uint64_t unasked_hits = 0;   // answers while the backend did not answer (Belief::unasked)
  Nanos unasked_age_max = 0;        // the age of the oldest of them when it was given
};

struct MetadataStatus {
  MetadataStats stats;
  std::uint64_t facts_bytes = 0;  // of names and attributes
  std::uint64_t facts_bytes_max = 0;
  std::uint64_t listings_bytes = 0;
  std::uint64_t listings_bytes_max = 0;
};

}  // namespace ncfs
