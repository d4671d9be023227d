// What getfattr(1) and setfattr(1) may ask of the cache. The kernel lets through who may read or
// write the file; what changes the cache is for the file's owner and root, and what reaches beyond
// one file for root alone.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fuse_adapter/fuse_ops.h"
#include "fuse_adapter/warm_jobs.h"
#include "io/source_identity.h"
#include "io/wall_clock.h"

namespace ncfs {
namespace {

// Files that attributes brought under way at a time; each holds a descriptor. As many as warm-ups
// hand over at a time.
constexpr std::uint32_t kAttributeWarmsMax = WarmJobs::kOutstandingMax;
// A list of paths is read as a whole; the control API takes no longer ones either.
constexpr std::size_t kListBytesMax = kMiB;

void answer_value(KernelRequest& request, const std::string& value, std::size_t size) {
  if (size == 0) {
    request.attribute_size(value.size());
  } else if (value.size() > size) {
    request.error(ERANGE);
  } else {
    request.bytes(std::as_bytes(std::span(value)));
  }
}

std::vector<FileReport> reports_of(FuseCore& core, const SourceState& state) {
  return core.engine->files({.paths = {""}, .after = 0, .max = SIZE_MAX, .file = state.file});
}

// Of the version that the backend has now.
FileReport report_of(const std::vector<FileReport>& reports, const SourceState& state) {
  FileReport report;
  report.version = state.version;
  for (const FileReport& known : reports) {
    const bool is_pinned = report.is_pinned || known.is_pinned;  // a pin is the file's
    if (known.version == state.version) report = known;
    report.is_pinned = is_pinned;
  }
  return report;
}

// --- CurveFS's warm-ups ----------------------------------------------------------------------

std::string counts_text(const WarmProgress& job) {
  return std::to_string(job.copied.files + job.already_cached.files + job.skipped.files) + "/" +
         std::to_string(job.found.files);
}

// The latest that was started through the file.
std::optional<WarmProgress> job_of(const FuseCore& core, const std::string& path) {
  std::optional<WarmProgress> latest;
  for (WarmProgress& job : core.settings.warm_jobs->all()) {
    const WarmOrder& order = job.order;
    const bool is_single = order.list.empty() && order.paths == std::vector<std::string>{path};
    const bool is_list = !order.list.empty() && order.list == path;
    if (is_single || is_list) latest = std::move(job);
  }
  return latest;
}

// Who waits for "finished" is told by an error that it will not come.
void answer_warmup(FuseCore& core, KernelRequest& request, NodeId node, std::size_t size) {
  const auto location = core.nodes.locate(node);
  const auto job = location ? job_of(core, location->path) : std::nullopt;
  if (!job) {
    request.error(ENODATA);
  } else if (job->state == WarmProgress::State::cancelled) {
    request.error(ECANCELED);
  } else if (!job->is_finished()) {
    answer_value(request, counts_text(*job), size);
  } else if (job->state == WarmProgress::State::refused) {
    request.error(ENOSPC);
  } else if (job->failed.files > 0) {
    request.error(EIO);
  } else {
    answer_value(request, "finished", size);
  }
}

void answer_warmups(FuseCore& core, KernelRequest& request, std::size_t size) {
  if (request.caller().user != 0) {
    request.error(EPERM);
    return;
  }
  std::string value;
  for (const WarmProgress& job : core.settings.warm_jobs->all()) {
    if (job.is_finished()) continue;
    const std::string& path = job.order.list.empty() ? job.order.paths[0] : job.order.list;
    value += "/" + path + ":" + counts_text(job) + ";";
  }
  answer_value(request, value, size);
}

// The whole file, or an errno.
int read_list(FuseCore& core, const FoundFile& found, const Caller& caller, std::string& text) {
  if (!S_ISREG(found.attributes.st_mode)) return EINVAL;
  int error = 0;
  const Descriptor file = core.tree.reopen(found.file.get(), O_RDONLY, caller, error);
  if (error != 0) return error;
  text.resize(kListBytesMax + 1);
  std::size_t length = 0;
  while (length < text.size()) {
    const ssize_t count =
        ::pread(file.get(), text.data() + length, text.size() - length, static_cast<off_t>(length));
    if (count < 0) return errno;
    if (count == 0) break;
    length += static_cast<std::size_t>(count);
  }
  text.resize(length);
  return length > kListBytesMax ? EFBIG : 0;
}

void cancel_warmup(FuseCore& core, KernelRequest& request, const std::string& path) {
  const auto job = job_of(core, path);
  const bool is_running = job && !job->is_finished();
  request.error(is_running && core.settings.warm_jobs->cancel(job->id) ? 0 : ENODATA);
}

void start_warmup(FuseCore& core, const KernelRequestPointer& request, NodeId node,
                  const std::string& value) {
  if (request->caller().user != 0) {
    request->error(EPERM);
    return;
  }
  const FoundFile found = find_or_held(core, node, request->caller());
  const auto location = core.nodes.locate(node);
  if (found.error != 0 || !location) {
    request->error(found.error != 0 ? found.error : ESTALE);
    return;
  }
  const CurvefsOrder parsed = parse_curvefs_order(value, location->path);
  if (parsed.error != 0) {
    request->error(parsed.error);
    return;
  }
  if (parsed.is_cancel) {
    cancel_warmup(core, *request, location->path);
    return;
  }
  WarmOrder order;
  order.paths = {location->path};
  if (parsed.is_list) {
    std::string text;
    if (const int error = read_list(core, found, request->caller(), text); error != 0) {
      request->error(error);
      return;
    }
    auto paths = parse_curvefs_list(text, parsed.prefixes);
    if (!paths || paths->empty()) {
      request->error(EINVAL);
      return;
    }
    order.paths = std::move(*paths);
    order.list = location->path;
  }
  const auto checked = [request](const WarmProgress&, const std::string& error) {
    request->error(error.empty() ? 0 : ENOENT);
  };
  if (!core.settings.warm_jobs->start(std::move(order), checked)) request->error(EBUSY);
}

// --- Our own ---------------------------------------------------------------------------------

// Why a file will not be in the cache.
int error_of(const WarmResult& result) {
  switch (result.kind) {
    case WarmResult::Kind::copied:
    case WarmResult::Kind::already_cached:
      return 0;
    case WarmResult::Kind::skipped:
    case WarmResult::Kind::failed:
      break;
  }
  if (result.error != 0) return result.error;
  switch (result.reason) {
    case OpenReason::too_small:
    case OpenReason::above_max_size:
    case OpenReason::excluded:
      return EOPNOTSUPP;
    case OpenReason::too_large:
    case OpenReason::no_space:
    case OpenReason::pins_full:
      return ENOSPC;
    default:
      return EAGAIN;
  }
}

// Answers as soon as it is certain that the copy is made or under way.
void warm_by_attribute(FuseCore& core, KernelRequest& request, const FoundFile& found,
                       const std::string& path, bool pin) {
  int error = 0;
  Descriptor source = core.tree.reopen(found.file.get(), O_RDONLY, request.caller(), error);
  if (error != 0) {
    request.error(error);
    return;
  }
  const SourceLook look = look_at_source(source.get(), Freshness::as_opened);
  if (look.error != 0) {
    request.error(look.error);
    return;
  }
  if (core.attribute_warms->fetch_add(1) >= kAttributeWarmsMax) {
    core.attribute_warms->fetch_sub(1);
    request.error(EAGAIN);
    return;
  }
  struct Outcome {
    std::mutex mutex;
    int error = 0;
  };
  const auto outcome = std::make_shared<Outcome>();
  const auto done = [outcome, under_way = core.attribute_warms](const WarmResult& result) {
    under_way->fetch_sub(1);
    const std::lock_guard lock(outcome->mutex);
    outcome->error = error_of(result);
  };
  if (!core.engine->warm(static_cast<FileHandle>(source.get()), look.state, path, done, pin)) {
    core.attribute_warms->fetch_sub(1);
    request.error(ENOTCONN);
    return;
  }
  (void)source.release();
  // What is refused is refused by now.
  (void)reports_of(core, look.state);
  const std::lock_guard lock(outcome->mutex);
  request.error(outcome->error);
}

void answer_control(const KernelRequestPointer& request, const ControlResult& result) {
  const bool is_left = result.in_use.files > 0 || result.pinned.files > 0;
  request->error(result.failed.files > 0 ? EIO : is_left ? EBUSY : 0);
}

void order_by_attribute(FuseCore& core, const KernelRequestPointer& request, NodeId node,
                        AttributeOrder order) {
  const Caller& caller = request->caller();
  // What has no name any more ends with who has it open.
  const FoundFile found = core.find(node, caller);
  const auto location = core.nodes.locate(node);
  if (found.error != 0 || !location) {
    request->error(found.error != 0 ? found.error : ESTALE);
    return;
  }
  if (!S_ISREG(found.attributes.st_mode)) {
    request->error(EOPNOTSUPP);
    return;
  }
  if (caller.user != 0 && caller.user != found.attributes.st_uid) {
    request->error(EPERM);
    return;
  }
  if (order == AttributeOrder::warm || order == AttributeOrder::pin) {
    warm_by_attribute(core, *request, found, location->path, order == AttributeOrder::pin);
    return;
  }
  const SourceLook look = look_at_source(found.file.get(), Freshness::as_opened);
  if (look.error != 0) {
    request->error(look.error);
    return;
  }
  if (core.engine->is_recovering()) {
    request->error(EAGAIN);
    return;
  }
  // Under whatever name the cache knows it.
  std::vector<std::string> paths;
  for (FileReport& known : reports_of(core, look.state)) paths.push_back(std::move(known.path));
  if (paths.empty()) {
    request->error(0);
    return;
  }
  const auto done = [request](const ControlResult& result) { answer_control(request, result); };
  if (order == AttributeOrder::evict) {
    core.engine->evict(std::move(paths), done);
  } else {
    core.engine->unpin(std::move(paths), done);
  }
}

void answer_attribute_of_file(FuseCore& core, KernelRequest& request, NodeId node,
                              VirtualAttribute attribute, std::size_t size) {
  const FoundFile found = find_or_held(core, node, request.caller());
  if (found.error != 0) {
    request.error(found.error);
    return;
  }
  if (!S_ISREG(found.attributes.st_mode)) {
    request.error(ENODATA);
    return;
  }
  const SourceLook look = look_at_source(found.file.get(), Freshness::as_opened);
  if (look.error != 0) {
    request.error(look.error);
    return;
  }
  const std::vector<FileReport> reports = reports_of(core, look.state);
  if (reports.empty() && core.engine->is_recovering()) {
    request.error(EAGAIN);
    return;
  }
  const FileReport report = report_of(reports, look.state);
  answer_value(request, value_of(attribute, report, wall_now()), size);
}

}  // namespace

void get_virtual_attribute(FuseCore& core, fuse_req_t raw, NodeId node, VirtualAttribute attribute,
                           std::size_t size) {
  const bool is_curvefs = attribute == VirtualAttribute::curvefs_warmup ||
                          attribute == VirtualAttribute::curvefs_warmups;
  if (attribute == VirtualAttribute::unknown ||
      (is_curvefs && core.settings.warm_jobs == nullptr)) {
    fuse_reply_err(raw, ENODATA);
    return;
  }
  core.post(raw, [node, attribute, size](FuseCore& mount, const KernelRequestPointer& request) {
    switch (attribute) {
      case VirtualAttribute::curvefs_warmup:
        return answer_warmup(mount, *request, node, size);
      case VirtualAttribute::curvefs_warmups:
        return answer_warmups(mount, *request, size);
      default:
        return answer_attribute_of_file(mount, *request, node, attribute, size);
    }
  });
}

void set_virtual_attribute(FuseCore& core, fuse_req_t raw, NodeId node, VirtualAttribute attribute,
                           std::string value, int flags) {
  if (attribute == VirtualAttribute::curvefs_warmup && core.settings.warm_jobs != nullptr) {
    core.post(raw, [node, value = std::move(value)](FuseCore& mount,
                                                    const KernelRequestPointer& request) {
      start_warmup(mount, request, node, value);
    });
    return;
  }
  const ParsedOrder parsed = parse_order(attribute, value);
  if (parsed.error != 0 || (flags & XATTR_CREATE) != 0) {
    fuse_reply_err(raw, parsed.error != 0 ? parsed.error : EEXIST);
    return;
  }
  core.post(raw,
            [node, order = parsed.order](FuseCore& mount, const KernelRequestPointer& request) {
              order_by_attribute(mount, request, node, order);
            });
}

}  // namespace ncfs
