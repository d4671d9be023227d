// Extended attributes that the mount itself answers and the backend never hears of: what the cache
// holds of a file, for getfattr(1) and setfattr(1).
//
//   user.cachefs.state    absent, waiting, copying, partial, complete or leaving, as
//   nfs-cachefs-ctl
//                         ls has it. Set: "warm" or "evict".
//   user.cachefs.percent  how much of it is cached, a whole number; 100 only if it is complete
//   user.cachefs.version  which version of the file the others speak of: "size=BYTES mtime=SECONDS
//                         ctime=SECONDS", the times with nine decimals
//   user.cachefs.tier     where its bytes are read: disk, backend, or disk+backend
//   user.cachefs.pinned   1 or 0. Set: the same.
//   user.cachefs.age      whole seconds since this version was written (its mtime)
//
//   curvefs.warmup.op     CurveFS's way to start and follow warm-ups; set_by_curvefs below.
//   curvefs.warmup.op.list
//
// No listing shows them, so that copies do not carry them along. Names with these beginnings are
// the mount's own: those that the backend may have are not shown and not changed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace ncfs {

enum class VirtualAttribute : std::uint8_t {
  state,
  percent,
  version,
  tier,
  pinned,
  age,
  curvefs_warmup,
  curvefs_warmups,  // of all jobs
  unknown,          // the name is ours, the attribute does not exist
};
// Nothing if the name is the backend's affair.
[[nodiscard]] std::optional<VirtualAttribute> virtual_attribute(std::string_view name);

// The list of listxattr(2) without our names.
[[nodiscard]] std::string without_virtual_attributes(std::string_view list);

// The value of one of the first six. `file` is of the version that the backend has now.
[[nodiscard]] std::string value_of(VirtualAttribute attribute, const FileReport& file,
                                   std::int64_t wall_now_ns);

// What setting one of the first six asks for.
enum class AttributeOrder : std::uint8_t { warm, evict, pin, unpin };
// Nothing if the value is not one of those that may be set, to the byte. EINVAL; for an attribute
// that cannot be set, EOPNOTSUPP.
struct ParsedOrder {
  int error = 0;
  AttributeOrder order{};
};
[[nodiscard]] ParsedOrder parse_order(VirtualAttribute attribute, std::string_view value);

// The value of curvefs.warmup.op, as CurveFS's own tool writes it:
//   add\n{single|list}\n<path>\n{disk|kvclient}\n<mount point>\n<root of the file system>
//   cancel\n{single|list}
// Exactly so many lines, no line end after the last. `path` has to name the file on which the
// attribute is set, from the root of this mount, of the file system as CurveFS knows it, or of the
// machine. EINVAL if it is anything else; EOPNOTSUPP for kvclient, a tier that there is not.
struct CurvefsOrder {
  int error = 0;
  bool is_cancel = false;
  bool is_list = false;  // the file holds the paths, one a line
  std::vector<std::string> prefixes =
      {};  // that may stand before a path from the root of this mount
};
[[nodiscard]] CurvefsOrder parse_curvefs_order(std::string_view value,
                                               std::string_view path_of_file);

// The paths in a list, from the root of this mount. Every line is an absolute path without "." and
// ".."; empty lines are skipped. Nothing if one is not.
[[nodiscard]] std::optional<std::vector<std::string>> parse_curvefs_list(
    std::string_view text, const std::vector<std::string>& prefixes);

}  // namespace ncfs
