// What has to happen after we changed a file of the source, before whoever changed it is told.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "fuse_adapter/fuse_channel.h"
#include "fuse_adapter/job_pool.h"
#include "fuse_adapter/shared_file.h"
#include "io/types.h"

namespace ncfs {

inline constexpr std::uint64_t kToTheEnd = 0;  // length of a range without end

// Makes the kernel forget what it holds of other nodes of a changed file. Its own threads: the
// kernel keeps one waiting while a read or a write of the same pages is under way, and those are
// answered by others. Any thread.
class Notices {
 public:
  explicit Notices(std::shared_ptr<FuseChannel> channel);  // throws std::system_error

  // `held` is let go, on any thread, when the nodes have forgotten the range or the kernel takes
  // too long about it.
  void forget(std::vector<NodeId> nodes, ByteRange range, std::shared_ptr<void> held);
  // The same for pages that the kernel wrote back from memory, with nobody to wait: its writer may
  // hold pages locked that another forget() waits for, so neither may wait for the other.
  void forget_later(std::vector<NodeId> nodes, ByteRange range, std::shared_ptr<void> held);

  void stop(std::chrono::nanoseconds patience);

 private:
  void submit(JobPool& pool, std::vector<NodeId> nodes, ByteRange range,
              std::shared_ptr<void> held);

  const std::shared_ptr<FuseChannel> channel_;
  JobPool answered_;
  JobPool later_;
};

class FuseCore;

struct ContentChange {
  NodeId node = 0;  // through whose page cache the kernel changed it; 0 if past all of them
  ByteRange range;
  bool is_from_pages = false;  // the kernel wrote back pages of its own: nobody waits for it
  // The file may have become shorter; whoever waits holds no pages locked. Its readers under other
  // nodes learn that from the first read that is answered short. A notice that meets this read
  // would make the kernel ignore how short it is, so those under way are waited for.
  bool may_shorten = false;
};

// Everybody who has the file open reads the change from here on: `done` is called, on any thread,
// when that is so. May wait for the cache disk.
void announce_change(FuseCore& core, const SharedFilePointer& file, const ContentChange& change,
                     std::function<void()> done);

// The same for what was changed with nobody waiting: now somebody does.
void await_late_changes(const SharedFilePointer& file, std::function<void()> done);

}  // namespace ncfs
