// S12: one plan, one trace.
#include "sim/oracle.h"
#include "sim/world.h"

namespace ncfs {

std::optional<Violation> check_same(std::span<const Step> plan) {
  World one;
  World other;
  const auto differ = [&](const std::string& where) -> std::optional<Violation> {
    if (one.trace_digest() == other.trace_digest()) return one.violation();
    return Violation{"S12 Same", "two runs differ " + where + ": " + one.describe()};
  };
  for (std::size_t index = 0; index < plan.size(); ++index) {
    one.apply(plan[index]);
    other.apply(plan[index]);
    if (auto violation = differ("after step " + std::to_string(index))) return violation;
  }
  const std::optional<Violation> unsettled = check_liveness(one);
  static_cast<void>(check_liveness(other));
  if (auto violation = differ("once healed")) return violation;
  return unsettled;
}

}  // namespace ncfs
