#include "quant/byte_codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "quant/code_kernels.h"

namespace aionbd {

namespace {

/// Rows whose largest magnitude is below this are coded as zeros: the reciprocal of their step
/// could be infinite, and products of two such steps vanish in a float anyway.
constexpr float kSmallestCoded = 1e-30F;

float norm_of_bytes(const int8_t* bytes, size_t n, float step) {
  int32_t squares = 0;  // at most 2^14 each: no overflow below 2^17 coordinates
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
  // Lanes that the compiler can keep in one register; in the order of std::max, which passes over
  // NaN.
  constexpr size_t kLanes = 8;
  float lanes[kLanes] = {};
  size_t k = 0;
  for (; k + kLanes <= n; k += kLanes) {
    for (size_t s = 0; s < kLanes; ++s) lanes[s] = std::max(lanes[s], std::abs(values[k + s]));
  }
  for (; k < n; ++k) lanes[0] = std::max(lanes[0], std::abs(values[k]));
  return *std::max_element(lanes, lanes + kLanes);
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

bool ByteCodes::same(uint32_t a, uint32_t b) const {
  // The last bits of a projected row depend on the rows projected with it.
  constexpr float kStepRounding = 1e-5F;
  const float step = tail(a).step;
  return std::abs(tail(b).step - step) <= kStepRounding * step &&
         std::ranges::equal(bytes(a), bytes(b));
}

ByteCodes::Tail ByteCodes::tail(uint32_t at) const {
  Tail out;
  std::memcpy(&out, row(at) + stride() - sizeof(Tail), sizeof(Tail));
  return out;
}

void ByteCodes::decode(uint32_t at, float* out) const {
  const float step = tail(at).step;
  for (size_t k = 0; k < coordinates; ++k) out[k] = step * static_cast<float>(row(at)[k] - 128);
}

void EncodedBytes::append(const float* values, size_t n) {
  const size_t stride = ByteCodes::stride_of(coordinates);
  const size_t before = codes.size() * sizeof(FloatLine) / stride;
  codes.resize((before + n) * stride / sizeof(FloatLine));
  std::vector<int8_t> bytes(stride);
  for (size_t i = 0; i < n; ++i) {
    ByteCodes::Tail tail{};
    tail.step = quantize_bytes(values + i * coordinates, coordinates, bytes.data());
    tail.norm = norm_of_bytes(bytes.data(), coordinates, tail.step);
    tail.centre = centre_of_bytes(bytes.data(), coordinates);
    auto* to = reinterpret_cast<uint8_t*>(codes.data()) + (before + i) * stride;
    for (size_t k = 0; k < coordinates; ++k) to[k] = static_cast<uint8_t>(bytes[k] + 128);
    std::memcpy(to + stride - sizeof(tail), &tail, sizeof(tail));
  }
}

ByteQuery::ByteQuery(const float* values, size_t coordinates)
    : bytes_(ByteCodes::stride_of(coordinates) / sizeof(FloatLine)) {
  auto* bytes = reinterpret_cast<int8_t*>(bytes_.data());
  step_ = quantize_bytes(values, coordinates, bytes);
  norm_ = norm_of_bytes(bytes, coordinates, step_);
  centre_ = centre_of_bytes(bytes, coordinates);
}

void ByteQuery::take(const ByteCodes& codes, uint32_t row) {
  bytes_.resize(codes.stride() / sizeof(FloatLine));
  auto* bytes = reinterpret_cast<int8_t*>(bytes_.data());
  const uint8_t* from = codes.row(row);
  for (size_t k = 0; k < codes.coordinates; ++k) bytes[k] = static_cast<int8_t>(from[k] - 128);
  std::fill(bytes + codes.coordinates, bytes + codes.stride(), int8_t{0});
  const ByteCodes::Tail tail = codes.tail(row);
  step_ = tail.step;
  norm_ = tail.norm;
  centre_ = tail.centre;
}

template <class Visit>
void ByteQuery::for_each_product(const ByteCodes& codes, const uint32_t* ids, size_t n,
                                 Visit visit) const {
  constexpr size_t kBlock = 64;
  int32_t sums[kBlock];
  const auto* query = reinterpret_cast<const int8_t*>(bytes_.data());
  for (size_t first = 0; first < n; first += kBlock) {
    const size_t count = std::min(kBlock, n - first);
    code_kernels().byte_dot(query, codes.codes, codes.stride(), codes.stride(), ids + first, count,
                            sums);
    for (size_t i = 0; i < count; ++i) {
      const ByteCodes::Tail tail = codes.tail(ids[first + i]);
      // One step at a time: the product of two small steps alone would lose its last bits.
      visit(first + i, step_ * static_cast<float>(sums[i] - centre_) * tail.step, tail.norm);
    }
  }
}

void ByteQuery::products(const ByteCodes& codes, const uint32_t* ids, size_t n, float* out) const {
  for_each_product(codes, ids, n, [&](size_t i, float product, float) { out[i] = product; });
}

void ByteQuery::distances(const ByteCodes& codes, const uint32_t* ids, size_t n, float* out) const {
  for_each_product(codes, ids, n, [&](size_t i, float product, float norm) {
    out[i] = std::max(0.0F, norm_ + norm - 2 * product);
  });
}

}  // namespace aionbd
