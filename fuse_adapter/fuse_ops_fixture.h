// For tests: the operations of a mount, asked by the test in the kernel's place. It speaks the FUSE
// protocol over a message socket, so every request comes in the order and with the contents it
// chooses, and nothing is mounted.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <array>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fuse_adapter/fake_engine.h"
#include "fuse_adapter/fuse_ops.h"
#include "io/temp_directory.h"

namespace ncfs {

inline constexpr std::uint32_t kKernelMinor = 45;
inline constexpr std::uint32_t kFlags2Passthrough = 1U << 5;
inline constexpr std::uint32_t kFlags2NoExportSupport = 1U << 6;
inline constexpr std::uint64_t kBlock = 4096;
inline constexpr std::size_t kOpenFilesMax = 10;

struct Reply {
  int error = 0;
  std::string bytes;

  template <typename Value>
  [[nodiscard]] Value as() const {
    Value value{};
    std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof(value)));
    return value;
  }
};

template <typename Value>
[[nodiscard]] std::string raw(const Value& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

class FuseOpsTest : public testing::Test {
 protected:
  void SetUp() override {
    backend_ = directory_.open("", O_PATH | O_DIRECTORY);
    MountSettings settings;
    settings.source_root = backend_.get();
    settings.metadata = metadata();
    settings.block_size_bytes = kBlock;
    settings.racy_window = 0;
    settings.open_files_max = kOpenFilesMax;
    settings.stale_open = stale_open();
    settings.backends = backends();
    core_ = std::make_shared<FuseCore>(settings, runtime_, stats_);
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    kernel_ = Descriptor(ends[0]);
    // A reply that never comes fails the test rather than hanging it.
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    ASSERT_EQ(::setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    ASSERT_TRUE(core_->channel->attach(Descriptor(ends[1])));
    core_->channel->start(settings.dispatch_threads + settings.guest_threads,
                          settings.guest_threads);
    init_ = greet();
  }

  // Nothing is believed.
  [[nodiscard]] virtual MetadataConfig metadata() const {
    return metadata_config(MetadataProfile::strict);
  }

  [[nodiscard]] virtual StaleOpen stale_open() const { return StaleOpen::estale; }
  // None: those of the mount itself.
  [[nodiscard]] virtual std::shared_ptr<Backends> backends() const { return nullptr; }

  [[nodiscard]] virtual std::uint32_t kernel_lacks() const { return 0; }

  void TearDown() override {
    if (core_) core_->stop();
    core_.reset();
    EXPECT_EQ(engine_.handles_open, 0);
  }

  void send(std::uint32_t opcode, std::uint64_t node, std::string_view payload,
            pid_t thread = 1000) {
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(sizeof(header) + payload.size());
    header.opcode = opcode;
    header.unique = ++last_unique_;
    header.nodeid = node;
    header.pid = static_cast<std::uint32_t>(thread);
    const std::string message = raw(header) + std::string(payload);
    ASSERT_EQ(::send(kernel_.get(), message.data(), message.size(), 0), std::ssize(message));
  }
  Reply receive() {
    int notices = 0;
    return receive_after(notices);
  }
  // Counts the notices, of something to be forgotten, that come before the reply.
  Reply receive_after(int& notices) {
    std::string message(64 * kKiB, '\0');
    const ssize_t size = ::recv(kernel_.get(), message.data(), message.size(), 0);
    EXPECT_GE(size, std::ssize(raw(fuse_out_header{}))) << "no reply";
    if (size < 0) return {.error = EIO, .bytes = {}};
    message.resize(static_cast<std::size_t>(size));
    fuse_out_header header{};
    std::memcpy(&header, message.data(), sizeof(header));
    EXPECT_EQ(header.len, message.size());
    if (header.unique == 0) {
      ++notices;
      return receive_after(notices);
    }
    EXPECT_EQ(header.unique, last_unique_);
    return {.error = -header.error, .bytes = message.substr(sizeof(header))};
  }
  fuse_out_header receive_header() {
    std::string message(64 * kKiB, '\0');
    fuse_out_header header{};
    const ssize_t size = ::recv(kernel_.get(), message.data(), message.size(), 0);
    EXPECT_GE(size, std::ssize(raw(header))) << "no reply";
    std::memcpy(&header, message.data(), sizeof(header));
    return header;
  }
  FileKey key_of(const std::string& name) {
    struct stat attributes {};
    EXPECT_EQ(::stat(directory_.path(name).c_str(), &attributes), 0);
    return FileFacts::of(attributes).file;
  }
  Reply ask(std::uint32_t opcode, std::uint64_t node, std::string_view payload,
            pid_t thread = 1000) {
    send(opcode, node, payload, thread);
    return receive();
  }

  Reply greet() {
    fuse_init_in init{};
    init.major = FUSE_KERNEL_VERSION;
    init.minor = kKernelMinor;
    init.flags = FUSE_INIT_EXT | FUSE_MAX_PAGES | FUSE_ASYNC_READ | FUSE_AUTO_INVAL_DATA |
                 FUSE_WRITEBACK_CACHE | FUSE_DO_READDIRPLUS | FUSE_PARALLEL_DIROPS |
                 FUSE_NO_OPENDIR_SUPPORT;
    init.flags &= ~kernel_lacks();
    init.flags2 = kFlags2Passthrough | kFlags2NoExportSupport;
    return ask(FUSE_INIT, 0, raw(init));
  }
  Reply look_up(const std::string& name, std::uint64_t parent = kRootNode) {
    return ask(FUSE_LOOKUP, parent, name + '\0');
  }
  NodeId find(const std::string& name) { return look_up(name).as<fuse_entry_out>().nodeid; }
  Reply open(NodeId node, int flags = O_RDONLY, pid_t thread = 1000) {
    fuse_open_in request{};
    request.flags = static_cast<std::uint32_t>(flags);
    return ask(FUSE_OPEN, node, raw(request), thread);
  }
  Reply read(NodeId node, std::uint64_t handle, std::uint64_t offset, std::uint32_t size) {
    fuse_read_in request{};
    request.fh = handle;
    request.offset = offset;
    request.size = size;
    return ask(FUSE_READ, node, raw(request));
  }
  Reply get_attributes(NodeId node) { return ask(FUSE_GETATTR, node, raw(fuse_getattr_in{})); }
  void release(NodeId node, std::uint64_t handle) {
    fuse_release_in request{};
    request.fh = handle;
    EXPECT_EQ(ask(FUSE_RELEASE, node, raw(request)).error, 0);
  }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(directory_.path(name), std::ios::trunc) << text;
  }
  // The engine that answers from the source, as if nothing were cached.
  void read_through() {
    engine_.on_read = [](int source, ByteRange range, bool, const auto& done) {
      std::vector<std::byte> bytes(range.length);
      const ssize_t count =
          ::pread(source, bytes.data(), bytes.size(), static_cast<off_t>(range.offset));
      ReadOutcome outcome;
      outcome.error = count < 0 ? errno : 0;
      if (count > 0) outcome.bytes = std::span(bytes).first(static_cast<std::size_t>(count));
      done(outcome);
    };
  }
  // A cache file with the given content, of which all blocks are resident.
  std::shared_ptr<Residency> cache(const std::string& text, std::uint64_t size) {
    write("cache", text);
    cache_file_ = directory_.open("cache", O_RDONLY);
    auto residency = std::make_shared<Residency>(FileHandle{cache_file_.get()}, size, kBlock);
    for (std::uint64_t block = 0; block < residency->block_count(); ++block) {
      residency->publish(block);
    }
    return residency;
  }

  TempDirectory directory_;
  Descriptor backend_;
  Descriptor cache_file_;
  FakeEngine engine_;
  Runtime runtime_{{}};
  const std::shared_ptr<AdapterStats> stats_ = std::make_shared<AdapterStats>();
  std::shared_ptr<FuseCore> core_;
  Descriptor kernel_;
  std::uint64_t last_unique_ = 0;
  Reply init_;
};

}  // namespace ncfs
