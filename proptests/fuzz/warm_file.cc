// The file WARM of a cache directory, with wrong checksums and with right ones.
#include "fuse_adapter/warm_store.h"
#include "proptests/fuzz/fuzz_target.h"
#include "proptests/fuzz/sealed.h"

namespace ncfs {
namespace {

void check(std::span<const std::byte> bytes) {
  const auto jobs = decode_warm_jobs(bytes);
  if (!jobs) return;
  fuzz::require(decode_warm_jobs(encode_warm_jobs(*jobs)).has_value(),
                "what is decoded can be stored again");
}

}  // namespace
}  // namespace ncfs

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = ncfs::fuzz::bytes_of(data, size);
  ncfs::check(bytes);
  ncfs::check(ncfs::fuzz::sealed(bytes));
  return 0;
}
