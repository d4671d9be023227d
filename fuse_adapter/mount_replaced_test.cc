// Method: the backend is a file system that behaves as an NFS client does when its server replaces
// a file that the client has open: it finds the old file by its cached name, opens it without a
// question, and finds out only when it is asked for the attributes after that.
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "fuse_adapter/mount_fixture.h"
#include "fuse_adapter/source_walk.h"

namespace ncfs {
namespace {

// One directory with one file, "file"; its versions are different inodes.
class ForgetfulClient {
 public:
  explicit ForgetfulClient(const std::string& path) {
    fuse_lowlevel_ops operations{};
    operations.lookup = look_up;
    operations.getattr = getattr;
    operations.open = open;
    operations.read = read;
    std::array<char*, 1> arguments{const_cast<char*>("forgetful")};
    fuse_args args = FUSE_ARGS_INIT(1, arguments.data());
    session_ = fuse_session_new(&args, &operations, sizeof(operations), this);
    fuse_opt_free_args(&args);
    EXPECT_NE(session_, nullptr);
    EXPECT_EQ(fuse_session_mount(session_, path.c_str()), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~ForgetfulClient() {
    const std::uint64_t one = 1;
    EXPECT_EQ(::write(end_.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
    thread_.join();
    fuse_session_unmount(session_);
    fuse_session_destroy(session_);
  }
  ForgetfulClient(const ForgetfulClient&) = delete;
  ForgetfulClient& operator=(const ForgetfulClient&) = delete;

  void replace_on_server() { ++version_; }
  // What the server was asked so far: opening alone asks nothing.
  [[nodiscard]] std::uint64_t questions() const { return questions_.load(); }
  [[nodiscard]] std::vector<std::byte> bytes() const { return content(1, version_, kSize); }

 private:
  static constexpr std::uint64_t kSize = 256 * kKiB;
  static constexpr fuse_ino_t kFirstFile = FUSE_ROOT_ID + 1;
  static constexpr double kForever = 1e6;

  static ForgetfulClient& of(fuse_req_t request) {
    return *static_cast<ForgetfulClient*>(fuse_req_userdata(request));
  }
  [[nodiscard]] fuse_ino_t current() const { return kFirstFile + version_; }

  static struct stat attributes_of(fuse_ino_t inode) {
    struct stat attributes {};
    attributes.st_ino = inode;
    attributes.st_nlink = 1;
    attributes.st_mode = inode == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
    attributes.st_size = inode == FUSE_ROOT_ID ? 0 : kSize;
    attributes.st_mtim.tv_sec = attributes.st_ctim.tv_sec = static_cast<time_t>(inode);
    return attributes;
  }

  static void look_up(fuse_req_t request, fuse_ino_t, const char* name) {
    ++of(request).questions_;
    if (std::string(name) != "file") {
      fuse_reply_err(request, ENOENT);
      return;
    }
    fuse_entry_param entry{};
    entry.ino = of(request).current();
    entry.attr = attributes_of(entry.ino);
    entry.attr_timeout = entry.entry_timeout = kForever;
    fuse_reply_entry(request, &entry);
  }

  static void getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
    ++of(request).questions_;
    if (inode != FUSE_ROOT_ID && inode != of(request).current()) {
      fuse_reply_err(request, ESTALE);
      return;
    }
    const struct stat attributes = attributes_of(inode);
    fuse_reply_attr(request, &attributes, kForever);
  }

  static void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    // Close-to-open: who asks from here on gets the server's answer.
    fuse_lowlevel_notify_inval_inode(of(request).session_, inode, -1, 0);
    fuse_reply_open(request, info);
  }

  static void read(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset,
                   fuse_file_info*) {
    const auto bytes = content(1, inode - kFirstFile, kSize);
    const auto begin = std::min(static_cast<std::size_t>(offset), bytes.size());
    const auto count = std::min(size, bytes.size() - begin);
    fuse_reply_buf(request, reinterpret_cast<const char*>(bytes.data() + begin), count);
  }

  void serve() {
    fuse_buf buffer{};
    std::array<pollfd, 2> watched{pollfd{fuse_session_fd(session_), POLLIN, 0},
                                  pollfd{end_.get(), POLLIN, 0}};
    while (::poll(watched.data(), watched.size(), -1) > 0 && watched[1].revents == 0) {
      if (fuse_session_receive_buf(session_, &buffer) > 0) {
        fuse_session_process_buf(session_, &buffer);
      }
    }
    std::free(buffer.mem);
  }

  std::atomic<std::uint64_t> version_{0};
  std::atomic<std::uint64_t> questions_{0};
  const Descriptor end_{::eventfd(0, EFD_CLOEXEC)};
  fuse_session* session_ = nullptr;
  std::thread thread_;
};

TEST(MountReplacedTest, AFileThatTheServerReplacedWhileItIsOpenIsFoundAtTheNextOpen) {
  TestMount mount;
  std::filesystem::create_directory(mount.backend("nfs"));
  ForgetfulClient client(mount.backend("nfs"));
  mount.start({});
  const std::string path = mount.mounted("nfs/file");
  const Descriptor open(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_TRUE(read_descriptor(open.get()).bytes == client.bytes());
  for (std::uint64_t round = 1; round <= 3; ++round) {
    ASSERT_TRUE(mount.wait_until(
        [round](const EngineStatus& status) { return status.objects_cached == round; }));
    // Reading has cost the client its knowledge of the file's times.
    ASSERT_TRUE(std::filesystem::exists(mount.backend("nfs/file")));
    client.replace_on_server();
    const FileRead seen = read_file(path);
    EXPECT_EQ(seen.error, 0) << std::strerror(seen.error);
    EXPECT_TRUE(seen.bytes == client.bytes());
  }
  mount.stop();
}

TEST(MountReplacedTest, AWarmUpFindsTheNewFile) {
  TestMount mount;
  ForgetfulClient client(mount.backend());
  const Descriptor root(::open(mount.backend().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (int round = 0; round < 2; ++round) {
    SourceWalk walk(root.get(), {"file"});
    const auto found = walk.next();
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->error, 0) << std::strerror(found->error);
    const Descriptor file(found->descriptor);
    EXPECT_TRUE(read_descriptor(file.get()).bytes == client.bytes());
    ASSERT_TRUE(std::filesystem::exists(mount.backend("file")));
    client.replace_on_server();
  }
}

TEST(MountReplacedTest, AnOpenOfACachedFileAsksTheServerOnceAndWithNoctoNotAtAll) {
  for (const bool is_close_to_open : {true, false}) {
    TestMount mount;
    ForgetfulClient client(mount.backend());
    MetadataConfig config = metadata_config(MetadataProfile::unchanged);
    config.is_close_to_open = is_close_to_open;
    mount.start({.metadata = config});
    const std::string path = mount.mounted("file");
    EXPECT_EQ(read_file(path).error, 0);
    ASSERT_TRUE(
        mount.wait_until([](const EngineStatus& status) { return status.objects_cached == 1; }));
    EXPECT_TRUE(read_file(path).bytes == client.bytes());
    for (int round = 0; round < 3; ++round) {
      const std::uint64_t before = client.questions();
      EXPECT_TRUE(read_file(path).bytes == client.bytes());
      EXPECT_EQ(client.questions() - before, is_close_to_open ? 1U : 0U);
    }
    mount.stop();
  }
}

}  // namespace
}  // namespace ncfs
