// What the engine tells about single files.

#include <algorithm>

#include "engine/core.h"

namespace ncfs {
namespace {

FileReport::State state_of(const Object& o) {
  if (o.state == ObjectState::cached) return FileReport::State::complete;
  if (o.state == ObjectState::removing) return FileReport::State::leaving;
  if (o.copy == CopyPhase::active || o.state == ObjectState::committing) {
    return FileReport::State::copying;
  }
  if (o.copy != CopyPhase::none) return FileReport::State::waiting;
  return o.state == ObjectState::partial ? FileReport::State::partial : FileReport::State::absent;
}

}  // namespace

const char* to_string(FileReport::State state) {
  switch (state) {
    case FileReport::State::absent:
      return "absent";
    case FileReport::State::waiting:
      return "waiting";
    case FileReport::State::copying:
      return "copying";
    case FileReport::State::partial:
      return "partial";
    case FileReport::State::complete:
      return "complete";
    case FileReport::State::leaving:
      return "leaving";
  }
  return "unknown";
}

std::optional<OpenReason> Core::reason_not_complete(const Object& o) const {
  if (o.state == ObjectState::cached) return std::nullopt;
  if (o.is_stale) return OpenReason::changed;
  if (const auto refused = refusal(o)) return refused;
  if (!health_.is_normal()) return OpenReason::cache_unavailable;
  if (o.deferral) return o.deferral;
  if (now_ < o.trusted_at && o.is_looked_at) return OpenReason::recently_changed;
  if (o.failures > 0) {
    return o.last_error == kNoSpace ? OpenReason::no_space : OpenReason::backing_off;
  }
  if (o.copy != CopyPhase::none) return OpenReason::first_use;
  return o.state == ObjectState::partial ? std::optional(OpenReason::partial) : std::nullopt;
}

FileReport Core::report_of(const Object& o) const {
  FileReport report;
  report.id = static_cast<std::uint64_t>(o.id);
  report.path = o.path;
  report.state = state_of(o);
  report.reason = reason_not_complete(o);
  report.version = o.version;
  const std::uint64_t missing = o.blocks_missing * config_.block_size_bytes;
  if (o.state == ObjectState::cached) report.cached_bytes = o.version.size;
  if (o.has_some_blocks()) {
    report.cached_bytes = o.version.size - std::min(missing, o.version.size);
  }
  report.is_pinned = is_pinned(o);
  report.is_open = !o.handles.empty();
  const auto now = static_cast<std::int64_t>(now_);
  report.idle =
      o.handles.empty() ? static_cast<Nanos>(std::max<std::int64_t>(now - o.used_at, 0)) : 0;
  if (o.copy == CopyPhase::delayed && o.copy_at > now_) report.next_try = o.copy_at - now_;
  report.last_error = o.last_error;
  report.has_checksums = o.has_checksums;
  report.file = o.file;
  return report;
}

std::vector<FileReport> Core::files(const FileQuery& query) const {
  std::vector<FileReport> reports;
  const auto add = [&](const Object& o) {
    if (is_beneath(o.path, query.paths)) reports.push_back(report_of(o));
  };
  if (query.file) {
    std::vector<ObjectId> ids = objects_of(*query.file);
    std::ranges::sort(ids);
    for (const ObjectId id : ids) {
      if (id > ObjectId{query.after} && reports.size() < query.max) add(objects_.at(id));
    }
    return reports;
  }
  for (auto place = objects_.upper_bound(ObjectId{query.after});
       place != objects_.end() && reports.size() < query.max; ++place) {
    add(place->second);
  }
  return reports;
}

}  // namespace ncfs
