#include "fuse_adapter/inode_table.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ncfs {
namespace {

using Standing = InodeTable::Standing;

FileFacts directory(std::uint64_t inode) {
  return {.file = {1, inode}, .type = S_IFDIR, .version = {}};
}

FileFacts regular(std::uint64_t inode, std::int64_t time = 0) {
  return {.file = {1, inode},
          .type = S_IFREG,
          .version = {.size = 10, .mtime_ns = time, .ctime_ns = time}};
}

class InodeTableTest : public testing::Test {
 protected:
  InodeTable::OpenAnswer open(NodeId node, bool complete, bool may_retry = true) {
    return table_.open(node, {.wanted = complete ? OpenMode::passthrough : OpenMode::page_cache,
                              .backing = 77,
                              .may_retry = [may_retry] { return may_retry; }});
  }
  InodeTable::OpenAnswer open_other_version(NodeId node) {
    return table_.open(node, {.standing = Standing::other, .may_retry = [] { return false; }});
  }
  InodeTable::OpenAnswer open_to_write_unseen(NodeId node, bool is_root, bool may_retry = true) {
    return table_.open(node, {.wanted = OpenMode::source_passthrough,
                              .backing = 78,
                              .may_retry = [may_retry] { return may_retry; },
                              .writes = true,
                              .is_root = is_root,
                              .is_written_unseen = true});
  }
  NodeId find(std::uint64_t inode, std::int64_t time = 0) {
    return table_.look_up(kRootNode, "file", regular(inode, time));
  }

  bool refuses_ = false;
  std::vector<int> registered_;  // descriptors
  std::vector<int> taken_back_;  // ids
  InodeTable table_{directory(2),
                    {.register_backing =
                         [this](int descriptor) {
                           if (refuses_) return -1;
                           registered_.push_back(descriptor);
                           return static_cast<int>(registered_.size());
                         },
                     .unregister_backing = [this](int id) { taken_back_.push_back(id); }}};
};

TEST_F(InodeTableTest, TheSameFileKeepsItsNodeUnderAnyName) {
  const NodeId node = table_.look_up(kRootNode, "a", regular(5));
  EXPECT_EQ(table_.look_up(kRootNode, "hard link", regular(5)), node);
  EXPECT_EQ(table_.locate(node)->path, "hard link");
  EXPECT_NE(table_.look_up(kRootNode, "b", regular(6)), node);
}

TEST_F(InodeTableTest, PathsAreMadeOfNames) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  const NodeId b = table_.look_up(a, "b", directory(6));
  const NodeId c = table_.look_up(b, "c", regular(7));
  EXPECT_EQ(table_.locate(kRootNode)->path, "");
  EXPECT_EQ(table_.locate(c)->path, "a/b/c");
  EXPECT_EQ(table_.locate(c)->file, (FileKey{1, 7}));
}

TEST_F(InodeTableTest, ARenamedDirectoryTakesItsChildrenAlong) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  const NodeId file = table_.look_up(a, "file", regular(6));
  EXPECT_EQ(table_.look_up(kRootNode, "b", directory(5)), a);
  EXPECT_EQ(table_.locate(file)->path, "b/file");
}

TEST_F(InodeTableTest, AForgottenNodeIsGoneAndItsNumberIsNotUsedAgain) {
  const NodeId node = find(5);
  EXPECT_EQ(find(5), node);
  table_.forget(node, 1);
  EXPECT_TRUE(table_.locate(node));
  table_.forget(node, 1);
  EXPECT_FALSE(table_.locate(node));
  EXPECT_GT(find(5), node);
}

TEST_F(InodeTableTest, AForgottenDirectoryLivesAsLongAsItsChildren) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  const NodeId b = table_.look_up(a, "b", directory(6));
  const NodeId file = table_.look_up(b, "file", regular(7));
  table_.forget(a, 1);
  table_.forget(b, 1);
  EXPECT_EQ(table_.locate(file)->path, "a/b/file");
  table_.forget(file, 1);
  EXPECT_EQ(table_.size(), 1U);
}

TEST_F(InodeTableTest, AFileMovedElsewhereLetsItsFormerParentGo) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  const NodeId file = table_.look_up(a, "file", regular(7));
  table_.forget(a, 1);
  EXPECT_EQ(table_.look_up(kRootNode, "file", regular(7)), file);
  EXPECT_FALSE(table_.locate(a));
  EXPECT_EQ(table_.locate(file)->path, "file");
}

TEST_F(InodeTableTest, TheRootIsNeverForgotten) {
  table_.forget(kRootNode, 1000);
  EXPECT_TRUE(table_.locate(kRootNode));
}

TEST_F(InodeTableTest, NamesThatLeadInACircleAreNotFollowedForEver) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  const NodeId b = table_.look_up(a, "b", directory(6));
  EXPECT_EQ(table_.look_up(b, "a", directory(5)), a);
  EXPECT_FALSE(table_.locate(a));
}

TEST_F(InodeTableTest, AFileReadFromTheSourceGetsANewNodeOnceItIsCached) {
  const auto open_as = [this](NodeId node, OpenMode wanted, bool may_retry) {
    return table_.open(node, {.wanted = wanted,
                              .backing = wanted == OpenMode::source_passthrough ? 55 : 77,
                              .may_retry = [may_retry] { return may_retry; }});
  };
  const NodeId cold = find(5);
  EXPECT_EQ(open_as(cold, OpenMode::source_passthrough, true).mode, OpenMode::source_passthrough);
  const auto second = open_as(cold, OpenMode::source_passthrough, true);
  EXPECT_EQ(second.mode, OpenMode::source_passthrough);
  EXPECT_EQ(registered_, std::vector{55});
  EXPECT_TRUE(open_as(cold, OpenMode::passthrough, true).retry);
  const NodeId warm = find(5);
  EXPECT_NE(warm, cold);
  EXPECT_EQ(open_as(warm, OpenMode::passthrough, true).mode, OpenMode::passthrough);
  EXPECT_EQ(registered_, (std::vector{55, 77}));
  // Without a look-up in between: the same bytes from the source.
  EXPECT_EQ(open_as(cold, OpenMode::passthrough, false).mode, OpenMode::source_passthrough);
  for (int opened = 0; opened < 3; ++opened) table_.release(cold, OpenMode::source_passthrough);
  EXPECT_EQ(taken_back_, std::vector{second.backing_id});
  table_.release(warm, OpenMode::passthrough);
}

TEST_F(InodeTableTest, AnotherVersionIsAnotherNode) {
  const NodeId first = find(5, 1);
  const NodeId second = find(5, 2);
  EXPECT_NE(first, second);
  EXPECT_EQ(find(5, 2), second);
  EXPECT_EQ(table_.observe(first, regular(5, 1)), Standing::retired);
  EXPECT_EQ(table_.observe(second, regular(5, 2)), Standing::current);
}

TEST_F(InodeTableTest, AChangeSeenByAStatRetiresTheNode) {
  const NodeId first = find(5, 1);
  EXPECT_EQ(table_.observe(first, regular(5, 2)), Standing::other);
  EXPECT_EQ(table_.observe(first, regular(5, 1)), Standing::retired);
  EXPECT_NE(find(5, 1), first);
}

TEST_F(InodeTableTest, DirectoriesKeepTheirNodeWhenTheyChange) {
  FileFacts facts = directory(5);
  const NodeId node = table_.look_up(kRootNode, "a", facts);
  facts.version.mtime_ns = 99;
  EXPECT_EQ(table_.observe(node, facts), Standing::current);
  EXPECT_EQ(table_.look_up(kRootNode, "a", facts), node);
  table_.retire(node);
  EXPECT_EQ(table_.look_up(kRootNode, "a", facts), node);
}

TEST_F(InodeTableTest, AnInodeNumberUsedForAnotherTypeOfFileIsAnotherNode) {
  const NodeId node = table_.look_up(kRootNode, "a", directory(5));
  FileFacts link = regular(5);
  link.type = S_IFLNK;
  EXPECT_NE(table_.look_up(kRootNode, "a", link), node);
  EXPECT_EQ(table_.observe(node, link), Standing::other);
}

TEST_F(InodeTableTest, AllPassthroughOpensShareOneBackingUntilTheLastIsClosed) {
  const NodeId node = find(5);
  const auto first = open(node, true);
  const auto second = open(node, true);
  EXPECT_EQ(first.mode, OpenMode::passthrough);
  EXPECT_EQ(first.backing_id, second.backing_id);
  EXPECT_EQ(registered_, std::vector{77});
  table_.release(node, OpenMode::passthrough);
  EXPECT_TRUE(taken_back_.empty());
  table_.release(node, OpenMode::passthrough);
  EXPECT_EQ(taken_back_, std::vector{first.backing_id});
  EXPECT_EQ(open(node, true).backing_id, 2);
}

TEST_F(InodeTableTest, AFileCompletedWhileItIsOpenGetsANewNodeForPassthrough) {
  const NodeId cold = find(5);
  EXPECT_EQ(open(cold, false).mode, OpenMode::page_cache);
  EXPECT_TRUE(open(cold, true).retry);
  const NodeId warm = find(5);
  EXPECT_NE(warm, cold);
  EXPECT_EQ(open(warm, true).mode, OpenMode::passthrough);
}

TEST_F(InodeTableTest, AnOpenThatCannotBeRetriedJoinsThePageCache) {
  const NodeId node = find(5);
  EXPECT_TRUE(open(node, false).keep_cache);
  const auto answer = open(node, true, false);
  EXPECT_FALSE(answer.retry);
  EXPECT_EQ(answer.mode, OpenMode::page_cache);
  EXPECT_TRUE(answer.keep_cache);
}

TEST_F(InodeTableTest, AFileCompletedAfterItWasClosedKeepsItsNode) {
  const NodeId node = find(5);
  EXPECT_EQ(open(node, false).mode, OpenMode::page_cache);
  table_.release(node, OpenMode::page_cache);
  EXPECT_EQ(open(node, true).mode, OpenMode::passthrough);
}

TEST_F(InodeTableTest, AFileLostFromTheCacheWhilePassedThroughGetsANewNode) {
  const NodeId node = find(5);
  const auto passed = open(node, true);
  EXPECT_TRUE(open(node, false).retry);
  EXPECT_NE(find(5), node);
  EXPECT_EQ(open(node, false, false).backing_id, passed.backing_id);
}

TEST_F(InodeTableTest, TheSecondOpenOfAChangedFileIsServedAsItsNodeAllows) {
  const NodeId cold = find(5, 1);
  EXPECT_EQ(open(cold, false).mode, OpenMode::page_cache);
  EXPECT_EQ(open_other_version(cold).mode, OpenMode::direct);

  const NodeId warm = find(6, 1);
  const auto passed = open(warm, true);
  const auto joined = open_other_version(warm);
  EXPECT_EQ(joined.mode, OpenMode::passthrough);
  EXPECT_EQ(joined.backing_id, passed.backing_id);
}

TEST_F(InodeTableTest, ARetiredNodeGetsNoBacking) {
  const NodeId node = find(5);
  table_.retire(node);
  const auto answer = table_.open(node, {.standing = Standing::retired,
                                         .wanted = OpenMode::passthrough,
                                         .backing = 77,
                                         .may_retry = [] { return false; }});
  EXPECT_EQ(answer.mode, OpenMode::page_cache);
  EXPECT_TRUE(registered_.empty());
}

TEST_F(InodeTableTest, AKernelThatRefusesIsReadThroughThePageCache) {
  refuses_ = true;
  const NodeId node = find(5);
  const auto answer = open(node, true);
  EXPECT_TRUE(answer.was_refused);
  EXPECT_EQ(answer.mode, OpenMode::page_cache);
}

TEST_F(InodeTableTest, PagesReadWhileAFileWasYoungAreNotKept) {
  const NodeId node = find(5);
  const auto open_at_age = [&](bool is_settled) {
    const auto answer =
        table_.open(node, {.is_settled = is_settled, .may_retry = [] { return false; }});
    table_.release(node, answer.mode);
    return answer.keep_cache;
  };
  EXPECT_FALSE(open_at_age(false));
  EXPECT_FALSE(open_at_age(true));  // drops what was read while it was young
  EXPECT_TRUE(open_at_age(true));
}

TEST_F(InodeTableTest, YoungPagesStaySuspectWhileSomebodyMayStillReadThem) {
  const NodeId node = find(5);
  const auto keeps = [&](bool is_settled) {
    return table_.open(node, {.is_settled = is_settled, .may_retry = [] { return false; }})
        .keep_cache;
  };
  EXPECT_FALSE(keeps(false));
  EXPECT_FALSE(keeps(true));
  EXPECT_FALSE(keeps(true));
}

TEST_F(InodeTableTest, WritersToTheSourceShareABackingButForThatOfRoot) {
  const NodeId node = find(5);
  EXPECT_EQ(open_to_write_unseen(node, false).mode, OpenMode::source_passthrough);
  EXPECT_EQ(open_to_write_unseen(node, false).backing_id, 1);
  EXPECT_EQ(open_to_write_unseen(node, true).backing_id, 1);
  const NodeId roots = find(6);
  EXPECT_EQ(open_to_write_unseen(roots, true).backing_id, 2);
  EXPECT_TRUE(open_to_write_unseen(roots, false).retry);
  EXPECT_TRUE(open_to_write_unseen(roots, false, false).is_impossible);
  const NodeId next = find(6);
  EXPECT_NE(next, roots);
  EXPECT_EQ(open_to_write_unseen(next, false, false).backing_id, 3);
}

TEST_F(InodeTableTest, AFileThatIsWrittenUnseenIsNeverReadThroughThePageCache) {
  const NodeId node = find(5);
  refuses_ = true;
  EXPECT_EQ(open_to_write_unseen(node, true).mode, OpenMode::direct);
  const auto reader = table_.open(node, {.may_retry = {}, .is_written_unseen = true});
  EXPECT_EQ(reader.mode, OpenMode::direct);
  refuses_ = false;
  const NodeId cached = find(6);
  EXPECT_TRUE(open(cached, true).backing_id >= 0);
  EXPECT_TRUE(open_to_write_unseen(cached, true).retry);
  EXPECT_TRUE(open_to_write_unseen(cached, true, false).is_impossible);
}

TEST_F(InodeTableTest, ANodeForgottenBeforeItsReleaseLivesUntilThen) {
  const NodeId node = find(5);
  EXPECT_EQ(open(node, true).mode, OpenMode::passthrough);
  table_.forget(node, 1);
  EXPECT_EQ(table_.size(), 2U);
  table_.release(node, OpenMode::passthrough);
  EXPECT_EQ(table_.size(), 1U);
  EXPECT_EQ(taken_back_.size(), 1U);
}

TEST_F(InodeTableTest, AnUnknownNodeIsLookedUpAgain) {
  EXPECT_TRUE(open(99, false).retry);
}

TEST_F(InodeTableTest, OurOwnChangeOfAttributesKeepsTheNode) {
  const NodeId node = find(5, 1);
  EXPECT_TRUE(open(node, true).mode == OpenMode::passthrough);
  EXPECT_EQ(table_.note_attribute_change(regular(5, 1), regular(5, 2), true),
            std::vector<NodeId>{node});
  EXPECT_EQ(find(5, 2), node);
  EXPECT_EQ(table_.observe(node, regular(5, 2)), Standing::current);
  EXPECT_TRUE(open(node, true).mode == OpenMode::passthrough);
}

TEST_F(InodeTableTest, OurOwnChangeAfterSomebodyElsesRetiresTheNode) {
  const NodeId node = find(5, 1);
  table_.note_attribute_change(regular(5, 2), regular(5, 3), true);
  EXPECT_NE(find(5, 3), node);
  EXPECT_EQ(table_.observe(node, regular(5, 3)), Standing::other);
}

TEST_F(InodeTableTest, RetiredNodesFollowOurOwnChangesOfAttributes) {
  const NodeId old = find(5, 1);
  static_cast<void>(open(old, false));
  EXPECT_TRUE(open(old, true).retry);
  const NodeId node = find(5, 1);
  ASSERT_NE(node, old);
  EXPECT_EQ(table_.note_attribute_change(regular(5, 1), regular(5, 2), true).size(), 2U);
  EXPECT_EQ(table_.observe(old, regular(5, 2)), Standing::retired);
  EXPECT_EQ(table_.observe(node, regular(5, 2)), Standing::current);
  table_.release(old, OpenMode::page_cache);
  table_.forget(old, 1);
  EXPECT_EQ(table_.note_attribute_change(regular(5, 2), regular(5, 3), true),
            std::vector<NodeId>{node});
}

TEST_F(InodeTableTest, ContentChangedThroughANodeIsThatNodesAlone) {
  const NodeId old = find(5, 1);
  static_cast<void>(open(old, false));
  EXPECT_TRUE(open(old, true).retry);
  const NodeId node = find(5, 1);
  table_.note_change(node, regular(5, 1), regular(5, 2));
  EXPECT_EQ(find(5, 2), node);
  EXPECT_EQ(table_.observe(old, regular(5, 2)), Standing::other);
  table_.note_change(node, regular(5, 8), regular(5, 9));
  EXPECT_NE(find(5, 9), node);
}

TEST_F(InodeTableTest, PagesOfAnOldFileAreKeptWhenItsAttributesWereJustChanged) {
  const NodeId node = find(5, 1);
  table_.note_attribute_change(regular(5, 1), regular(5, 2), true);
  const auto answer = table_.open(node, {.is_settled = false, .may_retry = [] { return false; }});
  EXPECT_TRUE(answer.keep_cache);
  // Not if somebody changed the content.
  table_.note_change(node, regular(5, 2), regular(5, 3));
  EXPECT_FALSE(
      table_.open(node, {.is_settled = false, .may_retry = [] { return false; }}).keep_cache);
}

TEST_F(InodeTableTest, WhatWeRenameIsFoundUnderItsNewName) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  const NodeId b = table_.look_up(kRootNode, "b", directory(6));
  const NodeId file = table_.look_up(a, "file", regular(7));
  table_.move_name({1, 7}, a, "file", b, "moved");
  EXPECT_EQ(table_.locate(file)->path, "b/moved");
  table_.move_name({1, 6}, kRootNode, "b", a, "c");
  EXPECT_EQ(table_.locate(file)->path, "a/c/moved");
  table_.move_name({1, 7}, a, "not its name", a, "x");
  EXPECT_EQ(table_.locate(file)->path, "a/c/moved");
}

FileFacts linked(std::uint64_t inode) {
  FileFacts facts = regular(inode);
  facts.links = 2;
  return facts;
}

TEST_F(InodeTableTest, WhenANameIsRemovedAnotherOneLeadsToTheFile) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  const NodeId node = table_.look_up(kRootNode, "1", linked(7));
  EXPECT_EQ(table_.look_up(a, "2", linked(7)), node);
  EXPECT_EQ(table_.locate(node)->path, "a/2");
  table_.remove_name({1, 7}, a, "2");
  EXPECT_EQ(table_.locate(node)->path, "1");
  table_.forget(a, 1);
  EXPECT_EQ(table_.size(), 2U);  // nothing holds a any more
  table_.remove_name({1, 7}, kRootNode, "1");
  EXPECT_FALSE(table_.locate(node));
  EXPECT_EQ(table_.look_up(kRootNode, "3", regular(7)), node);
  EXPECT_EQ(table_.locate(node)->path, "3");
}

TEST_F(InodeTableTest, ADirectoryThatWasRemovedIsNotFoundAgain) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  table_.remove_name({1, 5}, kRootNode, "a");
  EXPECT_FALSE(table_.locate(a));
  EXPECT_NE(table_.look_up(kRootNode, "b", directory(5)), a);
}

TEST_F(InodeTableTest, AnotherNameIsTriedWhenTheLastOneLeadsNowhere) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  const NodeId node = table_.look_up(a, "1", linked(7));
  EXPECT_EQ(table_.look_up(kRootNode, "2", linked(7)), node);
  EXPECT_TRUE(table_.try_other_name(node));
  EXPECT_EQ(table_.locate(node)->path, "a/1");
  EXPECT_FALSE(table_.try_other_name(node));
  EXPECT_EQ(table_.locate(node)->path, "a/1");
  EXPECT_EQ(table_.look_up(kRootNode, "2", linked(7)), node);
  // The names go with the node.
  table_.forget(node, 3);
  table_.forget(a, 1);
  EXPECT_EQ(table_.size(), 1U);
}

// A million known files within 512 MiB. (Memory is only counted without sanitizers.)
TEST_F(InodeTableTest, AKnownFileTakesLittleMemoryAndGivesItBack) {
  constexpr std::uint64_t kFiles = 100'000;
  const auto name = [](std::uint64_t number) {
    return "a name of usual length " + std::to_string(number);
  };
  const std::size_t before = ::mallinfo2().uordblks;
  std::vector<NodeId> nodes(kFiles);
  for (std::uint64_t file = 0; file < kFiles; ++file) {
    nodes[file] = table_.look_up(kRootNode, name(file), regular(file + 10));
  }
  const std::size_t known = ::mallinfo2().uordblks - before;
  RecordProperty("bytes_per_file", std::to_string(known / kFiles));
  EXPECT_LT(known / kFiles, 512U);
  for (const NodeId node : nodes) table_.forget(node, 1);
  EXPECT_EQ(table_.size(), 1U);
  const std::size_t left = ::mallinfo2().uordblks - before;
  EXPECT_LE(left / kFiles, sizeof(NodeId) + 2 * sizeof(void*));  // `nodes`, and buckets of the map
}

TEST_F(InodeTableTest, EveryNameOfALinkedFileIsTold) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  const NodeId node = table_.look_up(a, "1", linked(7));
  EXPECT_TRUE(table_.other_names(node).empty());
  EXPECT_EQ(table_.look_up(kRootNode, "2", linked(7)), node);
  const auto others = table_.other_names(node);
  ASSERT_EQ(others.size(), 1U);
  EXPECT_EQ(others[0].path, "a/1");
  EXPECT_EQ(others[0].file, (FileKey{1, 7}));
  table_.remove_name({1, 7}, a, "1");
  EXPECT_TRUE(table_.other_names(node).empty());
}

// Entries of two listings must not mix in the kernel.
TEST_F(InodeTableTest, TheKernelKeepsOneListingAtATime) {
  const NodeId a = table_.look_up(kRootNode, "a", directory(5));
  const auto first = std::make_shared<int>(1);
  const auto second = std::make_shared<int>(2);
  const auto open_with = [&](const auto& listing) {
    const auto answer = table_.open_listing(a, listing);
    return std::pair(answer.may_fill, answer.keep);
  };
  EXPECT_EQ(open_with(first), std::pair(true, false));
  EXPECT_EQ(open_with(first), std::pair(true, true));
  EXPECT_EQ(open_with(second), std::pair(false, false));
  table_.release_listing(a);
  EXPECT_EQ(open_with(second), std::pair(false, false));
  table_.release_listing(a);
  EXPECT_EQ(open_with(second), std::pair(true, false));
  table_.forget(a, 1);
  EXPECT_EQ(table_.size(), 2U);  // until nobody has it open
  table_.release_listing(a);
  EXPECT_EQ(table_.size(), 1U);
}

// With stale_open=inval.
class KeptNodesTest : public testing::Test {
 protected:
  NodeId find(std::int64_t time) { return table_.look_up(kRootNode, "file", regular(5, time)); }
  InodeTable::OpenAnswer open(NodeId node, std::int64_t time) {
    const FileFacts facts = regular(5, time);
    return table_.open(node, {.standing = table_.observe(node, facts),
                              .may_retry = [] { return false; },
                              .version = facts.version});
  }

  // Nothing is passed through.
  InodeTable table_{directory(2),
                    {.register_backing = {}, .unregister_backing = {}, .keeps_nodes = true}};
};

TEST_F(KeptNodesTest, AChangedFileKeepsItsNodeAndLosesItsPages) {
  const NodeId node = find(1);
  EXPECT_TRUE(open(node, 1).keep_cache);
  table_.release(node, OpenMode::page_cache);
  EXPECT_EQ(find(2), node);
  const auto first = open(node, 2);
  EXPECT_EQ(first.mode, OpenMode::page_cache);
  EXPECT_FALSE(first.keep_cache);
  table_.release(node, OpenMode::page_cache);
  EXPECT_TRUE(open(node, 2).keep_cache);
  table_.release(node, OpenMode::page_cache);
}

TEST_F(KeptNodesTest, WhileTheFileIsOpenAnotherVersionIsReadPastItsPages) {
  const NodeId node = find(1);
  EXPECT_EQ(open(node, 1).mode, OpenMode::page_cache);
  EXPECT_EQ(find(2), node);
  EXPECT_EQ(open(node, 2).mode, OpenMode::direct);
  EXPECT_EQ(open(node, 1).mode, OpenMode::page_cache);
  table_.release(node, OpenMode::page_cache);
  table_.release(node, OpenMode::page_cache);
  EXPECT_EQ(find(2), node);
  EXPECT_EQ(open(node, 2).mode, OpenMode::direct);  // another one is open
  table_.release(node, OpenMode::direct);
  table_.release(node, OpenMode::direct);
  EXPECT_EQ(find(2), node);
  EXPECT_EQ(open(node, 2).mode, OpenMode::page_cache);
  table_.release(node, OpenMode::page_cache);
}

TEST_F(KeptNodesTest, WhatWasOpenedBeforeTheLookUpIsReadPastItsPages) {
  const NodeId node = find(1);
  const FileFacts old = regular(5, 1);
  const auto standing = table_.observe(node, old);
  EXPECT_EQ(find(2), node);
  EXPECT_EQ(
      table_
          .open(node,
                {.standing = standing, .may_retry = [] { return false; }, .version = old.version})
          .mode,
      OpenMode::direct);
  table_.release(node, OpenMode::direct);
}

}  // namespace
}  // namespace ncfs
