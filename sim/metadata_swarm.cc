// Random worlds and plans for the metadata cache: every run has other kinds of steps often.
#include <array>

#include "sim/metadata_world.h"

namespace ncfs {

MetadataKnobs make_metadata_knobs(Rng& rng) {
  MetadataKnobs knobs;
  constexpr std::array<Nanos, 4> kTicks = {1, 4 * kMillisecond, 100 * kMillisecond, kSecond};
  knobs.remote.tick = kTicks[rng.below(kTicks.size())];
  knobs.remote.ahead = rng.chance({1, 4}) ? 5 * kSecond : 0;
  knobs.remote.tells_change = rng.chance({1, 4});
  knobs.remote.reuses_inodes = rng.chance({1, 2});
  constexpr std::array profiles = {MetadataProfile::normal, MetadataProfile::normal,
                                   MetadataProfile::strict, MetadataProfile::unchanged};
  MetadataConfig& config = knobs.config;
  config = metadata_config(profiles[rng.below(profiles.size())]);
  const auto perhaps = [&rng](Nanos& timeout) {
    constexpr std::array<Nanos, 4> kTimeouts = {0, 300 * kMillisecond, kSecond, 20 * kSecond};
    if (rng.chance({1, 3})) timeout = kTimeouts[rng.below(kTimeouts.size())];
  };
  perhaps(config.entry_timeout);
  perhaps(config.dir_entry_timeout);
  perhaps(config.attr_timeout);
  perhaps(config.dir_attr_timeout);
  perhaps(config.negative_timeout);
  config.negative_min_uses = static_cast<std::uint32_t>(1 + rng.below(3));
  if (rng.chance({1, 8})) config.is_close_to_open = !config.is_close_to_open;
  if (rng.chance({1, 4})) {
    config.facts_bytes_max = MetadataConfig::kFactsBytesMin + rng.below(4) * kKiB;
    config.listings_bytes_max = rng.below(4) * kKiB;
  }
  if (rng.chance({1, 8})) knobs.stale_open = StaleOpen::inval;
  // Not drawn, so that older seeds make the same worlds.
  config.stale_if_error = knobs.remote.tells_change    ? 0
                          : knobs.remote.reuses_inodes ? 20 * kSecond
                                                       : kSecond;
  return knobs;
}

MetadataPlan make_metadata_plan(Rng& rng, std::size_t steps) {
  constexpr auto kOps = static_cast<std::size_t>(MetadataOp::backend);
  std::array<std::uint64_t, kOps> weights{};
  std::uint64_t total = 0;
  for (std::uint64_t& weight : weights) weight = 1 + rng.below(8);
  // What is begun is finished, mostly before it is too old.
  weights[static_cast<std::size_t>(MetadataOp::go_on)] += 24;
  for (const std::uint64_t weight : weights) total += weight;
  // Fewer places make more meetings.
  const std::uint32_t places = static_cast<std::uint32_t>(1 + rng.below(20));
  MetadataPlan plan;
  while (plan.size() < steps) {
    std::uint64_t drawn = rng.below(total);
    std::size_t op = 0;
    while (drawn >= weights[op]) drawn -= weights[op++];
    const auto number = [&rng](std::uint64_t below) {
      return static_cast<std::uint32_t>(rng.below(below));
    };
    MetadataStep step{static_cast<MetadataOp>(op), number(64), number(places), number(places)};
    if (step.op == MetadataOp::wait && rng.chance({7, 8})) step.a %= kShortMetadataWaits;
    plan.push_back(step);
    // Not drawn either. Of sixteen steps one, and of four of these one makes the backend go down.
    if (step.a % 16 == 7) plan.push_back({MetadataOp::backend, step.a / 16, 0, 0});
  }
  return plan;
}

}  // namespace ncfs
