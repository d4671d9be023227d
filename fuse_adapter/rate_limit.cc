#include "fuse_adapter/rate_limit.h"

namespace ncfs {

RateLimit::Verdict RateLimit::admit(std::string_view name, Nanos now) {
  Verdict verdict;
  for (auto& [kind, state] : kinds_) {
    if (now - state.began_at < kInterval) continue;
    if (state.suppressed > 0) verdict.suppressed.push_back({kind, state.suppressed});
    state = {now, 0, 0};
  }
  auto place = kinds_.find(name);
  if (place == kinds_.end()) place = kinds_.emplace(name, Kind{now, 0, 0}).first;
  Kind& kind = place->second;
  verdict.is_admitted = kind.admitted < kMessagesMax;
  ++(verdict.is_admitted ? kind.admitted : kind.suppressed);
  return verdict;
}

}  // namespace ncfs
