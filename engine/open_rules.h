// How an open is answered: close-to-open, decided in one place.
//
// The kernel opens the node that its cached name leads to. Meanwhile the backend may have given the
// name to another file, or the file another content. So every open asks the backend, as its caller,
// where the *name* leads now, and compares that with what the node stands for. Where they differ,
// ESTALE makes the kernel look the whole path up again and open what it finds, unseen by the
// application. It does so once: the second ESTALE in a row would reach the application. An open
// that has no name (/proc/self/fd, open_by_handle_at) comes back with the same node.
//
//   the name leads to      content     may be told   answer
//   the node's file        same        -             keep_pages
//   the node's file        unproven    -             drop_pages
//   the node's file        changed     yes           look_up_again
//   the node's file        changed     no            read_past_pages
//   another file           -           yes           look_up_again
//   another file           -           no            serve_held, if somebody holds the node's file;
//                                                    else absent if the opener has no name,
//                                                    else serve_named
//   nothing                -           yes           look_up_again (an open with O_CREAT has to
//                                                    reach the kernel's own create)
//   nothing                -           no            serve_held, if somebody holds it; else absent
//
// Any other error of the backend is the answer, never ESTALE.
//
// "May be told": `stale_open=estale`, and the thread was not told so by its last open. That bounds
// the answers to one per open, and to one per opener for a node and a version, as the look-up that
// follows finds a node of its own for the new version. It is not one for all openers: who opened
// the old node at the same moment needs the new one as well, and a replaced file must not be served
// under the old one's identity.
#pragma once

#include <cstdint>

#include "engine/planted.h"
#include "engine/version_rules.h"

namespace ncfs {

// What to do when the kernel should look up again.
enum class StaleOpen : std::uint8_t {
  estale,  // tell it so
  inval,   // never ESTALE, for users of the mount that do not try again (overlayfs, nfsd): tell the
           // kernel to drop what it has, and serve the open as if it could not be told
};

enum class NameLeads : std::uint8_t { to_the_file, to_another, nowhere };

struct OpenSituation {
  NameLeads name = NameLeads::to_the_file;
  Sameness content = Sameness::same;  // of the node's file; if the name leads there
  StaleOpen policy = StaleOpen::estale;
  bool was_just_told = false;  // this thread, by its last open
  bool is_same_node = false;   // and that was about this node: it has no name to look up
  bool is_held = false;        // the node's file is open
};

enum class OpenVerdict : std::uint8_t {
  keep_pages,       // what the page cache holds of the node is right
  drop_pages,       // as far as can be told it is the same, but nothing vouches for the pages
  look_up_again,    // ESTALE
  read_past_pages,  // the node's file, whatever the kernel believes of the node
  serve_held,       // the node's file through one of its handles; it has no name any more
  serve_named,      // what has the name now, whatever the kernel believes of the node
  absent,           // ENOENT
};

[[nodiscard]] inline OpenVerdict decide_open(const OpenSituation& open) {
  if (open.name == NameLeads::to_the_file) {
    if (open.content == Sameness::same) return OpenVerdict::keep_pages;
    if (open.content == Sameness::unproven) return OpenVerdict::drop_pages;
  } else if (NCFS_PLANT(name_not_revalidated)) {
    return OpenVerdict::keep_pages;
  }
  const bool was_just_told = open.was_just_told && !NCFS_PLANT(stale_told_twice);
  const bool may_be_told = open.policy == StaleOpen::estale || NCFS_PLANT(inval_ignored);
  if (may_be_told && !was_just_told) return OpenVerdict::look_up_again;
  if (open.name == NameLeads::to_the_file) return OpenVerdict::read_past_pages;
  if (open.is_held) return OpenVerdict::serve_held;
  const bool has_no_name = open.was_just_told && open.is_same_node;
  if (open.name == NameLeads::nowhere || has_no_name) return OpenVerdict::absent;
  return OpenVerdict::serve_named;
}

}  // namespace ncfs
