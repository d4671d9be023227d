#include "fuse_adapter/open_files.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

namespace ncfs {

bool RuntimeGate::open(OpenEvent event, std::function<void(const OpenResult&)> done) {
  const std::shared_lock lock(mutex_);
  if (runtime_ == nullptr) return false;
  runtime_->open(std::move(event), std::move(done));
  return true;
}

void RuntimeGate::close(HandleId handle) {
  const std::shared_lock lock(mutex_);
  if (runtime_ != nullptr) runtime_->close(handle);
}

void RuntimeGate::read(HandleId handle, ByteRange range, bool skip_cache,
                       std::function<void(const ReadOutcome&)> done) {
  const std::shared_lock lock(mutex_);
  if (runtime_ != nullptr) runtime_->read(handle, range, skip_cache, std::move(done));
}

void RuntimeGate::cache_fault(HandleId handle, int error) {
  const std::shared_lock lock(mutex_);
  if (runtime_ != nullptr) runtime_->cache_fault(handle, error);
}

bool RuntimeGate::disown(const FileId& file, std::function<void(int error)> done) {
  const std::shared_lock lock(mutex_);
  if (runtime_ == nullptr) return false;
  runtime_->disown(file, std::move(done));
  return true;
}

bool RuntimeGate::grow(HandleId handle, std::uint64_t size_bytes,
                       std::function<void(int error)> done) {
  const std::shared_lock lock(mutex_);
  if (runtime_ == nullptr) return false;
  runtime_->grow(handle, size_bytes, std::move(done));
  return true;
}

void RuntimeGate::rekey(const SourceState& before, const SourceState& after, std::string path) {
  const std::shared_lock lock(mutex_);
  if (runtime_ != nullptr) runtime_->rekey(before, after, std::move(path));
}

bool RuntimeGate::warm(FileHandle source, const SourceState& state, std::string path,
                       std::function<void(const WarmResult&)> done, bool pin) {
  const std::shared_lock lock(mutex_);
  if (runtime_ == nullptr) return false;
  runtime_->warm(source, state, std::move(path), std::move(done), pin);
  return true;
}

void RuntimeGate::evict(std::vector<std::string> paths,
                        std::function<void(const ControlResult&)> done) {
  const std::shared_lock lock(mutex_);
  if (runtime_ != nullptr) runtime_->evict(std::move(paths), 0, std::move(done));
}

void RuntimeGate::unpin(std::vector<std::string> paths,
                        std::function<void(const ControlResult&)> done) {
  const std::shared_lock lock(mutex_);
  if (runtime_ != nullptr) runtime_->unpin(std::move(paths), std::move(done));
}

std::vector<FileReport> RuntimeGate::files(const FileQuery& query) {
  const std::shared_lock lock(mutex_);
  return runtime_ == nullptr ? std::vector<FileReport>() : runtime_->files(query);
}

bool RuntimeGate::is_recovering() {
  const std::shared_lock lock(mutex_);
  return runtime_ != nullptr && runtime_->status().is_recovering;
}

void RuntimeGate::shut() {
  const std::unique_lock lock(mutex_);
  runtime_ = nullptr;
}

void OpenFile::adopt(const std::shared_ptr<Residency>& residency) {
  if (!residency) return;
  const std::lock_guard lock(adopt_mutex_);
  if (owned_) return;
  owned_ = residency;
  residency_.store(owned_.get(), std::memory_order_release);
}

std::size_t open_files_max(std::uint64_t descriptors) {
  // 64 copies with two files each, 56 threads that walk or reopen with up to three, and the opens
  // that are under way when the last one is answered.
  constexpr std::uint64_t kReserve = 512;
  const std::uint64_t kept = std::min(kReserve, descriptors / 2);
  return static_cast<std::size_t>((descriptors - kept) / 2);
}

void OpenFiles::add(std::shared_ptr<OpenFile> file) {
  const std::lock_guard lock(mutex_);
  auto& files = files_[file->node];
  file->place_in_open = files.size();
  files.push_back(std::move(file));
  count_.fetch_add(1, std::memory_order_relaxed);
}

std::shared_ptr<OpenFile> OpenFiles::remove(const OpenFile& file) {
  const std::lock_guard lock(mutex_);
  const auto of_node = files_.find(file.node);
  if (of_node == files_.end()) return nullptr;
  auto& files = of_node->second;
  const std::size_t place = file.place_in_open;
  if (place >= files.size() || files[place].get() != &file) return nullptr;
  std::swap(files[place], files.back());
  files[place]->place_in_open = place;
  auto removed = std::move(files.back());
  files.pop_back();
  if (files.empty()) files_.erase(of_node);
  count_.fetch_sub(1, std::memory_order_relaxed);
  return removed;
}

std::shared_ptr<OpenFile> OpenFiles::any_of(NodeId node) const {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(node);
  return found == files_.end() ? nullptr : found->second.front();
}

void OpenFiles::note_source_size(NodeId node, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(node);
  if (found == files_.end()) return;
  for (const auto& file : found->second) file->note_source_size(size);
}

void OpenFiles::clear() {
  Files dropped;
  const std::lock_guard lock(mutex_);
  dropped.swap(files_);
  count_ = 0;
}

void OpenDirectories::add(std::shared_ptr<OpenDirectory> directory) {
  const std::lock_guard lock(mutex_);
  const OpenDirectory* key = directory.get();
  directories_.emplace(key, std::move(directory));
  count_.fetch_add(1, std::memory_order_relaxed);
}

std::shared_ptr<OpenDirectory> OpenDirectories::remove(const OpenDirectory& directory) {
  const std::lock_guard lock(mutex_);
  const auto found = directories_.find(&directory);
  if (found == directories_.end()) return nullptr;
  auto removed = std::move(found->second);
  directories_.erase(found);
  count_.fetch_sub(1, std::memory_order_relaxed);
  return removed;
}

Descriptor OpenDirectories::descriptor_of(NodeId node) const {
  std::vector<std::shared_ptr<OpenDirectory>> holders;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, directory] : directories_) {
      if (directory->node == node) holders.push_back(directory);
    }
  }
  for (const auto& holder : holders) {
    const std::lock_guard lock(holder->mutex);
    const int descriptor = holder->found.file.get();
    if (descriptor >= 0) return Descriptor(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
  }
  return {};
}

void OpenDirectories::clear() {
  decltype(directories_) dropped;
  const std::lock_guard lock(mutex_);
  dropped.swap(directories_);
  count_ = 0;
}

}  // namespace ncfs
