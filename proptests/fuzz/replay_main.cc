// Usage: TARGET DIRECTORY. Gives each file in it to the fuzz target.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "proptests/fuzz/fuzz_target.h"

int main(int argc, char** argv) {
  std::size_t files = 0;
  if (argc == 2) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
      LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
      ++files;
    }
  }
  std::printf("%zu files\n", files);
  return files > 0 ? 0 : 1;
}
