// Read-only view of the metrics of an engine (or of the server over it).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace aionbd {

enum class MetricKind : uint8_t { kCounter, kGauge, kHistogram };

/// One row of a metric table; the only place its name is written.
struct MetricRow {
  std::string_view name;  // JSON key; Prometheus name without the `aionbd_` prefix
  MetricKind kind;
  std::string_view unit;  // "1", "bytes", "us", "ms", "seconds", "bool", ...
  std::string_view help;  // one sentence
};

/// Cumulative histogram: counts[i] observations were <= bounds[i]; the last count is the total.
struct HistogramSample {
  std::vector<double> bounds;    // ascending upper bounds, without +Inf
  std::vector<uint64_t> counts;  // bounds.size() + 1
  double sum = 0;
};

/// The value of one metric now.
struct MetricSample {
  const MetricRow* row = nullptr;
  std::string label_name;  // empty, or the one label that splits this family
  std::string label_value;
  double value = 0;           // counters and gauges; exact up to 2^53
  HistogramSample histogram;  // histograms
};

}  // namespace aionbd
