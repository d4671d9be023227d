// Sidecars as an enemy with the checksum would write them: fields of any value, bytes cut off and
// added. What is accepted is exactly what encode() makes, is safe to use, and what is refused costs
// no more memory than what is accepted.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>  // needs gtest.h before it
#include <xxhash.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "engine/format.h"

namespace {
std::size_t largest_allocation = 0;
}  // namespace

// Not inlined: g++ 12 would see a new freed by free().
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  largest_allocation = std::max(largest_allocation, bytes);
  void* const memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace ncfs {
namespace {

constexpr std::size_t kChecksumBytes = 8;
// The fields of eight bytes, which also cover the two of four.
constexpr std::size_t kFields = 72 / 8;

Sidecar any_sidecar() {
  Sidecar sidecar;
  sidecar.file = {*rc::gen::arbitrary<std::uint64_t>(), *rc::gen::arbitrary<std::uint64_t>()};
  sidecar.block_size_bytes = kAllocationUnit << *rc::gen::inRange(0, 12);
  sidecar.version = {*rc::gen::inRange<std::uint64_t>(0, 300 * sidecar.block_size_bytes),
                     *rc::gen::arbitrary<std::int64_t>(), *rc::gen::arbitrary<std::int64_t>()};
  sidecar.serial = *rc::gen::arbitrary<std::uint64_t>();
  sidecar.path = *rc::gen::arbitrary<std::string>();
  sidecar.durable = BlockSet(block_count_of(sidecar.version.size, sidecar.block_size_bytes));
  for (std::uint64_t block = 0; block < sidecar.durable.block_count(); ++block) {
    if (*rc::gen::inRange(0, 3) > 0) sidecar.durable.set(block);
  }
  return sidecar;
}

// Powers of two and their neighbours, where arithmetic wraps around and limits lie.
std::uint64_t any_extreme() {
  const std::uint64_t power = std::uint64_t{1} << *rc::gen::inRange(0, 64);
  return power - 1 + *rc::gen::inRange<std::uint64_t>(0, 3) -
         (*rc::gen::arbitrary<bool>() ? kAllocationUnit : 0);
}

void set_checksum(std::vector<std::byte>& bytes) {
  if (bytes.size() < kChecksumBytes) return;
  const std::uint64_t digest = XXH3_64bits(bytes.data(), bytes.size() - kChecksumBytes);
  std::memcpy(bytes.data() + bytes.size() - kChecksumBytes, &digest, kChecksumBytes);
}

void check_decode(const std::vector<std::byte>& bytes) {
  largest_allocation = 0;
  const std::optional<Sidecar> sidecar = decode(bytes);
  const std::size_t largest = largest_allocation;
  RC_ASSERT(largest <= bytes.size());
  if (!sidecar) return;
  RC_ASSERT(encode(*sidecar) == bytes);
  RC_ASSERT(bytes.size() <= sidecar_bytes_max(sidecar->version.size));
  RC_ASSERT(sidecar->durable.count() <= sidecar->durable.block_count());
  // As recovery uses it.
  constexpr std::uint64_t kOther = 64 * kKiB;
  if (sidecar->version.size / kOther > 1'000'000) return;
  const BlockSet other =
      with_block_size(sidecar->durable, sidecar->version.size, sidecar->block_size_bytes, kOther);
  RC_ASSERT(!sidecar->durable.is_full() || other.is_full());
}

RC_GTEST_PROP(SidecarFuzz, WhatWasEncodedIsDecoded, ()) {
  const Sidecar sidecar = any_sidecar();
  RC_ASSERT(decode(encode(sidecar)) == sidecar);
}

RC_GTEST_PROP(SidecarFuzz, AbsurdFieldsWithARightChecksumAreHarmless, ()) {
  const std::vector<std::byte> whole = encode(any_sidecar());
  for (int attempt = 0; attempt < 20; ++attempt) {
    std::vector<std::byte> bytes = whole;
    const int changes = *rc::gen::inRange(1, 4);
    for (int change = 0; change < changes; ++change) {
      // The magic stays: without it nothing else is looked at.
      const std::size_t field = *rc::gen::inRange<std::size_t>(1, kFields);
      const std::uint64_t value = any_extreme();
      std::memcpy(bytes.data() + field * 8, &value, sizeof(value));
    }
    set_checksum(bytes);
    check_decode(bytes);
  }
}

RC_GTEST_PROP(SidecarFuzz, BytesCutOffOrAddedAreHarmless, ()) {
  std::vector<std::byte> bytes = encode(any_sidecar());
  bytes.resize(*rc::gen::inRange<std::size_t>(0, 2 * bytes.size()), std::byte{0xff});
  set_checksum(bytes);
  check_decode(bytes);
}

RC_GTEST_PROP(SidecarFuzz, AnyBytesAreHarmless, (const std::vector<std::uint8_t>& raw)) {
  std::vector<std::byte> bytes(raw.size());
  std::ranges::transform(raw, bytes.begin(), [](std::uint8_t byte) { return std::byte{byte}; });
  check_decode(bytes);
}

RC_GTEST_PROP(ObjectNameFuzz, OnlyWhatIsMadeIsParsed, (std::string name)) {
  if (*rc::gen::arbitrary<bool>()) {
    name = object_stem({1, *rc::gen::arbitrary<std::uint64_t>()}, {}, 2).substr(3);
    name += suffix(*rc::gen::element(NameKind::partial, NameKind::data, NameKind::sidecar,
                                     NameKind::sidecar_temp));
    if (*rc::gen::arbitrary<bool>()) name[*rc::gen::inRange<std::size_t>(0, name.size())] = '/';
  }
  const std::optional<ObjectName> parsed = parse_object_name(name);
  if (!parsed) return;
  RC_ASSERT(parsed->stem + std::string(suffix(parsed->kind)) == name);
  RC_ASSERT(name.find('/') == std::string::npos);
}

}  // namespace
}  // namespace ncfs
