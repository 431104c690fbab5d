// Threads in the background: none before there is work for them, none left behind.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/eventually.h"
#include "engine/engine.h"
#include "engine/index_keeper.h"
#include "io/sim_file_system.h"

namespace aionbd {
namespace {

size_t threads_now() {
  size_t out = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    out += task.path().empty() ? 0 : 1;
  }
  return out;
}

std::vector<Point> rows(uint64_t first, uint64_t count) {
  std::vector<Point> out;
  for (uint64_t i = first; i < first + count; ++i) {
    out.push_back({i, {static_cast<float>(i), 1}, {{"n", static_cast<int64_t>(i % 5)}}});
  }
  return out;
}

/// Searches as they wake whoever builds and audits indexes: by each metric, and filtered.
void search_all(Collection& collection) {
  const std::vector<float> query = {3, 1};
  Filter filter;
  filter.must.push_back({"n", EqualTo{Value(3)}, nullptr});
  for (size_t metric = 0; metric < kMetricsCount; ++metric) {
    SearchRequest request;
    request.query = query;
    request.metric = static_cast<Metric>(metric);
    request.filter = metric == 0 ? &filter : nullptr;
    ASSERT_TRUE(collection.search(request).has_value());
  }
}

TEST(ThreadsTest, StartWhenThereIsWork) {
  const size_t before = threads_now();
  SimFileSystem files;
  const ManualClock clock;
  DatabaseOptions options;
  options.data_dir = "store";
  options.search_threads = 1;
  CollectionOptions shape;
  shape.dimension = 2;
  for (const bool reopened : {false, true}) {
    auto database = open_database(options, {&files, &clock}).value();
    const auto collection = reopened ? database->collection("c").value()
                                     : database->create_collection("c", shape).value();
    if (!reopened) {
      ASSERT_TRUE(collection->upsert(rows(0, kIndexRowsAsked - 1)).has_value());
    }
    search_all(*collection);
    ASSERT_TRUE(database->checkpoint().ok());
    EXPECT_EQ(threads_now(), before) << "too few rows for an index";
    if (reopened) {
      ASSERT_TRUE(collection->upsert(rows(kIndexRowsAsked, 1)).has_value());
      ASSERT_TRUE(database->checkpoint().ok());
      EXPECT_GT(threads_now(), before);
    }
  }
  {
    const auto database = open_database(options, {&files, &clock}).value();
    EXPECT_GT(threads_now(), before) << "what may be missing is built from the start";
  }
  // The kernel may list a thread for a moment after it was joined.
  EXPECT_TRUE(eventually([&] { return threads_now() == before; }));
}

}  // namespace
}  // namespace aionbd
