#include "nfs_source/node_table.h"

#include <utility>

namespace ncfs {

NodeTable::NodeTable(FileHandle4 root) {
  numbers_.emplace(root, last_number_);
  nodes_.emplace(last_number_, Known{std::make_shared<Node>(std::move(root)), 1});
}

std::uint64_t NodeTable::remember(const FileHandle4& file) {
  const std::lock_guard lock(mutex_);
  const auto [place, is_new] = numbers_.try_emplace(file, last_number_ + 1);
  if (is_new) nodes_.emplace(++last_number_, Known{std::make_shared<Node>(file), 0});
  ++nodes_.at(place->second).lookups;
  return place->second;
}

void NodeTable::forget(std::uint64_t number, std::uint64_t times) {
  const std::lock_guard lock(mutex_);
  const auto known = nodes_.find(number);
  if (known == nodes_.end() || number == 1) return;
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
