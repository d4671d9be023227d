#include "io/nfs_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ncfs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

NfsUrl parsed(const std::string& text) {
  const auto result = parse_nfs_url(text);
  const auto* error = std::get_if<NfsUrlError>(&result);
  EXPECT_EQ(error, nullptr) << text << ": " << error->message;
  return error == nullptr ? std::get<NfsUrl>(result) : NfsUrl{};
}

TEST(NfsUrl, NamesServerPortAndPath) {
  const NfsUrl url = parsed("nfs://filer.example:20490/export//a%20b/./c/?version=4&nconnect=7");
  EXPECT_EQ(url.server, "filer.example");
  EXPECT_EQ(url.port, 20490);
  EXPECT_THAT(url.path, ElementsAre("export", "a b", "c"));
  EXPECT_EQ(url.connections, 7U);
  EXPECT_EQ(url.name(), "filer.example:20490:/export/a b/c");
}

TEST(NfsUrl, HasDefaults) {
  const NfsUrl url = parsed("nfs://filer/");
  EXPECT_EQ(url.port, 2049);
  EXPECT_THAT(url.path, IsEmpty());
  EXPECT_EQ(url.connections, 4U);
  EXPECT_EQ(url.name(), "filer:2049:/");
}

TEST(NfsUrl, TakesAddressesOfIpv6) {
  const NfsUrl url = parsed("nfs://[fe80::1]:1234/data?nfsport=99");
  EXPECT_EQ(url.server, "fe80::1");
  EXPECT_EQ(url.port, 99);
  EXPECT_EQ(url.name(), "[fe80::1]:99:/data");
}

TEST(NfsUrl, OneTreeHasOneName) {
  EXPECT_EQ(parsed("nfs://a/b").name(), parsed("nfs://a:2049//b/?nconnect=2").name());
}

TEST(NfsUrl, TellsWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"http://a/b", "nfs://"},
      {"nfs://a", "must name an export"},
      {"nfs:///b", "names no server"},
      {"nfs://[::1/b", "[ without ]"},
      {"nfs://[::1]9/b", "port"},
      {"nfs://a:/b", "port"},
      {"nfs://a:x/b", "port x"},
      {"nfs://a:65536/b", "port 65536"},
      {"nfs://a/b%2", "%"},
      {"nfs://a/b%zz", "%"},
      {"nfs://a/b%2Fc", "%"},
      {"nfs://a/b%00", "%"},
      {"nfs://a/../b", ".."},
      {"nfs://a/b?version=3", "version=3: must be 4"},
      {"nfs://a/b?nconnect=0", "nconnect=0: must be 1..16"},
      {"nfs://a/b?nconnect=17", "nconnect=17"},
      {"nfs://a/b?nfsport=", "nfsport="},
      {"nfs://a/b?uid=0", "unknown option uid"},
  };
  for (const auto& [text, message] : cases) {
    const auto result = parse_nfs_url(text);
    const auto* error = std::get_if<NfsUrlError>(&result);
    ASSERT_NE(error, nullptr) << text;
    EXPECT_THAT(error->message, HasSubstr(message)) << text;
  }
}

TEST(NfsUrl, OnlyUrlsAreUrls) {
  EXPECT_TRUE(is_nfs_url("nfs://a/b"));
  EXPECT_FALSE(is_nfs_url("/mnt/nfs"));
  EXPECT_FALSE(is_nfs_url("nfs:/a"));
}

}  // namespace
}  // namespace ncfs
