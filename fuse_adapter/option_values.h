// Which value of each mount option is in force, whether it was given, comes with a profile, follows
// from another option or is the default.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "fuse_adapter/mount_options.h"

namespace ncfs {

// By the names of mount_option_help(), as an option would be written; flags are yes or no. Empty
// for options that are off without a value and for cache_size_gb, which is told as cache_size. Of
// options as they were given; what is changed later is not known here.
[[nodiscard]] std::map<std::string, std::string, std::less<>> option_values(
    const MountOptions& options);

}  // namespace ncfs
