// Filtered searches, counts and listings with a field index: the same answers as without one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <set>

#include "aionbd/aionbd.h"
#include "base/eventually.h"
#include "base/rng.h"
#include "base/sanitized.h"
#include "engine/index_keeper.h"

namespace aionbd::filtered_test {
namespace {

constexpr uint32_t kDim = 24;
constexpr size_t kClusters = 20;
constexpr size_t kManyRows = kSanitized ? 12000 : 30000;
constexpr int64_t kRange = 10000;  // of the payload number "r"

struct Row {
  std::vector<float> values;
  int64_t cluster = 0;
  Payload payload;
};

float normal(Rng& rng) {
  return static_cast<float>(std::sqrt(-2 * std::log(1 - rng.uniform())) *
                            std::cos(2 * std::numbers::pi * rng.uniform()));
}

/// Points around kClusters centres, with a payload of fields that differ in kind and frequency.
std::vector<Row> make_rows(size_t n, uint64_t seed) {
  Rng centres(5);
  std::vector<std::vector<float>> middle(kClusters, std::vector<float>(kDim));
  for (auto& centre : middle) {
    for (float& value : centre) value = normal(centres);
  }
  Rng rng(seed);
  std::vector<Row> out(n);
  for (Row& row : out) {
    row.cluster = static_cast<int64_t>(rng.below(kClusters));
    const auto& centre = middle[static_cast<size_t>(row.cluster)];
    for (uint32_t k = 0; k < kDim; ++k) row.values.push_back(centre[k] + 0.3F * normal(rng));
    row.payload["r"] = static_cast<int64_t>(rng.below(kRange));
    row.payload["cluster"] = row.cluster;
    if (rng.below(3) == 0) row.payload["odd"] = rng.below(2) == 0;
    row.payload["word"] = "w" + std::to_string(rng.below(50));
  }
  return out;
}

Clause clause_of(std::string field, decltype(Clause::test) test) {
  Clause out;
  out.field = std::move(field);
  out.test = std::move(test);
  return out;
}

Filter only(Clause clause) {
  Filter out;
  out.must.push_back(std::move(clause));
  return out;
}

Filter r_below(double share) {
  InRange range;
  range.lt = Value(static_cast<int64_t>(share * kRange));
  return only(clause_of("r", range));
}

Filter in_cluster(int64_t cluster) {
  return only(clause_of("cluster", EqualTo{Value(cluster)}));
}

Clause random_clause(Rng& rng) {
  switch (rng.below(5)) {
    case 0: {
      InRange range;
      range.gte = Value(static_cast<int64_t>(rng.below(kRange)));
      return clause_of("r", range);
    }
    case 1: return clause_of("cluster", EqualTo{Value(static_cast<int64_t>(rng.below(25)))});
    case 2: return clause_of("odd", EqualTo{Value(rng.below(2) == 0)});
    case 3: return clause_of("word", EqualTo{Value("w" + std::to_string(rng.below(60)))});
    default: return clause_of("nowhere", EqualTo{Value(int64_t{1})});
  }
}

Filter random_filter(Rng& rng) {
  Filter out;
  for (uint64_t i = rng.below(3); i > 0; --i) out.must.push_back(random_clause(rng));
  for (uint64_t i = rng.below(3); i > 0; --i) out.should.push_back(random_clause(rng));
  for (uint64_t i = rng.below(2); i > 0; --i) out.must_not.push_back(random_clause(rng));
  return out;
}

struct Found {
  std::vector<uint64_t> ids;
  std::vector<float> scores;
  bool operator==(const Found&) const = default;
};

Found found(const SearchResult& result) {
  Found out;
  for (const Hit& hit : result.hits) {
    out.ids.push_back(hit.id.number());
    out.scores.push_back(hit.score);
  }
  return out;
}

class FilteredTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = testing::TempDir() + "aionbd_filtered_test_" +
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

  std::shared_ptr<Collection> fill(const std::string& name, const std::vector<Row>& rows) {
    CollectionOptions options;
    options.dimension = kDim;
    options.metric = Metric::kL2;
    auto collection = database_->create_collection(name, options).value();
    for (size_t first = 0; first < rows.size(); first += 1000) {
      std::vector<Point> points;
      for (size_t i = first; i < std::min(rows.size(), first + 1000); ++i) {
        points.push_back({uint64_t{i}, rows[i].values, rows[i].payload});
      }
      EXPECT_TRUE(collection->upsert(points)) << first;
    }
    return collection;
  }

  /// Seals, asks a filter so that field indexes are wanted, and waits for all indexes.
  static void index(Collection& collection) {
    const Filter filter = r_below(0.5);
    ASSERT_TRUE(collection.count(&filter, kNoDeadline));
    ASSERT_TRUE(collection.optimize().ok());
    ASSERT_TRUE(knows_matches(collection));
  }

  /// Whether searches know how many rows match, which a field index tells them.
  static bool knows_matches(const Collection& collection) {
    const Filter nothing = only(clause_of("nowhere", EqualTo{Value(int64_t{1})}));
    const std::string plan = plan_of(collection, nothing, SearchMode::kAuto);
    return plan.find("no row matches") != std::string::npos;
  }

  static std::string plan_of(const Collection& collection, const Filter& filter, SearchMode mode) {
    const std::vector<float> query(kDim, 0.1F);
    SearchRequest request;
    request.query = query;
    request.filter = &filter;
    request.mode = mode;
    request.explain = true;
    std::string out;
    for (const SegmentPlan& line : collection.search(request).value().plan) out += line.plan + "\n";
    return out;
  }

  static std::filesystem::path newest_file(const std::string& dir) {
    std::filesystem::path newest;
    for (const auto& entry : std::filesystem::directory_iterator(dir)) {
      if (entry.path().extension() == ".seg") newest = std::max(newest, entry.path());
    }
    return newest;
  }

  std::string dir_;
  DatabaseOptions options_;
  std::unique_ptr<Database> database_;
};

/// Everything a filter can be asked for, twice: with indexes and from open rows.
void expect_same(const Collection& with, const Collection& without, const std::vector<Row>& queries,
                 uint64_t seed) {
  Rng rng(seed);
  constexpr int kRounds = kSanitized ? 20 : 60;
  for (int round = 0; round < kRounds; ++round) {
    const Filter filter = random_filter(rng);
    ASSERT_EQ(with.count(&filter, kNoDeadline).value(), without.count(&filter, kNoDeadline).value())
        << round;
    SearchRequest request;
    request.query = queries[rng.below(queries.size())].values;
    request.filter = &filter;
    request.mode = SearchMode::kExact;
    request.limit = static_cast<uint32_t>(1 + rng.below(200));
    EXPECT_TRUE(found(with.search(request).value()) == found(without.search(request).value()))
        << round;
    SearchBatchRequest batch;
    for (size_t q = 0; q < 5; ++q) batch.queries.emplace_back(queries[q].values);
    batch.common = request;
    batch.common.limit = 10;
    const auto some = with.search_batch(batch).value();
    const auto other = without.search_batch(batch).value();
    for (size_t q = 0; q < some.size(); ++q) EXPECT_TRUE(found(some[q]) == found(other[q])) << q;
    ListRequest list;
    list.filter = &filter;
    list.limit = 40;
    list.after_id = PointId(rng.below(6000));
    const ListPage page = with.list(list).value();
    const ListPage plain = without.list(list).value();
    ASSERT_EQ(page.points.size(), plain.points.size()) << round;
    EXPECT_EQ(page.more, plain.more);
    for (size_t i = 0; i < page.points.size(); ++i) {
      EXPECT_TRUE(page.points[i].id == plain.points[i].id);
    }
    // The approximate answer is full, and of matching rows.
    request.mode = SearchMode::kAuto;
    request.limit = 10;
    const SearchResult walked = with.search(request).value();
    const SearchResult exact = without.search(request).value();
    ASSERT_EQ(walked.hits.size(), exact.hits.size()) << round;
  }
}

TEST_F(FilteredTest, AnswersAreThoseWithoutAnIndex) {
  const std::vector<Row> rows = make_rows(7000, 1);
  const auto with = fill("with", rows);
  index(*with);
  const auto without = fill("without", rows);  // never sealed
  expect_same(*with, *without, make_rows(20, 2), 3);
  // Dead rows, rows replaced, and rows that are not sealed yet.
  std::vector<PointId> gone;
  for (uint64_t id = 0; id < rows.size(); id += 3) gone.emplace_back(id);
  const std::vector<Row> others = make_rows(900, 4);
  for (const auto& collection : {with, without}) {
    ASSERT_EQ(collection->remove(gone).value(), gone.size());
    std::vector<Point> points;
    for (uint64_t i = 0; i < others.size(); ++i) {
      points.push_back({6500 + i, others[i].values, others[i].payload});
    }
    ASSERT_TRUE(collection->upsert(points));
  }
  expect_same(*with, *without, make_rows(20, 5), 6);
  const Filter filter = in_cluster(3);
  EXPECT_EQ(with->remove_matching(filter, kNoDeadline).value(),
            without->remove_matching(filter, kNoDeadline).value());
  EXPECT_EQ(with->count(&filter, kNoDeadline).value(), 0u);
  expect_same(*with, *without, make_rows(20, 7), 8);
}

/// Mean recall of 10 hits over queries, with the plan's target.
double recall_of(const Collection& collection, const std::vector<std::vector<float>>& queries,
                 const Filter& filter, std::optional<uint32_t> ef = std::nullopt) {
  double sum = 0;
  for (const auto& query : queries) {
    SearchRequest request;
    request.query = query;
    request.filter = &filter;
    request.limit = 10;
    request.target_recall = 0.95;
    if (ef) {
      request.mode = SearchMode::kGraph;
      request.param = ef;
    }
    const SearchResult result = collection.search(request).value();
    request.mode = SearchMode::kExact;
    const SearchResult truth = collection.search(request).value();
    EXPECT_EQ(result.hits.size(), truth.hits.size());
    std::set<uint64_t> right;
    for (const Hit& hit : truth.hits) right.insert(hit.id.number());
    size_t hits = 0;
    for (const Hit& hit : result.hits) hits += right.count(hit.id.number());
    sum += right.empty() ? 1 : static_cast<double>(hits) / static_cast<double>(right.size());
  }
  return sum / static_cast<double>(queries.size());
}

TEST_F(FilteredTest, RecallHoldsAtEverySelectivity) {
  const std::vector<Row> rows = make_rows(kManyRows, 11);
  const auto collection = fill("c", rows);
  index(*collection);
  const std::vector<Row> asked = make_rows(60, 12);
  std::vector<std::vector<float>> queries;
  for (const Row& row : asked) queries.push_back(row.values);
  for (const double share : {0.0001, 0.001, 0.01, 0.1, 0.3, 0.5, 0.99}) {
    EXPECT_GE(recall_of(*collection, queries, r_below(share)), 0.94) << share;
  }
  std::string plans;
  for (const double share : {0.001, 0.05, 0.3, 0.99}) {
    plans += plan_of(*collection, r_below(share), SearchMode::kAuto);
  }
  for (const char* part : {"exact scan of ", "estimates from codes of ", "graph walk, ef "}) {
    EXPECT_NE(plans.find(part), std::string::npos) << part << "not in\n" << plans;
  }
}

TEST_F(FilteredTest, RecallHoldsForCorrelatedFilters) {
  const std::vector<Row> rows = make_rows(kManyRows, 21);
  const auto collection = fill("c", rows);
  index(*collection);
  for (const bool near : {true, false}) {
    double sum = 0;
    for (int64_t cluster = 0; cluster < 8; ++cluster) {
      std::vector<std::vector<float>> queries;
      for (const Row& row : make_rows(400, 22)) {
        if ((row.cluster == cluster) == near && queries.size() < 12) queries.push_back(row.values);
      }
      sum += recall_of(*collection, queries, in_cluster(cluster));
    }
    // A wide enough share at a small width is walked over, not looked at row by row.
    std::vector<std::vector<float>> queries;
    for (const Row& row : make_rows(200, 23)) {
      if ((row.cluster < 5) == near) queries.push_back(row.values);
    }
    InRange low;
    low.lt = Value(int64_t{5});
    const Filter quarter = only(clause_of("cluster", low));
    EXPECT_GE(recall_of(*collection, queries, quarter, 20),
              recall_of(*collection, queries, r_below(1), 20) - 0.02)
        << (near ? "queries among" : "queries far from") << " a quarter that matches";
    EXPECT_GE(sum / 8, 0.94) << (near ? "queries among" : "queries far from") << " what matches";
  }
}

TEST_F(FilteredTest, IndexComesBackAfterReopen) {
  index(*fill("c", make_rows(6000, 31)));
  const uint64_t bytes = database_->collection("c").value()->stats().value().index_bytes;
  open();
  const auto collection = database_->collection("c").value();
  EXPECT_TRUE(eventually([&] { return collection->stats().value().index_bytes >= bytes; }));
  EXPECT_EQ(collection->stats().value().index_bytes, bytes) << "built anew instead of opened";
  EXPECT_TRUE(knows_matches(*collection));
  // A merge makes a new one for the new segment, without another filter.
  const std::vector<PointId> gone = {PointId(uint64_t{7})};
  ASSERT_TRUE(collection->remove(gone));
  ASSERT_TRUE(collection->optimize().ok());
  EXPECT_TRUE(knows_matches(*collection));
}

TEST_F(FilteredTest, DamagedIndexIsBuiltAgain) {
  const std::vector<Row> rows = make_rows(6000, 41);
  index(*fill("c", rows));
  const Filter filter = r_below(0.2);
  const uint64_t matching = database_->collection("c").value()->count(&filter, kNoDeadline).value();
  database_.reset();
  // build_all makes the field index last.
  const std::filesystem::path file = newest_file(dir_);
  {
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekg(5000);
    const auto byte = static_cast<char>(bytes.get() ^ 0x40);
    bytes.seekp(5000);
    bytes.put(byte);
  }
  open();
  const auto collection = database_->collection("c").value();
  EXPECT_EQ(collection->count(&filter, kNoDeadline).value(), matching);
  EXPECT_TRUE(eventually([&] { return !std::filesystem::exists(file); }));
  EXPECT_TRUE(eventually([&] { return knows_matches(*collection); }));
  EXPECT_EQ(collection->count(&filter, kNoDeadline).value(), matching);
  EXPECT_TRUE(database_->health().quarantined.empty());
}

TEST_F(FilteredTest, NoneIsBuiltUnasked) {
  std::vector<Row> rows = make_rows(6000, 51);
  // What is not a vector index is a field index.
  const auto field_bytes = [](const Collection& collection) {
    const CollectionStats stats = collection.stats().value();
    uint64_t bytes = stats.index_bytes;
    for (const SegmentStats& segment : stats.segments) {
      for (const IndexStats& index : segment.indexes) bytes -= index.disk_bytes;
    }
    return bytes;
  };
  const auto unasked = fill("unasked", rows);
  ASSERT_TRUE(unasked->optimize().ok());
  EXPECT_EQ(field_bytes(*unasked), 0u);
  const Filter filter = r_below(0.5);
  ASSERT_TRUE(unasked->count(&filter, kNoDeadline));
  ASSERT_TRUE(unasked->optimize().ok());
  EXPECT_GT(field_bytes(*unasked), 0u);
  for (Row& row : rows) row.payload.clear();
  const auto bare = fill("bare", rows);
  EXPECT_EQ(bare->count(&filter, kNoDeadline).value(), 0u);
  ASSERT_TRUE(bare->optimize().ok());
  EXPECT_EQ(field_bytes(*bare), 0u);
}

}  // namespace
}  // namespace aionbd::filtered_test
