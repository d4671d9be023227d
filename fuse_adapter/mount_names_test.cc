// Names, attributes and permissions through a real mount: the same calls are made on the mount and
// on a bare directory of the same file system, and whatever can be seen of them must be the same.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fuse_adapter/mount_fixture.h"

namespace ncfs {
namespace {

namespace fs = std::filesystem;

constexpr uid_t kNobody = 65534;
constexpr uid_t kOther = 4242;

// All of a file that an application can see and that does not depend on when it was made.
struct Seen {
  int error = 0;
  mode_t mode = 0;
  nlink_t links = 0;
  uid_t user = 0;
  gid_t group = 0;
  dev_t device = 0;
  off_t size = 0;
  friend bool operator==(const Seen&, const Seen&) = default;
};

std::ostream& operator<<(std::ostream& out, const Seen& seen) {
  return out << std::strerror(seen.error) << " mode " << std::oct << seen.mode << std::dec
             << " links " << seen.links << " owner " << seen.user << ":" << seen.group << " size "
             << seen.size;
}

Seen look(const std::string& path) {
  struct stat attributes {};
  if (::lstat(path.c_str(), &attributes) != 0) return {.error = errno};
  return {.error = 0,
          .mode = attributes.st_mode,
          .links = attributes.st_nlink,
          .user = attributes.st_uid,
          .group = attributes.st_gid,
          .device = attributes.st_rdev,
          .size = S_ISDIR(attributes.st_mode) ? 0 : attributes.st_size};
}

struct Identity {
  uid_t user = 0;
  gid_t group = 0;
};
constexpr std::array kIdentities{Identity{0, 0}, Identity{0, 100}, Identity{kNobody, kNobody},
                                 Identity{kOther, 100}};

class MountNamesTest : public testing::Test {
 protected:
  void SetUp() override {
    ::umask(0);
    for (const char* name : {"tree", "bare"}) fs::create_directory(mount_.backend(name));
  }
  void TearDown() override { ::umask(022); }

  void start(PassedFiles passthrough = PassedFiles::all) {
    mount_.start({.passthrough = passthrough});
  }
  [[nodiscard]] std::string tree(const std::string& path = "") const {
    return mount_.mounted("tree/" + path);
  }
  // The file of tree() without the mount.
  [[nodiscard]] std::string beneath(const std::string& path) const {
    return mount_.backend("tree/" + path);
  }
  [[nodiscard]] std::string bare(const std::string& path = "") const {
    return mount_.backend("bare/" + path);
  }
  // Prepares both directories, before the mount knows them.
  void prepare(const std::function<void(const std::string& directory)>& make) const {
    make(mount_.backend("tree/"));
    make(mount_.backend("bare/"));
  }

  // Makes the calls in either directory as somebody, and expects the same errno of each, 0 if it
  // went well, and the same attributes of `names` afterwards, also beneath the mount.
  using Call = std::function<int(const std::string& directory)>;
  void expect_same(const Identity& who, const std::vector<Call>& calls,
                   const std::vector<std::string>& names) const {
    std::size_t number = 0;
    for (const Call& call : calls) {
      const int mounted = error_of(who, call, tree());
      const int expected = error_of(who, call, bare());
      EXPECT_EQ(mounted, expected)
          << "call " << number << " as " << who.user << ": " << std::strerror(mounted)
          << ", on the backend " << std::strerror(expected);
      for (const std::string& name : names) {
        EXPECT_EQ(look(tree(name)), look(bare(name)))
            << name << " after call " << number << " as " << who.user;
        EXPECT_EQ(look(beneath(name)), look(bare(name))) << name;
      }
      ++number;
    }
  }

  // The errno of a call made in a process of its own.
  static int error_of(const Identity& who, const Call& call, const std::string& directory) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    const bool is_told = as_user(who.user, who.group, [&] {
      const int error = call(directory) < 0 ? errno : 0;
      return ::write(ends[1], &error, sizeof(error)) == sizeof(error);
    });
    int error = -1;
    EXPECT_TRUE(is_told);
    if (is_told) {
      EXPECT_EQ(::read(ends[0], &error, sizeof(error)), ssize_t{sizeof(error)});
    }
    ::close(ends[0]);
    ::close(ends[1]);
    return error;
  }

  TestMount mount_;
};

// Mounted over the backend by the test; goes when the test does, whatever came of it.
class InnerMount {
 public:
  explicit InnerMount(std::string where) : where_(std::move(where)) {}
  ~InnerMount() { EXPECT_EQ(::umount2(where_.c_str(), MNT_DETACH), 0); }
  InnerMount(const InnerMount&) = delete;
  InnerMount& operator=(const InnerMount&) = delete;

 private:
  const std::string where_;
};

// An ACL as the kernel takes it; perm is of rwx = 421.
struct AclEntry {
  std::uint16_t tag = 0;
  std::uint16_t perm = 0;
  std::uint32_t id = 0xffffffffU;
};
std::string acl_of(const std::vector<AclEntry>& entries) {
  const std::uint32_t version = POSIX_ACL_XATTR_VERSION;
  std::string bytes(reinterpret_cast<const char*>(&version), sizeof(version));
  for (const AclEntry& entry : entries) {
    bytes.append(reinterpret_cast<const char*>(&entry), sizeof(entry));
  }
  return bytes;
}
int set_acl(const std::string& path, const char* kind, const std::vector<AclEntry>& entries) {
  const std::string value = acl_of(entries);
  return ::setxattr(path.c_str(), (std::string("system.posix_acl_") + kind).c_str(), value.data(),
                    value.size(), 0);
}

TEST_F(MountNamesTest, WhatIsMadeBelongsToTheCallerAndHasItsUmask) {
  const auto make_directories = [](const std::string& directory) {
    fs::create_directory(directory + "open");
    EXPECT_EQ(::chmod((directory + "open").c_str(), 01777), 0);
    fs::create_directory(directory + "setgid");
    EXPECT_EQ(::chown((directory + "setgid").c_str(), 1, 77), 0);
    EXPECT_EQ(::chmod((directory + "setgid").c_str(), 02777), 0);
    fs::create_directory(directory + "acl");
    EXPECT_EQ(::chmod((directory + "acl").c_str(), 0777), 0);
    EXPECT_EQ(set_acl(directory + "acl", "default",
                      {{ACL_USER_OBJ, 7},
                       {ACL_USER, 7, 1234},
                       {ACL_GROUP_OBJ, 5},
                       {ACL_MASK, 7},
                       {ACL_OTHER, 4}}),
              0);
    fs::create_directory(directory + "closed");
    EXPECT_EQ(::chmod((directory + "closed").c_str(), 0755), 0);
  };
  prepare(make_directories);
  start();
  for (const Identity& who : kIdentities) {
    for (const mode_t mask : {0, 027, 077}) {
      for (const char* where : {"open/", "setgid/", "acl/", "closed/", "absent/"}) {
        const auto in = [mask, where](auto make) -> Call {
          return [mask, where, make](const std::string& directory) {
            ::umask(mask);
            return make(directory + where);
          };
        };
        const std::string place(where);
        expect_same(
            who,
            {in([](const std::string& d) { return ::mkdir((d + "dir").c_str(), 0777); }),
             in([](const std::string& d) { return ::mkdir((d + "dir").c_str(), 0777); }),
             in([](const std::string& d) { return ::mkdir((d + "sticky").c_str(), 01755); }),
             in([](const std::string& d) { return ::mkfifo((d + "fifo").c_str(), 0666); }),
             in([](const std::string& d) {
               return ::mknod((d + "socket").c_str(), S_IFSOCK | 0755, 0);
             }),
             in([](const std::string& d) {
               return ::mknod((d + "null").c_str(), S_IFCHR | 0666, makedev(1, 3));
             }),
             in([](const std::string& d) {
               return ::mknod((d + "file").c_str(), S_IFREG | 04777, 0);
             }),
             in([](const std::string& d) { return ::symlink("to/where", (d + "link").c_str()); })},
            {place + "dir", place + "sticky", place + "fifo", place + "socket", place + "null",
             place + "file", place + "link", where});
        for (const char* name : {"dir", "sticky", "fifo", "socket", "null", "file", "link"}) {
          EXPECT_EQ(::remove(tree(place + name).c_str()), ::remove(bare(place + name).c_str()));
        }
      }
    }
  }
}

TEST_F(MountNamesTest, NamesAreLinkedMovedAndRemovedAsOnTheBackend) {
  prepare([](const std::string& directory) {
    for (const char* name : {"a", "b", "mine"}) write_content(directory + name, content(1, 0, 100));
    fs::create_directories(directory + "dir/sub");
    fs::create_directories(directory + "empty");
    fs::create_directories(directory + "sticky");
    write_content(directory + "sticky/root's", content(1, 0, 1));
    EXPECT_EQ(::chmod((directory + "sticky").c_str(), 01777), 0);
    EXPECT_EQ(::chmod(directory.c_str(), 0777), 0);
    EXPECT_EQ(::chown((directory + "mine").c_str(), kNobody, kNobody), 0);
    fs::create_symlink("nowhere", directory + "symlink");
  });
  start();
  const auto rename = [](const char* from, const char* to, unsigned flags = 0) -> Call {
    return [=](const std::string& d) {
      return ::renameat2(AT_FDCWD, (d + from).c_str(), AT_FDCWD, (d + to).c_str(), flags);
    };
  };
  const auto link = [](const char* from, const char* to) -> Call {
    return [=](const std::string& d) { return ::link((d + from).c_str(), (d + to).c_str()); };
  };
  const auto unlink = [](const char* name) -> Call {
    return [=](const std::string& d) { return ::unlink((d + name).c_str()); };
  };
  const auto rmdir = [](const char* name) -> Call {
    return [=](const std::string& d) { return ::rmdir((d + name).c_str()); };
  };
  const std::vector<std::string> names{"a",    "b",       "c",          "d",     "mine",
                                       "dir",  "dir/sub", "dir/sub/x",  "empty", "sticky/root's",
                                       "link", "symlink", "of symlink", "moved", "moved/sub"};
  expect_same({kNobody, kNobody},
              {unlink("sticky/root's"), rename("sticky/root's", "sticky/x"), link("a", "x"),
               rename("mine", "sticky/root's"), unlink("dir/sub"), rmdir("dir/sub")},
              names);
  expect_same({0, 0},
              {link("a", "c"),
               link("a", "b"),
               link("dir", "link"),
               link("symlink", "of symlink"),
               rename("a", "b", RENAME_NOREPLACE),
               rename("a", "d", RENAME_NOREPLACE),
               rename("c", "d"),  // two names of one file
               rename("b", "dir", RENAME_EXCHANGE),
               rename("b", "dir", RENAME_EXCHANGE),
               rename("b", "absent", RENAME_EXCHANGE),
               rename("b", "d", RENAME_EXCHANGE | RENAME_NOREPLACE),
               rename("b", "d", 1U << 20U),
               rename("c", "b"),
               link("b", "dir/sub/x"),
               rename("dir", "moved"),
               unlink("moved/sub/x"),
               rename("moved", "moved/sub/in itself"),
               rename("moved", "empty"),
               rename("empty", "b"),
               rename("b", "empty"),
               rmdir("empty"),
               rmdir("empty/sub"),
               rmdir("empty"),
               unlink("empty"),
               unlink("b"),
               unlink("b"),
               rmdir("d"),
               unlink("d"),
               unlink("of symlink")},
              names);
}

TEST_F(MountNamesTest, AttributesAreSetAsOnTheBackend) {
  prepare([](const std::string& directory) {
    for (const char* name : {"root's", "mine"}) write_content(directory + name, content(1, 0, 10));
    fs::create_directory(directory + "dir");
    fs::create_symlink("nowhere", directory + "symlink");
    EXPECT_EQ(::chmod((directory + "root's").c_str(), 0644), 0);
    EXPECT_EQ(::chown((directory + "mine").c_str(), kNobody, 100), 0);
    EXPECT_EQ(::chmod((directory + "mine").c_str(), 0644), 0);
  });
  start();
  for (const Identity& who : {Identity{kNobody, kNobody}, Identity{kOther, 100}, Identity{0, 0}}) {
    for (const std::string name : {"root's", "mine", "dir"}) {
      const auto chmod = [&](mode_t mode) -> Call {
        return [=](const std::string& d) { return ::chmod((d + name).c_str(), mode); };
      };
      const auto chown = [&](uid_t user, gid_t group) -> Call {
        return [=](const std::string& d) { return ::lchown((d + name).c_str(), user, group); };
      };
      const auto times = [&](const timespec& accessed, const timespec& modified) -> Call {
        return [=](const std::string& d) {
          const std::array<timespec, 2> both{accessed, modified};
          return ::utimensat(AT_FDCWD, (d + name).c_str(), both.data(), AT_SYMLINK_NOFOLLOW);
        };
      };
      const auto access = [&](int mode) -> Call {
        return [=](const std::string& d) { return ::access((d + name).c_str(), mode); };
      };
      const auto set = [&](const char* key, const char* value, int flags) -> Call {
        return [=](const std::string& d) {
          return ::setxattr((d + name).c_str(), key, value, std::strlen(value), flags);
        };
      };
      const auto drop = [&](const char* key) -> Call {
        return [=](const std::string& d) { return ::removexattr((d + name).c_str(), key); };
      };
      constexpr uid_t kSame = -1;
      expect_same(who,
                  {access(W_OK),
                   access(R_OK),
                   access(X_OK),
                   chmod(0640),
                   chmod(06755),
                   chmod(02755),
                   chown(kSame, who.group),
                   chmod(06775),
                   chown(kSame, 77),
                   chown(kNobody, kSame),
                   chown(kSame, kSame),
                   chmod(0666),
                   access(W_OK),
                   times({1000, 5}, {2000, 7}),
                   times({0, UTIME_OMIT}, {3000, 9}),
                   times({4000, 1}, {0, UTIME_OMIT}),
                   times({0, UTIME_NOW}, {0, UTIME_OMIT}),
                   times({0, UTIME_NOW}, {0, UTIME_NOW}),
                   times({0, UTIME_OMIT}, {0, UTIME_OMIT}),
                   set("user.a", "1", 0),
                   set("user.a", "2", XATTR_CREATE),
                   set("user.b", "2", XATTR_REPLACE),
                   set("trusted.a", "1", 0),
                   drop("user.b"),
                   drop("user.a"),
                   drop("trusted.a"),
                   set("nonsense", "1", 0)},
                  {name, "symlink"});
    }
  }
  // Times themselves.
  const std::array<timespec, 2> both{timespec{1'000'000'000, 123}, timespec{1'500'000'000, 456}};
  for (const std::string name : {"mine", "symlink", "dir"}) {
    ASSERT_EQ(::utimensat(AT_FDCWD, tree(name).c_str(), both.data(), AT_SYMLINK_NOFOLLOW), 0);
    for (const std::string& path : {tree(name), beneath(name)}) {
      struct stat attributes {};
      ASSERT_EQ(::lstat(path.c_str(), &attributes), 0);
      EXPECT_EQ(attributes.st_atim.tv_sec, 1'000'000'000);
      EXPECT_EQ(attributes.st_atim.tv_nsec, 123);
      EXPECT_EQ(attributes.st_mtim.tv_sec, 1'500'000'000);
      EXPECT_EQ(attributes.st_mtim.tv_nsec, 456);
    }
  }
}

TEST_F(MountNamesTest, AccessControlListsGrantAndRefuseAsOnTheBackend) {
  prepare([](const std::string& directory) {
    for (const char* name : {"file", "dir/file"}) {
      fs::create_directories((directory + name).substr(0, (directory + name).rfind('/')));
      write_content(directory + name, content(1, 0, 10));
    }
    EXPECT_EQ(::chmod((directory + "dir").c_str(), 0700), 0);
  });
  start();
  const auto read = [](const char* name) -> Call {
    return [=](const std::string& d) {
      return Descriptor(::open((d + name).c_str(), O_RDONLY)).get();
    };
  };
  const auto set = [](const char* name, std::vector<AclEntry> entries) -> Call {
    return [=](const std::string& d) { return set_acl(d + name, "access", entries); };
  };
  // In turn: refused by the mode, granted by name, granted by group, refused by name, by the mask.
  const auto expect_readers = [&](const char* name) {
    for (const Identity& who : kIdentities) {
      const auto access = [=](const std::string& d) { return ::access((d + name).c_str(), R_OK); };
      const auto enter = [](const std::string& d) { return ::chdir((d + "dir").c_str()); };
      expect_same(who, {read(name), access, enter, read("dir/file")}, {"file", "dir"});
    }
  };
  const std::vector<std::vector<AclEntry>> lists{
      {{ACL_USER_OBJ, 6}, {ACL_GROUP_OBJ, 0}, {ACL_OTHER, 0}},
      {{ACL_USER_OBJ, 6},
       {ACL_USER, 5, kNobody},
       {ACL_GROUP_OBJ, 0},
       {ACL_MASK, 5},
       {ACL_OTHER, 0}},
      {{ACL_USER_OBJ, 6}, {ACL_GROUP_OBJ, 0}, {ACL_GROUP, 5, 100}, {ACL_MASK, 5}, {ACL_OTHER, 0}},
      {{ACL_USER_OBJ, 6},
       {ACL_USER, 0, kNobody},
       {ACL_GROUP_OBJ, 5},
       {ACL_MASK, 5},
       {ACL_OTHER, 5}},
      {{ACL_USER_OBJ, 6},
       {ACL_USER, 7, kNobody},
       {ACL_GROUP_OBJ, 5},
       {ACL_MASK, 0},
       {ACL_OTHER, 5}}};
  for (const auto& list : lists) {
    expect_same({kNobody, kNobody}, {set("file", list)}, {"file"});
    expect_same({0, 0}, {set("file", list), set("dir", list)}, {"file", "dir"});
    expect_readers("file");
    // What is made in a directory with a default list, whatever the umask.
    ASSERT_EQ(set_acl(tree("dir"), "default", list), 0);
    ASSERT_EQ(set_acl(bare("dir"), "default", list), 0);
    expect_same({0, 0},
                {[](const std::string& d) {
                   ::umask(077);
                   return ::mkdir((d + "dir/made").c_str(), 0775);
                 },
                 [](const std::string& d) { return ::chmod((d + "dir/made").c_str(), 0751); }},
                {"dir/made"});
    std::array<char, 256> mounted{};
    std::array<char, 256> expected{};
    const char* const key = "system.posix_acl_access";
    const ssize_t size = ::getxattr(tree("dir/made").c_str(), key, mounted.data(), mounted.size());
    EXPECT_EQ(size, ::getxattr(bare("dir/made").c_str(), key, expected.data(), expected.size()));
    EXPECT_EQ(mounted, expected);
    for (const std::string& made : {tree("dir/made"), bare("dir/made")}) {
      EXPECT_EQ(::rmdir(made.c_str()), 0);
    }
  }
}

TEST_F(MountNamesTest, ADirectorysTimesAndLinksAreNewAtOnce) {
  start();
  struct stat before {};
  struct stat after {};
  const auto changes = [&](const std::function<int()>& change) {
    EXPECT_EQ(::stat(tree().c_str(), &before), 0);
    EXPECT_EQ(change(), 0);
    EXPECT_EQ(::stat(tree().c_str(), &after), 0);
    struct stat expected {};
    EXPECT_EQ(::stat(beneath("").c_str(), &expected), 0);
    EXPECT_EQ(after.st_nlink, expected.st_nlink);
    EXPECT_EQ(after.st_mtim.tv_sec, expected.st_mtim.tv_sec);
    EXPECT_EQ(after.st_mtim.tv_nsec, expected.st_mtim.tv_nsec);
  };
  changes([&] { return ::mkdir(tree("dir").c_str(), 0700); });
  changes([&] { return ::mkfifo(tree("fifo").c_str(), 0700); });
  changes([&] { return ::rename(tree("fifo").c_str(), tree("dir/fifo").c_str()); });
  changes([&] { return ::link(tree("dir/fifo").c_str(), tree("link").c_str()); });
  changes([&] { return ::unlink(tree("link").c_str()); });
  changes([&] { return ::unlink(tree("dir/fifo").c_str()); });
  changes([&] { return ::rmdir(tree("dir").c_str()); });
}

TEST_F(MountNamesTest, AChangeThatChangesNothingChangesTheCtime) {
  write_content(beneath("file"), content(1, 0, 10));
  start();
  constexpr uid_t kSame = -1;
  struct stat before {};
  struct stat after {};
  ASSERT_EQ(::stat(tree("file").c_str(), &before), 0);
  // The clock of the file system may stand still for a tick.
  EXPECT_TRUE(mount_.wait_until([&](const EngineStatus&) {
    EXPECT_EQ(::chown(tree("file").c_str(), kSame, kSame), 0);
    EXPECT_EQ(::stat(tree("file").c_str(), &after), 0);
    return after.st_ctim.tv_sec != before.st_ctim.tv_sec ||
           after.st_ctim.tv_nsec != before.st_ctim.tv_nsec;
  }));
  ASSERT_EQ(::stat(beneath("file").c_str(), &before), 0);
  EXPECT_EQ(after.st_ctim.tv_nsec, before.st_ctim.tv_nsec);
}

TEST_F(MountNamesTest, AFileThatIsOpenOutlivesItsName) {
  const auto bytes = content(1, 0, 3 * kMiB);
  for (const char* name : {"tree/removed", "tree/replaced", "tree/other"}) {
    write_content(mount_.backend(name), bytes);
  }
  write_content(beneath("newer"), content(2, 0, 100));
  start();
  const auto open = [&](const char* name) {
    return Descriptor(::open(tree(name).c_str(), O_RDONLY | O_CLOEXEC));
  };
  const Descriptor removed = open("removed");
  const Descriptor replaced = open("replaced");
  EXPECT_EQ(::unlink(tree("removed").c_str()), 0);
  EXPECT_EQ(::rename(tree("newer").c_str(), tree("replaced").c_str()), 0);
  for (const Descriptor* file : {&removed, &replaced}) {
    struct stat attributes {};
    EXPECT_EQ(::fstat(file->get(), &attributes), 0);
    EXPECT_EQ(attributes.st_nlink, 0U);
    EXPECT_TRUE(read_descriptor(file->get()).bytes == bytes);
    EXPECT_EQ(::fchmod(file->get(), 0711), 0);
    EXPECT_EQ(::fchown(file->get(), 12, 34), 0);
    const std::array<timespec, 2> times{timespec{1000, 0}, timespec{2000, 0}};
    EXPECT_EQ(::futimens(file->get(), times.data()), 0);
    EXPECT_EQ(::fsetxattr(file->get(), "user.a", "b", 1, 0), 0);
    EXPECT_EQ(::fstat(file->get(), &attributes), 0);
    EXPECT_EQ(attributes.st_mode & 07777U, 0711U);
    EXPECT_EQ(attributes.st_uid, 12U);
    EXPECT_EQ(attributes.st_mtim.tv_sec, 2000);
    EXPECT_TRUE(read_descriptor(file->get()).bytes == bytes);
  }
  EXPECT_TRUE(read_file(tree("replaced")).bytes == content(2, 0, 100));
  EXPECT_EQ(read_file(tree("removed")).error, ENOENT);
}

// The number of a removed directory may be given to the next one at once, while the kernel still
// knows the first.
TEST_F(MountNamesTest, ADirectoryMadeAfterAnotherWasRemovedIsNotThatOne) {
  start();
  for (int round = 0; round < 20; ++round) {
    ASSERT_EQ(::mkdir(tree("old").c_str(), 0700), 0);
    const Descriptor held(::open(tree("old").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (round % 2 == 0) {
      ASSERT_EQ(::rmdir(tree("old").c_str()), 0);
    } else {
      ASSERT_EQ(::mkdir(tree("other").c_str(), 0700), 0);
      ASSERT_EQ(::rename(tree("other").c_str(), tree("old").c_str()), 0);
      ASSERT_EQ(::rmdir(tree("old").c_str()), 0);
    }
    ASSERT_EQ(::mkdir(tree("new").c_str(), 0700), 0);
    EXPECT_EQ(::mkdir(tree("new/child").c_str(), 0700), 0) << round;
    EXPECT_EQ(::mkdirat(held.get(), "child", 0700), -1);
    EXPECT_EQ(errno, ENOENT);
    ASSERT_EQ(::rmdir(tree("new/child").c_str()), 0);
    ASSERT_EQ(::rmdir(tree("new").c_str()), 0);
  }
}

// A node has one name in the table, but the kernel may know the file by another one.
TEST_F(MountNamesTest, AFileIsFoundByTheNamesThatAreLeft) {
  fs::create_directory(beneath("dir"));
  write_content(beneath("first"), content(1, 0, 100));
  fs::create_hard_link(beneath("first"), beneath("dir/second"));
  start();
  const Descriptor first(::open(tree("first").c_str(), O_PATH | O_CLOEXEC));
  ASSERT_EQ(look(tree("dir/second")).links, 2U);
  EXPECT_EQ(::unlink(tree("dir/second").c_str()), 0);
  struct stat attributes {};
  EXPECT_EQ(::fstat(first.get(), &attributes), 0);
  EXPECT_EQ(attributes.st_nlink, 1U);
  // Renaming and removing the directories on the way.
  ASSERT_EQ(::rename(tree("first").c_str(), tree("dir/third").c_str()), 0);
  ASSERT_EQ(::rename(tree("dir").c_str(), tree("moved").c_str()), 0);
  EXPECT_EQ(::fchownat(first.get(), "", 5, 6, AT_EMPTY_PATH), 0);
  EXPECT_EQ(look(beneath("moved/third")).user, 5U);
}

TEST_F(MountNamesTest, OurOwnChangesCostNoPageThatIsCached) {
  const auto bytes = content(1, 0, 2 * kMiB);
  write_content(beneath("file"), bytes);
  fs::create_directory(beneath("dir"));
  start(PassedFiles::none);
  std::string name = "file";
  EXPECT_TRUE(read_file(tree(name)).bytes == bytes);
  const std::uint64_t reads = mount_.stats().reads.value();
  const auto expect_cached = [&](int result, const char* what) {
    EXPECT_EQ(result, 0) << what;
    EXPECT_TRUE(read_file(tree(name)).bytes == bytes) << what;
    EXPECT_EQ(mount_.stats().reads.value(), reads) << what;
    EXPECT_EQ(mount_.stats().stale_answers.value(), 0U) << what;
  };
  expect_cached(0, "nothing");
  expect_cached(::chmod(tree(name).c_str(), 0600), "chmod");
  expect_cached(::chown(tree(name).c_str(), 5, 5), "chown");
  expect_cached(::setxattr(tree(name).c_str(), "user.a", "b", 1, 0), "setxattr");
  expect_cached(::removexattr(tree(name).c_str(), "user.a"), "removexattr");
  expect_cached(::link(tree(name).c_str(), tree("link").c_str()), "link");
  expect_cached(::unlink(tree("link").c_str()), "unlink");
  EXPECT_EQ(::rename(tree(name).c_str(), tree("dir/moved").c_str()), 0);
  name = "dir/moved";
  expect_cached(0, "rename");
  EXPECT_EQ(::rename(tree("dir").c_str(), tree("other").c_str()), 0);
  name = "other/moved";
  expect_cached(0, "rename of its directory");
}

TEST_F(MountNamesTest, OurOwnChangesCostNoFileThatIsCached) {
  const auto bytes = content(1, 0, 2 * kMiB);
  write_content(beneath("file"), bytes);
  fs::create_directory(beneath("dir"));
  start(PassedFiles::cached);
  mount_.bring_into_cache("tree/file");
  ASSERT_EQ(mount_.engine_status().source_bytes, bytes.size());
  std::string name = "file";
  const auto expect_cached = [&](int result, const char* what) {
    EXPECT_EQ(result, 0) << what;
    const std::uint64_t hits = mount_.stats().opens_hit.value();
    EXPECT_TRUE(read_file(tree(name)).bytes == bytes) << what;
    EXPECT_EQ(mount_.stats().opens_hit.value(), hits + 1) << what;
    EXPECT_EQ(mount_.engine_status().source_bytes, bytes.size()) << what;
  };
  expect_cached(0, "nothing");
  expect_cached(::chmod(tree(name).c_str(), 0600), "chmod");
  expect_cached(::chown(tree(name).c_str(), 5, 5), "chown");
  expect_cached(::setxattr(tree(name).c_str(), "user.a", "b", 1, 0), "setxattr");
  expect_cached(::link(tree(name).c_str(), tree("link").c_str()), "link");
  expect_cached(::unlink(tree("link").c_str()), "unlink");
  ASSERT_EQ(::rename(tree(name).c_str(), tree("dir/moved").c_str()), 0);
  name = "dir/moved";
  expect_cached(0, "rename");
  // Somebody else's change is another matter.
  const auto other = content(1, 1, 2 * kMiB);
  write_content(beneath("dir/moved"), other);
  EXPECT_TRUE(read_file(tree(name)).bytes == other);
  EXPECT_GT(mount_.engine_status().source_bytes, bytes.size());
}

TEST_F(MountNamesTest, NamesAreBytesAndPathsAreAsLongAsTheTreeIsDeep) {
  start();
  std::string all;  // every byte that may be in a name
  for (int byte = 1; byte < 256; ++byte) {
    if (byte != '/') all += static_cast<char>(byte);
  }
  ASSERT_EQ(all.size(), 254U);
  const std::string longest = std::string(255, '\xff');
  for (const std::string& name : {all, longest}) {
    EXPECT_EQ(::mkdir(tree(name).c_str(), 0755), 0);
    EXPECT_EQ(look(tree(name)), look(beneath(name)));
    EXPECT_EQ(look(beneath(name)).error, 0);
  }
  EXPECT_EQ(::mkdir(tree(longest + "x").c_str(), 0755), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
  // Deeper than a path may be long, at once and for the daemon.
  Descriptor at(::open(tree().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  constexpr int kDepth = 20;
  for (int depth = 0; depth < kDepth; ++depth) {
    ASSERT_EQ(::mkdirat(at.get(), longest.c_str(), 0755), depth == 0 ? -1 : 0) << depth;
    at = Descriptor(::openat(at.get(), longest.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at.is_open()) << depth;
  }
  EXPECT_EQ(::mkfifoat(at.get(), "fifo", 0600), 0);
  EXPECT_EQ(::fchmodat(at.get(), "fifo", 0640, 0), 0);
  EXPECT_EQ(::linkat(at.get(), "fifo", at.get(), "link", 0), 0);
  EXPECT_EQ(::renameat(at.get(), "fifo", at.get(), "moved"), 0);
  struct stat attributes {};
  EXPECT_EQ(::fstatat(at.get(), "moved", &attributes, AT_SYMLINK_NOFOLLOW), 0);
  EXPECT_EQ(attributes.st_mode, static_cast<mode_t>(S_IFIFO | 0640));
  EXPECT_EQ(attributes.st_nlink, 2U);
}

TEST_F(MountNamesTest, WhatIsMountedBeneathTheBackendIsPartOfTheTree) {
  fs::create_directory(beneath("inner"));
  write_content(beneath("file"), content(1, 0, 10));
  ASSERT_EQ(::mount("tmpfs", beneath("inner").c_str(), "tmpfs", 0, "size=1m"), 0);
  const InnerMount inner(beneath("inner"));
  start();
  EXPECT_EQ(::mkdir(tree("inner/dir").c_str(), 0751), 0);
  EXPECT_EQ(look(beneath("inner/dir")).mode, static_cast<mode_t>(S_IFDIR | 0751));
  EXPECT_EQ(::rename(tree("file").c_str(), tree("inner/file").c_str()), -1);
  EXPECT_EQ(errno, EXDEV);
  EXPECT_EQ(::link(tree("file").c_str(), tree("inner/file").c_str()), -1);
  EXPECT_EQ(errno, EXDEV);
  EXPECT_EQ(::rmdir(tree("inner").c_str()), -1);
  EXPECT_EQ(errno, EBUSY);
}

// On each tmpfs numbers start from the same one.
TEST_F(MountNamesTest, NoTwoFilesOfFileSystemsBeneathTheBackendHaveOneInodeNumber) {
  std::vector<std::unique_ptr<InnerMount>> inner;
  for (const std::string name : {"a", "b"}) {
    fs::create_directory(beneath(name));
    ASSERT_EQ(::mount("tmpfs", beneath(name).c_str(), "tmpfs", 0, "size=1m"), 0);
    inner.push_back(std::make_unique<InnerMount>(beneath(name)));
    write_content(beneath(name + "/file"), content(1, 0, 10));
  }
  start();
  const auto inode = [](const std::string& path) {
    struct stat attributes {};
    EXPECT_EQ(::lstat(path.c_str(), &attributes), 0) << path;
    return attributes.st_ino;
  };
  ASSERT_EQ(inode(beneath("a/file")), inode(beneath("b/file")));
  EXPECT_NE(inode(tree("a/file")), inode(tree("b/file")));
  EXPECT_NE(inode(tree("a")), inode(tree("b")));
  EXPECT_EQ(inode(tree()), inode(beneath("")));
  // The same by every way to ask.
  const auto number = inode(tree("a/file"));
  const Descriptor file(::open(tree("a/file").c_str(), O_RDONLY | O_CLOEXEC));
  struct stat attributes {};
  EXPECT_EQ(::fstat(file.get(), &attributes), 0);
  EXPECT_EQ(attributes.st_ino, number);
  EXPECT_EQ(::link(tree("a/file").c_str(), tree("a/link").c_str()), 0);
  EXPECT_EQ(inode(tree("a/link")), number);
  DIR* const stream = ::opendir(tree("a").c_str());
  ASSERT_NE(stream, nullptr);
  while (const dirent* entry = ::readdir(stream)) {
    const std::string name(entry->d_name);
    const auto expected = name == "." ? inode(tree("a")) : name == ".." ? entry->d_ino : number;
    EXPECT_EQ(entry->d_ino, expected) << name;
  }
  ::closedir(stream);
}

TEST_F(MountNamesTest, ABackendThatIsReadOnlyAnswersForItself) {
  write_content(beneath("file"), content(1, 0, 10));
  const std::string backend = mount_.backend();
  ASSERT_EQ(::mount(backend.c_str(), backend.c_str(), nullptr, MS_BIND, nullptr), 0);
  const InnerMount bind(backend);
  ASSERT_EQ(::mount(nullptr, backend.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr),
            0);
  start();
  const auto refused = [](int result) { return result == -1 && errno == EROFS; };
  EXPECT_TRUE(refused(::mkdir(tree("dir").c_str(), 0700)));
  EXPECT_TRUE(refused(::unlink(tree("file").c_str())));
  EXPECT_TRUE(refused(::chmod(tree("file").c_str(), 0600)));
  EXPECT_TRUE(refused(::access(tree("file").c_str(), W_OK)));
}

TEST_F(MountNamesTest, WhatStaysIsListedOnceWhateverComesAndGoes) {
  constexpr int kNames = 1500;
  for (int number = 0; number < kNames; ++number) {
    ASSERT_EQ(::mknod(beneath("stays " + std::to_string(number)).c_str(), S_IFREG | 0600, 0), 0);
  }
  // With nocto the kernel keeps listings, and goes on in later ones by itself.
  for (const auto profile : {MetadataProfile::normal, MetadataProfile::unchanged}) {
    mount_.start({.metadata = metadata_config(profile)});
    std::atomic<bool> is_over{false};
    std::atomic<int> changes{0};
    std::thread changer([&] {
      for (int number = 0; !is_over; ++number) {
        const std::string comes = "comes " + std::to_string(number % 100);
        const std::string goes = "goes " + std::to_string(number % 100);
        ::mkfifo(tree(comes).c_str(), 0600);
        ::rename(tree(comes).c_str(), tree(goes).c_str());
        if (number % 3 != 0) ::unlink(tree(goes).c_str());
        ++changes;
      }
    });
    for (int round = 0; round < 4; ++round) {
      const int before = changes;
      EXPECT_TRUE(mount_.wait_until([&](const EngineStatus&) { return changes > before + 20; }));
      std::map<std::string, int> seen;
      DIR* const stream = ::opendir(tree().c_str());
      ASSERT_NE(stream, nullptr);
      while (const dirent* entry = ::readdir(stream)) ++seen[entry->d_name];
      ::closedir(stream);
      for (int number = 0; number < kNames; ++number) {
        EXPECT_EQ(seen["stays " + std::to_string(number)], 1) << number;
      }
    }
    is_over = true;
    changer.join();
    mount_.stop();
  }
}

}  // namespace
}  // namespace ncfs
