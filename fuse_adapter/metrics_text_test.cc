// Method: made-up counts; metrics_test.py has a parser of Prometheus read what a mount tells.
#include "fuse_adapter/metrics_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ncfs {
namespace {

using ::testing::HasSubstr;

class MetricsText : public ::testing::Test {
 protected:
  std::string text() {
    ControlSubject subject;
    subject.mountpoint = "/mnt/a\"b";
    subject.version = "1.2.3";
    subject.buffer_bytes = 1000;
    subject.block_size_bytes = 100;
    subject.engine_status = [this] { return engine_; };
    subject.metadata_status = [this] { return metadata_; };
    subject.backends = [this] { return backends_; };
    subject.adapter_stats = &stats_;
    subject.copy_time = &copy_time_;
    return metrics_text(subject, warm_jobs_);
  }

  EngineStatus engine_;
  MetadataStatus metadata_;
  std::vector<BackendStatus> backends_ = std::vector<BackendStatus>(1);
  AdapterStats stats_;
  Histogram copy_time_;
  std::vector<WarmProgress> warm_jobs_;
};

TEST_F(MetricsText, EveryMetricHasTypeHelpAndTheMountPoint) {
  engine_.limit_bytes = std::uint64_t{1} << 40;
  stats_.opens_hit.add(3);
  const std::string told = text();
  EXPECT_THAT(told, HasSubstr("# HELP nfs_cachefs_opens_total Opens of regular files."));
  EXPECT_THAT(told, HasSubstr("# TYPE nfs_cachefs_opens_total counter\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_opens_total{mountpoint=\"/mnt/a\\\"b\",result=\"hit\"} "
                              "3\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_cache_limit_bytes{mountpoint=\"/mnt/a\\\"b\"} "
                              "1099511627776\n"));
}

TEST_F(MetricsText, WritesAreCounted) {
  stats_.opens_for_writing.add(1);
  stats_.writes.add(2);
  stats_.written_bytes.add(3);
  stats_.mirror_failures.add(4);
  const std::string told = text();
  const std::string mount = "{mountpoint=\"/mnt/a\\\"b\"} ";
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_opens_for_writing_total" + mount + "1\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_writes_total" + mount + "2\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_written_bytes_total" + mount + "3\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_mirror_failures_total" + mount + "4\n"));
}

TEST_F(MetricsText, HistogramsAreCumulative) {
  copy_time_.add(10'000);  // the first bound belongs to its bucket
  copy_time_.add(10'001);
  copy_time_.add(2 * kSecond);
  copy_time_.add(4000 * kSecond);
  const std::string told = text();
  const std::string name = "nfs_cachefs_copy_duration_seconds";
  const std::string mount = "mountpoint=\"/mnt/a\\\"b\"";
  EXPECT_THAT(told, HasSubstr("# TYPE " + name + " histogram\n"));
  EXPECT_THAT(told, HasSubstr(name + "_bucket{" + mount + ",le=\"1e-05\"} 1\n"));
  EXPECT_THAT(told, HasSubstr(name + "_bucket{" + mount + ",le=\"1\"} 2\n"));
  EXPECT_THAT(told, HasSubstr(name + "_bucket{" + mount + ",le=\"3\"} 3\n"));
  EXPECT_THAT(told, HasSubstr(name + "_bucket{" + mount + ",le=\"3000\"} 3\n"));
  EXPECT_THAT(told, HasSubstr(name + "_bucket{" + mount + ",le=\"+Inf\"} 4\n"));
  EXPECT_THAT(told, HasSubstr(name + "_count{" + mount + "} 4\n"));
  EXPECT_THAT(told, HasSubstr(name + "_sum{" + mount + "} 4002.0000200"));
}

TEST_F(MetricsText, HowCopiesYieldIsToldWhereTheyDo) {
  engine_.yields.push_back({7, YieldWindow::kUnlimited, 0, 0, 0});
  engine_.yields.push_back({8, 65536, 16384, 250 * kMillisecond, 500 * kMillisecond});
  const std::string told = text();
  const std::string labels = "{mountpoint=\"/mnt/a\\\"b\",filesystem=\"8\"} ";
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_copy_window_bytes" + labels + "65536\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_reader_latency_alone_seconds" + labels + "0.25\n"));
  EXPECT_THAT(told,
              HasSubstr("nfs_cachefs_reader_latency_beside_copies_seconds" + labels + "0.5\n"));
  EXPECT_THAT(told, Not(HasSubstr("filesystem=\"7\"")));
}

TEST_F(MetricsText, BackendsAreCountedByTheirState) {
  backends_.resize(2);
  backends_[0].changes = 2;
  backends_[1].state = BackendState::down;
  backends_[1].changes = 3;
  const std::string told = text();
  const std::string state = "nfs_cachefs_backend_state{mountpoint=\"/mnt/a\\\"b\",state=";
  EXPECT_THAT(told, HasSubstr(state + "\"up\"} 1\n"));
  EXPECT_THAT(told, HasSubstr(state + "\"suspect\"} 0\n"));
  EXPECT_THAT(told, HasSubstr(state + "\"down\"} 1\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_backend_state_changes_total{"));
  EXPECT_THAT(told, HasSubstr("} 5\n"));
}

TEST_F(MetricsText, ExactlyOneStateOfTheDiskIsSet) {
  engine_.cache_health.state = HealthState::down;
  engine_.buffers_in_use = 3;
  const std::string told = text();
  const std::string state = "nfs_cachefs_cache_disk_state{mountpoint=\"/mnt/a\\\"b\",state=";
  EXPECT_THAT(told, HasSubstr(state + "\"normal\"} 0\n"));
  EXPECT_THAT(told, HasSubstr(state + "\"unstable\"} 0\n"));
  EXPECT_THAT(told, HasSubstr(state + "\"down\"} 1\n"));
  EXPECT_THAT(told, HasSubstr("state=\"used\"} 300\n"));
  EXPECT_THAT(told, HasSubstr("state=\"free\"} 700\n"));
}

TEST_F(MetricsText, WhatIsKnownOfNamesAndAttributesIsTold) {
  metadata_.stats.negative_hits = 3;
  metadata_.stats.opens_changed = 4;
  metadata_.stats.stale_avoided = 5;
  metadata_.stats.unasked_hits = 7;
  metadata_.stats.unasked_age_max = 8 * kSecond;
  metadata_.listings_bytes = 6;
  const std::string told = text();
  const std::string mount = "mountpoint=\"/mnt/a\\\"b\"";
  EXPECT_THAT(told,
              HasSubstr("nfs_cachefs_metadata_hits_total{" + mount + ",kind=\"negative\"} 3\n"));
  EXPECT_THAT(told,
              HasSubstr("nfs_cachefs_revalidations_total{" + mount + ",result=\"changed\"} 4\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_metadata_stale_avoided_total{" + mount + "} 5\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_metadata_bytes{" + mount + ",kind=\"listings\"} 6\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_unanswered_hits_total{" + mount + "} 7\n"));
  EXPECT_THAT(told, HasSubstr("nfs_cachefs_unanswered_age_seconds_max{" + mount + "} 8\n"));
}

}  // namespace
}  // namespace ncfs
