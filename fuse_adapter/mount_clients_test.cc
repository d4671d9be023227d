// Method: programs as Debian ships them, at work on a real mount and, by the same script, on a
// plain directory of the same file system. Both must say the same.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <string>

#include "fuse_adapter/mount_fixture.h"

namespace ncfs {
namespace {

class MountClientsTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"tree", "plain"}) {
      std::filesystem::create_directory(mount_.backend(name));
    }
    mount_.start({});
  }

  struct Said {
    int status = 0;
    std::string text;
  };
  static Said run(const std::string& directory, const std::string& script) {
    // Nothing of the user's settings, and the same time for all that git records.
    const std::string command = fmt::format(
        "cd {} && HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null "
        "GIT_AUTHOR_DATE='1 Jan 2024 00:00 +0000' GIT_COMMITTER_DATE='1 Jan 2024 00:00 +0000' "
        "LC_ALL=C sh -eu 2>&1 <<'END-OF-SCRIPT'\n{}\nEND-OF-SCRIPT\n",
        directory, script);
    Said said;
    std::FILE* const output = ::popen(command.c_str(), "re");
    if (output == nullptr) return {.status = -1, .text = {}};
    std::array<char, 4096> piece{};
    for (std::size_t count = 0; (count = std::fread(piece.data(), 1, piece.size(), output)) > 0;) {
      said.text.append(piece.data(), count);
    }
    said.status = ::pclose(output);
    return said;
  }
  void expect_same(const std::string& script) {
    const Said plain = run(mount_.backend("plain"), script);
    const Said mounted = run(mount_.mounted("tree"), script);
    EXPECT_EQ(plain.status, 0) << plain.text;
    EXPECT_EQ(mounted.status, 0) << mounted.text;
    EXPECT_EQ(mounted.text, plain.text);
    const Said difference = run("/", fmt::format("diff -r --no-dereference -x fifo {} {}",
                                                 mount_.mounted("tree"), mount_.backend("tree")));
    EXPECT_EQ(difference.status, 0) << difference.text;
  }

  // A tree of all kinds of files, in "src".
  static constexpr const char* kMakeTree = R"(
mkdir -p src/sub/deep src/empty
for n in $(seq 60); do seq $n $((n * 40)) > src/sub/$n; done
seq 300000 > src/large
truncate -s 3M src/sparse; echo end >> src/sparse
ln src/large src/sub/hardlink
ln -s ../large src/sub/symlink
ln -s nowhere src/dangling
mkfifo src/fifo
chmod 4751 src/sub/1; chmod 2700 src/sub/deep; chmod 0 src/sub/2
chown 65534:100 src/sub/3 src/sub/deep
python3 -c 'import os; os.setxattr("src/large", "user.key", b"value")' || true
find src -exec touch -hd '2001-02-03 04:05:06.789012345' {} +
)";

  TestMount mount_;
};

TEST_F(MountClientsTest, Git) {
  expect_same(R"(
git init -q -b main origin
cd origin
git config user.name Somebody; git config user.email somebody@example.org
for n in $(seq 40); do mkdir -p d$((n % 7)); seq $n $((n * 50)) > d$((n % 7))/file$n; done
git add -A; git commit -qm first
git checkout -q -b side
for n in $(seq 1 3 40); do echo more >> d$((n % 7))/file$n; done
git mv d1/file1 moved; git rm -q d2/file2; git commit -qam second
git checkout -q main
echo main >> d3/file3; git commit -qam third
git merge -q -m merged side
git gc -q --prune=now
git fsck --full --strict --no-progress
cd ..
git clone -q origin clone; git clone -q --no-hardlinks --depth 2 "file://$PWD/origin" shallow
cd clone
git fsck --full --no-progress
git worktree add -q ../other HEAD~1
git checkout -q HEAD~1; git checkout -q main; git stash -q || true
git status --porcelain; git -C ../other status --porcelain; git -C ../shallow status --porcelain
git rev-parse HEAD 'HEAD^{tree}'
)");
}

TEST_F(MountClientsTest, SeveralProcessesWithOneDatabase) {
  expect_same(R"(
for mode in wal delete; do
  sqlite3 $mode.db "PRAGMA journal_mode=$mode; CREATE TABLE t (who, number, bytes);"
  for who in 1 2 3; do
    (for number in $(seq 8); do
       sqlite3 $mode.db ".timeout 300000" "BEGIN IMMEDIATE; INSERT INTO t VALUES
         ($who, (SELECT count(*) FROM t WHERE who = $who), zeroblob(3000)); COMMIT;"
     done) &
  done
  wait
  sqlite3 $mode.db ".timeout 300000" "SELECT who, count(*), max(number) FROM t GROUP BY who;
    PRAGMA integrity_check; PRAGMA wal_checkpoint; VACUUM; SELECT count(*) FROM t;" |
    sed 's/^0|.*/checkpoint/'
done
)");
}

TEST_F(MountClientsTest, Rsync) {
  expect_same(std::string(kMakeTree) + R"(
rsync -aHAX src/ copy/
rsync -aHAXnci --delete src/ copy/
seq 5 >> src/large; touch -d 2002-03-04 src/large; rm src/sub/5; mv src/sub/6 src/sub/new
rsync -aHAXS --inplace --delete src/ copy/
rsync -aHAXnci --delete src/ copy/
(cd copy; find . -printf '%p %y %m %n %U %G %s %T@ %l\n' | grep -v ' d ' | sort)
)");
}

TEST_F(MountClientsTest, TarAndCp) {
  expect_same(std::string(kMakeTree) + R"(
tar --xattrs --acls -cSf all.tar src
mkdir out; tar --xattrs --acls --same-owner -xpf all.tar -C out
tar --xattrs --acls -df all.tar -C out
cp -a src copy
diff -r --no-dereference src/sub copy/sub
(cd copy; find . -printf '%p %y %m %n %U %G %s %T@ %l\n' | grep -v ' d ' | sort)
rm -r src out; find . | sort
)");
}

// touch(1) sets the times, which makes the file look like another version.
TEST_F(MountClientsTest, ANewLinkIsCountedUnderTheOldName) {
  expect_same(R"(
python3 - <<'END'
import os
for n in range(50):
    old, new = f"old{n}", f"new{n}"
    os.close(os.open(old, os.O_CREAT | os.O_WRONLY, 0o600))
    os.utime(old)
    os.link(old, new)
    print(os.stat(old).st_nlink, os.stat(new).st_nlink)
    os.unlink(new)
    print(os.stat(old).st_nlink)
END
)");
}

TEST_F(MountClientsTest, WhoDoesNotWantTheAccessTimeChangedDoesNotChangeIt) {
  expect_same(R"(
seq 1000 > file
touch -a -d 2001-02-03 file
python3 - <<'END'
import os
file = os.open("file", os.O_RDONLY | os.O_NOATIME)
print(len(os.read(file, 100000)), int(os.stat("file").st_atime))
END
)");
}

}  // namespace
}  // namespace ncfs
