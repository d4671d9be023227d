#include "sim/oracle.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/format.h"
#include "engine/token_bucket.h"
#include "sim/truth.h"
#include "sim/world.h"

namespace ncfs {
namespace {

std::uint64_t fold(std::initializer_list<std::uint64_t> values) {
  std::uint64_t digest = 0;
  for (const std::uint64_t value : values) digest = mix64(digest ^ value);
  return digest;
}

std::uint64_t history_length(const SimNfs& nfs, const FileId& file) {
  const std::vector<SourceRevision>* history = nfs.history(file);
  return history == nullptr ? 0 : history->size();
}

// A sidecar counts if it is intact and describes the object whose name it has. Intact is what would
// be written again just so: the engine's own check is not taken at its word.
std::optional<Sidecar> sidecar_of(const std::string& stem, std::span<const std::byte> bytes) {
  std::optional<Sidecar> sidecar = decode(bytes);
  if (!sidecar || !is_stem_of(stem, *sidecar) || !std::ranges::equal(encode(*sidecar), bytes)) {
    return std::nullopt;
  }
  return sidecar;
}

// The blocks that must hold source bytes, compared with revisions [first, last].
std::optional<std::string> find_bad_block(const SimNfs& nfs, const Sidecar& sidecar,
                                          RevisionSpan revisions, std::span<const std::byte> data) {
  for (std::uint64_t block = 0; block < sidecar.durable.block_count(); ++block) {
    if (!sidecar.durable.test(block)) continue;
    const std::uint64_t begin = block * sidecar.block_size_bytes;
    const std::uint64_t end = std::min(begin + sidecar.block_size_bytes, sidecar.version.size);
    if (data.size() < end) return "the file ends at " + std::to_string(data.size());
    const auto lie = find_lie(nfs, SourceInode{sidecar.file.inode}, revisions.first, revisions.last,
                              begin, data.subspan(begin, end - begin));
    if (lie) return "block " + std::to_string(block) + ": " + *lie;
  }
  return std::nullopt;
}

}  // namespace

void Oracle::begin_life(const SimDisk& disk, const Config& config) {
  // A crash may bring back what was unlinked, and the limit may have been lowered: what is charged
  // then has to come down. Until recovery knows the charges, it may only remove, and replace the
  // sidecars of what it found.
  charged_max_ = std::max(config.cache_size_bytes,
                          disk.allocated_bytes() + disk.names_count() * kAllocationBytes);
  was_recovering_ = true;
  resident_before_.clear();
  waiting_before_.clear();
  requests_seen_ = 0;
  rotten_at_start_.clear();
  for (const auto& [stem, files] : objects_of(disk.names_cached())) {
    if (config.checksum == Checksum::off || !files.part || files.data || !files.meta) continue;
    const auto sidecar = sidecar_of(stem, disk.view(*files.meta).cached);
    const bool is_checked = sidecar && !sidecar->checksums.empty() &&
                            sidecar->block_size_bytes == config.block_size_bytes;
    if (is_checked) rotten_at_start_[*files.part] = disk.rotten_bytes(*files.part);
  }
  has_found_loose_names_ = disk.names_cached() != disk.names_durable();
  invisible_bytes_ = disk.invisible_bytes();
  health_changes_ = 0;
  cache_requests_ = 0;
  copied_bytes_ = 0;
  copied_ahead_ = 0;
  copied_at_ = 0;
}

std::optional<Violation> Oracle::check(World& world) {
  const std::uint64_t changes = fold({world.disk().changes(), world.nfs().changes()});
  if (changes != changes_seen_) {
    if (auto violation = check_objects(world, false)) return violation;
    if (auto violation = check_objects(world, true)) return violation;
    changes_seen_ = changes;
  }
  if (world.life() == nullptr) return std::nullopt;
  if (auto violation = check_residencies(world)) return violation;
  if (auto violation = check_space(world)) return violation;
  if (auto violation = check_pins(world)) return violation;
  if (auto violation = check_once(world)) return violation;
  if (auto violation = check_pinned(world)) return violation;
  if (auto violation = check_finished(world)) return violation;
  if (auto violation = check_stopped(world)) return violation;
  if (auto violation = check_degrade(world)) return violation;
  if (auto violation = check_rot(world)) return violation;
  if (auto violation = check_rules(world)) return violation;
  if (auto violation = check_pace(world)) return violation;
  return check_books(world);
}

Oracle::Objects Oracle::objects_of(const SimDisk::Names& names) {
  Objects objects;
  for (const auto& [path, inode] : names) {
    const std::size_t slash = path.rfind('/');
    const std::string_view name = std::string_view(path).substr(slash + 1);
    const std::optional<ObjectName> object = parse_object_name(name);
    if (!object) continue;
    ObjectFiles& files = objects[path.substr(0, slash + 1) + object->stem];
    if (object->kind == NameKind::partial) files.part = inode;
    if (object->kind == NameKind::data) files.data = inode;
    if (object->kind == NameKind::sidecar) files.meta = inode;
  }
  return objects;
}

std::optional<Violation> Oracle::check_objects(const World& world, bool is_durable_view) {
  const SimDisk& disk = world.disk();
  const Objects objects = objects_of(is_durable_view ? disk.names_durable() : disk.names_cached());
  for (const auto& [stem, files] : objects) {
    if (!files.meta || (!files.part && !files.data)) continue;
    if (auto violation = check_object(world, stem, files, is_durable_view)) {
      violation->message = stem + ": " + violation->message;
      return violation;
    }
  }
  return std::nullopt;
}

std::optional<Violation> Oracle::check_object(const World& world, const std::string& stem,
                                              const ObjectFiles& files, bool is_durable_view) {
  const SimDisk& disk = world.disk();
  const SimDisk::FileView meta = disk.view(*files.meta);
  const InodeId data_inode = files.data ? *files.data : *files.part;
  const SimDisk::FileView data = disk.view(data_inode);
  const std::optional<Sidecar> sidecar =
      sidecar_of(stem, is_durable_view ? meta.durable : meta.cached);
  if (!sidecar) return std::nullopt;
  const std::uint64_t key =
      fold({static_cast<std::uint64_t>(*files.meta), meta.revision,
            static_cast<std::uint64_t>(data_inode), data.revision, files.data ? 1U : 0U,
            history_length(world.nfs(), sidecar->file)});
  std::uint64_t& good = good_[stem + (is_durable_view ? "#durable" : "#cached")];
  if (good == key) return std::nullopt;

  const auto revisions = revisions_of(world.nfs(), sidecar->file, sidecar->version);
  if (!revisions) return Violation{"S2 CommitTruth", "there never was such a version"};
  const bool is_complete = files.data.has_value() && sidecar->durable.is_full();
  // A lying disk owes nothing but what it can still show; what it lost is for checksums to find.
  if (disk.is_ruined(data_inode)) return std::nullopt;
  const bool is_lied_about = disk.is_lied_about(data_inode);
  if (is_complete) {
    const RevisionSpan last = {revisions->last, revisions->last};
    if (data.cached.size() != sidecar->version.size) {
      return Violation{"S2 CommitTruth", "the data has another length than the source"};
    }
    if (const auto bad = find_bad_block(world.nfs(), *sidecar, last, data.cached)) {
      return Violation{"S2 CommitTruth", *bad};
    }
    const auto bad =
        is_lied_about ? std::nullopt : find_bad_block(world.nfs(), *sidecar, last, data.durable);
    if (bad) {
      return Violation{"S2 CommitTruth", "after a power loss, " + *bad};
    }
  } else {
    // A block may have been read after a change that is not noticed yet: such an object is never
    // completed, and nobody can open its version any more.
    const RevisionSpan since = {revisions->first, history_length(world.nfs(), sidecar->file) - 1};
    const auto bad =
        is_lied_about ? std::nullopt : find_bad_block(world.nfs(), *sidecar, since, data.durable);
    if (bad) {
      return Violation{"S3 Residency", "recorded as durable: " + *bad};
    }
  }
  good = key;
  return std::nullopt;
}

std::optional<Violation> Oracle::check_residencies(const World& world) {
  const SimDisk& disk = world.disk();
  for (const auto& [handle, file] : world.readers().files()) {
    if (!file.residency) continue;
    const std::optional<InodeId> inode = disk.inode_of(file.residency->cache_file());
    if (!inode) return Violation{"S5 Pins", "the cache file of an open handle is closed"};
    Sidecar bits;
    bits.file = world.nfs().file_id(file.inode);
    bits.version = file.version;
    bits.block_size_bytes = file.residency->block_size_bytes();
    bits.durable = BlockSet(file.residency->block_count());
    for (std::uint64_t block = 0; block < file.residency->block_count(); ++block) {
      if (file.residency->is_resident(block)) bits.durable.set(block);
    }
    if (bits.durable.count() == 0 || disk.is_ruined(*inode)) continue;
    const SimDisk::FileView view = disk.view(*inode);
    const std::uint64_t history = history_length(world.nfs(), bits.file);
    std::uint64_t key = fold({static_cast<std::uint64_t>(*inode), view.revision, history});
    for (const std::uint64_t word : bits.durable.words()) key = mix64(key ^ word);
    std::uint64_t& good = good_["handle " + std::to_string(static_cast<std::uint64_t>(handle))];
    if (good == key) continue;
    const auto revisions = revisions_of(world.nfs(), bits.file, bits.version);
    NCFS_ASSERT(revisions);
    const auto bad =
        find_bad_block(world.nfs(), bits, {revisions->first, history - 1}, view.cached);
    if (bad) return Violation{"S3 Residency", file.path + " is said to be resident: " + *bad};
    good = key;
  }
  return std::nullopt;
}

std::optional<Violation> Oracle::check_space(const World& world) {
  invisible_bytes_ = std::min(invisible_bytes_, world.disk().invisible_bytes());
  const std::uint64_t allocated = world.disk().allocated_bytes() - invisible_bytes_;
  const EngineStatus status = world.life()->engine().status();
  const std::uint64_t charged = status.used_bytes + status.reserved_bytes;
  if (status.is_recovering) {
    if (allocated <= charged_max_) return std::nullopt;
    return Violation{"S4 Space", std::to_string(allocated) + " bytes on the disk, " +
                                     std::to_string(charged_max_) + " allowed"};
  }
  if (was_recovering_) charged_max_ = std::max(world.readers().limit_bytes(), charged);
  was_recovering_ = false;
  charged_max_ = std::max(charged_max_, world.readers().limit_bytes());
  if (charged > charged_max_) {
    return Violation{"S4 Space", std::to_string(charged) + " bytes used and reserved, " +
                                     std::to_string(charged_max_) + " allowed"};
  }
  charged_max_ = std::max(world.readers().limit_bytes(), charged);
  if (allocated > charged) {
    return Violation{"S4 Space", std::to_string(allocated) + " bytes on the disk, but used is " +
                                     std::to_string(status.used_bytes) + " and reserved is " +
                                     std::to_string(status.reserved_bytes)};
  }
  return std::nullopt;
}

// Without a fault of the disk there is no reason to take the name from a file that somebody reads
// and that is what the source holds.
std::optional<Violation> Oracle::check_pins(const World& world) const {
  const SimIo& io = world.life()->io();
  if (io.cache_failures() + io.misdirections() > 0 || world.readers().has_sent_fault()) {
    return std::nullopt;
  }
  std::optional<SimDisk::Names> names_now;
  for (const auto& [handle, file] : world.readers().files()) {
    if (!file.residency) continue;
    if (!names_now) names_now = world.disk().names_cached();
    const SimDisk::Names& names = *names_now;
    const std::optional<InodeId> inode = world.disk().inode_of(file.residency->cache_file());
    if (inode && !world.disk().rotten_bytes(*inode).empty()) continue;
    const bool is_current = world.nfs().history(file.inode).back().version == file.version;
    const bool has_name = std::any_of(names.begin(), names.end(),
                                      [&](const auto& name) { return name.second == inode; });
    if (is_current && !has_name) {
      return Violation{"S5 Pins", file.path + " was removed from the cache while it is open"};
    }
  }
  return std::nullopt;
}

// What was pinned and is still what it was then is complete, in memory and on the medium.
std::optional<Violation> Oracle::check_pinned(World& world) const {
  const bool has_found_damage = world.life()->engine().status().damaged_objects > 0;
  if (world.life()->io().cache_failures() > 0 || world.readers().has_sent_fault() ||
      world.disk().has_lied() || has_found_damage) {
    world.readers().forget_pins();
  }
  world.readers().forget_changed_pins();
  if (world.readers().pinned().empty()) return std::nullopt;
  const SimDisk& disk = world.disk();
  for (const bool is_durable_view : {false, true}) {
    if (is_durable_view && has_found_loose_names_) continue;
    const Objects objects =
        objects_of(is_durable_view ? disk.names_durable() : disk.names_cached());
    for (const Readers::Pinned& file : world.readers().pinned()) {
      const bool is_there = std::any_of(objects.begin(), objects.end(), [&](const auto& object) {
        const auto& [stem, files] = object;
        if (!files.data || !files.meta) return false;
        const SimDisk::FileView meta = disk.view(*files.meta);
        const auto sidecar = sidecar_of(stem, is_durable_view ? meta.durable : meta.cached);
        return sidecar && sidecar->file == world.nfs().file_id(file.inode) &&
               sidecar->version == file.version;
      });
      if (!is_there) return Violation{"S5 Pins", file.path + " is pinned and not in the cache"};
    }
  }
  return std::nullopt;
}

std::optional<Violation> Oracle::check_finished(World& world) const {
  const SimDisk& disk = world.disk();
  for (const std::string& path : world.readers().take_finished()) {
    const Objects durable = objects_of(disk.names_durable());
    bool was_found = false;
    bool survives = false;
    for (const auto& [stem, files] : objects_of(disk.names_cached())) {
      if (!files.data || !files.meta) continue;
      const auto sidecar = sidecar_of(stem, disk.view(*files.meta).cached);
      if (!sidecar || sidecar->path != path) continue;
      was_found = true;
      const bool is_lied_about = disk.is_lied_about(*files.data) ||
                                 disk.is_lied_about(*files.meta) || disk.is_lied_about(stem);
      survives = survives || is_lied_about;
      const auto found = durable.find(stem);
      if (found == durable.end()) continue;
      if (found->second.data != files.data || !found->second.meta) continue;
      auto kept = sidecar_of(stem, disk.view(*found->second.meta).durable);
      if (kept) {  // what another sidecar records, later
        kept->is_pinned = sidecar->is_pinned;
        kept->version = sidecar->version;
        kept->path = sidecar->path;
      }
      survives = survives || kept == sidecar;
    }
    if (was_found && !survives) {
      return Violation{"S3 Residency",
                       path + " was reported as copied, but a power loss would " + "take it away"};
    }
  }
  return std::nullopt;
}

// A stop that nothing disturbed leaves a sidecar that vouches for every resident block. What a
// killed process left is taken as it was found: its names may not be durable.
std::optional<Violation> Oracle::check_stopped(const World& world) const {
  if (!world.readers().is_stopped() || world.life()->io().cache_failures() > 0 ||
      world.readers().has_sent_fault()) {
    return std::nullopt;
  }
  const SimDisk& disk = world.disk();
  const Objects objects = objects_of(disk.names_cached());
  for (const auto& [handle, file] : world.readers().files()) {
    const bool is_current = world.nfs().history(file.inode).back().version == file.version;
    if (!file.residency || !is_current) continue;
    const std::optional<InodeId> inode = disk.inode_of(file.residency->cache_file());
    const auto object = std::find_if(objects.begin(), objects.end(), [&](const auto& one) {
      return inode && (one.second.data == inode || one.second.part == inode) && one.second.meta;
    });
    const auto sidecar = object == objects.end()
                             ? std::nullopt
                             : sidecar_of(object->first, disk.view(*object->second.meta).durable);
    if (object != objects.end() && disk.is_lied_about(*object->second.meta)) continue;
    BlockSet recorded(file.residency->block_count());
    if (sidecar) {
      recorded = with_block_size(sidecar->durable, sidecar->version.size, sidecar->block_size_bytes,
                                 file.residency->block_size_bytes());
    }
    for (std::uint64_t block = 0; block < recorded.block_count(); ++block) {
      if (!file.residency->is_resident(block) || recorded.test(block)) continue;
      return Violation{"S3 Residency", "stopped, but block " + std::to_string(block) + " of " +
                                           file.path + " is not recorded as durable"};
    }
  }
  return std::nullopt;
}

std::optional<Violation> Oracle::check_degrade(const World& world) {
  const CacheHealthStatus health = world.life()->engine().status().cache_health;
  const std::uint64_t requests = world.life()->io().cache_requests();
  if (health.changes != health_changes_ || health.state != HealthState::down) {
    health_changes_ = health.changes;
    cache_requests_ = requests;
  }
  if (health.state != HealthState::down) return std::nullopt;
  if (requests != cache_requests_) {
    return Violation{"S8 Degrade", "the cache disk is down and was asked " +
                                       std::to_string(requests - cache_requests_) + " times"};
  }
  if (world.readers().own_writes_pending() > 0 && !world.readers().has_mail()) {
    return Violation{"S8 Degrade", "the cache disk is down and a write waits for it"};
  }
  for (const auto& [handle, file] : world.readers().files()) {
    if (!file.is_answered && !world.readers().has_mail()) {
      return Violation{"S8 Degrade",
                       "the cache disk is down and an open of " + file.path + " waits for it"};
    }
    for (std::uint64_t block = 0; file.residency && block < file.residency->block_count();
         ++block) {
      if (!file.residency->is_resident(block)) continue;
      return Violation{"S8 Degrade",
                       "the cache disk is down and readers of " + file.path + " are sent to it"};
    }
  }
  return std::nullopt;
}

// With nothing in flight and nobody reading, the disk holds what the engine says it does.
std::optional<Violation> Oracle::check_books(const World& world) const {
  const EngineStatus status = world.life()->engine().status();
  const SimIo& io = world.life()->io();
  const bool is_at_rest = io.pending().empty() && !status.is_recovering && status.copies.empty() &&
                          io.cache_failures() == 0 && world.readers().files().empty() &&
                          !world.readers().has_mail() && !world.readers().has_sent_fault();
  if (!is_at_rest) return std::nullopt;
  std::uint64_t complete = 0;
  std::uint64_t partial = 0;
  for (const auto& [stem, files] : objects_of(world.disk().names_cached())) {
    // Removed as damaged, but others still have it open.
    const bool is_held = files.data && !files.meta && world.readers().has_holds();
    if (is_held && (io.misdirections() > 0 || world.readers().is_disowned(stem) ||
                    !world.disk().rotten_bytes(*files.data).empty())) {
      continue;
    }
    if (files.data) ++complete;
    if (files.part) ++partial;
    if (!files.data && !files.part)
      return Violation{"S11 Books", stem + ": a sidecar without data"};
  }
  if (complete != status.objects_cached || partial != status.objects_partial) {
    return Violation{"S11 Books", "the disk holds " + std::to_string(complete) + " complete and " +
                                      std::to_string(partial) + " partial objects, the books " +
                                      std::to_string(status.objects_cached) + " and " +
                                      std::to_string(status.objects_partial) + ": " +
                                      world.describe()};
  }
  return std::nullopt;
}

std::optional<Violation> Oracle::check_rot(const World& world) const {
  const SimDisk& disk = world.disk();
  for (const auto& [handle, file] : world.readers().files()) {
    if (!file.residency) continue;
    const std::optional<InodeId> inode = disk.inode_of(file.residency->cache_file());
    const auto rotten = inode ? rotten_at_start_.find(*inode) : rotten_at_start_.end();
    if (rotten == rotten_at_start_.end()) continue;
    for (const std::uint64_t offset : rotten->second) {
      const std::uint64_t block = offset / file.residency->block_size_bytes();
      if (file.residency->is_resident(block) && disk.is_rotten(*inode, offset, 1)) {
        return Violation{"S13 Rot", file.path + ": block " + std::to_string(block) +
                                        " was rotten at the start and is resident"};
      }
    }
  }
  const SimIo& io = world.life()->io();
  // An object whose removal has begun for another reason is no business of the verification.
  const bool is_excused = io.cache_failures() > 0 || world.readers().has_sent_fault();
  if (world.readers().found_rotten().empty() || !io.pending().empty() || is_excused) {
    return std::nullopt;
  }
  for (const auto& [stem, files] : objects_of(disk.names_cached())) {
    const bool is_found = files.data && world.readers().found_rotten().contains(*files.data);
    if (is_found && files.meta && !disk.rotten_bytes(*files.data).empty()) {
      return Violation{"S13 Rot", stem + " is rotten and outlived a verification"};
    }
  }
  return std::nullopt;
}

// A leaky bucket: it holds what was read in the worst window that ends now, above the rate.
std::optional<Violation> Oracle::check_pace(const World& world) {
  const Config& config = world.life()->config();
  const std::uint64_t copied = world.life()->engine().status().source_bytes_copies;
  const auto rate = static_cast<double>(config.copy_bytes_per_second);
  const auto seconds = [](Nanos time) { return static_cast<double>(time) / kSecond; };
  // When in a step that takes long is not known: what may have been early is taken to have been.
  const double since = rate * seconds(world.now() - copied_at_);
  copied_ahead_ += static_cast<double>(copied - copied_bytes_);
  copied_ahead_ = std::max(0.0, copied_ahead_ - since);
  copied_at_ = world.now();
  copied_bytes_ = copied;
  // Times are rounded: a byte's worth.
  const double allowed =
      rate * seconds(TokenBucket::kBurst) + static_cast<double>(config.block_size_bytes) + 1;
  if (config.copy_bytes_per_second == 0 || copied_ahead_ <= allowed) return std::nullopt;
  return Violation{"S18 Pace", "copies read " + std::to_string(copied_ahead_) +
                                   " bytes more than their ceiling allows"};
}

// No copy begins of what the rules in force leave out, under the name it has then.
std::optional<Violation> Oracle::check_rules(World& world) {
  const std::vector<std::string> started = world.readers().take_started();
  if (started.empty()) return std::nullopt;
  const Config& config = world.life()->config();
  const std::uint64_t size_max = config.max_file_size_bytes;
  const EngineStatus status = world.life()->engine().status();
  for (const std::string& path : started) {
    if (!config.paths.admit(path)) return Violation{"S16 Rules", path + " is left out but copied"};
    for (const CopyStatus& copy : status.copies) {
      if (copy.path == path && size_max > 0 && copy.size_bytes > size_max) {
        return Violation{"S16 Rules", path + " is too large but copied"};
      }
    }
  }
  return std::nullopt;
}

}  // namespace ncfs
