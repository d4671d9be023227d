// Method: every test gives one option string and looks at the values, flags or the error line.
#include "fuse_adapter/mount_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ncfs {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kMinimal = "nfs_backend=/mnt/nfs,cache_dir=/mnt/nvme/cache,cache_size_gb=50";

MountOptions parsed(const std::string& text) {
  auto result = parse_mount_options(text);
  if (const auto* error = std::get_if<OptionError>(&result)) {
    ADD_FAILURE() << text << ": " << error->message;
    return {};
  }
  return std::get<MountOptions>(result);
}

MountOptions with(const std::string& more) {
  return parsed(kMinimal + "," + more);
}

std::string error_of(const std::string& text) {
  auto result = parse_mount_options(text);
  const auto* error = std::get_if<OptionError>(&result);
  return error ? error->message : "(no error)";
}

std::string error_with(const std::string& more) {
  return error_of(kMinimal + "," + more);
}

TEST(MountOptions, TheLineOfTheManualGivesTheDocumentedDefaults) {
  const MountOptions options = parsed(
      "nfs_backend=/mnt/nfs,cache_dir=/mnt/nvme/cache,cache_size_gb=50,direct_io=true,"
      "allow_other,_netdev");
  EXPECT_EQ(options.nfs_backend, "/mnt/nfs");
  EXPECT_EQ(options.cache_dir, "/mnt/nvme/cache");
  EXPECT_EQ(options.cache_size_bytes, 50 * kGiB);
  EXPECT_EQ(options.block_size_bytes, 1 * kMiB);
  EXPECT_EQ(options.max_concurrent, 4U);
  EXPECT_TRUE(options.direct_io);
  EXPECT_EQ(options.readahead_bytes, 4 * kMiB);
  EXPECT_EQ(options.readahead_max_bytes, 16 * kMiB);
  EXPECT_EQ(options.prefetch, Prefetch::smart);
  EXPECT_EQ(options.min_file_size_bytes, 1U);
  EXPECT_EQ(options.passthrough, PassthroughPolicy::automatic);
  EXPECT_EQ(options.cold_passthrough, ColdPassthroughPolicy::automatic);
  EXPECT_EQ(options.log_level, LogLevel::info);
  EXPECT_TRUE(options.allow_other);
  EXPECT_EQ(options.buffer_bytes, 256 * kMiB);
  EXPECT_EQ(options.backend_timeout_seconds, 30U);
  EXPECT_EQ(options.checksum, Checksum::copy);
  EXPECT_EQ(options.scrub_interval_hours, 168U);
  EXPECT_EQ(options.mount_flags, static_cast<unsigned long>(MS_NOSUID | MS_NODEV));
}

TEST(MountOptions, EveryValueArrives) {
  const MountOptions options = with(
      "block_size_mb=4,max_concurrent=64,eviction=s3fifo,direct_io=no,readahead_mb=0,"
      "min_file_size=64K,passthrough=yes,cold_passthrough=no,log_level=trace,buffer_mb=128,"
      "backend_timeout_s=7");
  EXPECT_EQ(options.block_size_bytes, 4 * kMiB);
  EXPECT_EQ(options.max_concurrent, 64U);
  EXPECT_EQ(options.eviction, Eviction::s3fifo);
  EXPECT_FALSE(options.direct_io);
  EXPECT_EQ(options.readahead_bytes, 0U);
  EXPECT_EQ(options.min_file_size_bytes, 64 * kKiB);
  EXPECT_EQ(options.passthrough, PassthroughPolicy::required);
  EXPECT_EQ(options.cold_passthrough, ColdPassthroughPolicy::disabled);
  EXPECT_EQ(options.log_level, LogLevel::trace);
  EXPECT_EQ(options.buffer_bytes, 128 * kMiB);
  EXPECT_EQ(options.backend_timeout_seconds, 7U);
  EXPECT_FALSE(options.allow_other);
}

TEST(MountOptions, ChecksumsAndTheScrubBecomeTheEnginesAndSwitchPassthroughOff) {
  const Config config = engine_config(with("checksum=off,scrub_interval_h=2"), 1);
  EXPECT_EQ(config.checksum, Checksum::off);
  EXPECT_EQ(config.scrub_interval, 7200 * kSecond);
  EXPECT_EQ(engine_config(with("scrub_interval_h=0"), 1).scrub_interval, 0U);
  const MountOptions checked = with("checksum=read");
  EXPECT_EQ(engine_config(checked, 1).checksum, Checksum::read);
  EXPECT_EQ(mount_settings(checked, "/m", "s", 5).passthrough, PassthroughPolicy::disabled);
  EXPECT_THAT(error_with("checksum=read,passthrough=yes"), HasSubstr("exclude each other"));
  EXPECT_EQ(error_with("checksum=always"), "option checksum=always: must be off, copy or read");
  EXPECT_EQ(with("metrics_listen=127.0.0.1:9100").metrics_address, "127.0.0.1");
  EXPECT_EQ(with("metrics_listen=127.0.0.1:9100").metrics_port, 9100);
  const MountOptions written = with("eviction=lfu,eviction=arc,allow_other,noatime");
  EXPECT_EQ(written.given.at("eviction"), "arc");
  EXPECT_EQ(written.given.at("allow_other"), "true");
  EXPECT_FALSE(written.given.contains("noatime"));
  EXPECT_FALSE(written.given.contains("checksum"));
  EXPECT_EQ(with("metrics_listen=[::1]:1").metrics_address, "::1");
  for (const std::string wrong :
       {"9100", ":9100", "localhost:9100", "127.0.0.1:0", "127.0.0.1:65536", "::1:9100"}) {
    EXPECT_EQ(error_with("metrics_listen=" + wrong),
              "option metrics_listen=" + wrong +
                  ": must be an IP address and a port, such as 127.0.0.1:9100 or [::1]:9100");
  }
  EXPECT_EQ(error_with("scrub_interval_h=8761"),
            "option scrub_interval_h=8761: must be a whole number from 0 to 8760 (hours)");
}

TEST(MountOptions, RulesSayWhatIsCached) {
  const Config config = engine_config(
      with("max_file_size=1M,include=models:*.bin,include=/a/**/b,exclude=*.tmp,cache_on=read"), 1);
  EXPECT_EQ(config.max_file_size_bytes, kMiB);
  EXPECT_EQ(config.cache_on, CacheOn::read);
  EXPECT_EQ(config.paths.include.size(), 3U);
  EXPECT_TRUE(config.paths.admit("a/x/b/c"));
  EXPECT_TRUE(config.paths.admit("x/y.bin"));
  EXPECT_FALSE(config.paths.admit("models/y.tmp"));
  EXPECT_FALSE(config.paths.admit("y"));
  EXPECT_TRUE(mount_settings(with("cache_on=read"), "/m", "s", 5).must_see_reads);
  EXPECT_FALSE(mount_settings(with("cache_on=second-open"), "/m", "s", 5).must_see_reads);
  EXPECT_EQ(engine_config(with("cache_on=second-open"), 1).cache_on, CacheOn::second_open);
  EXPECT_EQ(error_with("cache_on=never"),
            "option cache_on=never: must be open, read or second-open");
  EXPECT_THAT(error_with("cache_on=read,cold_passthrough=yes"), HasSubstr("exclude each other"));
  EXPECT_THAT(error_with("min_file_size=2K,max_file_size=1K"), HasSubstr("leave no file"));
  for (const std::string wrong : {"include=", "exclude=a::b", "include=a/../b", "exclude=/"}) {
    EXPECT_THAT(error_with(wrong), HasSubstr("must be paths within the mount")) << wrong;
  }
  std::string many = "exclude=a";
  for (std::size_t globs = 1; globs < PathRules::kGlobsMax; ++globs) many += ":a";
  EXPECT_EQ(with(many).paths.exclude.size(), PathRules::kGlobsMax);
  EXPECT_THAT(error_with(many + ":a"), HasSubstr("at most 64"));
}

TEST(MountOptions, LocksAreTheBackendsUnlessTheyAreToBeLocal) {
  EXPECT_EQ(mount_settings(with("ro"), "/m", "s", 5).locks, LockPlace::backend);
  EXPECT_EQ(mount_settings(with("locks=backend"), "/m", "s", 5).locks, LockPlace::backend);
  EXPECT_EQ(mount_settings(with("locks=local"), "/m", "s", 5).locks, LockPlace::local);
  EXPECT_EQ(error_with("locks=none"), "option locks=none: must be backend or local");
}

TEST(MountOptions, TimeoutsAreOfTheProfileUnlessGiven) {
  const auto metadata = [](const std::string& more) {
    return mount_settings(with(more), "/m", "s", 5).metadata;
  };
  const MetadataConfig normal = mount_settings(parsed(kMinimal), "/m", "s", 5).metadata;
  EXPECT_EQ(normal.entry_timeout, kSecond);
  EXPECT_EQ(normal.negative_timeout, 0U);
  EXPECT_EQ(normal.stale_if_error, 0U);
  EXPECT_TRUE(normal.is_close_to_open);
  const MetadataConfig strict = metadata("entry_timeout=5,profile=strict,attr_timeout=0.25");
  EXPECT_EQ(strict.entry_timeout, 5 * kSecond);
  EXPECT_EQ(strict.attr_timeout, 250 * kMillisecond);
  EXPECT_EQ(strict.dir_entry_timeout, 0U);
  EXPECT_TRUE(strict.is_close_to_open);
  const MetadataConfig unchanged = metadata("profile=static,dir_attr_timeout=7");
  EXPECT_EQ(unchanged.attr_timeout, 3600 * kSecond);
  EXPECT_EQ(unchanged.dir_attr_timeout, 7 * kSecond);
  EXPECT_FALSE(unchanged.is_close_to_open);
  EXPECT_TRUE(metadata("profile=static,cto").is_close_to_open);
  EXPECT_FALSE(metadata("nocto").is_close_to_open);
}

TEST(MountOptions, MetadataLimitsArrive) {
  const MountSettings settings =
      mount_settings(with("negative_timeout=2,negative_min_uses=5,dir_cache_mb=0,attr_cache_mb=8,"
                          "dir_entry_timeout=31536000,stale_open=inval,stale_if_error_s=90.5"),
                     "/m", "s", 5);
  EXPECT_EQ(settings.metadata.stale_if_error, 90 * kSecond + 500 * kMillisecond);
  EXPECT_EQ(settings.metadata.negative_timeout, 2 * kSecond);
  EXPECT_EQ(settings.metadata.negative_min_uses, 5U);
  EXPECT_EQ(settings.metadata.listings_bytes_max, 0U);
  EXPECT_EQ(settings.metadata.facts_bytes_max, 8 * kMiB);
  EXPECT_EQ(settings.metadata.dir_entry_timeout, 31536000 * kSecond);
  EXPECT_EQ(settings.stale_open, StaleOpen::inval);
  EXPECT_THAT(error_with("stale_open=inval,passthrough=yes"), HasSubstr("exclude each other"));
}

TEST(MountOptions, CurveFsSpellingsAreAccepted) {
  const MetadataConfig config =
      mount_settings(with("entryTimeout=1,dirEntryTimeout=2,attrTimeout=3,"
                          "fs.kernelCache.dirAttrTimeoutSec=4,fs.lookupCache.minUses=6"),
                     "/m", "s", 5)
          .metadata;
  EXPECT_EQ(config.entry_timeout, 1 * kSecond);
  EXPECT_EQ(config.dir_entry_timeout, 2 * kSecond);
  EXPECT_EQ(config.attr_timeout, 3 * kSecond);
  EXPECT_EQ(config.dir_attr_timeout, 4 * kSecond);
  EXPECT_EQ(config.negative_min_uses, 6U);
}

TEST(MountOptions, BadTimeoutsAreErrorsThatNameTheOption) {
  for (const std::string bad : {"", "-1", "1.2345", "1.", ".5", "1s", "31536001", "1e3"}) {
    EXPECT_EQ(
        error_with("attrTimeout=" + bad),
        "option attrTimeout=" + bad + ": must be seconds from 0 to 31536000, such as 5 or 0.25");
  }
  EXPECT_EQ(error_with("stale_if_error_s=-1"),
            "option stale_if_error_s=-1: must be seconds from 0 to 31536000, such as 5 or 0.25");
  EXPECT_EQ(error_with("profile=fast"), "option profile=fast: must be strict, normal or static");
  EXPECT_EQ(error_with("stale_open=no"), "option stale_open=no: must be estale or inval");
  EXPECT_EQ(error_with("negative_min_uses=0"),
            "option negative_min_uses=0: must be a whole number from 1 to 1000");
  EXPECT_EQ(error_with("nocto=1"), "option nocto=1: takes no value");
}

TEST(MountOptions, SizesTakeUnitsThatArePowersOf1024) {
  const auto size = [](const std::string& text) {
    return parsed("nfs_backend=/b,cache_dir=/c,cache_size=" + text).cache_size_bytes;
  };
  EXPECT_EQ(size("67108864"), 64 * kMiB);
  EXPECT_EQ(size("67108864B"), 64 * kMiB);
  EXPECT_EQ(size("65536K"), 64 * kMiB);
  EXPECT_EQ(size("500M"), 500 * kMiB);
  EXPECT_EQ(size("500m"), 500 * kMiB);
  EXPECT_EQ(size("500MB"), 500 * kMiB);
  EXPECT_EQ(size("500MiB"), 500 * kMiB);
  EXPECT_EQ(size("3G"), 3 * kGiB);
  EXPECT_EQ(size("2TiB"), 2048 * kGiB);
}

TEST(MountOptions, MalformedSizesAreErrorsThatNameOptionValueAndRange) {
  for (const std::string bad : {"", "0", "G", "-5G", "5.5G", "5 G", "5X", "5GiBs", "2000T",
                                "99999999999999999999", "9223372036854775807T"}) {
    EXPECT_THAT(error_of("nfs_backend=/b,cache_dir=/c,cache_size=" + bad),
                HasSubstr("option cache_size=" + bad + ": must be a size such as 500M"));
  }
}

TEST(MountOptions, NumbersOutOfRangeAreErrorsThatNameOptionValueAndRange) {
  EXPECT_EQ(error_with("block_size_mb=17"),
            "option block_size_mb=17: must be a whole number from 1 to 16 (MiB)");
  EXPECT_EQ(error_with("block_size_mb=0"),
            "option block_size_mb=0: must be a whole number from 1 to 16 (MiB)");
  EXPECT_EQ(error_with("max_concurrent=65"),
            "option max_concurrent=65: must be a whole number from 1 to 64");
  EXPECT_EQ(error_with("readahead_max_mb=257"),
            "option readahead_max_mb=257: must be a whole number from 0 to 256 (MiB)");
  EXPECT_EQ(error_with("prefetch=yes"), "option prefetch=yes: must be off, sequential or smart");
  EXPECT_EQ(error_with("readahead_mb=65"),
            "option readahead_mb=65: must be a whole number from 0 to 64 (MiB)");
  EXPECT_EQ(error_with("backend_timeout_s=0"),
            "option backend_timeout_s=0: must be a whole number from 1 to 86400 (seconds)");
  EXPECT_EQ(error_with("cache_size_gb=abc"),
            "option cache_size_gb=abc: must be a whole number from 1 to 1048576 (GiB)");
  EXPECT_EQ(error_with("max_concurrent=4x"),
            "option max_concurrent=4x: must be a whole number from 1 to 64");
  EXPECT_EQ(error_with("max_concurrent"),
            "option max_concurrent needs a value: a whole number from 1 to 64");
}

TEST(MountOptions, ChoicesOutOfListAreErrors) {
  for (const std::string policy : {"fifo", "LRU", ""}) {
    EXPECT_EQ(error_with("eviction=" + policy),
              "option eviction=" + policy + ": must be lru, lfu, arc or s3fifo");
  }
  EXPECT_EQ(error_with("passthrough=maybe"), "option passthrough=maybe: must be auto, yes or no");
  EXPECT_EQ(error_with("cold_passthrough=2"), "option cold_passthrough=2: must be auto, yes or no");
  EXPECT_EQ(error_with("cold_passthrough=yes,passthrough=no"),
            "option cold_passthrough=yes needs passthrough, which passthrough=no switches off");
  EXPECT_EQ(error_with("direct_io=2"), "option direct_io=2: must be true or false");
  EXPECT_EQ(error_with("log_level=loud"),
            "option log_level=loud: must be trace, debug, info, warn or error");
  EXPECT_EQ(error_with("allow_other=1"), "option allow_other=1: takes no value");
  EXPECT_EQ(error_with("noexec=1"), "option noexec=1: takes no value");
  EXPECT_EQ(error_with("cache_dir=relative/path"),
            "option cache_dir=relative/path: must be an absolute path");
}

TEST(MountOptions, RequiredOptionsAreAskedForByName) {
  EXPECT_THAT(error_of(""), HasSubstr("nfs_backend is required"));
  EXPECT_THAT(error_of("cache_dir=/c,cache_size_gb=1"), HasSubstr("nfs_backend is required"));
  EXPECT_THAT(error_of("nfs_backend=/b,cache_size_gb=1"), HasSubstr("cache_dir is required"));
  EXPECT_THAT(error_of("nfs_backend=/b,cache_dir=/c"), HasSubstr("cache_size_gb is required"));
}

TEST(MountOptions, TheTwoSpellingsOfTheCacheSizeExcludeEachOther) {
  EXPECT_THAT(error_with("cache_size=50G"),
              AllOf(HasSubstr("cache_size"), HasSubstr("cache_size_gb"), HasSubstr("only one")));
}

TEST(MountOptions, TheLastOfDuplicatesWins) {
  EXPECT_EQ(with("max_concurrent=2,max_concurrent=3").max_concurrent, 3U);
  EXPECT_EQ(with("cache_size_gb=7").cache_size_bytes, 7 * kGiB);
  EXPECT_EQ(with("nfs_backend=/elsewhere").nfs_backend, "/elsewhere");
}

TEST(MountOptions, AUrlOfAnNfsServerIsABackend) {
  const std::string rest = ",cache_dir=/c,cache_size_gb=1";
  const std::string url = "nfs_backend=nfs://server:2050/export/dir?nconnect=2";
  EXPECT_EQ("nfs_backend=" + parsed(url + rest).nfs_backend, url);
  // What it cannot do is refused, or not the default.
  EXPECT_EQ(parsed(url + rest).locks, LockPlace::local);
  EXPECT_EQ(parsed(url + rest + ",locks=local").locks, LockPlace::local);
  EXPECT_THAT(error_of(url + rest + ",locks=backend"), HasSubstr("locks=local"));
  EXPECT_THAT(error_of(url + rest + ",offline_start"), HasSubstr("offline_start"));
  EXPECT_THAT(error_of("nfs_backend=nfs://server/export?version=3" + rest),
              AllOf(HasSubstr("nfs_backend=nfs://server/export?version=3"), HasSubstr("NFSv4")));
  EXPECT_THAT(error_of("nfs_backend=nfs://server" + rest), HasSubstr("must name an export"));
  EXPECT_EQ(with("").locks, LockPlace::backend);
}

TEST(MountOptions, ACacheOfFewBlocksOrBuffersIsRefused) {
  EXPECT_THAT(error_of("nfs_backend=/b,cache_dir=/c,cache_size=15M"),
              AllOf(HasSubstr("15 MiB"), HasSubstr("at least 16 blocks, 16 MiB")));
  EXPECT_EQ(parsed("nfs_backend=/b,cache_dir=/c,cache_size=16M").cache_size_bytes, 16 * kMiB);
  EXPECT_THAT(error_with("block_size_mb=16,buffer_mb=127"),
              AllOf(HasSubstr("buffer_mb=127"), HasSubstr("128 MiB")));
  EXPECT_EQ(with("block_size_mb=16,buffer_mb=128").buffer_bytes, 128 * kMiB);
}

TEST(MountOptions, CommasInValuesAreEscapedOrQuoted) {
  EXPECT_EQ(with("nfs_backend=/data/a\\,b").nfs_backend, "/data/a,b");
  EXPECT_EQ(with("nfs_backend=/data/a\\\\b").nfs_backend, "/data/a\\b");
  EXPECT_EQ(with("nfs_backend=\"/data/a,b\",max_concurrent=2").nfs_backend, "/data/a,b");
  EXPECT_EQ(with("nfs_backend=/data/with=equals").nfs_backend, "/data/with=equals");
  EXPECT_EQ(with("nfs_backend=/data/inch\"").nfs_backend, "/data/inch\"");
  EXPECT_THAT(error_with("nfs_backend=\"/data/a,b"), HasSubstr("quoted"));
}

TEST(MountOptions, EmptyOptionsBetweenCommasAreIgnored) {
  EXPECT_EQ(parsed("," + kMinimal + ",,").cache_size_bytes, 50 * kGiB);
}

TEST(MountOptions, WhatBelongsToMountAndToTheBootScriptsIsAccepted) {
  const MountOptions options = with(
      "defaults,_netdev,nofail,noauto,auto,nouser,x-systemd.requires=/mnt/nfs,x-systemd.automount,"
      "X-mount.mkdir,comment=a remark,iversion,user=alice,default_permissions");
  EXPECT_EQ(options.mount_flags, MountOptions{}.mount_flags);
}

TEST(MountOptions, GenericOptionsSetTheirMountFlags) {
  const unsigned long base = MS_NOSUID | MS_NODEV;
  EXPECT_EQ(with("ro").mount_flags, base | MS_RDONLY);
  EXPECT_EQ(with("ro,rw").mount_flags, base);
  EXPECT_EQ(with("noexec").mount_flags, base | MS_NOEXEC);
  EXPECT_EQ(with("noatime,nodiratime").mount_flags, base | MS_NOATIME | MS_NODIRATIME);
  EXPECT_EQ(with("noatime,relatime").mount_flags, base | MS_RELATIME);
  EXPECT_EQ(with("relatime,strictatime").mount_flags, base | MS_STRICTATIME);
  EXPECT_EQ(with("sync,dirsync").mount_flags, base | MS_SYNCHRONOUS | MS_DIRSYNC);
  EXPECT_EQ(with("suid").mount_flags, static_cast<unsigned long>(MS_NODEV));
  EXPECT_EQ(with("suid,dev").mount_flags, 0UL);
}

TEST(MountOptions, TrustHasNamesThatMountPassesOn) {
  EXPECT_EQ(with("allow_suid").mount_flags, static_cast<unsigned long>(MS_NODEV));
  EXPECT_EQ(with("allow_suid,allow_dev").mount_flags, 0UL);
  EXPECT_EQ(with("allow_suid,allow_dev,user").mount_flags,
            static_cast<unsigned long>(MS_NOSUID | MS_NODEV | MS_NOEXEC));
}

TEST(MountOptions, ARemountIsToldByItsMarkAlone) {
  EXPECT_TRUE(asks_to_remount("rw,noatime,remount"));
  EXPECT_TRUE(asks_to_remount("remount"));
  EXPECT_FALSE(asks_to_remount("ro,cache_dir=remount"));
  EXPECT_FALSE(asks_to_remount("cache_dir=\"a"));
}

TEST(MountOptions, ARemountNeedsNothingAndTakesWhatTheKernelLists) {
  const unsigned long both = MS_NOSUID | MS_NODEV;
  const auto flags = [](std::string_view text, unsigned long untrusted) {
    const auto parsed = parse_remount_options(text, UnknownOptions::refuse, untrusted);
    return std::get<MountOptions>(parsed).mount_flags;
  };
  EXPECT_EQ(flags("ro,nosuid,nodev,noatime,remount,user_id=0,group_id=0,max_read=131072,"
                  "default_permissions,allow_other",
                  both),
            both | MS_RDONLY | MS_NOATIME);
  EXPECT_EQ(flags("remount,rw", 0), 0UL);
  EXPECT_EQ(flags("remount,rw", MS_NODEV), static_cast<unsigned long>(MS_NODEV));
  EXPECT_EQ(flags("remount,rw,allow_dev", both), static_cast<unsigned long>(MS_NOSUID));
  EXPECT_EQ(flags("remount,nosuid,noexec", 0), static_cast<unsigned long>(MS_NOSUID | MS_NOEXEC));
  const auto wrong = parse_remount_options("remount,eviction=mru", UnknownOptions::refuse, 0);
  EXPECT_THAT(std::get<OptionError>(wrong).message, HasSubstr("eviction=mru"));
}

TEST(MountOptions, UserMountsAreNotTrustedUnlessALaterOptionSaysSo) {
  const unsigned long base = MS_NOSUID | MS_NODEV;
  EXPECT_EQ(with("user").mount_flags, base | MS_NOEXEC);
  EXPECT_EQ(with("users,exec").mount_flags, base);
  EXPECT_EQ(with("suid,owner").mount_flags, base);
}

TEST(MountOptions, AnUnknownOptionIsNamedAndANearOneProposed) {
  EXPECT_EQ(error_with("cache_sise=5G"),
            "unknown option 'cache_sise' (did you mean 'cache_size'?)");
  EXPECT_EQ(error_with("max_concurent=2"),
            "unknown option 'max_concurent' (did you mean 'max_concurrent'?)");
  EXPECT_EQ(error_with("zzzzzzzzzzzz"), "unknown option 'zzzzzzzzzzzz'");
  EXPECT_EQ(error_with("foo=2"), "unknown option 'foo'");
  EXPECT_EQ(error_with("foo\nbar=2"), "unknown option 'foo\\x0abar'");
  EXPECT_EQ(error_with("remount"), "unknown option 'remount'");
}

TEST(MountOptions, SloppyMountsIgnoreUnknownOptionsButNotBadValues) {
  const auto sloppy = [](const std::string& more) {
    return parse_mount_options(kMinimal + "," + more, UnknownOptions::ignore);
  };
  EXPECT_TRUE(std::holds_alternative<MountOptions>(sloppy("vers=4.2,hard")));
  EXPECT_TRUE(std::holds_alternative<OptionError>(sloppy("max_concurrent=none")));
}

TEST(MountOptions, EveryEvictionPolicyHasAName) {
  EXPECT_EQ(with("readahead_mb=0").eviction, Eviction::lru);
  EXPECT_EQ(with("eviction=lru").eviction, Eviction::lru);
  EXPECT_EQ(with("eviction=lfu").eviction, Eviction::lfu);
  EXPECT_EQ(with("eviction=arc").eviction, Eviction::arc);
  EXPECT_EQ(with("eviction=s3fifo").eviction, Eviction::s3fifo);
}

TEST(MountOptions, TheLiveLimitIsASizeOfAtLeastSixteenBlocks) {
  EXPECT_EQ(std::get<std::uint64_t>(parse_cache_size("2T", kMiB)), 2048 * kGiB);
  for (const char* wrong : {"", "0", "5X", "-1", "15M", "1025T"}) {
    const auto parsed = parse_cache_size(wrong, kMiB);
    ASSERT_TRUE(std::holds_alternative<OptionError>(parsed)) << wrong;
    EXPECT_THAT(std::get<OptionError>(parsed).message, HasSubstr("must be"));
  }
  EXPECT_THAT(error_with("min_free_percent=91"), HasSubstr("from 0 to 90"));
  EXPECT_THAT(error_with("cache_ttl_hours=7d"), HasSubstr("hours"));
}

TEST(MountOptions, BecomeTheConfigurationOfTheEngine) {
  const Config config = engine_config(with("block_size_mb=2,buffer_mb=64,max_concurrent=3,"
                                           "readahead_mb=8,readahead_max_mb=64,min_file_size=4K,"
                                           "backend_timeout_s=9,eviction=arc,min_free_percent=5,"
                                           "cache_ttl_hours=48,prefetch=off,copy_rate_mb=3"),
                                      77);
  EXPECT_EQ(config.cache_size_bytes, 50 * kGiB);
  EXPECT_EQ(config.block_size_bytes, 2 * kMiB);
  EXPECT_EQ(config.buffers, 32U);
  EXPECT_EQ(config.buffers_reserved, 8U);
  EXPECT_EQ(config.copies_max, 3U);
  EXPECT_EQ(config.readahead_bytes, 8 * kMiB);
  EXPECT_EQ(config.readahead_max_bytes, 64 * kMiB);
  EXPECT_EQ(config.prefetch, Prefetch::off);
  EXPECT_EQ(config.min_file_size_bytes, 4 * kKiB);
  EXPECT_EQ(config.source_deadline, 9 * kSecond);
  EXPECT_EQ(config.eviction, Eviction::arc);
  EXPECT_EQ(config.min_free_percent, 5U);
  EXPECT_EQ(config.cache_ttl, 48 * 3600 * kSecond);
  EXPECT_EQ(config.copy_bytes_per_second, 3 * kMiB);
  EXPECT_EQ(config.run_id, 77U);
}

TEST(MountOptions, BecomeTheSettingsOfTheMount) {
  const MountSettings settings =
      mount_settings(with("ro,allow_other,passthrough=no,readahead_mb=8,direct_io=false,"
                          "backend_timeout_s=9,attr_cache_mb=3,stale_if_error_s=4"),
                     "/mnt/cached", "models", 5);
  EXPECT_EQ(settings.metadata.facts_bytes_max, 3 * kMiB);
  EXPECT_EQ(settings.metadata.stale_if_error, 4 * kSecond);
  EXPECT_EQ(mount_settings(with("cold_passthrough=no"), "/m", "s", 5).cold_passthrough,
            ColdPassthroughPolicy::disabled);
  EXPECT_EQ(settings.mountpoint, "/mnt/cached");
  EXPECT_EQ(settings.source_name, "models");
  EXPECT_EQ(settings.source_root, 5);
  EXPECT_TRUE(settings.allow_other);
  EXPECT_EQ(settings.mount_flags, static_cast<unsigned long>(MS_NOSUID | MS_NODEV | MS_RDONLY));
  EXPECT_EQ(settings.passthrough, PassthroughPolicy::disabled);
  EXPECT_EQ(settings.readahead_bytes, 8 * kMiB);
  EXPECT_FALSE(settings.direct_io);
  EXPECT_EQ(settings.source_deadline, 9 * kSecond);
}

TEST(MountOptions, TheHelpNamesEveryOptionOnceWithADefaultThatParses) {
  std::vector<std::string> names;
  for (const OptionHelp& option : mount_option_help()) {
    EXPECT_THAT(names, Not(::testing::Contains(std::string(option.name))));
    names.emplace_back(option.name);
    EXPECT_FALSE(option.help.empty());
    if (!option.initial.empty()) {
      (void)with(std::string(option.name) + "=" + std::string(option.initial));
    }
  }
  EXPECT_FALSE(names.empty());
}

}  // namespace
}  // namespace ncfs
