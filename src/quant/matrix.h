// The few operations on float matrices that training needs. Private to quant/.
#pragma once

#include <cstddef>
#include <vector>

#include "base/rng.h"

namespace aionbd {

/// Row-major float[rows x columns]. Thread safety: compatible.
struct Matrix {
  size_t rows = 0;
  size_t columns = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(size_t r, size_t c) : rows(r), columns(c), values(r * c) {}
  float* row(size_t i) { return values.data() + i * columns; }
  const float* row(size_t i) const { return values.data() + i * columns; }
};

/// a x b^T, float[a.rows x b.rows]: every inner product of a row of `a` with a row of `b`.
/// Each is off by at most gamma(batch_depth(columns)) |a_i| |b_j| (kernels.h), and underflow; one
/// that overflows is the lowest float. REQUIRES: a.columns == b.columns, b.rows > 0.
Matrix multiply_transposed(const Matrix& a, const Matrix& b);

Matrix transposed(const Matrix& a);

/// Makes the rows orthonormal, in order (Gram-Schmidt, twice: Giraud and Langou, 2002; by blocks of
/// rows, nearly all of it matrix products). A row that depends on those before it, or is not
/// finite, is replaced by a random direction. REQUIRES: rows <= columns.
void orthonormalize_rows(Matrix* a, Rng* rng);

/// rows x columns of independent standard normal numbers.
Matrix random_normal(size_t rows, size_t columns, Rng* rng);

}  // namespace aionbd
