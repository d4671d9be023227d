#include "fuse_adapter/option_values.h"

#include <fmt/format.h>

#include <array>

namespace ncfs {
namespace {

std::string seconds(Nanos time) {
  const Nanos part = time % kSecond / kMillisecond;
  return part == 0 ? fmt::format("{}", time / kSecond)
                   : fmt::format("{}.{:03}", time / kSecond, part);
}

std::string mebibytes(std::uint64_t bytes) {
  return fmt::format("{}", bytes / kMiB);
}

std::string truth(bool value) {
  return value ? "true" : "false";
}

std::string flag(bool value) {
  return value ? "yes" : "no";
}

// The policies have the same order: automatic, yes, no.
template <typename Policy>
std::string policy(Policy value) {
  static constexpr std::array<const char*, 3> kNames = {"auto", "yes", "no"};
  return kNames.at(static_cast<std::size_t>(value));
}

std::string name_of(Checksum checksum) {
  static constexpr std::array<const char*, 3> kNames = {"off", "copy", "read"};
  return kNames.at(static_cast<std::size_t>(checksum));
}

std::string name_of(Prefetch prefetch) {
  static constexpr std::array<const char*, 3> kNames = {"off", "sequential", "smart"};
  return kNames.at(static_cast<std::size_t>(prefetch));
}

std::string name_of(MetadataProfile profile) {
  static constexpr std::array<const char*, 3> kNames = {"strict", "normal", "static"};
  return kNames.at(static_cast<std::size_t>(profile));
}

std::string name_of(CacheOn cache_on) {
  return std::string(kCacheOnNames.at(static_cast<std::size_t>(cache_on)));
}

std::string joined(const std::vector<PathGlob>& globs) {
  std::string text;
  for (const PathGlob& glob : globs) text += (text.empty() ? "" : ":") + glob.text();
  return text;
}

std::string metrics_listen(const MountOptions& options) {
  if (options.metrics_address.empty()) return {};
  const bool is_ipv6 = options.metrics_address.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", is_ipv6 ? "[" : "", options.metrics_address, is_ipv6 ? "]" : "",
                     options.metrics_port);
}

}  // namespace

std::map<std::string, std::string, std::less<>> option_values(const MountOptions& options) {
  const MetadataConfig metadata = options.metadata.config();
  const bool may_pass = options.checksum != Checksum::read &&
                        options.metadata.stale_open == StaleOpen::estale &&
                        options.passthrough != PassthroughPolicy::disabled;
  const std::string size =
      options.cache_size_bytes == 0 ? "" : fmt::format("{}B", options.cache_size_bytes);
  return {
      {"nfs_backend", options.nfs_backend},
      {"cache_dir", options.cache_dir},
      {"cache_size_gb", ""},
      {"cache_size", size},
      {"block_size_mb", mebibytes(options.block_size_bytes)},
      {"max_concurrent", fmt::format("{}", options.max_concurrent)},
      {"copy_rate_mb", mebibytes(options.copy_bytes_per_second)},
      {"eviction", std::string(to_string(options.eviction))},
      {"direct_io", truth(options.direct_io)},
      {"readahead_mb", mebibytes(options.readahead_bytes)},
      {"readahead_max_mb", mebibytes(options.readahead_max_bytes)},
      {"prefetch", name_of(options.prefetch)},
      {"min_file_size", fmt::format("{}", options.min_file_size_bytes)},
      {"max_file_size", fmt::format("{}", options.max_file_size_bytes)},
      {"include", joined(options.paths.include)},
      {"exclude", joined(options.paths.exclude)},
      {"cache_on", name_of(options.cache_on)},
      {"passthrough", may_pass ? policy(options.passthrough) : "no"},
      {"cold_passthrough", may_pass ? policy(options.cold_passthrough) : "no"},
      {"buffer_mb", mebibytes(options.buffer_bytes)},
      {"backend_timeout_s", fmt::format("{}", options.backend_timeout_seconds)},
      {"log_level", std::string(kLogLevelNames.at(static_cast<std::size_t>(options.log_level)))},
      {"min_free_percent", fmt::format("{}", options.min_free_percent)},
      {"cache_ttl_hours", fmt::format("{}", options.cache_ttl_hours)},
      {"allow_other", flag(options.allow_other)},
      {"checksum", name_of(options.checksum)},
      {"scrub_interval_h", fmt::format("{}", options.scrub_interval_hours)},
      {"locks", options.locks == LockPlace::local ? "local" : "backend"},
      {"metrics_listen", metrics_listen(options)},
      {"profile", name_of(options.metadata.profile)},
      {"entry_timeout", seconds(metadata.entry_timeout)},
      {"dir_entry_timeout", seconds(metadata.dir_entry_timeout)},
      {"attr_timeout", seconds(metadata.attr_timeout)},
      {"dir_attr_timeout", seconds(metadata.dir_attr_timeout)},
      {"negative_timeout", seconds(metadata.negative_timeout)},
      {"stale_if_error_s", seconds(metadata.stale_if_error)},
      {"negative_min_uses", fmt::format("{}", metadata.negative_min_uses)},
      {"dir_cache_mb", mebibytes(metadata.listings_bytes_max)},
      {"attr_cache_mb", mebibytes(metadata.facts_bytes_max)},
      {"cto", flag(metadata.is_close_to_open)},
      {"nocto", flag(!metadata.is_close_to_open)},
      {"stale_open", options.metadata.stale_open == StaleOpen::inval ? "inval" : "estale"},
      {"access_log", truth(options.access_log)},
      {"offline_start", truth(options.offline_start)},
  };
}

}  // namespace ncfs
