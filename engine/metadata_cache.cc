#include "engine/metadata_cache.h"

#include <algorithm>

#include "io/assert.h"

namespace ncfs {
namespace {

// One directory may take half of the memory for listings, so that it cannot push out all others.
constexpr std::uint64_t kListingShare = 2;

// What is left of `timeout` for an answer of that age.
Nanos left_of(Nanos timeout, Nanos fetched_at, Nanos now) {
  NCFS_ASSERT(now >= fetched_at);
  if (NCFS_PLANT(age_ignored)) return timeout;
  const Nanos age = now - fetched_at;
  return age < timeout ? timeout - age : 0;
}

bool is_among(const std::vector<Viewer>& callers, const Viewer& asker) {
  return std::ranges::any_of(callers, [&](const Viewer& caller) { return caller.covers(asker); });
}

// The oldest gives way.
void remember(std::vector<Viewer>& callers, const Viewer& asker, std::size_t callers_max) {
  if (std::ranges::find(callers, asker) != callers.end()) return;
  if (callers.size() == callers_max) callers.erase(callers.begin());
  callers.push_back(asker);
}

std::uint64_t bytes_of(const std::vector<Viewer>& callers) {
  return callers.capacity() * sizeof(Viewer);
}

}  // namespace

MetadataConfig metadata_config(MetadataProfile profile) {
  // An hour: what CurveFS takes for names and attributes by default.
  constexpr Nanos kUnchangedTimeout = 3600 * kSecond;
  MetadataConfig config;
  if (profile == MetadataProfile::normal) return config;
  const Nanos timeout = profile == MetadataProfile::strict ? 0 : kUnchangedTimeout;
  config.entry_timeout = timeout;
  config.dir_entry_timeout = timeout;
  config.attr_timeout = timeout;
  config.dir_attr_timeout = timeout;
  config.negative_timeout = timeout;
  config.is_close_to_open = profile == MetadataProfile::strict;
  return config;
}

MetadataCache::MetadataCache(const MetadataConfig& config)
    : config_(config),
      files_(config.facts_bytes_max / 2),
      names_(config.facts_bytes_max / 2),
      listings_(config.listings_bytes_max) {
  NCFS_ASSERT(config.negative_min_uses > 0);
  NCFS_ASSERT(config.facts_bytes_max >= MetadataConfig::kFactsBytesMin);
}

// -- The files known --

std::uint64_t MetadataCache::charge_of(const File& file) {
  return sizeof(FileId) + sizeof(File) + bytes_of(file.openers) +
         (file.target ? file.target->text.size() : 0);
}

void MetadataCache::recharge(const FileId& id, const File& file) {
  files_.put(id, charge_of(file));
}

MetadataCache::File& MetadataCache::file_of(const FileId& id) {
  if (File* const known = files_.find(id)) return *known;
  File& file = files_.put(id, charge_of({}));
  trim();  // there is room for more than the one just put
  file.changed = forgotten_changes_;
  // Which of its names were changed is forgotten, and changes of it could go unseen meanwhile.
  file.names_changed = ++serial_;
  file.names_void = serial_;
  return file;
}

MetadataCache::Ticket MetadataCache::begin(Nanos now, const FileId& subject) {
  static_cast<void>(file_of(subject));
  return {serial_, now};
}

void MetadataCache::trim() {
  stats_.evicted += files_.trim([this](const FileId& id, const File& file) {
    forgotten_changes_ = std::max(forgotten_changes_, file.changed);
    listings_.erase(id);
  });
  if (!NCFS_PLANT(names_not_bounded)) {
    stats_.evicted += names_.trim([](const NameKey&, const Name&) {});
  }
  stats_.evicted += listings_.trim([](const FileId&, const Listing&) {});
}

void MetadataCache::note_change_seen(const FileId& id, File& file) {
  file.names_changed = ++serial_;
  if (!NCFS_PLANT(change_of_parent_ignored)) file.names_void = serial_;
  if (!NCFS_PLANT(listing_not_validated)) listings_.erase(id);
}

Nanos MetadataCache::left_by(Nanos timeout, Nanos fetched_at, Nanos now, Belief belief) const {
  const bool is_fresh = belief == Belief::fresh;
  if (!is_fresh && NCFS_PLANT(stand_in_unbounded)) return 1;
  return left_of(is_fresh ? timeout : config_.stale_if_error, fetched_at, now);
}

bool MetadataCache::keeps_openers() const {
  return !config_.is_close_to_open || config_.stale_if_error > 0;
}

void MetadataCache::note_unasked(Nanos now, Nanos fetched_at) {
  ++stats_.unasked_hits;
  stats_.unasked_age_max = std::max(stats_.unasked_age_max, now - fetched_at);
}

// -- Attributes --

Nanos MetadataCache::attributes_timeout(const FileAttributes& attributes) const {
  return attributes.is_directory() ? config_.dir_attr_timeout : config_.attr_timeout;
}

Nanos MetadataCache::entry_timeout(const FileAttributes& attributes) const {
  return attributes.is_directory() ? config_.dir_entry_timeout : config_.entry_timeout;
}

Nanos MetadataCache::learn_attributes(Nanos now, const Ticket& ticket,
                                      const FileAttributes& attributes, const Viewer& viewer) {
  const FileId id = attributes.seen.file;
  File& file = file_of(id);
  if (ticket.serial < file.changed) {
    ++stats_.stale_avoided;
    return 0;
  }
  const bool has_overlapped = ticket.serial < file.learned;
  const Sameness sameness =
      file.attributes ? compare(file.attributes->seen, attributes.seen, config_.racy_window)
                      : Sameness::unproven;
  if (sameness == Sameness::changed) {
    ++stats_.changes_seen;
    note_change_seen(id, file);
  }
  if (sameness != Sameness::same) {
    file.target.reset();
    file.openers = {};
    file.no_acl = 0;
  }
  const bool is_kept = !has_overlapped || sameness != Sameness::changed;
  if (!has_overlapped) {
    file.attributes = attributes;
    file.fetched_at = ticket.began_at;
    file.viewer = viewer;
    file.is_valid = true;
    file.is_closed = false;
    // The same link still has the same target, as far as this viewer can tell.
    if (file.target && viewer.covers(file.target->viewer)) {
      file.target->fetched_at = std::max(file.target->fetched_at, ticket.began_at);
    }
  } else if (!is_kept) {
    ++stats_.stale_avoided;
    file.is_valid = false;
  }
  file.learned = ++serial_;
  recharge(id, file);
  trim();
  return is_kept ? left_of(attributes_timeout(attributes), ticket.began_at, now) : 0;
}

const MetadataCache::File* MetadataCache::valid_attributes(Nanos now, const FileId& id,
                                                           const Viewer& asker, Belief belief) {
  const File* const file = files_.find(id);
  if (file == nullptr || !file->is_valid || !file->viewer.covers(asker)) return nullptr;
  if (file->is_closed && belief == Belief::fresh) return nullptr;
  const Nanos timeout = attributes_timeout(*file->attributes);
  return left_by(timeout, file->fetched_at, now, belief) > 0 ? file : nullptr;
}

std::optional<MetadataCache::AttributesAnswer> MetadataCache::find_attributes(Nanos now,
                                                                              const FileId& id,
                                                                              const Viewer& asker,
                                                                              Belief belief) {
  const File* const file = valid_attributes(now, id, asker, belief);
  if (file != nullptr && belief == Belief::unasked) {
    note_unasked(now, file->fetched_at);
    if (NCFS_PLANT(stand_in_made_fresh)) files_.find(id)->fetched_at = now;
    return AttributesAnswer{*file->attributes, 0};
  }
  if (file == nullptr) {
    ++stats_.attribute_misses;
    return std::nullopt;
  }
  ++stats_.attribute_hits;
  const Nanos left = left_of(attributes_timeout(*file->attributes), file->fetched_at, now);
  return AttributesAnswer{*file->attributes, left};
}

std::optional<Nanos> MetadataCache::age_of(Nanos now, const FileId& id) {
  const File* const file = files_.find(id);
  if (file == nullptr || !file->is_valid) return std::nullopt;
  return now - file->fetched_at;
}

std::optional<int> MetadataCache::find_no_acl(Nanos now, const FileId& id) {
  const File* const file = files_.find(id);
  if (file == nullptr || !file->is_valid || file->no_acl == 0) return std::nullopt;
  // Who changes the ACL changes ctime as well.
  if (left_by(0, file->fetched_at, now, Belief::unasked) == 0) return std::nullopt;
  note_unasked(now, file->fetched_at);
  return file->no_acl;
}

void MetadataCache::learn_no_acl(const Ticket& ticket, const FileId& id, int error) {
  File& file = file_of(id);
  const bool is_overtaken = ticket.serial < file.changed || ticket.serial < file.learned;
  if (is_overtaken || !file.attributes) return;
  file.no_acl = error;
}

// -- Links --

std::optional<std::string> MetadataCache::find_target(Nanos now, const FileId& link,
                                                      const Viewer& asker, Belief belief) {
  const File* const file = files_.find(link);
  const Target* const target = file != nullptr && file->target ? &*file->target : nullptr;
  if (target == nullptr || !target->viewer.covers(asker) ||
      left_by(config_.attr_timeout, target->fetched_at, now, belief) == 0) {
    ++stats_.link_misses;
    return std::nullopt;
  }
  if (belief == Belief::unasked) {
    note_unasked(now, target->fetched_at);
  } else {
    ++stats_.link_hits;
  }
  return target->text;
}

void MetadataCache::learn_target(const Ticket& ticket, const FileId& link, std::string_view target,
                                 const Viewer& viewer) {
  File& file = file_of(link);
  if (ticket.serial < file.changed || ticket.serial < file.learned) {
    ++stats_.stale_avoided;
    return;
  }
  file.target = Target{std::string(target), ticket.began_at, viewer};
  recharge(link, file);
  trim();
}

// -- Names --

std::optional<MetadataCache::NameAnswer> MetadataCache::find_positive(Nanos now, const Name& name,
                                                                      const Viewer& asker,
                                                                      Belief belief) {
  const File* const file = valid_attributes(now, *name.file, asker, belief);
  if (file == nullptr) return std::nullopt;
  const FileAttributes& attributes = *file->attributes;
  const Nanos entry_left = left_by(entry_timeout(attributes), name.fetched_at, now, belief);
  if (entry_left == 0) return std::nullopt;
  if (belief == Belief::unasked) {
    note_unasked(now, std::min(name.fetched_at, file->fetched_at));
    return NameAnswer{attributes, NCFS_PLANT(stand_in_believed) ? entry_left : 0, 0};
  }
  return NameAnswer{attributes, name.viewer.is_anyone() ? entry_left : 0,
                    left_of(attributes_timeout(attributes), file->fetched_at, now)};
}

std::optional<MetadataCache::NameAnswer> MetadataCache::find_name(Nanos now, const FileId& parent,
                                                                  std::string_view name,
                                                                  const Viewer& asker,
                                                                  Belief belief) {
  const File* const directory = files_.find(parent);
  const Name* const known = directory == nullptr ? nullptr : names_.find(NameView{parent, name});
  std::optional<NameAnswer> answer;
  if (known != nullptr && known->asked >= directory->names_void && known->viewer.covers(asker)) {
    if (known->file) {
      answer = find_positive(now, *known, asker, belief);
    } else if (known->misses >= config_.negative_min_uses) {
      const Nanos left = left_by(config_.negative_timeout, known->fetched_at, now, belief);
      const bool may_believe = known->viewer.is_anyone() && belief == Belief::fresh;
      if (left > 0) answer = NameAnswer{{}, may_believe ? left : 0, 0};
      if (left > 0 && belief == Belief::unasked) note_unasked(now, known->fetched_at);
    }
  }
  if (answer && belief == Belief::unasked) return answer;
  if (!answer) {
    ++stats_.name_misses;
  } else if (answer->attributes) {
    ++stats_.name_hits;
  } else {
    ++stats_.negative_hits;
  }
  return answer;
}

// Null if the answer must not be kept. An answer that overlapped one that says the same changes
// nothing.
MetadataCache::Name* MetadataCache::fill_name(const Ticket& ticket, const FileId& parent,
                                              std::string_view name,
                                              const std::optional<FileId>& leads_to,
                                              const Viewer& viewer) {
  const File& directory = file_of(parent);
  if (ticket.serial < directory.names_changed && !NCFS_PLANT(racing_look_up_kept)) {
    ++stats_.stale_avoided;
    return nullptr;
  }
  const NameView view{parent, name};
  Name* const known = names_.find(view);
  if (known != nullptr && ticket.serial < known->learned) {
    if (known->file == leads_to) return known;
    ++stats_.stale_avoided;
    names_.erase(view);
    return nullptr;
  }
  Name& filled =
      names_.put({parent, std::string(name)}, sizeof(NameKey) + sizeof(Name) + name.size());
  if (filled.asked < directory.names_void || leads_to) filled.misses = 0;
  filled.file = leads_to;
  filled.asked = ticket.serial;
  filled.learned = ++serial_;
  filled.fetched_at = ticket.began_at;
  filled.viewer = viewer;
  return &filled;
}

MetadataCache::NameAnswer MetadataCache::found(Nanos now, const Ticket& ticket,
                                               const FileId& parent, std::string_view name,
                                               const FileAttributes& attributes,
                                               const Viewer& viewer) {
  NameAnswer answer{attributes, 0, learn_attributes(now, ticket, attributes, viewer)};
  const Name* const filled = fill_name(ticket, parent, name, attributes.seen.file, viewer);
  if (filled != nullptr && viewer.is_anyone()) {
    answer.entry_left = left_of(entry_timeout(attributes), ticket.began_at, now);
  }
  trim();
  return answer;
}

MetadataCache::NameAnswer MetadataCache::absent(Nanos now, const Ticket& ticket,
                                                const FileId& parent, std::string_view name,
                                                const Viewer& viewer) {
  NameAnswer answer;
  if (config_.negative_timeout == 0) {
    // What was there before is gone, and who saw it saw it before.
    if (names_.erase(NameView{parent, name})) {
      File& directory = file_of(parent);  // may take serials of its own
      directory.names_changed = ++serial_;
    }
    return answer;
  }
  Name* const filled = fill_name(ticket, parent, name, std::nullopt, viewer);
  if (filled == nullptr) return answer;
  const bool is_first =
      filled->misses == 0 || now - filled->first_miss_at > config_.negative_window;
  if (is_first) {
    filled->misses = 0;
    filled->first_miss_at = now;
  }
  filled->misses = std::min(filled->misses + 1, config_.negative_min_uses);
  if (filled->misses == config_.negative_min_uses && viewer.is_anyone()) {
    answer.entry_left = left_of(config_.negative_timeout, ticket.began_at, now);
  }
  trim();
  return answer;
}

// -- Directories --

MetadataCache::ListingPlan MetadataCache::plan_listing(Nanos now, const FileId& directory,
                                                       const Viewer& asker, Belief belief) {
  ListingPlan plan;
  const File* const file = files_.find(directory);
  const Listing* const listing = file == nullptr ? nullptr : listings_.find(directory);
  if (listing == nullptr) return plan;
  plan.must_open = !is_among(listing->readers, asker);
  const Nanos left = left_by(config_.dir_attr_timeout, listing->validated_at, now, belief);
  const bool asks_always = config_.is_close_to_open && belief == Belief::fresh;
  const bool needs_asking = asks_always || left == 0 || plan.must_open;
  plan.step = needs_asking ? ListingPlan::Step::validate : ListingPlan::Step::serve;
  if (needs_asking) return plan;
  plan.snapshot = listing->snapshot;
  if (belief == Belief::unasked) {
    note_unasked(now, listing->validated_at);
  } else {
    ++stats_.listing_hits;
  }
  return plan;
}

MetadataCache::Snapshot MetadataCache::validate(Nanos now, const Ticket& ticket,
                                                const FileAttributes& attributes,
                                                const Viewer& viewer, const Viewer& asker,
                                                bool opened) {
  const FileId& id = attributes.seen.file;
  learn_attributes(now, ticket, attributes, viewer);
  Listing* const listing = listings_.find(id);
  if (listing == nullptr) return nullptr;
  if (compare(listing->label, attributes.seen, config_.racy_window) != Sameness::same &&
      !NCFS_PLANT(listing_not_validated)) {
    listings_.erase(id);
    return nullptr;
  }
  // It may be another listing than the one that was planned with, and read by others.
  if (opened) remember(listing->readers, asker, kCallersMax);
  if (!is_among(listing->readers, asker)) return nullptr;
  listing->validated_at = std::max(listing->validated_at, ticket.began_at);
  ++stats_.listing_hits;
  return listing->snapshot;
}

void MetadataCache::learn_listing(const Ticket& ticket, const Observation& before,
                                  const Observation& after, Snapshot snapshot,
                                  const Viewer& asker) {
  ++stats_.listing_misses;
  const FileId& id = before.file;
  const File& directory = file_of(id);
  const bool is_one_moment = compare(before, after, config_.racy_window) == Sameness::same;
  // The readers may be filled up later without a new charge.
  const std::uint64_t charge =
      sizeof(FileId) + sizeof(Listing) + kCallersMax * sizeof(Viewer) + snapshot->bytes();
  const bool is_overtaken =
      ticket.serial < directory.names_changed && !NCFS_PLANT(racing_listing_kept);
  if (!is_one_moment || is_overtaken || charge > listings_.bytes_max() / kListingShare) {
    if (is_overtaken) ++stats_.stale_avoided;
    return;
  }
  Listing& listing = listings_.put(id, charge);
  listing = {std::move(snapshot), before, ticket.began_at, {}};
  listing.readers.reserve(kCallersMax);
  listing.readers.push_back(asker);
  trim();
}

// -- Opens --

std::optional<FileAttributes> MetadataCache::open_unasked(Nanos now, const FileId& file,
                                                          const Viewer& asker, Belief belief) {
  if (config_.is_close_to_open && belief == Belief::fresh) return std::nullopt;
  const File* const known = valid_attributes(now, file, asker, belief);
  if (known == nullptr || !is_among(known->openers, asker)) return std::nullopt;
  ++stats_.opens_unasked;
  if (belief == Belief::unasked) note_unasked(now, known->fetched_at);
  return known->attributes;
}

void MetadataCache::opened(Nanos now, const Ticket& ticket, const FileAttributes& attributes,
                           const Viewer& viewer, const Viewer& asker) {
  learn_attributes(now, ticket, attributes, viewer);
  if (!keeps_openers()) return;
  const FileId& id = attributes.seen.file;
  File* const file = files_.find(id);
  if (file == nullptr || !file->is_valid || ticket.serial < file->changed) return;
  remember(file->openers, asker, kCallersMax);
  recharge(id, *file);
  trim();
}

void MetadataCache::closed(const FileId& file) {
  if (!config_.is_close_to_open) return;
  if (File* const known = files_.find(file)) known->is_closed = true;
}

void MetadataCache::count(OpenVerdict verdict) {
  switch (verdict) {
    case OpenVerdict::keep_pages:
      ++stats_.opens_same;
      return;
    case OpenVerdict::drop_pages:
      ++stats_.opens_unproven;
      return;
    case OpenVerdict::look_up_again:
      ++stats_.opens_estale;
      return;
    case OpenVerdict::read_past_pages:
    case OpenVerdict::serve_held:
    case OpenVerdict::serve_named:
      ++stats_.opens_changed;
      return;
    case OpenVerdict::absent:
      return;
  }
}

// -- Changes --

void MetadataCache::name_changed(const FileId& parent, std::string_view name) {
  if (NCFS_PLANT(creation_not_noticed)) return;
  File& directory = file_of(parent);
  directory.changed = ++serial_;
  directory.names_changed = serial_;
  directory.is_valid = false;
  names_.erase(NameView{parent, name});
  listings_.erase(parent);
}

void MetadataCache::file_changed(const FileId& id) {
  if (NCFS_PLANT(own_change_of_file_ignored)) return;
  File& file = file_of(id);
  file.changed = ++serial_;
  file.names_changed = serial_;  // of a directory: who may list it has changed, perhaps
  file.is_valid = false;
  file.openers = {};
  file.no_acl = 0;
  listings_.erase(id);
  recharge(id, file);
}

void MetadataCache::forget_all() {
  forgotten_changes_ = ++serial_;
  files_.clear();
  names_.clear();
  listings_.clear();
}

}  // namespace ncfs
