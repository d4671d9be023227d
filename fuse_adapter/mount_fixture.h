// For tests: a real mount of a real directory, served by this process.
//
// A guard process outlives a test that dies: it unmounts and removes what the test has left, so
// that no outcome leaves a mount behind.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "fuse_adapter/backends.h"
#include "fuse_adapter/cachefs.h"
#include "fuse_adapter/runtime.h"
#include "io/cache_directory.h"
#include "io/descriptor.h"

namespace ncfs {

class GaneshaServer;
class NfsBackend;
class WarmJobs;

// The ways in which the kernel may read without the daemon.
enum class PassedFiles : std::uint8_t { all, cached, none };
[[nodiscard]] inline auto every_passthrough() {
  return testing::Values(PassedFiles::all, PassedFiles::cached, PassedFiles::none);
}
[[nodiscard]] inline std::string passthrough_name(const testing::TestParamInfo<PassedFiles>& info) {
  return info.param == PassedFiles::none     ? "Off"
         : info.param == PassedFiles::cached ? "Cached"
                                             : "On";
}

struct TestMountOptions {
  PassedFiles passthrough = PassedFiles::all;
  std::uint64_t cache_size_bytes = 256 * kMiB;
  // The files of most tests were written a moment ago.
  Nanos racy_window = 0;
  bool direct_io = true;
  Nanos source_deadline = 180 * kSecond;
  Checksum checksum = Checksum::copy;
  bool read_only = false;
  std::uint32_t min_free_percent = 1;
  LockPlace locks = LockPlace::backend;
  MetadataConfig metadata = {};  // but for racy_window
  StaleOpen stale_open = StaleOpen::estale;
  std::string backend = {};  // of another mount, to share; empty: its own
  Nanos closing_patience = MountSettings{}.closing_patience;
  unsigned long mount_flags = 0;  // MS_* of mount(2), besides nosuid and nodev
};

class TestMount {
 public:
  TestMount();
  ~TestMount();
  TestMount(const TestMount&) = delete;
  TestMount& operator=(const TestMount&) = delete;

  // Mounts the backend; everything below is as it was left.
  void start(const TestMountOptions& options);
  void stop();

  // An empty directory beside those below.
  [[nodiscard]] std::string make_directory(const std::string& name) const;
  [[nodiscard]] std::string backend(const std::string& path = "") const;
  [[nodiscard]] std::string mounted(const std::string& path = "") const;
  [[nodiscard]] std::string cache(const std::string& path = "") const;

  [[nodiscard]] CacheFs& file_system() { return *file_system_; }
  [[nodiscard]] const AdapterStats& stats() const { return file_system_->stats(); }
  [[nodiscard]] bool passes_through() const { return file_system_->passthrough_active(); }

  [[nodiscard]] Runtime& runtime() { return *runtime_; }
  [[nodiscard]] Backends& backends() { return *backends_; }
  // Names of the data files of complete objects.
  [[nodiscard]] std::vector<std::string> cached_data() const;

  [[nodiscard]] EngineStatus engine_status() { return runtime_->status(); }
  // Whether the engine comes to say so, within far more time than it needs.
  [[nodiscard]] bool wait_until(const std::function<bool(const EngineStatus&)>& condition);
  // Reads the file and waits until the copy that this starts has ended.
  void bring_into_cache(const std::string& path);

 private:
  void remove_everything() const;

  std::string directory_;
  pid_t guard_ = -1;
  Descriptor guard_pipe_;
  std::unique_ptr<GaneshaServer> server_;  // with NCFS_TEST_OVER_NFS
  std::unique_ptr<NfsBackend> nfs_;        // the same
  Descriptor source_;
  std::optional<CacheDirectory> cache_;
  std::shared_ptr<Backends> backends_;
  std::unique_ptr<Runtime> runtime_;
  std::shared_ptr<WarmJobs> warm_jobs_;
  std::unique_ptr<CacheFs> file_system_;
  std::thread serving_;
};

// Content that tells which file, version and place it belongs to.
[[nodiscard]] std::vector<std::byte> content(std::uint64_t file, std::uint64_t version,
                                             std::uint64_t size);
void write_content(const std::string& path, std::span<const std::byte> bytes);

// The whole file, or what went wrong.
struct FileRead {
  int error = 0;
  std::vector<std::byte> bytes;
};
[[nodiscard]] FileRead read_file(const std::string& path);
[[nodiscard]] FileRead read_descriptor(int descriptor);

// What the condition says in a process of its own that has become another user; false if it died.
[[nodiscard]] bool as_user(uid_t user, gid_t group, const std::function<bool()>& condition);

}  // namespace ncfs
