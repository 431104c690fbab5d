// Codes of one bit per coordinate, with corrected estimates and an error term: the first look.
//
// After RaBitQ (Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error
// Bound", SIGMOD 2024). A row y near a centre c is kept as the signs x of its residual o = y - c.
// For a query q,
//
//   |q - y|^2 = |o|^2 + |q - c|^2 - 2 <q - c, o>,   <q - c, o> ~ <q - c, x> |o|^2 / <x, o>.
//
// Split x into its part along o and the rest x': the quotient scales the first to be o itself, and
// what the rest adds, <q - c, x'> |o|^2 / <x, o>, has mean 0 over randomly turned vectors and the
// deviation |q - c| |x'| |o|^2 / (<x, o> sqrt(D - 1)) for D coordinates. So each row has an
// estimate and a deviation of its own; `kBitDeviations` of them make a lower estimate that the true
// distance is seldom below.
//
// <q - c, x> = <q, x> - <c, x>, of which the second is known when the row is encoded. So one row is
// two floats (`add`, `rescale`) and a short float (the deviation) beside its bits, and one table of
// the query serves the rows of all centres.
//
// Layout. Blocks of 32 rows, for table look-ups in registers (André et al., "Cache locality is not
// enough", VLDB 2015, whose idea FAISS and the RaBitQ library use as FastScan): four coordinates of
// all 32 rows are 16 bytes of nibbles, looked up at once in the 16 possible sums of the query's
// four coordinates.
//
// Departures from the paper and its library: coordinates come from the trained projection
// (projection.h), whose principal directions are turned randomly, instead of a random rotation of
// all of them; the query is rounded to whole steps, of which the sums of four fit 8 bits, and the
// lower estimate counts that as a deviation too; the table is of q itself rather than of q - c. The
// multi-bit extension (Gao et al., "Practical and Asymptotically Optimal Quantization", SIGMOD
// 2025) refines the same bits by further ones; here the 4-bit codes of plane_codec.h are the second
// look, since the segment has them already: they are relative to the mean of the rows, not to c.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "distance/metric.h"

namespace aionbd {

/// Rows of a block.
inline constexpr size_t kBitRows = 32;

/// Deviations between an estimate and its lower estimate: with an error of normal distribution,
/// 2.9 % of the true distances are below it.
inline constexpr float kBitDeviations = 1.9F;

/// Sizes that follow from the number of coordinates. Thread safety: immutable.
struct BitLayout {
  explicit BitLayout(size_t coordinates_count)
      : coordinates(coordinates_count),
        groups((coordinates_count + 3) / 4),
        lines((groups + 3) / 4) {}

  /// Nibbles in whole 64-byte lines; then add: f32 x 32, rescale: f32 x 32, deviation: the upper
  /// half of an f32 x 32.
  size_t block_bytes() const { return lines * 64 + kBitRows * 10; }

  size_t coordinates;
  size_t groups;  // of four coordinates
  size_t lines;   // of codes in a block: four groups each
};

/// Writes one block: rows ids[0 ... n) of y, float[... x coordinates], relative to `centre`,
/// float[coordinates]. A row whose signs say little about it (not finite, equal to the centre, or
/// nearly along an axis) gets a lower estimate of -infinity, places behind the n-th +infinity.
/// block: uint8_t[block_bytes], 64-byte aligned. REQUIRES: n <= kBitRows.
void encode_bits(const BitLayout& layout, const float* y, std::span<const uint32_t> ids,
                 const float* centre, uint8_t* block);

/// One query against blocks. Thread safety: immutable.
class BitQuery {
 public:
  /// y: float[coordinates], finite, length below 2e18.
  BitQuery(const BitLayout& layout, const float* y);

  /// out[i] = lower estimate of the squared distance to row i of the `count` consecutive blocks at
  /// `blocks`, all of one centre; float[count x kBitRows]. centre_distance: |q - c|^2. With
  /// deviations 0 it is the estimate itself.
  void lower_estimates(const uint8_t* blocks, size_t count, float centre_distance, float* out,
                       float deviations = kBitDeviations) const;

 private:
  BitLayout layout_;
  AlignedFloats tables_;  // as uint8_t[lines x 64]
  float step_ = 0;        // of <q, x> per unit of a sum of the table
  float base_ = 0;        // <q, x> where that sum is 0
  float deviation_ = 0;   // of <q, x>, for the rounding of q to steps
  float rounding_ = 0;    // bounds what floats round of <q, x>
};

}  // namespace aionbd
