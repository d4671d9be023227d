// A cache disk that changed a byte, under a real mount.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <future>

#include "fuse_adapter/mount_fixture.h"

namespace ncfs {
namespace {

// A machine that needs longer is not slow but stuck.
constexpr std::chrono::seconds kPatience{60};

class MountIntegrityTest : public testing::TestWithParam<PassedFiles> {
 protected:
  // A file in the cache, one byte of its second block changed while nothing is mounted, so that
  // no memory knows better; then mounted again.
  void rot_cached_file(Checksum checksum) {
    write_content(mount_.backend("file"), bytes_);
    mount_.start({.passthrough = GetParam(), .checksum = checksum});
    mount_.bring_into_cache("file");
    mount_.stop();
    const auto names = mount_.cached_data();
    ASSERT_EQ(names.size(), 1U);
    const Descriptor data(::open(names[0].c_str(), O_RDWR | O_CLOEXEC));
    constexpr off_t kPlace = kMiB + 12345;
    char byte = 0;
    ASSERT_EQ(::pread(data.get(), &byte, 1, kPlace), 1);
    byte = static_cast<char>(byte ^ 1);
    ASSERT_EQ(::pwrite(data.get(), &byte, 1, kPlace), 1);
    start(checksum);
  }
  void start(Checksum checksum) {
    mount_.start({.passthrough = GetParam(), .checksum = checksum});
    ASSERT_TRUE(
        mount_.wait_until([](const EngineStatus& status) { return !status.is_recovering; }));
  }

  TestMount mount_;
  const std::vector<std::byte> bytes_ = content(1, 0, 3 * kMiB + 17);
};

INSTANTIATE_TEST_SUITE_P(Passthrough, MountIntegrityTest,
                         testing::Values(PassedFiles::all, PassedFiles::none), passthrough_name);

TEST_P(MountIntegrityTest, AVerificationDropsADamagedFileAndTheNextReadIsRight) {
  rot_cached_file(Checksum::copy);
  std::promise<VerifyResult> promise;
  auto verified = promise.get_future();
  mount_.runtime().verify({"file"},
                          [&promise](const VerifyResult& result) { promise.set_value(result); });
  ASSERT_EQ(verified.wait_for(kPatience), std::future_status::ready);
  const VerifyResult result = verified.get();
  EXPECT_EQ(result.damaged.files, 1U);
  EXPECT_EQ(result.found.files, 1U);
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes_);
  EXPECT_TRUE(
      mount_.wait_until([](const EngineStatus& status) { return status.objects_cached == 1; }));
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes_);
}

TEST_P(MountIntegrityTest, WithChecksumReadADamagedBlockIsNeverServed) {
  rot_cached_file(Checksum::read);
  EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes_);
  // A machine so slow that the open did not wait for the cache has read the source alone.
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (mount_.engine_status().damaged_blocks == 0 &&
         std::chrono::steady_clock::now() < deadline) {
    mount_.stop();
    start(Checksum::read);
    EXPECT_TRUE(read_file(mount_.mounted("file")).bytes == bytes_);
  }
  EXPECT_EQ(mount_.engine_status().damaged_blocks, 1U);
  EXPECT_EQ(mount_.stats().opens_passthrough.value(), 0U);
  EXPECT_TRUE(
      mount_.wait_until([](const EngineStatus& status) { return status.objects_cached == 1; }));
}

}  // namespace
}  // namespace ncfs
