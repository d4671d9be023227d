// For tests: a small source tree and an engine that answers warm-ups only when told to.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "fuse_adapter/warm_jobs.h"

namespace ncfs {

class FakeWarmTarget {
 public:
  // Far longer than anything here takes; a failing test ends all the same.
  static constexpr std::chrono::seconds kPatience{20};

  explicit FakeWarmTarget(const std::string& parent) {
    std::string pattern = parent + "ncfs-warm-XXXXXX";
    tree_ = mkdtemp(pattern.data());
    root_ = open(tree_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
  ~FakeWarmTarget() {
    close(root_);
    std::filesystem::remove_all(tree_);
  }
  FakeWarmTarget(const FakeWarmTarget&) = delete;
  FakeWarmTarget& operator=(const FakeWarmTarget&) = delete;

  const std::filesystem::path& tree() const { return tree_; }

  void write(const std::string& path, std::size_t size) {
    std::filesystem::create_directories((tree_ / path).parent_path());
    std::ofstream(tree_ / path) << std::string(size, 'x');
  }

  WarmTarget target() {
    WarmTarget target;
    target.source_root = root_;
    target.warm = [this](FileHandle source, const SourceState&, std::string path,
                         std::function<void(const WarmResult&)> done, bool, WarmPace pace) {
      close(static_cast<int>(source));
      const std::lock_guard lock(mutex_);
      asked_.emplace(std::move(path), std::move(done));
      ++asked_total_;
      last_pace_ = pace;
      changed_.notify_all();
    };
    return target;
  }

  // Waits until `count` files have been handed over since the start.
  bool wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return asked_total_ >= count; });
  }

  // Files handed over and not answered yet.
  std::size_t unanswered() const {
    const std::lock_guard lock(mutex_);
    return asked_.size();
  }

  WarmPace last_pace() const {
    const std::lock_guard lock(mutex_);
    return last_pace_;
  }

  void answer(const std::string& path, const WarmResult& result) {
    std::function<void(const WarmResult&)> done;
    {
      const std::lock_guard lock(mutex_);
      const auto place = asked_.find(path);
      if (place == asked_.end()) return;
      done = std::move(place->second);
      asked_.erase(place);
    }
    done(result);
  }

  void answer_all(const WarmResult& result) {
    std::map<std::string, std::function<void(const WarmResult&)>> asked;
    {
      const std::lock_guard lock(mutex_);
      asked.swap(asked_);
    }
    for (const auto& [path, done] : asked) done(result);
  }

 private:
  std::filesystem::path tree_;
  int root_ = -1;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::function<void(const WarmResult&)>> asked_;
  std::size_t asked_total_ = 0;
  WarmPace last_pace_;
};

}  // namespace ncfs
