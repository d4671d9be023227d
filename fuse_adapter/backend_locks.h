// Locks of fcntl(2) and flock(2) taken on the source, so that they hold against its other users:
// the other clients of a server, and whoever uses the tree past this mount.
//
// A lock of fcntl(2) is taken on an open file description (F_OFD_SETLK) of which each owner has one
// of its own for each file; one of flock(2) on the handle's own description.
//
// Laws:
//   * what is held on the source is in the LockTable, and only that: it knows the process, and
//     finds those who wait for each other;
//   * the source is never asked to wait. Who waits for users of this mount is woken when they let
//     go; for others the source is asked again, after kAskAgainMin, then twice as long, up to
//     kAskAgainMax;
//   * every request is answered once; an interrupted one within the time of one call of the source,
//     or the deadline;
//   * what was granted too late for anybody to be told is given back.
//
// Any thread; no function waits for the source but through the pool.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "fuse_adapter/backends.h"
#include "fuse_adapter/job_pool.h"
#include "fuse_adapter/lock_table.h"
#include "io/descriptor.h"

namespace ncfs {

class BackendLocks {
 public:
  // NFSv4 clients ask their server every second at least to begin with; neighbours on one machine
  // let go sooner.
  static constexpr Nanos kAskAgainMin = 10 * kMillisecond;
  static constexpr Nanos kAskAgainMax = kSecond;

  // `deadline` of one call of the source. What `backends` takes to be down is asked for no lock,
  // and it is told how the calls end. Throws std::system_error.
  BackendLocks(LockTable& table, Nanos deadline, std::shared_ptr<Backends> backends);
  ~BackendLocks();
  BackendLocks(const BackendLocks&) = delete;
  BackendLocks& operator=(const BackendLocks&) = delete;

  using Kind = LockTable::Kind;
  using Lock = LockTable::Lock;
  using Owner = LockTable::Owner;
  // Opens the file anew, for reading and, if that may be, writing. `error` is 0 or an errno.
  using Open = std::function<Descriptor(int& error)>;
  // False if nobody was told.
  using Answer = std::function<bool(int error)>;

  struct Request {
    FileKey file;
    Kind kind = Kind::posix;
    Lock lock;
    Open open;        // for fcntl(2)
    int handle = -1;  // for flock(2): the description that holds the lock
    // Called with 0, EAGAIN, EDEADLK, EINTR, ETIMEDOUT, ENOLCK or what the source says. Keeps alive
    // what the request needs, this included.
    Answer answer;
  };
  void try_lock(Request request);
  // As LockTable::Patient; asked by this call alone.
  void lock(Request request, LockTable::Ticket ticket, const std::function<bool()>& is_interrupted);
  void interrupt(LockTable::Ticket ticket);
  // Of the range of the lock.
  void unlock(Request request);
  // What stands in the way of the lock of fcntl(2), with an error of 0.
  using Found = std::function<void(int error, const std::optional<Lock>& lock)>;
  void find_conflict(Request request, Found found);

  // The locks of fcntl(2) of an owner on a file. Empty if it has asked for none.
  class Held;
  [[nodiscard]] std::shared_ptr<Held> take(const FileKey& file, Owner owner);
  // Gives them back, then calls `done`, which keeps this alive; if the source does not answer, not
  // after the deadline.
  void give_back(std::shared_ptr<Held> held, std::function<void()> done);

  // Nobody is answered any more.
  void stop(std::chrono::nanoseconds patience);

 private:
  struct Wish;
  using WishPointer = std::shared_ptr<Wish>;

  [[nodiscard]] std::shared_ptr<Held> held(const FileKey& file, Owner owner);
  [[nodiscard]] bool has_any(const FileKey& file, Owner owner);
  template <typename Use>
  [[nodiscard]] int use_description(const Request& request, const Use& use);
  [[nodiscard]] int take_now(const Request& request);
  [[nodiscard]] int unlock_now(const Request& request);
  // A call of the source about the file: `call` tells its errno.
  [[nodiscard]] bool ask(const FileKey& file, const std::function<int()>& call,
                         std::function<void()> expire);
  void submit(const WishPointer& wish);
  int attempt(const WishPointer& wish);
  void wait(const WishPointer& wish);
  [[nodiscard]] bool is_given_up(const WishPointer& wish) const;
  void ask_again_later(const WishPointer& wish);
  void answer(const WishPointer& wish, int error);
  void watch();

  LockTable& table_;
  const std::shared_ptr<Backends> backends_;
  std::mutex mutex_;  // guards what follows; never held while the source is called
  std::map<std::pair<FileKey, Owner>, std::shared_ptr<Held>> held_;
  std::unordered_map<LockTable::Ticket, WishPointer> waiting_;  // asked to wait, not answered
  std::multimap<Nanos, WishPointer> later_;                     // by when to ask again
  bool is_stopped_ = false;
  std::condition_variable changed_;
  JobPool pool_;
  std::thread watch_;
};

}  // namespace ncfs
