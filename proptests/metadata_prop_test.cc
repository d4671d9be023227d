// The metadata cache keeps every invariant of sim/metadata_world.h in random plans, and every kind
// of change by others is seen when its timeout is over and no later.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstdio>
#include <ostream>
#include <string>
#include <utility>

#include "sim/metadata_world.h"

namespace rc {

template <>
struct Arbitrary<ncfs::MetadataStep> {
  static Gen<ncfs::MetadataStep> arbitrary() {
    const auto number = gen::inRange<std::uint32_t>(0, 64);
    const auto op = gen::map(gen::inRange(0, static_cast<int>(ncfs::MetadataOp::kCount)),
                             [](int value) { return static_cast<ncfs::MetadataOp>(value); });
    return gen::build<ncfs::MetadataStep>(
        gen::set(&ncfs::MetadataStep::op, op), gen::set(&ncfs::MetadataStep::a, number),
        gen::set(&ncfs::MetadataStep::b, number), gen::set(&ncfs::MetadataStep::c, number));
  }
};

}  // namespace rc

namespace ncfs {

void showValue(const MetadataStep& step, std::ostream& out) {
  out << "{op " << static_cast<int>(step.op) << ", " << step.a << ", " << step.b << ", " << step.c
      << "}";
}

namespace {

RC_GTEST_PROP(MetadataPlans, KeepEveryInvariantWhateverTheOrder, (const MetadataPlan& plan)) {
  Rng rng(*rc::gen::arbitrary<std::uint64_t>());
  const auto violation = run_metadata_plan(make_metadata_knobs(rng), plan);
  if (violation) RC_LOG() << violation->name << ": " << violation->message;
  RC_ASSERT(!violation);
}

TEST(MetadataPlans, SwarmKeepsEveryInvariant) {
  for (std::uint64_t seed = 0; seed < 10'000; ++seed) {
    Rng rng(seed);
    const MetadataKnobs knobs = make_metadata_knobs(rng);
    const auto violation = run_metadata_plan(knobs, make_metadata_plan(rng, 300));
    ASSERT_FALSE(violation) << "seed " << seed << ": " << violation->name << ": "
                            << violation->message;
  }
}

// -- How late a change by others is seen --

constexpr FileId kDirectory{1, 2};
constexpr FileId kFile{1, 10};

FileAttributes attributes_of(const FileId& id, std::uint32_t mode, std::int64_t version,
                             std::uint64_t size = 100) {
  FileAttributes attributes;
  attributes.seen = {id, {size, version, version}, {}, 3600 * static_cast<std::int64_t>(kSecond)};
  attributes.mode = mode;
  return attributes;
}

// What a name of kDirectory leads to on the backend.
using Truth = std::optional<FileAttributes>;

// The kernel and the cache together, with the backend asked only when neither knows.
class Observer {
 public:
  explicit Observer(const MetadataConfig& config) : cache_(config) {}

  // What stat(2) of the name tells at `now`.
  Truth stat(Nanos now, const Truth& truth) {
    const bool knows_name = now < entry_until_;
    const bool knows_attributes = !seen_ || now < attributes_until_;
    if (knows_name && knows_attributes) return seen_;
    if (knows_name) {
      get_attributes(now, truth);
    } else {
      look_up(now, truth);
    }
    return seen_;
  }

 private:
  void look_up(Nanos now, const Truth& truth) {
    auto answer = cache_.find_name(now, kDirectory, "name", Viewer::anyone());
    if (!answer) {
      const auto ticket = cache_.begin(now, kDirectory);
      answer = truth ? cache_.found(now, ticket, kDirectory, "name", *truth, Viewer::anyone())
                     : cache_.absent(now, ticket, kDirectory, "name", Viewer::anyone());
    }
    seen_ = answer->attributes;
    entry_until_ = now + answer->entry_left;
    attributes_until_ = now + answer->attributes_left;
  }

  // Of the file that the name is believed to lead to, which an open descriptor could have too.
  void get_attributes(Nanos now, const Truth& truth) {
    const FileId file = seen_->seen.file;
    if (auto answer = cache_.find_attributes(now, file, Viewer::anyone())) {
      seen_ = answer->attributes;
      attributes_until_ = now + answer->left;
      return;
    }
    if (!truth || truth->seen.file != file) return look_up(now, truth);  // ESTALE
    const auto ticket = cache_.begin(now, file);
    attributes_until_ = now + cache_.learn_attributes(now, ticket, *truth, Viewer::anyone());
    seen_ = truth;
  }

  MetadataCache cache_;
  Truth seen_;
  Nanos entry_until_ = 0;
  Nanos attributes_until_ = 0;
};

bool are_same(const Truth& left, const Truth& right) {
  if (!left || !right) return !left && !right;
  return left->seen.file == right->seen.file && left->seen.version == right->seen.version &&
         left->mode == right->mode;
}

struct Change {
  const char* kind;
  Truth before;
  Truth after;
  Nanos MetadataConfig::*timeout;
};

std::vector<Change> every_change() {
  const FileAttributes file = attributes_of(kFile, 0100644, 1);
  const FileAttributes directory = attributes_of(kFile, 0040755, 1);
  using Config = MetadataConfig;
  return {
      {"create", {}, file, &Config::negative_timeout},
      {"delete", file, {}, &Config::entry_timeout},
      {"remove directory", directory, {}, &Config::dir_entry_timeout},
      {"rename over", file, attributes_of({1, 11}, 0100644, 1), &Config::entry_timeout},
      {"replace by a directory", file, attributes_of({1, 11}, 0040755, 1), &Config::entry_timeout},
      {"replace a directory", directory, attributes_of({1, 11}, 0040755, 1),
       &Config::dir_entry_timeout},
      {"grow", file, attributes_of(kFile, 0100644, 2, 200), &Config::attr_timeout},
      {"shrink", file, attributes_of(kFile, 0100644, 2, 50), &Config::attr_timeout},
      {"write in place", file, attributes_of(kFile, 0100644, 2), &Config::attr_timeout},
      {"chmod", file, attributes_of(kFile, 0100600, 2), &Config::attr_timeout},
      {"chmod of a directory", directory, attributes_of(kFile, 0040700, 2),
       &Config::dir_attr_timeout},
  };
}

// Believed until its own timeout is over, by name or by attributes: whichever is shorter shows it.
void expect_seen_in_time(const MetadataConfig& config, const Change& change) {
  SCOPED_TRACE(change.kind);
  Observer observer(config);
  constexpr Nanos kStart = 7;
  ASSERT_TRUE(are_same(observer.stat(kStart, change.before), change.before));
  const Nanos timeout = config.*change.timeout;
  // Looking often keeps nothing alive.
  for (Nanos part = 1; part < 10; ++part) {
    const Nanos now = kStart + timeout / 10 * part;
    if (timeout == 0) break;
    ASSERT_TRUE(are_same(observer.stat(now, change.after), change.before)) << part;
  }
  if (timeout > 0) {
    EXPECT_TRUE(are_same(observer.stat(kStart + timeout - 1, change.after), change.before));
  }
  EXPECT_TRUE(are_same(observer.stat(kStart + timeout, change.after), change.after));
}

TEST(MetadataVisibility, EveryChangeIsSeenWhenItsTimeoutIsOverInEveryProfile) {
  for (const MetadataProfile profile :
       {MetadataProfile::strict, MetadataProfile::normal, MetadataProfile::unchanged}) {
    SCOPED_TRACE(static_cast<int>(profile));
    for (const Change& change : every_change()) {
      expect_seen_in_time(metadata_config(profile), change);
    }
  }
}

// Each timeout alone: the one that governs the change is shorter than all others.
TEST(MetadataVisibility, EveryChangeIsGovernedByItsOwnTimeout) {
  for (const Change& change : every_change()) {
    MetadataConfig config = metadata_config(MetadataProfile::unchanged);
    config.*change.timeout = 5 * kSecond;
    expect_seen_in_time(config, change);
  }
}

}  // namespace
}  // namespace ncfs
