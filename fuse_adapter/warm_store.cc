#include "fuse_adapter/warm_store.h"

#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "io/cache_files.h"

namespace ncfs {
namespace {

constexpr char kName[] = "WARM";
constexpr char kDraftName[] = "WARM.new";
constexpr std::string_view kMagic = "NCFSWARM";
constexpr std::uint32_t kVersion = 2;
// Reasons are those of the engine and of the walk, a dozen and a half in all.
constexpr std::uint64_t kReasonsMax = 64;

class Writer {
 public:
  template <typename Number>
  void number(Number value) {
    for (std::size_t byte = 0; byte < sizeof value; ++byte) {
      bytes_.push_back(static_cast<std::byte>(value >> (8 * byte)));
    }
  }
  void raw(std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void text(std::string_view value) {
    number(static_cast<std::uint32_t>(value.size()));
    raw(value);
  }
  void count(const WarmCount& value) {
    number(value.files);
    number(value.bytes);
  }
  std::vector<std::byte> finish() {
    number(std::uint64_t{XXH3_64bits(bytes_.data(), bytes_.size())});
    return std::move(bytes_);
  }

 private:
  std::vector<std::byte> bytes_;
};

// After the first wrong value everything is zero and empty, and is_good() is false.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename Number>
  Number number() {
    Number value = 0;
    const auto bytes = take(sizeof value);
    for (std::size_t byte = 0; byte < bytes.size(); ++byte) {
      value |= static_cast<Number>(std::to_integer<Number>(bytes[byte]) << (8 * byte));
    }
    return value;
  }
  std::uint64_t number_up_to(std::uint64_t max) {
    const auto value = number<std::uint64_t>();
    if (value > max) fail();
    return is_good_ ? value : 0;
  }
  bool flag() { return number_up_to(1) == 1; }
  std::string text() {
    const auto length = number<std::uint32_t>();
    const auto bytes = take(length);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  WarmCount count() {
    const auto files = number<std::uint64_t>();
    return {files, number<std::uint64_t>()};
  }
  // Of things that take at least `size` bytes each.
  std::uint64_t how_many(std::size_t size) { return number_up_to(bytes_.size() / size); }

  void fail() {
    is_good_ = false;
    bytes_ = {};
  }
  [[nodiscard]] bool is_good() const { return is_good_; }
  [[nodiscard]] bool is_at_end() const { return is_good_ && bytes_.empty(); }

 private:
  std::span<const std::byte> take(std::size_t count) {
    if (count > bytes_.size()) fail();
    if (!is_good_) return {};
    const auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }

  std::span<const std::byte> bytes_;
  bool is_good_ = true;
};

// As a path of a job: from the source's root, leading nowhere else. "" is the root.
bool is_path(const std::string& path) {
  return path.empty() || is_plain_name(path);
}

void write_job(Writer& out, const WarmProgress& job) {
  out.number(job.id);
  // What is counted of a job that goes on is counted again.
  const bool has_ended = job.is_finished();
  out.number(std::uint64_t{has_ended ? static_cast<std::uint64_t>(job.state) : 0});
  out.number(std::uint64_t{job.order.pin});
  out.number(std::uint64_t{job.order.best_effort});
  out.number(job.order.bytes_per_second);
  out.text(job.order.list);
  out.number(std::uint64_t{job.order.paths.size()});
  for (const std::string& path : job.order.paths) out.text(path);
  out.number(job.restarts);
  out.number(job.needed_bytes);
  out.number(job.capacity_bytes);
  for (const WarmCount* count :
       {&job.found, &job.copied, &job.already_cached, &job.skipped, &job.failed}) {
    out.count(*count);
  }
  out.number(std::uint64_t{job.skip_reasons.size()});
  for (const auto& [reason, files] : job.skip_reasons) {
    out.text(reason);
    out.number(files);
  }
  out.number(std::uint64_t{job.failures.size()});
  for (const auto& failure : job.failures) {
    out.text(failure.path);
    out.text(failure.error);
  }
  out.number(static_cast<std::uint64_t>(job.seconds * 1000));
}

WarmProgress read_job(Reader& in, std::uint64_t last_id) {
  WarmProgress job;
  job.id = in.number<std::uint64_t>();
  if (job.id <= last_id) in.fail();
  job.state = static_cast<WarmProgress::State>(
      in.number_up_to(static_cast<std::uint64_t>(WarmProgress::State::refused)));
  job.order.pin = in.flag();
  job.order.best_effort = in.flag();
  job.order.bytes_per_second = in.number_up_to(WarmJobs::kRateMax);
  if (job.order.bytes_per_second != 0 && job.order.bytes_per_second < WarmJobs::kRateMin) in.fail();
  job.order.list = in.text();
  constexpr std::size_t kTextBytes = sizeof(std::uint32_t);
  for (auto left = in.how_many(kTextBytes); left > 0; --left) {
    job.order.paths.push_back(in.text());
    if (!is_path(job.order.paths.back())) in.fail();
    if (!in.is_good()) return job;
  }
  if (job.order.paths.empty() || !is_path(job.order.list)) in.fail();
  job.restarts = in.number<std::uint64_t>();
  job.needed_bytes = in.number<std::uint64_t>();
  job.capacity_bytes = in.number<std::uint64_t>();
  for (WarmCount* count :
       {&job.found, &job.copied, &job.already_cached, &job.skipped, &job.failed}) {
    *count = in.count();
  }
  for (auto left = in.number_up_to(kReasonsMax); left > 0; --left) {
    const std::string reason = in.text();
    job.skip_reasons[reason] = in.number<std::uint64_t>();
  }
  for (auto left = in.number_up_to(WarmJobs::kFailuresKept); left > 0; --left) {
    const std::string path = in.text();
    job.failures.push_back({path, in.text()});
  }
  job.seconds = static_cast<double>(in.number<std::uint64_t>()) / 1000;
  return job;
}

}  // namespace

std::vector<std::byte> encode_warm_jobs(const std::vector<WarmProgress>& jobs) {
  Writer out;
  out.raw(kMagic);
  out.number(kVersion);
  out.number(static_cast<std::uint32_t>(jobs.size()));
  for (const WarmProgress& job : jobs) write_job(out, job);
  return out.finish();
}

std::optional<std::vector<WarmProgress>> decode_warm_jobs(std::span<const std::byte> bytes) {
  constexpr std::size_t kSumBytes = sizeof(std::uint64_t);
  if (bytes.size() < kMagic.size() + kSumBytes) return std::nullopt;
  const auto summed = bytes.first(bytes.size() - kSumBytes);
  Reader sum(bytes.last(kSumBytes));
  if (sum.number<std::uint64_t>() != XXH3_64bits(summed.data(), summed.size())) {
    return std::nullopt;
  }
  if (std::memcmp(summed.data(), kMagic.data(), kMagic.size()) != 0) return std::nullopt;
  Reader in(summed.subspan(kMagic.size()));
  if (in.number<std::uint32_t>() != kVersion) return std::nullopt;
  const auto count = in.number<std::uint32_t>();
  if (count > WarmJobs::kJobsMax) return std::nullopt;
  std::vector<WarmProgress> jobs;
  std::uint64_t last_id = 0;
  for (std::uint32_t index = 0; index < count && in.is_good(); ++index) {
    jobs.push_back(read_job(in, last_id));
    last_id = jobs.back().id;
  }
  if (!in.is_at_end()) return std::nullopt;
  return jobs;
}

int load_warm_jobs(int root, std::vector<WarmProgress>& jobs) {
  std::vector<std::byte> bytes;
  const std::int64_t result = load_file(root, kName, bytes);
  if (result == -ENOENT) return 0;
  if (result != 0) return static_cast<int>(-result);
  auto decoded = decode_warm_jobs(bytes);
  if (!decoded) return EBADMSG;
  jobs = std::move(*decoded);
  return 0;
}

int store_warm_jobs(int root, const std::vector<WarmProgress>& jobs) {
  std::int64_t result = store_file(root, kDraftName, encode_warm_jobs(jobs));
  if (result == 0) result = rename_file(root, kDraftName, kName);
  if (result == 0) result = sync_directory(root, "");
  return static_cast<int>(-result);
}

}  // namespace ncfs
