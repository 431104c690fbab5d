#include "quant/matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace aionbd {
namespace {

double product(const float* a, const float* b, size_t n) {
  double sum = 0;
  for (size_t k = 0; k < n; ++k) sum += static_cast<double>(a[k]) * b[k];
  return sum;
}

double worst_deviation(const Matrix& a) {
  double worst = 0;
  for (size_t i = 0; i < a.rows; ++i) {
    for (size_t j = 0; j < a.rows; ++j) {
      const double off = product(a.row(i), a.row(j), a.columns) - (i == j ? 1 : 0);
      worst = std::isnan(off) ? 1e9 : std::max(worst, std::abs(off));
    }
  }
  return worst;
}

TEST(Matrix, MultiplyTransposedIsTheProduct) {
  Rng rng(1);
  for (const size_t rows : {1U, 3U, 64U, 65U, 130U}) {
    for (const size_t others : {1U, 7U, 49U}) {
      for (const size_t columns : {1U, 15U, 300U}) {
        const Matrix a = random_normal(rows, columns, &rng);
        const Matrix b = random_normal(others, columns, &rng);
        const Matrix got = multiply_transposed(a, b);
        ASSERT_EQ(got.rows, rows);
        ASSERT_EQ(got.columns, others);
        for (size_t i = 0; i < rows; ++i) {
          for (size_t j = 0; j < others; ++j) {
            ASSERT_NEAR(got.row(i)[j], product(a.row(i), b.row(j), columns),
                        1e-5 * static_cast<double>(columns));
          }
        }
      }
    }
  }
}

TEST(Matrix, TransposedTwiceIsTheSame) {
  Rng rng(2);
  for (const size_t rows : {1U, 31U, 33U}) {
    for (const size_t columns : {1U, 32U, 70U}) {
      const Matrix a = random_normal(rows, columns, &rng);
      const Matrix b = transposed(a);
      ASSERT_EQ(b.rows, columns);
      for (size_t i = 0; i < rows; ++i) {
        for (size_t j = 0; j < columns; ++j) ASSERT_EQ(b.row(j)[i], a.row(i)[j]);
      }
      EXPECT_EQ(transposed(b).values, a.values);
    }
  }
}

TEST(Matrix, OrthonormalRows) {
  Rng rng(3);
  for (const size_t columns : {1U, 2U, 33U, 112U, 300U}) {
    for (const size_t rows : {size_t{1}, (columns + 1) / 2, columns}) {
      Matrix a = random_normal(rows, columns, &rng);
      orthonormalize_rows(&a, &rng);
      EXPECT_LT(worst_deviation(a), 2e-6) << rows << " x " << columns;
    }
  }
}

TEST(Matrix, OrthonormalRowsKeepTheirSpanInOrder) {
  Rng rng(4);
  const Matrix before = random_normal(70, 200, &rng);
  Matrix after = before;
  orthonormalize_rows(&after, &rng);
  // Row i of the input lies in the span of the first i + 1 rows of the output.
  for (size_t i = 0; i < before.rows; ++i) {
    double inside = 0;
    for (size_t j = 0; j <= i; ++j) {
      const double part = product(before.row(i), after.row(j), before.columns);
      inside += part * part;
    }
    const double all = product(before.row(i), before.row(i), before.columns);
    ASSERT_NEAR(inside / all, 1, 1e-5) << i;
  }
}

TEST(Matrix, DependentRowsAreReplaced) {
  Rng rng(5);
  for (const float scale : {1e-30F, 1.0F, 1e15F}) {
    Matrix a = random_normal(100, 120, &rng);
    for (float& value : a.values) value *= scale;
    for (size_t k = 0; k < a.columns; ++k) {
      a.row(1)[k] = a.row(0)[k];                      // equal
      a.row(2)[k] = 0;                                // zero
      a.row(40)[k] = a.row(3)[k] - 2 * a.row(39)[k];  // of another block
      a.row(50)[k] = a.row(49)[k] * (1 + 1e-6F * static_cast<float>(k % 2));
      a.row(60)[k] = std::numeric_limits<float>::quiet_NaN();
      a.row(61)[k] = std::numeric_limits<float>::infinity();
    }
    orthonormalize_rows(&a, &rng);
    EXPECT_LT(worst_deviation(a), 2e-6);
  }
  Matrix zeros(33, 33);
  orthonormalize_rows(&zeros, &rng);
  EXPECT_LT(worst_deviation(zeros), 2e-6);
}

TEST(Matrix, NearlyDependentRowsStayAccurate) {
  // One direction a thousand times the rest, as the first round of an iteration makes them.
  Rng rng(6);
  Matrix a = random_normal(150, 200, &rng);
  const Matrix direction = random_normal(1, 200, &rng);
  for (size_t i = 0; i < a.rows; ++i) {
    const float weight = 300 * random_normal(1, 1, &rng).values[0];
    for (size_t k = 0; k < a.columns; ++k) a.row(i)[k] += weight * direction.values[k];
  }
  orthonormalize_rows(&a, &rng);
  EXPECT_LT(worst_deviation(a), 2e-6);
}

TEST(Matrix, RandomNormalHasUnitVariance) {
  Rng rng(7);
  const Matrix a = random_normal(100, 1000, &rng);
  double sum = 0;
  for (const float value : a.values) sum += value;
  EXPECT_NEAR(sum / 1e5, 0, 0.015);
  EXPECT_NEAR(product(a.values.data(), a.values.data(), a.values.size()) / 1e5, 1, 0.02);
}

}  // namespace
}  // namespace aionbd
