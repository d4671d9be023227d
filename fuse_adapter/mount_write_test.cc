// Method: files are written through a real mount while others have them open and mapped in every
// way in which the kernel may read. What one has written, all must see when the write has returned.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "fuse_adapter/mount_fixture.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kSize = 2 * kMiB + 100;  // large enough to be passed through

class MountWriteTest : public testing::Test {
 protected:
  void start(PassedFiles passthrough = PassedFiles::all) {
    mount_.start({.passthrough = passthrough});
  }

  [[nodiscard]] Descriptor open(const std::string& path, int flags, mode_t mode = 0644) const {
    Descriptor file(::open(mount_.mounted(path).c_str(), flags | O_CLOEXEC, mode));
    EXPECT_TRUE(file.is_open()) << path << ": " << std::strerror(errno);
    return file;
  }
  [[nodiscard]] int error_of_open(const std::string& path, int flags, mode_t mode = 0644) const {
    const Descriptor file(::open(mount_.mounted(path).c_str(), flags | O_CLOEXEC, mode));
    return file.is_open() ? 0 : errno;
  }
  void make(const std::string& path, std::span<const std::byte> bytes) const {
    write_content(mount_.backend(path), bytes);
  }
  [[nodiscard]] std::vector<std::byte> backend_bytes(const std::string& path) const {
    return read_file(mount_.backend(path)).bytes;
  }

  TestMount mount_;
};

// What may depend on how the kernel reads.
class MountReadersTest : public MountWriteTest, public testing::WithParamInterface<PassedFiles> {
 protected:
  void start() { MountWriteTest::start(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(Passthrough, MountReadersTest, every_passthrough(), passthrough_name);

void write_at(const Descriptor& file, std::span<const std::byte> bytes, std::uint64_t offset) {
  ASSERT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)),
            std::ssize(bytes))
      << std::strerror(errno);
}

// A shared mapping of a file.
class SharedMapping {
 public:
  SharedMapping(const Descriptor& file, std::size_t size, int protection = PROT_READ)
      : size_(size), memory_(::mmap(nullptr, size, protection, MAP_SHARED, file.get(), 0)) {
    EXPECT_NE(memory_, MAP_FAILED) << std::strerror(errno);
  }
  ~SharedMapping() { ::munmap(memory_, size_); }
  SharedMapping(const SharedMapping&) = delete;
  SharedMapping& operator=(const SharedMapping&) = delete;

  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(memory_); }
  [[nodiscard]] std::vector<std::byte> bytes(std::size_t size) const {
    return {data(), data() + size};
  }
  [[nodiscard]] bool sync() const { return ::msync(memory_, size_, MS_SYNC) == 0; }

 private:
  const std::size_t size_;
  void* const memory_;
};

// Everybody who may have a file open when it is written to: before it was cached and after, with
// pages in memory and without, mapped and not.
class Readers {
 public:
  Readers(TestMount& mount, const std::string& path, std::size_t size) {
    add(mount, path, size, true);
    add(mount, path, size, false);
    mount.bring_into_cache(path);
    add(mount, path, size, true);
    add(mount, path, size, false);
  }

  void expect(std::span<const std::byte> expected) const {
    const std::vector<std::byte> wanted(expected.begin(), expected.end());
    for (std::size_t index = 0; index < files_.size(); ++index) {
      EXPECT_TRUE(read_descriptor(files_[index].get()).bytes == wanted) << "reader " << index;
      struct stat attributes {};
      EXPECT_EQ(::fstat(files_[index].get(), &attributes), 0);
      EXPECT_EQ(attributes.st_size, std::ssize(wanted)) << "reader " << index;
    }
    for (std::size_t index = 0; index < mappings_.size(); ++index) {
      const std::span mapped(mappings_[index]->data(), std::min(mapped_, wanted.size()));
      EXPECT_TRUE(std::ranges::equal(mapped, std::span(wanted).first(mapped.size())))
          << "mapping " << index;
    }
  }

 private:
  void add(TestMount& mount, const std::string& path, std::size_t size, bool reads) {
    files_.emplace_back(::open(mount.mounted(path).c_str(), O_RDONLY | O_CLOEXEC));
    mapped_ = size;
    mappings_.push_back(std::make_unique<SharedMapping>(files_.back(), size));
    if (!reads) return;
    EXPECT_EQ(read_descriptor(files_.back().get()).bytes.size(), size);
  }

  std::vector<Descriptor> files_;
  std::vector<std::unique_ptr<SharedMapping>> mappings_;
  std::size_t mapped_ = 0;
};

TEST_P(MountReadersTest, EveryReaderSeesWhatWasWritten) {
  start();
  auto expected = content(1, 1, kSize);
  make("file", expected);
  const Readers readers(mount_, "file", kSize);
  const Descriptor file = open("file", O_WRONLY);
  const auto bytes = content(1, 2, 10'000);
  write_at(file, bytes, kMiB - 5'000);
  std::ranges::copy(bytes, expected.begin() + kMiB - 5'000);
  readers.expect(expected);
  EXPECT_TRUE(backend_bytes("file") == expected);
  // Beyond the end, which leaves zeros between.
  write_at(file, bytes, kSize + 50'000);
  expected.resize(kSize + 50'000);
  expected.insert(expected.end(), bytes.begin(), bytes.end());
  readers.expect(expected);
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == expected);
  EXPECT_TRUE(backend_bytes("file") == expected);
}

TEST_P(MountReadersTest, EveryReaderSeesATruncation) {
  start();
  auto expected = content(1, 1, kSize);
  make("file", expected);
  const Readers readers(mount_, "file", kSize);
  ASSERT_EQ(::truncate(mount_.mounted("file").c_str(), 3 * kPage / 2), 0);
  expected.resize(3 * kPage / 2);
  readers.expect(expected);
  // What comes back is zeros, also in pages that were mapped.
  ASSERT_EQ(::truncate(mount_.mounted("file").c_str(), kSize), 0);
  expected.resize(kSize);
  readers.expect(expected);
  const Descriptor file = open("file", O_RDWR | O_TRUNC);
  expected.clear();
  readers.expect(expected);
  EXPECT_TRUE(backend_bytes("file").empty());
}

TEST_P(MountReadersTest, EveryReaderSeesHolesAndCopies) {
  start();
  auto expected = content(1, 1, kSize);
  make("file", expected);
  const Readers readers(mount_, "file", kSize);
  const Descriptor file = open("file", O_RDWR);
  ASSERT_EQ(::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kPage + 1, kMiB),
            0);
  std::ranges::fill(expected.begin() + kPage + 1, expected.begin() + kPage + 1 + kMiB,
                    std::byte{0});
  readers.expect(expected);
  off_t from = kMiB + 3 * kPage;
  off_t to = 0;
  ASSERT_EQ(::copy_file_range(file.get(), &from, file.get(), &to, 100'000, 0), 100'000);
  std::copy_n(expected.begin() + kMiB + 3 * kPage, 100'000, expected.begin());
  readers.expect(expected);
  ASSERT_EQ(::fallocate(file.get(), 0, kSize, kMiB), 0);
  expected.resize(kSize + kMiB);
  readers.expect(expected);
}

TEST_P(MountReadersTest, EveryReaderSeesWhatAMappingStored) {
  start();
  auto expected = content(1, 1, kSize);
  make("file", expected);
  const Readers readers(mount_, "file", kSize);
  const Descriptor file = open("file", O_RDWR);
  const SharedMapping mapping(file, kSize, PROT_READ | PROT_WRITE);
  const auto bytes = content(1, 2, 70'000);
  std::ranges::copy(bytes, mapping.data() + kPage - 10);
  std::ranges::copy(bytes, expected.begin() + kPage - 10);
  EXPECT_TRUE(mapping.sync());
  readers.expect(expected);
  EXPECT_TRUE(backend_bytes("file") == expected);
}

TEST_P(MountReadersTest, WhoFollowsAGrowingFileSeesEveryLine) {
  start();
  make("log", content(1, 1, kSize));
  mount_.bring_into_cache("log");
  const Descriptor tail = open("log", O_RDONLY);
  ASSERT_EQ(::lseek(tail.get(), 0, SEEK_END), static_cast<off_t>(kSize));
  const Descriptor log = open("log", O_WRONLY | O_APPEND);
  for (int line = 0; line < 50; ++line) {
    const std::string text = "line " + std::to_string(line) + '\n';
    ASSERT_EQ(::write(log.get(), text.data(), text.size()), std::ssize(text));
    std::array<char, 64> seen{};
    ASSERT_EQ(::read(tail.get(), seen.data(), seen.size()), std::ssize(text)) << line;
    EXPECT_EQ(std::string(seen.data()), text);
    EXPECT_EQ(::read(tail.get(), seen.data(), seen.size()), 0);
  }
}

TEST_F(MountWriteTest, OneAppendsWhereAnotherOneDidMeanwhile) {
  start();
  const Descriptor first = open("log", O_RDWR | O_APPEND | O_CREAT);
  const Descriptor behind(::open(mount_.backend("log").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  ASSERT_EQ(::write(first.get(), "ab", 2), 2);
  ASSERT_EQ(::write(behind.get(), "cd", 2), 2);
  ASSERT_EQ(::write(first.get(), "ef", 2), 2);
  EXPECT_EQ(backend_bytes("log").size(), 6U);
  // The kernel has put them elsewhere and is told so, later.
  EXPECT_TRUE(
      eventually([&] { return read_descriptor(first.get()).bytes == backend_bytes("log"); }));
}

TEST_P(MountReadersTest, WhoHoldsAFileThatIsReplacedGoesOnWithIt) {
  start();
  const auto old_bytes = content(1, 1, kSize);
  const auto new_bytes = content(2, 1, kSize);
  make("file", old_bytes);
  const Readers readers(mount_, "file", kSize);
  const Descriptor fresh = open("file.new", O_WRONLY | O_CREAT | O_EXCL);
  write_at(fresh, new_bytes, 0);
  ASSERT_EQ(::rename(mount_.mounted("file.new").c_str(), mount_.mounted("file").c_str()), 0);
  readers.expect(old_bytes);
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == new_bytes);
  write_at(fresh, content(3, 1, 100), 7);
  readers.expect(old_bytes);
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == backend_bytes("file"));
}

// Every page holds the number of the write that wrote it last. Who reads after a write has returned
// must find its number or a later one.
TEST_P(MountReadersTest, NobodyReadsOlderBytesThanWereAcknowledged) {
  start();
  constexpr std::size_t kPages = 512;
  constexpr std::uint64_t kWrites = 3000;
  make("file", std::vector<std::byte>(kPages * kPage));
  mount_.bring_into_cache("file");
  std::array<std::atomic<std::uint64_t>, kPages> acknowledged{};
  std::atomic<bool> is_done{false};
  std::atomic<std::uint64_t> stale{0};
  const auto check = [&](const std::byte* page, std::uint64_t least) {
    std::uint64_t value = 0;
    std::memcpy(&value, page, sizeof(value));
    if (value < least) stale.fetch_add(1);
  };
  std::vector<Descriptor> files;
  for (int kind = 0; kind < 3; ++kind) files.push_back(open("file", O_RDONLY));
  // Some readers come and go while it is open for writing, others had it open before.
  const Descriptor keeper = open("file", O_WRONLY);
  std::vector<std::thread> readers;
  for (int kind = 0; kind < 3; ++kind) {
    readers.emplace_back([&, kind] {
      Descriptor file = std::move(files[static_cast<std::size_t>(kind)]);
      std::array<std::byte, kPage> bytes{};
      for (std::uint64_t round = 0; !is_done.load(); ++round) {
        const std::size_t page = (round * 7919 + static_cast<std::size_t>(kind)) % kPages;
        const std::uint64_t least = acknowledged[page].load();
        if (kind == 0 && round % 64 == 0) file = open("file", O_RDONLY);
        if (kind == 1 && round % 500 == 0) {
          const SharedMapping mapping(file, kPages * kPage);
          check(mapping.data() + page * kPage, least);
          continue;
        }
        if (::pread(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(page * kPage)) !=
            std::ssize(bytes)) {
          stale.fetch_add(1);
        }
        check(bytes.data(), least);
      }
    });
  }
  for (std::uint64_t number = 1; number <= kWrites;) {
    const Descriptor file = open("file", O_WRONLY);
    for (int each = 0; each < 100; ++each, ++number) {
      const std::size_t page = number * 104'729 % kPages;
      std::array<std::byte, kPage> bytes{};
      std::memcpy(bytes.data(), &number, sizeof(number));
      write_at(file, bytes, page * kPage);
      acknowledged[page].store(number);
    }
  }
  is_done.store(true);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(stale.load(), 0U);
}

TEST_F(MountWriteTest, AWriterDoesNotMakeOthersLookUpAgain) {
  start();
  make("file", content(1, 1, 1000));
  EXPECT_EQ(read_file(mount_.mounted("file")).error, 0);
  const std::uint64_t before = mount_.stats().stale_answers.value();
  for (int round = 0; round < 20; ++round) {
    const Descriptor file = open("file", O_WRONLY | O_APPEND);
    ASSERT_EQ(::write(file.get(), "x", 1), 1);
    EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == backend_bytes("file"));
  }
  EXPECT_EQ(mount_.stats().stale_answers.value(), before);
}

TEST_P(MountReadersTest, NoRestartTrustsACacheFileThatWasChanged) {
  start();
  auto expected = content(1, 1, kSize);
  make("file", expected);
  mount_.bring_into_cache("file");
  {
    const Readers readers(mount_, "file", kSize);
    const Descriptor file = open("file", O_WRONLY);
    write_at(file, content(1, 2, 100), 5);
  }
  expected = backend_bytes("file");
  mount_.stop();
  start();
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == expected);
  mount_.bring_into_cache("file");
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == expected);
}

TEST_F(MountWriteTest, FlagsOfOpenMeanWhatTheyMeanOnTheBackend) {
  start();
  make("file", content(1, 1, 1000));
  EXPECT_EQ(error_of_open("file", O_RDWR | O_CREAT | O_EXCL), EEXIST);
  EXPECT_EQ(error_of_open("absent", O_RDWR), ENOENT);
  EXPECT_EQ(error_of_open("absent/file", O_RDWR | O_CREAT), ENOENT);
  EXPECT_EQ(error_of_open("", O_RDWR), EISDIR);
  EXPECT_EQ(error_of_open("file", O_RDWR | O_TMPFILE), ENOTDIR);
  EXPECT_EQ(error_of_open("", O_RDWR | O_TMPFILE), EOPNOTSUPP);
  for (const int flags : {O_WRONLY | O_SYNC, O_RDWR | O_DSYNC, O_WRONLY | O_APPEND | O_TRUNC}) {
    const Descriptor file = open("file", flags);
    ASSERT_EQ(::write(file.get(), "abc", 3), 3);
    EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == backend_bytes("file"));
  }
  EXPECT_EQ(backend_bytes("file").size(), 3U);
  // O_APPEND may come and go while the file is open.
  const Descriptor file = open("file", O_WRONLY);
  ASSERT_EQ(::fcntl(file.get(), F_SETFL, O_APPEND), 0);
  ASSERT_EQ(::write(file.get(), "de", 2), 2);
  ASSERT_EQ(::fcntl(file.get(), F_SETFL, 0), 0);
  write_at(file, content(1, 2, 1), 0);
  EXPECT_EQ(backend_bytes("file").size(), 5U);
}

TEST_F(MountWriteTest, DirectWritesMustBeAlignedAsOnTheBackend) {
  start();
  make("file", content(1, 1, 4 * kPage));
  const Descriptor plain(::open(mount_.backend("file").c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
  if (!plain.is_open()) GTEST_SKIP() << "no O_DIRECT here";
  const Descriptor file = open("file", O_RDWR | O_DIRECT);
  alignas(kPage) std::array<std::byte, 2 * kPage> bytes{};
  bytes.fill(std::byte{7});
  EXPECT_EQ(::pwrite(file.get(), bytes.data(), kPage, kPage), static_cast<ssize_t>(kPage));
  errno = 0;
  const ssize_t wanted = ::pwrite(plain.get(), bytes.data(), 100, 1);
  const int wanted_error = errno;
  errno = 0;
  EXPECT_EQ(::pwrite(file.get(), bytes.data(), 100, 1), wanted);
  EXPECT_EQ(errno, wanted_error);
  // Pages that a mapping of it stored need not be.
  const SharedMapping mapping(file, 4 * kPage, PROT_READ | PROT_WRITE);
  mapping.data()[3 * kPage + 1] = std::byte{9};
  EXPECT_TRUE(mapping.sync());
  EXPECT_EQ(backend_bytes("file")[3 * kPage + 1], std::byte{9});
}

constexpr uid_t kUser = 4321;
constexpr uid_t kStranger = 4322;

TEST_F(MountWriteTest, FilesAreMadeAsTheCallerWithItsUmask) {
  start();
  std::filesystem::create_directory(mount_.backend("dir"));
  ASSERT_EQ(::chown(mount_.backend("dir").c_str(), kUser, kUser), 0);
  const std::string path = mount_.mounted("dir/made");
  EXPECT_TRUE(as_user(kUser, kUser, [&] {
    ::umask(027);
    // Though its mode says that it may not be written.
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT, 0464);
    return file >= 0 && ::write(file, "x", 1) == 1;
  }));
  struct stat attributes {};
  ASSERT_EQ(::stat(mount_.backend("dir/made").c_str(), &attributes), 0);
  EXPECT_EQ(attributes.st_uid, kUser);
  EXPECT_EQ(attributes.st_gid, kUser);
  EXPECT_EQ(attributes.st_mode & 07777U, 0440U);
  EXPECT_TRUE(as_user(kStranger, kStranger, [&] {
    return ::open(path.c_str(), O_WRONLY) < 0 && errno == EACCES &&
           ::truncate(path.c_str(), 0) < 0 && errno == EACCES &&
           ::open((path + "2").c_str(), O_WRONLY | O_CREAT, 0666) < 0 && errno == EACCES;
  }));
}

TEST_F(MountWriteTest, WhoWritesTakesSetuidAwayAsOnTheBackend) {
  start();
  const auto mode_after = [&](const std::function<bool(const std::string&)>& change) {
    make("tool", content(1, 1, 1000));
    EXPECT_EQ(::chown(mount_.backend("tool").c_str(), 0, 0), 0);
    EXPECT_EQ(::chmod(mount_.backend("tool").c_str(), 06777), 0);
    EXPECT_TRUE(as_user(kUser, kUser, [&] { return change(mount_.mounted("tool")); }));
    struct stat attributes {};
    EXPECT_EQ(::stat(mount_.backend("tool").c_str(), &attributes), 0);
    const mode_t on_backend = attributes.st_mode;
    EXPECT_EQ(::stat(mount_.mounted("tool").c_str(), &attributes), 0);
    EXPECT_EQ(attributes.st_mode, on_backend);
    return on_backend & 07777U;
  };
  EXPECT_EQ(mode_after([](const std::string& path) {
              return ::write(::open(path.c_str(), O_WRONLY), "x", 1) == 1;
            }),
            0777U);
  EXPECT_EQ(mode_after([](const std::string& path) { return ::truncate(path.c_str(), 5) == 0; }),
            0777U);
  EXPECT_EQ(mode_after([](const std::string& path) {
              return ::open(path.c_str(), O_WRONLY | O_TRUNC) >= 0;
            }),
            0777U);
}

// Shown at once, and for changes of other kinds than write(2).
TEST_F(MountWriteTest, WhoChangesAProgramTakesItsPrivilegesAwayAsOnTheBackend) {
  mount_.start({.passthrough = PassedFiles::none});
  // Version 2 with cap_setuid in effect; the layout is in linux/capability.h.
  constexpr std::array<std::uint32_t, 5> kCapability{0x02000001, 1U << 7U, 0, 0, 0};
  const std::string name = "security.capability";
  const auto changed_by_user = [](const std::string& path, bool writes) {
    return as_user(4321, 4321, [&] {
      const int file = ::open(path.c_str(), O_WRONLY);
      return writes ? ::pwrite(file, "x", 1, 0) == 1 : ::fallocate(file, 0, 0, 100) == 0;
    });
  };
  for (const bool writes : {true, false}) {
    const std::string program = writes ? "written" : "allocated";
    make(program, content(1, 1, 10));
    const std::string plain = mount_.backend(program);
    const std::string mounted = mount_.mounted(program);
    ASSERT_EQ(::chmod(plain.c_str(), 06777), 0);
    const bool has_capability =
        ::setxattr(plain.c_str(), name.c_str(), kCapability.data(), sizeof(kCapability), 0) == 0;
    EXPECT_TRUE(changed_by_user(mounted, writes));
    struct stat attributes {};
    EXPECT_EQ(::stat(mounted.c_str(), &attributes), 0);
    EXPECT_EQ(attributes.st_mode & 07777U, 0777U);
    EXPECT_EQ(::stat(plain.c_str(), &attributes), 0);
    EXPECT_EQ(attributes.st_mode & 07777U, 0777U);
    if (!has_capability) continue;
    std::array<std::byte, sizeof(kCapability)> left{};
    EXPECT_EQ(::getxattr(plain.c_str(), name.c_str(), left.data(), left.size()), -1);
    EXPECT_EQ(errno, ENODATA);
  }
}

TEST_F(MountWriteTest, AFullBackendIsToldAsItIs) {
  ASSERT_TRUE(std::filesystem::create_directory(mount_.backend("small")));
  ASSERT_EQ(::mount("tmpfs", mount_.backend("small").c_str(), "tmpfs", 0, "size=64k"), 0);
  start();
  {
    const Descriptor file = open("small/file", O_WRONLY | O_CREAT);
    const auto bytes = content(1, 1, 100'000);
    // As much as there is room for, and then nothing.
    EXPECT_EQ(::write(file.get(), bytes.data(), bytes.size()), 65'536);
    EXPECT_EQ(::write(file.get(), bytes.data(), 1), -1);
    EXPECT_EQ(errno, ENOSPC);
    EXPECT_EQ(::fsync(file.get()), 0);
  }
  mount_.stop();
  ASSERT_EQ(::umount2(mount_.backend("small").c_str(), MNT_DETACH), 0);
}

// A backend whose file fails every write: no memory is at address 0.
TEST_F(MountWriteTest, AnErrorThatMayHaveLostDataStaysWithItsHandle) {
  mount_.start({.backend = "/proc/self"});
  Descriptor file = open("mem", O_WRONLY);
  Descriptor copy(::fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
  EXPECT_EQ(::pwrite(file.get(), "x", 1, 0), -1);
  EXPECT_EQ(errno, EIO);
  for (int time = 0; time < 2; ++time) {
    EXPECT_EQ(::fsync(file.get()), -1);
    EXPECT_EQ(errno, EIO);
    EXPECT_EQ(::fdatasync(copy.get()), -1);
    EXPECT_EQ(errno, EIO);
  }
  for (Descriptor* const last : {&copy, &file}) {
    EXPECT_EQ(::close(last->release()), -1);
    EXPECT_EQ(errno, EIO);
  }
  // Another handle has lost nothing.
  EXPECT_EQ(::close(open("mem", O_WRONLY).release()), 0);
}

TEST_F(MountWriteTest, TheLimitOfFileSizesIsTheCallers) {
  start();
  make("file", {});
  const auto bytes = content(1, 1, 10'000);
  const std::string path = mount_.mounted("file");
  EXPECT_TRUE(as_user(0, 0, [&] {
    const rlimit limit{.rlim_cur = 4096, .rlim_max = 4096};
    ::signal(SIGXFSZ, SIG_IGN);
    const int file = ::open(path.c_str(), O_WRONLY);
    const auto is_too_big = [](auto result) { return result == -1 && errno == EFBIG; };
    return ::setrlimit(RLIMIT_FSIZE, &limit) == 0 &&
           ::write(file, bytes.data(), bytes.size()) == 4096 &&
           is_too_big(::write(file, bytes.data(), 1)) && is_too_big(::ftruncate(file, 4097)) &&
           is_too_big(::fallocate(file, 0, 0, 4097)) && ::close(file) == 0;
  }));
  EXPECT_TRUE(std::ranges::equal(backend_bytes("file"), std::span(bytes).first(4096)));
}

TEST_F(MountWriteTest, WhoMayNotWriteOnTheBackendMayNotHere) {
  start();
  const auto bytes = content(1, 1, 100);
  make("file", bytes);
  ASSERT_EQ(::chmod(mount_.backend("file").c_str(), 0644), 0);
  const std::string path = mount_.mounted("file");
  const Descriptor mine = open("file", O_WRONLY);
  const auto is_refused = [](auto result) { return result == -1 && errno == EACCES; };
  EXPECT_TRUE(as_user(4711, 4711, [&] {
    return is_refused(::open(path.c_str(), O_WRONLY)) &&
           is_refused(::open(path.c_str(), O_RDONLY | O_TRUNC)) &&
           is_refused(::truncate(path.c_str(), 0)) &&
           is_refused(::open((path + ".new").c_str(), O_WRONLY | O_CREAT, 0600));
  }));
  EXPECT_TRUE(backend_bytes("file") == bytes);
  // What somebody else has opened may be written to by whoever was given it.
  EXPECT_TRUE(as_user(4711, 4711, [&] { return ::pwrite(mine.get(), "12345", 5, 100) == 5; }));
  EXPECT_EQ(backend_bytes("file").size(), 105U);
}

TEST_P(MountReadersTest, WhoMayRunAProgramNeedNotBeAllowedToReadIt) {
  start();
  std::filesystem::copy_file("/bin/true", mount_.backend("program"));
  const std::string path = mount_.mounted("program");
  const auto can_run = [&] {
    return as_user(4321, 4321, [&] {
      const pid_t child = ::fork();
      if (child == 0) {
        ::execl(path.c_str(), "program", nullptr);
        ::_exit(1);
      }
      int status = -1;
      return ::waitpid(child, &status, 0) == child && status == 0;
    });
  };
  ASSERT_EQ(::chmod(mount_.backend("program").c_str(), 0711), 0);
  for (int time = 0; time < 2; ++time) {
    EXPECT_TRUE(can_run());
    EXPECT_TRUE(
        as_user(4321, 4321, [&] { return ::open(path.c_str(), O_RDONLY) < 0 && errno == EACCES; }));
    mount_.bring_into_cache("program");
  }
  // Through the mount, which the kernel believes at once.
  ASSERT_EQ(::chmod(path.c_str(), 0744), 0);
  EXPECT_FALSE(can_run());
}

TEST_P(MountReadersTest, AnOpenFileThatLostItsNameHasNoLinks) {
  start();
  make("file", content(1, 1, kSize));
  mount_.bring_into_cache("file");
  ASSERT_EQ(::link(mount_.backend("file").c_str(), mount_.backend("other").c_str()), 0);
  const Descriptor reader = open("file", O_RDONLY);
  const auto links = [](const Descriptor& file) {
    struct stat attributes {};
    EXPECT_EQ(::fstat(file.get(), &attributes), 0);
    return attributes.st_nlink;
  };
  ASSERT_EQ(::unlink(mount_.mounted("file").c_str()), 0);
  EXPECT_EQ(links(reader), 1U);
  const Descriptor writer = open("other", O_RDWR);
  ASSERT_EQ(::unlink(mount_.mounted("other").c_str()), 0);
  EXPECT_EQ(links(reader), 0U);
  EXPECT_EQ(links(writer), 0U);
}

TEST_F(MountWriteTest, AnOpenDirectoryThatLostItsNameIsAsOnTheBackend) {
  start();
  const auto links_after = [](const std::string& root, const auto& remove) {
    std::filesystem::create_directory(root + "/first");
    std::filesystem::create_directory(root + "/second");
    const Descriptor held(::open((root + "/first").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    EXPECT_EQ(remove(root), 0);
    struct stat attributes {};
    EXPECT_EQ(::fstat(held.get(), &attributes), 0) << std::strerror(errno);
    std::filesystem::remove(root + "/first");
    std::filesystem::remove(root + "/second");
    return attributes.st_nlink;
  };
  const auto removed = [](const std::string& root) { return ::rmdir((root + "/first").c_str()); };
  const auto replaced = [](const std::string& root) {
    return ::rename((root + "/second").c_str(), (root + "/first").c_str());
  };
  EXPECT_EQ(links_after(mount_.mounted(), removed), links_after(mount_.backend(), removed));
  EXPECT_EQ(links_after(mount_.mounted(), replaced), links_after(mount_.backend(), replaced));
}

TEST_F(MountWriteTest, AFileWithoutANameIsWrittenAndRead) {
  start();
  const Descriptor file = open("file", O_RDWR | O_CREAT);
  ASSERT_EQ(::unlink(mount_.mounted("file").c_str()), 0);
  const auto bytes = content(1, 1, 100'000);
  write_at(file, bytes, 10);
  ASSERT_EQ(::ftruncate(file.get(), 50'000), 0);
  const auto seen = read_descriptor(file.get()).bytes;
  ASSERT_EQ(seen.size(), 50'000U);
  EXPECT_TRUE(std::equal(seen.begin() + 10, seen.end(), bytes.begin()));
  EXPECT_EQ(::fsync(file.get()), 0);
  const Descriptor directory = open("", O_RDONLY | O_DIRECTORY);
  EXPECT_EQ(::fsync(directory.get()), 0);
}

}  // namespace
}  // namespace ncfs
