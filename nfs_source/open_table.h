// What is open, by the number that the kernel knows it by. Numbers are never used again, also not
// by a program that serves the mount after this one. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace ncfs {

template <typename Open>
class OpenTable {
 public:
  explicit OpenTable(std::uint64_t first_number) : next_number_(first_number) {}

  std::uint64_t add(std::shared_ptr<Open> open) {
    const std::lock_guard lock(mutex_);
    open_.emplace(next_number_, std::move(open));
    return next_number_++;
  }
  // Null for what another program has opened.
  [[nodiscard]] std::shared_ptr<Open> find(std::uint64_t number) const {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(number);
    return found == open_.end() ? nullptr : found->second;
  }
  std::shared_ptr<Open> take(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    auto found = open_.extract(number);
    return found ? std::move(found.mapped()) : nullptr;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::shared_ptr<Open>> open_;
  std::uint64_t next_number_;
};

}  // namespace ncfs
