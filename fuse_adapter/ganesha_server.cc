#include "fuse_adapter/ganesha_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
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
#include <cstdlib>
#include <filesystem>
#include <fstream>
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

bool takes_connections(std::uint16_t port) {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(port);
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

// Of all connections of the local port, the bytes that nobody has read. proc_net_tcp: number,
// local, remote, state, queues.
unsigned long unread_bytes(std::uint16_t port) {
  std::array<char, 16> ending{};
  std::snprintf(ending.data(), ending.size(), ":%04X", static_cast<unsigned>(port));
  unsigned long bytes = 0;
  for (const char* const table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream sockets(table);
    for (std::string line; std::getline(sockets, line);) {
      std::array<std::string, 5> fields;
      std::istringstream words(line);
      for (std::string& field : fields) words >> field;
      const bool listens = fields[3] == "0A";  // its queue is one of connections
      if (!fields[1].ends_with(ending.data()) || listens) continue;
      bytes += std::stoul(fields[4].substr(fields[4].find(':') + 1), nullptr, 16);
    }
  }
  return bytes;
}

// Whether all threads of the process are stopped.
bool is_stopped(pid_t process) {
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/task")) {
    std::string line;
    std::getline(std::ifstream(task.path() / "stat"), line);
    const std::size_t name_end = line.rfind(") ");
    if (name_end == std::string::npos || line[name_end + 2] != 'T') return false;
  }
  return true;
}

// For each byte that comes the program is started; its number is told, and once it has ended a
// byte. Until the other end is closed. Only what is safe after a fork.
[[noreturn]] void keep(int line, const char* const* arguments) {
  char order = 0;
  while (::read(line, &order, 1) == 1) {
    const pid_t keeper = ::getpid();
    const pid_t server = ::fork();
    if (server == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() == keeper) ::execvp(arguments[0], const_cast<char* const*>(arguments));
      ::_exit(1);
    }
    if (::write(line, &server, sizeof(server)) != sizeof(server)) break;
    ::waitpid(server, nullptr, 0);
    if (::write(line, &order, 1) != 1) break;
  }
  ::_exit(0);
}

}  // namespace

// Ganesha too sets SO_REUSEADDR, so that it can listen on the port all the same, whatever is left
// of the connections of the one before.
GaneshaServer::GaneshaServer(std::string place, std::string exported, Options options)
    : place_(std::move(place)),
      exported_(std::move(exported)),
      options_(options),
      reservation_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const int yes = 1;
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof(address);
  if (::setsockopt(reservation_.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
      ::bind(reservation_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(reservation_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::system_error(errno, std::generic_category(), "a port for the NFS server");
  }
  port_ = ntohs(address.sin_port);
  write_configuration();
  start_keeper();
  start();
}

GaneshaServer::~GaneshaServer() {
  end_process(SIGKILL);
  line_.reset();
  ::waitpid(keeper_, nullptr, 0);
}

std::string GaneshaServer::url(const std::string& path) const {
  return "nfs://127.0.0.1:" + std::to_string(port_) + "/data" + path;
}

void GaneshaServer::stop_process() {
  if (server_ > 0) ::kill(server_, SIGSTOP);
  if (server_ < 0 || !eventually([&] { return is_stopped(server_); })) {
    throw std::system_error(EIO, std::generic_category(), "the NFS server does not stop");
  }
}

void GaneshaServer::continue_process() {
  if (server_ > 0) ::kill(server_, SIGCONT);
}

bool GaneshaServer::has_unread_calls() const {
  return unread_bytes(port_) > 0;
}

void GaneshaServer::end_process(int signal) {
  if (has_ended({})) return;
  ::kill(server_, signal);
  if (has_ended(kTestPatience)) return;
  ::kill(server_, SIGKILL);
  (void)has_ended(kTestPatience);
}

bool GaneshaServer::has_ended(std::chrono::milliseconds patience) {
  if (server_ < 0) return true;
  pollfd told{line_.get(), POLLIN, 0};
  char byte = 0;
  if (::poll(&told, 1, static_cast<int>(patience.count())) != 1) return false;
  server_ = -1;
  return ::read(line_.get(), &byte, 1) >= 0;
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

void GaneshaServer::start_keeper() {
  const std::string conf = place_ + "/conf";
  const std::string log = place_ + "/log";
  const std::string pid = place_ + "/pid";
  const std::array<const char*, 9> arguments{"ganesha.nfsd", "-F", "-f",        conf.c_str(), "-L",
                                             log.c_str(),    "-p", pid.c_str(), nullptr};
  std::vector<std::string> fuse_mounts;
  for (const MountEntry& mount : read_mount_table()) {
    if (mount.type.starts_with("fuse")) fuse_mounts.push_back(mount.mountpoint);
  }
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw std::system_error(errno, std::generic_category(), "socketpair");
  }
  const pid_t test = ::getpid();
  keeper_ = ::fork();
  if (keeper_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != test) ::_exit(1);
    // Ganesha looks at every file system there is. One that is made to hang by another test would
    // keep it from starting, and even from being killed.
    ::unshare(CLONE_NEWNS);
    ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    for (const std::string& mount : fuse_mounts) {
      ::umount2(mount.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    }
    const int null = ::open("/dev/null", O_RDWR);
    for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, standard);
    // Nothing of the test's is kept open.
    ::fcntl(::dup2(ends[1], STDERR_FILENO + 1), F_SETFD, FD_CLOEXEC);
    ::close_range(STDERR_FILENO + 2, ~0U, 0);
    keep(STDERR_FILENO + 1, arguments.data());
  }
  ::close(ends[1]);
  line_ = Descriptor(ends[0]);
}

void GaneshaServer::start() {
  // By the second of its start its clients know whether it is the one that they wrote to.
  (void)eventually([&] { return std::time(nullptr) != started_at_; });
  const char order = 0;
  const bool is_told = ::write(line_.get(), &order, 1) == 1 &&
                       ::recv(line_.get(), &server_, sizeof(server_), MSG_WAITALL) ==
                           static_cast<ssize_t>(sizeof(server_));
  if (is_told) (void)eventually([&] { return has_ended({}) || takes_connections(port_); });
  if (has_ended({}) || !takes_connections(port_)) {
    end_process(SIGKILL);
    throw std::system_error(EIO, std::generic_category(), "ganesha.nfsd, see " + place_ + "/log");
  }
  started_at_ = std::time(nullptr);
}

// With the words by which ctest knows a test that was skipped; GoogleTest does not say them here.
void GaneshaEnvironment::SetUp() {
  if (std::system("command -v ganesha.nfsd >/dev/null") != 0) {
    GTEST_SKIP() << "[  SKIPPED ] no ganesha.nfsd: install nfs-ganesha and nfs-ganesha-vfs";
  }
}

}  // namespace ncfs
