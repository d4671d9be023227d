// The driver's block-sized buffers: page-aligned memory that costs nothing until it is touched.
//
// Memory in use by a transfer is held by a shared_ptr. replace() gives a slot new memory while a
// stuck transfer, or a reader, keeps the old until it lets go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "io/io.h"

namespace ncfs {

class BufferSlots {
 public:
  // Throws std::bad_alloc when there is no address space left, as does replace().
  BufferSlots(std::uint32_t count, std::uint64_t size_bytes);

  [[nodiscard]] std::size_t size_bytes() const { return size_bytes_; }
  [[nodiscard]] const std::shared_ptr<std::byte>& memory(BufferId id) const;

  enum class Contents : std::uint8_t { lost, copied };
  void replace(BufferId id, Contents contents);

 private:
  const std::size_t size_bytes_;
  std::vector<std::shared_ptr<std::byte>> slots_;
};

}  // namespace ncfs
