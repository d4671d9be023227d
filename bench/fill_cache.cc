// fill_cache DIRECTORY COUNT: makes a cache directory that holds COUNT complete objects of one
// byte, of files that nobody will open. The names, sidecars and layout are those of the product;
// nothing is synced.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include "engine/format.h"
#include "io/cache_directory.h"
#include "io/descriptor.h"

namespace {

bool make_file(int root, const std::string& name, std::span<const std::byte> bytes) {
  const ncfs::Descriptor file(
      ::openat(root, name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
  return file.is_open() && ::write(file.get(), bytes.data(), bytes.size()) == std::ssize(bytes);
}

bool make_object(int root, std::uint64_t number) {
  ncfs::Sidecar sidecar;
  sidecar.file = {1, number};
  sidecar.version = {1, 1'000'000'000, 1'000'000'000};
  sidecar.serial = number;
  sidecar.block_size_bytes = ncfs::kMiB;
  // As long as paths of data sets are.
  sidecar.path = "datasets/imagenet/train/n01440764/n01440764_" + std::to_string(number) + ".JPEG";
  sidecar.durable = ncfs::BlockSet(1);
  sidecar.durable.set(0);
  const std::string stem = ncfs::object_stem(sidecar.file, sidecar.version, sidecar.serial);
  const std::byte data{0x78};
  return make_file(root, stem + std::string(suffix(ncfs::NameKind::data)), {&data, 1}) &&
         make_file(root, stem + std::string(suffix(ncfs::NameKind::sidecar)), encode(sidecar));
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::fputs("usage: fill_cache DIRECTORY COUNT\n", stderr);
    return 1;
  }
  const ncfs::CacheDirectoryResult cache = ncfs::open_cache_directory(arguments[1]);
  if (!cache.directory) {
    std::fprintf(stderr, "%s\n", cache.error.c_str());
    return 1;
  }
  const std::uint64_t objects = std::strtoull(arguments[2], nullptr, 10);
  for (std::uint64_t number = 1; number <= objects; ++number) {
    if (!make_object(cache.directory->objects.get(), number)) {
      std::perror(arguments[1]);
      return 1;
    }
  }
  return 0;
}
