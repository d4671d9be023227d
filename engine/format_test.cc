// The on-disk format: golden bytes, round trips, and refusal of everything that is not intact.

#include "engine/format.h"

#include <gtest/gtest.h>

#include <cstring>

namespace ncfs {
namespace {

Sidecar example() {
  Sidecar sidecar;
  sidecar.file = {0x1122334455667788, 42};
  sidecar.version = {10 * 4096 + 1, 1'700'000'000'123'456'789, -5};
  sidecar.serial = 7;
  sidecar.block_size_bytes = 4096;
  sidecar.path = "models/a.bin";
  sidecar.durable = BlockSet(11);
  sidecar.durable.set(0);
  sidecar.durable.set(10);
  return sidecar;
}

TEST(Sidecar, SurvivesARoundTrip) {
  const Sidecar sidecar = example();
  EXPECT_EQ(decode(encode(sidecar)), sidecar);
}

TEST(Sidecar, GoldenBytesPinTheFormat) {
  const std::vector<std::byte> bytes = encode(example());
  ASSERT_EQ(bytes.size(), 72 + 12 + 8 + 8U);
  EXPECT_EQ(
      std::memcmp(bytes.data(), "NCFSMETA\1\0\0\0\14\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11", 24),
      0);
  EXPECT_EQ(std::memcmp(bytes.data() + 72, "models/a.bin\1\4\0\0\0\0\0\0", 20), 0);
}

Sidecar example_with_checksums() {
  Sidecar sidecar = example();
  sidecar.checksums.assign(11, 0);
  sidecar.checksums[0] = 0x0102030405060708;
  sidecar.checksums[10] = ~std::uint64_t{0};
  return sidecar;
}

TEST(Sidecar, WithChecksumsIsVersionTwoAndSurvivesARoundTrip) {
  const Sidecar sidecar = example_with_checksums();
  const std::vector<std::byte> bytes = encode(sidecar);
  ASSERT_EQ(bytes.size(), 72 + 12 + 8 + 11 * 8 + 8U);
  EXPECT_EQ(bytes[8], std::byte{2});
  EXPECT_EQ(std::memcmp(bytes.data() + 72 + 12 + 8, "\10\7\6\5\4\3\2\1\0\0\0\0", 12), 0);
  EXPECT_EQ(decode(bytes), sidecar);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode(std::span(bytes).first(size))) << size;
  }
}

TEST(Sidecar, HasNoChecksumsOfBlocksThatAreNotThere) {
  Sidecar sidecar = example_with_checksums();
  sidecar.checksums[5] = 99;
  const auto decoded = decode(encode(sidecar));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->checksums[5], 0U);
}

TEST(Sidecar, RefusesEveryFlippedBit) {
  const std::vector<std::byte> bytes = encode(example());
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::vector<std::byte> damaged = bytes;
    damaged[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_FALSE(decode(damaged)) << bit;
  }
}

TEST(Sidecar, RefusesEveryTruncation) {
  const std::vector<std::byte> bytes = encode(example());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode(std::span(bytes).first(size))) << size;
  }
}

TEST(Sidecar, RefusesSizesThatWouldWrapAround) {
  Sidecar sidecar = example();
  sidecar.version.size = ~std::uint64_t{0};
  EXPECT_FALSE(decode(encode(sidecar)));
  sidecar = example();
  sidecar.block_size_bytes = 0;
  EXPECT_FALSE(decode(encode(sidecar)));
  sidecar.block_size_bytes = 4097;
  EXPECT_FALSE(decode(encode(sidecar)));
}

TEST(Sidecar, RefusesBitsPastTheLastBlock) {
  Sidecar sidecar = example();
  sidecar.durable.words()[0] |= std::uint64_t{1} << 11;
  EXPECT_FALSE(decode(encode(sidecar)));
}

TEST(Sidecar, CutsAnOverlongPath) {
  Sidecar sidecar = example();
  sidecar.path.assign(kPathMax + 5, 'x');
  const auto decoded = decode(encode(sidecar));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->path.size(), kPathMax);
}

TEST(BlockSet, FullMeansEveryBlockAndNoBitBeyond) {
  for (const std::uint64_t count : {0, 1, 63, 64, 65, 128}) {
    BlockSet blocks(count);
    if (count > 0) {
      EXPECT_FALSE(blocks.is_full());
      blocks.set_all();
    }
    EXPECT_TRUE(blocks.is_full()) << count;
    EXPECT_EQ(blocks.count(), count);
  }
}

TEST(BlockSet, OtherBlockSizeKeepsOnlyWhatIsWhole) {
  BlockSet small(5);  // 4 KiB blocks of a file of 18 KiB
  for (const std::uint64_t block : {0, 1, 2, 4}) small.set(block);
  const BlockSet large = with_block_size(small, 18 * kKiB, 4 * kKiB, 8 * kKiB);
  ASSERT_EQ(large.block_count(), 3U);
  EXPECT_TRUE(large.test(0));
  EXPECT_FALSE(large.test(1));
  EXPECT_TRUE(large.test(2));
  const BlockSet back = with_block_size(large, 18 * kKiB, 8 * kKiB, 4 * kKiB);
  EXPECT_EQ(back.count(), 3U);
  EXPECT_FALSE(back.test(2));
}

TEST(ObjectName, ParsesWhatItMakesAndNothingElse) {
  const std::string stem = object_stem({1, 2}, {3, 4, 5}, 6).substr(3);
  for (const NameKind kind :
       {NameKind::partial, NameKind::data, NameKind::sidecar, NameKind::sidecar_temp}) {
    const auto name = parse_object_name(stem + std::string(suffix(kind)));
    ASSERT_TRUE(name);
    EXPECT_EQ(name->stem, stem);
    EXPECT_EQ(name->kind, kind);
  }
  for (const std::string& bad : {std::string(), stem, stem + ".other", "x" + stem + ".data",
                                 stem.substr(1) + ".data", std::string("notes.txt")}) {
    EXPECT_FALSE(parse_object_name(bad)) << bad;
  }
}

TEST(ObjectName, VersionsOfOneFileShareAShard) {
  const std::string one = object_stem({1, 2}, {3, 4, 5}, 6);
  const std::string two = object_stem({1, 2}, {9, 9, 9}, 7);
  EXPECT_NE(one, two);
  EXPECT_EQ(one.substr(0, 3), two.substr(0, 3));
}

}  // namespace
}  // namespace ncfs
