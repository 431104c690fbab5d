// The index of one segment, below the engine: built, written, opened, asked; and hostile parts.
#include "index/vector_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "base/rng.h"
#include "base/sanitized.h"

namespace aionbd {
namespace {

float normal(Rng& rng) {
  return static_cast<float>(std::sqrt(-2 * std::log(1 - rng.uniform())) *
                            std::cos(2 * std::numbers::pi * rng.uniform()));
}

/// Rows around 30 centres.
class MadeRows final : public RowSource {
 public:
  MadeRows(uint32_t rows, uint32_t dim, uint64_t seed) : rows_(rows), dim_(dim) {
    Rng rng(seed);
    std::vector<float> centres(size_t{30} * dim);
    for (float& value : centres) value = normal(rng);
    values.resize(size_t{rows} * dim);
    for (size_t i = 0; i < rows; ++i) {
      const float* centre = centres.data() + rng.below(30) * dim;
      for (size_t k = 0; k < dim; ++k) values[i * dim + k] = centre[k] + 0.4F * normal(rng);
    }
  }
  uint32_t rows_count() const override { return rows_; }
  uint32_t dimension() const override { return dim_; }
  Status read(uint32_t first, size_t n, float* out) const override {
    std::copy_n(values.data() + size_t{first} * dim_, n * dim_, out);
    return {};
  }
  std::span<const float> row(size_t i) const { return {values.data() + i * dim_, dim_}; }

  std::vector<std::span<const float>> range(size_t first, size_t end) const {
    std::vector<std::span<const float>> out;
    for (size_t i = first; i < end; ++i) out.push_back(row(i));
    return out;
  }

  std::vector<float> values;

 private:
  uint32_t rows_;
  uint32_t dim_;
};

/// Parts in memory, each aligned as a file's sections are.
struct Parts {
  std::map<IndexPart, AlignedFloats> room;
  std::map<IndexPart, size_t> sizes;

  Status put(IndexPart part, Bytes bytes) {
    room[part].assign(bytes.size() / sizeof(FloatLine) + 1, {});
    std::memcpy(room[part].data(), bytes.data(), bytes.size());
    sizes[part] = bytes.size();
    return {};
  }
  std::byte* bytes(IndexPart part) { return reinterpret_cast<std::byte*>(room[part].data()); }
  VectorIndex::Read reader() const {
    return [this](IndexPart part) -> Result<Bytes> {
      const auto found = room.find(part);
      if (found == room.end()) return corruption("no such part");
      return Bytes(reinterpret_cast<const std::byte*>(found->second.data()), sizes.at(part));
    };
  }
};

Parts build(const MadeRows& rows, Metric metric, size_t helpers = 1, uint64_t seed = 7,
            const ListCentres& known = {}, const SiblingIndexes& siblings = {}) {
  ThreadPool pool(helpers);
  Result<BuiltIndex> built = build_index(
      rows, metric, seed, &pool, [] { return false; }, 0, known, siblings);
  EXPECT_TRUE(built) << built.error().to_string();
  Parts parts;
  EXPECT_TRUE(
      built->write([&](IndexPart part, Bytes bytes) { return parts.put(part, bytes); }).ok());
  return parts;
}

TEST(VectorIndex, DoesNotDependOnThreads) {
  const MadeRows rows(3000, 40, 1);
  const Parts one = build(rows, Metric::kL2, 0);
  const Parts three = build(rows, Metric::kL2, 2);
  ASSERT_EQ(one.sizes, three.sizes);
  for (const auto& [part, size] : one.sizes) {
    EXPECT_EQ(std::memcmp(one.room.at(part).data(), three.room.at(part).data(), size), 0)
        << "part " << static_cast<uint32_t>(part);
  }
}

TEST(VectorIndex, FindsRowsThemselvesByWalkAndByLists) {
  for (const Metric metric : {Metric::kL2, Metric::kCosine}) {
    const MadeRows rows(4000, 130, 2);
    const Parts parts = build(rows, metric);
    const auto index = VectorIndex::open(parts.reader(), 4000, 130).value();
    GraphScratch scratch;
    size_t walked = 0;
    size_t listed = 0;
    for (uint32_t i = 0; i < 4000; i += 40) {
      const VectorIndex::Query query(*index, rows.row(i), VectorIndex::Query::Use::kEstimates);
      ASSERT_TRUE(query.usable());
      const auto has = [&] {
        return std::any_of(scratch.found().begin(), scratch.found().end(),
                           [&](const GraphCandidate& found) { return found.row == i; });
      };
      query.walk(index->plan_with_ef(10, 40), &scratch);
      walked += has();
      query.walk(index->plan_with_nprobe(10, 4), &scratch);
      listed += has();
    }
    EXPECT_GE(walked, 98u);
    EXPECT_GE(listed, 90u);
  }
}

TEST(VectorIndex, TheProjectionOfALargerSiblingIsBorrowedAndShared) {
  for (const Metric metric : {Metric::kL2, Metric::kCosine, Metric::kDot}) {
    const Parts large = build(MadeRows(2000, 130, 2), metric);
    const auto sibling = VectorIndex::open(large.reader(), 2000, 130).value();
    const MadeRows rows(800, 130, 9);
    const Parts alone = build(rows, metric);
    const auto own = VectorIndex::open(alone.reader(), 800, 130, {sibling}).value();
    EXPECT_NE(own->projection(), sibling->projection());
    const Parts borrowed = build(rows, metric, 1, 7, {}, {sibling});
    const auto index = VectorIndex::open(borrowed.reader(), 800, 130, {own, sibling}).value();
    ASSERT_EQ(index->projection(), sibling->projection());
    // More than half as many rows learn their own; so does another metric.
    const MadeRows more(1001, 130, 9);
    const Parts grown = build(more, metric, 1, 7, {}, {sibling});
    EXPECT_FALSE(sibling->projection()->saved_as(grown.reader()(IndexPart::kProjection).value()));

    using Query = VectorIndex::Query;
    size_t found = 0;
    for (const auto use : {Query::Use::kEstimates, Query::Use::kBounds}) {
      for (uint32_t i = 0; i < 800; i += 40) {
        const Query asked(*sibling, rows.row(i), use);
        const bool same_space = metric != Metric::kDot;  // else the longest rows decide, too
        ASSERT_EQ(asked.suits(*index), same_space);
        EXPECT_FALSE(asked.suits(*own));
        if (!same_space) continue;
        const Query taken(*index, asked);
        const Query fresh(*index, rows.row(i), use);
        float a[PlaneQuery::kBoundRows];
        float b[PlaneQuery::kBoundRows];
        taken.lower_bounds(i, 20, kFarthest, a);
        fresh.lower_bounds(i, 20, kFarthest, b);
        EXPECT_EQ(std::memcmp(a, b, 20 * sizeof(float)), 0);
        GraphScratch scratch;
        taken.walk(index->plan_with_ef(10, 40), &scratch);
        found += std::any_of(scratch.found().begin(), scratch.found().end(),
                             [&](const GraphCandidate& each) { return each.row == i; });
      }
    }
    EXPECT_TRUE(metric == Metric::kDot || found >= 38) << found;
  }
}

TEST(VectorIndex, CalibrationRisesAndPlansFollowIt) {
  const MadeRows rows(6000, 64, 3);
  const Parts parts = build(rows, Metric::kL2);
  const auto index = VectorIndex::open(parts.reader(), 6000, 64).value();
  ASSERT_FALSE(index->curve().empty());
  ASSERT_FALSE(index->list_curve().empty());
  for (const auto curve : {index->curve(), index->list_curve()}) {
    std::map<uint32_t, float> last;
    for (const RecallPoint& point : curve) {
      EXPECT_GE(point.recall, last[point.k] - 0.02F);
      EXPECT_LE(point.low, point.recall);
      last[point.k] = point.recall;
    }
  }
  uint32_t ef = 0;
  for (const double target : {0.5, 0.8, 0.9, 0.95, 0.99}) {
    const std::optional<GraphPlan> plan = index->plan(10, target);
    ASSERT_TRUE(plan) << target;
    EXPECT_GE(plan->ef, ef);
    EXPECT_GE(plan->recall, target);
    EXPECT_GE(plan->verify, 10u);
    ef = plan->ef;
  }
  EXPECT_FALSE(index->plan(10, 1.0));
  EXPECT_GE(index->plan(300, 0.9)->ef, 300u);
}

/// Queries, and how far every row is from each. Thread safety: single owner.
struct Truth {
  std::vector<std::span<const float>> queries;
  std::vector<std::vector<float>> distances;
  std::vector<std::vector<float>> sorted;

  Truth(const MadeRows& rows, Metric metric, std::vector<std::span<const float>> asked)
      : queries(std::move(asked)) {
    for (const std::span<const float> query : queries) {
      const PreparedQuery exact = PreparedQuery::make(metric, query).value();
      std::vector<float>& to = distances.emplace_back(rows.rows_count());
      for (size_t i = 0; i < to.size(); ++i) {
        const float norm = norm_squared(rows.row(i).data(), rows.dimension());
        exact.distances(rows.row(i).data(), &norm, 1, &to[i]);
      }
      sorted.push_back(to);
      std::sort(sorted.back().begin(), sorted.back().end());
    }
  }

  /// What walks find of the k nearest, by distance: the mean over the queries.
  double recall(const VectorIndex& index, const GraphPlan& plan, uint32_t k) const {
    GraphScratch scratch;
    double sum = 0;
    for (size_t q = 0; q < queries.size(); ++q) {
      const VectorIndex::Query query(index, queries[q], VectorIndex::Query::Use::kEstimates);
      query.walk(plan, &scratch);
      const auto all = scratch.found();
      const auto found = all.first(std::min<size_t>(plan.verify, all.size()));
      const auto right = std::count_if(found.begin(), found.end(), [&](const GraphCandidate& at) {
        return distances[q][at.row] <= sorted[q][k - 1];
      });
      sum += std::min(1.0, static_cast<double>(right) / k);
    }
    return sum / static_cast<double>(queries.size());
  }
};

/// What is said of walks, and promised, is so, within what sampling can tell.
void expect_honest(const VectorIndex& index, const Truth& truth, const std::string& what) {
  for (const uint32_t k : kCalibratedHits) {
    for (const RecallPoint& point : index.curve()) {
      if (point.k != k || point.ef > 2 * k) continue;
      EXPECT_NEAR(truth.recall(index, index.plan_with_ef(k, point.ef), k), point.recall,
                  0.02 + 2 * (point.recall - point.low))
          << what << ", " << k << " of " << point.ef;
    }
    const std::optional<GraphPlan> plan = index.plan(k, 0.95);
    if (plan) {
      EXPECT_GE(truth.recall(index, *plan, k), 0.94) << what << ", " << k;
    }
  }
}

TEST(VectorIndex, CopiesOfFewVectorsAreFoundAsCalibrationSays) {
  constexpr uint32_t kRows = 4200;
  for (const size_t different : {7U, 300U}) {
    MadeRows rows(kRows, 24, different);
    for (size_t i = different; i < kRows; ++i) {
      std::copy_n(rows.row(i % different).data(), 24, rows.values.data() + i * 24);
    }
    for (const Metric metric : {Metric::kL2, Metric::kDot, Metric::kCosine}) {
      const Truth truth(rows, metric, rows.range(0, different));
      for (const uint64_t seed : {1U, 2U, 3U}) {
        const Parts parts = build(rows, metric, 1, seed);
        const auto index = VectorIndex::open(parts.reader(), kRows, 24).value();
        expect_honest(*index, truth,
                      std::to_string(different) + " vectors, metric " +
                          std::to_string(static_cast<int>(metric)) + ", seed " +
                          std::to_string(seed));
      }
    }
  }
}

/// Under dot a query is not where an equal row is.
TEST(VectorIndex, CalibrationIsAboutQueriesUnderEachMetric) {
  MadeRows rows(4200, 24, 8);
  MadeRows more(4700, 24, 8);  // the same, and others like them
  for (MadeRows* each : {&rows, &more}) {
    for (size_t i = 0; i < each->values.size(); ++i) {
      each->values[i] *= 0.5F + static_cast<float>(i / 24 % 10) / 10;
    }
  }
  for (const Metric metric : {Metric::kL2, Metric::kDot, Metric::kCosine}) {
    const Parts parts = build(rows, metric);
    const auto index = VectorIndex::open(parts.reader(), 4200, 24).value();
    const Truth truth(rows, metric, more.range(4200, 4700));
    expect_honest(*index, truth, "metric " + std::to_string(static_cast<int>(metric)));
  }
}

TEST(VectorIndex, FewRowsHaveNoCurveAndAreFoundAll) {
  for (const uint32_t n : {1U, 2U, 19U}) {
    const MadeRows rows(n, 3, n);
    const Parts parts = build(rows, Metric::kL2);
    const auto index = VectorIndex::open(parts.reader(), n, 3).value();
    EXPECT_FALSE(index->plan(10, 0.5));
    GraphScratch scratch;
    const VectorIndex::Query query(*index, rows.row(0), VectorIndex::Query::Use::kEstimates);
    query.walk(index->plan_with_ef(n, 64), &scratch);
    EXPECT_EQ(scratch.found().size(), n);
  }
}

TEST(VectorIndex, RowsThatDoNotSuitAreRefusedOrLeftOutside) {
  ThreadPool pool(0);
  MadeRows rows(1000, 8, 4);
  for (size_t i = 0; i < 8; ++i) rows.values[i] = 0;  // row 0
  EXPECT_TRUE(build_index(rows, Metric::kCosine, 1, &pool, [] { return false; }));
  // Any number that no search returns, but some must be left.
  std::fill_n(rows.values.begin(), 8 * 999, 0.0F);
  EXPECT_TRUE(build_index(rows, Metric::kCosine, 1, &pool, [] { return false; }));
  std::fill_n(rows.values.begin(), 8 * 1000, 0.0F);
  const auto refused = [&](Metric metric) {
    const Result<BuiltIndex> built = build_index(rows, metric, 1, &pool, [] { return false; });
    return !built && built.error().code() == Code::kFailedPrecondition;
  };
  EXPECT_TRUE(refused(Metric::kCosine));
  EXPECT_FALSE(refused(Metric::kL2));
  rows = MadeRows(1000, 8, 4);
  for (size_t i = 0; i < 11; ++i) rows.values[i * 80] = NAN;
  for (const Metric metric : {Metric::kL2, Metric::kDot, Metric::kCosine}) {
    EXPECT_TRUE(refused(metric));
  }
  rows = MadeRows(1000, 8, 4);
  const Result<BuiltIndex> cancelled =
      build_index(rows, Metric::kL2, 1, &pool, [] { return true; });
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code(), Code::kUnavailable);
}

/// Holds lists that started from others against lists from scratch, within what sampling can tell.
void expect_as_good(const VectorIndex& made, const VectorIndex& from_scratch) {
  ListCentres lists;
  made.add_list_centres(&lists);
  const uint32_t rows = made.rows_count();
  EXPECT_LE(*std::max_element(lists.rows.begin(), lists.rows.end()),
            kIvfLongestShare * rows / default_ivf_lists(rows));
  EXPECT_NEAR(made.lists(), from_scratch.lists(), 0.2 * from_scratch.lists());
  const auto curve = made.list_curve();
  for (size_t i = 0; i < std::min(curve.size(), from_scratch.list_curve().size()); ++i) {
    const RecallPoint& other = from_scratch.list_curve()[i];
    ASSERT_EQ(curve[i].ef, other.ef);
    const float noise = 0.02F + 2 * (curve[i].recall - curve[i].low + other.recall - other.low);
    EXPECT_GE(curve[i].recall, other.recall - noise)
        << "metric " << static_cast<int>(made.metric()) << ", " << curve[i].k << " hits, "
        << curve[i].ef << " lists";
    EXPECT_LE(curve[i].looks, 1.25F * other.looks);
  }
}

TEST(VectorIndex, ListsMadeFromThoseOfItsPartsAreAsGood) {
  constexpr uint32_t kRows = 4200;
  const auto check = [&](const MadeRows& whole, Metric metric) {
    // The two parts together have more lists than the whole gets; one has fewer.
    ListCentres known;
    ListCentres fewer;
    for (const auto& [first, end] : {std::pair(0U, 2500U), std::pair(2500U, kRows)}) {
      MadeRows part(end - first, 32, 1);
      const float* values = whole.values.data();
      part.values.assign(values + size_t{first} * 32, values + size_t{end} * 32);
      const Parts parts = build(part, metric);
      const auto index = VectorIndex::open(parts.reader(), end - first, 32).value();
      index->add_list_centres(&known);
      if (first == 0) index->add_list_centres(&fewer);
    }
    const Parts scratch = build(whole, metric);
    const auto from_scratch = VectorIndex::open(scratch.reader(), kRows, 32).value();
    for (const ListCentres* start : {&known, &fewer}) {
      const Parts parts = build(whole, metric, 1, 7, *start);
      expect_as_good(*VectorIndex::open(parts.reader(), kRows, 32).value(), *from_scratch);
      if (metric != Metric::kL2) continue;
      const Parts again = build(whole, metric, 0, 7, *start);
      for (const IndexPart part : {IndexPart::kIvfCentroids, IndexPart::kIvfMembers}) {
        ASSERT_EQ(parts.sizes.at(part), again.sizes.at(part));
        EXPECT_EQ(std::memcmp(parts.room.at(part).data(), again.room.at(part).data(),
                              parts.sizes.at(part)),
                  0)
            << "it depends on threads";
      }
    }
  };
  MadeRows rows(kRows, 32, 10);
  check(rows, Metric::kL2);
  if (kSanitized) return;  // each takes many builds
  for (const Metric metric : {Metric::kDot, Metric::kCosine}) check(rows, metric);
  Rng rng(11);
  for (float& value : rows.values) value = normal(rng);
  check(rows, Metric::kL2);
}

TEST(VectorIndex, RowsThatNoSearchReturnsAreInNobodysWay) {
  constexpr uint32_t kRows = 3000;
  MadeRows rows(kRows, 40, 9);
  for (size_t i = 0; i < kRows; ++i) {
    if (i % 3 != 1) std::fill_n(rows.values.begin() + static_cast<long>(i * 40), 40, 0.0F);
  }
  const Parts parts = build(rows, Metric::kCosine);
  const auto index = VectorIndex::open(parts.reader(), kRows, 40).value();
  EXPECT_EQ(index->outside_count(), kRows - kRows / 3);
  ASSERT_TRUE(index->covers_all());
  EXPECT_TRUE(index->plan(10, 0.9));
  const VectorIndex::Query walk(*index, rows.row(1), VectorIndex::Query::Use::kEstimates);
  const VectorIndex::Query bounds(*index, rows.row(1), VectorIndex::Query::Use::kBounds);
  GraphScratch scratch;
  const auto expect_shown = [&] {
    EXPECT_FALSE(scratch.found().empty());
    for (const GraphCandidate& found : scratch.found()) EXPECT_EQ(found.row % 3, 1u);
  };
  walk.walk(index->plan_with_ef(10, 2000), &scratch);
  expect_shown();
  walk.walk(index->plan_with_nprobe(10, index->lists()), &scratch);
  expect_shown();
  // Whoever looks at all sees them last; whoever goes by bounds reads none.
  const std::vector<uint64_t> all((kRows + 63) / 64, ~uint64_t{0} >> 8);
  scratch.allow({all.data(), true});
  walk.walk(index->plan_with_ef(10, 500), &scratch);
  expect_shown();
  std::vector<float> lowest(PlaneQuery::kBoundRows);
  bounds.lower_bounds(0, lowest.size(), kFarthest, lowest.data());
  for (size_t i = 0; i < lowest.size(); ++i) {
    EXPECT_EQ(lowest[i] > bounds.reach(2), i % 3 != 1) << i;
  }
}

TEST(VectorIndex, HostilePartsAreRefusedOrHarmless) {
  constexpr uint32_t kRows = 800;
  const MadeRows rows(kRows, 24, 5);
  const Parts whole = build(rows, Metric::kDot);
  ASSERT_TRUE(VectorIndex::open(whole.reader(), kRows, 24));
  EXPECT_FALSE(VectorIndex::open(whole.reader(), kRows - 1, 24));
  EXPECT_FALSE(VectorIndex::open(whole.reader(), kRows, 25));
  Rng rng(6);
  for (const auto& [part, size] : whole.sizes) {
    for (int trial = 0; trial < 60; ++trial) {
      Parts parts = whole;
      if (trial % 10 == 9) {
        parts.sizes[part] = rng.below(size + 1);
      } else {
        for (int flips = 0; flips <= trial % 3 && size > 0; ++flips) {
          parts.bytes(part)[rng.below(size)] = static_cast<std::byte>(rng.below(256));
        }
      }
      const auto index = VectorIndex::open(parts.reader(), kRows, 24);
      if (!index) continue;
      // What was let in must be safe to use, whatever it answers.
      GraphScratch scratch;
      const VectorIndex::Query query(**index, rows.row(3), VectorIndex::Query::Use::kEstimates);
      if (!query.usable()) continue;
      query.walk((*index)->plan_with_ef(10, 50), &scratch);
      for (const GraphCandidate& found : scratch.found()) EXPECT_LT(found.row, kRows);
      query.walk((*index)->plan_with_nprobe(10, 5), &scratch);
      for (const GraphCandidate& found : scratch.found()) EXPECT_LT(found.row, kRows);
      const VectorIndex::Query bounds(**index, rows.row(3), VectorIndex::Query::Use::kBounds);
      float lowest[PlaneQuery::kBoundRows];
      bounds.lower_bounds(kRows - 100, 100, kFarthest, lowest);
    }
  }
}

}  // namespace
}  // namespace aionbd
