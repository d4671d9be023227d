// An NFSv4.0 server (RFC 7530) as the file system needs it: by file handles, each call as its
// caller. Errors are errnos, 0 for none.
//
// No state is kept at the server but while a file is created, which only OPEN can do: files are
// read and written with the state id of all zeros. So a restarted server has nothing to recover,
// and a lease that has expired is made anew when the next file is created.
//
// A call whose connection is lost is sent again with the same id, by which the server knows that it
// has carried it out. While a server says that it is busy or waits for its clients (DELAY, GRACE)
// calls are repeated. Every call ends within the timeout. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/nfs_url.h"
#include "nfs_source/results.h"
#include "nfs_source/rpc_connection.h"

namespace ncfs {

class NfsServer {
 public:
  NfsServer(const NfsUrl& url, std::chrono::milliseconds timeout);

  using Found = NfsFile;
  // The directory that the URL names. Learns what one call may carry; to be called first.
  int find_root(Found& root);
  // Why there is no connection; empty if there is none to tell of.
  [[nodiscard]] std::string connection_error() const;

  int look_up(const Credentials& as, const FileHandle4& directory, const std::string& name,
              Found& found);
  int attributes(const Credentials& as, const FileHandle4& file, FileAttributes& found);
  int change_attributes(const Credentials& as, const FileHandle4& file,
                        const AttributeChanges& changes, FileAttributes& found);
  // `wanted` and `granted` are ACCESS4_* bits.
  int access(const Credentials& as, const FileHandle4& file, std::uint32_t wanted,
             std::uint32_t& granted);
  int read_link(const Credentials& as, const FileHandle4& link, std::string& target);
  int space(const Credentials& as, const FileHandle4& file, struct statvfs& found);

  struct ReadPiece {
    CompoundReply reply;
    std::string_view bytes;  // in `reply`
  };
  // Up to `size` bytes in order, fewer only at the end of the file.
  int read(const Credentials& as, const FileHandle4& file, std::uint64_t offset, std::size_t size,
           std::vector<ReadPiece>& pieces);

  // What the server says of the fate of written bytes.
  struct Written {
    bool is_durable = true;
    std::uint64_t verifier = 0;  // another one than before: the server has restarted
    bool has_restarted = false;  // within this write
  };
  // All of it, or an error.
  int write(const Credentials& as, const FileHandle4& file, std::uint64_t offset,
            std::span<const char> bytes, bool durably, Written& written);
  int commit(const Credentials& as, const FileHandle4& file, std::uint64_t& verifier);

  struct Creation {
    std::string name;
    mode_t mode = 0;  // with the kind of file: not a regular one
    dev_t device = 0;
    std::string target;  // of a symbolic link
  };
  int create(const Credentials& as, const FileHandle4& directory, const Creation& what,
             Found& found);
  struct FileCreation {
    std::string name;
    mode_t mode = 0;
    bool must_be_new = false;
    bool truncates = false;
    std::uint32_t share_access = OPEN4_SHARE_ACCESS_BOTH;
  };
  int create_file(const Credentials& as, const FileHandle4& directory, const FileCreation& what,
                  Found& found);
  int remove(const Credentials& as, const FileHandle4& directory, const std::string& name);
  int rename(const Credentials& as, const FileHandle4& from, const std::string& old_name,
             const FileHandle4& to, const std::string& new_name);
  int link(const Credentials& as, const FileHandle4& file, const FileHandle4& directory,
           const std::string& name, FileAttributes& found);

  using Entry = DirectoryEntry;
  using Listing = DirectoryListing;
  // What follows `cookie`, 0 for the start; `listing.verifier` is that of the listing before.
  int list(const Credentials& as, const FileHandle4& directory, std::uint64_t cookie,
           Listing& listing);

 private:
  using Deadline = RpcCall::Deadline;
  // One on whose behalf files are opened; its opens are numbered, and so one at a time.
  struct OpenOwner {
    std::uint64_t client = 0;
    std::string name;
    std::uint32_t next = 0;
  };

  [[nodiscard]] Deadline deadline() const { return std::chrono::steady_clock::now() + timeout_; }
  RpcConnection& connection();
  void send(RpcCall& call);
  // Sends it again for as long as its connection is lost.
  void await(RpcCall& call);
  // `reply` is for reading from the first operation on if this returns NFS4_OK. Else `error`, if
  // not 0, is why there is no reply.
  struct Outcome {
    int error = 0;
    NfsStatus status = NFS4_OK;
    CompoundReply reply{RpcMessage{}};
    [[nodiscard]] int to_errno() const { return error != 0 ? error : errno_of(status); }
  };
  enum class WhenBusy : std::uint8_t { ask_again, tell };
  Outcome call(const Credentials& as, std::span<nfs_argop4> operations, Deadline until,
               WhenBusy when_busy = WhenBusy::ask_again);
  Outcome call(const Credentials& as, std::span<nfs_argop4> operations) {
    return call(as, operations, deadline());
  }
  struct Piece;
  // All at once, and waits until each is answered or has failed.
  std::vector<std::unique_ptr<Piece>> send_pieces(
      const Credentials& as, std::uint64_t offset, std::size_t size, std::size_t piece_bytes,
      const std::function<std::array<nfs_argop4, 2>(const Piece&)>& operations, Deadline until);

  int client_id(std::uint64_t& id, Deadline until);
  void forget_client_id(std::uint64_t id);
  int take_owner(OpenOwner& owner, Deadline until);
  int open_new(const Credentials& as, const FileHandle4& directory, const FileCreation& what,
               Found& found, Deadline until, bool& again);
  void close_new(const Credentials& as, const FileHandle4& file, OpenOwner owner, OpenedFile opened,
                 Deadline until);

  const NfsUrl url_;
  const std::chrono::milliseconds timeout_;
  std::atomic<std::uint32_t> next_call_id_;
  std::atomic<std::size_t> next_connection_{0};
  std::vector<std::unique_ptr<RpcConnection>> connections_;
  std::uint32_t read_bytes_max_ = 0;  // of one call
  std::uint32_t write_bytes_max_ = 0;

  const std::string client_name_;
  std::mutex client_mutex_;  // held while the client id is asked for
  std::uint64_t client_id_ = 0;
  bool has_client_id_ = false;
  std::uint64_t owners_made_ = 0;
  std::vector<OpenOwner> idle_owners_;
};

}  // namespace ncfs
