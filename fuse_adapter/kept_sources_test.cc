#include "fuse_adapter/kept_sources.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

namespace ncfs {
namespace {

constexpr SourceVersion kVersion{.size = 1, .mtime_ns = 2, .ctime_ns = 3};

class KeptSourcesTest : public testing::Test {
 protected:
  // A file of its own for each number; every kept descriptor is the writing end of a pipe, so the
  // reading end tells when the last one is closed.
  struct Pipe {
    Descriptor reader;
    Descriptor writer;
  };
  static Pipe make_pipe() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    return {Descriptor(ends[0]), Descriptor(ends[1])};
  }
  [[nodiscard]] static bool is_closed(const Pipe& pipe) {
    char byte = 0;
    return ::read(pipe.reader.get(), &byte, 1) == 0;
  }
  Pipe keep(std::uint64_t inode) {
    Pipe pipe = make_pipe();
    SourceState state;
    state.version = kVersion;
    state.age_ns = 7;
    kept_.keep({1, inode}, pipe.writer.get(), state);
    pipe.writer.reset();
    return pipe;
  }

  KeptSources kept_{2};
};

TEST_F(KeptSourcesTest, WhatWasKeptIsFoundInItsVersion) {
  const Pipe pipe = keep(1);
  const auto found = kept_.find({1, 1}, kVersion);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->state.version, kVersion);
  EXPECT_EQ(found->state.age_ns, 7);
  EXPECT_EQ(::write(found->source.get(), "x", 1), 1);
  SourceVersion other = kVersion;
  other.ctime_ns = 4;
  EXPECT_FALSE(kept_.find({1, 1}, other));
  EXPECT_FALSE(kept_.find({1, 2}, kVersion));
}

TEST_F(KeptSourcesTest, TheLeastRecentlyUsedIsClosedForANewOne) {
  const Pipe first = keep(1);
  const Pipe second = keep(2);
  EXPECT_TRUE(kept_.find({1, 1}, kVersion));
  const Pipe third = keep(3);
  EXPECT_TRUE(is_closed(second));
  EXPECT_FALSE(is_closed(first));
  EXPECT_FALSE(is_closed(third));
}

TEST_F(KeptSourcesTest, WhatIsDroppedIsClosed) {
  const Pipe first = keep(1);
  const Pipe replaced = keep(2);
  const Pipe second = keep(2);
  EXPECT_TRUE(is_closed(replaced));
  kept_.drop({1, 1});
  kept_.drop({1, 1});
  EXPECT_TRUE(is_closed(first));
  EXPECT_FALSE(kept_.find({1, 1}, kVersion));
  kept_.clear();
  EXPECT_TRUE(is_closed(second));
}

}  // namespace
}  // namespace ncfs
