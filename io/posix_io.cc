#include "io/posix_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <unordered_map>
#include <utility>

#include "io/assert.h"
#include "io/buffer_slots.h"
#include "io/cache_directory.h"
#include "io/cache_files.h"
#include "io/monotonic_clock.h"
#include "io/source_identity.h"
#include "io/transfer.h"
#include "io/work_pool.h"

namespace ncfs {
namespace {

// Requests waiting for a thread. The engine keeps a few dozen reads and writes and a few requests
// for each open file in flight; thousands waiting mean that the device does not keep up, and then
// an error is better news than a longer queue.
constexpr std::size_t kQueueMax = 4096;

bool is_source(Op op) {
  return op <= Op::source_close;
}
bool is_close(Op op) {
  return op == Op::source_close || op == Op::cache_close;
}
bool opens_file(Op op) {
  return op == Op::source_open || op == Op::cache_create || op == Op::cache_open;
}
bool uses_buffer(Op op) {
  return op == Op::source_read || op == Op::cache_write || op == Op::cache_read;
}

// By the kernel's memory: the file system is not asked.
std::uint64_t device_of(int fd) {
  struct statx known {};
  const int flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  if (::statx(fd, "", flags, STATX_INO, &known) != 0) return 0;
  return makedev(known.stx_dev_major, known.stx_dev_minor);
}

struct OpenFile {
  OpenFile(int descriptor, SourceReader::Mode reading, CacheWriter::Mode writing)
      : fd(descriptor), device(device_of(descriptor)), reader(fd, reading), writer(fd, writing) {}

  const int fd;
  const std::uint64_t device;
  SourceReader reader;
  CacheWriter writer;
};

struct Roots {
  int source = -1;
  int cache = -1;
};

// The part of an operation that runs on a pool thread.
struct Work {
  Roots roots;
  Request request;
  std::shared_ptr<OpenFile> file;     // null if the request names none
  std::shared_ptr<std::byte> memory;  // of its buffer; null if it has none
  bool leave_no_copy = false;
  bool is_refused = false;  // the source is not to be asked
  Completion completion;

  std::int64_t perform();
  void discard();

 private:
  [[nodiscard]] int fd() const { return file ? file->fd : -1; }
  [[nodiscard]] std::span<std::byte> bytes() const {
    return {memory.get() + request.buffer_offset, static_cast<std::size_t>(request.range.length)};
  }
  std::int64_t look(int at, Freshness freshness);
  std::int64_t open_source();
  std::int64_t write();
  std::int64_t read_source();
  std::int64_t read();
  std::int64_t unlink();
  std::int64_t look_at_space();
  std::int64_t close();
};

std::int64_t Work::look(int at, Freshness freshness) {
  const SourceLook look = look_at_source(at, freshness);
  completion.source = look.state;
  return -look.error;
}

std::int64_t Work::open_source() {
  // Nobody has asked for what is read so: it moves no time of last access where that can be helped.
  std::int64_t opened = open_regular(roots.source, request.name, O_RDONLY | O_NOATIME);
  if (opened == -EPERM) opened = open_regular(roots.source, request.name, O_RDONLY);
  if (opened < 0) return opened;
  Descriptor source(static_cast<int>(opened));
  if (const std::int64_t error = look(source.get(), Freshness::as_opened); error != 0) {
    return error;
  }
  return source.release();
}

std::int64_t Work::write() {
  if (!file) return -EBADF;
  if (request.wants_checksum) completion.checksum = checksum_of(bytes());
  return file->writer.write(bytes(), request.range.offset);
}

std::int64_t Work::read_source() {
  if (!file) return -EBADF;
  const std::int64_t count = request.through_page_cache
                                 ? file->reader.read_shared(bytes(), request.range.offset)
                                 : file->reader.read(bytes(), request.range.offset);
  if (request.wants_bytes && count > 0) {
    const auto read = bytes().first(static_cast<std::size_t>(count));
    completion.bytes.assign(read.begin(), read.end());
  }
  return count;
}

std::int64_t Work::read() {
  const std::int64_t count = read_fully(fd(), bytes(), request.range.offset);
  if (count > 0) completion.checksum = checksum_of(bytes().first(static_cast<std::size_t>(count)));
  return count;
}

std::int64_t Work::unlink() {
  if (!file) return unlink_file(roots.cache, request.name);
  file->writer.close_direct();
  return unlink_unused_file(roots.cache, request.name, file->fd);
}

std::int64_t Work::look_at_space() {
  const std::optional<FileSystemSpace> space = file_system_space(roots.cache);
  if (!space) return -errno;
  completion.space = *space;
  return 0;
}

std::int64_t Work::close() {
  if (!file) return -EBADF;
  file->reader.close_direct();
  file->writer.close_direct();
  // Whatever it says, the descriptor is gone; EINTR is Linux's way of saying just that.
  return ::close(file->fd) == 0 || errno == EINTR ? 0 : -errno;
}

std::int64_t Work::perform() {
  if (is_refused) return -ETIMEDOUT;
  const int root = roots.cache;
  switch (request.op) {
    case Op::source_open:
      return open_source();
    case Op::source_stat:
      return look(fd(), Freshness::from_server);
    case Op::source_read:
      return read_source();
    case Op::cache_list:
      return list_directory(root, request.name, completion.entries);
    case Op::cache_create:
      return create_file(root, request.name, request.range.length);
    case Op::cache_open:
      return is_plain_name(request.name) ? open_regular(root, request.name, O_RDWR) : -EINVAL;
    case Op::cache_write:
      return write();
    case Op::cache_verify:
      return read_checksum(fd(), request.range, leave_no_copy, completion.checksum);
    case Op::cache_read:
      return read();
    case Op::cache_sync:
      // A file about to get its final name shall have no other user than its handle.
      if (file) file->writer.close_direct();
      return ::fdatasync(fd()) == 0 ? 0 : -errno;
    case Op::cache_load:
      return load_file(root, request.name, completion.bytes);
    case Op::cache_store:
      return store_file(root, request.name, request.bytes);
    case Op::cache_rename:
      return rename_file(root, request.name, request.new_name);
    case Op::cache_sync_directory:
      return sync_directory(root, request.name);
    case Op::cache_unlink:
      return unlink();
    case Op::cache_touch:
      return touch_file(root, request.name);
    case Op::cache_statfs:
      return look_at_space();
    case Op::source_close:
    case Op::cache_close:
      return close();
  }
  NCFS_ASSERT(!"an operation of io.h");
}

SourcePlace place_of(const Work& work) {
  if (work.file) return {.device = work.file->device, .path = {}};
  return {.device = 0, .path = work.request.name};
}

void Work::discard() {
  if (!opens_file(request.op) || completion.result < 0) return;
  const Descriptor unwanted(static_cast<int>(completion.result));
  // By descriptor and not by name, which may be another file's by now. A failure leaves a file that
  // recovery removes.
  if (request.op == Op::cache_create && ::ftruncate(unwanted.get(), 0) != 0) return;
}

}  // namespace

class PosixIo::Impl {
 public:
  Impl(boost::asio::io_context& control, const Options& options,
       std::function<void(Completion)> on_complete)
      : options_(options),
        on_complete_(std::move(on_complete)),
        reading_(reading_mode(options)),
        writing_(options.direct_io ? CacheWriter::Mode::direct : CacheWriter::Mode::buffered),
        buffers_(options.buffers, options.block_size_bytes),
        source_pool_(control, pool_options("ncfs-source", options.source_threads)),
        cache_pool_(control, pool_options("ncfs-cache", options.cache_threads)) {}

  void submit(Request request);
  void source_found(bool is_on_network) { reading_ = reading_mode(options_, is_on_network); }

  [[nodiscard]] const BufferSlots& buffers() const { return buffers_; }

 private:
  class Operation;

  // As many replacements as threads: enough for one dead server among two to take all threads and
  // leave the other one as many as it had.
  static WorkPool::Options pool_options(const char* name, std::size_t threads) {
    return {.name = name, .threads = threads, .replacements = threads, .queue_max = kQueueMax};
  }

  static SourceReader::Mode reading_mode(const Options& options) {
    return reading_mode(options, is_on_network(options.source_root));
  }
  static SourceReader::Mode reading_mode(const Options& options, bool is_on_network) {
    if (!options.direct_io) return SourceReader::Mode::buffered;
    return is_on_network ? SourceReader::Mode::past_cache : SourceReader::Mode::dont_cache;
  }

  WorkPool& pool_of(Op op) { return is_source(op) ? source_pool_ : cache_pool_; }
  void finished(int fd);
  void start_close(int fd);

  struct Handle {
    std::shared_ptr<OpenFile> file;
    std::size_t in_flight = 0;               // operations that may still use the descriptor
    std::shared_ptr<WorkPool::Job> closing;  // held until they are done; null if not asked for
    WorkPool* closing_pool = nullptr;
  };

  const Options options_;
  const std::function<void(Completion)> on_complete_;
  SourceReader::Mode reading_;
  const CacheWriter::Mode writing_;
  BufferSlots buffers_;
  std::unordered_map<int, Handle> handles_;  // of descriptors no thread has begun to close
  WorkPool source_pool_;
  WorkPool cache_pool_;
};

class PosixIo::Impl::Operation final : public WorkPool::Job {
 public:
  Operation(Impl& io, Work work)
      : Job(work.request.deadline,
            is_close(work.request.op) ? WorkPool::WhenLate::run : WorkPool::WhenLate::drop),
        io_(io),
        work_(std::move(work)),
        ticket_(work_.request.ticket),
        op_(work_.request.op),
        buffer_(work_.request.buffer),
        is_judged_(is_source(op_) && !is_close(op_) && !work_.is_refused),
        place_(is_judged_ ? place_of(work_) : SourcePlace{}) {}

  void run() override { work_.completion.result = work_.perform(); }
  void discard() override { work_.discard(); }

  void complete(int status) override {
    tell(status);
    if (status == 0) {
      work_.completion.ticket = ticket_;
      io_.on_complete_(std::move(work_.completion));
      return;
    }
    // The thread may be in the middle of it: hands off work_.
    if (status == -ETIMEDOUT && uses_buffer(op_)) {
      io_.buffers_.replace(buffer_, op_ == Op::cache_write ? BufferSlots::Contents::copied
                                                           : BufferSlots::Contents::lost);
    }
    Completion completion;
    completion.ticket = ticket_;
    completion.result = status;
    io_.on_complete_(std::move(completion));
  }

  void finish() override {
    if (work_.file && !is_close(op_)) io_.finished(work_.file->fd);
  }

 private:
  // A queue that is full says nothing about the source.
  void tell(int status) const {
    if (!is_judged_ || !io_.options_.on_source_answer || status == -EAGAIN) return;
    const std::int64_t result = status != 0 ? status : work_.completion.result;
    io_.options_.on_source_answer(place_, result < 0 ? static_cast<int>(-result) : 0);
  }

  Impl& io_;
  Work work_;
  const Ticket ticket_;
  const Op op_;
  const BufferId buffer_;
  const bool is_judged_;
  const SourcePlace place_;
};

void PosixIo::Impl::submit(Request request) {
  const Op op = request.op;
  Work work;
  work.roots = {.source = options_.source_root, .cache = options_.cache_root};
  if (uses_buffer(op)) {
    NCFS_ASSERT(request.buffer_offset + request.range.length <= buffers_.size_bytes());
    work.memory = buffers_.memory(request.buffer);
  }
  Handle* handle = nullptr;
  if (request.file != FileHandle::none) {
    const int fd = static_cast<int>(request.file);
    handle = &handles_[fd];
    NCFS_ASSERT(fd >= 0 && !handle->closing);
    if (!handle->file) handle->file = std::make_shared<OpenFile>(fd, reading_, writing_);
    work.file = handle->file;
  }
  work.leave_no_copy = options_.direct_io;
  work.request = std::move(request);
  work.is_refused = is_source(op) && !is_close(op) && options_.may_ask_source &&
                    !options_.may_ask_source(place_of(work));
  const auto operation = std::make_shared<Operation>(*this, std::move(work));
  if (handle == nullptr || !is_close(op)) {
    if (handle != nullptr) ++handle->in_flight;
    pool_of(op).submit(operation);
    return;
  }
  handle->closing = operation;
  handle->closing_pool = &pool_of(op);
  handle->closing_pool->hold(operation);
  if (handle->in_flight == 0) start_close(handle->file->fd);
}

void PosixIo::Impl::finished(int fd) {
  Handle& handle = handles_.at(fd);
  NCFS_ASSERT(handle.in_flight > 0);
  if (--handle.in_flight == 0 && handle.closing) start_close(fd);
}

// Forgets the handle first: once a thread has closed the descriptor, its number may come back as
// another file before the close is completed.
void PosixIo::Impl::start_close(int fd) {
  const Handle handle = std::move(handles_.at(fd));
  handles_.erase(fd);
  handle.closing_pool->release(handle.closing);
}

PosixIo::PosixIo(boost::asio::io_context& control, const Options& options,
                 std::function<void(Completion)> on_complete)
    : impl_(std::make_unique<Impl>(control, options, std::move(on_complete))) {}

PosixIo::~PosixIo() = default;

void PosixIo::submit(Request request) {
  impl_->submit(std::move(request));
}

void PosixIo::source_found(bool is_on_network) {
  impl_->source_found(is_on_network);
}

std::span<std::byte> PosixIo::buffer(BufferId id) const {
  return {impl_->buffers().memory(id).get(), impl_->buffers().size_bytes()};
}

std::shared_ptr<const std::byte> PosixIo::hold_buffer(BufferId id) const {
  return impl_->buffers().memory(id);
}

Nanos PosixIo::now() {
  return monotonic_now();
}

}  // namespace ncfs
