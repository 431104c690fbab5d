// The engine over real files: the paths a host takes, one by one. Random histories are in
// test/model and test/crash.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "aionbd/aionbd.h"
#include "base/rng.h"
#include "distance/metric.h"

namespace aionbd {
namespace {

class EngineTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = testing::TempDir() + "aionbd_engine_test_" +
           testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(dir_);
    options_.data_dir = dir_;
    options_.search_threads = 2;
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
  std::shared_ptr<Collection> create(uint32_t dimension, IdType id_type = IdType::kU64) {
    CollectionOptions options;
    options.dimension = dimension;
    options.id_type = id_type;
    return database_->create_collection("c", options).value();
  }
  std::shared_ptr<Collection> reopened() {
    open();
    return database_->collection("c").value();
  }

  std::string dir_;
  DatabaseOptions options_;
  std::unique_ptr<Database> database_;
};

std::vector<uint64_t> ids_of(const SearchResult& result) {
  std::vector<uint64_t> out;
  for (const Hit& hit : result.hits) out.push_back(hit.id.number());
  return out;
}

TEST_F(EngineTest, WritesAreThereAfterReopen) {
  open();
  auto collection = create(2);
  const std::vector<Point> points = {{uint64_t{7}, {1, 2}, {{"label", "a"}}},
                                     {uint64_t{3}, {3, 4}, {}}};
  const UpsertResult result = collection->upsert(points).value();
  EXPECT_EQ(result.created, 2u);
  collection = reopened();
  EXPECT_EQ(collection->count(nullptr).value(), 2u);
  const GetResult got =
      collection->get(std::vector<PointId>{uint64_t{7}, uint64_t{9}}, GetOptions{}).value();
  ASSERT_EQ(got.points.size(), 1u);
  EXPECT_EQ(got.points[0].values, (std::vector<float>{1, 2}));
  EXPECT_EQ(got.points[0].payload, (Payload{{"label", "a"}}));
  EXPECT_EQ(got.missing, std::vector<PointId>{uint64_t{9}});
}

TEST_F(EngineTest, AnUpsertCanBeFinishedLater) {
  open();
  auto collection = create(1);
  std::vector<std::unique_ptr<PendingUpsert>> pending;
  for (uint64_t id = 0; id < 10; ++id) {
    const std::vector<Point> points = {{id, {1}, {}}};
    pending.push_back(collection->begin_upsert(points).value());
    EXPECT_FALSE(pending.back()->decided());
  }
  EXPECT_EQ(collection->count(nullptr).value(), 0u) << "not durable, not visible";
  pending[6]->wait();
  // One wait for the medium, for all that were begun before (a group may hold more).
  for (size_t i = 0; i <= 6; ++i) EXPECT_TRUE(pending[i]->decided()) << i;
  EXPECT_GE(collection->count(nullptr).value(), 7u);
  EXPECT_EQ(pending[0]->finish().value().created, 1u);
  pending.clear();  // waits for the others
  EXPECT_EQ(collection->count(nullptr).value(), 10u);
  const std::vector<Point> bad = {{uint64_t{1}, {1, 2}, {}}};
  EXPECT_EQ(collection->begin_upsert(bad).status().code(), Code::kInvalidArgument);
  collection = reopened();
  EXPECT_EQ(collection->count(nullptr).value(), 10u);
}

TEST_F(EngineTest, AnUpsertThatIsNotFinishedKeepsTheDatabaseOpen) {
  open();
  auto collection = create(1);
  const std::vector<Point> points = {{uint64_t{1}, {1}, {}}};
  std::unique_ptr<PendingUpsert> pending = collection->begin_upsert(points).value();
  std::thread closer([this] { database_.reset(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(pending->finish().has_value());
  pending.reset();
  closer.join();
  EXPECT_EQ(collection->begin_upsert(points).status().code(), Code::kUnavailable);
}

TEST_F(EngineTest, LastOfARepeatedIdWinsAndCountsOnce) {
  open();
  const auto collection = create(1);
  const std::vector<Point> points = {{uint64_t{1}, {1}, {}}, {uint64_t{1}, {2}, {}}};
  const UpsertResult result = collection->upsert(points).value();
  EXPECT_EQ(result.created, 1u);
  EXPECT_EQ(result.updated, 0u);
  EXPECT_EQ(result.created_flags, (std::vector<bool>{true, false}));
  const GetResult got = collection->get(std::vector<PointId>{uint64_t{1}}, GetOptions{}).value();
  EXPECT_EQ(got.points[0].values, std::vector<float>{2});
  EXPECT_EQ(collection->count(nullptr).value(), 1u);
}

TEST_F(EngineTest, OneBadPointRefusesTheBatchWhole) {
  open();
  const auto collection = create(2);
  const std::vector<Point> points = {{uint64_t{1}, {1, 2}, {}}, {uint64_t{2}, {1}, {}}};
  const auto result = collection->upsert(points);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(result.error().message(),
            "points[1]: values: dimension differs from the collection's: got 1, want 2");
  EXPECT_EQ(collection->count(nullptr).value(), 0u);
}

TEST_F(EngineTest, SearchRanksByMetricAndBreaksTiesById) {
  open();
  const auto collection = create(2);
  const std::vector<Point> points = {{uint64_t{5}, {1, 0}, {}},
                                     {uint64_t{4}, {1, 0}, {}},
                                     {uint64_t{9}, {0, 2}, {}},
                                     {uint64_t{1}, {0, 0}, {}}};
  ASSERT_TRUE(collection->upsert(points));
  const std::vector<float> query = {1, 1};
  SearchRequest request;
  request.query = query;
  EXPECT_EQ(ids_of(collection->search(request).value()), (std::vector<uint64_t>{9, 4, 5, 1}));
  request.metric = Metric::kL2;
  EXPECT_EQ(ids_of(collection->search(request).value()), (std::vector<uint64_t>{4, 5, 1, 9}));
  request.metric = Metric::kCosine;  // the zero row has no direction
  EXPECT_EQ(ids_of(collection->search(request).value()), (std::vector<uint64_t>{4, 5, 9}));
  // The same order when the rows are sealed.
  ASSERT_TRUE(database_->checkpoint().ok());
  EXPECT_EQ(ids_of(collection->search(request).value()), (std::vector<uint64_t>{4, 5, 9}));
}

TEST_F(EngineTest, BatchAnswersAreThoseOfSingleQueriesBitForBit) {
  open();
  const auto collection = create(19);
  Rng rng(42);
  std::vector<Point> points;
  for (uint64_t id = 0; id < 2000; ++id) {
    Point point{id, std::vector<float>(19), {}};
    // Few distinct values: many ties.
    for (float& value : point.values) value = static_cast<float>(rng.below(3)) * 1000.0F;
    points.push_back(std::move(point));
  }
  ASSERT_TRUE(collection->upsert(points));
  ASSERT_TRUE(database_->checkpoint().ok());
  ASSERT_TRUE(collection->upsert(std::span(points).first(50)));
  std::vector<std::vector<float>> queries;
  for (int q = 0; q < 40; ++q) {
    queries.push_back(points[rng.below(2000)].values);
    queries.back()[0] += 1.5F;
  }
  for (const Metric metric : {Metric::kDot, Metric::kL2, Metric::kCosine}) {
    SearchBatchRequest batch;
    for (const auto& query : queries) batch.queries.emplace_back(query);
    batch.common.metric = metric;
    batch.common.limit = 25;
    const auto results = collection->search_batch(batch).value();
    for (size_t q = 0; q < queries.size(); ++q) {
      SearchRequest single = batch.common;
      single.query = queries[q];
      const SearchResult expected = collection->search(single).value();
      ASSERT_EQ(ids_of(results[q]), ids_of(expected)) << "query " << q;
      for (size_t i = 0; i < expected.hits.size(); ++i) {
        ASSERT_EQ(results[q].hits[i].score, expected.hits[i].score);
      }
    }
  }
}

TEST_F(EngineTest, BatchesOfTiesAndOutliersAreAnsweredLikeSingleQueries) {
  open();
  const auto collection = create(3);
  Rng rng(5);
  std::vector<Point> points;
  for (uint64_t id = 0; id < 5000; ++id) {
    Point point{id, {}, {}};
    for (int i = 0; i < 3; ++i) point.values.push_back(static_cast<float>(rng.uniform()));
    points.push_back(std::move(point));
  }
  points[1234].values = {1e12F, -1e12F, 3e11F};  // its error bound is beyond all other distances
  ASSERT_TRUE(collection->upsert(points));
  // Under dot a zero query ties with every row.
  const std::vector<std::vector<float>> queries = {{0, 0, 0}, {1, 2, 3}, {-1, 0, 0},
                                                   {0, 0, 0}, {5, 5, 5}, {0, 1, 0}};
  for (const Metric metric : {Metric::kDot, Metric::kL2}) {
    SearchBatchRequest batch;
    for (const auto& query : queries) batch.queries.emplace_back(query);
    batch.common.metric = metric;
    const auto results = collection->search_batch(batch).value();
    for (size_t q = 0; q < queries.size(); ++q) {
      SearchRequest single = batch.common;
      single.query = queries[q];
      EXPECT_EQ(ids_of(results[q]), ids_of(collection->search(single).value())) << "query " << q;
    }
    if (metric == Metric::kDot) {
      EXPECT_EQ(ids_of(results[0]), (std::vector<uint64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
    }
  }
}

TEST_F(EngineTest, ATinyRowHasADirectionAZeroRowHasNone) {
  open();
  const auto collection = create(2);
  ASSERT_TRUE(collection->upsert(
      std::vector<Point>{{uint64_t{1}, {1e-30F, 0}, {}}, {uint64_t{2}, {0, 0}, {}}}));
  const std::vector<float> query = {1, 0};
  SearchRequest request;
  request.query = query;
  request.metric = Metric::kCosine;
  const SearchResult result = collection->search(request).value();
  ASSERT_EQ(ids_of(result), std::vector<uint64_t>{1});
  EXPECT_FLOAT_EQ(result.hits[0].score, 1.0F);
}

TEST_F(EngineTest, IdsOfTheOtherKindAreRefusedByEveryCall) {
  open();
  const auto collection = create(1);
  ASSERT_TRUE(collection->upsert(std::vector<Point>{{uint64_t{0}, {1}, {}}}));
  const std::vector<PointId> text = {"abc"};
  const auto code = [](const auto& result) { return result.status().code(); };
  EXPECT_EQ(code(collection->set_payload(text, {{"a", 1}})), Code::kInvalidArgument);
  EXPECT_EQ(code(collection->delete_payload_keys(text, std::vector<std::string>{"a"})),
            Code::kInvalidArgument);
  EXPECT_EQ(code(collection->remove(text)), Code::kInvalidArgument);
  EXPECT_EQ(code(collection->get(text, GetOptions{})), Code::kInvalidArgument);
  EXPECT_EQ(code(collection->upsert(std::vector<Point>{{"abc", {1}, {}}})), Code::kInvalidArgument);
}

TEST_F(EngineTest, CompactionKeepsEveryPointAndDropsFiles) {
  options_.checkpoint_interval = 2;
  options_.compact_after = 4;
  open();
  auto collection = create(1, IdType::kString);
  for (int i = 0; i < 300; ++i) {
    const std::string id = "k" + std::to_string(i % 150);
    ASSERT_TRUE(collection->upsert(std::vector<Point>{{id, {static_cast<float>(i)}, {}}}));
    if (i % 7 == 0) {
      ASSERT_TRUE(collection->remove(std::vector<PointId>{"k" + std::to_string(i / 2)}));
    }
  }
  const CollectionStats stats = collection->stats().value();
  EXPECT_LT(stats.segments.size(), 12u);
  const uint64_t count = collection->count(nullptr).value();
  ListRequest all;
  all.limit = 1000;
  all.include_values = true;
  const ListPage before = collection->list(all).value();
  EXPECT_EQ(before.points.size(), count);
  collection = reopened();
  const ListPage after = collection->list(all).value();
  ASSERT_EQ(after.points.size(), before.points.size());
  for (size_t i = 0; i < after.points.size(); ++i) {
    EXPECT_EQ(after.points[i].id, before.points[i].id);
    EXPECT_EQ(after.points[i].values, before.points[i].values);
  }
  ASSERT_TRUE(collection->optimize().ok());
  EXPECT_EQ(collection->count(nullptr).value(), count);
  size_t sealed = 0;
  const CollectionStats merged = collection->stats().value();
  for (const SegmentStats& segment : merged.segments) {
    sealed += segment.sealed ? 1 : 0;
    EXPECT_EQ(segment.rows_deleted, 0u);
  }
  EXPECT_EQ(sealed, 1u);
}

TEST_F(EngineTest, ARecreatedCollectionStartsEmpty) {
  open();
  auto collection = create(2);
  ASSERT_TRUE(collection->upsert(std::vector<Point>{{uint64_t{1}, {1, 2}, {}}}));
  ASSERT_TRUE(database_->drop_collection("c").ok());
  EXPECT_EQ(collection->count(nullptr).error().code(), Code::kNotFound);
  collection = create(3);
  EXPECT_EQ(collection->count(nullptr).value(), 0u);
  collection = reopened();
  EXPECT_EQ(collection->count(nullptr).value(), 0u);
  EXPECT_EQ(collection->info().options.dimension, 3u);
}

TEST_F(EngineTest, SecondOpenOfTheDirectoryIsRefused) {
  open();
  const auto second = Database::open(options_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Code::kInUse);
}

TEST_F(EngineTest, PointCapAndMemoryBudgetRefuseAndChangeNothing) {
  options_.points_per_collection_max = 2;
  options_.memory_budget_bytes = 4096;
  open();
  const auto collection = create(2);
  ASSERT_TRUE(collection->upsert(std::vector<Point>{{uint64_t{1}, {1, 2}, {}}}));
  const auto capped =
      collection->upsert(std::vector<Point>{{uint64_t{2}, {1, 2}, {}}, {uint64_t{3}, {1, 2}, {}}});
  ASSERT_FALSE(capped);
  EXPECT_EQ(capped.error().code(), Code::kResourceExhausted);
  const Payload large = {{"text", std::string(5000, 'x')}};
  const auto over = collection->upsert(std::vector<Point>{{uint64_t{1}, {1, 2}, large}});
  ASSERT_FALSE(over);
  EXPECT_EQ(over.error().code(), Code::kResourceExhausted);
  EXPECT_EQ(collection->count(nullptr).value(), 1u);
}

TEST_F(EngineTest, SetPayloadCountsWhatChangedAndRefusesUnknownIds) {
  open();
  const auto collection = create(1);
  ASSERT_TRUE(collection->upsert(
      std::vector<Point>{{uint64_t{1}, {1}, {{"a", 1}}}, {uint64_t{2}, {2}, {{"a", 2}}}}));
  const std::vector<PointId> both = {uint64_t{1}, uint64_t{2}};
  EXPECT_EQ(collection->set_payload(both, {{"a", 1}}).value(), 1u);
  const std::vector<PointId> unknown = {uint64_t{1}, uint64_t{8}};
  EXPECT_EQ(collection->set_payload(unknown, {{"b", 1}}).error().code(), Code::kNotFound);
  EXPECT_EQ(collection->delete_payload_keys(both, std::vector<std::string>{"a", "z"}).value(), 2u);
  const GetResult got = collection->get(both, GetOptions{}).value();
  EXPECT_TRUE(got.points[0].payload.empty());
  EXPECT_EQ(got.points[1].values, std::vector<float>{2});
}

TEST_F(EngineTest, AHandleOutlivesTheDatabaseAndSaysSo) {
  open();
  const auto collection = create(1);
  database_.reset();
  EXPECT_EQ(collection->count(nullptr).error().code(), Code::kUnavailable);
  EXPECT_EQ(collection->upsert(std::vector<Point>{{uint64_t{1}, {1}, {}}}).error().code(),
            Code::kUnavailable);
}

TEST_F(EngineTest, ReadersSeeWholeBatchesOnly) {
  options_.checkpoint_interval = 3;
  options_.compact_after = 3;
  open();
  const auto collection = create(1);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int round = 1; round <= 60; ++round) {
      std::vector<Point> points;
      for (uint64_t id = 0; id < 20; ++id) {
        points.push_back({id, {static_cast<float>(round)}, {}});
      }
      if (!collection->upsert(points)) break;
    }
    stop = true;
  });
  while (!stop) {
    ListRequest all;
    all.include_values = true;
    const ListPage page = collection->list(all).value();
    if (page.points.empty()) continue;
    ASSERT_EQ(page.points.size(), 20u);
    for (const Point& point : page.points) ASSERT_EQ(point.values, page.points[0].values);
  }
  writer.join();
}

}  // namespace
}  // namespace aionbd
