// Replacing the sidecar of a complete object, as its pin, version or path is not what that says: it
// is read, changed and replaced by the same steps as a checkpoint's. That of a partial object is
// replaced by a checkpoint.

#include <optional>
#include <utility>

#include "engine/core.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// The disk did not take it: asked again this much later.
constexpr Nanos kRecordRetry = 10 * kSecond;

}  // namespace

bool Core::must_record(const Object& o) const {
  return !o.is_stale && (o.is_pin_recorded != is_pinned(o) || o.rekeys_recorded != o.rekeys);
}

void Core::record(Object& o) {
  NCFS_ASSERT(o.state == ObjectState::cached && !o.is_persisting);
  o.is_persisting = true;
  ++o.io_in_flight;
  Request request = cache_request(Op::cache_load);
  request.name = name_of(o, NameKind::sidecar);
  submit({.step = Step::record_load, .object = o.id}, std::move(request));
}

void Core::on_record_step(Object& o, Step step, const Completion& completion) {
  --o.io_in_flight;
  if (o.state != ObjectState::cached) return finish_persist(o);  // being removed
  if (completion.result < 0) {
    const int error = static_cast<int>(-completion.result);
    ++counters_.cache_errors;
    notice(Notice::Kind::cache_error, o, 0, error, "replacing a sidecar");
    end_persist(o);
    o.record_at = now_ + kRecordRetry;
    answer_warms(o, {WarmResult::Kind::failed, {}, error});
    return settle(o);
  }
  Request request = sync_shard(o);
  Step next = Step::record_sync_directory;
  switch (step) {
    case Step::record_load: {
      std::optional<Sidecar> sidecar = decode(completion.bytes);
      if (!sidecar) {
        end_persist(o);
        return on_cache_error(o, kInputOutputError, "reading a sidecar");
      }
      sidecar->is_pinned = o.persisting_pin = is_pinned(o);
      sidecar->version = o.version;
      sidecar->path = o.path;
      o.rekeys_persisting = o.rekeys;
      next = Step::record_store;
      request = store_sidecar(o, *sidecar);
      break;
    }
    case Step::record_store:
      next = Step::record_rename;
      request = rename_sidecar(o);
      break;
    case Step::record_rename:
      break;
    default:
      o.is_pin_recorded = o.persisting_pin;
      o.rekeys_recorded = o.rekeys_persisting;
      end_persist(o);
      return settle(o);
  }
  ++o.io_in_flight;
  submit({.step = next, .object = o.id}, std::move(request));
}

}  // namespace ncfs
