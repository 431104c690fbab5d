#include "server/exporter.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "server/json.h"

namespace aionbd {
namespace {

constexpr std::string_view kPrefix = "aionbd_";
constexpr MetricKind kCounter = MetricKind::kCounter;
constexpr MetricKind kGauge = MetricKind::kGauge;
constexpr MetricKind kHistogram = MetricKind::kHistogram;

/// What one row's value is computed from.
struct Source {
  ServerContext& server;
  const ServerMetrics& metrics;
  const Settings& settings;
  const HttpCounters* http;
  Health health;
  bool loaded;

  double of(const Counter& counter) const { return static_cast<double>(counter.value()); }
  double of(const Gauge& gauge) const { return static_cast<double>(gauge.value()); }
};

/// One row of the server's table: what it is, and how its value is read.
struct ServerRow {
  MetricRow row;
  double (*value)(const Source& source);
  /// Prometheus has these as one family with a label instead.
  bool json_only = false;
};

double as_double(uint64_t value) {
  return static_cast<double>(value);
}

constexpr auto kServerRows = std::to_array<ServerRow>({
    {{"uptime_ms", kGauge, "ms", "Time since the server started."},
     [](const Source& s) { return as_double(s.server.uptime_ms()); }},
    {{"ready", kGauge, "bool", "Whether requests are served."},
     [](const Source& s) { return s.loaded && s.health.storage_available ? 1.0 : 0.0; }},
    {{"engine_loaded", kGauge, "bool", "Whether the engine has finished loading."},
     [](const Source& s) { return s.loaded ? 1.0 : 0.0; }},
    {{"storage_available", kGauge, "bool", "False after a failed sync, until restarted."},
     [](const Source& s) { return s.loaded && s.health.storage_available ? 1.0 : 0.0; }},
    {{"http_requests_total", kCounter, "1", "Requests answered."},
     [](const Source& s) { return s.of(s.metrics.requests); }},
    {{"http_requests_in_flight", kGauge, "1", "Requests read and not yet answered."},
     [](const Source& s) { return s.http ? s.of(s.http->in_flight) : 0.0; }},
    {{"http_responses_2xx_total", kCounter, "1", "Answers with a 2xx status."},
     [](const Source& s) { return s.of(s.metrics.responses_2xx); },
     true},
    {{"http_responses_4xx_total", kCounter, "1", "Answers with a 4xx status."},
     [](const Source& s) { return s.of(s.metrics.responses_4xx); },
     true},
    {{"http_responses_5xx_total", kCounter, "1", "Answers with a 5xx status."},
     [](const Source& s) { return s.of(s.metrics.responses_5xx); },
     true},
    {{"http_request_duration_us_total", kCounter, "us", "Time of all requests together."},
     [](const Source& s) { return s.of(s.metrics.duration_us); }},
    {{"http_request_duration_us_max", kGauge, "us", "Longest request."},
     [](const Source& s) { return s.of(s.metrics.duration_us_max); }},
    {{"http_request_duration_us_avg", kGauge, "us", "Mean time of a request."},
     [](const Source& s) {
       const double count = s.of(s.metrics.requests);
       return count > 0 ? s.of(s.metrics.duration_us) / count : 0.0;
     }},
    {{"http_connections", kGauge, "1", "Open connections."},
     [](const Source& s) { return s.http ? s.of(s.http->connections) : 0.0; }},
    {{"http_connections_refused_total", kCounter, "1", "Connections closed at the limit."},
     [](const Source& s) { return s.http ? s.of(s.http->connections_refused) : 0.0; }},
    {{"http_accept_failures_total", kCounter, "1", "Connections the system could not hand over."},
     [](const Source& s) { return s.http ? s.of(s.http->accept_failures) : 0.0; }},
    {{"http_requests_waiting", kGauge, "1", "Requests waiting for a work slot."},
     [](const Source& s) { return s.http ? s.of(s.http->parked) : 0.0; }},
    {{"http_overloaded_total", kCounter, "1", "Requests refused because too many were waiting."},
     [](const Source& s) { return s.http ? s.of(s.http->overloaded) : 0.0; }},
    {{"http_body_bytes", kGauge, "bytes", "Memory of request bodies now."},
     [](const Source& s) { return s.http ? s.of(s.http->body_bytes) : 0.0; }},
    {{"http_threads", kGauge, "1", "Threads that serve requests."},
     [](const Source& s) { return s.http ? s.of(s.http->threads) : 0.0; }},
    {{"auth_failures_total", kCounter, "1", "Requests with a bad credential."},
     [](const Source& s) { return s.of(s.metrics.auth_failures); }},
    {{"rate_limit_rejections_total", kCounter, "1", "Requests over a rate limit."},
     [](const Source& s) { return s.of(s.metrics.rate_limit_rejections); }},
    {{"audit_events_total", kCounter, "1", "Lines written to the audit log."},
     [](const Source& s) { return s.of(s.metrics.audit_events); }},
    {{"tenant_rate_window_entries", kGauge, "1", "Tenants with a rate window."},
     [](const Source&) { return 0.0; }},
    {{"tenant_quota_lock_entries", kGauge, "1", "Tenants with a quota record."},
     [](const Source&) { return 0.0; }},
    {{"tenant_quota_collection_rejections_total", kCounter, "1",
      "Collections refused by a tenant's quota."},
     [](const Source& s) { return s.of(s.metrics.tenant_collection_rejections); }},
    {{"tenant_quota_point_rejections_total", kCounter, "1", "Writes refused by a tenant's quota."},
     [](const Source& s) { return s.of(s.metrics.tenant_point_rejections); }},
    {{"l2_index_build_cooldown_ms", kGauge, "ms", "Setting: pause between two index builds."},
     [](const Source& s) { return as_double(s.settings.l2_index_build_cooldown_ms); }},
    {{"l2_index_build_max_in_flight", kGauge, "1", "Setting: index builds at one time."},
     [](const Source& s) { return as_double(s.settings.l2_index_build_max_in_flight); }},
    {{"l2_index_warmup_on_boot", kGauge, "bool", "Setting: open and build indexes from the start."},
     [](const Source& s) { return s.settings.l2_index_warmup_on_boot ? 1.0 : 0.0; }},
    {{"persistence_enabled", kGauge, "bool", "Setting: data is written to disk."},
     [](const Source& s) { return s.settings.persistence_enabled ? 1.0 : 0.0; }},
    {{"persistence_wal_sync_on_write", kGauge, "bool", "Setting: every write is synced."},
     [](const Source& s) { return s.settings.wal_sync_on_write ? 1.0 : 0.0; }},
    {{"persistence_wal_sync_every_n_writes", kGauge, "1", "Setting: sync after so many writes."},
     [](const Source& s) { return as_double(s.settings.wal_sync_every_n_writes); }},
    {{"persistence_wal_sync_interval_seconds", kGauge, "seconds", "Setting: sync so often."},
     [](const Source& s) { return as_double(s.settings.wal_sync_interval_seconds); }},
    {{"persistence_wal_group_commit_max_batch", kGauge, "1", "Setting: writes per sync."},
     [](const Source& s) { return as_double(s.settings.wal_group_commit_max_batch); }},
    {{"persistence_wal_group_commit_flush_delay_ms", kGauge, "ms",
      "Setting: how long a sync waits for company."},
     [](const Source& s) { return as_double(s.settings.wal_group_commit_flush_delay_ms); }},
    {{"persistence_async_checkpoints", kGauge, "bool", "Setting: checkpoints run beside writes."},
     [](const Source& s) { return s.settings.async_checkpoints ? 1.0 : 0.0; }},
    {{"persistence_checkpoint_compact_after", kGauge, "1",
      "Setting: segments that start compaction."},
     [](const Source& s) { return as_double(s.settings.checkpoint_compact_after); }},
    {{"max_points_per_collection", kGauge, "1", "Setting: points one collection may hold."},
     [](const Source& s) { return as_double(s.settings.max_points_per_collection); }},
    {{"memory_budget_bytes", kGauge, "bytes", "Setting: memory for data; 0 is unlimited."},
     [](const Source& s) { return as_double(s.settings.memory_budget()); }},
});

constexpr MetricRow kResponsesRow = {"http_responses_total", kCounter, "1",
                                     "Answers by class of status."};
constexpr MetricRow kDurationRow = {"http_request_duration_seconds", kHistogram, "seconds",
                                    "Time from the end of a request's head to its answer."};
constexpr MetricRow kBuildRow = {"build_info", kGauge, "1", "Always 1; the label is the version."};

constexpr auto kEngineRows = std::to_array<MetricRow>({
    {"collections", kGauge, "1", "Collections."},
    {"points", kGauge, "1", "Live points of all collections."},
    {"l2_indexes", kGauge, "1", "Vector indexes ready for use."},
    {"l2_index_cache_lookups", kCounter, "1", "Searches that looked for an index."},
    {"l2_index_cache_hits", kCounter, "1", "Searches that found an index."},
    {"l2_index_cache_misses", kCounter, "1", "Searches that found none."},
    {"l2_index_cache_hit_ratio", kGauge, "ratio", "Hits per lookup."},
    {"l2_index_build_requests", kCounter, "1", "Index builds asked for."},
    {"l2_index_build_successes", kCounter, "1", "Index builds that succeeded."},
    {"l2_index_build_failures", kCounter, "1", "Index builds that failed."},
    {"l2_index_build_cooldown_skips", kCounter, "1", "Builds put off until the pause had passed."},
    {"l2_index_build_in_flight", kGauge, "1", "Index builds running."},
    {"collection_write_lock_entries", kGauge, "1", "Collections with a write lock."},
    {"persistence_writes", kCounter, "1", "Records written to the log."},
    {"persistence_checkpoint_in_flight", kGauge, "bool", "Whether a checkpoint runs."},
    {"persistence_checkpoint_degraded_total", kCounter, "1",
     "Checkpoints that did part of the work."},
    {"persistence_checkpoint_success_total", kCounter, "1", "Checkpoints done."},
    {"persistence_checkpoint_error_total", kCounter, "1", "Checkpoints that failed."},
    {"persistence_checkpoint_schedule_skips_total", kCounter, "1",
     "Checkpoints not started because one was running."},
    {"persistence_wal_group_commits_total", kCounter, "1", "Syncs of the log."},
    {"persistence_wal_grouped_records_total", kCounter, "1", "Records those syncs covered."},
    {"persistence_wal_group_queue_depth", kGauge, "1", "Writes waiting for a sync."},
    {"persistence_wal_size_bytes", kGauge, "bytes", "Size of the log."},
    {"persistence_wal_tail_open", kGauge, "bool", "Whether the log's last file takes records."},
    {"persistence_incremental_segments", kGauge, "1", "Segment files."},
    {"persistence_incremental_size_bytes", kGauge, "bytes", "Size of the segment files."},
    {"search_queries_total", kCounter, "1", "Queries answered."},
    {"search_ivf_queries_total", kCounter, "1", "Queries that asked for ivf."},
    {"search_ivf_fallback_exact_total", kCounter, "1", "Of those, answered exactly."},
    {"memory_used_bytes", kGauge, "bytes", "Memory reserved for data."},
});

MetricSample labelled(const MetricRow& row, std::string name, std::string_view value, double n) {
  MetricSample out = sample_of(row, n);
  out.label_name = std::move(name);
  out.label_value = value;
  return out;
}

/// Help and label text with the escapes of the exposition format.
std::string escaped(std::string_view text, bool quotes) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quotes) {
      out += "\\\"";
    } else {
      out.push_back(c);
    }
  }
  return out;
}

std::string number_text(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  if (value == std::floor(value) && std::abs(value) < 1e15) return fmt::format("{:.0f}", value);
  return fmt::format("{}", value);
}

void append_histogram(std::string& out, const MetricSample& sample) {
  const std::string name = fmt::format("{}{}", kPrefix, sample.row->name);
  const std::string label =
      sample.label_name.empty()
          ? std::string()
          : fmt::format("{}=\"{}\"", sample.label_name, escaped(sample.label_value, true));
  const std::string comma = label.empty() ? "" : ",";
  const std::string braces = label.empty() ? "" : "{" + label + "}";
  const HistogramSample& histogram = sample.histogram;
  for (size_t i = 0; i < histogram.bounds.size(); ++i) {
    out += fmt::format("{}_bucket{{{}{}le=\"{}\"}} {}\n", name, label, comma, histogram.bounds[i],
                       histogram.counts[i]);
  }
  const uint64_t total = histogram.counts.empty() ? 0 : histogram.counts.back();
  out += fmt::format("{}_bucket{{{}{}le=\"+Inf\"}} {}\n", name, label, comma, total);
  out += fmt::format("{}_sum{} {}\n", name, braces, number_text(histogram.sum));
  out += fmt::format("{}_count{} {}\n", name, braces, total);
}

bool is_json_only(const MetricRow* row) {
  return std::any_of(kServerRows.begin(), kServerRows.end(),
                     [&](const ServerRow& entry) { return &entry.row == row && entry.json_only; });
}

std::string_view kind_name(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter: return "counter";
    case MetricKind::kGauge: return "gauge";
    case MetricKind::kHistogram: return "histogram";
  }
  return "untyped";
}

}  // namespace

std::vector<const MetricRow*> server_metric_rows() {
  std::vector<const MetricRow*> out;
  for (const ServerRow& entry : kServerRows) out.push_back(&entry.row);
  for (const MetricRow* row : {&kResponsesRow, &kDurationRow, &kBuildRow}) out.push_back(row);
  return out;
}

std::span<const MetricRow> engine_rows_expected() {
  return kEngineRows;
}

std::vector<MetricSample> collect_metrics(ServerContext& server) {
  const Database* database = server.database();
  const ServerMetrics& metrics = server.metrics();
  Source source{server, metrics, server.settings(), server.http(), Health{}, database != nullptr};
  std::vector<MetricSample> engine;
  if (database != nullptr) {
    source.health = database->health();
    engine = database->metrics();
  }
  std::vector<MetricSample> out;
  const auto has = [](const std::vector<MetricSample>& samples, std::string_view name) {
    return std::any_of(samples.begin(), samples.end(),
                       [&](const MetricSample& sample) { return sample.row->name == name; });
  };
  // The engine knows better where both have a row.
  for (const ServerRow& entry : kServerRows) {
    if (!has(engine, entry.row.name)) out.push_back(sample_of(entry.row, entry.value(source)));
  }
  out.push_back(labelled(kResponsesRow, "status", "2xx", source.of(metrics.responses_2xx)));
  out.push_back(labelled(kResponsesRow, "status", "4xx", source.of(metrics.responses_4xx)));
  out.push_back(labelled(kResponsesRow, "status", "5xx", source.of(metrics.responses_5xx)));
  for (size_t i = 0; i < kRouteClassesCount; ++i) {
    MetricSample sample = sample_of(kDurationRow, metrics.duration[i]);
    sample.label_name = "route_class";
    sample.label_value = route_class_name(static_cast<RouteClass>(i));
    out.push_back(std::move(sample));
  }
  out.push_back(labelled(kBuildRow, "version", version(), 1));
  for (const MetricRow& row : kEngineRows) {
    if (!has(engine, row.name)) out.push_back(sample_of(row, 0.0));
  }
  for (MetricSample& sample : engine) out.push_back(std::move(sample));
  return out;
}

std::string metrics_json(const std::vector<MetricSample>& samples) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object();
  for (const MetricSample& sample : samples) {
    if (sample.row->kind == MetricKind::kHistogram || !sample.label_name.empty()) continue;
    writer.key(sample.row->name);
    const double value = sample.value;
    if (sample.row->unit == "bool") {
      writer.boolean(value != 0);
    } else if (value >= 0 && value < 0x1p53 && value == std::floor(value) &&
               sample.row->unit != "ratio") {
      writer.number(static_cast<uint64_t>(value));
    } else {
      writer.number(value);
    }
  }
  writer.end_object();
  return out;
}

std::string metrics_prometheus(const std::vector<MetricSample>& samples) {
  std::string out;
  const MetricRow* family = nullptr;
  for (const MetricSample& sample : samples) {
    if (is_json_only(sample.row)) continue;
    if (sample.row != family) {
      family = sample.row;
      out +=
          fmt::format("# HELP {}{} {}\n# TYPE {}{} {}\n", kPrefix, family->name,
                      escaped(family->help, false), kPrefix, family->name, kind_name(family->kind));
    }
    if (family->kind == MetricKind::kHistogram) {
      append_histogram(out, sample);
    } else if (sample.label_name.empty()) {
      out += fmt::format("{}{} {}\n", kPrefix, family->name, number_text(sample.value));
    } else {
      out += fmt::format("{}{}{{{}=\"{}\"}} {}\n", kPrefix, family->name, sample.label_name,
                         escaped(sample.label_value, true), number_text(sample.value));
    }
  }
  return out;
}

}  // namespace aionbd
