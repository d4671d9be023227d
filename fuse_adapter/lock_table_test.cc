#include "fuse_adapter/lock_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace ncfs {
namespace {

using Kind = LockTable::Kind;
using Lock = LockTable::Lock;

constexpr FileKey kFile{1, 2};
constexpr FileKey kOtherFile{1, 3};

Lock shared(LockTable::Owner owner, std::uint64_t first, std::uint64_t last) {
  return {.owner = owner, .is_exclusive = false, .first = first, .last = last};
}
Lock exclusive(LockTable::Owner owner, std::uint64_t first, std::uint64_t last) {
  return {.owner = owner, .is_exclusive = true, .first = first, .last = last};
}

class LockTableTest : public testing::Test {
 protected:
  int take(const Lock& lock, Kind kind = Kind::posix) { return table_.try_lock(kFile, kind, lock); }
  // The ticket is the number of the answer.
  std::optional<int> wait(const Lock& lock, LockTable::Ticket ticket, Kind kind = Kind::posix,
                          const FileKey& file = kFile) {
    return table_.lock(file, kind, lock,
                       {.ticket = ticket,
                        .done =
                            [this, ticket](int error) {
                              EXPECT_FALSE(answers_.contains(ticket)) << "answered twice";
                              answers_[ticket] = error;
                            },
                        .is_interrupted = [this] { return is_interrupted_; }});
  }

  LockTable table_;
  bool is_interrupted_ = false;
  std::map<LockTable::Ticket, int> answers_;
};

TEST_F(LockTableTest, ExclusiveLocksExcludeAndSharedOnesShare) {
  EXPECT_EQ(take(shared(1, 0, 9)), 0);
  EXPECT_EQ(take(shared(2, 5, 20)), 0);
  EXPECT_EQ(take(exclusive(1, 5, 5)), EAGAIN);
  EXPECT_EQ(take(exclusive(1, 0, 4)), 0);
  EXPECT_EQ(take(shared(2, 4, 4)), EAGAIN);
  EXPECT_EQ(table_.try_lock(kOtherFile, Kind::posix, exclusive(2, 4, 4)), 0);
  EXPECT_EQ(take(exclusive(3, 0, LockTable::kLastByte), Kind::flock), 0);
}

TEST_F(LockTableTest, LocksOfOneOwnerAreCutAndJoined) {
  EXPECT_EQ(take(exclusive(1, 0, 9)), 0);
  EXPECT_EQ(take(exclusive(1, 10, 19)), 0);
  EXPECT_EQ(table_.held(kFile, Kind::posix), std::vector<Lock>{exclusive(1, 0, 19)});
  EXPECT_EQ(take(shared(1, 5, 14)), 0);
  EXPECT_EQ(table_.held(kFile, Kind::posix).size(), 3U);
  table_.unlock(kFile, Kind::posix, 1, 7, 12);
  EXPECT_EQ(table_.held(kFile, Kind::posix).size(), 4U);
  EXPECT_EQ(take(exclusive(2, 7, 12)), 0);
  EXPECT_EQ(table_.conflict(kFile, Kind::posix, shared(2, 0, 100)), exclusive(1, 0, 4));
  EXPECT_FALSE(table_.conflict(kFile, Kind::posix, shared(2, 5, 14)));
  table_.unlock(kFile, Kind::posix, 1);
  EXPECT_EQ(table_.held(kFile, Kind::posix), std::vector<Lock>{exclusive(2, 7, 12)});
}

TEST_F(LockTableTest, OfSeveralConflictsTheFirstInTheFileIsTold) {
  EXPECT_EQ(take(exclusive(1, 10, 14)), 0);
  EXPECT_EQ(take(shared(1, 5, 9)), 0);
  EXPECT_EQ(take(shared(2, 2, 3)), 0);
  EXPECT_EQ(table_.conflict(kFile, Kind::posix, exclusive(3, 4, 100)), shared(1, 5, 9));
  EXPECT_EQ(table_.conflict(kFile, Kind::posix, exclusive(3, 0, 100)), shared(2, 2, 3));
  EXPECT_EQ(table_.conflict(kFile, Kind::posix, shared(3, 0, 100)), exclusive(1, 10, 14));
}

TEST_F(LockTableTest, WhoWaitsIsAnsweredWhenTheWayIsFree) {
  EXPECT_EQ(take(exclusive(1, 0, 9)), 0);
  EXPECT_EQ(take(shared(2, 20, 29)), 0);
  EXPECT_FALSE(wait(exclusive(3, 5, 25), 31));
  EXPECT_FALSE(wait(shared(4, 0, 0), 41));
  table_.unlock(kFile, Kind::posix, 1, 5, 9);
  EXPECT_TRUE(answers_.empty());
  table_.unlock(kFile, Kind::posix, 1);
  EXPECT_EQ(answers_, (std::map<LockTable::Ticket, int>{{41, 0}}));
  table_.unlock(kFile, Kind::posix, 2);
  EXPECT_EQ(answers_.at(31), 0);
  EXPECT_EQ(table_.waiting(), 0U);
  EXPECT_EQ(take(shared(1, 10, 10)), EAGAIN);
}

TEST_F(LockTableTest, ADowngradeLetsOthersIn) {
  EXPECT_EQ(take(exclusive(1, 0, 9)), 0);
  EXPECT_FALSE(wait(shared(2, 0, 9), 21));
  EXPECT_EQ(take(shared(1, 0, 9)), 0);
  EXPECT_EQ(answers_.at(21), 0);
}

TEST_F(LockTableTest, WhoIsInterruptedWaitsNoMore) {
  EXPECT_EQ(take(exclusive(1, 0, 9)), 0);
  EXPECT_FALSE(wait(shared(2, 0, 9), 21));
  table_.interrupt(21);
  EXPECT_EQ(answers_.at(21), EINTR);
  table_.interrupt(21);
  is_interrupted_ = true;
  EXPECT_EQ(wait(shared(2, 0, 9), 22), EINTR);
  table_.unlock(kFile, Kind::posix, 1);
  EXPECT_TRUE(table_.held(kFile, Kind::posix).empty());
}

TEST_F(LockTableTest, WhoWouldWaitForItselfIsRefused) {
  EXPECT_EQ(take(exclusive(1, 0, 0)), 0);
  EXPECT_EQ(take(exclusive(2, 1, 1)), 0);
  EXPECT_EQ(table_.try_lock(kOtherFile, Kind::posix, exclusive(3, 0, 0)), 0);
  EXPECT_FALSE(wait(exclusive(1, 1, 1), 11));                           // 1 waits for 2
  EXPECT_FALSE(wait(exclusive(2, 0, 0), 21, Kind::posix, kOtherFile));  // 2 for 3
  EXPECT_EQ(wait(exclusive(3, 0, 0), 31), EDEADLK);                     // 3 would for 1
  EXPECT_EQ(take(exclusive(3, 0, 0)), EAGAIN);
  table_.interrupt(21);
  EXPECT_FALSE(wait(exclusive(3, 0, 0), 32));
  // The kernel looks for no circles of flock(2), either.
  EXPECT_EQ(take(exclusive(1, 0, LockTable::kLastByte), Kind::flock), 0);
  EXPECT_FALSE(wait(exclusive(2, 0, LockTable::kLastByte), 22, Kind::flock));
}

TEST_F(LockTableTest, AFlockThatChangesItsKindGivesUpWhatItHad) {
  constexpr std::uint64_t kEnd = LockTable::kLastByte;
  EXPECT_EQ(take(shared(1, 0, kEnd), Kind::flock), 0);
  EXPECT_EQ(take(shared(2, 0, kEnd), Kind::flock), 0);
  EXPECT_FALSE(wait(exclusive(1, 0, kEnd), 11, Kind::flock));
  EXPECT_FALSE(wait(exclusive(2, 0, kEnd), 21, Kind::flock));
  EXPECT_EQ(answers_, (std::map<LockTable::Ticket, int>{{11, 0}}));
  EXPECT_EQ(take(exclusive(1, 0, kEnd), Kind::flock), 0);
  table_.unlock(kFile, Kind::flock, 1);
  EXPECT_EQ(answers_.at(21), 0);
}

TEST_F(LockTableTest, ThereIsAnEndToLocks) {
  for (std::uint64_t number = 0; number < LockTable::kLocksMax; ++number) {
    ASSERT_EQ(table_.try_lock({1, number}, Kind::posix, exclusive(1, 0, 0)), 0);
  }
  EXPECT_EQ(take(exclusive(2, 5, 5), Kind::flock), ENOLCK);
  table_.unlock({1, 0}, Kind::posix, 1);
  EXPECT_EQ(take(exclusive(2, 5, 5), Kind::flock), 0);
}

TEST(LockOwnersTest, AreKnownByHandle) {
  LockOwners owners;
  EXPECT_FALSE(owners.any());
  owners.add(1, 10);
  owners.add(1, 11);
  owners.add(1, 10);
  owners.add(2, 20);
  EXPECT_EQ(owners.take(1), (std::set<LockTable::Owner>{10, 11}));
  EXPECT_TRUE(owners.take(1).empty());
  EXPECT_TRUE(owners.any());
}

// Against a model that keeps who holds what byte by byte.
class ByteModel {
 public:
  static constexpr std::uint64_t kBytes = 12;

  [[nodiscard]] bool may_lock(const Lock& lock) const {
    for (std::uint64_t byte = lock.first; byte <= lock.last; ++byte) {
      for (const auto& [owner, is_exclusive] : bytes_[byte]) {
        if (owner != lock.owner && (is_exclusive || lock.is_exclusive)) return false;
      }
    }
    return true;
  }
  void lock(const Lock& lock) {
    for (std::uint64_t byte = lock.first; byte <= lock.last; ++byte) {
      bytes_[byte][lock.owner] = lock.is_exclusive;
    }
  }
  void unlock(LockTable::Owner owner, std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t byte = first; byte <= last; ++byte) bytes_[byte].erase(owner);
  }
  friend bool operator==(const ByteModel&, const ByteModel&) = default;

 private:
  std::array<std::map<LockTable::Owner, bool>, kBytes> bytes_;
};

TEST(LockTableModel, HoldsWhatTheModelHolds) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&random](std::uint64_t bound) { return random() % bound; };
    LockTable table;
    ByteModel model;
    struct Waiting {
      LockTable::Ticket ticket;
      Lock lock;
    };
    std::vector<Waiting> waiting;
    std::vector<LockTable::Ticket> granted;
    LockTable::Ticket last_ticket = 0;
    for (int step = 0; step < 120; ++step) {
      const std::uint64_t first = below(ByteModel::kBytes);
      const std::uint64_t last = first + below(ByteModel::kBytes - first);
      const Lock lock{
          .owner = 1 + below(4), .is_exclusive = below(2) == 0, .first = first, .last = last};
      switch (below(5)) {
        case 0:
        case 1: {
          const bool is_free = model.may_lock(lock);
          ASSERT_EQ(table.conflict(kFile, Kind::posix, lock).has_value(), !is_free) << seed;
          ASSERT_EQ(table.try_lock(kFile, Kind::posix, lock), is_free ? 0 : EAGAIN) << seed;
          if (is_free) model.lock(lock);
          break;
        }
        case 2: {
          const bool is_free = model.may_lock(lock);
          const auto ticket = ++last_ticket;
          const auto result = table.lock(kFile, Kind::posix, lock,
                                         {.ticket = ticket,
                                          .done =
                                              [&granted, ticket](int error) {
                                                ASSERT_TRUE(error == 0 || error == EINTR);
                                                if (error == 0) granted.push_back(ticket);
                                              },
                                          .is_interrupted = [] { return false; }});
          ASSERT_EQ(result == 0, is_free) << seed;
          if (is_free) model.lock(lock);
          if (!result) waiting.push_back({ticket, lock});
          break;
        }
        case 3:
          table.unlock(kFile, Kind::posix, lock.owner, first, last);
          model.unlock(lock.owner, first, last);
          break;
        default:
          if (waiting.empty()) break;
          const std::size_t which = below(waiting.size());
          table.interrupt(waiting[which].ticket);
          waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(which));
      }
      // Who waits gets it in the order of arrival, as soon as it is free.
      std::vector<LockTable::Ticket> expected;
      for (auto waiter = waiting.begin(); waiter != waiting.end();) {
        if (model.may_lock(waiter->lock)) {
          model.lock(waiter->lock);
          expected.push_back(waiter->ticket);
          waiting.erase(waiter);
          waiter = waiting.begin();
        } else {
          ++waiter;
        }
      }
      ASSERT_EQ(granted, expected) << "seed " << seed << " step " << step;
      granted.clear();
      ASSERT_EQ(table.waiting(), waiting.size());
      ByteModel seen;
      for (const Lock& held : table.held(kFile, Kind::posix)) seen.lock(held);
      ASSERT_TRUE(seen == model) << "seed " << seed << " step " << step;
    }
  }
}

}  // namespace
}  // namespace ncfs
