#include "fuse_adapter/mirrors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>

#include "fuse_adapter/aligned_bytes.h"
#include "fuse_adapter/fuse_ops.h"

namespace ncfs {
namespace {

int disown(FuseCore& core, const OpenFile& reader) {
  const auto answer = std::make_shared<std::promise<int>>();
  auto future = answer->get_future();
  if (!core.engine->disown(reader.file_id, [answer](int error) { answer->set_value(error); })) {
    return ENOTCONN;
  }
  // The engine answers shortly after the deadlines of the requests it takes; of these there are a
  // few, one after the other.
  const std::chrono::nanoseconds patience(8 * core.settings.cache_deadline);
  return future.wait_for(patience) == std::future_status::ready ? future.get() : ETIMEDOUT;
}

// Makes the cache file ready to be changed. An errno.
int begin(FuseCore& core, const OpenFile& reader, Mirror& mirror) {
  const Residency* const residency = reader.residency();
  if (residency == nullptr) return EBADF;
  if (const int error = disown(core, reader); error != 0) return error;
  const std::string path =
      fmt::format("/proc/self/fd/{}", static_cast<int>(residency->cache_file()));
  mirror.file = Descriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  return mirror.file.is_open() ? 0 : errno;
}

int copy_piece(int from, int to, std::span<std::byte> bytes, std::uint64_t offset,
               std::size_t& copied) {
  const auto position = static_cast<off_t>(offset);
  const ssize_t count = ::pread(from, bytes.data(), bytes.size(), position);
  if (count < 0) return errno;
  copied = static_cast<std::size_t>(count);
  for (std::size_t written = 0; written < copied;) {
    const ssize_t part = ::pwrite(to, bytes.data() + written, copied - written,
                                  position + static_cast<off_t>(written));
    if (part < 0) return errno;
    written += static_cast<std::size_t>(part);
  }
  return 0;
}

int refresh(int source, int target, ByteRange range) {
  struct stat now {};
  struct stat before {};
  if (::fstat(source, &now) != 0 || ::fstat(target, &before) != 0) return errno;
  // The end first: a mapping beyond it must fault as it would on the source.
  if (now.st_size != before.st_size && ::ftruncate(target, now.st_size) != 0) return errno;
  const auto size = static_cast<std::uint64_t>(now.st_size);
  const std::uint64_t end = range.length == kToTheEnd ? size : std::min(size, range.end());
  AlignedBytes buffer(std::min<std::uint64_t>(end - std::min(end, range.offset), kMiB));
  for (std::uint64_t offset = range.offset; offset < end;) {
    std::size_t copied = 0;
    const auto piece = buffer.bytes().first(std::min<std::uint64_t>(end - offset, kMiB));
    if (const int error = copy_piece(source, target, piece, offset, copied); error != 0) {
      return error;
    }
    if (copied == 0) break;  // shortened meanwhile, by a change that is yet to come here
    offset += copied;
  }
  return 0;
}

}  // namespace

void follow_change(FuseCore& core, OpenFile& reader, ByteRange range) {
  Mirror& mirror = reader.mirror;
  const std::lock_guard lock(mirror.mutex);
  if (mirror.state == Mirror::State::failed) return;
  int error = 0;
  if (mirror.state == Mirror::State::untouched) {
    error = begin(core, reader, mirror);
    mirror.state = Mirror::State::followed;
  }
  if (error == 0) error = refresh(reader.source, mirror.file.get(), range);
  if (error == 0) return;
  mirror.state = Mirror::State::failed;
  core.stats->mirror_failures.add();
  spdlog::warn(
      "a file that was changed through this mount is still read from the cache by who opened it "
      "before: {}",
      std::strerror(error));
}

}  // namespace ncfs
