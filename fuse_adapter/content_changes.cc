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

void Notices::forget(std::vector<NodeId> nodes, ByteRange range, std::function<void()> done) {
  if (nodes.empty()) {
    done();
    return;
  }
  auto once = [done = std::move(done), is_done = std::make_shared<std::atomic<bool>>(false)] {
    if (!is_done->exchange(true)) done();
  };
  const auto forget_all = [channel = channel_, nodes = std::move(nodes), range] {
    for (const NodeId node : nodes) channel->forget_pages(node, range.offset, range.length);
  };
  const bool accepted = answered_.submit({.run =
                                              [forget_all, once] {
                                                forget_all();
                                                once();
                                              },
                                          .expire = once});
  if (!accepted) once();
}

void Notices::forget_later(std::vector<NodeId> nodes, ByteRange range) {
  if (nodes.empty()) return;
  static_cast<void>(later_.submit({.run =
                                       [channel = channel_, nodes = std::move(nodes), range] {
                                         for (const NodeId node : nodes) {
                                           channel->forget_pages(node, range.offset, range.length);
                                         }
                                       },
                                   .expire = [] {}}));
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
    if (!audience.nodes.empty()) file->note_late_change();
    core.notices.forget_later(std::move(audience.nodes), change.range);
    done();
    return;
  }
  core.notices.forget(std::move(audience.nodes), change.range, std::move(done));
}

void await_late_changes(FuseCore& core, const SharedFilePointer& file, NodeId node,
                        std::function<void()> done) {
  if (!file->take_late_changes()) {
    done();
    return;
  }
  core.notices.forget(file->note_change(node).nodes, {0, kToTheEnd}, std::move(done));
}

}  // namespace ncfs
