#include "fuse_adapter/kernel_request.h"

#include <linux/fuse.h>

#include <cerrno>
#include <utility>

#include "engine/backend_health.h"
#include "io/monotonic_clock.h"

namespace ncfs {

Caller caller_of(fuse_req_t request) {
  const fuse_ctx* context = fuse_req_ctx(request);
  return {
      .user = context->uid, .group = context->gid, .thread = context->pid, .umask = context->umask};
}

KernelRequest::KernelRequest(std::shared_ptr<FuseChannel> channel, fuse_req_t request)
    : channel_(std::move(channel)),
      request_(request),
      unique_(FuseChannel::current_request().operation == FUSE_SETLKW
                  ? 0
                  : FuseChannel::current_request().unique),
      node_(FuseChannel::current_request().node),
      caller_(caller_of(request)),
      asked_at_(monotonic_now()) {
  if (unique_ == 0) return;
  const bool closes = FuseChannel::current_request().operation == FUSE_FLUSH;
  channel_->interrupts().add(unique_, caller_.thread, closes ? kClosePatience : 0, *this);
}

KernelRequest::~KernelRequest() {
  if (unique_ != 0) channel_->interrupts().remove(unique_);
  give_up(ENOTCONN);
}

fuse_req_t KernelRequest::claim() {
  return is_answered_.exchange(true, std::memory_order_acq_rel) ? nullptr : request_;
}

fuse_entry_param KernelRequest::shown_entry(const fuse_entry_param& entry) const {
  fuse_entry_param shown = entry;
  shown.attr = channel_->shown(entry.attr);
  return shown;
}

bool KernelRequest::error(int error) {
  const BackendAnswer said = judge_backend(error);
  if (said != BackendAnswer::good && retry_ && !is_answered() && retry_(error)) return false;
  outcome_.store(error, std::memory_order_relaxed);
  if (said == BackendAnswer::unreachable || said == BackendAnswer::timeout) {
    if (stand_in_ && !is_answered() && stand_in_()) return false;
  }
  return give_up(error);
}

bool KernelRequest::give_up(int error) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_err(request, error) == 0;
}

bool KernelRequest::entry(const fuse_entry_param& entry) {
  auto* const request = claim();
  const fuse_entry_param shown = shown_entry(entry);
  return request != nullptr && fuse_reply_entry(request, &shown) == 0;
}

bool KernelRequest::attributes(const struct stat& attributes, double timeout_seconds) {
  auto* const request = claim();
  const struct stat shown = channel_->shown(attributes);
  return request != nullptr && fuse_reply_attr(request, &shown, timeout_seconds) == 0;
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

bool KernelRequest::created(const fuse_entry_param& entry, const fuse_file_info& info,
                            int backing_id) {
  auto* const request = claim();
  if (request == nullptr) return false;
  const fuse_entry_param shown = shown_entry(entry);
  return (backing_id >= 0 ? channel_->reply_create_passthrough(request, shown, info, backing_id)
                          : fuse_reply_create(request, &shown, &info)) == 0;
}

bool KernelRequest::written(std::size_t count) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_write(request, count) == 0;
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

bool KernelRequest::lock(const struct flock& lock) {
  auto* const request = claim();
  return request != nullptr && fuse_reply_lock(request, &lock) == 0;
}

}  // namespace ncfs
