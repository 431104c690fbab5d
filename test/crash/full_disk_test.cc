// A full disk, whole: upserts are refused and nothing of them is applied, reads, deletes,
// checkpoints and compaction go on out of the reserve, and upserts resume by themselves when there
// is space (faults F6, tests T23, R15, R16 of the plan). On the simulated disk, and on a real small
// one where a tmpfs can be mounted.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <thread>

#include "base/rng.h"
#include "engine/engine.h"
#include "engine/store_backup.h"
#include "engine/test_metric.h"
#include "io/sim_file_system.h"
#include "test/model/history.h"

namespace aionbd::full_disk_test {
namespace {

constexpr uint32_t kDimension = 8;

std::vector<Point> points_of(uint64_t first, size_t n, float value, size_t text_bytes) {
  std::vector<Point> out;
  for (uint64_t id = first; id < first + n; ++id) {
    const Payload payload = {{"text", std::string(text_bytes, 'x')}};
    out.push_back({id, std::vector<float>(kDimension, value), payload});
  }
  return out;
}

/// What each id must hold.
using Truth = std::map<uint64_t, float>;

void expect_holds(const Collection& collection, const Truth& truth) {
  ListRequest request;
  request.limit = 1000000;
  request.include_values = true;
  const auto page = collection.list(request);
  ASSERT_TRUE(page.has_value()) << page.error().to_string();
  ASSERT_EQ(page->points.size(), truth.size());
  auto want = truth.begin();
  for (const Point& point : page->points) {
    ASSERT_EQ(point.id.number(), want->first);
    ASSERT_EQ(point.values[0], want->second);
    ++want;
  }
}

class FullSimulatedDiskTest : public testing::Test {
 protected:
  FullSimulatedDiskTest() {
    options_.data_dir = "store";
    options_.search_threads = 1;
    options_.checkpoint_interval = 1000000;
    options_.disk_reserve_bytes = 64 << 10;
    open();
    collection_ =
        database_->create_collection("c", {.dimension = kDimension, .metric = {}}).value();
    upsert(0, 100, 1);
    EXPECT_TRUE(database_->checkpoint().ok());
    upsert(100, 50, 2);
  }
  void open() { database_ = open_database(options_, {&files_, &clock_}).value(); }
  void reopen() {
    collection_.reset();
    database_.reset();
    open();
    collection_ = database_->collection("c").value();
  }
  void upsert(uint64_t first, size_t n, float value) {
    const auto done = collection_->upsert(points_of(first, n, value, 100));
    ASSERT_TRUE(done.has_value()) << done.error().to_string();
    for (uint64_t id = first; id < first + n; ++id) truth_[id] = value;
  }
  void remove(uint64_t first, size_t n) {
    const auto done = collection_->remove(ids_of(first, n));
    ASSERT_TRUE(done.has_value()) << done.error().to_string();
    for (uint64_t id = first; id < first + n; ++id) truth_.erase(id);
  }
  /// Makes a merge, and an index of what is merged, due at the next optimize. The index fits into
  /// the reserve.
  void make_index_due() {
    options_.disk_reserve_bytes = 1 << 20;
    reopen();
    for (uint64_t i = 0; i < 60; ++i) upsert(1000 + 10 * i, 10, static_cast<float>(i));
    ASSERT_TRUE(database_->checkpoint().ok());
    SearchRequest request;
    const std::vector<float> query(kDimension, 1);
    request.query = query;
    request.metric = Metric::kL2;
    ASSERT_TRUE(collection_->search(request).has_value());
  }
  void expect_refused() {
    EXPECT_EQ(collection_->upsert(points_of(0, 3, 9, 100)).error().code(), Code::kStorageFull);
    EXPECT_EQ(collection_->set_payload(ids_of(90, 1), {{"k", 1}}).error().code(),
              Code::kStorageFull);
    EXPECT_EQ(database_->create_collection("d", {.dimension = 2, .metric = {}}).error().code(),
              Code::kStorageFull);
    expect_holds(*collection_, truth_);
  }

  SimFileSystem files_;
  ManualClock clock_;
  DatabaseOptions options_;
  std::unique_ptr<Database> database_;
  std::shared_ptr<Collection> collection_;
  Truth truth_;
};

TEST_F(FullSimulatedDiskTest, DeletesCheckpointsAndCompactionGoOn) {
  EXPECT_EQ(metric_of(*database_, "persistence_reserve_bytes"), 64 << 10);
  files_.set_capacity(files_.used_bytes());
  expect_refused();
  remove(10, 5);
  EXPECT_EQ(metric_of(*database_, "persistence_reserve_bytes"), 0);
  EXPECT_EQ(metric_of(*database_, "persistence_reserve_uses_total"), 1);
  expect_refused();
  remove(15, 5);
  EXPECT_TRUE(database_->checkpoint().ok());
  expect_holds(*collection_, truth_);
  EXPECT_TRUE(collection_->optimize().ok());
  expect_holds(*collection_, truth_);
  EXPECT_TRUE(database_->health().storage_available);
  reopen();
  expect_holds(*collection_, truth_);
}

TEST_F(FullSimulatedDiskTest, UpsertsResumeByThemselves) {
  files_.set_capacity(files_.used_bytes());
  remove(10, 5);
  expect_refused();
  files_.set_capacity(UINT64_MAX);
  clock_.advance(std::chrono::seconds(5));
  upsert(200, 10, 3);
  EXPECT_EQ(metric_of(*database_, "persistence_reserve_bytes"), 64 << 10);
  reopen();
  expect_holds(*collection_, truth_);
}

TEST_F(FullSimulatedDiskTest, DeletingAndCompactingMakesTheSpace) {
  files_.set_capacity(files_.used_bytes());
  remove(0, 90);
  ASSERT_TRUE(database_->checkpoint().ok());
  remove(100, 45);
  ASSERT_TRUE(collection_->optimize().ok());
  clock_.advance(std::chrono::seconds(5));
  upsert(300, 5, 4);
  reopen();
  expect_holds(*collection_, truth_);
}

TEST_F(FullSimulatedDiskTest, DroppingACollectionMakesTheSpace) {
  files_.set_capacity(files_.used_bytes());
  ASSERT_TRUE(database_->drop_collection("c").ok());
  ASSERT_TRUE(database_->checkpoint().ok());
  clock_.advance(std::chrono::seconds(5));
  EXPECT_TRUE(database_->create_collection("d", {.dimension = 2, .metric = {}}).has_value());
}

TEST_F(FullSimulatedDiskTest, AStartOnAFullDiskHasItsReserveAlready) {
  files_.set_capacity(files_.used_bytes());
  reopen();
  expect_refused();
  remove(10, 5);
  reopen();
  expect_refused();
  expect_holds(*collection_, truth_);
  clock_.advance(std::chrono::seconds(5));
  files_.set_capacity(UINT64_MAX);
  upsert(200, 1, 3);
}

TEST_F(FullSimulatedDiskTest, ADeleteWaitsForTheJobThatTookTheSpace) {
  std::atomic<bool> sealing{false}, published{false};
  std::atomic<int> refused{0};
  files_.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    const auto nap = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
    if (call.op == FileOp::kRename && call.to.ends_with("/MANIFEST")) published = true;
    if (call.op != FileOp::kAppend) return std::nullopt;
    if (call.path.ends_with(".log") && sealing && refused < 2) {
      ++refused;  // with the reserve as well
      return FileFault{storage_full("the checkpoint took it")};
    }
    if (call.path.ends_with(".seg")) {
      sealing = true;
      while (refused < 2) nap();
    }
    return std::nullopt;
  });
  std::thread job([&] { EXPECT_TRUE(database_->checkpoint().ok()); });
  while (!sealing) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  remove(10, 5);
  EXPECT_TRUE(published) << "the delete did not wait for the checkpoint";
  job.join();
  files_.set_hook({});
  reopen();
  expect_holds(*collection_, truth_);
}

// The delete is given the reserve, the index file takes it before the record is written: the file
// goes, and the delete waits for that.
TEST_F(FullSimulatedDiskTest, ADeleteWaitsForTheIndexFileThatTookTheSpace) {
  make_index_due();
  constexpr int kTriesMax = 10;  // more than a delete makes
  constexpr std::chrono::milliseconds kNap{1};
  std::atomic<bool> begun{false}, given{false}, taken{false}, refused{false};
  std::atomic<int> segments{0}, tries{0};
  const auto wait_for = [&](const std::atomic<bool>& flag) {
    for (int naps = 0; !flag && naps < 10000; ++naps) std::this_thread::sleep_for(kNap);
    EXPECT_TRUE(flag) << "what the test arranges did not happen";
  };
  files_.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    const bool segment = call.path.ends_with(".seg");
    if (segment && call.op == FileOp::kCreate && ++segments == 2) {  // the first is the merged one
      files_.set_capacity(files_.used_bytes());
      begun = true;
      wait_for(given);
    }
    if (!begun) return std::nullopt;
    if (call.path.ends_with("/RESERVE")) {
      if (call.op == FileOp::kSync) given = true;
      if (call.op == FileOp::kAllocate && taken) refused = true;  // the delete gives it back
    }
    // The index file is about to go; until then it has the space.
    if (segment && call.op == FileOp::kRemove && !taken.exchange(true)) {
      wait_for(refused);
      // Long enough for a delete that does not wait to use up its tries.
      for (int naps = 0; tries < kTriesMax && naps < 200; ++naps) std::this_thread::sleep_for(kNap);
    }
    if (call.op == FileOp::kAppend && call.path.ends_with(".log") && ++tries == 2) {
      wait_for(taken);
      files_.set_capacity(files_.used_bytes());
    }
    return std::nullopt;
  });
  std::thread job([&] { EXPECT_TRUE(collection_->optimize().ok()); });
  wait_for(begun);
  remove(1000, 5);
  job.join();
  EXPECT_TRUE(refused);
  EXPECT_EQ(metric_of(*database_, "l2_indexes"), 0);
  EXPECT_EQ(metric_of(*database_, "compactions_total"), 1) << "the merge is worth having without";
  files_.set_hook({});
  files_.set_capacity(UINT64_MAX);
  clock_.advance(std::chrono::hours(1));
  EXPECT_TRUE(collection_->optimize().ok());
  EXPECT_EQ(metric_of(*database_, "l2_indexes"), 1);
  reopen();
  expect_holds(*collection_, truth_);
}

// A merged segment that is written to the reserve does not hold it while its index is built.
TEST_F(FullSimulatedDiskTest, AMergeOnTheReserveIsPublishedBeforeItHasAnIndex) {
  make_index_due();
  ASSERT_TRUE(collection_->optimize().ok());
  ASSERT_EQ(metric_of(*database_, "l2_indexes"), 1);
  files_.set_capacity(files_.used_bytes());
  remove(1000, 20);
  const uint64_t used = files_.used_bytes();
  const Status merged = collection_->optimize();
  EXPECT_TRUE(merged.ok()) << merged.to_string();
  EXPECT_LT(files_.used_bytes(), used);
  EXPECT_EQ(metric_of(*database_, "l2_indexes"), 0);
  remove(1020, 5);
  expect_holds(*collection_, truth_);
  files_.set_capacity(UINT64_MAX);
  clock_.advance(std::chrono::hours(1));
  upsert(5000, 1, 1);
  EXPECT_TRUE(collection_->optimize().ok());
  EXPECT_EQ(metric_of(*database_, "l2_indexes"), 1);
  reopen();
  expect_holds(*collection_, truth_);
}

TEST_F(FullSimulatedDiskTest, WithoutAReserveDeletesAreRefusedToo) {
  collection_.reset();
  database_.reset();
  options_.disk_reserve_bytes = 0;
  open();
  collection_ = database_->collection("c").value();
  EXPECT_FALSE(files_.file_size("store/RESERVE").has_value());
  files_.set_capacity(files_.used_bytes());
  EXPECT_EQ(collection_->remove(ids_of(10, 5)).error().code(), Code::kStorageFull);
  expect_refused();
  files_.set_capacity(UINT64_MAX);
  upsert(200, 10, 3);
  remove(10, 5);
  reopen();
  expect_holds(*collection_, truth_);
}

TEST_F(FullSimulatedDiskTest, ARestoreThatDoesNotFitWritesNothing) {
  ASSERT_TRUE(database_->backup("backups").has_value());
  const Backup backup = read_backup(&files_, "backups", 1).value();
  const uint64_t needed = unpacked_bytes(backup).value();
  const auto restore = [this] { return restore_store_in(&files_, "backups", "a/b/c").status(); };
  files_.set_capacity(files_.used_bytes() + needed - 1);
  files_.start_trace();
  const Status refused = restore();
  EXPECT_TRUE(files_.take_trace().empty());
  EXPECT_EQ(refused.code(), Code::kStorageFull);
  for (const std::string& part :
       {std::to_string(needed) + " bytes", std::to_string(needed - 1) + " free",
        std::string("'.'")}) {  // the nearest folder that is there
    EXPECT_NE(refused.message().find(part), std::string::npos) << refused.message();
  }
  files_.set_capacity(files_.used_bytes() + needed);
  const Status done = restore();
  ASSERT_TRUE(done.ok()) << done.to_string();
  options_.data_dir = "a/b/c";
  options_.disk_reserve_bytes = 0;
  reopen();
  expect_holds(*collection_, truth_);
}

TEST_F(FullSimulatedDiskTest, ALogThatGrowsMakesACheckpointDue) {
  for (int i = 0; i < 20; ++i) upsert(0, 50, 5);
  EXPECT_GT(metric_of(*database_, "persistence_checkpoint_success_total"), 1);
}

/// A tmpfs of a few megabytes, unmounted at its end.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& options) {
    std::string pattern = (std::filesystem::temp_directory_path() / "aionbd-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
    mounted_ = geteuid() == 0 && ::mount("none", path_.c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
    std::filesystem::remove_all(path_);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool mounted_ = false;
};

/// Fills the disk with upserts; deletes; waits until upserts are taken again.
void fill_and_empty(const std::string& dir, uint64_t seed) {
  Rng rng(seed);
  DatabaseOptions options;
  options.data_dir = dir;
  options.search_threads = 1;
  options.disk_reserve_bytes = 2 << 20;
  options.checkpoint_interval = 4 + static_cast<uint32_t>(rng.below(40));
  options.compact_after = 2 + static_cast<uint32_t>(rng.below(4));
  options.async_checkpoints = rng.chance(0.5);
  auto database = Database::open(options).value();
  auto collection =
      database->create_collection("c", {.dimension = kDimension, .metric = {}}).value();
  Truth truth;
  uint64_t next = 0;
  const size_t batch = 20 + rng.below(60);
  while (true) {
    const auto done = collection->upsert(points_of(next, batch, 1, 1000));
    if (!done) {
      ASSERT_EQ(done.error().code(), Code::kStorageFull) << done.error().to_string();
      break;
    }
    for (size_t i = 0; i < batch; ++i) truth[next++] = 1;
    ASSERT_LT(next, 100000u) << "the disk is never full";
  }
  ASSERT_GT(next, batch);
  expect_holds(*collection, truth);
  // Nine of ten go, in small steps; each must be taken, whatever the disk says.
  for (uint64_t first = 0; first < next; first += 10) {
    const auto done = collection->remove(ids_of(first, 9));
    ASSERT_TRUE(done.has_value()) << done.error().to_string();
    for (uint64_t id = first; id < first + 9; ++id) truth.erase(id);
  }
  expect_holds(*collection, truth);
  const Status sealed = database->checkpoint();
  ASSERT_TRUE(sealed.ok()) << sealed.to_string();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (true) {
    const auto done = collection->upsert(points_of(1000000, 5, 2, 100));
    if (done) break;
    ASSERT_EQ(done.error().code(), Code::kStorageFull) << done.error().to_string();
    ASSERT_LT(std::chrono::steady_clock::now(), end) << "writes do not resume";
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  for (uint64_t id = 1000000; id < 1000005; ++id) truth[id] = 2;
  EXPECT_TRUE(database->health().storage_available);
  collection.reset();
  database.reset();
  database = Database::open(options).value();
  collection = database->collection("c").value();
  expect_holds(*collection, truth);
  EXPECT_TRUE(database->health().quarantined.empty());
}

TEST(FullRealDiskTest, ASmallTmpfsIsFilledAndEmptied) {
  constexpr uint64_t kFills = 10;
  for (uint64_t seed = 1; seed <= kFills; ++seed) {
    const SmallDisk disk("size=12m");
    if (!disk.mounted()) GTEST_SKIP() << "a tmpfs cannot be mounted here (that needs root)";
    SCOPED_TRACE("seed " + std::to_string(seed));
    fill_and_empty(disk.path() + "/store", seed);
    if (testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace aionbd::full_disk_test
