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

// Room is asked for in steps: who appends a little at a time does not ask each time.
constexpr std::uint64_t kGrowthStep = kMiB;

// What the engine answers to `ask`, which is given whom to tell. An errno.
template <typename Ask>
int answer_of(Nanos patience, const Ask& ask) {
  const auto answer = std::make_shared<std::promise<int>>();
  auto future = answer->get_future();
  if (!ask([answer](int error) { answer->set_value(error); })) return ENOTCONN;
  const bool is_answered =
      future.wait_for(std::chrono::nanoseconds(patience)) == std::future_status::ready;
  return is_answered ? future.get() : ETIMEDOUT;
}

// Makes sure that the cache has room for the cache file at this size. An errno.
int find_room(FuseCore& core, const OpenFile& reader, Mirror& mirror, std::uint64_t size) {
  if (size <= mirror.size_max) return 0;
  const std::uint64_t wanted = (size + kGrowthStep - 1) / kGrowthStep * kGrowthStep;
  // The engine itself waits no longer than the deadline, and for the tick after it.
  const int error = answer_of(2 * core.settings.cache_deadline, [&](auto done) {
    return core.engine->grow(reader.handle, wanted, std::move(done));
  });
  if (error == 0) mirror.size_max = wanted;
  return error;
}

// Makes the cache file ready to be changed. An errno.
int begin(FuseCore& core, const OpenFile& reader, Mirror& mirror) {
  const Residency* const residency = reader.residency();
  if (residency == nullptr) return EBADF;
  if (const int error = disown_file(core, reader.file_id); error != 0) return error;
  const std::string path =
      fmt::format("/proc/self/fd/{}", static_cast<int>(residency->cache_file()));
  mirror.size_max = residency->size_bytes();
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

int refresh(FuseCore& core, OpenFile& reader, ByteRange range) {
  const int source = reader.source;
  const int target = reader.mirror.file.get();
  struct stat now {};
  struct stat before {};
  if (::fstat(source, &now) != 0 || ::fstat(target, &before) != 0) return errno;
  const auto size = static_cast<std::uint64_t>(now.st_size);
  if (const int error = find_room(core, reader, reader.mirror, size); error != 0) return error;
  // The end first: a mapping beyond it must fault as it would on the source. What is written then
  // lies before the end, where no file system allocates more than that.
  if (now.st_size != before.st_size && ::ftruncate(target, now.st_size) != 0) return errno;
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

int disown_file(FuseCore& core, const FileId& file) {
  // The engine answers shortly after the deadlines of the requests it takes; of these there are a
  // few, one after the other.
  return answer_of(8 * core.settings.cache_deadline,
                   [&](auto done) { return core.engine->disown(file, std::move(done)); });
}

void follow_change(FuseCore& core, OpenFile& reader, ByteRange range) {
  Mirror& mirror = reader.mirror;
  const std::lock_guard lock(mirror.mutex);
  if (mirror.state == Mirror::State::failed) return;
  int error = 0;
  if (mirror.state == Mirror::State::untouched) {
    error = begin(core, reader, mirror);
    mirror.state = Mirror::State::followed;
  }
  if (error == 0) error = refresh(core, reader, range);
  if (error == 0) return;
  mirror.state = Mirror::State::failed;
  core.stats->mirror_failures.add();
  spdlog::warn(
      "a file that was changed through this mount is still read from the cache by who opened it "
      "before: {}",
      std::strerror(error));
}

}  // namespace ncfs
