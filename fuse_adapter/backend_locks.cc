#include "fuse_adapter/backend_locks.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <vector>

#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

// Each call is one question to the server.
constexpr std::size_t kThreads = 4;
// Each is a process that waits for its lock, or for the end of its close(2).
constexpr std::size_t kQueueMax = 4096;

struct flock flock_of(const LockTable::Lock& lock, int type) {
  struct flock result {};
  result.l_type = static_cast<short>(type);
  result.l_whence = SEEK_SET;
  result.l_start = static_cast<off_t>(lock.first);
  result.l_len =
      lock.last == LockTable::kLastByte ? 0 : static_cast<off_t>(lock.last - lock.first + 1);
  return result;
}

LockTable::Lock lock_of(const struct flock& found) {
  const auto first = static_cast<std::uint64_t>(found.l_start);
  const auto length = static_cast<std::uint64_t>(found.l_len);
  return {.is_exclusive = found.l_type == F_WRLCK,
          .first = first,
          .last = length == 0 ? LockTable::kLastByte : first + length - 1,
          .process = found.l_pid};
}

}  // namespace

class BackendLocks::Held {
 public:
  Held(LockTable& table, const FileKey& of_file, Owner of_owner)
      : table_(table), file_(of_file), owner_(of_owner) {}
  ~Held() {
    description.reset();
    table_.unlock(file_, Kind::posix, owner_);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  [[nodiscard]] const FileKey& file() const { return file_; }

  std::atomic<bool> is_taken{false};  // who finds it so starts anew
  std::mutex mutex;                   // guards the rest, and what the table says of it
  Descriptor description;

 private:
  LockTable& table_;
  const FileKey file_;
  const Owner owner_;
};

struct BackendLocks::Wish {
  Request request;
  std::optional<LockTable::Ticket> ticket = {};  // if it waits
  bool is_interrupted = false;                   // guarded by mutex_
  Nanos ask_again_after = kAskAgainMin;
};

BackendLocks::BackendLocks(LockTable& table, Nanos deadline, std::shared_ptr<Backends> backends)
    : table_(table),
      backends_(std::move(backends)),
      pool_({.name = "ncfs-locks",
             .threads = kThreads,
             .queue_max = kQueueMax,
             .deadline = deadline}),
      watch_([this] { watch(); }) {}

BackendLocks::~BackendLocks() {
  stop(std::chrono::nanoseconds(0));
}

std::shared_ptr<BackendLocks::Held> BackendLocks::held(const FileKey& file, Owner owner) {
  const std::lock_guard lock(mutex_);
  auto& known = held_[{file, owner}];
  if (!known) known = std::make_shared<Held>(table_, file, owner);
  return known;
}

bool BackendLocks::has_any(const FileKey& file, Owner owner) {
  const std::lock_guard lock(mutex_);
  return held_.contains({file, owner});
}

// `use` is given the owner's description of the file, and has it for itself.
template <typename Use>
int BackendLocks::use_description(const Request& request, const Use& use) {
  while (true) {
    const auto own = held(request.file, request.lock.owner);
    const std::lock_guard lock(own->mutex);
    if (own->is_taken) continue;
    if (!own->description.is_open()) {
      int error = 0;
      own->description = request.open(error);
      if (error != 0) return error;
    }
    return use(own->description.get());
  }
}

int BackendLocks::take_now(const Request& request) {
  if (table_.is_full()) return ENOLCK;
  if (request.kind == Kind::flock) {
    const int operation = request.lock.is_exclusive ? LOCK_EX : LOCK_SH;
    if (::flock(request.handle, operation | LOCK_NB) == 0) {
      table_.note(request.file, Kind::flock, request.lock);
      return 0;
    }
    const int error = errno;
    // What was held is given up even if the other is refused.
    if (error == EAGAIN) table_.unlock(request.file, Kind::flock, request.lock.owner);
    return error;
  }
  return use_description(request, [&](int description) {
    struct flock wanted = flock_of(request.lock, request.lock.is_exclusive ? F_WRLCK : F_RDLCK);
    if (::fcntl(description, F_OFD_SETLK, &wanted) != 0) return errno == EACCES ? EAGAIN : errno;
    table_.note(request.file, Kind::posix, request.lock);
    return 0;
  });
}

int BackendLocks::unlock_now(const Request& request) {
  const Lock& lock = request.lock;
  if (request.kind == Kind::flock) {
    const int error = ::flock(request.handle, LOCK_UN) == 0 ? 0 : errno;
    table_.unlock(request.file, Kind::flock, lock.owner);
    return error;
  }
  return use_description(request, [&](int description) {
    struct flock range = flock_of(lock, F_UNLCK);
    const int error = ::fcntl(description, F_OFD_SETLK, &range) == 0 ? 0 : errno;
    table_.unlock(request.file, Kind::posix, lock.owner, lock.first, lock.last);
    return error;
  });
}

void BackendLocks::try_lock(Request request) {
  submit(std::make_shared<Wish>(Wish{std::move(request)}));
}

void BackendLocks::lock(Request request, LockTable::Ticket ticket,
                        const std::function<bool()>& is_interrupted) {
  const auto wish = std::make_shared<Wish>(Wish{std::move(request), ticket});
  {
    const std::lock_guard guard(mutex_);
    waiting_[ticket] = wish;
  }
  if (is_interrupted()) interrupt(ticket);
  submit(wish);
}

bool BackendLocks::ask(const FileKey& file, const std::function<int()>& call,
                       std::function<void()> expire) {
  const auto judge = [backends = backends_, device = file.device](int error) {
    backends->answered(device, error);
  };
  return pool_.submit({.run = [judge, call] { judge(call()); },
                       .expire =
                           [judge, expire = std::move(expire)] {
                             judge(ETIMEDOUT);
                             expire();
                           },
                       .lane = file.device});
}

void BackendLocks::submit(const WishPointer& wish) {
  const FileKey& file = wish->request.file;
  if (backends_->is_down(file.device)) {
    answer(wish, ETIMEDOUT);
    return;
  }
  const bool accepted = ask(
      file, [this, wish] { return attempt(wish); }, [this, wish] { answer(wish, ETIMEDOUT); });
  if (!accepted) answer(wish, ENOLCK);
}

int BackendLocks::attempt(const WishPointer& wish) {
  const int error = take_now(wish->request);
  if (error == EAGAIN && wish->ticket) {
    wait(wish);
  } else {
    answer(wish, error);
  }
  return error;
}

// Or answered by the deadline.
bool BackendLocks::is_given_up(const WishPointer& wish) const {
  const auto known = waiting_.find(*wish->ticket);
  return known == waiting_.end() || known->second != wish || wish->is_interrupted || is_stopped_;
}

// Something is in the way.
void BackendLocks::wait(const WishPointer& wish) {
  const Request& request = wish->request;
  const auto is_interrupted = [this, wish] {
    const std::lock_guard lock(mutex_);
    return is_given_up(wish);
  };
  const auto result = table_.await(
      request.file, request.kind, request.lock,
      {.ticket = *wish->ticket,
       .done = [this, wish](int error) { error == 0 ? submit(wish) : answer(wish, error); },
       .is_interrupted = is_interrupted});
  if (!result) return;
  if (*result != 0) {
    answer(wish, *result);
    return;
  }
  ask_again_later(wish);
}

// Nobody of this mount is in the way.
void BackendLocks::ask_again_later(const WishPointer& wish) {
  bool waits = false;
  {
    const std::lock_guard lock(mutex_);
    waits = !is_given_up(wish);
    if (waits) later_.emplace(monotonic_now() + wish->ask_again_after, wish);
    wish->ask_again_after = std::min(2 * wish->ask_again_after, kAskAgainMax);
  }
  if (waits) {
    changed_.notify_one();
  } else {
    answer(wish, EINTR);
  }
}

void BackendLocks::watch() {
  std::unique_lock lock(mutex_);
  while (!is_stopped_) {
    if (later_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const Nanos now = monotonic_now();
    const Nanos next = later_.begin()->first;
    if (next > now) {
      changed_.wait_for(lock, std::chrono::nanoseconds(next - now));
      continue;
    }
    const WishPointer wish = std::move(later_.begin()->second);
    later_.erase(later_.begin());
    lock.unlock();
    submit(wish);
    lock.lock();
  }
}

void BackendLocks::answer(const WishPointer& wish, int error) {
  if (wish->ticket) {
    // Before the answer: the next request may have the same ticket.
    const std::lock_guard lock(mutex_);
    const auto known = waiting_.find(*wish->ticket);
    if (known != waiting_.end() && known->second == wish) waiting_.erase(known);
  }
  if (!wish->request.answer(error) && error == 0) {
    static_cast<void>(unlock_now(wish->request));
  }
}

void BackendLocks::interrupt(LockTable::Ticket ticket) {
  WishPointer asleep;
  {
    const std::lock_guard lock(mutex_);
    const auto known = waiting_.find(ticket);
    if (known == waiting_.end()) return;
    known->second->is_interrupted = true;
    const auto entry = std::ranges::find(later_, known->second,
                                         [](const auto& waiting) { return waiting.second; });
    if (entry != later_.end()) {
      asleep = std::move(entry->second);
      later_.erase(entry);
    }
  }
  if (asleep) {
    answer(asleep, EINTR);
  } else {
    table_.interrupt(ticket);
  }
}

void BackendLocks::unlock(Request request) {
  if (request.kind == Kind::posix && !has_any(request.file, request.lock.owner)) {
    request.answer(0);
    return;
  }
  const auto shared = std::make_shared<Request>(std::move(request));
  // Also of one that is down: it gives the lock back when it returns.
  const bool accepted = ask(
      shared->file,
      [this, shared] {
        const int error = unlock_now(*shared);
        shared->answer(error);
        return error;
      },
      [shared] { shared->answer(ETIMEDOUT); });
  if (!accepted) shared->answer(ENOLCK);
}

void BackendLocks::find_conflict(Request request, Found found) {
  const auto known = table_.conflict(request.file, request.kind, request.lock);
  if (known) {
    found(0, known);
    return;
  }
  if (backends_->is_down(request.file.device)) {
    found(ETIMEDOUT, std::nullopt);
    return;
  }
  const bool accepted = ask(
      request.file,
      [this, request, found] {
        struct flock answer = flock_of(request.lock, request.lock.is_exclusive ? F_WRLCK : F_RDLCK);
        const int error = use_description(request, [&answer](int description) {
          return ::fcntl(description, F_OFD_GETLK, &answer) == 0 ? 0 : errno;
        });
        const bool is_free = error != 0 || answer.l_type == F_UNLCK;
        found(error, is_free ? std::nullopt : std::optional(lock_of(answer)));
        return error;
      },
      [found] { found(ETIMEDOUT, std::nullopt); });
  if (!accepted) found(ENOLCK, std::nullopt);
}

std::shared_ptr<BackendLocks::Held> BackendLocks::take(const FileKey& file, Owner owner) {
  const std::lock_guard lock(mutex_);
  const auto known = held_.find({file, owner});
  if (known == held_.end()) return nullptr;
  auto result = std::move(known->second);
  held_.erase(known);
  result->is_taken = true;
  return result;
}

void BackendLocks::give_back(std::shared_ptr<Held> held, std::function<void()> done) {
  // Destroyed from the last: `done` keeps alive what the locks need at their end.
  struct Ending {
    std::function<void()> done;
    std::shared_ptr<Held> held;
    std::atomic<bool> is_told{false};
    void tell() {
      if (!is_told.exchange(true)) done();
    }
  };
  const JobPool::Lane lane = held->file().device;
  const auto ending = std::make_shared<Ending>();
  ending->done = std::move(done);
  ending->held = std::move(held);
  const bool accepted = pool_.submit({.run =
                                          [ending] {
                                            ending->held.reset();
                                            ending->tell();
                                          },
                                      .expire = [ending] { ending->tell(); },
                                      .lane = lane});
  if (!accepted) ending->tell();
}

void BackendLocks::stop(std::chrono::nanoseconds patience) {
  std::vector<LockTable::Ticket> tickets;
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    for (const auto& [ticket, wish] : waiting_) tickets.push_back(ticket);
  }
  changed_.notify_one();
  if (watch_.joinable()) watch_.join();
  for (const LockTable::Ticket ticket : tickets) interrupt(ticket);
  pool_.stop(patience);
  decltype(held_) held;
  const std::lock_guard lock(mutex_);
  held.swap(held_);
}

}  // namespace ncfs
