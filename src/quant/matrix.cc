#include "quant/matrix.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "base/check.h"
#include "distance/kernels.h"
#include "distance/metric.h"

namespace aionbd {

Matrix multiply_transposed(const Matrix& a, const Matrix& b) {
  Matrix out(a.rows, b.rows);
  std::vector<std::span<const float>> columns;
  columns.reserve(b.rows);
  for (size_t j = 0; j < b.rows; ++j) columns.emplace_back(b.row(j), b.columns);
  const Result<PreparedBatch> batch = PreparedBatch::make(Metric::kDot, columns);
  CHECK_TRUE(batch.has_value());
  constexpr size_t kBlock = PreparedBatch::kRowsBlock;
  std::vector<float> block(kBlock * batch->stride());
  const std::vector<float> norms(kBlock, 0.0F);
  for (size_t first = 0; first < a.rows; first += kBlock) {
    const size_t n = std::min(kBlock, a.rows - first);
    batch->distances(a.row(first), norms.data(), n, block.data());
    for (size_t i = 0; i < n; ++i) {
      float* row = out.row(first + i);
      for (size_t j = 0; j < b.rows; ++j) row[j] = -block[i * batch->stride() + j];
    }
  }
  return out;
}

Matrix transposed(const Matrix& a) {
  constexpr size_t kTile = 32;  // a tile of each side stays in the first-level cache
  Matrix out(a.columns, a.rows);
  for (size_t i0 = 0; i0 < a.rows; i0 += kTile) {
    for (size_t j0 = 0; j0 < a.columns; j0 += kTile) {
      for (size_t i = i0; i < std::min(a.rows, i0 + kTile); ++i) {
        for (size_t j = j0; j < std::min(a.columns, j0 + kTile); ++j) {
          out.values[j * a.rows + i] = a.values[i * a.columns + j];
        }
      }
    }
  }
  return out;
}

namespace {

/// Rows orthonormalised one by one; the work between such blocks is done by matrix products.
constexpr size_t kOrthoBlock = 32;
/// What is left of a row, as a share of its length, below which it counts as dependent on the rows
/// before it: rounding noise is then a visible part of it.
constexpr double kLost = 1e-3;

/// In double: unlike a float, it neither vanishes nor overflows.
double norm_of(const float* row, size_t n) {
  double sum = 0;
  for (size_t k = 0; k < n; ++k) sum += static_cast<double>(row[k]) * row[k];
  return std::sqrt(sum);
}

/// Makes the row's length 1 and returns what it was; a row of length 0, or not finite, stays.
double normalize(float* row, size_t n) {
  const double length = norm_of(row, n);
  if (!(length > 0) || !std::isfinite(length)) return 0;
  const double inverse = 1 / length;
  for (size_t k = 0; k < n; ++k) row[k] = static_cast<float>(row[k] * inverse);
  return length;
}

/// Takes from `row` what lies in the span of the orthonormal rows [from, to) of `a`.
void remove_components(const Matrix& a, size_t from, size_t to, float* row) {
  if (from == to) return;
  std::vector<float> dots(to - from);
  kernels().dot(row, a.row(from), a.columns, to - from, dots.data());
  for (size_t j = from; j < to; ++j) {
    const float* other = a.row(j);
    const float weight = dots[j - from];
    for (size_t k = 0; k < a.columns; ++k) row[k] -= weight * other[k];
  }
}

Matrix copy_of_rows(const Matrix& a, size_t from, size_t to) {
  Matrix out(to - from, a.columns);
  std::copy(a.row(from), a.row(from) + out.values.size(), out.values.begin());
  return out;
}

/// The same for the rows [from, to) against all rows before `from`, as two matrix products.
void remove_earlier(Matrix* a, size_t from, size_t to) {
  if (from == 0) return;
  const Matrix earlier = copy_of_rows(*a, 0, from);
  const Matrix block = copy_of_rows(*a, from, to);
  const Matrix weights = multiply_transposed(block, earlier);
  const Matrix part = multiply_transposed(weights, transposed(earlier));
  float* values = a->row(from);
  for (size_t i = 0; i < part.values.size(); ++i) values[i] -= part.values[i];
}

/// A random direction orthogonal to the rows before row i, which it replaces.
void replace_row(Matrix* a, size_t i, Rng* rng) {
  float* row = a->row(i);
  double left = 0;
  do {
    const Matrix fresh = random_normal(1, a->columns, rng);
    std::copy(fresh.values.begin(), fresh.values.end(), row);
    normalize(row, a->columns);
    remove_components(*a, 0, i, row);
    left = normalize(row, a->columns);
    remove_components(*a, 0, i, row);
    normalize(row, a->columns);
  } while (left <= kLost);
}

}  // namespace

void orthonormalize_rows(Matrix* a, Rng* rng) {
  for (size_t i = 0; i < a->rows; ++i) normalize(a->row(i), a->columns);
  for (size_t from = 0; from < a->rows; from += kOrthoBlock) {
    const size_t to = std::min(from + kOrthoBlock, a->rows);
    // The second time takes off what rounding left of the first.
    for (int time = 0; time < 2; ++time) {
      remove_earlier(a, from, to);
      for (size_t i = from; i < to; ++i) {
        const double after_blocks = normalize(a->row(i), a->columns);
        remove_components(*a, from, i, a->row(i));
        const double left = after_blocks * normalize(a->row(i), a->columns);
        if (left <= kLost) replace_row(a, i, rng);
      }
    }
  }
}

Matrix random_normal(size_t rows, size_t columns, Rng* rng) {
  Matrix out(rows, columns);
  for (float& value : out.values) {
    // Box and Muller, 1958; 1 - u keeps the logarithm finite.
    const double radius = std::sqrt(-2 * std::log(1 - rng->uniform()));
    value = static_cast<float>(radius * std::cos(2 * std::numbers::pi * rng->uniform()));
  }
  return out;
}

}  // namespace aionbd
