// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace ncfs {

// "512 B", "1.5 KiB", "20.0 GiB".
[[nodiscard]] std::string human_size(std::uint64_t bytes);

// "0.4 s", "12 s", "3 min 20 s", "2 h 5 min", "4 d 3 h".
[[nodiscard]] std::string human_duration(double seconds);

// "[#####-----]", `part` of `whole` in `width` letters; empty if there is no whole. Full only when
// all is done.
[[nodiscard]] std::string progress_bar(std::uint64_t part, std::uint64_t whole, int width);

// "92.3 %"; never 100.0 before all is done.
[[nodiscard]] std::string percentage(std::uint64_t part, std::uint64_t whole);

}  // namespace ncfs
