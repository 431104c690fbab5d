#include "quant/byte_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "quant/matrix.h"

namespace aionbd {
namespace {

std::vector<uint32_t> all_ids(size_t n) {
  std::vector<uint32_t> ids(n);
  for (uint32_t i = 0; i < n; ++i) ids[i] = i;
  return ids;
}

TEST(ByteCodec, QuantizeRoundsToTheNearestStep) {
  Rng rng(1);
  for (const float scale : {1e-28F, 1e-3F, 1.0F, 1e17F}) {
    Matrix a = random_normal(1, 200, &rng);
    for (float& value : a.values) value *= scale;
    std::vector<int8_t> codes(a.columns);
    const float step = quantize_bytes(a.values.data(), a.columns, codes.data());
    EXPECT_NEAR(step * 127, largest_magnitude(a.values.data(), a.columns), 1e-6 * step * 127);
    for (size_t k = 0; k < a.columns; ++k) {
      ASSERT_LE(std::abs(a.values[k] - step * codes[k]), 0.50002F * step);
    }
  }
}

TEST(ByteCodec, ZerosAndTheTiniestValuesAreZeros) {
  for (const float value : {0.0F, 1e-45F, -1e-44F, 1e-39F, 1e-31F}) {
    const std::vector<float> values = {value, 0, -value};
    std::vector<int8_t> codes(3, 5);
    EXPECT_EQ(quantize_bytes(values.data(), 3, codes.data()), 1);
    EXPECT_EQ(codes, std::vector<int8_t>(3, 0)) << value;
  }
}

TEST(ByteCodec, DistancesAndProductsAreClose) {
  Rng rng(2);
  for (const size_t dim : {1U, 2U, 63U, 64U, 65U, 100U, 784U}) {
    for (const float scale : {1e-6F, 1.0F, 1e15F}) {
      Matrix rows = random_normal(131, dim, &rng);
      for (float& value : rows.values) value *= scale;
      EncodedBytes encoded(dim);
      encoded.append(rows.row(0), 7);  // in two pieces
      encoded.append(rows.row(7), 124);
      const ByteCodes codes = encoded.view();
      const std::vector<uint32_t> ids = all_ids(rows.rows);
      std::vector<float> distances(rows.rows);
      std::vector<float> products(rows.rows);
      std::vector<float> by_row(rows.rows);
      const ByteQuery query(rows.row(3), dim);
      query.distances(codes, ids.data(), rows.rows, distances.data());
      query.products(codes, ids.data(), rows.rows, products.data());
      ByteQuery(codes, 3).distances(codes, ids.data(), rows.rows, by_row.data());
      EXPECT_EQ(by_row, distances);
      EXPECT_NEAR(distances[3], 0, 1e-6 * codes.tail(3).norm);
      for (size_t i = 0; i < rows.rows; ++i) {
        double exact = 0;
        double dot = 0;
        double norms = 0;
        for (size_t k = 0; k < dim; ++k) {
          const double a = rows.row(3)[k];
          const double b = rows.row(i)[k];
          exact += (a - b) * (a - b);
          dot += a * b;
          norms += a * a + b * b;
        }
        // Half a step of 1/127 of the largest (at most 4.5 sigma) coordinate, on both sides.
        ASSERT_NEAR(distances[i], exact, 0.02 * norms + 1e-30) << dim << " " << scale;
        ASSERT_NEAR(products[i], dot, 0.01 * norms + 1e-30) << dim << " " << scale;
      }
    }
  }
}

TEST(ByteCodec, AnyOrderAndRepetitionOfIds) {
  Rng rng(3);
  const Matrix rows = random_normal(10, 30, &rng);
  EncodedBytes encoded(30);
  encoded.append(rows.row(0), 10);
  const ByteQuery query(rows.row(0), 30);
  const uint32_t ids[] = {9, 9, 0, 4, 9};
  float some[5];
  float all[10];
  query.distances(encoded.view(), ids, 5, some);
  query.distances(encoded.view(), all_ids(10).data(), 10, all);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(some[i], all[ids[i]]);
}

}  // namespace
}  // namespace aionbd
