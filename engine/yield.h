// How much background copies may have in flight beside readers of the same device.
//
// Copies take what readers leave, as LEDBAT (RFC 6817) and LEDBAT++ (draft-irtf-iccrg-ledbat-plus-
// plus) do it for TCP: a window of bytes in flight, steered by what copies add to a latency. It
// begins with the smallest piece and doubles; from the first time that too much is added on it
// grows by an eighth or a piece at most, and shrinks by half at most, the more the further it is
// from what may be added. It grows only if it was used. What differs:
//
//   * The latency is the readers' own, and what is steered for is a share of it: a copy that waits
//     harms nobody, and a device may answer in 100 us or in 100 ms.
//   * What it would be without copies is the mean of reads that met none, of about the same length.
//     A minimum, as in LEDBAT, is never met again by a reader who queues behind others, or on a
//     busy machine; then copies would yield to what they do not cause.
//   * To know that mean, copies pause while a few reads pass: when readers come, and after every
//     kTrusted reads from then on. (LEDBAT++ slows down periodically for the same reason; BBR calls
//     it ProbeRTT.) So it cannot drift, nor can who comes late take copies for the idle device.
//   * One piece is always allowed, pauses apart, which are bounded: copies go on beside any
//   readers.
//   * When readers stop the window doubles every kDoubling; kForget later everything is as at
//   first.
//
// Not thread-safe. Time of each call: constant. Times never go back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

#include "io/types.h"

namespace ncfs {

class YieldWindow {
 public:
  // What copies may add to the mean latency of readers, in parts of it: an eighth leaves room for
  // the spread up to the 99th percentile, of which a fifth is promised.
  static constexpr std::int64_t kTargetParts = 8;
  // Reads to judge by: their mean varies a quarter as much as they do.
  static constexpr std::uint32_t kJudged = 16;
  // Reads without copies that are enough to go on, and for how many beside them: a ninth of the
  // time is lost at most.
  static constexpr std::uint32_t kClean = 8;
  static constexpr std::uint32_t kTrusted = 64;
  // A pause ends after so long, though a device may be slower, and when nobody reads for kAway: a
  // reader who computes between two reads is back sooner.
  static constexpr Nanos kPauseMax = kSecond;
  static constexpr Nanos kAway = 20 * kMillisecond;
  static constexpr Nanos kDoubling = 100 * kMillisecond;
  static constexpr Nanos kForget = kSecond;
  static constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

  // Copies never have more than `max_bytes` in flight all the same; `piece_bytes` is at least 1.
  YieldWindow(std::uint64_t piece_bytes, std::uint64_t max_bytes);

  // A reader's read of the device. `bytes`: 0 if its latency means nothing, as it failed.
  void read_begins(Nanos now);
  void read_ends(Nanos now, Nanos began_at, std::uint64_t bytes);
  // A piece of a copy.
  void copy_begins(std::uint64_t bytes);
  void copy_ends(Nanos now, std::uint64_t bytes);

  // Bytes that a copy may ask for at a time, now; 0: it has to wait until something ends, or until
  // ready_at().
  [[nodiscard]] std::uint64_t piece(Nanos now) const;
  [[nodiscard]] std::optional<Nanos> ready_at(Nanos now) const;

  // Bytes that copies may have in flight.
  [[nodiscard]] std::uint64_t limit(Nanos now) const;
  [[nodiscard]] std::uint64_t copies_in_flight() const { return copies_bytes_; }
  [[nodiscard]] std::uint32_t reads_in_flight() const { return reads_; }
  // Nothing is in flight nor remembered: it is as good as a new one.
  [[nodiscard]] bool is_idle(Nanos now) const;
  // Mean latency, of reads of the length that was last seen: without copies and beside them. 0: not
  // known.
  [[nodiscard]] Nanos latency_alone() const { return classes_[last_class_].alone.mean; }
  [[nodiscard]] Nanos latency_beside() const { return classes_[last_class_].beside.mean; }

 private:
  // Of the last readings, about as many as kClean counts twice.
  struct Mean {
    Nanos mean = 0;
    std::uint32_t count = 0;
    void add(Nanos value);
  };
  // Reads whose lengths have as many binary digits: what the bytes themselves take differs by a
  // factor of two at most.
  struct Class {
    Mean alone;
    Mean beside;
  };

  [[nodiscard]] bool is_pausing(Nanos now) const;
  [[nodiscard]] Nanos pause_ends_at() const;
  void judge(std::int64_t added_parts);
  void begin_anew(Nanos now);

  const std::uint64_t piece_bytes_;
  const std::uint64_t max_bytes_;

  std::uint32_t reads_ = 0;  // in flight
  Nanos last_read_at_ = 0;   // while none is: when the last one ended
  bool has_readers_ = false;
  std::uint64_t copies_bytes_ = 0;  // in flight
  Nanos last_copy_at_ = 0;          // when the last piece ended

  std::uint64_t window_;
  bool is_doubling_ = true;
  std::uint64_t used_ = 0;  // most bytes in flight since it was judged last
  std::uint32_t judged_ = 0;
  std::int64_t added_ = 0;  // sum over these

  std::uint32_t trust_ = 0;         // reads beside copies until the next pause
  std::optional<Nanos> paused_at_;  // until trust_ is kTrusted again

  std::array<Class, 65> classes_{};
  std::size_t last_class_ = 0;
};

}  // namespace ncfs
