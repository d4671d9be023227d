// The one door through which the engine acts on the world.
//
// The engine submits Requests and is later handed exactly one Completion for each of them. The laws
// below hold for every driver; io_contract_test runs one body against all of them:
//
//   * submit() never completes a request inline and never blocks.
//   * Every request is completed exactly once, in any order, at the latest shortly after its
//     deadline (then with -ETIMEDOUT, whatever the device does).
//   * result >= 0 is a value, result < 0 is -errno. Reads may be short; a read of 0 bytes is the
//     end of the file. cache_write is never short: all bytes or an error.
//   * The buffer named by a request belongs to the Io from submit() until the completion. After
//     -ETIMEDOUT it is usable again at once: a transfer that is still stuck in the device goes to
//     memory of its own.
//   * After cache_sync returned 0 every byte whose cache_write had completed before the cache_sync
//     was submitted is durable. After cache_store returned 0 the bytes (not the name) are durable.
//     After cache_sync_directory returned 0 every create, rename and unlink in that directory that
//     had completed before is durable.
//
// Threading: submit() is called, and completions are delivered, on the control thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "io/types.h"

namespace ncfs {

enum class Ticket : std::uint64_t {};    // names one request in flight
enum class BufferId : std::uint32_t {};  // a slot of the driver's pool of block-sized buffers

// An open file of the driver. In the real driver the value is the file descriptor.
enum class FileHandle : std::int32_t { none = -1 };

enum class Op : std::uint8_t {
  // The source (the NFS tree). Paths are relative to its root; "" is the root itself.
  source_open,   // path                          -> FileHandle; Completion::source
  source_stat,   // file                          -> 0; Completion::source, fresh from the server
  source_read,   // file, range, buffer           -> bytes read into the buffer, at buffer_offset;
                 //                          what is before that stays
  source_close,  // file                          -> 0
  // The cache directory. Names are relative to it and look like "3f/<stem>.part".
  cache_list,    // name: a directory     -> 0; Completion::entries, sorted by name
  cache_create,  // name, range.length    -> FileHandle of a new file, preallocated to length;
                 //                          -EEXIST if the name is taken
  cache_open,    // name                  -> FileHandle, for reading and writing
  cache_write,   // file, range, buffer   -> bytes written from the start of the buffer
  cache_sync,    // file                  -> 0
  cache_load,    // name                  -> 0; Completion::bytes, at most kCacheLoadMax
  cache_store,   // name, bytes           -> 0; replaces the file's content, then syncs it
  cache_rename,  // name, new_name        -> 0; replaces new_name
  cache_sync_directory,  // name: a directory     -> 0
  cache_unlink,          // name, file            -> 0; -EBUSY, and nothing done, if `file` is given
                         //                          and anybody else has that file open or mapped
  cache_touch,           // name                  -> 0; sets the file's mtime to now
  cache_close,           // file                  -> 0
  // Both tell Completion::checksum of the bytes that were read; short only at the end of the file.
  cache_verify,          // file, range           -> bytes read, which go nowhere; pages that were
                         //                          not in memory are not left there
  cache_read,            // file, range, buffer   -> bytes read into the start of the buffer
  cache_statfs,          // -                     -> 0; Completion::space of the file system
};

// cache_load refuses larger files with -EFBIG: a sidecar of the largest supported file is smaller.
inline constexpr std::uint64_t kCacheLoadMax = 64 * kMiB;

struct Request {
  Ticket ticket{};
  Op op{};
  FileHandle file = FileHandle::none;
  BufferId buffer{};
  ByteRange range;
  std::uint64_t buffer_offset = 0;  // source_read: range.length bytes from there are in the buffer
  // source_read: somebody else reads the file through the page cache too. What is read is left
  // there, so that neither reads from the device what the other has read.
  bool through_page_cache = false;
  Nanos deadline = 0;            // absolute, on the clock of the `now` the engine is given
  std::string name;              // path of the source or name in the cache directory
  std::string new_name;          // cache_rename
  std::vector<std::byte> bytes;  // cache_store
  bool wants_checksum = false;   // cache_write: fill Completion::checksum
  bool wants_bytes = false;      // source_read: fill Completion::bytes with what was read, too
};

enum class EntryKind : std::uint8_t { file, directory, other };  // other: links, FIFOs, devices

struct CacheEntry {
  std::string name;                   // without the directory
  std::uint64_t size_bytes = 0;       // length of the file
  std::uint64_t allocated_bytes = 0;  // what it occupies on the disk
  std::int64_t mtime_ns = 0;          // wall clock
  std::int64_t age_ns = 0;            // wall clock of this host at the listing minus mtime_ns
  EntryKind kind = EntryKind::file;
};

// Of the file system that holds the cache directory.
struct FileSystemSpace {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;  // without what is reserved for the superuser
};

struct Completion {
  Ticket ticket{};
  std::int64_t result = 0;
  SourceState source;
  std::vector<CacheEntry> entries;
  std::vector<std::byte> bytes;
  std::uint64_t checksum = 0;  // XXH3-64, seed 0, of the bytes of a transfer; see Op
  FileSystemSpace space;  // cache_statfs
};

class Io {
 public:
  virtual void submit(Request request) = 0;

 protected:
  ~Io() = default;
};

}  // namespace ncfs
