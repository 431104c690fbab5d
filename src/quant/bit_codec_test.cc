// One-bit codes: estimates without bias, lower estimates at their stated rate, rows without a code.
#include "quant/bit_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace aionbd::bit_codec_test {
namespace {

/// One-sided, of a normal distribution beyond 1.9 deviations.
constexpr double kBeyondShare = 0.0287;

float normal(Rng* rng) {
  float sum = -6;  // twelve uniform numbers: near enough
  for (int i = 0; i < 12; ++i) sum += static_cast<float>(rng->uniform());
  return sum;
}

std::vector<float> normals(size_t n, Rng* rng) {
  std::vector<float> out(n);
  for (float& value : out) value = normal(rng);
  return out;
}

/// Rows of one centre in blocks. Thread safety: single owner.
struct Blocks {
  Blocks(std::vector<float> values, std::vector<float> centre_values)
      : layout(centre_values.size()),
        rows(values.size() / centre_values.size()),
        y(std::move(values)),
        centre(std::move(centre_values)),
        count((rows + kBitRows - 1) / kBitRows),
        room(count * layout.block_bytes() / sizeof(FloatLine)) {
    std::vector<uint32_t> ids(rows);
    std::iota(ids.begin(), ids.end(), 0U);
    for (size_t b = 0; b < count; ++b) {
      const auto some = std::span(ids).subspan(b * kBitRows);
      encode_bits(layout, y.data(), some.first(std::min(kBitRows, some.size())), centre.data(),
                  bytes() + b * layout.block_bytes());
    }
  }
  uint8_t* bytes() { return reinterpret_cast<uint8_t*>(room.data()); }

  std::vector<float> lower(const std::vector<float>& q, float deviations = kBitDeviations) {
    const BitQuery query(layout, q.data());
    std::vector<float> out(count * kBitRows);
    query.lower_estimates(bytes(), count, static_cast<float>(squared(q, centre.data())), out.data(),
                          deviations);
    return out;
  }
  static double squared(const std::vector<float>& q, const float* other) {
    double sum = 0;
    for (size_t k = 0; k < q.size(); ++k) {
      const double difference = static_cast<double>(q[k]) - other[k];
      sum += difference * difference;
    }
    return sum;
  }
  double distance(const std::vector<float>& q, size_t row) const {
    return squared(q, y.data() + row * q.size());
  }

  BitLayout layout;
  size_t rows;
  std::vector<float> y;
  std::vector<float> centre;
  size_t count;
  AlignedFloats room;
};

/// `spread`: how far the centre is from the origin, in deviations of the residuals.
Blocks random_blocks(size_t rows, size_t coordinates, float spread, Rng* rng) {
  std::vector<float> centre = normals(coordinates, rng);
  for (float& value : centre) value *= spread;
  std::vector<float> y = normals(rows * coordinates, rng);
  for (size_t i = 0; i < y.size(); ++i) y[i] += centre[i % coordinates];
  return {std::move(y), std::move(centre)};
}

std::vector<float> random_query(const Blocks& blocks, Rng* rng) {
  std::vector<float> q = normals(blocks.centre.size(), rng);
  for (size_t k = 0; k < q.size(); ++k) q[k] += blocks.centre[k];
  return q;
}

TEST(BitCodec, LayoutIsWholeLines) {
  for (size_t coordinates = 1; coordinates < 300; ++coordinates) {
    const BitLayout layout(coordinates);
    EXPECT_EQ(layout.block_bytes() % 64, 0U);
    EXPECT_GE(layout.groups * 4, coordinates);
    EXPECT_GE(layout.lines * 4, layout.groups);
    EXPECT_LT(layout.lines * 16, coordinates + 16);
  }
}

TEST(BitCodec, OneCoordinateByHand) {
  // A residual of one coordinate is its sign times its length, so nothing is lost.
  Blocks blocks({5, 2, 3.5F}, {3});
  const std::vector<float> lower = blocks.lower({4}, 0);
  EXPECT_NEAR(lower[0], 1, 0.02);
  EXPECT_NEAR(lower[1], 4, 0.02);
  EXPECT_NEAR(lower[2], 0.25, 0.02);
  EXPECT_EQ(lower[3], kFarthest);
}

TEST(BitCodec, RowsOfPlusAndMinusOneAreExact) {
  // They are their own signs: estimates are off by the table's rounding only.
  Rng rng(3);
  for (const size_t coordinates : {4, 15, 64, 113}) {
    std::vector<float> y(70 * coordinates);
    for (float& value : y) value = rng.chance(0.5) ? 1.0F : -1.0F;
    Blocks blocks(std::move(y), std::vector<float>(coordinates));
    const std::vector<float> q = normals(coordinates, &rng);
    const std::vector<float> estimates = blocks.lower(q, 0);
    for (size_t i = 0; i < blocks.rows; ++i) {
      const double exact = blocks.distance(q, i);
      EXPECT_NEAR(estimates[i], exact, 0.05 * std::sqrt(static_cast<double>(coordinates)))
          << coordinates;
    }
  }
}

TEST(BitCodec, EstimatesAreUnbiasedAndTheirLowerEstimatesHoldAtTheStatedRate) {
  Rng rng(1);
  for (const size_t coordinates : {16, 24, 100, 113, 784, 4100}) {
    for (const float spread : {0.0F, 1.0F, 5.0F}) {
      const size_t queries = coordinates > 1000 ? 3 : 20;
      size_t beyond = 0;
      size_t rows = 0;
      double bias = 0;     // of estimates, relative to |o| |q - c|
      double squares = 0;  // of their errors
      for (size_t i = 0; i < queries; ++i) {
        Blocks blocks = random_blocks(203, coordinates, spread, &rng);
        const std::vector<float> q = random_query(blocks, &rng);
        const std::vector<float> lower = blocks.lower(q);
        const std::vector<float> estimates = blocks.lower(q, 0);
        const double reach = std::sqrt(Blocks::squared(q, blocks.centre.data()));
        for (size_t row = 0; row < blocks.rows; ++row) {
          const double exact = blocks.distance(q, row);
          const std::vector<float> of_row(
              blocks.y.begin() + static_cast<std::ptrdiff_t>(row * coordinates),
              blocks.y.begin() + static_cast<std::ptrdiff_t>((row + 1) * coordinates));
          const double length = std::sqrt(Blocks::squared(of_row, blocks.centre.data()));
          EXPECT_LT(lower[row], estimates[row]);
          const double error = (estimates[row] - exact) / (length * reach);
          bias += error;
          squares += error * error;
          beyond += lower[row] > exact;
          ++rows;
        }
      }
      const auto n = static_cast<double>(rows);
      const double deviation = std::sqrt(squares / n);
      const double share = static_cast<double>(beyond) / n;
      // For random directions |x'| / <x, o> is sqrt(1 / 0.637 - 1) = 0.755 of |o|, twice over.
      EXPECT_LT(deviation, 1.1 * 2 * 0.755 / std::sqrt(static_cast<double>(coordinates) - 1) *
                               (1 + 0.02 * spread))
          << coordinates << " " << spread;
      EXPECT_LT(std::abs(bias / n), 6 * deviation / std::sqrt(n)) << coordinates << " " << spread;
      // Errors of one query are not quite independent, so a little room.
      EXPECT_LT(share, kBeyondShare + 0.008) << coordinates << " " << spread;
      // A bound that always holds would dismiss too little.
      EXPECT_GT(share, spread < 2 ? 0.004 : 0) << coordinates << " " << spread;
    }
  }
}

TEST(BitCodec, RowsWithoutACodeAreNeverDismissed) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr size_t kDimension = 40;
  std::vector<float> centre(kDimension, 0.25F);
  std::vector<float> y(7 * kDimension, 0.25F);  // row 0: the centre
  y[1 * kDimension + 3] = 9;                    // along an axis
  y[2 * kDimension + 3] = kNan;
  y[3 * kDimension + 3] = kFarthest;
  std::fill_n(y.begin() + 4 * kDimension, kDimension, 1e30F);
  std::fill_n(y.begin() + 5 * kDimension, kDimension, 3e-30F);
  for (size_t k = 0; k < kDimension; ++k) y[6 * kDimension + k] = k % 2 == 0 ? 1.0F : -1.0F;
  Blocks blocks(std::move(y), std::move(centre));
  const std::vector<float> lower = blocks.lower(std::vector<float>(kDimension, 0.125F));
  for (size_t row = 0; row < 5; ++row) EXPECT_EQ(lower[row], -kFarthest) << row;
  EXPECT_LT(lower[5], blocks.distance(std::vector<float>(kDimension, 0.125F), 5));
  EXPECT_TRUE(std::isfinite(lower[6]));
  for (size_t i = 7; i < kBitRows; ++i) EXPECT_EQ(lower[i], kFarthest);
}

TEST(BitCodec, QueriesOfAnySizeHaveLowerEstimatesThatHold) {
  Rng rng(5);
  Blocks blocks = random_blocks(64, 30, 1, &rng);
  for (const float scale : {0.0F, 1e-35F, 1e-20F, 1e-3F, 1e3F, 1e9F, 1e15F}) {
    std::vector<float> q = normals(30, &rng);
    for (float& value : q) value *= scale;
    const std::vector<float> lower = blocks.lower(q, 4);
    for (size_t i = 0; i < blocks.rows; ++i) {
      EXPECT_FALSE(std::isnan(lower[i]));
      EXPECT_LE(lower[i], blocks.distance(q, i) * 1.001) << scale;
    }
  }
}

TEST(BitCodec, RowsAreThoseOfTheIds) {
  Rng rng(6);
  Blocks blocks = random_blocks(20, 24, 1, &rng);
  const std::vector<uint32_t> ids = {7, 0, 19, 7, 3};
  AlignedFloats room(blocks.layout.block_bytes() / sizeof(FloatLine));
  auto* block = reinterpret_cast<uint8_t*>(room.data());
  std::memset(block, 0xAB, blocks.layout.block_bytes());
  encode_bits(blocks.layout, blocks.y.data(), ids, blocks.centre.data(), block);
  const std::vector<float> q = random_query(blocks, &rng);
  const std::vector<float> all = blocks.lower(q);
  float some[kBitRows];
  BitQuery(blocks.layout, q.data())
      .lower_estimates(block, 1, static_cast<float>(Blocks::squared(q, blocks.centre.data())),
                       some);
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(some[i], all[ids[i]]);
  for (size_t i = ids.size(); i < kBitRows; ++i) EXPECT_EQ(some[i], kFarthest);
}

}  // namespace
}  // namespace aionbd::bit_codec_test
