#include "tools/anonymizer.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

using nlohmann::json;

TEST(Anonymizer, EqualNamesBecomeEqualNumbers) {
  Anonymizer anonymizer;
  EXPECT_EQ(anonymizer.path("models/big"), "n1/n2");
  EXPECT_EQ(anonymizer.path("/other/big"), "/n3/n2");
  EXPECT_EQ(anonymizer.path(""), "");
}

TEST(Anonymizer, RepliesKeepEverythingButNames) {
  json reply = {{"mountpoint", "/mnt"},
                {"warm_jobs", {{{"paths", {"a", ""}}, {"failures", {{{"path", "a/b"}}}}}}},
                {"copies", {{"in_progress", {{{"path", nullptr}, {"size_bytes", 5}}}}}},
                {"options",
                 {{{"name", "exclude"}, {"value", "secret/*.bin"}},
                  {{"name", "cache_dir"}, {"value", "/cache"}},
                  {{"name", "include"}, {"value", nullptr}}}}};
  Anonymizer().clean(reply);
  EXPECT_EQ(reply["mountpoint"], "/mnt");
  EXPECT_EQ(reply["warm_jobs"][0]["paths"], json({"n3", ""}));
  EXPECT_EQ(reply["warm_jobs"][0]["failures"][0]["path"], "n3/n4");
  EXPECT_EQ(reply["copies"]["in_progress"][0]["size_bytes"], 5);
  EXPECT_EQ(reply["options"][0]["value"], "n1/n2");
  EXPECT_EQ(reply["options"][1]["value"], "/cache");
}

TEST(Anonymizer, MessagesAboutFilesAreToldByTheirFields) {
  const json message = {{"__REALTIME_TIMESTAMP", "1700000000000000"},
                        {"PRIORITY", "6"},
                        {"SYSLOG_IDENTIFIER", "cachefs"},
                        {"_PID", "77"},
                        {"MESSAGE", "copy failed: secret/x: Input/output error"},
                        {"CACHEFS_EVENT", "copy failed"},
                        {"CACHEFS_PATH", {115, 101, 99, 114, 101, 116}},
                        {"CACHEFS_BYTES", "9"},
                        {"CACHEFS_ERROR", "Input/output error"}};
  EXPECT_EQ(Anonymizer::log_line(message, nullptr),
            "2023-11-14T22:13:20Z <6> cachefs[77]: copy failed: secret/x: Input/output error\n");
  Anonymizer anonymizer;
  EXPECT_EQ(Anonymizer::log_line(message, &anonymizer),
            "2023-11-14T22:13:20Z <6> cachefs[77]: copy failed: n1 bytes=9 error=Input/output "
            "error\n");
  EXPECT_EQ(
      Anonymizer::log_line({{"MESSAGE", "mounted /a on /b"}, {"CACHEFS_MOUNT", "/b"}}, &anonymizer),
      "1970-01-01T00:00:00Z <> []: mounted /a on /b\n");
  EXPECT_EQ(Anonymizer::log_line({{"MESSAGE", "copy failed: secret"}}, &anonymizer),
            "1970-01-01T00:00:00Z <> []: (left out: without fields, it may name files)\n");
}

}  // namespace
}  // namespace ncfs
