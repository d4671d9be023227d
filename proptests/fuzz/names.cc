// Names found in a cache directory, and the mount table.
#include <string>

#include "engine/format.h"
#include "fuse_adapter/mount_table.h"
#include "proptests/fuzz/fuzz_target.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ncfs;
  const std::string_view text = fuzz::text_of(data, size);
  if (const auto name = parse_object_name(text)) {
    fuzz::require(name->stem + std::string(suffix(name->kind)) == text,
                  "a name is its stem and its suffix");
  }
  for (const MountEntry& entry : parse_mount_table(text)) {
    fuzz::require(!entry.mountpoint.empty(), "every mount has a place");
  }
  return 0;
}
