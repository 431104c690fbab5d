// Scalar codes of 8 bits, one byte a coordinate: precise enough to rank like the exact vectors.
//
// Each row has its own step, its largest magnitude / 127. Used where rows are compared with rows
// (building a graph), and as a second look between a walk's 4-bit estimates and the exact vectors
// where those are long: an eighth of their bytes decides which of them to read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "distance/metric.h"

namespace aionbd {

float largest_magnitude(const float* values, size_t n);

/// Writes round(values / step); returns the step. Where no magnitude reaches 1e-30: zeros, and step
/// 1. REQUIRES: values finite, the length of the vector below 1e18.
float quantize_bytes(const float* values, size_t n, int8_t* out);

/// The codes of many rows where they lie: each in whole cache lines, its numbers behind the
/// bytes, so that one look is one run of lines. Thread safety: immutable.
struct ByteCodes {
  /// Behind the bytes of a row, at its end.
  struct Tail {
    float step;
    float norm;      // |reconstruction|^2
    int32_t centre;  // 128 x the sum of the bytes
  };

  size_t coordinates = 0;
  const uint8_t* codes = nullptr;  // uint8_t[rows x stride()]: the byte + 128

  static size_t stride_of(size_t coordinates) {
    return (coordinates + sizeof(Tail) + 63) / 64 * 64;
  }
  size_t stride() const { return stride_of(coordinates); }
  const uint8_t* row(uint32_t row) const { return codes + row * stride(); }
  Tail tail(uint32_t row) const;
  Bytes bytes(uint32_t at) const {
    return {reinterpret_cast<const std::byte*>(row(at)), coordinates};
  }
  /// Whether two rows are the same vector as far as codes tell: equal bytes, and steps that are
  /// equal but for rounding.
  bool same(uint32_t a, uint32_t b) const;
  /// out: float[coordinates], the reconstruction.
  void decode(uint32_t row, float* out) const;
  void prefetch(uint32_t at) const {
    for (size_t i = 0; i < stride(); i += 64) __builtin_prefetch(row(at) + i);
  }
};

/// What encoding makes. Thread safety: single owner.
struct EncodedBytes {
  explicit EncodedBytes(size_t coordinates_count) : coordinates(coordinates_count) {}
  /// values: float[n x coordinates].
  void append(const float* values, size_t n);

  ByteCodes view() const { return {coordinates, reinterpret_cast<const uint8_t*>(codes.data())}; }

  size_t coordinates;
  AlignedFloats codes;  // as bytes
};

/// One vector against codes. Thread safety: immutable but for `take`.
class ByteQuery {
 public:
  ByteQuery() = default;
  ByteQuery(const float* values, size_t coordinates);
  /// Row `row` of `codes` itself.
  ByteQuery(const ByteCodes& codes, uint32_t row) { take(codes, row); }
  /// Becomes that row. Keeps its memory.
  void take(const ByteCodes& codes, uint32_t row);

  /// out[i] = squared distance between the reconstructions of the query and of row ids[i].
  void distances(const ByteCodes& codes, const uint32_t* ids, size_t n, float* out) const;
  /// out[i] = inner product of the reconstructions.
  void products(const ByteCodes& codes, const uint32_t* ids, size_t n, float* out) const;

 private:
  template <class Visit>
  void for_each_product(const ByteCodes& codes, const uint32_t* ids, size_t n, Visit visit) const;

  AlignedFloats bytes_;  // as int8_t[stride], zero behind the coordinates
  int32_t centre_ = 0;   // 128 x the sum of the bytes
  float step_ = 0;
  float norm_ = 0;
};

}  // namespace aionbd
