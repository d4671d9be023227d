// NCFS_ASSERT: a broken invariant ends the process, in release builds too. Operating errors are
// values and never come here.
#pragma once

#include <cstdio>
#include <cstdlib>

#define NCFS_ASSERT(condition)                                                                   \
  (static_cast<bool>(condition)                                                                  \
       ? static_cast<void>(0)                                                                    \
       : (std::fprintf(stderr, "%s:%d: invariant broken: %s\n", __FILE__, __LINE__, #condition), \
          std::abort()))
