#include "engine/path_rules.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

bool matches(const char* glob, const char* path) {
  const auto parsed = PathGlob::parse(glob);
  EXPECT_TRUE(parsed) << glob;
  return parsed && parsed->matches(path);
}

TEST(PathGlob, WithoutASlashIsComparedWithEveryPart) {
  EXPECT_TRUE(matches("*.tmp", "a.tmp"));
  EXPECT_TRUE(matches("*.tmp", "deep/er/a.tmp"));
  EXPECT_TRUE(matches("node_modules", "web/node_modules/x/y.js"));
  EXPECT_TRUE(matches("*", ".hidden"));
  EXPECT_TRUE(matches("[a-c]?", "bx"));
  EXPECT_FALSE(matches("*.tmp", "a.tmp.gz"));
  EXPECT_FALSE(matches("node_modules", "web/node_modules2/y.js"));
  EXPECT_FALSE(matches("\\*", "a"));
}

TEST(PathGlob, WithASlashBeginsAtTheRoot) {
  EXPECT_TRUE(matches("/scratch", "scratch"));
  EXPECT_TRUE(matches("/scratch", "scratch/a"));
  EXPECT_FALSE(matches("/scratch", "data/scratch"));
  EXPECT_TRUE(matches("data/*/raw", "data/a/raw/file"));
  EXPECT_FALSE(matches("data/*/raw", "data/a/b/raw"));
  EXPECT_FALSE(matches("data/*", "data"));
  EXPECT_FALSE(matches("a*b", "a/b")) << "no star crosses a slash";
}

TEST(PathGlob, TwoStarsStandForAnyDirectories) {
  EXPECT_TRUE(matches("data/**/raw", "data/raw"));
  EXPECT_TRUE(matches("data/**/raw", "data/a/b/raw"));
  EXPECT_TRUE(matches("data/**/raw/*.bin", "data/raw/a/raw/x.bin"));
  EXPECT_FALSE(matches("data/**/raw", "data/a/b"));
  EXPECT_TRUE(matches("**/a/**/b", "x/a/a/y/b"));
  EXPECT_TRUE(matches("logs/**", "logs/a/b"));
  EXPECT_FALSE(matches("logs/**", "logs"));
  EXPECT_FALSE(matches("logs/**", "other/logs/a"));
  EXPECT_TRUE(matches("**", "anything/at/all"));
}

TEST(PathGlob, WhatCannotBeMeantIsRefused) {
  for (const char* text : {"", "/", "a//b", "a/", "a/../b", ".", "./a"}) {
    EXPECT_FALSE(PathGlob::parse(text)) << text;
  }
  EXPECT_TRUE(PathGlob::parse(std::string(PathGlob::kLengthMax, 'x')));
  EXPECT_FALSE(PathGlob::parse(std::string(PathGlob::kLengthMax + 1, 'x')));
}

// The work is bounded however names repeat what the glob asks for.
TEST(PathGlob, ManyStarsTakeNoTime) {
  std::string glob;
  std::string path;
  for (int part = 0; part < 100; ++part) glob += "**/a/";
  for (int part = 0; part < 1000; ++part) path += "a/";
  EXPECT_FALSE(matches((glob + "b").c_str(), (path + "a").c_str()));
  EXPECT_TRUE(matches((glob + "b").c_str(), (path + "b").c_str()));
}

TEST(PathRules, ExcludeWins) {
  PathRules rules;
  EXPECT_TRUE(rules.admit("a"));
  rules.include = {*PathGlob::parse("models"), *PathGlob::parse("*.bin")};
  EXPECT_TRUE(rules.admit("models/a.txt"));
  EXPECT_TRUE(rules.admit("x/b.bin"));
  EXPECT_FALSE(rules.admit("x/b.txt"));
  rules.exclude = {*PathGlob::parse("models/old/**")};
  EXPECT_TRUE(rules.admit("models/a.txt"));
  EXPECT_FALSE(rules.admit("models/old/b.bin"));
}

}  // namespace
}  // namespace ncfs
