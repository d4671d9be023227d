// The simulated driver keeps the laws of io.h, like the real one.
#include "io/io_contract.h"
#include "sim/sim_io.h"

namespace ncfs {
namespace {

Config contract_config() {
  Config config;
  config.block_size_bytes = 16 * kKiB;
  config.buffers = 4;
  return config;
}

class SimIoWorld final : public IoWorld {
 public:
  SimIoWorld()
      : config_(contract_config()), nfs_(SimNfs::Options{}), io_(config_, 0, disk_, nfs_, trace_) {
    disk_.make_directory("3f");
    disk_.make_directory("40");
    io_.set_now(now_);
  }

  Io& io() override { return io_; }
  Nanos now() const override { return now_; }
  std::uint64_t block_size() const override { return config_.block_size_bytes; }
  std::span<std::byte> buffer(BufferId id) override { return io_.buffer(id); }

  // Completes the oldest request that is not stuck; time passes when all are.
  bool step() override {
    io_.set_now(++now_);
    if (auto expired = io_.expire(0)) {
      deliver(std::move(*expired));
      return true;
    }
    const std::vector<SimIo::Pending>& pending = io_.pending();
    for (std::size_t index = 0; index < pending.size(); ++index) {
      if (io_.is_stuck(pending[index])) continue;
      deliver(io_.complete(index, {}));
      return true;
    }
    if (pending.empty()) return false;
    now_ += 10 * kMillisecond;
    return true;
  }

  void put_source_file(const std::string& path, std::span<const std::byte> bytes) override {
    nfs_.put(path, bytes, ++now_);
  }
  void stall_source() override { io_.weather().nfs_hangs = true; }
  void resume_source() override { io_.weather().nfs_hangs = false; }
  void make_old(const std::string& name) override {
    disk_.touch(name, wall_clock(now_) - 3600 * static_cast<std::int64_t>(kSecond));
  }

 private:
  const Config config_;
  Nanos now_ = kSecond;
  Trace trace_;
  SimDisk disk_;
  SimNfs nfs_;
  SimIo io_;
};

std::unique_ptr<IoWorld> make_sim_world() {
  return std::make_unique<SimIoWorld>();
}

INSTANTIATE_TEST_SUITE_P(Sim, IoContract, testing::Values(&make_sim_world),
                         [](const auto&) { return "Memory"; });

}  // namespace
}  // namespace ncfs
