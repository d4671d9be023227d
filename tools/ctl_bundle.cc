// Everything is gathered in a directory that only the caller may read, then packed by tar. Nothing
// here asks the mount or the backend itself: either may hang. What could not be had is told in the
// bundle, and is no reason not to make one.
#include "tools/ctl_bundle.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <optional>
#include <regex>
#include <sstream>
#include <utility>
#include <vector>

#include "fuse_adapter/control_socket.h"
#include "fuse_adapter/mount_table.h"
#include "tools/anonymizer.h"
#include "tools/ctl_common.h"

namespace ncfs::ctl {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A day or so of a busy mount; a few megabytes.
constexpr const char* kLogLines = "20000";
constexpr const char* kKernelLines = "5000";
constexpr int kFilePartsMax = 10;  // of a thousand files

// What a program prints; nothing if it cannot be run or fails. It is given 30 seconds.
std::optional<std::string> output_of(std::vector<std::string> words) {
  words.insert(words.begin(), {"timeout", "30"});
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error =
      posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string text;
  char bytes[65536];
  ssize_t count = 0;
  while ((count = read(ends[0], bytes, sizeof bytes)) > 0 || (count < 0 && errno == EINTR)) {
    if (count > 0) text.append(bytes, static_cast<std::size_t>(count));
  }
  close(ends[0]);
  if (error != 0) return std::nullopt;
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return std::nullopt;
  return text;
}

class Bundle {
 public:
  Bundle(fs::path directory, bool anonymize)
      : directory_(std::move(directory)), anonymize_(anonymize) {}

  void add(const std::string& name, const std::string& text) {
    const fs::path path = directory_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    names_.push_back(name);
  }

  void add_file(const std::string& name, const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    if (file) text << file.rdbuf();
    if (!file || text.str().empty()) return missing(name, path.string() + " cannot be read");
    add(name, without_secrets(text.str()));
  }

  // The reply, null if there was none.
  json add_reply(const KnownMount& mount, const std::string& name, const std::string& target) {
    ControlClient client(ControlClient::kStatusDeadline);
    ControlReply reply;
    std::string error = client.connect(mount.socket_path);
    if (error.empty()) error = client.ask("GET", target, nullptr, reply);
    if (!error.empty()) {
      missing(name, error);
      return nullptr;
    }
    if (reply.value.is_object()) {
      if (anonymize_) anonymizer_.clean(reply.value);
      reply.text = reply.value.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
    }
    add(name, reply.text);
    return reply.value;
  }

  void add_log() {
    const auto text =
        output_of({"journalctl", "-q", "-t", "cachefs", "-n", kLogLines, "-o", "json"});
    if (!text || text->empty()) {
      return missing("log.txt", "the journal has nothing, or may not be read; is there a syslog?");
    }
    std::string log;
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);) {
      const json message = json::parse(line, nullptr, false);
      if (message.is_object()) {
        log += Anonymizer::log_line(message, anonymize_ ? &anonymizer_ : nullptr);
      }
    }
    add("log.txt", log);
  }

  // Of the kernel's messages those that may have to do with it; the others are nobody's business.
  void add_kernel_log() {
    const auto text = output_of({"journalctl", "-q", "-k", "-n", kKernelLines, "-o", "short-iso"});
    if (!text) return missing("kernel.txt", "the kernel's messages cannot be read");
    static const std::regex kOurs(
        "nfs|rpc|fuse|I/O error|ext4|xfs|btrfs|nvme|blocked for more|oom|out of memory",
        std::regex::icase);
    std::string log;
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);) {
      if (std::regex_search(line, kOurs)) log += line + "\n";
    }
    add("kernel.txt", log);
  }

  void missing(const std::string& name, const std::string& reason) {
    missing_.push_back({{"name", name}, {"reason", reason}});
  }

  [[nodiscard]] json manifest() const {
    return {{"version", NCFS_VERSION},
            {"made_at", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))},
            {"anonymized", anonymize_},
            {"files", names_},
            {"missing", missing_}};
  }

 private:
  // File systems hide passwords of theirs; this is for those that do not.
  static std::string without_secrets(const std::string& text) {
    static const std::regex kSecret("((?:pass|passwd|password|secret|token|key)=)[^,\\s]*",
                                    std::regex::icase);
    return std::regex_replace(text, kSecret, "$1***");
  }

  const fs::path directory_;
  const bool anonymize_;
  Anonymizer anonymizer_;
  json names_ = json::array();
  json missing_ = json::array();
};

void add_mount(Bundle& bundle, const KnownMount& mount, const std::string& folder) {
  bundle.add_reply(mount, folder + "/status.json", "/v1/status");
  bundle.add_reply(mount, folder + "/config.json", "/v1/config");
  bundle.add_reply(mount, folder + "/health.json", "/v1/health");
  bundle.add_reply(mount, folder + "/warm.json", "/v1/warm");
  bundle.add_reply(mount, folder + "/hot-files.json", "/v1/hot-files");
  bundle.add_reply(mount, folder + "/metrics.txt", "/metrics");
  std::uint64_t after = 0;
  for (int part = 1; part == 1 || (after != 0 && part <= kFilePartsMax); ++part) {
    const json files = bundle.add_reply(mount, fmt::format("{}/files-{}.json", folder, part),
                                        fmt::format("/v1/files?after={}", after));
    const bool has_more = files.contains("next") && files["next"].is_number();
    after = has_more ? files["next"].get<std::uint64_t>() : 0;
  }
  json status;
  if (!ask_status(mount, status).empty()) return;
  const std::string process = fmt::format("/proc/{}/", status.value("pid", 0));
  for (const char* name : {"status", "limits", "mountinfo", "io"}) {
    bundle.add_file(fmt::format("{}/process/{}", folder, name), process + name);
  }
}

void fill(Bundle& bundle, const std::vector<KnownMount>& mounts) {
  for (std::size_t index = 0; index < mounts.size(); ++index) {
    add_mount(bundle, mounts[index], fmt::format("mount-{}", index + 1));
  }
  bundle.add_file("mountinfo", "/proc/self/mountinfo");
  bundle.add_file("mountstats", "/proc/self/mountstats");
  for (const char* name : {"version", "meminfo", "loadavg", "uptime"}) {
    bundle.add_file(name, fs::path("/proc") / name);
  }
  bundle.add_file("os-release", "/etc/os-release");
  bundle.add_log();
  bundle.add_kernel_log();
  bundle.add("manifest.json", bundle.manifest().dump(1) + "\n");
}

// Gone with everything in it at the end.
class WorkDirectory {
 public:
  WorkDirectory() {
    std::string name = (fs::temp_directory_path() / "nfs-cachefs-ctl-XXXXXX").string();
    if (mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~WorkDirectory() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  WorkDirectory(const WorkDirectory&) = delete;
  WorkDirectory& operator=(const WorkDirectory&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

int debug_bundle(const BundleOptions& options) {
  std::vector<KnownMount> mounts;
  if (!options.mountpoint.empty()) {
    if (const int failed = choose_mounts(options.mountpoint, mounts); failed != kOk) return failed;
  } else {
    // None is no mistake: a mount that does not come up is worth a bundle, too.
    mounts = known_mounts(read_mount_table(), kControlDirectory);
  }
  const std::string name =
      fmt::format("nfs-cachefs-debug-{:%Y%m%d-%H%M%S}", fmt::gmtime(std::time(nullptr)));
  const fs::path output =
      fs::absolute(options.output.empty() ? name + ".tar.gz" : options.output).lexically_normal();
  umask(077);
  const int created = open(output.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (created < 0) {
    return fail(kUsage, fmt::format("{}: {}", output.string(), std::strerror(errno)));
  }
  close(created);
  const WorkDirectory work;
  std::error_code failed;
  if (work.path().empty() || !fs::create_directory(work.path() / name, failed)) {
    fs::remove(output, failed);
    return fail(kSomeFailed,
                fmt::format("no directory can be made in {}", fs::temp_directory_path().string()));
  }
  Bundle bundle(work.path() / name, options.anonymize);
  fill(bundle, mounts);
  if (!output_of({"tar", "-czf", output, "-C", work.path(), name})) {
    fs::remove(output, failed);
    return fail(kSomeFailed, fmt::format("{}: tar cannot write it", output.string()));
  }
  json result = bundle.manifest();
  result["bundle"] = output.string();
  if (options.as_json) {
    fmt::print("{}\n", json::array({result}).dump(2));
    return kOk;
  }
  fmt::print("{}: {} files, {}\n", output.string(), result["files"].size(),
             options.anonymize ? "without names of files"
                               : "with names of files but nothing of what is in them");
  for (const json& missing : result["missing"]) {
    fmt::print("  without {}: {}\n", missing.value("name", ""), missing.value("reason", ""));
  }
  return kOk;
}

}  // namespace ncfs::ctl
