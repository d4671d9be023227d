// Does the net of MetadataWorld catch fish? Every bug of NCFS_METADATA_BUGS is planted in turn and
// must be caught under the name of the invariant it breaks.
#include <gmock/gmock.h>

#include <cstdio>
#include <optional>
#include <string>

#include "engine/planted.h"
#include "io/assert.h"
#include "proptests/planted_bug.h"
#include "sim/metadata_world.h"

namespace ncfs {
namespace {

constexpr std::uint64_t kPlansMax = 4000;

const PlantedBug kPlantedBugs[] = {NCFS_METADATA_BUGS(NCFS_PLANTED_BUG)};

std::optional<Violation> first_catch(std::uint64_t plans) {
  for (std::uint64_t seed = 0; seed < plans; ++seed) {
    Rng rng(seed);
    const MetadataKnobs knobs = make_metadata_knobs(rng);
    const MetadataPlan plan = make_metadata_plan(rng, 300);
    std::optional<Violation> violation;
    try {
      violation = run_metadata_plan(knobs, plan);
    } catch (const BrokenAssertion& broken) {
      violation = Violation{"M5 Bytes", broken.condition};
    }
    if (!violation) continue;
    violation->message += ", by plan " + std::to_string(seed);
    return violation;
  }
  return std::nullopt;
}

class MetadataPlanted : public testing::TestWithParam<PlantedBug> {
 protected:
  ~MetadataPlanted() override { planted_bug = Bug::none; }
};

TEST_P(MetadataPlanted, IsCaughtUnderItsName) {
  planted_bug = GetParam().bug;
  const std::optional<Violation> caught = first_catch(kPlansMax);
  ASSERT_TRUE(caught) << GetParam().what_is_wrong << ": not caught";
  std::printf("%s: %s\n", caught->name.c_str(), caught->message.c_str());
  EXPECT_THAT(GetParam().invariants, testing::HasSubstr(caught->name));
}

INSTANTIATE_TEST_SUITE_P(MetadataCache, MetadataPlanted, testing::ValuesIn(kPlantedBugs),
                         [](const auto& planted) { return std::string(planted.param.name); });

TEST(MetadataUnplanted, NothingIsCaught) {
  const std::optional<Violation> caught = first_catch(100);
  EXPECT_FALSE(caught) << caught->name << ": " << caught->message;
}

}  // namespace
}  // namespace ncfs
