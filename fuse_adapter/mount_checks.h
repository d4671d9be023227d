// Whether the three directories of a mount exist and can live together.
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "fuse_adapter/mount_options.h"

namespace ncfs {

// Absolute, without symbolic links, "." and "..".
struct MountPlaces {
  std::string mountpoint;
  std::string backend;
  std::string cache_dir;  // need not exist yet
};

// Waits as long as the backend takes to answer a stat. An error is one line that names the option.
[[nodiscard]] std::variant<MountPlaces, OptionError> check_mount_places(
    const MountOptions& options, std::string_view mountpoint);

}  // namespace ncfs
