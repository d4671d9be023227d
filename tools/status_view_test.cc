#include "tools/status_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace ncfs {
namespace {

using nlohmann::json;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

json status_with_a_copy(std::uint64_t done) {
  return {{"mountpoint", "/mnt/cached"},
          {"state", "running"},
          {"pid", 42},
          {"cache", {{"eviction", "arc"}}},
          {"opens", {{"hits", 120}, {"misses", 10}}},
          {"errors", {{"backend", 3}, {"cache_reads", 0}}},
          {"writes", {{"opens", 2}, {"requests", 9}, {"bytes", 2048}, {"mirror_failures", 0}}},
          {"copies",
           {{"in_progress",
             {{{"path", "models/a"},
               {"size_bytes", 4000},
               {"done_bytes", done},
               {"bytes_per_second", 1000.0},
               {"eta_seconds", 3.0}}}},
            {"queued", 5}}}};
}

TEST(StatusView, ShowsRatiosCopiesAndErrors) {
  const std::string text = status_text(status_with_a_copy(1000));
  EXPECT_THAT(text, HasSubstr("/mnt/cached: running"));
  EXPECT_THAT(text, HasSubstr("120 of 130 found the file complete in the cache (92.3 %)"));
  EXPECT_THAT(text, HasSubstr("1 running, 5 queued"));
  EXPECT_THAT(text, ContainsRegex("eviction +arc\n"));
  EXPECT_THAT(text, HasSubstr("25.0 % of 3.9 KiB, 1000 B/s, 3.0 s left  models/a"));
  EXPECT_THAT(text, HasSubstr("backend 3\n"));
  EXPECT_THAT(text, Not(HasSubstr("cache reads")));
}

TEST(StatusView, ShowsWhatWasFetchedAheadAndWhatBecameOfIt) {
  json status = status_with_a_copy(0);
  const json none = {{"bytes", 0}, {"used_bytes", 0}, {"wasted_bytes", 0}};
  status["prefetch"] = {{"stride", none}, {"stream", none}};
  EXPECT_THAT(status_text(status), Not(HasSubstr("prefetched")));
  status["prefetch"]["stream"] = {{"bytes", 4096}, {"used_bytes", 2048}, {"wasted_bytes", 1024}};
  EXPECT_THAT(status_text(status),
              ContainsRegex("prefetched +4.0 KiB by stream, 2.0 KiB used, 1.0 KiB wasted\n"));
}

TEST(StatusView, ShowsWhatWasWritten) {
  json status = status_with_a_copy(0);
  EXPECT_THAT(status_text(status), ContainsRegex("writes +2.0 KiB in 9 requests, 2 opens\n"));
  status["writes"]["mirror_failures"] = 1;
  EXPECT_THAT(status_text(status), HasSubstr("2 opens; 1 cache files in use could not follow\n"));
}

TEST(StatusView, ShowsWhatIsKnownOfNamesAndAttributes) {
  json status = {{"metadata",
                  {{"names", {{"hits", 5}, {"misses", 1}}},
                   {"negative_hits", 2},
                   {"attributes", {{"hits", 2}, {"misses", 0}}},
                   {"revalidations", {{"same", 3}, {"unproven", 1}, {"changed", 2}, {"estale", 4}}},
                   {"opens_unasked", 7},
                   {"bytes", {{"names_and_attributes", 1024}, {"listings", 1024}}}}}};
  EXPECT_THAT(status_text(status), HasSubstr("9 of 10 questions answered from memory (90.0 %), "
                                             "which holds 2.0 KiB\n"));
  EXPECT_THAT(status_text(status), HasSubstr("4 opens asked and found the same, 6 another version, "
                                             "7 did not ask\n"));
  EXPECT_THAT(status_text(status), Not(HasSubstr("answered for the backend")));
  status["metadata"]["unanswered"] = {{"hits", 3}, {"oldest_seconds", 12.0}};
  EXPECT_THAT(status_text(status), HasSubstr("3 answered for the backend, up to 12 s old\n"));
}

TEST(StatusView, ShowsWhatFailsAndWhenItIsTriedAgain) {
  json status = {{"health",
                  {{"cache_disk",
                    {{"state", "down"},
                     {"reason", "3 probes failed"},
                     {"seconds", 12.0},
                     {"last_error", "Input/output error"},
                     {"next_probe_seconds", 8.0}}},
                   {"copying", {{"paused_by", "cache disk"}}}}}};
  EXPECT_THAT(status_text(status), HasSubstr("down for 12 s: 3 probes failed (Input/output error), "
                                             "next probe in 8.0 s"));
  EXPECT_THAT(status_text(status), HasSubstr("nothing new until the cache disk is normal"));
  status["health"]["backends"] = {{{"path", ""}, {"state", "up"}},
                                  {{"path", "nested"},
                                   {"state", "down"},
                                   {"reason", "a probe is not answered"},
                                   {"seconds", 12.0},
                                   {"last_error", "Connection timed out"}}};
  EXPECT_THAT(status_text(status), HasSubstr("nested: down for 12 s: a probe is not answered "
                                             "(Connection timed out)"));
  status["health"] = {{"cache_disk", {{"state", "normal"}}},
                      {"copying",
                       {{"paused_by", "backend"},
                        {"last_error", "Connection timed out"},
                        {"next_try_seconds", 3.0}}}};
  EXPECT_THAT(status_text(status), HasSubstr("cache disk    normal\n"));
  EXPECT_THAT(status_text(status),
              HasSubstr("paused by the backend (Connection timed out), next try in 3.0 s"));
}

TEST(StatusView, ADaemonOfAnotherVersionIsShownAsFarAsItIsUnderstood) {
  EXPECT_THAT(status_text(json::object()), HasSubstr("?: ?"));
  EXPECT_THAT(status_text({{"cache", "none"}, {"copies", json::object()}}), HasSubstr("0 running"));
}

TEST(StatusView, AVerificationTellsWhatCameOfEveryFile) {
  const json job = {{"state", "running"},
                    {"found", {{"files", 4}, {"bytes", 4096}}},
                    {"intact", {{"files", 1}, {"bytes", 1024}}},
                    {"damaged", {{"files", 1}, {"bytes", 2048}}},
                    {"skipped", {{"files", 1}, {"bytes", 0}}},
                    {"bytes_verified", 1024}};
  EXPECT_THAT(verify_progress_text(job), HasSubstr("1.0 KiB of 4.0 KiB, 3 of 4 files, 1 damaged"));
  EXPECT_THAT(verify_result_text(job),
              HasSubstr("4 files (4.0 KiB) found: 1 files (1.0 KiB) intact, 1 files (2.0 KiB) "
                        "damaged and removed, 1 files (0 B) skipped"));
  EXPECT_THAT(status_text({{"integrity",
                            {{"verified_bytes", 2048},
                             {"mismatches", 3},
                             {"damaged_files", 2},
                             {"verifications", {job}}}}}),
              HasSubstr("integrity     2.0 KiB verified, 3 mismatches, 2 damaged files removed\n"
                        "    verifying"));
}

TEST(StatusView, WatchingShowsTheRateOfTheLastInterval) {
  json status = status_with_a_copy(2000);
  use_recent_rates(status, status_with_a_copy(1000), 0.5);
  const json& copy = status["copies"]["in_progress"][0];
  EXPECT_EQ(copy["bytes_per_second"], 2000.0);
  EXPECT_EQ(copy["eta_seconds"], 1.0);
}

TEST(StatusView, TheTotalsOfAWarmUpNameEveryFate) {
  const json job = {{"state", "done"},
                    {"seconds", 2.0},
                    {"found", {{"files", 15}, {"bytes", 2048}}},
                    {"copied", {{"files", 1}, {"bytes", 1024}}},
                    {"already_cached", {{"files", 1}, {"bytes", 1024}}},
                    {"skipped", {{"files", 1}, {"bytes", 0}}},
                    {"failed", {{"files", 12}, {"bytes", 0}}},
                    {"skip_reasons", {{"symbolic link", 1}}},
                    {"failures", {{{"path", "a/b"}, {"error", "Input/output error"}}}}};
  const std::string text = warm_result_text(job);
  EXPECT_THAT(text, HasSubstr("15 files (2.0 KiB) found in 2.0 s: 1 files (1.0 KiB) copied, "
                              "1 files (1.0 KiB) already cached, 1 files (0 B) skipped, "
                              "12 files (0 B) failed"));
  EXPECT_THAT(text, HasSubstr("skipped 1 files: symbolic link"));
  EXPECT_THAT(text, HasSubstr("failed: a/b: Input/output error"));
  EXPECT_THAT(text, HasSubstr("and 11 more failures"));
  EXPECT_THAT(text, Not(HasSubstr("cancelled")));
}

TEST(StatusView, TheListOfWarmUpsTellsNumbersStatesAndPaths) {
  const json reply = {{"jobs",
                       {{{"id", 3},
                         {"state", "copying"},
                         {"paths", {"", "models"}},
                         {"found", {{"files", 2}, {"bytes", 10}}},
                         {"failed", {{"files", 1}}}}}}};
  EXPECT_THAT(warm_list_text(reply),
              ContainsRegex("3 +copying .*1 of 2 files.*1 failed: . models"));
  EXPECT_EQ(warm_list_text({{"jobs", json::array()}}), "no warm-ups\n");
}

TEST(StatusView, AWarmUpThatDoesNotFitTellsBothSizes) {
  const json job = {{"id", 4},
                    {"state", "refused"},
                    {"needed_bytes", std::uint64_t{1} << 30U},
                    {"capacity_bytes", 1 << 20}};
  EXPECT_THAT(warm_result_text(job), HasSubstr("refused, nothing was copied: needs 1.0 GiB, the "
                                               "cache holds 1.0 MiB beside"));
  EXPECT_THAT(warm_list_text({{"jobs", {job}}}),
              ContainsRegex("4 +refused +needs 1.0 GiB, the cache holds 1.0 MiB, 0 failed"));
}

TEST(StatusView, FilesAndOneOfThemInDetail) {
  const json file = {{"path", "models/a"},      {"state", "partial"},
                     {"reason", "backing off"}, {"size_bytes", 4096},
                     {"cached_bytes", 1024},    {"pinned", true},
                     {"open", false},           {"idle_seconds", 90.0},
                     {"next_try_seconds", 3.0}, {"last_error", "Input/output error"},
                     {"has_checksums", true}};
  EXPECT_THAT(files_text({file}), HasSubstr("1 files, 1.0 KiB cached\n"));
  EXPECT_THAT(files_text({file}),
              ContainsRegex("partial +25.0 % +4.0 KiB +yes +1 min 30 s +models/a  "
                            "\\(backing off\\)"));
  const std::string told = explanation_text({json::object(), file});
  EXPECT_THAT(told, HasSubstr("2 versions"));
  EXPECT_THAT(told, ContainsRegex("why not all +backing off"));
  EXPECT_THAT(told, ContainsRegex("last error +Input/output error"));
  EXPECT_THAT(told, ContainsRegex("next try +in 3.0 s"));
  EXPECT_THAT(explanation_text({}), HasSubstr("knows nothing of it"));
}

TEST(StatusView, TheConfigurationMarksWhatIsNotTheDefault) {
  const std::string told =
      config_text({{"options",
                    {{{"name", "eviction"}, {"value", "arc"}, {"default", "lru"}, {"hot", false}},
                     {{"name", "log_level"}, {"value", "info"}, {"default", "info"}, {"hot", true}},
                     {{"name", "metrics_listen"}, {"value", nullptr}, {"default", nullptr}}}}});
  EXPECT_THAT(told, ContainsRegex("\\* eviction +arc +\\(default lru\\)"));
  EXPECT_THAT(told, ContainsRegex("    log_level +info +hot"));
  EXPECT_THAT(told, ContainsRegex("    metrics_listen +- "));
}

TEST(StatusView, TheBarOfAWarmUpCountsWhatIsDoneOfFilesInWork) {
  const json job = {{"state", "walking"},
                    {"seconds", 1.0},
                    {"found", {{"files", 3}, {"bytes", 4096}}},
                    {"copied", {{"files", 1}, {"bytes", 1024}}},
                    {"in_work_done_bytes", 1024}};
  EXPECT_THAT(warm_progress_text(job),
              HasSubstr("2.0 KiB of 4.0 KiB or more, 1 of 3 files, 2.0 KiB/s"));
}

}  // namespace
}  // namespace ncfs
