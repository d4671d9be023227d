// Opening files for writing, and making them.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include "fuse_adapter/fuse_ops.h"
#include "io/monotonic_clock.h"
#include "io/source_identity.h"

namespace ncfs {
namespace {

class WriteOpening {
 public:
  WriteOpening(FuseCore& core, KernelRequestPointer request, NodeId node,
               const fuse_file_info& info, OpenedForWriting opened)
      : core_(core.shared_from_this()), request_(std::move(request)), node_(node), info_(info) {
    state_ = opened.state;
    look_ = {opened.changes_seen, state_.version};
    standing_ = opened.standing;
    // O_APPEND is said with each write, as the kernel does, because pages that it writes back have
    // a place of their own. (Of a file that may only be appended to, the flag cannot be taken.)
    const int status = ::fcntl(opened.source.get(), F_GETFL);
    if ((status & O_APPEND) != 0) ::fcntl(opened.source.get(), F_SETFL, status & ~O_APPEND);
    auto session = std::make_unique<WriteSession>(core_->nodes, core_, node_, opened.shared);
    file_ = std::make_shared<OpenFile>(
        OpenFile::Written{node_, std::move(opened.source), info_.flags, request_->caller(),
                          std::move(opened.shared), std::move(session), state_.file,
                          is_settled() ? std::optional(state_.version) : std::nullopt});
  }

  // The file was made for this open: the answer tells its name as well.
  void answer_created(const fuse_entry_param& entry) { entry_ = entry; }

  void run() {
    InodeTable::OpenAnswer answer;
    const bool joined =
        file_->shared->join_writer(*file_, look_, [&](const SharedFile::Advice& advice) {
          answer = decide(advice);
          file_->mode = answer.mode;
          return !answer.retry && !answer.is_impossible;
        });
    if (answer.was_refused) note_refused_source(*core_);
    if (!joined) {
      if (answer.retry) {
        core_->stats->stale_answers.add();
        file_->shared->expect_writer(monotonic_now() + kWriterPatience);
      }
      finish_writing(*core_, file_);
      request_->error(answer.retry ? ESTALE : EBUSY);
      return;
    }
    core_->stats->opens_for_writing.add();
    core_->stale.clear(request_->caller().thread);
    core_->files.add(file_);
    if (answer.mode == OpenMode::source_passthrough) expect_unseen_writes();
    if ((info_.flags & O_TRUNC) == 0) {
      reply(answer);
      return;
    }
    if (const int error = truncate(); error != 0) {
      undo();
      request_->error(error);
      return;
    }
    announce_change(*core_, file_->shared,
                    {.node = file_->cached_node(), .range = {0, kToTheEnd}, .may_shorten = true},
                    [self = *this, answer] { self.reply(answer); });
  }

 private:
  [[nodiscard]] bool is_settled() const {
    return state_.age_ns >= static_cast<std::int64_t>(core_->settings.racy_window);
  }

  // Whether the kernel may write to the source's file without the daemon, as far as the open itself
  // says. Not who appends: the kernel goes on appending when fcntl(2) has taken the flag back. Who
  // may map it only where it can be found out when the last mapping is gone.
  [[nodiscard]] bool may_write_unseen() const {
    if (!core_->passes_source_through.load(std::memory_order_relaxed)) return false;
    if (!core_->channel->passthrough_active()) return false;
    if ((info_.flags & O_APPEND) != 0) return false;
    const int access = info_.flags & O_ACCMODE;
    return access == O_WRONLY || (access == O_RDWR && tells_of_mappings(file_->source));
  }

  [[nodiscard]] InodeTable::OpenAnswer decide(const SharedFile::Advice& advice) const {
    const auto may_retry = [this] {
      return core_->may_tell_stale(request_->caller().thread, node_);
    };
    InodeTable::OpenRequest open{.standing = standing_,
                                 .is_settled = is_settled(),
                                 .may_retry = may_retry,
                                 .writes = true,
                                 .is_root = request_->caller().user == 0,
                                 .is_written_unseen = advice.is_written_unseen,
                                 .is_foreign = advice.is_foreign};
    if (!advice.is_written_unseen && !(advice.may_pass && may_write_unseen())) {
      return core_->nodes.open(node_, open);
    }
    open.wanted = OpenMode::source_passthrough;
    open.backing = file_->source;
    // The kernel writes with the rights of who registers the file.
    const CallerCredentials credentials(request_->caller(), core_->groups,
                                        CallerCredentials::Role::registrar);
    if (credentials.error() != 0) open.wanted = OpenMode::page_cache;
    return core_->nodes.open(node_, open);
  }

  // The kernel itself keeps right what it knows of the node it writes to, and of no other, but for
  // what is stored through a mapping.
  void expect_unseen_writes() const {
    file_->keep_in_session(core_->known_metadata.expect_unseen_changes(file_->shared->key));
    const bool may_be_mapped = file_->may_be_mapped_unseen();
    for (const NodeId node : core_->nodes.all_of(file_->shared->key)) {
      if (node != node_ || may_be_mapped) core_->channel->forget_attributes(node);
    }
  }

  // As O_TRUNC does it, which could not be taken back if the kernel was told to look up again.
  [[nodiscard]] int truncate() const {
    if ((info_.flags & O_ACCMODE) == O_RDONLY) {
      int error = 0;
      const Descriptor writable =
          core_->tree.reopen(file_->source, O_WRONLY | O_TRUNC, request_->caller(), error);
      return error;
    }
    const CallerCredentials credentials(request_->caller(), core_->groups);
    if (credentials.error() != 0) return credentials.error();
    return ::ftruncate(file_->source, 0) == 0 ? 0 : errno;
  }

  void undo() const {
    core_->files.remove(*file_);
    core_->nodes.release(node_, file_->mode);
    finish_writing(*core_, file_);
  }

  void reply(const InodeTable::OpenAnswer& answer) const {
    fuse_file_info info = info_;
    info.fh = number_of(*file_);
    info.direct_io = answer.mode == OpenMode::direct ? 1 : 0;
    info.keep_cache = answer.mode == OpenMode::page_cache && answer.keep_cache ? 1 : 0;
    bool taken = false;
    if (entry_) {
      taken = request_->created(*entry_, info, answer.backing_id);
      if (!taken) core_->nodes.forget(node_, 1);
    } else if (answer.backing_id >= 0) {
      taken = request_->opened_passthrough(info, answer.backing_id);
    } else {
      taken = request_->opened(info);
    }
    if (!taken) undo();
  }

  const std::shared_ptr<FuseCore> core_;
  const KernelRequestPointer request_;
  const NodeId node_;
  const fuse_file_info info_;
  SourceState state_;
  SharedFile::Look look_;
  InodeTable::Standing standing_{};
  std::shared_ptr<OpenFile> file_;
  std::optional<fuse_entry_param> entry_;
};

// A file that somebody else made after the kernel found that there was none.
Descriptor open_made_by_others(FuseCore& core, const Caller& caller, const FoundFile& directory,
                               const std::string& name, int flags, int& error) {
  const Descriptor found(
      ::openat(directory.file.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat attributes {};
  error = found.is_open() && ::fstat(found.get(), &attributes) == 0 ? 0 : errno;
  // What else it may be is opened by the kernel, once it has looked it up.
  if (error == 0 && !S_ISREG(attributes.st_mode)) {
    error = S_ISDIR(attributes.st_mode) ? EISDIR : ENOENT;
  }
  if (error != 0) return {};
  Descriptor opened = core.tree.reopen(found.get(), source_flags(flags) | O_NOCTTY, caller, error);
  if (error == ESTALE) error = ENOENT;  // gone again, and nobody may be told ESTALE
  return opened;
}

void answer_create(FuseCore& core, const KernelRequestPointer& request, NodeId parent,
                   const std::string& name, mode_t mode, fuse_file_info info) {
  const FoundFile directory = core.find(parent, request->caller(), AT_STATX_DONT_SYNC);
  int error = directory.error;
  Descriptor made;
  if (error == 0) {
    const CallerCredentials credentials(request->caller(), core.groups);
    const CallerUmask umask(request->caller().umask);
    error = credentials.error();
    if (error == 0) {
      made = Descriptor(::openat(
          directory.file.get(), name.c_str(),
          source_flags(info.flags) | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, mode));
      error = made.is_open() ? 0 : errno;
      core.known_metadata.name_changed(key_of(directory.attributes), name);
    }
  }
  bool is_new = true;
  if (error == EEXIST && (info.flags & O_EXCL) == 0) {
    // To be looked up and opened, if the kernel may be told so.
    if (core.may_tell_stale(request->caller().thread, parent)) {
      core.stats->stale_answers.add();
      request->error(ESTALE);
      return;
    }
    is_new = false;
    made = open_made_by_others(core, request->caller(), directory, name, info.flags, error);
  }
  struct stat attributes {};
  if (error == 0 && ::fstat(made.get(), &attributes) != 0) error = errno;
  const SourceLook look = error == 0 ? look_at_source(made.get(), Freshness::as_opened)
                                     : SourceLook{.error = error, .state = {}};
  if (look.error != 0) {
    request->error(look.error);
    return;
  }
  const FileFacts facts = FileFacts::of(attributes);
  const NodeId node = core.nodes.look_up(parent, name, facts);
  if (is_new) info.flags &= ~O_TRUNC;
  WriteOpening opening(core, request, node, info,
                       {std::move(made), look.state, InodeTable::Standing::current,
                        core.shared_files.of(facts.file), std::nullopt});
  // Whether others may be shown the name as well, a look-up tells.
  const FoundChild child = find_child(core, directory, name.c_str(), request->caller());
  const bool is_child = child.error == 0 && key_of(child.attributes) == facts.file;
  opening.answer_created(entry_of(node, attributes, is_child ? child.left : KnownMetadata::Left{}));
  opening.run();
}

void create(fuse_req_t raw, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* info) {
  if (FuseCore::of(raw).refuse_open(raw)) return;
  FuseCore::of(raw).post(raw, [parent, name = std::string(name), mode, info = *info](
                                  FuseCore& core, const KernelRequestPointer& request) {
    answer_create(core, request, parent, name, mode, info);
  });
}

}  // namespace

void answer_write_open(FuseCore& core, const KernelRequestPointer& request, NodeId node,
                       fuse_file_info info, OpenedForWriting opened) {
  WriteOpening(core, request, node, info, std::move(opened)).run();
}

void add_create_operation(fuse_lowlevel_ops& table) {
  table.create = create;
}

}  // namespace ncfs
