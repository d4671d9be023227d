// glibc's setgroups() changes all threads of the process; the system calls change one. They are
// also what fills the kernel's fsuid and fsgid, by which all access to files is decided.
#include "fuse_adapter/caller_credentials.h"

#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include "io/assert.h"

namespace ncfs {
namespace {

bool set_groups(const std::vector<gid_t>& groups) {
  return ::syscall(SYS_setgroups, groups.size(), groups.data()) == 0;
}

// The calls return the former id and tell nothing of failure; an impossible id reads the present.
uid_t file_user() {
  return static_cast<uid_t>(::setfsuid(static_cast<uid_t>(-1)));
}
gid_t file_group() {
  return static_cast<gid_t>(::setfsgid(static_cast<gid_t>(-1)));
}

using Capabilities = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

Capabilities own_capabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  Capabilities own{};
  NCFS_ASSERT(::syscall(SYS_capget, &header, own.data()) == 0);
  return own;
}

// Of the calling thread. What is permitted stays, so that it can be made effective again.
void set_effective(const Capabilities& capabilities) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  NCFS_ASSERT(::syscall(SYS_capset, &header, capabilities.data()) == 0);
}

// With no more effective than `kept`, if that is.
Capabilities reduced(Capabilities capabilities, std::optional<unsigned> kept) {
  for (std::size_t index = 0; index < capabilities.size(); ++index) {
    const bool has_kept = kept && CAP_TO_INDEX(*kept) == index;
    capabilities[index].effective &= has_kept ? CAP_TO_MASK(*kept) : 0;
  }
  return capabilities;
}

// As they were before the thread first acted as somebody else.
const Capabilities& thread_capabilities() {
  thread_local const Capabilities capabilities = own_capabilities();
  return capabilities;
}

std::vector<gid_t> read_groups(pid_t thread) {
  std::vector<gid_t> groups;
  std::ifstream status(fmt::format("/proc/{}/status", thread));
  constexpr std::string_view kKey = "Groups:";
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(kKey)) continue;
    std::istringstream values(line.substr(kKey.size()));
    for (gid_t group = 0; values >> group;) groups.push_back(group);
    break;
  }
  return groups;
}

}  // namespace

CallerGroups::Groups CallerGroups::of(const Caller& caller) {
  static const Groups none = std::make_shared<const std::vector<gid_t>>();
  if (caller.thread <= 0) return none;
  const auto now = std::chrono::steady_clock::now();
  {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find(caller.thread);
    if (found != known_.end() && found->second.until > now && found->second.user == caller.user &&
        found->second.group == caller.group) {
      return found->second.groups;
    }
  }
  auto groups = std::make_shared<const std::vector<gid_t>>(read_groups(caller.thread));
  const std::lock_guard lock(mutex_);
  if (known_.size() >= kCallersMax) {
    std::erase_if(known_, [&](const auto& entry) { return entry.second.until <= now; });
  }
  if (known_.size() < kCallersMax) {
    known_[caller.thread] = {caller.user, caller.group, now + kKeep, groups};
  }
  return groups;
}

CallerCredentials::CallerCredentials(const Caller& caller, CallerGroups& groups, Role role) {
  if (caller.user == 0) {
    // It keeps its capabilities, but what it makes belongs to its group.
    static const gid_t own_group = ::getegid();
    if (caller.group == own_group) return;
    own_group_ = own_group;
    has_group_ = true;
    ::setfsgid(caller.group);
    return;
  }
  static_cast<void>(thread_capabilities());
  const int count = ::getgroups(0, nullptr);
  NCFS_ASSERT(count >= 0);
  own_groups_.resize(static_cast<std::size_t>(count));
  NCFS_ASSERT(::getgroups(count, own_groups_.data()) == count);
  own_user_ = file_user();
  own_group_ = file_group();
  is_switched_ = true;
  if (!set_groups(*groups.of(caller))) {
    error_ = errno;
    return;
  }
  ::setfsgid(caller.group);
  ::setfsuid(caller.user);
  if (file_group() != caller.group || file_user() != caller.user) error_ = EPERM;
  const auto kept = role == Role::registrar ? std::optional<unsigned>(CAP_SYS_ADMIN) : std::nullopt;
  set_effective(reduced(thread_capabilities(), kept));
}

CallerCredentials::~CallerCredentials() {
  if (has_group_) ::setfsgid(own_group_);
  if (!is_switched_) return;
  set_effective(thread_capabilities());
  ::setfsuid(own_user_);
  ::setfsgid(own_group_);
  // A thread that went on as somebody else would give one user the rights of another.
  NCFS_ASSERT(file_user() == own_user_);
  NCFS_ASSERT(file_group() == own_group_);
  NCFS_ASSERT(set_groups(own_groups_));
}

CallerUmask::CallerUmask(mode_t umask) {
  // The threads of a process share it until one asks for its own.
  thread_local const bool is_own = ::unshare(CLONE_FS) == 0;
  NCFS_ASSERT(is_own);
  own_ = ::umask(umask);
}

CallerUmask::~CallerUmask() {
  ::umask(own_);
}

}  // namespace ncfs
