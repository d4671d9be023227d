// Two tables drive everything: the options of this file system with their setters, and the
// options every file system has with the mount flags they stand for.
#include "fuse_adapter/mount_options.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/mount.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <numeric>
#include <optional>

#include "fuse_adapter/printable.h"
#include "io/nfs_url.h"

namespace ncfs {
namespace {

// What is set and what only matters until all options have been read.
struct Draft {
  MountOptions options;
  bool has_cache_size = false;
  bool has_cache_size_gb = false;
};

struct OwnOption {
  OptionHelp help;
  std::string_view allowed;  // follows "must be"
  bool (*set)(Draft& draft, std::string_view value);
};

template <typename Number>
std::optional<Number> parse_number(std::string_view text, Number low, Number high) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (value < low || value > high) return std::nullopt;
  return value;
}

std::optional<unsigned> unit_shift(std::string_view unit) {
  static constexpr std::string_view kPrefixes = "KMGT";
  if (unit.empty() || unit == "B") return 0;
  const auto letter = kPrefixes.find(static_cast<char>(unit[0] & ~0x20));  // upper case
  if (letter == std::string_view::npos) return std::nullopt;
  const std::string_view rest = unit.substr(1);
  if (!rest.empty() && rest != "iB" && rest != "B" && rest != "ib" && rest != "b") {
    return std::nullopt;
  }
  return static_cast<unsigned>(letter + 1) * 10;
}

// A number with an optional unit; K and KiB are both 1024.
std::optional<std::uint64_t> parse_size(std::string_view text) {
  const auto digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto number = parse_number<std::uint64_t>(text.substr(0, digits), 0,
                                                  std::numeric_limits<std::uint64_t>::max());
  const auto shift = unit_shift(text.substr(digits));
  // Offsets of files are signed 64-bit numbers; nothing larger makes sense.
  static constexpr std::uint64_t kLargest = std::numeric_limits<std::int64_t>::max();
  if (!number || !shift || *number > (kLargest >> *shift)) return std::nullopt;
  return *number << *shift;
}

std::optional<bool> parse_bool(std::string_view text) {
  for (const std::string_view yes : {"true", "yes", "on", "1"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"false", "no", "off", "0"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

// Stores a parsed value; false if there was none.
template <typename Target, typename Value>
bool assign(Target& target, const std::optional<Value>& value) {
  if (value) target = static_cast<Target>(*value);
  return value.has_value();
}

bool set_path(std::string& target, std::string_view value) {
  if (!value.starts_with('/')) return false;
  target = value;
  return true;
}

bool set_mebibytes(std::uint64_t& target, std::string_view value, std::uint64_t low,
                   std::uint64_t high) {
  const auto number = parse_number<std::uint64_t>(value, low, high);
  if (number) target = *number * kMiB;
  return number.has_value();
}

bool set_eviction(Draft& draft, std::string_view value) {
  for (const Eviction eviction : {Eviction::lru, Eviction::lfu, Eviction::arc, Eviction::s3fifo}) {
    if (value != to_string(eviction)) continue;
    draft.options.eviction = eviction;
    return true;
  }
  return false;
}

// auto, yes or no.
template <typename Policy>
bool set_policy(Policy& policy, std::string_view value, Policy yes, Policy no) {
  const auto wanted = parse_bool(value);
  if (!wanted && value != "auto") return false;
  policy = !wanted ? Policy::automatic : *wanted ? yes : no;
  return true;
}

bool set_log_level(Draft& draft, std::string_view value) {
  const auto* name = std::ranges::find(kLogLevelNames, value);
  if (name == kLogLevelNames.end()) return false;
  draft.options.log_level = static_cast<LogLevel>(name - kLogLevelNames.begin());
  return true;
}

bool set_metrics_listen(Draft& draft, std::string_view value) {
  const std::size_t colon = value.rfind(':');
  if (colon == std::string_view::npos) return false;
  std::string address(value.substr(0, colon));
  const bool has_brackets = address.starts_with('[') && address.ends_with(']');
  if (has_brackets) address = address.substr(1, address.size() - 2);
  in6_addr ignored{};
  if (inet_pton(has_brackets ? AF_INET6 : AF_INET, address.c_str(), &ignored) != 1) return false;
  const auto port = parse_number<std::uint16_t>(value.substr(colon + 1), 1, 65535);
  draft.options.metrics_address = std::move(address);
  return assign(draft.options.metrics_port, port);
}

bool set_cache_on(Draft& draft, std::string_view value) {
  const auto* name = std::ranges::find(kCacheOnNames, value);
  if (name == kCacheOnNames.end()) return false;
  draft.options.cache_on = static_cast<CacheOn>(name - kCacheOnNames.begin());
  return true;
}

constexpr std::string_view kGlobsAllowed =
    "paths within the mount with * ? [...] and **, separated by colons, at most 64 of up to 1024 "
    "bytes";

bool add_globs(std::vector<PathGlob>& globs, std::string_view value) {
  while (true) {
    const std::size_t colon = value.find(':');
    auto glob = PathGlob::parse(value.substr(0, colon));
    if (!glob || globs.size() == PathRules::kGlobsMax) return false;
    globs.push_back(std::move(*glob));
    if (colon == std::string_view::npos) return true;
    value.remove_prefix(colon + 1);
  }
}

bool set_checksum(Draft& draft, std::string_view value) {
  static constexpr std::array<std::string_view, 3> kNames = {"off", "copy", "read"};
  const auto* name = std::find(kNames.begin(), kNames.end(), value);
  if (name == kNames.end()) return false;
  draft.options.checksum = static_cast<Checksum>(name - kNames.begin());
  return true;
}

bool set_prefetch(Draft& draft, std::string_view value) {
  static constexpr std::array<std::string_view, 3> kNames = {"off", "sequential", "smart"};
  const auto* name = std::find(kNames.begin(), kNames.end(), value);
  if (name == kNames.end()) return false;
  draft.options.prefetch = static_cast<Prefetch>(name - kNames.begin());
  return true;
}

constexpr std::string_view kBoolAllowed = "true or false";

template <bool MountOptions::*kSwitch>
bool set_bool(Draft& draft, std::string_view value) {
  return assign(draft.options.*kSwitch, parse_bool(value));
}

constexpr std::string_view kFileSizeAllowed = "a size such as 64K, 1M or 1GiB (powers of 1024)";

template <std::uint64_t MountOptions::*kSize>
bool set_file_size(Draft& draft, std::string_view value) {
  return assign(draft.options.*kSize, parse_size(value));
}

constexpr std::string_view kTimeoutAllowed = "seconds from 0 to 31536000, such as 5 or 0.25";

template <std::optional<Nanos> MetadataOptions::*kTimeout>
bool set_timeout(Draft& draft, std::string_view value) {
  return assign(draft.options.metadata.*kTimeout, parse_timeout(value));
}

bool set_stale_open(Draft& draft, std::string_view value) {
  if (value != "estale" && value != "inval") return false;
  draft.options.metadata.stale_open = value == "inval" ? StaleOpen::inval : StaleOpen::estale;
  return true;
}

// Limits: a block is a buffer, an unpublished unit and one wire request, so 16 MiB is where it
// stops to help; 64 copies saturate any disk; 1 PiB of cache is beyond any node and keeps sums of
// sizes far from overflow.
constexpr std::uint64_t kCacheSizeMaxGib = std::uint64_t{1024} * 1024;
constexpr std::string_view kLimitAllowed =
    "a size such as 500M, 50G or 2TiB (powers of 1024), at most 1024T";
constexpr std::uint64_t kCacheBlocksMin = 16;

std::optional<std::uint64_t> parse_limit(std::string_view text) {
  const auto size = parse_size(text);
  if (!size || *size == 0 || *size > kCacheSizeMaxGib * kGiB) return std::nullopt;
  return size;
}

const std::array kOwnOptions = {
    OwnOption{{"nfs_backend", "DIR", "",
               "the mounted NFS (or any other) directory to cache, or nfs://server/export"},
              "an absolute path or nfs://server/export",
              [](Draft& draft, std::string_view value) {
                if (!is_nfs_url(value)) return set_path(draft.options.nfs_backend, value);
                draft.options.nfs_backend = value;
                return true;
              }},
    OwnOption{{"cache_dir", "DIR", "", "local directory that holds the cache; created if missing"},
              "an absolute path",
              [](Draft& draft, std::string_view value) {
                return set_path(draft.options.cache_dir, value);
              }},
    OwnOption{{"cache_size_gb", "N", "", "hard limit of the cache in GiB (2^30 bytes)"},
              "a whole number from 1 to 1048576 (GiB)",
              [](Draft& draft, std::string_view value) {
                const auto gib = parse_number<std::uint64_t>(value, 1, kCacheSizeMaxGib);
                if (gib) draft.options.cache_size_bytes = *gib * kGiB;
                draft.has_cache_size_gb = true;
                return gib.has_value();
              }},
    OwnOption{{"cache_size", "SIZE", "", "the same with a unit: 500M, 50G, 2TiB"},
              kLimitAllowed,
              [](Draft& draft, std::string_view value) {
                const auto size = parse_limit(value);
                if (!size) return false;
                draft.options.cache_size_bytes = *size;
                draft.has_cache_size = true;
                return true;
              }},
    OwnOption{{"block_size_mb", "N", "1", "unit of fetching and of partial caching in MiB, 1-16"},
              "a whole number from 1 to 16 (MiB)",
              [](Draft& draft, std::string_view value) {
                return set_mebibytes(draft.options.block_size_bytes, value, 1, 16);
              }},
    OwnOption{{"max_concurrent", "N", "4", "files copied into the cache at a time, 1-64"},
              "a whole number from 1 to 64",
              [](Draft& draft, std::string_view value) {
                return assign(draft.options.max_concurrent,
                              parse_number<std::uint32_t>(value, 1, 64));
              }},
    OwnOption{{"copy_rate_mb", "N", "0",
               "MiB a second that all copies together read from the backend at most; 0: no limit"},
              "a whole number from 0 to 1000000 (MiB a second)",
              [](Draft& draft, std::string_view value) {
                return set_mebibytes(draft.options.copy_bytes_per_second, value, 0,
                                     kCopyRateMaxMib);
              }},
    OwnOption{{"eviction", "POLICY", "lru",
               "what to drop first when the cache is full: lru, lfu, arc or s3fifo"},
              "lru, lfu, arc or s3fifo",
              set_eviction},
    OwnOption{{"direct_io", "BOOL", "true", "copying leaves no second copy in the page cache"},
              kBoolAllowed,
              set_bool<&MountOptions::direct_io>},
    OwnOption{{"readahead_mb", "N", "4", "MiB fetched ahead of a sequential reader, 0-64"},
              "a whole number from 0 to 64 (MiB)",
              [](Draft& draft, std::string_view value) {
                return set_mebibytes(draft.options.readahead_bytes, value, 0, 64);
              }},
    OwnOption{{"readahead_max_mb", "N", "16",
               "MiB fetched ahead if the reader has to wait for them all the same, 0-256"},
              "a whole number from 0 to 256 (MiB)",
              [](Draft& draft, std::string_view value) {
                return set_mebibytes(draft.options.readahead_max_bytes, value, 0, 256);
              }},
    OwnOption{{"prefetch", "MODE", "smart",
               "what is fetched before anybody asks for it: off, sequential or smart"},
              "off, sequential or smart",
              set_prefetch},
    OwnOption{{"min_file_size", "SIZE", "1", "smaller files are read through and not cached"},
              kFileSizeAllowed,
              set_file_size<&MountOptions::min_file_size_bytes>},
    OwnOption{{"max_file_size", "SIZE", "0",
               "larger files are read through and not cached; 0: none are too large"},
              kFileSizeAllowed,
              set_file_size<&MountOptions::max_file_size_bytes>},
    OwnOption{{"include", "GLOBS", "",
               "cache only what is at or beneath these paths: *.bin, /data/**/new; several "
               "separated by colons, or the option again"},
              kGlobsAllowed,
              [](Draft& draft, std::string_view value) {
                return add_globs(draft.options.paths.include, value);
              }},
    OwnOption{{"exclude", "GLOBS", "", "the same for what is not cached; wins over include"},
              kGlobsAllowed,
              [](Draft& draft, std::string_view value) {
                return add_globs(draft.options.paths.exclude, value);
              }},
    OwnOption{{"cache_on", "WHEN", "open",
               "what it takes for a file to be copied: open, read or second-open"},
              "open, read or second-open",
              set_cache_on},
    OwnOption{{"passthrough", "MODE", "auto",
               "let the kernel read cached files itself: auto, yes (or fail), no"},
              "auto, yes or no",
              [](Draft& draft, std::string_view value) {
                return set_policy(draft.options.passthrough, value, PassthroughPolicy::required,
                                  PassthroughPolicy::disabled);
              }},
    OwnOption{{"cold_passthrough", "MODE", "auto",
               "let the kernel read files not yet cached from the backend itself, and write "
               "there: auto (unless it is on the network), yes, no"},
              "auto, yes or no",
              [](Draft& draft, std::string_view value) {
                return set_policy(draft.options.cold_passthrough, value,
                                  ColdPassthroughPolicy::enabled, ColdPassthroughPolicy::disabled);
              }},
    OwnOption{
        {"buffer_mb", "N", "256", "memory for data in flight in MiB, 8-16384, 8 blocks or more"},
        "a whole number from 8 to 16384 (MiB)",
        [](Draft& draft, std::string_view value) {
          return set_mebibytes(draft.options.buffer_bytes, value, 8, 16384);
        }},
    OwnOption{{"backend_timeout_s", "N", "30",
               "seconds after which a backend that does not answer is an error, 1-86400"},
              "a whole number from 1 to 86400 (seconds)",
              [](Draft& draft, std::string_view value) {
                return assign(draft.options.backend_timeout_seconds,
                              parse_number<std::uint32_t>(value, 1, 86400));
              }},
    OwnOption{{"log_level", "LEVEL", "info", "trace, debug, info, warn or error"},
              "trace, debug, info, warn or error",
              set_log_level},
    OwnOption{
        {"min_free_percent", "N", "1", "percent of the cache's file system that stays free, 0-90"},
        "a whole number from 0 to 90 (percent)",
        [](Draft& draft, std::string_view value) {
          return assign(draft.options.min_free_percent, parse_number<std::uint32_t>(value, 0, 90));
        }},
    OwnOption{{"cache_ttl_hours", "N", "0",
               "hours after which a file that was not used is dropped; 0 is never"},
              "a whole number from 0 to 876000 (hours, a hundred years)",
              [](Draft& draft, std::string_view value) {
                return assign(draft.options.cache_ttl_hours,
                              parse_number<std::uint32_t>(value, 0, 876000));
              }},
    OwnOption{{"allow_other", "", "", "users other than the one who mounts may use the mount"},
              "",
              [](Draft& draft, std::string_view) {
                draft.options.allow_other = true;
                return true;
              }},
    OwnOption{{"checksum", "WHEN", "copy",
               "checksums of cached blocks: off, made by the copy, compared at every read"},
              "off, copy or read",
              set_checksum},
    OwnOption{
        {"scrub_interval_h", "N", "168",
         "hours between two comparisons of a cached file with its checksums, 0-8760; 0: none"},
        "a whole number from 0 to 8760 (hours)",
        [](Draft& draft, std::string_view value) {
          return assign(draft.options.scrub_interval_hours,
                        parse_number<std::uint32_t>(value, 0, 8760));
        }},
    OwnOption{{"locks", "PLACE", "backend",
               "locks of fcntl(2) and flock(2): backend, where they hold against its other users, "
               "too, or local, among the users of this mount"},
              "backend or local",
              [](Draft& draft, std::string_view value) {
                draft.options.locks = value == "local" ? LockPlace::local : LockPlace::backend;
                return value == "local" || value == "backend";
              }},
    OwnOption{{"metrics_listen", "ADDR:PORT", "",
               "tell metrics over TCP at this address: 127.0.0.1:9100, [::1]:9100"},
              "an IP address and a port, such as 127.0.0.1:9100 or [::1]:9100",
              set_metrics_listen},
    OwnOption{{"profile", "NAME", "normal",
               "how long names and attributes are believed: strict (0 s, always asked), normal "
               "(1 s), static (an hour, and opens do not ask)"},
              "strict, normal or static",
              [](Draft& draft, std::string_view value) {
                return assign(draft.options.metadata.profile, parse_profile(value));
              }},
    OwnOption{{"entry_timeout", "S", "1", "seconds for which a name of a file is believed"},
              kTimeoutAllowed,
              set_timeout<&MetadataOptions::entry_timeout>},
    OwnOption{{"dir_entry_timeout", "S", "1", "the same for a name of a directory"},
              kTimeoutAllowed,
              set_timeout<&MetadataOptions::dir_entry_timeout>},
    OwnOption{{"attr_timeout", "S", "1", "seconds for which attributes of a file are believed"},
              kTimeoutAllowed,
              set_timeout<&MetadataOptions::attr_timeout>},
    OwnOption{{"dir_attr_timeout", "S", "1", "the same for attributes of a directory"},
              kTimeoutAllowed,
              set_timeout<&MetadataOptions::dir_attr_timeout>},
    OwnOption{{"negative_timeout", "S", "0",
               "seconds for which it is believed that there is no such name; 0: not at all"},
              kTimeoutAllowed,
              set_timeout<&MetadataOptions::negative_timeout>},
    OwnOption{{"negative_min_uses", "N", "1",
               "how often a name has to be missed within a minute for that, 1-1000"},
              "a whole number from 1 to 1000",
              [](Draft& draft, std::string_view value) {
                return assign(draft.options.metadata.negative_min_uses,
                              parse_number<std::uint32_t>(value, 1, 1000));
              }},
    OwnOption{{"dir_cache_mb", "N", "256", "memory for listings of directories in MiB, 0-65536"},
              "a whole number from 0 to 65536 (MiB)",
              [](Draft& draft, std::string_view value) {
                return set_mebibytes(draft.options.metadata.dir_cache_bytes, value, 0, 65536);
              }},
    OwnOption{{"attr_cache_mb", "N", "128", "memory for names and attributes in MiB, 1-65536"},
              "a whole number from 1 to 65536 (MiB)",
              [](Draft& draft, std::string_view value) {
                return set_mebibytes(draft.options.metadata.attr_cache_bytes, value, 1, 65536);
              }},
    OwnOption{{"cto", "", "", "every open asks the backend (close-to-open); the default"},
              "",
              [](Draft& draft, std::string_view) {
                draft.options.metadata.is_close_to_open = true;
                return true;
              }},
    OwnOption{{"nocto", "", "", "an open within the attribute timeout does not ask the backend"},
              "",
              [](Draft& draft, std::string_view) {
                draft.options.metadata.is_close_to_open = false;
                return true;
              }},
    OwnOption{{"stale_open", "HOW", "estale",
               "what an open of a changed file does: estale (the kernel looks up again, unseen by "
               "programs), inval (for overlayfs and nfsd on top, which do not)"},
              "estale or inval",
              set_stale_open},
    OwnOption{{"access_log", "BOOL", "false",
               "log every open for reading, with what was found and who asked"},
              kBoolAllowed,
              set_bool<&MountOptions::access_log>},
    OwnOption{{"stale_if_error_s", "S", "0",
               "while the backend does not answer, what is known and cached is told until it is so "
               "many seconds old; 0: not at all"},
              kTimeoutAllowed,
              set_timeout<&MetadataOptions::stale_if_error>},
    OwnOption{{"offline_start", "BOOL", "false",
               "mount though the backend does not answer or is not mounted yet; it is down until "
               "it is there"},
              kBoolAllowed,
              set_bool<&MountOptions::offline_start>},
};

// Options of every file system: see mount(8).
struct GenericOption {
  std::string_view name;
  unsigned long clear = 0;
  unsigned long set = 0;
};

constexpr unsigned long kAtimeFlags = MS_NOATIME | MS_RELATIME | MS_STRICTATIME;
constexpr unsigned long kUntrusted = MS_NOSUID | MS_NODEV;

constexpr std::array kGenericOptions = {
    GenericOption{"ro", 0, MS_RDONLY}, GenericOption{"rw", MS_RDONLY, 0},
    GenericOption{"suid", MS_NOSUID, 0}, GenericOption{"nosuid", 0, MS_NOSUID},
    GenericOption{"dev", MS_NODEV, 0}, GenericOption{"nodev", 0, MS_NODEV},
    GenericOption{"exec", MS_NOEXEC, 0}, GenericOption{"noexec", 0, MS_NOEXEC},
    GenericOption{"sync", 0, MS_SYNCHRONOUS}, GenericOption{"async", MS_SYNCHRONOUS, 0},
    GenericOption{"dirsync", 0, MS_DIRSYNC}, GenericOption{"atime", MS_NOATIME, 0},
    GenericOption{"noatime", kAtimeFlags, MS_NOATIME}, GenericOption{"diratime", MS_NODIRATIME, 0},
    GenericOption{"nodiratime", 0, MS_NODIRATIME},
    GenericOption{"relatime", kAtimeFlags, MS_RELATIME},
    GenericOption{"norelatime", MS_RELATIME, 0},
    GenericOption{"strictatime", kAtimeFlags, MS_STRICTATIME},
    GenericOption{"nostrictatime", MS_STRICTATIME, 0}, GenericOption{"lazytime", 0, MS_LAZYTIME},
    GenericOption{"nolazytime", MS_LAZYTIME, 0}, GenericOption{"silent", 0, MS_SILENT},
    GenericOption{"loud", MS_SILENT, 0},
    // A mount that ordinary users may ask for is not trusted, unless a later option says so.
    GenericOption{"user", 0, kUntrusted | MS_NOEXEC},
    GenericOption{"users", 0, kUntrusted | MS_NOEXEC}, GenericOption{"owner", 0, kUntrusted},
    GenericOption{"group", 0, kUntrusted},
    // mount(8) keeps suid and dev from its helpers, as they are the default of other file systems.
    GenericOption{"allow_suid", MS_NOSUID, 0}, GenericOption{"allow_dev", MS_NODEV, 0},
    // For mount(8) itself, for the boot scripts, or without meaning for FUSE.
    GenericOption{"nouser"}, GenericOption{"noowner"}, GenericOption{"nogroup"},
    GenericOption{"defaults"}, GenericOption{"auto"}, GenericOption{"noauto"},
    GenericOption{"_netdev"}, GenericOption{"nofail"}, GenericOption{"iversion"},
    GenericOption{"noiversion"}, GenericOption{"mand"}, GenericOption{"nomand"},
    GenericOption{"default_permissions"},  // always on
};

// Of a remount alone: its mark, and what the kernel lists of every FUSE mount.
constexpr std::array<std::string_view, 4> kRemountOptions = {"remount", "user_id", "group_id",
                                                             "max_read"};

constexpr std::array<std::string_view, 4> kIgnoredPrefixes = {"x-", "X-", "comment=", "user="};

bool is_ignored(std::string_view text) {
  return std::any_of(kIgnoredPrefixes.begin(), kIgnoredPrefixes.end(),
                     [text](std::string_view prefix) { return text.starts_with(prefix); });
}

struct Assignment {
  std::string name;
  std::string value;
  bool has_value = false;
};

// Cuts at the commas and takes escapes and quotes off. nullopt: a quote is not closed.
std::optional<std::vector<Assignment>> split(std::string_view text) {
  std::vector<Assignment> result;
  Assignment current;
  bool quoted = false;
  const auto target = [&current]() -> std::string& {
    return current.has_value ? current.value : current.name;
  };
  const auto flush = [&] {
    if (!current.name.empty() || current.has_value) result.push_back(std::move(current));
    current = {};
  };
  for (std::size_t index = 0; index < text.size(); ++index) {
    const char letter = text[index];
    const char next = index + 1 < text.size() ? text[index + 1] : '\0';
    if (letter == '\\' && (next == ',' || next == '\\')) {
      target() += next;
      ++index;
    } else if (letter == '"' && current.has_value && (quoted || current.value.empty())) {
      quoted = !quoted;
    } else if (letter == ',' && !quoted) {
      flush();
    } else if (letter == '=' && !current.has_value) {
      current.has_value = true;
    } else {
      target() += letter;
    }
  }
  flush();
  if (quoted) return std::nullopt;
  return result;
}

std::size_t edit_distance(std::string_view left, std::string_view right) {
  std::vector<std::size_t> row(right.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= left.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const std::size_t replaced = diagonal + (left[i - 1] == right[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[right.size()];
}

// The known option that `name` may have been meant to be; empty if none is near.
std::string_view nearest_option(std::string_view name) {
  std::string_view best;
  // In short names even two letters are another word.
  std::size_t best_distance = std::max<std::size_t>(1, name.size() / 4) + 1;
  const auto consider = [&](std::string_view candidate) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  };
  for (const OwnOption& option : kOwnOptions) consider(option.help.name);
  for (const GenericOption& option : kGenericOptions) consider(option.name);
  return best;
}

std::string unknown_option_message(std::string_view name) {
  const std::string_view nearest = nearest_option(name);
  if (nearest.empty()) return fmt::format("unknown option '{}'", name);
  return fmt::format("unknown option '{}' (did you mean '{}'?)", name, nearest);
}

std::optional<std::string> apply_own(Draft& draft, const OwnOption& option,
                                     const Assignment& assignment) {
  const bool is_flag = option.help.value.empty();
  if (is_flag && assignment.has_value) {
    return fmt::format("option {}={}: takes no value", assignment.name, assignment.value);
  }
  // Like all boolean mount options, direct_io alone means yes.
  const bool is_bare_bool = !assignment.has_value && option.help.value == "BOOL";
  const std::string_view value = is_bare_bool ? "true" : std::string_view(assignment.value);
  if (!is_flag && !is_bare_bool && !assignment.has_value) {
    return fmt::format("option {} needs a value: {}", assignment.name, option.allowed);
  }
  if (!option.set(draft, value)) {
    return fmt::format("option {}={}: must be {}", assignment.name, value, option.allowed);
  }
  return std::nullopt;
}

// One option; the error, if any.
std::optional<std::string> apply(Draft& draft, const Assignment& assignment,
                                 UnknownOptions unknown) {
  for (const OwnOption& option : kOwnOptions) {
    if (option.help.name != own_spelling(assignment.name)) continue;
    draft.options.given[std::string(option.help.name)] =
        assignment.has_value ? assignment.value : "true";
    return apply_own(draft, option, assignment);
  }
  if (is_ignored(assignment.has_value ? assignment.name + "=" : assignment.name)) {
    return std::nullopt;
  }
  for (const GenericOption& option : kGenericOptions) {
    if (option.name != assignment.name) continue;
    if (assignment.has_value) {
      return fmt::format("option {}={}: takes no value", assignment.name, assignment.value);
    }
    unsigned long& flags = draft.options.mount_flags;
    flags = (flags & ~option.clear) | option.set;
    return std::nullopt;
  }
  if (unknown == UnknownOptions::ignore) return std::nullopt;
  return unknown_option_message(assignment.name);
}

// What only shows once all options are known; the error, if any.
std::optional<std::string> check_together(const Draft& draft) {
  const MountOptions& options = draft.options;
  if (options.nfs_backend.empty()) {
    return "option nfs_backend is required: the directory to cache, e.g. nfs_backend=/mnt/nfs";
  }
  if (is_nfs_url(options.nfs_backend)) {
    const auto url = parse_nfs_url(options.nfs_backend);
    if (const auto* error = std::get_if<NfsUrlError>(&url)) {
      return fmt::format("option nfs_backend={}: {}", options.nfs_backend, error->message);
    }
    if (options.given.contains("locks") && options.locks == LockPlace::backend) {
      return "options nfs_backend=nfs://... and locks=backend exclude each other: no locks are taken "
             "at the server; use locks=local, or the path of an NFS mount";
    }
    if (options.offline_start) {
      return "options nfs_backend=nfs://... and offline_start exclude each other: the server must "
             "answer when it is mounted; use the path of an NFS mount";
    }
  }
  if (options.cache_dir.empty()) {
    return "option cache_dir is required: a local directory, e.g. cache_dir=/mnt/nvme/cache";
  }
  if (draft.has_cache_size && draft.has_cache_size_gb) {
    return "options cache_size and cache_size_gb mean the same: give only one of them";
  }
  if (options.cache_size_bytes == 0) {
    return "option cache_size_gb is required: the limit of the cache, e.g. cache_size_gb=50 or "
           "cache_size=500M";
  }
  if (options.passthrough == PassthroughPolicy::disabled &&
      options.cold_passthrough == ColdPassthroughPolicy::enabled) {
    return "option cold_passthrough=yes needs passthrough, which passthrough=no switches off";
  }
  if (options.cache_on == CacheOn::read &&
      options.cold_passthrough == ColdPassthroughPolicy::enabled) {
    return "options cache_on=read and cold_passthrough=yes exclude each other: what the kernel "
           "reads from the backend by itself nobody sees";
  }
  if (options.max_file_size_bytes > 0 &&
      options.max_file_size_bytes < options.min_file_size_bytes) {
    return fmt::format("options min_file_size={} and max_file_size={} leave no file to cache",
                       options.min_file_size_bytes, options.max_file_size_bytes);
  }
  if (options.metadata.stale_open == StaleOpen::inval &&
      options.passthrough == PassthroughPolicy::required) {
    return "options stale_open=inval and passthrough=yes exclude each other: what the kernel reads "
           "by itself changes only when it looks up again";
  }
  // Fewer blocks than the copies and readers in flight would make every copy evict another.
  const std::uint64_t block_mib = options.block_size_bytes / kMiB;
  if (options.cache_size_bytes < kCacheBlocksMin * options.block_size_bytes) {
    return fmt::format(
        "the cache size of {} MiB is too small: must be at least 16 blocks, {} MiB "
        "with block_size_mb={}",
        options.cache_size_bytes / kMiB, kCacheBlocksMin * block_mib, block_mib);
  }
  // Eight blocks: four for readers, as many for the copier.
  if (options.buffer_bytes < 8 * options.block_size_bytes) {
    return fmt::format(
        "option buffer_mb={}: must be at least 8 blocks, {} MiB with "
        "block_size_mb={}",
        options.buffer_bytes / kMiB, 8 * block_mib, block_mib);
  }
  if (options.checksum == Checksum::read && options.passthrough == PassthroughPolicy::required) {
    return "options checksum=read and passthrough=yes exclude each other: the kernel compares "
           "nothing";
  }
  return std::nullopt;
}

// Whatever the options hold.
OptionError error_of(const std::string& message) {
  return {printable(message)};
}

}  // namespace

std::variant<MountOptions, OptionError> parse_mount_options(std::string_view text,
                                                            UnknownOptions unknown) {
  const auto assignments = split(text);
  if (!assignments) return error_of(fmt::format("options end within a quoted value: {}", text));
  Draft draft;
  for (const Assignment& assignment : *assignments) {
    if (auto error = apply(draft, assignment, unknown)) return error_of(*error);
  }
  if (auto error = check_together(draft)) return error_of(*error);
  if (is_nfs_url(draft.options.nfs_backend)) draft.options.locks = LockPlace::local;
  return std::move(draft.options);
}

bool asks_to_remount(std::string_view text) {
  const auto assignments = split(text);
  return assignments &&
         std::ranges::find(*assignments, "remount", &Assignment::name) != assignments->end();
}

std::variant<MountOptions, OptionError> parse_remount_options(std::string_view text,
                                                              UnknownOptions unknown,
                                                              unsigned long untrusted) {
  Draft draft;
  draft.options.mount_flags = untrusted;
  for (const Assignment& assignment : split(text).value_or(std::vector<Assignment>())) {
    if (std::ranges::find(kRemountOptions, assignment.name) != kRemountOptions.end()) continue;
    if (auto error = apply(draft, assignment, unknown)) return error_of(*error);
  }
  return std::move(draft.options);
}

std::variant<std::uint64_t, OptionError> parse_cache_size(std::string_view text,
                                                          std::uint64_t block_size_bytes) {
  const auto size = parse_limit(text);
  if (!size) return error_of(fmt::format("size {}: must be {}", text, kLimitAllowed));
  if (*size < kCacheBlocksMin * block_size_bytes) {
    return error_of(fmt::format("size {}: must be at least {} blocks, {} MiB", text,
                                kCacheBlocksMin, kCacheBlocksMin * block_size_bytes / kMiB));
  }
  return *size;
}

Config engine_config(const MountOptions& options, std::uint64_t run_id) {
  Config config;
  config.cache_size_bytes = options.cache_size_bytes;
  config.block_size_bytes = options.block_size_bytes;
  config.min_file_size_bytes = options.min_file_size_bytes;
  config.max_file_size_bytes = options.max_file_size_bytes;
  config.paths = options.paths;
  config.cache_on = options.cache_on;
  config.copies_max = options.max_concurrent;
  config.copy_bytes_per_second = options.copy_bytes_per_second;
  config.eviction = options.eviction;
  config.buffers = static_cast<std::uint32_t>(options.buffer_bytes / options.block_size_bytes);
  // A quarter, as in the defaults; at least the four that check_together() counts on.
  config.buffers_reserved = std::max<std::uint32_t>(4, config.buffers / 4);
  config.readahead_bytes = options.readahead_bytes;
  config.readahead_max_bytes = options.readahead_max_bytes;
  config.prefetch = options.prefetch;
  config.source_deadline = options.backend_timeout_seconds * kSecond;
  config.checksum = options.checksum;
  config.scrub_interval = options.scrub_interval_hours * 3600 * kSecond;
  config.min_free_percent = options.min_free_percent;
  config.cache_ttl = options.cache_ttl_hours * 3600 * kSecond;
  config.run_id = run_id;
  return config;
}

MountSettings mount_settings(const MountOptions& options, const std::string& mountpoint,
                             const std::string& source_name, int source_root) {
  MountSettings settings;
  settings.mountpoint = mountpoint;
  settings.source_name = source_name;
  settings.source_root = source_root;
  settings.allow_other = options.allow_other;
  settings.mount_flags = options.mount_flags;
  settings.passthrough =
      options.checksum == Checksum::read ? PassthroughPolicy::disabled : options.passthrough;
  settings.cold_passthrough = options.cold_passthrough;
  settings.must_see_reads = options.cache_on == CacheOn::read;
  settings.locks = options.locks;
  settings.readahead_bytes = options.readahead_bytes;
  settings.direct_io = options.direct_io;
  settings.block_size_bytes = options.block_size_bytes;
  settings.source_deadline = options.backend_timeout_seconds * kSecond;
  settings.metadata = options.metadata.config();
  settings.metadata.racy_window = settings.racy_window;
  settings.stale_open = options.metadata.stale_open;
  return settings;
}

std::vector<OptionHelp> mount_option_help() {
  std::vector<OptionHelp> result;
  result.reserve(kOwnOptions.size());
  for (const OwnOption& option : kOwnOptions) result.push_back(option.help);
  return result;
}

}  // namespace ncfs
