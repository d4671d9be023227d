// Cache files that the kernel reads by itself for handles, and mappings, that were opened before we
// changed the file: the daemon cannot call them back, so what they read has to change.
//
// First the engine disowns the object: no open and no restart is given it any more. Then the cache
// file is made to hold in the changed range what the source holds, each time anew, so that the
// order of changes does not matter: whoever comes last has read what all have written. It becomes
// larger only when the engine has room for it.
#pragma once

#include "fuse_adapter/open_files.h"
#include "io/types.h"

namespace ncfs {

class FuseCore;

// `range` of the source was changed, or its size; kToTheEnd as in content_changes.h. Returns when
// the cache file of `reader` shows it, or cannot: then it is left as it is, for good. Waits for the
// source and the cache disk, for room no longer than the deadline of one request of the cache. Any
// thread but the engine's.
void follow_change(FuseCore& core, OpenFile& reader, ByteRange range);

// What the cache has of the file is no copy of it any more; see DisownEvent. An errno, if a restart
// may find it again. Waits for the cache disk. Any thread but the engine's.
int disown_file(FuseCore& core, const FileId& file);

}  // namespace ncfs
