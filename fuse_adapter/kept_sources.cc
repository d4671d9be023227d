#include "fuse_adapter/kept_sources.h"

#include <fcntl.h>

#include <utility>
#include <vector>

namespace ncfs {

// Every entry counts alike.
KeptSources::KeptSources(std::size_t files_max)
    : files_(files_max * LruMap<FileKey, Kept>::kOverheadBytes) {}

// What gives way is closed after the lock is released.
void KeptSources::keep(const FileKey& file, int source, const SourceState& state) {
  Kept kept{Descriptor(::fcntl(source, F_DUPFD_CLOEXEC, 0)), state};
  if (!kept.source.is_open()) return;
  std::vector<Descriptor> closed;
  const std::lock_guard lock(mutex_);
  std::swap(files_.put(file, 0), kept);
  files_.trim([&closed](const FileKey&, Kept& gone) { closed.push_back(std::move(gone.source)); });
}

std::optional<KeptSources::Kept> KeptSources::find(const FileKey& file,
                                                   const SourceVersion& version) {
  const std::lock_guard lock(mutex_);
  const Kept* const known = files_.find(file);
  if (known == nullptr || known->state.version != version) return std::nullopt;
  Kept kept{Descriptor(::fcntl(known->source.get(), F_DUPFD_CLOEXEC, 0)), known->state};
  if (!kept.source.is_open()) return std::nullopt;
  return kept;
}

void KeptSources::drop(const FileKey& file) {
  Descriptor closed;
  const std::lock_guard lock(mutex_);
  Kept* const known = files_.find(file);
  if (known == nullptr) return;
  closed = std::move(known->source);
  files_.erase(file);
}

void KeptSources::clear() {
  std::vector<Descriptor> closed;
  const std::lock_guard lock(mutex_);
  closed.reserve(files_.size());
  std::vector<FileKey> all;
  files_.for_each([&all](const FileKey& file, const Kept&, std::uint64_t) { all.push_back(file); });
  for (const FileKey& file : all) {
    closed.push_back(std::move(files_.find(file)->source));
    files_.erase(file);
  }
}

}  // namespace ncfs
