// For tests: a directory that is gone when the test is, and file systems mounted nowhere.
//
// It lies below the working directory, which is the build tree, rather than /tmp: what is said of
// the page cache and of O_DIRECT can be seen on a disk only.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <system_error>

#include "io/descriptor.h"

namespace ncfs {

class TempDirectory {
 public:
  TempDirectory() {
    std::string name = (std::filesystem::current_path() / "ncfs-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      throw std::system_error(errno, std::generic_category(), name);
    }
    path_ = name;
  }
  ~TempDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  [[nodiscard]] std::string path(const std::string& name = "") const {
    return name.empty() ? path_.string() : (path_ / name).string();
  }
  [[nodiscard]] Descriptor open(const std::string& name = "", int flags = O_PATH) const {
    constexpr mode_t kMode = 0600;
    Descriptor opened(::open(path(name).c_str(), flags | O_CLOEXEC, kMode));
    if (!opened.is_open()) throw std::system_error(errno, std::generic_category(), path(name));
    return opened;
  }

 private:
  std::filesystem::path path_;
};

// The root of a new file system that no path leads to and that ends with the descriptor.
inline Descriptor detached_file_system(const char* type, const char* size = nullptr) {
  const Descriptor context(::fsopen(type, FSOPEN_CLOEXEC));
  if (size != nullptr) ::fsconfig(context.get(), FSCONFIG_SET_STRING, "size", size, 0);
  ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0);
  Descriptor root(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  if (!root.is_open()) throw std::system_error(errno, std::generic_category(), type);
  return root;
}

// Overwrites in place: the file keeps its inode.
inline void write_file(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
  file.close();
  if (!file) throw std::system_error(errno, std::generic_category(), path);
}

}  // namespace ncfs
