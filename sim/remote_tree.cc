#include "sim/remote_tree.h"

#include <algorithm>
#include <utility>

#include "io/assert.h"

namespace ncfs {
namespace {

constexpr std::uint32_t kDirectory = 0040000;
constexpr std::uint32_t kRegular = 0100000;
constexpr std::uint32_t kLink = 0120000;

}  // namespace

RemoteTree::RemoteTree(const Knobs& knobs) : knobs_(knobs) {
  RemoteState state;
  for (const Inode inode : {kRoot, kFolders[0], kFolders[1]}) state[inode].type = kDirectory;
  state[kRoot].names = {{"d0", kFolders[0]}, {"d1", kFolders[1]}};
  history_.push_back({0, std::move(state)});
}

std::int64_t RemoteTree::stamp(Nanos now) const {
  const Nanos server = now + knobs_.ahead;
  return static_cast<std::int64_t>(server - server % knobs_.tick);
}

bool RemoteTree::may_search(const RemoteState& state, Inode directory, const Viewer& viewer) {
  const auto found = state.find(directory);
  if (found == state.end()) return false;
  return !found->second.is_private || viewer == Viewer::caller(kOwner, kOwner, 0);
}

std::optional<Inode> RemoteTree::look_up(const RemoteState& state, Inode directory,
                                         const std::string& name) {
  const auto found = state.find(directory);
  if (found == state.end()) return std::nullopt;
  const auto entry = found->second.names.find(name);
  if (entry == found->second.names.end()) return std::nullopt;
  return entry->second;
}

std::optional<FileAttributes> RemoteTree::attributes(Nanos now, Inode inode) const {
  const auto found = state().find(inode);
  if (found == state().end()) return std::nullopt;
  const RemoteFile& file = found->second;
  FileAttributes result;
  result.seen.file = {0, inode};
  result.seen.version = {file.size, file.mtime_ns, file.ctime_ns};
  if (knobs_.tells_change) result.seen.change = file.change;
  result.seen.age_ns = static_cast<std::int64_t>(now) - std::max(file.mtime_ns, file.ctime_ns);
  result.mode = file.type | file.mode;
  return result;
}

void RemoteTree::touch(RemoteState& state, Nanos now, Inode inode, bool is_modified) {
  RemoteFile& file = state.at(inode);
  file.ctime_ns = stamp(now);
  if (is_modified) file.mtime_ns = stamp(now);
  file.change = next_change_++;
}

Inode RemoteTree::new_inode(const RemoteState& state) {
  if (!knobs_.reuses_inodes) return next_inode_++;
  Inode free = kFolders[1] + 1;
  while (state.contains(free)) ++free;
  return free;
}

void RemoteTree::drop_if_nameless(RemoteState& state, Nanos now, Inode inode) {
  for (const auto& [directory, file] : state) {
    for (const auto& [name, child] : file.names) {
      if (child != inode) continue;
      touch(state, now, inode, false);  // it lost a link
      return;
    }
  }
  state.erase(inode);
}

RemoteEffect RemoteTree::apply(Nanos now, const RemoteChange& change) {
  RemoteState next = state();
  const RemoteEffect effect = apply_to(next, now, change);
  if (effect.is_done) history_.push_back({now, std::move(next)});
  return effect;
}

RemoteEffect RemoteTree::apply_to(RemoteState& state, Nanos now, const RemoteChange& change) {
  if (change.op == RemoteOp::swap_folders) {
    auto& names = state.at(kRoot).names;
    std::swap(names.at("d0"), names.at("d1"));
    touch(state, now, kRoot, true);
    return {.is_done = true};
  }
  if (change.op == RemoteOp::make_private) {
    RemoteFile& directory = state.at(change.directory);
    directory.is_private = !directory.is_private;
    touch(state, now, change.directory, false);
    return {.is_done = true};
  }
  return change.op <= RemoteOp::link ? apply_to_names(state, now, change)
                                     : apply_to_file(state, now, change);
}

RemoteEffect RemoteTree::apply_to_names(RemoteState& state, Nanos now, const RemoteChange& change) {
  auto& names = state.at(change.directory).names;
  const std::optional<Inode> known = look_up(state, change.directory, change.name);
  if (change.op == RemoteOp::create || change.op == RemoteOp::symlink) {
    if (known) return {};
    const Inode inode = new_inode(state);
    RemoteFile& file = state[inode];
    file.type = change.op == RemoteOp::create ? kRegular : kLink;
    file.content = next_content_++;
    names[change.name] = inode;
    touch(state, now, inode, true);
    touch(state, now, change.directory, true);
    return {.is_done = true, .file = inode};
  }
  if (!known) return {};
  RemoteEffect effect{.is_done = true, .file = *known};
  if (change.op != RemoteOp::unlink) {
    auto& others = state.at(change.other_directory).names;
    if (const auto other = look_up(state, change.other_directory, change.other_name)) {
      if (*other == *known || change.op == RemoteOp::link) return {};
      effect.replaced = *other;
    }
    others[change.other_name] = *known;
    touch(state, now, *known, false);
    touch(state, now, change.other_directory, true);
  }
  if (change.op != RemoteOp::link) {
    names.erase(change.name);
    touch(state, now, change.directory, true);
  }
  drop_if_nameless(state, now, effect.file);
  if (effect.replaced != 0) drop_if_nameless(state, now, effect.replaced);
  return effect;
}

RemoteEffect RemoteTree::apply_to_file(RemoteState& state, Nanos now, const RemoteChange& change) {
  const std::optional<Inode> known = look_up(state, change.directory, change.name);
  if (!known || state.at(*known).type != kRegular) return {};
  RemoteFile& file = state.at(*known);
  if (change.op == RemoteOp::chmod) {
    file.mode ^= 0111;
    touch(state, now, *known, false);
    return {.is_done = true, .file = *known};
  }
  file.content = next_content_++;
  if (change.op == RemoteOp::grow) file.size += 10;
  if (change.op == RemoteOp::shrink) file.size /= 2;
  touch(state, now, *known, change.op != RemoteOp::restore);
  return {.is_done = true, .file = *known};
}

}  // namespace ncfs
