// Backups of an open database: one moment of it, whatever is written, sealed and removed meanwhile.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "aionbd/aionbd.h"
#include "engine/engine.h"
#include "engine/store_backup.h"
#include "io/sim_file_system.h"

namespace aionbd::online_backup_test {
namespace {

constexpr char kStore[] = "store";
constexpr char kBackups[] = "backups";
constexpr char kRestored[] = "restored";
constexpr uint64_t kIdsEach = 1000000;  // of a writer

class OnlineBackupTest : public testing::Test {
 protected:
  OnlineBackupTest() { open(); }

  static DatabaseOptions options_for(const std::string& dir) {
    DatabaseOptions options;
    options.data_dir = dir;
    options.checkpoint_interval = 4;
    options.compact_after = 3;
    options.search_threads = 1;
    return options;
  }
  void open() {
    collection_.reset();
    database_.reset();
    database_ = open_database(options_for(kStore), {&files_, &system_clock_source()}).value();
    if (database_->list_collections().empty()) {
      collection_ = database_->create_collection("c", {.dimension = 1, .metric = {}}).value();
    } else {
      collection_ = database_->collection("c").value();
    }
  }
  void put(uint64_t id, float value) const {
    const auto done = collection_->upsert(std::vector<Point>{{id, {value}, {}}});
    ASSERT_TRUE(done.has_value()) << done.status().to_string();
  }

  static std::map<uint64_t, float> content_of(const Collection& collection) {
    std::map<uint64_t, float> out;
    ListRequest request;
    request.limit = 3 * kIdsEach;
    request.include_values = true;
    const auto page = collection.list(request);
    EXPECT_TRUE(page.has_value());
    if (page.has_value()) {
      for (const Point& point : page->points) out[point.id.number()] = point.values[0];
    }
    return out;
  }
  /// What the newest backup holds.
  std::map<uint64_t, float> restored() {
    RestoreOptions options;
    options.replace = true;
    const auto done = restore_store_in(&files_, kBackups, kRestored, options);
    EXPECT_TRUE(done.has_value()) << done.status().to_string();
    if (!done.has_value()) return {};
    const auto database =
        open_database(options_for(kRestored), {&files_, &system_clock_source()}).value();
    return content_of(*database->collection("c").value());
  }
  size_t files_count(std::string_view suffix) {
    size_t count = 0;
    for (const std::string& name : files_.list(kStore).value()) count += name.ends_with(suffix);
    return count;
  }

  SimFileSystem files_;
  std::unique_ptr<Database> database_;
  std::shared_ptr<Collection> collection_;
};

TEST_F(OnlineBackupTest, FilesOfTheMomentStayWhileTheyAreCopied) {
  for (uint64_t id = 0; id < 30; ++id) put(id, 1);
  const auto then = content_of(*collection_);
  uint64_t calls = 0, last_total = 0;
  const auto report = database_->backup(kBackups, {}, [&](uint64_t done, uint64_t total) {
    // Everything is written anew, sealed and merged: nothing of what is being copied is live.
    ++calls;
    last_total = total;
    EXPECT_LE(done, total);
    for (uint64_t id = 0; id < 30; ++id) put(id, static_cast<float>(1 + calls));
    EXPECT_TRUE(collection_->optimize().ok());
    EXPECT_TRUE(database_->checkpoint().ok());
    return true;
  });
  ASSERT_TRUE(report.has_value()) << report.status().to_string();
  EXPECT_GE(calls, 2U);
  EXPECT_EQ(report->raw_bytes, last_total);
  EXPECT_EQ(restored(), then);
  // What had to stay for it is gone now.
  EXPECT_EQ(files_count(".seg"), collection_->stats().value().segments.size());
  EXPECT_EQ(files_count(".log"), 1U);
}

TEST_F(OnlineBackupTest, HoldsTheLogOfAStoreWithoutSegmentsToo) {
  const auto empty = database_->backup(kBackups);
  ASSERT_TRUE(empty.has_value()) << empty.status().to_string();
  EXPECT_TRUE(restored().empty());
  put(1, 1);
  put(2, 2);
  const auto report = database_->backup(kBackups);
  ASSERT_TRUE(report.has_value()) << report.status().to_string();
  EXPECT_EQ(report->number, 2U);
  EXPECT_EQ(report->last_lsn, 3U);
  put(3, 3);
  EXPECT_EQ(restored(), (std::map<uint64_t, float>{{1, 1}, {2, 2}}));
  ASSERT_TRUE(database_->checkpoint().ok());
  open();
  ASSERT_TRUE(database_->backup(kBackups).has_value());
  EXPECT_EQ(restored(), content_of(*collection_));
}

TEST_F(OnlineBackupTest, OneAtATimeAndOnlyOfWhatIsKept) {
  put(1, 1);
  const auto report = database_->backup(kBackups, {}, [&](uint64_t, uint64_t) {
    EXPECT_EQ(database_->backup("elsewhere").status().code(), Code::kFailedPrecondition);
    return true;
  });
  EXPECT_TRUE(report.has_value());
  const auto stopped = database_->backup(kBackups, {}, [](uint64_t, uint64_t) { return false; });
  EXPECT_EQ(stopped.status().code(), Code::kUnavailable);
  EXPECT_EQ(list_store_backups_in(&files_, kBackups)->size(), 1U);
  DatabaseOptions options;
  options.persistent = false;
  const auto in_memory = open_database(options, {&files_, &system_clock_source()}).value();
  EXPECT_EQ(in_memory->backup(kBackups).status().code(), Code::kFailedPrecondition);
}

TEST_F(OnlineBackupTest, ClosingStopsItAndLeavesTheEarlierOnes) {
  put(1, 1);
  ASSERT_TRUE(database_->backup(kBackups).has_value());
  for (uint64_t id = 2; id < 20; ++id) put(id, 1);
  std::atomic<bool> copying{false};
  Result<BackupReport> report = internal_error("not called");
  std::thread copier([&, database = database_.get()] {
    report = database->backup(kBackups, {}, [&](uint64_t, uint64_t) {
      copying.store(true);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      return true;
    });
  });
  while (!copying.load()) std::this_thread::yield();
  collection_.reset();
  database_.reset();  // waits for the call in progress
  copier.join();
  EXPECT_EQ(report.status().code(), Code::kUnavailable);
  EXPECT_EQ(list_store_backups_in(&files_, kBackups)->size(), 1U);
  open();
  EXPECT_EQ(content_of(*collection_).size(), 19U);
}

// Each writer puts 1, 2, 3, ... under its own ids, so what it wrote is a prefix or is not.
TEST_F(OnlineBackupTest, IsOneMomentOfAllWriters) {
  constexpr uint64_t kWriters = 3;
  constexpr int kRounds = 6;
  std::atomic<uint64_t> begun[kWriters] = {};
  std::atomic<uint64_t> acknowledged[kWriters] = {};
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (uint64_t w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      for (uint64_t i = 1; !stop.load(); ++i) {
        begun[w].store(i);
        put(w * kIdsEach + i, static_cast<float>(i));
        acknowledged[w].store(i);
      }
    });
  }
  for (int round = 0; round < kRounds; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    uint64_t before[kWriters];
    for (uint64_t w = 0; w < kWriters; ++w) before[w] = acknowledged[w].load();
    const auto report = database_->backup(kBackups);
    ASSERT_TRUE(report.has_value()) << report.status().to_string();
    uint64_t after[kWriters];
    for (uint64_t w = 0; w < kWriters; ++w) after[w] = begun[w].load();
    std::map<uint64_t, uint64_t> found, highest;
    for (const auto& [id, value] : restored()) {
      ++found[id / kIdsEach];
      highest[id / kIdsEach] = std::max(highest[id / kIdsEach], id % kIdsEach);
      EXPECT_EQ(value, static_cast<float>(id % kIdsEach));
    }
    for (uint64_t w = 0; w < kWriters; ++w) {
      EXPECT_EQ(found[w], highest[w]) << "a hole in the writes of writer " << w;
      EXPECT_GE(highest[w], before[w]) << "acknowledged before the backup, and not in it";
      EXPECT_LE(highest[w], after[w]);
    }
  }
  stop = true;
  for (std::thread& writer : writers) writer.join();
}

}  // namespace
}  // namespace aionbd::online_backup_test
