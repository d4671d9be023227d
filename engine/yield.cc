#include "engine/yield.h"

#include <algorithm>
#include <bit>

#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {
namespace {

// Shares are counted in parts of 1024.
constexpr std::int64_t kWhole = 1024;
constexpr std::int64_t kTarget = kWhole / YieldWindow::kTargetParts;

}  // namespace

void YieldWindow::Mean::add(Nanos value) {
  count = std::min(count + 1, 2 * kClean);
  // One read that met a stall must not count for many.
  if (count > 1) value = std::min(value, 2 * mean);
  mean = (mean * (count - 1) + value) / count;
}

YieldWindow::YieldWindow(std::uint64_t piece_bytes, std::uint64_t max_bytes)
    : piece_bytes_(piece_bytes),
      max_bytes_(std::max(piece_bytes, max_bytes)),
      window_(piece_bytes) {}

void YieldWindow::begin_anew(Nanos now) {
  window_ = piece_bytes_;
  is_doubling_ = true;
  used_ = judged_ = 0;
  added_ = 0;
  classes_ = {};
  trust_ = 0;
  paused_at_ = now;
}

void YieldWindow::read_begins(Nanos now) {
  const bool is_forgotten = reads_ == 0 && now >= last_read_at_ + kForget;
  if (!has_readers_ || is_forgotten) begin_anew(now);
  has_readers_ = true;
  ++reads_;
}

void YieldWindow::read_ends(Nanos now, Nanos began_at, std::uint64_t bytes) {
  NCFS_ASSERT(reads_ > 0);
  --reads_;
  last_read_at_ = now;
  if (bytes == 0) return;
  last_class_ = static_cast<std::size_t>(std::bit_width(bytes));
  Class& own = classes_[last_class_];
  const Nanos latency = std::max<Nanos>(now - began_at, 1);
  const bool is_alone = copies_bytes_ == 0 && last_copy_at_ <= began_at;
  if (is_alone) {
    own.alone.add(latency);
    trust_ = std::min(trust_ + kTrusted / kClean, kTrusted);
    if (trust_ == kTrusted) paused_at_.reset();
    return;
  }
  own.beside.add(latency);
  if (paused_at_ && now < *paused_at_ + kPauseMax) return;
  if (paused_at_) {
    // The device is slower than that: on with what is known.
    paused_at_.reset();
    trust_ = kTrusted;
  }
  if (trust_ == 0) {
    paused_at_ = now;
    return;
  }
  --trust_;
  if (own.alone.count == 0) return;
  const auto alone = static_cast<std::int64_t>(own.alone.mean);
  const auto seen = static_cast<std::int64_t>(std::min(latency, 2 * own.alone.mean));
  added_ += (seen - alone) * kWhole / alone;
  if (++judged_ < kJudged) return;
  judge(added_ / kJudged);
  added_ = 0;
  used_ = copies_bytes_;
  judged_ = 0;
}

void YieldWindow::judge(std::int64_t added) {
  if (added > kTarget) {
    const std::int64_t share = std::min((added - kTarget) * kWhole / kTarget, kWhole / 2);
    window_ -= window_ / kWhole * static_cast<std::uint64_t>(share);
    is_doubling_ = false;
  } else if (2 * used_ >= window_) {
    const std::int64_t share = std::min((kTarget - added) * kWhole / kTarget, kWhole);
    const std::uint64_t step = std::max(window_ / kTargetParts, piece_bytes_);
    window_ += is_doubling_ ? window_ : step / kWhole * static_cast<std::uint64_t>(share);
  }
  window_ = std::clamp(window_, piece_bytes_, max_bytes_);
}

void YieldWindow::copy_begins(std::uint64_t bytes) {
  copies_bytes_ += bytes;
  used_ = std::max(used_, copies_bytes_);
}

void YieldWindow::copy_ends(Nanos now, std::uint64_t bytes) {
  NCFS_ASSERT(copies_bytes_ >= bytes);
  copies_bytes_ -= bytes;
  last_copy_at_ = now;
}

Nanos YieldWindow::pause_ends_at() const {
  const Nanos latest = *paused_at_ + kPauseMax;
  return reads_ > 0 ? latest : std::min(latest, std::max(*paused_at_, last_read_at_) + kAway);
}

bool YieldWindow::is_pausing(Nanos now) const {
  return has_readers_ && paused_at_ && now < pause_ends_at();
}

std::uint64_t YieldWindow::limit(Nanos now) const {
  if (!has_readers_) return kUnlimited;
  if (is_pausing(now)) return 0;
  const Nanos silence = reads_ > 0 || now < last_read_at_ ? 0 : now - last_read_at_;
  if (silence >= kForget) return kUnlimited;
  const std::uint64_t window = window_ << (silence / kDoubling);
  return window >= max_bytes_ ? kUnlimited : window;
}

// Two at a time keep the line busy; fewer larger ones cost less.
std::uint64_t YieldWindow::piece(Nanos now) const {
  const std::uint64_t window = limit(now);
  if (window == kUnlimited || NCFS_PLANT(yield_ignored)) return kUnlimited;
  const std::uint64_t half = std::max(window / 2 / piece_bytes_ * piece_bytes_, piece_bytes_);
  return copies_bytes_ + half <= window ? half : 0;
}

std::optional<Nanos> YieldWindow::ready_at(Nanos now) const {
  return is_pausing(now) ? std::optional(pause_ends_at()) : std::nullopt;
}

bool YieldWindow::is_idle(Nanos now) const {
  return reads_ == 0 && copies_bytes_ == 0 && (!has_readers_ || now >= last_read_at_ + kForget);
}

}  // namespace ncfs
