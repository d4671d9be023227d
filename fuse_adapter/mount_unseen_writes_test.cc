// Method: files that the kernel writes to without the daemon, through a real mount. Whoever opens
// them meanwhile, in any way, must see each write when it has returned, and so must those who come
// after; nothing of the cache may be older.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "fuse_adapter/left_mappings.h"
#include "fuse_adapter/mount_fixture.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kSize = 2 * kMiB + 100;  // large enough for readers to be passed through

class MountUnseenWritesTest : public testing::Test {
 protected:
  void start(PassedFiles passthrough = PassedFiles::all) {
    mount_.start({.passthrough = passthrough});
    if (!mount_.passes_through()) GTEST_SKIP() << "this kernel has no passthrough";
  }

  void make(const std::string& path, const std::vector<std::byte>& bytes) const {
    write_content(mount_.backend(path), bytes);
  }
  [[nodiscard]] Descriptor open(const std::string& path, int flags) const {
    Descriptor file(::open(mount_.mounted(path).c_str(), flags | O_CLOEXEC, 0644));
    EXPECT_TRUE(file.is_open()) << path << ": " << std::strerror(errno);
    return file;
  }
  // Writes, and says whether the daemon heard of it.
  bool write(const Descriptor& file, const std::vector<std::byte>& bytes, std::uint64_t offset) {
    const std::uint64_t before = mount_.stats().writes.value();
    EXPECT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              std::ssize(bytes))
        << std::strerror(errno);
    return mount_.stats().writes.value() != before;
  }
  [[nodiscard]] std::vector<std::byte> on_backend(const std::string& path) const {
    return read_file(mount_.backend(path)).bytes;
  }
  [[nodiscard]] std::vector<std::byte> on_mount(const std::string& path) const {
    return read_file(mount_.mounted(path)).bytes;
  }
  [[nodiscard]] bool tells_of_mappings() const {
    const Descriptor root(::open(mount_.backend().c_str(), O_RDONLY | O_CLOEXEC));
    return ncfs::tells_of_mappings(root.get());
  }
  static off_t size_of(const Descriptor& file) {
    struct stat attributes {};
    EXPECT_EQ(::fstat(file.get(), &attributes), 0);
    return attributes.st_size;
  }

  TestMount mount_;
};

// A mapping that outlives its descriptor.
class Mapped {
 public:
  Mapped(const Descriptor& file, int protection)
      : memory_(::mmap(nullptr, kSize, protection, MAP_SHARED, file.get(), 0)) {
    EXPECT_NE(memory_, MAP_FAILED) << std::strerror(errno);
  }
  ~Mapped() { ::munmap(memory_, kSize); }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(memory_); }

 private:
  void* const memory_;
};

TEST_F(MountUnseenWritesTest, WhoOnlyWritesWritesToTheBackendItself) {
  start();
  if (IsSkipped()) return;
  const auto bytes = content(1, 1, kSize);
  for (const int flags : {O_CREAT | O_EXCL, O_TRUNC, 0, O_DSYNC}) {
    const Descriptor file = open("file", O_WRONLY | flags);
    EXPECT_FALSE(write(file, bytes, 0)) << flags;
    EXPECT_EQ(size_of(file), static_cast<off_t>(kSize));
    EXPECT_EQ(::fsync(file.get()), 0);
    EXPECT_TRUE(on_mount("file") == bytes);
    EXPECT_TRUE(on_backend("file") == bytes);
  }
  // Who may map it too, where the backend tells when nobody does any more. Who appends, and who
  // comes to a file that is read through the page cache, does not.
  const Descriptor both = open("both", O_RDWR | O_CREAT);
  EXPECT_NE(write(both, content(1, 2, 10), 0), tells_of_mappings());
  EXPECT_TRUE(write(open("log", O_WRONLY | O_APPEND | O_CREAT), content(1, 2, 10), 0));
  make("small", content(1, 1, 1000));
  const Descriptor reader = open("small", O_RDONLY);
  EXPECT_TRUE(write(open("small", O_WRONLY), content(1, 2, 10), 0));
}

TEST_F(MountUnseenWritesTest, NothingIsWrittenUnseenWhereOnlyTheCacheIsPassedThrough) {
  mount_.start({.passthrough = PassedFiles::cached});
  EXPECT_TRUE(write(open("file", O_WRONLY | O_CREAT), content(1, 1, 10), 0));
  EXPECT_TRUE(on_mount("file") == content(1, 1, 10));
}

TEST_F(MountUnseenWritesTest, WhoeverOpensTheFileMeanwhileSeesEachWrite) {
  start();
  if (IsSkipped()) return;
  auto expected = content(1, 1, kSize);
  make("file", expected);
  mount_.bring_into_cache("file");
  const Descriptor writer = open("file", O_WRONLY);
  std::vector<Descriptor> others;
  for (const int flags : {O_RDONLY, O_RDWR, O_RDWR | O_APPEND, O_WRONLY}) {
    others.push_back(open("file", flags));
  }
  const Mapped mapped(others[0], PROT_READ);
  const Mapped stored(others[1], PROT_READ | PROT_WRITE);
  const auto expect_seen = [&] {
    for (const Descriptor& file : others) EXPECT_EQ(size_of(file), std::ssize(expected));
    for (const std::size_t reader : {0U, 1U, 2U}) {
      EXPECT_TRUE(read_descriptor(others[reader].get()).bytes == expected) << reader;
    }
    const std::size_t shown = std::min<std::size_t>(expected.size(), kSize);
    EXPECT_EQ(std::memcmp(mapped.data(), expected.data(), shown), 0);
    EXPECT_TRUE(on_mount("file") == expected);
  };
  expect_seen();
  const auto put = [&](const Descriptor& file, std::uint64_t offset, std::uint64_t version) {
    const auto bytes = content(1, version, 10'000);
    write(file, bytes, offset);
    expected.resize(std::max<std::size_t>(expected.size(), offset + bytes.size()));
    std::ranges::copy(bytes, expected.begin() + static_cast<std::ptrdiff_t>(offset));
  };
  put(writer, kMiB - 17, 2);
  expect_seen();
  put(others[1], 5, 3);
  expect_seen();
  put(writer, expected.size() + kMiB, 4);
  expect_seen();
  put(others[2], expected.size(), 5);
  expect_seen();
  put(others[3], 2 * kPage, 6);
  std::memcpy(stored.data() + kMiB, content(9, 9, 100).data(), 100);
  std::ranges::copy(content(9, 9, 100), expected.begin() + kMiB);
  expect_seen();
  ASSERT_EQ(::ftruncate(writer.get(), kMiB + 10), 0);
  expected.resize(kMiB + 10);
  expect_seen();
  ASSERT_EQ(::truncate(mount_.mounted("file").c_str(), kSize), 0);
  expected.resize(kSize);
  expect_seen();
  ASSERT_EQ(::fallocate(writer.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPage), 0);
  std::fill_n(expected.begin(), kPage, std::byte{0});
  expect_seen();
}

TEST_F(MountUnseenWritesTest, WhoComesAfterwardsReadsWhatWasWritten) {
  start();
  if (IsSkipped()) return;
  make("large", content(1, 1, kSize));
  make("small", content(1, 1, 10 * kPage));
  for (const std::string& path : {std::string("large"), std::string("small")}) {
    for (std::uint64_t version = 2; version < 5; ++version) {
      // In the cache, and in the page cache of the kernel.
      mount_.bring_into_cache(path);
      EXPECT_TRUE(on_mount(path) == on_backend(path));
      Descriptor writer = open(path, O_WRONLY);
      write(writer, content(1, version, 3 * kPage), kPage + 1);
      const Descriptor reader = open(path, O_RDONLY);
      EXPECT_TRUE(read_descriptor(reader.get()).bytes == on_backend(path));
      write(writer, content(2, version, 10), 5);
      EXPECT_EQ(::close(writer.release()), 0);
      EXPECT_TRUE(read_descriptor(reader.get()).bytes == on_backend(path)) << path;
      EXPECT_TRUE(on_mount(path) == on_backend(path)) << path;
    }
  }
}

// What a mapping stores into a dirty page changes no time of the file.
TEST_F(MountUnseenWritesTest, AMappingThatIsLeftCountsAsAWriter) {
  start();
  if (IsSkipped()) return;
  make("file", content(1, 1, kSize));
  {
    Descriptor writer = open("file", O_WRONLY);
    Descriptor joined = open("file", O_RDWR);
    const Mapped left(joined, PROT_READ | PROT_WRITE);
    writer = {};
    joined = {};
    for (int round = 1; round < 20; ++round) {
      left.data()[kMiB] = static_cast<std::byte>(round);
      const Descriptor reader = open("file", O_RDONLY);
      const auto seen = read_descriptor(reader.get()).bytes;
      ASSERT_EQ(seen.size(), kSize);
      EXPECT_EQ(seen[kMiB], static_cast<std::byte>(round));
      left.data()[kMiB] = static_cast<std::byte>(round + 100);
      EXPECT_EQ(read_descriptor(reader.get()).bytes[kMiB], static_cast<std::byte>(round + 100));
    }
  }
  // Once it is gone, the file is one like any other.
  EXPECT_TRUE(eventually([&] {
    const std::uint64_t before = mount_.stats().opens_hit.value();
    mount_.bring_into_cache("file");
    return on_mount("file") == on_backend("file") && mount_.stats().opens_hit.value() > before;
  }));
}

// Who opens a file for both and stores nothing costs no copy; who stores something does, once it is
// sure that nobody stores any more.
TEST_F(MountUnseenWritesTest, WhatNobodyStoredIntoStaysCached) {
  start();
  if (IsSkipped()) return;
  if (!tells_of_mappings()) GTEST_SKIP() << "the backend does not tell of mappings";
  auto expected = content(1, 1, kSize);
  make("file", expected);
  mount_.bring_into_cache("file");
  const auto is_read_from_cache = [&] {
    mount_.bring_into_cache("file");
    const std::uint64_t before = mount_.stats().opens_passthrough.value();
    EXPECT_TRUE(on_mount("file") == expected);
    return mount_.stats().opens_passthrough.value() > before;
  };
  EXPECT_TRUE(is_read_from_cache());
  const std::uint64_t copies = mount_.engine_status().copies_finished;
  {
    const Descriptor file = open("file", O_RDWR);
    EXPECT_FALSE(is_read_from_cache());
    const Descriptor other = open("file", O_RDWR);
    const Mapped mapped(file, PROT_READ | PROT_WRITE);
    EXPECT_TRUE(std::memcmp(mapped.data(), expected.data(), kSize) == 0);
  }
  EXPECT_TRUE(eventually(is_read_from_cache));
  EXPECT_EQ(mount_.engine_status().copies_finished, copies);
  {
    Descriptor file = open("file", O_RDWR);
    const Mapped left(file, PROT_READ | PROT_WRITE);
    file = {};
    expected[kMiB] = left.data()[kMiB] = static_cast<std::byte>(~expected[kMiB]);
    EXPECT_FALSE(is_read_from_cache());
  }
  EXPECT_TRUE(eventually(is_read_from_cache));
  EXPECT_GT(mount_.engine_status().copies_finished, copies);
}

TEST_F(MountUnseenWritesTest, WhatAMappingStoresIsShownInTheTimes) {
  mount_.start({.metadata = metadata_config(MetadataProfile::unchanged)});
  if (!mount_.passes_through()) GTEST_SKIP() << "this kernel has no passthrough";
  if (!tells_of_mappings()) GTEST_SKIP() << "the backend does not tell of mappings";
  make("file", content(1, 1, kSize));
  // Not the time of the last access, for which the kernel would ask for all.
  const auto modified = [](const std::string& path) {
    struct statx attributes {};
    EXPECT_EQ(::statx(AT_FDCWD, path.c_str(), 0, STATX_MTIME, &attributes), 0);
    return std::pair(attributes.stx_mtime.tv_sec, attributes.stx_mtime.tv_nsec);
  };
  EXPECT_EQ(modified(mount_.mounted("file")), modified(mount_.backend("file")));
  {
    const Descriptor file = open("file", O_RDWR);
    const Mapped mapped(file, PROT_READ | PROT_WRITE);
    mapped.data()[kMiB] = std::byte{1};
  }
  EXPECT_EQ(modified(mount_.mounted("file")), modified(mount_.backend("file")));
}

// However often a file is opened and closed while it cannot be told that it is not mapped, one
// descriptor is kept for it, and none in the end.
TEST_F(MountUnseenWritesTest, WhatIsLeftIsKeptOnce) {
  start();
  if (IsSkipped()) return;
  if (!tells_of_mappings()) GTEST_SKIP() << "the backend does not tell of mappings";
  make("file", content(1, 1, kSize));
  const auto kept = [path = mount_.backend("file")] {
    return std::ranges::count_if(
        std::filesystem::directory_iterator("/proc/self/fd"), [&](const auto& entry) {
          std::error_code error;  // closed meanwhile
          return std::filesystem::read_symlink(entry.path(), error) == path;
        });
  };
  {
    const Descriptor holder = open("file", O_RDWR);
    for (int time = 0; time < 100; ++time) EXPECT_TRUE(open("file", O_RDWR).is_open());
    EXPECT_TRUE(eventually([&] { return kept() <= 2; })) << kept();
  }
  // Each open of whatever file looks whether something is still left of others.
  make("another", {});
  EXPECT_TRUE(eventually([&] {
    EXPECT_TRUE(open("another", O_RDONLY).is_open());
    return kept() == 0;
  })) << kept();
}

constexpr uid_t kUser = 4321;

// The kernel writes with the rights of who opened the file, which for root includes to leave setuid
// alone.
TEST_F(MountUnseenWritesTest, NobodyWritesWithTheRightsOfRoot) {
  start();
  if (IsSkipped()) return;
  make("tool", content(1, 1, 1000));
  ASSERT_EQ(::chmod(mount_.backend("tool").c_str(), 06777), 0);
  const auto mode = [&] {
    struct stat attributes {};
    EXPECT_EQ(::stat(mount_.backend("tool").c_str(), &attributes), 0);
    return attributes.st_mode & 07777U;
  };
  const Descriptor roots = open("tool", O_WRONLY);
  EXPECT_FALSE(write(roots, content(1, 2, 10), 0));
  EXPECT_EQ(mode(), 06777U);
  const std::string path = mount_.mounted("tool");
  EXPECT_TRUE(as_user(kUser, kUser, [&] {
    const int file = ::open(path.c_str(), O_WRONLY);
    return file >= 0 && ::pwrite(file, "users", 5, 2000) == 5 && ::close(file) == 0;
  }));
  EXPECT_EQ(mode(), 0777U);
  // The file has two nodes now, and each shows at once what is written under the other.
  EXPECT_EQ(size_of(roots), 2005);
  const Descriptor reader = open("tool", O_RDONLY);
  EXPECT_EQ(size_of(reader), 2005);
  EXPECT_FALSE(write(roots, content(1, 3, 10), 5000));
  EXPECT_EQ(size_of(reader), 5010);
  EXPECT_TRUE(read_descriptor(reader.get()).bytes == on_backend("tool"));
  EXPECT_TRUE(on_mount("tool") == on_backend("tool"));
}

TEST_F(MountUnseenWritesTest, AFileWithoutANameIsWritten) {
  start();
  if (IsSkipped()) return;
  const Descriptor file = open("file", O_WRONLY | O_CREAT);
  ASSERT_EQ(::unlink(mount_.mounted("file").c_str()), 0);
  EXPECT_FALSE(write(file, content(1, 1, kSize), 0));
  EXPECT_EQ(size_of(file), static_cast<off_t>(kSize));
  EXPECT_EQ(::fdatasync(file.get()), 0);
  const Descriptor again(::open(("/proc/self/fd/" + std::to_string(file.get())).c_str(), O_RDONLY));
  EXPECT_TRUE(read_descriptor(again.get()).bytes == content(1, 1, kSize));
}

}  // namespace
}  // namespace ncfs
