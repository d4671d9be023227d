#include "io/transfer.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "io/buffer_slots.h"
#include "io/temp_directory.h"
#include "io/test_bytes.h"

namespace ncfs {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kSize = 64 * kPage;

// Which pages of the file are in the page cache, looked at without touching them.
std::vector<bool> cached_pages(int fd, std::size_t size) {
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  EXPECT_NE(memory, MAP_FAILED);
  std::vector<unsigned char> states((size + kPage - 1) / kPage);
  EXPECT_EQ(::mincore(memory, size, states.data()), 0);
  ::munmap(memory, size);
  std::vector<bool> cached;
  for (const unsigned char state : states) cached.push_back((state & 1) != 0);
  return cached;
}

std::ptrdiff_t cached_count(int fd, std::size_t size = kSize) {
  return std::ranges::count(cached_pages(fd, size), true);
}

// Aligned as the driver's buffers are.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::size_t size) : slots_(1, size) {}
  [[nodiscard]] std::span<std::byte> span(std::size_t size) const {
    return {slots_.memory(BufferId{0}).get(), size};
  }

 private:
  BufferSlots slots_;
};

class TransferTest : public testing::Test {
 protected:
  // On the disk and not in the page cache.
  Descriptor cold_file(const std::vector<std::byte>& content) {
    write_file(directory_.path("file"), content);
    Descriptor file = directory_.open("file", O_RDWR);
    ::fsync(file.get());
    ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    EXPECT_EQ(cached_count(file.get()), 0) << "the test needs a disk to work on";
    return file;
  }

  const TempDirectory directory_;
  const std::vector<std::byte> content_ = test_bytes(kSize);
  const AlignedBytes memory_{kSize};
};

class SourceReaderTest : public TransferTest,
                         public testing::WithParamInterface<SourceReader::Mode> {};

TEST_P(SourceReaderTest, ReadsLeaveNoCopyInThePageCache) {
  const Descriptor file = cold_file(content_);
  SourceReader reader(file.get(), GetParam());
  for (const std::size_t offset : {std::size_t{0}, kSize / 2}) {
    const auto bytes = memory_.span(kSize / 2);
    EXPECT_EQ(reader.read(bytes, offset), std::ssize(bytes));
    EXPECT_TRUE(std::ranges::equal(bytes, std::span(content_).subspan(offset, bytes.size())));
  }
  EXPECT_EQ(cached_count(file.get()), 0);
}

TEST_P(SourceReaderTest, ReadsLeaveWhatOthersHaveCached) {
  const Descriptor file = cold_file(content_);
  EXPECT_EQ(read_fully(file.get(), memory_.span(kSize), 0), std::ssize(content_));
  const std::ptrdiff_t before = cached_count(file.get());
  ASSERT_GT(before, 0);
  SourceReader reader(file.get(), GetParam());
  EXPECT_EQ(reader.read(memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_EQ(cached_count(file.get()), before);
}

INSTANTIATE_TEST_SUITE_P(Modes, SourceReaderTest,
                         testing::Values(SourceReader::Mode::dont_cache,
                                         SourceReader::Mode::dropping,
                                         SourceReader::Mode::past_cache));

TEST_F(TransferTest, SmallReadsLeaveNoCopyInThePageCacheEither) {
  const Descriptor file = cold_file(content_);
  SourceReader reader(file.get(), SourceReader::Mode::dont_cache);
  const auto bytes = memory_.span(kPage);
  EXPECT_EQ(reader.read(bytes, 3 * kPage), std::ssize(bytes));
  EXPECT_TRUE(std::ranges::equal(bytes, std::span(content_).subspan(3 * kPage, kPage)));
  EXPECT_EQ(cached_count(file.get()), 0);
}

TEST_F(TransferTest, LargeReadsAreRightWhereverTheFileEnds) {
  constexpr std::size_t kLarge = 128 * kKiB;
  for (const std::size_t size : {kLarge - 1, kLarge, kLarge + 1, kLarge + kPage + 17}) {
    const std::vector<std::byte> content = test_bytes(size);
    const Descriptor file = cold_file(content);
    SourceReader reader(file.get(), SourceReader::Mode::dont_cache);
    for (const std::size_t length : {kLarge, size, size + 5000}) {
      const auto bytes = memory_.span(length);
      std::ranges::fill(bytes, std::byte{});
      const std::size_t expected = std::min(length, size);
      EXPECT_EQ(reader.read(bytes, 0), static_cast<std::int64_t>(expected))
          << size << ' ' << length;
      EXPECT_TRUE(std::ranges::equal(bytes.first(expected), std::span(content).first(expected)));
    }
  }
}

TEST_F(TransferTest, ReadsAreRightPastADescriptorThatRefusesDirectTransfers) {
  const Descriptor file = cold_file(content_);
  SourceReader reader(file.get(), SourceReader::Mode::dont_cache);
  const auto unaligned = memory_.span(kSize).subspan(1, kSize / 2);
  EXPECT_EQ(reader.read(unaligned, kPage), std::ssize(unaligned));
  EXPECT_TRUE(std::ranges::equal(unaligned, std::span(content_).subspan(kPage, kSize / 2)));
}

TEST_F(TransferTest, ReadsPastTheCacheFallBackWhereTheFileSystemWantsThemAligned) {
  const Descriptor file = cold_file(content_);
  SourceReader reader(file.get(), SourceReader::Mode::past_cache);
  const auto unaligned = memory_.span(kSize).subspan(1, kSize / 2);
  EXPECT_EQ(reader.read(unaligned, kPage), std::ssize(unaligned));
  EXPECT_TRUE(std::ranges::equal(unaligned, std::span(content_).subspan(kPage, kSize / 2)));
  EXPECT_EQ(reader.mode(), SourceReader::Mode::dropping);
  EXPECT_EQ(cached_count(file.get()), 0);
}

TEST_F(TransferTest, SharedReadsLeaveTheirBytesToOthersAlsoAfterReadsPastTheCache) {
  const Descriptor file = cold_file(content_);
  SourceReader reader(file.get(), SourceReader::Mode::past_cache);
  EXPECT_EQ(reader.read(memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_EQ(cached_count(file.get()), 0);
  EXPECT_EQ(reader.read_shared(memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_EQ(cached_count(file.get()), static_cast<std::ptrdiff_t>(kSize / kPage));
}

TEST_F(TransferTest, BufferedReadsFillThePageCache) {
  const Descriptor file = cold_file(content_);
  SourceReader reader(file.get(), SourceReader::Mode::buffered);
  EXPECT_EQ(reader.read(memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_EQ(cached_count(file.get()), static_cast<std::ptrdiff_t>(kSize / kPage));
}

TEST_F(TransferTest, ReadsFallBackWhereTheFileSystemCannotSkipTheCache) {
  const Descriptor root = detached_file_system("ramfs");
  const Descriptor file(::openat(root.get(), "file", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  EXPECT_EQ(write_fully(file.get(), content_, 0), std::ssize(content_));
  SourceReader reader(file.get(), SourceReader::Mode::dont_cache);
  EXPECT_EQ(reader.read(memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_TRUE(std::ranges::equal(memory_.span(kSize), content_));
  EXPECT_EQ(reader.mode(), SourceReader::Mode::dropping);
}

TEST_F(TransferTest, DirectWritesLeaveNoCopyInThePageCache) {
  const Descriptor file = cold_file(std::vector<std::byte>(kSize));
  std::ranges::copy(content_, memory_.span(kSize).begin());
  CacheWriter writer(file.get(), CacheWriter::Mode::direct);
  EXPECT_EQ(writer.write(memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_EQ(writer.mode(), CacheWriter::Mode::direct) << "the test needs a disk to work on";
  EXPECT_EQ(cached_count(file.get()), 0);
  EXPECT_EQ(read_fully(file.get(), memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_TRUE(std::ranges::equal(memory_.span(kSize), content_));
}

TEST_F(TransferTest, TheUnalignedEndOfADirectWriteGoesThroughTheFilesOwnDescriptor) {
  const Descriptor file = cold_file({});
  const std::vector<std::byte> content = test_bytes(3 * kPage + 17);
  std::ranges::copy(content, memory_.span(content.size()).begin());
  CacheWriter writer(file.get(), CacheWriter::Mode::direct);
  EXPECT_EQ(writer.write(memory_.span(content.size()), 0), std::ssize(content));
  EXPECT_EQ(writer.mode(), CacheWriter::Mode::direct);
  EXPECT_LE(cached_count(file.get(), content.size()), 1);
  std::ranges::fill(memory_.span(content.size()), std::byte{});
  EXPECT_EQ(read_fully(file.get(), memory_.span(content.size()), 0), std::ssize(content));
  EXPECT_TRUE(std::ranges::equal(memory_.span(content.size()), content));
}

TEST_F(TransferTest, DroppingWritesLeaveNoCopyInThePageCache) {
  const Descriptor file = cold_file(std::vector<std::byte>(kSize));
  std::ranges::copy(content_, memory_.span(kSize).begin());
  CacheWriter writer(file.get(), CacheWriter::Mode::dropping);
  EXPECT_EQ(writer.write(memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_EQ(cached_count(file.get()), 0);
  EXPECT_EQ(read_fully(file.get(), memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_TRUE(std::ranges::equal(memory_.span(kSize), content_));
}

TEST_F(TransferTest, AnUnalignedWriteIsWrittenAllTheSame) {
  const Descriptor file = cold_file(std::vector<std::byte>(kSize));
  std::ranges::copy(content_, memory_.span(kSize).begin());
  CacheWriter writer(file.get(), CacheWriter::Mode::direct);
  const auto bytes = memory_.span(8 * kPage);
  EXPECT_EQ(writer.write(bytes, 512), std::ssize(bytes));
  EXPECT_EQ(read_fully(file.get(), bytes, 512), std::ssize(bytes));
  EXPECT_TRUE(std::ranges::equal(bytes, std::span(content_).first(bytes.size())));
}

TEST_F(TransferTest, WritesFallBackWhereDirectIoIsRefused) {
  const Descriptor root = detached_file_system("ramfs");
  const Descriptor file(::openat(root.get(), "file", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  std::ranges::copy(content_, memory_.span(kSize).begin());
  CacheWriter writer(file.get(), CacheWriter::Mode::direct);
  EXPECT_EQ(writer.write(memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_EQ(writer.mode(), CacheWriter::Mode::dropping);
  EXPECT_EQ(read_fully(file.get(), memory_.span(kSize), 0), std::ssize(content_));
  EXPECT_TRUE(std::ranges::equal(memory_.span(kSize), content_));
}

TEST_F(TransferTest, TheSecondDescriptorIsGoneAfterCloseDirectAndComesBackWhenNeeded) {
  const Descriptor file = cold_file(std::vector<std::byte>(kSize));
  const auto has_lease = [&file] { return ::fcntl(file.get(), F_SETLEASE, F_WRLCK) == 0; };
  CacheWriter writer(file.get(), CacheWriter::Mode::direct);
  EXPECT_EQ(writer.write(memory_.span(kPage), 0), static_cast<std::int64_t>(kPage));
  EXPECT_FALSE(has_lease());
  writer.close_direct();
  EXPECT_TRUE(has_lease());
  EXPECT_EQ(::fcntl(file.get(), F_SETLEASE, F_UNLCK), 0);
  EXPECT_EQ(writer.write(memory_.span(kPage), 0), static_cast<std::int64_t>(kPage));
  EXPECT_FALSE(has_lease());
}

TEST_F(TransferTest, ErrorsAreReturned) {
  SourceReader reader(-1, SourceReader::Mode::dont_cache);
  EXPECT_EQ(reader.read(memory_.span(10), 0), -EBADF);
  const Descriptor root = detached_file_system("tmpfs", "64k");
  const Descriptor file(::openat(root.get(), "file", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  for (const auto mode : {CacheWriter::Mode::buffered, CacheWriter::Mode::direct}) {
    CacheWriter writer(file.get(), mode);
    EXPECT_EQ(writer.write(memory_.span(kSize), 0), -ENOSPC);
  }
}

}  // namespace
}  // namespace ncfs
