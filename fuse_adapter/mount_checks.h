// Whether the three directories of a mount exist and can live together.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "fuse_adapter/mount_options.h"
#include "io/descriptor.h"
#include "io/types.h"

namespace ncfs {

// The backend's root directory, found by asking its file system.
struct BackendRoot {
  int error = 0;         // errno
  std::string path;      // absolute, without symbolic links, "." and ".."; empty if not known
  Descriptor directory;  // O_PATH
  struct stat attributes = {};
  bool is_on_network = false;
};
// May block for ever. With `must_be_mounted` ENODEV if it lies in what fstab(5) names, or the
// file that LIBMOUNT_FSTAB does, and is not mounted.
[[nodiscard]] BackendRoot find_backend_root(const std::string& path, bool must_be_mounted);
// Within `patience`, or ETIMEDOUT and a thread that is left behind.
[[nodiscard]] BackendRoot find_backend_root(const std::string& path, bool must_be_mounted,
                                            Nanos patience);

// Absolute, without symbolic links, "." and "..".
struct MountPlaces {
  std::string mountpoint;
  std::string backend;    // with offline_start it may have symbolic links
  std::string cache_dir;  // need not exist yet
  BackendRoot root = {};  // with offline_start `error` may say why it cannot be asked now
};

// What is wrong, in one line, if two of the places contain each other: such trees would cache the
// cache or never end.
[[nodiscard]] std::optional<std::string> check_nesting(const MountPlaces& places);

// Waits for the backend at most backend_timeout_s. An error is one line that names the option.
[[nodiscard]] std::variant<MountPlaces, OptionError> check_mount_places(
    const MountOptions& options, std::string_view mountpoint);

}  // namespace ncfs
