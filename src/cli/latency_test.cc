#include "cli/latency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/rng.h"

namespace aionbd {
namespace {

TEST(LatencyHistogram, QuantilesAreWithinAStep) {
  Rng rng(7);
  std::vector<uint64_t> all;
  LatencyHistogram whole, left, right;
  for (int i = 0; i < 20000; ++i) {
    const uint64_t us = rng.below(uint64_t{1} << rng.below(31));
    all.push_back(us);
    whole.add(us);
    (i % 2 == 0 ? left : right).add(us);
  }
  std::sort(all.begin(), all.end());
  left.add_all(right);
  for (const double part : {0.0001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const uint64_t truth = all[static_cast<size_t>(part * 20000 + 0.5) - 1];
    EXPECT_GE(whole.quantile_us(part), truth) << part;
    EXPECT_LE(whole.quantile_us(part), truth + truth / 32 + 1) << part;
    EXPECT_EQ(left.quantile_us(part), whole.quantile_us(part));
  }
  EXPECT_EQ(whole.max_us(), all.back());
  EXPECT_EQ(left.count(), 20000U);
}

TEST(LatencyHistogram, EdgesOfSteps) {
  EXPECT_EQ(LatencyHistogram().quantile_us(0.5), 0U);
  for (const uint64_t us : {0ULL, 1ULL, 31ULL, 32ULL, 33ULL, 63ULL, 64ULL, 4294967295ULL}) {
    LatencyHistogram one;
    one.add(us);
    EXPECT_EQ(one.quantile_us(0.5), us);
  }
  LatencyHistogram longest;
  longest.add(UINT64_MAX / 2);
  EXPECT_EQ(longest.max_us(), UINT64_MAX / 2);
}

}  // namespace
}  // namespace aionbd
