#include "fuse_adapter/fake_engine.h"

#include <unistd.h>

#include <cstddef>
#include <map>
#include <utility>

namespace ncfs {

FakeEngine* FakeEngine::current = nullptr;

// Owns the descriptors, as the engine does.
class Runtime::Impl {
 public:
  std::mutex mutex_;
  std::map<HandleId, int> sources_;
};

Runtime::Runtime(const Options&) : impl_(std::make_unique<Impl>()) {}
Runtime::~Runtime() = default;

void Runtime::open(OpenEvent event, std::function<void(const OpenResult&)> done) {
  {
    const std::lock_guard lock(impl_->mutex_);
    impl_->sources_[event.handle] = static_cast<int>(event.source);
  }
  ++FakeEngine::current->handles_open;
  done(FakeEngine::current->on_open(event.path));
}

void Runtime::close(HandleId handle) {
  const std::lock_guard lock(impl_->mutex_);
  const auto found = impl_->sources_.find(handle);
  ::close(found->second);
  impl_->sources_.erase(found);
  --FakeEngine::current->handles_open;
}

void Runtime::read(HandleId handle, ByteRange range, bool skip_cache,
                   std::function<void(const ReadOutcome&)> done) {
  int source = -1;
  {
    const std::lock_guard lock(impl_->mutex_);
    source = impl_->sources_.at(handle);
  }
  FakeEngine::current->on_read(source, range, skip_cache, done);
}

void Runtime::disown(const FileId&, std::function<void(int error)> done) {
  ++FakeEngine::current->disowns;
  done(FakeEngine::current->disown_error);
}

void Runtime::grow(HandleId, std::uint64_t, std::function<void(int error)> done) {
  done(0);
}

void Runtime::rekey(const SourceState&, const SourceState&, std::string) {
  ++FakeEngine::current->rekeys;
}

void Runtime::warm(FileHandle source, const SourceState&, std::string,
                   std::function<void(const WarmResult&)> done, bool, WarmPace) {
  ::close(static_cast<int>(source));
  done({WarmResult::Kind::copied, {}, 0});
}

void Runtime::evict(std::vector<std::string>, Nanos,
                    std::function<void(const ControlResult&)> done) {
  done({});
}

void Runtime::unpin(std::vector<std::string>, std::function<void(const ControlResult&)> done) {
  done({});
}

std::vector<FileReport> Runtime::files(const FileQuery&) {
  return {};
}

EngineStatus Runtime::status() {
  return {};
}

void Runtime::cache_fault(HandleId, int error) {
  FakeEngine::current->cache_error = error;
  ++FakeEngine::current->cache_faults;
}

}  // namespace ncfs
