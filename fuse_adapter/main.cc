// One program under two names: `mount.cachefs`, called by mount(8) with its own conventions, and
// `nfs-cachefs`, for people and service managers.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "fuse_adapter/daemon.h"
#include "fuse_adapter/event_log.h"
#include "fuse_adapter/mount_options.h"
#include "fuse_adapter/printable.h"

namespace ncfs {
namespace {

struct Arguments {
  std::string source_name;
  std::string mountpoint;
  std::vector<std::string> options;
  std::string type;
  bool foreground = false;
  bool fake = false;
  bool sloppy = false;
  bool no_mtab = false;
  bool verbose = false;
};

std::string option_list() {
  std::string text = "Mount options (-o name=value,...):\n";
  for (const OptionHelp& option : mount_option_help()) {
    std::string name(option.name);
    if (!option.value.empty()) name += fmt::format("={}", option.value);
    text += fmt::format("  {:<24}  {}", name, option.help);
    if (!option.initial.empty()) text += fmt::format(" [{}]", option.initial);
    text += '\n';
  }
  text +=
      "Required: nfs_backend, cache_dir and one of cache_size_gb and cache_size. Sizes take K, M, "
      "G, T\n(powers of 1024). The options of all file systems in mount(8) work too; nosuid and "
      "nodev are on\nunless suid and dev are given. A comma within a value is written \\, .\n";
  return text;
}

void describe(CLI::App& app, Arguments& arguments, bool is_helper) {
  app.add_option("source", arguments.source_name,
                 "any name; shown as the first column of /proc/mounts")
      ->required();
  app.add_option("directory", arguments.mountpoint, "where to mount")->required();
  app.add_option("-o", arguments.options, "mount options, separated by commas")
      ->type_name("OPTIONS")
      ->allow_extra_args(false);
  app.add_flag("-v,--verbose", arguments.verbose, "say what is done");
  app.add_flag("-s", arguments.sloppy, "ignore unknown mount options");
  if (is_helper) {
    app.add_flag("-f", arguments.fake, "check everything, but do not mount");
    app.add_flag("-n", arguments.no_mtab, "accepted; there is no /etc/mtab to write");
    app.add_option("-t", arguments.type, "accepted; the type is cachefs")->type_name("TYPE");
  } else {
    app.add_flag("-f,--foreground", arguments.foreground, "stay in the foreground, log to stderr");
  }
  app.set_version_flag("--version", std::string("nfs-cachefs ") + NCFS_VERSION);
  app.footer(option_list());
}

int fail(std::string_view program, int status, const std::string& message) {
  fmt::print(stderr, "{}: {}\n", program, printable(message));
  return status;
}

// Whether systemd gave us the journal as stderr; see systemd.exec(5).
bool is_journal_stream() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  return stream != nullptr && fstat(STDERR_FILENO, &status) == 0 &&
         stream == fmt::format("{}:{}", status.st_dev, status.st_ino);
}

void set_up_log(LogLevel level) {
  if (is_journal_stream()) {
    // With levels, and under the same name as the daemon in the background.
    log_to_system();
  } else {
    auto logger = spdlog::stderr_logger_mt("foreground");
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %l: %v");
    spdlog::set_default_logger(std::move(logger));
  }
  switch (level) {
    case LogLevel::trace:
      spdlog::set_level(spdlog::level::trace);
      break;
    case LogLevel::debug:
      spdlog::set_level(spdlog::level::debug);
      break;
    case LogLevel::info:
      spdlog::set_level(spdlog::level::info);
      break;
    case LogLevel::warn:
      spdlog::set_level(spdlog::level::warn);
      break;
    case LogLevel::error:
      spdlog::set_level(spdlog::level::err);
      break;
  }
}

int run(const Arguments& arguments, std::string_view program) {
  std::string text;
  if (const char* level = std::getenv("CACHEFS_LOG")) {
    if (std::ranges::find(kLogLevelNames, level) == kLogLevelNames.end()) {
      return fail(
          program, kMountUsage,
          fmt::format("CACHEFS_LOG={}: must be {}", level, fmt::join(kLogLevelNames, ", ")));
    }
    text = fmt::format("log_level={},", level);  // the option itself comes later and wins
  }
  for (const std::string& options : arguments.options) text += options + ",";
  auto parsed =
      parse_mount_options(text, arguments.sloppy ? UnknownOptions::ignore : UnknownOptions::refuse);
  if (const auto* error = std::get_if<OptionError>(&parsed)) {
    return fail(program, kMountUsage, error->message);
  }
  if (geteuid() != 0) return fail(program, kMountUsage, "only root can mount a cachefs");
  // The daemon works in the root directory; a relative name is meant from where it was given.
  const MountOrder order{arguments.source_name, std::filesystem::absolute(arguments.mountpoint),
                         std::get<MountOptions>(std::move(parsed))};
  set_up_log(order.options.log_level);
  MountReport report;
  if (arguments.fake) {
    report = rehearse(order);
  } else if (arguments.foreground) {
    report = serve(order, [] { return true; });
  } else {
    report = launch(order);
  }
  if (!report.message.empty()) {
    spdlog::shutdown();
    return fail(program, report.exit_status, report.message);
  }
  if (arguments.verbose) {
    fmt::print("{}: {} {} on {}\n", program, order.source_name,
               arguments.fake ? "can be mounted" : "mounted", order.mountpoint);
  }
  return report.exit_status;
}

}  // namespace
}  // namespace ncfs

int main(int argc, char** argv) {
  const std::string_view path = argc > 0 ? argv[0] : "nfs-cachefs";
  const std::string_view name = path.substr(path.rfind('/') + 1);
  const bool is_helper = name.starts_with("mount.");
  const std::string program = is_helper ? "mount.cachefs" : "nfs-cachefs";
  ncfs::Arguments arguments;
  CLI::App app("Mounts a directory, usually on NFS, through a cache on a local disk.", program);
  ncfs::describe(app, arguments, is_helper);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    fmt::print(stderr, "{}: {}; see {} --help\n", program, ncfs::printable(error.what()), program);
    return ncfs::kMountUsage;
  }
  const int status = ncfs::run(arguments, program);
  std::fflush(nullptr);
  // Threads that a hung backend keeps are left behind; they must not see statics destroyed.
  _exit(status);
}
