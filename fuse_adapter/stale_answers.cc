#include "fuse_adapter/stale_answers.h"

namespace ncfs {

bool StaleAnswers::try_answer(pid_t thread, NodeId node, Nanos now) {
  if (thread <= 0) return false;
  const std::lock_guard lock(mutex_);
  const auto has_expired = [now](const Answer& answer) { return answer.at + kExpiry <= now; };
  const auto found = answered_.find(thread);
  if (found != answered_.end() && !has_expired(found->second)) return false;
  if (found == answered_.end() && answered_.size() >= kThreadsMax) {
    std::erase_if(answered_, [&](const auto& entry) { return has_expired(entry.second); });
    if (answered_.size() >= kThreadsMax) return false;
  }
  answered_[thread] = {node, now};
  size_.store(answered_.size(), std::memory_order_relaxed);
  return true;
}

bool StaleAnswers::insists(pid_t thread, NodeId node) const {
  const std::lock_guard lock(mutex_);
  const auto found = answered_.find(thread);
  return found != answered_.end() && found->second.node == node;
}

bool StaleAnswers::is_looking_up_again(pid_t thread) const {
  if (size_.load(std::memory_order_relaxed) == 0) return false;
  const std::lock_guard lock(mutex_);
  return answered_.contains(thread);
}

void StaleAnswers::clear(pid_t thread) {
  if (size_.load(std::memory_order_relaxed) == 0) return;
  const std::lock_guard lock(mutex_);
  answered_.erase(thread);
  size_.store(answered_.size(), std::memory_order_relaxed);
}

}  // namespace ncfs
