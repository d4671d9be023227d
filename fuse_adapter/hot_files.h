// Which files are opened most, in bounded memory: the Space-Saving algorithm (Metwally, Agrawal and
// El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005). A file
// whose share of the opens is above 1/kFilesMax is always among them; the count of one that came
// late may be too high, by what the one that it replaced had. Counts are halved every minute, so
// that they are of the last few.
//
// Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "io/types.h"

namespace ncfs {

class HotFiles {
 public:
  static constexpr std::size_t kFilesMax = 64;
  static constexpr Nanos kHalfLife = 60 * kSecond;

  struct File {
    std::string path;
    std::uint64_t opens = 0;
    std::uint64_t size_bytes = 0;  // when it was opened last
  };
  void opened(const std::string& path, std::uint64_t size_bytes, Nanos now);
  // The most opened first.
  [[nodiscard]] std::vector<File> list(Nanos now);

 private:
  void age(Nanos now);

  std::mutex mutex_;
  std::map<std::string, File> files_;
  Nanos halved_at_ = 0;
};

}  // namespace ncfs
