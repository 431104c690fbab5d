// Latencies of one kind of request, from a microsecond to an hour, within 3 % of each.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace aionbd {

/// Counts by size: 32 steps to each power of two, as HdrHistogram (Gil Tene) does it.
/// Thread safety: compatible.
class LatencyHistogram {
 public:
  void add(uint64_t us);
  void add_all(const LatencyHistogram& other);

  uint64_t count() const { return count_; }
  uint64_t max_us() const { return max_us_; }
  double mean_us() const;
  /// At least the share `part` (0..1) of all took no longer; at most 1/32 above the true one.
  uint64_t quantile_us(double part) const;

 private:
  static constexpr unsigned kStepBits = 5;
  static constexpr size_t kSteps = size_t{1} << kStepBits;
  /// Up to 2^32 us, more than an hour; longer ones count as that.
  static constexpr size_t kBuckets = (32 - kStepBits + 1) * kSteps;

  static size_t bucket_of(uint64_t us);
  static uint64_t highest_of(size_t bucket);

  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  uint64_t sum_us_ = 0;
  uint64_t max_us_ = 0;
};

}  // namespace aionbd
