// For tests: the real driver with temporary directories and an io_context of its own.
#pragma once

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "io/io_contract.h"
#include "io/posix_io.h"
#include "io/temp_directory.h"

namespace ncfs {

class PosixWorld final : public IoWorld {
 public:
  PosixWorld() {
    for (const char* name : {"source", "cache", "cache/3f", "cache/40"}) {
      std::filesystem::create_directory(directory_.path(name));
    }
    source_root_ = directory_.open("source");
    start(directory_.open("cache"));
  }

  // A new driver over another cache directory.
  void start(Descriptor cache_root) {
    io_.reset();
    cache_root_ = std::move(cache_root);
    PosixIo::Options options;
    options.source_root = source_root_.get();
    options.cache_root = cache_root_.get();
    options.source_threads = 2;
    options.cache_threads = 2;
    options.buffers = kBuffers;
    options.block_size_bytes = kBlockSize;
    io_ = std::make_unique<PosixIo>(
        control_, options, [this](Completion completion) { deliver(std::move(completion)); });
  }
  void stop() { io_.reset(); }

  Io& io() override { return *io_; }
  PosixIo& driver() { return *io_; }
  [[nodiscard]] Nanos now() const override { return PosixIo::now(); }
  [[nodiscard]] std::uint64_t block_size() const override { return kBlockSize; }
  std::span<std::byte> buffer(BufferId id) override { return io_->buffer(id); }

  bool step() override {
    // Longer than any deadline a test sets: only a driver that lost a request gets there.
    constexpr auto kPatience = std::chrono::seconds(120);
    return control_.run_one_for(kPatience) > 0;
  }

  void put_source_file(const std::string& path, std::span<const std::byte> bytes) override {
    write_file(source_path(path), bytes);
  }

  // Any transfer into a buffer waits in the kernel for a page that a userfaultfd withholds.
  void stall_source() override {
    stall_ = Descriptor(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC)));
    uffdio_api api{};
    api.api = UFFD_API;
    check(::ioctl(stall_.get(), UFFDIO_API, &api), "userfaultfd");
    for (std::uint32_t id = 0; id < kBuffers; ++id) {
      const std::span<std::byte> bytes = buffer(BufferId{id});
      check(::madvise(bytes.data(), bytes.size(), MADV_DONTNEED), "madvise");
      uffdio_register range{};
      range.range.start = reinterpret_cast<std::uintptr_t>(bytes.data());
      range.range.len = bytes.size();
      range.mode = UFFDIO_REGISTER_MODE_MISSING;
      check(::ioctl(stall_.get(), UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
    }
  }
  void resume_source() override { stall_.reset(); }

  void make_old(const std::string& name) override {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    const timespec times[2] = {{0, UTIME_OMIT}, {now.tv_sec - 3600, now.tv_nsec}};
    check(::utimensat(cache_root_.get(), name.c_str(), times, 0), "utimensat");
  }

  [[nodiscard]] std::string source_path(const std::string& name) const {
    return directory_.path("source/" + name);
  }

 private:
  static constexpr std::uint32_t kBuffers = 4;
  static constexpr std::uint64_t kBlockSize = 64 * kKiB;

  static void check(int result, const char* what) {
    if (result != 0) throw std::system_error(errno, std::generic_category(), what);
  }

  TempDirectory directory_;
  Descriptor source_root_;
  Descriptor cache_root_;
  boost::asio::io_context control_;
  // Without it the context would stop when the driver has nothing to deliver at the moment.
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard_{
      control_.get_executor()};
  std::unique_ptr<PosixIo> io_;
  Descriptor stall_;  // closed, and what hangs set free, before the driver goes
};

}  // namespace ncfs
