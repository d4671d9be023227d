// What is known of the backend's names, attributes, links and directories.
//
// A question is asked so: look here; if there is no answer, take a Ticket, ask the backend, and
// hand over what it said together with the ticket. The ticket says when the question was put, and
// that is what everything is judged by:
//
//   * Age counts from there, as the answer may be as old as that. An answer is given until its age
//     reaches its timeout, and the kernel is given what is left: both together never believe
//     anything longer than the timeout.
//   * An answer is not kept if what it is about was changed after the question was put: by this
//     mount (name_changed, file_changed: called when the backend has done it and before the
//     application is told), or seen to be changed by others. So a look-up that overtakes or is
//     overtaken by a creation leaves nothing wrong behind.
//   * Of two answers whose questions overlapped and which differ neither is kept.
//
// A directory that is seen to have changed voids all that is known of its names: other names,
// absent names and its listing.
//
// After an ESTALE the kernel looks the whole path up again, as nothing it knew of it can be
// trusted: those look-ups ask the backend without looking here, but tell what they learnt.
//
// Nothing refused is kept, and what only one caller was shown is shown to that caller only.
//
// Pure state, bounded in bytes; what was used least recently goes first. Not locked: the owner's
// lock guards every call. All are short: a few searches in maps, no allocation beyond what is kept.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/directory_snapshot.h"
#include "engine/lru_map.h"
#include "engine/metadata.h"

namespace ncfs {

class MetadataCache {
 public:
  explicit MetadataCache(const MetadataConfig& config);

  // -- Questions to the backend --

  struct Ticket {
    std::uint64_t serial = 0;
    Nanos began_at = 0;
  };
  // Before the backend is asked about a file, a directory or a name in it.
  [[nodiscard]] Ticket begin(Nanos now, const FileId& subject);

  // -- Names --

  struct NameAnswer {
    std::optional<FileAttributes> attributes;  // none: there is no such name
    Nanos entry_left = 0;  // how long the kernel may believe the name, or its absence
    Nanos attributes_left = 0;
  };
  // Nothing: ask the backend.
  [[nodiscard]] std::optional<NameAnswer> find_name(Nanos now, const FileId& parent,
                                                    std::string_view name, const Viewer& asker,
                                                    Belief belief = Belief::fresh);
  // What the backend said to a look-up of `name`; the ticket is about `parent`.
  NameAnswer found(Nanos now, const Ticket& ticket, const FileId& parent, std::string_view name,
                   const FileAttributes& attributes, const Viewer& viewer);
  NameAnswer absent(Nanos now, const Ticket& ticket, const FileId& parent, std::string_view name,
                    const Viewer& viewer);

  // -- Attributes and links --

  struct AttributesAnswer {
    FileAttributes attributes;
    Nanos left = 0;
  };
  [[nodiscard]] std::optional<AttributesAnswer> find_attributes(Nanos now, const FileId& file,
                                                                const Viewer& asker,
                                                                Belief belief = Belief::fresh);
  // How long ago the backend was asked for them; nothing if they are not known.
  [[nodiscard]] std::optional<Nanos> age_of(Nanos now, const FileId& file);
  // Returns how long the kernel may believe them.
  Nanos learn_attributes(Nanos now, const Ticket& ticket, const FileAttributes& attributes,
                         const Viewer& viewer);

  [[nodiscard]] std::optional<std::string> find_target(Nanos now, const FileId& link,
                                                       const Viewer& asker,
                                                       Belief belief = Belief::fresh);
  void learn_target(const Ticket& ticket, const FileId& link, std::string_view target,
                    const Viewer& viewer);

  // The error with which the backend said that the file has no ACL, for Belief::unasked.
  [[nodiscard]] std::optional<int> find_no_acl(Nanos now, const FileId& file);
  void learn_no_acl(const Ticket& ticket, const FileId& file, int error);

  // -- Directories, at OPENDIR and when a handle is rewound --

  using Snapshot = std::shared_ptr<const DirectorySnapshot>;
  struct ListingPlan {
    enum class Step : std::uint8_t {
      serve,     // `snapshot`, without asking
      validate,  // get attributes, then validate()
      list,      // get attributes, learn_attributes(), take another ticket, read the names, get
                 // attributes again, learn_listing()
    };
    Step step = Step::list;
    Snapshot snapshot;
    // The attributes must be those of the directory opened for reading as the asker, whom the
    // backend has not let in before.
    bool must_open = true;
  };
  // With Belief::unasked: `serve`, or there is no answer.
  [[nodiscard]] ListingPlan plan_listing(Nanos now, const FileId& directory, const Viewer& asker,
                                         Belief belief = Belief::fresh);
  // The listing that the attributes vouch for; null: list, opening as the asker. Learns the
  // attributes as well. `opened` if they were had by opening the directory as the asker.
  [[nodiscard]] Snapshot validate(Nanos now, const Ticket& ticket, const FileAttributes& attributes,
                                  const Viewer& viewer, const Viewer& asker, bool opened);
  // A listing read between two looks at the directory, which the asker opened. Kept if they
  // saw the same, and settled timestamps or a change attribute will tell the next change.
  void learn_listing(const Ticket& ticket, const Observation& before, const Observation& after,
                     Snapshot snapshot, const Viewer& asker);

  // -- Listings without handles, for a kernel that keeps what it is told (nocto) --

  // The listing last told to the asker, or a newer one: whoever has begun to list may go on with
  // it, also if a new listing would need a question, or may not begin with it at all. Or null.
  [[nodiscard]] Snapshot continued_listing(const FileId& directory, const Viewer& asker);
  // The kernel has been told the end of a listing, of which `snapshot` is the last part: whether it
  // may keep it until it sees other times of the directory, for these will tell the next change.
  [[nodiscard]] bool may_keep_listing(const FileId& directory, const Snapshot& snapshot);
  // DirectorySnapshot::bytes() of the largest that is kept.
  [[nodiscard]] std::uint64_t snapshot_bytes_max() const;

  // -- Opens --

  // Attributes with which a read-only open may be answered unasked: with nocto, or while the
  // backend does not answer.
  [[nodiscard]] std::optional<FileAttributes> open_unasked(Nanos now, const FileId& file,
                                                           const Viewer& asker,
                                                           Belief belief = Belief::fresh);
  // The backend let the asker open the file for reading. Learns the attributes as well.
  void opened(Nanos now, const Ticket& ticket, const FileAttributes& attributes,
              const Viewer& viewer, const Viewer& asker);
  // Close-to-open: what was known of the file's length ends with its last handle.
  void closed(const FileId& file);
  void count(OpenVerdict verdict);

  // -- Changes --

  // This mount made `name` in `parent` lead elsewhere or nowhere, or may have: create, mkdir,
  // mknod, symlink, link, unlink, rmdir, both names of a rename; also if the backend refused as
  // there is such a name, or none. Before the application is told.
  void name_changed(const FileId& parent, std::string_view name);
  // This mount changed content or attributes: write, truncate, chmod, links gained or lost.
  void file_changed(const FileId& file);
  // Anything may have changed: everything is asked for anew.
  void forget_all();

  [[nodiscard]] const MetadataConfig& config() const { return config_; }
  [[nodiscard]] const MetadataStats& stats() const { return stats_; }
  [[nodiscard]] std::uint64_t listings_bytes() const { return listings_.bytes(); }
  [[nodiscard]] std::uint64_t facts_bytes() const { return files_.bytes() + names_.bytes(); }
  // O(state).
  void check_invariants() const;

 private:
  // Callers remembered for one file or directory: programs that share files at the same moment run
  // as a few users, and whoever is forgotten is asked about again.
  static constexpr std::size_t kCallersMax = 8;

  // Serials order events: every change and every answer kept takes the next.
  using Serial = std::uint64_t;

  struct Target {
    std::string text;
    Nanos fetched_at = 0;
    Viewer viewer;
  };
  // A file, or a directory and what has to be known of its names.
  struct File {
    std::optional<FileAttributes> attributes;  // the last known, to see changes by
    bool is_valid = false;                     // they may be given as an answer
    bool is_closed = false;                    // since they came: they are not fresh any more
    Nanos fetched_at = 0;
    Viewer viewer;
    Serial learned = 0;        // when the attributes came
    Serial changed = 0;        // older tickets tell nothing of the file
    Serial names_changed = 0;  // older tickets tell nothing of its names
    Serial names_void = 0;     // names kept with older tickets are void
    std::optional<Target> target;
    std::vector<Viewer> openers;  // let in since `attributes` are what they are
    int no_acl = 0;  // the error with which the backend said so since then; 0: not asked
  };
  struct NameKey {
    FileId parent;
    std::string name;
  };
  struct NameView {
    FileId parent;
    std::string_view name;
  };
  friend std::strong_ordering operator<=>(const NameKey& left, const NameKey& right) {
    return NameView{left.parent, left.name} <=> NameView{right.parent, right.name};
  }
  friend std::strong_ordering operator<=>(const NameKey& left, const NameView& right) {
    return NameView{left.parent, left.name} <=> right;
  }
  friend std::strong_ordering operator<=>(const NameView& left, const NameView& right) {
    if (const auto order = left.parent <=> right.parent; order != 0) return order;
    return left.name <=> right.name;
  }
  struct Name {
    std::optional<FileId> file;  // none: absent
    Serial asked = 0;            // the ticket's serial
    Serial learned = 0;
    Nanos fetched_at = 0;
    Viewer viewer;
    std::uint32_t misses = 0;  // in the window; absent names only
    Nanos first_miss_at = 0;
  };
  struct Listing {
    Snapshot snapshot;
    Observation label;  // the directory before its names were read
    Nanos validated_at = 0;
    std::vector<Viewer> readers;
    bool is_passing = false;       // for who has begun only: another one may be right by now
    bool follows_passing = false;  // the kernel may have the beginning of one that was passing
  };
  static constexpr std::uint64_t kListingOverhead =
      sizeof(FileId) + sizeof(Listing) + kCallersMax * sizeof(Viewer);

  File& file_of(const FileId& id);
  static std::uint64_t charge_of(const File& file);
  void recharge(const FileId& id, const File& file);
  void note_change_seen(const FileId& id, File& file);
  void end_listing(const FileId& id);
  Name* fill_name(const Ticket& ticket, const FileId& parent, std::string_view name,
                  const std::optional<FileId>& leads_to, const Viewer& viewer);
  [[nodiscard]] Nanos attributes_timeout(const FileAttributes& attributes) const;
  [[nodiscard]] Nanos entry_timeout(const FileAttributes& attributes) const;
  [[nodiscard]] Nanos left_by(Nanos timeout, Nanos fetched_at, Nanos now, Belief belief) const;
  [[nodiscard]] bool keeps_openers() const;
  void note_unasked(Nanos now, Nanos fetched_at);
  [[nodiscard]] const File* valid_attributes(Nanos now, const FileId& id, const Viewer& asker,
                                             Belief belief);
  [[nodiscard]] std::optional<NameAnswer> find_positive(Nanos now, const Name& name,
                                                        const Viewer& asker, Belief belief);
  void trim();

  const MetadataConfig config_;
  Serial serial_ = 0;
  // What was changed and then forgotten was changed no later than this.
  Serial forgotten_changes_ = 0;
  LruMap<FileId, File> files_;
  LruMap<NameKey, Name> names_;
  LruMap<FileId, Listing> listings_;
  MetadataStats stats_;
};

}  // namespace ncfs
