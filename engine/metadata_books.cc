// The metadata cache's own sums and bounds (M5 Bytes).
#include "engine/metadata_cache.h"
#include "io/assert.h"

namespace ncfs {

void MetadataCache::check_invariants() const {
  files_.check_invariants();
  names_.check_invariants();
  listings_.check_invariants();
  files_.for_each([this](const FileId& id, const File& file, std::uint64_t charge_bytes) {
    NCFS_ASSERT(charge_bytes == charge_of(file));
    NCFS_ASSERT(!file.is_valid || file.attributes);
    NCFS_ASSERT(!file.attributes || file.attributes->seen.file == id);
    NCFS_ASSERT(file.changed <= serial_);
    NCFS_ASSERT(file.names_void <= file.names_changed);
    NCFS_ASSERT(file.names_changed <= serial_);
    NCFS_ASSERT(file.openers.size() <= kCallersMax);
    NCFS_ASSERT(file.openers.empty() || keeps_openers());
    NCFS_ASSERT(file.no_acl == 0 || file.attributes);
  });
  names_.for_each([this](const NameKey& key, const Name& name, std::uint64_t charge_bytes) {
    NCFS_ASSERT(charge_bytes == sizeof(NameKey) + sizeof(Name) + key.name.size());
    NCFS_ASSERT(name.asked < name.learned);
    NCFS_ASSERT(name.learned <= serial_);
    NCFS_ASSERT(name.misses <= config_.negative_min_uses);
    NCFS_ASSERT(!name.file || name.misses == 0);
  });
  listings_.for_each([this](const FileId& id, const Listing& listing, std::uint64_t) {
    NCFS_ASSERT(listing.snapshot);
    NCFS_ASSERT(listing.label.file == id);
    NCFS_ASSERT(listing.is_passing || listing.label.change ||
                is_settled(listing.label, config_.racy_window));
    NCFS_ASSERT(listing.is_passing || listing.snapshot->is_whole());
    NCFS_ASSERT(!config_.is_close_to_open || !(listing.is_passing || listing.follows_passing));
    NCFS_ASSERT(listing.readers.size() <= kCallersMax);
    NCFS_ASSERT(listings_.bytes() >= listing.snapshot->bytes());
  });
}

}  // namespace ncfs
