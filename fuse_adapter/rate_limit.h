// How many messages of one kind may be logged: a flood of one kind must not hide the others, nor
// make journald drop what it likes. Pure; guarded by its owner.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/types.h"

namespace ncfs {

class RateLimit {
 public:
  // journald lets 10 000 messages of a service through in 30 seconds and drops the rest.
  static constexpr Nanos kInterval = 10 * kSecond;
  static constexpr std::uint64_t kMessagesMax = 2000;

  struct Suppressed {
    std::string kind;
    std::uint64_t messages = 0;
  };
  struct Verdict {
    bool is_admitted = false;
    // Of intervals that are over, of whatever kind: to be told now, as they are told only once.
    std::vector<Suppressed> suppressed;
  };
  // Before a message of `kind`, one of few. `now` does not go back.
  [[nodiscard]] Verdict admit(std::string_view kind, Nanos now);

 private:
  struct Kind {
    Nanos began_at = 0;
    std::uint64_t admitted = 0;
    std::uint64_t suppressed = 0;
  };
  std::map<std::string, Kind, std::less<>> kinds_;
};

}  // namespace ncfs
