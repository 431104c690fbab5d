// Scalar codes of 8 bits per coordinate in two planes of 4.
//
// A projected row y (projection.h) becomes c = round(y / s) + 128 with its own step s = max|y| /
// 127. The high halves of c are the 4-bit code: two coordinates a byte, with the two numbers of its
// estimator behind them, in whole cache lines; a graph walk reads nothing else. The low halves lie
// in a plane of their own; with them the code is the 8-bit one, precise enough for a useful
// guaranteed bound.
//
// Estimate. With z the 4-bit reconstruction, <q, y> is estimated as <q, z> |y|^2 / <z, y>, which
// makes the error orthogonal to y and so removes the bias (RaBitQ, Gao and Long, SIGMOD 2024; more
// bits: Gao et al., "Practical and Asymptotically Optimal Quantization", SIGMOD 2025). Departures:
// the step follows the largest coordinate instead of a search for the best one, so that both planes
// share it, and the query is quantised to 8 bits.
//
// Bound. With x the 8-bit reconstruction, e(y) = |y - x| stored per row and e(q) known for the
// quantised query p: |q - y| >= |p - x| - e(q) - e(y) (triangle inequality), minus stated rounding.
// |p - x| comes from an exact integer product. The roundings are counted in plane_codec.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "distance/metric.h"

namespace aionbd {

/// Bytes behind the nibbles of a row: the two numbers of the estimator.
inline constexpr size_t kRowTailBytes = 8;

/// The most coordinates whose 4-bit code, with its tail, fits in `lines` cache lines.
constexpr size_t coordinates_in_lines(size_t lines) {
  return 2 * (lines * 64 - kRowTailBytes);
}

/// Sizes that follow from the number of coordinates. Thread safety: immutable.
struct PlaneLayout {
  explicit PlaneLayout(size_t coordinates_count)
      : coordinates(coordinates_count),
        half((coordinates_count + 1) / 2),
        lines((half + kRowTailBytes + 63) / 64) {}

  size_t coordinates;
  size_t half;   // bytes of nibbles; byte j holds coordinates j (low) and half + j (high)
  size_t lines;  // 64-byte lines of a high row

  size_t high_stride() const { return lines * 64; }
  size_t low_stride() const { return half; }
  /// The low plane is read in whole lines, so it ends with this much room.
  size_t low_bytes(size_t rows) const { return rows * half + lines * 64; }
};

/// The codes of many rows where they lie. Any of the last four may be null when no bound is asked.
/// Thread safety: immutable.
struct PlaneCodes {
  const uint8_t* high = nullptr;  // uint8_t[rows x high_stride], 64-byte aligned
  const uint8_t* low = nullptr;   // uint8_t[low_bytes(rows)]
  const float* step = nullptr;    // float[rows]
  const float* norm = nullptr;    // float[rows]: |x|^2
  const float* error = nullptr;   // float[rows]: at least |y - x|, the row's slack included
};

/// What encoding makes. Thread safety: single owner.
struct EncodedPlanes {
  AlignedFloats high;  // as bytes: rows x high_stride
  std::vector<uint8_t> low;
  std::vector<float> step, norm, error;

  PlaneCodes codes() const;
  const uint8_t* high_bytes() const { return reinterpret_cast<const uint8_t*>(high.data()); }
};

/// y: float[n x coordinates], slack: float[n] (projection.h). Appends in order. Any floats are
/// allowed: a row that is not finite, or longer than 2e18, gets a code far out and a bound of 0.
void encode_planes(const PlaneLayout& layout, const float* y, const float* slack, size_t n,
                   EncodedPlanes* out);

/// One query against codes. Thread safety: immutable.
class PlaneQuery {
 public:
  /// y: float[coordinates]; slack: of the projection. A query that is not finite or longer than
  /// 2e18 has bounds of 0 and meaningless estimates.
  PlaneQuery(const PlaneLayout& layout, const float* y, float slack);

  /// out[i] = estimated squared distance to row ids[i]; near zero it may be negative. Reads the
  /// high plane only.
  void estimate(const uint8_t* high, const uint32_t* ids, size_t n, float* out) const;
  /// The same for the n consecutive rows at `high`.
  void estimate_scan(const uint8_t* high, size_t n, float* out) const;
  /// out[i] = a number that the squared distance of the exact vectors is not below, for the rows
  /// [first, first + n). Reads the low plane only of rows that the high plane alone does not put
  /// beyond `reach`; the bounds of the others are smaller than they could be, but beyond it, too.
  /// REQUIRES: n <= kBoundRows.
  void lower_bounds(const PlaneCodes& codes, size_t first, size_t n, float reach, float* out) const;
  static constexpr size_t kBoundRows = 256;

 private:
  void finish_estimates(float* out, size_t n, const int32_t* sums, const uint8_t* high,
                        const uint32_t* ids) const;

  PlaneLayout layout_;
  AlignedFloats weights_;  // as int8_t[2 x lines x 64]
  int32_t weights_sum_ = 0;
  int32_t low_most_ = 0;  // the most that a low plane adds: 15 for each weight above zero
  float step_ = 0;
  float norm_ = 0;       // |y|^2
  float code_norm_ = 0;  // |p|^2
  float error_ = 0;      // at least |y - p|, slack and roundings included
};

}  // namespace aionbd
