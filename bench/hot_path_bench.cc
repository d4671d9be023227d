// What a read decision costs: plan_read() on one thread and on two that share a file.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>

#include "engine/residency.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kFileBytes = 10 * kGiB;
constexpr std::uint64_t kReadBytes = 128 * kKiB;  // what the kernel asks for at a time

// Every second block is resident if `half`, else all are.
std::unique_ptr<Residency> make_residency(bool half) {
  auto residency = std::make_unique<Residency>(FileHandle{3}, kFileBytes, kMiB);
  for (std::uint64_t block = 0; block < residency->block_count(); block += half ? 2 : 1) {
    residency->publish(block);
  }
  return residency;
}

void plan_all(benchmark::State& state, const Residency& residency, std::uint64_t length) {
  std::uint64_t offset = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(plan_read(residency, {offset, length}));
    offset = (offset + 7 * kMiB + kReadBytes) % (kFileBytes - length);
  }
}

void plan_hit(benchmark::State& state) {
  static const auto residency = make_residency(false);
  plan_all(state, *residency, kReadBytes);
}
BENCHMARK(plan_hit)->Threads(1)->Threads(2);

void plan_hit_or_miss(benchmark::State& state) {
  static const auto residency = make_residency(true);
  plan_all(state, *residency, kReadBytes);
}
BENCHMARK(plan_hit_or_miss);

void plan_hit_of_many_blocks(benchmark::State& state) {
  static const auto residency = make_residency(false);
  plan_all(state, *residency, 16 * kMiB);
}
BENCHMARK(plan_hit_of_many_blocks);

}  // namespace
}  // namespace ncfs

BENCHMARK_MAIN();
