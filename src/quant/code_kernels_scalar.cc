// The definition of the code kernels: plain loops.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "quant/code_kernels.h"

namespace aionbd {

namespace {

int32_t nibble_sum(const NibbleWeights& weights, const uint8_t* row) {
  int32_t sum = 0;
  for (size_t j = 0; j < weights.lines * kLineBytes; ++j) {
    sum += weights.low[j] * (row[j] & 15) + weights.high[j] * (row[j] >> 4);
  }
  return sum;
}

void nibble_dot(const NibbleWeights& weights, const uint8_t* rows, size_t stride,
                const uint32_t* ids, size_t n, int32_t* out) {
  for (size_t i = 0; i < n; ++i) out[i] = nibble_sum(weights, rows + ids[i] * stride);
}

void nibble_scan(const NibbleWeights& weights, const uint8_t* rows, size_t stride, size_t n,
                 int32_t* out) {
  for (size_t i = 0; i < n; ++i) out[i] = nibble_sum(weights, rows + i * stride);
}

void byte_dot(const int8_t* query, const uint8_t* rows, size_t stride, size_t bytes,
              const uint32_t* ids, size_t n, int32_t* out) {
  for (size_t i = 0; i < n; ++i) {
    const uint8_t* row = rows + ids[i] * stride;
    int32_t sum = 0;
    for (size_t j = 0; j < bytes; ++j) sum += query[j] * row[j];
    out[i] = sum;
  }
}

void bound(const BoundArguments& a) {
  for (size_t i = 0; i < a.n; ++i) {
    const auto product = static_cast<float>(16 * a.high[i] + a.low[i] - a.centre);
    const float norms = a.query_norm + a.norm[i];
    const float squared = norms - a.query_step2 * product * a.step[i] - a.rounding * norms;
    const float root = std::sqrt(std::max(0.0F, squared)) - (a.query_error + a.error[i]);
    const float bound = std::max(0.0F, root);
    a.out[i] = bound * bound * kBoundShrink;
  }
}

uint32_t bit_sum(const BitScan& a, const uint8_t* block, size_t row) {
  const size_t low = row % 16;
  const size_t byte = low < 8 ? 2 * low : 2 * (low - 8) + 1;
  uint32_t sum = 0;
  for (size_t g = 0; g < 4 * a.lines; ++g) {
    const uint8_t code = block[16 * g + byte];
    sum += a.tables[16 * g + (row < 16 ? code & 15 : code >> 4)];
  }
  return sum;
}

void bit_scan(const BitScan& a) {
  for (size_t b = 0; b < a.count; ++b) {
    const uint8_t* block = a.blocks + b * a.stride;
    float add[32];
    float rescale[32];
    uint16_t deviation[32];
    const uint8_t* tail = block + a.lines * kLineBytes;
    std::memcpy(add, tail, sizeof add);
    std::memcpy(rescale, tail + sizeof add, sizeof rescale);
    std::memcpy(deviation, tail + sizeof add + sizeof rescale, sizeof deviation);
    for (size_t i = 0; i < 32; ++i) {
      const float product = a.step * static_cast<float>(bit_sum(a, block, i)) + a.offset;
      const auto deviations = std::bit_cast<float>(static_cast<uint32_t>(deviation[i]) << 16);
      a.out[b * 32 + i] = (a.base + add[i]) + rescale[i] * product - deviations * a.reach;
    }
  }
}

}  // namespace

const CodeKernels kScalarCodeKernels = {"scalar", nibble_dot, nibble_scan,
                                        byte_dot, bound,      bit_scan};

}  // namespace aionbd
