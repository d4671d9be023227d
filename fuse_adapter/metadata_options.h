// The mount options that say how long names and attributes are believed. A profile sets most of
// them; what is given by itself wins over it, wherever it stands.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/metadata.h"
#include "io/types.h"

namespace ncfs {

struct MetadataOptions {
  MetadataProfile profile = MetadataProfile::normal;
  std::optional<Nanos> entry_timeout;
  std::optional<Nanos> dir_entry_timeout;
  std::optional<Nanos> attr_timeout;
  std::optional<Nanos> dir_attr_timeout;
  std::optional<Nanos> negative_timeout;
  std::optional<bool> is_close_to_open;
  std::optional<Nanos> stale_if_error;
  std::uint32_t negative_min_uses = 1;
  std::uint64_t dir_cache_bytes = 256 * kMiB;
  std::uint64_t attr_cache_bytes = 128 * kMiB;
  StaleOpen stale_open = StaleOpen::estale;

  [[nodiscard]] MetadataConfig config() const;
};

// Seconds with up to three decimals, from 0 to a year. Nothing if it is none.
[[nodiscard]] std::optional<Nanos> parse_timeout(std::string_view text);

// Strict, normal or static.
[[nodiscard]] std::optional<MetadataProfile> parse_profile(std::string_view text);

// Our name of an option that CurveFS spells otherwise; else the name itself.
[[nodiscard]] std::string_view own_spelling(std::string_view name);

}  // namespace ncfs
