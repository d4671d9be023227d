// The real driver keeps the laws of io.h.
#include "io/io_contract.h"

#include "io/posix_world.h"

namespace ncfs {
namespace {

std::unique_ptr<IoWorld> make_posix_world() {
  return std::make_unique<PosixWorld>();
}

INSTANTIATE_TEST_SUITE_P(Posix, IoContract, testing::Values(&make_posix_world),
                         [](const auto&) { return "Directory"; });

}  // namespace
}  // namespace ncfs
