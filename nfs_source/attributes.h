// File attributes of NFSv4 (RFC 7530, section 5), as much of them as stat(2) and statvfs(3) show.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "nfs_source/xdr_reader.h"

namespace ncfs {

// Attributes are asked for, and answered, by number: bit n%32 of word n/32.
using AttributeMask = std::array<std::uint32_t, 2>;

struct FileAttributes {
  struct stat status = {};
  std::uint64_t filesystem_major = 0;
  std::uint64_t filesystem_minor = 0;
  // Of the file system; only of those that were asked for.
  struct statvfs space = {};
  std::uint64_t read_bytes_max = 0;
  std::uint64_t write_bytes_max = 0;
};

[[nodiscard]] const AttributeMask& file_attribute_mask();   // what `status` needs
[[nodiscard]] const AttributeMask& entry_attribute_mask();  // kind and file id
[[nodiscard]] const AttributeMask& space_attribute_mask();  // what `space` needs
[[nodiscard]] const AttributeMask& limit_attribute_mask();  // what one call may carry

// Reads an fattr4; the reader fails if that cannot be understood. What the server does not tell is
// zero. Owners are numbers (RFC 7530, section 5.9) or names that this machine knows; others are
// nobody's. Looking up a name may block.
[[nodiscard]] FileAttributes read_attributes(XdrReader& reader);

struct AttributeChanges {
  // Of a time: the server's clock.
  static constexpr timespec kNow{0, -1};

  std::optional<std::uint64_t> size;
  std::optional<mode_t> mode;
  std::optional<uid_t> user;
  std::optional<gid_t> group;
  std::optional<timespec> access_time;
  std::optional<timespec> modify_time;
};

// An attribute mask and the values in order of their numbers, as an fattr4 has them.
struct EncodedAttributes {
  AttributeMask mask{};
  std::string values;
};
[[nodiscard]] EncodedAttributes encode_attributes(const AttributeChanges& changes);

}  // namespace ncfs
