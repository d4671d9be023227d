#include "fuse_adapter/metadata_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace ncfs {
namespace {

// As in CurveFS's client.conf, with and without the section.
constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kSpellings = {{
    {"entryTimeout", "entry_timeout"},
    {"dirEntryTimeout", "dir_entry_timeout"},
    {"attrTimeout", "attr_timeout"},
    {"dirAttrTimeout", "dir_attr_timeout"},
    {"negativeTimeout", "negative_timeout"},
    {"fs.kernelCache.entryTimeoutSec", "entry_timeout"},
    {"fs.kernelCache.dirEntryTimeoutSec", "dir_entry_timeout"},
    {"fs.kernelCache.attrTimeoutSec", "attr_timeout"},
    {"fs.kernelCache.dirAttrTimeoutSec", "dir_attr_timeout"},
    {"fs.lookupCache.negativeTimeoutSec", "negative_timeout"},
    {"fs.lookupCache.minUses", "negative_min_uses"},
}};

std::optional<std::uint64_t> parse_digits(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

MetadataConfig MetadataOptions::config() const {
  MetadataConfig config = metadata_config(profile);
  config.entry_timeout = entry_timeout.value_or(config.entry_timeout);
  config.dir_entry_timeout = dir_entry_timeout.value_or(config.dir_entry_timeout);
  config.attr_timeout = attr_timeout.value_or(config.attr_timeout);
  config.dir_attr_timeout = dir_attr_timeout.value_or(config.dir_attr_timeout);
  config.negative_timeout = negative_timeout.value_or(config.negative_timeout);
  config.is_close_to_open = is_close_to_open.value_or(config.is_close_to_open);
  config.stale_if_error = stale_if_error.value_or(config.stale_if_error);
  config.negative_min_uses = negative_min_uses;
  config.listings_bytes_max = dir_cache_bytes;
  config.facts_bytes_max = attr_cache_bytes;
  return config;
}

std::optional<Nanos> parse_timeout(std::string_view text) {
  // Beyond a year nothing changes any more for a mount.
  constexpr std::uint64_t kSecondsMax = 365 * 24 * 3600;
  const std::size_t point = std::min(text.find('.'), text.size());
  const auto seconds = parse_digits(text.substr(0, point));
  if (!seconds || *seconds > kSecondsMax) return std::nullopt;
  if (point == text.size()) return *seconds * kSecond;
  const std::string_view decimals = text.substr(point + 1);
  auto part = parse_digits(decimals);
  if (!part || decimals.size() > 3) return std::nullopt;
  for (std::size_t digits = decimals.size(); digits < 3; ++digits) *part *= 10;
  return *seconds * kSecond + *part * kMillisecond;
}

std::optional<MetadataProfile> parse_profile(std::string_view text) {
  if (text == "strict") return MetadataProfile::strict;
  if (text == "normal") return MetadataProfile::normal;
  if (text == "static") return MetadataProfile::unchanged;
  return std::nullopt;
}

std::string_view own_spelling(std::string_view name) {
  const auto* const found =
      std::ranges::find(kSpellings, name, [](const auto& spelling) { return spelling.first; });
  return found == kSpellings.end() ? name : found->second;
}

}  // namespace ncfs
