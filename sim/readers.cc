#include "sim/readers.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>
#include <variant>

#include "engine/format.h"
#include "sim/truth.h"

namespace ncfs {
namespace {

// More would only make runs longer: what goes wrong between readers goes wrong between three.
constexpr std::size_t kFilesMax = 12;
constexpr std::size_t kReadsMax = 8;
constexpr std::size_t kWarmsMax = 8;
// A read that was told to look into the cache this often and found nothing there goes in circles.
constexpr std::uint32_t kRoundsMax = 16;

std::string name_of(HandleId handle) {
  return "handle " + std::to_string(static_cast<std::uint64_t>(handle));
}

}  // namespace

void Readers::report(const char* name, std::string message) {
  if (!violation_) violation_ = {name, std::move(message)};
}

void Readers::die(bool keeps_holds) {
  for (const auto& [handle, file] : files_) {
    if (!keeps_holds || !file.result.is_complete || !file.residency) continue;
    const std::optional<InodeId> inode = disk_.inode_of(file.residency->cache_file());
    if (!inode) continue;
    disk_.hold(*inode);
    const std::span<const std::byte> content = disk_.view(*inode).cached;
    holds_.push_back({*inode, {content.begin(), content.end()}});
  }
  if (!keeps_holds) release_holds();
  life_ = nullptr;
  files_.clear();
  reads_.clear();
  warms_.clear();
  mailbox_.clear();
  closing_.clear();
  verifies_.clear();
  found_rotten_.clear();
  controls_.clear();
  writes_.clear();
  writes_to_repeat_.clear();
  growths_.clear();
  growths_to_ask_.clear();
  late_rekeys_.clear();
  finished_.clear();
  started_.clear();
  is_stopping_ = false;
  is_stopped_ = false;
  has_sent_fault_ = false;
}

void Readers::release_holds() {
  for (const Hold& hold : holds_) disk_.release_hold(hold.inode);
  holds_.clear();
}

void Readers::check_holds() {
  for (const Hold& hold : holds_) {
    const std::span<const std::byte> content = disk_.view(hold.inode).cached;
    if (!std::equal(content.begin(), content.end(), hold.content.begin(), hold.content.end())) {
      report("S5 Pins", "a cache file that the kernel still reads was changed");
    }
  }
}

std::optional<FileHandle> Readers::open_source(const std::string& path, Nanos now,
                                               SourceState& state) {
  const Weather& weather = life_->io().weather();
  if (weather.nfs_hangs || weather.nfs_error != 0) return std::nullopt;
  const std::int64_t result = nfs_.open(path, state, now);
  if (result < 0) return std::nullopt;
  const FileHandle handle{static_cast<std::int32_t>(result)};
  life_->io().note_source_handle(handle, state);
  return handle;
}

bool Readers::open(const std::string& path, Nanos now, bool reads_source) {
  if (is_stopping_ || files_.size() >= kFilesMax) return false;
  SourceState state;
  const std::optional<FileHandle> source = open_source(path, now, state);
  if (!source) return false;
  const HandleId handle{next_id_++};
  OpenFile& file = files_[handle];
  file.path = path;
  file.inode = nfs_.inode_of(*source);
  file.version = state.version;
  file.first_revision = nfs_.current_revision(file.inode);
  file.failures_before = life_->io().source_failures().size();
  send(OpenEvent{handle, *source, state, path, reads_source});
  return true;
}

bool Readers::warm(const std::string& path, Nanos now) {
  return send_warm(path, now, false);
}

bool Readers::pin(const std::string& path, Nanos now) {
  return send_warm(path, now, true);
}

bool Readers::unpin(const std::string& path) {
  if (controls_.size() >= kWarmsMax) return false;
  std::erase_if(pinned_, [&](const Pinned& file) { return file.path == path; });
  for (auto& [token, warm] : warms_) warm.pin = warm.pin && warm.file.path != path;
  const ControlToken token{next_id_++};
  controls_.insert(token);
  send(UnpinEvent{token, {path}});
  return true;
}

bool Readers::evict(const std::string& path, Nanos idle_min) {
  if (controls_.size() >= kWarmsMax) return false;
  const ControlToken token{next_id_++};
  controls_.insert(token);
  send(EvictEvent{token, {path}, idle_min});
  return true;
}

void Readers::limit(std::uint64_t bytes) {
  send(LimitEvent{bytes});
}

void Readers::forget_changed_pins() {
  std::erase_if(pinned_, [&](const Pinned& file) {
    return !nfs_.exists(file.path) || nfs_.inode_at(file.path) != file.inode ||
           nfs_.history(file.inode).back().version != file.version;
  });
}

bool Readers::send_warm(const std::string& path, Nanos now, bool pin) {
  if (is_stopping_ || warms_.size() >= kWarmsMax) return false;
  SourceState state;
  const std::optional<FileHandle> source = open_source(path, now, state);
  if (!source) return false;
  const WarmToken token{next_id_++};
  warms_.emplace(token, Warm{{path, nfs_.inode_of(*source), state.version}, pin});
  send(WarmEvent{token, *source, state, path, pin});
  return true;
}

// The adapter opens and warms nothing any more; what is open goes on.
void Readers::stop() {
  if (is_stopping_) return;
  is_stopping_ = true;
  deliver_all();
  life_->handle(StopEvent{});
}

bool Readers::verify(const std::string& path) {
  if (is_stopping_ || verifies_.size() >= kWarmsMax) return false;
  const VerifyToken token{next_id_++};
  std::set<InodeId>& rotten = verifies_[token];
  // Without holds whatever is being removed will be gone, and need not be found.
  if (path.empty() && holds_.empty()) {
    for (const auto& [name, inode] : disk_.names_cached()) {
      const bool is_data = name.ends_with(suffix(NameKind::data));
      if (is_data && !disk_.rotten_bytes(inode).empty()) rotten.insert(inode);
    }
  }
  send(VerifyEvent{token,
                   path.empty() ? std::vector<std::string>{} : std::vector<std::string>{path}});
  return true;
}

bool Readers::close(std::uint64_t handle_index) {
  if (files_.empty()) return false;
  const auto entry =
      std::next(files_.begin(), static_cast<std::ptrdiff_t>(handle_index % files_.size()));
  if (entry->second.is_closing) return false;
  entry->second.is_closing = true;
  if (entry->second.reads == 0) send_close(entry->first);
  return true;
}

void Readers::send_close(HandleId handle) {
  files_.erase(handle);
  if (mailbox_max_ > 0) closing_.insert(handle);
  send(CloseEvent{handle});
}

bool Readers::begin_read(std::uint64_t handle_index, std::uint64_t offset, std::uint64_t length) {
  if (files_.empty() || reads_.size() >= kReadsMax) return false;
  const auto entry =
      std::next(files_.begin(), static_cast<std::ptrdiff_t>(handle_index % files_.size()));
  OpenFile& file = entry->second;
  if (!file.is_answered || file.is_closing || file.version.size == 0) return false;
  offset %= file.version.size;
  length = 1 + length % (file.version.size - offset);
  ++file.reads;
  ActiveRead& read = reads_.emplace_back();
  read.handle = entry->first;
  read.rest = {offset, length};
  read.failures_before = life_->io().source_failures().size();
  read.own_writes = own_writes_[file.inode].size();
  plan(read);
  return true;
}

void Readers::plan(ActiveRead& read) {
  OpenFile& file = file_of(read);
  if (++read.rounds > kRoundsMax) {
    report("S7 NeverWait", name_of(read.handle) + ": a read goes in circles at " +
                               std::to_string(read.rest.offset));
    return finish(read);
  }
  if (file.is_passed_through) {
    read.phase = ActiveRead::Phase::planned;
    read.segment = read.rest;
    read.residency = file.residency;
    return;
  }
  if (!file.residency) return ask(read, false);
  const ReadPlan plan = plan_read(*file.residency, read.rest);
  if (!plan.resident) return ask(read, false);
  read.phase = ActiveRead::Phase::planned;
  read.segment = plan.range;
  read.residency = file.residency;
}

void Readers::ask(ActiveRead& read, bool skip_cache) {
  const std::uint64_t block_size = life_->config().block_size_bytes;
  const std::uint64_t block_end = (read.rest.offset / block_size + 1) * block_size;
  read.segment = {read.rest.offset, std::min(read.rest.end(), block_end) - read.rest.offset};
  read.phase = ActiveRead::Phase::waiting;
  read.residency = nullptr;
  read.token = ReadToken{next_id_++};
  send(ReadEvent{read.token, read.handle, read.segment, skip_cache});
}

void Readers::move_on(ActiveRead& read, std::uint64_t length) {
  read.rest = {read.rest.offset + length, read.rest.length - length};
  read.rounds = 0;
  if (read.rest.empty()) return finish(read);
  plan(read);
}

void Readers::finish(ActiveRead& read) {
  read.phase = ActiveRead::Phase::finished;
  ++reads_finished_;
}

bool Readers::advance(std::uint64_t read_index) {
  if (reads_.empty()) return false;
  ActiveRead& read = reads_[read_index % reads_.size()];
  if (read.phase == ActiveRead::Phase::planned) {
    use_planned(read);
  } else if (read.phase == ActiveRead::Phase::answered) {
    use_answer(read);
  } else {
    return false;
  }
  forget_finished();
  return true;
}

void Readers::advance_all() {
  for (std::size_t index = reads_.size(); index-- > 0;) {
    if (index < reads_.size()) advance(index);
  }
}

void Readers::close_all() {
  for (std::size_t index = files_.size(); index-- > 0;) close(index);
}

// Whoever finds the mailbox full waits until the engine has taken something.
void Readers::send(Event event) {
  if (mailbox_max_ == 0) return hand_over(std::move(event));
  while (mailbox_.size() >= mailbox_max_) deliver();
  mailbox_.push_back(std::move(event));
}

bool Readers::deliver() {
  tell_late_rekeys();
  disown_again();
  ask_for_growths();
  if (mailbox_.empty()) return false;
  Event event = std::move(mailbox_.front());
  mailbox_.pop_front();
  hand_over(std::move(event));
  return true;
}

void Readers::hand_over(Event event) {
  if (const auto* close = std::get_if<CloseEvent>(&event)) closing_.erase(close->handle);
  if (const auto* limit = std::get_if<LimitEvent>(&event)) limit_bytes_ = limit->bytes;
  if (const auto* disown = std::get_if<DisownEvent>(&event)) {
    life_->io().note_disowned(disown->file);
    note_disowned(disown->file);
  }
  if (const auto* grow = std::get_if<GrowEvent>(&event)) {
    growths_.at(grow->token).asked_at = life_->io().now();
  }
  life_->handle(std::move(event));
}

void Readers::deliver_all() {
  tell_late_rekeys();
  disown_again();
  ask_for_growths();
  while (deliver()) {
  }
}

void Readers::forget_finished() {
  std::vector<HandleId> closed;
  std::erase_if(reads_, [&](const ActiveRead& read) {
    if (read.phase != ActiveRead::Phase::finished) return false;
    OpenFile& file = files_.at(read.handle);
    if (--file.reads == 0 && file.is_closing) closed.push_back(read.handle);
    return true;
  });
  for (const HandleId handle : closed) send_close(handle);
}

void Readers::use_planned(ActiveRead& read) {
  const Weather& weather = life_->io().weather();
  if (weather.disk_hangs) return;
  if (weather.disk_error != 0) return fall_back_to_source(read);
  if (life_->config().checksum == Checksum::read) {
    report("S13 Rot", name_of(read.handle) + ": was sent to the cache file, which nobody checks");
  }
  // Rot that nobody has looked for yet does reach these readers.
  std::vector<std::byte> bytes(read.segment.length);
  const std::int64_t result =
      disk_.read(read.residency->cache_file(), read.segment.offset, bytes, SimDisk::Rot::ignored);
  if (result == -EBADF) {
    report("S5 Pins", name_of(read.handle) + ": the cache file was closed under a reader");
    return finish(read);
  }
  if (static_cast<std::uint64_t>(result) < read.segment.length) {
    report("S3 Residency", name_of(read.handle) + ": resident bytes are past the end");
    return finish(read);
  }
  // What a lying disk lost, a checksum could tell; without one nobody can.
  const bool is_ruined = disk_.is_ruined(*disk_.inode_of(read.residency->cache_file()));
  if (!is_ruined) check_truth(read, bytes, "the cache");
  move_on(read, read.segment.length);
}

void Readers::fall_back_to_source(ActiveRead& read) {
  has_sent_fault_ = true;
  send(CacheFaultEvent{read.handle, life_->io().weather().disk_error});
  ask(read, true);
}

void Readers::use_answer(ActiveRead& read) {
  OpenFile& file = file_of(read);
  const ReadResult answer = std::exchange(read.answer, {});
  switch (answer.kind) {
    case ReadResult::Kind::bytes: {
      const std::span<const std::byte> bytes =
          life_->io().buffer(answer.buffer).subspan(answer.buffer_offset, answer.length);
      if (!std::equal(bytes.begin(), bytes.end(), read.answered_bytes.begin())) {
        report("S5 Pins", name_of(read.handle) + ": a buffer changed while a reader used it");
      }
      life_->io().give_back(answer.buffer);
      send(ReadDoneEvent{read.token});
      if (answer.length < read.segment.length) return finish(read);  // the end of the file
      return move_on(read, answer.length);
    }
    case ReadResult::Kind::resident:
      if (!answer.residency) {
        report("Contract", name_of(read.handle) + ": a resident answer without a residency");
        return finish(read);
      }
      file.residency = answer.residency;
      return plan(read);
    case ReadResult::Kind::error:
      return finish(read);
  }
}

void Readers::check_truth(const ActiveRead& read, std::span<const std::byte> bytes,
                          const char* from) {
  const OpenFile& file = files_.at(read.handle);
  trace_.add(bytes);
  const auto lie = find_lie(nfs_, file.inode, file.first_revision,
                            nfs_.current_revision(file.inode), read.segment.offset, bytes);
  if (!lie) return check_own_writes(read, bytes);
  const char* name = name_of_lie("S1 ReadTruth", nfs_, file.inode, file.first_revision,
                                 read.segment.offset, bytes);
  report(name, name_of(read.handle) + ", from " + from + ": " + *lie);
}

// What was written through the mount before the read began.
void Readers::check_own_writes(const ActiveRead& read, std::span<const std::byte> bytes) {
  const OpenFile& file = files_.at(read.handle);
  const std::vector<OwnWrite>& writes = own_writes_[file.inode];
  const std::uint64_t begin = read.segment.offset;
  for (std::size_t index = 0; index < read.own_writes; ++index) {
    const auto& [range, revision] = writes[index];
    const std::uint64_t first = std::max(begin, range.offset);
    const std::uint64_t end = std::min(begin + bytes.size(), range.end());
    if (first >= end) continue;
    const auto lie = find_lie(nfs_, file.inode, revision, nfs_.current_revision(file.inode), first,
                              bytes.subspan(first - begin, end - first));
    if (lie) {
      report("S14 Fresh", name_of(read.handle) + " does not see what we wrote before: " + *lie);
    }
  }
}

// A short answer says that the file ends there; some revision since the open must have.
void Readers::check_short(const ActiveRead& read) {
  const OpenFile& file = files_.at(read.handle);
  const std::uint64_t end = read.segment.offset + read.answer.length;
  const std::vector<SourceRevision>& history = nfs_.history(file.inode);
  const bool is_true =
      std::any_of(history.begin() + static_cast<std::ptrdiff_t>(file.first_revision), history.end(),
                  [end](const SourceRevision& revision) { return revision.version.size <= end; });
  if (!is_true) {
    report("S1 ReadTruth", name_of(read.handle) + ": told that the file ends at " +
                               std::to_string(end) + ", where it never did");
  }
}

// The errno of a source operation that failed since the read began; or EIO because reads of the
// file kept coming back short, perhaps those of a fetch that this read joined later.
void Readers::check_error(const ActiveRead& read) {
  const std::vector<SourceFailure>& failures = life_->io().source_failures();
  const OpenFile& file = file_of(read);
  const auto has = [&](std::size_t first, int error) {
    return std::any_of(failures.begin() + static_cast<std::ptrdiff_t>(first), failures.end(),
                       [&](const SourceFailure& failure) {
                         return failure.inode == file.inode && failure.error == error;
                       });
  };
  const bool has_cause = has(read.failures_before, read.answer.error) ||
                         (read.answer.error == EIO && has(file.failures_before, 0));
  if (!has_cause) {
    report("S8 Degrade", name_of(read.handle) + ": errno " + std::to_string(read.answer.error) +
                             " without a failure of the source");
  }
}

std::vector<std::string> Readers::take_finished() {
  return std::exchange(finished_, {});
}

std::vector<std::string> Readers::take_started() {
  return std::exchange(started_, {});
}

void Readers::on_open(HandleId handle, const OpenResult& result) {
  trace_.add(static_cast<std::uint64_t>(handle));
  trace_.add(static_cast<std::uint64_t>(result.reason) << 8 | (result.is_complete ? 1 : 0));
  if (closing_.contains(handle)) return;  // its close is in the mailbox
  const auto entry = files_.find(handle);
  if (entry == files_.end() || entry->second.is_answered) {
    return report("Contract", name_of(handle) + ": on_open after the close or twice");
  }
  OpenFile& file = entry->second;
  file.is_answered = true;
  file.result = result;
  file.residency = result.residency;
  if (!result.is_complete || life_->config().checksum == Checksum::read) return;
  bool is_whole = result.residency != nullptr;
  for (std::uint64_t block = 0; is_whole && block < result.residency->block_count(); ++block) {
    is_whole = result.residency->is_resident(block);
  }
  if (!is_whole) report("S10 Transitions", name_of(handle) + ": complete with blocks missing");
}

void Readers::on_read(ReadToken token, const ReadResult& result) {
  const auto read = std::find_if(reads_.begin(), reads_.end(), [token](const ActiveRead& one) {
    return one.token == token && one.phase == ActiveRead::Phase::waiting;
  });
  if (read == reads_.end()) return report("Contract", "an answer to a read nobody waits for");
  trace_.add(static_cast<std::uint64_t>(token));
  trace_.add(static_cast<std::uint64_t>(result.kind));
  OpenFile& file = file_of(*read);
  if (!file.residency) file.residency = result.residency;
  read->phase = ActiveRead::Phase::answered;
  read->answer = result;
  if (result.kind == ReadResult::Kind::error) return check_error(*read);
  if (result.kind != ReadResult::Kind::bytes) return;
  const std::span<const std::byte> buffer = life_->io().buffer(result.buffer);
  if (result.length > read->segment.length || result.buffer_offset > buffer.size() ||
      result.length > buffer.size() - result.buffer_offset) {
    read->answer = {};
    read->answer.kind = ReadResult::Kind::error;
    return report("Contract", name_of(read->handle) + ": more bytes than asked for");
  }
  if (life_->io().is_tainted(result.buffer)) {
    report("S13 Rot", name_of(read->handle) + ": rotten or misdirected bytes were returned");
  }
  life_->io().lend(result.buffer);
  const std::span<const std::byte> bytes = buffer.subspan(result.buffer_offset, result.length);
  read->answered_bytes.assign(bytes.begin(), bytes.end());
  check_truth(*read, bytes, "the source");
  if (result.length < read->segment.length) check_short(*read);
}

void Readers::on_warm(WarmToken token, const WarmResult& result) {
  trace_.add(static_cast<std::uint64_t>(token));
  trace_.add(static_cast<std::uint64_t>(result.kind));
  last_warm_ = result;
  const auto entry = warms_.find(token);
  if (entry == warms_.end()) return report("Contract", "an answer to a warm-up nobody waits for");
  const Warm warm = entry->second;
  warms_.erase(entry);
  const bool is_done =
      result.kind == WarmResult::Kind::copied || result.kind == WarmResult::Kind::already_cached;
  if (warm.pin && is_done) pinned_.push_back(warm.file);
}

void Readers::on_control(ControlToken token, const ControlResult& result) {
  trace_.add(static_cast<std::uint64_t>(token));
  trace_.add(result.done.files);
  trace_.add(result.in_use.files);
  trace_.add(result.pinned.files);
  trace_.add(result.failed.files);
  if (controls_.erase(token) == 0) report("Contract", "an answer to a command nobody gave");
  last_control_ = result;
}

void Readers::on_notice(const Notice& notice) {
  trace_.add(static_cast<std::uint64_t>(notice.kind));
  trace_.add(notice.path);
  trace_.add(notice.detail);
  if (notice.kind == Notice::Kind::copy_finished) finished_.push_back(notice.path);
  if (notice.kind == Notice::Kind::copy_started || notice.kind == Notice::Kind::copy_resumed) {
    started_.push_back(notice.path);
  }
}

void Readers::on_verify(VerifyToken token, const VerifyResult& result) {
  trace_.add(static_cast<std::uint64_t>(token));
  trace_.add(result.bytes_verified);
  trace_.add(result.damaged.files);
  const auto entry = verifies_.find(token);
  if (entry == verifies_.end()) return report("Contract", "an answer to no verification");
  last_verify_ = result;
  const auto sum = result.intact.files + result.damaged.files + result.skipped.files;
  if (sum != result.found.files) report("Contract", "the totals of a verification do not add up");
  if (!result.is_cancelled && result.skipped.files == 0) found_rotten_.merge(entry->second);
  verifies_.erase(entry);
}

bool Readers::own_write(const std::string& path, std::uint64_t offset, std::uint64_t length,
                        Nanos now) {
  return begin_own_write({.path = path, .offset = offset, .length = length}, now);
}

bool Readers::own_append(const std::string& path, std::uint64_t length, std::uint64_t size_max,
                         Nanos now) {
  return begin_own_write({.path = path, .length = length, .size_max = size_max}, now);
}

bool Readers::begin_own_write(PendingWrite write, Nanos now) {
  if (is_stopping_ || writes_.size() + writes_to_repeat_.size() >= kWarmsMax) return false;
  SourceState state;
  const std::optional<FileHandle> source = open_source(write.path, now, state);
  if (!source) return false;
  write.inode = nfs_.inode_of(*source);
  nfs_.close(*source);
  // Pins belong to what is there to be pinned.
  std::erase_if(pinned_, [&](const Pinned& file) { return file.inode == write.inode; });
  for (auto& [token, warm] : warms_) warm.pin = warm.pin && warm.file.inode != write.inode;
  writes_to_repeat_.push_back(std::move(write));
  disown_again();
  return true;
}

// All that has, or is on its way to, a name: its serials are never used again.
void Readers::note_disowned(const FileId& file) {
  const std::string own = object_stem(file, {}, 0);
  const std::string prefix = own.substr(0, own.size() - 2 * 17);  // the version digest, the serial
  const auto note = [&](const std::string& name) {
    if (name.starts_with(prefix)) disowned_.insert(name.substr(0, name.rfind('.')));
  };
  for (const auto& [name, inode] : disk_.names_cached()) note(name);
  for (const auto& pending : life_->io().pending()) note(pending.request.name);
}

void Readers::disown_again() {
  for (PendingWrite& write : std::exchange(writes_to_repeat_, {})) {
    const DisownToken token{next_id_++};
    write.disowned_at = static_cast<std::uint64_t>(token);
    const FileId file = nfs_.file_id(write.inode);
    writes_.emplace(token, std::move(write));
    send(DisownEvent{token, file});
  }
}

void Readers::on_disowned(DisownToken token, int error) {
  trace_.add(static_cast<std::uint64_t>(token));
  trace_.add(static_cast<std::uint64_t>(error));
  const auto entry = writes_.find(token);
  if (entry == writes_.end()) return report("Contract", "leave to write that nobody asked for");
  PendingWrite write = std::move(entry->second);
  writes_.erase(entry);
  // Who has opened the file since may have been given bytes of it.
  const bool is_reopened = std::any_of(files_.begin(), files_.end(), [&](const auto& one) {
    return one.second.inode == write.inode &&
           static_cast<std::uint64_t>(one.first) > write.disowned_at;
  });
  if (!is_reopened) return write_ourselves(write, error == 0);
  // A cache that stops is not asked again; the write is not made.
  if (!is_stopping_) writes_to_repeat_.push_back(std::move(write));
}

void Readers::write_ourselves(const PendingWrite& write, bool may_change_cache_files) {
  if (!nfs_.exists(write.path) || nfs_.inode_at(write.path) != write.inode) return;
  const std::uint64_t size = nfs_.history(write.inode).back().version.size;
  const std::uint64_t offset = write.size_max > 0 ? size : write.offset % (size + 1);
  const std::uint64_t end_max = std::max(size, write.size_max);
  const ByteRange range = {offset, std::min(1 + write.length, end_max - offset)};
  if (range.empty()) return;
  nfs_.write(write.path, range, life_->io().now());
  own_writes_[write.inode].push_back({range, nfs_.current_revision(write.inode)});
  // What a disk that lies has said of the sidecar's directory is not true yet.
  const bool is_lied_about = disk_.is_lied_about(object_stem(nfs_.file_id(write.inode), {}, 0));
  const bool may_mirror = may_change_cache_files && !is_lied_about;
  if (!may_mirror || life_->config().checksum == Checksum::read) return;
  for (auto& [handle, file] : files_) {
    if (file.inode != write.inode || !file.result.is_complete || !file.residency) continue;
    const std::optional<InodeId> inode = disk_.inode_of(file.residency->cache_file());
    if (!inode) {
      report("S5 Pins", name_of(handle) + ": the cache file was closed under a reader");
      continue;
    }
    if (write.size_max > 0) growths_to_ask_.push_back({handle, range.end(), {}});
    const std::uint64_t end = std::min(range.end(), file.version.size);
    if (end <= range.offset) continue;
    file.is_passed_through =
        write_cache_file(*inode, write.inode, {range.offset, end - range.offset});
  }
}

// Brings it to what the source holds; false if the disk is full.
bool Readers::write_cache_file(InodeId inode, SourceInode source, ByteRange range) {
  std::vector<std::byte> bytes(range.length);
  nfs_.content(source, nfs_.current_revision(source), range.offset, bytes);
  if (disk_.write(inode, range.offset, bytes) < 0) return false;
  // Kernels that read the same file for a daemon that died see the write, too.
  for (Hold& hold : holds_) {
    if (hold.inode != inode) continue;
    hold.content.resize(std::max<std::size_t>(hold.content.size(), range.end()));
    std::ranges::copy(bytes, hold.content.begin() + static_cast<std::ptrdiff_t>(range.offset));
  }
  return true;
}

// Who has closed the file meanwhile has no use for it.
void Readers::ask_for_growths() {
  for (const Growth& growth : std::exchange(growths_to_ask_, {})) {
    if (!files_.contains(growth.handle)) continue;
    const GrowToken token{next_id_++};
    growths_.emplace(token, growth);
    send(GrowEvent{token, growth.handle, growth.size});
  }
}

void Readers::on_grown(GrowToken token, int error) {
  trace_.add(static_cast<std::uint64_t>(token));
  trace_.add(static_cast<std::uint64_t>(error));
  const auto entry = growths_.find(token);
  if (entry == growths_.end()) return report("Contract", "leave to grow that nobody asked for");
  const Growth growth = entry->second;
  growths_.erase(entry);
  const auto file = files_.find(growth.handle);
  if (error != 0 || file == files_.end()) return;
  const std::optional<InodeId> inode = disk_.inode_of(file->second.residency->cache_file());
  if (!inode) return report("S5 Pins", "a cache file was closed under a reader, and may grow");
  const std::uint64_t size = disk_.view(*inode).cached.size();
  const SourceInode source = file->second.inode;
  const std::uint64_t end = std::min(growth.size, nfs_.history(source).back().version.size);
  if (end > size) write_cache_file(*inode, source, {size, end - size});
}

void Readers::check_growths() {
  for (const auto& [token, growth] : growths_) {
    if (!growth.asked_at) continue;
    if (life_->io().now() - *growth.asked_at < life_->config().cache_deadline) continue;
    report("S8 Degrade", name_of(growth.handle) + ": a write waits too long for the cache");
  }
}

bool Readers::own_change(const std::string& path, const std::string& to, std::uint64_t interference,
                         Nanos now) {
  if (is_stopping_) return false;
  SourceState before;
  const std::optional<FileHandle> source = open_source(path, now, before);
  if (!source) return false;
  if (interference % 4 == 1) nfs_.write(path, {0, before.version.size / 2}, now);
  const bool is_changed =
      to.empty() ? nfs_.change_mode_ourselves(path, now) : nfs_.rename_ourselves(path, to, now);
  const std::string& name = to.empty() ? path : to;
  if (is_changed && interference % 4 == 2) nfs_.write(name, {0, before.version.size / 2}, now);
  SourceState after;
  const bool is_seen = nfs_.stat(*source, after, now) == 0;
  nfs_.close(*source);
  if (!is_changed || !is_seen) return false;
  tell_late_rekeys();
  if (interference % 4 == 3) {
    late_rekeys_.push_back({before, after, to});
  } else {
    send(RekeyEvent{before, after, to});
  }
  return true;
}

void Readers::tell_late_rekeys() {
  for (RekeyEvent& event : std::exchange(late_rekeys_, {})) send(std::move(event));
}

void Readers::on_stopped() {
  if (is_stopped_) report("Contract", "on_stopped twice");
  is_stopped_ = true;
}

}  // namespace ncfs
