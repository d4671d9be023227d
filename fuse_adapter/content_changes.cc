#include "fuse_adapter/content_changes.h"

#include <atomic>
#include <utility>

#include "fuse_adapter/fuse_ops.h"
#include "fuse_adapter/mirrors.h"

namespace ncfs {
namespace {

// Each waits for reads of one file at most.
constexpr std::size_t kThreads = 4;
// Each is a process that waits for its write, or one writeback of the kernel, which has at most
// 64 under way.
constexpr std::size_t kQueueMax = 4096;
// Reads that a forgetting waits for have this long. A change is then answered all the same, as two
// writers that wait for each other's pages would wait for ever; the pages go when they can.
constexpr Nanos kPatience = 5 * kSecond;

// Calls `done` when the last of its copies is gone.
std::shared_ptr<void> until_let_go(std::function<void()> done) {
  return {nullptr, [done = std::move(done)](void*) { done(); }};
}

}  // namespace

Notices::Notices(std::shared_ptr<FuseChannel> channel)
    : channel_(std::move(channel)),
      answered_({.name = "ncfs-notices",
                 .threads = kThreads,
                 .queue_max = kQueueMax,
                 .deadline = kPatience}),
      later_({.name = "ncfs-later",
              .threads = kThreads,
              .queue_max = kQueueMax,
              .deadline = kPatience}) {}

void Notices::submit(JobPool& pool, std::vector<NodeId> nodes, ByteRange range,
                     std::shared_ptr<void> held) {
  if (nodes.empty()) return;
  // Let go by who comes first: the thread that has told the kernel, or the watch.
  const auto let_go = [held = std::make_shared<std::atomic<std::shared_ptr<void>>>(
                           std::move(held))] { held->store(nullptr); };
  static_cast<void>(pool.submit({.run =
                                     [channel = channel_, nodes = std::move(nodes), range, let_go] {
                                       for (const NodeId node : nodes) {
                                         channel->forget_pages(node, range.offset, range.length);
                                       }
                                       let_go();
                                     },
                                 .expire = let_go}));
}

void Notices::forget(std::vector<NodeId> nodes, ByteRange range, std::shared_ptr<void> held) {
  submit(answered_, std::move(nodes), range, std::move(held));
}

void Notices::forget_later(std::vector<NodeId> nodes, ByteRange range, std::shared_ptr<void> held) {
  submit(later_, std::move(nodes), range, std::move(held));
}

void Notices::stop(std::chrono::nanoseconds patience) {
  answered_.stop(patience);
  later_.stop(patience);
}

void announce_change(FuseCore& core, const SharedFilePointer& file, const ContentChange& change,
                     std::function<void()> done) {
  core.known_metadata.file_changed(file->key);
  SharedFile::Audience audience = file->note_change(change.node);
  for (const auto& passed : audience.passed) follow_change(core, *passed, change.range);
  if (change.is_from_pages) {
    core.notices.forget_later(std::move(audience.nodes), change.range, file->begin_late_notice());
    done();
    return;
  }
  const auto held = until_let_go(std::move(done));
  if (change.may_shorten) file->hold_for_late_notices(held);
  core.notices.forget(std::move(audience.nodes), change.range, held);
}

void await_late_changes(const SharedFilePointer& file, std::function<void()> done) {
  file->hold_for_late_notices(until_let_go(std::move(done)));
}

}  // namespace ncfs
