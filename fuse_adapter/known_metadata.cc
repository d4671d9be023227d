#include "fuse_adapter/known_metadata.h"

#include <xxhash.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "io/monotonic_clock.h"
#include "io/wall_clock.h"

namespace ncfs {
namespace {

FileId id_of(const FileKey& file) {
  return {file.device, file.inode};
}

std::int64_t nanos_of(const timespec& time) {
  return wall_nanos(time.tv_sec, time.tv_nsec);
}

timespec time_of(std::int64_t nanos) {
  constexpr auto kNanos = static_cast<std::int64_t>(kSecond);
  timespec time{.tv_sec = nanos / kNanos, .tv_nsec = nanos % kNanos};
  if (time.tv_nsec < 0) {
    --time.tv_sec;
    time.tv_nsec += kNanos;
  }
  return time;
}

FileAttributes attributes_of(const struct stat& from, std::int64_t age_ns) {
  const FileFacts facts = FileFacts::of(from);
  FileAttributes to;
  to.seen = {.file = id_of(facts.file), .version = facts.version, .change = {}, .age_ns = age_ns};
  to.mode = from.st_mode;
  to.owner = from.st_uid;
  to.group = from.st_gid;
  to.block_size = static_cast<std::uint32_t>(from.st_blksize);
  to.links = from.st_nlink;
  to.device = from.st_rdev;
  to.blocks = static_cast<std::uint64_t>(from.st_blocks);
  to.atime_ns = nanos_of(from.st_atim);
  return to;
}

FileAttributes attributes_of(const struct stat& from) {
  return attributes_of(from, KnownMetadata::age_of(from));
}

struct stat stat_of(const FileAttributes& from) {
  struct stat to {};
  to.st_dev = from.seen.file.filesystem;
  to.st_ino = from.seen.file.inode;
  to.st_size = static_cast<off_t>(from.seen.version.size);
  to.st_mtim = time_of(from.seen.version.mtime_ns);
  to.st_ctim = time_of(from.seen.version.ctime_ns);
  to.st_atim = time_of(from.atime_ns);
  to.st_mode = from.mode;
  to.st_uid = from.owner;
  to.st_gid = from.group;
  to.st_blksize = from.block_size;
  to.st_nlink = from.links;
  to.st_rdev = from.device;
  to.st_blocks = static_cast<blkcnt_t>(from.blocks);
  return to;
}

double seconds(Nanos left) {
  return static_cast<double>(left) / static_cast<double>(kSecond);
}

KnownMetadata::Left left_of(const MetadataCache::NameAnswer& answer) {
  return {.entry = seconds(answer.entry_left), .attributes = seconds(answer.attributes_left)};
}

}  // namespace

std::int64_t KnownMetadata::age_of(const struct stat& attributes) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return nanos_of(now) - std::max(nanos_of(attributes.st_mtim), nanos_of(attributes.st_ctim));
}

Viewer KnownMetadata::asker_of(const Caller& caller) {
  // What root may do does not depend on its groups.
  if (caller.user == 0) return Viewer::caller(0, caller.group, 0);
  const CallerGroups::Groups groups = groups_.of(caller);
  return Viewer::caller(caller.user, caller.group,
                        XXH3_64bits(groups->data(), groups->size() * sizeof(gid_t)));
}

Viewer KnownMetadata::viewer_of(const Caller& caller, bool as_caller) {
  return as_caller ? asker_of(caller) : Viewer::anyone();
}

KnownMetadata::Ticket KnownMetadata::begin(const FileKey& subject) {
  const std::lock_guard lock(mutex_);
  return cache_.begin(monotonic_now(), id_of(subject));
}

std::optional<KnownMetadata::Name> KnownMetadata::find_name(const FileKey& parent,
                                                            std::string_view name,
                                                            const Caller& caller, Belief belief) {
  const Viewer asker = asker_of(caller);
  const std::lock_guard lock(mutex_);
  const auto answer = cache_.find_name(monotonic_now(), id_of(parent), name, asker, belief);
  if (!answer) return std::nullopt;
  if (!answer->attributes) return Name{false, {}, left_of(*answer)};
  return Name{.exists = true, .attributes = stat_of(*answer->attributes), .left = left_of(*answer)};
}

KnownMetadata::Left KnownMetadata::found(const Ticket& ticket, const FileKey& parent,
                                         std::string_view name, const struct stat& attributes,
                                         const Caller& caller, bool as_caller) {
  const Viewer viewer = viewer_of(caller, as_caller);
  const std::lock_guard lock(mutex_);
  Left left = left_of(cache_.found(monotonic_now(), ticket, id_of(parent), name,
                                   attributes_of(attributes), viewer));
  if (changes_unseen(FileFacts::of(attributes).file)) left.attributes = 0;
  return left;
}

KnownMetadata::Left KnownMetadata::absent(const Ticket& ticket, const FileKey& parent,
                                          std::string_view name, const Caller& caller,
                                          bool as_caller) {
  const Viewer viewer = viewer_of(caller, as_caller);
  const std::lock_guard lock(mutex_);
  return left_of(cache_.absent(monotonic_now(), ticket, id_of(parent), name, viewer));
}

double KnownMetadata::learn(const Ticket& ticket, const struct stat& attributes,
                            const Caller& caller, bool as_caller) {
  const Viewer viewer = viewer_of(caller, as_caller);
  const std::lock_guard lock(mutex_);
  const Nanos left =
      cache_.learn_attributes(monotonic_now(), ticket, attributes_of(attributes), viewer);
  return changes_unseen(FileFacts::of(attributes).file) ? 0 : seconds(left);
}

std::shared_ptr<void> KnownMetadata::expect_unseen_changes(const FileKey& file) {
  {
    const std::lock_guard lock(mutex_);
    changed_unseen_.insert(file);
  }
  return {nullptr, [this, file](void*) {
            const std::lock_guard lock(mutex_);
            changed_unseen_.erase(changed_unseen_.find(file));
            ++changes_;
            cache_.file_changed(id_of(file));
          }};
}

bool KnownMetadata::changes_unseen(const FileKey& file) const {
  return !changed_unseen_.empty() && changed_unseen_.contains(file);
}

std::optional<KnownMetadata::Attributes> KnownMetadata::find_attributes(const FileKey& file,
                                                                        const Caller& caller,
                                                                        Belief belief) {
  const Viewer asker = asker_of(caller);
  const std::lock_guard lock(mutex_);
  const auto answer = cache_.find_attributes(monotonic_now(), id_of(file), asker, belief);
  if (!answer) return std::nullopt;
  return Attributes{.attributes = stat_of(answer->attributes), .left = seconds(answer->left)};
}

std::optional<Nanos> KnownMetadata::age_of_attributes(const FileKey& file) {
  const std::lock_guard lock(mutex_);
  return cache_.age_of(monotonic_now(), id_of(file));
}

std::optional<int> KnownMetadata::find_no_acl(const FileKey& file) {
  const std::lock_guard lock(mutex_);
  return cache_.find_no_acl(monotonic_now(), id_of(file));
}

void KnownMetadata::learn_no_acl(const Ticket& ticket, const FileKey& file, int error) {
  const std::lock_guard lock(mutex_);
  cache_.learn_no_acl(ticket, id_of(file), error);
}

std::optional<std::string> KnownMetadata::find_target(const FileKey& link, const Caller& caller,
                                                      Belief belief) {
  const Viewer asker = asker_of(caller);
  const std::lock_guard lock(mutex_);
  return cache_.find_target(monotonic_now(), id_of(link), asker, belief);
}

void KnownMetadata::learn_target(const Ticket& ticket, const FileKey& link, std::string_view target,
                                 const Caller& caller, bool as_caller) {
  const Viewer viewer = viewer_of(caller, as_caller);
  const std::lock_guard lock(mutex_);
  cache_.learn_target(ticket, id_of(link), target, viewer);
}

std::optional<struct stat> KnownMetadata::open_unasked(const FileKey& file, const Caller& caller,
                                                       Belief belief) {
  const Viewer asker = asker_of(caller);
  const std::lock_guard lock(mutex_);
  const auto attributes = cache_.open_unasked(monotonic_now(), id_of(file), asker, belief);
  if (!attributes) return std::nullopt;
  return stat_of(*attributes);
}

void KnownMetadata::opened(const Ticket& ticket, const struct stat& attributes,
                           const Caller& caller, bool as_caller) {
  const Viewer asker = asker_of(caller);
  const Viewer viewer = as_caller ? asker : Viewer::anyone();
  const std::lock_guard lock(mutex_);
  cache_.opened(monotonic_now(), ticket, attributes_of(attributes), viewer, asker);
}

void KnownMetadata::closed(const FileKey& file) {
  const std::lock_guard lock(mutex_);
  cache_.closed(id_of(file));
}

void KnownMetadata::count(OpenVerdict verdict) {
  const std::lock_guard lock(mutex_);
  cache_.count(verdict);
}

KnownMetadata::ListingPlan KnownMetadata::plan_listing(const FileKey& directory,
                                                       const Caller& caller, Belief belief) {
  const Viewer asker = asker_of(caller);
  const std::lock_guard lock(mutex_);
  return cache_.plan_listing(monotonic_now(), id_of(directory), asker, belief);
}

KnownMetadata::Snapshot KnownMetadata::validate(const Ticket& ticket, const struct stat& attributes,
                                                const Caller& caller, bool as_caller, bool opened) {
  const Viewer asker = asker_of(caller);
  const Viewer viewer = as_caller ? asker : Viewer::anyone();
  const std::lock_guard lock(mutex_);
  return cache_.validate(monotonic_now(), ticket, attributes_of(attributes), viewer, asker, opened);
}

void KnownMetadata::learn_listing(const Ticket& ticket, const struct stat& before,
                                  std::int64_t age_before_ns, const struct stat& after,
                                  Snapshot snapshot, const Caller& caller) {
  const Viewer asker = asker_of(caller);
  const std::lock_guard lock(mutex_);
  cache_.learn_listing(ticket, attributes_of(before, age_before_ns).seen, attributes_of(after).seen,
                       std::move(snapshot), asker);
}

std::optional<std::uint64_t> KnownMetadata::changes() const {
  const std::lock_guard lock(mutex_);
  return changed_unseen_.empty() ? std::optional(changes_) : std::nullopt;
}

void KnownMetadata::name_changed(const FileKey& parent, std::string_view name) {
  const std::lock_guard lock(mutex_);
  ++changes_;
  cache_.name_changed(id_of(parent), name);
}

void KnownMetadata::file_changed(const FileKey& file) {
  const std::lock_guard lock(mutex_);
  ++changes_;
  cache_.file_changed(id_of(file));
}

void KnownMetadata::forget_all() {
  const std::lock_guard lock(mutex_);
  ++changes_;
  cache_.forget_all();
}

MetadataStatus KnownMetadata::status() const {
  const std::lock_guard lock(mutex_);
  return {.stats = cache_.stats(),
          .facts_bytes = cache_.facts_bytes(),
          .facts_bytes_max = cache_.config().facts_bytes_max,
          .listings_bytes = cache_.listings_bytes(),
          .listings_bytes_max = cache_.config().listings_bytes_max};
}

}  // namespace ncfs
