// Counters, gauges and histograms that a component owns as members and lists in one table.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "aionbd/metrics.h"

namespace aionbd {

/// Only grows. Thread safety: safe.
class Counter {
 public:
  void add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

/// Goes up and down. Thread safety: safe.
class Gauge {
 public:
  void set(int64_t value) { value_.store(value, std::memory_order_relaxed); }
  void add(int64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  /// Raises to `value` if that is higher.
  void raise_to(int64_t value) {
    int64_t seen = value_.load(std::memory_order_relaxed);
    while (seen < value && !value_.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
  }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

/// Latencies in seconds, in powers of two from 1 microsecond to 67 seconds. Thread safety: safe.
class Histogram {
 public:
  static constexpr size_t kBucketsCount = 27;

  void observe_us(uint64_t us);
  HistogramSample sample() const;
  uint64_t count() const;

 private:
  std::atomic<uint64_t> buckets_[kBucketsCount + 1] = {};
  std::atomic<uint64_t> sum_us_{0};
};

/// Samples from members, in table order.
MetricSample sample_of(const MetricRow& row, const Counter& counter);
MetricSample sample_of(const MetricRow& row, const Gauge& gauge);
MetricSample sample_of(const MetricRow& row, const Histogram& histogram);
MetricSample sample_of(const MetricRow& row, double value);

}  // namespace aionbd
