// The options of mount(8).
#include "fuse_adapter/mount_options.h"

#include <variant>

#include "proptests/fuzz/fuzz_target.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ncfs;
  const auto parsed = parse_mount_options(fuzz::text_of(data, size));
  if (const auto* error = std::get_if<OptionError>(&parsed)) {
    fuzz::require(!error->message.empty(), "an error says what is wrong");
    fuzz::require(error->message.find('\n') == std::string::npos, "an error is one line");
    return 0;
  }
  const auto& options = std::get<MountOptions>(parsed);
  fuzz::require(!options.nfs_backend.empty() && !options.cache_dir.empty(),
                "what is required is there");
  const Config config = engine_config(options, 1);
  fuzz::require(config.cache_size_bytes >= 16 * config.block_size_bytes,
                "a cache holds some blocks");
  return 0;
}
