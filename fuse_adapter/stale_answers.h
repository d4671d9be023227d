// Who was told to look up again.
//
// An OPEN answered with ESTALE makes the kernel look the name up again and open once more, unseen
// by the application, but only once. So no thread gets two such answers in a row. Any thread.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <mutex>
#include <unordered_map>

#include "fuse_adapter/inode_table.h"
#include "io/types.h"

namespace ncfs {

class StaleAnswers {
 public:
  // Whether an OPEN of `node` by `thread` may be answered with ESTALE now. If so it has been, as
  // far as this table is concerned. Threads that cannot be told apart (0), or one too many, may
  // not.
  [[nodiscard]] bool try_answer(pid_t thread, NodeId node, Nanos now);
  // Whether `thread` comes back with the node it was told about: it has no name to look up.
  [[nodiscard]] bool insists(pid_t thread, NodeId node) const;
  // Whether what `thread` does now is to look up again.
  [[nodiscard]] bool is_looking_up_again(pid_t thread) const;
  // An open of `thread` was answered in another way.
  void clear(pid_t thread);

 private:
  // A thread is in the table from its first OPEN to its second, microseconds later.
  static constexpr std::size_t kThreadsMax = 1024;
  // The second OPEN never comes if the name is gone. Far longer than the kernel takes to retry.
  static constexpr Nanos kExpiry = 10 * kSecond;

  struct Answer {
    NodeId node = 0;
    Nanos at = 0;
  };
  mutable std::mutex mutex_;
  std::unordered_map<pid_t, Answer> answered_;
  // Spares opens the lock while nobody is in the table. A thread only ever asks about itself.
  std::atomic<std::size_t> size_{0};
};

}  // namespace ncfs
