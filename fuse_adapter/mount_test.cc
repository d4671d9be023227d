// What applications see through a real mount, with files passed through to the kernel and without:
// the same, in every respect but speed.
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fuse_adapter/faulty_backend.h"
#include "fuse_adapter/mount_fixture.h"

namespace ncfs {
namespace {

namespace fs = std::filesystem;

constexpr uid_t kNobody = 65534;

class MountTest : public testing::TestWithParam<PassedFiles> {
 protected:
  void start() { mount_.start({.passthrough = GetParam()}); }
  void write(const std::string& path, std::span<const std::byte> bytes) {
    write_content(mount_.backend(path), bytes);
  }
  Descriptor open(const std::string& path, int flags = O_RDONLY) {
    return Descriptor(::open(mount_.mounted(path).c_str(), flags | O_CLOEXEC));
  }

  TestMount mount_;
};

INSTANTIATE_TEST_SUITE_P(Passthrough, MountTest, every_passthrough(), passthrough_name);

void expect_same_attributes(const std::string& path, const std::string& expected_path) {
  struct stat seen {};
  struct stat expected {};
  ASSERT_EQ(::lstat(path.c_str(), &seen), 0) << path;
  ASSERT_EQ(::lstat(expected_path.c_str(), &expected), 0);
  EXPECT_EQ(seen.st_ino, expected.st_ino) << path;
  EXPECT_EQ(seen.st_mode, expected.st_mode) << path;
  EXPECT_EQ(seen.st_nlink, expected.st_nlink) << path;
  EXPECT_EQ(seen.st_uid, expected.st_uid) << path;
  EXPECT_EQ(seen.st_gid, expected.st_gid) << path;
  EXPECT_EQ(seen.st_rdev, expected.st_rdev) << path;
  EXPECT_EQ(seen.st_size, expected.st_size) << path;
  EXPECT_EQ(seen.st_mtim.tv_nsec, expected.st_mtim.tv_nsec) << path;
  EXPECT_EQ(seen.st_ctim.tv_sec, expected.st_ctim.tv_sec) << path;
}

TEST_P(MountTest, TheTreeIsThatOfTheBackendColdAndWarm) {
  fs::create_directories(mount_.backend("a/b/c"));
  std::uint64_t number = 0;
  for (const std::uint64_t size :
       {0UL, 1UL, 4095UL, 4096UL, 4097UL, kMiB - 1, kMiB, kMiB + 1, 5 * kMiB + 123}) {
    write("a/b/" + std::to_string(size), content(++number, 0, size));
  }
  fs::create_symlink("b/4096", mount_.backend("a/link"));
  fs::create_symlink("/nowhere", mount_.backend("a/dangling"));
  fs::create_hard_link(mount_.backend("a/b/4097"), mount_.backend("a/b/c/hard"));
  ASSERT_EQ(::mkfifo(mount_.backend("fifo").c_str(), 0640), 0);
  ASSERT_EQ(::mknod(mount_.backend("null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
  ASSERT_EQ(::chmod(mount_.backend("a/b/4096").c_str(), 04751), 0);
  ASSERT_EQ(::chown(mount_.backend("a/b/4095").c_str(), 12, 34), 0);
  start();
  for (int round = 0; round < 2; ++round) {
    std::vector<std::string> seen;
    for (const auto& entry : fs::recursive_directory_iterator(mount_.mounted())) {
      const std::string path = entry.path().lexically_relative(mount_.mounted());
      seen.push_back(path);
      expect_same_attributes(mount_.mounted(path), mount_.backend(path));
      if (entry.is_symlink()) {
        EXPECT_EQ(fs::read_symlink(entry.path()), fs::read_symlink(mount_.backend(path)));
      } else if (entry.is_regular_file()) {
        const FileRead read = read_file(entry.path());
        EXPECT_EQ(read.error, 0) << path;
        EXPECT_TRUE(read.bytes == read_file(mount_.backend(path)).bytes) << path;
      }
    }
    std::vector<std::string> expected;
    for (const auto& entry : fs::recursive_directory_iterator(mount_.backend())) {
      expected.push_back(entry.path().lexically_relative(mount_.backend()));
    }
    EXPECT_THAT(seen, testing::UnorderedElementsAreArray(expected));
    EXPECT_TRUE(
        mount_.wait_until([](const EngineStatus& status) { return status.objects_cached == 8; }));
  }
  EXPECT_EQ(mount_.stats().errors.value(), 0U);
}

TEST_P(MountTest, CompleteFilesAreServedFromTheCacheAlone) {
  for (const bool direct_io : {true, false}) {
    const std::string name = direct_io ? "direct" : "buffered";
    const auto bytes = content(1, 0, 8 * kMiB);
    mount_.stop();
    write(name, bytes);
    mount_.start({.passthrough = GetParam(), .direct_io = direct_io});
    mount_.bring_into_cache(name);
    const std::uint64_t reads_before = mount_.stats().reads.value();
    const std::uint64_t source_before = mount_.stats().source_bytes.value();
    EXPECT_TRUE(read_file(mount_.mounted(name)).bytes == bytes);
    EXPECT_EQ(mount_.stats().source_bytes.value(), source_before);
    EXPECT_EQ(mount_.stats().opens_hit.value(), 1U);
    if (mount_.passes_through()) {
      EXPECT_EQ(mount_.stats().reads.value(), reads_before);
      EXPECT_EQ(mount_.stats().opens_passthrough.value(), 1U);
      EXPECT_EQ(mount_.stats().passthrough_bytes.value(), bytes.size());
    } else {
      EXPECT_EQ(mount_.stats().opens_passthrough.value(), 0U);
    }
  }
}

TEST_P(MountTest, ColdFilesAreReadByTheKernelWhereItMay) {
  const auto bytes = content(1, 0, 8 * kMiB);
  write("file", bytes);
  start();
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes);
  const bool is_passed = GetParam() == PassedFiles::all && mount_.passes_through();
  EXPECT_EQ(mount_.stats().opens_from_source.value(), is_passed ? 1U : 0U);
  EXPECT_EQ(mount_.stats().reads.value() == 0, is_passed);
  EXPECT_TRUE(
      mount_.wait_until([](const EngineStatus& status) { return status.objects_cached == 1; }));
  EXPECT_EQ(mount_.engine_status().source_bytes, bytes.size());
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes);
  EXPECT_EQ(mount_.stats().opens_hit.value(), 1U);
}

TEST_P(MountTest, ABackendThatHangsHangsNobodyForEver) {
  constexpr int kQuestions = 40;  // more than there are threads that ask the backend
  const auto bytes = content(1, 0, 4 * kMiB);
  write("file", bytes);
  fs::create_directory(mount_.backend("hung"));
  FaultyBackend nested(mount_.make_directory("origin"), mount_.backend("hung"));
  mount_.start({.passthrough = GetParam(), .source_deadline = 2 * kSecond});
  mount_.bring_into_cache("file");
  const Descriptor cached = open("file");
  nested.hang();
  std::atomic<int> timed_out{0};
  std::vector<std::thread> asking;
  for (int question = 0; question < kQuestions; ++question) {
    asking.emplace_back([&, question] {
      struct stat attributes {};
      const std::string path = mount_.mounted("hung/" + std::to_string(question));
      if (::stat(path.c_str(), &attributes) != 0 && errno == ETIMEDOUT) ++timed_out;
    });
  }
  EXPECT_TRUE(read_descriptor(cached.get()).bytes == bytes);
  for (std::thread& thread : asking) thread.join();
  EXPECT_EQ(timed_out, kQuestions);
  EXPECT_GE(mount_.stats().timeouts.value(), 1U);
  // No thread is left that could ask for the attributes of the open file. The kernel wants them
  // before it reads to the end.
  struct statx attributes {};
  EXPECT_EQ(::statx(cached.get(), "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE, &attributes),
            0)
      << std::strerror(errno);
  EXPECT_EQ(attributes.stx_size, bytes.size());
}

TEST_P(MountTest, MappingsShowTheFileColdAndWarm) {
  const auto bytes = content(1, 0, 6 * kMiB + 77);
  write("file", bytes);
  start();
  for (int round = 0; round < 2; ++round) {
    for (const int kind : {MAP_SHARED, MAP_PRIVATE}) {
      Descriptor file = open("file");
      ASSERT_TRUE(file.is_open());
      void* const memory = ::mmap(nullptr, bytes.size(), PROT_READ, kind, file.get(), 0);
      ASSERT_NE(memory, MAP_FAILED);
      file.reset();
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), static_cast<const std::byte*>(memory)));
      ::munmap(memory, bytes.size());
    }
    mount_.bring_into_cache("file");
  }
}

TEST_P(MountTest, DirectReadsGetTheFileColdAndWarm) {
  const auto bytes = content(1, 0, 3 * kMiB + 4096 + 10);
  write("file", bytes);
  start();
  for (int round = 0; round < 2; ++round) {
    const Descriptor file = open("file", O_RDONLY | O_DIRECT);
    ASSERT_TRUE(file.is_open());
    constexpr std::size_t kPiece = 512 * kKiB;
    void* memory = nullptr;
    ASSERT_EQ(::posix_memalign(&memory, 4096, kPiece), 0);
    std::size_t offset = 0;
    ssize_t count = 0;
    while ((count = ::pread(file.get(), memory, kPiece, static_cast<off_t>(offset))) > 0) {
      EXPECT_TRUE(std::equal(static_cast<std::byte*>(memory),
                             static_cast<std::byte*>(memory) + count,
                             bytes.begin() + static_cast<std::ptrdiff_t>(offset)));
      offset += static_cast<std::size_t>(count);
    }
    EXPECT_EQ(count, 0);
    EXPECT_EQ(offset, bytes.size());
    std::free(memory);
    mount_.bring_into_cache("file");
  }
}

// Some of these ask the daemon even if the file is passed through.
TEST_P(MountTest, OtherWaysToReadWork) {
  const auto bytes = content(1, 0, 4 * kMiB);
  write("file", bytes);
  start();
  for (int round = 0; round < 2; ++round) {
    const Descriptor file = open("file");
    ASSERT_TRUE(file.is_open());
    EXPECT_EQ(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_WILLNEED), 0);
    EXPECT_EQ(::readahead(file.get(), static_cast<off_t>(kMiB), 2 * kMiB), 0);
    EXPECT_TRUE(read_descriptor(file.get()).bytes == bytes);
    const std::string copy = mount_.backend("copy");
    const Descriptor target(::open(copy.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600));
    off_t offset = 0;
    while (::sendfile(target.get(), file.get(), &offset, bytes.size()) > 0) {
    }
    EXPECT_TRUE(read_descriptor(target.get()).bytes == bytes);
    EXPECT_EQ(::fsync(file.get()), 0);
    mount_.bring_into_cache("file");
  }
  EXPECT_EQ(mount_.stats().errors.value(), 0U);
}

TEST_P(MountTest, WhoMayNotReadAFileOnTheBackendMayNotHere) {
  const auto bytes = content(1, 0, 2 * kMiB);
  fs::create_directory(mount_.backend("closed"));
  for (const char* name : {"secret", "public", "shared", "closed/file"}) write(name, bytes);
  ASSERT_EQ(::chmod(mount_.backend("secret").c_str(), 0600), 0);
  ASSERT_EQ(::chmod(mount_.backend("shared").c_str(), 0640), 0);
  ASSERT_EQ(::chown(mount_.backend("shared").c_str(), 0, 4242), 0);
  ASSERT_EQ(::chmod(mount_.backend("closed").c_str(), 0700), 0);
  start();
  for (int round = 0; round < 2; ++round) {
    const Descriptor held = open("secret");  // passed through in the second round
    const auto error_for = [&](const char* name, gid_t group, int expected) {
      return as_user(kNobody, group,
                     [&] { return read_file(mount_.mounted(name)).error == expected; });
    };
    EXPECT_TRUE(error_for("secret", kNobody, EACCES));
    EXPECT_TRUE(error_for("public", kNobody, 0));
    EXPECT_TRUE(error_for("shared", kNobody, EACCES));
    EXPECT_TRUE(error_for("shared", 4242, 0));
    EXPECT_TRUE(error_for("closed/file", kNobody, EACCES));
    EXPECT_TRUE(as_user(kNobody, kNobody, [&] {
      return ::opendir(mount_.mounted("closed").c_str()) == nullptr && errno == EACCES;
    }));
    for (const char* name : {"secret", "public", "shared", "closed/file"}) {
      mount_.bring_into_cache(name);
    }
  }
}

TEST_P(MountTest, AReadOnlyMountRefusesEveryChange) {
  const auto bytes = content(1, 0, 2 * kMiB);
  fs::create_directory(mount_.backend("directory"));
  write("file", bytes);
  mount_.start({.passthrough = GetParam(), .read_only = true});
  mount_.bring_into_cache("file");
  const std::string file = mount_.mounted("file");
  const std::string absent = mount_.mounted("absent");
  const auto refused = [](int result) { return result == -1 && errno == EROFS; };
  const auto opened = [](const std::string& path, int flags) {
    return Descriptor(::open(path.c_str(), flags | O_CLOEXEC, 0600)).get();
  };
  EXPECT_TRUE(refused(opened(file, O_WRONLY)));
  EXPECT_TRUE(refused(opened(file, O_RDWR)));
  EXPECT_TRUE(refused(opened(file, O_RDONLY | O_TRUNC)));
  EXPECT_TRUE(refused(opened(absent, O_RDWR | O_CREAT)));
  EXPECT_TRUE(refused(::mkdir(absent.c_str(), 0700)));
  EXPECT_TRUE(refused(::mknod(absent.c_str(), S_IFIFO | 0600, 0)));
  EXPECT_TRUE(refused(::symlink("x", absent.c_str())));
  EXPECT_TRUE(refused(::link(file.c_str(), absent.c_str())));
  EXPECT_TRUE(refused(::rename(file.c_str(), absent.c_str())));
  EXPECT_TRUE(refused(::unlink(file.c_str())));
  EXPECT_TRUE(refused(::rmdir(mount_.mounted("directory").c_str())));
  EXPECT_TRUE(refused(::truncate(file.c_str(), 0)));
  EXPECT_TRUE(refused(::chmod(file.c_str(), 0777)));
  EXPECT_TRUE(refused(::chown(file.c_str(), 1, 1)));
  EXPECT_TRUE(refused(::utimensat(AT_FDCWD, file.c_str(), nullptr, 0)));
  EXPECT_TRUE(refused(::setxattr(file.c_str(), "user.x", "y", 1, 0)));
  EXPECT_TRUE(refused(::removexattr(file.c_str(), "user.x")));
  EXPECT_TRUE(refused(::access(file.c_str(), W_OK)));
  EXPECT_TRUE(read_file(file).bytes == bytes);
  EXPECT_TRUE(read_file(mount_.backend("file")).bytes == bytes);
}

TEST_P(MountTest, DirectoriesOfAnySizeAreListedAsOnTheBackend) {
  std::set<std::string> expected;
  for (int number = 0; number < 5000; ++number) {
    const std::string name = "file " + std::to_string(number);
    write(name, {});
    expected.insert(name);
  }
  for (const char* letter : {"x", "y"}) {
    std::string name;
    while (name.size() < 255) name += letter;
    write(name, content(1, 0, 10));
    expected.insert(name);
  }
  start();
  std::set<std::string> seen;
  for (const auto& entry : fs::directory_iterator(mount_.mounted())) {
    EXPECT_TRUE(seen.insert(entry.path().filename()).second) << "listed twice: " << entry.path();
  }
  EXPECT_TRUE(seen == expected);
  EXPECT_EQ(read_file(mount_.mounted(std::string(255, 'x'))).bytes.size(), 10U);
  EXPECT_EQ(::access(mount_.mounted(std::string(256, 'x')).c_str(), F_OK), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
}

TEST_P(MountTest, ListingGoesOnWhereItWasToldTo) {
  for (int number = 0; number < 300; ++number) write(std::to_string(number), {});
  start();
  DIR* const directory = ::opendir(mount_.mounted().c_str());
  ASSERT_NE(directory, nullptr);
  std::vector<std::pair<long, std::string>> entries;
  for (long place = ::telldir(directory); const dirent* entry = ::readdir(directory);) {
    entries.emplace_back(place, entry->d_name);
    place = ::telldir(directory);
  }
  EXPECT_EQ(entries.size(), 302U);
  for (const std::size_t index : {200UL, 3UL, 299UL, 0UL}) {
    ::seekdir(directory, entries[index].first);
    EXPECT_EQ(::readdir(directory)->d_name, entries[index].second);
  }
  ::closedir(directory);
}

TEST_P(MountTest, PathsMayBeLongerThanTheKernelTakesAtOnce) {
  const std::string name(200, 'd');
  constexpr int kDepth = 50;
  Descriptor directory(::open(mount_.backend().c_str(), O_RDONLY | O_DIRECTORY));
  for (int depth = 0; depth < kDepth; ++depth) {
    ASSERT_EQ(::mkdirat(directory.get(), name.c_str(), 0755), 0);
    directory = Descriptor(::openat(directory.get(), name.c_str(), O_RDONLY | O_DIRECTORY));
  }
  const Descriptor written(::openat(directory.get(), "file", O_WRONLY | O_CREAT, 0644));
  ASSERT_EQ(::write(written.get(), "deep", 4), 4);
  start();
  directory = Descriptor(::open(mount_.mounted().c_str(), O_RDONLY | O_DIRECTORY));
  for (int depth = 0; depth < kDepth; ++depth) {
    directory = Descriptor(::openat(directory.get(), name.c_str(), O_RDONLY | O_DIRECTORY));
    ASSERT_TRUE(directory.is_open()) << depth;
  }
  const Descriptor file(::openat(directory.get(), "file", O_RDONLY));
  ASSERT_TRUE(file.is_open());
  EXPECT_EQ(read_descriptor(file.get()).bytes.size(), 4U);
}

TEST_P(MountTest, ExtendedAttributesAreThoseOfTheBackend) {
  write("file", content(1, 0, 10));
  const std::string value(1000, 'v');
  ASSERT_EQ(::setxattr(mount_.backend("file").c_str(), "user.one", value.data(), value.size(), 0),
            0);
  start();
  const std::string file = mount_.mounted("file");
  std::string seen(2000, '\0');
  EXPECT_EQ(::getxattr(file.c_str(), "user.one", nullptr, 0), 1000);
  EXPECT_EQ(::getxattr(file.c_str(), "user.one", seen.data(), seen.size()), 1000);
  EXPECT_EQ(seen.substr(0, 1000), value);
  EXPECT_EQ(::getxattr(file.c_str(), "user.one", seen.data(), 10), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(::getxattr(file.c_str(), "user.two", nullptr, 0), -1);
  EXPECT_EQ(errno, ENODATA);
  EXPECT_EQ(::listxattr(file.c_str(), seen.data(), seen.size()), 9);
  EXPECT_STREQ(seen.c_str(), "user.one");
}

TEST_P(MountTest, HolesAreWhereTheyAreOnTheBackend) {
  const auto bytes = content(1, 0, 64 * kKiB);
  const Descriptor written(
      ::open(mount_.backend("file").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644));
  ASSERT_EQ(::pwrite(written.get(), bytes.data(), bytes.size(), 4 * static_cast<off_t>(kMiB)),
            std::ssize(bytes));
  ASSERT_EQ(::ftruncate(written.get(), 8 * static_cast<off_t>(kMiB)), 0);
  start();
  for (int round = 0; round < 2; ++round) {
    const Descriptor file = open("file");
    const Descriptor source(::open(mount_.backend("file").c_str(), O_RDONLY));
    for (const int whence : {SEEK_DATA, SEEK_HOLE}) {
      for (const off_t offset : {off_t{0}, 4 * static_cast<off_t>(kMiB)}) {
        EXPECT_EQ(::lseek(file.get(), offset, whence), ::lseek(source.get(), offset, whence));
      }
    }
    EXPECT_EQ(::lseek(file.get(), 0, SEEK_END), 8 * static_cast<off_t>(kMiB));
    mount_.bring_into_cache("file");
  }
}

TEST_P(MountTest, TheFileSystemHasTheSizeOfTheBackend) {
  start();
  struct statvfs seen {};
  struct statvfs expected {};
  ASSERT_EQ(::statvfs(mount_.mounted().c_str(), &seen), 0);
  ASSERT_EQ(::statvfs(mount_.backend().c_str(), &expected), 0);
  EXPECT_EQ(seen.f_blocks, expected.f_blocks);
  EXPECT_EQ(seen.f_frsize, expected.f_frsize);
  EXPECT_EQ(seen.f_files, expected.f_files);
}

TEST_P(MountTest, WhatAKilledDaemonLeftMountedIsReplaced) {
  write("file", content(1, 0, 10));
  {
    const Descriptor device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    const std::string options =
        "fd=" + std::to_string(device.get()) + ",rootmode=40000,user_id=0,group_id=0";
    ASSERT_EQ(::mount("dead", mount_.mounted().c_str(), "fuse.cachefs", 0, options.c_str()), 0);
  }
  start();
  EXPECT_EQ(read_file(mount_.mounted("file")).bytes.size(), 10U);
  mount_.stop();
  EXPECT_TRUE(fs::is_empty(mount_.mounted()));
}

TEST_P(MountTest, EndingTheMountWithFilesOpenLeavesNothingMounted) {
  write("file", content(1, 0, 2 * kMiB));
  start();
  const bool is_passed = mount_.passes_through();
  mount_.bring_into_cache("file");
  const Descriptor warm = open("file");
  const std::string mountpoint = mount_.mounted();
  mount_.stop();
  struct stat place {};
  EXPECT_EQ(::stat(mountpoint.c_str(), &place), 0);
  EXPECT_TRUE(fs::is_empty(mountpoint));
  // The kernel goes on reading what it was given.
  if (is_passed) {
    EXPECT_EQ(read_descriptor(warm.get()).bytes.size(), 2 * kMiB);
  }
  // And the next mount finds what this one has cached.
  mount_.start({.passthrough = GetParam()});
  EXPECT_TRUE(mount_.wait_until([](const EngineStatus& status) { return !status.is_recovering; }));
  EXPECT_EQ(read_file(mount_.mounted("file")).bytes.size(), 2 * kMiB);
  EXPECT_EQ(mount_.stats().opens_hit.value(), 1U);
}

}  // namespace
}  // namespace ncfs
