// Starts from stores that storage finds whole, and that the engine must judge: catalogs and records
// that contradict each other, calls that fail while a store opens, and what is refused before a
// store is touched.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "aionbd/aionbd.h"
#include "engine/catalog.h"
#include "engine/engine.h"
#include "engine/op.h"
#include "engine/row.h"
#include "engine/test_metric.h"
#include "io/sim_file_system.h"

namespace aionbd {
namespace {

constexpr char kStore[] = "store";
constexpr CollectionOptions kTwo{.dimension = 2, .metric = {}};

class RecoveryTest : public testing::Test {
 protected:
  RecoveryTest() {
    options_.data_dir = kStore;
    options_.search_threads = 1;
    options_.checkpoint_interval = 1000000;
  }

  Result<std::unique_ptr<Database>> open() { return open_database(options_, {&files_, &clock_}); }
  std::unique_ptr<Storage> storage() {
    StorageOptions options;
    options.dir = kStore;
    options.files = &files_;
    options.clock = &clock_;
    return Storage::open(std::move(options)).value();
  }
  /// Appends records as a running engine would, whatever they say.
  void record(const std::vector<std::string>& records) {
    const auto log = storage();
    for (const std::string& each : records) {
      const Ticket ticket = log->append(each, log->generation()).value();
      ASSERT_TRUE(log->commit(ticket).ok());
    }
  }
  static std::vector<Point> points(uint64_t first, uint64_t n) {
    std::vector<Point> out;
    for (uint64_t id = first; id < first + n; ++id) out.push_back({id, {1, 2}, {}});
    return out;
  }

  SimFileSystem files_;
  ManualClock clock_;
  DatabaseOptions options_;
};

TEST_F(RecoveryTest, OptionsThatCannotBeAreRefusedBeforeAnythingIsMade) {
  const std::pair<const char*, std::function<void(DatabaseOptions&)>> wrong[] = {
      {"dimension_max", [](DatabaseOptions& o) { o.dimension_max = 0; }},
      {"dimension_max", [](DatabaseOptions& o) { o.dimension_max = kDimensionCeiling + 1; }},
      {"group_commit_batch_max", [](DatabaseOptions& o) { o.group_commit_batch_max = 0; }},
      {"checkpoint_interval", [](DatabaseOptions& o) { o.checkpoint_interval = 0; }},
      {"points_per_collection_max",
       [](DatabaseOptions& o) { o.points_per_collection_max = uint64_t{kSegmentRowsMax} + 1; }},
  };
  for (const auto& [field, change] : wrong) {
    const DatabaseOptions right = options_;
    change(options_);
    const auto opened = open();
    ASSERT_FALSE(opened.has_value()) << field;
    EXPECT_EQ(opened.error().code(), Code::kInvalidArgument);
    EXPECT_NE(opened.error().message().find(field), std::string::npos) << opened.error().message();
    options_ = right;
  }
  EXPECT_EQ(files_.mutations_count(), 0u);
}

TEST_F(RecoveryTest, NamesAndShapesThatCannotBeAreRefused) {
  const auto database = open().value();
  CollectionOptions shape = kTwo;
  EXPECT_EQ(database->create_collection("", shape).error().code(), Code::kInvalidArgument);
  shape.dimension = 0;
  EXPECT_EQ(database->create_collection("c", shape).error().code(), Code::kInvalidArgument);
  EXPECT_TRUE(database->list_collections().empty());
}

TEST_F(RecoveryTest, ACollectionIsNeitherMadeNorDroppedAfterTheDeadline) {
  const auto database = open().value();
  ASSERT_TRUE(database->create_collection("c", kTwo, clock_.now() + std::chrono::seconds(1)));
  const MonotonicTime passed = clock_.now();
  EXPECT_EQ(database->create_collection("d", kTwo, passed).error().code(), Code::kDeadlineExceeded);
  EXPECT_EQ(database->drop_collection("c", passed).code(), Code::kDeadlineExceeded);
  ASSERT_EQ(database->list_collections().size(), 1u);
  EXPECT_TRUE(database->drop_collection("c", clock_.now() + std::chrono::seconds(1)).ok());
}

TEST_F(RecoveryTest, ARecordThatIsNoOperationRefusesTheStart) {
  record({encode_create({"c", kTwo}), std::string("no operation")});
  const auto opened = open();
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code(), Code::kCorruption) << opened.error().to_string();
}

TEST_F(RecoveryTest, ARecordThatDoesNotFitStopsItsCollectionOnly) {
  CollectionOptions three = kTwo;
  three.dimension = 3;
  const std::vector<Point> wrong = {{uint64_t{1}, {1, 2, 3}, {}}};
  const std::vector<PointId> words = {"word"};
  record({encode_create({"upserted", kTwo}), encode_create({"removed", kTwo}),
          encode_create({"whole", kTwo}), encode_upsert(1, three, wrong).value(),
          encode_remove(2, IdType::kString, words), encode_upsert(3, kTwo, points(0, 5)).value(),
          // Of collections that are gone: there is nothing to do.
          encode_drop(77), encode_upsert(77, kTwo, points(0, 1)).value(),
          encode_remove(77, IdType::kString, words)});
  const auto database = open().value();
  EXPECT_EQ(database->health().quarantined, (std::vector<std::string>{"upserted", "removed"}));
  EXPECT_EQ(metric_of(*database, "collections_quarantined"), 2);
  EXPECT_EQ(database->collection("whole").value()->count(nullptr).value(), 5u);
  EXPECT_EQ(database->collection("removed").value()->count(nullptr).error().code(),
            Code::kCorruption);
}

// Each may come only from a defect or from malice: the checksums are right.
TEST_F(RecoveryTest, ACatalogThatContradictsTheLogRefusesTheStart) {
  record({encode_create({"other", kTwo})});
  Catalog ahead;
  ahead.collections.push_back({99, "c", kTwo, 0, {}, {}});
  Catalog applied = ahead;
  applied.collections[0].uid = 1;
  applied.collections[0].applied = 99;
  Catalog unlisted = ahead;
  unlisted.next_segment = 8;
  unlisted.collections[0].uid = 1;
  unlisted.collections[0].segments = {7};
  for (const std::string& bytes : {std::string("no catalog"), encode_catalog(ahead),
                                   encode_catalog(applied), encode_catalog(unlisted)}) {
    ASSERT_TRUE(storage()->publish(bytes, {}, 0).ok());
    const auto opened = open();
    ASSERT_FALSE(opened.has_value());
    EXPECT_EQ(opened.error().code(), Code::kCorruption) << opened.error().to_string();
  }
}

TEST_F(RecoveryTest, AMissingSegmentStopsItsCollectionOnly) {
  std::string segment;
  {
    const auto database = open().value();
    ASSERT_TRUE(database->create_collection("a", kTwo).value()->upsert(points(0, 3)));
    ASSERT_TRUE(database->checkpoint().ok());
    ASSERT_TRUE(database->create_collection("b", kTwo));
  }
  const std::vector<std::string> files = files_.list(kStore).value();
  for (const std::string& name : files) {
    if (name.ends_with(".seg")) segment = name;
  }
  ASSERT_TRUE(files_.remove(std::string(kStore) + "/" + segment).ok());
  for (int start = 0; start < 2; ++start) {
    const auto database = open().value();
    EXPECT_EQ(database->health().quarantined, std::vector<std::string>{"a"});
    EXPECT_TRUE(database->collection("b").value()->upsert(points(0, 3)));
    const Status done = database->checkpoint();
    EXPECT_TRUE(done.ok()) << done.to_string();
  }
}

// Somebody was tidying up.
TEST_F(RecoveryTest, ALogFileThatIsGoneBeforeItIsRemovedIsNoError) {
  const auto database = open().value();
  const auto collection = database->create_collection("c", kTwo).value();
  ASSERT_TRUE(collection->upsert(points(0, 3)));
  int removed = 0;
  bool inside = false;
  files_.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    if (call.op == FileOp::kRemove && call.path.ends_with(".log") && !inside) {
      inside = true;
      EXPECT_TRUE(files_.remove(call.path).ok());
      inside = false;
      ++removed;
    }
    return std::nullopt;
  });
  EXPECT_TRUE(database->checkpoint().ok());
  EXPECT_EQ(removed, 1);
  files_.set_hook({});
  ASSERT_TRUE(collection->upsert(points(3, 3)));
  EXPECT_TRUE(database->checkpoint().ok());
  EXPECT_EQ(collection->count(nullptr).value(), 6u);
}

// Whatever fails in a start, in whatever way: it fails as a whole, with an error of the medium, or
// goes on with every answer right; and nothing is lost by it.
TEST_F(RecoveryTest, EveryCallOfAStartMayFail) {
  {
    const auto database = open().value();
    const auto a = database->create_collection("a", kTwo).value();
    const auto b = database->create_collection("b", kTwo).value();
    ASSERT_TRUE(a->upsert(points(0, 20)));
    ASSERT_TRUE(b->upsert(points(0, 3)));
    ASSERT_TRUE(database->checkpoint().ok());
    ASSERT_TRUE(a->upsert(points(10, 20)));
    ASSERT_TRUE(database->checkpoint().ok());
    ASSERT_TRUE(a->upsert(points(40, 5)));
    ASSERT_TRUE(database->drop_collection("b").ok());
  }
  // As a kill leaves it: there is something to cut, to seal and to remove.
  const auto start = files_.crash_image(CrashKind::kKeepAll, 1);
  const Status errors[] = {io_error("injected: EIO"), storage_full("injected: ENOSPC")};
  uint64_t failed = 0;
  for (const Status& error : errors) {
    bool fired = true;
    for (uint64_t n = 1; fired; ++n) {
      const auto disk = start->crash_image(CrashKind::kKeepAll, n);
      std::atomic<uint64_t> calls{0};
      disk->set_hook([&](const FileCall&) -> std::optional<FileFault> {
        if (++calls != n) return std::nullopt;
        return FileFault{error};
      });
      auto opened = open_database(options_, {disk.get(), &clock_});
      disk->set_hook({});
      fired = calls >= n;
      SCOPED_TRACE("call " + std::to_string(n) + ": " + error.message());
      if (!opened) {
        ++failed;
        EXPECT_TRUE(opened.error().code() == error.code() ||
                    opened.error().code() == Code::kUnavailable)
            << opened.error().to_string();
      } else {
        EXPECT_TRUE((*opened)->health().quarantined.empty());
        EXPECT_EQ((*opened)->collection("a").value()->count(nullptr).value(), 35u);
        EXPECT_FALSE((*opened)->collection("b").has_value());
        opened->reset();
      }
      const auto again = open_database(options_, {disk.get(), &clock_});
      ASSERT_TRUE(again.has_value()) << again.error().to_string();
      EXPECT_EQ((*again)->collection("a").value()->count(nullptr).value(), 35u);
      EXPECT_TRUE((*again)->collection("a").value()->upsert(points(100, 1)));
    }
  }
  EXPECT_GT(failed, 20u);
}

/// A thread that holds the disk at the first append to the log from now on, until it is let go.
class HeldAppend {
 public:
  HeldAppend(SimFileSystem& files, Status then) : files_(files) {
    files.set_hook([this, then](const FileCall& call) -> std::optional<FileFault> {
      if (call.op != FileOp::kAppend || !call.path.ends_with(".log")) return std::nullopt;
      if (held_.exchange(true)) return std::nullopt;
      while (!go_) std::this_thread::yield();
      if (then.ok()) return std::nullopt;
      return FileFault{then};
    });
  }
  ~HeldAppend() {
    let_go();
    files_.set_hook({});
  }
  void wait_until_held() const {
    while (!held_) std::this_thread::yield();
  }
  void let_go() { go_ = true; }

 private:
  SimFileSystem& files_;
  std::atomic<bool> held_{false};
  std::atomic<bool> go_{false};
};

// Two make, or drop, one collection at a time: the second must not answer before it is certain what
// becomes of the first.
TEST_F(RecoveryTest, TheSecondOfTwoCreatorsWaitsForTheFirst) {
  for (const Status& then : {Status(), storage_full("injected: ENOSPC")}) {
    const auto database = open().value();
    Code first = Code::kInternal;
    Code second = Code::kInternal;
    {
      HeldAppend disk(files_, then);
      std::thread creator([&] {
        const auto made = database->create_collection("c", kTwo);
        first = made ? Code::kOk : made.error().code();
      });
      disk.wait_until_held();
      std::thread other([&] {
        const auto made = database->create_collection("c", kTwo);
        second = made ? Code::kOk : made.error().code();
      });
      // It is not to be seen yet, and the second has not been answered.
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      EXPECT_FALSE(database->collection("c").has_value());
      EXPECT_EQ(database->drop_collection("c").code(), Code::kNotFound);
      EXPECT_EQ(second, Code::kInternal);
      disk.let_go();
      creator.join();
      other.join();
    }
    EXPECT_EQ(first, then.ok() ? Code::kOk : Code::kStorageFull);
    if (then.ok()) {
      EXPECT_EQ(second, Code::kAlreadyExists);
    } else {
      // One that comes late makes it by itself.
      EXPECT_TRUE(second == Code::kStorageFull || second == Code::kOk) << code_name(second);
    }
    const bool there = database->collection("c").has_value();
    EXPECT_EQ(there, first == Code::kOk || second == Code::kOk);
    if (there) {
      ASSERT_TRUE(database->drop_collection("c").ok());
    }
  }
}

TEST_F(RecoveryTest, TheSecondOfTwoWhoDropWaitsForTheFirst) {
  for (const Status& then : {io_error("injected: EIO"), Status()}) {
    const auto database = open().value();
    if (!database->collection("c")) {
      ASSERT_TRUE(database->create_collection("c", kTwo));
    }
    Code first = Code::kInternal;
    Code second = Code::kInternal;
    {
      HeldAppend disk(files_, then);
      std::thread dropper([&] { first = database->drop_collection("c").code(); });
      disk.wait_until_held();
      std::thread other([&] { second = database->drop_collection("c").code(); });
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      EXPECT_EQ(second, Code::kInternal);
      disk.let_go();
      dropper.join();
      other.join();
    }
    if (then.ok()) {
      EXPECT_EQ(first, Code::kOk);
      EXPECT_EQ(second, Code::kNotFound);
      EXPECT_FALSE(database->collection("c").has_value());
    } else {
      EXPECT_EQ(first, Code::kIoError);
      // One that comes late drops it by itself.
      EXPECT_TRUE(second == Code::kIoError || second == Code::kOk) << code_name(second);
      EXPECT_EQ(database->collection("c").has_value(), second != Code::kOk);
    }
  }
}

TEST_F(RecoveryTest, AStoppedStoreRefusesEveryChangeAndEveryBackup) {
  const auto database = open().value();
  const auto collection = database->create_collection("c", kTwo).value();
  ASSERT_TRUE(collection->upsert(points(0, 3)));
  files_.fail(FileOp::kSync, ".log", 1, {io_error("injected: EIO")}, false);
  EXPECT_EQ(collection->upsert(points(3, 3)).error().code(), Code::kUnavailable);
  files_.set_hook({});
  EXPECT_FALSE(database->health().storage_available);
  EXPECT_EQ(database->create_collection("d", kTwo).error().code(), Code::kUnavailable);
  EXPECT_EQ(database->drop_collection("c").code(), Code::kUnavailable);
  EXPECT_EQ(database->checkpoint().code(), Code::kUnavailable);
  EXPECT_EQ(database->backup("backups", {}, {}).error().code(), Code::kUnavailable);
  EXPECT_EQ(collection->count(nullptr).value(), 3u) << "reads go on";
}

TEST_F(RecoveryTest, MemoryIsHeldWithinTheBudgetOnly) {
  options_.memory_budget_bytes = 1 << 20;
  const auto database = open().value();
  const Result<AnswerMemory> held = database->hold_memory(512 << 10);
  ASSERT_TRUE(held.has_value()) << held.error().to_string();
  EXPECT_EQ(database->hold_memory(1 << 20).error().code(), Code::kResourceExhausted);
}

TEST(ScoreBetween, NeedsTwoVectorsOfOneLength) {
  const std::vector<float> one = {1};
  const std::vector<float> two = {3, 4};
  const std::vector<float> zero = {0, 0};
  EXPECT_EQ(score_between({}, {}, Metric::kDot).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(score_between(one, two, Metric::kDot).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(score_between(zero, two, Metric::kCosine).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(score_between(two, zero, Metric::kCosine).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(score_between(two, two, Metric::kDot).value(), 25.0F);
  EXPECT_EQ(score_between(two, zero, Metric::kL2).value(), 5.0F);
}

TEST(MetricRows, AreThoseThatADatabaseGives) {
  DatabaseOptions options;
  options.persistent = false;
  const auto database = Database::open(std::move(options)).value();
  const std::vector<const MetricRow*> rows = Database::metric_rows();
  const std::vector<MetricSample> samples = database->metrics();
  ASSERT_EQ(rows.size(), samples.size());
  ASSERT_GT(rows.size(), 20u);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i], samples[i].row);
}

}  // namespace
}  // namespace aionbd
