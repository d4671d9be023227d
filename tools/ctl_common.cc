#include "tools/ctl_common.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "fuse_adapter/control_socket.h"
#include "fuse_adapter/mount_table.h"

namespace ncfs::ctl {

using nlohmann::json;

namespace {

std::string percent_encoded(const std::string& text) {
  std::string result;
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    const bool is_plain =
        std::isalnum(byte) != 0 || letter == '/' || letter == '.' || letter == '-' || letter == '_';
    result += is_plain ? std::string(1, letter) : fmt::format("%{:02X}", byte);
  }
  return result;
}

}  // namespace

int fail(int status, const std::string& message) {
  fmt::print(stderr, "nfs-cachefs-ctl: {}\n", message);
  return status;
}

std::string name_of(const KnownMount& mount) {
  return mount.mountpoint.empty() ? mount.socket_path : mount.mountpoint;
}

int ask(const KnownMount& mount, std::string_view method, const std::string& target,
        const json& body, ControlReply& reply, std::chrono::seconds deadline) {
  ControlClient client(deadline);
  std::string error = client.connect(mount.socket_path);
  if (error.empty()) error = client.ask(method, target, body, reply);
  if (error.empty()) return kOk;
  const int status = reply.status == 0 ? kNoMount : reply.status == 403 ? kDenied : kSomeFailed;
  return fail(status, fmt::format("{}: {}", name_of(mount), error));
}

std::string ask_status(const KnownMount& mount, json& status) {
  ControlClient client(ControlClient::kStatusDeadline);
  if (std::string error = client.connect(mount.socket_path); !error.empty()) return error;
  ControlReply reply;
  std::string error = client.ask("GET", "/v1/status", nullptr, reply);
  status = reply.value.is_object() ? std::move(reply.value) : json::object();
  return error;
}

int choose_mounts(const std::string& mountpoint, std::vector<KnownMount>& mounts) {
  const auto table = read_mount_table();
  if (mountpoint.empty()) {
    mounts = known_mounts(table, kControlDirectory);
    // A socket without a mount or a daemon is what a kill left.
    std::erase_if(mounts, [](const KnownMount& mount) {
      json ignored;
      return mount.mountpoint.empty() && !ask_status(mount, ignored).empty();
    });
    return mounts.empty() ? fail(kNoMount, "no cachefs is mounted") : kOk;
  }
  // A dead mount cannot be looked up, but its name is in the table.
  std::error_code failed;
  std::string path = std::filesystem::canonical(mountpoint, failed);
  if (failed) path = std::filesystem::absolute(mountpoint).lexically_normal();
  const PathInMount found = locate(table, kControlDirectory, path);
  if (!found.error.empty()) return fail(kNoMount, found.error);
  mounts = {found.mount};
  return kOk;
}

int sort_paths(const std::vector<std::string>& paths, bool must_exist,
               std::map<std::string, MountAndPaths>& by_mount) {
  const auto table = read_mount_table();
  for (const std::string& path : paths) {
    std::error_code failed;
    const std::string real = must_exist ? std::filesystem::canonical(path, failed)
                                        : std::filesystem::weakly_canonical(path, failed);
    if (failed) return fail(kUsage, fmt::format("{}: {}", path, failed.message()));
    const PathInMount found = locate(table, kControlDirectory, real);
    if (!found.error.empty()) return fail(kNoMount, found.error);
    MountAndPaths& entry = by_mount[found.mount.mountpoint];
    entry.mount = found.mount;
    entry.paths.push_back(found.path);
  }
  return kOk;
}

int ask_files(const KnownMount& mount, const std::string& path, std::vector<json>& files) {
  std::uint64_t after = 0;
  while (true) {
    std::string target = fmt::format("/v1/files?after={}", after);
    if (!path.empty()) target += "&path=" + percent_encoded(path);
    ControlReply reply;
    if (const int failed = ask(mount, "GET", target, nullptr, reply); failed != kOk) return failed;
    for (json& file : reply.value["files"]) files.push_back(std::move(file));
    if (!reply.value["next"].is_number()) break;
    after = reply.value["next"].get<std::uint64_t>();
  }
  std::ranges::stable_sort(files, {}, [](const json& file) { return file.value("path", ""); });
  return kOk;
}

void Output::add(const KnownMount& mount, json value, const std::string& text) {
  if (!as_json_) {
    fmt::print("{}: {}", name_of(mount), text);
    return;
  }
  json row = {{"mountpoint", name_of(mount)}};
  row.update(value);
  rows_.push_back(std::move(row));
}

void Output::end() const {
  if (as_json_) fmt::print("{}\n", rows_.dump(2));
}

}  // namespace ncfs::ctl
