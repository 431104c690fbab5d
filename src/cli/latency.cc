#include "cli/latency.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace aionbd {

size_t LatencyHistogram::bucket_of(uint64_t us) {
  us = std::min<uint64_t>(us, UINT32_MAX);
  if (us < kSteps) return us;
  // The highest bit says which power of two, the next ones which step in it.
  const auto shift = static_cast<unsigned>(std::bit_width(us)) - kStepBits - 1;
  return (shift + 1) * kSteps + ((us >> shift) - kSteps);
}

uint64_t LatencyHistogram::highest_of(size_t bucket) {
  if (bucket < kSteps) return bucket;
  const size_t shift = bucket / kSteps - 1;
  return ((kSteps + bucket % kSteps + 1) << shift) - 1;
}

void LatencyHistogram::add(uint64_t us) {
  ++buckets_[bucket_of(us)];
  ++count_;
  sum_us_ += us;
  max_us_ = std::max(max_us_, us);
}

void LatencyHistogram::add_all(const LatencyHistogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  sum_us_ += other.sum_us_;
  max_us_ = std::max(max_us_, other.max_us_);
}

double LatencyHistogram::mean_us() const {
  return count_ == 0 ? 0 : static_cast<double>(sum_us_) / static_cast<double>(count_);
}

uint64_t LatencyHistogram::quantile_us(double part) const {
  const auto wanted = static_cast<uint64_t>(std::ceil(part * static_cast<double>(count_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += buckets_[i];
    if (seen >= wanted && seen > 0) return std::min(highest_of(i), max_us_);
  }
  return 0;
}

}  // namespace aionbd
