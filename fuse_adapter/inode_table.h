// What the kernel's node ids stand for.
//
// A node id names one file in one version and in one class of opens: the kernel forbids opens
// through its page cache and passthrough opens of one node id at the same time, and pages it
// cached under a node id stay there. So when a file gets another version, or becomes complete in
// the cache while it is open through the page cache, its node is *retired*: handles live on, and
// the next look-up of the file makes a new node id. st_ino stays the same.
// Directories are retired only when they are removed, as a new node id would tear what is mounted
// or running in them.
//
// Invariants:
//   * at most one node of a file is not retired;
//   * a node id is never used for a second node;
//   * a node lives while the kernel knows it, a handle is open on it or a child names it as parent;
//   * page-cache opens and passthrough opens of one node exclude each other, and all passthrough
//     opens of a node share one backing id, of its cache file or of the source's file, which is
//     closed with the last of them;
//   * a retired node gets no backing id any more.
//
// Our own changes of a file do not retire its node: what they took from one version to another is
// told to the table (note_*), as are the names they moved and removed.
//
// Any thread. Every function is short and waits for nothing.
#pragma once

#include <sys/stat.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/types.h"

namespace ncfs {

using NodeId = std::uint64_t;
inline constexpr NodeId kRootNode = 1;  // FUSE_ROOT_ID

// Identity of a source file while the source stays mounted.
struct FileKey {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  friend constexpr auto operator<=>(const FileKey&, const FileKey&) = default;
};

// What a stat of a source file tells the table.
struct FileFacts {
  FileKey file;
  std::uint32_t type = 0;  // S_IFMT part of st_mode
  SourceVersion version;
  std::uint64_t links = 1;

  [[nodiscard]] static FileFacts of(const struct stat& attributes);
};

enum class OpenMode : std::uint8_t {
  page_cache,
  passthrough,         // the kernel reads the cache file
  source_passthrough,  // the kernel reads the file of the source
  direct,              // past the page cache: right whatever it holds
};

class InodeTable {
 public:
  // register_backing makes the kernel know a file to be passed through and returns its id, or a
  // negative number if it will not; unregister_backing undoes it. Called under the table's lock.
  struct Kernel {
    std::function<int(int descriptor)> register_backing;
    std::function<void(int backing_id)> unregister_backing;
    // Who uses the mount does not look up again when a node is exchanged (stale_open=inval): a
    // changed file keeps its node. Opens of another version than the node stands for go past its
    // pages, until it is looked up while nobody has it open.
    bool keeps_nodes = false;
  };
  InodeTable(const FileFacts& root, Kernel kernel);
  // Which directory the root is, if it was made without knowing. Before any other node is made.
  void set_root(const FileFacts& root);

  // The node of the file found under `name`. Counts one look-up, to be forgotten by the kernel.
  [[nodiscard]] NodeId look_up(NodeId parent, std::string_view name, const FileFacts& facts);
  void forget(NodeId node, std::uint64_t lookups);

  struct Location {
    std::string path;  // from the root, by the names last looked up; "" is the root
    FileKey file;
    std::uint32_t type = 0;
  };
  // Nothing if the node is unknown or its names lead in a circle.
  [[nodiscard]] std::optional<Location> locate(NodeId node) const;

  enum class Standing : std::uint8_t {
    current,  // the next look-up of the file finds this node
    retired,  // another class or gone from its place, but what the kernel cached of it is right
    other,    // not the version, or not the file, that the node stands for
  };
  // Tells what a fresh stat of the node's file said; retires the node if that is something else.
  Standing observe(NodeId node, const FileFacts& facts);
  // The file is not where the node's names lead.
  void retire(NodeId node);

  // We changed the file through `node` from `before` to `after`. A node that stood for `before`
  // stands for `after`; one that stood for something else is retired, as by observe().
  void note_change(NodeId node, const FileFacts& before, const FileFacts& after);
  // The same for a change that left the content alone: of all nodes of the file, which are
  // returned. `was_settled`: `before` was older than the racy window, so that who has seen that
  // content has seen all of it.
  std::vector<NodeId> note_attribute_change(const FileFacts& before, const FileFacts& after,
                                            bool was_settled);
  // We renamed the file, or removed one of its names.
  void move_name(const FileKey& file, NodeId parent, std::string_view name, NodeId new_parent,
                 std::string_view new_name);
  void remove_name(const FileKey& file, NodeId parent, std::string_view name);
  // The file is not where locate() leads. True if it may have another name, to which locate() leads
  // from now on. Names beyond the few that are remembered are found by the next look-up.
  [[nodiscard]] bool try_other_name(NodeId node);
  // Where hard links lead that the kernel may know the node by, beside that of locate().
  [[nodiscard]] std::vector<Location> other_names(NodeId node) const;
  // Nothing if the node is unknown.
  [[nodiscard]] std::optional<FileKey> file_of(NodeId node) const;
  // The node that the next look-up of the file finds, if it is known and has not changed.
  [[nodiscard]] std::optional<NodeId> current(const FileKey& file) const;
  // All nodes of the file, retired ones too.
  [[nodiscard]] std::vector<NodeId> all_of(const FileKey& file) const;
  // All that the kernel knows, in no order.
  [[nodiscard]] std::vector<NodeId> all() const;
  struct Place {
    NodeId parent = 0;
    std::string name;
    friend bool operator==(const Place&, const Place&) = default;
  };
  // The names that the kernel may know the node by; none for the root.
  [[nodiscard]] std::vector<Place> places_of(NodeId node) const;
  // Between the two, whatever version a stat finds of the node's file is taken for our own change
  // of it: the node is kept. `facts` are what the file has become; the node is retired if they are
  // not known, or if the kernel reads a cache file of it.
  void begin_writes(NodeId node);
  void end_writes(NodeId node, const std::optional<FileFacts>& facts);
  // Somebody was told to look up a file that he wants to write to: if its node is one that is
  // passed through, he will find another.
  void make_way(const FileKey& file);

  struct OpenRequest {
    Standing standing = Standing::current;  // what observe() said when the file was opened
    // page_cache, or one of the passthrough modes for the file `backing`.
    OpenMode wanted = OpenMode::page_cache;
    int backing = -1;
    bool is_settled = true;  // older than the racy window
    // Whether the kernel may be told to look up again; asked only when that would help.
    std::function<bool()> may_retry;
    bool writes = false;
    // The caller of a writer is root, or the daemon asks: `backing` is registered with the rights
    // of this thread, and root's keep what others' writes take away (setuid).
    bool is_root = true;
    // The kernel writes to the source's file under some node: to be passed through to it, too, or
    // past the page cache.
    bool is_written_unseen = false;
    bool is_foreign = false;                    // another version than our own changes explain
    std::optional<SourceVersion> version = {};  // what was opened to be read
    std::weak_ptr<void> owner = {};             // of `backing`
  };
  struct OpenAnswer {
    bool retry = false;  // answer with ESTALE; nothing was counted
    OpenMode mode = OpenMode::page_cache;
    bool keep_cache = false;  // what the page cache holds of this node is right
    int backing_id = -1;      // passthrough modes only
    // Of the file that is passed through: of this request, or of an earlier one that shares it.
    // Each who is passed through keeps the owner alive.
    std::shared_ptr<void> owner = {};
    bool was_refused = false;  // register_backing failed
    // The kernel would let the writer write to a cache file, or with the rights of root. Nothing
    // was counted.
    bool is_impossible = false;
  };
  // Counts one open, to be released in the mode of the answer.
  [[nodiscard]] OpenAnswer open(NodeId node, const OpenRequest& request);
  void release(NodeId node, OpenMode mode);

  // Which listing of a directory the kernel may keep in its page cache, which serves all opens of
  // the directory: one at a time, as entries of two must not mix there. Counts one open that may
  // fill it, if it may, to be released.
  struct ListingAnswer {
    bool may_fill = false;
    bool keep = false;  // what is there is of this listing
  };
  [[nodiscard]] ListingAnswer open_listing(NodeId node, const std::shared_ptr<const void>& listing);
  void release_listing(NodeId node);

  [[nodiscard]] std::size_t size() const;

 private:
  struct Node {
    FileKey file;
    std::uint32_t type = 0;
    SourceVersion version;
    NodeId parent = 0;  // 0: the root's
    std::string name;
    std::uint64_t lookups = 0;
    std::uint64_t children = 0;
    std::uint32_t page_cache_opens = 0;
    std::uint32_t passthrough_opens = 0;  // in mode `backing_mode`
    OpenMode backing_mode = OpenMode::passthrough;
    std::uint32_t direct_opens = 0;
    std::uint32_t writes = 0;  // begun and not ended
    int backing_id = -1;
    bool is_backing_roots = true;
    std::weak_ptr<void> backing_owner;
    std::weak_ptr<const void> listing;  // directories: in the page cache, if any is
    std::uint32_t listing_opens = 0;
    bool is_retired = false;
    bool was_settled = false;      // when only its attributes changed
    bool has_young_pages = false;  // pages may have been read within the racy window
  };
  using Nodes = std::unordered_map<NodeId, Node>;
  // A file with more names than this is looked up by another one when all of these were removed.
  static constexpr std::size_t kOtherNamesMax = 16;

  // A node that is being written to comes to stand for the version it is told of.
  [[nodiscard]] static bool stands_for(Node& node, const FileFacts& facts);
  // Whether the node stays that of the file though the version is another one.
  [[nodiscard]] bool is_kept(const Node& node, const FileFacts& facts) const;
  void retire_locked(NodeId id, Node& node);
  void place(NodeId id, NodeId parent, std::string_view name, bool keep_other);
  void leave(NodeId parent);
  void remove_other_name(NodeId id, const Place& place);
  bool promote_other_name(NodeId id);
  [[nodiscard]] std::vector<NodeId> nodes_of(const FileKey& file) const;
  void drop_if_unused(NodeId id);
  [[nodiscard]] static OpenAnswer open_through_page_cache(Node& node, const OpenRequest& request);
  [[nodiscard]] static OpenAnswer open_past_page_cache(Node& node);
  [[nodiscard]] static OpenAnswer share_backing(Node& node);
  [[nodiscard]] OpenAnswer open_passed(Node& node, const OpenRequest& request);
  [[nodiscard]] OpenAnswer open_for_writing(NodeId id, Node& node, const OpenRequest& request);

  const Kernel kernel_;
  mutable std::mutex mutex_;
  Nodes nodes_;
  std::map<FileKey, NodeId> current_;
  std::multimap<FileKey, NodeId> retired_;
  // Names of hard links beside the one in the node. They keep their parents, too.
  std::unordered_map<NodeId, std::vector<Place>> other_names_;
  NodeId next_ = kRootNode;
};

}  // namespace ncfs
