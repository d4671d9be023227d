#include "fuse_adapter/interrupts.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <string>

#include "fuse_adapter/kernel_request.h"
#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

// Between two looks at processes that were interrupted: what somebody at a terminal takes for at
// once. Each look costs some 20 microseconds for each of them.
constexpr std::chrono::milliseconds kLookPause{50};

}  // namespace

bool is_being_killed(pid_t thread) {
  if (thread <= 0) return false;
  std::ifstream status(fmt::format("/proc/{}/status", thread));
  for (std::string line; std::getline(status, line);) {
    // The kernel gives SIGKILL to each thread of a process that any deadly signal ends.
    if (!line.starts_with("SigPnd:") && !line.starts_with("ShdPnd:")) continue;
    const std::uint64_t pending = std::stoull(line.substr(line.find(':') + 1), nullptr, 16);
    if ((pending & (std::uint64_t{1} << (SIGKILL - 1))) != 0) return true;
  }
  return false;
}

Interrupts::~Interrupts() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
    changed_.notify_all();
  }
  if (watch_.joinable()) watch_.join();
}

void Interrupts::add(std::uint64_t unique, pid_t thread, Nanos patience, KernelRequest& request) {
  const std::lock_guard lock(mutex_);
  waiting_[unique] = {thread, patience, &request};
  if (std::ranges::find(early_, unique) != early_.end()) follow(unique);
}

void Interrupts::remove(std::uint64_t unique) {
  const std::lock_guard lock(mutex_);
  waiting_.erase(unique);
  interrupted_.erase(unique);
}

void Interrupts::interrupt(std::uint64_t unique) {
  const std::lock_guard lock(mutex_);
  const auto found = waiting_.find(unique);
  if (found == waiting_.end()) {
    early_[early_next_++ % kEarlyMax] = unique;
  } else if (is_out_of_patience(found->second)) {
    found->second.request->give_up(EINTR);
  } else {
    follow(unique);
  }
}

// With the lock, like those that follow.
bool Interrupts::is_out_of_patience(Waiting& waiting) {
  if (!is_being_killed(waiting.thread)) return false;
  const Nanos now = monotonic_now();
  if (!waiting.killed_at) waiting.killed_at = now;
  return now - *waiting.killed_at >= waiting.patience;
}

void Interrupts::follow(std::uint64_t unique) {
  interrupted_.insert(unique);
  changed_.notify_all();
  if (watch_.joinable() || is_stopping_) return;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  watch_ = std::thread([this] { watch(); });
  pthread_setname_np(watch_.native_handle(), "ncfs-interrupts");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Interrupts::watch() {
  std::unique_lock lock(mutex_);
  while (!is_stopping_) {
    if (interrupted_.empty()) {
      changed_.wait(lock);
      continue;
    }
    changed_.wait_for(lock, kLookPause);
    for (const std::uint64_t unique : interrupted_) {
      Waiting& waiting = waiting_.at(unique);
      if (is_out_of_patience(waiting)) waiting.request->give_up(EINTR);
    }
  }
}

}  // namespace ncfs
