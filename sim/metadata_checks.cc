// What must hold in MetadataWorld.
#include <algorithm>

#include "io/assert.h"
#include "sim/metadata_world.h"

namespace ncfs {
namespace {

bool is_directory_of(const RemoteState& state, Inode directory, Inode file) {
  const auto found = state.find(directory);
  if (found == state.end()) return false;
  return std::ranges::any_of(found->second.names,
                             [file](const auto& entry) { return entry.second == file; });
}

// Whether the backend shows the file to the viewer under some name. The directories of this tree
// are never hidden themselves.
bool is_shown(const RemoteState& state, Inode file, const Viewer& viewer) {
  if (file <= RemoteTree::kFolders[1]) return true;
  return std::ranges::any_of(state, [&](const auto& entry) {
    return is_directory_of(state, entry.first, file) &&
           RemoteTree::may_search(state, entry.first, viewer);
  });
}

bool had_attributes(const RemoteState& state, const FileAttributes& attributes) {
  const auto found = state.find(attributes.seen.file.inode);
  if (found == state.end()) return false;
  const RemoteFile& file = found->second;
  return attributes.seen.version == SourceVersion{file.size, file.mtime_ns, file.ctime_ns} &&
         attributes.mode == (file.type | file.mode);
}

template <typename Map, typename Key>
std::size_t since_of(const Map& map, const Key& key) {
  const auto found = map.find(key);
  return found == map.end() ? 0 : found->second;
}

}  // namespace

void MetadataWorld::report(const char* name, const std::string& message) {
  if (!violation_) violation_ = Violation{name, message};
}

// Whether it held in a state numbered `since` or later that was not over before `earliest`.
template <typename Holds>
bool MetadataWorld::was_true(std::size_t since, Nanos earliest, Holds holds) const {
  const auto& history = tree_.history();
  for (std::size_t index = history.size(); index-- > since;) {
    const bool is_over = index + 1 < history.size() && history[index + 1].at < earliest;
    if (is_over) return false;
    if (holds(history[index].state)) return true;
  }
  return false;
}

// What may be believed for another `left`, and for `timeout` in all, was true no earlier than that.
Nanos MetadataWorld::earliest_for(Nanos timeout, Nanos left, Belief belief) const {
  if (belief == Belief::unasked) timeout = config_.stale_if_error;
  return now_ + left > timeout ? now_ + left - timeout : 0;
}

// Of an answer that the kernel may believe for `left`.
void MetadataWorld::check_stand_in(Belief belief, Nanos left) {
  if (belief == Belief::fresh) return;
  if (config_.stale_if_error == 0) report("M1 Age", "told in place of the backend, unwanted");
  if (left > 0) report("M1 Age", "told in place of the backend, for the kernel to believe");
}

void MetadataWorld::check_name(const Place& place, const Viewer& asker,
                               const MetadataCache::NameAnswer& answer, Belief belief,
                               bool is_kernels) {
  check_stand_in(belief, answer.entry_left);
  std::optional<Inode> file;
  Nanos timeout = config_.negative_timeout;
  if (answer.attributes) {
    file = answer.attributes->seen.file.inode;
    timeout = answer.attributes->is_directory() ? config_.dir_entry_timeout : config_.entry_timeout;
    // An answer of the backend that took longer than the timeout is not to be believed afterwards.
    const bool is_to_be_believed =
        is_kernels || belief == Belief::unasked || answer.attributes_left > 0;
    if (is_to_be_believed) {
      check_attributes(*answer.attributes, asker, answer.attributes_left, belief);
    }
  }
  const Nanos earliest = earliest_for(timeout, answer.entry_left, belief);
  const auto holds = [&](const RemoteState& state) {
    return RemoteTree::look_up(state, place.directory, place.name) == file;
  };
  const std::string what = "name " + place.name + " in " + std::to_string(place.directory) +
                           (file ? " is file " + std::to_string(*file) : " is absent");
  const std::size_t own = since_of(own_names_, place);
  if (!was_true(0, earliest, holds)) return report("M1 Age", what);
  if (!was_true(own, earliest, holds)) return report("M2 OwnChanges", what);
  const bool knows_all = cache_.stats().evicted == 0 && !is_kernels;
  const std::size_t since = knows_all ? std::max(own, since_of(observed_, place.directory)) : own;
  if (!was_true(since, earliest, holds)) return report("M8 Observed", what);
  // What the kernel may keep, it shows to everybody.
  const Viewer viewer = answer.entry_left > 0 ? Viewer::anyone() : asker;
  const bool is_allowed = was_true(since, earliest, [&](const RemoteState& state) {
    return holds(state) && RemoteTree::may_search(state, place.directory, viewer);
  });
  if (!is_allowed) report("M7 Viewer", what);
}

void MetadataWorld::check_attributes(const FileAttributes& attributes, const Viewer& asker,
                                     Nanos left, Belief belief) {
  check_stand_in(belief, left);
  const Inode file = attributes.seen.file.inode;
  const Nanos timeout = attributes.is_directory() ? config_.dir_attr_timeout : config_.attr_timeout;
  const Nanos earliest = earliest_for(timeout, left, belief);
  const auto holds = [&](const RemoteState& state) { return had_attributes(state, attributes); };
  const std::string what = "attributes of file " + std::to_string(file);
  const std::size_t own = since_of(own_files_, file);
  if (!was_true(0, earliest, holds)) return report("M1 Age", what);
  if (!was_true(own, earliest, holds)) return report("M2 OwnChanges", what);
  const bool is_allowed = was_true(own, earliest, [&](const RemoteState& state) {
    return holds(state) && is_shown(state, file, asker);
  });
  if (!is_allowed) report("M7 Viewer", what);
}

void MetadataWorld::check_target(Inode file, const Viewer& asker, const std::string& target,
                                 Belief belief) {
  check_stand_in(belief, 0);
  const Nanos earliest = earliest_for(config_.attr_timeout, 0, belief);
  const auto holds = [&](const RemoteState& state) {
    const auto found = state.find(file);
    return found != state.end() && std::to_string(found->second.content) == target;
  };
  const std::string what = "target of link " + std::to_string(file);
  if (!was_true(0, earliest, holds)) return report("M1 Age", what);
  const bool is_allowed = was_true(0, earliest, [&](const RemoteState& state) {
    return holds(state) && is_shown(state, file, asker);
  });
  if (!is_allowed) report("M7 Viewer", what);
}

void MetadataWorld::check_listing(Inode directory, const Viewer& asker,
                                  const DirectorySnapshot& snapshot, std::size_t since,
                                  Nanos earliest) {
  const auto holds = [&](const RemoteState& state) {
    const auto& names = state.at(directory).names;
    std::uint64_t position = 0;
    return names.size() == snapshot.size() && std::ranges::all_of(names, [&](const auto& entry) {
             const DirectorySnapshot::Entry listed = snapshot.at(position++);
             return listed.name == entry.first && listed.inode == entry.second;
           });
  };
  const std::string what = "listing of " + std::to_string(directory);
  if (!was_true(since, earliest, holds)) return report("M3 OneMoment", what);
  const std::size_t own = std::max(since, since_of(own_files_, directory));
  // Asked for before the change was told: it may be that of then.
  if (since == 0 && !was_true(own, earliest, holds)) return report("M2 OwnChanges", what);
  const bool is_allowed = was_true(since, earliest, [&](const RemoteState& state) {
    return holds(state) && RemoteTree::may_search(state, directory, asker);
  });
  if (!is_allowed) report("M7 Viewer", what);
}

// What an application sees of a name, from the kernel's own memory.
void MetadataWorld::check_kernel_stat(const Place& place, const Dentry& dentry) {
  MetadataCache::NameAnswer answer;
  if (dentry.file) {
    const auto found = attributes_.find(*dentry.file);
    if (found == attributes_.end() || found->second.until <= now_) return;
    answer.attributes = found->second.attributes;
  }
  if (dentry.until > now_) check_name(place, Viewer::anyone(), answer, Belief::fresh, true);
}

void MetadataWorld::check_content(const Opener& opener, std::optional<std::uint64_t> seen) {
  const char* const folder = opener.folder == 0 ? "d0" : "d1";
  const bool is_true = was_true(opener.began, 0, [&](const RemoteState& state) {
    const auto directory = RemoteTree::look_up(state, RemoteTree::kRoot, folder);
    if (!directory) return !seen;
    const auto file = RemoteTree::look_up(state, *directory, opener.name);
    if (!file) return !seen;
    return seen == state.at(*file).content;
  });
  if (is_true) return;
  report("M4 CloseToOpen", std::string("open of ") + folder + "/" + opener.name + " saw content " +
                               (seen ? std::to_string(*seen) : "none"));
}

void MetadataWorld::check_stale(const Opener& opener, OpenVerdict verdict) {
  if (stale_open_ == StaleOpen::inval && verdict == OpenVerdict::look_up_again) {
    return report("M6 StaleOnce", "ESTALE for somebody who does not try again");
  }
  if (!opener.was_told) return;
  if (verdict == OpenVerdict::look_up_again) report("M6 StaleOnce", "a second ESTALE in a row");
  const bool is_found = verdict == OpenVerdict::keep_pages || verdict == OpenVerdict::drop_pages;
  if (opener.has_name && opener.told_at == tree_.last() && !is_found) {
    report("M6 StaleOnce", "the look-up after ESTALE did not find the new node");
  }
}

void MetadataWorld::check_books() {
  if (cache_.facts_bytes() > config_.facts_bytes_max) report("M5 Bytes", "names and attributes");
  if (cache_.listings_bytes() > config_.listings_bytes_max) report("M5 Bytes", "listings");
  cache_.check_invariants();
}

}  // namespace ncfs
