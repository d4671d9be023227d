#include "engine/metadata_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "engine/open_rules.h"
#include "engine/version_rules.h"

namespace ncfs {
namespace {

constexpr FileId kDirectory{1, 2};
constexpr FileId kFile{1, 10};
const Viewer kAnyone = Viewer::anyone();
const Viewer kAlice = Viewer::caller(1000, 1000, 7);
const Viewer kBob = Viewer::caller(1001, 1000, 7);

// A file changed long ago, at `version`.
FileAttributes file_at(std::int64_t version, FileId id = kFile) {
  FileAttributes attributes;
  attributes.seen = {id, {100, version, version}, {}, 60 * static_cast<std::int64_t>(kSecond)};
  attributes.mode = 0100644;
  return attributes;
}

FileAttributes directory_at(std::int64_t version) {
  FileAttributes attributes = file_at(version, kDirectory);
  attributes.mode = 0040755;
  return attributes;
}

MetadataCache::Snapshot listing_of(const std::vector<std::string>& names) {
  auto snapshot = std::make_shared<DirectorySnapshot>();
  for (const std::string& name : names) snapshot->add(name, 10, 0100000);
  snapshot->finish();
  return snapshot;
}

// The answers of a backend that needs no time.
struct Asked {
  MetadataCache& cache;
  Nanos now;

  MetadataCache::NameAnswer found(std::string_view name, const FileAttributes& attributes,
                                  const Viewer& viewer = kAnyone) const {
    const auto ticket = cache.begin(now, kDirectory);
    return cache.found(now, ticket, kDirectory, name, attributes, viewer);
  }
  MetadataCache::NameAnswer absent(std::string_view name) const {
    const auto ticket = cache.begin(now, kDirectory);
    return cache.absent(now, ticket, kDirectory, name, kAnyone);
  }
  Nanos learn(const FileAttributes& attributes, const Viewer& viewer = kAnyone) const {
    const auto ticket = cache.begin(now, attributes.seen.file);
    return cache.learn_attributes(now, ticket, attributes, viewer);
  }
  void list(const FileAttributes& directory, const std::vector<std::string>& names,
            const Viewer& asker = kAlice) const {
    learn(directory);
    const auto ticket = cache.begin(now, kDirectory);
    cache.learn_listing(ticket, directory.seen, directory.seen, listing_of(names), asker);
  }
  MetadataCache::Snapshot validate(const FileAttributes& directory,
                                   const Viewer& asker = kAlice) const {
    const auto ticket = cache.begin(now, kDirectory);
    return cache.validate(now, ticket, directory, kAnyone, asker, true);
  }
};

TEST(VersionRules, EveryPartOfTheVersionTells) {
  const Observation seen = file_at(5).seen;
  EXPECT_EQ(compare(seen, seen, 2 * kSecond), Sameness::same);
  Observation other = seen;
  other.version.size = 101;
  EXPECT_EQ(compare(seen, other, 2 * kSecond), Sameness::changed);
  other = seen;
  other.version.mtime_ns = 4;
  EXPECT_EQ(compare(seen, other, 2 * kSecond), Sameness::changed);
  other = seen;
  other.version.ctime_ns = 6;
  EXPECT_EQ(compare(seen, other, 2 * kSecond), Sameness::changed);
  other = seen;
  other.file.inode = 11;
  EXPECT_EQ(compare(seen, other, 2 * kSecond), Sameness::changed);
}

TEST(VersionRules, YoungTimestampsProveNothingUnlessThereIsAChangeAttribute) {
  Observation young = file_at(5).seen;
  young.age_ns = 2 * static_cast<std::int64_t>(kSecond) - 1;
  Observation later = file_at(5).seen;
  EXPECT_EQ(compare(young, later, 2 * kSecond), Sameness::unproven);
  young.age_ns = -1;  // the server's clock is ahead
  EXPECT_EQ(compare(young, later, 0), Sameness::unproven);
  young.change = 7;
  EXPECT_EQ(compare(young, later, 2 * kSecond), Sameness::unproven);
  later.change = 7;
  EXPECT_EQ(compare(young, later, 2 * kSecond), Sameness::same);
  later.change = 8;
  EXPECT_EQ(compare(young, later, 2 * kSecond), Sameness::changed);
}

TEST(OpenRules, AnswerAsTheTableSays) {
  using enum NameLeads;
  using enum OpenVerdict;
  struct Row {
    OpenSituation open;
    OpenVerdict verdict;
  };
  constexpr auto kSame = Sameness::same;
  constexpr auto kEstale = StaleOpen::estale;
  constexpr auto kInval = StaleOpen::inval;
  const Row rows[] = {
      {{to_the_file, kSame, kEstale, false, false, false}, keep_pages},
      {{to_the_file, kSame, kEstale, true, false, false}, keep_pages},
      {{to_the_file, Sameness::unproven, kEstale, false, false, false}, drop_pages},
      {{to_the_file, Sameness::unproven, kInval, true, true, true}, drop_pages},
      {{to_the_file, Sameness::changed, kEstale, false, false, false}, look_up_again},
      {{to_the_file, Sameness::changed, kEstale, true, true, false}, read_past_pages},
      {{to_the_file, Sameness::changed, kInval, false, false, false}, read_past_pages},
      {{to_another, kSame, kEstale, false, false, true}, look_up_again},
      {{to_another, kSame, kEstale, true, true, true}, serve_held},
      {{to_another, kSame, kEstale, true, true, false}, absent},
      {{to_another, kSame, kEstale, true, false, false}, serve_named},
      {{to_another, kSame, kInval, false, false, true}, serve_held},
      {{to_another, kSame, kInval, false, false, false}, serve_named},
      {{nowhere, kSame, kEstale, false, false, false}, look_up_again},
      {{nowhere, kSame, kEstale, true, true, true}, serve_held},
      {{nowhere, kSame, kEstale, true, false, false}, absent},
      {{nowhere, kSame, kInval, false, false, false}, absent},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(decide_open(row.open), row.verdict) << "row " << &row - rows;
  }
}

TEST(MetadataCache, GivesTheKernelWhatIsLeftOfTheTimeout) {
  MetadataCache cache({});
  // The backend took 300 ms.
  const auto ticket = cache.begin(0, kDirectory);
  const auto answer = cache.found(300 * kMillisecond, ticket, kDirectory, "a", file_at(1), kAnyone);
  EXPECT_EQ(answer.entry_left, 700 * kMillisecond);
  EXPECT_EQ(answer.attributes_left, 700 * kMillisecond);
  const auto later = cache.find_name(900 * kMillisecond, kDirectory, "a", kAlice);
  ASSERT_TRUE(later);
  EXPECT_EQ(later->entry_left, 100 * kMillisecond);
  EXPECT_FALSE(cache.find_name(kSecond, kDirectory, "a", kAlice));
}

TEST(MetadataCache, EachTimeoutGovernsItsOwn) {
  MetadataConfig config = metadata_config(MetadataProfile::strict);
  config.entry_timeout = 10 * kSecond;
  config.dir_entry_timeout = 20 * kSecond;
  config.attr_timeout = 30 * kSecond;
  config.dir_attr_timeout = 40 * kSecond;
  config.negative_timeout = 50 * kSecond;
  MetadataCache cache(config);
  const Asked asked{cache, 0};
  const auto file = asked.found("file", file_at(1));
  EXPECT_EQ(file.entry_left, 10 * kSecond);
  EXPECT_EQ(file.attributes_left, 30 * kSecond);
  FileAttributes child = directory_at(1);
  child.seen.file.inode = 11;
  const auto directory = asked.found("directory", child);
  EXPECT_EQ(directory.entry_left, 20 * kSecond);
  EXPECT_EQ(directory.attributes_left, 40 * kSecond);
  EXPECT_EQ(asked.absent("nothing").entry_left, 50 * kSecond);
}

TEST(MetadataCache, StrictAnswersNothing) {
  MetadataCache cache(metadata_config(MetadataProfile::strict));
  const Asked asked{cache, 5};
  EXPECT_EQ(asked.found("a", file_at(1)).entry_left, 0);
  EXPECT_EQ(asked.absent("b").entry_left, 0);
  EXPECT_FALSE(cache.find_name(5, kDirectory, "a", kAlice));
  EXPECT_FALSE(cache.find_name(5, kDirectory, "b", kAlice));
  EXPECT_FALSE(cache.find_attributes(5, kFile, kAlice));
}

TEST(MetadataCache, AbsenceIsBelievedAfterEnoughMissesInTheWindow) {
  MetadataConfig config;
  config.negative_timeout = kSecond;
  config.negative_min_uses = 3;
  MetadataCache cache(config);
  EXPECT_EQ((Asked{cache, 0}.absent("a").entry_left), 0);
  EXPECT_EQ((Asked{cache, 1}.absent("a").entry_left), 0);
  EXPECT_FALSE(cache.find_name(1, kDirectory, "a", kAlice));
  EXPECT_EQ((Asked{cache, 2}.absent("a").entry_left), kSecond);
  const auto answer = cache.find_name(3, kDirectory, "a", kAlice);
  ASSERT_TRUE(answer);
  EXPECT_FALSE(answer->attributes);
  EXPECT_EQ(cache.stats().negative_hits, 1);
  // Two misses, and a third when the window is over.
  EXPECT_EQ((Asked{cache, 0}.absent("b").entry_left), 0);
  EXPECT_EQ((Asked{cache, 1}.absent("b").entry_left), 0);
  EXPECT_EQ((Asked{cache, 1 + config.negative_window}.absent("b").entry_left), 0);
}

TEST(MetadataCache, AbsenceEndsWhatWasKnownOfTheNameThoughItIsNotBelieved) {
  MetadataCache cache({});
  Asked{cache, 0}.found("a", file_at(1));
  EXPECT_TRUE(cache.find_name(1, kDirectory, "a", kAlice));
  const auto ticket = cache.begin(1, kDirectory);  // asks before it is gone
  EXPECT_EQ((Asked{cache, 1}.absent("a").entry_left), 0);
  EXPECT_FALSE(cache.find_name(2, kDirectory, "a", kAlice));
  EXPECT_EQ(cache.found(2, ticket, kDirectory, "a", file_at(1), kAnyone).entry_left, 0);
  EXPECT_FALSE(cache.find_name(2, kDirectory, "a", kAlice));
}

TEST(MetadataCache, CreationEndsAbsenceAlsoForALookUpThatOvertookIt) {
  MetadataConfig config;
  config.negative_timeout = kSecond;
  MetadataCache cache(config);
  Asked{cache, 0}.absent("a");
  const auto ticket = cache.begin(1, kDirectory);  // asks before the creation
  cache.name_changed(kDirectory, "a");
  EXPECT_FALSE(cache.find_name(2, kDirectory, "a", kAlice));
  EXPECT_EQ(cache.absent(2, ticket, kDirectory, "a", kAnyone).entry_left, 0);
  EXPECT_FALSE(cache.find_name(2, kDirectory, "a", kAlice));
  EXPECT_EQ(cache.stats().stale_avoided, 1);
}

TEST(MetadataCache, ChangeOfTheDirectoryByOthersEndsWhatIsKnownOfItsNames) {
  MetadataConfig config;
  config.negative_timeout = kSecond;
  MetadataCache cache(config);
  const Asked asked{cache, 0};
  asked.learn(directory_at(1));
  asked.absent("a");
  asked.found("b", file_at(1));
  asked.learn(directory_at(1));
  EXPECT_TRUE(cache.find_name(1, kDirectory, "a", kAlice));
  asked.learn(directory_at(2));
  EXPECT_FALSE(cache.find_name(1, kDirectory, "a", kAlice));
  EXPECT_FALSE(cache.find_name(1, kDirectory, "b", kAlice));
}

TEST(MetadataCache, WhatOneCallerWasShownIsShownToNoOther) {
  MetadataCache cache({});
  const auto answer = Asked{cache, 0}.found("a", file_at(1), kAlice);
  EXPECT_EQ(answer.entry_left, 0);  // the kernel would show it to everybody
  EXPECT_GT(answer.attributes_left, 0);
  EXPECT_TRUE(cache.find_name(1, kDirectory, "a", kAlice));
  EXPECT_FALSE(cache.find_name(1, kDirectory, "a", kBob));
  EXPECT_FALSE(cache.find_attributes(1, kFile, kBob));
}

TEST(MetadataCache, ListingUnchangedCostsOneQuestion) {
  using Step = MetadataCache::ListingPlan::Step;
  MetadataCache cache({});
  Asked{cache, 0}.list(directory_at(1), {"a", "b"});
  const auto plan = cache.plan_listing(5 * kSecond, kDirectory, kAlice);
  EXPECT_EQ(plan.step, Step::validate);
  EXPECT_FALSE(plan.must_open);
  const auto snapshot = Asked{cache, 5 * kSecond}.validate(directory_at(1));
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(snapshot->size(), 2);
  EXPECT_EQ(snapshot->at(1).name, "b");
  EXPECT_TRUE(cache.plan_listing(5 * kSecond, kDirectory, kBob).must_open);
  EXPECT_FALSE((Asked{cache, 6 * kSecond}.validate(directory_at(2))));
  EXPECT_EQ(cache.plan_listing(6 * kSecond, kDirectory, kAlice).step, Step::list);
}

// Found by MetadataWorld: who had read the listing before is let in to that one only.
TEST(MetadataCache, ListingThatReplacedAnotherIsForItsOwnReaders) {
  MetadataCache cache({});
  Asked{cache, 0}.list(directory_at(1), {"a"}, kBob);
  EXPECT_FALSE(cache.plan_listing(1, kDirectory, kBob).must_open);
  const auto ticket = cache.begin(1, kDirectory);
  Asked{cache, 1}.list(directory_at(2), {"a", "b"}, kAlice);  // Bob may not any more
  EXPECT_FALSE(cache.validate(1, ticket, directory_at(2), kAnyone, kBob, false));
}

TEST(MetadataCache, EmptyListingIsKeptToo) {
  MetadataCache cache({});
  Asked{cache, 0}.list(directory_at(1), {});
  const auto snapshot = Asked{cache, 1}.validate(directory_at(1));
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(snapshot->size(), 0);
}

TEST(MetadataCache, ListingOfAYoungDirectoryIsNotKept) {
  MetadataCache cache({});
  FileAttributes young = directory_at(1);
  young.seen.age_ns = static_cast<std::int64_t>(kSecond);
  Asked{cache, 0}.list(young, {"a"});
  EXPECT_EQ(cache.plan_listing(1, kDirectory, kAlice).step, MetadataCache::ListingPlan::Step::list);
  EXPECT_EQ(cache.listings_bytes(), 0);
}

// With nocto, for a kernel without handles.
TEST(MetadataCache, ListingThatPassesIsForWhoHasBegunWithIt) {
  using Step = MetadataCache::ListingPlan::Step;
  MetadataCache cache(metadata_config(MetadataProfile::unchanged));
  const auto next_step = [&] { return cache.plan_listing(1, kDirectory, kAlice).step; };
  Asked{cache, 0}.list(directory_at(1), {"a"});
  EXPECT_EQ(next_step(), Step::serve);
  cache.name_changed(kDirectory, "b");
  EXPECT_EQ(next_step(), Step::list);
  EXPECT_FALSE((Asked{cache, 1}.validate(directory_at(1))));
  const auto first = cache.continued_listing(kDirectory, kAlice);
  ASSERT_TRUE(first);
  EXPECT_FALSE(cache.continued_listing(kDirectory, kBob));
  EXPECT_FALSE(cache.may_keep_listing(kDirectory, first));
  // Of the next one the kernel may have the end only.
  Asked{cache, 2}.list(directory_at(2), {"a", "b"});
  const auto second = cache.continued_listing(kDirectory, kAlice);
  EXPECT_NE(second, first);
  EXPECT_FALSE(cache.may_keep_listing(kDirectory, second));
  EXPECT_TRUE(cache.may_keep_listing(kDirectory, second));
  FileAttributes young = directory_at(3);
  young.seen.age_ns = 0;
  Asked{cache, 3}.list(young, {"a"});
  EXPECT_EQ(next_step(), Step::list);
  EXPECT_TRUE(cache.continued_listing(kDirectory, kAlice));
  EXPECT_FALSE(cache.may_keep_listing(kDirectory, cache.continued_listing(kDirectory, kAlice)));
  cache.check_invariants();
}

TEST(DirectorySnapshot, ByHashNamesKeepTheirPositionsAndPartsFollowEachOther) {
  constexpr int kNames = 1000;
  const auto snapshot_of = [](int first, std::uint64_t begin, std::uint64_t bytes_max) {
    DirectorySnapshot snapshot(begin, bytes_max);
    snapshot.add("..", 2, 0040000);
    for (int number = first; number < kNames; ++number) {
      snapshot.add("name" + std::to_string(number), 10, 0100000);
    }
    snapshot.add(".", 1, 0040000);
    snapshot.finish();
    return snapshot;
  };
  const DirectorySnapshot all = snapshot_of(0, 0, kMiB);
  EXPECT_TRUE(all.is_whole());
  ASSERT_EQ(all.size(), kNames + 2U);
  EXPECT_EQ(all.at(0).name, ".");
  EXPECT_EQ(all.at(1).name, "..");
  std::map<std::string_view, std::uint64_t> positions;
  for (std::uint64_t index = 0; index < all.size(); ++index) {
    EXPECT_EQ(all.after(all.at(index).position), index + 1);
    positions[all.at(index).name] = all.at(index).position;
  }
  const DirectorySnapshot later = snapshot_of(kNames / 2, 0, kMiB);
  EXPECT_EQ(later.size(), kNames / 2 + 2U);
  for (std::uint64_t index = 0; index < later.size(); ++index) {
    EXPECT_EQ(later.at(index).position, positions.at(later.at(index).name));
  }
  constexpr std::uint64_t kLittle = 4 * kKiB;
  std::uint64_t position = 0;
  std::uint64_t index = 0;
  for (bool is_end = false; !is_end;) {
    const DirectorySnapshot part = snapshot_of(0, position, kLittle);
    EXPECT_TRUE(part.covers(position));
    EXPECT_FALSE(part.is_whole());
    EXPECT_LE(part.bytes(), kLittle + sizeof(part));
    for (std::uint64_t place = part.after(position); place < part.size(); ++place) {
      EXPECT_EQ(part.at(place).name, all.at(index++).name);
      position = part.at(place).position;
    }
    is_end = part.covers(position);
  }
  EXPECT_EQ(index, all.size());
}

TEST(MetadataCache, ListingIsDroppedByAChangeOfOurOwnWithinOneTick) {
  MetadataCache cache({});
  Asked{cache, 0}.list(directory_at(1), {"d1"});
  cache.name_changed(kDirectory, "d2");
  EXPECT_FALSE((Asked{cache, 1}.validate(directory_at(1))));
}

TEST(MetadataCache, UnchangedProfileListsAndOpensWithoutAsking) {
  MetadataCache cache(metadata_config(MetadataProfile::unchanged));
  Asked{cache, 0}.list(directory_at(1), {"a"});
  EXPECT_EQ(cache.plan_listing(3599 * kSecond, kDirectory, kAlice).step,
            MetadataCache::ListingPlan::Step::serve);
  EXPECT_EQ(cache.plan_listing(3600 * kSecond, kDirectory, kAlice).step,
            MetadataCache::ListingPlan::Step::validate);
  const auto ticket = cache.begin(0, kFile);
  cache.opened(0, ticket, file_at(1), kAnyone, kAlice);
  EXPECT_TRUE(cache.open_unasked(3599 * kSecond, kFile, kAlice));
  EXPECT_FALSE(cache.open_unasked(3599 * kSecond, kFile, kBob));
  EXPECT_FALSE(cache.open_unasked(3600 * kSecond, kFile, kAlice));
}

TEST(MetadataCache, ClosingForgetsTheLengthUnlessNoctoIsOn) {
  MetadataCache cache({});
  Asked{cache, 0}.learn(file_at(1));
  cache.closed(kFile);
  EXPECT_FALSE(cache.find_attributes(1, kFile, kAlice));
  MetadataConfig nocto;
  nocto.is_close_to_open = false;
  MetadataCache other(nocto);
  Asked{other, 0}.learn(file_at(1));
  other.closed(kFile);
  EXPECT_TRUE(other.find_attributes(1, kFile, kAlice));
}

TEST(MetadataCache, WhileTheBackendDoesNotAnswerOlderAnswersAreGivenButNotToTheKernel) {
  MetadataConfig config = metadata_config(MetadataProfile::strict);
  config.negative_timeout = kSecond;
  config.stale_if_error = 60 * kSecond;
  MetadataCache cache(config);
  Asked asked{cache, 0};
  asked.found("a", file_at(1));
  asked.absent("b");
  asked.list(directory_at(1), {"a"});
  cache.learn_target(cache.begin(0, kFile), kFile, "there", kAnyone);
  cache.learn_no_acl(cache.begin(0, kFile), kFile, 61);
  cache.opened(0, cache.begin(0, kFile), file_at(1), kAnyone, kAlice);
  cache.closed(kFile);
  const Nanos late = 59 * kSecond;
  EXPECT_FALSE(cache.find_name(late, kDirectory, "a", kAlice));
  const auto name = cache.find_name(late, kDirectory, "a", kAlice, Belief::unasked);
  ASSERT_TRUE(name);
  EXPECT_EQ(name->attributes->seen.file, kFile);
  EXPECT_EQ(name->entry_left + name->attributes_left, 0U);
  const auto absent = cache.find_name(late, kDirectory, "b", kAlice, Belief::unasked);
  ASSERT_TRUE(absent);
  EXPECT_FALSE(absent->attributes);
  EXPECT_EQ(absent->entry_left, 0U);
  EXPECT_FALSE(cache.find_attributes(late, kFile, kAlice));
  const auto attributes = cache.find_attributes(late, kFile, kAlice, Belief::unasked);
  ASSERT_TRUE(attributes);
  EXPECT_EQ(attributes->left, 0U);
  EXPECT_EQ(cache.find_target(late, kFile, kAlice, Belief::unasked), "there");
  EXPECT_EQ(cache.find_no_acl(late, kFile), 61);
  EXPECT_EQ(cache.age_of(late, kFile), late);
  EXPECT_EQ(cache.plan_listing(late, kDirectory, kAlice, Belief::unasked).step,
            MetadataCache::ListingPlan::Step::serve);
  EXPECT_NE(cache.plan_listing(late, kDirectory, kBob, Belief::unasked).step,
            MetadataCache::ListingPlan::Step::serve);
  EXPECT_FALSE(cache.open_unasked(late, kFile, kAlice));
  EXPECT_TRUE(cache.open_unasked(late, kFile, kAlice, Belief::unasked));
  EXPECT_FALSE(cache.open_unasked(late, kFile, kBob, Belief::unasked)) << "was not let in before";
  EXPECT_EQ(cache.stats().unasked_age_max, late);
  EXPECT_EQ(cache.stats().unasked_hits, 7U);
  const Nanos over = 60 * kSecond;
  EXPECT_FALSE(cache.find_name(over, kDirectory, "a", kAlice, Belief::unasked));
  EXPECT_FALSE(cache.find_name(over, kDirectory, "b", kAlice, Belief::unasked));
  EXPECT_FALSE(cache.find_attributes(over, kFile, kAlice, Belief::unasked));
  EXPECT_FALSE(cache.find_target(over, kFile, kAlice, Belief::unasked));
  EXPECT_FALSE(cache.find_no_acl(over, kFile));
  EXPECT_FALSE(cache.open_unasked(over, kFile, kAlice, Belief::unasked));
  // Our own changes count, whoever answers.
  cache.file_changed(kFile);
  EXPECT_FALSE(cache.find_attributes(1, kFile, kAlice, Belief::unasked));
  EXPECT_FALSE(cache.find_no_acl(1, kFile));
  EXPECT_FALSE(cache.open_unasked(1, kFile, kAlice, Belief::unasked));
  cache.check_invariants();
}

TEST(MetadataCache, AnAbsenceIsLearntOfADirectoryThatWasForgottenMeanwhile) {
  MetadataConfig config;
  config.facts_bytes_max = MetadataConfig::kFactsBytesMin;
  MetadataCache cache(config);
  const Asked asked{cache, 0};
  asked.found("a", file_at(1));
  const auto ticket = cache.begin(0, kDirectory);
  FileAttributes other = file_at(1);
  for (other.seen.file.inode = 1000; other.seen.file.inode < 1100; ++other.seen.file.inode) {
    asked.learn(other);
  }
  static_cast<void>(cache.absent(1, ticket, kDirectory, "a", kAnyone));
  cache.check_invariants();
}

TEST(MetadataCache, TargetOfALinkLastsAsLongAsTheLinkIsTheSame) {
  MetadataCache cache({});
  Asked{cache, 0}.learn(file_at(1));
  cache.learn_target(cache.begin(0, kFile), kFile, "there", kAnyone);
  EXPECT_EQ(cache.find_target(1, kFile, kAlice), "there");
  // Seen to be the same again: good for another second.
  Asked{cache, 900 * kMillisecond}.learn(file_at(1));
  EXPECT_EQ(cache.find_target(1800 * kMillisecond, kFile, kAlice), "there");
  Asked{cache, 1800 * kMillisecond}.learn(file_at(2));
  EXPECT_FALSE(cache.find_target(1800 * kMillisecond, kFile, kAlice));
}

// Found by MetadataWorld: that Alice may still see the link says nothing of others.
TEST(MetadataCache, TargetIsNotKeptForOthersByAnAnswerToOneCaller) {
  MetadataCache cache({});
  Asked{cache, 0}.learn(file_at(1));
  cache.learn_target(cache.begin(0, kFile), kFile, "there", kAnyone);
  Asked{cache, 900 * kMillisecond}.learn(file_at(1), kAlice);
  EXPECT_TRUE(cache.find_target(950 * kMillisecond, kFile, kBob));
  EXPECT_FALSE(cache.find_target(kSecond, kFile, kBob));
}

// Found by MetadataWorld: what anyone was shown first does not make for anyone what Alice was shown
// later.
TEST(MetadataCache, OverlappingAnswersThatAgreeAreKeptForTheLaterViewer) {
  MetadataConfig config;
  config.negative_timeout = kSecond;
  MetadataCache cache(config);
  const auto first = cache.begin(0, kDirectory);
  const auto second = cache.begin(100, kDirectory);
  cache.absent(100, second, kDirectory, "a", kAlice);
  cache.absent(100, first, kDirectory, "a", kAnyone);
  EXPECT_TRUE(cache.find_name(kSecond, kDirectory, "a", kAlice));
  EXPECT_FALSE(cache.find_name(kSecond, kDirectory, "a", kBob));
}

TEST(MetadataCache, OverlappingAnswersThatDifferAreBothDropped) {
  MetadataCache cache({});
  const auto first = cache.begin(0, kFile);
  const auto second = cache.begin(1, kFile);
  cache.learn_attributes(2, second, file_at(2), kAnyone);
  EXPECT_TRUE(cache.find_attributes(2, kFile, kAlice));
  cache.learn_attributes(3, first, file_at(1), kAnyone);
  EXPECT_FALSE(cache.find_attributes(3, kFile, kAlice));
}

TEST(MetadataCache, KnowsNothingAfterForgettingAllAndKeepsNoAnswerToAnEarlierQuestion) {
  MetadataCache cache(metadata_config(MetadataProfile::unchanged));
  const Asked asked{cache, kSecond};
  asked.found("f", file_at(5));
  asked.list(directory_at(3), {"f"});
  const auto ticket = cache.begin(kSecond, kDirectory);
  cache.forget_all();
  EXPECT_FALSE(cache.find_name(kSecond, kDirectory, "f", kAnyone));
  EXPECT_FALSE(cache.find_attributes(kSecond, kFile, kAnyone));
  EXPECT_EQ(cache.plan_listing(kSecond, kDirectory, kAlice).step,
            MetadataCache::ListingPlan::Step::list);
  EXPECT_EQ(cache.facts_bytes() + cache.listings_bytes(), 0U);
  const auto late = cache.found(kSecond, ticket, kDirectory, "f", file_at(5), kAnyone);
  EXPECT_EQ(late.entry_left, 0U);
  EXPECT_FALSE(cache.find_name(kSecond, kDirectory, "f", kAnyone));
  cache.check_invariants();
  EXPECT_GT(asked.found("f", file_at(6)).entry_left, 0U);
}

TEST(MetadataCache, ForgetsTheLeastRecentBeyondItsBytes) {
  MetadataConfig config;
  config.facts_bytes_max = 64 * kKiB;
  MetadataCache cache(config);
  for (std::uint64_t inode = 10; inode < 1010; ++inode) {
    Asked{cache, 0}.found("name" + std::to_string(inode), file_at(1, {1, inode}));
  }
  EXPECT_LE(cache.facts_bytes(), config.facts_bytes_max);
  EXPECT_GT(cache.stats().evicted, 0);
  EXPECT_TRUE(cache.find_name(1, kDirectory, "name1009", kAlice));
  EXPECT_FALSE(cache.find_name(1, kDirectory, "name10", kAlice));
  cache.check_invariants();
}

}  // namespace
}  // namespace ncfs
