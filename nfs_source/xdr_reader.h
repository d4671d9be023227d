// Reads XDR (RFC 4506) that a server has sent, which may be anything. Once something is missing or
// too long, all that follows is zero or empty, and ok() says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace ncfs {

class XdrReader {
 public:
  explicit XdrReader(std::span<const char> bytes) : bytes_(bytes) {}

  [[nodiscard]] bool ok() const { return is_ok_; }
  [[nodiscard]] std::size_t left() const { return bytes_.size(); }
  void fail() {
    is_ok_ = false;
    bytes_ = {};
  }

  std::uint32_t u32() {
    const std::string_view bytes = fixed(4);
    std::uint32_t value = 0;
    for (const char byte : bytes) value = value << 8U | static_cast<unsigned char>(byte);
    return value;
  }
  std::uint64_t u64() {
    const std::uint64_t high = u32();
    return high << 32U | u32();
  }
  bool flag() { return u32() != 0; }

  // Without padding of its own: `size` is a multiple of 4, or the padding is skipped. Views of the
  // bytes that are read.
  std::string_view fixed(std::size_t size) {
    const std::size_t padded = size + (4 - size % 4) % 4;
    if (size > bytes_.size() || padded > bytes_.size()) {
      fail();
      return {};
    }
    const std::string_view result(bytes_.data(), size);
    bytes_ = bytes_.subspan(padded);
    return result;
  }
  std::string_view opaque(std::size_t size_max) {
    const std::uint32_t size = u32();
    if (size > size_max) fail();
    return is_ok_ ? fixed(size) : std::string_view{};
  }

 private:
  std::span<const char> bytes_;
  bool is_ok_ = true;
};

}  // namespace ncfs
