// The metadata cache for the threads of the mount: the lock, the clocks, and stat(2)'s form.
//
// Ask the backend between begin() and the call that hands its answer over; see
// engine/metadata_cache.h. Any thread; no call waits for anything but the lock.
#pragma once

#include <sys/stat.h>

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "engine/metadata_cache.h"
#include "fuse_adapter/caller_credentials.h"
#include "fuse_adapter/inode_table.h"

namespace ncfs {

class KnownMetadata {
 public:
  using Ticket = MetadataCache::Ticket;
  using Snapshot = MetadataCache::Snapshot;
  using ListingPlan = MetadataCache::ListingPlan;

  // `groups` outlives this.
  KnownMetadata(const MetadataConfig& config, CallerGroups& groups)
      : groups_(groups), cache_(config) {}

  // For how long the kernel may believe an answer, in seconds.
  struct Left {
    double entry = 0;
    double attributes = 0;
  };

  [[nodiscard]] Ticket begin(const FileKey& subject);

  // What the caller may be told of the name without asking, or that there is none. A file that is
  // being written through this mount may be more than that by now.
  struct Name {
    bool exists = false;
    struct stat attributes = {};
    Left left;
  };
  [[nodiscard]] std::optional<Name> find_name(const FileKey& parent, std::string_view name,
                                              const Caller& caller, Belief belief = Belief::fresh);
  // `as_caller`: the daemon was refused, the caller was not.
  Left found(const Ticket& ticket, const FileKey& parent, std::string_view name,
             const struct stat& attributes, const Caller& caller, bool as_caller);
  Left absent(const Ticket& ticket, const FileKey& parent, std::string_view name,
              const Caller& caller, bool as_caller);
  // Returns for how long the kernel may believe them.
  double learn(const Ticket& ticket, const struct stat& attributes, const Caller& caller,
               bool as_caller);

  struct Attributes {
    struct stat attributes = {};
    double left = 0;
  };
  [[nodiscard]] std::optional<Attributes> find_attributes(const FileKey& file, const Caller& caller,
                                                          Belief belief = Belief::fresh);
  // How long ago the backend was asked for them.
  [[nodiscard]] std::optional<Nanos> age_of_attributes(const FileKey& file);

  // The functions of the same names.
  [[nodiscard]] std::optional<int> find_no_acl(const FileKey& file);
  void learn_no_acl(const Ticket& ticket, const FileKey& file, int error);

  [[nodiscard]] std::optional<std::string> find_target(const FileKey& link, const Caller& caller,
                                                       Belief belief = Belief::fresh);
  void learn_target(const Ticket& ticket, const FileKey& link, std::string_view target,
                    const Caller& caller, bool as_caller);

  [[nodiscard]] ListingPlan plan_listing(const FileKey& directory, const Caller& caller,
                                         Belief belief = Belief::fresh);
  // `opened`: the attributes are of the directory opened as the caller.
  [[nodiscard]] Snapshot validate(const Ticket& ticket, const struct stat& attributes,
                                  const Caller& caller, bool as_caller, bool opened);
  // `age_before_ns`: of the first look, as age_of() told it then.
  void learn_listing(const Ticket& ticket, const struct stat& before, std::int64_t age_before_ns,
                     const struct stat& after, Snapshot snapshot, const Caller& caller);
  [[nodiscard]] static std::int64_t age_of(const struct stat& attributes);

  // The functions of the same names.
  [[nodiscard]] std::optional<struct stat> open_unasked(const FileKey& file, const Caller& caller,
                                                        Belief belief = Belief::fresh);
  void opened(const Ticket& ticket, const struct stat& attributes, const Caller& caller,
              bool as_caller);
  void closed(const FileKey& file);
  void count(OpenVerdict verdict);

  // While what is returned lives, the kernel changes the file without telling: it is told to
  // believe no attributes of it. (Those of the node it writes to it keeps right by itself.) Lives
  // no longer than this.
  [[nodiscard]] std::shared_ptr<void> expect_unseen_changes(const FileKey& file);

  // How often this mount has changed something; nothing while it may, untold.
  [[nodiscard]] std::optional<std::uint64_t> changes() const;

  void name_changed(const FileKey& parent, std::string_view name);
  void file_changed(const FileKey& file);
  void forget_all();

  [[nodiscard]] MetadataStatus status() const;

 private:
  [[nodiscard]] Viewer asker_of(const Caller& caller);
  [[nodiscard]] Viewer viewer_of(const Caller& caller, bool as_caller);
  [[nodiscard]] bool changes_unseen(const FileKey& file) const;

  CallerGroups& groups_;
  mutable std::mutex mutex_;
  MetadataCache cache_;                    // guarded by mutex_
  std::uint64_t changes_ = 0;              // guarded by mutex_
  std::multiset<FileKey> changed_unseen_;  // guarded by mutex_
};

}  // namespace ncfs
