// The promises of the product, looked at after every step of a plan. Their names are used in
// messages and elsewhere:
//
//   S1 ReadTruth    every byte returned is what some source version current between the handle's
//                   open and the answer held there (checked by Readers)
//   S2 CommitTruth  a complete object (.data and a .meta that says all blocks) is exactly the
//                   recorded version of its source, now and after any crash
//   S3 Residency    a set block bit means written; a block recorded as durable is durable; what was
//                   reported as copied, and after a stop all that was resident, survives every
//                   crash
//   S4 Space        what the disk holds never exceeds the limit, which may be changed at any time,
//                   nor what the engine accounts for; nothing is created that leaves less of the
//                   disk free than min_free_percent (the latter checked by SimIo)
//   S5 Pins         nothing is closed, unlinked, overwritten or reused while somebody uses it
//                   (partly checked by SimIo and Readers); of the rest the least recently used
//                   goes first (checked by its own property); what is pinned stays, across
//                   crashes, too
//   S6 OneFetch     a block is fetched by one request at a time; every queue keeps its bound
//                   (checked by SimIo)
//   S7 NeverWait    a read depends only on its own bytes (checked by its own property)
//   S8 Degrade      no error reaches a reader that the source did not cause (checked by Readers);
//                   while the cache disk is down nothing but probes goes to it, no reader is sent
//                   to it, and no open waits
//   S9 SyncOnce     a failed sync is not repeated, nor its data published (checked by SimIo)
//   S10 Transitions data gets its final name after its sync; an open is called complete when
//                   everything is there (checked by SimIo and Readers)
//   S11 Books       the engine's books agree with each other (Engine::check_invariants) and, at
//                   rest, with the disk
//   S12 Same        the same plan leaves the same trace (checked by its own test)
//   S13 Rot         with Checksum::read no rotten or misdirected byte of the cache is returned
//                   (checked by Readers); with any checksums what was rotten when a verification of
//                   everything began is gone when it has ended, and a block of a partial object
//                   that was rotten when the process started is not resident
//   S14 Fresh       a handle opened after a change never gets older bytes; what is published was
//                   compared with the source after its last byte (checked by Readers and SimIo)
//   S15 OnceOverTheWire  a block that is in the cache is not fetched again; without faults and with
//                   room for everything, each byte of a file crosses once (own property)
//   L1 Cached       after heal(), every wanted file that fits becomes cached
//   L2 Zero         after heal() and the last close, nothing is held any more
//   L3 Resume       a crash costs a copy at most checkpoint_bytes and one block for each write in
//                   flight; recovery ends even if debris cannot be removed (own test)
//   L4 BackOff      a copy that fails for good is tried ever more rarely, and keeps no other file
//                   from being cached
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "engine/config.h"
#include "engine/event.h"
#include "engine/format.h"
#include "sim/disk.h"
#include "sim/nfs.h"
#include "sim/plan.h"
#include "sim/violation.h"

namespace ncfs {

class World;

class Oracle {
 public:
  void begin_life(const SimDisk& disk, const Config& config);
  [[nodiscard]] std::optional<Violation> check(World& world);
  // L3, while the process that is about to die is still there.
  [[nodiscard]] static std::optional<Violation> check_crash_cost(const World& world);
  // This life found names that a killed process had not made durable: taken as they were found.
  [[nodiscard]] bool has_found_loose_names() const { return has_found_loose_names_; }

 private:
  // The files of one stem in one view of the directory.
  struct ObjectFiles {
    std::optional<InodeId> part;
    std::optional<InodeId> data;
    std::optional<InodeId> meta;
  };
  using Objects = std::map<std::string, ObjectFiles>;

  [[nodiscard]] static Objects objects_of(const SimDisk::Names& names);
  [[nodiscard]] std::optional<Violation> check_objects(const World& world, bool is_durable_view);
  [[nodiscard]] std::optional<Violation> check_object(const World& world, const std::string& stem,
                                                      const ObjectFiles& files,
                                                      bool is_durable_view);
  [[nodiscard]] std::optional<Violation> check_residencies(const World& world);
  [[nodiscard]] std::optional<Violation> check_space(const World& world);
  [[nodiscard]] std::optional<Violation> check_pins(const World& world) const;
  [[nodiscard]] std::optional<Violation> check_pinned(World& world) const;
  [[nodiscard]] std::optional<Violation> check_finished(World& world) const;
  [[nodiscard]] std::optional<Violation> check_stopped(const World& world) const;
  [[nodiscard]] std::optional<Violation> check_books(const World& world) const;
  [[nodiscard]] std::optional<Violation> check_degrade(const World& world);
  [[nodiscard]] std::optional<Violation> check_once(const World& world);
  [[nodiscard]] std::optional<Violation> check_rot(const World& world) const;
  [[nodiscard]] static std::optional<Violation> check_rules(World& world);
  [[nodiscard]] std::optional<Violation> check_pace(const World& world);

  // What was found good, by everything it depends on: most steps change nothing on the disk.
  std::map<std::string, std::uint64_t> good_;
  std::uint64_t changes_seen_ = ~std::uint64_t{0};
  std::uint64_t charged_max_ = 0;  // used + reserved may shrink to the limit, but not grow past it
  bool was_recovering_ = false;
  std::uint64_t health_changes_ = 0;
  std::uint64_t cache_requests_ = 0;  // when health_changes_ was seen first
  bool has_found_loose_names_ = false;
  // Files without a name that others held when this life began: no engine can know of them.
  std::uint64_t invisible_bytes_ = 0;
  // What readers knew to be resident after the last step, and the requests submitted until then.
  struct Resident {
    std::shared_ptr<Residency> residency;
    BlockSet blocks;
  };
  std::map<HandleId, Resident> resident_before_;
  std::set<ReadToken> waiting_before_;  // reads that waited for the engine
  std::uint64_t requests_seen_ = 0;
  // What copies have read, and of it what the ceiling does not account for yet; and when.
  std::uint64_t copied_bytes_ = 0;
  double copied_ahead_ = 0;
  Nanos copied_at_ = 0;
  // Partial data files of an earlier life that have checksums: bytes that were rotten then.
  std::map<InodeId, std::set<std::uint64_t>> rotten_at_start_;
};

// S7: one file is opened and read while the cache disk hangs and of the source only those reads
// complete that overlap what readers wait for. The open is answered within its patience, and the
// read as soon as its own bytes are there. Reads of blocks that are cached already are let go, as
// they do depend on the disk.
struct NeverWaitProbe {
  std::uint64_t file = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  // Copies of all files have taken what they may before.
  bool is_among_copies = false;
};
[[nodiscard]] std::optional<Violation> check_never_wait(World& world, const NeverWaitProbe& probe);

// L1, L2 and L4: heals the world, lets it finish, closes everything, opens each file alone, then
// two of which one cannot be copied, and stops.
[[nodiscard]] std::optional<Violation> check_liveness(World& world);

// S5: heals the world, lets it finish and uses one file after the other: no file may leave the
// cache while one that was used less recently stays.
[[nodiscard]] std::optional<Violation> check_eviction_order(World& world);

// S12: the plan and check_liveness() in two worlds side by side. Both are alive all the time, so
// what has an address has another one in each.
[[nodiscard]] std::optional<Violation> check_same(std::span<const Step> plan);

}  // namespace ncfs
