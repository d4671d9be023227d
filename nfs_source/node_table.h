// Files that the kernel knows, by node number, and what is remembered of them while it does.
// Numbers are never used again, also not by a program that serves the mount after this one. Any
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "nfs_source/compound.h"

namespace ncfs {

struct Node {
  explicit Node(FileHandle4 of) : handle(std::move(of)) {}

  const FileHandle4 handle;

  std::mutex mutex;  // of what follows
  // What has been written and may be lost with the server's memory.
  bool is_unstable = false;
  std::uint64_t verifier = 0;  // the server's when it was written
  std::uint64_t writes = 0;    // so far
  std::uint64_t losses = 0;    // how often something may have been lost so far
  // An open file that was removed lives on under another name until its last close, as a server
  // knows nothing of open files.
  std::uint32_t opens = 0;
  bool is_hidden = false;
  FileHandle4 hidden_in;
  std::string hidden_name;
};

class NodeTable {
 public:
  // The root is number 1, FUSE's, in every program.
  NodeTable(FileHandle4 root, std::uint64_t first_number);

  // The node of the file, which the kernel has been told of once more. Its number.
  std::uint64_t remember(const FileHandle4& file);
  void forget(std::uint64_t number, std::uint64_t times);

  // Null if there is none, which the kernel does not ask for.
  [[nodiscard]] std::shared_ptr<Node> find(std::uint64_t number) const;
  [[nodiscard]] std::shared_ptr<Node> find(const FileHandle4& file) const;

 private:
  struct Known {
    std::shared_ptr<Node> node;
    std::uint64_t lookups = 0;
  };
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, Known> nodes_;
  std::unordered_map<FileHandle4, std::uint64_t> numbers_;
  std::uint64_t next_number_;
};

}  // namespace ncfs
