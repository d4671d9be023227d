// Method: real mounts beneath a directory, and probes that the test answers.
#include "fuse_adapter/backends.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <thread>

#include "io/monotonic_clock.h"
#include "io/temp_directory.h"

namespace ncfs {
namespace {

bool comes_true(const std::function<bool()>& condition) {
  const Nanos deadline = monotonic_now() + 60 * kSecond;
  while (monotonic_now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

class BackendsTest : public testing::Test {
 protected:
  BackendsTest() : root_(directory_.open("", O_PATH | O_DIRECTORY)) {}

  // Probes wait for the test.
  void make() {
    backends_ = std::make_unique<Backends>(
        Backends::Options{.root = root_.get(),
                          .probe =
                              [answer = answer_, probes = probes_](const std::string&) {
                                ++*probes;
                                return answer->get_future().get();
                              },
                          .probe_patience = 50 * kMillisecond});
  }
  bool comes_to_be(BackendState state) {
    return comes_true([&] { return backends_->status().front().state == state; });
  }

  TempDirectory directory_;
  Descriptor root_;
  std::shared_ptr<std::promise<int>> answer_ = std::make_shared<std::promise<int>>();
  std::shared_ptr<std::atomic<int>> probes_ = std::make_shared<std::atomic<int>>(0);
  std::unique_ptr<Backends> backends_;
};

TEST_F(BackendsTest, OneThatDoesNotAnswerIsDownUntilTheProbeReturns) {
  make();
  const Backends::Device root = backends_->root();
  backends_->answered(root, ENOENT);
  EXPECT_EQ(backends_->status().front().changes, 0U);
  backends_->answered(root, ETIMEDOUT);
  EXPECT_TRUE(comes_to_be(BackendState::down));
  EXPECT_TRUE(backends_->is_down(root));
  EXPECT_EQ(*probes_, 1);
  answer_->set_value(0);
  EXPECT_TRUE(comes_to_be(BackendState::up));
  EXPECT_FALSE(backends_->is_down(root));
  EXPECT_EQ(*probes_, 1);
}

TEST_F(BackendsTest, AProbeThatNeverReturnsIsLeftBehind) {
  make();
  backends_->answered(backends_->root(), ETIMEDOUT);
  EXPECT_TRUE(comes_true([&] { return *probes_ == 1; }));
  backends_.reset();
  answer_->set_value(0);
}

TEST_F(BackendsTest, FileSystemsBeneathAreKnownByTheirMounts) {
  // What is mounted goes with the test, whatever becomes of it.
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    GTEST_SKIP() << "no mounts of its own";
  }
  make();
  const std::string place = directory_.path("nested");
  ASSERT_EQ(::mkdir(place.c_str(), 0700), 0);
  EXPECT_EQ(backends_->device_at("nested/file"), backends_->root());
  ASSERT_EQ(::mount("ncfs-test", place.c_str(), "tmpfs", 0, nullptr), 0);
  struct stat nested {};
  EXPECT_EQ(::stat(place.c_str(), &nested), 0);
  EXPECT_TRUE(comes_true([&] { return backends_->are_several(); }));
  EXPECT_EQ(backends_->device_at("nested/directory/file"), nested.st_dev);
  EXPECT_EQ(backends_->device_at("nested"), nested.st_dev);
  EXPECT_EQ(backends_->device_at("nested2/file"), backends_->root());
  EXPECT_EQ(backends_->device_at(""), backends_->root());
  // It is judged by itself.
  backends_->answered(nested.st_dev, ETIMEDOUT);
  EXPECT_TRUE(comes_true([&] { return backends_->is_down(nested.st_dev); }));
  EXPECT_FALSE(backends_->is_down(backends_->root()));
  ASSERT_EQ(backends_->status().size(), 2U);
  EXPECT_EQ(backends_->status().back().path, "nested");
  answer_->set_value(0);
  EXPECT_TRUE(comes_true([&] { return !backends_->is_down(nested.st_dev); }));
  EXPECT_EQ(::umount2(place.c_str(), MNT_DETACH), 0);
  EXPECT_TRUE(comes_true([&] { return !backends_->are_several(); }));
}

TEST_F(BackendsTest, TheRealProbeAsksTheRealDirectory) {
  backends_ = std::make_unique<Backends>(Backends::Options{.root = root_.get()});
  backends_->answered(backends_->root(), ECONNREFUSED);
  EXPECT_TRUE(comes_true([&] { return backends_->status().front().changes == 2; }));
  EXPECT_EQ(backends_->status().front().state, BackendState::up);
}

TEST_F(BackendsTest, ARootThatIsAbsentIsDownUntilItIsFound) {
  auto find_error = std::make_shared<std::atomic<int>>(ENOENT);
  const int root = root_.get();
  backends_ = std::make_unique<Backends>(Backends::Options{.root = root,
                                                           .absent = ETIMEDOUT,
                                                           .find =
                                                               [find_error, finds = probes_] {
                                                                 ++*finds;
                                                                 return find_error->load();
                                                               },
                                                           .path = "/absent"});
  EXPECT_TRUE(backends_->is_down(backends_->root()));
  EXPECT_TRUE(backends_->is_down(backends_->device_at("a/b")));
  EXPECT_EQ(backends_->status().front().last_error, ETIMEDOUT);
  // Not even an answer that would do for a root that is known is an answer.
  EXPECT_TRUE(comes_true([&] { return *probes_ >= 2; }));
  EXPECT_EQ(backends_->status().front().state, BackendState::down);
  *find_error = 0;
  EXPECT_TRUE(comes_to_be(BackendState::up));
  struct stat status {};
  ASSERT_EQ(::fstat(root, &status), 0);
  EXPECT_EQ(backends_->root(), status.st_dev);
  EXPECT_FALSE(backends_->is_down(backends_->root()));
  EXPECT_EQ(backends_->device_at("a/b"), status.st_dev);
  EXPECT_EQ(backends_->status().size(), 1U);
}

}  // namespace
}  // namespace ncfs
