// Headers of model files, which come in pieces. The first byte chooses the format, the second the
// size of the pieces, the third how large the file says it is.
#include <algorithm>

#include "engine/model_file.h"
#include "proptests/fuzz/fuzz_target.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ncfs;
  if (size < 3) return 0;
  const auto bytes = fuzz::bytes_of(data + 3, size - 3);
  const std::uint64_t file_bytes = bytes.size() + std::uint64_t{data[2]} * kMiB;
  ModelHeader header(data[0] % 2 == 0 ? ModelFormat::safetensors : ModelFormat::gguf, file_bytes);
  const std::size_t piece = 1 + std::size_t{data[1]} * 16;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    header.feed(at, bytes.subspan(at, std::min(piece, bytes.size() - at)));
  }
  fuzz::require(header.state() == ModelHeader::State::known || header.tensors().empty(),
                "tensors are known or there are none");
  fuzz::require(header.tensors().size() <= ModelHeader::kTensorsMax, "tensors are bounded");
  std::uint64_t end = 0;
  for (const ByteRange& tensor : header.tensors()) {
    fuzz::require(tensor.length > 0 && tensor.offset >= end, "tensors are in order");
    end = tensor.end();
    fuzz::require(end > tensor.offset && end <= file_bytes, "tensors lie within the file");
  }
  return 0;
}
