// Sidecars of cache files: those with a wrong checksum, and any bytes with the right one.
#include "engine/format.h"
#include "proptests/fuzz/fuzz_target.h"
#include "proptests/fuzz/sealed.h"

namespace ncfs {
namespace {

void check(std::span<const std::byte> bytes) {
  const auto sidecar = decode(bytes);
  if (!sidecar) return;
  const auto again = decode(encode(*sidecar));
  fuzz::require(again && encode(*again) == encode(*sidecar), "what is decoded can be stored again");
}

}  // namespace
}  // namespace ncfs

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = ncfs::fuzz::bytes_of(data, size);
  ncfs::check(bytes);
  ncfs::check(ncfs::fuzz::sealed(bytes));
  return 0;
}
