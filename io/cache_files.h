// The operations on names of cache and source trees, as plain blocking functions.
//
// Names are relative to `root`, a directory's descriptor, and never lead out of it: absolute
// names, "..", and symbolic links anywhere in the name are refused. All functions return a value
// or -errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/io.h"

namespace ncfs {

// Not empty, relative, without empty, "." or ".." components.
[[nodiscard]] bool is_plain_name(const std::string& name);

// A descriptor of a regular file; anything else, a directory or a FIFO for instance, is -EINVAL
// and never blocks.
std::int64_t open_regular(int root, const std::string& name, int flags);

// As the operations of io.h. `create_file` leaves nothing behind when the space cannot be had.
std::int64_t create_file(int root, const std::string& name, std::uint64_t length);
std::int64_t list_directory(int root, const std::string& name, std::vector<CacheEntry>& entries);
std::int64_t sync_directory(int root, const std::string& name);
std::int64_t load_file(int root, const std::string& name, std::vector<std::byte>& bytes);
std::int64_t store_file(int root, const std::string& name, std::span<const std::byte> bytes);
std::int64_t rename_file(int root, const std::string& name, const std::string& new_name);
std::int64_t touch_file(int root, const std::string& name);
std::int64_t unlink_file(int root, const std::string& name);

// Unlinks `name`, the name of the open file `fd`, unless anybody else uses the file: another open
// file description, or a mapping, which outlives the close of what it was made from. Then -EBUSY.
// `fd` itself, and descriptors and mappings made from it, do not count; neither does O_PATH.
// Found out by a write lease, which the kernel grants to the only user of a file and which also
// makes opens wait until the name is gone. Where the file system has no leases it just unlinks.
std::int64_t unlink_unused_file(int root, const std::string& name, int fd);

}  // namespace ncfs
