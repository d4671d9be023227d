// One life of the process: an engine and its driver, from start to crash.
#pragma once

#include "engine/engine.h"
#include "sim/sim_io.h"

namespace ncfs {

// Stands between the engine and the driver: how a test plants a driver or an engine that does less
// than it should, without touching either.
class Tamper : public Io {
 public:
  virtual ~Tamper() = default;
  void attach(SimIo& next) { next_ = &next; }

 protected:
  [[nodiscard]] SimIo& next() { return *next_; }

 private:
  SimIo* next_ = nullptr;
};

class Life {
 public:
  // The engine's clock starts at one second, whatever the world's shows: nothing may be remembered
  // across runs in terms of it.
  Life(const Config& config, Nanos now, SimDisk& disk, SimNfs& nfs, Trace& trace, Host& host,
       Tamper* tamper)
      : config_(config),
        origin_(now - kSecond),
        now_(now),
        io_(config, origin_, disk, nfs, trace),
        engine_(config, door(tamper), host) {
    io_.set_now(now);
  }

  void set_now(Nanos now) {
    now_ = now;
    io_.set_now(now);
  }
  void start();
  void handle(Event event);
  void complete(std::size_t index, const Answer& answer);
  // Completes all requests whose deadlines have passed; see SimIo::expire().
  void expire(std::uint32_t effects);

  [[nodiscard]] const Config& config() const { return config_; }
  [[nodiscard]] SimIo& io() { return io_; }
  [[nodiscard]] const SimIo& io() const { return io_; }
  [[nodiscard]] const Engine& engine() const { return engine_; }

 private:
  [[nodiscard]] Nanos engine_now() const { return now_ - origin_; }
  Io& door(Tamper* tamper) {
    if (tamper == nullptr) return io_;
    tamper->attach(io_);
    return *tamper;
  }

  const Config config_;
  const Nanos origin_;
  Nanos now_;
  SimIo io_;
  Engine engine_;
};

}  // namespace ncfs
