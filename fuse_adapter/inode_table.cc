#include "fuse_adapter/inode_table.h"

#include <algorithm>
#include <ranges>
#include <utility>
#include <vector>

#include "io/assert.h"
#include "io/wall_clock.h"

namespace ncfs {
namespace {

// Deeper than any tree that path walks of one component a byte could make useful; names that were
// looked up while directories moved on the source can lead in a circle, and this ends the walk.
constexpr std::size_t kDepthMax = 65'536;

}  // namespace

FileFacts FileFacts::of(const struct stat& attributes) {
  return {
      .file = {attributes.st_dev, attributes.st_ino},
      .type = attributes.st_mode & S_IFMT,
      .version = {.size = static_cast<std::uint64_t>(attributes.st_size),
                  .mtime_ns = wall_nanos(attributes.st_mtim.tv_sec, attributes.st_mtim.tv_nsec),
                  .ctime_ns = wall_nanos(attributes.st_ctim.tv_sec, attributes.st_ctim.tv_nsec)},
      .links = attributes.st_nlink};
}

InodeTable::InodeTable(const FileFacts& root, Kernel kernel) : kernel_(std::move(kernel)) {
  NCFS_ASSERT(root.type == S_IFDIR);
  Node node;
  node.file = root.file;
  node.type = root.type;
  node.lookups = 1;  // the kernel never forgets its root
  nodes_.emplace(next_, std::move(node));
  current_.emplace(root.file, next_);
  ++next_;
}

void InodeTable::set_root(const FileFacts& root) {
  const std::lock_guard lock(mutex_);
  NCFS_ASSERT(root.type == S_IFDIR);
  NCFS_ASSERT(nodes_.size() == 1);
  current_.clear();
  current_.emplace(root.file, kRootNode);
  nodes_.at(kRootNode).file = root.file;
}

bool InodeTable::stands_for(Node& node, const FileFacts& facts) {
  if (node.file != facts.file || node.type != facts.type) return false;
  if (node.writes > 0 && node.version != facts.version) {
    node.version = facts.version;
    node.was_settled = false;
  }
  return node.type == S_IFDIR || node.version == facts.version;
}

bool InodeTable::is_kept(const Node& node, const FileFacts& facts) const {
  return kernel_.keeps_nodes && node.file == facts.file && node.type == facts.type;
}

NodeId InodeTable::look_up(NodeId parent, std::string_view name, const FileFacts& facts) {
  const std::lock_guard lock(mutex_);
  const auto known = current_.find(facts.file);
  if (known != current_.end()) {
    const NodeId id = known->second;
    Node& node = nodes_.at(id);
    const bool stands = stands_for(node, facts);
    if (!stands && is_kept(node, facts) && node.page_cache_opens + node.direct_opens == 0) {
      node.version = facts.version;
      node.was_settled = false;
      node.has_young_pages = true;  // they are of the version before
    }
    if (stands || is_kept(node, facts)) {
      ++node.lookups;
      if (id != kRootNode) place(id, parent, name, facts.links > 1);
      return id;
    }
    retire_locked(id, node);
  }
  const NodeId id = next_++;
  Node& node = nodes_[id];
  node.file = facts.file;
  node.type = facts.type;
  node.version = facts.version;
  node.lookups = 1;
  place(id, parent, name, false);
  current_.emplace(facts.file, id);
  return id;
}

// A child keeps its parent alive, so that a path can always be made of names.
void InodeTable::place(NodeId id, NodeId parent, std::string_view name, bool keep_other) {
  Node& node = nodes_.at(id);
  if (node.parent == parent && node.name == name) return;
  const auto next = nodes_.find(parent);
  if (next == nodes_.end()) return;  // forgotten meanwhile: the older place is as good
  ++next->second.children;
  Place previous{std::exchange(node.parent, parent), std::exchange(node.name, std::string(name))};
  remove_other_name(id, {parent, node.name});
  if (previous.parent == 0) return;
  if (keep_other) {
    auto& others = other_names_[id];
    if (others.size() < kOtherNamesMax) {
      others.push_back(std::move(previous));
      return;
    }
  }
  leave(previous.parent);
}

// The name of a child in `parent` counts no more.
void InodeTable::leave(NodeId parent) {
  --nodes_.at(parent).children;
  drop_if_unused(parent);
}

void InodeTable::remove_other_name(NodeId id, const Place& place) {
  const auto found = other_names_.find(id);
  if (found == other_names_.end()) return;
  const std::size_t removed = std::erase(found->second, place);
  if (found->second.empty()) other_names_.erase(found);
  if (removed > 0) leave(place.parent);
}

// Gives up the name of the node for the last one it had before.
bool InodeTable::promote_other_name(NodeId id) {
  Node& node = nodes_.at(id);
  Place place;
  const auto found = other_names_.find(id);
  if (found != other_names_.end()) {
    place = std::move(found->second.back());
    found->second.pop_back();
    if (found->second.empty()) other_names_.erase(found);
  }
  const bool has_name = place.parent != 0;
  node.name = std::move(place.name);
  const NodeId previous = std::exchange(node.parent, place.parent);
  if (previous != 0) leave(previous);
  return has_name;
}

std::vector<NodeId> InodeTable::nodes_of(const FileKey& file) const {
  std::vector<NodeId> nodes;
  if (const auto known = current_.find(file); known != current_.end()) {
    nodes.push_back(known->second);
  }
  const auto [first, last] = retired_.equal_range(file);
  for (auto entry = first; entry != last; ++entry) nodes.push_back(entry->second);
  return nodes;
}

void InodeTable::drop_if_unused(NodeId id) {
  while (id != 0) {
    const auto found = nodes_.find(id);
    if (found == nodes_.end()) return;
    const Node& node = found->second;
    const bool is_used = node.lookups + node.children + node.page_cache_opens +
                             node.passthrough_opens + node.direct_opens + node.writes +
                             node.listing_opens >
                         0;
    if (is_used) return;
    const auto known = current_.find(node.file);
    if (known != current_.end() && known->second == id) current_.erase(known);
    if (node.is_retired) {
      const auto [first, last] = retired_.equal_range(node.file);
      retired_.erase(std::find(first, last, std::pair<const FileKey, NodeId>(node.file, id)));
    }
    const NodeId parent = node.parent;
    nodes_.erase(found);
    if (auto others = other_names_.extract(id)) {
      for (const Place& place : others.mapped()) leave(place.parent);
    }
    if (parent != 0) --nodes_.at(parent).children;
    id = parent;
  }
}

void InodeTable::forget(NodeId node, std::uint64_t lookups) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(node);
  if (found == nodes_.end() || node == kRootNode) return;
  found->second.lookups -= std::min(lookups, found->second.lookups);
  drop_if_unused(node);
}

std::optional<InodeTable::Location> InodeTable::locate(NodeId node) const {
  const std::lock_guard lock(mutex_);
  auto found = nodes_.find(node);
  if (found == nodes_.end()) return std::nullopt;
  Location location{.path = {}, .file = found->second.file, .type = found->second.type};
  std::vector<const std::string*> names;
  while (found->first != kRootNode) {
    if (names.size() == kDepthMax) return std::nullopt;
    names.push_back(&found->second.name);
    found = nodes_.find(found->second.parent);
    if (found == nodes_.end()) return std::nullopt;
  }
  for (const std::string* name : std::views::reverse(names)) {
    if (!location.path.empty()) location.path += '/';
    location.path += *name;
  }
  return location;
}

void InodeTable::retire_locked(NodeId id, Node& node) {
  if (node.is_retired) return;
  node.is_retired = true;
  retired_.emplace(node.file, id);
  const auto known = current_.find(node.file);
  if (known != current_.end() && known->second == id) current_.erase(known);
}

InodeTable::Standing InodeTable::observe(NodeId node, const FileFacts& facts) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(node);
  if (found == nodes_.end()) return Standing::other;
  if (!stands_for(found->second, facts)) {
    if (node != kRootNode && !is_kept(found->second, facts)) retire_locked(node, found->second);
    return Standing::other;
  }
  return found->second.is_retired ? Standing::retired : Standing::current;
}

void InodeTable::retire(NodeId node) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(node);
  if (found == nodes_.end() || found->second.type == S_IFDIR) return;
  retire_locked(node, found->second);
}

void InodeTable::note_change(NodeId id, const FileFacts& before, const FileFacts& after) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(id);
  if (found == nodes_.end()) return;
  Node& node = found->second;
  if (stands_for(node, before)) {
    node.version = after.version;
    node.was_settled = false;
  } else if (id != kRootNode && !stands_for(node, after) && !is_kept(node, after)) {
    retire_locked(id, node);
  }
}

std::vector<NodeId> InodeTable::note_attribute_change(const FileFacts& before,
                                                      const FileFacts& after, bool was_settled) {
  const std::lock_guard lock(mutex_);
  std::vector<NodeId> nodes = nodes_of(after.file);
  for (const NodeId id : nodes) {
    Node& node = nodes_.at(id);
    if (stands_for(node, before)) {
      node.version = after.version;
      if (was_settled) node.was_settled = true;
    } else if (id != kRootNode && !stands_for(node, after) && !is_kept(node, after)) {
      retire_locked(id, node);
    }
  }
  return nodes;
}

void InodeTable::move_name(const FileKey& file, NodeId parent, std::string_view name,
                           NodeId new_parent, std::string_view new_name) {
  const std::lock_guard lock(mutex_);
  for (const NodeId id : nodes_of(file)) {
    const Node& node = nodes_.at(id);
    if (node.parent == parent && node.name == name) {
      place(id, new_parent, new_name, false);
    } else {
      remove_other_name(id, {parent, std::string(name)});
    }
  }
}

void InodeTable::remove_name(const FileKey& file, NodeId parent, std::string_view name) {
  const std::lock_guard lock(mutex_);
  for (const NodeId id : nodes_of(file)) {
    Node& node = nodes_.at(id);
    if (node.parent != parent || node.name != name) {
      remove_other_name(id, {parent, std::string(name)});
    } else if (!promote_other_name(id) && node.type == S_IFDIR) {
      // A directory that is removed is dead for the kernel. Its number may be another's next.
      retire_locked(id, node);
    }
  }
}

bool InodeTable::try_other_name(NodeId id) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(id);
  if (found == nodes_.end() || !other_names_.contains(id)) return false;
  return promote_other_name(id);
}

std::vector<InodeTable::Location> InodeTable::other_names(NodeId id) const {
  std::vector<Place> places;
  Location file;
  {
    const std::lock_guard lock(mutex_);
    const auto found = other_names_.find(id);
    if (found == other_names_.end()) return {};
    places = found->second;
    const Node& node = nodes_.at(id);
    file = {.path = {}, .file = node.file, .type = node.type};
  }
  std::vector<Location> names;
  for (const Place& place : places) {
    const auto parent = locate(place.parent);
    if (!parent) continue;
    file.path = parent->path.empty() ? place.name : parent->path + '/' + place.name;
    names.push_back(file);
  }
  return names;
}

std::optional<FileKey> InodeTable::file_of(NodeId node) const {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(node);
  if (found == nodes_.end()) return std::nullopt;
  return found->second.file;
}

std::optional<NodeId> InodeTable::current(const FileKey& file) const {
  const std::lock_guard lock(mutex_);
  const auto known = current_.find(file);
  if (known == current_.end()) return std::nullopt;
  return known->second;
}

std::vector<NodeId> InodeTable::all_of(const FileKey& file) const {
  const std::lock_guard lock(mutex_);
  return nodes_of(file);
}

std::vector<NodeId> InodeTable::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<NodeId> ids;
  ids.reserve(nodes_.size());
  for (const auto& [id, node] : nodes_) ids.push_back(id);
  return ids;
}

std::vector<InodeTable::Place> InodeTable::places_of(NodeId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(id);
  if (found == nodes_.end() || found->second.parent == 0) return {};
  std::vector<Place> places = {{found->second.parent, found->second.name}};
  if (const auto others = other_names_.find(id); others != other_names_.end()) {
    places.insert(places.end(), others->second.begin(), others->second.end());
  }
  return places;
}

InodeTable::OpenAnswer InodeTable::open_through_page_cache(Node& node, const OpenRequest& request) {
  OpenAnswer answer;
  const bool is_settled = request.is_settled || node.was_settled;
  // While we write, pages are kept, as long as nothing shows that others write, too: were the
  // kernel to drop a page that a write of ours is just filling, it could read the page back as it
  // was before and keep that.
  const bool is_right = is_settled && !node.has_young_pages;
  answer.keep_cache = node.writes > 0 ? !request.is_foreign : is_right;
  if (!is_settled) {
    node.has_young_pages = true;
  } else if (node.page_cache_opens == 0) {
    // Not keeping makes the kernel drop the young pages, and nobody is left to read new ones.
    node.has_young_pages = false;
  }
  ++node.page_cache_opens;
  return answer;
}

void InodeTable::begin_writes(NodeId id) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(id);
  if (found != nodes_.end()) ++found->second.writes;
}

void InodeTable::end_writes(NodeId id, const std::optional<FileFacts>& facts) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(id);
  if (found == nodes_.end()) return;
  Node& node = found->second;
  NCFS_ASSERT(node.writes > 0);
  const bool stands = facts && stands_for(node, *facts);
  --node.writes;
  // Others may have written meanwhile, unseen between our own writes: no page outlives this.
  node.has_young_pages = true;
  const bool reads_cache = node.passthrough_opens > 0 && node.backing_mode == OpenMode::passthrough;
  const bool stays = stands || (facts && is_kept(node, *facts));
  if (!stays || reads_cache) retire_locked(id, node);
  drop_if_unused(id);
}

void InodeTable::make_way(const FileKey& file) {
  const std::lock_guard lock(mutex_);
  const auto known = current_.find(file);
  if (known == current_.end()) return;
  Node& node = nodes_.at(known->second);
  if (node.passthrough_opens > 0) retire_locked(known->second, node);
}

InodeTable::OpenAnswer InodeTable::open_past_page_cache(Node& node) {
  OpenAnswer answer;
  answer.mode = OpenMode::direct;
  ++node.direct_opens;
  return answer;
}

InodeTable::OpenAnswer InodeTable::share_backing(Node& node) {
  OpenAnswer answer;
  answer.mode = node.backing_mode;
  answer.backing_id = node.backing_id;
  answer.owner = node.backing_owner.lock();
  ++node.passthrough_opens;
  return answer;
}

// The first open of the node that is passed through.
InodeTable::OpenAnswer InodeTable::open_passed(Node& node, const OpenRequest& request) {
  node.backing_mode = request.wanted;
  node.backing_id = kernel_.register_backing(request.backing);
  node.is_backing_roots = request.is_root;
  node.backing_owner = request.owner;
  if (node.backing_id >= 0) return share_backing(node);
  OpenAnswer answer = request.is_written_unseen ? open_past_page_cache(node)
                                                : open_through_page_cache(node, request);
  answer.was_refused = true;
  return answer;
}

// Writers of the node that the kernel finds by the name go through its page cache, which keeps the
// readers of that node right, or, with all others who have the file open, to the source's file. On
// another node a writer must not hold pages locked while it waits for the kernel to drop those of
// the first, so it goes past the page cache.
InodeTable::OpenAnswer InodeTable::open_for_writing(NodeId id, Node& node,
                                                    const OpenRequest& request) {
  const bool wants_backing = request.wanted != OpenMode::page_cache;
  if (node.passthrough_opens > 0) {
    const bool may_join = node.backing_mode == OpenMode::source_passthrough &&
                          (request.is_root || !node.is_backing_roots);
    const bool is_same_file = request.standing != Standing::other;
    if (wants_backing && may_join && is_same_file) return share_backing(node);
    retire_locked(id, node);
    OpenAnswer answer;
    answer.retry = request.may_retry();
    if (answer.retry) return answer;
    answer.is_impossible = !may_join;
    return answer.is_impossible ? answer : share_backing(node);
  }
  if (request.standing != Standing::current || node.is_retired) return open_past_page_cache(node);
  if (wants_backing && node.page_cache_opens == 0) return open_passed(node, request);
  return request.is_written_unseen ? open_past_page_cache(node)
                                   : open_through_page_cache(node, request);
}

InodeTable::OpenAnswer InodeTable::open(NodeId id, const OpenRequest& request) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(id);
  OpenAnswer answer;
  if (found == nodes_.end()) {
    answer.retry = true;
    return answer;
  }
  Node& node = found->second;
  if (request.writes) return open_for_writing(id, node, request);
  // It may have been looked up since it was opened.
  const bool is_other = kernel_.keeps_nodes && node.writes == 0 && request.version &&
                        *request.version != node.version;
  if (request.standing == Standing::other || is_other) {
    // An open that had no look-up, or the second try of one that had: the kernel's node cannot be
    // exchanged, so it is served in a mode that its other opens allow.
    return node.passthrough_opens > 0 ? share_backing(node) : open_past_page_cache(node);
  }
  const bool wants_backing = request.wanted != OpenMode::page_cache;
  if (node.passthrough_opens > 0 && node.backing_mode == request.wanted) return share_backing(node);
  if (node.passthrough_opens > 0 || (wants_backing && node.page_cache_opens > 0)) {
    retire_locked(id, node);
    answer.retry = request.may_retry();
    if (answer.retry) return answer;
    // What is passed through is the same version of the file, only another copy of it.
    if (node.passthrough_opens > 0) return share_backing(node);
  } else if (wants_backing && !node.is_retired) {
    return open_passed(node, request);
  }
  return request.is_written_unseen ? open_past_page_cache(node)
                                   : open_through_page_cache(node, request);
}

void InodeTable::release(NodeId id, OpenMode mode) {
  const std::lock_guard lock(mutex_);
  Node& node = nodes_.at(id);
  switch (mode) {
    case OpenMode::page_cache:
      NCFS_ASSERT(node.page_cache_opens > 0);
      --node.page_cache_opens;
      break;
    case OpenMode::passthrough:
    case OpenMode::source_passthrough:
      NCFS_ASSERT(node.passthrough_opens > 0 && node.backing_mode == mode);
      if (--node.passthrough_opens == 0) {
        kernel_.unregister_backing(std::exchange(node.backing_id, -1));
      }
      break;
    case OpenMode::direct:
      NCFS_ASSERT(node.direct_opens > 0);
      --node.direct_opens;
      break;
  }
  drop_if_unused(id);
}

InodeTable::ListingAnswer InodeTable::open_listing(NodeId id,
                                                   const std::shared_ptr<const void>& listing) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_.find(id);
  if (found == nodes_.end()) return {};
  Node& node = found->second;
  const bool is_same = node.listing.lock() == listing;
  if (!is_same && node.listing_opens > 0) return {};
  node.listing = listing;
  ++node.listing_opens;
  return {.may_fill = true, .keep = is_same};
}

void InodeTable::release_listing(NodeId id) {
  const std::lock_guard lock(mutex_);
  Node& node = nodes_.at(id);
  NCFS_ASSERT(node.listing_opens > 0);
  --node.listing_opens;
  drop_if_unused(id);
}

std::size_t InodeTable::size() const {
  const std::lock_guard lock(mutex_);
  return nodes_.size();
}

}  // namespace ncfs
