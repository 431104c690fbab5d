// Scalar codes of 8 bits, one byte a coordinate: precise enough to rank like the exact vectors.
//
// Each row has its own step, its largest magnitude / 127. Used where rows are compared with rows
// (building a graph), and as a second look between a walk's 4-bit estimates and the exact vectors
// where those are long: an eighth of their bytes decides which of them to read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "distance/metric.h"

namespace aionbd {

float largest_magnitude(const float* values, size_t n);

/// Writes round(values / step); returns the step. Where no magnitude reaches 1e-30: zeros, and step
/// 1. REQUIRES: values finite, the length of the vector below 1e18.
float quantize_bytes(const float* values, size_t n, int8_t* out);

/// The codes of many rows where they lie. Thread safety: immutable.
struct ByteCodes {
  size_t coordinates = 0;
  const uint8_t* codes = nullptr;  // uint8_t[rows x stride()]: the byte + 128
  const float* step = nullptr;     // float[rows]
  const float* norm = nullptr;     // float[rows]: |reconstruction|^2

  static size_t stride_of(size_t coordinates) { return (coordinates + 63) / 64 * 64; }
  size_t stride() const { return stride_of(coordinates); }
  void prefetch(uint32_t row) const {
    const uint8_t* at = codes + row * stride();
    for (size_t i = 0; i < stride(); i += 64) __builtin_prefetch(at + i);
  }
};

/// What encoding makes. Thread safety: single owner.
struct EncodedBytes {
  explicit EncodedBytes(size_t coordinates_count) : coordinates(coordinates_count) {}
  /// values: float[n x coordinates].
  void append(const float* values, size_t n);

  ByteCodes view() const {
    return {coordinates, reinterpret_cast<const uint8_t*>(codes.data()), step.data(), norm.data()};
  }

  size_t coordinates;
  AlignedFloats codes;  // as bytes
  std::vector<float> step, norm;
};

/// One vector against codes. Thread safety: immutable.
class ByteQuery {
 public:
  ByteQuery(const float* values, size_t coordinates);
  /// Row `row` of `codes` itself.
  ByteQuery(const ByteCodes& codes, uint32_t row);

  /// out[i] = squared distance between the reconstructions of the query and of row ids[i].
  void distances(const ByteCodes& codes, const uint32_t* ids, size_t n, float* out) const;
  /// out[i] = inner product of the reconstructions.
  void products(const ByteCodes& codes, const uint32_t* ids, size_t n, float* out) const;

 private:
  AlignedFloats bytes_;
  int32_t centre_ = 0;  // 128 x the sum of the bytes
  float step_ = 0;
  float norm_ = 0;
};

}  // namespace aionbd
