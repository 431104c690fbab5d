// Codes of rows that were written while searches went on, until they have an index of their own.

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "aionbd/aionbd.h"
#include "base/eventually.h"
#include "base/rng.h"
#include "engine/pinning.h"
#include "engine/stored_collection.h"

namespace aionbd::row_codes_test {
namespace {

constexpr uint32_t kDim = 48;
constexpr uint64_t kIndexed = kIndexRowsMin + 500;
constexpr uint64_t kLater = 400;  // too few for an index

class RowCodesTest : public testing::TestWithParam<Metric> {
 protected:
  void SetUp() override {
    std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '_');
    options_.data_dir = testing::TempDir() + "aionbd_row_codes_test_" + name;
    std::filesystem::remove_all(options_.data_dir);
    options_.search_threads = 1;
    options_.checkpoint_interval = 1000000;
    options_.index_build_cooldown = std::chrono::hours(1);  // none but by optimize
    options_.recall_audit = false;
    open();
    write(0, kIndexed, 1);
    ASSERT_TRUE(collection_->optimize().ok());
  }
  void TearDown() override {
    collection_.reset();
    database_.reset();
    std::filesystem::remove_all(options_.data_dir);
  }

  void open() {
    collection_.reset();
    database_.reset();
    auto opened = Database::open(options_);
    ASSERT_TRUE(opened) << opened.error().to_string();
    database_ = std::move(*opened);
    if (auto found = database_->collection("c")) {
      collection_ = std::move(*found);
      return;
    }
    CollectionOptions collection;
    collection.dimension = kDim;
    collection.metric = GetParam();
    collection_ = database_->create_collection("c", collection).value();
  }

  /// Rows around 20 centres, `length` times as long; every tenth of the later ones is zero.
  void write(uint64_t first, uint64_t n, float length) {
    std::vector<Point> points(n);
    for (uint64_t i = 0; i < n; ++i) {
      points[i].id = PointId(first + i);
      points[i].values = values_of(first + i);
      points[i].payload = {{"n", static_cast<int64_t>((first + i) % 3)}};
      const bool zero = first >= kIndexed && i % 10 == 0;
      for (float& value : points[i].values) value *= zero ? 0 : length;
    }
    for (size_t at = 0; at < points.size(); at += 500) {
      const size_t end = std::min(points.size(), at + 500);
      ASSERT_TRUE(collection_->upsert({points.begin() + static_cast<std::ptrdiff_t>(at),
                                       points.begin() + static_cast<std::ptrdiff_t>(end)}));
    }
  }
  static std::vector<float> values_of(uint64_t n) {
    Rng centre(n % 20 + 1);
    Rng rng(n + 100);
    std::vector<float> out(kDim);
    for (float& value : out) {
      value = static_cast<float>(centre.uniform() - 0.5 + 0.2 * (rng.uniform() - 0.5));
    }
    return out;
  }

  /// Every third point only, if filtered.
  SearchResult search(const std::vector<float>& query, SearchMode mode, bool filtered = false) {
    Clause clause;
    clause.field = "n";
    clause.test = EqualTo{Value(int64_t{1})};
    Filter filter;
    filter.must.push_back(std::move(clause));
    SearchRequest request;
    request.query = query;
    request.mode = mode;
    request.limit = 10;
    request.explain = true;
    if (filtered) request.filter = &filter;
    return collection_->search(request).value();
  }
  static std::vector<std::pair<uint64_t, float>> hits(const SearchResult& result) {
    std::vector<std::pair<uint64_t, float>> out;
    for (const Hit& hit : result.hits) out.emplace_back(hit.id.number(), hit.score);
    return out;
  }
  /// After a start indexes are opened beside everything else.
  void wait_for_index() {
    ASSERT_TRUE(eventually([&] {
      search(values_of(0), SearchMode::kAuto);
      for (const SegmentStats& segment : collection_->stats().value().segments) {
        if (!segment.indexes.empty()) return true;
      }
      return false;
    })) << "no index";
  }
  std::string plan_of_later(const SearchResult& result) const {
    for (const SegmentPlan& part : result.plan) {
      if (part.rows == kLater) return part.plan;
    }
    return "no such segment";
  }
  uint64_t codes_bytes() const {
    uint64_t bytes = 0;
    for (const SegmentStats& segment : collection_->stats().value().segments) {
      if (segment.sealed) bytes += segment.memory_bytes;
    }
    return bytes;
  }

  DatabaseOptions options_;
  std::unique_ptr<Database> database_;
  std::shared_ptr<Collection> collection_;
};

TEST_P(RowCodesTest, ExactAnswersAreThoseOfThePlainScan) {
  // Some longer than all that is indexed: under dot the codes' form has no place for them.
  for (const float length : {1.0F, 1.2F}) {
    wait_for_index();
    write(kIndexed, kLater, length);
    search(values_of(0), SearchMode::kExact);  // somebody reads the new rows
    ASSERT_TRUE(database_->checkpoint().ok());
    std::vector<std::vector<std::pair<uint64_t, float>>> coded;
    for (uint64_t q = 0; q < 60; ++q) {
      const SearchResult result = search(values_of(5000000 + q), SearchMode::kExact, q % 3 == 2);
      EXPECT_TRUE(plan_of_later(result).starts_with("sealed: exact scan of codes"));
      coded.push_back(hits(result));
    }
    EXPECT_GT(codes_bytes(), 0u);
    open();  // codes are not stored
    EXPECT_EQ(codes_bytes(), 0u);
    for (uint64_t q = 0; q < 60; ++q) {
      const SearchResult result = search(values_of(5000000 + q), SearchMode::kExact, q % 3 == 2);
      EXPECT_EQ(plan_of_later(result).find("codes"), std::string::npos);
      EXPECT_EQ(hits(result), coded[q]) << "query " << q;
    }
  }
}

TEST_P(RowCodesTest, AutoFindsWhatIsNewAndSaysHowMuchItFinds) {
  write(kIndexed, kLater, 1);
  search(values_of(0), SearchMode::kAuto);
  ASSERT_TRUE(database_->checkpoint().ok());
  double found = 0;
  double said = 0;
  constexpr uint64_t kQueries = 100;
  for (uint64_t q = 0; q < kQueries; ++q) {
    const std::vector<float> query = values_of(7000000 + q);
    const auto truth = hits(search(query, SearchMode::kExact));
    const SearchResult result = search(query, SearchMode::kAuto);
    EXPECT_EQ(plan_of_later(result), "sealed: estimates from codes");
    for (const auto& hit : hits(result)) {
      found += std::find(truth.begin(), truth.end(), hit) != truth.end() ? 0.1 : 0;
    }
    said += result.recall_at_k.value();
  }
  EXPECT_GE(found / kQueries, 0.94);
  EXPECT_NEAR(said / kQueries, found / kQueries, 0.03);
  // The best row is found; once it is dead, it is found no more.
  const std::vector<float> query = values_of(kIndexed + 5);
  const uint64_t best = hits(search(query, SearchMode::kExact)).front().first;
  EXPECT_EQ(hits(search(query, SearchMode::kAuto)).front().first, best);
  const PointId dead(best);
  ASSERT_TRUE(collection_->remove({&dead, 1}));
  EXPECT_NE(hits(search(query, SearchMode::kAuto)).front().first, best);
}

TEST_P(RowCodesTest, AnIndexTakesTheirPlace) {
  write(kIndexed, kLater, 1);
  search(values_of(0), SearchMode::kAuto);
  ASSERT_TRUE(database_->checkpoint().ok());
  EXPECT_GT(codes_bytes(), 0u);
  ASSERT_TRUE(collection_->optimize().ok());
  EXPECT_EQ(codes_bytes(), 0u);
}

TEST_P(RowCodesTest, RowsThatNobodyReadsHaveNone) {
  write(kIndexed, kLater, 1);
  ASSERT_TRUE(database_->checkpoint().ok());
  EXPECT_EQ(codes_bytes(), 0u);
}

// Searches over open rows ask for their codes, which a thread makes beside them.
TEST_P(RowCodesTest, OpenRowsGetCodesOnceTheyAreReadOften) {
  write(kIndexed, kLater, 1);
  const auto plan_of_open = [&] { return plan_of_later(search(values_of(0), SearchMode::kAuto)); };
  EXPECT_EQ(plan_of_open(), "open: exact scan");
  ASSERT_TRUE(eventually([&] {
    for (uint64_t i = 0; i < kReadsPerCode; ++i) plan_of_open();
    return plan_of_open() == "open: estimates from codes";
  }));

  // Rows that came since have none, and are found; so is the state of others.
  write(kIndexed + kLater, kUncodedRowsMin / 2, 1);
  std::vector<PointId> dead;
  for (uint64_t i = 0; i < 40; ++i) dead.emplace_back(kIndexed + 10 * i + 1);
  ASSERT_TRUE(collection_->remove(dead));
  double found = 0;
  double said = 0;
  constexpr uint64_t kQueries = 100;
  for (uint64_t q = 0; q < kQueries; ++q) {
    const bool filtered = q % 4 == 3;
    const std::vector<float> query = values_of(9000000 + q);
    const auto truth = hits(search(query, SearchMode::kExact, filtered));
    const SearchResult result = search(query, SearchMode::kAuto, filtered);
    ASSERT_EQ(result.plan.back().rows, kLater + kUncodedRowsMin / 2);
    EXPECT_TRUE(result.plan.back().plan.starts_with("open: estimates from codes"))
        << result.plan.back().plan;
    // The coded rows by estimates, the others one by one.
    EXPECT_EQ(result.plan.back().estimated, kLater);
    EXPECT_GE(result.plan.back().candidates, filtered ? 1 : kUncodedRowsMin / 2);
    ASSERT_EQ(result.hits.size(), 10u);
    for (const auto& hit : hits(result)) {
      found += std::find(truth.begin(), truth.end(), hit) != truth.end() ? 0.1 : 0;
      EXPECT_EQ(std::find(dead.begin(), dead.end(), PointId(hit.first)), dead.end());
    }
    said += result.recall_at_k.value();
  }
  EXPECT_GE(found / kQueries, 0.94);
  EXPECT_NEAR(said / kQueries, found / kQueries, 0.03);
  // Each of the newest is the best answer to itself.
  for (uint64_t i = 0; i < kUncodedRowsMin / 2; ++i) {
    const uint64_t id = kIndexed + kLater + i;
    if (i % 10 == 0 || GetParam() == Metric::kDot) continue;  // zero, or not its own nearest
    EXPECT_EQ(hits(search(values_of(id), SearchMode::kAuto)).front().first, id);
  }
}

// Under dot the codes have no place for rows longer than all that is indexed.
using LongRowsTest = RowCodesTest;
TEST_P(LongRowsTest, OpenRowsThatCodesCannotHoldAreReadAsTheyAre) {
  write(kIndexed, kLater, 3);
  for (uint64_t i = 0; i < 4 * kReadsPerCode; ++i) {
    const std::vector<float> query = values_of(i);
    const SearchResult result = search(query, SearchMode::kAuto);
    EXPECT_EQ(plan_of_later(result), "open: exact scan");
    EXPECT_EQ(hits(result).front(), hits(search(query, SearchMode::kExact)).front());
    if (i % 60 == 59) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

INSTANTIATE_TEST_SUITE_P(Metrics, LongRowsTest, testing::Values(Metric::kDot));
INSTANTIATE_TEST_SUITE_P(Metrics, RowCodesTest,
                         testing::Values(Metric::kL2, Metric::kCosine, Metric::kDot));

}  // namespace
}  // namespace aionbd::row_codes_test
