// Searches with an index: exact ones answer bit for bit what a plain scan answers, approximate ones
// keep their promise, and nothing that happens to an index file changes an answer.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numbers>
#include <thread>

#include "aionbd/aionbd.h"
#include "base/eventually.h"
#include "base/rng.h"
#include "base/sanitized.h"
#include "engine/index_keeper.h"

namespace aionbd::index_test {
namespace {

constexpr size_t kRows = kIndexRowsMin + 500;
constexpr uint32_t kDim = 48;

// Sanitized runs are slow; what they look for does not need every combination.
constexpr size_t kSetsApart = kSanitized ? 3 : 1;
constexpr bool kEveryMetric = !kSanitized;

using Vectors = std::vector<std::vector<float>>;

float normal(Rng& rng) {
  return static_cast<float>(std::sqrt(-2 * std::log(1 - rng.uniform())) *
                            std::cos(2 * std::numbers::pi * rng.uniform()));
}

Vectors gaussian(size_t n, uint32_t dim, uint64_t seed, float scale = 1) {
  Rng rng(seed);
  Vectors out(n, std::vector<float>(dim));
  for (auto& row : out) {
    for (float& value : row) value = scale * normal(rng);
  }
  return out;
}

/// Points around 40 centres: data with neighbours worth the name.
Vectors clustered(size_t n, uint32_t dim, uint64_t seed) {
  const Vectors centres = gaussian(40, dim, 99);
  Rng rng(seed);
  Vectors out(n, std::vector<float>(dim));
  for (auto& row : out) {
    const auto& centre = centres[rng.below(centres.size())];
    for (uint32_t k = 0; k < dim; ++k) row[k] = centre[k] + 0.3F * normal(rng);
  }
  return out;
}

struct DataSet {
  const char* name;
  std::function<Vectors()> make;
};

/// What breaks bounds: ties, rows of very different lengths, values at the ends of float.
const std::vector<DataSet>& adversarial_sets() {
  static const std::vector<DataSet> sets = {
      {"gaussian", [] { return gaussian(kRows, kDim, 1); }},
      {"duplicates",
       [] {
         Vectors out = gaussian(kRows, kDim, 2);
         for (size_t i = 0; i < kRows; ++i) out[i] = out[i % 300];
         return out;
       }},
      {"all equal", [] { return Vectors(kRows, std::vector<float>(kDim, 0.25F)); }},
      {"one-hot",
       [] {
         Vectors out(kRows, std::vector<float>(kDim, 0.0F));
         for (size_t i = 0; i < kRows; ++i) out[i][i % kDim] = static_cast<float>(1 + i / kDim);
         return out;
       }},
      {"some huge",
       [] {
         Vectors out = gaussian(kRows, kDim, 3);
         for (size_t i = 0; i < kRows; i += 1000) {
           for (float& value : out[i]) value *= 1e17F;
         }
         return out;
       }},
      {"huge norms", [] { return gaussian(kRows, kDim, 4, 1e14F); }},
      {"tiny", [] { return gaussian(kRows, kDim, 5, 1e-20F); }},
      {"denormal", [] { return gaussian(kRows, kDim, 6, 1e-40F); }},
      {"far from zero",
       [] {
         Vectors out = gaussian(kRows, kDim, 7);
         for (auto& row : out) {
           for (float& value : row) value += 1e4F;
         }
         return out;
       }},
      {"low rank", [] {
         Vectors out(kRows, std::vector<float>(256));
         const Vectors basis = gaussian(12, 256, 8);
         Rng rng(9);
         for (auto& row : out) {
           for (const auto& direction : basis) {
             const float weight = normal(rng);
             for (size_t k = 0; k < row.size(); ++k) row[k] += weight * direction[k];
           }
           for (float& value : row) value += 0.05F * normal(rng);
         }
         return out;
       }}};
  return sets;
}

class IndexTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = testing::TempDir() + "aionbd_index_test_" +
           testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(dir_);
    options_.data_dir = dir_;
    options_.search_threads = 2;
    options_.index_build_cooldown = std::chrono::milliseconds(1);
    open();
  }
  void TearDown() override {
    database_.reset();
    std::filesystem::remove_all(dir_);
  }

  void open() {
    database_.reset();
    Result<std::unique_ptr<Database>> opened = Database::open(options_);
    ASSERT_TRUE(opened) << opened.error().to_string();
    database_ = std::move(*opened);
  }

  std::shared_ptr<Collection> fill(const Vectors& rows, std::optional<Metric> metric) {
    CollectionOptions options;
    options.dimension = static_cast<uint32_t>(rows.front().size());
    options.metric = metric;
    auto collection = database_->create_collection("c", options).value();
    for (size_t first = 0; first < rows.size(); first += 500) {
      std::vector<Point> points;
      for (size_t i = first; i < std::min(rows.size(), first + 500); ++i) {
        points.push_back({uint64_t{i}, rows[i], {{"n", static_cast<int64_t>(i)}}});
      }
      EXPECT_TRUE(collection->upsert(points)) << first;
    }
    return collection;
  }

  static size_t indexes(const Collection& collection) {
    size_t n = 0;
    const CollectionStats stats = collection.stats().value();
    for (const SegmentStats& segment : stats.segments) n += segment.indexes.size();
    return n;
  }
  static bool wait_for_index(const Collection& collection) {
    return eventually([&] { return indexes(collection) > 0; });
  }

  std::string dir_;
  DatabaseOptions options_;
  std::unique_ptr<Database> database_;
};

struct Found {
  std::vector<uint64_t> ids;
  std::vector<float> scores;
  bool operator==(const Found& other) const {
    // Bits, because scores of rows out of reach are infinite or not numbers.
    return ids == other.ids && scores.size() == other.scores.size() &&
           std::memcmp(scores.data(), other.scores.data(), scores.size() * sizeof(float)) == 0;
  }
};

Found found(const SearchResult& result) {
  Found out;
  for (const Hit& hit : result.hits) {
    out.ids.push_back(hit.id.number());
    out.scores.push_back(hit.score);
  }
  return out;
}

Filter below(int64_t bound) {
  Clause clause;
  clause.field = "n";
  InRange range;
  range.lt = Value(bound);
  clause.test = range;
  Filter filter;
  filter.must.push_back(std::move(clause));
  return filter;
}

/// The answers of many exact requests.
std::vector<Found> exact_answers(const Collection& collection, Metric metric,
                                 const Vectors& queries) {
  std::vector<Found> out;
  const Filter filter = below(700);
  for (const auto& query : queries) {
    for (const uint32_t limit : {1U, 10U, 300U}) {
      for (const bool filtered : {false, true}) {
        SearchRequest request;
        request.query = query;
        request.limit = limit;
        request.metric = metric;
        request.mode = SearchMode::kExact;
        request.include_payload = false;
        if (filtered) request.filter = &filter;
        const Result<SearchResult> result = collection.search(request);
        EXPECT_TRUE(result);
        if (result) out.push_back(found(*result));
      }
    }
  }
  SearchBatchRequest batch;
  for (const auto& query : queries) batch.queries.emplace_back(query);
  batch.common.limit = 10;
  batch.common.metric = metric;
  batch.common.mode = SearchMode::kExact;
  const std::vector<SearchResult> results = collection.search_batch(batch).value();
  for (const SearchResult& result : results) out.push_back(found(result));
  return out;
}

TEST_F(IndexTest, ExactAnswersAreThoseOfThePlainScan) {
  size_t sets = 0;
  for (const DataSet& set : adversarial_sets()) {
    if (sets++ % kSetsApart != 0) continue;
    const Vectors rows = set.make();
    Vectors queries(rows.begin(), rows.begin() + 6);
    const Vectors others = gaussian(4, static_cast<uint32_t>(rows.front().size()), 77,
                                    std::max(1e-30F, std::abs(rows[5][0])));
    queries.insert(queries.end(), others.begin(), others.end());
    for (const Metric metric : {Metric::kDot, Metric::kL2, Metric::kCosine}) {
      if (!kEveryMetric && static_cast<size_t>(metric) != sets / kSetsApart % 3) continue;
      // Exact searches do not ask for an index, so none is built before the first other one.
      const auto collection = fill(rows, std::nullopt);
      const std::vector<Found> plain = exact_answers(*collection, metric, queries);
      ASSERT_EQ(indexes(*collection), 0u);
      SearchRequest wanting;
      wanting.query = queries.back();
      wanting.metric = metric;
      ASSERT_TRUE(collection->search(wanting));
      ASSERT_TRUE(collection->optimize().ok());
      ASSERT_EQ(indexes(*collection), 1u) << set.name;
      const std::vector<Found> bounded = exact_answers(*collection, metric, queries);
      ASSERT_EQ(plain.size(), bounded.size());
      for (size_t i = 0; i < plain.size(); ++i) {
        EXPECT_TRUE(plain[i] == bounded[i])
            << set.name << " metric " << static_cast<int>(metric) << " request " << i;
      }
      ASSERT_TRUE(database_->drop_collection("c").ok());
    }
  }
}

double recall_of(const SearchResult& result, const SearchResult& truth) {
  size_t hits = 0;
  for (const Hit& hit : result.hits) {
    for (const Hit& other : truth.hits) hits += hit.id.number() == other.id.number() ? 1 : 0;
  }
  return static_cast<double>(hits) / static_cast<double>(truth.hits.size());
}

/// Mean recall of `request` over queries, each answer full.
double mean_recall(const Collection& collection, const Vectors& queries, SearchRequest request,
                   SearchMode* ran = nullptr) {
  double sum = 0;
  for (const auto& query : queries) {
    request.query = query;
    const SearchResult result = collection.search(request).value();
    if (ran != nullptr) *ran = result.mode;
    SearchRequest exact = request;
    exact.mode = SearchMode::kExact;
    const SearchResult truth = collection.search(exact).value();
    EXPECT_EQ(result.hits.size(), truth.hits.size());
    sum += truth.hits.empty() ? 1 : recall_of(result, truth);
  }
  return sum / static_cast<double>(queries.size());
}

TEST_F(IndexTest, AutoKeepsItsTarget) {
  const Vectors rows = clustered(8000, kDim, 11);
  const Vectors queries = clustered(150, kDim, 12);
  for (const Metric metric : {Metric::kDot, Metric::kL2, Metric::kCosine}) {
    if (!kEveryMetric && metric != Metric::kDot) continue;
    const auto collection = fill(rows, metric);
    ASSERT_TRUE(collection->optimize().ok());
    for (const double target : {0.8, 0.95, 0.99}) {
      for (const uint32_t limit : {1U, 10U, 100U}) {
        SearchRequest request;
        request.limit = limit;
        request.target_recall = target;
        EXPECT_GE(mean_recall(*collection, queries, request), target - 0.02)
            << "metric " << static_cast<int>(metric) << " target " << target << " k " << limit;
      }
    }
    SearchRequest request;
    SearchMode ran = SearchMode::kExact;
    request.mode = SearchMode::kGraph;
    EXPECT_GE(mean_recall(*collection, queries, request, &ran), 0.9);
    EXPECT_EQ(ran, SearchMode::kGraph);
    ASSERT_TRUE(database_->drop_collection("c").ok());
  }
}

TEST_F(IndexTest, IvfVisitsAsManyListsAsAsked) {
  const Vectors rows = clustered(8000, kDim, 13);
  const Vectors queries = clustered(100, kDim, 14);
  const auto collection = fill(rows, Metric::kL2);
  SearchRequest request;
  request.query = queries[0];
  request.mode = SearchMode::kIvf;
  ASSERT_TRUE(collection->optimize().ok());
  double last = 0;
  for (const uint32_t nprobe : {1U, 8U, 64U, 4096U}) {
    request.param = nprobe;
    SearchMode ran = SearchMode::kExact;
    const double recall = mean_recall(*collection, queries, request, &ran);
    EXPECT_EQ(ran, SearchMode::kIvf);
    EXPECT_GE(recall, last - 0.01) << nprobe;
    last = recall;
  }
  EXPECT_GE(last, 0.98);
  request.param.reset();
  request.target_recall = 0.95;
  EXPECT_GE(mean_recall(*collection, queries, request), 0.93);
  const Filter filter = below(300);
  request.filter = &filter;
  EXPECT_GE(mean_recall(*collection, queries, request), 0.93);
}

TEST_F(IndexTest, RowsTooLongForCodesAreStillFound) {
  Vectors rows = clustered(6000, kDim, 15);
  for (size_t i = 0; i < rows.size(); i += 300) {
    for (float& value : rows[i]) value *= 1e16F;
  }
  const auto collection = fill(rows, Metric::kDot);
  ASSERT_TRUE(collection->optimize().ok());
  for (const SearchMode mode : {SearchMode::kAuto, SearchMode::kGraph, SearchMode::kIvf}) {
    SearchRequest request;
    request.mode = mode;
    EXPECT_EQ(mean_recall(*collection, clustered(10, kDim, 16), request), 1.0);
  }
}

TEST_F(IndexTest, LateSearchesAreRefused) {
  const auto collection = fill(clustered(6000, kDim, 17), Metric::kL2);
  ASSERT_TRUE(collection->optimize().ok());
  const Vectors queries = clustered(300, kDim, 18);
  SearchBatchRequest batch;
  for (const auto& query : queries) batch.queries.emplace_back(query);
  batch.common.deadline = std::chrono::steady_clock::now();
  const auto late = collection->search_batch(batch);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), Code::kDeadlineExceeded);
}

TEST_F(IndexTest, OptimizeEndsWhenTheCollectionIsDropped) {
  const auto collection = fill(clustered(9000, kDim, 19), Metric::kL2);
  std::thread dropping([&] { EXPECT_TRUE(database_->drop_collection("c").ok()); });
  (void)collection->optimize();  // whatever it says, it returns
  dropping.join();
}

TEST_F(IndexTest, ASecondMetricLeavesTheFirstAlone) {
  const auto collection = fill(clustered(6000, kDim, 20), std::nullopt);
  const Vectors queries = clustered(5, kDim, 23);
  for (const Metric metric : {Metric::kL2, Metric::kCosine}) {
    SearchRequest request;
    request.query = queries[0];
    request.metric = metric;
    ASSERT_TRUE(collection->search(request));
    ASSERT_TRUE(collection->optimize().ok());
    request.metric = Metric::kL2;
    EXPECT_EQ(collection->search(request).value().mode, SearchMode::kGraph);
  }
  EXPECT_EQ(indexes(*collection), 2u);
  SearchRequest bad;
  const std::vector<float> wrong(kDim + 1, 1.0F);
  bad.query = wrong;
  bad.metric = Metric::kDot;
  EXPECT_FALSE(collection->search(bad));
  ASSERT_TRUE(collection->optimize().ok());
  EXPECT_EQ(indexes(*collection), 2u) << "a refused request builds nothing";
}

TEST_F(IndexTest, FilteredAnswersAreFullAndGood) {
  const Vectors rows = clustered(8000, kDim, 21);
  const auto collection = fill(rows, Metric::kL2);
  ASSERT_TRUE(collection->optimize().ok());
  const Vectors queries = clustered(40, kDim, 22);
  for (const int64_t matching : {1, 8, 80, 800, 4000, 7900}) {
    const Filter filter = below(matching);
    SearchRequest request;
    request.filter = &filter;
    EXPECT_GE(mean_recall(*collection, queries, request), 0.93) << matching << " rows match";
  }
}

TEST_F(IndexTest, DeletedRowsAreNeverFound) {
  const Vectors rows = clustered(6000, kDim, 31);
  const auto collection = fill(rows, Metric::kL2);
  ASSERT_TRUE(collection->optimize().ok());
  ASSERT_EQ(indexes(*collection), 1u);
  std::vector<PointId> gone;
  for (uint64_t id = 0; id < rows.size(); ++id) {
    if (id % 3 == 0) gone.emplace_back(id);
  }
  ASSERT_EQ(collection->remove(gone).value(), gone.size());
  const Vectors queries = clustered(40, kDim, 32);
  for (const auto& query : queries) {
    SearchRequest request;
    request.query = query;
    for (const Hit& hit : collection->search(request).value().hits) {
      EXPECT_NE(hit.id.number() % 3, 0u);
    }
  }
  SearchRequest request;
  EXPECT_GE(mean_recall(*collection, queries, request), 0.93);
  std::vector<PointId> all;
  for (uint64_t id = 0; id < rows.size(); ++id) all.emplace_back(id);
  ASSERT_TRUE(collection->remove(all));
  request.query = queries[0];
  EXPECT_TRUE(collection->search(request).value().hits.empty());
}

TEST_F(IndexTest, ReplacedRowsAreFoundAtOnce) {
  Vectors rows = clustered(6000, kDim, 41);
  const auto collection = fill(rows, Metric::kL2);
  ASSERT_TRUE(collection->optimize().ok());
  const std::vector<float> place(kDim, 7.0F);
  ASSERT_TRUE(collection->upsert(std::vector<Point>{{uint64_t{17}, place, {}}}));
  SearchRequest request;
  request.query = place;
  request.limit = 1;
  const SearchResult result = collection->search(request).value();
  ASSERT_EQ(result.hits.size(), 1u);
  EXPECT_EQ(result.hits[0].id.number(), 17u);
  EXPECT_EQ(result.hits[0].score, 0.0F);
}

TEST_F(IndexTest, IndexesComeBackAfterReopen) {
  const Vectors rows = clustered(6000, kDim, 51);
  auto collection = fill(rows, Metric::kL2);
  ASSERT_TRUE(collection->optimize().ok());
  SearchRequest request;
  request.query = rows[5];
  const Found before = found(collection->search(request).value());
  const uint64_t bytes = collection->stats().value().index_bytes;
  open();
  collection = database_->collection("c").value();
  ASSERT_TRUE(wait_for_index(*collection));
  EXPECT_EQ(collection->stats().value().index_bytes, bytes) << "built anew instead of opened";
  EXPECT_EQ(collection->search(request).value().mode, SearchMode::kGraph);
  EXPECT_TRUE(before == found(collection->search(request).value()));
}

TEST_F(IndexTest, DamagedIndexIsBuiltAgain) {
  const Vectors rows = clustered(6000, kDim, 61);
  const Vectors queries = clustered(20, kDim, 62);
  auto collection = fill(rows, Metric::kL2);
  ASSERT_TRUE(collection->optimize().ok());
  database_.reset();
  // The index is the newest segment file.
  std::filesystem::path newest;
  for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
    if (entry.path().extension() == ".seg") newest = std::max(newest, entry.path());
  }
  const auto size = std::filesystem::file_size(newest);
  for (const uint64_t place : {size / 3, size / 2, size - 5000}) {
    std::fstream file(newest, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(place));
    const auto byte = static_cast<char>(file.get() ^ 0x40);
    file.seekp(static_cast<std::streamoff>(place));
    file.put(byte);
  }
  open();
  collection = database_->collection("c").value();
  SearchRequest request;
  EXPECT_GE(mean_recall(*collection, queries, request), 0.93);
  ASSERT_TRUE(wait_for_index(*collection));
  EXPECT_FALSE(std::filesystem::exists(newest));
  EXPECT_GE(mean_recall(*collection, queries, request), 0.93);
  EXPECT_TRUE(database_->health().quarantined.empty());
}

TEST_F(IndexTest, BackgroundBuildGathersSmallSegments) {
  options_.checkpoint_interval = 2;
  open();
  const auto collection = fill(clustered(9000, kDim, 71), Metric::kL2);
  ASSERT_TRUE(wait_for_index(*collection));
  EXPECT_TRUE(eventually([&] { return indexes(*collection) == 1; }));
  uint64_t indexed = 0;
  for (const SegmentStats& segment : collection->stats().value().segments) {
    if (!segment.indexes.empty()) indexed += segment.rows;
  }
  EXPECT_GE(indexed, kIndexRowsMin);
  SearchRequest request;
  EXPECT_GE(mean_recall(*collection, clustered(20, kDim, 72), request), 0.93);
}

TEST_F(IndexTest, ZeroRowsStayOutsideOfCosine) {
  Vectors rows = clustered(6000, kDim, 81);
  for (size_t i = 0; i < rows.size(); i += 200) rows[i].assign(kDim, 0.0F);
  const auto collection = fill(rows, Metric::kCosine);
  ASSERT_TRUE(collection->optimize().ok());
  ASSERT_EQ(indexes(*collection), 1u);
  for (const auto& query : clustered(20, kDim, 82)) {
    for (const SearchMode mode : {SearchMode::kExact, SearchMode::kAuto}) {
      SearchRequest request;
      request.query = query;
      request.mode = mode;
      for (const Hit& hit : collection->search(request).value().hits) {
        EXPECT_NE(hit.id.number() % 200, 0u);
      }
    }
  }
}

}  // namespace
}  // namespace aionbd::index_test
