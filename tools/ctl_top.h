// The live view. Returns an exit status.
#pragma once

#include <string>

namespace ncfs::ctl {

struct TopOptions {
  std::string mountpoint;  // empty: all
  double interval_seconds = 2;
  bool once = false;  // one table, after one interval
  bool as_json = false;
};
int top(const TopOptions& options);

}  // namespace ncfs::ctl
