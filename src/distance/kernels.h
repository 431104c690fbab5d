// The arithmetic under the metrics, once per instruction set.
//
// Every kernel is one query (or a packed batch of queries) against many contiguous rows; one-to-one
// is n = 1. `kernels_scalar.cc` is the readable definition; `kernels.cc` is the fast form, one
// source compiled for each target.
//
// Order of additions. It is fixed by dim and target alone, so the value of a row depends neither on
// n nor on the row's place:
//   dot, l2_squared   element i belongs to partial sum i mod (lanes x accumulators), each partial
//                     sum runs in ascending i, a balanced tree adds the partial sums;
//   batch             kBatchDepth consecutive elements at a time, ascending; then the sums of these
//                     pieces, ascending.
// `sum_depth` and `batch_depth` are the longest chains of roundings that follow from it; the error
// bounds in metric.cc are built on them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace aionbd {

/// Elements summed before a piece is added to the total: short enough to keep the error bound of
/// long vectors small (it grows with depth, not with dim), long enough to cost nothing.
inline constexpr size_t kBatchDepth = 128;

/// A block of rows against packed queries:
///   out[i * columns + c] =
///       clamp((sum over k of row_i[k] * packed(k, c)) * row_scale[i] + (column_add[c] +
///       row_add[i]))
/// A result that is not finite before clamping becomes +infinity.
struct BatchArguments {
  const float* rows = nullptr;  // float[n x dim]
  size_t n = 0;
  size_t dim = 0;
  /// Panels of `panel_columns` columns, the last one possibly narrower; in a panel of width w that
  /// starts at column c, element (k, c + j) is at packed[c * dim + k * w + j]. 64-byte aligned.
  const float* packed = nullptr;
  size_t columns = 0;                 // a multiple of `lanes`
  const float* column_add = nullptr;  // float[columns]
  const float* row_scale = nullptr;   // float[n]
  const float* row_add = nullptr;     // float[n]
  float lowest = 0;
  float highest = 0;
  float* out = nullptr;  // float[n x columns]
};

/// One instruction set. Thread safety: immutable; the functions are pure.
struct Kernels {
  std::string_view name;  // a value of AIONBD_SIMD
  size_t lanes;           // floats per vector
  size_t accumulators;    // vectors of partial sums per row
  size_t panel_columns;   // of a packed batch, a multiple of lanes

  /// out[i] = query . row_i. query: float[dim], best 64-byte aligned; rows: float[n x dim], any
  /// alignment of float; no byte outside them is read.
  void (*dot)(const float* query, const float* rows, size_t dim, size_t n, float* out);
  /// out[i] = |query - row_i|^2. Same shapes.
  void (*l2_squared)(const float* query, const float* rows, size_t dim, size_t n, float* out);
  /// The same two for rows of bytes, whose values are base + byte: bit for bit what the functions
  /// above give for rows of these values as floats. rows: uint8_t[n x dim].
  void (*dot_bytes)(const float* query, const uint8_t* rows, float base, size_t dim, size_t n,
                    float* out);
  void (*l2_squared_bytes)(const float* query, const uint8_t* rows, float base, size_t dim,
                           size_t n, float* out);
  void (*batch)(const BatchArguments& arguments);
  /// Writes each i with values[i] <= thresholds[i], ascending; returns how many.
  size_t (*select_each)(const float* values, const float* thresholds, size_t n, uint32_t* indexes);
  size_t (*select_one)(const float* values, float threshold, size_t n, uint32_t* indexes);

  /// Longest chain of roundings of one term in `dot`. (`l2_squared` has two more: the difference,
  /// whose square counts it twice.)
  size_t sum_depth(size_t dim) const {
    const size_t partial_sums = lanes * accumulators;
    return (dim + partial_sums - 1) / partial_sums + std::bit_width(partial_sums) - 1;
  }
};

/// The same for the sum of `batch`, every target.
inline size_t batch_depth(size_t dim) {
  return std::min(dim, kBatchDepth) + (dim + kBatchDepth - 1) / kBatchDepth;
}

/// Those this CPU can run, the best first, scalar last.
std::span<const Kernels* const> supported_kernels();
/// The named one if this CPU can run it, else the best.
const Kernels& kernels_by_name(std::string_view name);
/// The choice of this process: AIONBD_SIMD if it names a supported one, else the best. Settled at
/// the first call.
const Kernels& kernels();

/// Plain loops; see kernels_scalar.cc.
extern const Kernels kScalarKernels;

}  // namespace aionbd
