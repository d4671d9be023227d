#include "tools/ctl_top.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "tools/ctl_common.h"
#include "tools/status_view.h"
#include "tools/top_view.h"

namespace ncfs::ctl {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

struct Look {
  json status;
  Clock::time_point at;
};

// Null if the caller may not know.
json ask_hot_files(const KnownMount& mount) {
  ControlClient client(ControlClient::kStatusDeadline);
  ControlReply reply;
  const bool is_told = client.connect(mount.socket_path).empty() &&
                       client.ask("GET", "/v1/hot-files", nullptr, reply).empty();
  return is_told ? reply.value.value("files", json::array()) : json();
}

}  // namespace

int top(const TopOptions& options) {
  std::vector<KnownMount> mounts;
  if (const int failed = choose_mounts(options.mountpoint, mounts); failed != kOk) return failed;
  const bool is_terminal = isatty(STDOUT_FILENO) != 0;
  std::map<std::string, Look> previous;
  for (bool is_first = true;; is_first = false) {
    json rows = json::array();
    std::string text;
    for (const KnownMount& mount : mounts) {
      Look look{{}, Clock::now()};
      if (const std::string error = ask_status(mount, look.status); !error.empty()) {
        return fail(kNoMount, fmt::format("{}: {}", name_of(mount), error));
      }
      if (!is_first) {
        const Look& before = previous[mount.socket_path];
        const double seconds = std::chrono::duration<double>(look.at - before.at).count();
        const json rates = top_rates(look.status, before.status, seconds);
        json shown = look.status;
        use_recent_rates(shown, before.status, seconds);
        const json hot_files = ask_hot_files(mount);
        text += (text.empty() ? "" : "\n") + top_text(shown, rates, hot_files);
        rows.push_back({{"mountpoint", name_of(mount)},
                        {"rates", rates},
                        {"copies", shown.value("copies", json::object())},
                        {"hot_files", hot_files}});
      }
      previous[mount.socket_path] = std::move(look);
    }
    if (!is_first) {
      const bool is_redrawn = is_terminal && !options.as_json && !options.once;
      fmt::print("{}{}{}", is_redrawn ? "\033[H\033[J" : "", options.as_json ? rows.dump() : text,
                 is_redrawn ? "" : "\n");
      // Whoever reads has gone away.
      if (std::fflush(stdout) != 0) return kOk;
      if (options.once) return kOk;
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(options.interval_seconds));
  }
}

}  // namespace ncfs::ctl
