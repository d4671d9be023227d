// NCFS_ASSERT: a broken invariant ends the process, in release builds too. Operating errors are
// values and never come here. `&& "S5 Pins"` in a condition names the invariant of ARCHITECTURE.md
// that it is part of.
#pragma once

#include <cstdio>
#include <cstdlib>

#ifdef NCFS_CANARY
// Only in tests of the tests, see engine/planted.h: there a broken invariant is what is hoped for.
namespace ncfs {
struct BrokenAssertion {
  const char* file;
  const char* condition;
};
}  // namespace ncfs
#define NCFS_ASSERT(condition)                         \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : throw ::ncfs::BrokenAssertion{__FILE__, #condition})
#else
#define NCFS_ASSERT(condition)                                                                   \
  (static_cast<bool>(condition)                                                                  \
       ? static_cast<void>(0)                                                                    \
       : (std::fprintf(stderr, "%s:%d: invariant broken: %s\n", __FILE__, __LINE__, #condition), \
          std::abort()))
#endif
