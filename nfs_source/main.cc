// nfs-cachefs-nfs URL DIRECTORY SECONDS RUN: shows a tree of an NFS server at the directory, until
// it is unmounted. A call to the server may take the given time. Started by nfs-cachefs, and again,
// with the next RUN, if it dies. File descriptors: 3 is told, and then closed, how the start went:
// nothing if the tree can be used, or one line. 4 and 5 are the device and the memory of the mount,
// see nfs_tree.h. Logs to stderr.
#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <variant>

#include "io/nfs_url.h"
#include "nfs_source/nfs_server.h"
#include "nfs_source/nfs_tree.h"

namespace ncfs {
namespace {

constexpr int kReport = 3;
constexpr int kDevice = 4;
constexpr int kMemory = 5;

int fail(const std::string& message) {
  const std::string line = message + '\n';
  [[maybe_unused]] const ssize_t written = ::write(kReport, line.data(), line.size());
  return EXIT_FAILURE;
}

int run(const char* text, const char* place, const char* seconds, const char* number) {
  const auto parsed = parse_nfs_url(text);
  if (const auto* error = std::get_if<NfsUrlError>(&parsed)) return fail(error->message);
  const auto& url = std::get<NfsUrl>(parsed);
  NfsServer server(url, std::chrono::seconds(std::atol(seconds)));
  NfsServer::Found root;
  if (const int error = server.find_root(root); error != 0) {
    const std::string connection = server.connection_error();
    return fail(
        fmt::format("{}: {}", url.name(), connection.empty() ? std::strerror(error) : connection));
  }
  NfsTree tree(server, root, static_cast<std::uint32_t>(std::atol(number)));
  if (const std::string error = tree.mount(url.name(), place, kDevice, kMemory); !error.empty()) {
    return fail(error);
  }
  ::close(kReport);
  tree.serve();
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace ncfs

int main(int argc, char** argv) {
  if (argc != 5) {
    fmt::print(stderr, "nfs-cachefs-nfs is started by nfs-cachefs; see nfs-cachefs(8)\n");
    return EXIT_FAILURE;
  }
  for (const int inherited : {ncfs::kReport, ncfs::kDevice, ncfs::kMemory}) {
    ::fcntl(inherited, F_SETFD, FD_CLOEXEC);
  }
  // Messages of some hundred KiB come and go all the time: they stay in the heap.
  ::mallopt(M_MMAP_THRESHOLD, 64 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
  auto logger = spdlog::stderr_logger_mt("nfs");
  logger->set_pattern("%v");
  spdlog::set_default_logger(std::move(logger));
  const int status = ncfs::run(argv[1], argv[2], argv[3], argv[4]);
  std::fflush(nullptr);
  // Threads that wait for the server are left behind.
  ::_exit(status);
}
