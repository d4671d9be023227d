#include "fuse_adapter/mount_checks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "engine/backend_health.h"
#include "fuse_adapter/mount_table.h"
#include "io/source_identity.h"

namespace ncfs {
namespace {

// A FUSE mount without its daemon. Not by stat, which the kernel may answer from what it remembers.
bool is_dead_mount(const std::string& path) {
  struct statfs status {};
  return statfs(path.c_str(), &status) != 0 && errno == ENOTCONN;
}

// The error, if `path` is not a directory; `what` names it.
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

// Whether `path` lies in what is to be mounted and is not.
bool is_to_be_mounted(const std::string& path) {
  const char* const other = std::getenv("LIBMOUNT_FSTAB");
  std::ifstream fstab(other != nullptr ? other : "/etc/fstab");
  return lies_in_missing_mount(std::string(std::istreambuf_iterator<char>(fstab), {}),
                               read_mount_table(), path);
}

// Whether it may be there later, unlike a name that is wrong.
bool is_absent(int error) {
  return judge_backend(error) != BackendAnswer::good || error == ESTALE;
}

std::string error_of_backend(const MountOptions& options, int error) {
  const std::string name = fmt::format("option nfs_backend={}", options.nfs_backend);
  if (error == ENOTDIR) return name + ": not a directory";
  if (error == ENOTCONN) {
    return fmt::format("{}: a mount whose daemon has died is in the way; do: umount {}", name,
                       options.nfs_backend);
  }
  if (error == ETIMEDOUT) {
    return fmt::format("{}: no answer within {} seconds (backend_timeout_s)", name,
                       options.backend_timeout_seconds);
  }
  return fmt::format("{}: {}", name, std::strerror(error));
}

}  // namespace

BackendRoot find_backend_root(const std::string& path, bool must_be_mounted) {
  BackendRoot root;
  std::error_code error;
  root.path = std::filesystem::canonical(path, error);
  struct statfs status {};
  if (error) {
    root.error = error.value();
  } else if (must_be_mounted && is_to_be_mounted(root.path)) {
    root.error = ENODEV;
  } else if (statfs(root.path.c_str(), &status) != 0) {
    // Not by stat, which the kernel may answer from what it remembers of a dead mount.
    root.error = errno;
  } else {
    root.directory = Descriptor(open(root.path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const bool is_found =
        root.directory.is_open() && fstat(root.directory.get(), &root.attributes) == 0;
    root.error = is_found ? 0 : errno;
  }
  if (root.error == 0) root.is_on_network = is_on_network(root.directory.get());
  return root;
}

BackendRoot find_backend_root(const std::string& path, bool must_be_mounted, Nanos patience) {
  std::promise<BackendRoot> promise;
  std::future<BackendRoot> found = promise.get_future();
  std::thread([path, must_be_mounted, promise = std::move(promise)]() mutable {
    promise.set_value(find_backend_root(path, must_be_mounted));
  }).detach();
  if (found.wait_for(std::chrono::nanoseconds(patience)) == std::future_status::ready) {
    return found.get();
  }
  BackendRoot late;
  late.error = ETIMEDOUT;
  return late;
}

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

std::variant<MountPlaces, OptionError> check_mount_places(const MountOptions& options,
                                                          std::string_view mountpoint) {
  const std::string wanted(mountpoint);
  const std::string mountpoint_name = fmt::format("mount point {}", wanted);
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
  places.root = find_backend_root(options.nfs_backend, options.offline_start,
                                  options.backend_timeout_seconds * kSecond);
  if (places.root.error != 0 && !(options.offline_start && is_absent(places.root.error))) {
    return OptionError{error_of_backend(options, places.root.error)};
  }
  places.backend = places.root.path;
  if (places.backend.empty()) {
    const auto given = std::filesystem::absolute(options.nfs_backend).lexically_normal();
    places.backend = given.has_filename() ? given : given.parent_path();
  }
  if (places.root.error != 0 && is_within(places.backend, places.mountpoint)) {
    return OptionError{
        fmt::format("option offline_start: nfs_backend={} cannot be found again "
                    "once {} is mounted over it",
                    places.backend, places.mountpoint)};
  }
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
