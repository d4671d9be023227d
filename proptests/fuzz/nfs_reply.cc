// What an NFS server sends: a stream of record marks and fragments, in it a reply, in that results
// of operations. The first byte tells how many bytes follow that choose them.
#include <algorithm>
#include <climits>
#include <cstring>

#include "nfs_source/results.h"
#include "nfs_source/rpc_message.h"
#include "proptests/fuzz/fuzz_target.h"

namespace ncfs {
namespace {

using fuzz::require;

void check(const FileAttributes& attributes) {
  const struct stat& status = attributes.status;
  require(status.st_size >= 0 && status.st_blocks >= 0, "sizes are not negative");
  for (const timespec& time : {status.st_atim, status.st_mtim, status.st_ctim}) {
    require(time.tv_nsec >= 0 && time.tv_nsec < 1'000'000'000, "times are in order");
  }
}

bool read_file(CompoundReply& reply) {
  NfsFile found;
  const bool is_ok = read_found(reply, found);
  require(found.handle.size() <= NFS4_FHSIZE, "handles are short");
  check(found.attributes);
  return is_ok;
}

bool read_data(CompoundReply& reply, std::span<const char> message) {
  constexpr std::size_t kSize = 100;
  ReadBytes found;
  if (!read_bytes(reply, kSize, found)) return false;
  require(found.bytes.size() <= kSize && (found.is_end || !found.bytes.empty()),
          "what is read is what was asked for");
  require(found.bytes.empty() ||
              (found.bytes.data() >= message.data() &&
               found.bytes.data() + found.bytes.size() <= message.data() + message.size()),
          "what is read lies in the message");
  return true;
}

bool read_count(CompoundReply& reply) {
  constexpr std::size_t kSize = 100;
  WrittenBytes written;
  if (!read_written(reply, kSize, written)) return false;
  require(written.count > 0 && written.count <= kSize, "writes go on and end");
  return true;
}

bool read_names(CompoundReply& reply) {
  DirectoryListing listing;
  if (!read_listing(reply, listing)) return false;
  require(listing.is_last || !listing.entries.empty(), "listings go on and end");
  for (const DirectoryEntry& entry : listing.entries) {
    require(!entry.name.empty() && entry.name.size() <= 255 && entry.name != "." &&
                entry.name != ".." && entry.name.find('/') == std::string::npos &&
                entry.name.find('\0') == std::string::npos,
            "names are names");
    require((entry.kind & ~static_cast<mode_t>(S_IFMT)) == 0, "a kind is a kind");
  }
  return true;
}

bool read_client(CompoundReply& reply) {
  ClientId client;
  if (!read_client_id(reply, client)) return false;
  require(client.verifier.size() == NFS4_VERIFIER_SIZE, "what confirms is whole");
  return true;
}

bool read_link_target(CompoundReply& reply) {
  std::string target;
  if (!read_target(reply, target)) return false;
  require(target.size() < PATH_MAX && std::strlen(target.c_str()) == target.size(),
          "targets are paths");
  return true;
}

bool read_results(CompoundReply& reply, std::uint8_t which, std::span<const char> message) {
  std::uint32_t granted = 0;
  std::uint64_t verifier = 0;
  stateid4 state{};
  OpenedFile opened;
  switch (which % 14) {
    case 0:
      return reply.next(OP_PUTFH).ok();
    case 1:
      return read_file(reply);
    case 2:
      return skip_changes(reply);
    case 3:
      return skip_link(reply);
    case 4:
      return skip_creation(reply);
    case 5:
      return read_access(reply, granted);
    case 6:
      return read_link_target(reply);
    case 7:
      return read_data(reply, message);
    case 8:
      return read_count(reply);
    case 9:
      return read_committed(reply, verifier);
    case 10:
      return read_opened(reply, opened);
    case 11:
      return read_confirmed(reply, state);
    case 12:
      return read_client(reply);
    default:
      return read_names(reply);
  }
}

}  // namespace
}  // namespace ncfs

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ncfs;
  if (size == 0 || size - 1 < data[0]) return 0;
  const std::span choices(data + 1, data[0]);
  std::string_view stream = fuzz::text_of(data + 1 + data[0], size - 1 - data[0]);
  RpcMessage message = receive_message([&](std::span<char> bytes) {
    if (bytes.size() > stream.size()) return false;
    std::ranges::copy(stream.substr(0, bytes.size()), bytes.begin());
    stream.remove_prefix(bytes.size());
    return true;
  });
  require(message.size <= kRpcBytesMax, "messages are bounded");
  // Of its own length, so that a sanitizer sees what reads past its end.
  RpcMessage exact{std::make_unique<char[]>(message.size), message.size};
  std::ranges::copy(message.view(), exact.bytes.get());
  const std::span<const char> view = exact.view();
  CompoundReply reply(std::move(exact));
  (void)errno_of(reply.status());
  require(reply.status() != NFS4_OK || reply.reader().ok(), "what is well can be read");
  for (const std::uint8_t choice : choices) {
    if (!read_results(reply, choice, view)) break;
  }
  return 0;
}
