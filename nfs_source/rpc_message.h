// Messages of ONC RPC and how they lie in a TCP stream (RFC 5531, section 11).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace ncfs {

// The longest message that is sent or taken: data of one call, and room for what is around it.
inline constexpr std::size_t kRpcBytesMax = (1 << 20U) + (64 << 10U);

// Of the four bytes before a fragment of a message: it is the last one. The rest is its size.
inline constexpr std::uint32_t kLastFragment = 0x8000'0000;

struct RpcMessage {
  std::unique_ptr<char[]> bytes;
  std::size_t size = 0;
  [[nodiscard]] std::span<const char> view() const { return {bytes.get(), size}; }
};

// One message of one or more fragments, of which `receive` brings all bytes it is asked for, or
// returns false. Empty if the stream is of no more use.
[[nodiscard]] RpcMessage receive_message(const std::function<bool(std::span<char>)>& receive);

}  // namespace ncfs
