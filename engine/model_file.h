// Where the tensors of a model file are: the headers of safetensors and GGUF, read from bytes that
// anybody may have written.
//
//   safetensors   u64 length, then so many bytes of JSON: {"name": {"data_offsets": [begin, end],
//                 ...}, ...}, counted from the end of the JSON. The format allows 100 MB; a model
//                 has a hundred bytes for each tensor, so what is longer than kSafetensorsBytesMax
//                 is refused.
//   GGUF          "GGUF", u32 version (2 or 3), u64 number of tensors, u64 number of values; the
//                 values, with a vocabulary of some megabytes among them; of each tensor its name,
//                 dimensions, type and u64 offset, counted from the end of all that, aligned to the
//                 value of `general.alignment`, else to 32. Where a tensor ends is not told: where
//                 the next one begins, here.
//
// Numbers are little-endian. Every count and length is compared with what is there before it is
// used; no allocation is larger than the bytes that came. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "io/types.h"

namespace ncfs {

enum class ModelFormat : std::uint8_t { safetensors, gguf };
// By the end of its name.
[[nodiscard]] std::optional<ModelFormat> model_format_of(std::string_view path);

class ModelHeader {
 public:
  // At most some milliseconds of the control thread, and 16 MiB of memory until it is known.
  static constexpr std::uint64_t kSafetensorsBytesMax = 1 * kMiB;
  static constexpr std::uint64_t kGgufBytesMax = 16 * kMiB;
  static constexpr std::uint64_t kTensorsMax = 65536;

  enum class State : std::uint8_t {
    reading,  // more bytes are needed
    known,
    refused,  // damaged, or beyond the bounds above
  };

  ModelHeader(ModelFormat format, std::uint64_t file_bytes)
      : format_(format), file_bytes_(file_bytes) {}

  // Bytes of the file that begin at `offset`, in any order.
  void feed(std::uint64_t offset, std::span<const std::byte> bytes);
  [[nodiscard]] State state() const { return state_; }
  // Whether bytes from there on may be needed.
  [[nodiscard]] bool wants(ByteRange range) const {
    return state_ == State::reading && range.offset < bytes_max() && range.end() > bytes_.size();
  }
  // In the order of the file, not empty, within the file; empty unless known.
  [[nodiscard]] const std::vector<ByteRange>& tensors() const { return tensors_; }

 private:
  [[nodiscard]] std::uint64_t bytes_max() const {
    return format_ == ModelFormat::gguf ? kGgufBytesMax : kSafetensorsBytesMax;
  }
  State parse_safetensors();
  State parse_gguf();
  State take(std::vector<ByteRange> tensors);

  const ModelFormat format_;
  const std::uint64_t file_bytes_;
  State state_ = State::reading;
  std::vector<std::byte> bytes_;                           // the beginning of the file
  std::map<std::uint64_t, std::vector<std::byte>> later_;  // by offset, beyond a gap
  std::uint64_t later_bytes_ = 0;
  std::vector<ByteRange> tensors_;
};

}  // namespace ncfs
