#include "fuse_adapter/kernel_request.h"

#include <cerrno>
#include <utility>

namespace ncfs {

Caller caller_of(fuse_req_t request) {
  const fuse_ctx* context = fuse_req_ctx(request);
  return {
      .user = context->uid, .group = context->gid, .thread = context->pid, .umask = context->umask};
}

KernelRequest::KernelRequest(std::shared_ptr<FuseChannel> channel, fuse_req_t request)
    : channel_(std::move(channel)), request_(request), caller_(caller_of(request)) {}

KernelRequest::~KernelRequest() {
  error(ENOTCONN);
}

fuse_req_t KernelRequest::claim() {
  return is_answered_.exchange(true, std::memory_order_acq_rel) ? nullptr : request_;
}

bool KernelRequest::error(int error) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_err(request, error) == 0;
}

bool KernelRequest::entry(const fuse_entry_param& entry) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_entry(request, &entry) == 0;
}

bool KernelRequest::attributes(const struct stat& attributes, double timeout_seconds) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_attr(request, &attributes, timeout_seconds) == 0;
}

bool KernelRequest::link(const std::string& target) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_readlink(request, target.c_str()) == 0;
}

bool KernelRequest::bytes(std::span<const std::byte> bytes) {
  auto* const request = claim();
  return request != nullptr &&
         fuse_reply_buf(request, reinterpret_cast<const char*>(bytes.data()), bytes.size()) == 0;
}

bool KernelRequest::opened(const fuse_file_info& info) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_open(request, &info) == 0;
}

bool KernelRequest::opened_passthrough(const fuse_file_info& info, int backing_id) {
  auto* const request = claim();
  return request != nullptr && channel_->reply_open_passthrough(request, info, backing_id) == 0;
}

bool KernelRequest::file_system(const struct statvfs& status) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_statfs(request, &status) == 0;
}

bool KernelRequest::attribute_size(std::size_t size) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_xattr(request, size) == 0;
}

bool KernelRequest::offset(off_t offset) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_lseek(request, offset) == 0;
}

}  // namespace ncfs
