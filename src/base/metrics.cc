// Histogram buckets, and samples of members.
#include "base/metrics.h"

#include <bit>

namespace aionbd {

void Histogram::observe_us(uint64_t us) {
  // Bucket i holds values in (2^(i-1), 2^i] microseconds; the last holds the rest.
  const size_t bucket = us <= 1 ? 0 : static_cast<size_t>(std::bit_width(us - 1));
  buckets_[bucket < kBucketsCount ? bucket : kBucketsCount].fetch_add(1, std::memory_order_relaxed);
  sum_us_.fetch_add(us, std::memory_order_relaxed);
}

HistogramSample Histogram::sample() const {
  HistogramSample out;
  uint64_t cumulative = 0;
  for (size_t i = 0; i <= kBucketsCount; ++i) {
    cumulative += buckets_[i].load(std::memory_order_relaxed);
    out.counts.push_back(cumulative);
    if (i < kBucketsCount) out.bounds.push_back(static_cast<double>(uint64_t{1} << i) * 1e-6);
  }
  out.sum = static_cast<double>(sum_us_.load(std::memory_order_relaxed)) * 1e-6;
  return out;
}

uint64_t Histogram::count() const {
  uint64_t total = 0;
  for (const auto& bucket : buckets_) total += bucket.load(std::memory_order_relaxed);
  return total;
}

MetricSample sample_of(const MetricRow& row, const Counter& counter) {
  return sample_of(row, static_cast<double>(counter.value()));
}

MetricSample sample_of(const MetricRow& row, const Gauge& gauge) {
  return sample_of(row, static_cast<double>(gauge.value()));
}

MetricSample sample_of(const MetricRow& row, const Histogram& histogram) {
  MetricSample out;
  out.row = &row;
  out.histogram = histogram.sample();
  return out;
}

MetricSample sample_of(const MetricRow& row, double value) {
  MetricSample out;
  out.row = &row;
  out.value = value;
  return out;
}

}  // namespace aionbd
