#include "fuse_adapter/mount_checks.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include "fuse_adapter/mount_table.h"

namespace ncfs {
namespace {

// A FUSE mount without its daemon. Not by stat, which the kernel may answer from what it remembers.
bool is_dead_mount(const std::string& path) {
  struct statfs status {};
  return statfs(path.c_str(), &status) != 0 && errno == ENOTCONN;
}

// The error, if `path` is not a directory; `what` names option and path.
std::optional<std::string> check_directory(const std::string& what, const std::string& path) {
  struct stat status {};
  if (is_dead_mount(path)) {
    return fmt::format("{}: a mount whose daemon has died is in the way; do: umount {}", what,
                       path);
  }
  if (stat(path.c_str(), &status) != 0) return fmt::format("{}: {}", what, std::strerror(errno));
  if (!S_ISDIR(status.st_mode)) return fmt::format("{}: not a directory", what);
  return std::nullopt;
}

// Two trees of which one contains the other would cache the cache or never end.
std::optional<std::string> check_nesting(const MountPlaces& places) {
  if (is_within(places.cache_dir, places.backend)) {
    return fmt::format("option cache_dir={}: lies inside nfs_backend={}", places.cache_dir,
                       places.backend);
  }
  if (is_within(places.backend, places.cache_dir)) {
    return fmt::format("option nfs_backend={}: lies inside cache_dir={}", places.backend,
                       places.cache_dir);
  }
  if (is_within(places.cache_dir, places.mountpoint)) {
    return fmt::format("option cache_dir={}: lies inside the mount point {}", places.cache_dir,
                       places.mountpoint);
  }
  if (is_within(places.mountpoint, places.cache_dir)) {
    return fmt::format("mount point {}: lies inside cache_dir={}", places.mountpoint,
                       places.cache_dir);
  }
  // The same directory is fine: the backend is opened before it is mounted over.
  if (places.mountpoint != places.backend && is_within(places.mountpoint, places.backend)) {
    return fmt::format("mount point {}: lies inside nfs_backend={}, which would contain itself",
                       places.mountpoint, places.backend);
  }
  return std::nullopt;
}

}  // namespace

std::variant<MountPlaces, OptionError> check_mount_places(const MountOptions& options,
                                                          std::string_view mountpoint) {
  const std::string wanted(mountpoint);
  const std::string mountpoint_name = fmt::format("mount point {}", wanted);
  const std::string backend_name = fmt::format("option nfs_backend={}", options.nfs_backend);
  const auto mounts = read_mount_table();
  MountPlaces places;
  std::error_code error;
  places.mountpoint = std::filesystem::canonical(wanted, error);
  if (error.value() == ENOTCONN) {
    // The root of a dead mount cannot be looked at; what it is mounted on can.
    const auto place = std::filesystem::absolute(wanted).lexically_normal();
    const auto directory = place.has_filename() ? place : place.parent_path();
    places.mountpoint =
        std::filesystem::canonical(directory.parent_path(), error) / directory.filename();
  }
  if (error) return OptionError{fmt::format("{}: {}", mountpoint_name, error.message())};
  // What a daemon that was killed has left is taken away when the new one mounts.
  const MountEntry* top = find_mount(mounts, places.mountpoint);
  const bool is_ours =
      top != nullptr && top->mountpoint == places.mountpoint && top->type == kMountType;
  const bool is_left_over = is_ours && is_dead_mount(places.mountpoint);
  if (is_ours && !is_left_over) {
    return OptionError{fmt::format("{}: a cachefs is already mounted there", mountpoint_name)};
  }
  if (!is_left_over) {
    if (auto problem = check_directory(mountpoint_name, wanted)) return OptionError{*problem};
  }
  if (auto problem = check_directory(backend_name, options.nfs_backend)) {
    return OptionError{*problem};
  }
  places.backend = std::filesystem::canonical(options.nfs_backend, error);
  if (error) return OptionError{fmt::format("{}: {}", backend_name, error.message())};
  places.cache_dir = std::filesystem::weakly_canonical(options.cache_dir, error);
  if (error) {
    return OptionError{fmt::format("option cache_dir={}: {}", options.cache_dir, error.message())};
  }
  if (!std::filesystem::path(places.cache_dir).has_filename()) {
    places.cache_dir = std::filesystem::path(places.cache_dir).parent_path();
  }
  if (auto nesting = check_nesting(places)) return OptionError{*nesting};
  return places;
}

}  // namespace ncfs
