// A cache directory with damaged files and with files of others, as seen by the real engine on the
// real driver: never fatal, never served, never followed out of the directory, and the cache goes
// on working.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <set>

#include "engine/format.h"
#include "fuse_adapter/test_runtime.h"
#include "io/cache_files.h"
#include "io/temp_directory.h"
#include "io/test_bytes.h"

namespace ncfs {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kBlock = 64 * kKiB;
constexpr std::uint64_t kFileBytes = 2 * kBlock + 100;

// One complete object, as a damage finds it.
struct Victim {
  fs::path stem;     // with the shard; the names are this with a suffix
  fs::path outside;  // a file beside the cache tree, of the object's size
  Sidecar sidecar;

  [[nodiscard]] fs::path name(NameKind kind) const {
    return stem.string() + std::string(suffix(kind));
  }
  [[nodiscard]] fs::path meta() const { return name(NameKind::sidecar); }
  [[nodiscard]] fs::path data() const { return name(NameKind::data); }
  [[nodiscard]] fs::path part() const { return name(NameKind::partial); }
  void store(const Sidecar& other) const { write_file(meta(), encode(other)); }
};

struct Damage {
  const char* name;
  std::function<void(const Victim&)> make;
  // What cannot be unlinked or is not ours is still there afterwards.
  bool stays = false;
  friend void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }
};

void replace_by_directory(const fs::path& path) {
  fs::remove(path);
  fs::create_directory(path);
  std::ofstream(path / "inside") << "x";
}
void replace_by_link(const fs::path& path, const fs::path& target) {
  fs::remove(path);
  fs::create_symlink(target, path);
}
void replace_by_fifo(const fs::path& path) {
  fs::remove(path);
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
}
void make_partial(const Victim& victim, std::uint64_t size_bytes) {
  fs::rename(victim.data(), victim.part());
  fs::resize_file(victim.part(), size_bytes);
}

const Damage kDamages[] = {
    {"random_sidecar", [](const Victim& v) { write_file(v.meta(), test_bytes(500, 9)); }},
    {"empty_sidecar", [](const Victim& v) { fs::resize_file(v.meta(), 0); }},
    {"cut_sidecar", [](const Victim& v) { fs::resize_file(v.meta(), 90); }},
    {"sidecar_of_a_terabyte", [](const Victim& v) { fs::resize_file(v.meta(), 1024 * kGiB); }},
    {"sidecar_of_64_mib", [](const Victim& v) { fs::resize_file(v.meta(), kCacheLoadMax); }},
    {"sidecar_of_another_object",
     [](const Victim& v) {
       Sidecar other = v.sidecar;
       other.serial += 1;
       v.store(other);
     }},
    {"cut_data", [](const Victim& v) { fs::resize_file(v.data(), kFileBytes - 1); }},
    {"grown_data", [](const Victim& v) { fs::resize_file(v.data(), kFileBytes + 1); }},
    {"no_data", [](const Victim& v) { fs::remove(v.data()); }},
    {"no_sidecar", [](const Victim& v) { fs::remove(v.meta()); }},
    {"directory_as_sidecar", [](const Victim& v) { replace_by_directory(v.meta()); }, true},
    {"directory_as_data", [](const Victim& v) { replace_by_directory(v.data()); }, true},
    {"directory_as_partial", [](const Victim& v) { replace_by_directory(v.part()); }, true},
    {"directory_as_temp",
     [](const Victim& v) { replace_by_directory(v.name(NameKind::sidecar_temp)); }, true},
    {"link_as_sidecar", [](const Victim& v) { replace_by_link(v.meta(), v.outside); }},
    {"link_as_data", [](const Victim& v) { replace_by_link(v.data(), v.outside); }},
    {"link_of_the_right_size_as_data",
     [](const Victim& v) {
       Sidecar small = v.sidecar;
       small.version.size = v.outside.string().size();
       small.durable = BlockSet(1);
       small.durable.set(0);
       fs::path other = v.stem.parent_path().parent_path() /
                        object_stem(small.file, small.version, small.serial);
       write_file(other.string() + std::string(suffix(NameKind::sidecar)), encode(small));
       fs::create_symlink(v.outside, other.string() + std::string(suffix(NameKind::data)));
     }},
    {"link_as_temp",
     [](const Victim& v) { replace_by_link(v.name(NameKind::sidecar_temp), v.outside); }},
    {"fifo_as_sidecar", [](const Victim& v) { replace_by_fifo(v.meta()); }},
    {"fifo_as_data", [](const Victim& v) { replace_by_fifo(v.data()); }},
    {"fifo_as_temp_of_a_partial_object",
     [](const Victim& v) {
       make_partial(v, kFileBytes);
       Sidecar first = v.sidecar;
       first.durable = BlockSet(3);
       first.durable.set(0);
       v.store(first);
       replace_by_fifo(v.name(NameKind::sidecar_temp));
     }},
    {"blocks_larger_than_any_file",
     [](const Victim& v) {
       make_partial(v, kFileBytes);
       Sidecar absurd = v.sidecar;
       absurd.block_size_bytes = std::numeric_limits<std::uint64_t>::max() - 4095;
       absurd.durable = BlockSet(0);
       absurd.checksums.clear();
       v.store(absurd);
     }},
    {"bits_missing_in_a_complete_object",
     [](const Victim& v) {
       Sidecar absurd = v.sidecar;
       absurd.durable = BlockSet(3);
       absurd.checksums.clear();
       v.store(absurd);
     }},
    {"path_leading_out",
     [](const Victim& v) {
       make_partial(v, kFileBytes);
       Sidecar absurd = v.sidecar;
       absurd.path = "../outside";
       absurd.durable = BlockSet(3);
       absurd.checksums.clear();
       v.store(absurd);
     }},
    {"names_of_others",
     [](const Victim& v) {
       for (const char* name : {"notes.txt", ".hidden", "x.meta", "a\nb.data"}) {
         std::ofstream(v.stem.parent_path() / name) << "x";
       }
     },
     true},
    {"directory_of_others",
     [](const Victim& v) { replace_by_directory(v.stem.parent_path() / "d"); }, true},
};

class DamagedCache : public testing::TestWithParam<Damage> {
 protected:
  DamagedCache() {
    fs::create_directory(temp_.path("source"));
    fs::create_directory(temp_.path("cache"));
    source_ = temp_.open("source", O_PATH | O_DIRECTORY);
    cache_ = temp_.open("cache", O_PATH | O_DIRECTORY);
    for (std::uint32_t shard = 0; shard < kShardCount; ++shard) {
      fs::create_directory(temp_.path("cache/" + shard_name(shard)));
    }
    for (unsigned file = 0; file < 2; ++file) {
      write_file(temp_.path("source/" + std::to_string(file)), test_bytes(kFileBytes, file));
    }
    write_file(temp_.path("outside"), test_bytes(kFileBytes, 7));
  }

  TestRuntime start() {
    return {small_config(64 * kMiB, kBlock, ++runs_ * 1'000'000), source_.get(), cache_.get()};
  }

  [[nodiscard]] Victim first_object() const {
    for (const auto& entry : fs::recursive_directory_iterator(temp_.path("cache"))) {
      if (entry.path().extension() != suffix(NameKind::sidecar)) continue;
      std::vector<std::byte> bytes;
      EXPECT_EQ(load_file(cache_.get(), fs::relative(entry.path(), temp_.path("cache")), bytes), 0);
      const std::optional<Sidecar> sidecar = decode(bytes);
      EXPECT_TRUE(sidecar);
      return {fs::path(entry.path()).replace_extension(), temp_.path("outside"), *sidecar};
    }
    ADD_FAILURE() << "no object";
    return {};
  }

  [[nodiscard]] std::set<fs::path> names() const {
    std::set<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(temp_.path("cache"))) {
      found.insert(entry.path());
    }
    return found;
  }

  TempDirectory temp_;
  Descriptor source_;
  Descriptor cache_;
  std::uint64_t runs_ = 0;
};

TEST_P(DamagedCache, IsNeitherFatalNorServed) {
  {
    TestRuntime runtime = start();
    for (const char* file : {"0", "1"}) {
      ASSERT_EQ(runtime.warm(file).kind, WarmResult::Kind::copied);
    }
    runtime.stop();
  }
  const std::set<fs::path> before = names();
  const Victim victim = first_object();
  GetParam().make(victim);
  std::set<fs::path> made = names();
  for (const fs::path& name : before) made.erase(name);
  {
    TestRuntime runtime = start();
    for (unsigned file = 0; file < 2; ++file) {
      EXPECT_EQ(runtime.read_file(std::to_string(file)).bytes, test_bytes(kFileBytes, file));
    }
    // A cache that does not get to know what it holds keeps nothing new.
    ASSERT_TRUE(runtime.wait_until([](const EngineStatus& s) { return !s.is_recovering; }));
    for (const char* file : {"0", "1"}) {
      const WarmResult warmed = runtime.warm(file);
      EXPECT_NE(warmed.kind, WarmResult::Kind::failed) << warmed.error;
      EXPECT_NE(warmed.kind, WarmResult::Kind::skipped);
    }
    EXPECT_TRUE(runtime.wait_until([](const EngineStatus& s) {
      return s.objects_cached == 2 && s.copies.empty() && s.objects_partial == 0;
    }));
    EXPECT_EQ(runtime.status().cache_errors, 0U);
    runtime.stop();
  }
  {
    TestRuntime runtime = start();
    for (unsigned file = 0; file < 2; ++file) {
      const TestRuntime::FileRead read = runtime.read_file(std::to_string(file));
      EXPECT_EQ(read.reason, OpenReason::cached);
      EXPECT_EQ(read.bytes, test_bytes(kFileBytes, file));
    }
    runtime.stop();
  }
  std::vector<std::byte> outside(kFileBytes);
  std::ifstream(temp_.path("outside"), std::ios::binary)
      .read(reinterpret_cast<char*>(outside.data()), std::ssize(outside));
  EXPECT_EQ(outside, test_bytes(kFileBytes, 7));
  for (const fs::path& name : made) {
    EXPECT_EQ(fs::exists(fs::symlink_status(name)), GetParam().stays) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, DamagedCache, testing::ValuesIn(kDamages),
                         [](const auto& damage) { return damage.param.name; });

}  // namespace
}  // namespace ncfs
