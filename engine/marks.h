// Coverage marks: branches that are taken seldom, and that a soak of the simulator has to reach.
//
// NCFS_MARK(name) costs nothing in the product: it is empty unless NCFS_MARKS is defined, as it is
// in the build of the engine that the simulator runs. There the counts go to `coverage_sink`, if
// that is set; control thread only. A mark is added here and where it is reached, nowhere else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ncfs {

#define NCFS_MARKS_LIST(MARK)                                                                \
  MARK(open_loses_patience)        /* answered before the cache had */                       \
  MARK(open_waits_for_shard)       /* recovery has not seen its objects yet */               \
  MARK(read_found_resident)        /* became resident between plan and question */           \
  MARK(fetch_joined)               /* a reader shares a fetch in flight */                   \
  MARK(fetch_shared_from_memory)   /* a reader is answered from a block still in a buffer */ \
  MARK(fetch_makes_way)            /* older than the open that wants its bytes */            \
  MARK(fetch_of_a_few_bytes)       /* a random reader */                                     \
  MARK(fetch_tried_alone)          /* a joined fetch failed with another's handle */         \
  MARK(source_shrank)              /* short, and the source says why */                      \
  MARK(short_read_repeated)        /* short without a reason */                              \
  MARK(reader_takes_buffer)        /* of a block that waited for the cache disk */           \
  MARK(racy_block_not_kept)        /* fetched while the file could change unseen */          \
  MARK(write_waits_for_checkpoint) /* a crash would cost too much */                         \
  MARK(write_failed)                                                                         \
  MARK(checkpoint_failed)                                                                    \
  MARK(changed_before_commit) /* the source has another version after the last byte */       \
  MARK(commit_unanswered)     /* the source cannot say */                                    \
  MARK(victim_in_use)         /* an evicted file is mapped, or read by a kernel */           \
  MARK(removal_postponed)     /* the disk does not let go of a file */                       \
  MARK(create_failed)                                                                        \
  MARK(copy_waits_for_room)      /* eviction is under way */                                 \
  MARK(copy_finds_no_room)       /* everything is in use */                                  \
  MARK(copy_opens_source)        /* no reader's handle to use */                             \
  MARK(copy_avoids_stale_handle) /* the server restarted */                                  \
  MARK(copy_overtaken)           /* the source changed before the copy opened it */          \
  MARK(shard_scanned_again)                                                                  \
  MARK(sidecar_damaged)                                                                      \
  MARK(block_size_changed) /* a partial object of another block size */                      \
  MARK(debris_removed)                                                                       \
  MARK(debris_given_up)       /* nothing could remove it */                                  \
  MARK(disown_of_an_object)   /* its sidecar goes */                                         \
  MARK(disown_in_doubt)       /* a late request could bring the sidecar back */              \
  MARK(disown_refused)        /* the disk is down */                                         \
  MARK(read_past_the_cache)   /* by a handle whose object was disowned */                    \
  MARK(rekey_refused)         /* somebody else's write could hide */                         \
  MARK(rekey_before_recovery) /* its sidecar has not been found yet */                       \
  MARK(rekey_merges)          /* an open saw the new version first */                        \
  MARK(rekey_takes_up_again)  /* a copy that was given up for our own change */              \
  MARK(growth_charged)        /* a cache file may follow its file */                         \
  MARK(growth_waits_for_room) /* eviction is under way */                                    \
  MARK(growth_refused)        /* everything is in use */                                     \
  MARK(growth_loses_patience) /* no room came in time */                                     \
  MARK(copy_makes_way)        /* for one of a better rank */                                 \
  MARK(copy_paced)            /* by the ceiling of all copies, or of its warm-up */          \
  MARK(copy_yields)           /* to readers of its file system */

enum class Mark : std::uint8_t {
#define NCFS_MARK_NAME(name) name,
  NCFS_MARKS_LIST(NCFS_MARK_NAME)
#undef NCFS_MARK_NAME
};
#define NCFS_MARK_ONE(name) +1
inline constexpr std::size_t kMarkCount = 0 NCFS_MARKS_LIST(NCFS_MARK_ONE);
#undef NCFS_MARK_ONE

inline constexpr std::size_t kObjectStateCount = 6;

// How often each mark was reached, and each way from one ObjectState to another taken.
struct Coverage {
  std::array<std::uint64_t, kMarkCount> marks{};
  std::array<std::array<std::uint64_t, kObjectStateCount>, kObjectStateCount> transitions{};
};

#ifdef NCFS_MARKS
inline Coverage* coverage_sink = nullptr;
#define NCFS_MARK(name)                                                             \
  do {                                                                              \
    if (::ncfs::coverage_sink != nullptr)                                           \
      ++::ncfs::coverage_sink->marks[static_cast<std::size_t>(::ncfs::Mark::name)]; \
  } while (false)
#define NCFS_TRANSITION(from, to)                                                        \
  do {                                                                                   \
    if (::ncfs::coverage_sink != nullptr)                                                \
      ++::ncfs::coverage_sink                                                            \
            ->transitions[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)]; \
  } while (false)
#else
#define NCFS_MARK(name) static_cast<void>(0)
#define NCFS_TRANSITION(from, to) static_cast<void>(0)
#endif

}  // namespace ncfs
