// For tests: what the Runtime would say, said by the test. Linked in place of runtime.cc.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "fuse_adapter/runtime.h"

namespace ncfs {

// Set before requests come. The functions are called on whatever thread asks.
struct FakeEngine {
  FakeEngine() { current = this; }
  ~FakeEngine() { current = nullptr; }

  std::function<OpenResult(const std::string& path)> on_open = [](const std::string&) {
    return OpenResult{};
  };
  std::function<void(int source, ByteRange range, bool skip_cache,
                     const std::function<void(const ReadOutcome&)>& done)>
      on_read;
  std::atomic<int> handles_open{0};
  std::atomic<int> cache_faults{0};
  // The answer to disown(), at once; and how often was asked.
  std::atomic<int> disown_error{0};
  std::atomic<int> disowns{0};
  std::atomic<int> rekeys{0};

  static FakeEngine* current;
};

}  // namespace ncfs
