// The front door: meanings, edges, and the stated distance between batch and single query.
#include "distance/metric.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "distance/kernels.h"
#include "distance/test_vectors.h"

namespace aionbd::metric_test {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr Metric kAllMetrics[] = {Metric::kDot, Metric::kL2, Metric::kCosine};

float distance(Metric metric, const std::vector<float>& q, const std::vector<float>& x,
               const Kernels& target = kernels()) {
  const auto query = PreparedQuery::make(metric, q, target);
  const float norm = norm_squared(x.data(), x.size());
  float out = 0;
  query.value().distances(x.data(), &norm, 1, &out);
  return out;
}

double reference(Metric metric, const float* q, const float* x, size_t dim) {
  double dot = 0;
  double l2 = 0;
  double qq = 0;
  double xx = 0;
  for (size_t k = 0; k < dim; ++k) {
    const double a = q[k];
    const double b = x[k];
    dot += a * b;
    l2 += (a - b) * (a - b);
    qq += a * a;
    xx += b * b;
  }
  if (metric == Metric::kDot) return -dot;
  return metric == Metric::kL2 ? l2 : -dot / std::sqrt(qq) / std::sqrt(xx);
}

TEST(MetricTable, NamesRoundTrip) {
  ASSERT_EQ(metric_table().size(), kMetricsCount);
  for (size_t i = 0; i < kMetricsCount; ++i) {
    const MetricInfo& info = metric_table()[i];
    EXPECT_EQ(static_cast<size_t>(info.metric), i);
    EXPECT_EQ(metric_by_name(info.name), info.metric);
    EXPECT_EQ(&metric_info(info.metric), &info);
  }
  EXPECT_EQ(metric_by_name("euclidean"), std::nullopt);
  EXPECT_EQ(metric_by_name("L2"), std::nullopt);
  EXPECT_EQ(metric_by_name(""), std::nullopt);
  EXPECT_FALSE(metric_info(Metric::kL2).higher_is_better);
  EXPECT_TRUE(metric_info(Metric::kDot).higher_is_better);
}

TEST(Score, IsTheUsersNumber) {
  EXPECT_EQ(score_of(Metric::kDot, -3.0F), 3.0F);
  EXPECT_EQ(score_of(Metric::kCosine, 0.5F), -0.5F);
  EXPECT_EQ(score_of(Metric::kL2, 9.0F), 3.0F);
  EXPECT_FALSE(std::signbit(score_of(Metric::kDot, 0.0F)));
  for (const Metric metric : kAllMetrics) EXPECT_FALSE(std::isfinite(score_of(metric, kFarthest)));
}

TEST(Score, ThresholdIsTheLastDistanceThatPasses) {
  for (const float score : {0.0F, 1e-45F, 1e-30F, 1e-20F, 0.1F, 1.0F, 3.0F, 12345.678F, 1.8e19F}) {
    const float last = distance_of_threshold(Metric::kL2, score);
    EXPECT_LE(score_of(Metric::kL2, last), score);
    EXPECT_GT(score_of(Metric::kL2, std::nextafter(last, kFarthest)), score) << score;
  }
  for (const float score : {-2.0F, 0.0F, 0.25F}) {
    const float last = distance_of_threshold(Metric::kCosine, score);
    EXPECT_EQ(score_of(Metric::kCosine, last), score);
    EXPECT_LT(score_of(Metric::kCosine, std::nextafter(last, kFarthest)), score);
  }
  EXPECT_EQ(distance_of_threshold(Metric::kL2, 1e30F), kLargest);
  EXPECT_EQ(distance_of_threshold(Metric::kL2, kFarthest), kFarthest);
  EXPECT_EQ(distance_of_threshold(Metric::kL2, -1.0F), -kFarthest);
  for (const Metric metric : kAllMetrics) {
    EXPECT_EQ(distance_of_threshold(metric, std::nanf("")), -kFarthest);
  }
}

TEST(NormSquared, IsTheDoubleSumRoundedOnce) {
  for (const VectorKind kind : kVectorKinds) {
    for (const size_t dim : ragged_dimensions()) {
      const std::vector<float> x = make_vector(kind, dim, 11);
      long double sum = 0;
      for (const float v : x) sum += static_cast<long double>(v) * v;
      const double got = norm_squared(x.data(), dim);
      ASSERT_LE(std::abs(got - static_cast<double>(sum)),
                1.001 * 0x1p-24 * static_cast<double>(sum) + 0x1p-150);
    }
  }
  const std::vector<float> huge = {1e20F, 1e20F};
  EXPECT_EQ(norm_squared(huge.data(), 2), kFarthest);
  EXPECT_EQ(norm_squared(huge.data(), 0), 0.0F);
}

TEST(PreparedQuery, ZeroQueryUnderCosineIsRefused) {
  const std::vector<float> zero(5, 0.0F);
  const auto result = PreparedQuery::make(Metric::kCosine, zero);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(result.error().message(), "query must not be a zero vector for the cosine metric");
  EXPECT_TRUE(PreparedQuery::make(Metric::kDot, zero).has_value());
  EXPECT_TRUE(PreparedQuery::make(Metric::kL2, zero).has_value());
}

TEST(PreparedQuery, KnownValues) {
  for (const Kernels* target : supported_kernels()) {
    EXPECT_EQ(distance(Metric::kDot, {1, 2, 3}, {4, 5, 6}, *target), -32.0F);
    EXPECT_EQ(distance(Metric::kL2, {1, 2, 3}, {4, 6, 3}, *target), 25.0F);
    EXPECT_EQ(distance(Metric::kCosine, {2, 0}, {0, 3}, *target), 0.0F);
    EXPECT_EQ(distance(Metric::kCosine, {2, 0}, {9, 0}, *target), -1.0F);
    EXPECT_EQ(distance(Metric::kCosine, {2, 0}, {-9, 0}, *target), 1.0F);
  }
}

TEST(PreparedQuery, CosineIsRightForRowsOfAnyFiniteSize) {
  for (const Kernels* target : supported_kernels()) {
    for (const float scale : {1e-44F, 1e-40F, 1e-30F, 1e-23F, 1e-19F, 1.0F, 1e18F, 1e20F, 1e37F}) {
      for (const float query_scale : {1e-40F, 1.0F, 1e37F}) {
        const std::vector<float> q = {3 * query_scale, 4 * query_scale, 0};
        const std::vector<float> x = {3 * scale, 4 * scale, 0};
        const double want = reference(Metric::kCosine, q.data(), x.data(), 3);
        EXPECT_NEAR(distance(Metric::kCosine, q, x, *target), want, 3e-7)
            << target->name << " " << scale << " " << query_scale;
      }
    }
    EXPECT_EQ(distance(Metric::kCosine, {1, 1}, {0, 0}, *target), kFarthest);
  }
}

TEST(PreparedQuery, CosineStaysInItsRange) {
  for (const Kernels* target : supported_kernels()) {
    for (uint32_t seed = 0; seed < 200; ++seed) {
      std::vector<float> x = make_vector(VectorKind::kGaussian, 1 + seed % 97, seed);
      EXPECT_GE(distance(Metric::kCosine, x, x, *target), -1.0F);
      EXPECT_NEAR(distance(Metric::kCosine, x, x, *target), -1.0F, 1e-6);
    }
  }
}

TEST(PreparedQuery, WhatIsNotFiniteIsFarthest) {
  const float inf = kFarthest;
  const float nan = std::nanf("");
  for (const Kernels* target : supported_kernels()) {
    for (const Metric metric : kAllMetrics) {
      for (const std::vector<float>& row :
           {std::vector<float>{inf, 1}, {-inf, 1}, {nan, 1}, {inf, -inf}}) {
        EXPECT_EQ(distance(metric, {1, 2}, row, *target), kFarthest) << target->name;
        EXPECT_EQ(distance(metric, row, {1, 2}, *target), kFarthest) << target->name;
      }
    }
    // Overflow on the way; the negative infinity of dot is not the nearest.
    EXPECT_EQ(distance(Metric::kDot, {1e30F}, {1e30F}, *target), kFarthest);
    EXPECT_EQ(distance(Metric::kL2, {1e30F}, {0}, *target), kFarthest);
  }
}

TEST(PreparedQuery, DimensionAndNoRows) {
  const auto query = PreparedQuery::make(Metric::kL2, std::vector<float>(33, 1.0F));
  EXPECT_EQ(query.value().dim(), 33U);
  EXPECT_EQ(query.value().metric(), Metric::kL2);
  query.value().distances(nullptr, nullptr, 0, nullptr);
}

TEST(PreparedBatch, RefusesWhatItCannotMean) {
  const std::vector<float> a(3, 1.0F);
  const std::vector<float> b(4, 1.0F);
  const std::vector<float> zero(3, 0.0F);
  const auto code = [](Metric metric, std::vector<std::span<const float>> queries) {
    return PreparedBatch::make(metric, queries).status().code();
  };
  EXPECT_EQ(code(Metric::kL2, {}), Code::kInvalidArgument);
  EXPECT_EQ(code(Metric::kL2, {a, b}), Code::kInvalidArgument);
  EXPECT_EQ(code(Metric::kCosine, {a, zero}), Code::kInvalidArgument);
  EXPECT_EQ(code(Metric::kDot, {a, zero}), Code::kOk);
}

// Rows and queries of one kind, both ways, the bound checked for every pair.
struct BatchCase {
  std::vector<std::vector<float>> queries;
  std::vector<float> rows;
  std::vector<float> norms;
  size_t dim = 0;
};

BatchCase make_case(VectorKind kind, size_t dim, size_t queries_count, size_t rows_count) {
  BatchCase out;
  out.dim = dim;
  for (uint32_t q = 0; q < queries_count; ++q) {
    out.queries.push_back(make_vector(kind, dim, 100 + q));
    if (kind == VectorKind::kOneHot) out.queries.back()[q % dim] = 1;
  }
  out.rows = make_vector(kind, dim * rows_count, 1);
  // Some rows equal a query, or its negative: l2 cancels to nothing, cosine touches its ends.
  for (size_t i = 0; i + 1 < rows_count; i += 3) {
    const std::vector<float>& same = out.queries[i % queries_count];
    for (size_t k = 0; k < dim; ++k) out.rows[i * dim + k] = i % 2 == 0 ? same[k] : -same[k];
  }
  for (size_t i = 0; i < rows_count; ++i) {
    out.norms.push_back(norm_squared(&out.rows[i * dim], dim));
  }
  return out;
}

// Returns the largest |difference| / bound.
double check_bound(const Kernels& target, Metric metric, const BatchCase& data) {
  const size_t n = data.norms.size();
  const std::vector<std::span<const float>> spans(data.queries.begin(), data.queries.end());
  const auto batch = PreparedBatch::make(metric, spans, target);
  EXPECT_TRUE(batch.has_value());
  const size_t stride = batch.value().stride();
  EXPECT_EQ(batch.value().queries_count(), spans.size());
  std::vector<float> out(n * stride);
  batch.value().distances(data.rows.data(), data.norms.data(), n, out.data());
  const float norm_max = *std::max_element(data.norms.begin(), data.norms.end());
  double worst = 0;
  for (size_t q = 0; q < spans.size(); ++q) {
    const float bound = batch.value().error_bound(q, norm_max);
    std::vector<float> exact(n);
    const auto single = PreparedQuery::make(metric, spans[q], target);
    single.value().distances(data.rows.data(), data.norms.data(), n, exact.data());
    for (size_t i = 0; i < n; ++i) {
      const float got = out[i * stride + q];
      EXPECT_FALSE(std::isnan(got));
      if (got == exact[i]) continue;
      const double difference = std::abs(double{got} - double{exact[i]});
      EXPECT_LE(difference, bound) << target.name << " " << metric_info(metric).name << " dim "
                                   << data.dim << " row " << i << " query " << q;
      EXPECT_LE(got, exact[i] + bound);  // as the caller will compute it
      worst = std::max(worst, difference / double{bound});
    }
  }
  return worst;
}

TEST(PreparedBatch, DistancesStayWithinTheStatedBound) {
  for (const Kernels* target : supported_kernels()) {
    for (const Metric metric : kAllMetrics) {
      for (const VectorKind kind : kVectorKinds) {
        for (const size_t dim : {1, 2, 3, 16, 17, 100, 127, 129, 784, 1500}) {
          for (const size_t count : {1, 19, 50}) {
            BatchCase data = make_case(kind, dim, count, 13);
            // The cosine of a zero query is refused; one-hot vectors of few dimensions can be zero.
            check_bound(*target, metric, data);
          }
        }
      }
    }
  }
}

TEST(PreparedBatch, BoundIsNotVacuous) {
  for (const Kernels* target : supported_kernels()) {
    for (const Metric metric : kAllMetrics) {
      const BatchCase data = make_case(VectorKind::kGaussian, 784, 48, 64);
      const std::vector<std::span<const float>> spans(data.queries.begin(), data.queries.end());
      const auto batch = PreparedBatch::make(metric, spans, *target);
      const float bound = batch.value().error_bound(0, 784.0F);
      // |q||x| is 784, (|q| + |x|)^2 four times that.
      const double size = metric == Metric::kCosine ? 1 : metric == Metric::kDot ? 784 : 4 * 784;
      const double depths = static_cast<double>(target->sum_depth(784) + batch_depth(784));
      EXPECT_LE(bound, 1.2 * depths * 0x1p-24 * size) << target->name;
      EXPECT_GT(bound, 0.0F);
      // Adversarial data reaches a small share of a worst-case bound, but never none.
      EXPECT_GT(check_bound(*target, metric, data), 1e-4);
    }
  }
}

// All roundings in one direction: a running sum just above a power of two, and terms of a little
// more than half its last place.
TEST(PreparedBatch, BoundHoldsWhenRoundingsConspire) {
  for (const Kernels* target : supported_kernels()) {
    for (const size_t dim : {130, 784, 4096}) {
      for (const Metric metric : kAllMetrics) {
        BatchCase data;
        data.dim = dim;
        std::vector<float> query(dim, 0x1.000002p-24F);
        query[0] = 1;
        data.queries = {query};
        data.rows.assign(dim, 1.0F);
        data.norms = {norm_squared(data.rows.data(), dim)};
        check_bound(*target, metric, data);
        for (size_t k = 0; k < dim; k += kBatchDepth) data.queries[0][k] = 1;
        check_bound(*target, metric, data);
      }
    }
  }
}

TEST(PreparedBatch, BoundIsInfiniteWhereSumsCanOverflow) {
  for (const Kernels* target : supported_kernels()) {
    const std::vector<float> big(4, 1e19F);
    const std::vector<float> one(4, 1.0F);
    const std::vector<std::span<const float>> spans = {one, big};
    for (const Metric metric : {Metric::kDot, Metric::kL2}) {
      const auto batch = PreparedBatch::make(metric, spans, *target);
      EXPECT_TRUE(std::isfinite(batch.value().error_bound(0, 4.0F)));
      EXPECT_EQ(batch.value().error_bound(0, kFarthest), kFarthest);
      EXPECT_EQ(batch.value().error_bound(0, std::nanf("")), kFarthest);
      EXPECT_EQ(batch.value().error_bound(1, 3e38F), kFarthest);
    }
    const auto cosine = PreparedBatch::make(Metric::kCosine, spans, *target);
    EXPECT_LT(cosine.value().error_bound(1, 3e38F), 1e-5F);
  }
}

TEST(PreparedBatch, RowsWhoseNormIsNoNormalFloatEqualTheSingleQuery) {
  for (const Kernels* target : supported_kernels()) {
    const std::vector<std::vector<float>> queries = {{1, 2, 3}, {-1, 0, 1}, {0, 1e-3F, 0}};
    const std::vector<float> rows = {0, 0,   0, 1e-40F, 0, 1e-40F, 1e25F,    2e25F, -1e25F,
                                     1, NAN, 1, 1,      2, 3,      INFINITY, 0,     0};
    const size_t n = rows.size() / 3;
    std::vector<float> norms;
    for (size_t i = 0; i < n; ++i) norms.push_back(norm_squared(&rows[i * 3], 3));
    const std::vector<std::span<const float>> spans(queries.begin(), queries.end());
    const auto batch = PreparedBatch::make(Metric::kCosine, spans, *target);
    std::vector<float> out(n * batch.value().stride());
    batch.value().distances(rows.data(), norms.data(), n, out.data());
    for (size_t q = 0; q < queries.size(); ++q) {
      std::vector<float> exact(n);
      PreparedQuery::make(Metric::kCosine, queries[q], *target)
          .value()
          .distances(rows.data(), norms.data(), n, exact.data());
      for (size_t i = 0; i < n; ++i) {
        if (i == 4) continue;  // the ordinary row
        EXPECT_EQ(out[i * batch.value().stride() + q], exact[i]) << target->name << i << q;
      }
      EXPECT_EQ(exact[0], kFarthest);
      EXPECT_TRUE(std::isfinite(exact[1]));
      EXPECT_TRUE(std::isfinite(exact[2]));
      EXPECT_EQ(exact[3], kFarthest);
      EXPECT_EQ(exact[5], kFarthest);
    }
  }
}

TEST(Selection, FrontDoor) {
  const std::vector<float> values = {3, 1, 2, kFarthest};
  const std::vector<float> thresholds = {3, 0, 5, kFarthest};
  uint32_t out[4];
  ASSERT_EQ(select_at_most(values.data(), thresholds.data(), 4, out), 3U);
  EXPECT_EQ(out[0], 0U);
  EXPECT_EQ(out[1], 2U);
  EXPECT_EQ(out[2], 3U);
  ASSERT_EQ(select_at_most(values.data(), 1.5F, 4, out), 1U);
  EXPECT_EQ(out[0], 1U);
  const std::vector<std::string_view> names = simd_target_names();
  EXPECT_EQ(names.back(), "scalar");
  EXPECT_NE(std::find(names.begin(), names.end(), simd_target_name()), names.end());
}

}  // namespace
}  // namespace aionbd::metric_test
