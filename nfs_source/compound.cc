#include "nfs_source/compound.h"

#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace ncfs {
namespace {

constexpr std::uint32_t kNfsProgram = 100003;
constexpr std::uint32_t kNfsVersion = 4;
constexpr std::uint32_t kCompound = 1;
constexpr std::size_t kGroupsMax = 16;  // RFC 5531, appendix A
constexpr std::size_t kTagBytesMax = 1024;
constexpr std::size_t kVerifierBytesMax = 400;  // of an RPC
// What encoding adds to names, handles and data; the encoders of libnfs do not look at the end.
constexpr std::size_t kOverheadBytes = 16 << 10U;

char* changeable(const char* bytes) {
  return const_cast<char*>(bytes);  // libnfs only reads them
}

void append(std::string& text, std::uint32_t value) {
  const std::uint32_t word = htonl(value);
  text.append(reinterpret_cast<const char*>(&word), sizeof(word));
}

const std::string& host_name() {
  static const std::string name = [] {
    std::array<char, HOST_NAME_MAX + 1> text{};
    ::gethostname(text.data(), text.size() - 1);
    return std::string(text.data());
  }();
  return name;
}

std::string rpc_header(std::uint32_t id, const Credentials& credentials) {
  std::string owner;
  append(owner, 0);  // stamp
  append(owner, static_cast<std::uint32_t>(host_name().size()));
  owner += host_name();
  owner.append((4 - owner.size() % 4) % 4, '\0');
  append(owner, credentials.user);
  append(owner, credentials.group);
  const std::size_t groups = std::min(credentials.groups.size(), kGroupsMax);
  append(owner, static_cast<std::uint32_t>(groups));
  for (std::size_t index = 0; index < groups; ++index) append(owner, credentials.groups[index]);

  std::string header;
  append(header, id);
  append(header, 0);  // a call
  append(header, 2);  // of this version of RPC
  append(header, kNfsProgram);
  append(header, kNfsVersion);
  append(header, kCompound);
  append(header, AUTH_UNIX);
  append(header, static_cast<std::uint32_t>(owner.size()));
  header += owner;
  append(header, AUTH_NONE);
  append(header, 0);
  return header;
}

// Names, data and the like, but for small things.
std::size_t variable_bytes(const nfs_argop4& operation) {
  const auto& arguments = operation.nfs_argop4_u;
  switch (operation.argop) {
    case OP_LOOKUP:
      return arguments.oplookup.objname.utf8string_len;
    case OP_WRITE:
      return arguments.opwrite.data.data_len;
    case OP_REMOVE:
      return arguments.opremove.target.utf8string_len;
    case OP_RENAME:
      return arguments.oprename.oldname.utf8string_len + arguments.oprename.newname.utf8string_len;
    case OP_LINK:
      return arguments.oplink.newname.utf8string_len;
    case OP_CREATE:
      return arguments.opcreate.objname.utf8string_len +
             (arguments.opcreate.objtype.type == NF4LNK
                  ? arguments.opcreate.objtype.createtype4_u.linkdata.utf8string_len
                  : 0);
    case OP_OPEN:
      return arguments.opopen.claim.open_claim4_u.file.utf8string_len;
    default:
      return 0;
  }
}

bitmap4 bitmap_of(const AttributeMask& mask) {
  return {static_cast<u_int>(mask.size()), const_cast<std::uint32_t*>(mask.data())};
}

}  // namespace

component4 component_of(const std::string& name) {
  return {static_cast<u_int>(name.size()), changeable(name.data())};
}

fattr4 fattr_of(const EncodedAttributes& attributes) {
  fattr4 result{};
  result.attrmask = bitmap_of(attributes.mask);
  result.attr_vals = {static_cast<u_int>(attributes.values.size()),
                      changeable(attributes.values.data())};
  return result;
}

namespace operation {

nfs_argop4 plain(nfs_opnum4 number) {
  nfs_argop4 result{};
  result.argop = number;
  return result;
}

nfs_argop4 put_handle(const FileHandle4& handle) {
  nfs_argop4 result = plain(OP_PUTFH);
  result.nfs_argop4_u.opputfh.object = {static_cast<u_int>(handle.size()),
                                        changeable(handle.data())};
  return result;
}

nfs_argop4 look_up(const std::string& name) {
  nfs_argop4 result = plain(OP_LOOKUP);
  result.nfs_argop4_u.oplookup.objname = component_of(name);
  return result;
}

nfs_argop4 get_attributes(const AttributeMask& mask) {
  nfs_argop4 result = plain(OP_GETATTR);
  result.nfs_argop4_u.opgetattr.attr_request = bitmap_of(mask);
  return result;
}

// The state id of all zeros is that of nobody's open file.
nfs_argop4 set_attributes(const EncodedAttributes& attributes) {
  nfs_argop4 result = plain(OP_SETATTR);
  result.nfs_argop4_u.opsetattr.obj_attributes = fattr_of(attributes);
  return result;
}

nfs_argop4 access(std::uint32_t bits) {
  nfs_argop4 result = plain(OP_ACCESS);
  result.nfs_argop4_u.opaccess.access = bits;
  return result;
}

nfs_argop4 read(std::uint64_t offset, std::uint32_t count) {
  nfs_argop4 result = plain(OP_READ);
  result.nfs_argop4_u.opread.offset = offset;
  result.nfs_argop4_u.opread.count = count;
  return result;
}

nfs_argop4 write(std::uint64_t offset, std::span<const char> bytes, stable_how4 how) {
  nfs_argop4 result = plain(OP_WRITE);
  auto& arguments = result.nfs_argop4_u.opwrite;
  arguments.offset = offset;
  arguments.stable = how;
  arguments.data.data_len = static_cast<u_int>(bytes.size());
  arguments.data.data_val = changeable(bytes.data());
  return result;
}

// Offset 0 and count 0: the whole file.
nfs_argop4 commit() {
  return plain(OP_COMMIT);
}

nfs_argop4 remove(const std::string& name) {
  nfs_argop4 result = plain(OP_REMOVE);
  result.nfs_argop4_u.opremove.target = component_of(name);
  return result;
}

nfs_argop4 rename(const std::string& from, const std::string& to) {
  nfs_argop4 result = plain(OP_RENAME);
  result.nfs_argop4_u.oprename.oldname = component_of(from);
  result.nfs_argop4_u.oprename.newname = component_of(to);
  return result;
}

nfs_argop4 link(const std::string& name) {
  nfs_argop4 result = plain(OP_LINK);
  result.nfs_argop4_u.oplink.newname = component_of(name);
  return result;
}

nfs_argop4 read_directory(std::uint64_t cookie, std::uint64_t verifier, std::uint32_t bytes_max,
                          const AttributeMask& mask) {
  nfs_argop4 result = plain(OP_READDIR);
  auto& arguments = result.nfs_argop4_u.opreaddir;
  arguments.cookie = cookie;
  std::memcpy(arguments.cookieverf, &verifier, sizeof(arguments.cookieverf));
  arguments.dircount = bytes_max;
  arguments.maxcount = bytes_max;
  arguments.attr_request = bitmap_of(mask);
  return result;
}

}  // namespace operation

RpcMessage encode_compound(std::uint32_t id, const Credentials& credentials,
                           std::span<nfs_argop4> operations) {
  const std::string header = rpc_header(id, credentials);
  std::size_t room = header.size() + kOverheadBytes;
  for (const nfs_argop4& operation : operations) room += variable_bytes(operation);
  if (room > kRpcBytesMax) throw std::length_error("a call to the NFS server is too long");
  RpcMessage message{std::make_unique_for_overwrite<char[]>(room), 0};
  std::memcpy(message.bytes.get(), header.data(), header.size());
  COMPOUND4args arguments{};
  arguments.argarray.argarray_len = static_cast<u_int>(operations.size());
  arguments.argarray.argarray_val = operations.data();
  ZDR encoder{};
  libnfs_zdrmem_create(&encoder, message.bytes.get() + header.size(),
                       static_cast<std::uint32_t>(room - header.size()), ZDR_ENCODE);
  if (zdr_COMPOUND4args(&encoder, &arguments) == 0) {
    throw std::length_error("a call to the NFS server cannot be encoded");
  }
  message.size = header.size() + libnfs_zdr_getpos(&encoder);
  return message;
}

CompoundReply::CompoundReply(RpcMessage message)
    : message_(std::move(message)), reader_(message_.view()) {
  reader_.u32();                                // the id
  const bool is_reply = reader_.u32() == 1;     // and not a call
  const bool is_accepted = reader_.u32() == 0;  // else this user or this way of telling who he is
  if (!reader_.ok() || !is_reply) return;       // is not welcome
  if (!is_accepted) {
    status_ = NFS4ERR_ACCESS;
    return;
  }
  reader_.u32();
  reader_.opaque(kVerifierBytesMax);
  const bool is_success = reader_.u32() == 0;
  const NfsStatus status = reader_.u32();
  reader_.opaque(kTagBytesMax);
  reader_.u32();  // how many operations follow
  if (is_success && reader_.ok()) status_ = status;
}

XdrReader& CompoundReply::next(nfs_opnum4 number) {
  const bool is_expected = reader_.u32() == static_cast<std::uint32_t>(number);
  const bool is_ok = reader_.u32() == NFS4_OK;
  if (!is_expected || !is_ok) reader_.fail();
  return reader_;
}

int errno_of(NfsStatus status) {
  switch (status) {
    // Up to 70 they are errnos of the systems that NFS comes from; these are the same here.
    case NFS4_OK:
    case NFS4ERR_PERM:
    case NFS4ERR_NOENT:
    case NFS4ERR_IO:
    case NFS4ERR_NXIO:
    case NFS4ERR_ACCESS:
    case NFS4ERR_EXIST:
    case NFS4ERR_XDEV:
    case NFS4ERR_NOTDIR:
    case NFS4ERR_ISDIR:
    case NFS4ERR_INVAL:
    case NFS4ERR_FBIG:
    case NFS4ERR_NOSPC:
    case NFS4ERR_ROFS:
    case NFS4ERR_MLINK:
      return static_cast<int>(status);
    case NFS4ERR_NAMETOOLONG:
      return ENAMETOOLONG;
    case NFS4ERR_NOTEMPTY:
      return ENOTEMPTY;
    case NFS4ERR_DQUOT:
      return EDQUOT;
    case NFS4ERR_STALE:
    case NFS4ERR_BADHANDLE:
    case NFS4ERR_FHEXPIRED:
    case NFS4ERR_MOVED:
      return ESTALE;
    case NFS4ERR_NOTSUPP:
    case NFS4ERR_ATTRNOTSUPP:
      return EOPNOTSUPP;
    case NFS4ERR_BADTYPE:
    case NFS4ERR_BADCHAR:
    case NFS4ERR_BADNAME:
    case NFS4ERR_BADOWNER:
    case NFS4ERR_BAD_COOKIE:
    case NFS4ERR_NOT_SAME:
      return EINVAL;
    case NFS4ERR_SYMLINK:
      return ELOOP;
    case NFS4ERR_WRONGSEC:
    case NFS4ERR_OPENMODE:
      return EACCES;
    case NFS4ERR_FILE_OPEN:
    case NFS4ERR_SHARE_DENIED:
      return EBUSY;
    case NFS4ERR_LOCKED:
    case NFS4ERR_DENIED:
      return EAGAIN;
    case NFS4ERR_DELAY:
    case NFS4ERR_GRACE:
    case NFS4ERR_RESOURCE:
      return ETIMEDOUT;  // it has been asked again up to the deadline
    case NFS4ERR_MINOR_VERS_MISMATCH:
      return EPROTONOSUPPORT;
    default:
      return EREMOTEIO;
  }
}

}  // namespace ncfs
