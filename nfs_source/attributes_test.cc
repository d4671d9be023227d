#include "nfs_source/attributes.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ncfs {
namespace {

void append_u32(std::string& text, std::uint32_t value) {
  for (const unsigned shift : {24U, 16U, 8U, 0U}) text += static_cast<char>(value >> shift);
}
void append_u64(std::string& text, std::uint64_t value) {
  append_u32(text, static_cast<std::uint32_t>(value >> 32U));
  append_u32(text, static_cast<std::uint32_t>(value));
}
void append_text(std::string& text, const std::string& bytes) {
  append_u32(text, static_cast<std::uint32_t>(bytes.size()));
  text += bytes;
  text.append((4 - bytes.size() % 4) % 4, '\0');
}
void append_time(std::string& text, std::uint64_t seconds, std::uint32_t nanoseconds) {
  append_u64(text, seconds);
  append_u32(text, nanoseconds);
}

// As a server sends them: type, size, fsid, file id; mode, links, owner, group, device, space,
// times.
std::string fattr() {
  std::string values;
  append_u32(values, 1);  // a regular file
  append_u64(values, 123456789012);
  append_u64(values, 7);
  append_u64(values, 8);
  append_u64(values, 42);
  append_u32(values, 04755);
  append_u32(values, 3);
  append_text(values, "1000");
  append_text(values, "root@example.org");
  append_u32(values, 0);
  append_u32(values, 0);
  append_u64(values, 5120);
  append_time(values, 10, 1);
  append_time(values, 20, 2);
  append_time(values, 30, 3);
  std::string text;
  append_u32(text, 2);
  append_u32(text, file_attribute_mask()[0]);
  append_u32(text, file_attribute_mask()[1]);
  append_text(text, values);
  return text;
}

TEST(Attributes, AreReadInTheOrderOfTheirNumbers) {
  const std::string text = fattr();
  XdrReader reader(text);
  const FileAttributes attributes = read_attributes(reader);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader.left(), 0U);
  const struct stat& status = attributes.status;
  EXPECT_EQ(status.st_mode, S_IFREG | 04755U);
  EXPECT_EQ(status.st_size, 123456789012);
  EXPECT_EQ(status.st_ino, 42U);
  EXPECT_EQ(status.st_nlink, 3U);
  EXPECT_EQ(status.st_uid, 1000U);
  EXPECT_EQ(status.st_gid, 0U);  // by its name
  EXPECT_EQ(status.st_blocks, 10);
  EXPECT_EQ(status.st_atim.tv_sec, 10);
  EXPECT_EQ(status.st_ctim.tv_nsec, 2);
  EXPECT_EQ(status.st_mtim.tv_sec, 30);
  EXPECT_EQ(attributes.filesystem_major, 7U);
  EXPECT_EQ(attributes.filesystem_minor, 8U);
}

TEST(Attributes, WhatIsCutOffFails) {
  const std::string text = fattr();
  for (std::size_t size = 0; size < text.size(); ++size) {
    // A copy of its own, whose end a sanitizer watches.
    const std::vector<char> part(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size));
    XdrReader reader(part);
    (void)read_attributes(reader);
    EXPECT_FALSE(reader.ok()) << size;
  }
}

TEST(Attributes, WhatIsChangedNeverCrashes) {
  const std::string text = fattr();
  for (std::size_t place = 0; place < text.size(); ++place) {
    for (const int byte : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      std::vector<char> changed(text.begin(), text.end());
      changed[place] = static_cast<char>(byte);
      XdrReader reader(changed);
      const FileAttributes attributes = read_attributes(reader);
      EXPECT_GE(attributes.status.st_size, 0);
      EXPECT_LT(attributes.status.st_mtim.tv_nsec, 1'000'000'000);
    }
  }
}

TEST(Attributes, WhatWasNotAskedForFails) {
  std::string text;
  append_u32(text, 1);
  append_u32(text, 1U << 12U);  // an ACL
  append_text(text, "12345678");
  XdrReader reader(text);
  (void)read_attributes(reader);
  EXPECT_FALSE(reader.ok());
}

TEST(Attributes, ChangesAreEncodedInTheOrderOfTheirNumbers) {
  AttributeChanges changes;
  changes.size = 5;
  changes.mode = S_IFREG | 0640;
  changes.user = 12;
  changes.modify_time = timespec{100, 7};
  changes.access_time = AttributeChanges::kNow;
  const EncodedAttributes encoded = encode_attributes(changes);
  EXPECT_EQ(encoded.mask[0], 1U << 4U);
  EXPECT_EQ(encoded.mask[1], 1U << 1U | 1U << 4U | 1U << 16U | 1U << 22U);
  std::string expected;
  append_u64(expected, 5);
  append_u32(expected, 0640);
  append_text(expected, "12");
  append_u32(expected, 0);
  append_u32(expected, 1);
  append_time(expected, 100, 7);
  EXPECT_EQ(encoded.values, expected);
}

}  // namespace
}  // namespace ncfs
