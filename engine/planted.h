// Canaries: bugs that can be planted in the engine, to see that the simulator catches each of them
// under the name of the invariant it breaks (proptests/planted_test.cc).
//
// NCFS_PLANT(bug) is the constant false in the product: no symbol, no code, no cost. The libraries
// *_canary are the same sources compiled with NCFS_CANARY; there it tells whether the test has
// planted that bug, and a broken NCFS_ASSERT throws.
//
// A new bug is a line in a table and `NCFS_PLANT(its_name)` at the place of the mistake. The second
// table is that of the metadata cache (proptests/metadata_planted_test.cc).
#pragma once

#ifndef NCFS_CANARY
#define NCFS_PLANT(bug) false
#else
#define NCFS_PLANT(bug) (::ncfs::planted_bug == ::ncfs::Bug::bug)

#include <cstdint>

// Name, what is wrong, and the invariant that must be reported first.
// clang-format off
#define NCFS_BUGS(X) \
  X(short_read_handed_on, "a short read is taken for the end of the file unasked", "S1 ReadTruth") \
  X(joined_bytes_misplaced, "who joins a fetch gets its bytes from the start", "S1 ReadTruth") \
  X(old_fetch_joined, "an open within the racy window shares what was fetched before", "S14 Fresh") \
  X(version_not_checked, "published though the source changed during the copy", "S14 Fresh") \
  X(racy_window_ignored, "young timestamps are trusted at once", "S2 CommitTruth") \
  X(published_at_submit, "a block is resident before its write has completed", "S3 Residency") \
  X(failed_write_ignored, "a write that failed is taken for a good one", "S3 Residency") \
  X(data_not_synced, "the sidecar is stored without a sync of the data", "S3 Residency") \
  X(directory_not_synced, "a copy is finished before its names are durable", "S3 Residency") \
  X(sidecar_ahead_of_sync, "the sidecar vouches for blocks written after the sync", "S3 Residency") \
  X(stopped_too_early, "a stop does not wait for the last checkpoint", "S3 Residency") \
  X(damaged_sidecar_trusted, "recovery does not look at the checksum", "S3 Residency") \
  X(partial_recovered_as_whole, "recovery ignores the bitmap", "S3 Residency") \
  X(serial_reused, "every object gets the same serial", "S3 Residency") \
  X(sidecars_not_charged, "an object is charged for its data alone", "S4 Space") \
  X(room_not_made, "space is taken without making room", "S4 Space") \
  X(mapping_ignored, "a file is unlinked without asking who still maps it", "S4 Space") \
  X(stored_before_recovered, "new objects are made before the old ones are known", "S4 Space") \
  X(growth_not_charged, "a cache file may grow for nothing", "S4 Space") \
  X(closed_under_reader, "a cache file is closed while handles are open", "S5 Pins") \
  X(removed_under_reader, "a cache file is unlinked and closed while handles are open", "S5 Pins") \
  X(in_use_evictable, "open objects and objects being filled may be evicted", "S5 Pins") \
  X(newest_evicted, "the most recently used object is evicted first", "S5 Pins") \
  X(fetch_not_shared, "a reader fetches a block that is being fetched", "S6 OneFetch") \
  X(source_reads_unbounded, "readers may have any number of source reads", "S6 OneFetch") \
  X(reader_behind_copies, "a reader waits until no copy reads the source", "S7 NeverWait") \
  X(copies_take_all_reads, "copies take the source reads reserved for readers", "S7 NeverWait") \
  X(open_without_patience, "an open waits for the cache as long as that takes", "S7 NeverWait") \
  X(cache_error_to_reader, "a reader whose cache file failed gets the error", "S8 Degrade") \
  X(errno_of_source_lost, "every error of the source becomes EIO", "S8 Degrade") \
  X(sync_retried, "a failed sync is tried again", "S9 SyncOnce") \
  X(failed_sync_ignored, "a failed sync is taken for a good one", "S9 SyncOnce") \
  X(cached_without_commit, "an object with all its blocks is called cached", "S10 Transitions") \
  X(renamed_before_sync, "the data gets its final name instead of a sync", "S10 Transitions") \
  X(complete_too_early, "an open of a partial object is called complete", "S10 Transitions") \
  X(waste_not_counted, "what was fetched ahead for nothing is in no count", "S11 Books") \
  X(ledger_not_released, "an evicted object stays charged", "S11 Books") \
  X(reservation_forgotten, "what a failed copy had reserved stays reserved", "S11 Books") \
  X(sidecar_left_behind, "an object is removed, its sidecar stays", \
    "S4 Space; S11 Books while the charges of others cover it") \
  X(address_in_name, "the name of an object depends on an address", "S12 Same") \
  X(disowned_before_sync, "a write begins before the sidecar is gone durably", "S2 CommitTruth") \
  X(disowned_read_shared, "a handle reads what was fetched before our own write", "S14 Fresh") \
  X(disowned_copy_goes_on, "a copy in flight goes on after our own write", "S14 Fresh") \
  X(mtime_ignored, "what another client wrote is taken for our own change", \
    "S2 CommitTruth, S3 Residency or S14 Fresh") \
  X(rekeyed_copy_unchecked, "a re-keyed copy is published unasked", "S2 CommitTruth or S14 Fresh") \
  X(rules_ignored, "what max_file_size, include and exclude leave out is copied", "S16 Rules") \
  X(rank_ignored, "an opened file waits for its copy among those that are only warmed", "S17 Order") \
  X(ceiling_ignored, "copies read the source as fast as it goes", "S18 Pace") \
  X(yield_ignored, "copies ask for whole blocks however long readers wait", "S19 Yield") \
  X(wake_up_lost, "a copy whose time has come is queued, nobody starts it", "L1 Cached or L4 BackOff") \
  X(source_left_open, "a file of the source that nobody needs stays open", "L2 Zero") \
  X(checksum_not_compared, "a cached block is returned without a look at its checksum", "S13 Rot") \
  X(resident_prefetched, "readahead fetches what is in the cache", "S15 OnceOverTheWire") \
  X(checkpoint_not_awaited, "blocks are written however many are not durable yet", "L3 Resume")

#define NCFS_METADATA_BUGS(X) \
  X(age_ignored, "an answer is good for its whole timeout, however old it is", "M1 Age") \
  X(creation_not_noticed, "a name that this mount made stays known to be absent", "M2 OwnChanges") \
  X(racing_look_up_kept, "a look-up from before a change is kept after it", \
    "M2 OwnChanges; M8 Observed for changes by others") \
  X(young_timestamps_trusted, "equal timestamps prove no change, however young", \
    "M4 CloseToOpen; M3 OneMoment for listings") \
  X(listing_not_validated, "a listing is served whatever the directory says", "M3 OneMoment") \
  X(racing_listing_kept, "a listing from before a creation is kept after it", "M2 OwnChanges") \
  X(only_mtime_compared, "a restored mtime hides a change", \
    "M4 CloseToOpen; M7 Viewer if it was a change of permissions") \
  X(name_not_revalidated, "an open does not ask where its name leads", "M4 CloseToOpen") \
  X(names_not_bounded, "names are kept without bound", "M5 Bytes") \
  X(stale_told_twice, "a thread is told to look up again twice in a row", "M6 StaleOnce") \
  X(viewer_ignored, "what one caller was shown is shown to all", "M7 Viewer") \
  X(change_of_parent_ignored, "names stay known when their directory was seen to change", \
    "M8 Observed; M7 Viewer if it was a change of permissions") \
  X(own_change_of_file_ignored, "attributes stay known after this mount changed them", \
    "M2 OwnChanges") \
  X(inval_ignored, "an open is told to look up again though stale_open=inval", "M6 StaleOnce") \
  X(stand_in_unbounded, "in place of a backend that is down anything is told, however old", \
    "M1 Age; M7 Viewer of a change of permissions") \
  X(stand_in_believed, "what is told in place of the backend is given to the kernel to believe", \
    "M1 Age") \
  X(stand_in_made_fresh, "what was told in place of the backend is believed on when it is back", \
    "M1 Age") \
  X(passing_listing_served, "a listing begins with one that is for who has begun", \
    "M2 OwnChanges; M3 OneMoment for changes by others")
// clang-format on

namespace ncfs {

enum class Bug : std::uint8_t {
  none,
#define NCFS_BUG(name, wrong, invariant) name,
  NCFS_BUGS(NCFS_BUG) NCFS_METADATA_BUGS(NCFS_BUG)
#undef NCFS_BUG
};

inline Bug planted_bug = Bug::none;

}  // namespace ncfs
#endif
