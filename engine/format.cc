#include "engine/format.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "engine/planted.h"

namespace ncfs {
namespace {

constexpr std::string_view kMagic = "NCFSMETA";
constexpr std::uint16_t kPinnedFlag = 1;
constexpr std::size_t kHeaderBytes = 72;
constexpr std::size_t kChecksumBytes = 8;
constexpr std::size_t kStemLength = 16 * 4 + 3;
constexpr std::string_view kHexDigits = "0123456789abcdef";

static_assert(std::endian::native == std::endian::little,
              "the sidecar is little-endian and written as it lies in memory");

template <typename Integer>
void append(std::vector<std::byte>& bytes, Integer value) {
  const auto* raw = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), raw, raw + sizeof(value));
}

template <typename Integer>
Integer read_at(std::span<const std::byte> bytes, std::size_t offset) {
  Integer value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

std::string hex16(std::uint64_t value) {
  std::string text(16, '0');
  for (std::size_t digit = 16; digit-- > 0; value >>= 4) text[digit] = kHexDigits[value & 15];
  return text;
}

}  // namespace

void BlockSet::set_all() {
  std::fill(words_.begin(), words_.end(), ~std::uint64_t{0});
  if (block_count_ % 64 != 0) words_.back() = (std::uint64_t{1} << (block_count_ % 64)) - 1;
}

std::uint64_t BlockSet::count() const {
  std::uint64_t total = 0;
  for (const std::uint64_t word : words_) total += static_cast<std::uint64_t>(std::popcount(word));
  return total;
}

std::uint64_t sidecar_bytes_max(std::uint64_t size_bytes) {
  const std::uint64_t blocks = std::min(size_bytes / kAllocationUnit + 1, kBlockCountMax);
  const std::uint64_t checksums = std::min(blocks, kChecksumCountMax) + 1;  // and its own
  return kHeaderBytes + kPathMax + (blocks + 63) / 64 * sizeof(std::uint64_t) +
         checksums * kChecksumBytes;
}

std::vector<std::byte> encode(const Sidecar& sidecar) {
  const std::string_view path = std::string_view(sidecar.path).substr(0, kPathMax);
  std::vector<std::byte> bytes;
  bytes.reserve(kHeaderBytes + path.size() + sidecar.durable.words().size_bytes() +
                (sidecar.checksums.size() + 1) * kChecksumBytes);
  for (const char c : kMagic) append(bytes, c);
  append(bytes, sidecar.checksums.empty() ? kSidecarPlain : kSidecarWithChecksums);
  append(bytes, static_cast<std::uint16_t>(path.size()));
  append(bytes, static_cast<std::uint16_t>(sidecar.is_pinned ? kPinnedFlag : 0));
  append(bytes, sidecar.file.filesystem);
  append(bytes, sidecar.file.inode);
  append(bytes, sidecar.version.size);
  append(bytes, sidecar.version.mtime_ns);
  append(bytes, sidecar.version.ctime_ns);
  append(bytes, sidecar.serial);
  append(bytes, sidecar.block_size_bytes);
  for (const char c : path) append(bytes, c);
  for (const std::uint64_t word : sidecar.durable.words()) append(bytes, word);
  for (std::uint64_t block = 0; block < sidecar.checksums.size(); ++block) {
    append(bytes, sidecar.durable.test(block) ? sidecar.checksums[block] : 0);
  }
  append(bytes, static_cast<std::uint64_t>(XXH3_64bits(bytes.data(), bytes.size())));
  return bytes;
}

std::optional<Sidecar> decode(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes + kChecksumBytes) return std::nullopt;
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return std::nullopt;
  const std::span<const std::byte> body = bytes.first(bytes.size() - kChecksumBytes);
  if (read_at<std::uint64_t>(bytes, body.size()) != XXH3_64bits(body.data(), body.size()) &&
      !NCFS_PLANT(damaged_sidecar_trusted)) {
    return std::nullopt;
  }
  const auto format = read_at<std::uint32_t>(bytes, 8);
  if (format != kSidecarPlain && format != kSidecarWithChecksums) return std::nullopt;
  const std::size_t path_bytes = read_at<std::uint16_t>(bytes, 12);
  const auto flags = read_at<std::uint16_t>(bytes, 14);
  if ((flags & ~kPinnedFlag) != 0) return std::nullopt;

  Sidecar sidecar;
  sidecar.file = {read_at<std::uint64_t>(bytes, 16), read_at<std::uint64_t>(bytes, 24)};
  sidecar.version = {read_at<std::uint64_t>(bytes, 32), read_at<std::int64_t>(bytes, 40),
                     read_at<std::int64_t>(bytes, 48)};
  sidecar.serial = read_at<std::uint64_t>(bytes, 56);
  sidecar.block_size_bytes = read_at<std::uint64_t>(bytes, 64);
  if (path_bytes > kPathMax) return std::nullopt;
  sidecar.is_pinned = flags != 0;
  if (sidecar.block_size_bytes == 0 || sidecar.block_size_bytes % kAllocationUnit != 0 ||
      sidecar.block_size_bytes > kBlockSizeMax) {
    return std::nullopt;
  }
  // Divided before it is rounded up: a hostile size must not wrap around.
  if (sidecar.version.size / sidecar.block_size_bytes >= kBlockCountMax) return std::nullopt;
  const std::uint64_t blocks = block_count_of(sidecar.version.size, sidecar.block_size_bytes);
  const std::uint64_t bitmap_bytes = (blocks + 63) / 64 * sizeof(std::uint64_t);
  const std::size_t checksums_at = kHeaderBytes + path_bytes + bitmap_bytes;
  const std::uint64_t checksum_count = format == kSidecarWithChecksums ? blocks : 0;
  if (checksum_count > kChecksumCountMax) return std::nullopt;
  if (body.size() != checksums_at + checksum_count * kChecksumBytes) return std::nullopt;
  sidecar.durable = BlockSet(blocks);
  const std::span<std::uint64_t> words = sidecar.durable.words();
  sidecar.path.assign(reinterpret_cast<const char*>(body.data()) + kHeaderBytes, path_bytes);
  if (!words.empty()) {
    std::memcpy(words.data(), body.data() + kHeaderBytes + path_bytes, words.size_bytes());
    const std::uint64_t last_bits = sidecar.durable.block_count() % 64;
    if (last_bits != 0 && words.back() >> last_bits != 0) return std::nullopt;
  }
  if (checksum_count > 0) {
    sidecar.checksums.resize(checksum_count);
    std::memcpy(sidecar.checksums.data(), body.data() + checksums_at,
                checksum_count * kChecksumBytes);
  }
  return sidecar;
}

BlockSet with_block_size(const BlockSet& blocks, std::uint64_t size_bytes,
                         std::uint64_t block_size_from, std::uint64_t block_size_to) {
  if (block_size_from == block_size_to) return blocks;
  BlockSet result(block_count_of(size_bytes, block_size_to));
  for (std::uint64_t block = 0; block < result.block_count(); ++block) {
    const std::uint64_t begin = block * block_size_to;
    const std::uint64_t end = std::min(begin + block_size_to, size_bytes);
    bool is_whole = true;
    for (std::uint64_t from = begin / block_size_from; is_whole && from * block_size_from < end;
         ++from) {
      is_whole = blocks.test(from);
    }
    if (is_whole) result.set(block);
  }
  return result;
}

std::uint32_t shard_of(const FileId& file) {
  return static_cast<std::uint32_t>(XXH3_64bits(&file, sizeof(file)) % kShardCount);
}

std::string shard_name(std::uint32_t shard) {
  return hex16(shard).substr(14);
}

std::string object_stem(const FileId& file, const SourceVersion& version, std::uint64_t serial) {
  const std::uint64_t digest = XXH3_64bits(&version, sizeof(version));
  return shard_name(shard_of(file)) + '/' + hex16(file.filesystem) + '-' + hex16(file.inode) + '-' +
         hex16(digest) + '-' + hex16(serial);
}

bool is_stem_of(std::string_view stem, const Sidecar& sidecar) {
  constexpr std::size_t kDigestAt = 3 + 2 * 17;
  std::string own = object_stem(sidecar.file, sidecar.version, sidecar.serial);
  if (own.size() != stem.size()) return false;
  return own.replace(kDigestAt, 16, stem.substr(kDigestAt, 16)) == stem;
}

std::string_view suffix(NameKind kind) {
  constexpr std::array<std::string_view, 4> kSuffixes = {".part", ".data", ".meta", ".temp"};
  return kSuffixes[static_cast<std::size_t>(kind)];
}

std::optional<ObjectName> parse_object_name(std::string_view name) {
  const std::string_view stem = name.substr(0, kStemLength);
  if (stem.size() < kStemLength) return std::nullopt;
  for (std::size_t i = 0; i < kStemLength; ++i) {
    const bool is_dash = i % 17 == 16;
    if (is_dash ? stem[i] != '-' : kHexDigits.find(stem[i]) == std::string_view::npos) {
      return std::nullopt;
    }
  }
  for (const NameKind kind :
       {NameKind::partial, NameKind::data, NameKind::sidecar, NameKind::sidecar_temp}) {
    if (name.substr(kStemLength) == suffix(kind)) return ObjectName{std::string(stem), kind};
  }
  return std::nullopt;
}

std::uint64_t object_charge(std::uint64_t size_bytes, std::uint64_t block_size_bytes) {
  const std::uint64_t blocks = block_count_of(size_bytes, block_size_bytes);
  const std::uint64_t bitmap_bytes = (blocks + 63) / 64 * 8;
  const std::uint64_t checksum_bytes = (blocks > kChecksumCountMax ? 0 : blocks) * kChecksumBytes;
  const std::uint64_t sidecar_bytes =
      round_up_to_unit(kHeaderBytes + kPathMax + bitmap_bytes + checksum_bytes + kChecksumBytes);
  return round_up_to_unit(size_bytes) + 2 * sidecar_bytes +
         round_up_to_unit(size_bytes / kMiB * 16);
}

}  // namespace ncfs
