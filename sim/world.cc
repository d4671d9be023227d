#include "sim/world.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "engine/format.h"
#include "sim/rng.h"

namespace ncfs {
namespace {

// Three blocks; less than one; two and a byte; none; a dozen, which some of the cache sizes below
// cannot hold.
constexpr std::array<std::uint64_t, 5> kFileSizes = {12 * kKiB, 4000, 8 * kKiB + 1, 0, 48 * kKiB};
constexpr Nanos kStepTime = 1'000;
constexpr Nanos kFirstMoment = 60 * kSecond;
// The longest time a plan can skip: longer than every deadline, short enough not to overflow.
constexpr Nanos kTickMax = 400 * kSecond;
// Rounds of completing everything that recovery of the shards can take, with a wide margin.
constexpr std::uint32_t kRecoveryRounds = 1000;

// What failed, or was found in use, is tried again at a tick, at the latest ten seconds later; a
// world at rest lets these pass without a request.
constexpr std::uint32_t kQuietTicks = 12;

// Longer than most plans last.
constexpr std::uint64_t kIdleMax = 100;

// Longer than it takes until nothing is asked of the disk any more and its probes are rare.
constexpr std::uint64_t kOutageSecondsMax = 200;
// Often enough to meet every state of the disk's health, seldom enough to leave it time.
constexpr std::uint64_t kOutageOpenEvery = 5;

constexpr std::array<int, 8> kErrors = {EIO,   ENOSPC, ESTALE,    EACCES,
                                        EROFS, EINTR,  ETIMEDOUT, EDQUOT};

}  // namespace

World::World(const Options& options)
    : options_(options), nfs_(SimNfs::Options{}), readers_(disk_, nfs_, trace_), now_(0) {
  for (const std::uint64_t size : kFileSizes) {
    // The last one is a model. Sidecars hold names, and saved plans damage bytes in sidecars: the
    // names stay as long as they are.
    const bool is_model = paths_.size() + 1 == kFileSizes.size();
    paths_.push_back(is_model ? ".gguf" : "file" + std::to_string(paths_.size()));
    nfs_.add(paths_.back(), size, now_);
  }
  for (std::uint32_t shard = 0; shard < kShardCount; ++shard) {
    disk_.make_directory(shard_name(shard));
  }
  now_ = kFirstMoment;
}

void World::fail(Violation violation) {
  if (!violation_) violation_ = std::move(violation);
}

const std::string& World::path(std::uint64_t index) const {
  return paths_[index % paths_.size()];
}

void World::apply(const Step& step) {
  if (violation_) return;
  now_ += kStepTime;
  if (life_) life_->set_now(now_);
  switch (step.op) {
    case StepOp::open:
    case StepOp::close:
    case StepOp::read:
    case StepOp::advance:
    case StepOp::warm:
    case StepOp::deliver:
    case StepOp::verify:
      apply_reader_step(step);
      break;
    case StepOp::limit:
    case StepOp::pin:
    case StepOp::unpin:
    case StepOp::evict:
      apply_control_step(step);
      break;
    case StepOp::own_write:
      if (life_) readers_.own_write(path(step.a), step.b, step.c, now_);
      break;
    case StepOp::own_chmod:
      if (life_) readers_.own_change(path(step.a), {}, step.b, now_);
      break;
    case StepOp::own_rename:
      if (life_) readers_.own_change(path(step.a), path(step.b), step.c, now_);
      break;
    case StepOp::own_append:
      if (life_) readers_.own_append(path(step.a), step.b, kFileSizes.back(), now_);
      break;
    case StepOp::tick:
      tick(step.a, static_cast<std::uint32_t>(step.b));
      break;
    case StepOp::wait:
      now_ += std::min(step.a, kTickMax);
      if (life_) life_->set_now(now_);
      break;
    case StepOp::complete:
    case StepOp::short_count:
    case StepOp::fail:
    case StepOp::hang:
    case StepOp::release:
    case StepOp::run:
    case StepOp::misdirect:
      apply_request_step(step);
      break;
    case StepOp::kill:
    case StepOp::power:
    case StepOp::stop:
    case StepOp::remount:
    case StepOp::release_holds:
      apply_crash_step(step);
      break;
    case StepOp::source_write:
    case StepOp::source_restore:
    case StepOp::source_mode:
    case StepOp::source_truncate:
    case StepOp::source_replace:
    case StepOp::source_delete:
      apply_source_step(step);
      break;
    default:
      apply_weather_step(step);
      break;
  }
  observe();
}

void World::observe() {
  if (violation_) return;
  trace_.add(now_);
  readers_.check_holds();
  if (life_ && life_->io().violation()) fail(*life_->io().violation());
  if (readers_.violation()) fail(*readers_.violation());
  if (violation_) return;
  if (life_) life_->engine().check_invariants();
  if (auto violation = oracle_.check(*this)) fail(std::move(*violation));
}

void World::apply_reader_step(const Step& step) {
  if (!life_) {
    const bool begins_a_life =
        step.op == StepOp::open || step.op == StepOp::warm || step.op == StepOp::verify;
    if (!begins_a_life) return;
    start();
    finish_recovery();
  }
  switch (step.op) {
    case StepOp::open:
      readers_.open(path(step.a), now_, step.b % 2 != 0);
      return;
    case StepOp::warm:
      readers_.warm(path(step.a), now_);
      return;
    case StepOp::verify:
      readers_.verify(step.a % (paths_.size() + 1) == 0 ? "" : path(step.a - 1));
      return;
    case StepOp::close:
      readers_.close(step.a);
      return;
    case StepOp::read:
      readers_.begin_read(step.a, step.b, step.c);
      return;
    case StepOp::deliver:
      readers_.deliver();
      return;
    default:
      readers_.advance(step.a);
      return;
  }
}

void World::apply_control_step(const Step& step) {
  if (!life_) return;
  switch (step.op) {
    case StepOp::limit:
      readers_.limit(Knobs::cache_size(step.a));
      return;
    case StepOp::pin:
      readers_.pin(path(step.a), now_);
      return;
    case StepOp::unpin:
      readers_.unpin(path(step.a));
      return;
    default: {
      const bool is_all = step.a % (paths_.size() + 1) == paths_.size();
      readers_.evict(is_all ? "" : path(step.a), std::min(step.b, kIdleMax) * kSecond);
      return;
    }
  }
}

std::optional<std::size_t> World::nth_request(std::uint64_t k, bool is_stuck) const {
  std::vector<std::size_t> eligible;
  const std::vector<SimIo::Pending>& pending = life_->io().pending();
  for (std::size_t index = 0; index < pending.size(); ++index) {
    const bool matches = is_stuck ? pending[index].is_hung : !life_->io().is_stuck(pending[index]);
    if (matches) eligible.push_back(index);
  }
  if (eligible.empty()) return std::nullopt;
  return eligible[k % eligible.size()];
}

void World::complete_nth(std::uint64_t k, const Answer& answer) {
  if (const auto index = nth_request(k, false)) life_->complete(*index, answer);
}

void World::complete(std::size_t index, const Answer& answer) {
  if (violation_ || !life_) return;
  now_ += kStepTime;
  life_->set_now(now_);
  life_->complete(index, answer);
  observe();
}

void World::advance_readers() {
  if (violation_ || !life_) return;
  readers_.deliver_all();
  readers_.advance_all();
  readers_.deliver_all();
  observe();
}

void World::apply_request_step(const Step& step) {
  if (!life_) return;
  switch (step.op) {
    case StepOp::complete:
      return complete_nth(step.a, {.is_early = step.b % 2 == 1});
    case StepOp::short_count:
      return complete_nth(step.a, {.kind = Answer::Kind::short_count, .length = step.b});
    case StepOp::fail:
      return complete_nth(step.a, {.kind = Answer::Kind::error,
                                   .error = kErrors[step.b % kErrors.size()],
                                   .is_half_done = step.c % 2 == 1});
    case StepOp::misdirect:
      return misdirect(step.a);
    case StepOp::hang:
      if (const auto index = nth_request(step.a, false)) life_->io().set_hung(*index, true);
      return;
    case StepOp::release:
      life_->io().land_late_writes();
      if (const auto index = nth_request(step.a, true)) life_->io().set_hung(*index, false);
      return;
    default:
      for (std::uint64_t round = 0; round <= step.a % 8; ++round) {
        readers_.deliver_all();
        complete_all();
        readers_.advance_all();
      }
      return;
  }
}

void World::misdirect(std::uint64_t k) {
  std::vector<std::size_t> eligible;
  const std::vector<SimIo::Pending>& pending = life_->io().pending();
  for (std::size_t index = 0; index < pending.size(); ++index) {
    const Op op = pending[index].request.op;
    const bool is_checked = op == Op::cache_verify || op == Op::cache_read;
    if (is_checked && !life_->io().is_stuck(pending[index])) eligible.push_back(index);
  }
  if (eligible.empty()) return;
  life_->complete(eligible[k % eligible.size()], {.is_misdirected = true});
}

// Everything that is in flight now, oldest first; what is submitted meanwhile has to wait.
void World::complete_all() {
  std::vector<Ticket> tickets;
  for (const SimIo::Pending& pending : life_->io().pending()) {
    tickets.push_back(pending.request.ticket);
  }
  for (const Ticket ticket : tickets) {
    const std::vector<SimIo::Pending>& pending = life_->io().pending();
    const auto found =
        std::find_if(pending.begin(), pending.end(),
                     [ticket](const SimIo::Pending& one) { return one.request.ticket == ticket; });
    if (found == pending.end() || life_->io().is_stuck(*found)) continue;
    life_->complete(static_cast<std::size_t>(found - pending.begin()), {});
  }
}

void World::tick(Nanos duration, std::uint32_t effects) {
  now_ += std::min(duration, kTickMax);
  if (!life_) return;
  life_->set_now(now_);
  readers_.deliver_all();
  life_->expire(effects);
  life_->handle(TickEvent{});
  readers_.check_growths();
}

void World::start() {
  if (lives_ == 0) {
    nfs_.set_options(knobs_.nfs);
    disk_.set_options(knobs_.disk);
  }
  if (options_.retry_max) knobs_.engine.retry_max = *options_.retry_max;
  knobs_.engine.run_id = mix64(++lives_);  // as the daemon does: a random number
  life_ =
      std::make_unique<Life>(knobs_.engine, now_, disk_, nfs_, trace_, readers_, options_.tamper);
  life_->io().weather() = weather_;
  readers_.be_born(*life_, knobs_.mailbox_max);
  oracle_.begin_life(disk_, knobs_.engine);
  // Objects without checksums go, with their pins.
  if (knobs_.engine.checksum == Checksum::read) readers_.forget_pins();
  life_->start();
}

void World::finish_recovery() {
  for (std::uint32_t round = 0; round < kRecoveryRounds; ++round) {
    if (!life_->engine().status().is_recovering) return;
    complete_all();
  }
}

void World::crash(Survivors& survivors, bool is_power_loss, bool keeps_holds) {
  if (!life_) return;
  if (auto violation = Oracle::check_crash_cost(*this)) fail(std::move(*violation));
  life_->io().crash(survivors);
  readers_.die(keeps_holds && !is_power_loss);
  if (is_power_loss) {
    disk_.lose_power(survivors);
  } else {
    disk_.kill();
  }
  nfs_.close_all();
  life_.reset();
}

void World::apply_crash_step(const Step& step) {
  Survivors survivors(step.a);
  if (step.op == StepOp::power && oracle_.has_found_loose_names()) readers_.forget_pins();
  switch (step.op) {
    case StepOp::kill:
      crash(survivors, false, step.b % 2 == 1);
      crash_combinations_ = survivors.combinations();
      return;
    case StepOp::power:
      if (!life_) {
        // Whatever the dead process left in the page cache is at stake as well.
        readers_.release_holds();
        disk_.lose_power(survivors);
      }
      crash(survivors, true, false);
      crash_combinations_ = survivors.combinations();
      return;
    case StepOp::stop:
      if (life_) readers_.stop();
      return;
    case StepOp::remount: {
      Survivors everything_lost(0);
      crash(everything_lost, false, false);
      start();
      if (step.a % 2 == 0) finish_recovery();
      return;
    }
    default:
      readers_.release_holds();
      return;
  }
}

void World::apply_source_step(const Step& step) {
  const std::string& name = path(step.a);
  // Nothing grows beyond the largest file: more only makes runs longer.
  const std::uint64_t size_max = kFileSizes.back();
  if (!nfs_.exists(name)) {
    nfs_.add(name, step.b % (size_max + 1), now_);
    return;
  }
  const std::uint64_t size = nfs_.history(nfs_.inode_at(name)).back().version.size;
  const std::uint64_t offset = step.b % (size + 1);
  const ByteRange range = {offset, std::min(1 + step.c, size_max - std::min(offset, size_max))};
  switch (step.op) {
    case StepOp::source_write:
      nfs_.write(name, range, now_);
      return;
    case StepOp::source_restore:
      nfs_.write_and_restore_mtime(name, {offset, std::min(range.length, size - offset)}, now_);
      return;
    case StepOp::source_mode:
      nfs_.change_mode(name, now_);
      return;
    case StepOp::source_truncate:
      nfs_.truncate(name, step.b % (size_max + 1), now_);
      return;
    case StepOp::source_replace:
      nfs_.replace(name, step.b % (size_max + 1), step.c % 2 == 1, now_);
      return;
    default:
      nfs_.remove(name, step.b % 2 == 1);
      return;
  }
}

void World::apply_weather_step(const Step& step) {
  switch (step.op) {
    case StepOp::disk_full:
      disk_.limit_capacity(disk_.allocated_bytes() + step.a % (64 * kKiB));
      break;
    case StepOp::disk_error:
      weather_.disk_error = kErrors[step.a % kErrors.size()];
      break;
    case StepOp::disk_hang:
      weather_.disk_hangs = true;
      break;
    case StepOp::disk_heal:
      disk_.limit_capacity(std::numeric_limits<std::uint64_t>::max());
      disk_.set_lying(false);
      weather_.disk_error = 0;
      weather_.disk_hangs = false;
      weather_.disk_is_readonly = false;
      break;
    case StepOp::disk_readonly:
      weather_.disk_is_readonly = true;
      break;
    case StepOp::disk_lies:
      disk_.set_lying(true);
      break;
    case StepOp::disk_stick:
      stick_name(step.a);
      break;
    case StepOp::nfs_reboot:
      nfs_.reboot();
      break;
    case StepOp::nfs_error:
      weather_.nfs_error = kErrors[step.a % kErrors.size()];
      break;
    case StepOp::nfs_hang:
      weather_.nfs_hangs = true;
      break;
    case StepOp::nfs_heal:
      weather_.nfs_error = 0;
      weather_.nfs_hangs = false;
      break;
    case StepOp::outage:
      suffer_outage(step.a, step.b % kOutageSecondsMax);
      break;
    case StepOp::rot:
      if (!life_) flip_bit_in_sidecar(step.a, step.b);
      readers_.forget_pins();
      break;
    case StepOp::rot_data:
      rot_data(step.a, step.b);
      break;
    default:
      knobs_.set(step.a, step.b);
      break;
  }
  if (life_) life_->io().weather() = weather_;
}

void World::suffer_outage(std::uint64_t kind, std::uint64_t seconds) {
  if (!life_) return;
  const Weather before = weather_;
  weather_.disk_error = kind % 4 == 0 ? EIO : before.disk_error;
  weather_.disk_hangs = kind % 4 == 1 || before.disk_hangs;
  weather_.nfs_error = kind % 4 == 2 ? EIO : before.nfs_error;
  weather_.nfs_hangs = kind % 4 == 3 || before.nfs_hangs;
  life_->io().weather() = weather_;
  for (std::uint64_t second = 0; second < seconds && !violation_; ++second) {
    if (second % kOutageOpenEvery == 0 &&
        readers_.open(path(second / kOutageOpenEvery), now_, false)) {
      readers_.begin_read(readers_.files().size() - 1, 0, 0);
    }
    complete_all();
    readers_.advance_all();
    tick(kSecond, 0);
    observe();
    if (second % kOutageOpenEvery == kOutageOpenEvery - 1) readers_.close(0);
  }
  weather_ = before;
}

void World::rot_data(std::uint64_t index, std::uint64_t bit) {
  std::vector<InodeId> files;
  for (const auto& [name, inode] : disk_.names_cached()) {
    const bool is_data =
        name.ends_with(suffix(NameKind::data)) || name.ends_with(suffix(NameKind::partial));
    if (is_data) files.push_back(inode);
  }
  if (!files.empty()) disk_.rot_bit(files[index % files.size()], bit);
}

// Sidecars carry a checksum of themselves: rot in one has to be noticed.
void World::flip_bit_in_sidecar(std::uint64_t index, std::uint64_t bit) {
  std::vector<InodeId> sidecars;
  for (const auto& [name, inode] : disk_.names_cached()) {
    if (name.ends_with(suffix(NameKind::sidecar))) sidecars.push_back(inode);
  }
  if (!sidecars.empty()) disk_.flip_bit(sidecars[index % sidecars.size()], bit);
}

void World::stick_name(std::uint64_t index) {
  const SimDisk::Names names = disk_.names_cached();
  if (names.empty()) return;
  const auto name = std::next(names.begin(), static_cast<std::ptrdiff_t>(index % names.size()));
  disk_.stick(name->second);
}

void World::heal() {
  apply({StepOp::disk_heal});
  disk_.unstick_all();
  apply({StepOp::nfs_heal});
  apply({StepOp::release_holds});
  disk_.heal_rot();
  const bool is_tired =
      !life_ || readers_.is_stopping() || life_->engine().status().debris_bytes > 0;
  if (is_tired) apply({StepOp::remount});
  for (std::size_t index = 0; index < life_->io().pending().size(); ++index) {
    life_->io().set_hung(index, false);
  }
  life_->io().land_late_writes();
}

bool World::is_settled() const {
  const EngineStatus status = life_->engine().status();
  const bool is_all_answered =
      std::all_of(readers_.files().begin(), readers_.files().end(),
                  [](const auto& file) { return file.second.is_answered; });
  return life_->io().pending().empty() && readers_.reads().empty() && is_all_answered &&
         !readers_.has_mail() && readers_.warms_pending() == 0 &&
         readers_.verifies_pending() == 0 && status.objects_verifying == 0 &&
         readers_.controls_pending() == 0 && readers_.own_writes_pending() == 0 &&
         !status.is_recovering && status.copies_queued == 0 && status.copies.empty() &&
         status.cache_health.state == HealthState::normal;
}

bool World::settle(std::uint32_t rounds_max) {
  std::uint32_t quiet_ticks = 0;
  for (std::uint32_t round = 0; round < rounds_max && !violation_; ++round) {
    apply({StepOp::run});
    if (!life_->io().pending().empty()) continue;
    quiet_ticks = is_settled() ? quiet_ticks + 1 : 0;
    if (quiet_ticks == kQuietTicks) return true;
    apply({StepOp::tick, kSecond});
  }
  return false;
}

std::string World::describe() const {
  std::string text = "t=" + std::to_string((now_ - kFirstMoment) / 1000) + "us ";
  if (!life_) return text + "(no process)";
  const EngineStatus status = life_->engine().status();
  text +=
      "used=" + std::to_string(status.used_bytes) + '+' + std::to_string(status.reserved_bytes) +
      " disk=" + std::to_string(disk_.allocated_bytes()) + ' ' +
      to_string(status.cache_health.state) + " objects=" + std::to_string(status.objects_cached) +
      '+' + std::to_string(status.objects_partial) +
      " handles=" + std::to_string(readers_.files().size()) +
      " reads=" + std::to_string(readers_.reads().size()) + " pending:";
  for (const SimIo::Pending& pending : life_->io().pending()) {
    text += std::string(" ") + to_string(pending.request.op);
    if (life_->io().is_stuck(pending)) text += '!';
  }
  return text;
}

PlanResult run_plan(std::span<const Step> plan, const World::Options& options) {
  World world(options);
  PlanResult result;
  for (const Step& step : plan) {
    world.apply(step);
    ++result.steps_done;
    if (world.violation()) break;
  }
  result.violation = world.violation();
  result.trace_digest = world.trace_digest();
  return result;
}

}  // namespace ncfs
