// The guarantee of the bounds, on data made to break it: every (query, row) pair of every set is
// compared with the distance of the original vectors in double.
#include "quant/plane_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/sanitized.h"
#include "quant/projection.h"

namespace aionbd {
namespace {

Matrix normal(size_t rows, size_t dim, Rng* rng, double scale = 1) {
  Matrix out = random_normal(rows, dim, rng);
  for (float& value : out.values) value = static_cast<float>(value * scale);
  return out;
}

/// `rank` directions with variance 1 and noise of deviation `noise`.
Matrix low_rank(size_t rows, size_t dim, size_t rank, double noise, Rng* rng) {
  const Matrix factors = random_normal(rows, rank, rng);
  const Matrix directions = random_normal(dim, rank, rng);
  Matrix out = multiply_transposed(factors, directions);
  const Matrix extra = normal(rows, dim, rng, noise);
  for (size_t i = 0; i < out.values.size(); ++i) out.values[i] += extra.values[i];
  return out;
}

struct DataSet {
  std::string name;
  Matrix rows;
};

void make_unit_length(Matrix* rows) {
  for (size_t i = 0; i < rows->rows; ++i) {
    const float length = std::sqrt(norm_squared(rows->row(i), rows->columns));
    for (size_t k = 0; k < rows->columns; ++k) rows->row(i)[k] /= length;
  }
}

std::vector<DataSet> adversarial_sets(size_t rows, size_t dim, Rng* rng) {
  std::vector<DataSet> sets;
  sets.push_back({"gaussian", normal(rows, dim, rng)});
  for (const double scale : {1e15, 1e-10, 1e-18, 1e-20, 1e-23, 1e-30, 1e-38, 1e-42}) {
    sets.push_back(
        {"gaussian x " + std::to_string(std::log10(scale)), normal(rows, dim, rng, scale)});
  }
  DataSet duplicates{"duplicates", normal(rows, dim, rng)};
  for (size_t i = 0; i < rows; ++i) {
    std::copy_n(duplicates.rows.row(i % 5), dim, duplicates.rows.row(i));
    if (i % 3 == 0) duplicates.rows.row(i)[0] = std::nextafter(duplicates.rows.row(i)[0], 9.0F);
  }
  sets.push_back(std::move(duplicates));
  DataSet equal{"all equal", Matrix(rows, dim)};
  std::fill(equal.rows.values.begin(), equal.rows.values.end(), 0.1F);
  sets.push_back(std::move(equal));
  sets.push_back({"zeros", Matrix(rows, dim)});
  DataSet one_hot{"one hot", Matrix(rows, dim)};
  for (size_t i = 0; i < rows; ++i) one_hot.rows.row(i)[i % dim] = 1;
  sets.push_back(std::move(one_hot));
  DataSet dominant{"one dominant coordinate", normal(rows, dim, rng)};
  for (size_t i = 0; i < rows; ++i) dominant.rows.row(i)[dim / 2] *= 1e4F;
  sets.push_back(std::move(dominant));
  DataSet offset{"far mean", normal(rows, dim, rng)};
  for (float& value : offset.rows.values) value += 1e6F;
  sets.push_back(std::move(offset));
  for (const double noise : {0.0, 1e-4, 0.1, 0.5}) {
    sets.push_back({"low rank, noise " + std::to_string(noise),
                    low_rank(rows, dim, std::min<size_t>(dim, 10), noise, rng)});
  }
  DataSet unit{"unit length", normal(rows, dim, rng)};
  make_unit_length(&unit.rows);
  sets.push_back(std::move(unit));
  DataSet mixed{"mixed lengths", normal(rows, dim, rng)};
  for (size_t i = 0; i < rows; ++i) {
    const auto power = static_cast<double>(i % 31) - 15;
    for (size_t k = 0; k < dim; ++k) {
      mixed.rows.row(i)[k] = static_cast<float>(mixed.rows.row(i)[k] * std::pow(10.0, power));
    }
  }
  sets.push_back(std::move(mixed));
  return sets;
}

double true_distance(const float* a, const float* b, size_t n) {
  double sum = 0;
  for (size_t k = 0; k < n; ++k) {
    const double difference = static_cast<double>(a[k]) - b[k];
    sum += difference * difference;
  }
  return sum;
}

/// Projected and coded rows, and their bounds from any query.
struct Coded {
  const Projection& projection;
  PlaneLayout layout;
  EncodedPlanes planes;
  std::vector<float> y, slack;

  Coded(const Projection& p, const Matrix& rows)
      : projection(p), layout(p.coordinates()), y(rows.rows * p.coordinates()), slack(rows.rows) {
    projection.apply(rows.row(0), rows.rows, y.data(), slack.data());
    // In two pieces, to cross the boundary of the low plane.
    const size_t half = rows.rows / 2;
    encode_planes(layout, y.data(), slack.data(), half, &planes);
    encode_planes(layout, y.data() + half * layout.coordinates, slack.data() + half,
                  rows.rows - half, &planes);
  }
  PlaneQuery query(const float* vector) const {
    std::vector<float> q(layout.coordinates);
    float q_slack = 0;
    projection.apply(vector, 1, q.data(), &q_slack);
    return PlaneQuery(layout, q.data(), q_slack);
  }
  std::vector<float> bounds(const float* vector, float reach = kFarthest) const {
    const PlaneQuery prepared = query(vector);
    std::vector<float> out(slack.size());
    for (size_t first = 0; first < out.size(); first += 100) {
      prepared.lower_bounds(planes.codes(), first, std::min<size_t>(100, out.size() - first), reach,
                            out.data() + first);
    }
    return out;
  }
};

/// With a reach, bounds within it are the same but for the last bits (a kernel may fuse operations
/// or not, by the place of a row), and all others are beyond it and no larger.
void check_reaches(const Coded& coded, const float* query, const std::vector<float>& bounds) {
  std::vector<float> sorted = bounds;
  std::sort(sorted.begin(), sorted.end());
  for (const size_t place : {size_t{0}, sorted.size() / 50, sorted.size() / 2, sorted.size() - 1}) {
    const float reach = sorted[place];
    const float slack = 1e-5F * sorted.back();
    const std::vector<float> some = coded.bounds(query, reach);
    size_t wrong = 0;
    for (size_t i = 0; i < bounds.size(); ++i) {
      wrong += some[i] > bounds[i] + slack ? 1 : 0;
      wrong += bounds[i] <= reach ? some[i] < bounds[i] - slack : some[i] < reach - slack;
    }
    EXPECT_EQ(wrong, 0u) << "reach " << reach;
  }
}

/// Median of bound / true over the pairs that are not equal; fails where one exceeds 1.
double check_bounds(const DataSet& set, const Projection& projection, const Matrix& queries) {
  const size_t dim = set.rows.columns;
  const Coded coded(projection, set.rows);
  std::vector<double> ratios;
  for (size_t q = 0; q < queries.rows; ++q) {
    const std::vector<float> bounds = coded.bounds(queries.row(q));
    check_reaches(coded, queries.row(q), bounds);
    for (size_t i = 0; i < set.rows.rows; ++i) {
      const double exact = true_distance(queries.row(q), set.rows.row(i), dim);
      EXPECT_TRUE(bounds[i] >= 0 && bounds[i] <= exact)
          << set.name << ", " << dim << " dimensions: " << bounds[i] << " above " << exact;
      if (!(bounds[i] >= 0 && bounds[i] <= exact)) return 0;
      if (exact > 0) ratios.push_back(bounds[i] / exact);
    }
  }
  if (ratios.empty()) return 1;
  std::nth_element(ratios.begin(), ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2),
                   ratios.end());
  return ratios[ratios.size() / 2];
}

/// Some rows, some rows moved a little, and one that is like none.
Matrix queries_for(const Matrix& rows, Rng* rng) {
  Matrix out(7, rows.columns);
  for (size_t q = 0; q < 6; ++q) {
    const float* from = rows.row(rng->below(rows.rows));
    for (size_t k = 0; k < rows.columns; ++k) {
      const float moved = q < 3 ? 1.0F : 1 + 1e-3F * static_cast<float>(rng->uniform());
      out.row(q)[k] = from[k] * moved;
    }
  }
  for (size_t k = 0; k < rows.columns; ++k) out.row(6)[k] = static_cast<float>(rng->uniform());
  return out;
}

TEST(PlaneCodec, BoundsNeverExceedTheDistance) {
  Rng rng(1);
  for (const size_t dim : {1U, 2U, 7U, 100U, 112U, 113U, 128U, 784U}) {
    size_t number = dim;
    for (const DataSet& set : adversarial_sets(dim > 200 ? 60 : 200, dim, &rng)) {
      // Sanitized runs are slow: there each dimension meets another third of the sets.
      if (kSanitized && ++number % 3 != 0) continue;
      const Projection projection = Projection::train(set.rows, rng.next());
      check_bounds(set, projection, queries_for(set.rows, &rng));
      if (HasFailure()) return;
    }
  }
}

TEST(PlaneCodec, BoundsNeverExceedTheDistanceAtMoreDimensions) {
  Rng rng(2);
  for (const size_t rank : {5U, 1500U}) {
    const DataSet set{"rank " + std::to_string(rank), low_rank(400, 1500, rank, 0.01, &rng)};
    const Projection projection = Projection::train(set.rows, 3);
    EXPECT_LT(projection.coordinates(), 1500U);
    check_bounds(set, projection, queries_for(set.rows, &rng));
  }
}

TEST(PlaneCodec, BoundsHoldForRowsUnlikeTheSample) {
  Rng rng(3);
  for (const size_t dim : {20U, 300U}) {
    const Projection projection = Projection::train(low_rank(500, dim, 5, 0.01, &rng), 4);
    for (const DataSet& set : adversarial_sets(200, dim, &rng)) {
      check_bounds(set, projection, queries_for(set.rows, &rng));
    }
  }
}

TEST(PlaneCodec, BoundsAreUseful) {
  Rng rng(4);
  const DataSet gaussian{"gaussian", normal(2000, 100, &rng)};
  EXPECT_GT(check_bounds(gaussian, Projection::train(gaussian.rows, 1), normal(20, 100, &rng)),
            0.95);
  const DataSet far{"far mean", [&] {
                      Matrix rows = normal(500, 100, &rng);
                      for (float& value : rows.values) value += 1e6F;
                      return rows;
                    }()};
  EXPECT_GT(check_bounds(far, Projection::train(far.rows, 1), queries_for(far.rows, &rng)), 0.9);
}

// Little is dropped here, which is where an error bound by the difference of squares is useless.
TEST(PlaneCodec, BoundsAreUsefulWhereLittleIsDropped) {
  Rng rng(5);
  for (const double noise : {1e-4, 0.01, 0.1, 0.3}) {
    const DataSet set{"noise " + std::to_string(noise), low_rank(1500, 600, 40, noise, &rng)};
    const Projection projection = Projection::train(set.rows, 1);
    ASSERT_EQ(projection.coordinates(), 112U);
    Matrix queries(20, 600);
    std::copy_n(set.rows.row(700), queries.values.size(), queries.values.begin());
    EXPECT_GT(check_bounds(set, projection, queries), 0.93) << noise;
  }
}

TEST(PlaneCodec, RowsTooLongOrNotFiniteHaveZeroBounds) {
  Rng rng(6);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const size_t dim : {10U, 150U}) {
    const Projection projection = Projection::train(normal(200, dim, &rng), 1);
    Matrix rows = normal(6, dim, &rng);
    for (size_t k = 0; k < dim; ++k) {
      rows.row(1)[k] = 3e38F;
      rows.row(2)[k] = k % 2 == 0 ? 1e19F : -1e19F;
    }
    rows.row(3)[1] = infinity;
    rows.row(4)[1] = std::numeric_limits<float>::quiet_NaN();
    const Coded coded(projection, rows);
    for (size_t q = 0; q < rows.rows; ++q) {
      const std::vector<float> bounds = coded.bounds(rows.row(q));
      for (size_t i = 0; i < rows.rows; ++i) {
        const bool both_fine = (q == 0 || q == 5) && (i == 0 || i == 5);
        EXPECT_EQ(bounds[i] > 0, both_fine && i != q) << q << " " << i;
        EXPECT_GE(bounds[i], 0) << q << " " << i;
      }
    }
    // As projected vectors, too.
    const PlaneLayout layout(dim);
    EncodedPlanes planes;
    const std::vector<float> zero_slack(rows.rows);
    encode_planes(layout, rows.row(0), zero_slack.data(), rows.rows, &planes);
    for (size_t q = 0; q < rows.rows; ++q) {
      float bounds[6];
      PlaneQuery(layout, rows.row(q), 0).lower_bounds(planes.codes(), 0, 6, kFarthest, bounds);
      for (size_t i = 0; i < rows.rows; ++i) {
        const bool both_fine = (q == 0 || q == 5) && (i == 0 || i == 5);
        EXPECT_EQ(bounds[i] > 0, both_fine && i != q) << q << " " << i;
        EXPECT_GE(bounds[i], 0) << q << " " << i;
      }
    }
  }
}

TEST(PlaneCodec, EstimatesAreUnbiasedAndClose) {
  Rng rng(7);
  for (const size_t dim : {30U, 100U, 112U, 240U, 500U}) {
    const Matrix rows = normal(3000, dim, &rng);
    const PlaneLayout layout(dim);
    EncodedPlanes planes;
    const std::vector<float> slack(rows.rows);
    encode_planes(layout, rows.row(0), slack.data(), rows.rows, &planes);
    Matrix queries = normal(20, dim, &rng);
    // Half of them far on one side: a shift of all reconstructions would show.
    for (size_t i = 0; i < queries.values.size() / 2; ++i) queries.values[i] += 1;
    double sum = 0;
    double squares = 0;
    std::vector<float> out(rows.rows);
    for (size_t q = 0; q < queries.rows; ++q) {
      PlaneQuery(layout, queries.row(q), 0)
          .estimate_scan(planes.high_bytes(), rows.rows, out.data());
      for (size_t i = 0; i < rows.rows; ++i) {
        const double exact = true_distance(queries.row(q), rows.row(i), dim);
        const double relative = out[i] / exact - 1;
        sum += relative;
        squares += relative * relative;
      }
    }
    const auto n = static_cast<double>(queries.rows * rows.rows);
    // The 4-bit error, step x 16 / sqrt(12) a coordinate with a step of about 2.5 to 3 sigma / 127,
    // meets the query at random: about 0.1 / sqrt(dim) of the distance.
    EXPECT_NEAR(sum / n, 0, 0.001) << dim;
    EXPECT_LT(std::sqrt(squares / n), 0.13 / std::sqrt(static_cast<double>(dim))) << dim;
  }
}

TEST(PlaneCodec, TiniestRowsAreZerosAndKeepTheirLengthAsError) {
  const PlaneLayout layout(3);
  const float slack[] = {0, 0, 0};
  const float rows[] = {1e-42F, 0, -1e-42F, 1e-31F, 1e-35F, 0, 0, 0, 0};
  EncodedPlanes planes;
  encode_planes(layout, rows, slack, 3, &planes);
  EXPECT_EQ(planes.norm, std::vector<float>(3, 0.0F));
  EXPECT_NEAR(planes.error[0] / 1.4142e-42F, 1, 0.01);
  EXPECT_GE(planes.error[1], 1e-31F);
  EXPECT_LT(planes.error[1], 1.01e-31F);
  EXPECT_EQ(planes.error[2], 0);
  float estimates[3];
  const float query[] = {3, 4, 0};
  PlaneQuery(layout, query, 0).estimate_scan(planes.high_bytes(), 3, estimates);
  for (const float estimate : estimates) EXPECT_EQ(estimate, 25);
}

TEST(PlaneCodec, EstimateEqualsEstimateScan) {
  Rng rng(8);
  for (const size_t dim : {1U, 2U, 7U, 111U, 112U, 113U, 240U, 241U, 600U}) {
    const Matrix rows = normal(131, dim, &rng);
    const PlaneLayout layout(dim);
    EncodedPlanes planes;
    const std::vector<float> slack(rows.rows);
    encode_planes(layout, rows.row(0), slack.data(), rows.rows, &planes);
    const PlaneQuery query(layout, rows.row(5), 0);
    std::vector<float> scanned(rows.rows);
    std::vector<float> got(rows.rows);
    std::vector<uint32_t> ids(rows.rows);
    query.estimate_scan(planes.high_bytes(), rows.rows, scanned.data());
    for (uint32_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<uint32_t>((i * 37) % ids.size());
    query.estimate(planes.high_bytes(), ids.data(), ids.size(), got.data());
    for (size_t i = 0; i < ids.size(); ++i) ASSERT_EQ(got[i], scanned[ids[i]]) << dim;
  }
}

TEST(PlaneCodec, LayoutFillsWholeLines) {
  EXPECT_EQ(coordinates_in_lines(1), 112U);
  for (size_t lines = 1; lines < 10; ++lines) {
    EXPECT_EQ(PlaneLayout(coordinates_in_lines(lines)).lines, lines);
    EXPECT_EQ(PlaneLayout(coordinates_in_lines(lines) + 1).lines, lines + 1);
  }
}

}  // namespace
}  // namespace aionbd
