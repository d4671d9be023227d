// Acting on the source as the process that asked, so that the source decides what it may do: a
// server that squashes root refuses the daemon what it grants the caller, and the other way round.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace ncfs {

struct Caller {
  uid_t user = 0;
  gid_t group = 0;
  pid_t thread = 0;  // 0 if it is in a PID namespace that the daemon cannot see
  mode_t umask = 0;  // only of requests that create something
};

// Supplementary groups of callers. The kernel does not send them; reading them from /proc costs
// about as much as a look-up, so they are kept for a second. Any thread.
class CallerGroups {
 public:
  using Groups = std::shared_ptr<const std::vector<gid_t>>;
  // Empty if the caller is gone or cannot be seen.
  [[nodiscard]] Groups of(const Caller& caller);

 private:
  // More callers than this within a second just read /proc again.
  static constexpr std::size_t kCallersMax = 1024;
  static constexpr std::chrono::seconds kKeep{1};

  struct Known {
    uid_t user = 0;
    gid_t group = 0;
    std::chrono::steady_clock::time_point until;
    Groups groups;
  };
  std::mutex mutex_;
  std::unordered_map<pid_t, Known> known_;
};

// Makes the calling thread, and it alone, act on files as `caller` for the object's life. Costs
// nothing for root, who at most has another group than the daemon. Other callers have no
// capabilities: not those that the daemon has, and not their own, which no server would hear of.
class CallerCredentials {
 public:
  // `registrar`: but for what it takes to make the kernel know a file to be passed through, which
  // gives no rights to the files that are.
  enum class Role : std::uint8_t { caller, registrar };
  CallerCredentials(const Caller& caller, CallerGroups& groups, Role role = Role::caller);
  ~CallerCredentials();
  CallerCredentials(const CallerCredentials&) = delete;
  CallerCredentials& operator=(const CallerCredentials&) = delete;

  // 0, or why the thread could not become the caller; then it acts as nobody may.
  [[nodiscard]] int error() const { return error_; }

 private:
  bool is_switched_ = false;
  bool has_group_ = false;  // only the group is another
  int error_ = 0;
  uid_t own_user_ = 0;
  gid_t own_group_ = 0;
  std::vector<gid_t> own_groups_;
};

// Makes the calling thread, and it alone, create files with `umask` for the object's life. It is
// the source that applies it, as the default ACL of a directory takes its place.
class CallerUmask {
 public:
  explicit CallerUmask(mode_t umask);
  ~CallerUmask();
  CallerUmask(const CallerUmask&) = delete;
  CallerUmask& operator=(const CallerUmask&) = delete;

 private:
  mode_t own_ = 0;
};

}  // namespace ncfs
