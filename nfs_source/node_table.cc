#include "nfs_source/node_table.h"

#include <algorithm>
#include <utility>

namespace ncfs {

namespace {
constexpr std::uint64_t kRoot = 1;
}

NodeTable::NodeTable(FileHandle4 root, std::uint64_t first_number)
    : next_number_(std::max(first_number, kRoot + 1)) {
  numbers_.emplace(root, kRoot);
  nodes_.emplace(kRoot, Known{std::make_shared<Node>(std::move(root)), 1});
}

std::uint64_t NodeTable::remember(const FileHandle4& file) {
  const std::lock_guard lock(mutex_);
  const auto [place, is_new] = numbers_.try_emplace(file, next_number_);
  if (is_new) nodes_.emplace(next_number_++, Known{std::make_shared<Node>(file), 0});
  ++nodes_.at(place->second).lookups;
  return place->second;
}

void NodeTable::forget(std::uint64_t number, std::uint64_t times) {
  const std::lock_guard lock(mutex_);
  const auto known = nodes_.find(number);
  if (known == nodes_.end() || number == kRoot) return;
  if (known->second.lookups > times) {
    known->second.lookups -= times;
    return;
  }
  numbers_.erase(known->second.node->handle);
  nodes_.erase(known);
}

std::shared_ptr<Node> NodeTable::find(std::uint64_t number) const {
  const std::lock_guard lock(mutex_);
  const auto known = nodes_.find(number);
  return known == nodes_.end() ? nullptr : known->second.node;
}

std::shared_ptr<Node> NodeTable::find(const FileHandle4& file) const {
  const std::lock_guard lock(mutex_);
  const auto number = numbers_.find(file);
  return number == numbers_.end() ? nullptr : nodes_.at(number->second).node;
}

}  // namespace ncfs
