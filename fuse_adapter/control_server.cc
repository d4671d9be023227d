// What each operation does; http_server.h has the door. Handlers run on the server's thread, the
// engine's answers come on its control thread and only pass on what they were told.
#include "fuse_adapter/control_server.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "fuse_adapter/control_json.h"
#include "fuse_adapter/health_checks.h"
#include "fuse_adapter/http_server.h"
#include "fuse_adapter/metrics_text.h"
#include "fuse_adapter/mount_options.h"
#include "fuse_adapter/mount_table.h"

namespace ncfs {
namespace {

using Caller = HttpRequest::Caller;
using Clock = std::chrono::steady_clock;

HttpReply json_reply(unsigned status, std::string body) {
  HttpReply reply;
  reply.status = status;
  reply.content_type = "application/json";
  reply.body = std::move(body);
  return reply;
}

// The verifications that were asked for, oldest first; finished ones make room. Any thread.
class VerifyJobs {
 public:
  explicit VerifyJobs(const ControlSubject& subject) : subject_(subject) {}

  // Nothing if there are too many.
  std::optional<VerifyProgress> start(std::vector<std::string> paths) {
    auto entry = std::make_shared<Entry>();
    {
      const std::lock_guard lock(shared_->mutex);
      auto& entries = shared_->entries;
      if (entries.size() == ControlServer::kVerificationsMax) {
        const auto oldest = std::ranges::find_if(entries, [](const auto& other) {
          return other->job.state != VerifyProgress::State::running;
        });
        if (oldest == entries.end()) return std::nullopt;
        entries.erase(oldest);
      }
      entry->job.id = ++last_id_;
      entries.push_back(entry);
    }
    auto done = [shared = shared_, entry](const VerifyResult& result) {
      const std::lock_guard lock(shared->mutex);
      entry->job.result = result;
      entry->job.state = result.is_cancelled ? VerifyProgress::State::cancelled : VerifyProgress::State::done;
    };
    const VerifyToken token = subject_.verify(std::move(paths), std::move(done));
    {
      const std::lock_guard lock(shared_->mutex);
      entry->token = token;
    }
    return find(entry->job.id);
  }

  // As far as they are now.
  std::vector<VerifyProgress> all() {
    // Asked first: what the engine does not know any more has got its result before.
    const EngineStatus engine = subject_.engine_status();
    const std::lock_guard lock(shared_->mutex);
    std::vector<VerifyProgress> jobs;
    for (const auto& entry : shared_->entries) {
      const auto mine = std::ranges::find(engine.verifications, entry->token, &VerifyStatus::token);
      const bool is_running = entry->job.state == VerifyProgress::State::running;
      if (is_running && mine != engine.verifications.end()) entry->job.result = mine->result;
      jobs.push_back(entry->job);
    }
    return jobs;
  }

  std::optional<VerifyProgress> find(std::uint64_t id) {
    const std::vector<VerifyProgress> jobs = all();
    const auto job = std::ranges::find(jobs, id, &VerifyProgress::id);
    if (job == jobs.end()) return std::nullopt;
    return *job;
  }

 private:
  struct Entry {
    VerifyProgress job;
    VerifyToken token{};
  };
  struct Shared {
    std::mutex mutex;
    std::deque<std::shared_ptr<Entry>> entries;
  };

  const ControlSubject& subject_;
  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  std::uint64_t last_id_ = 0;
};

}  // namespace

class ControlServer::Impl {
 public:
  struct Call {
    const HttpRequest& request;
    std::uint64_t id;  // the {id} of the path, or 0
    HttpServer::Respond respond;
  };
  struct Operation {
    Route route;
    Caller least;  // and all that may do more
    void (Impl::*serve)(Call call);
  };
  static const std::vector<Operation>& operations();

  Impl(Options options, ControlSubject subject, std::shared_ptr<WarmJobs> warm_jobs)
      : options_(options),
        subject_(std::move(subject)),
        warm_jobs_(std::move(warm_jobs)),
        verify_jobs_(subject_),
        server_({options.administrator, options.client_deadline, options.reply_deadline},
                [this](const HttpRequest& request, HttpServer::Respond respond) {
                  dispatch(request, std::move(respond));
                }) {}

  std::string start() {
    if (std::string error = server_.listen_unix(options_.socket_path); !error.empty()) return error;
    if (!options_.metrics_address.empty()) {
      metrics_error_ = server_.listen_tcp(options_.metrics_address, options_.metrics_port);
    }
    server_.start();
    return {};
  }

  [[nodiscard]] const std::string& metrics_error() const { return metrics_error_; }
  [[nodiscard]] std::uint16_t metrics_port() const { return server_.tcp_port(); }

  void stop() { server_.stop(); }

 private:
  void dispatch(const HttpRequest& request, HttpServer::Respond respond);

  void get_openapi(Call call) { call.respond(json_reply(200, std::string(openapi_document()))); }

  void get_status(Call call) {
    const auto uptime = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - started_);
    const bool names_files = call.request.caller == Caller::administrator;
    call.respond(json_reply(
        200, status_json(subject_, uptime, warm_jobs_->all(), verify_jobs_.all(), names_files)));
  }

  void get_metrics(Call call) {
    HttpReply reply;
    reply.content_type = kMetricsContentType;
    reply.body = metrics_text(subject_, warm_jobs_->all());
    call.respond(std::move(reply));
  }

  [[nodiscard]] std::vector<HealthCheck> checks() const {
    return check_health(subject_, subject_.engine_status(), read_mount_table(), metrics_error_);
  }

  void get_health(Call call) { call.respond(json_reply(200, health_json(checks()))); }

  // For probes that look at the status alone.
  void get_healthz(Call call) {
    HttpReply reply;
    reply.content_type = "text/plain; charset=utf-8";
    for (const HealthCheck& check : checks()) {
      if (check.state == HealthCheck::State::failed) {
        reply.status = 503;
        // The detail may name what is not for everybody on the network.
        reply.body += fmt::format("{} failed\n", check.name);
      }
    }
    if (reply.status == 200) reply.body = "ok\n";
    call.respond(std::move(reply));
  }

  // Nothing if the body is wrong; then that has been answered.
  std::optional<ControlRequest> body_of(const Call& call, const std::vector<Member>& members) {
    ControlRequest request = parse_request(call.request.body, subject_.mountpoint, members);
    if (request.error.empty()) return request;
    call.respond(http_error(400, request.error));
    return std::nullopt;
  }

  void post_warm(Call call) {
    auto request =
        body_of(call, {Member::paths, Member::pin, Member::best_effort, Member::bytes_per_second});
    if (!request) return;
    auto checked = [respond = call.respond](const WarmProgress& job, const std::string& error) {
      if (!error.empty()) return respond(http_error(422, error));
      // Copies have not begun: the engine knows nothing of them yet.
      HttpReply reply = json_reply(202, warm_json(EngineStatus{}, job));
      reply.location = fmt::format("/v1/warm/{}", job.id);
      respond(std::move(reply));
    };
    const auto id = warm_jobs_->start({.paths = std::move(request->paths),
                                       .pin = request->pin,
                                       .best_effort = request->best_effort,
                                       .bytes_per_second = request->bytes_per_second},
                                      std::move(checked));
    if (!id) {
      call.respond(
          http_error(503, fmt::format("{} warm-ups are running already", WarmJobs::kJobsMax)));
    }
  }

  void list_warm(Call call) {
    call.respond(json_reply(200, warm_list_json(subject_.engine_status(), warm_jobs_->all())));
  }

  void get_warm(Call call) {
    const auto progress = warm_jobs_->progress(call.id);
    if (!progress) return call.respond(no_such_job());
    call.respond(json_reply(200, warm_json(subject_.engine_status(), *progress)));
  }

  void cancel_warm(Call call) {
    if (!warm_jobs_->cancel(call.id)) return call.respond(no_such_job());
    get_warm(std::move(call));
  }

  void post_verify(Call call) {
    auto request = body_of(call, {Member::paths_or_all});
    if (!request) return;
    const auto job = verify_jobs_.start(std::move(request->paths));
    if (!job || job->state == VerifyProgress::State::cancelled) {
      return call.respond(http_error(503, "too many verifications run, or the daemon stops"));
    }
    HttpReply reply = json_reply(202, verify_json(*job));
    reply.location = fmt::format("/v1/verify/{}", job->id);
    call.respond(std::move(reply));
  }

  void list_verify(Call call) {
    call.respond(json_reply(200, verify_list_json(verify_jobs_.all())));
  }

  void get_verify(Call call) {
    const auto job = verify_jobs_.find(call.id);
    if (!job) return call.respond(no_such_job());
    call.respond(json_reply(200, verify_json(*job)));
  }

  static HttpReply no_such_job() {
    return http_error(404, "there is no such job, or it was forgotten for newer ones");
  }

  // Whether the engine knows already what is in the cache; if not, that is the answer.
  bool has_recovered(const Call& call) {
    if (!subject_.engine_status().is_recovering) return true;
    call.respond(
        http_error(503, "the cache is still being looked through after the start: try again soon"));
    return false;
  }

  void list_files(Call call) {
    FileQuery query;
    const std::string error =
        parse_file_query(call.request.query, subject_.mountpoint, kFilesMax, query);
    if (!error.empty()) return call.respond(http_error(400, error));
    const std::vector<FileReport> files = subject_.files(query);
    call.respond(
        json_reply(200, files_json(files, files.size() < query.max ? 0 : files.back().id)));
  }

  void post_evict(Call call) {
    auto request = body_of(call, {Member::paths, Member::idle_seconds});
    if (!request || !has_recovered(call)) return;
    subject_.evict(std::move(request->paths), request->idle_seconds * kSecond,
                   [respond = std::move(call.respond)](const ControlResult& result) {
                     respond(json_reply(200, evict_json(result)));
                   });
  }

  void post_unpin(Call call) {
    auto request = body_of(call, {Member::paths});
    if (!request || !has_recovered(call)) return;
    subject_.unpin(std::move(request->paths),
                   [respond = std::move(call.respond)](const ControlResult& result) {
                     respond(json_reply(200, unpin_json(result)));
                   });
  }

  void post_invalidate(Call call) {
    auto request = body_of(call, {Member::paths});
    if (!request || !has_recovered(call)) return;
    subject_.invalidate(std::move(request->paths),
                        [respond = std::move(call.respond)](const InvalidationResult& result) {
                          respond(json_reply(200, invalidate_json(result)));
                        });
  }

  void put_limit(Call call) {
    const auto request = body_of(call, {Member::size});
    if (!request) return;
    const auto size = parse_cache_size(request->size, subject_.block_size_bytes);
    if (const auto* error = std::get_if<OptionError>(&size)) {
      return call.respond(http_error(400, error->message));
    }
    const EngineStatus before = subject_.engine_status();
    const EngineStatus after = subject_.set_limit(std::get<std::uint64_t>(size));
    call.respond(json_reply(200, limit_json(before, after)));
  }

  void get_config(Call call) { call.respond(json_reply(200, config_json(subject_))); }

  void put_log_level(Call call) {
    const auto request = body_of(call, {Member::level});
    if (!request) return;
    const std::string previous = subject_.log_level();
    if (!subject_.set_log_level(request->level)) {
      return call.respond(http_error(400, fmt::format("level {}: must be {}", request->level,
                                                      fmt::join(kLogLevelNames, ", "))));
    }
    call.respond(json_reply(200, log_level_json(request->level, previous)));
  }

  void get_hot_files(Call call) {
    call.respond(json_reply(200, hot_files_json(subject_.hot_files())));
  }

  void put_copy_rate(Call call) {
    const auto request = body_of(call, {Member::mebibytes_per_second});
    if (!request) return;
    const std::uint64_t rate = request->mebibytes_per_second * kMiB;
    const std::uint64_t before = subject_.engine_status().copy_bytes_per_second;
    subject_.set_copy_rate(rate);
    call.respond(json_reply(200, copy_rate_json(rate, before)));
  }

  void put_access_log(Call call) {
    const auto request = body_of(call, {Member::on});
    if (!request) return;
    const bool previous = subject_.is_access_logged();
    subject_.set_access_logged(request->on);
    call.respond(json_reply(200, access_log_json(request->on, previous)));
  }

  const Options options_;
  std::string metrics_error_;
  const ControlSubject subject_;
  const std::shared_ptr<WarmJobs> warm_jobs_;
  VerifyJobs verify_jobs_;
  const Clock::time_point started_ = Clock::now();
  HttpServer server_;
};

const std::vector<ControlServer::Impl::Operation>& ControlServer::Impl::operations() {
  static const std::vector<Operation> kOperations = {
      {{"GET", "/v1/openapi.json"}, Caller::user, &Impl::get_openapi},
      {{"GET", "/v1/status"}, Caller::user, &Impl::get_status},
      {{"GET", "/v1/health"}, Caller::user, &Impl::get_health},
      {{"GET", "/v1/config"}, Caller::user, &Impl::get_config},
      {{"PUT", "/v1/log-level"}, Caller::administrator, &Impl::put_log_level},
      {{"GET", "/metrics"}, Caller::remote, &Impl::get_metrics},
      {{"GET", "/healthz"}, Caller::remote, &Impl::get_healthz},
      {{"POST", "/v1/warm"}, Caller::administrator, &Impl::post_warm},
      {{"GET", "/v1/warm"}, Caller::administrator, &Impl::list_warm},
      {{"GET", "/v1/warm/{id}"}, Caller::administrator, &Impl::get_warm},
      {{"DELETE", "/v1/warm/{id}"}, Caller::administrator, &Impl::cancel_warm},
      {{"POST", "/v1/verify"}, Caller::administrator, &Impl::post_verify},
      {{"GET", "/v1/verify"}, Caller::administrator, &Impl::list_verify},
      {{"GET", "/v1/verify/{id}"}, Caller::administrator, &Impl::get_verify},
      {{"GET", "/v1/files"}, Caller::administrator, &Impl::list_files},
      {{"POST", "/v1/evict"}, Caller::administrator, &Impl::post_evict},
      {{"POST", "/v1/unpin"}, Caller::administrator, &Impl::post_unpin},
      {{"PUT", "/v1/limit"}, Caller::administrator, &Impl::put_limit},
      {{"GET", "/v1/hot-files"}, Caller::administrator, &Impl::get_hot_files},
      {{"PUT", "/v1/copy-rate"}, Caller::administrator, &Impl::put_copy_rate},
      {{"PUT", "/v1/access-log"}, Caller::administrator, &Impl::put_access_log},
      {{"POST", "/v1/invalidate"}, Caller::administrator, &Impl::post_invalidate},
  };
  return kOperations;
}

// Whether `path` is one of `pattern`; then `id` is what stands for {id}.
static bool matches(std::string_view pattern, std::string_view path, std::uint64_t& id) {
  static constexpr std::string_view kId = "{id}";
  id = 0;
  if (!pattern.ends_with(kId)) return pattern == path;
  pattern.remove_suffix(kId.size());
  if (!path.starts_with(pattern) || path.size() == pattern.size()) return false;
  path.remove_prefix(pattern.size());
  const auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), id);
  return error == std::errc{} && end == path.data() + path.size();
}

void ControlServer::Impl::dispatch(const HttpRequest& request, HttpServer::Respond respond) {
  std::string allowed;
  for (const Operation& operation : operations()) {
    std::uint64_t id = 0;
    if (!matches(operation.route.pattern, request.path, id)) continue;
    if (operation.route.method != request.method) {
      allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", operation.route.method);
      continue;
    }
    if (request.caller >= operation.least) {
      return (this->*operation.serve)({request, id, std::move(respond)});
    }
    return respond(http_error(403, operation.least == Caller::administrator
                                       ? "permission denied: only root may do this"
                                       : "permission denied: not over the network"));
  }
  if (allowed.empty()) {
    return respond(http_error(404, fmt::format("there is no {}", request.path)));
  }
  HttpReply reply =
      http_error(405, fmt::format("{} has no {}, but {}", request.path, request.method, allowed));
  reply.allow = allowed;
  respond(std::move(reply));
}

std::vector<ControlServer::Route> ControlServer::routes() {
  std::vector<Route> routes;
  for (const auto& operation : Impl::operations()) routes.push_back(operation.route);
  return routes;
}

ControlServer::ControlServer(Options options, ControlSubject subject,
                             std::shared_ptr<WarmJobs> warm_jobs)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(subject), std::move(warm_jobs))) {}

ControlServer::~ControlServer() {
  stop();
}

std::string ControlServer::start() {
  return impl_->start();
}

std::string ControlServer::metrics_error() const {
  return impl_->metrics_error();
}

std::uint16_t ControlServer::metrics_port() const {
  return impl_->metrics_port();
}

void ControlServer::stop() {
  impl_->stop();
}

}  // namespace ncfs
