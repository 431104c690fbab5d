// A store larger than its memory budget: builds are split to fit, searches copy what is not pinned
// and answer as ever, reservations come back, and what becomes resident beside the plan is let go.
#include "engine/pinning.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <set>
#include <thread>

#include "aionbd/aionbd.h"
#include "base/eventually.h"
#include "base/rng.h"
#include "base/sanitized.h"
#include "engine/engine.h"
#include "engine/test_metric.h"
#include "io/sim_file_system.h"

namespace aionbd::pinning_test {
namespace {

constexpr size_t kRows = kSanitized ? 12000 : 40000;
constexpr uint32_t kDim = 32;
constexpr size_t kQueries = 40;

float normal(Rng& rng) {
  return static_cast<float>(std::sqrt(-2 * std::log(1 - rng.uniform())) *
                            std::cos(2 * std::numbers::pi * rng.uniform()));
}

/// Rows around 60 centres; row n is the same in every run.
std::vector<float> row_of(size_t n) {
  Rng centre(1000 + n % 60);
  Rng rng(n + 1);
  std::vector<float> out(kDim);
  for (float& value : out) value = normal(centre) + 0.5F * normal(rng);
  return out;
}

/// Says what it is told. Thread safety: safe.
class ToldMemory final : public ProcessMemory {
 public:
  uint64_t resident_bytes() const override {
    asked.fetch_add(1);
    return resident.load();
  }
  void give_back_freed() override { given_back.fetch_add(1); }

  std::atomic<uint64_t> resident{0};
  mutable std::atomic<int> asked{0};
  std::atomic<int> given_back{0};
};

class PinningTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = testing::TempDir() + "aionbd_pinning_test_" +
           testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(dir_);
    options_.data_dir = dir_;
    options_.durability.sync_on_write = false;
    options_.search_threads = 2;
    options_.index_build_cooldown = std::chrono::milliseconds(1);
    options_.memory_budget_bytes = 16 << 20;
    options_.recall_audit = false;  // what it keeps is counted, too
    options_.log = [this](LogLevel, std::string_view line) {
      MutexLock lock(mutex_);
      log_ += std::string(line) + "\n";
    };
  }
  void TearDown() override {
    database_.reset();
    std::filesystem::remove_all(dir_);
  }

  void open() {
    database_.reset();
    auto opened = open_database(options_, {&posix_file_system(), &system_clock_source(), &memory_});
    ASSERT_TRUE(opened) << opened.error().to_string();
    database_ = std::move(*opened);
  }

  std::shared_ptr<Collection> collection() const { return database_->collection("c").value(); }

  std::shared_ptr<Collection> fill(size_t rows = kRows) {
    CollectionOptions options;
    options.dimension = kDim;
    options.metric = Metric::kL2;
    auto out = database_->create_collection("c", options).value();
    std::vector<Point> points;
    for (size_t i = 0; i < rows; ++i) {
      points.push_back({uint64_t{i}, row_of(i), {{"n", static_cast<int64_t>(i % 100)}}});
      if (points.size() < 500 && i + 1 < rows) continue;
      EXPECT_TRUE(eventually([&] {
        const Result<UpsertResult> done = out->upsert(points);
        if (done) return true;
        EXPECT_EQ(done.error().code(), Code::kResourceExhausted);
        return false;
      })) << i;
      points.clear();
    }
    return out;
  }

  double metric(std::string_view name) const { return metric_of(*database_, name); }

  struct Places {
    size_t all = 0, codes = 0, nothing = 0;
    uint64_t rows_largest = 0;
    uint64_t rows_bare = 0;
  };
  static Places places(const Collection& collection) {
    Places out;
    const CollectionStats stats = collection.stats().value();
    for (const SegmentStats& segment : stats.segments) {
      if (!segment.sealed) continue;
      (segment.in_place == "all"     ? out.all
       : segment.in_place == "codes" ? out.codes
                                     : out.nothing) += 1;
      out.rows_largest = std::max(out.rows_largest, segment.rows);
      if (segment.indexes.empty()) out.rows_bare += segment.rows;
    }
    return out;
  }

  void wait_for_indexes() const {
    EXPECT_TRUE(eventually([&] { return places(*collection()).rows_bare < kIndexRowsMin; }));
  }

  std::string log() {
    MutexLock lock(mutex_);
    return log_;
  }

  std::string dir_;
  DatabaseOptions options_;
  ToldMemory memory_;
  Mutex mutex_;
  std::string log_;
  std::unique_ptr<Database> database_;
};

struct Found {
  std::vector<uint64_t> ids;
  std::vector<float> scores;
  bool operator==(const Found&) const = default;
};

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

std::vector<Found> answers(const Collection& collection, SearchMode mode, const Filter* filter) {
  std::vector<Found> out;
  for (size_t q = 0; q < kQueries; ++q) {
    const std::vector<float> query = row_of(kRows + 1000 * q + q);
    SearchRequest request;
    request.query = query;
    request.mode = mode;
    request.limit = 10;
    request.filter = filter;
    const Result<SearchResult> result = collection.search(request);
    EXPECT_TRUE(result) << result.error().to_string();
    if (!result) return out;
    Found& found = out.emplace_back();
    for (const Hit& hit : result->hits) {
      found.ids.push_back(hit.id.number());
      found.scores.push_back(hit.score);
    }
  }
  return out;
}

std::vector<Found> batch_answers(const Collection& collection) {
  std::vector<std::vector<float>> queries;
  for (size_t q = 0; q < kQueries; ++q) queries.push_back(row_of(kRows + 1000 * q + q));
  SearchBatchRequest batch;
  for (const auto& query : queries) batch.queries.emplace_back(query);
  batch.common.mode = SearchMode::kExact;
  batch.common.limit = 10;
  std::vector<Found> out;
  const std::vector<SearchResult> results = collection.search_batch(batch).value();
  for (const SearchResult& result : results) {
    Found& found = out.emplace_back();
    for (const Hit& hit : result.hits) {
      found.ids.push_back(hit.id.number());
      found.scores.push_back(hit.score);
    }
  }
  return out;
}

double recall(const std::vector<Found>& got, const std::vector<Found>& truth) {
  size_t right = 0, all = 0;
  for (size_t q = 0; q < truth.size(); ++q) {
    const std::set<uint64_t> ids(got[q].ids.begin(), got[q].ids.end());
    for (const uint64_t id : truth[q].ids) right += ids.count(id);
    all += truth[q].ids.size();
  }
  return static_cast<double>(right) / static_cast<double>(all);
}

TEST_F(PinningTest, AStoreLargerThanItsBudgetAnswersAsWithoutOne) {
  open();
  fill();
  ASSERT_TRUE(collection()->optimize().ok()) << log();
  const Filter filter = below(30);
  options_.memory_budget_bytes = 0;
  open();
  wait_for_indexes();
  const auto exact = answers(*collection(), SearchMode::kExact, nullptr);
  const auto exact_filtered = answers(*collection(), SearchMode::kExact, &filter);
  EXPECT_EQ(places(*collection()).nothing, 0u);
  EXPECT_EQ(metric("memory_on_demand_bytes"), 0);

  // The indexes are there; of some, codes fit.
  options_.memory_budget_bytes = 60 * kRows;
  open();
  wait_for_indexes();
  // What fits is decided anew behind the last index that is opened.
  EXPECT_TRUE(eventually([&] { return places(*collection()).nothing > 0; }));
  const Places at = places(*collection());
  EXPECT_GT(at.nothing, 0u);
  EXPECT_TRUE(at.codes > 0 || kRows < 40000);
  EXPECT_LE(metric("memory_pinned_bytes"), kSealedShare * 60 * kRows);
  EXPECT_GT(metric("memory_on_demand_bytes"), 0);
  EXPECT_EQ(answers(*collection(), SearchMode::kExact, nullptr), exact);
  EXPECT_EQ(answers(*collection(), SearchMode::kExact, &filter), exact_filtered);
  EXPECT_EQ(batch_answers(*collection()), exact);
  EXPECT_GE(recall(answers(*collection(), SearchMode::kAuto, nullptr), exact), 0.94);
  EXPECT_GE(recall(answers(*collection(), SearchMode::kAuto, &filter), exact_filtered), 0.94);
  EXPECT_GE(recall(answers(*collection(), SearchMode::kGraph, nullptr), exact), 0.94);
  SearchRequest request;
  const std::vector<float> query = row_of(1);
  request.query = query;
  request.explain = true;
  request.include_values = true;
  const SearchResult explained = collection()->search(request).value();
  EXPECT_EQ(explained.hits.front().values, query);
  bool from_disk = false;
  for (const SegmentPlan& line : explained.plan) {
    from_disk = from_disk || line.plan.find("read from disk") != std::string::npos;
  }
  EXPECT_TRUE(from_disk);
}

TEST_F(PinningTest, BuildsAreSplitToFitAndGiveTheirMemoryBack) {
  // Room for twice kIndexRowsMin: with less, two segments may be too small for an index each and
  // too large for one.
  options_.memory_budget_bytes = 26 << 20;
  open();
  const uint64_t rows_max = indexable_rows_max(options_.memory_budget_bytes, kDim);
  ASSERT_GT(rows_max, 2 * kIndexRowsMin);
  ASSERT_LT(rows_max, kRows);
  fill();
  ASSERT_TRUE(collection()->optimize().ok()) << log();
  const Places at = places(*collection());
  EXPECT_LE(at.rows_largest, rows_max);
  EXPECT_GE(at.all + at.codes + at.nothing, kRows / rows_max);
  EXPECT_LT(at.rows_bare, kIndexRowsMin);
  // Nothing is held but what is pinned.
  EXPECT_EQ(metric("memory_used_bytes"), metric("memory_pinned_bytes"));
  EXPECT_GT(memory_.given_back.load(), 0);
  // The same budget holds the same after a restart, whatever it reads to open.
  open();
  wait_for_indexes();
  EXPECT_LT(places(*collection()).rows_bare, kIndexRowsMin);
  EXPECT_LE(metric("memory_used_bytes"), static_cast<double>(options_.memory_budget_bytes));
}

TEST(GivingBack, FreedMemoryIsGivenBackOnceAMinuteWhileWritesCome) {
  for (const uint64_t budget : {uint64_t{0}, uint64_t{64} << 20}) {
    ToldMemory memory;
    ManualClock clock;
    SimFileSystem files;
    DatabaseOptions options;
    options.data_dir = "store";
    options.memory_budget_bytes = budget;
    const auto database = open_database(options, {&files, &clock, &memory}).value();
    const auto minute = [&] {
      for (int i = 0; i < 10; ++i) {
        EXPECT_TRUE(database->checkpoint().ok());
        clock.advance(kGiveBackEvery / 10);
      }
    };
    for (int minutes = 0; minutes < 5; ++minutes) {
      EXPECT_EQ(memory.given_back, std::max(0, minutes - 1));
      minute();
    }
  }
}

TEST(GivingBack, WhatABuildFreedIsGivenBackAtItsEnd) {
  for (const uint64_t budget : {uint64_t{0}, uint64_t{64} << 20}) {
    ToldMemory memory;
    ManualClock clock;  // stands still: the minute does not come
    SimFileSystem files;
    DatabaseOptions options;
    options.data_dir = "store";
    options.memory_budget_bytes = budget;
    const auto database = open_database(options, {&files, &clock, &memory}).value();
    CollectionOptions about;
    about.dimension = kDim;
    about.metric = Metric::kL2;
    const auto held = database->create_collection("c", about).value();
    std::vector<Point> points(kIndexRowsMin);
    for (size_t i = 0; i < points.size(); ++i) {
      points[i].id = PointId(i);
      points[i].values = row_of(i);
    }
    ASSERT_TRUE(held->upsert(points).has_value());
    ASSERT_TRUE(held->optimize().ok());
    EXPECT_GE(memory.given_back, 1) << "budget " << budget;
  }
}

TEST_F(PinningTest, ABudgetTooSmallForAnyIndexServesExactly) {
  options_.memory_budget_bytes = 2 << 20;
  ASSERT_LT(indexable_rows_max(options_.memory_budget_bytes, kDim), kIndexRowsMin);
  open();
  fill(8000);
  EXPECT_TRUE(collection()->optimize().ok());
  EXPECT_EQ(places(*collection()).rows_bare, 8000u);
  EXPECT_GT(metric("l2_index_build_memory_waits"), 0);
  EXPECT_NE(log().find("waiting for memory"), std::string::npos);
  const auto exact = answers(*collection(), SearchMode::kExact, nullptr);
  EXPECT_EQ(answers(*collection(), SearchMode::kAuto, nullptr), exact);
}

TEST_F(PinningTest, ARefusedWriteSealsWhatIsInItsWay) {
  options_.memory_budget_bytes = 2 << 20;
  options_.checkpoint_interval = 1000000;
  open();
  CollectionOptions shape;
  shape.dimension = kDim;
  const auto to = database_->create_collection("c", shape).value();
  const Payload large = {{"text", std::string(100000, 'x')}};
  int refused = 0;
  for (uint64_t i = 0; i < 60; ++i) {
    const std::vector<Point> point = {{i, row_of(i), large}};
    ASSERT_TRUE(eventually([&] {
      const Result<UpsertResult> done = to->upsert(point);
      if (done) return true;
      EXPECT_EQ(done.error().code(), Code::kResourceExhausted);
      ++refused;
      return false;
    })) << i;
  }
  EXPECT_GT(refused, 0);
  EXPECT_EQ(to->count(nullptr).value(), 60u);
}

TEST_F(PinningTest, WhatGoesPastThePlanIsLookedAtAndLetGo) {
  open();
  fill(2000);
  ASSERT_TRUE(database_->checkpoint().ok());
  const SearchMode mode = SearchMode::kExact;
  memory_.resident = options_.memory_budget_bytes;
  const int before = memory_.given_back.load();
  (void)answers(*collection(), mode, nullptr);
  EXPECT_EQ(memory_.given_back.load(), before);
  memory_.resident = 2 * options_.memory_budget_bytes;
  std::this_thread::sleep_for(2 * kLookEvery);
  (void)answers(*collection(), mode, nullptr);
  EXPECT_GT(memory_.given_back.load(), before);
  // It did not help, so the next looks, of four questions each, come later and later.
  const int asked = memory_.asked.load();
  (void)answers(*collection(), mode, nullptr);
  EXPECT_LE(memory_.asked.load(), asked + 32);
}

TEST_F(PinningTest, AStoreInMemoryCountsItsSealedRows) {
  options_.persistent = false;
  options_.memory_budget_bytes = 4 << 20;
  open();
  CollectionOptions shape;
  shape.dimension = kDim;
  const auto to = database_->create_collection("c", shape).value();
  bool refused = false;
  for (size_t i = 0; i < 200 && !refused; ++i) {
    std::vector<Point> points;
    for (size_t j = 0; j < 500; ++j) points.push_back({uint64_t{i * 500 + j}, row_of(j), {}});
    refused = !to->upsert(points);
  }
  EXPECT_TRUE(refused);
  EXPECT_LE(metric("memory_used_bytes"), 1.5 * (4 << 20));
}

TEST_F(PinningTest, DamageIsFoundWhereRowsAreCopied) {
  options_.memory_budget_bytes = 0;
  options_.index_warmup_on_boot = false;
  open();
  fill(6000);
  ASSERT_TRUE(database_->checkpoint().ok());
  database_.reset();
  // The middle of each segment file is rows.
  for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
    if (entry.path().extension() != ".seg") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    const auto middle = static_cast<std::streamoff>(entry.file_size() / 2);
    file.seekg(middle);
    const char byte = static_cast<char>(file.get());
    file.seekp(middle);
    file.put(static_cast<char>(byte ^ 1));
  }
  options_.memory_budget_bytes = 1 << 20;
  open();
  ASSERT_GT(metric("memory_on_demand_bytes"), 0);
  SearchRequest request;
  const std::vector<float> query = row_of(1);
  request.query = query;
  request.mode = SearchMode::kExact;
  const Result<SearchResult> result = collection()->search(request);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kCorruption);
}

TEST(BudgetFitTest, RowsThatCanBeIndexedGrowWithTheBudget) {
  EXPECT_EQ(indexable_rows_max(0, 128), kSegmentRowsMax);
  uint64_t before = 0;
  for (const uint64_t mb : {8, 16, 32, 128, 512, 4096}) {
    const uint64_t rows = indexable_rows_max(mb << 20, 128);
    EXPECT_GE(rows, before) << mb;
    EXPECT_LE(build_bytes(rows, 128, build_memory_max(mb << 20)), build_memory_max(mb << 20));
    before = rows;
  }
  EXPECT_GT(indexable_rows_max(128 << 20, 128), 30000u);
  EXPECT_EQ(mergeable_rows_max(1 << 20, 128), kSegmentRowsMax);
}

}  // namespace
}  // namespace aionbd::pinning_test
