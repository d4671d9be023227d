#include "nfs_source/results.h"

#include <cstring>
#include <utility>

namespace ncfs {
namespace {

constexpr std::size_t kNameBytesMax = 255;
constexpr std::size_t kLinkBytesMax = 4095;

std::uint64_t read_verifier(XdrReader& reader) {
  const std::string_view bytes = reader.fixed(NFS4_VERIFIER_SIZE);
  std::uint64_t value = 0;
  if (reader.ok()) std::memcpy(&value, bytes.data(), bytes.size());
  return value;
}

stateid4 read_state(XdrReader& reader) {
  stateid4 state{};
  state.seqid = reader.u32();
  const std::string_view other = reader.fixed(sizeof(state.other));
  if (reader.ok()) std::memcpy(state.other, other.data(), other.size());
  return state;
}

void skip_change_info(XdrReader& reader) {
  reader.u32();
  reader.u64();
  reader.u64();
}

// Which attributes were set: all, as it went well.
void skip_mask(XdrReader& reader) {
  for (std::uint32_t words = reader.u32(); words > 0 && reader.ok(); --words) reader.u32();
}

bool is_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

}  // namespace

bool read_found(CompoundReply& reply, NfsFile& found) {
  found.handle = reply.next(OP_GETFH).opaque(NFS4_FHSIZE);
  return read_attributes_of(reply, found.attributes);
}

bool read_attributes_of(CompoundReply& reply, FileAttributes& found) {
  found = read_attributes(reply.next(OP_GETATTR));
  return reply.reader().ok();
}

bool skip_changes(CompoundReply& reply) {
  skip_mask(reply.next(OP_SETATTR));
  return reply.reader().ok();
}

bool skip_link(CompoundReply& reply) {
  skip_change_info(reply.next(OP_LINK));
  return reply.reader().ok();
}

bool skip_creation(CompoundReply& reply) {
  XdrReader& reader = reply.next(OP_CREATE);
  skip_change_info(reader);
  skip_mask(reader);
  return reader.ok();
}

bool read_access(CompoundReply& reply, std::uint32_t& granted) {
  XdrReader& reader = reply.next(OP_ACCESS);
  reader.u32();  // what the server can tell at all
  granted = reader.u32();
  return reader.ok();
}

bool read_target(CompoundReply& reply, std::string& target) {
  target = reply.next(OP_READLINK).opaque(kLinkBytesMax);
  return reply.reader().ok() && target.find('\0') == std::string::npos;
}

bool read_bytes(CompoundReply& reply, std::size_t size, ReadBytes& found) {
  XdrReader& reader = reply.next(OP_READ);
  found.is_end = reader.flag();
  found.bytes = reader.opaque(size);
  return reader.ok() && (found.is_end || !found.bytes.empty());
}

bool read_written(CompoundReply& reply, std::size_t size, WrittenBytes& written) {
  XdrReader& reader = reply.next(OP_WRITE);
  written.count = reader.u32();
  written.is_durable = reader.u32() == FILE_SYNC4;
  written.verifier = read_verifier(reader);
  return reader.ok() && written.count <= size && (written.count > 0 || size == 0);
}

bool read_committed(CompoundReply& reply, std::uint64_t& verifier) {
  verifier = read_verifier(reply.next(OP_COMMIT));
  return reply.reader().ok();
}

bool read_opened(CompoundReply& reply, OpenedFile& opened) {
  XdrReader& reader = reply.next(OP_OPEN);
  opened.state = read_state(reader);
  skip_change_info(reader);
  opened.must_confirm = (reader.u32() & OPEN4_RESULT_CONFIRM) != 0;
  skip_mask(reader);
  if (reader.u32() != OPEN_DELEGATE_NONE) reader.fail();
  return reader.ok();
}

bool read_confirmed(CompoundReply& reply, stateid4& state) {
  state = read_state(reply.next(OP_OPEN_CONFIRM));
  return reply.reader().ok();
}

bool read_client_id(CompoundReply& reply, ClientId& client) {
  XdrReader& reader = reply.next(OP_SETCLIENTID);
  client.id = reader.u64();
  client.verifier = reader.fixed(NFS4_VERIFIER_SIZE);
  return reader.ok();
}

bool read_listing(CompoundReply& reply, DirectoryListing& listing) {
  XdrReader& reader = reply.next(OP_READDIR);
  listing.verifier = read_verifier(reader);
  listing.entries.clear();
  while (reader.flag()) {
    DirectoryEntry entry;
    entry.cookie = reader.u64();
    entry.name = reader.opaque(kNameBytesMax);
    const FileAttributes attributes = read_attributes(reader);
    entry.file_id = attributes.status.st_ino;
    entry.kind = attributes.status.st_mode & S_IFMT;
    if (!reader.ok()) return false;
    if (is_name(entry.name)) listing.entries.push_back(std::move(entry));
  }
  listing.is_last = reader.flag();
  return reader.ok() && (listing.is_last || !listing.entries.empty());
}

}  // namespace ncfs
