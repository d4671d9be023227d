#include "tools/control_client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "fuse_adapter/control_socket.h"

namespace ncfs {

namespace http = boost::beast::http;
using nlohmann::json;

ControlClient::~ControlClient() {
  if (socket_ >= 0) close(socket_);
}

std::string ControlClient::connect(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    return fmt::format("{}: too long for a socket", socket_path);
  }
  socket_path.copy(address.sun_path, socket_path.size());
  socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket_ < 0) return std::strerror(errno);
  // Connecting to a Unix socket is done at once or fails; EAGAIN is a full queue.
  if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return {};
  }
  switch (errno) {
    case EACCES:
      return "permission denied";
    case ENOENT:
    case ECONNREFUSED:
      return "its daemon does not run";
    case EAGAIN:
      return "its daemon is busy";
    default:
      return std::strerror(errno);
  }
}

bool ControlClient::await(short events) const {
  pollfd waiting{socket_, events, 0};
  const auto deadline = std::chrono::milliseconds(reply_deadline_).count();
  return poll(&waiting, 1, static_cast<int>(deadline)) != 0;
}

std::string ControlClient::send(std::string_view text) const {
  while (!text.empty()) {
    if (!await(POLLOUT)) return "its daemon does not answer";
    const ssize_t count = ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    // It may have said why before it hung up.
    if (count < 0) return {};
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

std::string ControlClient::receive(ControlReply& reply) const {
  // Replies are bounded by the daemon's own limits; this one keeps a broken peer from filling
  // memory.
  static constexpr std::size_t kReplyMax = 64 * 1024 * 1024;
  http::response_parser<http::string_body> parser;
  parser.body_limit(kReplyMax);
  parser.eager(true);
  std::string input;
  while (!parser.is_done()) {
    if (!await(POLLIN)) return "its daemon does not answer";
    char bytes[16 * 1024];
    const ssize_t count = recv(socket_, bytes, sizeof bytes, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (count <= 0) return "its daemon has ended";
    input.append(bytes, static_cast<std::size_t>(count));
    boost::system::error_code error;
    input.erase(0, parser.put(boost::asio::buffer(input), error));
    if (error && error != http::error::need_more) return "its daemon sent something strange";
  }
  reply.status = parser.get().result_int();
  reply.text = std::move(parser.get().body());
  reply.value = json::parse(reply.text, nullptr, false);
  if (reply.status < 400) return {};
  return reply.value.is_object() ? reply.value.value("error", "its daemon refused")
                                 : "its daemon refused";
}

std::string ControlClient::ask(std::string_view method, std::string_view target, const json& body,
                               ControlReply& reply) {
  reply = {};
  std::string text;
  try {
    text = body.is_null() ? "" : body.dump();
  } catch (const json::exception&) {
    return "a path is not valid UTF-8: name its directory instead";
  }
  const std::string head = fmt::format(
      "{} {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Content-Length: {}\r\n\r\n",
      method, target, text.size());
  if (std::string error = send(head + text); !error.empty()) return error;
  return receive(reply);
}

std::vector<KnownMount> known_mounts(const std::vector<MountEntry>& table,
                                     const std::string& directory) {
  std::vector<KnownMount> mounts;
  for (const MountEntry& entry : table) {
    if (entry.type != kMountType || entry.root != "/") continue;
    const std::string socket_path = control_socket_path(directory, entry.mountpoint);
    // A bind of the whole tree looks like a mount but has no socket of its own.
    const bool has_original = std::any_of(table.begin(), table.end(), [&](const auto& other) {
      return other.device == entry.device && other.mountpoint != entry.mountpoint &&
             std::filesystem::exists(control_socket_path(directory, other.mountpoint));
    });
    std::error_code error;
    if (has_original && !std::filesystem::exists(socket_path, error)) continue;
    mounts.push_back({entry.mountpoint, socket_path});
  }
  std::vector<std::string> others;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(directory, error)) {
    const std::string path = file.path();
    const bool is_known = std::any_of(mounts.begin(), mounts.end(),
                                      [&](const auto& mount) { return mount.socket_path == path; });
    if (path.ends_with(".sock") && !is_known) others.push_back(path);
  }
  std::sort(others.begin(), others.end());
  for (const std::string& path : others) mounts.push_back({"", path});
  return mounts;
}

PathInMount locate(const std::vector<MountEntry>& table, const std::string& directory,
                   const std::string& path) {
  PathInMount result;
  const MountEntry* entry = find_mount(table, path);
  if (entry == nullptr || entry->type != kMountType) {
    result.error = fmt::format("{}: not in a cachefs mount", path);
    return result;
  }
  std::string inner = path.substr(entry->mountpoint == "/" ? 0 : entry->mountpoint.size());
  if (entry->root != "/") inner = entry->root + inner;
  for (const KnownMount& mount : known_mounts(table, directory)) {
    const MountEntry* original = find_mount(table, mount.mountpoint);
    if (original == nullptr || original->device != entry->device) continue;
    result.mount = mount;
    result.path = mount.mountpoint == "/" ? inner : mount.mountpoint + inner;
    return result;
  }
  result.error = fmt::format("{}: the daemon of this mount is not to be found", path);
  return result;
}

}  // namespace ncfs
