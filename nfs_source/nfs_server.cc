#include "nfs_source/nfs_server.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <thread>
#include <utility>

namespace ncfs {
namespace {

using Clock = std::chrono::steady_clock;

// Of one READ or WRITE. Large enough that the cost of a call does not matter, small enough that a
// request of the kernel, of up to 1 MiB, uses several connections at once.
constexpr std::uint64_t kPieceBytes = 256 << 10U;
// Of one READDIR: a few thousand entries.
constexpr std::uint32_t kListingBytes = 256 << 10U;
// Between two attempts while the server is busy.
constexpr std::chrono::milliseconds kBusyPauseMin{10};
constexpr std::chrono::milliseconds kBusyPauseMax{1000};
// A client id that the server forgets as soon as it is confirmed is not tried for ever.
constexpr int kCreateAttempts = 8;

const Credentials kDaemon{};

bool is_busy(NfsStatus status) {
  return status == NFS4ERR_DELAY || status == NFS4ERR_GRACE || status == NFS4ERR_RESOURCE;
}

// What is the server's to forget, and ours to get anew.
bool is_about_client(NfsStatus status) {
  return status == NFS4ERR_STALE_CLIENTID || status == NFS4ERR_EXPIRED ||
         status == NFS4ERR_STALE_STATEID || status == NFS4ERR_BAD_STATEID ||
         status == NFS4ERR_ADMIN_REVOKED;
}

std::string random_text() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}", random(), random());
}

// Waits, longer each time; false if there is no time left.
bool pause_until(Clock::time_point until, std::chrono::milliseconds& pause) {
  if (Clock::now() + pause >= until) return false;
  std::this_thread::sleep_for(pause);
  pause = std::min(2 * pause, kBusyPauseMax);
  return true;
}

}  // namespace

NfsServer::NfsServer(const NfsUrl& url, std::chrono::milliseconds timeout)
    : url_(url),
      timeout_(timeout),
      next_call_id_(std::random_device{}()),
      client_name_("nfs-cachefs " + random_text()) {
  for (std::uint32_t index = 0; index < url.connections; ++index) {
    connections_.push_back(std::make_unique<RpcConnection>(url.server, url.port, timeout));
  }
}

// The one with the fewest calls.
RpcConnection& NfsServer::connection() {
  const std::size_t first = next_connection_.fetch_add(1, std::memory_order_relaxed);
  RpcConnection* best = connections_[first % connections_.size()].get();
  for (std::size_t index = 1; index < connections_.size(); ++index) {
    RpcConnection* const other = connections_[(first + index) % connections_.size()].get();
    if (!other->is_connected()) continue;
    if (!best->is_connected() || other->calls() < best->calls()) best = other;
  }
  return *best;
}

void NfsServer::send(RpcCall& call) {
  RpcConnection& used = connection();
  call.connection = &used;
  used.start(call);
}

void NfsServer::await(RpcCall& call) {
  while (true) {
    call.connection->finish(call);
    if (call.state != RpcCall::State::lost) return;
    send(call);
  }
}

NfsServer::Outcome NfsServer::call(const Credentials& as, std::span<nfs_argop4> operations,
                                   Deadline until, WhenBusy when_busy) {
  auto pause = kBusyPauseMin;
  while (true) {
    RpcCall rpc;
    rpc.id = next_call_id_.fetch_add(1, std::memory_order_relaxed);
    rpc.deadline = until;
    rpc.sent = encode_compound(rpc.id, as, operations);
    send(rpc);
    await(rpc);
    if (rpc.state == RpcCall::State::failed) return {.error = rpc.error};
    CompoundReply reply(std::move(rpc.reply));
    const NfsStatus status = reply.status();
    const bool ends = !is_busy(status) || when_busy == WhenBusy::tell;
    if (ends || !pause_until(until, pause)) {
      return {.error = 0, .status = status, .reply = std::move(reply)};
    }
  }
}

std::string NfsServer::connection_error() const {
  for (const auto& connection : connections_) {
    if (std::string error = connection->last_error(); !error.empty()) return error;
  }
  return {};
}

int NfsServer::find_root(Found& root) {
  AttributeMask mask = file_attribute_mask();
  for (std::size_t word = 0; word < mask.size(); ++word) {
    mask.at(word) |= limit_attribute_mask().at(word);
  }
  std::vector<nfs_argop4> operations{operation::plain(OP_PUTROOTFH)};
  for (const std::string& part : url_.path) operations.push_back(operation::look_up(part));
  operations.push_back(operation::plain(OP_GETFH));
  operations.push_back(operation::get_attributes(mask));
  Outcome outcome = call(kDaemon, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTROOTFH);
  for (std::size_t index = 0; index < url_.path.size(); ++index) outcome.reply.next(OP_LOOKUP);
  if (!read_found(outcome.reply, root)) return EREMOTEIO;
  if (!S_ISDIR(root.attributes.status.st_mode)) return ENOTDIR;
  const auto piece = [](std::uint64_t told) {
    return static_cast<std::uint32_t>(told == 0 ? kPieceBytes : std::min(told, kPieceBytes));
  };
  read_bytes_max_ = piece(root.attributes.read_bytes_max);
  write_bytes_max_ = piece(root.attributes.write_bytes_max);
  return 0;
}

int NfsServer::look_up(const Credentials& as, const FileHandle4& directory, const std::string& name,
                       Found& found) {
  std::array operations{operation::put_handle(directory), operation::look_up(name),
                        operation::plain(OP_GETFH),
                        operation::get_attributes(file_attribute_mask())};
  Outcome outcome = call(as, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  outcome.reply.next(OP_LOOKUP);
  return read_found(outcome.reply, found) ? 0 : EREMOTEIO;
}

int NfsServer::attributes(const Credentials& as, const FileHandle4& file, FileAttributes& found) {
  std::array operations{operation::put_handle(file),
                        operation::get_attributes(file_attribute_mask())};
  Outcome outcome = call(as, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  return read_attributes_of(outcome.reply, found) ? 0 : EREMOTEIO;
}

int NfsServer::change_attributes(const Credentials& as, const FileHandle4& file,
                                 const AttributeChanges& changes, FileAttributes& found) {
  const EncodedAttributes encoded = encode_attributes(changes);
  std::array operations{operation::put_handle(file), operation::set_attributes(encoded),
                        operation::get_attributes(file_attribute_mask())};
  Outcome outcome = call(as, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  return skip_changes(outcome.reply) && read_attributes_of(outcome.reply, found) ? 0 : EREMOTEIO;
}

int NfsServer::access(const Credentials& as, const FileHandle4& file, std::uint32_t wanted,
                      std::uint32_t& granted) {
  std::array operations{operation::put_handle(file), operation::access(wanted)};
  Outcome outcome = call(as, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  return read_access(outcome.reply, granted) ? 0 : EREMOTEIO;
}

int NfsServer::read_link(const Credentials& as, const FileHandle4& link, std::string& target) {
  std::array operations{operation::put_handle(link), operation::plain(OP_READLINK)};
  Outcome outcome = call(as, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  return read_target(outcome.reply, target) ? 0 : EREMOTEIO;
}

int NfsServer::space(const Credentials& as, const FileHandle4& file, struct statvfs& found) {
  std::array operations{operation::put_handle(file),
                        operation::get_attributes(space_attribute_mask())};
  Outcome outcome = call(as, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  FileAttributes attributes;
  if (!read_attributes_of(outcome.reply, attributes)) return EREMOTEIO;
  found = attributes.space;
  return 0;
}

// One piece of a read or a write.
struct NfsServer::Piece {
  std::uint64_t offset = 0;
  std::size_t size = 0;
  RpcCall rpc;
};

std::vector<std::unique_ptr<NfsServer::Piece>> NfsServer::send_pieces(
    const Credentials& as, std::uint64_t offset, std::size_t size, std::size_t piece_bytes,
    const std::function<std::array<nfs_argop4, 2>(const Piece&)>& operations, Deadline until) {
  std::vector<std::unique_ptr<Piece>> pieces;
  for (std::size_t done = 0; done < size; done += piece_bytes) {
    auto piece = std::make_unique<Piece>();
    piece->offset = offset + done;
    piece->size = std::min(piece_bytes, size - done);
    piece->rpc.id = next_call_id_.fetch_add(1, std::memory_order_relaxed);
    piece->rpc.deadline = until;
    std::array asked = operations(*piece);
    piece->rpc.sent = encode_compound(piece->rpc.id, as, asked);
    send(piece->rpc);
    pieces.push_back(std::move(piece));
  }
  for (const auto& piece : pieces) await(piece->rpc);
  return pieces;
}

int NfsServer::read(const Credentials& as, const FileHandle4& file, std::uint64_t offset,
                    std::size_t size, std::vector<ReadPiece>& pieces) {
  const Deadline until = deadline();
  const auto operations = [&](std::uint64_t at, std::size_t count) {
    return std::array{operation::put_handle(file),
                      operation::read(at, static_cast<std::uint32_t>(count))};
  };
  const auto sent = send_pieces(
      as, offset, size, read_bytes_max_,
      [&](const Piece& piece) { return operations(piece.offset, piece.size); }, until);
  for (const auto& piece : sent) {
    if (piece->rpc.state == RpcCall::State::failed) return piece->rpc.error;
    Outcome outcome{.reply = CompoundReply(std::move(piece->rpc.reply))};
    outcome.status = outcome.reply.status();
    std::size_t done = 0;
    while (true) {
      if (!is_busy(outcome.status)) {
        if (const int error = outcome.to_errno(); error != 0) return error;
        outcome.reply.next(OP_PUTFH);
        ReadBytes found;
        if (!read_bytes(outcome.reply, piece->size - done, found)) return EREMOTEIO;
        done += found.bytes.size();
        pieces.push_back({std::move(outcome.reply), found.bytes});
        if (done == piece->size) break;
        if (found.is_end) return 0;
      }
      std::array again = operations(piece->offset + done, piece->size - done);
      outcome = call(as, again, until);
    }
  }
  return 0;
}

int NfsServer::write(const Credentials& as, const FileHandle4& file, std::uint64_t offset,
                     std::span<const char> bytes, bool durably, Written& written) {
  const Deadline until = deadline();
  const stable_how4 how = durably ? FILE_SYNC4 : UNSTABLE4;
  const auto operations = [&](std::uint64_t at, std::size_t count) {
    return std::array{operation::put_handle(file),
                      operation::write(at, bytes.subspan(at - offset, count), how)};
  };
  // A write of nothing asks whether one may write.
  const auto sent = send_pieces(
      as, offset, std::max<std::size_t>(bytes.size(), 1), write_bytes_max_,
      [&](const Piece& piece) {
        return operations(piece.offset, std::min(piece.size, bytes.size()));
      },
      until);
  bool is_first = true;
  for (const auto& piece : sent) {
    if (piece->rpc.state == RpcCall::State::failed) return piece->rpc.error;
    Outcome outcome{.reply = CompoundReply(std::move(piece->rpc.reply))};
    outcome.status = outcome.reply.status();
    const std::size_t size = std::min(piece->size, bytes.size());
    std::size_t done = 0;
    while (true) {
      if (!is_busy(outcome.status)) {
        if (const int error = outcome.to_errno(); error != 0) return error;
        outcome.reply.next(OP_PUTFH);
        WrittenBytes told;
        if (!read_written(outcome.reply, size - done, told)) return EREMOTEIO;
        written.is_durable = written.is_durable && told.is_durable;
        written.has_restarted =
            written.has_restarted || (!is_first && told.verifier != written.verifier);
        written.verifier = told.verifier;
        is_first = false;
        done += told.count;
        if (done == size) break;
      }
      std::array again = operations(piece->offset + done, size - done);
      outcome = call(as, again, until);
    }
  }
  return 0;
}

int NfsServer::commit(const Credentials& as, const FileHandle4& file, std::uint64_t& verifier) {
  std::array operations{operation::put_handle(file), operation::commit()};
  Outcome outcome = call(as, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  return read_committed(outcome.reply, verifier) ? 0 : EREMOTEIO;
}

int NfsServer::create(const Credentials& as, const FileHandle4& directory, const Creation& what,
                      Found& found) {
  AttributeChanges changes;
  changes.mode = what.mode;
  const EncodedAttributes encoded = encode_attributes(changes);
  nfs_argop4 creation = operation::plain(OP_CREATE);
  auto& arguments = creation.nfs_argop4_u.opcreate;
  arguments.objname = component_of(what.name);
  arguments.createattrs = fattr_of(encoded);
  auto& kind = arguments.objtype;
  switch (what.mode & S_IFMT) {
    case S_IFDIR:
      kind.type = NF4DIR;
      break;
    case S_IFLNK:
      kind.type = NF4LNK;
      kind.createtype4_u.linkdata = component_of(what.target);
      break;
    case S_IFIFO:
      kind.type = NF4FIFO;
      break;
    case S_IFSOCK:
      kind.type = NF4SOCK;
      break;
    case S_IFBLK:
    case S_IFCHR:
      kind.type = S_ISBLK(what.mode) ? NF4BLK : NF4CHR;
      kind.createtype4_u.devdata = {major(what.device), minor(what.device)};
      break;
    default:
      return EINVAL;
  }
  std::array operations{operation::put_handle(directory), creation, operation::plain(OP_GETFH),
                        operation::get_attributes(file_attribute_mask())};
  Outcome outcome = call(as, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  return skip_creation(outcome.reply) && read_found(outcome.reply, found) ? 0 : EREMOTEIO;
}

int NfsServer::remove(const Credentials& as, const FileHandle4& directory,
                      const std::string& name) {
  std::array operations{operation::put_handle(directory), operation::remove(name)};
  return call(as, operations).to_errno();
}

int NfsServer::rename(const Credentials& as, const FileHandle4& from, const std::string& old_name,
                      const FileHandle4& to, const std::string& new_name) {
  std::array operations{operation::put_handle(from), operation::plain(OP_SAVEFH),
                        operation::put_handle(to), operation::rename(old_name, new_name)};
  return call(as, operations).to_errno();
}

int NfsServer::link(const Credentials& as, const FileHandle4& file, const FileHandle4& directory,
                    const std::string& name, FileAttributes& found) {
  std::array operations{
      operation::put_handle(file),      operation::plain(OP_SAVEFH),
      operation::put_handle(directory), operation::link(name),
      operation::put_handle(file),      operation::get_attributes(file_attribute_mask())};
  Outcome outcome = call(as, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  outcome.reply.next(OP_SAVEFH);
  outcome.reply.next(OP_PUTFH);
  const bool is_link = skip_link(outcome.reply);
  outcome.reply.next(OP_PUTFH);
  return is_link && read_attributes_of(outcome.reply, found) ? 0 : EREMOTEIO;
}

int NfsServer::list(const Credentials& as, const FileHandle4& directory, std::uint64_t cookie,
                    Listing& listing) {
  std::array operations{operation::put_handle(directory),
                        operation::read_directory(cookie, cookie == 0 ? 0 : listing.verifier,
                                                  kListingBytes, entry_attribute_mask())};
  Outcome outcome = call(as, operations);
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  return read_listing(outcome.reply, listing) ? 0 : EREMOTEIO;
}

// --- Creating files: the only thing that needs state at the server ------------------------------

int NfsServer::client_id(std::uint64_t& id, Deadline until) {
  const std::lock_guard lock(client_mutex_);
  if (has_client_id_) {
    id = client_id_;
    return 0;
  }
  nfs_argop4 introduction = operation::plain(OP_SETCLIENTID);
  auto& arguments = introduction.nfs_argop4_u.opsetclientid;
  arguments.client.id.id_len = static_cast<u_int>(client_name_.size());
  arguments.client.id.id_val = const_cast<char*>(client_name_.data());
  // Delegations are not wanted: there is nowhere to call back.
  std::string protocol = "tcp";
  std::string nowhere = "0.0.0.0.0.0";
  arguments.callback.cb_location = {protocol.data(), nowhere.data()};
  std::array first{introduction};
  Outcome outcome = call(kDaemon, first, until);
  if (const int error = outcome.to_errno(); error != 0) return error;
  ClientId client;
  if (!read_client_id(outcome.reply, client)) return EREMOTEIO;
  id = client.id;
  nfs_argop4 confirmation = operation::plain(OP_SETCLIENTID_CONFIRM);
  auto& confirmed = confirmation.nfs_argop4_u.opsetclientid_confirm;
  confirmed.clientid = id;
  std::memcpy(confirmed.setclientid_confirm, client.verifier.data(), client.verifier.size());
  std::array second{confirmation};
  if (const int error = call(kDaemon, second, until).to_errno(); error != 0) return error;
  client_id_ = id;
  has_client_id_ = true;
  idle_owners_.clear();
  return 0;
}

void NfsServer::forget_client_id(std::uint64_t id) {
  const std::lock_guard lock(client_mutex_);
  if (client_id_ == id) has_client_id_ = false;
}

int NfsServer::take_owner(OpenOwner& owner, Deadline until) {
  std::uint64_t id = 0;
  if (const int error = client_id(id, until); error != 0) return error;
  const std::lock_guard lock(client_mutex_);
  if (!idle_owners_.empty() && idle_owners_.back().client == id) {
    owner = std::move(idle_owners_.back());
    idle_owners_.pop_back();
  } else {
    owner = {.client = id, .name = fmt::format("creator {}", ++owners_made_), .next = 0};
  }
  return 0;
}

int NfsServer::create_file(const Credentials& as, const FileHandle4& directory,
                           const FileCreation& what, Found& found) {
  const Deadline until = deadline();
  auto pause = kBusyPauseMin;
  int error = EREMOTEIO;
  for (int attempt = 0; attempt < kCreateAttempts; ++attempt) {
    bool again = false;
    error = open_new(as, directory, what, found, until, again);
    if (!again || !pause_until(until, pause)) return error;
  }
  return error;
}

int NfsServer::open_new(const Credentials& as, const FileHandle4& directory,
                        const FileCreation& what, Found& found, Deadline until, bool& again) {
  OpenOwner owner;
  if (const int error = take_owner(owner, until); error != 0) return error;
  AttributeChanges changes;
  changes.mode = what.mode;
  if (what.truncates) changes.size = 0;
  const EncodedAttributes encoded = encode_attributes(changes);
  nfs_argop4 opening = operation::plain(OP_OPEN);
  auto& arguments = opening.nfs_argop4_u.opopen;
  arguments.seqid = owner.next++;
  arguments.share_access = what.share_access;
  arguments.share_deny = OPEN4_SHARE_DENY_NONE;
  arguments.owner.clientid = owner.client;
  arguments.owner.owner.owner_len = static_cast<u_int>(owner.name.size());
  arguments.owner.owner.owner_val = owner.name.data();
  arguments.openhow.opentype = OPEN4_CREATE;
  arguments.openhow.openflag4_u.how.mode = what.must_be_new ? GUARDED4 : UNCHECKED4;
  arguments.openhow.openflag4_u.how.createhow4_u.createattrs = fattr_of(encoded);
  arguments.claim.claim = CLAIM_NULL;
  arguments.claim.open_claim4_u.file = component_of(what.name);
  std::array operations{operation::put_handle(directory), opening, operation::plain(OP_GETFH),
                        operation::get_attributes(file_attribute_mask())};
  // A refused open has used up its number: it is not repeated but made anew, by another owner.
  Outcome outcome = call(as, operations, until, WhenBusy::tell);
  if (is_about_client(outcome.status)) forget_client_id(owner.client);
  again = is_about_client(outcome.status) || is_busy(outcome.status) ||
          outcome.status == NFS4ERR_BAD_SEQID;
  if (const int error = outcome.to_errno(); error != 0) return error;
  outcome.reply.next(OP_PUTFH);
  OpenedFile opened;
  if (!read_opened(outcome.reply, opened) || !read_found(outcome.reply, found)) return EREMOTEIO;
  close_new(as, found.handle, std::move(owner), opened, until);
  return 0;
}

// The file is there. Whatever goes wrong from here on costs the server an open that ends with its
// lease, and nobody else anything.
void NfsServer::close_new(const Credentials& as, const FileHandle4& file, OpenOwner owner,
                          OpenedFile opened, Deadline until) {
  if (opened.must_confirm) {
    nfs_argop4 confirmation = operation::plain(OP_OPEN_CONFIRM);
    confirmation.nfs_argop4_u.opopen_confirm = {opened.state, owner.next++};
    std::array operations{operation::put_handle(file), confirmation};
    Outcome outcome = call(as, operations, until, WhenBusy::tell);
    if (outcome.to_errno() != 0) return;
    outcome.reply.next(OP_PUTFH);
    if (!read_confirmed(outcome.reply, opened.state)) return;
  }
  nfs_argop4 closing = operation::plain(OP_CLOSE);
  closing.nfs_argop4_u.opclose = {owner.next++, opened.state};
  std::array operations{operation::put_handle(file), closing};
  if (call(as, operations, until, WhenBusy::tell).to_errno() != 0) return;
  const std::lock_guard lock(client_mutex_);
  if (has_client_id_ && client_id_ == owner.client) idle_owners_.push_back(std::move(owner));
}

}  // namespace ncfs
