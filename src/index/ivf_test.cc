// Lists: every row in one, the neighbours found, skipping lists changes nothing, first looks hardly
// anything, damage refused.
#include "index/ivf.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace aionbd::ivf_test {
namespace {

constexpr size_t kCoordinates = 24;

float normal(Rng* rng) {
  float sum = -6;  // twelve uniform numbers: near enough
  for (int i = 0; i < 12; ++i) sum += static_cast<float>(rng->uniform());
  return sum;
}

/// Projected rows and their codes. Thread safety: single owner.
struct Segment {
  explicit Segment(std::vector<float> values, size_t coordinates = kCoordinates)
      : layout(coordinates),
        rows(static_cast<uint32_t>(values.size() / coordinates)),
        y(std::move(values)) {
    encode_planes(layout, y.data(), std::vector<float>(rows).data(), rows, &codes);
  }
  /// Around `centres` points whose coordinates have deviation `spread`.
  static Segment clustered(uint32_t rows, uint32_t centres, float spread, uint64_t seed,
                           size_t coordinates = kCoordinates) {
    Rng rng(seed);
    std::vector<float> middle(centres * coordinates);
    for (float& value : middle) value = spread * normal(&rng);
    std::vector<float> values;
    for (uint32_t i = 0; i < rows; ++i) {
      const float* centre = middle.data() + rng.below(centres) * coordinates;
      for (size_t k = 0; k < coordinates; ++k) values.push_back(centre[k] + normal(&rng));
    }
    return Segment(std::move(values), coordinates);
  }
  /// Without any structure.
  static Segment random(uint32_t rows, size_t coordinates, uint64_t seed) {
    Rng rng(seed);
    std::vector<float> values(rows * coordinates);
    for (float& value : values) value = normal(&rng);
    return Segment(std::move(values), coordinates);
  }

  BuiltIvf build(const IvfParameters& parameters, size_t helpers = 1,
                 const std::vector<bool>& outside = {}) const {
    ThreadPool pool(helpers);
    std::vector<uint32_t> ids;
    std::vector<float> inside;
    for (uint32_t i = 0; i < rows; ++i) {
      if (!outside.empty() && outside[i]) continue;
      ids.push_back(i);
      const float* row = y.data() + i * layout.coordinates;
      inside.insert(inside.end(), row, row + layout.coordinates);
    }
    return build_ivf(inside.data(), ids, codes.high_bytes(), layout, parameters, &pool);
  }
  /// A vector near some row.
  std::vector<float> query(Rng* rng) const {
    const float* row = y.data() + rng->below(rows) * layout.coordinates;
    std::vector<float> out(row, row + layout.coordinates);
    for (float& value : out) value += 0.5F * normal(rng);
    return out;
  }
  float distance(const std::vector<float>& q, uint32_t row) const {
    float sum = 0;
    for (size_t k = 0; k < q.size(); ++k) {
      const float d = q[k] - y[row * q.size() + k];
      sum += d * d;
    }
    return sum;
  }
  /// The ids given, nearest first.
  std::vector<uint32_t> nearest(const std::vector<float>& q, std::vector<uint32_t> ids,
                                size_t k) const {
    std::sort(ids.begin(), ids.end(),
              [&](uint32_t a, uint32_t b) { return distance(q, a) < distance(q, b); });
    ids.resize(std::min(k, ids.size()));
    return ids;
  }

  PlaneLayout layout;
  uint32_t rows;
  std::vector<float> y;
  EncodedPlanes codes;
};

std::vector<GraphCandidate> search(const Segment& segment, const IvfView& view,
                                   const std::vector<float>& q, size_t nprobe, size_t keep,
                                   IvfScratch* scratch) {
  const PlaneQuery query(segment.layout, q.data(), 0);
  search_ivf(view, query, q.data(), segment.layout, nprobe, keep, scratch);
  const auto found = scratch->found();
  return {found.begin(), found.end()};
}

/// The same lists without their 1-bit codes.
IvfView without_bits(const BuiltIvf& built) {
  IvfView view = built.view();
  view.bits = {};
  return view;
}

/// What holds for any lists over all rows.
void expect_whole(const Segment& segment, const BuiltIvf& built) {
  const IvfView view = built.view();
  const Status status = IvfView::check(view, segment.layout, segment.rows);
  EXPECT_TRUE(status.ok()) << status.to_string();
  ASSERT_EQ(view.members.size(), segment.rows);  // with check: each exactly once
  const size_t stride = segment.layout.high_stride();
  for (size_t c = 0; c < view.lists(); ++c) {
    EXPECT_LT(view.offsets[c], view.offsets[c + 1]);
    const float* at = view.centroids.data() + c * segment.layout.coordinates;
    const std::vector<float> centroid(at, at + segment.layout.coordinates);
    for (uint32_t i = view.offsets[c]; i < view.offsets[c + 1]; ++i) {
      const uint32_t row = view.members[i];
      EXPECT_LE(std::sqrt(segment.distance(centroid, row)), view.radii[c]);
      EXPECT_TRUE(std::equal(view.high.data() + i * stride, view.high.data() + (i + 1) * stride,
                             segment.codes.high_bytes() + row * stride));
    }
  }
}

TEST(Ivf, EveryRowIsInOneListOfBoundedLength) {
  const Segment segment = Segment::clustered(5000, 30, 3, 1);
  for (const uint32_t lists : {0U, 1U, 70U}) {
    const BuiltIvf built = segment.build({lists, 1});
    expect_whole(segment, built);
    const double mean = 5000.0 / (lists == 0 ? default_ivf_lists(5000) : lists);
    for (size_t c = 0; c + 1 < built.offsets.size(); ++c) {
      EXPECT_LE(built.offsets[c + 1] - built.offsets[c], kIvfLongestShare * mean);
    }
  }
}

TEST(Ivf, DependsOnTheSeedAndNotOnThreads) {
  const Segment segment = Segment::clustered(6000, 50, 2, 2);
  const BuiltIvf one = segment.build({64, 5}, 0);
  const BuiltIvf many = segment.build({64, 5}, 4);
  EXPECT_EQ(one.centroids, many.centroids);
  EXPECT_EQ(one.radii, many.radii);
  EXPECT_EQ(one.offsets, many.offsets);
  EXPECT_EQ(one.members, many.members);
  EXPECT_EQ(one.dismissed, many.dismissed);
  ASSERT_EQ(one.bits.size(), many.bits.size());
  EXPECT_TRUE(std::ranges::equal(one.view().bits, many.view().bits));
  EXPECT_NE(one.members, segment.build({64, 6}).members);
}

TEST(Ivf, FindsNeighbours) {
  const Segment segment = Segment::clustered(8000, 100, 1, 3);
  const BuiltIvf built = segment.build({120, 1});
  std::vector<uint32_t> all(segment.rows);
  std::iota(all.begin(), all.end(), 0U);
  Rng rng(9);
  IvfScratch scratch;
  size_t found[2] = {};
  const size_t nprobe[2] = {2, 24};
  size_t looks[2] = {};
  constexpr size_t kQueries = 60;
  for (size_t i = 0; i < kQueries; ++i) {
    const std::vector<float> q = segment.query(&rng);
    const std::vector<uint32_t> want = segment.nearest(q, all, 10);
    for (size_t p = 0; p < 2; ++p) {
      const auto candidates = search(segment, built.view(), q, nprobe[p], 60, &scratch);
      EXPECT_TRUE(std::is_sorted(candidates.begin(), candidates.end(),
                                 [](const GraphCandidate& a, const GraphCandidate& b) {
                                   return a.distance < b.distance;
                                 }));
      EXPECT_LE(candidates.size(), 60U);
      looks[p] += scratch.looks();
      std::vector<uint32_t> rows;
      for (const GraphCandidate& c : candidates) rows.push_back(c.row);
      for (const uint32_t row : segment.nearest(q, rows, 10)) {
        found[p] += static_cast<size_t>(std::count(want.begin(), want.end(), row));
      }
    }
  }
  const double least = static_cast<double>(found[0]) / (10 * kQueries);
  const double most = static_cast<double>(found[1]) / (10 * kQueries);
  EXPECT_GT(least, 0.6);
  EXPECT_GT(most, 0.95);
  EXPECT_GT(most, least);
  EXPECT_LT(looks[0], looks[1]);
  EXPECT_LT(looks[1], kQueries * 8000 / 3);
}

TEST(Ivf, AllListsAndAllRowsAreAScan) {
  const Segment segment = Segment::clustered(700, 9, 2, 4);
  const BuiltIvf built = segment.build({20, 1});
  Rng rng(1);
  IvfScratch scratch;
  for (const size_t many : {size_t{700}, std::numeric_limits<size_t>::max()}) {
    const std::vector<float> q = segment.query(&rng);
    const auto found = search(segment, built.view(), q, many, many, &scratch);
    ASSERT_EQ(found.size(), 700U);
    EXPECT_EQ(scratch.looks(), 700 + built.radii.size());
    const PlaneQuery query(segment.layout, q.data(), 0);
    std::vector<bool> met(700);
    for (const GraphCandidate& candidate : found) {
      EXPECT_FALSE(met[candidate.row]);
      met[candidate.row] = true;
      float estimate = 0;
      query.estimate(segment.codes.high_bytes(), &candidate.row, 1, &estimate);
      EXPECT_EQ(candidate.distance, estimate);
    }
  }
}

TEST(Ivf, KeepsTheBestOfWhatItScans) {
  const Segment segment = Segment::clustered(3000, 9, 2, 5);
  const BuiltIvf built = segment.build({30, 1});
  Rng rng(2);
  IvfScratch scratch;
  for (int i = 0; i < 20; ++i) {
    const std::vector<float> q = segment.query(&rng);
    const auto all = search(segment, without_bits(built), q, 5, 3000, &scratch);
    for (const size_t keep : {1, 2, 7, 64, 300}) {
      const auto some = search(segment, without_bits(built), q, 5, keep, &scratch);
      ASSERT_EQ(some.size(), std::min(keep, all.size()));
      for (size_t k = 0; k < some.size(); ++k) EXPECT_EQ(some[k].row, all[k].row);
    }
  }
}

TEST(Ivf, SkipsListsThatCannotHoldANearerRow) {
  const Segment segment = Segment::clustered(4000, 12, 6, 6);
  const BuiltIvf built = segment.build({12, 1, FirstLook::kNever});
  BuiltIvf wide = built;
  std::fill(wide.radii.begin(), wide.radii.end(), 1e18F);
  Rng rng(3);
  IvfScratch scratch;
  for (int i = 0; i < 30; ++i) {
    const std::vector<float> q = segment.query(&rng);
    const auto found = search(segment, built.view(), q, 40, 10, &scratch);
    const size_t scanned = scratch.scanned_lists();
    EXPECT_GE(scanned, 1U);
    const auto without = search(segment, wide.view(), q, 40, 10, &scratch);
    EXPECT_LT(scanned, scratch.scanned_lists() / 2);
    ASSERT_EQ(found.size(), without.size());
    for (size_t k = 0; k < found.size(); ++k) EXPECT_EQ(found[k].row, without[k].row);
  }
}

TEST(Ivf, BlocksOfBitsAreEachOfOneList) {
  for (const uint32_t rows : {1U, 31U, 32U, 33U, 700U}) {
    const Segment segment = Segment::clustered(rows, 9, 2, rows);
    for (const uint32_t lists : {1U, 2U, 20U, 700U}) {
      const BuiltIvf built = segment.build({lists, 1, FirstLook::kAlways});
      const IvfView view = built.view();
      ASSERT_EQ(view.bits.size(), view.bit_blocks() * BitLayout(kCoordinates).block_bytes());
      size_t end = 0;
      for (size_t c = 0; c < view.lists(); ++c) {
        EXPECT_GE(view.first_bit_block(c), end);
        const size_t n = view.offsets[c + 1] - view.offsets[c];
        end = view.first_bit_block(c) + (n + kBitRows - 1) / kBitRows;
      }
      EXPECT_LE(end, view.bit_blocks());
    }
  }
}

TEST(Ivf, BitsSpareLooksAndHardlyLoseRows) {
  // Clusters so near to each other that no list is skipped.
  const Segment segment = Segment::clustered(6000, 30, 0.5F, 11, 160);
  const BuiltIvf built = segment.build({60, 1, FirstLook::kAlways});
  Rng rng(12);
  IvfScratch scratch;
  size_t looks = 0;
  size_t second_looks = 0;
  size_t same = 0;
  constexpr size_t kQueries = 50;
  for (size_t i = 0; i < kQueries; ++i) {
    const std::vector<float> q = segment.query(&rng);
    const auto want = search(segment, without_bits(built), q, 30, 40, &scratch);
    const size_t rows = scratch.looks();
    EXPECT_EQ(scratch.second_looks(), rows - built.radii.size());
    const auto got = search(segment, built.view(), q, 30, 40, &scratch);
    EXPECT_EQ(scratch.looks(), rows);
    ASSERT_EQ(got.size(), 40U);
    looks += rows;
    second_looks += scratch.second_looks();
    for (size_t k = 0; k < 10; ++k) {
      same += static_cast<size_t>(std::any_of(
          got.begin(), got.end(), [&](const GraphCandidate& c) { return c.row == want[k].row; }));
    }
  }
  EXPECT_LT(second_looks, looks / 3);
  EXPECT_GE(same, kQueries * 10 * 995 / 1000);
}

TEST(Ivf, BitsAreKeptWhereTheyPay) {
  // Rows of two coordinates: a first look says next to nothing.
  const BuiltIvf low = Segment::random(4000, 2, 13).build({0, 1});
  EXPECT_TRUE(low.bits.empty());
  const Segment segment = Segment::clustered(10000, 100, 1, 14, 160);
  const BuiltIvf high = segment.build({0, 1});
  EXPECT_FALSE(high.bits.empty());
  EXPECT_GT(high.dismissed, 0.7F);
  EXPECT_TRUE(segment.build({0, 1, FirstLook::kNever}).bits.empty());
}

TEST(Ivf, RowsOutsideAreInNoList) {
  const Segment segment = Segment::clustered(300, 5, 20, 7);
  std::vector<bool> outside(300);
  for (size_t i = 0; i < 300; i += 7) outside[i] = true;
  const BuiltIvf built = segment.build({150, 1}, 1, outside);
  EXPECT_TRUE(IvfView::check(built.view(), segment.layout, 300).ok());
  EXPECT_EQ(built.members.size(), 300U - 43U);
  for (const uint32_t row : built.members) EXPECT_FALSE(outside[row]);
  for (size_t c = 0; c < built.radii.size(); ++c) {
    EXPECT_LT(built.offsets[c], built.offsets[c + 1]);
  }
  const BuiltIvf none = segment.build({10, 1}, 1, std::vector<bool>(300, true));
  EXPECT_TRUE(IvfView::check(none.view(), segment.layout, 300).ok());
  IvfScratch scratch;
  const std::vector<float> q(kCoordinates);
  EXPECT_TRUE(search(segment, none.view(), q, 3, 3, &scratch).empty());
  EXPECT_EQ(scratch.looks(), 0U);
}

TEST(Ivf, FewAndEqualRows) {
  IvfScratch scratch;
  for (const size_t coordinates : {1, 2, 113}) {
    for (const uint32_t rows : {1U, 2U, 3U, 500U}) {
      for (const float value : {0.0F, 0.25F}) {
        const Segment segment(std::vector<float>(rows * coordinates, value), coordinates);
        for (const uint32_t lists : {0U, 1U, 50U, 100000U}) {
          const BuiltIvf built = segment.build({lists, 1});
          expect_whole(segment, built);
          const std::vector<float> q(coordinates, 0.5F);
          EXPECT_EQ(search(segment, built.view(), q, 1000, 1, &scratch).size(), 1U);
        }
      }
    }
  }
}

TEST(Ivf, DefaultLists) {
  EXPECT_EQ(default_ivf_lists(0), 1U);
  EXPECT_EQ(default_ivf_lists(1), 1U);
  EXPECT_EQ(default_ivf_lists(127), 1U);
  EXPECT_EQ(default_ivf_lists(1000), 15U);
  EXPECT_EQ(default_ivf_lists(1000000), 2000U);
  EXPECT_EQ(default_ivf_lists(UINT32_MAX), 131071U);
}

TEST(Ivf, DamageIsRefused) {
  const Segment segment = Segment::clustered(400, 5, 3, 8);
  const BuiltIvf good = segment.build({8, 1, FirstLook::kAlways});
  const auto refused = [&](auto damage, uint32_t rows = 400) {
    BuiltIvf bad = good;
    damage(&bad);
    return IvfView::check(bad.view(), segment.layout, rows).code() == Code::kCorruption;
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(refused([](BuiltIvf*) {}));
  EXPECT_TRUE(refused([](BuiltIvf*) {}, 399));
  EXPECT_FALSE(refused([](BuiltIvf*) {}, 401));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->members[3] = 400; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->members[3] = UINT32_MAX; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->members[3] = b->members[300]; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->members.pop_back(); }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->offsets[0] = 1; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->offsets.back() -= 1; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->offsets.back() = UINT32_MAX; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->offsets[1] = 401; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->offsets[2] = b->offsets[1] - 1; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->offsets.pop_back(); }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->offsets.clear(); }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->radii.pop_back(); }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->radii[0] = -1; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->radii[0] = kNan; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->centroids.pop_back(); }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->centroids[5] = kInfinity; }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->centroid_high.pop_back(); }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->high.pop_back(); }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->bits.pop_back(); }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->bits.resize(1); }));
  EXPECT_TRUE(refused([](BuiltIvf* b) { b->bits.resize(b->bits.size() + 1); }));
  EXPECT_FALSE(refused([](BuiltIvf* b) { b->bits.clear(); }));
  IvfView shifted = good.view();
  std::vector<uint8_t> bytes(shifted.high.size() + 64);
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  shifted.high = {bytes.data() + (address % 64 == 0 ? 1 : 0), shifted.high.size()};
  EXPECT_EQ(IvfView::check(shifted, segment.layout, 400).code(), Code::kCorruption);
  IvfView shifted_bits = good.view();
  std::vector<uint8_t> room(shifted_bits.bits.size() + 64);
  const auto at = reinterpret_cast<uintptr_t>(room.data());
  shifted_bits.bits = {room.data() + (at % 64 == 0 ? 1 : 0), shifted_bits.bits.size()};
  EXPECT_EQ(IvfView::check(shifted_bits, segment.layout, 400).code(), Code::kCorruption);
}

TEST(Ivf, AnyCodesAreSearchedSafely) {
  const Segment segment = Segment::clustered(400, 5, 3, 8);
  BuiltIvf built = segment.build({8, 1, FirstLook::kAlways});
  IvfScratch scratch;
  Rng rng(4);
  const std::vector<float> q = segment.query(&rng);
  for (const bool ones : {true, false}) {  // all ones: numbers of the estimator that are not any
    for (AlignedFloats* codes : {&built.bits, &built.high, &built.centroid_high}) {
      auto* bytes = reinterpret_cast<uint8_t*>(codes->data());
      for (size_t i = 0; i < codes->size() * sizeof(FloatLine); ++i) {
        bytes[i] = ones ? 255 : static_cast<uint8_t>(rng.next());
      }
    }
    ASSERT_TRUE(IvfView::check(built.view(), segment.layout, 400).ok());
    for (const size_t nprobe : {1, 4, 1000}) {
      for (const GraphCandidate& found : search(segment, built.view(), q, nprobe, 20, &scratch)) {
        EXPECT_LT(found.row, 400U);
        EXPECT_FALSE(std::isnan(found.distance));
      }
    }
  }
}

}  // namespace
}  // namespace aionbd::ivf_test
