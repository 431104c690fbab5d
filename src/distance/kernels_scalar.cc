// Every kernel as a plain loop: the definition that the fast forms are tested against, and the
// fall-back for a CPU without any of their instruction sets.
#include <cmath>
#include <limits>

#include "distance/kernels.h"

namespace aionbd {
namespace {

float value_of(float value, float) {
  return value;
}
float value_of(uint8_t byte, float base) {
  return base + static_cast<float>(byte);
}

template <class Value>
void dot_of(const float* query, const Value* rows, float base, size_t dim, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) {
    float sum = 0;
    for (size_t k = 0; k < dim; ++k) sum += query[k] * value_of(rows[i * dim + k], base);
    out[i] = sum;
  }
}

template <class Value>
void l2_of(const float* query, const Value* rows, float base, size_t dim, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) {
    float sum = 0;
    for (size_t k = 0; k < dim; ++k) {
      const float difference = query[k] - value_of(rows[i * dim + k], base);
      sum += difference * difference;
    }
    out[i] = sum;
  }
}

void dot(const float* query, const float* rows, size_t dim, size_t n, float* out) {
  dot_of(query, rows, 0, dim, n, out);
}

void l2_squared(const float* query, const float* rows, size_t dim, size_t n, float* out) {
  l2_of(query, rows, 0, dim, n, out);
}

constexpr size_t kPanelColumns = 8;

void batch(const BatchArguments& a) {
  for (size_t i = 0; i < a.n; ++i) {
    for (size_t c = 0; c < a.columns; ++c) {
      const size_t panel = c / kPanelColumns * kPanelColumns;
      const size_t width = std::min(kPanelColumns, a.columns - panel);
      const float* column = a.packed + panel * a.dim + (c - panel);
      float total = 0;
      for (size_t begin = 0; begin < a.dim; begin += kBatchDepth) {
        const size_t end = std::min(a.dim, begin + kBatchDepth);
        float piece = 0;
        for (size_t k = begin; k < end; ++k) piece += a.rows[i * a.dim + k] * column[k * width];
        total += piece;
      }
      const float value = total * a.row_scale[i] + (a.column_add[c] + a.row_add[i]);
      a.out[i * a.columns + c] = std::isfinite(value)
                                     ? std::min(std::max(value, a.lowest), a.highest)
                                     : std::numeric_limits<float>::infinity();
    }
  }
}

size_t select_each(const float* values, const float* thresholds, size_t n, uint32_t* indexes) {
  size_t count = 0;
  for (size_t i = 0; i < n; ++i) {
    if (values[i] <= thresholds[i]) indexes[count++] = static_cast<uint32_t>(i);
  }
  return count;
}

size_t select_one(const float* values, float threshold, size_t n, uint32_t* indexes) {
  size_t count = 0;
  for (size_t i = 0; i < n; ++i) {
    if (values[i] <= threshold) indexes[count++] = static_cast<uint32_t>(i);
  }
  return count;
}

}  // namespace

const Kernels kScalarKernels = {
    "scalar",       1,     1,           kPanelColumns, dot, l2_squared, dot_of<uint8_t>,
    l2_of<uint8_t>, batch, select_each, select_one,
};

}  // namespace aionbd
