#include "quant/plane_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "distance/metric.h"
#include "quant/byte_codec.h"
#include "quant/code_kernels.h"

namespace aionbd {

namespace {

/// What a high half stands for: the middle of the 16 codes that share it, less the centre.
constexpr float kHighOffset = (128.0F - 7.5F) / 16.0F;
/// Steps of a quantised query on each side of zero.
constexpr float kQuerySteps = 127.0F;
/// Half a step on each side of a float: u below.
constexpr double kUnitRoundoff = 0x1p-24;

// The roundings of a bound. Let N = |p|^2 + |x|^2 in exact arithmetic, 2 |<p, x>| <= N. In the
// computed `squared` (code_kernels.h) are off, to first order: the two stored norms together u N,
// their sum u N; the product, after the integer's conversion and two multiplications, 3 u N; the
// two subtractions at most 2 u N each; and the square root's own rounding counts as 2 u x 2 N
// before it. That is 13 u N; the terms of second order are far below the rest of the 16.
constexpr float kBoundRounding = 16 * 0x1p-24F;
// What underflows instead is off by at most 2^-150 each: two norms, a product, rounding x N. The
// root of a sum is at most the sum of the roots, so a length above sqrt(4 x 2^-150), added to the
// query's error, covers them, and the last square's too: it is zero unless the root exceeds this.
constexpr double kUnderflow = 0x1p-70;
// Added to each error before it is rounded up to a float: the rounding of the kernel's sum of two
// errors, and those of the sums in double here.
constexpr double kErrorMargin = 4 * kUnitRoundoff;

/// From one row in this many on that the high plane leaves, the low plane of all is read in order.
constexpr size_t kRefineShare = 4;

/// Below this largest magnitude everything is coded as zero, with its length as the error: the
/// reciprocal of the step could be infinite.
constexpr float kSmallestCoded = 1e-30F;
/// Longer vectors are not coded (error: infinite). Sums of four such squares are finite floats.
constexpr double kLongestCoded = 2e18;

/// The next float not below `value`. REQUIRES: value >= 0.
float rounded_up(double value) {
  if (!(value <= static_cast<double>(std::numeric_limits<float>::max()))) return kFarthest;
  const auto nearest = static_cast<float>(value);
  return static_cast<double>(nearest) < value ? std::nextafter(nearest, kFarthest) : nearest;
}

/// An upper bound of the length behind `squares`, a sum in double, plus `slack`; a float.
float error_of(double squares, double slack) {
  return rounded_up((std::sqrt(squares) + slack) * (1 + kErrorMargin));
}

/// The nearest integer, for magnitudes up to 2^22: adding 1.5 x 2^23 leaves no bit for a fraction.
/// Whichever integer it is, the error is measured afterwards.
int nearest_integer(float value) {
  constexpr float kMagic = 12582912.0F;
  return static_cast<int>(value + kMagic) - static_cast<int>(kMagic);
}

struct RowTail {
  float add;  // |y|^2
  float mul;  // of the integer product
};
static_assert(sizeof(RowTail) == kRowTailBytes);

RowTail tail_of(const uint8_t* row, const PlaneLayout& layout) {
  RowTail tail;
  std::memcpy(&tail, row + layout.high_stride() - kRowTailBytes, kRowTailBytes);
  return tail;
}

}  // namespace

namespace {

struct CodedRow {
  float step = 0;
  float norm = 0;   // |x|^2
  float error = 0;  // at least |y - x| + slack
  RowTail tail = {0, 0};
};

/// Writes 2 x half codes.
CodedRow encode_row(const PlaneLayout& layout, const float* y, float slack, uint8_t* codes) {
  CodedRow out;
  const double norm = sum_of_squares(y, layout.coordinates);
  const float largest = largest_magnitude(y, layout.coordinates);
  const bool too_long = !(norm <= kLongestCoded * kLongestCoded);
  if (too_long || largest < kSmallestCoded) {
    std::fill_n(codes, 2 * layout.half, uint8_t{128});
    out.error = too_long ? kFarthest : error_of(norm, slack);
    out.tail.add = static_cast<float>(too_long ? kLongestCoded * kLongestCoded : norm);
    return out;
  }
  out.step = largest / 127.0F;
  const float inverse = 1.0F / out.step;
  const double step = out.step;
  for (size_t k = 0; k < layout.coordinates; ++k) {
    codes[k] = static_cast<uint8_t>(std::clamp(nearest_integer(y[k] * inverse), -127, 127) + 128);
  }
  // Several sums, so that an addition does not wait for the last one.
  constexpr size_t kSums = 4;
  int64_t squares = 0;
  double errors[kSums] = {};
  double products[kSums] = {};
  const auto add = [&](size_t k, size_t sum) {
    const int code = codes[k];
    const double difference = y[k] - step * (code - 128);
    errors[sum] += difference * difference;
    products[sum] += ((code & 0xF0) - 16.0 * kHighOffset) * y[k];
    squares += (code - 128) * (code - 128);
  };
  size_t k = 0;
  for (; k + kSums <= layout.coordinates; k += kSums) {
    for (size_t sum = 0; sum < kSums; ++sum) add(k + sum, sum);
  }
  for (; k < layout.coordinates; ++k) add(k, 0);
  const double error = (errors[0] + errors[1]) + (errors[2] + errors[3]);
  double high_product = (products[0] + products[1]) + (products[2] + products[3]);  // <z, y> / s
  high_product *= step;
  if (2 * layout.half > layout.coordinates) codes[layout.coordinates] = 128;
  // z is near y, so the quotient is near 1, unless a few large coordinates stand among very many
  // tiny ones, whose reconstructions outweigh them.
  const double correction = high_product > norm / 4 ? norm / high_product : 1.0;
  out.norm = static_cast<float>(step * step * static_cast<double>(squares));
  out.error = error_of(error, slack);
  out.tail = {static_cast<float>(norm), static_cast<float>(-32.0 * step * correction)};
  return out;
}

}  // namespace

PlaneCodes EncodedPlanes::codes() const {
  return {high_bytes(), low.data(), step.data(), norm.data(), error.data()};
}

void encode_planes(const PlaneLayout& layout, const float* y, const float* slack, size_t n,
                   EncodedPlanes* out) {
  const size_t before = out->step.size();
  out->high.resize((before + n) * layout.lines);
  out->low.resize(layout.low_bytes(before + n));
  auto* high_bytes = reinterpret_cast<uint8_t*>(out->high.data());
  std::vector<uint8_t> codes(2 * layout.half);
  for (size_t i = 0; i < n; ++i) {
    const CodedRow row = encode_row(layout, y + i * layout.coordinates, slack[i], codes.data());
    uint8_t* high = high_bytes + (before + i) * layout.high_stride();
    uint8_t* low = out->low.data() + (before + i) * layout.low_stride();
    for (size_t j = 0; j < layout.half; ++j) {
      high[j] = static_cast<uint8_t>((codes[j] >> 4) | (codes[layout.half + j] & 0xF0));
      low[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[layout.half + j] << 4));
    }
    std::memcpy(high + layout.high_stride() - kRowTailBytes, &row.tail, kRowTailBytes);
    out->step.push_back(row.step);
    out->norm.push_back(row.norm);
    out->error.push_back(row.error);
  }
}

PlaneQuery::PlaneQuery(const PlaneLayout& layout, const float* y, float slack)
    : layout_(layout), weights_(2 * layout.lines) {
  const double norm = sum_of_squares(y, layout.coordinates);
  if (!(norm <= kLongestCoded * kLongestCoded)) {
    error_ = kFarthest;
    return;
  }
  norm_ = static_cast<float>(norm);
  const float largest = largest_magnitude(y, layout.coordinates);
  if (largest < kSmallestCoded) {
    error_ = error_of(norm, slack + kUnderflow);
    return;
  }
  step_ = largest / kQuerySteps;
  const float inverse = 1.0F / step_;
  auto* weights = reinterpret_cast<int8_t*>(weights_.data());
  const size_t high = layout.lines * 64;
  // Two halves side by side, so that no sum waits for the other's last addition.
  double errors[2] = {};
  int32_t squares = 0;  // at most 2^14 each, of a few thousand
  const auto add = [&](size_t k, int8_t* to, double* error) {
    const int weight = std::clamp(nearest_integer(y[k] * inverse), -127, 127);
    *to = static_cast<int8_t>(weight);
    weights_sum_ += weight;
    low_most_ += 15 * std::max(weight, 0);
    squares += weight * weight;
    const double difference = y[k] - static_cast<double>(step_) * weight;
    *error += difference * difference;
  };
  for (size_t k = 0; k < layout.half; ++k) {
    add(k, weights + k, &errors[0]);
    if (layout.half + k < layout.coordinates) add(layout.half + k, weights + high + k, &errors[1]);
  }
  code_norm_ =
      static_cast<float>(static_cast<double>(step_) * step_ * static_cast<double>(squares));
  error_ = error_of(errors[0] + errors[1], slack + kUnderflow);
}

void PlaneQuery::finish_estimates(float* out, size_t n, const int32_t* sums, const uint8_t* high,
                                  const uint32_t* ids) const {
  const float centre = kHighOffset * static_cast<float>(weights_sum_);
  for (size_t i = 0; i < n; ++i) {
    const size_t row = ids == nullptr ? i : ids[i];
    const RowTail tail = tail_of(high + row * layout_.high_stride(), layout_);
    out[i] = norm_ + tail.add + tail.mul * step_ * (static_cast<float>(sums[i]) - centre);
  }
}

void PlaneQuery::estimate(const uint8_t* high, const uint32_t* ids, size_t n, float* out) const {
  const auto* weights = reinterpret_cast<const int8_t*>(weights_.data());
  const NibbleWeights nibbles = {weights, weights + layout_.lines * 64, layout_.lines};
  constexpr size_t kBlock = 64;
  int32_t sums[kBlock];
  for (size_t first = 0; first < n; first += kBlock) {
    const size_t count = std::min(kBlock, n - first);
    code_kernels().nibble_dot(nibbles, high, layout_.high_stride(), ids + first, count, sums);
    finish_estimates(out + first, count, sums, high, ids + first);
  }
}

void PlaneQuery::estimate_scan(const uint8_t* high, size_t n, float* out) const {
  const auto* weights = reinterpret_cast<const int8_t*>(weights_.data());
  const NibbleWeights nibbles = {weights, weights + layout_.lines * 64, layout_.lines};
  constexpr size_t kBlock = 64;
  int32_t sums[kBlock];
  for (size_t first = 0; first < n; first += kBlock) {
    const size_t count = std::min(kBlock, n - first);
    const uint8_t* rows = high + first * layout_.high_stride();
    code_kernels().nibble_scan(nibbles, rows, layout_.high_stride(), count, sums);
    finish_estimates(out + first, count, sums, rows, nullptr);
  }
}

void PlaneQuery::lower_bounds(const PlaneCodes& codes, size_t first, size_t n, float reach,
                              float* out) const {
  const auto* weights = reinterpret_cast<const int8_t*>(weights_.data());
  const NibbleWeights nibbles = {weights, weights + layout_.lines * 64, layout_.lines};
  const uint8_t* low_rows = codes.low + first * layout_.low_stride();
  int32_t high[kBoundRows];
  int32_t low[kBoundRows];
  BoundArguments arguments = {high,
                              low,
                              codes.step + first,
                              codes.norm + first,
                              codes.error + first,
                              n,
                              128 * weights_sum_,
                              2 * step_,
                              code_norm_,
                              error_,
                              kBoundRounding,
                              out};
  code_kernels().nibble_scan(nibbles, codes.high + first * layout_.high_stride(),
                             layout_.high_stride(), n, high);
  // The more of the product, the nearer the row: no low plane brings it nearer than this one.
  std::fill_n(low, n, low_most_);
  code_kernels().bound(arguments);
  uint32_t near[kBoundRows];
  const size_t left = select_at_most(out, reach, n, near);
  if (left * kRefineShare > n) {
    code_kernels().nibble_scan(nibbles, low_rows, layout_.low_stride(), n, low);
    code_kernels().bound(arguments);
    return;
  }
  float parts[4][kBoundRows];  // step, norm, error of those left, and their bounds
  for (size_t i = 0; i < left; ++i) {
    high[i] = high[near[i]];  // near ascends
    parts[0][i] = arguments.step[near[i]];
    parts[1][i] = arguments.norm[near[i]];
    parts[2][i] = arguments.error[near[i]];
  }
  code_kernels().nibble_dot(nibbles, low_rows, layout_.low_stride(), near, left, low);
  arguments.step = parts[0];
  arguments.norm = parts[1];
  arguments.error = parts[2];
  arguments.n = left;
  arguments.out = parts[3];
  code_kernels().bound(arguments);
  for (size_t i = 0; i < left; ++i) out[near[i]] = parts[3][i];
}

}  // namespace aionbd
