// Merges of indexed segments, while rows die, searches go on and the database is closed.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <thread>

#include "aionbd/aionbd.h"
#include "base/eventually.h"
#include "base/rng.h"
#include "base/sanitized.h"
#include "engine/index_keeper.h"
#include "engine/pinning.h"
#include "engine/test_metric.h"

namespace aionbd::index_churn_test {
namespace {

constexpr uint32_t kDim = 16;
constexpr uint64_t kRows = kIndexRowsMin + 2000;

class IndexChurnTest : public testing::Test {
 protected:
  void SetUp() override {
    options_.data_dir = testing::TempDir() + "aionbd_index_churn_test_" +
                        testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(options_.data_dir);
    options_.search_threads = 2;
    options_.checkpoint_interval = 1000000;
    options_.compact_after = 100000;  // segments are merged by those who index them, nobody else
    options_.index_build_cooldown = std::chrono::milliseconds(1);
    open();
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
    collection.metric = Metric::kL2;
    collection_ = database_->create_collection("c", collection).value();
  }

  /// Gives points [first, first + n) new values, in the collection and in `expected_`.
  void write(uint64_t first, uint64_t n) {
    std::vector<Point> points(n);
    for (uint64_t i = 0; i < n; ++i) {
      points[i].id = PointId(first + i);
      points[i].values.resize(kDim);
      for (float& value : points[i].values) value = static_cast<float>(rng_.uniform());
      expected_[first + i] = points[i].values;
    }
    ASSERT_TRUE(collection_->upsert(points));
  }
  void remove(uint64_t first, uint64_t n) {
    std::vector<PointId> ids;
    for (uint64_t i = 0; i < n; ++i) {
      ids.emplace_back(first + i);
      expected_.erase(first + i);
    }
    ASSERT_TRUE(collection_->remove(ids));
  }
  void load(uint64_t rows) {
    for (uint64_t first = 0; first < rows; first += 500)
      write(first, std::min(500UL, rows - first));
    ASSERT_TRUE(database_->checkpoint().ok());
  }

  void expect_content() const {
    ListRequest request;
    request.limit = 1000000;
    request.include_values = true;
    const ListPage page = collection_->list(request).value();
    ASSERT_EQ(page.points.size(), expected_.size());
    size_t wrong = 0;
    for (const Point& point : page.points) {
      const auto found = expected_.find(point.id.number());
      wrong += found == expected_.end() || found->second != point.values ? 1 : 0;
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(collection_->count(nullptr).value(), expected_.size());
  }

  SearchResult search(uint64_t point) const {
    SearchRequest request;
    request.query = expected_.at(point);
    request.explain = true;
    return collection_->search(request).value();
  }
  size_t indexes() const {
    size_t n = 0;
    for (const SegmentStats& segment : collection_->stats().value().segments) {
      n += segment.indexes.size();
    }
    return n;
  }

  DatabaseOptions options_;
  std::unique_ptr<Database> database_;
  std::shared_ptr<Collection> collection_;
  std::map<uint64_t, std::vector<float>> expected_;
  Rng rng_{20261123};
};

TEST_F(IndexChurnTest, RowsThatDieDuringAMergeStayDead) {
  // Sanitized, a build takes long enough with fewer, for which only a merge builds one.
  const uint64_t loaded = kSanitized ? 1500 : kRows;
  load(loaded);
  write(0, 10);
  std::atomic<bool> ended{false};
  std::thread optimizing([&] {
    EXPECT_TRUE(collection_->optimize().ok());
    ended.store(true);
  });
  // Deaths that are sealed while the index is built, and at the end some that are not.
  for (uint64_t round = 0; !ended.load(); ++round) {
    write(round * 40 % loaded, 10);
    remove(round * 40 % loaded + 20, 5);
    if (round % 3 == 0) {
      ASSERT_TRUE(database_->checkpoint().ok());
    }
    // Sanitized, on a busy machine, the build takes minutes.
    std::this_thread::sleep_for(std::chrono::milliseconds(round < 60 ? 5 : 100));
  }
  optimizing.join();
  expect_content();
  size_t without_rows = 0;
  for (const SegmentStats& segment : collection_->stats().value().segments) {
    without_rows += segment.sealed && segment.rows == 0 ? 1 : 0;
  }
  EXPECT_GE(without_rows, 1u) << "no row died in time: the test did not test anything";
  open();
  expect_content();
  ASSERT_TRUE(collection_->optimize().ok());
  expect_content();
  size_t sealed = 0;
  for (const SegmentStats& segment : collection_->stats().value().segments) {
    sealed += segment.sealed ? 1 : 0;
  }
  EXPECT_EQ(sealed, 1u);
  open();
  expect_content();
}

TEST_F(IndexChurnTest, IndexedSegmentsAnswerUntilTheMergedOneCan) {
  load(kRows);
  ASSERT_TRUE(collection_->optimize().ok());
  ASSERT_EQ(indexes(), 1u);
  write(kRows, 700);
  std::atomic<bool> ended{false};
  std::thread optimizing([&] {
    EXPECT_TRUE(collection_->optimize().ok());
    ended.store(true);
  });
  while (!ended.load()) {
    for (const SegmentPlan& part : search(kRows / 2).plan) {
      if (part.rows >= kIndexRowsMin) {
        EXPECT_EQ(part.plan.find("exact scan"), std::string::npos) << part.plan;
      }
    }
  }
  optimizing.join();
  EXPECT_EQ(indexes(), 1u);
  expect_content();
}

TEST_F(IndexChurnTest, WhatIsSearchedOftenIsIndexedEarly) {
  constexpr uint64_t kFew = kIndexRowsAsked + 100;
  load(kFew);
  search(0);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(indexes(), 0u) << "one search is not worth a build";
  const auto search_often = [&] {
    for (uint64_t i = 0; i < kReadsPerBuild; ++i) search(i % kFew);
  };
  EXPECT_TRUE(eventually([&] {
    search_often();
    return indexes() == 1;
  }));
  // As many new ones again: they and the small index become one.
  write(kFew, kFew);
  EXPECT_TRUE(eventually([&] {
    search_often();
    const auto segments = collection_->stats().value().segments;
    return segments[0].rows == 2 * kFew && segments[0].indexes.size() == 1;
  }));
  EXPECT_EQ(indexes(), 1u);
  expect_content();
}

TEST_F(IndexChurnTest, MuchLoadedAndNeverSearchedIsIndexedWhenTheLoadHasEnded) {
  constexpr std::chrono::milliseconds kPause{2000};
  options_.data_dir += "_slow";
  options_.index_build_cooldown = kPause;
  open();
  const auto builds = [&] { return metric_of(*database_, "l2_index_build_requests"); };
  // For two pauses, and in the time of one they more than double: a machine that stands
  // still for half a pause changes nothing.
  write(0, 2000);
  for (uint64_t rows = 2000; rows < 10000; rows += rows / 4) {
    write(rows, rows / 4);
    ASSERT_TRUE(database_->checkpoint().ok());
    EXPECT_EQ(builds(), 0) << rows << " rows";
    std::this_thread::sleep_for(kPause / 4);
  }
  EXPECT_TRUE(eventually([&] { return indexes() == 1; }));
  expect_content();
  std::filesystem::remove_all(options_.data_dir);
}

TEST_F(IndexChurnTest, MostlyDeadIndexedSegmentsAreRewritten) {
  load(kRows);
  ASSERT_TRUE(collection_->optimize().ok());
  remove(0, kRows * 2 / 3);
  ASSERT_TRUE(database_->checkpoint().ok());
  EXPECT_TRUE(
      eventually([&] { return collection_->stats().value().segments[0].rows_deleted == 0; }));
  expect_content();
}

TEST_F(IndexChurnTest, AMergeGivenUpLeavesTheStoreAsItWas) {
  load(kRows);
  std::thread optimizing([&] { (void)collection_->optimize(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  database_.reset();  // gives up the build
  optimizing.join();
  open();
  expect_content();
}

}  // namespace
}  // namespace aionbd::index_churn_test
