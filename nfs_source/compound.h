// COMPOUND calls of NFSv4.0 (RFC 7530): the requests by libnfs' types and encoders, the replies by
// XdrReader, since libnfs 4.0 does not check the lengths that a reply tells.
#pragma once

#include <nfsc/libnfs-zdr.h>
// libnfs-zdr.h comes first.
#include <nfsc/libnfs-raw-nfs4.h>
#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nfs_source/attributes.h"
#include "nfs_source/rpc_message.h"
#include "nfs_source/xdr_reader.h"

namespace ncfs {

// As whom the server is asked (AUTH_SYS).
struct Credentials {
  uid_t user = 0;
  gid_t group = 0;
  std::vector<gid_t> groups;  // the first 16 are told
};

using FileHandle4 = std::string;
using NfsStatus = std::uint32_t;  // an nfsstat4, or whatever a server sends in its place

// Operations. What they are given must live until encode_compound() has returned.
namespace operation {
nfs_argop4 plain(nfs_opnum4 number);  // one without arguments
nfs_argop4 put_handle(const FileHandle4& handle);
nfs_argop4 look_up(const std::string& name);
nfs_argop4 get_attributes(const AttributeMask& mask);
nfs_argop4 set_attributes(const EncodedAttributes& attributes);
nfs_argop4 access(std::uint32_t bits);
nfs_argop4 read(std::uint64_t offset, std::uint32_t count);
nfs_argop4 write(std::uint64_t offset, std::span<const char> bytes, stable_how4 how);
nfs_argop4 commit();
nfs_argop4 remove(const std::string& name);
nfs_argop4 rename(const std::string& from, const std::string& to);
nfs_argop4 link(const std::string& name);
nfs_argop4 read_directory(std::uint64_t cookie, std::uint64_t verifier, std::uint32_t bytes_max,
                          const AttributeMask& mask);
}  // namespace operation

[[nodiscard]] component4 component_of(const std::string& name);
[[nodiscard]] fattr4 fattr_of(const EncodedAttributes& attributes);

// A whole call. Throws std::length_error if it is too long for an RPC.
[[nodiscard]] RpcMessage encode_compound(std::uint32_t id, const Credentials& credentials,
                                         std::span<nfs_argop4> operations);

// Reads a reply in the order of its operations.
class CompoundReply {
 public:
  // Of a whole RPC reply.
  explicit CompoundReply(RpcMessage message);

  // NFS4_OK, or what the last operation carried out ended with. EPROTO and EACCES of the RPC layer
  // are told as NFS4ERR_SERVERFAULT and NFS4ERR_ACCESS.
  [[nodiscard]] NfsStatus status() const { return status_; }
  // Steps to the results of the next operation, which must be this one and have gone well. If it
  // is not, the reader fails.
  XdrReader& next(nfs_opnum4 number);
  [[nodiscard]] XdrReader& reader() { return reader_; }

 private:
  RpcMessage message_;
  XdrReader reader_;
  NfsStatus status_ = NFS4ERR_SERVERFAULT;
};

// An errno, or 0.
[[nodiscard]] int errno_of(NfsStatus status);

}  // namespace ncfs
