// What a read-only mount answers to everything that would change the source, should the kernel ask.
#include <cerrno>

#include "fuse_adapter/fuse_ops.h"

namespace ncfs {
namespace {

template <typename... Arguments>
void refuse(fuse_req_t request, Arguments...) {
  fuse_reply_err(request, EROFS);
}

}  // namespace

void add_refused_operations(fuse_lowlevel_ops& table) {
  table.setattr = refuse;
  table.mknod = refuse;
  table.mkdir = refuse;
  table.unlink = refuse;
  table.rmdir = refuse;
  table.symlink = refuse;
  table.rename = refuse;
  table.link = refuse;
  table.write = refuse;
  table.setxattr = refuse;
  table.removexattr = refuse;
  table.create = refuse;
  table.fallocate = refuse;
  table.copy_file_range = refuse;
}

}  // namespace ncfs
