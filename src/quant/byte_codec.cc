#include "quant/byte_codec.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "quant/code_kernels.h"

namespace aionbd {

namespace {

/// Rows whose largest magnitude is below this are coded as zeros: the reciprocal of their step
/// could be infinite, and products of two such steps vanish in a float anyway.
constexpr float kSmallestCoded = 1e-30F;

float norm_of_bytes(const int8_t* bytes, size_t n, float step) {
  int64_t squares = 0;
  for (size_t k = 0; k < n; ++k) squares += bytes[k] * bytes[k];
  return static_cast<float>(static_cast<double>(step) * step * static_cast<double>(squares));
}

int32_t centre_of_bytes(const int8_t* bytes, size_t n) {
  int32_t sum = 0;
  for (size_t k = 0; k < n; ++k) sum += bytes[k];
  return 128 * sum;
}

}  // namespace

float largest_magnitude(const float* values, size_t n) {
  float largest = 0;
  for (size_t k = 0; k < n; ++k) largest = std::max(largest, std::abs(values[k]));
  return largest;
}

float quantize_bytes(const float* values, size_t n, int8_t* out) {
  const float largest = largest_magnitude(values, n);
  if (!(largest >= kSmallestCoded)) {
    std::fill_n(out, n, int8_t{0});
    return 1.0F;
  }
  const float step = largest / 127.0F;
  const float inverse = 1.0F / step;
  for (size_t k = 0; k < n; ++k) {
    // Adding 1.5 x 2^23 rounds to an integer, which is then in the low bits.
    const float rounded = values[k] * inverse + 12582912.0F;
    out[k] = static_cast<int8_t>(std::bit_cast<int32_t>(rounded));
  }
  return step;
}

void EncodedBytes::append(const float* values, size_t n) {
  const size_t stride = ByteCodes::stride_of(coordinates);
  const size_t before = step.size();
  codes.resize((before + n) * stride / sizeof(FloatLine));
  std::vector<int8_t> bytes(stride);
  for (size_t i = 0; i < n; ++i) {
    step.push_back(quantize_bytes(values + i * coordinates, coordinates, bytes.data()));
    norm.push_back(norm_of_bytes(bytes.data(), coordinates, step.back()));
    auto* to = reinterpret_cast<uint8_t*>(codes.data()) + (before + i) * stride;
    for (size_t k = 0; k < stride; ++k) to[k] = static_cast<uint8_t>(bytes[k] + 128);
  }
}

ByteQuery::ByteQuery(const float* values, size_t coordinates)
    : bytes_(ByteCodes::stride_of(coordinates) / sizeof(FloatLine)) {
  auto* bytes = reinterpret_cast<int8_t*>(bytes_.data());
  step_ = quantize_bytes(values, coordinates, bytes);
  norm_ = norm_of_bytes(bytes, coordinates, step_);
  centre_ = centre_of_bytes(bytes, coordinates);
}

ByteQuery::ByteQuery(const ByteCodes& codes, uint32_t row)
    : bytes_(codes.stride() / sizeof(FloatLine)) {
  auto* bytes = reinterpret_cast<int8_t*>(bytes_.data());
  const uint8_t* from = codes.codes + row * codes.stride();
  for (size_t k = 0; k < codes.stride(); ++k) bytes[k] = static_cast<int8_t>(from[k] - 128);
  step_ = codes.step[row];
  norm_ = codes.norm[row];
  centre_ = centre_of_bytes(bytes, codes.stride());
}

void ByteQuery::products(const ByteCodes& codes, const uint32_t* ids, size_t n, float* out) const {
  constexpr size_t kBlock = 64;
  int32_t sums[kBlock];
  const auto* query = reinterpret_cast<const int8_t*>(bytes_.data());
  for (size_t first = 0; first < n; first += kBlock) {
    const size_t count = std::min(kBlock, n - first);
    code_kernels().byte_dot(query, codes.codes, codes.stride(), codes.stride(), ids + first, count,
                            sums);
    for (size_t i = 0; i < count; ++i) {
      // One step at a time: the product of two small steps alone would lose its last bits.
      out[first + i] = step_ * static_cast<float>(sums[i] - centre_) * codes.step[ids[first + i]];
    }
  }
}

void ByteQuery::distances(const ByteCodes& codes, const uint32_t* ids, size_t n, float* out) const {
  products(codes, ids, n, out);
  for (size_t i = 0; i < n; ++i) {
    out[i] = std::max(0.0F, norm_ + codes.norm[ids[i]] - 2 * out[i]);
  }
}

}  // namespace aionbd
