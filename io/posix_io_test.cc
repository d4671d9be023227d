// What the real driver promises beyond the laws of io.h, which io_contract.cc checks.
#include "io/posix_io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <thread>

#include "io/posix_world.h"
#include "io/test_bytes.h"

namespace ncfs {
namespace {

bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}

// Descriptors of this process that lead to `path`.
std::ptrdiff_t descriptors_of(const std::string& path) {
  std::ptrdiff_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code closed_meanwhile;
    if (std::filesystem::read_symlink(entry.path(), closed_meanwhile) == path) ++count;
  }
  return count;
}

class PosixIoTest : public testing::Test {
 protected:
  Ticket submit(Request request, Nanos patience = 60 * kSecond) {
    request.ticket = Ticket{++tickets_};
    request.deadline = world_.now() + patience;
    const Ticket ticket = request.ticket;
    world_.io().submit(std::move(request));
    return ticket;
  }
  std::int64_t result(Request request, Nanos patience = 60 * kSecond) {
    return world_.run_until(submit(std::move(request), patience)).result;
  }
  FileHandle opened(Request request) {
    const std::int64_t file = result(std::move(request));
    EXPECT_GE(file, 0);
    return FileHandle{static_cast<std::int32_t>(file)};
  }
  FileHandle open_source(std::size_t size) {
    world_.put_source_file("a", test_bytes(size));
    return opened(on_name(Op::source_open, "a"));
  }

  PosixWorld world_;
  std::uint64_t tickets_ = 0;
};

TEST_F(PosixIoTest, WhatIsNotStartedByItsDeadlineHasNoEffect) {
  EXPECT_EQ(result(create_request("3f/a", 10), 0), -ETIMEDOUT);
  EXPECT_EQ(result(on_name(Op::cache_load, "3f/a")), -ENOENT);
}

TEST_F(PosixIoTest, NamesThatLeadOutOfTheTreesAreRefused) {
  for (const char* name : {"../cache/3f", "/etc/passwd", "3f/../../source"}) {
    for (const Op op : {Op::source_open, Op::cache_list, Op::cache_create, Op::cache_open,
                        Op::cache_load, Op::cache_store, Op::cache_rename, Op::cache_sync_directory,
                        Op::cache_unlink, Op::cache_touch}) {
      EXPECT_EQ(result(on_name(op, name)), -EINVAL) << name << " " << static_cast<int>(op);
    }
  }
}

TEST_F(PosixIoTest, OperationsOnNoFileAreErrors) {
  for (const Op op : {Op::source_stat, Op::source_read, Op::source_close, Op::cache_write,
                      Op::cache_sync, Op::cache_close}) {
    EXPECT_EQ(result(on_file(op, FileHandle::none)), -EBADF) << static_cast<int>(op);
  }
}

TEST_F(PosixIoTest, AFileOpenedElsewhereMayBeHandedOver) {
  world_.put_source_file("a", test_bytes(100));
  const int fd = ::open(world_.source_path("a").c_str(), O_RDONLY | O_CLOEXEC);
  const FileHandle file{fd};
  EXPECT_EQ(result(transfer_request(Op::source_read, file, {0, 100}, BufferId{0})), 100);
  EXPECT_EQ(result(on_file(Op::source_close, file)), 0);
  EXPECT_FALSE(is_open(fd));
}

TEST_F(PosixIoTest, WhatIsReadThroughThePageCacheStaysThere) {
  const FileHandle file = open_source(kMiB);
  const int fd = static_cast<int>(file);
  ASSERT_EQ(::fsync(fd), 0);
  ASSERT_EQ(::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  Request request = transfer_request(Op::source_read, file, {0, 4096}, BufferId{0});
  request.through_page_cache = true;
  EXPECT_EQ(result(request), 4096);
  std::byte byte{};
  const iovec part{&byte, 1};
  EXPECT_EQ(::preadv2(fd, &part, 1, 0, RWF_NOWAIT), 1) << "not in memory";
}

TEST_F(PosixIoTest, AFileIsClosedOnlyWhenNoReadIsLeftInTheDevice) {
  const FileHandle file = open_source(100);
  const int fd = static_cast<int>(file);
  world_.stall_source();
  const Ticket stuck = submit(transfer_request(Op::source_read, file, {0, 100}, BufferId{0}));
  const Ticket closing = submit(on_file(Op::source_close, file), 0);
  EXPECT_EQ(world_.run_until(closing).result, -ETIMEDOUT);
  EXPECT_TRUE(is_open(fd));
  world_.resume_source();
  EXPECT_EQ(world_.run_until(stuck).result, 100);
  EXPECT_EQ(world_.times_delivered(closing), 1U);
  world_.stop();
  EXPECT_FALSE(is_open(fd));
}

TEST_F(PosixIoTest, ACloseWaitsForALateRead) {
  const FileHandle file = open_source(100);
  const int fd = static_cast<int>(file);
  world_.stall_source();
  const auto read = transfer_request(Op::source_read, file, {0, 100}, BufferId{0});
  EXPECT_EQ(result(read, 200 * kMillisecond), -ETIMEDOUT);
  const Ticket closing = submit(on_file(Op::source_close, file));
  world_.resume_source();
  EXPECT_EQ(world_.run_until(closing).result, 0);
  EXPECT_FALSE(is_open(fd));
}

TEST_F(PosixIoTest, ATimedOutWriteKeepsTheContentsOfItsBuffer) {
  const FileHandle file = opened(create_request("3f/a", 100));
  const BufferId id{3};
  const std::vector<std::byte> content = test_bytes(world_.block_size());
  std::ranges::copy(content, world_.buffer(id).begin());
  const std::shared_ptr<const std::byte> held = world_.driver().hold_buffer(id);
  EXPECT_EQ(result(transfer_request(Op::cache_write, file, {0, 100}, id), 0), -ETIMEDOUT);
  EXPECT_NE(world_.buffer(id).data(), held.get());
  EXPECT_TRUE(std::ranges::equal(world_.buffer(id), content));
  EXPECT_TRUE(std::equal(content.begin(), content.end(), held.get()));
  EXPECT_EQ(result(on_file(Op::cache_close, file)), 0);
}

TEST_F(PosixIoTest, BuffersAreAlignedForDirectIo) {
  for (std::uint32_t id = 0; id < 4; ++id) {
    const auto address = reinterpret_cast<std::uintptr_t>(world_.buffer(BufferId{id}).data());
    EXPECT_EQ(address % 4096, 0U);
    EXPECT_EQ(world_.buffer(BufferId{id}).size(), world_.block_size());
  }
}

// An open that the kernel holds up because somebody has a write lease on the file.
TEST_F(PosixIoTest, AFileOpenedTooLateIsClosedAgain) {
  world_.put_source_file("a", test_bytes(10));
  const std::string path = world_.source_path("a");
  const Descriptor owner(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::fcntl(owner.get(), F_SETSIG, SIGURG), 0);  // ignored by default
  Ticket ticket{};
  // Until the open was begun before its deadline: the lease is then about to be broken.
  for (Nanos patience = 100 * kMillisecond; ::fcntl(owner.get(), F_GETLEASE) == F_UNLCK;
       patience *= 2) {
    ASSERT_EQ(::fcntl(owner.get(), F_SETLEASE, F_WRLCK), 0);
    ticket = submit(on_name(Op::source_open, "a"), patience);
    EXPECT_EQ(world_.run_until(ticket).result, -ETIMEDOUT);
    if (::fcntl(owner.get(), F_GETLEASE) != F_WRLCK) break;
    ASSERT_EQ(::fcntl(owner.get(), F_SETLEASE, F_UNLCK), 0);
  }
  ASSERT_EQ(::fcntl(owner.get(), F_SETLEASE, F_UNLCK), 0);
  world_.stop();  // waits for the open to come back
  EXPECT_EQ(world_.times_delivered(ticket), 1U);
  EXPECT_EQ(descriptors_of(path), 1) << "only the owner's is left";
}

TEST_F(PosixIoTest, AFullCacheIsAnErrorAndLeavesNoFile) {
  world_.start(detached_file_system("tmpfs", "1m"));
  EXPECT_EQ(result(create_request("a", 8 * kMiB)), -ENOSPC);
  EXPECT_EQ(result(on_name(Op::cache_load, "a")), -ENOENT);
}

TEST_F(PosixIoTest, DirectIoLeavesNoDescriptorBehindASync) {
  const std::uint64_t block = world_.block_size();
  const FileHandle file = opened(create_request("3f/a", block));
  const int fd = static_cast<int>(file);
  const auto write = transfer_request(Op::cache_write, file, {0, block}, BufferId{0});
  EXPECT_EQ(result(write), static_cast<std::int64_t>(block));
  const std::string path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd));
  EXPECT_EQ(descriptors_of(path), 2) << "the test needs a disk to work on";
  EXPECT_EQ(result(on_file(Op::cache_sync, file)), 0);
  EXPECT_EQ(descriptors_of(path), 1);
  EXPECT_EQ(result(write), static_cast<std::int64_t>(block));
  EXPECT_EQ(result(on_file(Op::cache_close, file)), 0);
  EXPECT_EQ(descriptors_of(path), 0);
}

}  // namespace
}  // namespace ncfs
