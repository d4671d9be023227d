// nfs-cachefs-ctl: what the daemons of the cachefs mounts of this machine do, what they keep, and
// how much. Here is only the command line; ctl_*.cc hold the commands.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tools/ctl_bundle.h"
#include "tools/ctl_cache.h"
#include "tools/ctl_common.h"
#include "tools/ctl_status.h"
#include "tools/ctl_top.h"

namespace ncfs::ctl {
namespace {

constexpr const char* kFooter =
    "All commands but status --watch take --json. Exit status: 0 all is well, 1 wrong usage,\n"
    "2 no such mount or its daemon does not answer, 3 refused, or some files failed or were found\n"
    "damaged, or a health check failed, 4 only root may do this.\n";

// The values of all options; each command uses its own.
struct Arguments {
  bool as_json = false;
  bool watch = false;
  bool wait = false;
  bool background = false;
  bool dry_run = false;
  bool best_effort = false;
  std::uint64_t mebibytes_per_second = 0;
  bool is_strict = false;
  bool all = false;
  bool once = false;
  bool anonymize = false;
  double interval = 2;
  std::string mountpoint;
  std::vector<std::string> paths;
  std::string list;
  std::string output;
  std::string size;
  std::string name;
  std::string value;
  std::string age;
  std::uint64_t id = 0;
};

class CommandLine {
 public:
  explicit CommandLine(CLI::App& app) { describe(app); }
  [[nodiscard]] int run() const { return run_(); }

 private:
  // A command, and what it does if it is the one.
  CLI::App* add(CLI::App& parent, const char* name, const char* help, std::function<int()> run) {
    CLI::App* command = parent.add_subcommand(name, help);
    command->callback([this, run = std::move(run)] { run_ = run; });
    command->add_flag("--json", arguments_.as_json, "for programs");
    return command;
  }

  CLI::Option* add_mount(CLI::App* command, bool is_required = false) {
    auto* option = command->add_option(
        "mountpoint", arguments_.mountpoint,
        is_required ? "the mount, or a path in it" : "the mount, or a path in it; else all");
    if (is_required) option->required();
    return option;
  }

  void add_paths(CLI::App* command, bool is_required = true) {
    auto* option =
        command->add_option("path", arguments_.paths, "files or directories in a cachefs mount");
    if (is_required) option->required();
  }

  void add_wait(CLI::App* command) {
    auto* wait = command->add_flag("--wait", arguments_.wait,
                                   "show progress, return when all is done, tell the totals");
    command->add_flag("--background", arguments_.background, "return at once, which is the default")
        ->excludes(wait);
  }

  void add_warm_options(CLI::App* command) {
    Arguments& a = arguments_;
    add_wait(command);
    command->add_option("--list", a.list, "a file with a path on each line; - is the input");
    command->add_flag("--best-effort", a.best_effort, "begin though it may not all fit");
    command
        ->add_option("--rate", a.mebibytes_per_second,
                     "read the backend for it no faster than so many MiB a second")
        ->check(CLI::Range(1, 1'000'000));
    command->add_flag("--dry-run", a.dry_run, "only tell what is to be copied and whether it fits");
  }

  int warm_paths(bool pin) const {
    const Arguments& a = arguments_;
    return warm({a.paths, a.list, a.wait, pin, a.best_effort, a.mebibytes_per_second << 20U,
                 a.dry_run, a.as_json});
  }

  void describe(CLI::App& app) {
    Arguments& a = arguments_;
    add(app, "list", "all cachefs mounts, one per line", [&a] { return list(a.as_json); });
    CLI::App* command = add(app, "status", "space, hits, copies in progress and errors",
                            [&a] { return ctl::status(a.mountpoint, a.as_json, a.watch); });
    add_mount(command);
    command->add_flag("--watch", a.watch, "again every second, until interrupted");
    command = add(app, "limit", "change the hard limit of a mounted cache, until it is unmounted",
                  [&a] { return set_limit(a.mountpoint, a.size, a.as_json); });
    add_mount(command, true);
    command->add_option("size", a.size, "as the mount option cache_size: 500M, 50G")->required();
    add_paths(add(app, "ls", "what the cache holds of files, and why not more",
                  [&a] { return list_files(a.paths, a.as_json); }),
              false);
    add(app, "explain", "everything the cache knows about a file",
        [&a] { return explain(a.paths[0], a.as_json); })
        ->add_option("path", a.paths, "a file in a cachefs mount")
        ->required()
        ->expected(1);
    add_paths(add(app, "invalidate", "ask the backend anew for files and trees now",
                  [&a] { return invalidate(a.paths, a.as_json); }));
    CLI::App* config = app.add_subcommand("config", "the mount options");
    config->require_subcommand(1);
    add_mount(add(*config, "show", "the options in force, and which are not the default",
                  [&a] { return config_show(a.mountpoint, a.as_json); }));
    command = add(*config, "set",
                  "change cache_size, copy_rate_mb, log_level or access_log until the unmount",
                  [&a] { return config_set(a.mountpoint, a.name, a.value, a.as_json); });
    add_mount(command, true);
    command->add_option("name", a.name, "cache_size, copy_rate_mb, log_level or access_log")
        ->required();
    command->add_option("value", a.value, "as the mount option takes it")->required();
    command = add(app, "log-level", "change how much is logged, until the unmount",
                  [&a] { return config_set(a.mountpoint, "log_level", a.value, a.as_json); });
    add_mount(command, true);
    command->add_option("level", a.value, "trace, debug, info, warn or error")->required();
    command = add(app, "top", "opens, bytes, copies and hot files as they happen", [&a] {
      return top({a.mountpoint, a.interval, a.once, a.as_json});
    });
    add_mount(command);
    command->add_flag("--once", a.once, "one table, of one interval");
    command->add_option("--interval", a.interval, "seconds between two tables, 0.1 to 3600; 2")
        ->check(CLI::Range(0.1, 3600.0));
    CLI::App* health = app.add_subcommand("health", "whether all is well");
    health->require_subcommand(1);
    command = add(*health, "check", "what fails or costs speed or safety, and what to do about it",
                  [&a] { return health_check(a.mountpoint, a.is_strict, a.as_json); });
    command->add_flag("--strict", a.is_strict, "exit status 3 for warnings, too");
    add_mount(command);
    CLI::App* debug = app.add_subcommand("debug", "for whoever is to find out what is wrong");
    debug->require_subcommand(1);
    command =
        add(*debug, "bundle", "pack status, options, metrics, logs and the system's state", [&a] {
          return debug_bundle({a.mountpoint, a.output, a.anonymize, a.as_json});
        });
    add_mount(command);
    command->add_option("-o,--output", a.output, "the file to make, a .tar.gz");
    command->add_flag("--anonymize", a.anonymize, "numbers instead of the names of files");
    CLI::App* metrics = app.add_subcommand("metrics", "the counters for Prometheus");
    metrics->require_subcommand(1);
    add_mount(add(*metrics, "export", "all of them in its text format",
                  [&a] { return metrics_export(a.mountpoint, a.as_json); }));
    describe_cache(*app.add_subcommand("cache", "what is in the cache"));
    describe_warm(*app.add_subcommand("warm", "the warm-ups that are remembered"));
  }

  void describe_cache(CLI::App& cache) {
    Arguments& a = arguments_;
    cache.require_subcommand(1);
    CLI::App* command = add(cache, "warm", "copy files and directory trees into the cache",
                            [this] { return warm_paths(false); });
    add_paths(command, false);
    add_warm_options(command);
    command = add(cache, "pin", "copy files and directory trees into the cache and keep them there",
                  [this] { return warm_paths(true); });
    add_paths(command, false);
    add_warm_options(command);
    command = add(cache, "verify",
                  "compare cached files with their checksums; what is damaged is removed",
                  [&a] { return verify(a.paths, a.wait, a.as_json); });
    add_paths(command, false);
    add_wait(command);
    command = add(cache, "unpin", "let pinned files and trees be evicted again",
                  [&a] { return unpin(a.paths, a.as_json); });
    add_paths(command);
    command = add(cache, "evict", "drop files and trees that nobody uses from the cache",
                  [&a] { return evict(a.paths, a.as_json); });
    add_paths(command);
    command = add(cache, "clean", "drop what was not used for some time, or all that is not in use",
                  [&a] {
                    return clean({a.mountpoint, a.paths, a.age, a.all, a.as_json});
                  });
    auto* age = command->add_option("--older-than", a.age, "12h, 7d: not used for so long");
    auto* path = command->add_option("--path", a.paths, "only this file or tree; may be repeated")
                     ->allow_extra_args(false);
    command->add_flag("--all", a.all, "whenever it was used last")->excludes(age)->excludes(path);
    add_mount(command)->excludes(path);
  }

  void describe_warm(CLI::App& warm_command) {
    Arguments& a = arguments_;
    warm_command.require_subcommand(1);
    add_mount(add(warm_command, "list", "all of them with what came of them",
                  [&a] { return warm_list(a.mountpoint, a.as_json); }));
    CLI::App* command = add(warm_command, "cancel", "start no more copies of a warm-up",
                            [&a] { return warm_cancel(a.mountpoint, a.id, a.as_json); });
    add_mount(command, true);
    command->add_option("id", a.id, "its number, as warm list shows it")->required();
  }

  Arguments arguments_;
  std::function<int()> run_;
};

// What may follow the words, for the shells (tools/completion): on each line a command or an option
// and, after a tab, what it is for.
int complete(const CLI::App& app, std::span<char*> words) {
  const CLI::App* command = &app;
  for (const char* word : words) {
    const auto next =
        command->get_subcommands([word](const auto* it) { return it->get_name() == word; });
    if (!next.empty()) command = next.front();
  }
  for (const CLI::App* next : command->get_subcommands({})) {
    fmt::print("{}\t{}\n", next->get_name(), next->get_description());
  }
  for (const CLI::Option* option : command->get_options()) {
    for (const std::string& name : option->get_lnames()) {
      fmt::print("--{}\t{}\n", name, option->get_description());
    }
  }
  return kOk;
}

int run(int argc, char** argv) {
  CLI::App app(
      "Shows and controls the cachefs mounts of this machine. Other users than root may ask for "
      "list, status, health, metrics and config show.",
      "nfs-cachefs-ctl");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("nfs-cachefs-ctl ") + NCFS_VERSION);
  app.footer(kFooter);
  const CommandLine commands(app);
  const std::span words(argv, static_cast<std::size_t>(argc));
  if (argc > 1 && std::string_view(argv[1]) == "complete") return complete(app, words.subspan(2));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return fail(kUsage, fmt::format("{}; see nfs-cachefs-ctl --help", error.what()));
  }
  return commands.run();
}

}  // namespace
}  // namespace ncfs::ctl

int main(int argc, char** argv) {
  return ncfs::ctl::run(argc, argv);
}
