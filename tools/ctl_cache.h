// The commands that change what is in the cache. All return an exit status.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ncfs::ctl {

struct WarmOptions {
  std::vector<std::string> paths;
  std::string list;  // a file with one path a line, "-" for the standard input; empty: none
  bool wait = false;
  bool pin = false;
  bool best_effort = false;  // begin though it may not all fit
  std::uint64_t bytes_per_second = 0;  // no faster than this; 0: as fast as it goes
  bool dry_run = false;  // only tell what there is to do, and whether it fits
  bool as_json = false;
};
int warm(const WarmOptions& options);
int warm_list(const std::string& mountpoint, bool as_json);
int warm_cancel(const std::string& mountpoint, std::uint64_t id, bool as_json);

// No paths: everything in all caches.
int verify(const std::vector<std::string>& paths, bool wait, bool as_json);
int evict(const std::vector<std::string>& paths, bool as_json);
int unpin(const std::vector<std::string>& paths, bool as_json);
int invalidate(const std::vector<std::string>& paths, bool as_json);

struct CleanOptions {
  std::string mountpoint;          // empty: all
  std::vector<std::string> paths;  // instead of a mount point
  std::string age;                 // such as 7d: only what was not used for so long
  bool all = false;                // whatever the age
  bool as_json = false;
};
int clean(const CleanOptions& options);
int set_limit(const std::string& mountpoint, const std::string& size, bool as_json);

}  // namespace ncfs::ctl
