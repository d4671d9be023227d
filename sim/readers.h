// The applications and the FUSE adapter, as far as the engine can tell.
//
// A reader opens a file as the adapter does: it opens and looks at the source itself, sends an
// OpenEvent and waits for the answer. A read is a loop of plan_read(); between planning and using a
// segment anything may happen, as begin_read() and advance() are separate steps. Resident segments
// are read from the disk directly. Every byte is compared with the source's history (ReadTruth),
// and every error must have a cause on the source (Degrade).
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/event.h"
#include "sim/life.h"
#include "sim/violation.h"

namespace ncfs {

struct OpenFile {
  std::string path;
  SourceInode inode{};
  SourceVersion version;
  std::size_t first_revision = 0;  // current when the file was opened
  bool is_answered = false;
  bool is_closing = false;  // closed by the application, a read is still out
  OpenResult result;
  std::shared_ptr<Residency> residency;  // the first one heard of
  std::uint32_t reads = 0;
  std::size_t failures_before = 0;  // of the source, when the file was opened
  bool is_passed_through = false;   // the kernel reads the cache file whatever the engine says
};

// A write of ours that was complete: reads that begin later see it.
struct OwnWrite {
  ByteRange range;
  std::size_t revision = 0;
};

struct ActiveRead {
  enum class Phase : std::uint8_t {
    planned,   // a resident segment, not yet read
    waiting,   // for the engine
    answered,  // by the engine, not yet used
    finished,
  };
  HandleId handle{};
  ByteRange rest;  // what is still to be read
  Phase phase = Phase::planned;
  ByteRange segment;
  std::shared_ptr<Residency> residency;  // planned: where the segment is
  ReadToken token{};                     // waiting, answered
  ReadResult answer;
  std::vector<std::byte> answered_bytes;  // must still be in the buffer when they are used
  std::uint32_t rounds = 0;               // since the read last moved on
  std::size_t failures_before = 0;        // of the source, when the read began
  std::size_t own_writes = 0;             // of the file, when the read began
};

class Readers final : public Host {
 public:
  Readers(SimDisk& disk, SimNfs& nfs, Trace& trace) : disk_(disk), nfs_(nfs), trace_(trace) {}

  void be_born(Life& life, std::size_t mailbox_max) {
    life_ = &life;
    mailbox_max_ = mailbox_max;
    limit_bytes_ = life.config().cache_size_bytes;
  }
  // All handles are gone. With `keeps_holds` the files that the kernel reads by itself stay open.
  void die(bool keeps_holds);
  void release_holds();
  [[nodiscard]] bool has_holds() const { return !holds_.empty(); }
  void check_holds();

  // False if there is nothing to do it with.
  bool open(const std::string& path, Nanos now, bool reads_source);
  bool warm(const std::string& path, Nanos now);
  bool pin(const std::string& path, Nanos now);
  bool unpin(const std::string& path);
  bool evict(const std::string& path, Nanos idle_min);
  void limit(std::uint64_t bytes);
  void stop();
  bool verify(const std::string& path);  // "": everything
  // As the adapter writes: the cache disowns the file; then the source is written, and with it the
  // cache files that kernels read by themselves, if the cache gives leave.
  bool own_write(const std::string& path, std::uint64_t offset, std::uint64_t length, Nanos now);
  // The same at the end of the file, which grows to `size_max` at most. Cache files grow with it as
  // far as the cache allows.
  bool own_append(const std::string& path, std::uint64_t length, std::uint64_t size_max, Nanos now);
  // Whoever waits for a cache file to grow is told in time.
  void check_growths();
  // `interference`: see StepOp::own_chmod. `to`: the new name, or empty.
  bool own_change(const std::string& path, const std::string& to, std::uint64_t interference,
                  Nanos now);
  bool close(std::uint64_t handle_index);
  bool begin_read(std::uint64_t handle_index, std::uint64_t offset, std::uint64_t length);
  bool advance(std::uint64_t read_index);
  void advance_all();
  void close_all();
  // The engine takes the oldest event out of the mailbox; false if there is none. An open event
  // says what the source was when the file was opened, however long it waited.
  bool deliver();
  void deliver_all();

  [[nodiscard]] const std::map<HandleId, OpenFile>& files() const { return files_; }
  [[nodiscard]] const std::vector<ActiveRead>& reads() const { return reads_; }
  [[nodiscard]] std::size_t warms_pending() const { return warms_.size(); }
  [[nodiscard]] bool has_mail() const { return !mailbox_.empty() || !late_rekeys_.empty(); }
  [[nodiscard]] std::size_t own_writes_pending() const { return writes_.size() + growths_.size(); }
  // Whether the object with this stem was there when its file was disowned, in any life.
  [[nodiscard]] bool is_disowned(const std::string& stem) const { return disowned_.contains(stem); }
  [[nodiscard]] std::size_t controls_pending() const { return controls_.size(); }
  // What the engine was told last: by its configuration, or since.
  [[nodiscard]] std::uint64_t limit_bytes() const { return limit_bytes_; }
  [[nodiscard]] const std::optional<ControlResult>& last_control() const { return last_control_; }
  // Files whose pin was answered as done and that are still what they were then.
  struct Pinned {
    std::string path;
    SourceInode inode{};
    SourceVersion version;
  };
  [[nodiscard]] const std::vector<Pinned>& pinned() const { return pinned_; }
  // A fault of the disk may have cost them.
  void forget_pins() { pinned_.clear(); }
  void forget_changed_pins();
  [[nodiscard]] bool is_stopping() const { return is_stopping_; }
  [[nodiscard]] bool is_stopped() const { return is_stopped_; }
  [[nodiscard]] bool has_sent_fault() const { return has_sent_fault_; }
  [[nodiscard]] std::uint64_t reads_finished() const { return reads_finished_; }
  [[nodiscard]] const std::optional<WarmResult>& last_warm() const { return last_warm_; }
  [[nodiscard]] const std::optional<Violation>& violation() const { return violation_; }
  [[nodiscard]] std::size_t verifies_pending() const { return verifies_.size(); }
  [[nodiscard]] const std::optional<VerifyResult>& last_verify() const { return last_verify_; }
  // Complete objects that were rotten when a verification began that has ended, and left none out.
  [[nodiscard]] const std::set<InodeId>& found_rotten() const { return found_rotten_; }
  // Paths of the copies reported as finished since the last call.
  [[nodiscard]] std::vector<std::string> take_finished();
  // Paths of copies that were started or resumed since the last call.
  [[nodiscard]] std::vector<std::string> take_started();

  void on_open(HandleId handle, const OpenResult& result) override;
  void on_read(ReadToken token, const ReadResult& result) override;
  void on_warm(WarmToken token, const WarmResult& result) override;
  void on_control(ControlToken token, const ControlResult& result) override;
  void on_notice(const Notice& notice) override;
  void on_stopped() override;
  void on_verify(VerifyToken token, const VerifyResult& result) override;
  void on_disowned(DisownToken token, int error) override;
  void on_grown(GrowToken token, int error) override;

 private:
  // A cache file that outlives the process: its bytes must not change.
  struct Hold {
    InodeId inode{};
    std::vector<std::byte> content;
  };

  void report(const char* name, std::string message);
  OpenFile& file_of(const ActiveRead& read) { return files_.at(read.handle); }
  std::optional<FileHandle> open_source(const std::string& path, Nanos now, SourceState& state);
  void plan(ActiveRead& read);
  void ask(ActiveRead& read, bool skip_cache);
  void move_on(ActiveRead& read, std::uint64_t length);
  void finish(ActiveRead& read);
  void use_planned(ActiveRead& read);
  void use_answer(ActiveRead& read);
  void fall_back_to_source(ActiveRead& read);
  void check_truth(const ActiveRead& read, std::span<const std::byte> bytes, const char* from);
  void check_short(const ActiveRead& read);
  void check_error(const ActiveRead& read);
  void forget_finished();
  void check_own_writes(const ActiveRead& read, std::span<const std::byte> bytes);
  struct PendingWrite {
    std::string path;
    SourceInode inode{};
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::uint64_t size_max = 0;     // appends, up to that; 0: does not grow
    std::uint64_t disowned_at = 0;  // handles with higher numbers were opened since
  };
  // A cache file that has to grow for one of our writes.
  struct Growth {
    HandleId handle{};
    std::uint64_t size = 0;
    std::optional<Nanos> asked_at;  // set when the engine has the question
  };
  bool begin_own_write(PendingWrite write, Nanos now);
  bool write_cache_file(InodeId inode, SourceInode source, ByteRange range);
  void ask_for_growths();
  void write_ourselves(const PendingWrite& write, bool may_change_cache_files);
  void note_disowned(const FileId& file);
  void disown_again();
  void tell_late_rekeys();
  void send_close(HandleId handle);
  void send(Event event);
  void hand_over(Event event);

  SimDisk& disk_;
  SimNfs& nfs_;
  Trace& trace_;
  Life* life_ = nullptr;
  std::map<HandleId, OpenFile> files_;
  std::vector<ActiveRead> reads_;
  std::map<VerifyToken, std::set<InodeId>> verifies_;  // and what was rotten when they began
  std::set<InodeId> found_rotten_;
  std::optional<VerifyResult> last_verify_;
  struct Warm {
    Pinned file;
    bool pin = false;
  };
  bool send_warm(const std::string& path, Nanos now, bool pin);
  std::map<WarmToken, Warm> warms_;
  std::set<ControlToken> controls_;
  std::vector<Pinned> pinned_;
  std::optional<ControlResult> last_control_;
  std::vector<Hold> holds_;
  std::map<DisownToken, PendingWrite> writes_;
  std::vector<PendingWrite> writes_to_repeat_;
  std::map<GrowToken, Growth> growths_;
  std::vector<Growth> growths_to_ask_;
  std::map<SourceInode, std::vector<OwnWrite>> own_writes_;
  std::set<std::string> disowned_;  // stems
  std::deque<RekeyEvent> late_rekeys_;
  std::size_t mailbox_max_ = 0;
  std::uint64_t limit_bytes_ = 0;
  std::deque<Event> mailbox_;
  std::set<HandleId> closing_;  // their close is in the mailbox
  std::vector<std::string> finished_;
  std::vector<std::string> started_;
  std::optional<WarmResult> last_warm_;
  std::optional<Violation> violation_;
  bool is_stopping_ = false;
  bool is_stopped_ = false;
  bool has_sent_fault_ = false;
  std::uint64_t next_id_ = 1;
  std::uint64_t reads_finished_ = 0;
};

}  // namespace ncfs
