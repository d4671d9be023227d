// Opening and closing files: the source is asked as the caller, the engine says what is cached, and
// the inode table decides how the kernel may read.
//
// A node stands for one version. If the source has another one now, or the file should be read in
// another way than it is open already, the answer is ESTALE, which makes the kernel look the name
// up again, find a new node and open that, unseen by the application. The kernel does so once, so a
// thread that was just told is served on the node it insists on. engine/open_rules.h has the rule.
#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include "fuse_adapter/event_log.h"
#include "fuse_adapter/fuse_ops.h"
#include "io/monotonic_clock.h"
#include "io/source_identity.h"

namespace ncfs {
namespace {

// Both kinds of passthrough: below this, opening again and reading from the page cache is faster
// than registering a file with the kernel and reading it there (155 against 58 to 87 thousand opens
// and reads a second).
constexpr std::uint64_t kPassthroughMin = kMiB;

// In the flags of an open by execve(2), __FMODE_EXEC of the kernel's include/linux/fs.h.
constexpr int kOpenToExecute = 0x20;

// Whether the file is not to be found where it was, as far as the source can tell.
bool is_gone(int error) {
  return error == ESTALE || error == ENOENT;
}

// Answers that are the source's business, not trouble of ours.
bool is_trouble(int error) {
  return error != EACCES && error != EPERM && !is_gone(error);
}

bool writes_or_truncates(const fuse_file_info& info) {
  return (info.flags & O_ACCMODE) != O_RDONLY || (info.flags & O_TRUNC) != 0;
}

bool may_pass_through(const FuseCore& core, const SourceState& state) {
  return state.version.size >= kPassthroughMin && core.channel->passthrough_active();
}

bool passes_source_through(const FuseCore& core, const SourceState& state) {
  return !core.settings.must_see_reads &&
         core.passes_source_through.load(std::memory_order_relaxed) &&
         may_pass_through(core, state);
}

class Opening {
 public:
  Opening(FuseCore& core, KernelRequestPointer request, NodeId node, const fuse_file_info& info)
      : core_(core), request_(std::move(request)), node_(node), info_(info) {}

  // On a metadata thread.
  void run() {
    const auto location = core_.nodes.locate(node_);
    if (location) end_left_mappings(core_, location->file);
    if (location && try_unasked(*location, Belief::fresh)) return;
    const std::string path = location ? location->path : std::string();
    FoundFile found;
    int error = ESTALE;
    Descriptor source;
    KnownMetadata::Ticket ticket;
    if (location) {
      look_for_changes(location->file);
      ticket = core_.known_metadata.begin(location->file);
      // What the file is like is asked by opening it.
      found = core_.tree.find(*location, request_->caller(), AT_STATX_DONT_SYNC);
      error = found.error;
    }
    if (error == 0) source = reopen(found.file.get(), error);
    SourceLook look = look_at(source, error);
    // An NFS client finds a file that was replaced on the server among its cached names; that it is
    // gone it says when it is opened, or, while the client has it open already, not before it is
    // asked for its attributes.
    OpenSituation situation;
    if (is_gone(look.error)) {
      core_.nodes.retire(node_);
      situation.name = found.file.is_open() ? NameLeads::to_another : NameLeads::nowhere;
      const auto holder = core_.files.any_of(node_);
      situation.is_held = holder != nullptr;
      const OpenVerdict verdict = judge(situation);
      if (verdict == OpenVerdict::look_up_again) return;
      source = open_substitute(verdict, holder, path, found.attributes, error);
      look = look_at(source, error);
    }
    if (look.error != 0) {
      fail(look.error);
      return;
    }
    FileFacts facts = FileFacts::of(found.attributes);
    if (situation.name == NameLeads::to_the_file) {
      learn(ticket, found, facts.version == look.state.version, source);
    }
    facts.version = look.state.version;
    auto standing = core_.nodes.observe(node_, facts);
    if (standing == InodeTable::Standing::current && has_lost_a_name()) {
      core_.nodes.retire(node_);
      standing = InodeTable::Standing::retired;
    }
    if (situation.name == NameLeads::to_the_file) {
      situation.content = content_of(standing, look.state);
      if (judge(situation) == OpenVerdict::look_up_again) return;
      // The same content, but to be read in another way, or found by other names.
      if (standing == InodeTable::Standing::retired && try_look_up_again()) return;
    }
    // The kernel has the size of what it knew.
    if (standing == InodeTable::Standing::other) core_.channel->forget_attributes(node_);
    // What was found instead may be another file, that was looked at before its changes were.
    if (shared_ != core_.shared_files.of(facts.file)) look_for_changes(facts.file, true);
    if (writes_or_truncates(info_)) {
      answer_write_open(core_, request_, node_, info_,
                        {std::move(source), look.state, standing, shared_, changes_seen_});
      return;
    }
    const MetadataConfig& config = core_.settings.metadata;
    if (!config.is_close_to_open || config.stale_if_error > 0) {
      core_.kept_sources.keep(facts.file, source.get(), look.state);
    }
    ask_engine(std::move(source), look.state, standing, path);
  }

  // While the backend does not answer: true if the engine will. Waits for nothing.
  bool run_unasked() {
    const auto location = core_.nodes.locate(node_);
    return location &&
           (try_unasked(*location, Belief::fresh) || try_unasked(*location, Belief::unasked));
  }

 private:
  static SourceLook look_at(const Descriptor& source, int error) {
    if (error != 0) return {.error = error, .state = {}};
    return look_at_source(source.get(), Freshness::as_opened);
  }

  Descriptor reopen(int descriptor, int& error) {
    const int flags =
        writes_or_truncates(info_) ? source_flags(info_.flags) : info_.flags & O_NOATIME;
    Descriptor opened = core_.tree.reopen(descriptor, flags | O_NOCTTY, request_->caller(), error);
    if (error != EACCES || (info_.flags & kOpenToExecute) == 0) return opened;
    // Who may run a program need not be allowed to read it.
    is_read_by_caller_ = false;
    return core_.tree.reopen_to_execute(descriptor, request_->caller(), error);
  }

  void look_for_changes(const FileKey& file, bool is_late = false) {
    file_ = file;
    shared_ = core_.shared_files.of(file);
    changes_seen_ = is_late ? std::nullopt : std::optional(shared_->changes());
  }

  // If somebody like the caller had it open a while ago: with nocto, or when the backend does not
  // answer.
  bool try_unasked(const InodeTable::Location& location, Belief belief) {
    const MetadataConfig& config = core_.settings.metadata;
    if (config.is_close_to_open && belief == Belief::fresh) return false;
    if (writes_or_truncates(info_)) return false;
    look_for_changes(location.file);
    const auto known = core_.known_metadata.open_unasked(location.file, request_->caller(), belief);
    if (!known) return false;
    const FileFacts facts = FileFacts::of(*known);
    auto kept = core_.kept_sources.find(location.file, facts.version);
    if (!kept) return false;
    const auto standing = core_.nodes.observe(node_, facts);
    if (standing != InodeTable::Standing::current) return false;
    ask_engine(std::move(kept->source), kept->state, standing, location.path);
    return true;
  }

  // `attributes` may be older than the open, but if they are of the same version they are right.
  void learn(const KnownMetadata::Ticket& ticket, const FoundFile& found, bool is_same_version,
             const Descriptor& source) {
    struct stat attributes = found.attributes;
    const int flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
    if (!is_same_version && stat_at(source.get(), "", flags, attributes) != 0) return;
    const Caller& caller = request_->caller();
    if (writes_or_truncates(info_) || !is_read_by_caller_) {
      core_.known_metadata.learn(ticket, attributes, caller, found.as_caller);
    } else {
      core_.known_metadata.opened(ticket, attributes, caller, found.as_caller);
    }
  }

  // The kernel does not say by which of its names it opens a file, so all have to lead to it.
  [[nodiscard]] bool has_lost_a_name() const {
    return std::ranges::any_of(core_.nodes.other_names(node_), [this](const auto& other) {
      return is_gone(core_.tree.find(other, request_->caller(), AT_STATX_DONT_SYNC).error);
    });
  }

  [[nodiscard]] Sameness content_of(InodeTable::Standing standing, const SourceState& state) const {
    if (standing == InodeTable::Standing::other) return Sameness::changed;
    const auto racy_window = static_cast<std::int64_t>(core_.settings.racy_window);
    return state.age_ns >= racy_window ? Sameness::same : Sameness::unproven;
  }

  // Answers the request if the verdict is look_up_again.
  OpenVerdict judge(OpenSituation& situation) {
    situation.policy = core_.settings.stale_open;
    OpenVerdict verdict = decide_open(situation);
    if (verdict == OpenVerdict::look_up_again && !try_look_up_again()) {
      situation.was_just_told = true;
      situation.is_same_node = core_.stale.insists(request_->caller().thread, node_);
      verdict = decide_open(situation);
    }
    core_.known_metadata.count(verdict);
    return verdict;
  }

  // The node's file is gone from its place, but the kernel will not look up again.
  Descriptor open_substitute(OpenVerdict verdict, const std::shared_ptr<OpenFile>& holder,
                             const std::string& path, struct stat& attributes, int& error) {
    // Opened by descriptor (/proc/self/fd), perhaps: whoever holds one holds the file.
    if (verdict == OpenVerdict::serve_held) {
      error = stat_at(holder->source, "", AT_EMPTY_PATH, attributes);
      if (error != 0) return {};
      return reopen(holder->source, error);
    }
    error = ENOENT;
    if (verdict != OpenVerdict::serve_named || path.empty()) return {};
    // It was looked up again and replaced again since: what has the name now is what was asked for.
    FoundFile found = core_.tree.find_whatever_is_at(path, request_->caller());
    if (found.error != 0 || !S_ISREG(found.attributes.st_mode)) return {};
    attributes = found.attributes;
    return reopen(found.file.get(), error);
  }

  bool try_look_up_again() {
    if (!core_.may_tell_stale(request_->caller().thread, node_)) return false;
    if (shared_ && writes_or_truncates(info_)) {
      shared_->expect_writer(monotonic_now() + kWriterPatience);
      core_.nodes.make_way(file_);
    }
    core_.stats->stale_answers.add();
    request_->error(ESTALE);
    return true;
  }

  void fail(int error) {
    core_.stale.clear(request_->caller().thread);
    // The kernel would pass a second ESTALE on to the application.
    const bool is_told = request_->error(error == ESTALE ? ENOENT : error);
    if (is_told && is_trouble(error)) core_.stats->errors.add();
  }

  void ask_engine(Descriptor source, const SourceState& state, InodeTable::Standing standing,
                  const std::string& path);

  FuseCore& core_;
  const KernelRequestPointer request_;
  const NodeId node_;
  const fuse_file_info info_;
  FileKey file_;
  bool is_read_by_caller_ = true;  // the source let the caller open it
  SharedFilePointer shared_;
  std::optional<std::uint64_t> changes_seen_;  // before the source was looked at
};

// What is left to do once the engine has spoken. On the control thread: must not block.
struct OpenAnswering {
  std::shared_ptr<FuseCore> core;
  KernelRequestPointer request;
  std::shared_ptr<OpenFile> file;
  SourceState state;
  InodeTable::Standing standing{};
  std::string path;
  fuse_file_info info{};
  std::optional<std::uint64_t> changes_seen;

  void operator()(const OpenResult& result) {
    file->adopt(result.residency);
    InodeTable::OpenAnswer answer;
    const SharedFile::Look look{changes_seen, state.version};
    const bool joined = file->shared->join_reader(*file, look, [&](const auto& advice) {
      answer = decide(result, advice);
      file->mode = answer.mode;
      if (answer.owner != file) file->passed = std::static_pointer_cast<OpenFile>(answer.owner);
      return !answer.retry;
    });
    if (answer.was_refused) note_refusal(result);
    const pid_t thread = request->caller().thread;
    if (!joined) {
      core->stats->stale_answers.add();
      request->error(ESTALE);
      return;
    }
    info.fh = number_of(*file);
    info.direct_io = answer.mode == OpenMode::direct ? 1 : 0;
    info.keep_cache = answer.mode == OpenMode::page_cache && answer.keep_cache ? 1 : 0;
    core->stale.clear(thread);
    core->files.add(file);
    count(result, answer.mode);
    const bool taken = answer.backing_id >= 0 ? request->opened_passthrough(info, answer.backing_id)
                                              : request->opened(info);
    if (!taken) {
      core->files.remove(*file);
      core->nodes.release(file->node, answer.mode);
    }
  }

 private:
  [[nodiscard]] bool passes_cache_file(const OpenResult& result) const {
    return result.is_complete && result.residency && may_pass_through(*core, state);
  }

  [[nodiscard]] InodeTable::OpenAnswer decide(const OpenResult& result,
                                              const SharedFile::Advice& advice) const {
    const auto may_retry = [this] {
      return core->may_tell_stale(request->caller().thread, file->node);
    };
    OpenMode wanted = OpenMode::page_cache;
    int backing = -1;
    if (!advice.may_pass) {
      // Somebody writes: through the page cache of this node, if not past it.
    } else if (advice.is_written_unseen) {
      wanted = OpenMode::source_passthrough;
      backing = file->source;
    } else if (passes_cache_file(result)) {
      wanted = OpenMode::passthrough;
      backing = static_cast<int>(result.residency->cache_file());
    } else if (!result.is_complete && passes_source_through(*core, state)) {
      wanted = OpenMode::source_passthrough;
      backing = file->source;
    }
    const bool is_settled = state.age_ns >= static_cast<std::int64_t>(core->settings.racy_window);
    return core->nodes.open(file->node, {.standing = standing,
                                         .wanted = wanted,
                                         .backing = backing,
                                         .is_settled = is_settled,
                                         .may_retry = may_retry,
                                         .is_written_unseen = advice.is_written_unseen,
                                         .is_foreign = advice.is_foreign,
                                         .version = state.version,
                                         .owner = file});
  }

  void count(const OpenResult& result, OpenMode mode) const {
    AdapterStats& stats = *core->stats;
    stats.opens.add();
    (result.is_complete ? stats.opens_hit : stats.opens_miss).add();
    (result.is_complete ? stats.open_hit_time : stats.open_miss_time)
        .add(monotonic_now() - request->asked_at());
    if (mode == OpenMode::source_passthrough) stats.opens_from_source.add();
    if (mode == OpenMode::passthrough) {
      stats.opens_passthrough.add();
      stats.passthrough_bytes.add(state.version.size);
    }
    core->hot_files.opened(path, state.version.size, monotonic_now());
    const auto level = is_access_logged() ? spdlog::level::info : spdlog::level::debug;
    if (spdlog::should_log(level)) log(level, result, mode);
  }

  void log(spdlog::level::level_enum level, const OpenResult& result, OpenMode mode) const {
    const char* const kind = result.is_complete ? "CACHE_HIT" : "CACHE_MISS";
    const char* const reason = to_string(result.reason);
    const std::uint64_t size = state.version.size;
    const Caller& caller = request->caller();
    log_event(level, kind,
              fmt::format("{} {} {}, size={} mode={} uid={} pid={}", kind, path, reason, size,
                          name_of(mode), caller.user, caller.thread),
              {{"PATH", path},
               {"REASON", reason},
               {"BYTES", std::to_string(size)},
               {"MODE", name_of(mode)},
               {"CALLER_UID", std::to_string(caller.user)},
               {"CALLER_PID", std::to_string(caller.thread)}});
  }

  static const char* name_of(OpenMode mode) {
    switch (mode) {
      case OpenMode::page_cache:
        return "page_cache";
      case OpenMode::passthrough:
        return "passthrough";
      case OpenMode::source_passthrough:
        return "source_passthrough";
      case OpenMode::direct:
        return "direct";
    }
    return "unknown";
  }

  void note_refusal(const OpenResult& result) const {
    if (!passes_cache_file(result)) {
      note_refused_source(*core);
      return;
    }
    core->stats->passthrough_refused.add();
    if (core->has_logged_refusal.exchange(true)) return;
    spdlog::warn(
        "the kernel does not pass files of this cache directory through; they are read through "
        "the daemon");
  }
};

void Opening::ask_engine(Descriptor source, const SourceState& state, InodeTable::Standing standing,
                         const std::string& path) {
  const HandleId handle = core_.next_handle();
  auto file = std::make_shared<OpenFile>(
      core_.engine,
      OpenFile::Opened{handle, node_, source.get(), state.version.size, shared_, state.file});
  OpenAnswering answering{
      core_.shared_from_this(), request_, file, state, standing, path, info_, changes_seen_};
  OpenEvent event{handle, FileHandle{source.get()}, state, path,
                  passes_source_through(core_, state)};
  if (core_.engine->open(std::move(event), std::move(answering))) {
    static_cast<void>(source.release());  // the engine's now
  }
}

void open(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info) {
  if (FuseCore::of(raw).refuse_open(raw)) return;
  FuseCore::of(raw).post(
      raw,
      [node, info = *info](FuseCore& core, const KernelRequestPointer& request) {
        Opening(core, request, node, info).run();
      },
      [node, info = *info](FuseCore& core, const KernelRequestPointer& request) {
        return Opening(core, request, node, info).run_unasked();
      },
      {.is_repeatable = !writes_or_truncates(*info)});
}

void release(fuse_req_t raw, fuse_ino_t node, fuse_file_info* info) {
  FuseCore& core = FuseCore::of(raw);
  release_locks_with_handle(core, node, *info);
  const auto file = core.files.remove(handle_of<OpenFile>(info->fh));
  if (file && !core.files.any_of(file->node)) core.known_metadata.closed(file->shared->key);
  if (file) core.nodes.release(file->node, file->mode);
  fuse_reply_err(raw, 0);
  if (file && file->is_written()) finish_writing(core, file);
}

}  // namespace

void note_refused_source(FuseCore& core) {
  core.stats->passthrough_refused.add();
  if (!core.passes_source_through.exchange(false)) return;
  spdlog::info(
      "the kernel does not pass files of the backend through; they are written through the daemon, "
      "and read through it until they are cached");
}

int source_flags(int flags) {
  return flags & (O_ACCMODE | O_APPEND | O_DIRECT | O_DSYNC | O_SYNC | O_NOATIME);
}

void add_open_operations(fuse_lowlevel_ops& table) {
  table.open = open;
  table.release = release;
}

}  // namespace ncfs
