// Method: files change, are copied, evicted and replaced under a real mount while applications hold
// and open them. Every byte says which version it belongs to, so a mixture is seen.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
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
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fuse_adapter/mount_fixture.h"

namespace ncfs {
namespace {

namespace fs = std::filesystem;

class MountChangesTest : public testing::TestWithParam<PassedFiles> {
 protected:
  void start() { mount_.start({.passthrough = GetParam()}); }
  void write(const std::string& path, std::span<const std::byte> bytes) {
    write_content(mount_.backend(path), bytes);
  }
  void replace(const std::string& path, std::span<const std::byte> bytes) {
    write(path + ".new", bytes);
    fs::rename(mount_.backend(path + ".new"), mount_.backend(path));
  }
  Descriptor open(const std::string& path) {
    return Descriptor(::open(mount_.mounted(path).c_str(), O_RDONLY | O_CLOEXEC));
  }
  // Opens a descriptor again by its number, as /dev/stdin does: there is no name to look up.
  static Descriptor reopen(const Descriptor& file) {
    const std::string path = "/proc/self/fd/" + std::to_string(file.get());
    return Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  }

  TestMount mount_;
};

INSTANTIATE_TEST_SUITE_P(Passthrough, MountChangesTest, every_passthrough(), passthrough_name);

// A mapping of a whole file.
class Mapping {
 public:
  Mapping(const Descriptor& file, std::size_t size, int kind)
      : size_(size), memory_(::mmap(nullptr, size, PROT_READ, kind, file.get(), 0)) {}
  ~Mapping() {
    if (is_valid()) ::munmap(memory_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  [[nodiscard]] bool is_valid() const { return memory_ != MAP_FAILED; }
  [[nodiscard]] bool holds(std::span<const std::byte> bytes) const {
    return is_valid() &&
           std::equal(bytes.begin(), bytes.end(), static_cast<const std::byte*>(memory_));
  }

 private:
  const std::size_t size_;
  void* const memory_;
};

TEST_P(MountChangesTest, OpensWhileTheCopyRunsAndWhenItEndsNeverFail) {
  constexpr std::uint64_t kSize = 48 * kMiB;
  constexpr int kFiles = 3;
  std::vector<std::vector<std::byte>> contents;
  for (int file = 0; file < kFiles; ++file) {
    contents.push_back(content(static_cast<std::uint64_t>(file), 0, kSize));
    write(std::to_string(file), contents.back());
  }
  start();
  // Held from before the first byte is copied until all is over.
  std::vector<Descriptor> held;
  std::vector<std::unique_ptr<Mapping>> mappings;
  for (int file = 0; file < kFiles; ++file) {
    held.push_back(open(std::to_string(file)));
    mappings.push_back(
        std::make_unique<Mapping>(held.back(), kSize, file % 2 == 0 ? MAP_SHARED : MAP_PRIVATE));
  }
  std::atomic<bool> is_over{false};
  std::atomic<int> failures{0};
  std::atomic<int> opens{0};
  std::vector<std::thread> readers;
  for (unsigned reader = 0; reader < 6; ++reader) {
    readers.emplace_back([&, reader] {
      std::uint64_t random = reader + 1;
      while (!is_over) {
        random = random * 6364136223846793005U + 1442695040888963407U;
        const auto file = static_cast<std::size_t>(random >> 33U) % kFiles;
        const std::uint64_t offset = (random >> 20U) % (kSize - kMiB);
        const std::uint64_t size = 1 + (random >> 10U) % kMiB;
        const Descriptor opened = open(std::to_string(file));
        std::vector<std::byte> bytes(size);
        const bool is_read = ::pread(opened.get(), bytes.data(), size,
                                     static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
        const bool is_right =
            is_read && std::equal(bytes.begin(), bytes.end(),
                                  contents[file].begin() + static_cast<std::ptrdiff_t>(offset));
        const Mapping mapping(opened, kSize, reader % 2 == 0 ? MAP_SHARED : MAP_PRIVATE);
        const Descriptor again = reopen(opened);
        if (!is_right || !mapping.is_valid() || !again.is_open()) ++failures;
        ++opens;
      }
    });
  }
  EXPECT_TRUE(mount_.wait_until(
      [](const EngineStatus& status) { return status.objects_cached == kFiles; }));
  const int opens_before = opens;
  EXPECT_TRUE(mount_.wait_until([&](const EngineStatus&) { return opens > opens_before + 200; }));
  is_over = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(failures, 0);
  for (std::size_t file = 0; file < kFiles; ++file) {
    EXPECT_TRUE(mappings[file]->holds(contents[file]));
    EXPECT_TRUE(read_descriptor(held[file].get()).bytes == contents[file]);
  }
  if (mount_.passes_through()) {
    EXPECT_GT(mount_.stats().opens_passthrough.value(), 0U);
  }
  EXPECT_EQ(mount_.stats().errors.value(), 0U);
}

TEST_P(MountChangesTest, AChangeIsSeenAtTheNextOpen) {
  constexpr std::uint64_t kSize = 3 * kMiB;
  struct Change {
    const char* name;
    std::function<void(const std::string& path, std::span<const std::byte> bytes)> make;
  };
  const std::array<Change, 4> changes{{
      {"rewritten in place",
       [&](const std::string& path, std::span<const std::byte> bytes) {
         const Descriptor file(::open(mount_.backend(path).c_str(), O_WRONLY));
         EXPECT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), 0), std::ssize(bytes));
         EXPECT_EQ(::ftruncate(file.get(), std::ssize(bytes)), 0);
       }},
      {"rewritten with its time restored",
       [&](const std::string& path, std::span<const std::byte> bytes) {
         struct stat before {};
         EXPECT_EQ(::stat(mount_.backend(path).c_str(), &before), 0);
         write(path, bytes);
         const std::array<timespec, 2> times{before.st_atim, before.st_mtim};
         EXPECT_EQ(::utimensat(AT_FDCWD, mount_.backend(path).c_str(), times.data(), 0), 0);
       }},
      {"replaced",
       [&](const std::string& path, std::span<const std::byte> bytes) { replace(path, bytes); }},
      {"removed and made anew",
       [&](const std::string& path, std::span<const std::byte> bytes) {
         fs::remove(mount_.backend(path));
         write(path, bytes);
       }},
  }};
  for (const bool is_cached : {false, true}) {
    for (const bool is_held : {false, true}) {
      mount_.stop();
      write("file", content(1, 0, kSize));
      start();
      if (is_cached) mount_.bring_into_cache("file");
      std::vector<Descriptor> held;
      std::vector<std::unique_ptr<Mapping>> mappings;
      std::uint64_t version = 0;
      for (const Change& change : changes) {
        if (is_held) {
          held.push_back(open("file"));
          mappings.push_back(std::make_unique<Mapping>(held.back(), kSize, MAP_SHARED));
          EXPECT_TRUE(mappings.back()->holds(content(1, version, kSize)));
        }
        ++version;
        // Now the same size, now another.
        const auto bytes = content(1, version, kSize + (version % 2) * 4097);
        change.make("file", bytes);
        EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes) << change.name;
        if (is_cached) mount_.bring_into_cache("file");
        EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes) << change.name;
      }
    }
  }
}

TEST_P(MountChangesTest, ATruncatedFileIsShortAtTheNextOpen) {
  const auto bytes = content(1, 0, 3 * kMiB);
  write("file", bytes);
  start();
  mount_.bring_into_cache("file");
  const Descriptor held = open("file");
  ASSERT_EQ(::truncate(mount_.backend("file").c_str(), 1000), 0);
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes ==
              std::vector<std::byte>(bytes.begin(), bytes.begin() + 1000));
  ASSERT_EQ(::truncate(mount_.backend("file").c_str(), 0), 0);
  EXPECT_EQ(read_file(mount_.mounted("file")).bytes.size(), 0U);
}

TEST_P(MountChangesTest, WhoFollowsALogSeesWhatIsAppended) {
  write("log", content(1, 0, 5000));
  start();
  const Descriptor log = open("log");
  EXPECT_EQ(read_descriptor(log.get()).bytes.size(), 5000U);
  const auto longer = content(1, 0, 9000);
  write("log", longer);
  // As tail -f does: the size first. The kernel believes the old one for a second at most.
  struct stat attributes {};
  EXPECT_TRUE(mount_.wait_until([&](const EngineStatus&) {
    return ::fstat(log.get(), &attributes) == 0 && attributes.st_size == 9000;
  }));
  EXPECT_TRUE(read_descriptor(log.get()).bytes == longer);
}

TEST_P(MountChangesTest, ARemovedFileThatIsOpenCanBeReadToItsEnd) {
  const auto bytes = content(1, 0, 3 * kMiB);
  for (const bool is_cached : {false, true}) {
    mount_.stop();
    write("file", bytes);
    start();
    if (is_cached) mount_.bring_into_cache("file");
    const Descriptor held = open("file");
    fs::remove(mount_.backend("file"));
    struct stat attributes {};
    EXPECT_EQ(::fstat(held.get(), &attributes), 0);
    EXPECT_EQ(attributes.st_size, std::ssize(bytes));
    EXPECT_EQ(::fgetxattr(held.get(), "user.none", nullptr, 0), -1);
    EXPECT_EQ(errno, ENODATA);
    EXPECT_TRUE(read_descriptor(held.get()).bytes == bytes);
    const Descriptor again = reopen(held);
    EXPECT_TRUE(again.is_open());
    EXPECT_TRUE(read_descriptor(again.get()).bytes == bytes);
    EXPECT_EQ(read_file(mount_.mounted("file")).error, ENOENT);
  }
}

TEST_P(MountChangesTest, ADescriptorCanBeOpenedAgainAfterTheFileChanged) {
  const auto bytes = content(1, 1, 2 * kMiB);
  for (const bool is_cached : {false, true}) {
    mount_.stop();
    write("file", content(1, 0, 2 * kMiB));
    start();
    if (is_cached) mount_.bring_into_cache("file");
    const Descriptor held = open("file");
    write("file", bytes);
    // Served as its node allows: the new content, or all of the old one that is passed through.
    const Descriptor again = reopen(held);
    ASSERT_TRUE(again.is_open());
    const auto seen = read_descriptor(again.get()).bytes;
    const bool is_old = is_cached && mount_.passes_through();
    EXPECT_TRUE(seen == (is_old ? content(1, 0, 2 * kMiB) : bytes));
    EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes);
  }
}

TEST_P(MountChangesTest, ADirectoryRenamedOnTheBackendIsFoundUnderItsNewName) {
  fs::create_directories(mount_.backend("a/b"));
  const auto bytes = content(1, 0, 2 * kMiB);
  write("a/b/file", bytes);
  start();
  EXPECT_TRUE(read_file(mount_.mounted("a/b/file")).bytes == bytes);
  fs::rename(mount_.backend("a"), mount_.backend("c"));
  EXPECT_TRUE(read_file(mount_.mounted("c/b/file")).bytes == bytes);
}

// All classes of opens of all versions at once: what the kernel would refuse shows as EIO.
TEST_P(MountChangesTest, NoOpenFailsWhateverHappensToTheFile) {
  constexpr int kFiles = 4;
  constexpr std::uint64_t kSize = 2 * kMiB;
  for (std::size_t file = 0; file < kFiles; ++file) {
    write(std::to_string(file), content(file, 0, kSize));
  }
  mount_.start({.passthrough = GetParam(), .cache_size_bytes = 16 * kMiB});
  std::atomic<bool> is_over{false};
  std::mutex failures_mutex;
  std::vector<std::string> failures;
  const auto check = [&](bool is_good, const char* what) {
    if (is_good) return;
    const std::string failure = std::string(what) + ": " + std::strerror(errno);
    const std::lock_guard lock(failures_mutex);
    failures.push_back(failure);
  };
  std::vector<std::thread> readers;
  for (unsigned reader = 0; reader < 4; ++reader) {
    readers.emplace_back([&, reader] {
      std::vector<Descriptor> held;
      for (std::size_t round = reader; !is_over; ++round) {
        Descriptor file = open(std::to_string(round * 3 % kFiles));
        check(file.is_open(), "open");
        if (!file.is_open()) continue;
        std::array<std::byte, 5000> bytes{};
        check(::pread(file.get(), bytes.data(), bytes.size(), 1'000'000) == 5000, "read");
        const Mapping mapping(file, kSize, round % 2 == 0 ? MAP_SHARED : MAP_PRIVATE);
        check(mapping.is_valid(), "map");
        const Descriptor again = reopen(file);
        check(again.is_open(), "open by descriptor");
        check(::pread(again.get(), bytes.data(), bytes.size(), 0) == 5000, "read");
        held.push_back(std::move(file));
        if (held.size() > round % 7) held.erase(held.begin());
      }
    });
  }
  for (std::uint64_t version = 1; version <= 60; ++version) {
    const std::size_t file = version % kFiles;
    const std::uint64_t copied = mount_.engine_status().copies_finished;
    if (version % 3 == 0) {
      replace(std::to_string(file), content(file, version, kSize));
    } else {
      // In place and never shorter, so that no reader finds an end where there was none.
      const auto bytes = content(file, version, kSize);
      const Descriptor target(::open(mount_.backend(std::to_string(file)).c_str(), O_WRONLY));
      EXPECT_EQ(::pwrite(target.get(), bytes.data(), bytes.size(), 0), std::ssize(bytes));
    }
    if (version % 2 == 0) {
      EXPECT_TRUE(mount_.wait_until(
          [&](const EngineStatus& status) { return status.copies_finished > copied; }));
    }
  }
  is_over = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_TRUE(failures.empty()) << failures.size() << " failures, the first: " << failures.front();
  EXPECT_GT(mount_.stats().stale_answers.value(), 0U);
  EXPECT_EQ(mount_.stats().errors.value(), 0U);
}

// A process that is killed while the daemon opens a file for it gets no answer; what was opened for
// it must not stay open for ever.
TEST_P(MountChangesTest, OpensOfKilledProcessesAreUndone) {
  constexpr int kProcesses = 40;
  write("small", content(1, 0, 100));
  write("large", content(2, 0, 2 * kMiB));
  start();
  mount_.bring_into_cache("large");
  for (int process = 0; process < kProcesses; ++process) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe(ends.data()), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      const std::string small = mount_.mounted("small");
      const std::string large = mount_.mounted("large");
      for (int round = 0;; ++round) {
        ::close(::open(small.c_str(), O_RDONLY));
        ::close(::open(large.c_str(), O_RDONLY));
        if (round == 0 && ::write(ends[1], "x", 1) != 1) ::_exit(1);
      }
    }
    char started = 0;
    EXPECT_EQ(::read(ends[0], &started, 1), 1);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(ends[0]);
    ::close(ends[1]);
  }
  EXPECT_TRUE(
      mount_.wait_until([](const EngineStatus& status) { return status.handles_open == 0; }));
  EXPECT_TRUE(read_file(mount_.mounted("large")).bytes == content(2, 0, 2 * kMiB));
}

// Every reader knows which version was there before it opened; it must get that one or a later one,
// and all of one.
TEST_P(MountChangesTest, ReadersGetWholeVersionsWhileFilesAreCachedEvictedAndReplaced) {
  constexpr int kFiles = 6;
  constexpr std::uint64_t kVersions = 12;
  constexpr std::uint64_t kSize = 3 * kMiB + 1234;
  std::array<std::atomic<std::uint64_t>, kFiles> version{};
  for (std::size_t file = 0; file < kFiles; ++file) {
    write(std::to_string(file), content(file, 0, kSize));
  }
  // Holds about four of the six.
  mount_.start({.passthrough = GetParam(), .cache_size_bytes = 16 * kMiB});
  std::atomic<int> wrong{0};
  std::atomic<int> reads{0};
  std::atomic<bool> is_over{false};
  std::vector<std::thread> readers;
  for (unsigned reader = 0; reader < 4; ++reader) {
    readers.emplace_back([&, reader] {
      for (std::size_t round = reader; !is_over; ++round) {
        const std::size_t file = round * 5 % kFiles;
        const std::uint64_t oldest = version[file].load();
        const FileRead read = read_file(mount_.mounted(std::to_string(file)));
        bool is_known = false;
        for (std::uint64_t candidate = oldest; candidate <= kVersions && !is_known; ++candidate) {
          is_known = read.bytes == content(file, candidate, kSize);
        }
        if (read.error != 0 || !is_known) ++wrong;
        ++reads;
      }
    });
  }
  for (std::uint64_t next = 1; next <= kVersions; ++next) {
    const int reads_before = reads;
    EXPECT_TRUE(mount_.wait_until([&](const EngineStatus&) { return reads > reads_before + 12; }));
    for (std::size_t file = next % 2; file < kFiles; file += 2) {
      replace(std::to_string(file), content(file, next, kSize));
      version[file] = next;
    }
  }
  EXPECT_TRUE(mount_.wait_until([](const EngineStatus& status) { return status.evictions > 0; }));
  is_over = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace ncfs
