// Method: random commands on a real mount and, each right after it, on a plain directory of the
// same file system, over several files, names and many handles of all kinds at once. Every command
// must end in the same way, and after each everybody who has a file open or mapped must see what
// the plain directory shows. Another mount of the same backend stands for another machine.
//
// The parameters are rapidcheck's: RC_PARAMS="max_success=10000 max_size=300" for a long run,
// RC_PARAMS="reproduce=..." as a failure prints it.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "fuse_adapter/mount_fixture.h"

namespace ncfs {
namespace {

// Enough for the tests of every change; set before rapidcheck looks.
const bool kIsSeeded = ::setenv("RC_PARAMS", "seed=4 max_success=25 max_size=60", 0) == 0;

constexpr std::uint64_t kPage = 4096;
// Files from 1 MiB on are passed through.
constexpr std::uint64_t kSizeMax = 3 * kMiB;
constexpr std::size_t kNames = 4;
constexpr std::size_t kHandlesMax = 10;
constexpr std::size_t kMapsMax = 4;

enum class Kind : std::uint8_t {
  open,
  close,
  write,
  append,
  read,
  truncate,
  truncate_name,
  fallocate,
  copy_range,
  map,
  store,
  unmap,
  sync,
  rename,
  unlink,
  link,
  cache,
  evict,
  reopen,
  elsewhere,
  count,
};

struct Command {
  Kind kind{};
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
};

const char* text_of(Kind kind) {
  constexpr std::array<const char*, static_cast<std::size_t>(Kind::count)> kTexts{
      "open",      "close",      "write", "append", "read",   "truncate", "truncate_name",
      "fallocate", "copy_range", "map",   "store",  "unmap",  "sync",     "rename",
      "unlink",    "link",       "cache", "evict",  "reopen", "elsewhere"};
  return kTexts[static_cast<std::size_t>(kind)];
}

std::ostream& operator<<(std::ostream& out, const Command& command) {
  return out << text_of(command.kind) << ' ' << command.a << ' ' << command.b << ' ' << command.c;
}

const char* last_command = "";

rc::Gen<Command> any_command() {
  const auto kind = rc::gen::weightedElement<Kind>(
      {{12, Kind::open},      {5, Kind::close},    {14, Kind::write},        {5, Kind::append},
       {6, Kind::read},       {4, Kind::truncate}, {2, Kind::truncate_name}, {3, Kind::fallocate},
       {3, Kind::copy_range}, {4, Kind::map},      {4, Kind::store},         {2, Kind::unmap},
       {2, Kind::sync},       {2, Kind::rename},   {1, Kind::unlink},        {1, Kind::link},
       {5, Kind::cache},      {1, Kind::evict},    {2, Kind::reopen},        {3, Kind::elsewhere}});
  const auto number = rc::gen::resize(100, rc::gen::arbitrary<std::uint32_t>());
  return rc::gen::build<Command>(
      rc::gen::set(&Command::kind, kind), rc::gen::set(&Command::a, number),
      rc::gen::set(&Command::b, number), rc::gen::set(&Command::c, number));
}

// What the mount and the plain directory have of one thing.
template <typename Thing>
struct Both {
  Thing mounted;
  Thing plain;
};

struct Handle {
  Both<Descriptor> file;
  int flags = 0;
};

class Map {
 public:
  Map(const Handle& handle, std::size_t length, int protection)
      : size(length), is_writable((protection & PROT_WRITE) != 0) {
    memory.mounted = ::mmap(nullptr, size, protection, MAP_SHARED, handle.file.mounted.get(), 0);
    error.mounted = memory.mounted == MAP_FAILED ? errno : 0;
    memory.plain = ::mmap(nullptr, size, protection, MAP_SHARED, handle.file.plain.get(), 0);
    error.plain = memory.plain == MAP_FAILED ? errno : 0;
    keeper = Descriptor(::fcntl(handle.file.plain.get(), F_DUPFD_CLOEXEC, 0));
  }
  ~Map() {
    if (error.mounted == 0) ::munmap(memory.mounted, size);
    if (error.plain == 0) ::munmap(memory.plain, size);
  }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;

  const std::size_t size;
  const bool is_writable;
  Both<void*> memory{};
  Both<int> error{};
  Descriptor keeper;  // tells the size below which a mapping may be touched
};

class World {
 public:
  // `other` has the same backend, and its own cache.
  World(TestMount& mount, TestMount& other, std::uint64_t run)
      : mount_(mount), other_(other), directory_("run" + std::to_string(run)) {
    std::filesystem::create_directory(mount.backend(directory_));
    std::filesystem::create_directory(plain_directory());
    for (std::size_t name = 0; name + 1 < kNames; ++name) {
      const auto bytes = fresh((name + 1) * kMiB - name);
      write_content(mount.backend(directory_ + "/f" + std::to_string(name)), bytes);
      write_content(plain_path(name), bytes);
    }
  }
  ~World() {
    maps_.clear();
    handles_.clear();
    // The files stay, small: inode numbers are not to be used again behind the mount's back.
    for (const std::string& path : {mount_.backend(directory_), plain_directory()}) {
      for (const auto& entry : std::filesystem::directory_iterator(path)) {
        static_cast<void>(::truncate(entry.path().c_str(), 0));
      }
    }
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  void run(const Command& command) {
    last_command = text_of(command.kind);
    switch (command.kind) {
      case Kind::open:
        open(command);
        break;
      case Kind::close:
        close(command);
        break;
      case Kind::write:
        write(command, false);
        break;
      case Kind::append:
        write(command, true);
        break;
      case Kind::read:
        read(command);
        break;
      case Kind::truncate:
        truncate(command);
        break;
      case Kind::truncate_name:
        truncate_name(command);
        break;
      case Kind::fallocate:
        allocate(command);
        break;
      case Kind::copy_range:
        copy_range(command);
        break;
      case Kind::map:
        map(command);
        break;
      case Kind::store:
        store(command);
        break;
      case Kind::unmap:
        unmap(command);
        break;
      case Kind::sync:
        sync(command);
        break;
      case Kind::rename:
        rename(command);
        break;
      case Kind::unlink:
        unlink(command);
        break;
      case Kind::link:
        link(command);
        break;
      case Kind::cache:
        cache(command);
        break;
      case Kind::evict:
        evict(command);
        break;
      case Kind::reopen:
        reopen(command);
        break;
      case Kind::elsewhere:
        read_elsewhere(command);
        break;
      case Kind::count:
        break;
    }
  }

  // Everybody sees what the plain directory shows of the range, and the size.
  void compare(ByteRange range) {
    for (std::size_t index = 0; index < handles_.size(); ++index) {
      compare_handle(*handles_[index], range, index);
    }
    for (std::size_t index = 0; index < maps_.size(); ++index) compare_map(*maps_[index], range);
    for (std::size_t name = 0; name < kNames; ++name) compare_size(name);
  }
  // Writes that the daemon did not hear of.
  [[nodiscard]] std::uint64_t unseen_writes() const { return unseen_writes_; }
  void compare_all() {
    compare({0, kSizeMax + kMiB});
    for (std::size_t name = 0; name < kNames; ++name) {
      const FileRead mounted = read_file(mount_path(name));
      const FileRead plain = read_file(plain_path(name));
      RC_ASSERT(mounted.error == plain.error);
      RC_ASSERT(mounted.bytes == plain.bytes);
    }
  }

 private:
  static constexpr std::array<int, 10> kFlags{O_RDONLY,
                                              O_RDWR,
                                              O_WRONLY,
                                              O_RDWR | O_APPEND,
                                              O_WRONLY | O_APPEND,
                                              O_RDONLY | O_DIRECT,
                                              O_RDWR | O_DIRECT,
                                              O_RDWR | O_DSYNC,
                                              O_RDONLY,
                                              O_WRONLY};

  [[nodiscard]] std::string plain_directory() const {
    return mount_.backend("../plain-" + directory_);
  }
  [[nodiscard]] std::string mount_path(std::size_t name) const {
    return mount_.mounted(directory_ + "/f" + std::to_string(name % kNames));
  }
  [[nodiscard]] std::string plain_path(std::size_t name) const {
    return plain_directory() + "/f" + std::to_string(name % kNames);
  }
  Handle* handle(std::uint32_t number) {
    return handles_.empty() ? nullptr : handles_[number % handles_.size()].get();
  }
  [[nodiscard]] static ByteRange range_of(const Command& command) {
    ByteRange range{command.b % kSizeMax, 1 + command.c % (256 * kKiB)};
    if (command.c % 3 == 0) range.length = 1 + command.c % 5000;
    if (command.b % 3 == 0) {
      range.offset = range.offset / kPage * kPage;
      range.length = (range.length + kPage - 1) / kPage * kPage;
    }
    return range;
  }
  std::vector<std::byte> fresh(std::uint64_t size) { return content(7, ++version_, size); }

  static void same(std::int64_t mounted, int mounted_error, std::int64_t plain, int plain_error) {
    if (mounted == plain && (plain >= 0 || mounted_error == plain_error)) return;
    RC_FAIL(fmt::format("{}: {} ({}) where the plain directory has {} ({})", last_command, mounted,
                        std::strerror(mounted_error), plain, std::strerror(plain_error)));
  }
  // Calls with the mounted and the plain one of what is to be used; results and errors are equal.
  template <typename Thing, typename Call>
  static std::int64_t both(const Both<Thing>& things, const Call& call) {
    errno = 0;
    const std::int64_t mounted = call(things.mounted);
    const int mounted_error = errno;
    errno = 0;
    const std::int64_t plain = call(things.plain);
    same(mounted, mounted_error, plain, errno);
    return plain;
  }
  [[nodiscard]] Both<std::string> paths(std::uint32_t name) const {
    return {mount_path(name), plain_path(name)};
  }

  void open(const Command& command) {
    if (handles_.size() >= kHandlesMax) return;
    int flags = kFlags[command.b % kFlags.size()];
    if (command.c % 2 == 0) flags |= O_CREAT;
    if (command.c % 31 == 0) flags |= O_EXCL;
    if (command.c % 11 == 0 && (flags & O_ACCMODE) != O_RDONLY) flags |= O_TRUNC;
    auto made = std::make_unique<Handle>();
    made->flags = flags;
    made->file.mounted = Descriptor(::open(mount_path(command.a).c_str(), flags, 0644));
    const int error = made->file.mounted.is_open() ? 0 : errno;
    made->file.plain = Descriptor(::open(plain_path(command.a).c_str(), flags, 0644));
    const int plain_error = made->file.plain.is_open() ? 0 : errno;
    RC_ASSERT(error == plain_error);
    if (error == 0) handles_.push_back(std::move(made));
    compare({0, kPage});
  }

  // By number: there is no name that the kernel could look up.
  void reopen(const Command& command) {
    const Handle* const from = handle(command.a);
    if (from == nullptr || handles_.size() >= kHandlesMax) return;
    const auto path = [](const Descriptor& file) {
      return "/proc/self/fd/" + std::to_string(file.get());
    };
    auto made = std::make_unique<Handle>();
    made->flags = O_RDONLY;
    made->file.mounted = Descriptor(::open(path(from->file.mounted).c_str(), O_RDONLY));
    const int error = made->file.mounted.is_open() ? 0 : errno;
    made->file.plain = Descriptor(::open(path(from->file.plain).c_str(), O_RDONLY));
    RC_ASSERT(error == (made->file.plain.is_open() ? 0 : errno));
    if (error == 0) handles_.push_back(std::move(made));
    compare({0, kPage});
  }

  void close(const Command& command) {
    Handle* const closed = handle(command.a);
    if (closed == nullptr) return;
    both(Both<int>{closed->file.mounted.release(), closed->file.plain.release()},
         [](int descriptor) { return ::close(descriptor); });
    std::erase_if(handles_, [closed](const auto& each) { return each.get() == closed; });
  }

  void write(const Command& command, bool at_end) {
    const Handle* const to = handle(command.a);
    if (to == nullptr) return;
    ByteRange range = range_of(command);
    if ((to->flags & O_DIRECT) != 0) {
      range = {range.offset / kPage * kPage, (range.length + kPage - 1) / kPage * kPage};
    }
    if (at_end || (to->flags & O_APPEND) != 0) {
      if ((to->flags & O_DIRECT) != 0) return;
      struct stat attributes {};
      ::fstat(to->file.plain.get(), &attributes);
      if (static_cast<std::uint64_t>(attributes.st_size) > kSizeMax) return;
      range.offset = static_cast<std::uint64_t>(attributes.st_size);
    }
    const auto bytes = aligned(fresh(range.length));
    const std::uint64_t writes_before = mount_.stats().writes.value();
    const std::int64_t written = both(to->file, [&](const Descriptor& file) {
      return ::pwrite(file.get(), bytes.get(), range.length, static_cast<off_t>(range.offset));
    });
    if (written > 0 && mount_.stats().writes.value() == writes_before) ++unseen_writes_;
    compare({range.offset - std::min(range.offset, kPage), range.length + 2 * kPage});
  }

  void read(const Command& command) {
    const Handle* const from = handle(command.a);
    if (from == nullptr) return;
    const ByteRange range = range_of(command);
    compare_handle(*from, {range.offset, range.length + 512 * kKiB}, 0);
  }

  void truncate(const Command& command) {
    const Handle* const file = handle(command.a);
    if (file == nullptr) return;
    const auto size = static_cast<off_t>(command.b % kSizeMax);
    both(file->file, [size](const Descriptor& each) { return ::ftruncate(each.get(), size); });
    compare({static_cast<std::uint64_t>(size) / kPage * kPage, 4 * kPage});
  }
  void truncate_name(const Command& command) {
    const auto size = static_cast<off_t>(command.b % kSizeMax);
    both(paths(command.a),
         [size](const std::string& path) { return ::truncate(path.c_str(), size); });
    compare({static_cast<std::uint64_t>(size) / kPage * kPage, 4 * kPage});
  }

  void allocate(const Command& command) {
    const Handle* const file = handle(command.a);
    if (file == nullptr) return;
    constexpr std::array<int, 5> kModes{
        0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    const int mode = kModes[command.c % kModes.size()];
    const ByteRange range = range_of(command);
    both(file->file, [&](const Descriptor& each) {
      return ::fallocate(each.get(), mode, static_cast<off_t>(range.offset),
                         static_cast<off_t>(range.length));
    });
    compare({range.offset / kPage * kPage, range.length + 2 * kPage});
  }

  void copy_range(const Command& command) {
    const Handle* const from = handle(command.a);
    const Handle* const to = handle(command.a / 16);
    if (from == nullptr || to == nullptr || from == to) return;
    // How far an unaligned copy gets differs with the kernel's pipes.
    if (((from->flags | to->flags) & O_DIRECT) != 0) return;
    const ByteRange range = range_of(command);
    const auto call = [&](const Descriptor& source, const Descriptor& target) {
      auto read_at = static_cast<off_t>(command.b % kMiB);
      auto write_at = static_cast<off_t>(range.offset);
      return ::copy_file_range(source.get(), &read_at, target.get(), &write_at, range.length, 0);
    };
    // If the file is open under two nodes, the kernel takes the size for what it was when it asked.
    struct stat attributes {};
    ::fstat(from->file.mounted.get(), &attributes);
    const ino_t from_inode = attributes.st_ino;
    ::fstat(to->file.mounted.get(), &attributes);
    const bool is_same = attributes.st_ino == from_inode;
    ::fstat(from->file.plain.get(), &attributes);
    const ino_t plain_inode = attributes.st_ino;
    ::fstat(to->file.plain.get(), &attributes);
    RC_ASSERT(is_same == (attributes.st_ino == plain_inode));
    const ssize_t mounted = call(from->file.mounted, to->file.mounted);
    const int error = errno;
    const ssize_t plain = call(from->file.plain, to->file.plain);
    same(mounted, error, plain, errno);
    compare(range);
  }

  void map(const Command& command) {
    const Handle* const file = handle(command.a);
    if (file == nullptr || maps_.size() >= kMapsMax) return;
    struct stat attributes {};
    ::fstat(file->file.plain.get(), &attributes);
    if (attributes.st_size == 0) return;
    const bool writable = command.b % 2 == 0;
    auto made = std::make_unique<Map>(*file, static_cast<std::size_t>(attributes.st_size),
                                      writable ? PROT_READ | PROT_WRITE : PROT_READ);
    RC_ASSERT(made->error.mounted == made->error.plain);
    if (made->error.plain == 0) maps_.push_back(std::move(made));
  }

  // Through a mapping, and visible when it was synced.
  void store(const Command& command) {
    if (maps_.empty()) return;
    Map& target = *maps_[command.a % maps_.size()];
    const std::uint64_t end = touchable(target);
    if (!target.is_writable || end == 0) return;
    const std::uint64_t offset = command.b % end;
    const auto bytes = fresh(std::min<std::uint64_t>(end - offset, 1 + command.c % 20'000));
    both(target.memory, [&](void* memory) {
      std::memcpy(static_cast<std::byte*>(memory) + offset, bytes.data(), bytes.size());
      return ::msync(memory, target.size, MS_SYNC);
    });
    compare({offset, bytes.size()});
  }

  void unmap(const Command& command) {
    if (maps_.empty()) return;
    maps_.erase(maps_.begin() + static_cast<std::ptrdiff_t>(command.a % maps_.size()));
  }

  void sync(const Command& command) {
    const Handle* const file = handle(command.a);
    if (file == nullptr) return;
    both(file->file, [&](const Descriptor& each) {
      return command.b % 2 == 0 ? ::fsync(each.get()) : ::fdatasync(each.get());
    });
  }

  void rename(const Command& command) {
    const Both<std::string> to = paths(command.b);
    const Both<std::string> from = paths(command.a);
    same_result([&] { return ::rename(from.mounted.c_str(), to.mounted.c_str()); },
                [&] { return ::rename(from.plain.c_str(), to.plain.c_str()); });
    compare({0, kPage});
  }
  void link(const Command& command) {
    const Both<std::string> to = paths(command.b);
    const Both<std::string> from = paths(command.a);
    same_result([&] { return ::link(from.mounted.c_str(), to.mounted.c_str()); },
                [&] { return ::link(from.plain.c_str(), to.plain.c_str()); });
  }
  void unlink(const Command& command) {
    const Both<std::string> path = paths(command.a);
    same_result([&] { return ::unlink(path.mounted.c_str()); },
                [&] { return ::unlink(path.plain.c_str()); });
    compare({0, kPage});
  }

  template <typename Mounted, typename Plain>
  static void same_result(const Mounted& mounted, const Plain& plain) {
    const int result = mounted();
    const int error = errno;
    const int expected = plain();
    same(result, error, expected, errno);
  }

  void cache(const Command& command) {
    if (::access(plain_path(command.a).c_str(), F_OK) != 0) return;
    mount_.bring_into_cache(directory_ + "/f" + std::to_string(command.a % kNames));
  }
  void evict(const Command& command) {
    std::promise<void> done;
    mount_.runtime().evict({directory_ + "/f" + std::to_string(command.a % kNames)}, 0,
                           [&done](const ControlResult&) { done.set_value(); });
    done.get_future().wait();
  }

  // Who opens a file on another machine finds all that was written before, cached there or not.
  void read_elsewhere(const Command& command) {
    const std::string file = directory_ + "/f" + std::to_string(command.a % kNames);
    const FileRead plain = read_file(plain_path(command.a));
    // That a name is missing may be remembered for a while.
    if (plain.error != 0) return;
    if (command.b % 2 == 0) other_.bring_into_cache(file);
    const FileRead there = read_file(other_.mounted(file));
    RC_ASSERT(there.error == 0);
    RC_ASSERT(there.bytes == plain.bytes);
  }

  struct FreeMemory {
    void operator()(void* memory) const { std::free(memory); }
  };
  using Memory = std::unique_ptr<void, FreeMemory>;
  static Memory aligned(std::size_t size) {
    return Memory(std::aligned_alloc(kPage, (size + kPage) / kPage * kPage));
  }
  static Memory aligned(const std::vector<std::byte>& bytes) {
    Memory memory = aligned(bytes.size());
    std::memcpy(memory.get(), bytes.data(), bytes.size());
    return memory;
  }

  void compare_handle(const Handle& handle, ByteRange range, std::size_t index) {
    if ((handle.flags & O_ACCMODE) == O_WRONLY) return;
    range.length += range.offset % kPage;
    range.offset = range.offset / kPage * kPage;
    range.length = (range.length + kPage - 1) / kPage * kPage;
    const Memory mounted = aligned(range.length);
    const Memory plain = aligned(range.length);
    const auto offset = static_cast<off_t>(range.offset);
    const ssize_t count = ::pread(handle.file.mounted.get(), mounted.get(), range.length, offset);
    const int error = errno;
    const ssize_t expected = ::pread(handle.file.plain.get(), plain.get(), range.length, offset);
    if (count != expected) RC_LOG() << "handle " << index << " at " << range.offset << '\n';
    same(count, error, expected, errno);
    if (count <= 0) return;
    const auto* const got = static_cast<const std::byte*>(mounted.get());
    const auto* const want = static_cast<const std::byte*>(plain.get());
    const auto difference = std::mismatch(got, got + count, want).first - got;
    if (difference != count) {
      RC_LOG() << "handle " << index << " of " << handle.flags << " at "
               << range.offset + static_cast<std::uint64_t>(difference) << '\n';
    }
    RC_ASSERT(difference == count);
    struct stat attributes {};
    struct stat wanted {};
    RC_ASSERT(::fstat(handle.file.mounted.get(), &attributes) == 0);
    ::fstat(handle.file.plain.get(), &wanted);
    RC_ASSERT(attributes.st_size == wanted.st_size);
  }

  // A mapping may be touched up to the end of its file.
  static std::uint64_t touchable(const Map& map) {
    struct stat attributes {};
    ::fstat(map.keeper.get(), &attributes);
    return std::min<std::uint64_t>(map.size, static_cast<std::uint64_t>(attributes.st_size));
  }
  static void compare_map(const Map& map, ByteRange range) {
    const std::uint64_t end = std::min(touchable(map), range.end());
    if (range.offset >= end) return;
    RC_ASSERT(std::memcmp(static_cast<const std::byte*>(map.memory.mounted) + range.offset,
                          static_cast<const std::byte*>(map.memory.plain) + range.offset,
                          end - range.offset) == 0);
  }

  void compare_size(std::size_t name) {
    struct stat mounted {};
    struct stat plain {};
    const bool is_there = ::stat(mount_path(name).c_str(), &mounted) == 0;
    RC_ASSERT(is_there == (::stat(plain_path(name).c_str(), &plain) == 0));
    if (is_there) RC_ASSERT(mounted.st_size == plain.st_size);
  }

  TestMount& mount_;
  TestMount& other_;
  const std::string directory_;
  std::vector<std::unique_ptr<Handle>> handles_;
  std::vector<std::unique_ptr<Map>> maps_;
  std::uint64_t version_ = 0;
  std::uint64_t unseen_writes_ = 0;
};

void check_model(PassedFiles passthrough) {
  TestMount mount;
  mount.start({.passthrough = passthrough});
  TestMount other;
  std::filesystem::remove(other.backend());
  std::filesystem::create_directory_symlink(mount.backend(), other.backend());
  other.start({.passthrough = passthrough, .racy_window = 2 * kSecond});
  std::uint64_t runs = 0;
  std::uint64_t unseen_writes = 0;
  EXPECT_TRUE(rc::check("the mount is like the plain directory", [&] {
    const auto commands = *rc::gen::container<std::vector<Command>>(any_command());
    World world(mount, other, ++runs);
    for (const Command& command : commands) world.run(command);
    world.compare_all();
    unseen_writes += world.unseen_writes();
  }));
  const bool is_passed_to_source = passthrough == PassedFiles::all && mount.passes_through();
  EXPECT_EQ(unseen_writes > 0, is_passed_to_source) << unseen_writes;
}

TEST(MountModelTest, IsLikeAPlainDirectoryWhateverIsPassedThrough) {
  check_model(PassedFiles::all);
}

TEST(MountModelTest, IsLikeAPlainDirectoryWithCachedFilesPassedThrough) {
  check_model(PassedFiles::cached);
}

TEST(MountModelTest, IsLikeAPlainDirectoryWithoutPassthrough) {
  check_model(PassedFiles::none);
}

}  // namespace
}  // namespace ncfs
