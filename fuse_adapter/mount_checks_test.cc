// Method: real directories beneath a temporary one; nothing is mounted.
#include "fuse_adapter/mount_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace ncfs {
namespace {

using ::testing::HasSubstr;

class MountChecks : public ::testing::Test {
 protected:
  MountChecks() {
    std::string pattern = ::testing::TempDir() + "ncfs-checks-XXXXXX";
    root_ = std::filesystem::canonical(mkdtemp(pattern.data()));
    for (const char* name : {"nfs", "cached", "nvme"}) {
      std::filesystem::create_directory(root_ / name);
    }
  }
  ~MountChecks() override { std::filesystem::remove_all(root_); }

  std::string path(const std::string& name) const { return (root_ / name).string(); }

  std::variant<MountPlaces, OptionError> check(const std::string& backend,
                                               const std::string& cache_dir,
                                               const std::string& mountpoint) const {
    MountOptions options;
    options.nfs_backend = path(backend);
    options.cache_dir = path(cache_dir);
    return check_mount_places(options, path(mountpoint));
  }

  std::string error(const std::string& backend, const std::string& cache_dir,
                    const std::string& mountpoint) const {
    const auto result = check(backend, cache_dir, mountpoint);
    const auto* error = std::get_if<OptionError>(&result);
    return error != nullptr ? error->message : "(no error)";
  }

  std::filesystem::path root_;
};

TEST_F(MountChecks, ThreeSeparateDirectoriesAreFineAndMadeCanonical) {
  std::filesystem::create_directory_symlink(root_ / "nfs", root_ / "link");
  const auto result = check("link", "nvme/not/yet/there/", "./cached/");
  ASSERT_TRUE(std::holds_alternative<MountPlaces>(result));
  const auto& places = std::get<MountPlaces>(result);
  EXPECT_EQ(places.backend, path("nfs"));
  EXPECT_EQ(places.cache_dir, path("nvme/not/yet/there"));
  EXPECT_EQ(places.mountpoint, path("cached"));
}

TEST_F(MountChecks, AMissingOrWrongBackendIsNamed) {
  std::ofstream(root_ / "file") << "x";
  EXPECT_EQ(error("nothing", "nvme", "cached"),
            "option nfs_backend=" + path("nothing") + ": No such file or directory");
  EXPECT_EQ(error("file", "nvme", "cached"),
            "option nfs_backend=" + path("file") + ": not a directory");
}

TEST_F(MountChecks, AMissingOrWrongMountPointIsNamed) {
  std::ofstream(root_ / "file") << "x";
  EXPECT_EQ(error("nfs", "nvme", "nothing"),
            "mount point " + path("nothing") + ": No such file or directory");
  EXPECT_EQ(error("nfs", "nvme", "file"), "mount point " + path("file") + ": not a directory");
}

TEST_F(MountChecks, TreesThatContainEachOtherAreRefused) {
  std::filesystem::create_directories(root_ / "nfs/inner");
  std::filesystem::create_directories(root_ / "nvme/inner");
  EXPECT_THAT(error("nfs", "nfs/inner/cache", "cached"), HasSubstr("lies inside nfs_backend="));
  EXPECT_THAT(error("nfs", "nfs", "cached"), HasSubstr("lies inside nfs_backend="));
  EXPECT_THAT(error("nvme/inner", "nvme", "cached"), HasSubstr("lies inside cache_dir="));
  EXPECT_THAT(error("nfs", "cached/cache", "cached"), HasSubstr("lies inside the mount point"));
  EXPECT_THAT(error("nfs", "nvme", "nvme/inner"), HasSubstr("lies inside cache_dir="));
  EXPECT_THAT(error("nfs", "nvme", "nfs/inner"), HasSubstr("would contain itself"));
}

TEST_F(MountChecks, ALinkDoesNotHideThatTreesContainEachOther) {
  std::filesystem::create_directory_symlink(root_ / "nfs", root_ / "link");
  EXPECT_THAT(error("nfs", "link/cache", "cached"), HasSubstr("lies inside nfs_backend="));
}

TEST_F(MountChecks, ANameThatOnlyBeginsAlikeIsNotInside) {
  std::filesystem::create_directory(root_ / "nfs-cache");
  EXPECT_EQ(error("nfs", "nfs-cache", "cached"), "(no error)");
}

TEST_F(MountChecks, TheBackendItselfMayBeMountedOver) {
  EXPECT_EQ(error("nfs", "nvme", "nfs"), "(no error)");
}

TEST_F(MountChecks, ABackendThatIsNotMountedYetMustNotBeHiddenByTheMount) {
  std::ofstream(root_ / "fstab") << "server:/export " << path("nfs") << " nfs defaults 0 0\n";
  ASSERT_EQ(setenv("LIBMOUNT_FSTAB", path("fstab").c_str(), 1), 0);
  const auto check_offline = [this](const std::string& mountpoint) {
    MountOptions options;
    options.nfs_backend = path("nfs");
    options.cache_dir = path("nvme");
    options.offline_start = true;
    return check_mount_places(options, path(mountpoint));
  };
  const auto beside = check_offline("cached");
  const auto over = check_offline("nfs");
  unsetenv("LIBMOUNT_FSTAB");
  ASSERT_TRUE(std::holds_alternative<MountPlaces>(beside));
  EXPECT_EQ(std::get<MountPlaces>(beside).root.error, ENODEV);
  EXPECT_EQ(std::get<MountPlaces>(beside).backend, path("nfs"));
  ASSERT_TRUE(std::holds_alternative<OptionError>(over));
  EXPECT_THAT(std::get<OptionError>(over).message, HasSubstr("option offline_start: "));
}

}  // namespace
}  // namespace ncfs
