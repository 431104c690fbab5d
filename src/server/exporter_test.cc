#include "server/exporter.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "server/fake_database.h"

namespace aionbd {
namespace {

/// The contract's list, copied from its "Metrics" section.
constexpr std::string_view kContractKeys[] = {"uptime_ms",
                                              "ready",
                                              "engine_loaded",
                                              "storage_available",
                                              "http_requests_total",
                                              "http_requests_in_flight",
                                              "http_responses_2xx_total",
                                              "http_responses_4xx_total",
                                              "http_responses_5xx_total",
                                              "http_request_duration_us_total",
                                              "http_request_duration_us_max",
                                              "http_request_duration_us_avg",
                                              "collections",
                                              "points",
                                              "l2_indexes",
                                              "l2_index_cache_lookups",
                                              "l2_index_cache_hits",
                                              "l2_index_cache_misses",
                                              "l2_index_cache_hit_ratio",
                                              "l2_index_build_requests",
                                              "l2_index_build_successes",
                                              "l2_index_build_failures",
                                              "l2_index_build_cooldown_skips",
                                              "l2_index_build_cooldown_ms",
                                              "l2_index_build_max_in_flight",
                                              "l2_index_warmup_on_boot",
                                              "l2_index_build_in_flight",
                                              "auth_failures_total",
                                              "rate_limit_rejections_total",
                                              "audit_events_total",
                                              "collection_write_lock_entries",
                                              "tenant_rate_window_entries",
                                              "tenant_quota_lock_entries",
                                              "tenant_quota_collection_rejections_total",
                                              "tenant_quota_point_rejections_total",
                                              "persistence_enabled",
                                              "persistence_wal_sync_on_write",
                                              "persistence_wal_sync_every_n_writes",
                                              "persistence_wal_sync_interval_seconds",
                                              "persistence_wal_group_commit_max_batch",
                                              "persistence_wal_group_commit_flush_delay_ms",
                                              "persistence_async_checkpoints",
                                              "persistence_checkpoint_compact_after",
                                              "persistence_writes",
                                              "persistence_checkpoint_in_flight",
                                              "persistence_checkpoint_degraded_total",
                                              "persistence_checkpoint_success_total",
                                              "persistence_checkpoint_error_total",
                                              "persistence_checkpoint_schedule_skips_total",
                                              "persistence_wal_group_commits_total",
                                              "persistence_wal_grouped_records_total",
                                              "persistence_wal_group_queue_depth",
                                              "persistence_wal_size_bytes",
                                              "persistence_wal_tail_open",
                                              "persistence_incremental_segments",
                                              "persistence_incremental_size_bytes",
                                              "search_queries_total",
                                              "search_ivf_queries_total",
                                              "search_ivf_fallback_exact_total",
                                              "max_points_per_collection",
                                              "memory_budget_bytes",
                                              "memory_used_bytes"};

std::map<std::string, int> keys_of(const std::string& json) {
  std::map<std::string, int> out;
  JsonReader reader;
  const std::string body = json + std::string(kJsonPadding, ' ');
  EXPECT_TRUE(reader
                  .read(std::string_view(body).substr(0, json.size()),
                        [&](std::string_view key, JsonValue&) {
                          ++out[std::string(key)];
                          return Status();
                        })
                  .ok())
      << json;
  return out;
}

class ExporterTest : public testing::TestWithParam<bool> {
 protected:
  ExporterTest() : server_((*load_settings({})).settings, Logger()), database_(behaviour_) {
    if (GetParam()) server_.set_database(&database_);
  }
  FakeBehaviour behaviour_;
  ServerContext server_;
  FakeDatabase database_;
};

TEST_P(ExporterTest, JsonHasEveryContractKeyOnce) {
  const auto keys = keys_of(metrics_json(collect_metrics(server_)));
  for (const std::string_view key : kContractKeys) {
    const auto found = keys.find(std::string(key));
    ASSERT_NE(found, keys.end()) << key;
    EXPECT_EQ(found->second, 1) << key;
  }
}

TEST_P(ExporterTest, PrometheusHasEveryKeyAndOneTypePerFamily) {
  const std::string text = metrics_prometheus(collect_metrics(server_));
  for (const std::string_view key : kContractKeys) {
    if (key.starts_with("http_responses_")) continue;
    EXPECT_NE(text.find("\naionbd_" + std::string(key) + " "), std::string::npos) << key;
  }
  for (const char* status : {"2xx", "4xx", "5xx"}) {
    EXPECT_NE(text.find("aionbd_http_responses_total{status=\"" + std::string(status) + "\"} 0\n"),
              std::string::npos);
  }
  EXPECT_NE(text.find("aionbd_http_request_duration_seconds_bucket{route_class=\"search\",le=\"+Inf"
                      "\"} 0\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("aionbd_build_info{version=\""), std::string::npos);
  std::set<std::string> families;
  for (size_t at = text.find("# TYPE "); at != std::string::npos;
       at = text.find("# TYPE ", at + 1)) {
    EXPECT_TRUE(families.insert(text.substr(at, text.find('\n', at) - at)).second);
  }
  EXPECT_EQ(text.back(), '\n');
}

INSTANTIATE_TEST_SUITE_P(LoadingAndLoaded, ExporterTest, testing::Bool());

TEST(Exporter, NoNameIsInBothTables) {
  std::set<std::string_view> names;
  for (const MetricRow* row : server_metric_rows()) {
    EXPECT_TRUE(names.insert(row->name).second) << row->name;
  }
  for (const MetricRow& row : engine_rows_expected()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
  }
}

}  // namespace
}  // namespace aionbd
