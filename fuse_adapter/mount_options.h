// The text after -o, turned into values. No look at the file system here: see mount_checks.h.
//
// Syntax as for mount(8): options separated by commas, the last of duplicates wins, but for include
// and exclude, which add up. A comma or a
// backslash within a value is written `\,` or `\\`, or the value is put in double quotes. Every
// error is one line that names the option, the value and what is allowed.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/config.h"
#include "fuse_adapter/cachefs.h"
#include "fuse_adapter/metadata_options.h"
#include "io/types.h"

namespace ncfs {

enum class LogLevel : std::uint8_t { trace, debug, info, warn, error };

struct MountOptions {
  std::string nfs_backend;             // required
  std::string cache_dir;               // required
  std::uint64_t cache_size_bytes = 0;  // required; cache_size_gb counts in GiB
  std::uint64_t block_size_bytes = 1 * kMiB;
  std::uint32_t max_concurrent = 4;
  std::uint64_t copy_bytes_per_second = 0;  // 0: no ceiling
  Eviction eviction = Eviction::lru;
  bool direct_io = true;
  std::uint64_t readahead_bytes = 4 * kMiB;
  std::uint64_t readahead_max_bytes = 16 * kMiB;
  Prefetch prefetch = Prefetch::smart;
  std::uint64_t min_file_size_bytes = 1;  // an empty file has nothing to cache
  std::uint64_t max_file_size_bytes = 0;  // 0: any size
  PathRules paths;
  CacheOn cache_on = CacheOn::open;
  PassthroughPolicy passthrough = PassthroughPolicy::automatic;
  ColdPassthroughPolicy cold_passthrough = ColdPassthroughPolicy::automatic;
  LogLevel log_level = LogLevel::info;
  bool access_log = false;
  bool allow_other = false;
  std::uint64_t buffer_bytes = 256 * kMiB;
  std::uint32_t backend_timeout_seconds = 30;
  bool offline_start = false;
  Checksum checksum = Checksum::copy;
  std::uint32_t scrub_interval_hours = 7 * 24;  // 0: no scrub
  std::uint32_t min_free_percent = 1;           // 0: the file system is not asked
  std::uint32_t cache_ttl_hours = 0;            // 0: for ever
  LockPlace locks = LockPlace::backend;
  std::string metrics_address;  // an IP address; empty: nothing is told over TCP
  std::uint16_t metrics_port = 0;
  std::map<std::string, std::string, std::less<>> given;  // own options as they were written
  MetadataOptions metadata;
  // MS_* of mount(2). Set-user-id programs and device files of a tree that anybody may serve are
  // not honoured unless asked for.
  unsigned long mount_flags = MS_NOSUID | MS_NODEV;
};

// The values of cache_on in order.
inline constexpr std::array<std::string_view, 3> kCacheOnNames = {"open", "read", "second-open"};

// The names of levels in order.
inline constexpr std::array<std::string_view, 5> kLogLevelNames = {"trace", "debug", "info", "warn",
                                                                   "error"};

struct OptionError {
  std::string message;
};

enum class UnknownOptions : std::uint8_t {
  refuse,
  ignore,  // mount -s
};

[[nodiscard]] std::variant<MountOptions, OptionError> parse_mount_options(
    std::string_view text, UnknownOptions unknown = UnknownOptions::refuse);

// A size as in cache_size, at least 16 blocks.
[[nodiscard]] std::variant<std::uint64_t, OptionError> parse_cache_size(
    std::string_view text, std::uint64_t block_size_bytes);

// The largest value of copy_rate_mb: beyond any link.
inline constexpr std::uint64_t kCopyRateMaxMib = 1'000'000;

// `run_id` as in Config.
[[nodiscard]] Config engine_config(const MountOptions& options, std::uint64_t run_id);

// `source_root` stays the caller's.
[[nodiscard]] MountSettings mount_settings(const MountOptions& options,
                                           const std::string& mountpoint,
                                           const std::string& source_name, int source_root);

// One option as --help shows it.
struct OptionHelp {
  std::string_view name;
  std::string_view value;    // empty for a flag
  std::string_view initial;  // value without the option; empty if there is none
  std::string_view help;
};
[[nodiscard]] std::vector<OptionHelp> mount_option_help();

}  // namespace ncfs
