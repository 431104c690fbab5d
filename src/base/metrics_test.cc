#include "base/metrics.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace aionbd {
namespace {

constexpr MetricRow kRow{"row", MetricKind::kHistogram, "seconds", "A row."};

/// The first bucket that counts one observation of `us`.
size_t bucket_of(uint64_t us) {
  Histogram histogram;
  histogram.observe_us(us);
  const auto counts = histogram.sample().counts;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 1) return i;
  }
  return counts.size();
}

TEST(Histogram, UpperBoundsAreInclusive) {
  EXPECT_EQ(bucket_of(0), 0U);
  EXPECT_EQ(bucket_of(1), 0U);
  for (size_t i = 1; i < Histogram::kBucketsCount; ++i) {
    const uint64_t bound = uint64_t{1} << i;
    EXPECT_EQ(bucket_of(bound), i);
    EXPECT_EQ(bucket_of(bound + 1), i + 1);
  }
  EXPECT_EQ(bucket_of(UINT64_MAX), Histogram::kBucketsCount);
}

TEST(Histogram, SampleIsCumulativeInSeconds) {
  Histogram histogram;
  for (const uint64_t us : {1U, 3U, 4U, 1000000U, 100000000U}) histogram.observe_us(us);
  const HistogramSample sample = sample_of(kRow, histogram).histogram;
  ASSERT_EQ(sample.bounds.size(), Histogram::kBucketsCount);
  ASSERT_EQ(sample.counts.size(), Histogram::kBucketsCount + 1);
  EXPECT_DOUBLE_EQ(sample.bounds[0], 1e-6);
  EXPECT_DOUBLE_EQ(sample.bounds[2], 4e-6);
  EXPECT_EQ(sample.counts[0], 1U);
  EXPECT_EQ(sample.counts[1], 1U);
  EXPECT_EQ(sample.counts[2], 3U);
  EXPECT_EQ(sample.counts[Histogram::kBucketsCount - 1], 4U);  // 100 s is beyond the last bound
  EXPECT_EQ(sample.counts.back(), 5U);
  EXPECT_DOUBLE_EQ(sample.sum, 101.000008);
  EXPECT_EQ(histogram.count(), 5U);
}

TEST(Metrics, NothingIsLostBetweenThreads) {
  Counter counter;
  Gauge highest;
  Gauge balance;
  Histogram histogram;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10000; ++i) {
        counter.add();
        highest.raise_to(i * 4 + t);
        balance.add(t % 2 == 0 ? 1 : -1);
        histogram.observe_us(static_cast<uint64_t>(i));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(counter.value(), 40000U);
  EXPECT_EQ(highest.value(), 9999 * 4 + 3);
  EXPECT_EQ(balance.value(), 0);
  EXPECT_EQ(histogram.count(), 40000U);
}

TEST(Metrics, SamplesCarryRowAndValue) {
  Counter counter;
  counter.add(5);
  Gauge gauge;
  gauge.set(-3);
  gauge.raise_to(-5);
  EXPECT_EQ(sample_of(kRow, counter).value, 5.0);
  EXPECT_EQ(sample_of(kRow, gauge).value, -3.0);
  EXPECT_EQ(sample_of(kRow, 0.25).value, 0.25);
  EXPECT_EQ(sample_of(kRow, gauge).row, &kRow);
}

}  // namespace
}  // namespace aionbd
