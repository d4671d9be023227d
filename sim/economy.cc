// S15 and L3: no byte crosses the network twice without need, and what a crash may cost.
#include <algorithm>
#include <string>

#include "engine/format.h"
#include "sim/oracle.h"
#include "sim/world.h"

namespace ncfs {

// What was resident before and after the step was resident when the step's requests were submitted.
std::optional<Violation> Oracle::check_once(const World& world) {
  const SimIo& io = world.life()->io();
  std::optional<Violation> violation;
  for (auto pending = io.pending().rbegin(); pending != io.pending().rend(); ++pending) {
    if (pending->sequence < requests_seen_ || violation) break;
    const Request& request = pending->request;
    if (request.op != Op::source_read || !world.nfs().is_open(request.file)) continue;
    const SourceInode inode = world.nfs().inode_of(request.file);
    const SourceVersion& version = io.source_state(request.file).version;
    if (io.reads_alone(request.file)) continue;
    // Readers told of a failure read for themselves.
    if (io.has_failed(inode) || world.readers().has_sent_fault()) continue;
    for (const auto& [handle, file] : world.readers().files()) {
      const auto before = resident_before_.find(handle);
      if (before == resident_before_.end() || before->second.residency != file.residency) continue;
      const std::uint64_t block = request.range.offset / file.residency->block_size_bytes();
      const bool is_block = file.inode == inode && file.version == version &&
                            block < file.residency->block_count() &&
                            request.range == file.residency->block_range(block);
      if (!is_block || !before->second.blocks.test(block)) continue;
      if (!file.residency->is_resident(block)) continue;
      // A fetch may have been asked for, and have waited for its turn, before the block came.
      const auto& reads = world.readers().reads();
      const bool was_asked_for = std::any_of(reads.begin(), reads.end(), [&](const auto& read) {
        return waiting_before_.contains(read.token) &&
               read.segment.offset / file.residency->block_size_bytes() == block;
      });
      if (was_asked_for) continue;
      violation = Violation{"S15 OnceOverTheWire", "block " + std::to_string(block) + " of " +
                                                       file.path + " is in the cache already"};
    }
  }
  requests_seen_ = io.next_sequence();
  waiting_before_.clear();
  for (const ActiveRead& read : world.readers().reads()) {
    if (read.phase == ActiveRead::Phase::waiting) waiting_before_.insert(read.token);
  }
  resident_before_.clear();
  for (const auto& [handle, file] : world.readers().files()) {
    if (!file.residency) continue;
    BlockSet blocks(file.residency->block_count());
    for (std::uint64_t block = 0; block < blocks.block_count(); ++block) {
      if (file.residency->is_resident(block)) blocks.set(block);
    }
    resident_before_[handle] = {file.residency, std::move(blocks)};
  }
  return violation;
}

// The bytes of each partial file that were written in this life and that no sidecar vouches for,
// should the power fail now.
std::optional<Violation> Oracle::check_crash_cost(const World& world) {
  const SimDisk& disk = world.disk();
  const SimIo& io = world.life()->io();
  const Config& config = world.life()->config();
  const std::uint64_t bound =
      config.checkpoint_bytes + config.cache_writes_max * config.block_size_bytes;
  const SimDisk::Names durable_names = disk.names_durable();
  for (const auto& [name, inode] : disk.names_cached()) {
    if (!name.ends_with(suffix(NameKind::partial)) || disk.is_lied_about(name)) continue;
    const std::string stem = name.substr(0, name.size() - suffix(NameKind::partial).size());
    if (world.readers().is_disowned(stem)) continue;
    const auto meta = durable_names.find(stem + std::string(suffix(NameKind::sidecar)));
    std::optional<Sidecar> sidecar;
    if (meta != durable_names.end()) {
      if (disk.is_lied_about(meta->second)) continue;
      sidecar = decode(disk.view(meta->second).durable);
    }
    std::uint64_t lost = 0;
    for (const ByteRange& range : io.written_ranges(inode)) {
      bool is_safe = sidecar.has_value();
      for (std::uint64_t at = range.offset; is_safe && at < range.end();
           at += sidecar->block_size_bytes) {
        is_safe = sidecar->durable.test(at / sidecar->block_size_bytes);
      }
      if (!is_safe) lost += range.length;
    }
    if (lost <= bound) continue;
    return Violation{"L3 Resume", stem + ": a crash costs " + std::to_string(lost) +
                                      " bytes of this copy, more than " + std::to_string(bound)};
  }
  return std::nullopt;
}

}  // namespace ncfs
