// Advisory locks on files, of fcntl(2) and of flock(2), as one kernel keeps them for one of its
// files. The kernel's own would not do: it keeps them by node, and a file may have several.
//
// Laws:
//   * two locks of one kind and one file overlap only if they have one owner or both are shared;
//     locks of different kinds do not see each other;
//   * a lock replaces what its owner holds in its range; for flock(2), whose ranges are all the
//     file, what the owner holds is given up before the other is waited for, or refused;
//   * a lock that has to wait is granted as soon as nothing held stands in its way, in the order of
//     arrival; its answer comes once: 0, or EINTR by interrupt();
//   * a lock of fcntl(2) that would wait for somebody who, directly or not, waits for its own owner
//     is refused with EDEADLK.
//
// Any thread; no function waits. Answers are given without the table's lock, by the thread whose
// call made them possible.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "fuse_adapter/inode_table.h"

namespace ncfs {

class LockTable {
 public:
  using Owner = std::uint64_t;   // as the kernel numbers them
  using Ticket = std::uint64_t;  // of one who waits; of the caller's choice, unlike all others'
  enum class Kind : std::uint8_t { posix, flock };

  static constexpr std::uint64_t kLastByte = INT64_MAX;  // and all that may come after

  struct Lock {
    Owner owner = 0;
    bool is_exclusive = false;
    std::uint64_t first = 0;
    std::uint64_t last = kLastByte;  // included
    pid_t process = 0;               // for who asks
    friend bool operator==(const Lock&, const Lock&) = default;
  };

  // 0, EAGAIN if it would have to wait, or ENOLCK if there are too many.
  [[nodiscard]] int try_lock(const FileKey& file, Kind kind, const Lock& lock);
  using Done = std::function<void(int error)>;
  struct Patient {
    Ticket ticket = 0;
    Done done;
    // Asked, with the table locked, before it waits. Whoever makes it true calls interrupt() then.
    std::function<bool()> is_interrupted;
  };
  // 0, ENOLCK, EDEADLK, EINTR, or nothing: `done` will be called.
  [[nodiscard]] std::optional<int> lock(const FileKey& file, Kind kind, const Lock& lock,
                                        Patient patient);
  // Nobody has it any more, or it was answered already: nothing happens.
  void interrupt(Ticket ticket);
  void unlock(const FileKey& file, Kind kind, Owner owner, std::uint64_t first = 0,
              std::uint64_t last = kLastByte);

  // For locks that somebody else grants, and that are only recorded here (backend_locks.h).
  // The owner holds it now.
  void note(const FileKey& file, Kind kind, const Lock& lock);
  // As lock(), but takes nothing: 0 and done(0) say that nothing recorded stands in its way.
  [[nodiscard]] std::optional<int> await(const FileKey& file, Kind kind, const Lock& lock,
                                         Patient patient);
  [[nodiscard]] bool is_full() const;

  // What stands in the way of the lock, if anything; of several locks, the one that begins first.
  [[nodiscard]] std::optional<Lock> conflict(const FileKey& file, Kind kind,
                                             const Lock& lock) const;

  // For tests: what is held, in no particular order, and how many wait.
  [[nodiscard]] std::vector<Lock> held(const FileKey& file, Kind kind) const;
  [[nodiscard]] std::size_t waiting() const;

  // Far more than programs use; a program that leaks locks does not take all memory.
  static constexpr std::size_t kLocksMax = 65'536;
  static constexpr std::size_t kWaitersMax = 4'096;

 private:
  struct Waiter {
    Ticket ticket = 0;
    Lock lock;
    Done done;
    bool takes = true;  // not only told when it could
  };
  // The locks of one kind on one file.
  struct Locks {
    std::vector<Lock> held;
    std::list<Waiter> waiters;  // in the order of arrival
  };
  using Key = std::pair<FileKey, Kind>;
  using Table = std::map<Key, Locks>;

  [[nodiscard]] static const Lock* find_conflict(const Locks& locks, const Lock& lock);
  [[nodiscard]] int take(Locks& locks, Kind kind, const Lock& lock, std::vector<Done>& granted);
  void cut(Locks& locks, Owner owner, std::uint64_t first, std::uint64_t last);
  void insert(Locks& locks, const Lock& lock);
  void grant(Locks& locks, std::vector<Done>& granted);
  [[nodiscard]] std::optional<int> enlist(Table::iterator entry, const Lock& lock, Patient patient,
                                          bool takes);
  [[nodiscard]] bool would_deadlock(const Locks& locks, const Lock& lock) const;
  void drop_if_empty(Table::iterator entry);

  mutable std::mutex mutex_;
  Table table_;
  std::unordered_map<Ticket, Key> waiting_;
  std::size_t held_count_ = 0;
};

// Which owners have asked for locks of fcntl(2) through which open handle; those locks end with it
// at the latest. Any thread.
class LockOwners {
 public:
  void add(std::uint64_t handle, LockTable::Owner owner);
  // And forgets them.
  [[nodiscard]] std::set<LockTable::Owner> take(std::uint64_t handle);
  // Whether there ever were some.
  [[nodiscard]] bool any() const { return any_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> any_{false};
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::set<LockTable::Owner>> owners_;
};

}  // namespace ncfs
