#include "fuse_adapter/ganesha_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "fuse_adapter/mount_table.h"
#include "io/descriptor.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

std::uint16_t free_port() {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof(address);
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::system_error(errno, std::generic_category(), "a port for the NFS server");
  }
  return ntohs(address.sin_port);
}

bool takes_connections(std::uint16_t port) {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(port);
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

// Of all sockets with the local port, ended a moment ago or not, the bytes that nobody has read;
// nothing if there is no such socket. proc_net_tcp: number, local, remote, state, queues.
std::optional<unsigned long> unread_bytes(std::uint16_t port) {
  std::array<char, 16> ending{};
  std::snprintf(ending.data(), ending.size(), ":%04X", static_cast<unsigned>(port));
  std::optional<unsigned long> bytes;
  for (const char* const table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream sockets(table);
    for (std::string line; std::getline(sockets, line);) {
      std::array<std::string, 5> fields;
      std::istringstream words(line);
      for (std::string& field : fields) words >> field;
      if (!fields[1].ends_with(ending.data())) continue;
      const std::string received = fields[4].substr(fields[4].find(':') + 1);
      const bool listens = fields[3] == "0A";  // its queue is one of connections
      bytes = bytes.value_or(0) + (listens ? 0 : std::stoul(received, nullptr, 16));
    }
  }
  return bytes;
}

}  // namespace

GaneshaServer::GaneshaServer(std::string place, std::string exported, Options options)
    : place_(std::move(place)), exported_(std::move(exported)), options_(options) {
  // A port that is free may not be a moment later.
  constexpr int kAttempts = 10;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    port_ = free_port();
    if (start_once()) return;
  }
  throw std::system_error(EIO, std::generic_category(), "ganesha.nfsd, see " + place_ + "/log");
}

GaneshaServer::~GaneshaServer() {
  kill_process();
}

std::string GaneshaServer::url(const std::string& path) const {
  return "nfs://127.0.0.1:" + std::to_string(port_) + "/data" + path;
}

void GaneshaServer::stop_process() {
  ::kill(server_, SIGSTOP);
  ::waitpid(server_, nullptr, WUNTRACED);  // all of its threads
}

void GaneshaServer::continue_process() {
  ::kill(server_, SIGCONT);
}

bool GaneshaServer::has_unread_calls() const {
  return unread_bytes(port_).value_or(0) > 0;
}

void GaneshaServer::kill_process() {
  if (server_ < 0) return;
  ::kill(server_, SIGKILL);
  ::waitpid(server_, nullptr, 0);
  server_ = -1;
}

void GaneshaServer::start() {
  // Its port must be free of connections, which the kernel ends after a minute at the latest.
  if (!eventually([&] { return !unread_bytes(port_); }, 2 * kTestPatience) || !start_once()) {
    throw std::system_error(EIO, std::generic_category(), "ganesha.nfsd, see " + place_ + "/log");
  }
}

// Without the protocols that need rpcbind; without a time of grace after a start, in which no test
// would have anything to reclaim; and without remembering attributes, as tests change the exported
// directory itself.
void GaneshaServer::write_configuration() const {
  std::filesystem::create_directory(place_ + "/recovery");
  std::ofstream(place_ + "/conf")
      << "NFS_CORE_PARAM { Protocols = 4; NFS_Port = " << port_
      << "; Bind_addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; "
         "}\n"
         "NFSv4 { Graceless = true; Minor_Versions = 0; RecoveryBackend = fs; RecoveryRoot = \""
      << place_
      << "/recovery\"; Only_Numeric_Owners = true; }\n"
         "NFS_KRB5 { Active_krb5 = false; }\n"
         "EXPORT { Export_Id = 1; Path = \""
      << exported_
      << "\"; Pseudo = \"/data\"; SecType = sys; Protocols = 4; Transports = TCP; "
         "Attr_Expiration_Time = 0; Access_Type = "
      << (options_.read_only ? "RO" : "RW")
      << "; Squash = " << (options_.squashes_root ? "Root_Squash" : "None")
      << "; FSAL { Name = VFS; } }\n"
         "LOG { Default_Log_Level = EVENT; }\n";
}

bool GaneshaServer::start_once() {
  write_configuration();
  const std::string conf = place_ + "/conf";
  const std::string log = place_ + "/log";
  const std::string pid = place_ + "/pid";
  const std::array<const char*, 9> arguments{"ganesha.nfsd", "-F", "-f",        conf.c_str(), "-L",
                                             log.c_str(),    "-p", pid.c_str(), nullptr};
  std::vector<std::string> own_mounts;
  for (const MountEntry& mount : read_mount_table()) {
    if (mount.type.starts_with("fuse")) own_mounts.push_back(mount.mountpoint);
  }
  const pid_t test = ::getpid();
  server_ = ::fork();
  if (server_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != test) ::_exit(1);
    // It looks at every file system there is. One that waits for the server itself, or is made to
    // hang by another test, would keep it from starting, and even from being killed.
    ::unshare(CLONE_NEWNS);
    ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    for (const std::string& mount : own_mounts) {
      ::umount2(mount.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    }
    const int null = ::open("/dev/null", O_RDWR);
    for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, standard);
    ::execvp(arguments[0], const_cast<char* const*>(arguments.data()));
    ::_exit(1);
  }
  bool has_ended = false;
  const bool is_up = eventually([&] {
    has_ended = ::waitpid(server_, nullptr, WNOHANG) == server_;
    return has_ended || takes_connections(port_);
  });
  if (has_ended) server_ = -1;
  return is_up && !has_ended;
}

}  // namespace ncfs
