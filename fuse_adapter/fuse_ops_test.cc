// Method: see fuse_ops_fixture.h.
#include "fuse_adapter/fuse_ops.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fuse_adapter/fuse_ops_fixture.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

std::string text_of(std::size_t size) {
  std::string text(size, ' ');
  for (std::size_t index = 0; index < size; ++index) {
    text[index] = static_cast<char>('a' + index * 7 / 5 % 26);
  }
  return text;
}

TEST_F(FuseOpsTest, TheGreetingAsksForPassthroughWhatOldLibfuseCannot) {
  const auto answer = init_.as<fuse_init_out>();
  EXPECT_EQ(answer.minor, 40U);
  EXPECT_NE(answer.flags & FUSE_INIT_EXT, 0U);
  EXPECT_EQ(answer.flags & (FUSE_WRITEBACK_CACHE | FUSE_AUTO_INVAL_DATA), 0U);
  EXPECT_EQ(answer.flags2, kFlags2Passthrough | kFlags2NoExportSupport);
  std::uint32_t stack_depth = 0;
  EXPECT_NE(answer.flags & FUSE_PARALLEL_DIROPS, 0U);
  std::memcpy(&stack_depth, init_.bytes.data() + 36, sizeof(stack_depth));
  EXPECT_EQ(stack_depth, 1U);
  EXPECT_EQ(answer.max_pages, 256);
  EXPECT_TRUE(core_->channel->passthrough_active());
}

TEST_F(FuseOpsTest, ANameIsFoundWithItsAttributes) {
  write("file", "12345");
  const auto entry = look_up("file").as<fuse_entry_out>();
  EXPECT_GT(entry.nodeid, kRootNode);
  EXPECT_EQ(entry.attr.size, 5U);
  EXPECT_EQ(get_attributes(entry.nodeid).as<fuse_attr_out>().attr.ino, entry.attr.ino);
}

TEST_F(FuseOpsTest, NobodyGetsOutOfTheTreeByName) {
  EXPECT_EQ(look_up("..").error, ESTALE);
  EXPECT_EQ(look_up(".").error, ESTALE);
}

TEST_F(FuseOpsTest, AFileForWritingIsNotTheEnginesBusiness) {
  write("file", "12345");
  const NodeId node = find("file");
  for (const int flags : {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC}) {
    const Reply opened = open(node, flags);
    EXPECT_EQ(opened.error, 0);
    EXPECT_EQ(engine_.handles_open, 0);
    release(node, opened.as<fuse_open_out>().fh);
  }
  EXPECT_EQ(std::filesystem::file_size(directory_.path("file")), 0U);
}

TEST_F(FuseOpsTest, WhatIsMissingIsAskedOfTheEngineBlockByBlock) {
  const std::string text = text_of(3 * kBlock + 100);
  write("file", text);
  std::vector<ByteRange> asked;
  read_through();
  engine_.on_read = [&, pass = engine_.on_read](int source, ByteRange range, bool skip,
                                                const auto& done) {
    asked.push_back(range);
    pass(source, range, skip, done);
  };
  const NodeId node = find("file");
  const auto handle = open(node).as<fuse_open_out>().fh;
  EXPECT_EQ(read(node, handle, 1000, 2 * kBlock).bytes, text.substr(1000, 2 * kBlock));
  EXPECT_THAT(asked, testing::ElementsAre(ByteRange{1000, kBlock - 1000}, ByteRange{kBlock, kBlock},
                                          ByteRange{2 * kBlock, 1000}));
  EXPECT_EQ(read(node, handle, 3 * kBlock, kBlock).bytes, text.substr(3 * kBlock));
  EXPECT_EQ(read(node, handle, 4 * kBlock, kBlock).bytes, "");
  release(node, handle);
}

TEST_F(FuseOpsTest, ASourceThatFailsFailsTheWholeRead) {
  write("file", text_of(3 * kBlock));
  engine_.on_read = [](int, ByteRange range, bool, const auto& done) {
    const std::vector<std::byte> bytes(range.length);
    ReadOutcome outcome;
    outcome.error = range.offset == kBlock ? EIO : 0;
    if (outcome.error == 0) outcome.bytes = bytes;
    done(outcome);
  };
  const NodeId node = find("file");
  const auto handle = open(node).as<fuse_open_out>().fh;
  EXPECT_EQ(read(node, handle, 0, 3 * kBlock).error, EIO);
  EXPECT_EQ(stats_->errors.value(), 1U);
  release(node, handle);
}

TEST_F(FuseOpsTest, ASourceThatBecameShorterGivesAShortRead) {
  write("file", text_of(3 * kBlock));
  engine_.on_read = [](int, ByteRange range, bool, const auto& done) {
    const std::vector<std::byte> bytes(range.length, std::byte{'x'});
    ReadOutcome outcome;
    if (range.offset == 0) outcome.bytes = bytes;
    if (range.offset == kBlock) outcome.bytes = std::span(bytes).first(10);
    done(outcome);
  };
  const NodeId node = find("file");
  const auto handle = open(node).as<fuse_open_out>().fh;
  EXPECT_EQ(read(node, handle, 0, 3 * kBlock).bytes, std::string(kBlock + 10, 'x'));
  release(node, handle);
}

TEST_F(FuseOpsTest, ResidentBytesComeFromTheCacheFile) {
  const std::string text = text_of(3 * kBlock + 10);
  write("file", text);
  const std::string other = text_of(text.size() + 1).substr(1);
  engine_.on_open = [residency = cache(other, text.size())](const std::string& path) {
    EXPECT_EQ(path, "file");
    return OpenResult{residency, true, OpenReason::cached};
  };
  const NodeId node = find("file");
  const auto opened = open(node).as<fuse_open_out>();
  EXPECT_NE(opened.open_flags & FOPEN_KEEP_CACHE, 0U);
  EXPECT_EQ(read(node, opened.fh, 0, 4 * kBlock).bytes, other);
  EXPECT_EQ(read(node, opened.fh, kBlock, 5).bytes, other.substr(kBlock, 5));
  EXPECT_EQ(stats_->cache_bytes.value(), text.size() + 5);
  EXPECT_EQ(stats_->opens_hit.value(), 1U);
  release(node, opened.fh);
}

TEST_F(FuseOpsTest, ACacheFileThatFailsIsGivenUpForTheSource) {
  const std::string text = text_of(3 * kBlock);
  write("file", text);
  read_through();
  // Shorter than it should be: torn by something outside.
  engine_.on_open = [residency = cache("torn", text.size())](const std::string&) {
    return OpenResult{residency, true, OpenReason::cached};
  };
  const NodeId node = find("file");
  const auto handle = open(node).as<fuse_open_out>().fh;
  EXPECT_EQ(read(node, handle, 0, 3 * kBlock).bytes, text);
  EXPECT_EQ(engine_.cache_faults, 1);
  EXPECT_EQ(engine_.cache_error, EIO);
  EXPECT_EQ(stats_->cache_faults.value(), 1U);
  release(node, handle);
}

TEST_F(FuseOpsTest, BytesThatBecameResidentMeanwhileAreReadFromTheCacheFile) {
  const std::string text = text_of(2 * kBlock);
  write("file", text);
  engine_.on_read = [residency = cache(text, text.size())](int, ByteRange, bool, const auto& done) {
    ReadOutcome outcome;
    outcome.is_resident = true;
    outcome.residency = residency;
    done(outcome);
  };
  const NodeId node = find("file");
  const auto handle = open(node).as<fuse_open_out>().fh;
  EXPECT_EQ(read(node, handle, 0, 2 * kBlock).bytes, text);
  EXPECT_EQ(stats_->cache_bytes.value(), text.size());
  release(node, handle);
}

TEST_F(FuseOpsTest, AChangedFileIsLookedUpAgainAtTheNextOpen) {
  write("file", "old");
  const NodeId before = find("file");
  write("file", "newer");
  EXPECT_EQ(open(before).error, ESTALE);
  const NodeId now = find("file");
  EXPECT_NE(now, before);
  const Reply opened = open(now);
  EXPECT_EQ(opened.error, 0);
  release(now, opened.as<fuse_open_out>().fh);
}

TEST_F(FuseOpsTest, AThreadThatInsistsOnAnOldNodeIsServedPastThePageCache) {
  write("file", "old");
  read_through();
  const NodeId node = find("file");
  write("file", "newer");
  EXPECT_EQ(open(node, O_RDONLY, 7).error, ESTALE);
  EXPECT_EQ(open(node, O_RDONLY, 8).error, ESTALE);
  const auto opened = open(node, O_RDONLY, 7).as<fuse_open_out>();
  EXPECT_NE(opened.open_flags & FOPEN_DIRECT_IO, 0U);
  EXPECT_EQ(read(node, opened.fh, 0, 100).bytes, "newer");
  release(node, opened.fh);
  EXPECT_EQ(open(node, O_RDONLY, 7).error, ESTALE);
}

TEST_F(FuseOpsTest, AFileReplacedAgainAfterItWasLookedUpIsOpenedAsItIsNow) {
  const auto replace = [this](const std::string& text) {
    write("new", text);
    std::filesystem::rename(directory_.path("new"), directory_.path("file"));
  };
  read_through();
  replace("1");
  const NodeId first = find("file");
  replace("22");
  EXPECT_EQ(open(first).error, ESTALE);
  const NodeId second = find("file");
  replace("333");
  const Reply opened = open(second);
  EXPECT_EQ(opened.error, 0);
  const auto handle = opened.as<fuse_open_out>().fh;
  EXPECT_EQ(read(second, handle, 0, 100).bytes, "333");
  release(second, handle);
}

TEST_F(FuseOpsTest, AnOpenFileThatLostItsNameIsStillKnown) {
  write("file", "12345");
  read_through();
  const NodeId node = find("file");
  const auto handle = open(node).as<fuse_open_out>().fh;
  std::filesystem::remove(directory_.path("file"));
  const Reply attributes = get_attributes(node);
  EXPECT_EQ(attributes.error, 0);
  EXPECT_EQ(attributes.as<fuse_attr_out>().attr.nlink, 0U);
  EXPECT_EQ(read(node, handle, 0, 5).bytes, "12345");
  // By descriptor, which has no name to be looked up again.
  EXPECT_EQ(open(node, O_RDONLY, 7).error, ESTALE);
  const Reply again = open(node, O_RDONLY, 7);
  EXPECT_EQ(again.error, 0);
  release(node, again.as<fuse_open_out>().fh);
  release(node, handle);
  EXPECT_EQ(open(node, O_RDONLY, 7).error, ESTALE);
  EXPECT_EQ(open(node, O_RDONLY, 7).error, ENOENT);
}

TEST_F(FuseOpsTest, WhatWasAppendedIsReadFromTheSourceOnceTheKernelKnowsOfIt) {
  write("log", "line 1\n");
  read_through();
  const NodeId node = find("log");
  const auto handle = open(node).as<fuse_open_out>().fh;
  write("log", "line 1\nline 2\n");
  EXPECT_EQ(read(node, handle, 0, 100).bytes, "line 1\n");
  EXPECT_EQ(get_attributes(node).as<fuse_attr_out>().attr.size, 14U);
  EXPECT_EQ(read(node, handle, 0, 100).bytes, "line 1\nline 2\n");
  release(node, handle);
}

TEST_F(FuseOpsTest, AKernelThatCannotPassAFileThroughGetsItFromTheDaemon) {
  const std::string text = text_of(2 * kMiB);
  write("file", text);
  engine_.on_open = [residency = cache(text, text.size())](const std::string&) {
    return OpenResult{residency, true, OpenReason::cached};
  };
  const NodeId node = find("file");
  const auto opened = open(node).as<fuse_open_out>();  // a socket passes nothing through
  EXPECT_EQ(opened.open_flags, static_cast<std::uint32_t>(FOPEN_KEEP_CACHE));
  EXPECT_EQ(stats_->passthrough_refused.value(), 1U);
  EXPECT_EQ(read(node, opened.fh, kMiB, kBlock).bytes, text.substr(kMiB, kBlock));
  release(node, opened.fh);
}

TEST_F(FuseOpsTest, AKernelThatDoesNotPassTheSourceThroughIsAskedOnce) {
  core_->passes_source_through = true;
  write("file", text_of(2 * kMiB));
  read_through();
  const NodeId node = find("file");
  for (int time = 0; time < 2; ++time) {
    const Reply opened = open(node);  // a socket passes nothing through
    ASSERT_EQ(opened.error, 0);
    const auto handle = opened.as<fuse_open_out>().fh;
    EXPECT_EQ(read(node, handle, kBlock, kBlock).bytes, text_of(2 * kMiB).substr(kBlock, kBlock));
    release(node, handle);
  }
  EXPECT_EQ(stats_->passthrough_refused.value(), 1U);
  EXPECT_EQ(stats_->opens_from_source.value(), 0U);
}

// A reader under another node learns the new size from the first read that is answered short,
// unless a notice comes in between: the kernel then reads up to the size it knew.
TEST_F(FuseOpsTest, WhenAFileIsSyncedOrShorterNoNoticeOfAnEarlierChangeIsToCome) {
  write("file", text_of(kBlock));
  const NodeId node = find("file");
  const auto reader = open(node).as<fuse_open_out>().fh;
  write("file", text_of(kBlock + 1));
  const NodeId other = find("file");
  ASSERT_NE(other, node);
  const auto writer = open(other, O_RDWR).as<fuse_open_out>().fh;
  fuse_write_in page{};
  page.fh = writer;
  page.size = 1;
  page.write_flags = FUSE_WRITE_CACHE;
  fuse_fsync_in sync{};
  sync.fh = writer;
  fuse_setattr_in shorter{};
  shorter.valid = FATTR_SIZE;
  int notices = 0;
  for (int round = 0; round < 200; ++round) {
    send(FUSE_WRITE, other, raw(page) + 'x');
    EXPECT_EQ(receive_after(notices).error, 0);
    send(FUSE_FSYNC, other, raw(sync));
    EXPECT_EQ(receive_after(notices).error, 0);
    ASSERT_EQ(notices, 3 * round + 1);
    send(FUSE_WRITE, other, raw(page) + 'x');
    EXPECT_EQ(receive_after(notices).error, 0);
    send(FUSE_SETATTR, other, raw(shorter));
    EXPECT_EQ(receive_after(notices).error, 0);
    ASSERT_EQ(notices, 3 * round + 3);
  }
  release(node, reader);
  release(other, writer);
}

TEST_F(FuseOpsTest, WhatIsWrittenPastThePagesIsForgottenThere) {
  write("file", "12345");
  const NodeId node = find("file");
  const auto writer = open(node, O_RDWR).as<fuse_open_out>().fh;
  fuse_write_in request{};
  request.fh = writer;
  request.size = 1;
  int notices = 0;
  send(FUSE_WRITE, node, raw(request) + 'x');
  EXPECT_EQ(receive_after(notices).error, 0);
  EXPECT_EQ(notices, 0);
  request.write_flags = FUSE_WRITE_LOCKOWNER;
  request.lock_owner = 7;
  request.flags = O_DIRECT;
  send(FUSE_WRITE, node, raw(request) + 'y');
  EXPECT_EQ(receive_after(notices).error, 0);
  EXPECT_EQ(notices, 1);
  release(node, writer);
}

TEST_F(FuseOpsTest, WhoOpensTooManyFilesIsRefusedAndNobodyElseNotices) {
  write("file", "12345");
  const NodeId node = find("file");
  const auto open_directory = [this] { return ask(FUSE_OPENDIR, kRootNode, raw(fuse_open_in{})); };
  fuse_create_in created{};
  created.flags = O_WRONLY;
  created.mode = 0600;
  const auto create = [&](const std::string& name) {
    return ask(FUSE_CREATE, kRootNode, raw(created) + name + '\0');
  };
  std::vector<std::uint64_t> handles;
  const auto directory = open_directory().as<fuse_open_out>().fh;
  while (handles.size() + 1 < kOpenFilesMax) {
    const Reply opened = open(node, handles.size() % 2 == 0 ? O_RDONLY : O_RDWR);
    ASSERT_EQ(opened.error, 0);
    handles.push_back(opened.as<fuse_open_out>().fh);
  }
  EXPECT_EQ(open(node).error, ENFILE);
  EXPECT_EQ(open(node, O_WRONLY | O_TRUNC).error, ENFILE);
  EXPECT_EQ(open_directory().error, ENFILE);
  EXPECT_EQ(create("new").error, ENFILE);
  EXPECT_EQ(look_up("file").as<fuse_entry_out>().attr.size, 5U);
  EXPECT_EQ(look_up("new").as<fuse_entry_out>().nodeid, 0U);
  fuse_release_in request{};
  request.fh = directory;
  EXPECT_EQ(ask(FUSE_RELEASEDIR, kRootNode, raw(request)).error, 0);
  const Reply made = create("new");
  EXPECT_EQ(made.error, 0);
  fuse_open_out new_file{};
  std::memcpy(&new_file, made.bytes.data() + sizeof(fuse_entry_out), sizeof(new_file));
  EXPECT_EQ(open_directory().error, ENFILE);
  release(made.as<fuse_entry_out>().nodeid, new_file.fh);
  for (const std::uint64_t handle : handles) release(node, handle);
  const Reply opened = open(node);
  EXPECT_EQ(opened.error, 0);
  release(node, opened.as<fuse_open_out>().fh);
}

TEST(OpenFilesMax, LeavesDescriptorsForEverybodyElse) {
  EXPECT_EQ(open_files_max(524'288), 261'888U);
  for (const std::uint64_t descriptors : {0U, 1U, 20U, 1024U, 20'000U, 1'048'576U}) {
    EXPECT_LE(2 * open_files_max(descriptors), descriptors);
    EXPECT_GE(4 * (open_files_max(descriptors) + 1), descriptors);
  }
  EXPECT_GT(open_files_max(RLIM_INFINITY), 1U << 30U);
}

// Whoever removes a file waits for a lock that the test holds, as he would for a silent source.
TEST_F(FuseOpsTest, RequestsThatHangKeepNoOthersWaiting) {
  write("held", "x");
  write("free", "y");
  const FileKey key = key_of("held");
  auto lock = core_->changes.serialize(key);
  constexpr int kHanging = 5;  // more than may block where they were received
  std::set<std::uint64_t> hanging;
  for (int count = 0; count < kHanging; ++count) {
    send(FUSE_UNLINK, kRootNode, std::string("held") + '\0');
    hanging.insert(last_unique_);
  }
  EXPECT_EQ(look_up("free").error, 0);
  EXPECT_EQ(open(find("free")).error, 0);
  lock.unlock();
  int removed = 0;
  for (int count = 0; count < kHanging; ++count) {
    const fuse_out_header header = receive_header();
    EXPECT_EQ(hanging.erase(header.unique), 1U);
    if (header.error == 0) ++removed;
  }
  EXPECT_EQ(removed, 1);
}

// Where it was received the next request comes to lie.
TEST_F(FuseOpsTest, AWriteThatIsHandedOverKeepsItsBytes) {
  write("held", "x");
  write("file", "");
  const FileKey key = key_of("held");
  auto lock = core_->changes.serialize(key);
  constexpr int kHanging = 2;  // nobody else may block where a request was received
  for (int count = 0; count < kHanging; ++count) {
    send(FUSE_UNLINK, kRootNode, std::string("held") + '\0');
  }
  const NodeId node = find("file");
  const auto handle = open(node, O_WRONLY).as<fuse_open_out>().fh;
  constexpr int kWrites = 64;
  std::string expected;
  for (int count = 0; count < kWrites; ++count) {
    const std::string bytes(512, static_cast<char>('0' + count));
    fuse_write_in request{};
    request.fh = handle;
    request.offset = expected.size();
    request.size = static_cast<std::uint32_t>(bytes.size());
    send(FUSE_WRITE, node, raw(request) + bytes);
    expected += bytes;
  }
  for (int count = 0; count < kWrites; ++count) EXPECT_EQ(receive_header().error, 0);
  std::ifstream file(directory_.path("file"));
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), expected);
  lock.unlock();
  for (int count = 0; count < kHanging; ++count) receive_header();
}

TEST_F(FuseOpsTest, TheEndDoesNotWaitForWhatHangs) {
  write("held", "x");
  const FileKey key = key_of("held");
  auto lock = core_->changes.serialize(key);
  for (int count = 0; count < 2; ++count) {
    send(FUSE_UNLINK, kRootNode, std::string("held") + '\0');
  }
  EXPECT_EQ(look_up("held").error, 0);  // they were received before
  core_->stop();
  lock.unlock();
  const std::weak_ptr<FuseCore> core = core_;
  core_.reset();
  // The threads that were left behind keep what they need, and only they.
  EXPECT_TRUE(eventually([&] { return core.expired(); }));
}

TEST_F(FuseOpsTest, ForgottenNodesAreDropped) {
  write("file", "12345");
  const NodeId node = find("file");
  fuse_forget_in forget{};
  forget.nlookup = 1;
  send(FUSE_FORGET, node, raw(forget));
  // Forgetting is not answered; the answer to the next request comes after it.
  while (core_->nodes.size() > 1) look_up("missing");
  EXPECT_EQ(get_attributes(node).error, ESTALE);
}

// What is known is believed for longer than any test takes.
class FuseMemoryTest : public FuseOpsTest {
 protected:
  [[nodiscard]] MetadataConfig metadata() const override {
    return metadata_config(MetadataProfile::unchanged);
  }
  [[nodiscard]] std::uint64_t looks() const { return stats_->source_looks.value(); }
  std::uint32_t mode_of(NodeId node) {
    return get_attributes(node).as<fuse_attr_out>().attr.mode & 07777U;
  }
  bool exists(const std::string& name) { return find(name) != 0; }
};

TEST_F(FuseMemoryTest, NamesAndTheirAbsenceAreAskedForOnce) {
  write("file", "12345");
  const auto first = look_up("file").as<fuse_entry_out>();
  EXPECT_EQ(looks(), 1U);
  EXPECT_GT(first.entry_valid, 0U);
  EXPECT_LE(first.entry_valid, 3600U);
  const auto absent = look_up("missing").as<fuse_entry_out>();
  EXPECT_EQ(absent.nodeid, 0U);
  EXPECT_GT(absent.entry_valid, 0U);
  const std::uint64_t before = looks();
  EXPECT_EQ(find("file"), first.nodeid);
  EXPECT_EQ(find("missing"), 0U);
  const auto attributes = get_attributes(first.nodeid).as<fuse_attr_out>();
  EXPECT_EQ(attributes.attr.size, 5U);
  EXPECT_GT(attributes.attr_valid, 0U);
  EXPECT_EQ(looks(), before);
  const MetadataStats known = core_->known_metadata.status().stats;
  EXPECT_EQ(known.name_hits, 1U);
  EXPECT_EQ(known.negative_hits, 1U);
  EXPECT_EQ(known.attribute_hits, 1U);
}

TEST_F(FuseMemoryTest, TargetsOfLinksAreAskedForOnce) {
  ASSERT_EQ(::symlink("target", directory_.path("link").c_str()), 0);
  const NodeId link = find("link");
  EXPECT_EQ(ask(FUSE_READLINK, link, {}).bytes, "target");
  const std::uint64_t before = looks();
  EXPECT_EQ(ask(FUSE_READLINK, link, {}).bytes, "target");
  EXPECT_EQ(looks(), before);
}

TEST_F(FuseMemoryTest, SpaceIsAskedForOnceUntilSomethingIsChangedHere) {
  const auto space = ask(FUSE_STATFS, kRootNode, {}).as<fuse_statfs_out>();
  EXPECT_GT(space.st.blocks, 0U);
  std::uint64_t before = looks();
  EXPECT_EQ(ask(FUSE_STATFS, kRootNode, {}).as<fuse_statfs_out>().st.blocks, space.st.blocks);
  EXPECT_EQ(looks(), before);
  EXPECT_EQ(ask(FUSE_MKDIR, kRootNode, raw(fuse_mkdir_in{}) + std::string("d") + '\0').error, 0);
  before = looks();
  EXPECT_EQ(ask(FUSE_STATFS, kRootNode, {}).error, 0);
  EXPECT_GT(looks(), before);
}

TEST_F(FuseMemoryTest, OwnChangesOfNamesAreKnownBeforeTheyAreAnswered) {
  EXPECT_FALSE(exists("d"));
  fuse_mkdir_in directory{};
  directory.mode = 0755;
  EXPECT_EQ(ask(FUSE_MKDIR, kRootNode, raw(directory) + std::string("d") + '\0').error, 0);
  EXPECT_TRUE(exists("d"));
  EXPECT_FALSE(exists("l"));
  EXPECT_EQ(ask(FUSE_SYMLINK, kRootNode, std::string("l") + '\0' + "target" + '\0').error, 0);
  EXPECT_TRUE(exists("l"));
  EXPECT_FALSE(exists("f"));
  fuse_create_in create{};
  create.flags = O_RDWR | O_CREAT;
  create.mode = 0644;
  const Reply created = ask(FUSE_CREATE, kRootNode, raw(create) + std::string("f") + '\0');
  ASSERT_EQ(created.error, 0);
  const auto entry = created.as<fuse_entry_out>();
  EXPECT_EQ(find("f"), entry.nodeid);
  fuse_open_out opened{};
  std::memcpy(&opened, created.bytes.data() + sizeof(entry), sizeof(opened));
  release(entry.nodeid, opened.fh);
  EXPECT_FALSE(exists("h"));
  fuse_link_in link{};
  link.oldnodeid = entry.nodeid;
  EXPECT_EQ(ask(FUSE_LINK, kRootNode, raw(link) + std::string("h") + '\0').error, 0);
  EXPECT_EQ(look_up("h").as<fuse_entry_out>().attr.nlink, 2U);
  EXPECT_EQ(look_up("f").as<fuse_entry_out>().attr.nlink, 2U);
  EXPECT_FALSE(exists("r"));
  fuse_rename_in rename{};
  rename.newdir = kRootNode;
  EXPECT_EQ(ask(FUSE_RENAME, kRootNode, raw(rename) + std::string("h") + '\0' + "r" + '\0').error,
            0);
  EXPECT_TRUE(exists("r"));
  EXPECT_FALSE(exists("h"));
  EXPECT_EQ(ask(FUSE_UNLINK, kRootNode, std::string("r") + '\0').error, 0);
  EXPECT_FALSE(exists("r"));
  EXPECT_EQ(look_up("f").as<fuse_entry_out>().attr.nlink, 1U);
  EXPECT_EQ(ask(FUSE_RMDIR, kRootNode, std::string("d") + '\0').error, 0);
  EXPECT_FALSE(exists("d"));
}

TEST_F(FuseMemoryTest, OwnChangesOfAFileAreKnownBeforeTheyAreAnswered) {
  write("file", "12345");
  const NodeId node = find("file");
  const auto size_of = [this] { return look_up("file").as<fuse_entry_out>().attr.size; };
  fuse_setattr_in change{};
  change.valid = FATTR_MODE;
  for (const std::uint32_t mode : {0600U, 0640U, 0644U}) {
    change.mode = mode;
    EXPECT_EQ(ask(FUSE_SETATTR, node, raw(change)).error, 0);
    EXPECT_EQ(look_up("file").as<fuse_entry_out>().attr.mode & 07777U, mode);
    EXPECT_EQ(mode_of(node), mode);
  }
  change = {};
  change.valid = FATTR_SIZE;
  change.size = 3;
  EXPECT_EQ(ask(FUSE_SETATTR, node, raw(change)).error, 0);
  EXPECT_EQ(size_of(), 3U);
  const auto opened = open(node, O_WRONLY).as<fuse_open_out>();
  EXPECT_EQ(size_of(), 3U);
  fuse_write_in request{};
  request.fh = opened.fh;
  request.offset = 3;
  request.size = 4;
  EXPECT_EQ(ask(FUSE_WRITE, node, raw(request) + "abcd").error, 0);
  EXPECT_EQ(size_of(), 7U);
  request.offset = 7;
  EXPECT_EQ(ask(FUSE_WRITE, node, raw(request) + "efgh").error, 0);
  release(node, opened.fh);
  EXPECT_EQ(size_of(), 11U);
  EXPECT_EQ(get_attributes(node).as<fuse_attr_out>().attr.size, 11U);
}

TEST_F(FuseMemoryTest, WhatSomebodyHadOpenIsOpenedUnasked) {
  read_through();
  write("file", "12345");
  const NodeId node = find("file");
  const auto first = open(node).as<fuse_open_out>();
  release(node, first.fh);
  const std::uint64_t before = looks();
  const auto second = open(node).as<fuse_open_out>();
  EXPECT_EQ(read(node, second.fh, 0, 5).bytes, "12345");
  release(node, second.fh);
  EXPECT_EQ(looks(), before);
  EXPECT_EQ(core_->known_metadata.status().stats.opens_unasked, 1U);
  // Not after a change of ours.
  fuse_setattr_in change{};
  change.valid = FATTR_MODE;
  change.mode = 0600;
  EXPECT_EQ(ask(FUSE_SETATTR, node, raw(change)).error, 0);
  const auto third = open(node).as<fuse_open_out>();
  release(node, third.fh);
  EXPECT_EQ(core_->known_metadata.status().stats.opens_unasked, 1U);
}

// Every open asks.
class FuseCloseToOpenTest : public FuseMemoryTest {
 protected:
  [[nodiscard]] MetadataConfig metadata() const override {
    MetadataConfig config = metadata_config(MetadataProfile::unchanged);
    config.is_close_to_open = true;
    config.negative_timeout = 0;
    return config;
  }
};

TEST_F(FuseCloseToOpenTest, AnOpenTakesOneLook) {
  write("file", "12345");
  const NodeId node = find("file");
  for (int round = 0; round < 3; ++round) {
    const std::uint64_t before = looks();
    const auto opened = open(node).as<fuse_open_out>();
    EXPECT_EQ(looks(), before + 1);
    release(node, opened.fh);
  }
  EXPECT_EQ(core_->known_metadata.status().stats.opens_same, 3U);
}

// All of them believe an hour's names; the backend's tree is another one by now.
TEST_F(FuseCloseToOpenTest, AnOpenFindsOutThatItsNameLeadsElsewhere) {
  write("file", "old");
  const NodeId node = find("file");
  write("other", "newer");
  ASSERT_EQ(::rename(directory_.path("other").c_str(), directory_.path("file").c_str()), 0);
  EXPECT_EQ(open(node).error, ESTALE);
  // Looking up again asks, whatever is known.
  const auto entry = look_up("file").as<fuse_entry_out>();
  EXPECT_NE(entry.nodeid, node);
  EXPECT_EQ(entry.attr.size, 5U);
  const auto opened = open(entry.nodeid).as<fuse_open_out>();
  release(entry.nodeid, opened.fh);
  const MetadataStats known = core_->known_metadata.status().stats;
  EXPECT_EQ(known.opens_estale, 1U);
  EXPECT_EQ(known.opens_same, 1U);
}

// The kernel asks twice about a name that is gone.
TEST_F(FuseCloseToOpenTest, WhatIsGoneIsNotFoundInMemory) {
  write("file", "12345");
  const NodeId node = find("file");
  ASSERT_EQ(::unlink(directory_.path("file").c_str()), 0);
  EXPECT_EQ(open(node).error, ESTALE);
  EXPECT_EQ(find("file"), 0U);
  core_->stale.clear(1000);
  EXPECT_EQ(find("file"), 0U);
}

class FuseCreateTest : public FuseOpsTest {
 protected:
  Reply create(const std::string& name, int flags) {
    fuse_create_in request{};
    request.flags = static_cast<std::uint32_t>(flags | O_CREAT);
    request.mode = 0644;
    return ask(FUSE_CREATE, kRootNode, raw(request) + name + '\0');
  }
  static std::uint64_t handle_of_created(const Reply& created) {
    fuse_open_out opened{};
    std::memcpy(&opened, created.bytes.data() + sizeof(fuse_entry_out), sizeof(opened));
    return opened.fh;
  }
  // Was opened as it is.
  void expect_opened(const Reply& created, std::uint64_t size) {
    ASSERT_EQ(created.error, 0);
    const auto entry = created.as<fuse_entry_out>();
    EXPECT_EQ(find("file"), entry.nodeid);
    EXPECT_EQ(std::filesystem::file_size(directory_.path("file")), size);
    release(entry.nodeid, handle_of_created(created));
  }
};

TEST_F(FuseCreateTest, OfAFileThatOthersMadeIsToldToLookItUpOnce) {
  write("file", "12345");
  EXPECT_EQ(create("file", O_RDWR | O_EXCL).error, EEXIST);
  EXPECT_EQ(create("file", O_RDWR).error, ESTALE);
  expect_opened(create("file", O_RDWR), 5);
  EXPECT_EQ(create("file", O_RDWR).error, ESTALE);
}

class FuseCreateInvalTest : public FuseCreateTest {
 protected:
  [[nodiscard]] StaleOpen stale_open() const override { return StaleOpen::inval; }
};

TEST_F(FuseCreateInvalTest, OfAFileThatOthersMadeOpensIt) {
  write("file", "12345");
  EXPECT_EQ(create("file", O_RDWR | O_EXCL).error, EEXIST);
  expect_opened(create("file", O_RDWR), 5);
  expect_opened(create("file", O_RDWR | O_TRUNC), 0);
  std::filesystem::create_directory(directory_.path("directory"));
  EXPECT_EQ(create("directory", O_RDWR).error, EISDIR);
  ASSERT_EQ(::symlink("file", directory_.path("link").c_str()), 0);
  EXPECT_EQ(create("link", O_RDWR).error, ENOENT);
}

}  // namespace
}  // namespace ncfs
