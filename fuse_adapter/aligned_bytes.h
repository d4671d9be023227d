// Memory that direct I/O takes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

namespace ncfs {

class AlignedBytes {
 public:
  // What is in it is not initialised.
  explicit AlignedBytes(std::size_t size) : size_(size), memory_(allocate(size)) {}
  explicit AlignedBytes(std::span<const std::byte> content) : AlignedBytes(content.size()) {
    std::ranges::copy(content, memory_.get());
  }

  [[nodiscard]] std::span<std::byte> bytes() { return {memory_.get(), size_}; }
  [[nodiscard]] std::span<const std::byte> bytes() const { return {memory_.get(), size_}; }

 private:
  // As much as any device asks for.
  static constexpr std::size_t kAlignment = 4096;

  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  static std::byte* allocate(std::size_t size) {
    const std::size_t rounded = (size + kAlignment - 1) / kAlignment * kAlignment;
    void* const memory = std::aligned_alloc(kAlignment, std::max(rounded, kAlignment));
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<std::byte*>(memory);
  }

  std::size_t size_;
  std::unique_ptr<std::byte, Free> memory_;
};

}  // namespace ncfs
