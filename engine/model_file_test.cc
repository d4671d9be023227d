#include "engine/model_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>

namespace ncfs {
namespace {

using State = ModelHeader::State;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

template <typename Number>
std::string little(Number value) {
  std::string bytes(sizeof(Number), '\0');
  std::memcpy(bytes.data(), &value, sizeof(Number));
  return bytes;
}

std::string safetensors(const std::string& json) {
  return little<std::uint64_t>(json.size()) + json;
}

std::string text(const std::string& value) {
  return little<std::uint64_t>(value.size()) + value;
}

// Two tensors at 0 and 4096 of the data, with values of every kind before them.
std::string gguf(std::uint32_t alignment = 64) {
  std::string header =
      "GGUF" + little<std::uint32_t>(3) + little<std::uint64_t>(2) + little<std::uint64_t>(4);
  header += text("general.name") + little<std::uint32_t>(8) + text("a model");
  header += text("general.alignment") + little<std::uint32_t>(4) + little(alignment);
  header += text("tokens") + little<std::uint32_t>(9) + little<std::uint32_t>(8) +
            little<std::uint64_t>(3) + text("a") + text("bc") + text("");
  header += text("scores") + little<std::uint32_t>(9) + little<std::uint32_t>(6) +
            little<std::uint64_t>(2) + little(1.0F) + little(2.0F);
  for (const std::uint64_t offset : {4096, 0}) {
    header += text("tensor" + std::to_string(offset)) + little<std::uint32_t>(2) +
              little<std::uint64_t>(32) + little<std::uint64_t>(32) + little<std::uint32_t>(0) +
              little(offset);
  }
  return header;
}

ModelHeader read(ModelFormat format, const std::string& header, std::uint64_t file_bytes) {
  ModelHeader model(format, file_bytes);
  model.feed(0, bytes_of(header));
  return model;
}

State state_of(const std::string& json) {
  return read(ModelFormat::safetensors, safetensors(json), 1000).state();
}

TEST(ModelFile, IsKnownByTheEndOfItsName) {
  EXPECT_EQ(model_format_of("a/model-00001-of-00002.safetensors"), ModelFormat::safetensors);
  EXPECT_EQ(model_format_of("x.gguf"), ModelFormat::gguf);
  EXPECT_FALSE(model_format_of("model.safetensors.index.json"));
  EXPECT_FALSE(model_format_of("gguf"));
}

TEST(ModelFile, TensorsOfSafetensorsAreInTheOrderOfTheFile) {
  const std::string header = safetensors(
      R"({"__metadata__": {"format": "pt", "data_offsets": "x"},
          "b": {"dtype": "F16", "shape": [2, 5], "data_offsets": [100, 120]},
          "empty": {"dtype": "F16", "shape": [0], "data_offsets": [100, 100]},
          "a": {"data_offsets": [0, 100], "dtype": "F16", "shape": [50]}})");
  const ModelHeader model = read(ModelFormat::safetensors, header, header.size() + 120);
  ASSERT_EQ(model.state(), State::known);
  EXPECT_EQ(model.tensors(),
            (std::vector<ByteRange>{{header.size(), 100}, {header.size() + 100, 20}}));
}

TEST(ModelFile, TensorsOfGgufEndWhereTheNextOneBegins) {
  const std::string header = gguf();
  const std::uint64_t data = (header.size() + 63) / 64 * 64;
  const ModelHeader model = read(ModelFormat::gguf, header, data + 5000);
  ASSERT_EQ(model.state(), State::known);
  EXPECT_EQ(model.tensors(), (std::vector<ByteRange>{{data, 4096}, {data + 4096, 904}}));
}

TEST(ModelFile, PiecesComeInAnyOrder) {
  const std::string header = gguf();
  const auto bytes = bytes_of(header);
  for (const std::size_t piece : {1, 7, 40}) {
    ModelHeader model(ModelFormat::gguf, 10'000);
    for (std::size_t end = bytes.size(); end > 0 && model.state() == State::reading;) {
      const std::size_t begin = end - std::min(piece, end);
      EXPECT_TRUE(model.wants({begin, end - begin}));
      model.feed(begin, bytes.subspan(begin, end - begin));
      end = begin;
    }
    EXPECT_EQ(model.state(), State::known) << piece;
    EXPECT_EQ(model.tensors().size(), 2U);
  }
}

TEST(ModelFile, MoreIsWantedUntilAllOfTheHeaderIsThere) {
  const std::string header = gguf();
  for (std::size_t length = 0; length < header.size(); ++length) {
    EXPECT_EQ(read(ModelFormat::gguf, header.substr(0, length), 10'000).state(), State::reading);
  }
  const std::string json = safetensors(R"({"a": {"data_offsets": [0, 10]}})");
  for (std::size_t length = 0; length < json.size(); ++length) {
    EXPECT_EQ(read(ModelFormat::safetensors, json.substr(0, length), 10'000).state(),
              State::reading);
  }
}

TEST(ModelFile, HostileSafetensorsAreRefused) {
  for (const char* json :
       {"", "{", "[", "x", R"({"a": {"data_offsets": [0]}})",
        R"({"a": {"data_offsets": [0, 1, 2]}})", R"({"a": {"data_offsets": [2, 1]}})",
        R"({"a": {"data_offsets": [0, 5000]}})", R"({"a": {"data_offsets": [5000, 5001]}})",
        R"({"a": {"data_offsets": [-1, 1]}})", R"({"a": {"data_offsets": [0, 1.5]}})",
        R"({"a": {"data_offsets": [0, 18446744073709551615]}})",
        R"({"a": {"data_offsets": [18446744073709551615, 18446744073709551615]}})",
        R"({"a": {"data_offsets": [0, 99999999999999999999999]}})"}) {
    EXPECT_EQ(state_of(json), State::refused) << json;
  }
  EXPECT_EQ(state_of(std::string(500, '[')), State::refused);
  EXPECT_EQ(state_of("{}"), State::known);
  for (const std::uint64_t length : {ModelHeader::kSafetensorsBytesMax, ~std::uint64_t{0},
                                     ~std::uint64_t{0} - 7, std::uint64_t{1} << 63}) {
    EXPECT_EQ(read(ModelFormat::safetensors, little(length), kGiB).state(), State::refused);
  }
}

TEST(ModelFile, DeepJsonIsRefusedWithoutRecursion) {
  const std::uint64_t deep = ModelHeader::kSafetensorsBytesMax - 8;
  const std::string header = safetensors(std::string(deep, '['));
  EXPECT_EQ(read(ModelFormat::safetensors, header, kGiB).state(), State::refused);
}

TEST(ModelFile, HostileGgufIsRefused) {
  EXPECT_EQ(read(ModelFormat::gguf, "GGUF" + std::string(20, '\xff'), kGiB).state(),
            State::refused);
  EXPECT_EQ(read(ModelFormat::gguf, std::string(24, 'x'), kGiB).state(), State::refused);
  EXPECT_EQ(read(ModelFormat::gguf, gguf(0), 10'000).state(), State::refused);
  EXPECT_EQ(read(ModelFormat::gguf, gguf(), 4000).state(), State::refused) << "beyond the file";
  const std::string start =
      "GGUF" + little<std::uint32_t>(3) + little<std::uint64_t>(1) + little<std::uint64_t>(1);
  for (const std::string& value :
       {little(~std::uint64_t{0}), text("a") + little<std::uint32_t>(13),
        text("a") + little<std::uint32_t>(9) + little<std::uint32_t>(9) + little<std::uint64_t>(1),
        text("a") + little<std::uint32_t>(9) + little<std::uint32_t>(10) +
            little(std::uint64_t{1} << 61)}) {
    EXPECT_EQ(read(ModelFormat::gguf, start + value, kGiB).state(), State::refused);
  }
}

TEST(ModelFile, WhatNeverEndsIsRefused) {
  const std::string start =
      "GGUF" + little<std::uint32_t>(3) + little<std::uint64_t>(1) + little<std::uint64_t>(1);
  const std::string endless = start + text("a") + little<std::uint32_t>(9) +
                              little<std::uint32_t>(8) + little(std::uint64_t{1} << 23);
  ModelHeader model(ModelFormat::gguf, kGiB);
  model.feed(0, bytes_of(endless));
  const std::string zeros(1 * kMiB, '\0');
  std::uint64_t at = endless.size();
  for (int piece = 0; piece < 17 && model.state() == State::reading; ++piece) {
    model.feed(at, bytes_of(zeros));
    at += zeros.size();
  }
  EXPECT_EQ(model.state(), State::refused);
  EXPECT_FALSE(model.wants({at, 100}));
}

// Any damage ends in a state; what is told lies within the file.
TEST(ModelFile, DamagedHeadersTellNothingBeyondTheFile) {
  const std::string json =
      safetensors(R"({"a": {"data_offsets": [0, 100]}, "b": {"data_offsets": [100, 200]}})");
  std::mt19937 random(1);
  for (int round = 0; round < 20'000; ++round) {
    const bool is_gguf = round % 2 == 0;
    std::string header = is_gguf ? gguf() : json;
    for (std::uint32_t damage = 0; damage <= random() % 3; ++damage) {
      header[random() % header.size()] = static_cast<char>(random());
    }
    const std::uint64_t file_bytes = header.size() + random() % 10'000;
    const ModelHeader model =
        read(is_gguf ? ModelFormat::gguf : ModelFormat::safetensors, header, file_bytes);
    for (const ByteRange& tensor : model.tensors()) {
      ASSERT_LE(tensor.offset, file_bytes);
      ASSERT_LE(tensor.length, file_bytes - tensor.offset);
      ASSERT_GT(tensor.length, 0U);
    }
  }
}

}  // namespace
}  // namespace ncfs
