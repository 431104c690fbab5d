// Every metric of the process, as the contract's flat JSON object and as Prometheus text.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "aionbd/metrics.h"
#include "server/context.h"

namespace aionbd {

/// The server's own metric table (the engine has its own: Database::metric_rows).
std::vector<const MetricRow*> server_metric_rows();
/// Rows the contract promises and the engine provides; exported as 0 while it is not loaded.
std::span<const MetricRow> engine_rows_expected();

/// The server's rows, then the engine's. A row the engine does not give yet has its resting value.
std::vector<MetricSample> collect_metrics(ServerContext& server);

/// One flat object: label-free counters and gauges; histograms and labelled rows are left to
/// Prometheus. Rows of unit "bool" are true or false.
std::string metrics_json(const std::vector<MetricSample>& samples);
/// Text exposition format 0.0.4.
std::string metrics_prometheus(const std::vector<MetricSample>& samples);

}  // namespace aionbd
