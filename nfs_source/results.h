// What the operations of a COMPOUND reply hold. Each function steps over the results it names, in
// the order of the call; false if they are not there or make no sense.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "nfs_source/attributes.h"
#include "nfs_source/compound.h"

namespace ncfs {

struct NfsFile {
  FileHandle4 handle;
  FileAttributes attributes;
};
// GETFH, GETATTR.
[[nodiscard]] bool read_found(CompoundReply& reply, NfsFile& found);
// GETATTR.
[[nodiscard]] bool read_attributes_of(CompoundReply& reply, FileAttributes& found);

// SETATTR.
[[nodiscard]] bool skip_changes(CompoundReply& reply);
// LINK.
[[nodiscard]] bool skip_link(CompoundReply& reply);
// CREATE.
[[nodiscard]] bool skip_creation(CompoundReply& reply);

// ACCESS. Bits of ACCESS4_*.
[[nodiscard]] bool read_access(CompoundReply& reply, std::uint32_t& granted);
// READLINK. Without bytes of zero.
[[nodiscard]] bool read_target(CompoundReply& reply, std::string& target);

struct ReadBytes {
  std::string_view bytes;  // in the reply
  bool is_end = false;
};
// READ of `size` bytes. Fewer are allowed, but nothing at all only at the end of the file.
[[nodiscard]] bool read_bytes(CompoundReply& reply, std::size_t size, ReadBytes& found);

struct WrittenBytes {
  std::size_t count = 0;
  bool is_durable = false;
  std::uint64_t verifier = 0;
};
// WRITE of `size` bytes; of some at least one.
[[nodiscard]] bool read_written(CompoundReply& reply, std::size_t size, WrittenBytes& written);
// COMMIT.
[[nodiscard]] bool read_committed(CompoundReply& reply, std::uint64_t& verifier);

struct OpenedFile {
  stateid4 state{};
  bool must_confirm = false;
};
// OPEN. A delegation, which nobody wanted, makes no sense.
[[nodiscard]] bool read_opened(CompoundReply& reply, OpenedFile& opened);
// OPEN_CONFIRM.
[[nodiscard]] bool read_confirmed(CompoundReply& reply, stateid4& state);

struct ClientId {
  std::uint64_t id = 0;
  std::string verifier;  // NFS4_VERIFIER_SIZE bytes, to confirm it with
};
// SETCLIENTID.
[[nodiscard]] bool read_client_id(CompoundReply& reply, ClientId& client);

struct DirectoryEntry {
  std::uint64_t cookie = 0;
  std::string name;
  std::uint64_t file_id = 0;
  mode_t kind = 0;  // S_IFMT
};
struct DirectoryListing {
  std::vector<DirectoryEntry> entries;
  std::uint64_t verifier = 0;
  bool is_last = false;
};
// READDIR. What is no name is left out; nothing at all is only at the end of the directory.
[[nodiscard]] bool read_listing(CompoundReply& reply, DirectoryListing& listing);

}  // namespace ncfs
