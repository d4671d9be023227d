// The laws of io.h as tests, for any driver.
//
// A driver is plugged in by deriving from IoWorld, linking io_contract.cc into a test binary and
//   INSTANTIATE_TEST_SUITE_P(Name, IoContract, testing::Values(&make_my_world));
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/io.h"

namespace ncfs {

// A driver with the source and the cache directory behind it. At the start the source is an empty
// directory, and the cache holds the empty directories "3f" and "40".
class IoWorld {
 public:
  virtual ~IoWorld() = default;

  virtual Io& io() = 0;
  [[nodiscard]] virtual Nanos now() const = 0;  // the clock of the deadlines
  [[nodiscard]] virtual std::uint64_t block_size() const = 0;
  virtual std::span<std::byte> buffer(BufferId id) = 0;  // at least the ids 0 to 3

  // Lets the world go on by a step: time passes, a device answers, a completion is delivered.
  // False if nothing will ever happen again.
  virtual bool step() = 0;

  // Creates the file, or overwrites it in place: the same file with new bytes and a new version.
  virtual void put_source_file(const std::string& path, std::span<const std::byte> bytes) = 0;

  // Reads of the source hang from now on, until resume_source(), after which all go on. The
  // contents of the buffers are lost; those not in a read that timed out are not to be touched.
  virtual void stall_source() = 0;
  virtual void resume_source() = 0;

  // Sets the mtime of a file in the cache directory to an hour ago.
  virtual void make_old(const std::string& name) = 0;

  // To be called by the derived world with each completion its driver hands over.
  void deliver(Completion completion) { delivered_.push_back(std::move(completion)); }
  [[nodiscard]] const std::vector<Completion>& delivered() const { return delivered_; }
  [[nodiscard]] std::size_t times_delivered(Ticket ticket) const;

  // Steps until the ticket's completion is there. Fails the test if that never happens.
  Completion run_until(Ticket ticket);

 private:
  std::vector<Completion> delivered_;
};

using IoWorldMaker = std::unique_ptr<IoWorld> (*)();

class IoContract : public testing::TestWithParam<IoWorldMaker> {
 protected:
  // Every request was completed exactly once.
  void TearDown() override;

  // Adds ticket and deadline, unless it has one, and checks that nothing is completed inline.
  Ticket submit(Request request);
  Completion run(Request request) { return world_->run_until(submit(std::move(request))); }
  std::int64_t result(Request request) { return run(std::move(request)).result; }

  FileHandle open_source(const std::string& path);
  FileHandle create(const std::string& name, std::uint64_t length);
  FileHandle open_cache(const std::string& name);
  std::int64_t read(FileHandle file, ByteRange range, BufferId id);
  std::int64_t write(FileHandle file, std::uint64_t offset, std::span<const std::byte> bytes);
  void close(Op op, FileHandle file);
  std::vector<std::string> names_in(const std::string& directory);

  const std::unique_ptr<IoWorld> world_ = GetParam()();

 private:
  std::vector<Ticket> tickets_;
};

// Requests by their parts.
Request on_name(Op op, std::string name);
Request on_file(Op op, FileHandle file);
Request rename_request(std::string name, std::string new_name);
Request store_request(std::string name, std::vector<std::byte> bytes);
Request create_request(std::string name, std::uint64_t length);
Request transfer_request(Op op, FileHandle file, ByteRange range, BufferId id);
Request unlink_request(std::string name, FileHandle file);

}  // namespace ncfs
