// What somebody needs who is to find out from afar what is wrong. Returns an exit status.
#pragma once

#include <string>

namespace ncfs::ctl {

struct BundleOptions {
  std::string mountpoint;  // empty: all
  std::string output;      // empty: a name with the time, in the current directory
  bool anonymize = false;  // no names of files
  bool as_json = false;
};
int debug_bundle(const BundleOptions& options);

}  // namespace ncfs::ctl
