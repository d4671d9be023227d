// The log of the daemon: to journald with a field for every part of a message, if there is one;
// else to the system log, or to stderr, as text.
//
// What happens often is logged by log_event(), which bounds how many messages of a kind there are
// (rate_limit.h); the rest by spdlog. Any thread. Nothing waits for journald: what it does not take
// is dropped and counted in the field CACHEFS_LOST of the next message.
#pragma once

#include <spdlog/common.h>

#include <initializer_list>
#include <string>
#include <string_view>

namespace ncfs {

// Sends the log to journald or the system log from now on, at the level it had.
void log_to_system();

// In the field CACHEFS_MOUNT of every message to journald.
void set_logged_mount(const std::string& mountpoint);

// One part of a message; journald is told CACHEFS_`name`.
struct LogField {
  const char* name;  // upper case
  std::string value;
};
// `kind` is one of few: the field CACHEFS_EVENT. Control characters of `text`, which names of files
// may bring, are shown as \xNN.
void log_event(spdlog::level::level_enum level, std::string_view kind, const std::string& text,
               std::initializer_list<LogField> fields);

// Whether every open is logged at level info, whatever was found of it. Switched at any time.
[[nodiscard]] bool is_access_logged();
void set_access_logged(bool is_logged);

}  // namespace ncfs
