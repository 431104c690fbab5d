// Every target this CPU can run against the scalar definition, and `bound` against doubles.
#include "quant/code_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "base/rng.h"
#include "distance/metric.h"

namespace aionbd {
namespace {

const size_t kCounts[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 63, 64, 65};

/// What fills codes and weights.
enum class Fill { kRandom, kLargest, kSmallest, kAlternating };
constexpr Fill kFills[] = {Fill::kRandom, Fill::kLargest, Fill::kSmallest, Fill::kAlternating};

uint8_t code_of(Fill fill, size_t i, Rng* rng) {
  switch (fill) {
    case Fill::kRandom: return static_cast<uint8_t>(rng->below(256));
    case Fill::kAlternating: return i % 2 == 0 ? 255 : 0;
    default: return 255;
  }
}

int8_t weight_of(Fill fill, size_t i, Rng* rng) {
  switch (fill) {
    case Fill::kRandom: return static_cast<int8_t>(static_cast<int>(rng->below(256)) - 128);
    case Fill::kLargest: return 127;
    case Fill::kSmallest: return -128;
    default: return i % 3 == 0 ? -128 : 127;
  }
}

struct Case {
  AlignedFloats codes;
  AlignedFloats weights;
  std::vector<uint32_t> ids;
  size_t stride = 0;

  Case(Fill fill, size_t rows, size_t bytes, size_t row_stride, Rng* rng)
      : codes((rows * row_stride + bytes) / 64 + 1), weights(2 * bytes / 64), stride(row_stride) {
    auto* to = reinterpret_cast<uint8_t*>(codes.data());
    for (size_t i = 0; i < codes.size() * 64; ++i) to[i] = code_of(fill, i, rng);
    auto* w = reinterpret_cast<int8_t*>(weights.data());
    for (size_t i = 0; i < weights.size() * 64; ++i) w[i] = weight_of(fill, i, rng);
    for (size_t i = 0; i < rows; ++i) ids.push_back(static_cast<uint32_t>(rng->below(rows)));
  }
  const uint8_t* rows() const { return reinterpret_cast<const uint8_t*>(codes.data()); }
  const int8_t* query() const { return reinterpret_cast<const int8_t*>(weights.data()); }
  NibbleWeights nibbles(size_t lines) const {
    return {query(), query() + lines * kLineBytes, lines};
  }
};

TEST(CodeKernels, NamesAreUniqueAndScalarIsLast) {
  std::set<std::string_view> names;
  for (const CodeKernels* each : supported_code_kernels()) {
    EXPECT_TRUE(names.insert(each->name).second) << each->name;
  }
  EXPECT_EQ(supported_code_kernels().back(), &kScalarCodeKernels);
}

TEST(CodeKernels, ScalarNibbleSumByHand) {
  Rng rng(1);
  Case c(Fill::kRandom, 1, 64, 64, &rng);
  std::fill(c.weights.begin(), c.weights.end(), FloatLine());
  auto* w = reinterpret_cast<int8_t*>(c.weights.data());
  w[3] = -5;       // low half of byte 3
  w[64 + 3] = 11;  // its high half
  reinterpret_cast<uint8_t*>(c.codes.data())[3] = 0xA7;
  int32_t out = 0;
  kScalarCodeKernels.nibble_scan(c.nibbles(1), c.rows(), 64, 1, &out);
  EXPECT_EQ(out, -5 * 7 + 11 * 10);
}

TEST(CodeKernels, NibblesEqualScalar) {
  Rng rng(2);
  for (const CodeKernels* each : supported_code_kernels()) {
    for (const size_t lines : {1U, 2U, 3U, 4U, 5U, 9U}) {
      for (const Fill fill : kFills) {
        for (const size_t n : kCounts) {
          // Strides of the high plane, and shorter ones, unaligned, as of the low plane.
          for (const size_t stride : {lines * 64, lines * 64 - 8, lines * 64 - 63}) {
            const Case c(fill, n, lines * 64, stride, &rng);
            std::vector<int32_t> want(n + 1, 77);
            std::vector<int32_t> got(n + 1, 77);
            kScalarCodeKernels.nibble_dot(c.nibbles(lines), c.rows(), stride, c.ids.data(), n,
                                          want.data());
            each->nibble_dot(c.nibbles(lines), c.rows(), stride, c.ids.data(), n, got.data());
            ASSERT_EQ(got, want) << each->name << " lines " << lines << " n " << n;
            kScalarCodeKernels.nibble_scan(c.nibbles(lines), c.rows(), stride, n, want.data());
            each->nibble_scan(c.nibbles(lines), c.rows(), stride, n, got.data());
            ASSERT_EQ(got, want) << each->name << " lines " << lines << " n " << n;
          }
        }
      }
    }
  }
}

TEST(CodeKernels, BytesEqualScalar) {
  Rng rng(3);
  for (const CodeKernels* each : supported_code_kernels()) {
    for (const size_t bytes : {64U, 128U, 192U, 832U}) {
      for (const Fill fill : kFills) {
        for (const size_t n : kCounts) {
          const Case c(fill, n, bytes, bytes, &rng);
          std::vector<int32_t> want(n + 1, 77);
          std::vector<int32_t> got(n + 1, 77);
          kScalarCodeKernels.byte_dot(c.query(), c.rows(), bytes, bytes, c.ids.data(), n,
                                      want.data());
          each->byte_dot(c.query(), c.rows(), bytes, bytes, c.ids.data(), n, got.data());
          ASSERT_EQ(got, want) << each->name << " bytes " << bytes << " n " << n;
        }
      }
    }
  }
}

/// Blocks of 32 rows of 1-bit codes with the factors behind them. Thread safety: single owner.
struct BitCase {
  BitCase(Fill fill, size_t line_count, size_t block_count, Rng* rng)
      : lines(line_count),
        count(block_count),
        stride(lines * 64 + 320),
        tables(lines),
        blocks(count * stride / 64 + 1) {
    auto* table = reinterpret_cast<uint8_t*>(tables.data());
    for (size_t i = 0; i < lines * 64; ++i) table[i] = code_of(fill, i, rng);
    auto* to = reinterpret_cast<uint8_t*>(blocks.data());
    for (size_t i = 0; i < count * stride; ++i) to[i] = static_cast<uint8_t>(rng->below(256));
  }
  /// Factors that make the results the sums themselves.
  void factors_of_sums() {
    for (size_t b = 0; b < count; ++b) {
      for (size_t i = 0; i < 32; ++i) set_factors(b, i, 0, 1, 0);
    }
  }
  void set_factors(size_t block, size_t row, float add, float rescale, uint16_t deviation) {
    auto* tail = reinterpret_cast<uint8_t*>(blocks.data()) + block * stride + lines * 64;
    std::memcpy(tail + 4 * row, &add, sizeof add);
    std::memcpy(tail + 128 + 4 * row, &rescale, sizeof rescale);
    std::memcpy(tail + 256 + 2 * row, &deviation, sizeof deviation);
  }
  std::vector<float> run(const CodeKernels& kernels, float step, float offset, float base,
                         float reach) const {
    std::vector<float> out(count * 32 + 1, -5);
    kernels.bit_scan({reinterpret_cast<const uint8_t*>(tables.data()), lines,
                      reinterpret_cast<const uint8_t*>(blocks.data()), stride, count, step, offset,
                      base, reach, out.data()});
    EXPECT_EQ(out.back(), -5) << kernels.name;
    return out;
  }

  size_t lines, count, stride;
  AlignedFloats tables, blocks;
};

TEST(CodeKernels, ScalarBitSumByHand) {
  Rng rng(5);
  BitCase c(Fill::kRandom, 1, 1, &rng);
  c.factors_of_sums();
  auto* tables = reinterpret_cast<uint8_t*>(c.tables.data());
  auto* block = reinterpret_cast<uint8_t*>(c.blocks.data());
  std::fill_n(tables, 64, uint8_t{0});
  std::fill_n(block, 64, uint8_t{0});
  tables[7] = 100;           // group 0
  tables[3 * 16 + 9] = 200;  // group 3
  block[2 * 5] = 0x97;       // row 5: 7, row 21: 9
  block[3 * 16 + 2 * 5] = 9;
  block[2 * 2 + 1] = 0x70;  // row 26
  const std::vector<float> out = c.run(kScalarCodeKernels, 1, 0, 0, 0);
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(out[i], i == 5 ? 300 : i == 26 ? 100 : 0) << i;
  }
  c.set_factors(0, 5, 10, -2, 0x4040);  // a deviation of 3
  EXPECT_EQ(c.run(kScalarCodeKernels, 0.5F, 1, 20, 4)[5], 10 + 20 - 2 * (0.5F * 300 + 1) - 3 * 4);
}

// 70 and 130 lines: more than 16-bit sums hold.
TEST(CodeKernels, BitSumsEqualScalar) {
  Rng rng(6);
  for (const CodeKernels* each : supported_code_kernels()) {
    for (const size_t lines : {1U, 2U, 3U, 4U, 5U, 6U, 7U, 8U, 9U, 63U, 64U, 65U, 70U, 130U}) {
      for (const Fill fill : kFills) {
        for (const size_t count : {0U, 1U, 2U, 5U}) {
          BitCase c(fill, lines, count, &rng);
          c.factors_of_sums();
          ASSERT_EQ(c.run(*each, 1, 0, 0, 0), c.run(kScalarCodeKernels, 1, 0, 0, 0))
              << each->name << " lines " << lines << " blocks " << count;
        }
      }
    }
  }
}

TEST(CodeKernels, BitEstimatesAreNearScalar) {
  Rng rng(7);
  for (const CodeKernels* each : supported_code_kernels()) {
    for (const size_t lines : {1U, 7U, 65U}) {
      BitCase c(Fill::kRandom, lines, 3, &rng);
      for (size_t b = 0; b < c.count; ++b) {
        for (size_t i = 0; i < 32; ++i) {
          const auto add = static_cast<float>(rng.uniform() * 1e4);
          const auto rescale = static_cast<float>(-rng.uniform());
          c.set_factors(b, i, add, rescale, static_cast<uint16_t>(0x3F80 + rng.below(64)));
        }
      }
      // Infinities of rows without a code, and of places without a row.
      c.set_factors(1, 3, -kFarthest, 0, 0);
      c.set_factors(1, 17, kFarthest, 0, 0);
      const std::vector<float> want = c.run(kScalarCodeKernels, 0.25F, -80, 1000, 50);
      const std::vector<float> got = c.run(*each, 0.25F, -80, 1000, 50);
      EXPECT_EQ(got[32 + 3], -kFarthest);
      EXPECT_EQ(got[32 + 17], kFarthest);
      for (size_t i = 0; i < want.size(); ++i) {
        if (!std::isfinite(want[i])) continue;
        EXPECT_NEAR(got[i], want[i], 0.02) << each->name << " " << i;
      }
    }
  }
}

TEST(CodeKernels, LargestDimensionDoesNotOverflow) {
  constexpr size_t kBytes = 65600;  // 65537 rounded up to lines
  std::vector<int32_t> out(5);
  for (const CodeKernels* each : supported_code_kernels()) {
    for (const int8_t weight : {int8_t{127}, int8_t{-127}}) {
      AlignedFloats codes(kBytes / 64);
      AlignedFloats query(kBytes / 64);
      std::memset(static_cast<void*>(codes.data()), 255, 65537);
      std::memset(static_cast<void*>(query.data()), weight, 65537);
      const uint32_t ids[] = {0, 0, 0, 0, 0};
      each->byte_dot(reinterpret_cast<const int8_t*>(query.data()),
                     reinterpret_cast<const uint8_t*>(codes.data()), kBytes, kBytes, ids, 5,
                     out.data());
      for (const int32_t sum : out) EXPECT_EQ(sum, 65537 * 255 * weight) << each->name;
    }
  }
}

/// Inputs of `bound` that could be real: norms and products of vectors, near to each other or not.
struct BoundCase {
  std::vector<int32_t> high, low;
  std::vector<float> step, norm, error;
  int32_t centre = 0;
  float query_step = 0, query_norm = 0, query_error = 0;

  double squared(size_t i) const {
    const double product = 16.0 * high[i] + low[i] - centre;
    return static_cast<double>(query_norm) + norm[i] - 2.0 * query_step * step[i] * product;
  }
};

BoundCase bound_case(size_t n, double magnitude, double nearness, Rng* rng) {
  BoundCase c;
  constexpr int kCoordinates = 100;
  std::vector<int> query(kCoordinates);
  int64_t squares = 0;
  for (int& q : query) {
    q = static_cast<int>(rng->below(255)) - 127;
    squares += q * q;
    c.centre += 128 * q;
  }
  const auto norm_of = [](double step, int64_t sum) {
    return static_cast<float>(step * step * static_cast<double>(sum));
  };
  c.query_step = static_cast<float>(magnitude * (0.5 + rng->uniform()));
  c.query_norm = norm_of(c.query_step, squares);
  c.query_error = static_cast<float>(c.query_step * rng->uniform());
  for (size_t i = 0; i < n; ++i) {
    int64_t row_squares = 0;
    int32_t high = 0;
    int32_t low = 0;
    for (const int q : query) {
      const int x = rng->chance(nearness) ? q : static_cast<int>(rng->below(255)) - 127;
      row_squares += x * x;
      high += q * ((x + 128) >> 4);
      low += q * ((x + 128) & 15);
    }
    c.high.push_back(high);
    c.low.push_back(low);
    c.step.push_back(static_cast<float>(c.query_step * (0.99 + 0.02 * rng->uniform())));
    c.norm.push_back(norm_of(c.step.back(), row_squares));
    c.error.push_back(static_cast<float>(c.step.back() * rng->uniform()));
  }
  return c;
}

TEST(CodeKernels, BoundIsBelowDoubleArithmeticAndNear) {
  Rng rng(4);
  constexpr float kRounding = 16 * 0x1p-24F;
  for (const CodeKernels* each : supported_code_kernels()) {
    for (const double magnitude : {1e-10, 1e-3, 1.0, 1e8, 1e15}) {
      for (const double nearness : {0.0, 0.9, 1.0}) {
        for (const size_t n : kCounts) {
          const BoundCase c = bound_case(n, magnitude, nearness, &rng);
          std::vector<float> out(n + 1, -5);
          each->bound({c.high.data(), c.low.data(), c.step.data(), c.norm.data(), c.error.data(), n,
                       c.centre, 2 * c.query_step, c.query_norm, c.query_error, kRounding,
                       out.data()});
          EXPECT_EQ(out[n], -5);
          for (size_t i = 0; i < n; ++i) {
            const double norms = static_cast<double>(c.query_norm) + c.norm[i];
            const double errors = static_cast<double>(c.query_error) + c.error[i];
            const double root = std::sqrt(std::max(0.0, c.squared(i))) - errors;
            const double exact = root > 0 ? root * root : 0;
            ASSERT_LE(out[i], exact) << each->name << " " << magnitude << " n " << n;
            // From below: `rounding` x norms and as much again for the roundings themselves.
            const double less =
                std::sqrt(std::max(0.0, c.squared(i) - 2 * kRounding * norms)) - errors * 1.000001;
            const double least = less > 0 ? less * less * (1 - 0x1p-19) : 0;
            ASSERT_GE(out[i], least) << each->name << " " << magnitude << " n " << n;
          }
        }
      }
    }
  }
}

TEST(CodeKernels, InfiniteErrorsGiveZero) {
  for (const CodeKernels* each : supported_code_kernels()) {
    const size_t n = 19;
    const std::vector<int32_t> zeros(n);
    const std::vector<float> ones(n, 1.0F);
    const std::vector<float> errors(n, std::numeric_limits<float>::infinity());
    std::vector<float> out(n, -5);
    each->bound({zeros.data(), zeros.data(), ones.data(), ones.data(), errors.data(), n, 0, 1, 1, 0,
                 0x1p-20F, out.data()});
    for (const float value : out) EXPECT_EQ(value, 0) << each->name;
  }
}

}  // namespace
}  // namespace aionbd
