#include "fuse_adapter/closing_handles.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <optional>
#include <utility>

#include "io/monotonic_clock.h"

namespace ncfs {

void ClosingHandles::locked(std::uint64_t handle) {
  any_.store(true, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  lockers_.insert(handle);
}

void ClosingHandles::flushed(const FileKey& file, std::uint64_t handle) {
  if (!any_.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(mutex_);
  if (lockers_.contains(handle)) files_[file].until[handle] = monotonic_now() + patience_;
}

void ClosingHandles::released(const FileKey& file, std::uint64_t handle) {
  if (!any_.load(std::memory_order_relaxed)) return;
  std::vector<std::function<void()>> free;
  {
    const std::lock_guard lock(mutex_);
    lockers_.erase(handle);
    const auto known = files_.find(file);
    if (known == files_.end()) return;
    known->second.until.erase(handle);
    if (!known->second.until.empty()) return;
    free.swap(known->second.waiting);
    files_.erase(known);
  }
  for (const auto& run : free) run();
}

bool ClosingHandles::later(const FileKey& file, std::function<void()> run) {
  if (!any_.load(std::memory_order_relaxed)) return false;
  const std::lock_guard lock(mutex_);
  const auto known = files_.find(file);
  if (known == files_.end() || is_stopped_) return false;
  std::erase_if(known->second.until,
                [now = monotonic_now()](const auto& closing) { return closing.second <= now; });
  if (known->second.until.empty() && known->second.waiting.empty()) {
    files_.erase(known);
    return false;
  }
  known->second.waiting.push_back(std::move(run));
  if (!watch_.joinable()) watch_ = std::thread([this] { watch(); });
  changed_.notify_one();
  return true;
}

void ClosingHandles::watch() {
  std::unique_lock lock(mutex_);
  while (!is_stopped_) {
    const Nanos now = monotonic_now();
    std::optional<Nanos> next;
    std::vector<std::function<void()>> due;
    for (auto& [file, closing] : files_) {
      if (closing.waiting.empty()) continue;
      Nanos until = now;
      for (const auto& [handle, end] : closing.until) until = std::max(until, end);
      if (until > now) {
        next = next ? std::min(*next, until) : until;
        continue;
      }
      closing.until.clear();
      std::ranges::move(closing.waiting, std::back_inserter(due));
      closing.waiting.clear();
    }
    if (!due.empty()) {
      lock.unlock();
      for (const auto& run : due) run();
      lock.lock();
    } else if (next) {
      changed_.wait_for(lock, std::chrono::nanoseconds(*next - now));
    } else {
      changed_.wait(lock);
    }
  }
}

void ClosingHandles::stop() {
  decltype(files_) left;
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    left.swap(files_);
  }
  changed_.notify_one();
  if (watch_.joinable()) watch_.join();
  for (const auto& [file, closing] : left) {
    for (const auto& run : closing.waiting) run();
  }
}

}  // namespace ncfs
