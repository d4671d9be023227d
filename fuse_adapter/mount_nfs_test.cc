// What applications see of a tree that comes straight from an NFS server, without a mount of the
// kernel's: the same as of any other, and what servers do to their clients.
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "fuse_adapter/ganesha_server.h"
#include "fuse_adapter/mount_fixture.h"
#include "fuse_adapter/nfs_backend.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr uid_t kOwner = 4321;

[[maybe_unused]] const testing::Environment* const needs_ganesha =
    testing::AddGlobalTestEnvironment(new GaneshaEnvironment);

// Whatever becomes of a test, nothing of the server stays.
TEST(GaneshaServer, EndsWithTheTestThatStartedIt) {
  TestMount places;
  const std::string place = places.make_directory("server");
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // so that it becomes a child of this process
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t test = ::fork();
  ASSERT_NE(test, -1);
  if (test == 0) {
    const GaneshaServer server(place, places.backend());
    const pid_t process = server.process();
    (void)!::write(ends[1], &process, sizeof(process));
    ::pause();
    ::_exit(0);
  }
  ::close(ends[1]);
  const Descriptor told(ends[0]);
  pid_t server = -1;
  EXPECT_EQ(::read(told.get(), &server, sizeof(server)), ssize_t{sizeof(server)});
  ::kill(test, SIGKILL);
  EXPECT_EQ(::waitpid(test, nullptr, 0), test);
  EXPECT_TRUE(eventually([&] { return ::waitpid(server, nullptr, WNOHANG) == server; }));
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
}

class NfsMountTest : public testing::Test {
 protected:
  static constexpr std::chrono::seconds kPatient{60};

  void start(std::chrono::seconds timeout = kPatient, GaneshaServer::Options options = {},
             const std::string& query = "") {
    server_.emplace(mount_.make_directory("server"), mount_.backend(), options);
    nfs_.emplace(NfsBackend::Options{.program = NCFS_NFS_PROGRAM,
                                     .url = server_->url(query),
                                     .directory = mount_.make_directory("nfs"),
                                     .timeout = timeout});
    ASSERT_EQ(nfs_->start(), "");
    mount_.start({.passthrough = PassedFiles::cached, .backend = nfs_->directory()});
  }
  void TearDown() override {
    if (server_) server_->continue_process();
    mount_.stop();
  }
  Descriptor open(const std::string& path, int flags = O_RDONLY, mode_t mode = 0644) {
    return Descriptor(::open(mount_.mounted(path).c_str(), flags | O_CLOEXEC, mode));
  }
  struct stat exported(const std::string& path) {
    struct stat status {};
    EXPECT_EQ(::lstat(mount_.backend(path).c_str(), &status), 0) << path;
    return status;
  }

  TestMount mount_;
  std::optional<GaneshaServer> server_;
  std::optional<NfsBackend> nfs_;
};

TEST_F(NfsMountTest, FilesAreReadColdCopiedAndReadWarm) {
  const auto bytes = content(1, 1, 5 * kMiB + 12345);
  write_content(mount_.backend("file"), bytes);
  write_content(mount_.backend("empty"), {});
  start();
  EXPECT_EQ(read_file(mount_.mounted("file")).bytes, bytes);
  EXPECT_EQ(read_file(mount_.mounted("empty")).error, 0);
  mount_.bring_into_cache("file");
  EXPECT_EQ(mount_.cached_data().size(), 1U);
  const auto hits = mount_.stats().opens_hit.value();
  EXPECT_EQ(read_file(mount_.mounted("file")).bytes, bytes);
  EXPECT_EQ(mount_.stats().opens_hit.value(), hits + 1);
  struct statvfs space {};
  EXPECT_EQ(::statvfs(mount_.mounted().c_str(), &space), 0);
  EXPECT_GT(space.f_blocks, 0U);
}

TEST_F(NfsMountTest, WhatIsWrittenIsOnTheServer) {
  start();
  const auto bytes = content(2, 1, 3 * kMiB + 777);
  {
    const Descriptor file = open("new", O_RDWR | O_CREAT | O_EXCL, 0640);
    ASSERT_TRUE(file.is_open());
    ASSERT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), 0), std::ssize(bytes));
    ASSERT_EQ(::fsync(file.get()), 0);
    EXPECT_EQ(read_file(mount_.backend("new")).bytes, bytes);
    EXPECT_EQ(read_descriptor(file.get()).bytes, bytes);
  }
  EXPECT_EQ(exported("new").st_mode, S_IFREG | 0640U);
  EXPECT_FALSE(open("new", O_RDWR | O_CREAT | O_EXCL).is_open());
  EXPECT_EQ(errno, EEXIST);
  {
    const Descriptor file = open("new", O_WRONLY | O_APPEND);
    ASSERT_EQ(::write(file.get(), "end", 3), 3);
  }
  EXPECT_EQ(exported("new").st_size, std::ssize(bytes) + 3);
  ASSERT_EQ(::truncate(mount_.mounted("new").c_str(), 5), 0);
  EXPECT_EQ(exported("new").st_size, 5);
  ASSERT_EQ(::chmod(mount_.mounted("new").c_str(), 0604), 0);
  ASSERT_EQ(::chown(mount_.mounted("new").c_str(), 12, 34), 0);
  {
    const Descriptor file = open("new", O_WRONLY | O_TRUNC);
    EXPECT_TRUE(file.is_open());
    EXPECT_EQ(exported("new").st_size, 0);
  }
  const std::array<timespec, 2> times{timespec{1000, 1}, timespec{2000, 2}};
  ASSERT_EQ(::utimensat(AT_FDCWD, mount_.mounted("new").c_str(), times.data(), 0), 0);
  const struct stat status = exported("new");
  EXPECT_EQ(status.st_mode, S_IFREG | 0604U);
  EXPECT_EQ(status.st_uid, 12U);
  EXPECT_EQ(status.st_gid, 34U);
  EXPECT_EQ(status.st_atim.tv_sec, 1000);
  EXPECT_EQ(status.st_mtim.tv_sec, 2000);
  EXPECT_EQ(status.st_mtim.tv_nsec, 2);
}

// By a user who may write the file, but not change its mode: the server does that.
TEST_F(NfsMountTest, WritesTakeSetuidAway) {
  write_content(mount_.backend("tool"), content(10, 1, 1000));
  ASSERT_EQ(::chmod(mount_.backend("tool").c_str(), 06777), 0);
  start();
  const std::string path = mount_.mounted("tool");
  EXPECT_TRUE(as_user(kOwner, kOwner, [&] { return ::truncate(path.c_str(), 5) == 0; }));
  EXPECT_TRUE(as_user(kOwner, kOwner,
                      [&] { return ::write(::open(path.c_str(), O_WRONLY), "x", 1) == 1; }));
  EXPECT_EQ(exported("tool").st_mode & 07777U, 0777U);
}

TEST_F(NfsMountTest, NamesAreMadeMovedAndRemoved) {
  start();
  const auto path = [&](const std::string& name) { return mount_.mounted(name); };
  ASSERT_EQ(::mkdir(path("dir").c_str(), 0750), 0);
  EXPECT_EQ(exported("dir").st_mode, S_IFDIR | 0750U);
  ASSERT_TRUE(open("dir/a", O_RDWR | O_CREAT).is_open());
  ASSERT_EQ(::link(path("dir/a").c_str(), path("b").c_str()), 0);
  EXPECT_EQ(exported("b").st_nlink, 2U);
  ASSERT_EQ(::symlink("dir/a", path("link").c_str()), 0);
  EXPECT_EQ(fs::read_symlink(path("link")), "dir/a");
  EXPECT_EQ(fs::read_symlink(mount_.backend("link")), "dir/a");
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_TRUE(S_ISFIFO(exported("fifo").st_mode));
  ASSERT_EQ(::rename(path("b").c_str(), path("dir/c").c_str()), 0);
  EXPECT_FALSE(fs::exists(mount_.backend("b")));
  EXPECT_EQ(::rmdir(path("dir").c_str()), -1);
  EXPECT_EQ(errno, ENOTEMPTY);
  ASSERT_EQ(::unlink(path("dir/a").c_str()), 0);
  ASSERT_EQ(::unlink(path("dir/c").c_str()), 0);
  ASSERT_EQ(::rmdir(path("dir").c_str()), 0);
  EXPECT_FALSE(fs::exists(mount_.backend("dir")));
  EXPECT_EQ(::stat(path("dir").c_str(), std::make_unique<struct stat>().get()), -1);
  EXPECT_EQ(errno, ENOENT);
}

// A server forgets a file with its last name; the one who has it open here must not.
TEST_F(NfsMountTest, OpenFilesOutliveTheirNames) {
  const auto bytes = content(3, 1, 100'000);
  for (const char* name : {"removed", "replaced", "other"}) {
    write_content(mount_.backend(name), bytes);
  }
  start();
  {
    const Descriptor removed = open("removed", O_RDWR);
    const Descriptor replaced = open("replaced", O_RDWR);
    ASSERT_EQ(::unlink(mount_.mounted("removed").c_str()), 0);
    ASSERT_EQ(::rename(mount_.mounted("other").c_str(), mount_.mounted("replaced").c_str()), 0);
    EXPECT_EQ(read_descriptor(removed.get()).bytes, bytes);
    EXPECT_EQ(read_descriptor(replaced.get()).bytes, bytes);
    EXPECT_FALSE(fs::exists(mount_.mounted("removed")));
  }
  EXPECT_TRUE(eventually([&] {
    return std::distance(fs::directory_iterator(mount_.backend()), fs::directory_iterator()) == 1;
  }));
}

TEST_F(NfsMountTest, LongDirectoriesAreListedWhole) {
  constexpr int kFiles = 5000;
  std::set<std::string> names;
  for (int number = 0; number < kFiles; ++number) {
    names.insert("a-file-with-a-rather-long-name-" + std::to_string(number));
  }
  for (const std::string& name : names) {
    ASSERT_TRUE(std::ofstream(mount_.backend(name)).good());
  }
  start();
  std::multiset<std::string> seen;
  for (const auto& entry : fs::directory_iterator(mount_.mounted())) {
    seen.insert(entry.path().filename());
    ASSERT_TRUE(entry.is_regular_file());
  }
  EXPECT_TRUE(std::ranges::equal(seen, names));
}

TEST_F(NfsMountTest, AReplacedFileIsSeenAtTheNextOpen) {
  write_content(mount_.backend("file"), content(4, 1, kMiB));
  start();
  mount_.bring_into_cache("file");
  const auto bytes = content(4, 2, kMiB);
  write_content(mount_.backend("new"), bytes);
  fs::rename(mount_.backend("new"), mount_.backend("file"));
  EXPECT_TRUE(eventually([&] { return read_file(mount_.mounted("file")).bytes == bytes; }));
  // And one that is changed in place.
  const auto changed = content(4, 3, kMiB + 1);
  write_content(mount_.backend("file"), changed);
  EXPECT_TRUE(eventually([&] { return read_file(mount_.mounted("file")).bytes == changed; }));
}

TEST_F(NfsMountTest, ASilentServerIsGivenUpAndFoundAgain) {
  const auto bytes = content(5, 1, kMiB);
  write_content(mount_.backend("file"), bytes);
  start(std::chrono::seconds(10));  // far more than a server needs that is not silent
  // Of the server's tree itself, as what is cached can be read from a silent server.
  Descriptor file;
  ASSERT_TRUE(eventually([&] {
    file = Descriptor(::open((nfs_->directory() + "/file").c_str(), O_RDONLY | O_CLOEXEC));
    return file.is_open();
  }));
  server_->stop_process();
  std::byte byte{};
  EXPECT_EQ(::pread(file.get(), &byte, 1, 0), -1);
  server_->continue_process();
  EXPECT_TRUE(eventually([&] { return read_file(mount_.mounted("file")).bytes == bytes; }));
}

TEST_F(NfsMountTest, ReadsAndWritesSurviveARestartOfTheServer) {
  const auto bytes = content(6, 1, 16 * kMiB);
  write_content(mount_.backend("file"), bytes);
  start(kPatient, {}, "?nconnect=1");
  const Descriptor file = open("file");
  const Descriptor written = open("written", O_WRONLY | O_CREAT);
  server_->stop_process();
  // Under way when the server dies.
  auto reading = std::async(std::launch::async, [&] { return read_descriptor(file.get()); });
  auto writing =
      std::async(std::launch::async, [&] { return ::write(written.get(), "written", 7); });
  EXPECT_TRUE(mount_.wait_until([](const EngineStatus& status) { return !status.copies.empty(); }));
  EXPECT_TRUE(eventually([&] { return server_->has_unread_calls(); }));
  server_->end_process(SIGKILL);
  server_->start();
  const FileRead read = reading.get();
  EXPECT_EQ(read.error, 0);
  EXPECT_EQ(read.bytes, bytes);
  EXPECT_EQ(writing.get(), 7);
  EXPECT_EQ(::fsync(written.get()), 0);
  mount_.bring_into_cache("file");
  EXPECT_GE(mount_.cached_data().size(), 1U);
  // The server has forgotten who we are, which only who creates files needs.
  EXPECT_TRUE(open("new", O_WRONLY | O_CREAT | O_EXCL).is_open());
}

// Its connections end as if all were well.
TEST_F(NfsMountTest, ReadsSurviveAServerThatEndsInOrder) {
  const auto bytes = content(11, 1, 4 * kMiB);
  write_content(mount_.backend("file"), bytes);
  start();
  std::atomic<bool> is_enough{false};
  std::atomic<int> reads{0};
  // From the server each time.
  auto reading = std::async(std::launch::async, [&] {
    while (!is_enough && read_file(nfs_->directory() + "/file").bytes == bytes) ++reads;
    return is_enough.load();
  });
  for (int restart = 0; restart < 3; ++restart) {
    server_->end_process(SIGTERM);
    server_->start();
    const int before = reads;
    EXPECT_TRUE(eventually([&] { return reads > before + 1; }));
  }
  is_enough = true;
  EXPECT_TRUE(reading.get());
}

// Of what it has not been told to keep. It is told to each who has the file open, once it matters.
TEST_F(NfsMountTest, WhatAKilledServerMayHaveForgottenIsToldByFsyncAndClose) {
  start();
  const auto bytes = content(12, 1, 300'000);
  const auto write_all = [&](const Descriptor& file) {
    EXPECT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), 0), std::ssize(bytes));
  };
  Descriptor first = open("lost", O_WRONLY | O_CREAT);
  Descriptor second = open("lost", O_WRONLY);
  Descriptor written_on = open("written on", O_WRONLY | O_CREAT);
  const Descriptor synced = open("synced", O_WRONLY | O_CREAT);
  const Descriptor synchronous = open("synchronous", O_WRONLY | O_CREAT | O_SYNC);
  write_all(first);
  write_all(written_on);
  write_all(synced);
  write_all(synchronous);
  EXPECT_EQ(::fsync(synced.get()), 0);
  server_->end_process(SIGKILL);
  server_->start();
  const auto error_of = [](int result) { return result == 0 ? 0 : errno; };
  EXPECT_EQ(error_of(::fsync(first.get())), EIO);
  EXPECT_EQ(error_of(::close(first.release())), EIO);
  EXPECT_EQ(error_of(::close(second.release())), EIO);
  // What comes afterwards is not lost, but what was before is.
  write_all(written_on);
  EXPECT_EQ(error_of(::close(written_on.release())), EIO);
  EXPECT_EQ(error_of(::fsync(synced.get())), 0);
  EXPECT_EQ(error_of(::fsync(synchronous.get())), 0);
  const Descriptor again = open("lost", O_WRONLY);
  write_all(again);
  EXPECT_EQ(error_of(::fsync(again.get())), 0);
}

TEST_F(NfsMountTest, AReadOnlyExportIsReadOnly) {
  const auto bytes = content(7, 1, 1000);
  write_content(mount_.backend("file"), bytes);
  start(kPatient, {.read_only = true});
  EXPECT_EQ(read_file(mount_.mounted("file")).bytes, bytes);
  EXPECT_FALSE(open("file", O_WRONLY).is_open());
  EXPECT_EQ(errno, EROFS);
  EXPECT_FALSE(open("new", O_WRONLY | O_CREAT).is_open());
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::unlink(mount_.mounted("file").c_str()), -1);
  EXPECT_EQ(errno, EROFS);
}

// The server takes root for nobody: neither the daemon nor a local root may read what is another
// user's, but he may.
TEST_F(NfsMountTest, TheServerDecidesWhoMayRead) {
  const auto bytes = content(8, 1, 300'000);
  write_content(mount_.backend("private"), bytes);
  ASSERT_EQ(::chmod(mount_.backend("private").c_str(), 0600), 0);
  ASSERT_EQ(::chown(mount_.backend("private").c_str(), kOwner, kOwner), 0);
  start(kPatient, {.read_only = false, .squashes_root = true});
  const auto is_read = [&] { return read_file(mount_.mounted("private")).bytes == bytes; };
  const auto is_refused = [&] { return read_file(mount_.mounted("private")).error == EACCES; };
  for (int round = 0; round < 2; ++round) {
    EXPECT_TRUE(as_user(kOwner, kOwner, is_read));
    EXPECT_TRUE(as_user(kOwner + 1, kOwner + 1, is_refused));
    EXPECT_TRUE(is_refused());
    EXPECT_TRUE(mount_.wait_until([](const EngineStatus& status) {
      return status.copies.empty() && status.copies_queued == 0;
    }));
  }
}

TEST_F(NfsMountTest, AProgramThatDiesIsStartedAgain) {
  const auto bytes = content(9, 1, kMiB);
  for (const char* name : {"cached", "other"}) write_content(mount_.backend(name), bytes);
  start();
  mount_.bring_into_cache("cached");
  const Descriptor cached = open("cached");
  Descriptor written = open("written", O_WRONLY | O_CREAT);
  EXPECT_EQ(::write(written.get(), bytes.data(), 1000), 1000);
  const Descriptor of_tree(::open((nfs_->directory() + "/other").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(of_tree.is_open());
  // It dies with a call under way, and the next one cannot start before the server answers.
  server_->stop_process();
  auto reading = std::async(std::launch::async, [&] { return read_descriptor(of_tree.get()); });
  EXPECT_TRUE(eventually([&] { return server_->has_unread_calls(); }));
  const pid_t first = nfs_->process();
  ASSERT_GT(first, 0);
  ::kill(first, SIGKILL);
  EXPECT_EQ(read_descriptor(cached.get()).bytes, bytes);
  server_->continue_process();
  EXPECT_NE(reading.get().error, 0);
  EXPECT_TRUE(eventually([&] { return read_file(mount_.mounted("other")).bytes == bytes; }));
  EXPECT_TRUE(eventually([&] { return open("new", O_WRONLY | O_CREAT).is_open(); }));
  EXPECT_NE(nfs_->process(), first);
  // What was open before is known to nobody.
  EXPECT_EQ(read_descriptor(of_tree.get()).error, ESTALE);
  EXPECT_NE(::close(written.release()), 0);
}

TEST_F(NfsMountTest, AStartThatFailsSaysWhy) {
  GaneshaServer server(mount_.make_directory("server"), mount_.backend());
  const auto error_of = [&](const std::string& url, const std::string& program,
                            std::chrono::seconds timeout = kPatient) {
    NfsBackend backend({.program = program,
                        .url = url,
                        .directory = mount_.make_directory("nfs"),
                        .timeout = timeout});
    return backend.start();
  };
  EXPECT_THAT(error_of(server.url("/nothing"), NCFS_NFS_PROGRAM),
              HasSubstr("/data/nothing: No such file or directory"));
  EXPECT_THAT(error_of(server.url("?version=3"), NCFS_NFS_PROGRAM), HasSubstr("version=3"));
  EXPECT_THAT(error_of(server.url(), "/nonexistent"), HasSubstr("cannot be started"));
  const std::string url = server.url();
  server.end_process(SIGKILL);
  // Until the timeout, as a server may come back.
  EXPECT_THAT(error_of(url, NCFS_NFS_PROGRAM, std::chrono::seconds(5)),
              HasSubstr("/data: Connection refused"));
  EXPECT_THAT(error_of("nfs://nothing.invalid/data", NCFS_NFS_PROGRAM, std::chrono::seconds(1)),
              HasSubstr("nothing.invalid:2049:/data: "));
}

// --- The daemon itself ---------------------------------------------------------------------------

class NfsDaemonTest : public testing::Test {
 protected:
  NfsDaemonTest() : server_(mount_.make_directory("server"), mount_.backend()) {}
  ~NfsDaemonTest() override { stop(SIGTERM); }

  // In the foreground, until it is mounted.
  void start() {
    const std::string options =
        "nfs_backend=" + server_.url() + ",cache_dir=" + mount_.cache() + ",cache_size=64M";
    const std::string place = mount_.mounted();
    const std::array<const char*, 7> arguments{NCFS_DAEMON, "-f",          "-o",   options.c_str(),
                                               "cachefs",   place.c_str(), nullptr};
    const pid_t test = ::getpid();
    daemon_ = ::fork();
    if (daemon_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (::getppid() != test) ::_exit(1);
      ::execv(arguments[0], const_cast<char* const*>(arguments.data()));
      ::_exit(1);
    }
    // A dead mount is one that does not answer.
    struct statvfs space {};
    ASSERT_TRUE(eventually(
        [&] { return is_mounted("cachefs " + place) && ::statvfs(place.c_str(), &space) == 0; }));
  }
  // Its exit status, or -1.
  int stop(int signal) {
    if (daemon_ < 0) return -1;
    ::kill(daemon_, signal);
    int status = 0;
    ::waitpid(std::exchange(daemon_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  // By the beginning of its line.
  static bool is_mounted(const std::string& what) {
    std::ifstream mounts("/proc/mounts");
    for (std::string line; std::getline(mounts, line);) {
      if (line.starts_with(what + ' ')) return true;
    }
    return false;
  }
  // Where the server's tree is shown to the daemon.
  [[nodiscard]] std::string shown() const {
    return "/run/nfs-cachefs/nfs-" + std::to_string(daemon_);
  }
  [[nodiscard]] std::string shown_line() const {
    const std::string url = server_.url();
    const std::size_t start = std::string("nfs://").size();
    const std::size_t slash = url.find('/', start);
    return url.substr(start, slash - start) + ":/data " + shown();
  }

  TestMount mount_;
  GaneshaServer server_;
  pid_t daemon_ = -1;
};

TEST_F(NfsDaemonTest, ATreeIsMountedByItsUrlAndNothingStays) {
  const auto bytes = content(1, 1, kMiB);
  write_content(mount_.backend("file"), bytes);
  start();
  const std::string line = shown_line();
  const std::string place = shown();
  EXPECT_TRUE(is_mounted(line));
  EXPECT_EQ(read_file(mount_.mounted("file")).bytes, bytes);
  EXPECT_EQ(stop(SIGTERM), 0);
  EXPECT_FALSE(is_mounted(line));
  EXPECT_FALSE(fs::exists(place));
}

TEST_F(NfsDaemonTest, WhatAKilledDaemonLeavesTheNextOneTakesAway) {
  const auto bytes = content(2, 1, kMiB);
  write_content(mount_.backend("file"), bytes);
  start();
  EXPECT_EQ(read_file(mount_.mounted("file")).bytes, bytes);
  const std::string line = shown_line();
  const std::string place = shown();
  stop(SIGKILL);
  start();
  EXPECT_EQ(read_file(mount_.mounted("file")).bytes, bytes);
  EXPECT_FALSE(is_mounted(line));
  EXPECT_FALSE(fs::exists(place));
  EXPECT_EQ(stop(SIGTERM), 0);
}

}  // namespace
}  // namespace ncfs
