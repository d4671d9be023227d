#include "fuse_adapter/shared_file.h"

#include <algorithm>
#include <utility>

#include "fuse_adapter/open_files.h"
#include "io/assert.h"
#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

bool is_passed_to_source(const OpenFile& file) {
  return file.mode == OpenMode::source_passthrough;
}

}  // namespace

std::uint64_t SharedFile::changes() const {
  const std::lock_guard lock(mutex_);
  return changes_;
}

// Our own changes in between would explain another version.
bool SharedFile::is_foreign(const Look& look) {
  const bool is_known = look.changes == changes_ && last_look_.changes == changes_;
  const bool result = is_known && look.version != last_look_.version;
  if (look.changes) last_look_ = look;
  return result;
}

void SharedFile::add(OpenFile& file) {
  file.place_in_shared = files_.size();
  files_.push_back(&file);
  if (!is_passed_to_source(file)) return;
  ++passed_to_source_;
  if (file.is_written()) ++unseen_writers_;
}

bool SharedFile::join_reader(OpenFile& file, const Look& look, const Decide& decide) {
  const std::lock_guard lock(mutex_);
  const bool is_untouched = writers_ == 0 && look.changes == changes_;
  if (!is_untouched) file.read_past_cache();
  const bool unseen = unseen_writers_ > 0;
  const bool may_pass = (is_untouched || unseen) && writer_expected_until_ <= monotonic_now();
  const Advice advice{
      .may_pass = may_pass, .is_written_unseen = unseen, .is_foreign = is_foreign(look)};
  if (!decide(advice)) return false;
  add(file);
  return true;
}

bool SharedFile::join_writer(OpenFile& file, const Look& look, const Decide& decide) {
  const std::lock_guard lock(mutex_);
  const Advice advice{.may_pass = passed_to_source_ == files_.size(),
                      .is_written_unseen = unseen_writers_ > 0,
                      .is_foreign = is_foreign(look)};
  if (!decide(advice)) return false;
  add(file);
  writer_expected_until_ = 0;
  if (is_passed_to_source(file)) {
    // What is written unseen is a change at any moment.
    ++changes_;
    for (OpenFile* const each : files_) each->read_past_cache();
  }
  return true;
}

void SharedFile::expect_writer(Nanos until) {
  const std::lock_guard lock(mutex_);
  writer_expected_until_ = until;
}

void SharedFile::leave(OpenFile& file) {
  const std::lock_guard lock(mutex_);
  const std::size_t place = file.place_in_shared;
  if (place == OpenFile::kNowhere) return;
  files_[place] = files_.back();
  files_[place]->place_in_shared = place;
  files_.pop_back();
  if (!is_passed_to_source(file)) return;
  --passed_to_source_;
  if (file.is_written()) --unseen_writers_;
}

void SharedFile::begin_writes() {
  const std::lock_guard lock(mutex_);
  ++writers_;
}

void SharedFile::end_writes() {
  const std::lock_guard lock(mutex_);
  NCFS_ASSERT(writers_ > 0);
  --writers_;
}

bool SharedFile::is_written() const {
  const std::lock_guard lock(mutex_);
  return writers_ > 0;
}

SharedFile::Audience SharedFile::note_change(NodeId node) {
  Audience audience;
  const std::lock_guard lock(mutex_);
  ++changes_;
  for (OpenFile* const file : files_) {
    file->read_past_cache();
    if (file->mode == OpenMode::passthrough) {
      // Nothing comes of one that is being destroyed: its handle is closed.
      auto passed = file->passed ? file->passed : file->weak_from_this().lock();
      if (passed && std::ranges::find(audience.passed, passed) == audience.passed.end()) {
        audience.passed.push_back(std::move(passed));
      }
    }
    if (file->node == node) continue;
    if (std::ranges::find(audience.nodes, file->node) != audience.nodes.end()) continue;
    audience.nodes.push_back(file->node);
  }
  return audience;
}

std::shared_ptr<void> SharedFile::begin_late_notice() {
  const std::lock_guard lock(mutex_);
  auto notices = late_notices_.lock();
  if (!notices) {
    notices = std::make_shared<Held>();
    late_notices_ = notices;
  }
  return notices;
}

void SharedFile::hold_for_late_notices(std::shared_ptr<void> held) {
  std::shared_ptr<Held> notices;  // let go without the lock: it may be the last
  const std::lock_guard lock(mutex_);
  notices = late_notices_.lock();
  if (!notices) return;
  auto next = std::make_shared<Held>();
  late_notices_ = next;
  notices->push_back(std::move(held));
  notices->push_back(std::move(next));
}

SharedFilePointer SharedFiles::of(const FileKey& key) {
  const std::lock_guard lock(table_->mutex);
  std::weak_ptr<SharedFile>& known = table_->files[key];
  if (auto file = known.lock()) return file;
  // Another one may have come in its place between its last reference and its deleter.
  const auto forget = [table = table_, key](const SharedFile* file) {
    {
      const std::lock_guard forgetting(table->mutex);
      const auto found = table->files.find(key);
      if (found != table->files.end() && found->second.expired()) table->files.erase(found);
    }
    delete file;  // NOLINT(cppcoreguidelines-owning-memory)
  };
  SharedFilePointer made(new SharedFile(key), forget);
  known = made;
  return made;
}

bool SharedFiles::is_written(const FileKey& key) const {
  SharedFilePointer file;  // outlives the lock, which its end takes
  {
    const std::lock_guard lock(table_->mutex);
    const auto known = table_->files.find(key);
    if (known != table_->files.end()) file = known->second.lock();
  }
  return file && file->is_written();
}

WriteSession::WriteSession(InodeTable& nodes, std::shared_ptr<void> owner, NodeId node,
                           SharedFilePointer file)
    : owner_(std::move(owner)), nodes_(nodes), node_(node), file_(std::move(file)) {
  file_->begin_writes();
  nodes_.begin_writes(node_);
}

WriteSession::~WriteSession() {
  nodes_.end_writes(node_, facts_);
  file_->end_writes();
}

}  // namespace ncfs
