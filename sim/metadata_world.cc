#include "sim/metadata_world.h"

#include <algorithm>
#include <array>
#include <utility>

#include "io/assert.h"

namespace ncfs {
namespace {

// Not the owner of private directories.
const Viewer kStranger = Viewer::caller(2, 2, 0);
const Viewer kOwner = Viewer::caller(RemoteTree::kOwner, RemoteTree::kOwner, 0);
constexpr std::size_t kPendingMax = 8;
constexpr std::uint32_t kThreads = 3;
constexpr std::uint32_t kNames = 4;

// Around the timeouts, the racy window and the ticks; the short ones first.
constexpr std::array<Nanos, 10> kWaits = {
    1,       kMillisecond,        50 * kMillisecond,   300 * kMillisecond, 700 * kMillisecond,
    kSecond, 1100 * kMillisecond, 2500 * kMillisecond, 10 * kSecond,       400 * kSecond};

FileId id_of(Inode inode) {
  return {0, inode};
}

bool are_equal(const Observation& left, const Observation& right) {
  return left.version == right.version && left.change == right.change;
}

// As whom the backend shows what is in a directory: anyone, the asker, or nobody.
std::optional<Viewer> allowed(const RemoteState& state, Inode directory, const Viewer& asker) {
  if (RemoteTree::may_search(state, directory, Viewer::anyone())) return Viewer::anyone();
  if (RemoteTree::may_search(state, directory, asker)) return asker;
  return std::nullopt;
}

// The same for a file by whichever of its names: directories are never hidden themselves.
std::optional<Viewer> allowed_file(const RemoteState& state, Inode file, const Viewer& asker) {
  if (!state.contains(file)) return std::nullopt;
  if (file <= RemoteTree::kFolders[1]) return Viewer::anyone();
  std::optional<Viewer> best;
  for (const auto& [inode, directory] : state) {
    for (const auto& [name, child] : directory.names) {
      if (child != file || (best && best->is_anyone())) continue;
      if (const auto viewer = allowed(state, inode, asker)) best = viewer;
    }
  }
  return best;
}

}  // namespace

std::optional<Violation> run_metadata_plan(const MetadataKnobs& knobs, const MetadataPlan& plan) {
  MetadataWorld world(knobs);
  for (const MetadataStep& step : plan) world.apply(step);
  return world.violation();
}

MetadataWorld::MetadataWorld(const MetadataKnobs& knobs)
    : config_(knobs.config),
      stale_open_(knobs.stale_open),
      tree_(knobs.remote),
      cache_(knobs.config) {
  // Later than any window, so that what was there at first is settled.
  now_ = 1000 * kSecond;
}

MetadataWorld::Place MetadataWorld::place_of(std::uint32_t number) const {
  constexpr std::array<Inode, 5> kDirectories = {RemoteTree::kFolders[0], RemoteTree::kFolders[1],
                                                 RemoteTree::kFolders[0], RemoteTree::kFolders[1],
                                                 RemoteTree::kRoot};
  return {kDirectories[number % kDirectories.size()],
          "n" + std::to_string(number / kDirectories.size() % kNames)};
}

Viewer MetadataWorld::viewer_of(std::uint32_t number) {
  return number % 2 == 0 ? kStranger : kOwner;
}

RemoteChange MetadataWorld::change_of(const MetadataStep& step) const {
  const Place place = place_of(step.b);
  const Place other = place_of(step.c);
  // Half of all changes are creations, or there would be little to change.
  constexpr auto kOps = static_cast<std::uint32_t>(RemoteOp::kCount);
  const std::uint32_t number = step.a % (2 * kOps);
  const auto op = number < kOps ? static_cast<RemoteOp>(number) : RemoteOp::create;
  return {op, place.directory, place.name, other.directory, other.name};
}

void MetadataWorld::apply(const MetadataStep& step) {
  if (violation_) return;
  const Place place = place_of(step.b);
  const std::optional<Inode> file = RemoteTree::look_up(tree_.state(), place.directory, place.name);
  switch (step.op) {
    case MetadataOp::wait:
      now_ += kWaits[step.a % kWaits.size()];
      break;
    case MetadataOp::remote:
      tree_.apply(now_, change_of(step));
      break;
    case MetadataOp::local:
      if (pending_.size() < kPendingMax) {
        Pending& change = pending_.emplace_back();
        change.kind = Kind::change;
        change.change = change_of(step);
      }
      break;
    case MetadataOp::look_up:
      ask_name(step.a % 8 == 0 ? Place{RemoteTree::kRoot, "d0"} : place, viewer_of(step.c));
      break;
    case MetadataOp::get_attributes:
      ask_attributes(step.a % 2 == 0 || !file ? place.directory : *file, viewer_of(step.c));
      break;
    case MetadataOp::read_link:
      if (file) ask_link(*file, viewer_of(step.c));
      break;
    case MetadataOp::list:
      ask_listing(place.directory, viewer_of(step.c));
      break;
    case MetadataOp::go_on:
      if (!pending_.empty()) go_on(step.a % pending_.size());
      break;
    case MetadataOp::stat:
      stat(step.b);
      break;
    case MetadataOp::open:
      begin_open(step, true);
      break;
    case MetadataOp::reopen:
      begin_open(step, false);
      break;
    case MetadataOp::open_go_on:
      if (Opener& opener = openers_[step.a % kThreads]; opener.is_open_pending) {
        if (opener.was_told && opener.has_name) walk(opener, true);
        if (opener.is_open_pending) send_open(opener);
      }
      break;
    case MetadataOp::close:
      if (file) cache_.closed(id_of(*file));
      break;
    case MetadataOp::backend:
      is_down_ = step.a % 4 == 0;
      break;
    case MetadataOp::kCount:
      NCFS_ASSERT(false);
  }
  check_books();
}

// -- Questions --

MetadataWorld::Pending MetadataWorld::question(Kind kind, Inode subject, const Viewer& asker) {
  Pending pending;
  pending.kind = kind;
  pending.file = subject;
  pending.asker = asker;
  pending.ticket = cache_.begin(now_, id_of(subject));
  pending.began = tree_.last();
  pending.event = ++events_;
  return pending;
}

template <typename Find>
auto MetadataWorld::recall(Belief& belief, const Find& find) const {
  belief = Belief::fresh;
  auto answer = find(belief);
  if (answer || !is_down_) return answer;
  belief = Belief::unasked;
  return find(belief);
}

void MetadataWorld::ask_name(const Place& place, const Viewer& asker) {
  Belief belief{};
  if (const auto answer = recall(belief, [&](Belief how) {
        return cache_.find_name(now_, id_of(place.directory), place.name, asker, how);
      })) {
    check_name(place, asker, *answer, belief);
    return;
  }
  if (is_down_ || pending_.size() == kPendingMax) return;
  pending_.push_back(question(Kind::name, place.directory, asker));
  pending_.back().place = place;
}

void MetadataWorld::ask_attributes(Inode file, const Viewer& asker) {
  Belief belief{};
  if (const auto answer = recall(belief, [&](Belief how) {
        return cache_.find_attributes(now_, id_of(file), asker, how);
      })) {
    check_attributes(answer->attributes, asker, answer->left, belief);
    return;
  }
  if (is_down_ || pending_.size() == kPendingMax) return;
  pending_.push_back(question(Kind::attributes, file, asker));
}

void MetadataWorld::ask_link(Inode file, const Viewer& asker) {
  Belief belief{};
  if (const auto target = recall(
          belief, [&](Belief how) { return cache_.find_target(now_, id_of(file), asker, how); })) {
    check_target(file, asker, *target, belief);
    return;
  }
  if (is_down_ || pending_.size() == kPendingMax) return;
  pending_.push_back(question(Kind::link, file, asker));
}

void MetadataWorld::ask_listing(Inode directory, const Viewer& asker) {
  using Step = MetadataCache::ListingPlan::Step;
  bool must_open = false;
  Belief belief{};
  const auto snapshot = recall(belief, [&](Belief how) {
    const auto plan = cache_.plan_listing(now_, id_of(directory), asker, how);
    must_open = plan.must_open;
    return plan.step == Step::serve ? plan.snapshot : nullptr;
  });
  if (snapshot) {
    check_stand_in(belief, 0);
    const Nanos earliest = earliest_for(config_.dir_attr_timeout, 0, belief);
    check_listing(directory, asker, *snapshot, 0, earliest);
    return;
  }
  if (is_down_ || pending_.size() == kPendingMax) return;
  pending_.push_back(question(Kind::listing, directory, asker));
  pending_.back().opens = must_open;
}

void MetadataWorld::go_on(std::size_t index) {
  const Pending& pending = pending_[index];
  // Of what is listed only the last stage asks nothing.
  const bool asks = pending.kind == Kind::listing ? pending.stage <= 4 : pending.stage == 0;
  if (is_down_ && asks) return;
  if (!take_stage(pending_[index])) return;
  pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(index));
}

// True if that was the last.
bool MetadataWorld::take_stage(Pending& pending) {
  if (pending.kind == Kind::listing) return take_listing_stage(pending);
  if (pending.stage++ != 0) {
    if (pending.kind == Kind::change) {
      finish_change(pending);
    } else if (!pending.is_refused) {
      learn(pending);
    }
    return true;
  }
  if (pending.kind == Kind::change) {
    pending.effect = tree_.apply(now_, pending.change);
    pending.took_effect = tree_.last();
    return false;
  }
  if (pending.kind == Kind::name) {
    serve_name(pending);
    return false;
  }
  const auto viewer = allowed_file(tree_.state(), pending.file, pending.asker);
  const auto attributes = tree_.attributes(now_, pending.file);
  pending.is_refused = !viewer || !attributes;
  if (pending.is_refused) return false;
  pending.viewer = *viewer;
  pending.attributes = attributes;
  pending.target = std::to_string(tree_.state().at(pending.file).content);
  return false;
}

void MetadataWorld::serve_name(Pending& pending) {
  const auto viewer = allowed(tree_.state(), pending.place.directory, pending.asker);
  pending.is_refused = !viewer;
  if (!viewer) return;
  pending.viewer = *viewer;
  const auto file = RemoteTree::look_up(tree_.state(), pending.place.directory, pending.place.name);
  if (file) pending.attributes = tree_.attributes(now_, *file);
}

void MetadataWorld::learn(const Pending& pending) {
  if (pending.attributes) note_delivered(*pending.attributes, pending.event);
  const FileId directory = id_of(pending.place.directory);
  switch (pending.kind) {
    case Kind::name: {
      const auto answer =
          pending.attributes
              ? cache_.found(now_, pending.ticket, directory, pending.place.name,
                             *pending.attributes, pending.viewer)
              : cache_.absent(now_, pending.ticket, directory, pending.place.name, pending.viewer);
      if (answer.entry_left > 0) check_name(pending.place, pending.asker, answer);
      break;
    }
    case Kind::attributes: {
      const Nanos left =
          cache_.learn_attributes(now_, pending.ticket, *pending.attributes, pending.viewer);
      if (left > 0) check_attributes(*pending.attributes, pending.asker, left);
      break;
    }
    case Kind::link:
      cache_.learn_target(pending.ticket, id_of(pending.file), pending.target, pending.viewer);
      break;
    case Kind::listing:
    case Kind::change:
      NCFS_ASSERT(false);
  }
}

// Look at the directory, learn; read one half of the names, the other, look again, learn.
bool MetadataWorld::take_listing_stage(Pending& pending) {
  const FileId directory = id_of(pending.file);
  const auto attributes = tree_.attributes(now_, pending.file);
  switch (pending.stage++) {
    case 0:
      pending.attributes = attributes;
      return pending.opens && !RemoteTree::may_search(tree_.state(), pending.file, pending.asker);
    case 1: {
      note_delivered(*pending.attributes, pending.event);
      const auto snapshot = cache_.validate(now_, pending.ticket, *pending.attributes,
                                            Viewer::anyone(), pending.asker, pending.opens);
      if (snapshot) {
        check_listing(pending.file, pending.asker, *snapshot, pending.began, 0);
        return true;
      }
      pending.ticket = cache_.begin(now_, directory);
      return !RemoteTree::may_search(tree_.state(), pending.file, pending.asker);
    }
    case 2:
      read_names(pending, true);
      return false;
    case 3:
      read_names(pending, false);
      return false;
    case 4:
      pending.seen_after = attributes->seen;
      return false;
    default:
      pending.snapshot->finish();
      cache_.learn_listing(pending.ticket, pending.attributes->seen, pending.seen_after,
                           pending.snapshot, pending.asker);
      return true;
  }
}

// Names up to "n1" first, so that changes in between make a listing of two moments.
void MetadataWorld::read_names(Pending& pending, bool is_first_half) {
  if (is_first_half) pending.snapshot = std::make_shared<DirectorySnapshot>();
  for (const auto& [name, inode] : tree_.state().at(pending.file).names) {
    if ((name <= "n1") != is_first_half) continue;
    pending.snapshot->add(name, inode, 0);
  }
}

void MetadataWorld::note_delivered(const FileAttributes& attributes, std::uint64_t event) {
  const Inode inode = attributes.seen.file.inode;
  if (!attributes.is_directory() || event < told_[inode]) return;
  const auto [entry, is_first] = delivered_.try_emplace(inode, Delivered{attributes.seen, 0});
  Delivered& last = entry->second;
  if (!is_first && !are_equal(last.seen, attributes.seen)) observed_[inode] = tree_.last();
  // The answer to a question that was put before the last one came may be older.
  if (event >= last.event) last.seen = attributes.seen;
  last.event = ++events_;
}

// -- Own changes --

void MetadataWorld::finish_change(const Pending& pending) {
  const RemoteChange& change = pending.change;
  const auto tell_file = [&](Inode file) {
    cache_.file_changed(id_of(file));
    attributes_.erase(file);
    own_files_[file] = std::max(own_files_[file], pending.took_effect);
    told_[file] = ++events_;
  };
  const auto tell_name = [&](const Place& place) {
    cache_.name_changed(id_of(place.directory), place.name);
    dentries_.erase(place);
    attributes_.erase(place.directory);
    own_names_[place] = std::max(own_names_[place], pending.took_effect);
    own_files_[place.directory] = std::max(own_files_[place.directory], pending.took_effect);
    told_[place.directory] = ++events_;
  };
  if (!pending.effect.is_done) return;
  if (change.op == RemoteOp::make_private) return tell_file(change.directory);
  if (change.op == RemoteOp::swap_folders) {
    tell_name({RemoteTree::kRoot, "d0"});
    return tell_name({RemoteTree::kRoot, "d1"});
  }
  if (pending.effect.file != 0) tell_file(pending.effect.file);
  if (pending.effect.replaced != 0) tell_file(pending.effect.replaced);
  if (change.op > RemoteOp::link) return;
  if (change.op != RemoteOp::link) tell_name({change.directory, change.name});
  if (change.op == RemoteOp::rename || change.op == RemoteOp::link) {
    tell_name({change.other_directory, change.other_name});
  }
}

// -- Through the kernel --

bool MetadataWorld::kernel_look_up(const Place& place, bool is_revalidating,
                                   std::optional<Inode>& file) {
  const FileId directory = id_of(place.directory);
  Dentry& dentry = dentries_[place];
  if (!is_revalidating && now_ < dentry.until) {
    file = dentry.file;
    return true;
  }
  Belief belief{};
  auto answer = recall(belief, [&](Belief how) {
    return is_revalidating && how == Belief::fresh
               ? std::nullopt
               : cache_.find_name(now_, directory, place.name, kStranger, how);
  });
  if (answer) check_name(place, kStranger, *answer, belief);
  if (!answer && is_down_) return false;
  if (!answer) {
    Pending asked = question(Kind::name, place.directory, kStranger);
    asked.place = place;
    serve_name(asked);
    if (asked.is_refused) return false;
    if (asked.attributes) note_delivered(*asked.attributes, asked.event);
    answer = asked.attributes
                 ? cache_.found(now_, asked.ticket, directory, place.name, *asked.attributes,
                                asked.viewer)
                 : cache_.absent(now_, asked.ticket, directory, place.name, asked.viewer);
    if (asked.attributes) answer->attributes = asked.attributes;
  }
  dentry = {std::nullopt, now_ + answer->entry_left};
  if (answer->attributes) {
    dentry.file = answer->attributes->seen.file.inode;
    attributes_[*dentry.file] = {*answer->attributes, now_ + answer->attributes_left};
    adopt(*answer->attributes);
  }
  file = dentry.file;
  return true;
}

// A node stands for one version.
void MetadataWorld::adopt(const FileAttributes& attributes) {
  const auto [entry, is_new] = nodes_.try_emplace(attributes.seen.file.inode);
  Node& node = entry->second;
  if (is_new || !are_equal(node.stands_for, attributes.seen)) node = {attributes.seen, {}};
}

void MetadataWorld::stat(std::uint32_t number) {
  const Place place = place_of(number);
  std::optional<Inode> file;
  if (!kernel_look_up(place, false, file)) return;
  check_kernel_stat(place, dentries_.at(place));
}

void MetadataWorld::begin_open(const MetadataStep& step, bool has_name) {
  Opener& opener = openers_[step.a % kThreads];
  const Place place = place_of(step.b);
  if (opener.is_open_pending || place.directory == RemoteTree::kRoot) return;
  opener = {};
  opener.folder = place.directory == RemoteTree::kFolders[0] ? 0 : 1;
  opener.name = place.name;
  opener.began = tree_.last();
  opener.has_name = has_name;
  opener.is_open_pending = true;
  walk(opener, false);
}

void MetadataWorld::walk(Opener& opener, bool is_revalidating) {
  std::optional<Inode> directory;
  std::optional<Inode> file;
  const Place folder{RemoteTree::kRoot, opener.folder == 0 ? "d0" : "d1"};
  opener.is_open_pending = kernel_look_up(folder, is_revalidating, directory) && directory &&
                           kernel_look_up({*directory, opener.name}, is_revalidating, file) && file;
  if (!opener.is_open_pending) return;
  opener.node = *file;
}

void MetadataWorld::send_open(Opener& opener) {
  opener.is_open_pending = false;
  const RemoteState& state = tree_.state();
  Belief belief{};
  if (const auto known = recall(belief, [&](Belief how) {
        return cache_.open_unasked(now_, id_of(opener.node), kStranger, how);
      })) {
    check_attributes(*known, kStranger, 0, belief);
    return;
  }
  if (is_down_) return;
  const auto directory =
      RemoteTree::look_up(state, RemoteTree::kRoot, opener.folder == 0 ? "d0" : "d1");
  if (!directory || !RemoteTree::may_search(state, *directory, kStranger)) return;
  const auto named = RemoteTree::look_up(state, *directory, opener.name);
  OpenSituation situation;
  situation.policy = stale_open_;
  situation.was_just_told = opener.was_told;
  situation.is_same_node = opener.told_about == opener.node;
  situation.is_held = !opener.has_name;
  const auto ticket = cache_.begin(now_, id_of(opener.node));
  std::optional<FileAttributes> fresh;
  if (named) fresh = tree_.attributes(now_, *named);
  if (named == opener.node) {
    situation.content =
        compare(nodes_.at(opener.node).stands_for, fresh->seen, config_.racy_window);
  } else {
    situation.name = named ? NameLeads::to_another : NameLeads::nowhere;
  }
  const OpenVerdict verdict = decide_open(situation);
  cache_.count(verdict);
  check_stale(opener, verdict);
  if (verdict == OpenVerdict::look_up_again) {
    opener.is_open_pending = true;
    opener.was_told = true;
    opener.told_about = opener.node;
    opener.told_at = tree_.last();
    return;
  }
  if (verdict == OpenVerdict::keep_pages || verdict == OpenVerdict::drop_pages) {
    cache_.opened(now_, ticket, *fresh, Viewer::anyone(), kStranger);
  }
  finish_open(opener, verdict, named, fresh.value_or(FileAttributes{}));
}

void MetadataWorld::finish_open(Opener& opener, OpenVerdict verdict, std::optional<Inode> named,
                                const FileAttributes& fresh) {
  const RemoteState& state = tree_.state();
  const auto content_of = [&state](std::optional<Inode> file) -> std::optional<std::uint64_t> {
    if (!file || !state.contains(*file)) return std::nullopt;
    return state.at(*file).content;
  };
  Node& node = nodes_.at(opener.node);
  switch (verdict) {
    case OpenVerdict::keep_pages:
      if (!node.pages) node = {fresh.seen, content_of(opener.node)};
      return check_content(opener, node.pages);
    case OpenVerdict::drop_pages:
      node = {fresh.seen, content_of(opener.node)};
      return check_content(opener, node.pages);
    case OpenVerdict::read_past_pages:
    case OpenVerdict::serve_named:
      return check_content(opener, content_of(named));
    case OpenVerdict::absent:
      return check_content(opener, std::nullopt);
    case OpenVerdict::serve_held:  // of a file that has lost this name: not judged by it
    case OpenVerdict::look_up_again:
      return;
  }
}

}  // namespace ncfs
