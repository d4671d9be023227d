// The kernel reads files it was handed (passthrough) without the daemon. So what can be counted is
// named: opens, and bytes that the daemon answered.
#include "fuse_adapter/metrics_text.h"

#include <fmt/format.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

namespace ncfs {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Label = ClientMetric::Label;

double seconds(Nanos duration) {
  return static_cast<double>(duration) / kSecond;
}

// Collects families; every metric has the mount point as a label.
class Exposition {
 public:
  explicit Exposition(const std::string& mountpoint) : mountpoint_{"mountpoint", mountpoint} {}

  using Value = std::pair<Label, std::uint64_t>;

  template <typename Number>
  void counter(const char* name, const char* help, Number value) {
    begin(name, help, MetricType::Counter);
    add({}).counter.value = static_cast<double>(value);
  }
  void counter(const char* name, const char* help, const std::vector<Value>& values) {
    begin(name, help, MetricType::Counter);
    for (const auto& [label, value] : values) {
      add({label}).counter.value = static_cast<double>(value);
    }
  }
  template <typename Number>
  void gauge(const char* name, const char* help, Number value) {
    begin(name, help, MetricType::Gauge);
    add({}).gauge.value = static_cast<double>(value);
  }
  void gauge(const char* name, const char* help, const std::vector<Value>& values) {
    begin(name, help, MetricType::Gauge);
    for (const auto& [label, value] : values) {
      add({label}).gauge.value = static_cast<double>(value);
    }
  }
  // In seconds; `values` are Nanos.
  void gauge_of_times(const char* name, const char* help, const std::vector<Value>& values) {
    begin(name, help, MetricType::Gauge);
    for (const auto& [label, value] : values) add({label}).gauge.value = seconds(value);
  }
  void histogram(const char* name, const char* help,
                 const std::vector<std::pair<std::vector<Label>, const Histogram*>>& values) {
    begin(name, help, MetricType::Histogram);
    for (const auto& [labels, source] : values) {
      auto& target = add(labels).histogram;
      std::uint64_t count = 0;
      for (std::size_t index = 0; index < Histogram::kBounds.size(); ++index) {
        count += source->count(index);
        target.bucket.push_back({count, seconds(Histogram::kBounds[index])});
      }
      target.sample_count = count + source->count(Histogram::kBounds.size());
      target.sample_sum = seconds(source->sum());
    }
  }

  [[nodiscard]] std::string text() const {
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, families_);
    return out.str();
  }

 private:
  void begin(const char* name, const char* help, MetricType type) {
    families_.push_back({name, help, type, {}});
  }
  ClientMetric& add(std::vector<Label> labels) {
    ClientMetric& metric = families_.back().metric.emplace_back();
    metric.label = {mountpoint_};
    metric.label.insert(metric.label.end(), labels.begin(), labels.end());
    return metric;
  }

  const Label mountpoint_;
  std::vector<MetricFamily> families_;
};

void add_process(Exposition& out, const ControlSubject& subject) {
  out.gauge("nfs_cachefs_build_info", "Constant 1; the label is the version.",
            {{{"version", subject.version}, 1}});
  std::ifstream file("/proc/self/statm");
  std::uint64_t total_pages = 0;
  std::uint64_t resident_pages = 0;
  file >> total_pages >> resident_pages;
  out.gauge("process_resident_memory_bytes", "Memory of the daemon that is in RAM.",
            resident_pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)));
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto microseconds = [](const timeval& time) {
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000 +
           static_cast<std::uint64_t>(time.tv_usec);
  };
  out.counter(
      "process_cpu_seconds_total", "Processor time the daemon has used.",
      static_cast<double>(microseconds(usage.ru_utime) + microseconds(usage.ru_stime)) / 1e6);
}

void add_cache(Exposition& out, const EngineStatus& engine) {
  out.gauge("nfs_cachefs_cache_limit_bytes", "The hard limit in force.", engine.limit_bytes);
  out.gauge("nfs_cachefs_cache_used_bytes", "What cached files occupy, incomplete ones included.",
            engine.used_bytes);
  out.gauge("nfs_cachefs_cache_reserved_bytes", "Promised to files being copied.",
            engine.reserved_bytes);
  out.gauge("nfs_cachefs_cache_pinned_bytes", "What pinned files occupy, or will.",
            engine.pinned_bytes);
  out.gauge("nfs_cachefs_cache_pinned_files", "Files that are never evicted.", engine.pinned_files);
  out.gauge("nfs_cachefs_cache_files", "Files in the cache; of partial ones some blocks.",
            {{{"state", "complete"}, engine.objects_cached},
             {{"state", "partial"}, engine.objects_partial}});
  out.gauge("nfs_cachefs_cache_disk_free_bytes",
            "Free space of the cache's file system; 0 until it was asked.", engine.disk_free_bytes);
  out.gauge("nfs_cachefs_cache_disk_min_free_bytes", "What the cache leaves free of it.",
            engine.min_free_bytes);
  out.counter("nfs_cachefs_evictions_total", "Files dropped to make room or for age.",
              engine.evictions);
  out.counter("nfs_cachefs_evicted_bytes_total", "What they occupied.", engine.evicted_bytes);
  out.counter("nfs_cachefs_cache_written_bytes_total", "Written to the cache disk.",
              engine.cache_bytes_written);
}

void add_prefetch(Exposition& out, const EngineStatus& engine) {
  const auto by_reason = [&engine](std::uint64_t AheadCounts::*bytes) {
    std::vector<Exposition::Value> values;
    for (std::size_t reason = 0; reason < kAheadReasonCount; ++reason) {
      const std::string name(to_string(static_cast<AheadReason>(reason)));
      values.push_back({{"reason", name}, engine.ahead.at(reason).*bytes});
    }
    return values;
  };
  out.counter("nfs_cachefs_prefetched_bytes_total",
              "Read from the backend before anybody asked, by what made it likely.",
              by_reason(&AheadCounts::fetched));
  out.counter("nfs_cachefs_prefetched_used_bytes_total",
              "Of these, blocks read while the file they were fetched for was open.",
              by_reason(&AheadCounts::used));
  out.counter("nfs_cachefs_prefetched_wasted_bytes_total",
              "Of these, blocks dropped before, or not read until the file was closed.",
              by_reason(&AheadCounts::wasted));
}

// What is not known, or without limit, is left out.
void add_yields(Exposition& out, const EngineStatus& engine) {
  std::vector<Exposition::Value> windows;
  std::vector<Exposition::Value> alone;
  std::vector<Exposition::Value> beside;
  for (const YieldStatus& yield : engine.yields) {
    const Label label{"filesystem", fmt::format("{}", yield.filesystem)};
    if (yield.window_bytes != YieldWindow::kUnlimited) {
      windows.push_back({label, yield.window_bytes});
    }
    if (yield.latency_alone > 0) alone.push_back({label, yield.latency_alone});
    if (yield.latency_beside > 0) beside.push_back({label, yield.latency_beside});
  }
  out.gauge(
      "nfs_cachefs_copy_window_bytes",
      "What copies may have in flight beside readers of the same file system of the backend; 0 "
      "while they pause. None without such readers.",
      windows);
  out.gauge_of_times("nfs_cachefs_reader_latency_alone_seconds",
                     "Mean time of readers' reads of the backend while no copy read it.", alone);
  out.gauge_of_times("nfs_cachefs_reader_latency_beside_copies_seconds",
                     "The same while copies read it, too.", beside);
}

void add_reads(Exposition& out, const ControlSubject& subject, const EngineStatus& engine) {
  const AdapterStats& stats = *subject.adapter_stats;
  out.gauge("nfs_cachefs_passthrough_active",
            "1 if the kernel reads complete files by itself. These reads are in no counter.",
            subject.passthrough_active ? 1 : 0);
  out.counter("nfs_cachefs_opens_total",
              "Opens of regular files. A hit found the whole file in the cache.",
              {{{"result", "hit"}, stats.opens_hit.value()},
               {{"result", "miss"}, stats.opens_miss.value()}});
  out.counter("nfs_cachefs_opens_passed_through_total",
              "Opens after which the kernel reads the cache file, or the backend, by itself.",
              {{{"source", "cache"}, stats.opens_passthrough.value()},
               {{"source", "backend"}, stats.opens_from_source.value()}});
  out.counter(
      "nfs_cachefs_opened_passed_through_bytes_total",
      "Sizes of cached files handed to the kernel, once for every open; how much of them it "
      "read is not known.",
      stats.passthrough_bytes.value());
  out.counter("nfs_cachefs_passthrough_refused_total", "Files the kernel would not pass through.",
              stats.passthrough_refused.value());
  out.counter("nfs_cachefs_stale_answers_total",
              "Opens answered with ESTALE so that the kernel looks up again.",
              stats.stale_answers.value());
  out.gauge("nfs_cachefs_open_handles", "Open files of applications.", engine.handles_open);
  out.counter("nfs_cachefs_reads_total", "Read requests that reached the daemon.",
              stats.reads.value());
  out.counter(
      "nfs_cachefs_read_bytes_total",
      "Answered by the daemon: from the cache, or from the backend or what was just fetched "
      "from it.",
      {{{"source", "cache"}, stats.cache_bytes.value()},
       {{"source", "backend"}, stats.source_bytes.value()}});
  out.counter("nfs_cachefs_backend_read_bytes_total",
              "Read from the backend by the daemon, for waiting readers or for copies.",
              {{{"purpose", "reader"}, engine.source_bytes_demand},
               {{"purpose", "copy"},
                engine.source_bytes - std::min(engine.source_bytes, engine.source_bytes_demand)}});
  add_prefetch(out, engine);
  add_yields(out, engine);
  out.histogram(
      "nfs_cachefs_open_duration_seconds",
      "Opens that went well, from the kernel's request to the answer.",
      {{{{"result", "hit"}}, &stats.open_hit_time}, {{{"result", "miss"}}, &stats.open_miss_time}});
  out.histogram("nfs_cachefs_read_duration_seconds",
                "Reads answered by the daemon, from the kernel's request to the answer; of the "
                "backend if any of the bytes are.",
                {{{{"source", "cache"}}, &stats.read_cache_time},
                 {{{"source", "backend"}}, &stats.read_source_time}});
}

void add_writes(Exposition& out, const AdapterStats& stats) {
  out.counter("nfs_cachefs_opens_for_writing_total", "Opens of regular files for writing.",
              stats.opens_for_writing.value());
  out.counter("nfs_cachefs_writes_total", "Write requests that reached the daemon.",
              stats.writes.value());
  out.counter("nfs_cachefs_written_bytes_total", "Written to the backend by the daemon.",
              stats.written_bytes.value());
  out.counter("nfs_cachefs_mirror_failures_total",
              "Cache files that could not follow a change made through the mount: who opened them "
              "before reads what was.",
              stats.mirror_failures.value());
}

void add_metadata(Exposition& out, const ControlSubject& subject) {
  const MetadataStatus status = subject.metadata_status();
  const MetadataStats& stats = status.stats;
  out.counter("nfs_cachefs_metadata_hits_total",
              "Questions of the kernel answered from memory. negative: that there is no such name.",
              {{{"kind", "name"}, stats.name_hits},
               {{"kind", "negative"}, stats.negative_hits},
               {{"kind", "attributes"}, stats.attribute_hits},
               {{"kind", "link"}, stats.link_hits},
               {{"kind", "listing"}, stats.listing_hits}});
  out.counter("nfs_cachefs_metadata_misses_total", "Questions of the kernel the backend was asked.",
              {{{"kind", "name"}, stats.name_misses},
               {{"kind", "attributes"}, stats.attribute_misses},
               {{"kind", "link"}, stats.link_misses},
               {{"kind", "listing"}, stats.listing_misses}});
  out.counter(
      "nfs_cachefs_revalidations_total",
      "Opens that asked the backend whether what the kernel has is right. estale: the kernel "
      "was made to look up again; unproven: too young to be sure.",
      {{{"result", "same"}, stats.opens_same},
       {{"result", "unproven"}, stats.opens_unproven},
       {{"result", "changed"}, stats.opens_changed},
       {{"result", "estale"}, stats.opens_estale}});
  out.counter("nfs_cachefs_opens_unasked_total", "Opens that did not ask the backend (nocto).",
              stats.opens_unasked);
  out.counter("nfs_cachefs_metadata_changes_seen_total",
              "Answers of the backend that showed a change by somebody else.", stats.changes_seen);
  out.counter("nfs_cachefs_metadata_stale_avoided_total",
              "Answers of the backend not kept, as something changed while they came.",
              stats.stale_avoided);
  out.counter("nfs_cachefs_unanswered_hits_total",
              "Told from memory while the backend did not answer (stale_if_error_s).",
              stats.unasked_hits);
  out.gauge("nfs_cachefs_unanswered_age_seconds_max",
            "How old the oldest of them was, in whole seconds, since the start.",
            stats.unasked_age_max / kSecond);
  out.counter("nfs_cachefs_metadata_evicted_total", "Entries that made room for others.",
              stats.evicted);
  out.counter("nfs_cachefs_backend_looks_total",
              "Opens, stats, listings and link targets asked of the backend.",
              subject.adapter_stats->source_looks.value());
  out.gauge("nfs_cachefs_metadata_bytes", "Memory for what is known of the backend's tree.",
            {{{"kind", "names_and_attributes"}, status.facts_bytes},
             {{"kind", "listings"}, status.listings_bytes}});
  out.gauge("nfs_cachefs_metadata_limit_bytes", "What that memory may grow to.",
            {{{"kind", "names_and_attributes"}, status.facts_bytes_max},
             {{"kind", "listings"}, status.listings_bytes_max}});
}

void add_copies(Exposition& out, const ControlSubject& subject, const EngineStatus& engine,
                const std::vector<WarmProgress>& warm_jobs) {
  out.gauge("nfs_cachefs_copies_running", "Files being copied into the cache.",
            engine.copies.size());
  out.gauge("nfs_cachefs_copies_queued", "Files waiting to be copied.", engine.copies_queued);
  out.counter("nfs_cachefs_copies_total", "Copies that ended; failed ones are tried again.",
              {{{"result", "finished"}, engine.copies_finished},
               {{"result", "failed"}, engine.copies_failed}});
  out.histogram("nfs_cachefs_copy_duration_seconds",
                "Finished copies of whole files, since they were started or resumed.",
                {{{}, subject.copy_time}});
  out.gauge("nfs_cachefs_warm_jobs_running", "Warm-ups that have not ended.",
            std::ranges::count_if(warm_jobs, [](const auto& job) { return !job.is_finished(); }));
}

void add_health(Exposition& out, const ControlSubject& subject, const EngineStatus& engine) {
  const AdapterStats& stats = *subject.adapter_stats;
  const auto is = [&engine](HealthState state) {
    return std::uint64_t{engine.cache_health.state == state ? 1U : 0U};
  };
  out.gauge("nfs_cachefs_recovering", "1 while the cache is looked through after the start.",
            engine.is_recovering ? 1 : 0);
  out.gauge("nfs_cachefs_cache_disk_state", "1 for the state the cache disk is in, else 0.",
            {{{"state", "normal"}, is(HealthState::normal)},
             {{"state", "unstable"}, is(HealthState::unstable)},
             {{"state", "down"}, is(HealthState::down)}});
  out.counter("nfs_cachefs_cache_disk_state_changes_total", "Changes of that state.",
              engine.cache_health.changes);
  const std::vector<BackendStatus> backends = subject.backends();
  const auto in = [&backends](BackendState state) {
    return static_cast<std::uint64_t>(std::ranges::count(backends, state, &BackendStatus::state));
  };
  std::uint64_t changes = 0;
  for (const BackendStatus& backend : backends) changes += backend.changes;
  out.gauge("nfs_cachefs_backend_state",
            "File systems of the backend in the state: its root's and those mounted beneath it "
            "that gave trouble.",
            {{{"state", "up"}, in(BackendState::up)},
             {{"state", "suspect"}, in(BackendState::suspect)},
             {{"state", "down"}, in(BackendState::down)}});
  out.counter("nfs_cachefs_backend_state_changes_total", "Changes of that state.", changes);
  out.gauge("nfs_cachefs_copying_paused",
            "1 while copies pause as the backend fails, or as the cache disk is full.",
            {{{"cause", "backend"}, engine.is_source_resting ? 1U : 0U},
             {{"cause", "full_cache_disk"}, engine.is_disk_full ? 1U : 0U}});
  out.counter("nfs_cachefs_errors_total",
              "By what failed. cache_read: answered from the backend all the same; rejected: too "
              "many requests were waiting.",
              {{{"kind", "backend"}, engine.source_errors},
               {{"kind", "cache"}, engine.cache_errors},
               {{"kind", "cache_read"}, stats.cache_faults.value()},
               {{"kind", "timeout"}, stats.timeouts.value()},
               {{"kind", "rejected"}, stats.rejected.value()},
               {{"kind", "other"}, stats.errors.value()}});
  out.counter("nfs_cachefs_backend_retries_total",
              "Questions that the backend was asked again after an error that may pass.",
              stats.retries.value());
  out.counter("nfs_cachefs_verified_bytes_total", "Cached bytes that matched their checksums.",
              engine.verified_bytes);
  out.counter("nfs_cachefs_mismatches_total",
              "Cached blocks that did not match their checksums, or could not be read.",
              engine.damaged_blocks);
  out.counter("nfs_cachefs_damaged_files_total", "Files removed from the cache for it.",
              engine.damaged_objects);
  out.gauge("nfs_cachefs_buffer_bytes", "Memory for data in flight.",
            {{{"state", "used"}, engine.buffers_in_use * subject.block_size_bytes},
             {{"state", "free"},
              subject.buffer_bytes - std::min(subject.buffer_bytes,
                                              engine.buffers_in_use * subject.block_size_bytes)}});
}

}  // namespace

std::string metrics_text(const ControlSubject& subject,
                         const std::vector<WarmProgress>& warm_jobs) {
  const EngineStatus engine = subject.engine_status();
  Exposition out(subject.mountpoint);
  add_process(out, subject);
  add_cache(out, engine);
  add_reads(out, subject, engine);
  add_writes(out, *subject.adapter_stats);
  add_metadata(out, subject);
  add_copies(out, subject, engine, warm_jobs);
  add_health(out, subject, engine);
  return out.text();
}

}  // namespace ncfs
