// The metadata cache, a kernel and applications in front of a tree that others change, all in
// virtual time: every question to the backend is split into being put, being answered by the server
// and being learnt, with anything in between.
//
// Invariants, checked after every step:
//   M1 Age        an answer was true at a moment that is no older than its timeout; what the kernel
//                 is given to believe it for included. What is told in place of a backend that is
//                 down is no older than stale_if_error, and nothing for the kernel to believe
//   M2 OwnChanges what this mount has changed and told the application is in every later answer
//   M3 OneMoment  a listing from memory is the directory at one moment, since it was asked for;
//                 with nocto, within the timeout
//   M4 CloseToOpen an open sees a content that the name led to after the open began
//   M5 Bytes      the cache is within its bounds, and its books are right
//   M6 StaleOnce  no application gets ESTALE; told once, an opener finds the new node if nothing
//                 changed again; with stale_open=inval nobody is told
//   M7 Viewer     nobody is shown what the backend would have refused then
//   M8 Observed   once a directory was seen to have changed, the cache gives no older answer about
//                 its names (as long as nothing had to be forgotten; the kernel keeps what it has)
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/metadata_cache.h"
#include "sim/remote_tree.h"
#include "sim/rng.h"
#include "sim/violation.h"

namespace ncfs {

enum class MetadataOp : std::uint8_t {
  wait,            // a: how long; below kShortMetadataWaits less than any timeout
  remote,          // a: what, b: where, c: the other name
  local,           // the same by this mount, takes effect later
  look_up,         // b: where, c: who
  get_attributes,  // b: where, c: who
  read_link,       // b: where, c: who
  list,            // b: which directory, c: who
  go_on,           // a: which pending question or change takes its next step
  stat,            // an application's, by path, through the kernel; b: where
  open,            // b: where, a: which thread; goes as far as the first OPEN
  open_go_on,      // a: which thread
  reopen,          // by descriptor; b: where, a: which thread
  close,           // b: where
  backend,         // a: 0 modulo 4: goes down, else comes up; what it was asked it answers then
  kCount,
};

// Numbers mean something modulo what there is, so every list of steps is a plan.
struct MetadataStep {
  MetadataOp op{};
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
};
using MetadataPlan = std::vector<MetadataStep>;

inline constexpr std::uint32_t kShortMetadataWaits = 4;

struct MetadataKnobs {
  RemoteTree::Knobs remote;
  MetadataConfig config;
  StaleOpen stale_open = StaleOpen::estale;
};
// Both from the seed: timeouts of every size, small memories, coarse clocks; rare and frequent
// kinds of steps.
[[nodiscard]] MetadataKnobs make_metadata_knobs(Rng& rng);
[[nodiscard]] MetadataPlan make_metadata_plan(Rng& rng, std::size_t steps);

class MetadataWorld {
 public:
  explicit MetadataWorld(const MetadataKnobs& knobs);

  void apply(const MetadataStep& step);
  // The first; later steps do nothing.
  [[nodiscard]] const std::optional<Violation>& violation() const { return violation_; }
  [[nodiscard]] const MetadataCache& cache() const { return cache_; }

 private:
  struct Place {
    Inode directory = 0;
    std::string name;
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  enum class Kind : std::uint8_t { name, attributes, link, listing, change };
  // A question or a local change under way.
  struct Pending {
    Kind kind{};
    std::uint32_t stage = 0;
    Place place;  // of names and changes
    Inode file = 0;
    Viewer asker = Viewer::anyone();
    Viewer viewer = Viewer::anyone();  // as whom it was answered
    MetadataCache::Ticket ticket;
    std::size_t began = 0;  // the tree's state then
    std::uint64_t event = 0;
    bool is_refused = false;
    std::optional<FileAttributes> attributes;
    std::string target;
    bool opens = false;  // listings: as the asker
    std::shared_ptr<DirectorySnapshot> snapshot;
    Observation seen_after;
    RemoteChange change;
    RemoteEffect effect;
    std::size_t took_effect = 0;
  };
  // What the kernel holds. Of a file it has one node for the version it was told last.
  struct Dentry {
    std::optional<Inode> file;
    Nanos until = 0;
  };
  struct KernelAttributes {
    FileAttributes attributes;
    Nanos until = 0;
  };
  struct Node {
    Observation stands_for;
    std::optional<std::uint64_t> pages;  // the content that the page cache holds
  };
  // An application's open.
  struct Opener {
    bool is_open_pending = false;
    std::uint32_t folder = 0;
    std::string name;
    std::size_t began = 0;
    bool was_told = false;
    Inode node = 0;
    Inode told_about = 0;
    std::size_t told_at = 0;
    bool has_name = true;
  };

  // metadata_world.cc: what happens
  [[nodiscard]] Place place_of(std::uint32_t number) const;
  [[nodiscard]] static Viewer viewer_of(std::uint32_t number);
  [[nodiscard]] RemoteChange change_of(const MetadataStep& step) const;
  // The ticket is about `subject`, a file or a directory.
  [[nodiscard]] Pending question(Kind kind, Inode subject, const Viewer& asker);
  // What memory has; in place of a backend that is down also what is older.
  template <typename Find>
  [[nodiscard]] auto recall(Belief& belief, const Find& find) const;
  void ask_name(const Place& place, const Viewer& asker);
  void ask_attributes(Inode file, const Viewer& asker);
  void ask_link(Inode file, const Viewer& asker);
  void ask_listing(Inode directory, const Viewer& asker);
  void go_on(std::size_t index);
  bool take_stage(Pending& pending);
  void serve_name(Pending& pending);
  bool take_listing_stage(Pending& pending);
  void read_names(Pending& pending, bool is_first_half);
  void learn(const Pending& pending);
  void finish_change(const Pending& pending);
  // `event`: when the question was put.
  void note_delivered(const FileAttributes& attributes, std::uint64_t event);
  // False if the backend refuses.
  bool kernel_look_up(const Place& place, bool is_revalidating, std::optional<Inode>& file);
  void adopt(const FileAttributes& attributes);
  void stat(std::uint32_t number);
  void begin_open(const MetadataStep& step, bool has_name);
  void walk(Opener& opener, bool is_revalidating);
  void send_open(Opener& opener);
  void finish_open(Opener& opener, OpenVerdict verdict, std::optional<Inode> named,
                   const FileAttributes& fresh);

  // metadata_checks.cc: what must hold
  template <typename Holds>
  [[nodiscard]] bool was_true(std::size_t since, Nanos earliest, Holds holds) const;
  [[nodiscard]] Nanos earliest_for(Nanos timeout, Nanos left, Belief belief) const;
  void check_name(const Place& place, const Viewer& asker, const MetadataCache::NameAnswer& answer,
                  Belief belief = Belief::fresh, bool is_kernels = false);
  void check_attributes(const FileAttributes& attributes, const Viewer& asker, Nanos left,
                        Belief belief = Belief::fresh);
  void check_target(Inode file, const Viewer& asker, const std::string& target, Belief belief);
  void check_stand_in(Belief belief, Nanos left);
  void check_listing(Inode directory, const Viewer& asker, const DirectorySnapshot& snapshot,
                     std::size_t since, Nanos earliest);
  void check_kernel_stat(const Place& place, const Dentry& dentry);
  void check_content(const Opener& opener, std::optional<std::uint64_t> seen);
  void check_stale(const Opener& opener, OpenVerdict verdict);
  void check_books();
  void report(const char* name, const std::string& message);

  const MetadataConfig config_;
  const StaleOpen stale_open_;
  Nanos now_ = 0;
  bool is_down_ = false;
  RemoteTree tree_;
  MetadataCache cache_;
  std::vector<Pending> pending_;
  std::map<Place, Dentry> dentries_;
  std::map<Inode, KernelAttributes> attributes_;
  std::map<Inode, Node> nodes_;
  std::map<std::uint32_t, Opener> openers_;
  // The tree's state when the mount's own last change took effect.
  std::map<Place, std::size_t> own_names_;
  std::map<Inode, std::size_t> own_files_;
  // Counts questions and changes told; when a file was last told to be changed.
  std::uint64_t events_ = 0;
  std::map<Inode, std::uint64_t> told_;
  // Directories: the version last delivered, and the state when it was seen to be another one.
  struct Delivered {
    Observation seen;
    std::uint64_t event = 0;
  };
  std::map<Inode, Delivered> delivered_;
  std::map<Inode, std::size_t> observed_;
  std::optional<Violation> violation_;
};

// Runs the plan; nothing if every invariant held.
[[nodiscard]] std::optional<Violation> run_metadata_plan(const MetadataKnobs& knobs,
                                                         const MetadataPlan& plan);

}  // namespace ncfs
