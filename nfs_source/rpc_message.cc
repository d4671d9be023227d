#include "nfs_source/rpc_message.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "nfs_source/xdr_reader.h"

namespace ncfs {

RpcMessage receive_message(const std::function<bool(std::span<char>)>& receive) {
  RpcMessage message;
  std::size_t room = 0;
  while (true) {
    std::array<char, 4> mark{};
    if (!receive(mark)) return {};
    const std::uint32_t word = XdrReader(mark).u32();
    const std::size_t size = word & ~kLastFragment;
    // Fragments without bytes would never end.
    if (size == 0 || message.size + size > kRpcBytesMax) return {};
    if (message.size + size > room) {
      // Most messages are of one fragment; many small ones are not copied again and again.
      room = std::max(message.size + size, 2 * room);
      auto bytes = std::make_unique_for_overwrite<char[]>(room);
      if (message.size > 0) std::memcpy(bytes.get(), message.bytes.get(), message.size);
      message.bytes = std::move(bytes);
    }
    if (!receive({message.bytes.get() + message.size, size})) return {};
    message.size += size;
    if ((word & kLastFragment) != 0) return message;
  }
}

}  // namespace ncfs
