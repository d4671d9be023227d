#include "io/buffer_slots.h"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <utility>

#include "io/assert.h"

namespace ncfs {
namespace {

std::shared_ptr<std::byte> map_memory(std::size_t size_bytes) {
  void* memory = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return {static_cast<std::byte*>(memory),
          [size_bytes](std::byte* mapped) { ::munmap(mapped, size_bytes); }};
}

}  // namespace

BufferSlots::BufferSlots(std::uint32_t count, std::uint64_t size_bytes) : size_bytes_(size_bytes) {
  slots_.reserve(count);
  while (slots_.size() < count) slots_.push_back(map_memory(size_bytes_));
}

const std::shared_ptr<std::byte>& BufferSlots::memory(BufferId id) const {
  const auto index = static_cast<std::size_t>(id);
  NCFS_ASSERT(index < slots_.size());
  return slots_[index];
}

void BufferSlots::replace(BufferId id, Contents contents) {
  std::shared_ptr<std::byte> fresh = map_memory(size_bytes_);
  if (contents == Contents::copied) std::memcpy(fresh.get(), memory(id).get(), size_bytes_);
  slots_[static_cast<std::size_t>(id)] = std::move(fresh);
}

}  // namespace ncfs
