#include "fuse_adapter/option_values.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <variant>

namespace ncfs {
namespace {

MountOptions parsed(const std::string& text) {
  auto result = parse_mount_options("nfs_backend=/b,cache_dir=/c,cache_size=1G," + text);
  EXPECT_TRUE(std::holds_alternative<MountOptions>(result)) << text;
  return std::get<MountOptions>(result);
}

TEST(OptionValues, KnowEveryOptionAndTheDefaultThatTheHelpTells) {
  const auto values = option_values(MountOptions{});
  EXPECT_EQ(values.size(), mount_option_help().size());
  for (const OptionHelp& help : mount_option_help()) {
    ASSERT_TRUE(values.contains(help.name)) << help.name;
    if (help.value.empty()) continue;
    EXPECT_EQ(values.find(help.name)->second, help.initial) << help.name;
  }
}

// Written as options they mean the same again.
TEST(OptionValues, ReadBackAsThemselves) {
  for (
      const char* text :
      {"", "profile=strict", "profile=static,attr_timeout=0.25,stale_open=inval,allow_other",
       "copy_rate_mb=100,include=a:b/"
       "**,exclude=*.tmp,include=c,max_file_size=1G,cache_on=second-open",
       "eviction=s3fifo,checksum=read,locks=local,metrics_listen=[::1]:9100,nocto",
       "block_size_mb=2,max_concurrent=7,direct_io=no,readahead_mb=9,min_file_size=1K,buffer_mb=64,"
       "passthrough=yes,cold_passthrough=no,backend_timeout_s=5,log_level=trace,min_free_percent=3,"
       "cache_ttl_hours=4,checksum=off,scrub_interval_h=0,entry_timeout=2,dir_entry_timeout=3,"
       "dir_attr_timeout=4.5,negative_timeout=6,negative_min_uses=7,dir_cache_mb=8,"
       "attr_cache_mb=9,prefetch=sequential,access_log,metrics_listen=127.0.0.1:9100,"
       "offline_start"}) {
    const auto values = option_values(parsed(text));
    std::string written;
    for (const OptionHelp& help : mount_option_help()) {
      const std::string& value = values.find(help.name)->second;
      if (help.value.empty() && value == "yes") written += fmt::format("{},", help.name);
      if (!help.value.empty() && !value.empty()) {
        written += fmt::format("{}={},", help.name, value);
      }
    }
    EXPECT_EQ(option_values(parsed(written)), values) << written;
  }
}

TEST(OptionValues, AreThoseInForceWhoeverDecidedThem) {
  auto values = option_values(parsed("profile=static"));
  EXPECT_EQ(values["entry_timeout"], "3600");
  EXPECT_EQ(values["cto"], "no");
  EXPECT_EQ(values["nocto"], "yes");
  values = option_values(parsed("checksum=read"));
  EXPECT_EQ(values["passthrough"], "no");
  EXPECT_EQ(values["cto"], "yes");
  EXPECT_EQ(option_values(parsed("cache_size=2G"))["cache_size"], "2147483648B");
}

}  // namespace
}  // namespace ncfs
