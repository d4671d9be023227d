// Finds and opens all regular files beneath some paths of the source, one after the other.
//
// Memory is bounded by the depth of the tree (one open directory per level, at most kDepthMax), not
// by its size. Symbolic links are never followed and nothing outside of the root is ever reached.
// Blocks as long as the source takes to answer; for a thread of its own.
#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ncfs {

struct WalkedFile {
  enum class Kind : std::uint8_t {
    file,     // `descriptor` is open for reading and the caller's to close, unless only looked at
    skipped,  // no regular file; `detail` says what it is
    failed,   // `error` is an errno
  };
  Kind kind{};
  std::string path;  // relative to the root
  int descriptor = -1;
  struct stat status {};
  std::string detail;
  int error = 0;
};

class SourceWalk {
 public:
  // Deeper directories are reported as failed (ELOOP): real trees are not that deep, and each
  // level costs a descriptor.
  static constexpr std::size_t kDepthMax = 128;

  enum class Files : std::uint8_t { opened, looked_at };

  // `root` is a directory descriptor that outlives the walk. `paths` are relative to it, "" is the
  // root itself.
  SourceWalk(int root, std::vector<std::string> paths, Files files = Files::opened);
  ~SourceWalk();
  SourceWalk(const SourceWalk&) = delete;
  SourceWalk& operator=(const SourceWalk&) = delete;

  // The next one in an order the source chooses; nullopt at the end.
  [[nodiscard]] std::optional<WalkedFile> next();

  // The errno of opening `path`, 0 if it can be opened for reading and is a file or directory.
  [[nodiscard]] static int check(int root, const std::string& path);

 private:
  struct CloseDirectory {
    void operator()(DIR* directory) const { closedir(directory); }
  };
  struct Level {
    std::unique_ptr<DIR, CloseDirectory> directory;
    std::string path;
  };

  std::optional<WalkedFile> visit(int directory, const std::string& name, const std::string& path);
  std::optional<WalkedFile> try_visit(int directory, const std::string& name, std::string path);
  std::optional<WalkedFile> visit_next_entry();
  std::optional<WalkedFile> enter(int descriptor, std::string path);

  const int root_;
  const Files files_;
  std::vector<std::string> paths_;
  std::size_t next_path_ = 0;
  std::vector<Level> levels_;
};

}  // namespace ncfs
