// The commands that show things. All return an exit status.
#pragma once

#include <string>

namespace ncfs::ctl {

int list(bool as_json);
int status(const std::string& mountpoint, bool as_json, bool watch);

}  // namespace ncfs::ctl
