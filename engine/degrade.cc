// What the engine does when the world around it fails.
//
//   the cache disk   judged by CacheHealth. Unless it is normal, no copy is started. While it is
//                    down, requests of the cache are held back where they are made, in submit(),
//                    and no reader is sent to a cache file; when it returns, what was held back is
//                    submitted and everything goes on from where it was.
//   its space        full below our limit because others filled it: room is made for the file that
//                    did not fit, and copies are begun one at a time until one is on the disk.
//   the source       background reads of several files failed in a row: copies pause, but for one
//                    try at a time. What readers ask for is always asked.

#include <algorithm>
#include <utility>

#include "engine/core.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// Files whose copies failed with no read of the source succeeding in between. One or two may be
// damaged; three are the server.
constexpr std::size_t kFailedFilesForRest = 3;

bool is_source_step(Step step) {
  return step == Step::fetch_read || step == Step::fetch_check || step == Step::open_source ||
         step == Step::close_source || step == Step::persist_stat;
}

// Where a missing name is nothing strange: the object was removed by somebody, or never made.
bool may_be_missing(Step step) {
  return step != Step::create && step != Step::persist_store && step != Step::recover_list &&
         step != Step::persist_sync_directory && step != Step::publish_sync_directory &&
         step != Step::probe_store && step != Step::record_store &&
         step != Step::record_sync_directory && step != Step::free_space &&
         step != Step::disown_sync_directory;
}

DiskAnswer judge(Step step, std::int64_t result) {
  if (result >= 0) return DiskAnswer::good;
  switch (static_cast<int>(-result)) {
    case kNoEntry:
      return may_be_missing(step) ? DiskAnswer::neutral : DiskAnswer::fault;
    case kNoSpace:
    case kOverQuota:
    case kBusy:
    case kExists:
    case kFileTooBig:
      return DiskAnswer::neutral;
    case kReadOnly:
      return DiskAnswer::read_only;
    case kTimedOut:
      return DiskAnswer::timeout;
    default:
      return DiskAnswer::fault;
  }
}

// What a server that works says about one file.
bool is_about_one_file(int error) {
  return error == kNoEntry || error == kNotPermitted || error == kAccessDenied ||
         error == kSourceChanged;
}

std::string probe_name() {
  return shard_name(0) + '/' + std::string(kProbeName);
}

}  // namespace

void Core::judge_result(const Pending& pending, std::int64_t result) {
  if (is_source_step(pending.step)) {
    if (pending.step != Step::close_source && result >= 0) source_answers();
    return;
  }
  if (pending.step == Step::probe_store || pending.step == Step::probe_unlink) return;
  judge_answer(judge(pending.step, result), result < 0 ? static_cast<int>(-result) : 0);
}

void Core::judge_answer(DiskAnswer answer, int error, bool is_of_probe) {
  const std::uint64_t changes = health_.changes();
  if (is_of_probe) {
    health_.on_probe_answer(now_, answer, error);
  } else {
    health_.on_answer(now_, answer, error);
  }
  if (health_.changes() != changes) on_health_changed();
}

void Core::on_health_changed() {
  host_.on_notice({Notice::Kind::cache_health, to_string(health_.state()), health_.reason(), 0,
                   health_.is_normal() ? 0 : health_.last_error()});
  if (health_.is_normal()) return use_cache_again();
  for (auto& [id, o] : objects_) {
    if (health_.is_down() && o.residency) o.residency->revoke();
    const bool is_under_way = o.copy == CopyPhase::active && !health_.is_down();
    if (!is_under_way && !o.warms.empty()) {
      answer_warms(o, {WarmResult::Kind::skipped, OpenReason::cache_unavailable, 0});
    }
  }
  if (!health_.is_down()) return;
  for (auto& [id, o] : objects_) count_drop(o, &ControlResult::failed);
  pump_drops();
  std::vector<HandleId> waiting;
  for (const auto& [id, h] : handles_) {
    if (!h.is_answered) waiting.push_back(id);
  }
  for (const HandleId id : waiting) stop_waiting(handles_.at(id));
  refuse_disownings();
  refuse_growths(kInputOutputError, std::nullopt);
}

void Core::use_cache_again() {
  std::vector<ObjectId> to_open;
  for (auto& [id, o] : objects_) {
    if (o.residency && o.state != ObjectState::removing) publish_blocks(o);
    if (o.may_be_opened() && !o.is_open() && !o.handles.empty()) to_open.push_back(id);
    o.remove_at = 0;
  }
  for (auto& [pending, request] : std::exchange(held_, {})) {
    request.deadline = now_ + config_.cache_deadline;
    submit(std::move(pending), std::move(request));
  }
  for (const ObjectId id : to_open) open_cache(object(id));
  // Blocks that came meanwhile wait in memory for the disk.
  const std::set<FetchId> idle = idle_fetches_;
  for (const FetchId id : idle) {
    if (idle_fetches_.contains(id)) keep_or_drop(fetches_.at(id));
  }
  pump_recovery();
  schedule_copies();
}

// Creates, writes, syncs and unlinks a file that recovery knows and removes. It is charged like
// everything else; when there is no room for content, or the room is not known yet, an empty file
// still has to get through the file system's journal.
void Core::start_probe() {
  NCFS_ASSERT(!is_probing_);
  is_probing_ = true;
  if (probe_charge_ == 0 && is_recovered_ && space_.free() >= kAllocationUnit) {
    probe_charge_ = kAllocationUnit;
    space_.reserve(probe_charge_);
  }
  Request request = cache_request(Op::cache_store);
  request.name = probe_name();
  request.bytes.resize(probe_charge_);
  submit({.step = Step::probe_store}, std::move(request));
}

void Core::on_probe_step(Step step, std::int64_t result) {
  const int error = result < 0 ? static_cast<int>(-result) : 0;
  if (step == Step::probe_store) {
    const DiskAnswer answer = judge(step, result);
    is_probe_stored_ = answer == DiskAnswer::good || answer == DiskAnswer::neutral;
    if (!is_probe_stored_) judge_answer(answer, error, true);
    // Also when it failed: something of it may be there.
    Request request = cache_request(Op::cache_unlink);
    request.name = probe_name();
    submit({.step = Step::probe_unlink}, std::move(request));
    return;
  }
  is_probing_ = false;
  const bool is_gone = result == 0 || result == -kNoEntry;
  if (is_gone) {
    space_.release_reserved(probe_charge_);
    probe_charge_ = 0;
  }
  if (!is_probe_stored_) return;
  const DiskAnswer answer = judge(step, result);
  const bool is_stuck = !is_gone && answer == DiskAnswer::neutral;
  judge_answer(is_stuck ? DiskAnswer::fault : answer, error, true);
}

// A file that could not get the room that the books promise it. Whoever filled the disk, what the
// policy would drop next is of less use than this one.
void Core::on_disk_full(std::uint64_t bytes_needed) {
  disk_full_.begin(now_);
  std::uint64_t evicted = 0;
  while (evicted < bytes_needed && eviction_->evictable_count() > 0) {
    evicted += evict_one(std::nullopt);
  }
}

bool Core::may_start_copies() const {
  return is_recovered_ && !is_stopping_ && health_.is_normal() && growths_.empty();
}

std::size_t Core::active_copies_max() const {
  return source_rest_.is_active() ? 1 : config_.copies_max;
}

void Core::source_answers() {
  failed_in_row_.clear();
  if (!source_rest_.is_active()) return;
  source_rest_.end();
  host_.on_notice({Notice::Kind::source_health, "answers again", "copies go on", 0, 0});
}

void Core::source_fails(const Object& o, int error) {
  if (is_about_one_file(error)) return;
  failed_in_row_.insert(o.id);
  if (failed_in_row_.size() < kFailedFilesForRest || source_rest_.is_active()) return;
  source_rest_.begin(now_);
  source_error_ = error;
  host_.on_notice(
      {Notice::Kind::source_health, "fails", "copies pause, but for one try at a time", 0, error});
}

}  // namespace ncfs
