#include "nfs_source/attributes.h"

#include <grp.h>
#include <nfsc/libnfs-raw-nfs4.h>
#include <pwd.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <initializer_list>
#include <map>
#include <mutex>
#include <string_view>
#include <vector>

namespace ncfs {
namespace {

constexpr std::size_t kOwnerBytesMax = 1024;       // NFS4_OPAQUE_LIMIT
constexpr std::size_t kValueBytesMax = 64 << 10U;  // far more than all we ask for
constexpr std::uint32_t kNobody = 65534;

AttributeMask mask_of(std::initializer_list<unsigned> numbers) {
  AttributeMask mask{};
  for (const unsigned number : numbers) mask.at(number / 32) |= 1U << (number % 32);
  return mask;
}

mode_t kind_of(std::uint32_t type) {
  switch (type) {
    case NF4REG:
      return S_IFREG;
    case NF4DIR:
      return S_IFDIR;
    case NF4BLK:
      return S_IFBLK;
    case NF4CHR:
      return S_IFCHR;
    case NF4LNK:
      return S_IFLNK;
    case NF4SOCK:
      return S_IFSOCK;
    case NF4FIFO:
      return S_IFIFO;
    default:
      return 0;
  }
}

// Numbers of named owners. Looking one up may ask another server, so they are kept for a while.
class Owners {
 public:
  using Find = std::uint32_t (*)(const std::string& name);
  explicit Owners(Find find) : find_(find) {}

  std::uint32_t number_of(std::string_view owner) {
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(owner.data(), owner.data() + owner.size(), number);
    if (error == std::errc{} && end == owner.data() + owner.size()) return number;
    const std::string name(owner.substr(0, owner.find('@')));
    const auto now = std::chrono::steady_clock::now();
    {
      const std::lock_guard lock(mutex_);
      if (known_.size() >= kKnownMax || now > forget_at_) known_.clear();
      if (known_.empty()) forget_at_ = now + kKeep;
      if (const auto known = known_.find(name); known != known_.end()) return known->second;
    }
    number = find_(name);
    const std::lock_guard lock(mutex_);
    known_.emplace(name, number);
    return number;
  }

 private:
  static constexpr std::size_t kKnownMax = 4096;
  static constexpr std::chrono::minutes kKeep{10};  // as the kernel's idmapper

  const Find find_;
  std::mutex mutex_;
  std::map<std::string, std::uint32_t> known_;
  std::chrono::steady_clock::time_point forget_at_;
};

constexpr std::size_t kRecordBytes = 16 << 10U;  // of a user or group; what does not fit is nobody

std::uint32_t user_named(const std::string& name) {
  std::vector<char> room(kRecordBytes);
  passwd record{};
  passwd* found = nullptr;
  getpwnam_r(name.c_str(), &record, room.data(), room.size(), &found);
  return found != nullptr ? found->pw_uid : kNobody;
}

std::uint32_t group_named(const std::string& name) {
  std::vector<char> room(kRecordBytes);
  group record{};
  group* found = nullptr;
  getgrnam_r(name.c_str(), &record, room.data(), room.size(), &found);
  return found != nullptr ? found->gr_gid : kNobody;
}

Owners& users() {
  static Owners& owners = *new Owners(user_named);  // outlives threads that end late
  return owners;
}

Owners& groups() {
  static Owners& owners = *new Owners(group_named);
  return owners;
}

timespec read_time(XdrReader& reader) {
  timespec time{};
  time.tv_sec = static_cast<std::time_t>(reader.u64());
  time.tv_nsec = std::min<long>(reader.u32(), 999'999'999);
  return time;
}

void read_attribute(unsigned number, XdrReader& values, FileAttributes& into) {
  struct stat& status = into.status;
  switch (number) {
    case FATTR4_TYPE:
      status.st_mode |= kind_of(values.u32());
      return;
    case FATTR4_SIZE:
      // A file's offsets are signed here.
      status.st_size = static_cast<off_t>(std::min<std::uint64_t>(values.u64(), INT64_MAX));
      return;
    case FATTR4_FSID:
      into.filesystem_major = values.u64();
      into.filesystem_minor = values.u64();
      return;
    case FATTR4_RDATTR_ERROR:
      values.u32();  // the entry then has nothing else
      return;
    case FATTR4_FILEID:
      status.st_ino = values.u64();
      return;
    case FATTR4_FILES_AVAIL:
      into.space.f_favail = values.u64();
      return;
    case FATTR4_FILES_FREE:
      into.space.f_ffree = values.u64();
      return;
    case FATTR4_FILES_TOTAL:
      into.space.f_files = values.u64();
      return;
    case FATTR4_MAXNAME:
      into.space.f_namemax = values.u32();
      return;
    case FATTR4_MAXREAD:
      into.read_bytes_max = values.u64();
      return;
    case FATTR4_MAXWRITE:
      into.write_bytes_max = values.u64();
      return;
    case FATTR4_MODE:
      status.st_mode |= values.u32() & 07777U;
      return;
    case FATTR4_NUMLINKS:
      status.st_nlink = values.u32();
      return;
    case FATTR4_OWNER:
      status.st_uid = users().number_of(values.opaque(kOwnerBytesMax));
      return;
    case FATTR4_OWNER_GROUP:
      status.st_gid = groups().number_of(values.opaque(kOwnerBytesMax));
      return;
    case FATTR4_RAWDEV: {
      const std::uint32_t major = values.u32();
      const std::uint32_t minor = values.u32();
      status.st_rdev = makedev(major, minor);
      return;
    }
    case FATTR4_SPACE_AVAIL:
      into.space.f_bavail = values.u64() / into.space.f_frsize;
      return;
    case FATTR4_SPACE_FREE:
      into.space.f_bfree = values.u64() / into.space.f_frsize;
      return;
    case FATTR4_SPACE_TOTAL:
      into.space.f_blocks = values.u64() / into.space.f_frsize;
      return;
    case FATTR4_SPACE_USED:
      status.st_blocks = static_cast<blkcnt_t>(values.u64() / 512);
      return;
    case FATTR4_TIME_ACCESS:
      status.st_atim = read_time(values);
      return;
    case FATTR4_TIME_METADATA:
      status.st_ctim = read_time(values);
      return;
    case FATTR4_TIME_MODIFY:
      status.st_mtim = read_time(values);
      return;
    default:
      values.fail();  // not asked for, and of unknown length
      return;
  }
}

void append_u32(std::string& text, std::uint32_t value) {
  for (const unsigned shift : {24U, 16U, 8U, 0U}) text += static_cast<char>(value >> shift);
}

void append_u64(std::string& text, std::uint64_t value) {
  append_u32(text, static_cast<std::uint32_t>(value >> 32U));
  append_u32(text, static_cast<std::uint32_t>(value));
}

void append_owner(std::string& text, std::uint32_t number) {
  const std::string digits = std::to_string(number);
  append_u32(text, static_cast<std::uint32_t>(digits.size()));
  text += digits;
  text.append((4 - digits.size() % 4) % 4, '\0');
}

void append_time(std::string& text, const timespec& time) {
  if (time.tv_nsec == AttributeChanges::kNow.tv_nsec) {
    append_u32(text, SET_TO_SERVER_TIME4);
    return;
  }
  append_u32(text, SET_TO_CLIENT_TIME4);
  append_u64(text, static_cast<std::uint64_t>(time.tv_sec));
  append_u32(text, static_cast<std::uint32_t>(time.tv_nsec));
}

}  // namespace

const AttributeMask& file_attribute_mask() {
  static const AttributeMask mask =
      mask_of({FATTR4_TYPE, FATTR4_SIZE, FATTR4_FSID, FATTR4_FILEID, FATTR4_MODE, FATTR4_NUMLINKS,
               FATTR4_OWNER, FATTR4_OWNER_GROUP, FATTR4_RAWDEV, FATTR4_SPACE_USED,
               FATTR4_TIME_ACCESS, FATTR4_TIME_METADATA, FATTR4_TIME_MODIFY});
  return mask;
}

const AttributeMask& entry_attribute_mask() {
  static const AttributeMask mask = mask_of({FATTR4_TYPE, FATTR4_RDATTR_ERROR, FATTR4_FILEID});
  return mask;
}

const AttributeMask& space_attribute_mask() {
  static const AttributeMask mask =
      mask_of({FATTR4_FILES_AVAIL, FATTR4_FILES_FREE, FATTR4_FILES_TOTAL, FATTR4_MAXNAME,
               FATTR4_SPACE_AVAIL, FATTR4_SPACE_FREE, FATTR4_SPACE_TOTAL});
  return mask;
}

const AttributeMask& limit_attribute_mask() {
  static const AttributeMask mask = mask_of({FATTR4_MAXREAD, FATTR4_MAXWRITE});
  return mask;
}

FileAttributes read_attributes(XdrReader& reader) {
  FileAttributes result;
  result.space.f_bsize = result.space.f_frsize = 4096;
  const std::uint32_t words = reader.u32();
  AttributeMask mask{};
  for (std::uint32_t index = 0; index < words && reader.ok(); ++index) {
    const std::uint32_t word = reader.u32();
    if (index < mask.size()) {
      mask.at(index) = word;
    } else if (word != 0) {
      reader.fail();
    }
  }
  const std::string_view bytes = reader.opaque(kValueBytesMax);
  XdrReader values(bytes);
  for (unsigned number = 0; number < 32 * mask.size(); ++number) {
    if ((mask.at(number / 32) >> (number % 32) & 1U) != 0) read_attribute(number, values, result);
  }
  if (!values.ok()) reader.fail();
  return result;
}

EncodedAttributes encode_attributes(const AttributeChanges& changes) {
  EncodedAttributes result;
  const auto add = [&](unsigned number) { result.mask.at(number / 32) |= 1U << (number % 32); };
  if (changes.size) {
    add(FATTR4_SIZE);
    append_u64(result.values, *changes.size);
  }
  if (changes.mode) {
    add(FATTR4_MODE);
    append_u32(result.values, *changes.mode & 07777U);
  }
  if (changes.user) {
    add(FATTR4_OWNER);
    append_owner(result.values, *changes.user);
  }
  if (changes.group) {
    add(FATTR4_OWNER_GROUP);
    append_owner(result.values, *changes.group);
  }
  if (changes.access_time) {
    add(FATTR4_TIME_ACCESS_SET);
    append_time(result.values, *changes.access_time);
  }
  if (changes.modify_time) {
    add(FATTR4_TIME_MODIFY_SET);
    append_time(result.values, *changes.modify_time);
  }
  return result;
}

}  // namespace ncfs
