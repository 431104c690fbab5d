#include "quant/projection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/sanitized.h"

namespace aionbd {
namespace {

/// `rank` directions of variance 1, the rest of variance noise^2.
Matrix low_rank(size_t rows, size_t dim, size_t rank, double noise, Rng* rng) {
  const Matrix factors = random_normal(rows, rank, rng);
  Matrix directions = random_normal(rank, dim, rng);
  orthonormalize_rows(&directions, rng);
  Matrix out = multiply_transposed(factors, transposed(directions));
  const Matrix extra = random_normal(rows, dim, rng);
  for (size_t i = 0; i < out.values.size(); ++i) {
    out.values[i] += static_cast<float>(noise) * extra.values[i];
  }
  return out;
}

/// Rows whose variance falls as 1 / (1 + k)^power along random directions.
Matrix power_spectrum(size_t rows, size_t dim, double power, Rng* rng) {
  Matrix out = random_normal(rows, dim, rng);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t k = 0; k < dim; ++k) {
      out.row(i)[k] *= static_cast<float>(std::pow(1.0 + static_cast<double>(k), -power / 2));
    }
  }
  Matrix rotation = random_normal(dim, dim, rng);
  orthonormalize_rows(&rotation, rng);
  return multiply_transposed(out, rotation);
}

std::string saved(const Projection& projection) {
  std::string out;
  projection.save(&out);
  return out;
}

double distance(const float* a, const float* b, size_t n) {
  double sum = 0;
  for (size_t k = 0; k < n; ++k) {
    sum += (static_cast<double>(a[k]) - b[k]) * (static_cast<double>(a[k]) - b[k]);
  }
  return std::sqrt(sum);
}

std::vector<float> applied(const Projection& p, const Matrix& rows, std::vector<float>* slack) {
  std::vector<float> out(rows.rows * p.coordinates());
  slack->resize(rows.rows);
  p.apply(rows.row(0), rows.rows, out.data(), slack->data());
  return out;
}

/// Eigenvalues of a symmetric matrix by Jacobi's rotations, in double; largest first.
std::vector<double> eigenvalues(std::vector<double> a, size_t n) {
  for (int sweep = 0; sweep < 30; ++sweep) {
    double off = 0;
    for (size_t p = 0; p < n; ++p) {
      for (size_t q = p + 1; q < n; ++q) {
        const double apq = a[p * n + q];
        off += apq * apq;
        if (std::abs(apq) < 1e-300) continue;
        const double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1);
        const double s = t * c;
        for (size_t k = 0; k < n; ++k) {
          const double x = a[k * n + p];
          const double y = a[k * n + q];
          a[k * n + p] = c * x - s * y;
          a[k * n + q] = s * x + c * y;
        }
        for (size_t k = 0; k < n; ++k) {
          const double x = a[p * n + k];
          const double y = a[q * n + k];
          a[p * n + k] = c * x - s * y;
          a[q * n + k] = s * x + c * y;
        }
      }
    }
    if (off < 1e-18) break;
  }
  std::vector<double> values(n);
  for (size_t k = 0; k < n; ++k) values[k] = a[k * n + k];
  std::sort(values.rbegin(), values.rend());
  return values;
}

double optimal_kept_variance(const Matrix& rows, size_t count) {
  const size_t n = rows.columns;
  std::vector<double> mean(n);
  for (size_t i = 0; i < rows.rows; ++i) {
    for (size_t k = 0; k < n; ++k) mean[k] += rows.row(i)[k] / static_cast<double>(rows.rows);
  }
  std::vector<double> covariance(n * n);
  for (size_t i = 0; i < rows.rows; ++i) {
    for (size_t j = 0; j < n; ++j) {
      const double x = rows.row(i)[j] - mean[j];
      for (size_t k = 0; k < n; ++k) covariance[j * n + k] += x * (rows.row(i)[k] - mean[k]);
    }
  }
  const std::vector<double> values = eigenvalues(std::move(covariance), n);
  double total = 0;
  double kept = 0;
  for (size_t k = 0; k < n; ++k) {
    total += values[k];
    if (k < count) kept += values[k];
  }
  return kept / total;
}

TEST(Projection, FewDimensionsAreAllKept) {
  Rng rng(1);
  for (const size_t dim : {1U, 2U, 7U, 100U, 112U}) {
    const Matrix rows = random_normal(300, dim, &rng);
    const Projection p = Projection::train(rows, 5);
    EXPECT_EQ(p.dim(), dim);
    EXPECT_EQ(p.coordinates(), dim);
    EXPECT_EQ(p.kept_variance(), 1);
    std::vector<float> slack;
    const std::vector<float> y = applied(p, rows, &slack);
    for (size_t i = 1; i < rows.rows; ++i) {
      const double exact = distance(rows.row(0), rows.row(i), dim);
      const double got = distance(y.data(), y.data() + i * dim, dim);
      ASSERT_NEAR(got, exact, slack[0] + slack[i]);
      ASSERT_LT(slack[i], 2e-4 * std::sqrt(static_cast<double>(dim)) + 1e-5);
    }
  }
}

TEST(Projection, LowRankDataKeepsFewCoordinates) {
  Rng rng(2);
  const Matrix rows = low_rank(2000, 500, 20, 0.01, &rng);
  const Projection p = Projection::train(rows, 5);
  EXPECT_EQ(p.coordinates(), 112U);
  EXPECT_GT(p.kept_variance(), 0.99F);
  std::vector<float> slack;
  const std::vector<float> y = applied(p, rows, &slack);
  const size_t width = p.coordinates();
  for (size_t i = 1; i < rows.rows; ++i) {
    const double exact = distance(rows.row(0), rows.row(i), 500);
    const double got = distance(y.data(), y.data() + i * width, width);
    ASSERT_LE(got, exact + slack[0] + slack[i]);
    ASSERT_GE(got, 0.98 * exact);
    // The dropped length is 5 % of the whole here: the residual's error, not the root of a
    // difference's.
    ASSERT_LT(slack[i], 2e-3 * 6);
  }
}

TEST(Projection, OneMoreDimensionThanALineHolds) {
  Rng rng(3);
  const Projection p = Projection::train(random_normal(400, 240, &rng), 5);
  EXPECT_LE(p.coordinates(), 240U);
  const Projection q = Projection::train(random_normal(400, 113, &rng), 5);
  EXPECT_LE(q.coordinates(), 113U);
}

TEST(Projection, ExtremeSamplesWork) {
  Rng rng(4);
  for (const size_t dim : {3U, 112U, 113U, 784U}) {
    Matrix equal(50, dim);
    std::fill(equal.values.begin(), equal.values.end(), 3.25F);
    Matrix huge = random_normal(60, dim, &rng);
    for (float& value : huge.values) value *= 1e16F;
    Matrix tiny = random_normal(60, dim, &rng);
    for (float& value : tiny.values) value *= 1e-35F;
    for (const Matrix& sample :
         {random_normal(1, dim, &rng), equal, random_normal(40, dim, &rng), huge, tiny}) {
      const Projection p = Projection::train(sample, 5);
      EXPECT_EQ(p.dim(), dim);
      EXPECT_TRUE(p.kept_variance() >= 0 && p.kept_variance() <= 1);
      std::vector<float> slack;
      const std::vector<float> y = applied(p, sample, &slack);
      for (const float value : y) ASSERT_TRUE(std::isfinite(value));
      for (size_t i = 1; i < sample.rows; ++i) {
        ASSERT_LE(distance(y.data(), y.data() + i * p.coordinates(), p.coordinates()),
                  distance(sample.row(0), sample.row(i), dim) * (1 + 1e-12) +
                      (static_cast<double>(slack[0]) + slack[i]));
      }
      EXPECT_TRUE(Projection::load(as_bytes_of(saved(p))).has_value());
    }
  }
}

// What decides the directions is the shape of the data, not its unit.
TEST(Projection, ScaleDoesNotChangeTheDirections) {
  Rng rng(5);
  const Matrix rows = low_rank(500, 200, 30, 0.05, &rng);
  const Projection p = Projection::train(rows, 5);
  for (const float scale : {0x1p50F, 0x1p-80F}) {
    Matrix scaled = rows;
    for (float& value : scaled.values) value *= scale;
    const Projection q = Projection::train(scaled, 5);
    EXPECT_EQ(q.coordinates(), p.coordinates());
    EXPECT_EQ(q.kept_variance(), p.kept_variance());
  }
}

TEST(Projection, SameSeedSameBytes) {
  Rng rng(6);
  for (const size_t dim : {50U, 150U}) {
    const Matrix rows = random_normal(200, dim, &rng);
    EXPECT_EQ(saved(Projection::train(rows, 5)), saved(Projection::train(rows, 5)));
    EXPECT_NE(saved(Projection::train(rows, 5)), saved(Projection::train(rows, 6)));
  }
}

TEST(Projection, KeepsNearlyTheMostVariancePossible) {
  Rng rng(7);
  for (const double power : {0.0, 0.3, 1.0, 2.0}) {
    if (kSanitized && power != 1.0) continue;
    const Matrix rows = power_spectrum(1500, 180, power, &rng);
    const Projection p = Projection::train(rows, 5);
    const size_t kept = p.coordinates() == 180 ? 180 : p.coordinates() - 1;
    EXPECT_GT(p.kept_variance(), 0.995 * optimal_kept_variance(rows, kept))
        << power << ", kept " << kept;
  }
  // The most directions tried first are fewer than the dimensions.
  const Matrix rows = power_spectrum(1200, 320, 1.2, &rng);
  const Projection p = Projection::train(rows, 5);
  ASSERT_LT(p.coordinates(), 250U);
  EXPECT_GT(p.kept_variance(), 0.995 * optimal_kept_variance(rows, p.coordinates() - 1));
}

TEST(Projection, SuitsRowsLikeItsOwnOnly) {
  Rng rng(21);
  const Matrix rows = low_rank(3000, 300, 20, 0.01, &rng);
  Matrix first = rows;
  first.rows = 2000;
  first.values.resize(first.rows * first.columns);
  const Projection projection = Projection::train(first, 1);
  ASSERT_LT(projection.coordinates(), 300u);
  Matrix others(1000, 300);
  std::copy_n(rows.row(2000), others.values.size(), others.values.begin());
  EXPECT_TRUE(projection.suits(others));
  Matrix one(1, 300);
  std::copy_n(rows.row(0), 300, one.values.begin());
  EXPECT_FALSE(projection.suits(one)) << "one row alone has no spread of its own";
  // The same directions, but far from the mean.
  Matrix away = others;
  for (float& value : away.values) value += 1;
  EXPECT_FALSE(projection.suits(away));
  // Other directions.
  EXPECT_FALSE(projection.suits(low_rank(1000, 300, 20, 0.01, &rng)));
  Matrix tiny = others;
  for (float& value : tiny.values) value *= 1e-18F;
  EXPECT_FALSE(projection.suits(tiny)) << "all of them where the mean is not";
}

TEST(Projection, OneByOneIsWithinTheSlackOfAllAtOnce) {
  Rng rng(8);
  for (const double noise : {1e-3, 0.2}) {
    const Matrix rows = low_rank(600, 300, 20, noise, &rng);
    const Projection p = Projection::train(rows, 5);
    std::vector<float> slack;
    const std::vector<float> y = applied(p, rows, &slack);
    std::vector<float> one(p.coordinates());
    std::vector<float> no_slack(y.size());
    p.apply(rows.row(0), rows.rows, no_slack.data(), nullptr);
    EXPECT_EQ(no_slack, y);
    for (size_t i = 0; i < rows.rows; ++i) {
      float one_slack = 0;
      p.apply(rows.row(i), 1, one.data(), &one_slack);
      ASSERT_LE(distance(one.data(), y.data() + i * p.coordinates(), p.coordinates()),
                one_slack + slack[i]);
    }
  }
}

TEST(Projection, FastFormIsClose) {
  Rng rng(9);
  for (const size_t dim : {64U, 300U}) {
    const Matrix rows = low_rank(600, dim, 20, 0.1, &rng);
    const Projection p = Projection::train(rows, 5);
    std::vector<float> slack;
    const std::vector<float> y = applied(p, rows, &slack);
    const size_t kept = p.coordinates() - (p.coordinates() < dim ? 1 : 0);
    std::vector<float> fast(p.coordinates());
    for (size_t i = 0; i < rows.rows; ++i) {
      p.apply_fast(rows.row(i), fast.data());
      const float* row = y.data() + i * p.coordinates();
      const double length = distance(row, std::vector<float>(kept).data(), kept);
      ASSERT_LT(distance(fast.data(), row, kept), 0.03 * length);
      ASSERT_LT(distance(fast.data(), row, p.coordinates()), 0.05 * length);
    }
  }
}

TEST(Projection, VectorsTooLongAreScaledWithInfiniteSlack) {
  Rng rng(10);
  for (const size_t dim : {10U, 200U}) {
    const Projection p = Projection::train(low_rank(300, dim, 5, 0.1, &rng), 5);
    Matrix rows(3, dim);
    rows.row(0)[0] = 1e30F;
    rows.row(1)[0] = std::numeric_limits<float>::infinity();
    rows.row(2)[0] = 1e15F;
    std::vector<float> slack;
    const std::vector<float> y = applied(p, rows, &slack);
    for (const float value : y) EXPECT_TRUE(std::isfinite(value));
    EXPECT_EQ(slack[0], std::numeric_limits<float>::infinity());
    EXPECT_EQ(slack[1], std::numeric_limits<float>::infinity());
    EXPECT_TRUE(std::isfinite(slack[2]));
    const std::vector<float> zeros(p.coordinates());
    EXPECT_GT(distance(y.data(), zeros.data(), p.coordinates()), 0.5e18);
  }
}

TEST(Projection, KnowsItsOwnBytes) {
  Rng rng(22);
  const Projection one = Projection::train(low_rank(500, 200, 20, 0.01, &rng), 1);
  const Projection other = Projection::train(low_rank(500, 200, 20, 0.01, &rng), 1);
  const std::string bytes = saved(one);
  EXPECT_TRUE(one.saved_as(as_bytes_of(bytes)));
  EXPECT_FALSE(other.saved_as(as_bytes_of(bytes)));
  EXPECT_FALSE(one.saved_as(as_bytes_of(bytes.substr(1))));
}

TEST(Projection, LoadedGivesTheSameBits) {
  Rng rng(11);
  for (const size_t dim : {1U, 40U, 200U}) {
    const Matrix rows = low_rank(400, dim, std::min<size_t>(dim, 10), 0.1, &rng);
    const Projection p = Projection::train(rows, 5);
    const std::string bytes = saved(p);
    const Result<Projection> loaded = Projection::load(as_bytes_of(bytes));
    ASSERT_TRUE(loaded.has_value()) << loaded.status().to_string();
    EXPECT_EQ(loaded->dim(), p.dim());
    EXPECT_EQ(loaded->kept_variance(), p.kept_variance());
    EXPECT_EQ(saved(*loaded), bytes);
    std::vector<float> slack;
    std::vector<float> loaded_slack;
    EXPECT_EQ(applied(*loaded, rows, &loaded_slack), applied(p, rows, &slack));
    EXPECT_EQ(loaded_slack, slack);
    std::vector<float> a(p.coordinates());
    std::vector<float> b(p.coordinates());
    p.apply_fast(rows.row(3), a.data());
    loaded->apply_fast(rows.row(3), b.data());
    EXPECT_EQ(a, b);
  }
}

template <typename T>
std::string with(std::string bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(T));
  return bytes;
}

TEST(Projection, LoadRefusesWhatTrainingCannotHaveMade) {
  Rng rng(12);
  const std::string good = saved(Projection::train(low_rank(200, 130, 5, 0.1, &rng), 5));
  ASSERT_TRUE(Projection::load(as_bytes_of(good)).has_value());
  const auto refused = [](const std::string& bytes) {
    const Result<Projection> loaded = Projection::load(as_bytes_of(bytes));
    return !loaded.has_value() && loaded.error().code() == Code::kCorruption;
  };
  for (size_t size = 0; size < good.size(); size += size < 40 ? 1 : 997) {
    EXPECT_TRUE(refused(good.substr(0, size))) << size;
  }
  EXPECT_TRUE(refused(good + "x"));
  for (const uint32_t size : {0U, 129U, 131U, 65538U, 0xFFFFFFFFU}) {
    EXPECT_TRUE(refused(with(good, 0, size))) << size;
    EXPECT_TRUE(refused(with(good, 4, size))) << size;
  }
  // dim, kept, kept variance, mean dropped length, deviation, mean, matrix.
  constexpr size_t kVariance = 8;
  constexpr size_t kDropped = 12;
  constexpr size_t kDeviation = 16;
  constexpr size_t kMean = 24;
  constexpr size_t kMatrix = kMean + 130 * 4;
  for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY), -1.0}) {
    const auto bad_float = static_cast<float>(bad);
    EXPECT_TRUE(refused(with(good, kVariance, bad_float))) << bad;
    EXPECT_TRUE(refused(with(good, kDropped, bad_float))) << bad;
    EXPECT_TRUE(refused(with(good, kDeviation, bad))) << bad;
    EXPECT_EQ(refused(with(good, kMean + 8, bad_float)), bad != -1.0) << bad;
    EXPECT_TRUE(refused(with(good, kMatrix + 400, bad_float))) << bad;
    EXPECT_TRUE(refused(with(good, good.size() - 4, bad_float))) << bad;
  }
  EXPECT_TRUE(refused(with(good, kDeviation, 0.5)));
  EXPECT_TRUE(refused(with(good, kMatrix, 1e38F)));
}

}  // namespace
}  // namespace aionbd
