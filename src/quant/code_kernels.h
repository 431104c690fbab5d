// Integer dot products between codes and quantised queries, once per instruction set.
//
// Integers are exact, so every target gives the same sums; `code_kernels_scalar.cc` is the readable
// definition and the reference of the tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace aionbd {

inline constexpr size_t kLineBytes = 64;

/// Rows of nibbles: byte j of a row holds coordinate j in its low half and coordinate half + j in
/// its high half. A row occupies `lines` x 64 bytes from its start; bytes behind the nibbles meet
/// zero weights, so they may hold anything.
struct NibbleWeights {
  const int8_t* low = nullptr;   // int8_t[lines x 64], 64-byte aligned, for the low halves
  const int8_t* high = nullptr;  // the same for the high halves
  size_t lines = 0;
};

/// Takes the four roundings of a bound's last steps off it, and more.
inline constexpr float kBoundShrink = 1.0F - 0x1p-20F;

/// Guaranteed lower bounds of squared distances (plane_codec.h), for n rows:
///   squared = query_norm + norm_i - query_step2 x (16 high_i + low_i - centre) x step_i
///   out_i   = max(0, sqrt(max(0, squared - rounding x (query_norm + norm_i)))
///                    - query_error - error_i)^2, a little less than that
/// in float, in this order (a multiplication and a subtraction may be fused). The product with the
/// integer comes before that with the second step, so that only its last rounding can underflow.
/// Infinite errors give 0. REQUIRES: finite norms with a finite sum.
struct BoundArguments {
  const int32_t* high;
  const int32_t* low;
  const float* step;
  const float* norm;
  const float* error;
  size_t n;
  int32_t centre;
  float query_step2;
  float query_norm;
  float query_error;
  float rounding;
  float* out;
};

/// Blocks of 32 rows of 1-bit codes (bit_codec.h). A block is `lines` x 64 bytes of nibbles: 16
/// bytes per group of four coordinates, of which byte 2 i has the nibble of row i low and of row 16
/// + i high, byte 2 i + 1 those of rows 8 + i and 24 + i. Behind them float add[32], float
/// rescale[32], uint16_t deviation[32], the upper halves of floats. With sum_i the sum over all
/// groups of tables[16 x group + nibble_i]:
///   out_i = (base + add_i) + rescale_i x (step x sum_i + offset) - deviation_i x reach
/// in float, in this order (a multiplication and an addition may be fused).
struct BitScan {
  const uint8_t* tables;  // uint8_t[lines x 64]; 0 for groups that are padding
  size_t lines;
  const uint8_t* blocks;  // uint8_t[count x stride]
  size_t stride;
  size_t count;
  float step;
  float offset;
  float base;
  float reach;
  float* out;  // float[count x 32]
};
/// Lines whose sums of bytes fit 16 bits: 64 x 4 x 255.
inline constexpr size_t kBitLinesPerSum = 64;

/// One instruction set. Thread safety: immutable; the functions are pure.
struct CodeKernels {
  std::string_view name;

  /// out[i] = sum over j of weight_j x nibble_j of the row at rows + ids[i] x stride. Prefetches
  /// nothing. Reads `lines` x 64 bytes per row.
  void (*nibble_dot)(const NibbleWeights& weights, const uint8_t* rows, size_t stride,
                     const uint32_t* ids, size_t n, int32_t* out);
  /// The same for the n consecutive rows at `rows`.
  void (*nibble_scan)(const NibbleWeights& weights, const uint8_t* rows, size_t stride, size_t n,
                      int32_t* out);
  /// out[i] = sum over j of query[j] x row_j, unsigned bytes; row at rows + ids[i] x stride; bytes
  /// per row: a multiple of 64.
  void (*byte_dot)(const int8_t* query, const uint8_t* rows, size_t stride, size_t bytes,
                   const uint32_t* ids, size_t n, int32_t* out);
  void (*bound)(const BoundArguments& arguments);
  void (*bit_scan)(const BitScan& arguments);
};

/// Those this CPU can run, the best first, scalar last.
std::span<const CodeKernels* const> supported_code_kernels();
/// The choice of this process; AIONBD_SIMD as for the distance kernels.
const CodeKernels& code_kernels();

extern const CodeKernels kScalarCodeKernels;

}  // namespace aionbd
