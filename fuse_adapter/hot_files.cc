#include "fuse_adapter/hot_files.h"

#include <algorithm>

namespace ncfs {

void HotFiles::age(Nanos now) {
  const Nanos halvings = (now - std::min(halved_at_, now)) / kHalfLife;
  if (halvings == 0) return;
  halved_at_ = now;
  for (auto& [path, file] : files_) file.opens = halvings < 64 ? file.opens >> halvings : 0;
  std::erase_if(files_, [](const auto& entry) { return entry.second.opens == 0; });
}

void HotFiles::opened(const std::string& path, std::uint64_t size_bytes, Nanos now) {
  const std::lock_guard lock(mutex_);
  age(now);
  std::uint64_t opens = 1;
  if (!files_.contains(path) && files_.size() == kFilesMax) {
    const auto least =
        std::ranges::min_element(files_, {}, [](const auto& entry) { return entry.second.opens; });
    opens += least->second.opens;
    files_.erase(least);
  }
  File& file = files_.try_emplace(path, File{path, 0, 0}).first->second;
  file.opens += opens;
  file.size_bytes = size_bytes;
}

std::vector<HotFiles::File> HotFiles::list(Nanos now) {
  const std::lock_guard lock(mutex_);
  age(now);
  std::vector<File> files;
  for (const auto& [path, file] : files_) files.push_back(file);
  std::ranges::stable_sort(files, std::ranges::greater{}, &File::opens);
  return files;
}

}  // namespace ncfs
