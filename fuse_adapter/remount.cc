#include "fuse_adapter/remount.h"

#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <system_error>
#include <variant>

#include "fuse_adapter/control_socket.h"
#include "fuse_adapter/mount_table.h"
#include "fuse_adapter/option_values.h"
#include "io/descriptor.h"

namespace ncfs {
namespace {

using nlohmann::json;

// The daemon tells its options from memory.
constexpr timeval kAnswerPatience{.tv_sec = 10, .tv_usec = 0};

struct InForce {
  std::string value;
  bool is_hot = false;  // nfs-cachefs-ctl changes it while it is mounted
};
using Options = std::map<std::string, InForce, std::less<>>;

// The whole of an answer of HTTP; what came until the peer hung up or fell silent.
std::string ask(const std::string& socket_path, std::string_view target) {
  const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket_path.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &kAnswerPatience, sizeof kAnswerPatience);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(socket.get(), generic, sizeof address) != 0) return {};
  const std::string request =
      fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", target);
  if (::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) return {};
  std::string answer;
  char bytes[4096];
  for (ssize_t count = 0; (count = ::recv(socket.get(), bytes, sizeof bytes, 0)) > 0;) {
    answer.append(bytes, static_cast<std::size_t>(count));
  }
  return answer;
}

// nullopt: it does not answer.
std::optional<Options> options_in_force(const std::string& mountpoint) {
  const std::string answer = ask(control_socket_path(kControlDirectory, mountpoint), "/v1/config");
  const auto head = answer.find("\r\n\r\n");
  if (head == std::string::npos) return std::nullopt;
  const json body = json::parse(answer.substr(head + 4), nullptr, false);
  if (!body.is_object() || !body.contains("options")) return std::nullopt;
  Options options;
  for (const json& row : body["options"]) {
    const json& value = row["value"];
    options[row["name"]] = {value.is_null() ? "" : value.get<std::string>(), row["hot"]};
  }
  return options;
}

// What is wrong with the own options given, if anything.
std::optional<std::string> compare(const std::string& mountpoint, const MountOptions& options) {
  if (options.given.empty()) return std::nullopt;
  const auto in_force = options_in_force(mountpoint);
  if (!in_force) {
    return fmt::format(
        "the daemon of {} does not tell which options are in force: give only those of mount(8)",
        mountpoint);
  }
  const auto wanted = option_values(options);
  for (const auto& [given, text] : options.given) {
    const std::string name = given == "cache_size_gb" ? "cache_size" : given;
    const auto known = in_force->find(name);
    if (known == in_force->end() || known->second.value == wanted.find(name)->second) continue;
    return fmt::format("option {}={}: {} is in force; {}", given, text, known->second.value,
                       known->second.is_hot ? "nfs-cachefs-ctl changes it while it is mounted"
                                            : "to change it unmount and mount again");
  }
  return std::nullopt;
}

unsigned long untrusted_of(const MountEntry& mount) {
  const std::string flags = "," + mount.flags + ",";
  unsigned long result = 0;
  if (flags.find(",nosuid,") != std::string::npos) result |= MS_NOSUID;
  if (flags.find(",nodev,") != std::string::npos) result |= MS_NODEV;
  return result;
}

}  // namespace

MountReport remount(const RemountOrder& order) {
  // The mount itself is not asked: its backend may hang.
  const std::filesystem::path named(order.mountpoint);
  std::error_code error;
  const std::string place =
      std::filesystem::canonical(named.parent_path(), error) / named.filename();
  const auto mounts = read_mount_table();
  const MountEntry* mount = error ? nullptr : find_mount(mounts, place);
  if (mount == nullptr || mount->mountpoint != place || mount->type != kMountType) {
    return {kMountFailure, fmt::format("no cachefs is mounted on {}", order.mountpoint)};
  }
  const auto parsed = parse_remount_options(order.options, order.unknown, untrusted_of(*mount));
  if (const auto* wrong = std::get_if<OptionError>(&parsed)) return {kMountUsage, wrong->message};
  const auto& options = std::get<MountOptions>(parsed);
  if (const auto problem = compare(place, options)) return {kMountFailure, *problem};
  if (order.is_rehearsal) return {};
  const unsigned long flags = MS_REMOUNT | options.mount_flags;
  if (::mount(nullptr, place.c_str(), nullptr, flags, nullptr) != 0) {
    return {kMountFailure, fmt::format("remount {}: {}", place, std::strerror(errno))};
  }
  return {};
}

}  // namespace ncfs
