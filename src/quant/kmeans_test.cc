// Clusters: every row in one, none too long, the same for any number of threads; and near the best.
#include "quant/kmeans.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "quant/matrix.h"

namespace aionbd {
namespace {

/// Rows around `centres` random points: coordinates of the points have deviation 10, of the rows
/// around them 1.
Matrix clustered(size_t rows, size_t columns, size_t centres, uint64_t seed) {
  Rng rng(seed);
  const Matrix middle = random_normal(centres, columns, &rng);
  Matrix out = random_normal(rows, columns, &rng);
  for (size_t i = 0; i < rows; ++i) {
    const float* centre = middle.row(rng.below(centres));
    for (size_t k = 0; k < columns; ++k) out.row(i)[k] += 10 * centre[k];
  }
  return out;
}

Clusters cluster(const Matrix& rows, const KMeansParameters& parameters, size_t helpers = 1) {
  ThreadPool pool(helpers);
  return cluster_rows(rows.values.data(), rows.rows, rows.columns, parameters, &pool);
}

/// What holds for any rows.
void expect_whole(const Matrix& rows, const KMeansParameters& parameters, const Clusters& out) {
  ASSERT_GE(out.offsets.size(), 1U);
  EXPECT_EQ(out.offsets.front(), 0U);
  EXPECT_EQ(out.offsets.back(), rows.rows);
  EXPECT_EQ(out.centroids.size(), out.count() * rows.columns);
  std::vector<int> met(rows.rows);
  const double mean = static_cast<double>(rows.rows) /
                      static_cast<double>(std::min<size_t>(parameters.clusters, rows.rows));
  for (size_t c = 0; c < out.count(); ++c) {
    const auto members = out.members_of(c);
    EXPECT_FALSE(members.empty());
    EXPECT_LE(static_cast<double>(members.size()),
              std::max(1.0, std::max(1.0, parameters.longest_share) * mean));
    EXPECT_TRUE(std::is_sorted(members.begin(), members.end()));
    std::vector<double> sum(rows.columns);
    for (const uint32_t row : members) {
      ASSERT_LT(row, rows.rows);
      ++met[row];
      for (size_t k = 0; k < rows.columns; ++k) sum[k] += rows.row(row)[k];
    }
    for (size_t k = 0; k < rows.columns; ++k) {
      const double want = sum[k] / static_cast<double>(members.size());
      EXPECT_NEAR(out.centroids[c * rows.columns + k], want, 1e-6 * std::abs(want) + 1e-30);
    }
  }
  EXPECT_EQ(std::count(met.begin(), met.end(), 1), static_cast<std::ptrdiff_t>(rows.rows));
}

double squared_error(const Matrix& rows, const Clusters& clusters) {
  double sum = 0;
  for (size_t c = 0; c < clusters.count(); ++c) {
    for (const uint32_t row : clusters.members_of(c)) {
      for (size_t k = 0; k < rows.columns; ++k) {
        const double d = rows.row(row)[k] - clusters.centroids[c * rows.columns + k];
        sum += d * d;
      }
    }
  }
  return sum;
}

TEST(KMeans, FindsTheClustersThatAreThere) {
  // The error of the true centres is 1 per row and column, and each two that share a centroid add
  // about 2.5. Over 20 seeds this makes 1.3 .. 4.7, on average 2.8; uniformly drawn seeds in place
  // of k-means++ make 6.9 .. 16.7.
  double error = 0;
  constexpr int kTimes = 6;
  for (int i = 0; i < kTimes; ++i) {
    const Matrix rows = clustered(6000, 12, 40, 100 + i);
    const KMeansParameters parameters = {40, 4, static_cast<uint64_t>(i)};
    const Clusters out = cluster(rows, parameters);
    expect_whole(rows, parameters, out);
    EXPECT_NEAR(static_cast<double>(out.count()), 40, 2);
    error += squared_error(rows, out) / (6000 * 12);
  }
  EXPECT_LT(error / kTimes, 4);
}

TEST(KMeans, AgainstNoStructureIsBetterThanChance) {
  Rng rng(5);
  const Matrix rows = random_normal(5000, 4, &rng);
  const KMeansParameters parameters = {200, 4, 9};
  const Clusters out = cluster(rows, parameters);
  expect_whole(rows, parameters, out);
  // 200 cells of 4-dimensional normal rows: high-rate quantisation gives about 0.2 per column.
  EXPECT_LT(squared_error(rows, out), 0.25 * 5000 * 4);
  double nearest_error = 0;
  size_t astray = 0;  // rows with a centroid much nearer than their own
  for (size_t c = 0; c < out.count(); ++c) {
    for (const uint32_t row : out.members_of(c)) {
      double own = 0;
      double best = 1e30;
      for (size_t other = 0; other < out.count(); ++other) {
        double d = 0;
        for (size_t k = 0; k < 4; ++k) {
          const double x = rows.row(row)[k] - out.centroids[other * 4 + k];
          d += x * x;
        }
        best = std::min(best, d);
        if (other == c) own = d;
      }
      nearest_error += best;
      astray += own > 2 * best + 0.01 ? 1 : 0;
    }
  }
  EXPECT_LT(squared_error(rows, out), 1.1 * nearest_error);
  EXPECT_LT(astray, 250U);
}

TEST(KMeans, DependsOnTheSeedAndNotOnThreads) {
  const Matrix rows = clustered(9000, 7, 30, 4);
  const KMeansParameters parameters = {60, 1.5, 42};
  const Clusters one = cluster(rows, parameters, 0);
  for (const size_t helpers : {1, 3, 7}) {
    const Clusters many = cluster(rows, parameters, helpers);
    EXPECT_EQ(one.centroids, many.centroids);
    EXPECT_EQ(one.offsets, many.offsets);
    EXPECT_EQ(one.members, many.members);
  }
  EXPECT_NE(one.members, cluster(rows, {60, 1.5, 43}).members);
}

TEST(KMeans, SplitsWhatIsTooLong) {
  // Nine tenths of the rows in one tight place.
  Matrix rows = clustered(4000, 5, 20, 8);
  Rng rng(1);
  for (size_t i = 0; i < 3600; ++i) {
    for (size_t k = 0; k < 5; ++k) rows.row(i)[k] = static_cast<float>(1e-3 * rng.uniform());
  }
  for (const double share : {1.0, 1.5, 3.0}) {
    const KMeansParameters parameters = {32, share, 2};
    const Clusters out = cluster(rows, parameters);
    expect_whole(rows, parameters, out);
    // A split leaves no part below a quarter.
    EXPECT_LE(static_cast<double>(out.count()), 32 + 4 * 32 / share);
  }
}

TEST(KMeans, EqualRows) {
  for (const float value : {0.0F, 3.5F, 1e17F}) {
    Matrix rows(1000, 3);
    std::fill(rows.values.begin(), rows.values.end(), value);
    const KMeansParameters parameters = {16, 2, 1};
    const Clusters out = cluster(rows, parameters);
    expect_whole(rows, parameters, out);
    EXPECT_GE(out.count(), 8U);   // by the bound on their lengths alone
    EXPECT_LE(out.count(), 48U);  // no part of a split is below a quarter
  }
}

TEST(KMeans, FewDistinctRows) {
  Matrix rows(3000, 2);
  for (size_t i = 0; i < rows.rows; ++i) {
    rows.row(i)[0] = static_cast<float>(i % 5);
    rows.row(i)[1] = i % 5 == 2 ? 7.0F : -1.0F;
  }
  const KMeansParameters parameters = {50, 100, 1};
  const Clusters out = cluster(rows, parameters);
  expect_whole(rows, parameters, out);
  EXPECT_EQ(out.count(), 5U);
  EXPECT_LT(squared_error(rows, out), 1e-6);
}

TEST(KMeans, SmallNumbers) {
  for (const size_t n : {0, 1, 2, 3, 17}) {
    for (const uint32_t wanted : {1U, 2U, 5U, 1000U}) {
      for (const size_t columns : {1, 2, 33}) {
        Rng rng(n + wanted);
        const Matrix rows = random_normal(n, columns, &rng);
        const KMeansParameters parameters = {wanted, 1, 1};
        expect_whole(rows, parameters, cluster(rows, parameters));
      }
    }
  }
}

TEST(KMeans, MoreClustersThanRowsOfOneProduct) {
  const Matrix rows = clustered(3000, 1, 600, 1);
  const KMeansParameters parameters = {777, 3, 1};
  const Clusters out = cluster(rows, parameters);
  expect_whole(rows, parameters, out);
  EXPECT_GT(out.count(), 500U);
}

}  // namespace
}  // namespace aionbd
