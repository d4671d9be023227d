#include "fuse_adapter/lock_table.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace ncfs {
namespace {

bool overlap(const LockTable::Lock& one, const LockTable::Lock& other) {
  return one.first <= other.last && other.first <= one.last;
}

// Next to each other or one over the other.
bool touch(const LockTable::Lock& one, const LockTable::Lock& other) {
  return one.first <= other.last + 1 && other.first <= one.last + 1;
}

void answer(const std::vector<LockTable::Done>& granted) {
  for (const auto& done : granted) done(0);
}

}  // namespace

const LockTable::Lock* LockTable::find_conflict(const Locks& locks, const Lock& lock) {
  const Lock* first = nullptr;
  for (const Lock& other : locks.held) {
    const bool conflicts = other.owner != lock.owner && (other.is_exclusive || lock.is_exclusive) &&
                           overlap(other, lock);
    if (conflicts && (first == nullptr || other.first < first->first)) first = &other;
  }
  return first;
}

// The owner holds nothing in the range any more.
void LockTable::cut(Locks& locks, Owner owner, std::uint64_t first, std::uint64_t last) {
  const std::size_t before = locks.held.size();
  std::vector<Lock> kept;
  for (const Lock& held : locks.held) {
    if (held.owner != owner || held.last < first || last < held.first) {
      kept.push_back(held);
      continue;
    }
    if (held.first < first) {
      kept.push_back(held);
      kept.back().last = first - 1;
    }
    if (held.last > last) {
      kept.push_back(held);
      kept.back().first = last + 1;
    }
  }
  locks.held.swap(kept);
  held_count_ = held_count_ + locks.held.size() - before;
}

// Nothing conflicts with it. Joined with what it touches, so that a program which locks byte after
// byte holds one lock.
void LockTable::insert(Locks& locks, const Lock& lock) {
  cut(locks, lock.owner, lock.first, lock.last);
  Lock joined = lock;
  held_count_ -= std::erase_if(locks.held, [&joined](const Lock& held) {
    const bool joins = held.owner == joined.owner && held.is_exclusive == joined.is_exclusive &&
                       touch(held, joined);
    if (joins) {
      joined.first = std::min(joined.first, held.first);
      joined.last = std::max(joined.last, held.last);
    }
    return joins;
  });
  locks.held.push_back(joined);
  ++held_count_;
}

void LockTable::grant(Locks& locks, std::vector<Done>& granted) {
  // What is granted may take the place of a stronger lock of its owner and so let in who came
  // before; hence from the start again.
  for (auto waiter = locks.waiters.begin(); waiter != locks.waiters.end();) {
    if (find_conflict(locks, waiter->lock) != nullptr) {
      ++waiter;
      continue;
    }
    if (waiter->takes) insert(locks, waiter->lock);
    waiting_.erase(waiter->ticket);
    granted.push_back(std::move(waiter->done));
    locks.waiters.erase(waiter);
    waiter = locks.waiters.begin();
  }
}

// 0, EAGAIN or ENOLCK.
int LockTable::take(Locks& locks, Kind kind, const Lock& lock, std::vector<Done>& granted) {
  if (kind == Kind::flock) {
    const bool has_it = std::ranges::any_of(locks.held, [&lock](const Lock& held) {
      return held.owner == lock.owner && held.is_exclusive == lock.is_exclusive;
    });
    if (has_it) return 0;
    cut(locks, lock.owner, 0, kLastByte);
    grant(locks, granted);
  }
  if (find_conflict(locks, lock) != nullptr) return EAGAIN;
  if (held_count_ >= kLocksMax) return ENOLCK;
  insert(locks, lock);
  // A shared lock in place of an exclusive one may let others in.
  grant(locks, granted);
  return 0;
}

void LockTable::drop_if_empty(Table::iterator entry) {
  if (entry->second.held.empty() && entry->second.waiters.empty()) table_.erase(entry);
}

int LockTable::try_lock(const FileKey& file, Kind kind, const Lock& lock) {
  std::vector<Done> granted;
  int error = 0;
  {
    const std::lock_guard guard(mutex_);
    const auto entry = table_.try_emplace({file, kind}).first;
    error = take(entry->second, kind, lock, granted);
    drop_if_empty(entry);
  }
  answer(granted);
  return error;
}

// A walk from those in the way to those they wait for.
bool LockTable::would_deadlock(const Locks& locks, const Lock& lock) const {
  std::set<Owner> seen;
  std::vector<Owner> left;
  const auto add_blockers = [&](const Locks& where, const Lock& wanted) {
    for (const Lock& held : where.held) {
      const bool blocks = held.owner != wanted.owner &&
                          (held.is_exclusive || wanted.is_exclusive) && overlap(held, wanted);
      if (blocks && seen.insert(held.owner).second) left.push_back(held.owner);
    }
  };
  add_blockers(locks, lock);
  while (!left.empty()) {
    const Owner owner = left.back();
    left.pop_back();
    if (owner == lock.owner) return true;
    for (const auto& [ticket, key] : waiting_) {
      if (key.second != Kind::posix) continue;
      const Locks& where = table_.at(key);
      const auto waiter = std::ranges::find(where.waiters, ticket, &Waiter::ticket);
      if (waiter->lock.owner == owner) add_blockers(where, waiter->lock);
    }
  }
  return false;
}

// Something stands in its way.
std::optional<int> LockTable::enlist(Table::iterator entry, const Lock& lock, Patient patient,
                                     bool takes) {
  const Key& key = entry->first;
  if (key.second == Kind::posix && would_deadlock(entry->second, lock)) return EDEADLK;
  if (waiting_.size() >= kWaitersMax) return ENOLCK;
  if (patient.is_interrupted()) return EINTR;
  entry->second.waiters.push_back({patient.ticket, lock, std::move(patient.done), takes});
  waiting_.emplace(patient.ticket, key);
  return std::nullopt;
}

std::optional<int> LockTable::lock(const FileKey& file, Kind kind, const Lock& lock,
                                   Patient patient) {
  std::vector<Done> granted;
  std::optional<int> result;
  {
    const std::lock_guard guard(mutex_);
    const auto entry = table_.try_emplace({file, kind}).first;
    result = take(entry->second, kind, lock, granted);
    if (result == EAGAIN) result = enlist(entry, lock, std::move(patient), true);
    drop_if_empty(entry);
  }
  answer(granted);
  return result;
}

std::optional<int> LockTable::await(const FileKey& file, Kind kind, const Lock& lock,
                                    Patient patient) {
  const std::lock_guard guard(mutex_);
  const auto entry = table_.find({file, kind});
  if (entry == table_.end() || find_conflict(entry->second, lock) == nullptr) return 0;
  return enlist(entry, lock, std::move(patient), false);
}

void LockTable::note(const FileKey& file, Kind kind, const Lock& lock) {
  std::vector<Done> granted;
  {
    const std::lock_guard guard(mutex_);
    const auto entry = table_.try_emplace({file, kind}).first;
    insert(entry->second, lock);
    grant(entry->second, granted);
  }
  answer(granted);
}

bool LockTable::is_full() const {
  const std::lock_guard guard(mutex_);
  return held_count_ >= kLocksMax;
}

void LockTable::interrupt(Ticket ticket) {
  Done done;
  {
    const std::lock_guard guard(mutex_);
    const auto waiting = waiting_.find(ticket);
    if (waiting == waiting_.end()) return;
    const auto entry = table_.find(waiting->second);
    auto& waiters = entry->second.waiters;
    const auto waiter = std::ranges::find(waiters, ticket, &Waiter::ticket);
    done = std::move(waiter->done);
    waiters.erase(waiter);
    waiting_.erase(waiting);
    drop_if_empty(entry);
  }
  done(EINTR);
}

void LockTable::unlock(const FileKey& file, Kind kind, Owner owner, std::uint64_t first,
                       std::uint64_t last) {
  std::vector<Done> granted;
  {
    const std::lock_guard guard(mutex_);
    const auto entry = table_.find({file, kind});
    if (entry == table_.end()) return;
    cut(entry->second, owner, first, last);
    grant(entry->second, granted);
    drop_if_empty(entry);
  }
  answer(granted);
}

std::optional<LockTable::Lock> LockTable::conflict(const FileKey& file, Kind kind,
                                                   const Lock& lock) const {
  const std::lock_guard guard(mutex_);
  const auto entry = table_.find({file, kind});
  if (entry == table_.end()) return std::nullopt;
  const Lock* const found = find_conflict(entry->second, lock);
  return found != nullptr ? std::optional(*found) : std::nullopt;
}

std::vector<LockTable::Lock> LockTable::held(const FileKey& file, Kind kind) const {
  const std::lock_guard guard(mutex_);
  const auto entry = table_.find({file, kind});
  return entry == table_.end() ? std::vector<Lock>() : entry->second.held;
}

std::size_t LockTable::waiting() const {
  const std::lock_guard guard(mutex_);
  return waiting_.size();
}

void LockOwners::add(std::uint64_t handle, LockTable::Owner owner) {
  any_.store(true, std::memory_order_relaxed);
  const std::lock_guard guard(mutex_);
  owners_[handle].insert(owner);
}

std::set<LockTable::Owner> LockOwners::take(std::uint64_t handle) {
  if (!any()) return {};
  const std::lock_guard guard(mutex_);
  auto owners = owners_.extract(handle);
  return owners ? std::move(owners.mapped()) : std::set<LockTable::Owner>();
}

}  // namespace ncfs
