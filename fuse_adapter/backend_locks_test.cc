// Method: two mounts of one tree are two of these, each with its own table, on one file of a
// temporary directory; somebody who uses the tree past all mounts is a lock of this process.
#include "fuse_adapter/backend_locks.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <memory>
#include <string>

#include "io/temp_directory.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

using Lock = LockTable::Lock;
using Kind = LockTable::Kind;

// What is called back by other threads.
template <typename Value>
class Later {
 public:
  void set(Value value) { promise_.set_value(value); }
  // A machine that needs longer is not slow but stuck.
  [[nodiscard]] bool is_there() {
    return future_.wait_for(std::chrono::seconds(60)) == std::future_status::ready;
  }
  [[nodiscard]] Value get(Value otherwise) { return is_there() ? future_.get() : otherwise; }

 private:
  std::promise<Value> promise_;
  std::future<Value> future_ = promise_.get_future();
};
using LaterError = std::shared_ptr<Later<int>>;

// Probes tell the errno that the test has set.
std::shared_ptr<Backends> make_backends(const std::shared_ptr<std::atomic<int>>& probe_error) {
  const Descriptor root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  return std::make_shared<Backends>(Backends::Options{
      .root = root.get(), .probe = [probe_error](const auto&) { return probe_error->load(); }});
}

struct Mount {
  ~Mount() { locks.stop(std::chrono::seconds(60)); }
  LockTable table;
  std::shared_ptr<std::atomic<int>> probe_error = std::make_shared<std::atomic<int>>(0);
  std::shared_ptr<Backends> backends = make_backends(probe_error);
  BackendLocks locks{table, 60 * kSecond, backends};
};

class BackendLocksTest : public testing::Test {
 protected:
  void SetUp() override {
    file_ = directory_.open("file", O_RDWR | O_CREAT);
    ASSERT_TRUE(file_.is_open());
  }

  [[nodiscard]] BackendLocks::Request request(Lock lock, const BackendLocks::Answer& answer,
                                              int handle = -1) const {
    return {.file = key_,
            .kind = handle < 0 ? Kind::posix : Kind::flock,
            .lock = lock,
            .open =
                [this](int& error) {
                  Descriptor opened = directory_.open("file", O_RDWR);
                  error = opened.is_open() ? 0 : errno;
                  return opened;
                },
            .handle = handle,
            .answer = answer};
  }
  static BackendLocks::Answer into(const LaterError& result) {
    return [result](int error) {
      result->set(error);
      return true;
    };
  }
  int try_lock(Mount& mount, const Lock& lock, int handle = -1) {
    const auto result = std::make_shared<Later<int>>();
    mount.locks.try_lock(request(lock, into(result), handle));
    return result->get(-1);
  }
  int unlock(Mount& mount, const Lock& range, int handle = -1) {
    const auto result = std::make_shared<Later<int>>();
    mount.locks.unlock(request(range, into(result), handle));
    return result->get(-1);
  }
  LaterError lock(Mount& mount, const Lock& lock, LockTable::Ticket ticket, int handle = -1) {
    auto result = std::make_shared<Later<int>>();
    mount.locks.lock(request(lock, into(result), handle), ticket, [] { return false; });
    return result;
  }
  void close(Mount& mount, LockTable::Owner owner) {
    const auto done = std::make_shared<Later<int>>();
    auto held = mount.locks.take(key_, owner);
    ASSERT_NE(held, nullptr);
    mount.locks.give_back(std::move(held), [done] { done->set(0); });
    EXPECT_EQ(done->get(-1), 0);
  }
  [[nodiscard]] int lock_past_mounts(short type, off_t first, off_t length) const {
    struct flock wanted {};
    wanted.l_type = type;
    wanted.l_start = first;
    wanted.l_len = length;
    return ::fcntl(file_.get(), F_OFD_SETLK, &wanted) == 0 ? 0 : errno;
  }

  const FileKey key_{1, 2};
  TempDirectory directory_;
  Descriptor file_;
  Mount one_;
  Mount two_;
};

constexpr Lock exclusive(LockTable::Owner owner, std::uint64_t first, std::uint64_t last) {
  return {.owner = owner, .is_exclusive = true, .first = first, .last = last, .process = 7};
}
constexpr Lock shared(LockTable::Owner owner, std::uint64_t first, std::uint64_t last) {
  return {.owner = owner, .first = first, .last = last};
}

TEST_F(BackendLocksTest, TwoMountsAndWhoUsesTheTreeExcludeEachOther) {
  EXPECT_EQ(try_lock(one_, exclusive(1, 0, 9)), 0);
  EXPECT_EQ(try_lock(one_, exclusive(1, 5, 19)), 0);  // nobody excludes himself
  EXPECT_EQ(try_lock(one_, shared(2, 9, 9)), EAGAIN);
  EXPECT_EQ(try_lock(two_, shared(1, 19, 30)), EAGAIN);
  EXPECT_EQ(lock_past_mounts(F_RDLCK, 0, 1), EAGAIN);
  EXPECT_EQ(try_lock(two_, shared(1, 20, LockTable::kLastByte)), 0);
  EXPECT_EQ(lock_past_mounts(F_WRLCK, 1'000'000, 1), EAGAIN);
  EXPECT_EQ(unlock(one_, exclusive(1, 0, 4)), 0);
  EXPECT_EQ(lock_past_mounts(F_WRLCK, 0, 5), 0);
  EXPECT_EQ(try_lock(one_, shared(1, 0, 4)), EAGAIN);
}

TEST_F(BackendLocksTest, ClosingGivesBackWhatOneOwnerHolds) {
  EXPECT_EQ(try_lock(one_, exclusive(1, 0, 9)), 0);
  EXPECT_EQ(try_lock(one_, exclusive(2, 10, 19)), 0);
  close(one_, 1);
  EXPECT_EQ(lock_past_mounts(F_WRLCK, 0, 10), 0);
  EXPECT_EQ(lock_past_mounts(F_RDLCK, 10, 1), EAGAIN);
  EXPECT_EQ(one_.table.held(key_, Kind::posix).size(), 1U);
  EXPECT_EQ(one_.locks.take(key_, 3), nullptr);
  EXPECT_EQ(unlock(one_, exclusive(3, 0, 9)), 0);
  EXPECT_EQ(one_.locks.take(key_, 3), nullptr);
}

TEST_F(BackendLocksTest, WhoStandsInTheWayIsTold) {
  const auto conflict = [this](Mount& mount, const Lock& lock) {
    const auto result = std::make_shared<Later<std::optional<Lock>>>();
    mount.locks.find_conflict(request(lock, [](int) { return true; }),
                              [result](int error, const std::optional<Lock>& found) {
                                EXPECT_EQ(error, 0);
                                result->set(found);
                              });
    return result->get(std::nullopt);
  };
  EXPECT_EQ(try_lock(one_, exclusive(1, 0, 9)), 0);
  EXPECT_EQ(conflict(one_, shared(2, 5, 5)), exclusive(1, 0, 9));
  EXPECT_EQ(conflict(one_, shared(1, 5, 5)), std::nullopt);
  const auto elsewhere = conflict(two_, shared(1, 5, 5));
  ASSERT_TRUE(elsewhere);
  EXPECT_TRUE(elsewhere->is_exclusive);
  EXPECT_EQ(elsewhere->last, 9U);
}

TEST_F(BackendLocksTest, WhoWaitsGetsTheLockWhenWhoeverHasItLetsGo) {
  EXPECT_EQ(try_lock(one_, exclusive(1, 0, 9)), 0);
  const auto same_mount = lock(one_, exclusive(2, 0, 9), 12);
  EXPECT_EQ(unlock(one_, exclusive(1, 0, 9)), 0);
  EXPECT_EQ(same_mount->get(-1), 0);
  const auto other_mount = lock(two_, exclusive(1, 0, 9), 21);
  close(one_, 2);
  EXPECT_EQ(other_mount->get(-1), 0);
  const auto again = lock(one_, shared(3, 0, 0), 13);
  close(two_, 1);
  EXPECT_EQ(again->get(-1), 0);
  EXPECT_EQ(lock_past_mounts(F_WRLCK, 0, 1), EAGAIN);
}

TEST_F(BackendLocksTest, EveryWaitCanBeInterruptedAndLeavesNothing) {
  EXPECT_EQ(lock_past_mounts(F_WRLCK, 0, 1), 0);
  const auto for_others = lock(one_, exclusive(1, 0, 0), 11);
  one_.locks.interrupt(11);
  EXPECT_EQ(for_others->get(-1), EINTR);
  const auto early = std::make_shared<Later<int>>();
  one_.locks.lock(request(exclusive(1, 0, 0), into(early)), 12, [] { return true; });
  EXPECT_EQ(early->get(-1), EINTR);
  EXPECT_EQ(try_lock(one_, exclusive(2, 5, 5)), 0);
  const auto for_ours = lock(one_, exclusive(1, 5, 5), 13);
  one_.locks.interrupt(13);
  EXPECT_EQ(for_ours->get(-1), EINTR);
  one_.locks.interrupt(13);
  EXPECT_EQ(lock_past_mounts(F_UNLCK, 0, 1), 0);
  EXPECT_EQ(unlock(one_, exclusive(2, 5, 5)), 0);
  EXPECT_EQ(one_.table.waiting(), 0U);
  EXPECT_EQ(lock_past_mounts(F_WRLCK, 0, 10), 0);
}

TEST_F(BackendLocksTest, OfTwoWhoWaitForEachOtherTheSecondIsRefused) {
  EXPECT_EQ(try_lock(one_, exclusive(1, 0, 0)), 0);
  EXPECT_EQ(try_lock(one_, exclusive(2, 1, 1)), 0);
  const auto first = lock(one_, exclusive(1, 1, 1), 11);
  ASSERT_TRUE(eventually([&] { return one_.table.waiting() > 0; }));
  EXPECT_EQ(lock(one_, exclusive(2, 0, 0), 12)->get(-1), EDEADLK);
  close(one_, 2);
  EXPECT_EQ(first->get(-1), 0);
}

TEST_F(BackendLocksTest, WhatNobodyCouldBeToldIsGivenBack) {
  const auto result = std::make_shared<Later<int>>();
  one_.locks.try_lock(request(exclusive(1, 0, 9), [result](int error) {
    result->set(error);
    return false;
  }));
  EXPECT_EQ(result->get(-1), 0);
  // Given back after it was told; whoever waits gets it.
  EXPECT_EQ(lock(two_, exclusive(1, 0, 9), 21)->get(-1), 0);
  EXPECT_TRUE(eventually([&] { return one_.table.held(key_, Kind::posix).empty(); }));
}

TEST_F(BackendLocksTest, ALockOfFlockIsTheHandles) {
  const Descriptor mine = directory_.open("file", O_RDONLY);
  const Descriptor theirs = directory_.open("file", O_RDONLY);
  const Lock all{.owner = 1, .is_exclusive = true};
  const Lock others{.owner = 2, .is_exclusive = true};
  const Lock others_shared{.owner = 2};
  EXPECT_EQ(try_lock(one_, all, mine.get()), 0);
  EXPECT_EQ(try_lock(two_, others, theirs.get()), EAGAIN);
  EXPECT_EQ(::flock(file_.get(), LOCK_SH | LOCK_NB), -1);
  EXPECT_EQ(try_lock(one_, {.owner = 1}, mine.get()), 0);
  EXPECT_EQ(try_lock(two_, others_shared, theirs.get()), 0);
  // A lock that is refused in place of another takes that one away.
  EXPECT_EQ(try_lock(two_, others, theirs.get()), EAGAIN);
  EXPECT_EQ(try_lock(one_, all, mine.get()), 0);
  const auto waits = lock(two_, others, 21, theirs.get());
  EXPECT_EQ(unlock(one_, all, mine.get()), 0);
  EXPECT_EQ(waits->get(-1), 0);
  EXPECT_EQ(::flock(file_.get(), LOCK_SH | LOCK_NB), -1);
}

TEST_F(BackendLocksTest, WhatTheSourceSaysIsTheAnswer) {
  const auto result = std::make_shared<Later<int>>();
  auto refused = request(exclusive(1, 0, 9), into(result));
  refused.open = [](int& error) {
    error = ESTALE;
    return Descriptor();
  };
  one_.locks.try_lock(std::move(refused));
  EXPECT_EQ(result->get(-1), ESTALE);
}

TEST_F(BackendLocksTest, ASourceThatIsDownIsAskedForNoLockButGetsThoseItGaveBack) {
  const FileKey file{one_.backends->root(), 2};
  const auto ask = [&](const auto& call, const BackendLocks::Open& open) {
    const auto result = std::make_shared<Later<int>>();
    auto asked = request(exclusive(1, 0, 9), into(result));
    asked.file = file;
    if (open) asked.open = open;
    call(std::move(asked));
    return result->get(-1);
  };
  const auto take = [this](auto asked) { one_.locks.try_lock(std::move(asked)); };
  const auto give = [this](auto asked) { one_.locks.unlock(std::move(asked)); };
  EXPECT_EQ(ask(take, {}), 0);
  // What a lock is refused with is heard of.
  *one_.probe_error = ETIMEDOUT;
  auto other = request(exclusive(2, 10, 19), [](int) { return true; });
  other.file = file;
  other.open = [](int& error) {
    error = EHOSTUNREACH;
    return Descriptor();
  };
  one_.locks.try_lock(std::move(other));
  ASSERT_TRUE(eventually([&] { return one_.backends->is_down(file.device); }));
  EXPECT_EQ(ask(take,
                [](int& error) {
                  ADD_FAILURE() << "it was asked";
                  error = EIO;
                  return Descriptor();
                }),
            ETIMEDOUT);
  EXPECT_EQ(ask(give, {}), 0);
  EXPECT_TRUE(one_.table.held(file, Kind::posix).empty());
}

}  // namespace
}  // namespace ncfs
