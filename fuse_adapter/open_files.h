// What applications have open. Any thread.
#pragma once

#include <dirent.h>
#include <fcntl.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/directory_snapshot.h"
#include "fuse_adapter/caller_credentials.h"
#include "fuse_adapter/inode_table.h"
#include "fuse_adapter/runtime.h"
#include "fuse_adapter/shared_file.h"
#include "fuse_adapter/source_tree.h"
#include "io/descriptor.h"

namespace ncfs {

// The Runtime, for as long as it may be called. Threads that were stuck in the source may come back
// after the end of the mount; their calls then do nothing and their callbacks are never called.
class RuntimeGate {
 public:
  explicit RuntimeGate(Runtime& runtime) : runtime_(&runtime) {}

  // The arguments as of Runtime. False, and the source is still the caller's, if the gate is shut.
  [[nodiscard]] bool open(OpenEvent event, std::function<void(const OpenResult&)> done);
  void close(HandleId handle);
  void read(HandleId handle, ByteRange range, bool skip_cache,
            std::function<void(const ReadOutcome&)> done);
  // False, and `done` is not called, if the gate is shut.
  [[nodiscard]] bool disown(const FileId& file, std::function<void(int error)> done);
  // The same.
  [[nodiscard]] bool grow(HandleId handle, std::uint64_t size_bytes,
                          std::function<void(int error)> done);
  void rekey(const SourceState& before, const SourceState& after, std::string path);
  void cache_fault(HandleId handle, int error);
  // False, and the source is still the caller's, if the gate is shut.
  [[nodiscard]] bool warm(FileHandle source, const SourceState& state, std::string path,
                          std::function<void(const WarmResult&)> done, bool pin);
  // If the gate is shut nothing is called, and the engine knows of no file.
  void evict(std::vector<std::string> paths, std::function<void(const ControlResult&)> done);
  void unpin(std::vector<std::string> paths, std::function<void(const ControlResult&)> done);
  // Everything handed over before is done or begun.
  [[nodiscard]] std::vector<FileReport> files(const FileQuery& query);
  [[nodiscard]] bool is_recovering();

  // Returns when no call is in progress.
  void shut();

 private:
  std::shared_mutex mutex_;
  Runtime* runtime_;
};

// The cache file of a handle, made to follow our own changes of the source; see mirrors.h.
struct Mirror {
  enum class State : std::uint8_t { untouched, followed, failed };
  std::mutex mutex;  // guards the rest
  State state = State::untouched;
  Descriptor file;             // for writing
  std::uint64_t size_max = 0;  // as far as the cache has room for it
};

// One open of a regular file. One for reading is a handle of the engine, closed when the last read
// of it has ended; one for writing, or for both, is a descriptor of its own, past the engine.
class OpenFile : public std::enable_shared_from_this<OpenFile> {
 public:
  // Takes over a handle that RuntimeGate::open() was, or is about to be, given.
  struct Opened {
    HandleId handle{};
    NodeId node = 0;
    int source = -1;
    std::uint64_t size_bytes = 0;
    SharedFilePointer shared;
    FileId file;
  };
  OpenFile(std::shared_ptr<RuntimeGate> runtime, const Opened& opened)
      : handle(opened.handle),
        node(opened.node),
        source(opened.source),
        size_bytes(opened.size_bytes),
        shared(opened.shared),
        file_id(opened.file),
        runtime_(std::move(runtime)),
        source_size_bytes_(opened.size_bytes) {}
  // One for writing. `flags` are those of the application.
  struct Written {
    NodeId node = 0;
    Descriptor source;
    int flags = 0;
    Caller opener;
    SharedFilePointer shared;
    std::unique_ptr<WriteSession> session;
    FileId file;
    std::optional<SourceVersion> settled_version;  // as opened, if older than the racy window
  };
  explicit OpenFile(Written written)
      : node(written.node),
        source(written.source.get()),
        shared(std::move(written.shared)),
        file_id(written.file),
        flags(written.flags),
        opener(written.opener),
        settled_version(written.settled_version),
        own_source_(std::move(written.source)),
        session_(std::move(written.session)),
        is_past_cache_(true) {}
  ~OpenFile() {
    shared->leave(*this);
    if (runtime_) runtime_->close(handle);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  const HandleId handle{};
  const NodeId node;
  const int source;                    // the engine's or our own, good until the end
  const std::uint64_t size_bytes = 0;  // of the version that was opened, if for reading
  const SharedFilePointer shared;
  const FileId file_id;
  const int flags = O_RDONLY;
  const Caller opener;                                 // if for writing
  const std::optional<SourceVersion> settled_version;  // the same
  OpenMode mode = OpenMode::page_cache;                // constant once the open is answered
  // In mode passthrough: whose cache file the kernel reads, if another's. Constant as `mode`.
  std::shared_ptr<OpenFile> passed;
  Mirror mirror;  // of its cache file
  static constexpr std::size_t kNowhere = SIZE_MAX;
  std::size_t place_in_shared = kNowhere;  // SharedFile's
  std::size_t place_in_open = kNowhere;    // OpenFiles'
  [[nodiscard]] bool is_written() const { return runtime_ == nullptr; }

  // Whether what it stores, through a mapping, may change no time of the file, and may outlive it.
  [[nodiscard]] bool may_be_mapped_unseen() const {
    return mode == OpenMode::source_passthrough && (flags & O_ACCMODE) == O_RDWR;
  }

  // The node whose page cache the kernel keeps right by itself when the file is written; 0 if none.
  [[nodiscard]] NodeId cached_node() const { return mode == OpenMode::page_cache ? node : 0; }

  // Whether reads are answered from the source, whatever the cache holds: it has another version.
  [[nodiscard]] bool is_past_cache() const {
    return is_past_cache_.load(std::memory_order_acquire);
  }
  void read_past_cache() { is_past_cache_.store(true, std::memory_order_release); }

  // The first error that may have lost what was written stays: whoever asks later is told, too.
  [[nodiscard]] int lasting_error() const { return error_.load(std::memory_order_relaxed); }
  void note_error(int error) {
    int none = 0;
    error_.compare_exchange_strong(none, error, std::memory_order_relaxed);
  }

  // Of a file for writing. `held` lives until the session ends.
  void keep_in_session(std::shared_ptr<void> held) { session_->keep(std::move(held)); }
  // Nobody writes any more; the version is what it has become.
  void end_session(const FileFacts& facts) {
    session_->note(facts);
    session_.reset();
  }

  // Null until some of the file is or may become resident. Stays what it was first set to.
  [[nodiscard]] Residency* residency() const { return residency_.load(std::memory_order_acquire); }
  void adopt(const std::shared_ptr<Residency>& residency);

  // Size of the source as last told to the kernel: what lies past size_bytes belongs to a newer
  // version and is not the engine's business.
  [[nodiscard]] std::uint64_t source_size_bytes() const {
    return source_size_bytes_.load(std::memory_order_acquire);
  }
  void note_source_size(std::uint64_t size) {
    source_size_bytes_.store(size, std::memory_order_release);
  }

 private:
  const std::shared_ptr<RuntimeGate> runtime_;
  std::mutex adopt_mutex_;
  std::shared_ptr<Residency> owned_;  // guarded by adopt_mutex_; partner of residency_
  std::atomic<Residency*> residency_{nullptr};
  std::atomic<std::uint64_t> source_size_bytes_{0};
  const Descriptor own_source_;
  std::unique_ptr<WriteSession> session_;
  std::atomic<bool> is_past_cache_{false};
  std::atomic<int> error_{0};
};

struct CloseStream {
  void operator()(DIR* stream) const { ::closedir(stream); }
};

// One open of a directory. What is not constant is guarded by `mutex`.
struct OpenDirectory : public std::enable_shared_from_this<OpenDirectory> {
  explicit OpenDirectory(NodeId of_node) : node(of_node) {}
  const NodeId node;
  std::mutex mutex;
  FileKey file;
  NodeId filled_node = 0;  // the node whose page cache the kernel may fill with `names`; 0: none
  // The directory of the source, as a descriptor of any kind. Closed if its listing was told
  // without asking.
  FoundFile found;
  // What is listed, from the moment the handle was opened or rewound; null: read from the stream,
  // into memory if it is not too much. Positions count its entries, or are the stream's own.
  std::shared_ptr<const DirectorySnapshot> names;
  std::unique_ptr<DIR, CloseStream> stream;
  bool is_at_start = true;              // nothing was told yet
  off_t position = 0;                   // of the stream: of the next entry to be told
  const struct dirent* next = nullptr;  // read from the stream, but not told yet
};

// How many files and directories applications may have open at once if the daemon may have that
// many descriptors. Each takes two, of the source and of the cache; the rest is for what must go on
// for everybody else, such as look-ups, renames and copies.
[[nodiscard]] std::size_t open_files_max(std::uint64_t descriptors);

// The kernel knows a handle by its address, and uses it only between the answer to the open and the
// release.
template <typename Handle>
[[nodiscard]] Handle& handle_of(std::uint64_t number) {
  return *reinterpret_cast<Handle*>(number);  // NOLINT(performance-no-int-to-ptr)
}
template <typename Handle>
[[nodiscard]] std::uint64_t number_of(const Handle& handle) {
  return reinterpret_cast<std::uint64_t>(&handle);
}

class OpenFiles {
 public:
  void add(std::shared_ptr<OpenFile> file);
  // What was added; its destruction may be the handle's end.
  std::shared_ptr<OpenFile> remove(const OpenFile& file);
  // Any file open on the node, or null.
  [[nodiscard]] std::shared_ptr<OpenFile> any_of(NodeId node) const;
  void note_source_size(NodeId node, std::uint64_t size);
  void clear();
  [[nodiscard]] std::size_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  using Files = std::unordered_map<NodeId, std::vector<std::shared_ptr<OpenFile>>>;
  mutable std::mutex mutex_;
  Files files_;
  std::atomic<std::size_t> count_{0};
};

class OpenDirectories {
 public:
  void add(std::shared_ptr<OpenDirectory> directory);
  std::shared_ptr<OpenDirectory> remove(const OpenDirectory& directory);
  // A descriptor of any kind of a directory that has lost its name, if somebody has the node open
  // and it has one. Waits for listings of it that are being read.
  [[nodiscard]] Descriptor descriptor_of(NodeId node) const;
  void clear();
  [[nodiscard]] std::size_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<const OpenDirectory*, std::shared_ptr<OpenDirectory>> directories_;
  std::atomic<std::size_t> count_{0};
};

}  // namespace ncfs
