// What the cache directory holds. The directory is the database: there is no index beside it.
//
//   objects/3f/<stem>.part   data of an object being filled, at full length
//   objects/3f/<stem>.data   data of a complete object, byte for byte the source file
//   objects/3f/<stem>.meta   sidecar: what the data is and which of its blocks are durable
//   objects/3f/<stem>.temp   sidecar being written; becomes .meta by rename
//
// The shard 3f is a digest of the file id, so all versions of a file share one directory. The stem
// is <filesystem>-<inode>-<version digest>-<serial>, in hex. The serial is never used twice in one
// directory: a sidecar that outlives its data by a crash can never describe other data. The version
// digest is that of the version the object was created as: when our own mount changes attributes of
// the file, its sidecar is replaced and its names stay.
//
// Rules of recovery:
//   .data + .meta that says all blocks   complete
//   .part + .meta                        partial: the blocks of the bitmap are good, others are not
//   health.probe in objects/00           left by a probe of the disk: removed
//   anything else with a name of ours    debris of a crash, or damaged: removed, links and FIFOs
//                                        included; directories, which no cache made, are left alone
//   any other name                       not ours: left alone
//
// Sidecar, versions 1 and 2, little-endian; version 2 has checksums:
//   0   8  magic "NCFSMETA"
//   8   4  format version
//   12  2  length of the path in bytes, at most kPathMax
//   14  2  flags: bit 0 says that the file is pinned; the others are zero
//   16  16 file id: filesystem, inode
//   32  24 source version: size, mtime_ns, ctime_ns
//   56  8  serial
//   64  8  block size in bytes
//   72  n  path, not terminated
//   ..  m  bitmap of durable blocks: one bit per block, in 64-bit words, lowest bit first; bits
//   past
//          the last block are zero
//   ..  8k version 2: XXH3-64 of each of the k blocks; 0 for those not in the bitmap
//   ..  8  XXH3-64 of everything before
//
// The mtime of a sidecar is when its object was last verified; see engine/verify.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/types.h"

namespace ncfs {

inline constexpr std::uint32_t kSidecarPlain = 1;
inline constexpr std::uint32_t kSidecarWithChecksums = 2;
inline constexpr std::size_t kPathMax = 4096;  // longer paths are cut: the path is only a hint
inline constexpr std::uint32_t kShardCount = 256;
inline constexpr std::string_view kProbeName = "health.probe";
// Unit in which file systems allocate; smaller units make the books err on the safe side.
inline constexpr std::uint64_t kAllocationUnit = 4 * kKiB;
// Far beyond what an option allows; what a sidecar says must not wrap around.
inline constexpr std::uint64_t kBlockSizeMax = kGiB;
// A sidecar of this many blocks has a bitmap of 32 MiB and fits into kCacheLoadMax.
inline constexpr std::uint64_t kBlockCountMax = std::uint64_t{1} << 28;
// With checksums, of this many blocks it is 32.5 MiB long. Larger files (4 TiB in blocks of 1 MiB)
// are cached without.
inline constexpr std::uint64_t kChecksumCountMax = std::uint64_t{1} << 22;

// A set of blocks. Bits past `block_count` are zero.
class BlockSet {
 public:
  BlockSet() = default;
  explicit BlockSet(std::uint64_t block_count)
      : block_count_(block_count), words_((block_count + 63) / 64) {}

  [[nodiscard]] std::uint64_t block_count() const { return block_count_; }
  [[nodiscard]] bool test(std::uint64_t block) const {
    return (words_[block / 64] >> (block % 64) & 1) != 0;
  }
  void set(std::uint64_t block) { words_[block / 64] |= std::uint64_t{1} << (block % 64); }
  void reset(std::uint64_t block) { words_[block / 64] &= ~(std::uint64_t{1} << (block % 64)); }
  void set_all();
  [[nodiscard]] std::uint64_t count() const;
  [[nodiscard]] bool is_full() const { return count() == block_count_; }
  [[nodiscard]] std::span<const std::uint64_t> words() const { return words_; }
  [[nodiscard]] std::span<std::uint64_t> words() { return words_; }
  friend bool operator==(const BlockSet&, const BlockSet&) = default;

 private:
  std::uint64_t block_count_ = 0;
  std::vector<std::uint64_t> words_;
};

[[nodiscard]] constexpr std::uint64_t block_count_of(std::uint64_t size_bytes,
                                                     std::uint64_t block_size_bytes) {
  return (size_bytes + block_size_bytes - 1) / block_size_bytes;
}

struct Sidecar {
  FileId file;
  SourceVersion version;
  std::uint64_t serial = 0;
  std::uint64_t block_size_bytes = 0;
  std::string path;
  BlockSet durable;
  std::vector<std::uint64_t> checksums{};  // one for each block, or none at all
  bool is_pinned = false;
  friend bool operator==(const Sidecar&, const Sidecar&) = default;
};

// The longest sidecar of a file of this size, in blocks of any size.
[[nodiscard]] std::uint64_t sidecar_bytes_max(std::uint64_t size_bytes);
[[nodiscard]] std::vector<std::byte> encode(const Sidecar& sidecar);
// Nothing if the bytes are not exactly one intact sidecar of this format. Takes no more memory than
// a few times the bytes, whatever they say.
[[nodiscard]] std::optional<Sidecar> decode(std::span<const std::byte> bytes);

// The same content seen in blocks of another size: a block is in the result if all of its bytes
// were in the set.
[[nodiscard]] BlockSet with_block_size(const BlockSet& blocks, std::uint64_t size_bytes,
                                       std::uint64_t block_size_from, std::uint64_t block_size_to);

[[nodiscard]] std::uint32_t shard_of(const FileId& file);
[[nodiscard]] std::string shard_name(std::uint32_t shard);
// "3f/<stem>"
[[nodiscard]] std::string object_stem(const FileId& file, const SourceVersion& version,
                                      std::uint64_t serial);

// Whether a sidecar found under this stem, with the shard, belongs to it: all but the version
// digest has to agree.
[[nodiscard]] bool is_stem_of(std::string_view stem, const Sidecar& sidecar);

enum class NameKind : std::uint8_t { partial, data, sidecar, sidecar_temp };
[[nodiscard]] std::string_view suffix(NameKind kind);

// What `bytes` occupy.
[[nodiscard]] constexpr std::uint64_t round_up_to_unit(std::uint64_t bytes) {
  return (bytes + kAllocationUnit - 1) / kAllocationUnit * kAllocationUnit;
}

struct ObjectName {
  std::string stem;  // without the shard
  NameKind kind{};
};
// Nothing if the name, as found in a shard, is not one of ours.
[[nodiscard]] std::optional<ObjectName> parse_object_name(std::string_view name);

// What an object may occupy at its largest, on any of the usual file systems: its data, its sidecar
// twice (the old and the new one, while it is replaced), and the file system's own map of the data
// (16 bytes per MiB cover an ext4 or XFS file in extents of 1 MiB).
[[nodiscard]] std::uint64_t object_charge(std::uint64_t size_bytes, std::uint64_t block_size_bytes);

}  // namespace ncfs
