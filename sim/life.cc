#include "sim/life.h"

#include <optional>
#include <utility>

namespace ncfs {

void Life::start() {
  io_.invent_models();
  engine_.start(engine_now());
}

void Life::handle(Event event) {
  engine_.handle(engine_now(), std::move(event));
}

void Life::complete(std::size_t index, const Answer& answer) {
  engine_.complete(engine_now(), io_.complete(index, answer));
}

void Life::expire(std::uint32_t effects) {
  while (std::optional<Completion> completion = io_.expire(effects)) {
    engine_.complete(engine_now(), std::move(*completion));
  }
}

}  // namespace ncfs
