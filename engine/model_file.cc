#include "engine/model_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace ncfs {
namespace {

// --- safetensors -----------------------------------------------------------------------------

constexpr std::uint64_t kLengthBytes = 8;
// {"name": {"data_offsets": [ is the deepest that has a meaning; JSON may be deeper elsewhere.
constexpr int kOffsetsDepth = 3;

// Takes the two numbers in each "data_offsets". Everything else is passed over.
class OffsetsReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<ByteRange> tensors;
  bool is_refused = false;

  bool number_unsigned(number_unsigned_t value) override {
    if (!is_in_offsets_ || depth_ != kOffsetsDepth) return true;
    if (count_ < 2) offsets_.at(count_) = value;
    ++count_;
    return true;
  }
  bool key(string_t& name) override {
    is_in_offsets_ = depth_ == kOffsetsDepth - 1 && name == "data_offsets";
    return true;
  }
  bool start_object(std::size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool start_array(std::size_t) override {
    count_ = 0;
    return enter();
  }
  bool end_array() override {
    if (is_in_offsets_ && depth_ == kOffsetsDepth) {
      const bool is_range = count_ == 2 && offsets_[0] <= offsets_[1];
      if (!is_range || tensors.size() >= ModelHeader::kTensorsMax) return refuse();
      tensors.push_back({offsets_[0], offsets_[1] - offsets_[0]});
      is_in_offsets_ = false;
    }
    return leave();
  }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return is_in_offsets_ ? refuse() : true; }
  bool number_float(number_float_t, const string_t&) override {
    return is_in_offsets_ ? refuse() : true;
  }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return refuse();
  }

 private:
  bool enter() {
    ++depth_;
    return true;
  }
  bool leave() {
    --depth_;
    return true;
  }
  bool refuse() {
    is_refused = true;
    return false;
  }

  int depth_ = 0;
  bool is_in_offsets_ = false;
  std::size_t count_ = 0;
  std::array<std::uint64_t, 2> offsets_{};
};

// --- GGUF ------------------------------------------------------------------------------------

constexpr std::uint64_t kAlignmentDefault = 32;
constexpr std::uint64_t kAlignmentMax = 1 * kMiB;
constexpr std::uint32_t kDimensionsMax = 8;  // GGML has four
constexpr std::uint32_t kTypeString = 8;
constexpr std::uint32_t kTypeArray = 9;
constexpr std::array<std::uint64_t, 13> kTypeBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

// Reads forward. What runs beyond the bytes that are there is not an error yet: `is_short`.
class GgufReader {
 public:
  explicit GgufReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool is_short = false;
  bool is_damaged = false;

  [[nodiscard]] bool is_good() const { return !is_short && !is_damaged; }
  [[nodiscard]] std::uint64_t position() const { return at_; }

  template <typename Number>
  Number number() {
    Number value = 0;
    const std::uint64_t at = at_;
    if (skip(sizeof(Number))) std::memcpy(&value, &bytes_[at], sizeof(Number));
    return value;
  }
  std::string_view string() {
    const auto length = number<std::uint64_t>();
    const std::uint64_t at = at_;
    if (!skip(length)) return {};
    return {reinterpret_cast<const char*>(bytes_.data()) + at, length};
  }
  bool skip(std::uint64_t length) {
    if (!is_good()) return false;
    if (length > ModelHeader::kGgufBytesMax) is_damaged = true;
    if (length > bytes_.size() - at_) is_short = true;
    if (!is_good()) return false;
    at_ += length;
    return true;
  }
  // Of an array in an array there is none in the format's own files.
  void skip_value(std::uint32_t type) {
    if (type != kTypeArray) return skip_scalar(type);
    const auto element = number<std::uint32_t>();
    const auto count = number<std::uint64_t>();
    if (element >= kTypeBytes.size() || element == kTypeArray) is_damaged = true;
    if (count > ModelHeader::kGgufBytesMax) is_damaged = true;
    if (!is_good()) return;
    if (element != kTypeString) return void(skip(count * kTypeBytes.at(element)));
    for (std::uint64_t index = 0; index < count && is_good(); ++index) string();
  }

 private:
  void skip_scalar(std::uint32_t type) {
    if (type >= kTypeBytes.size()) {
      is_damaged = true;
    } else if (type == kTypeString) {
      string();
    } else {
      skip(kTypeBytes.at(type));
    }
  }

  const std::span<const std::byte> bytes_;
  std::uint64_t at_ = 0;
};

}  // namespace

std::optional<ModelFormat> model_format_of(std::string_view path) {
  if (path.ends_with(".safetensors")) return ModelFormat::safetensors;
  if (path.ends_with(".gguf")) return ModelFormat::gguf;
  return std::nullopt;
}

void ModelHeader::feed(std::uint64_t offset, std::span<const std::byte> bytes) {
  const bool is_new = offset + bytes.size() > bytes_.size();
  if (state_ != State::reading || bytes.empty() || offset >= bytes_max() || !is_new) return;
  if (offset > bytes_.size()) {
    if (later_bytes_ + bytes.size() > bytes_max()) return;
    auto& piece = later_[offset];
    later_bytes_ += bytes.size() - piece.size();
    piece.assign(bytes.begin(), bytes.end());
    return;
  }
  const auto append = [this](std::uint64_t at, std::span<const std::byte> more) {
    const std::uint64_t known = bytes_.size() - at;
    if (known < more.size()) {
      bytes_.insert(bytes_.end(), more.begin() + static_cast<std::ptrdiff_t>(known), more.end());
    }
  };
  append(offset, bytes);
  while (!later_.empty() && later_.begin()->first <= bytes_.size()) {
    append(later_.begin()->first, later_.begin()->second);
    later_bytes_ -= later_.begin()->second.size();
    later_.erase(later_.begin());
  }
  state_ = format_ == ModelFormat::gguf ? parse_gguf() : parse_safetensors();
  if (state_ == State::reading && bytes_.size() >= std::min(bytes_max(), file_bytes_)) {
    state_ = State::refused;
  }
  if (state_ == State::reading) return;
  bytes_ = {};
  later_.clear();
  later_bytes_ = 0;
}

ModelHeader::State ModelHeader::parse_safetensors() {
  if (bytes_.size() < kLengthBytes) return State::reading;
  std::uint64_t length = 0;
  std::memcpy(&length, bytes_.data(), kLengthBytes);
  if (length > kSafetensorsBytesMax - kLengthBytes) return State::refused;
  if (bytes_.size() < kLengthBytes + length) return State::reading;
  const char* text = reinterpret_cast<const char*>(bytes_.data()) + kLengthBytes;
  OffsetsReader reader;
  const bool is_json = nlohmann::json::sax_parse(text, text + length, &reader);
  if (!is_json || reader.is_refused) return State::refused;
  const std::uint64_t data = kLengthBytes + length;
  for (ByteRange& tensor : reader.tensors) {
    if (data > file_bytes_ || tensor.offset > file_bytes_ - data) return State::refused;
    tensor.offset += data;
  }
  return take(std::move(reader.tensors));
}

ModelHeader::State ModelHeader::parse_gguf() {
  GgufReader reader(bytes_);
  const auto magic = reader.number<std::uint32_t>();
  const auto version = reader.number<std::uint32_t>();
  const auto tensor_count = reader.number<std::uint64_t>();
  const auto value_count = reader.number<std::uint64_t>();
  if (reader.is_short) return State::reading;
  const bool is_known = magic == 0x46554747 && (version == 2 || version == 3);  // "GGUF"
  if (!is_known || tensor_count > kTensorsMax || value_count > kTensorsMax) return State::refused;
  std::uint64_t alignment = kAlignmentDefault;
  for (std::uint64_t index = 0; index < value_count && reader.is_good(); ++index) {
    const bool is_alignment = reader.string() == "general.alignment";
    const auto type = reader.number<std::uint32_t>();
    if (is_alignment && type == 4) {
      alignment = reader.number<std::uint32_t>();
    } else {
      reader.skip_value(type);
    }
  }
  std::vector<std::uint64_t> offsets;
  for (std::uint64_t index = 0; index < tensor_count && reader.is_good(); ++index) {
    reader.string();
    const auto dimensions = reader.number<std::uint32_t>();
    if (dimensions > kDimensionsMax) return State::refused;
    reader.skip(dimensions * sizeof(std::uint64_t) + sizeof(std::uint32_t));
    offsets.push_back(reader.number<std::uint64_t>());
  }
  if (reader.is_damaged) return State::refused;
  if (reader.is_short) return State::reading;
  if (alignment == 0 || alignment > kAlignmentMax) return State::refused;
  const std::uint64_t data = (reader.position() + alignment - 1) / alignment * alignment;
  std::ranges::sort(offsets);
  std::vector<ByteRange> tensors;
  for (std::size_t index = 0; index < offsets.size(); ++index) {
    if (data > file_bytes_ || offsets[index] > file_bytes_ - data) return State::refused;
    const std::uint64_t begin = data + offsets[index];
    const bool is_last = index + 1 == offsets.size();
    const std::uint64_t length =
        is_last ? file_bytes_ - begin : offsets[index + 1] - offsets[index];
    tensors.push_back({begin, length});
  }
  return take(std::move(tensors));
}

ModelHeader::State ModelHeader::take(std::vector<ByteRange> tensors) {
  std::erase_if(tensors, [](const ByteRange& tensor) { return tensor.empty(); });
  for (const ByteRange& tensor : tensors) {
    if (tensor.offset > file_bytes_ || tensor.length > file_bytes_ - tensor.offset) {
      return State::refused;
    }
  }
  std::ranges::sort(tensors, {}, &ByteRange::offset);
  tensors_ = std::move(tensors);
  return State::known;
}

}  // namespace ncfs
