// journald's protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/, one datagram for a message.
#include "fuse_adapter/event_log.h"

#include <fmt/format.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

#include "fuse_adapter/printable.h"
#include "fuse_adapter/rate_limit.h"
#include "io/descriptor.h"
#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

constexpr const char* kIdentifier = "cachefs";
constexpr const char* kJournalSocket = "/run/systemd/journal/socket";

std::atomic<bool> access_logged{false};
std::string logged_mount;  // set before there are other threads

// Of the message that this thread is logging.
thread_local std::string current_fields;

void add_field(std::string& message, std::string_view name, std::string_view value) {
  message += name;
  if (value.find('\n') == std::string_view::npos) {
    message += '=';
  } else {
    message += '\n';
    const std::uint64_t length = value.size();  // little endian
    message.append(reinterpret_cast<const char*>(&length), sizeof length);
  }
  message += value;
  message += '\n';
}

int priority_of(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
    case spdlog::level::debug:
      return LOG_DEBUG;
    case spdlog::level::warn:
      return LOG_WARNING;
    case spdlog::level::err:
      return LOG_ERR;
    case spdlog::level::critical:
      return LOG_CRIT;
    default:
      return LOG_INFO;
  }
}

sockaddr_un journal_address() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, kJournalSocket);
  return address;
}

// Not just a socket that somebody has left.
bool has_journal() {
  const Descriptor probe(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = journal_address();
  return connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

class JournalSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  JournalSink() : socket_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& logged) override {
    std::string message;
    add_field(message, "MESSAGE", {logged.payload.data(), logged.payload.size()});
    add_field(message, "PRIORITY", std::to_string(priority_of(logged.level)));
    add_field(message, "SYSLOG_IDENTIFIER", kIdentifier);
    add_field(message, "SYSLOG_FACILITY", std::to_string(LOG_FAC(LOG_DAEMON)));
    if (!logged_mount.empty()) add_field(message, "CACHEFS_MOUNT", logged_mount);
    if (lost_ > 0) add_field(message, "CACHEFS_LOST", std::to_string(lost_));
    message += current_fields;
    // To its name each time: journald may be started anew.
    const ssize_t sent =
        sendto(socket_.get(), message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address_), sizeof address_);
    lost_ = sent < 0 ? lost_ + 1 : 0;
  }
  void flush_() override {}

  const Descriptor socket_;
  const sockaddr_un address_ = journal_address();
  std::uint64_t lost_ = 0;
};

RateLimit::Verdict admit(std::string_view kind) {
  static std::mutex mutex;
  static RateLimit limit;
  const std::lock_guard lock(mutex);
  return limit.admit(kind, monotonic_now());
}

}  // namespace

void log_to_system() {
  // In the foreground and in a child it is done already; a second system logger would close the
  // first.
  if (spdlog::default_logger()->name() == kIdentifier) return;
  const spdlog::level::level_enum level = spdlog::get_level();
  if (has_journal()) {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>(kIdentifier, std::make_shared<JournalSink>()));
  } else {
    spdlog::set_default_logger(
        spdlog::syslog_logger_mt(kIdentifier, kIdentifier, LOG_PID, LOG_DAEMON));
  }
  spdlog::set_level(level);
}

void set_logged_mount(const std::string& mountpoint) {
  logged_mount = mountpoint;
}

void log_event(spdlog::level::level_enum level, std::string_view kind, const std::string& text,
               std::initializer_list<LogField> fields) {
  if (!spdlog::should_log(level)) return;
  const RateLimit::Verdict verdict = admit(kind);
  for (const auto& [suppressed, messages] : verdict.suppressed) {
    spdlog::warn("{} more messages of the kind {} were suppressed", messages, suppressed);
  }
  if (!verdict.is_admitted) return;
  add_field(current_fields, "CACHEFS_EVENT", kind);
  for (const LogField& field : fields) {
    add_field(current_fields, std::string("CACHEFS_") + field.name, field.value);
  }
  spdlog::log(level, "{}", printable(text));
  current_fields.clear();
}

bool is_access_logged() {
  return access_logged.load(std::memory_order_relaxed);
}

void set_access_logged(bool is_logged) {
  access_logged.store(is_logged, std::memory_order_relaxed);
}

}  // namespace ncfs
