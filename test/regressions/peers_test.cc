// Bugs that other stores had, as tests of this one: R1 to R20 of docs/durability.md, which says for
// each where it is held. Here are those that no other test holds already.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "engine/engine.h"
#include "engine/pinning.h"
#include "io/sim_file_system.h"
#include "storage/store_files.h"
#include "test/long_runs.h"
#include "test/model/history.h"

namespace aionbd {
namespace {

constexpr char kDir[] = "store";

/// A store on the simulated disk and its model.
class PeersTest : public testing::Test {
 protected:
  PeersTest() {
    options_.data_dir = kDir;
    options_.search_threads = 1;
    options_.checkpoint_interval = 1000000;
    options_.compact_after = 1000;
    options_.index_warmup_on_boot = false;
    options_.recall_audit = false;
    options_.index_build_cooldown = std::chrono::hours(24 * 365 * 10);
  }

  void open(SimFileSystem* files = nullptr) {
    database_.reset();
    auto opened = open_database(options_, {files == nullptr ? &files_ : files, &clock_});
    ASSERT_TRUE(opened.has_value()) << opened.error().to_string();
    database_ = *std::move(opened);
  }
  void run(const Operation& operation) {
    const Status done = operation.apply(*database_, state_);
    ASSERT_TRUE(done.ok()) << operation.describe() << ": " << done.to_string();
    state_ = operation.apply(state_);
  }
  void expect_all() {
    Rng rng(1);
    ASSERT_EQ(difference(*database_, state_, rng), "");
  }
  /// After a power cut that loses everything unsynced, on a disk of its own.
  void cut_and_open() {
    auto image = files_.crash_image(CrashKind::kDropAll, 1);
    open(image.get());
    images_.push_back(std::move(image));  // outlives the database
  }
  uint64_t segment_files() { return list_store(&files_, kDir).value().segments.size(); }

  static std::vector<Point> points(uint64_t first, uint64_t count, float value) {
    std::vector<Point> out;
    for (uint64_t id = first; id < first + count; ++id) {
      out.push_back({id,
                     {value + static_cast<float>(id % 101), static_cast<float>(id % 7)},
                     {{"group", static_cast<int64_t>(id % 4)}}});
    }
    return out;
  }
  SimFileSystem files_;
  std::vector<std::unique_ptr<SimFileSystem>> images_;
  ManualClock clock_;
  DatabaseOptions options_;
  ModelState state_;
  std::unique_ptr<Database> database_;
};

// R2 (qdrant/qdrant#9146): sources of a merge were removed while moved points lived in memory only.
TEST_F(PeersTest, R2MergeAndMergeAgainBeforeAnythingElseIsWritten) {
  open();
  run(Operation::create("alpha", {.dimension = 2, .metric = {}}));
  for (uint64_t round = 0; round < 4; ++round) {
    run(Operation::upsert("alpha", points(10 * round, 15, static_cast<float>(round))));
    run(Operation::checkpoint());
  }
  run(Operation::upsert("alpha", points(5, 20, 9)));  // moves points; in the log alone
  run(Operation::optimize("alpha"));
  run(Operation::remove("alpha", ids_of(0, 8)));
  run(Operation::optimize("alpha"));
  cut_and_open();
  expect_all();
}

// R3 (qdrant/qdrant#10095): making an index lost acknowledged points at the next clean restart.
TEST_F(PeersTest, R3IndexesMadeAndDroppedUnderWritesLoseNothing) {
  open();
  run(Operation::create("alpha", {.dimension = 2, .metric = Metric::kL2}));
  run(Operation::upsert("alpha", points(0, kIndexRowsMin, 1)));
  run(Operation::checkpoint());
  run(Operation::upsert("alpha", points(7, 3, 5)));
  Filter filter;
  filter.must.push_back({"group", EqualTo{int64_t{1}}, nullptr});
  ASSERT_TRUE(database_->collection("alpha").value()->count(&filter).has_value());
  run(Operation::optimize("alpha"));  // builds a vector index and a field index
  run(Operation::upsert("alpha", points(20, 3, 6)));
  open();  // clean
  expect_all();
  // Every file of an index damaged: all are dropped and made again.
  database_.reset();
  const Manifest manifest = read_manifest(&files_, kDir).value();
  for (const ManifestSegment& segment : manifest.segments) {
    const std::string path = std::string(kDir) + "/" + segment_name(segment.id);
    std::string content = files_.read(path, 1 << 24).value();
    if (segment.id == manifest.segments.front().id) continue;  // the rows
    content[content.size() - 40] = static_cast<char>(content[content.size() - 40] ^ 1);
    files_.overwrite(path, content);
  }
  open();
  run(Operation::upsert("alpha", points(40, 3, 7)));
  ASSERT_TRUE(database_->collection("alpha").value()->optimize().ok());
  run(Operation::upsert("alpha", points(60, 3, 8)));
  cut_and_open();
  expect_all();
}

// R5 (qdrant/qdrant#1735): after a power loss a log without a whole header kept the store shut.
TEST_F(PeersTest, R5ALogFileOfAnyLengthThatACrashLeavesDoesNotKeepTheStoreShut) {
  open();
  run(Operation::create("alpha", {.dimension = 2, .metric = {}}));
  run(Operation::upsert("alpha", points(0, 5, 1)));
  run(Operation::checkpoint());
  database_.reset();
  const Lsn first = list_store(&files_, kDir).value().logs.back();
  const std::string path = std::string(kDir) + "/" + log_name(first);
  const std::string whole = files_.read(path, 1 << 20).value();
  constexpr size_t kHeader = 64;
  ASSERT_GT(whole.size(), kHeader);
  for (size_t length = 0; length <= kHeader; ++length) {
    for (const std::string& content : {whole.substr(0, length), std::string(length, '\0')}) {
      const auto image = files_.crash_image(CrashKind::kKeepAll, 1);
      image->overwrite(path, content);
      const auto opened = open_database(options_, {image.get(), &clock_});
      ASSERT_TRUE(opened.has_value()) << length << ": " << opened.error().to_string();
      Rng rng(1);
      ASSERT_EQ(difference(**opened, state_, rng), "") << length;
    }
  }
  // Longer, and behind the header nothing but zeros: what a cut before the first sync leaves.
  for (size_t length = kHeader; length <= 4096; length += 8) {
    const auto image = files_.crash_image(CrashKind::kKeepAll, 1);
    image->overwrite(path, whole.substr(0, kHeader) + std::string(length - kHeader, '\0'));
    const auto opened = open_database(options_, {image.get(), &clock_});
    ASSERT_TRUE(opened.has_value()) << length << ": " << opened.error().to_string();
  }
}

// R6 (qdrant/qdrant#2231, weaviate/weaviate#1703): a left-over temporary file failed every start.
TEST_F(PeersTest, R6FilesOfEveryNameInTheDirectoryDoNotHinderAStart) {
  open();
  run(Operation::create("alpha", {.dimension = 2, .metric = {}}));
  run(Operation::upsert("alpha", points(0, 5, 1)));
  run(Operation::checkpoint());
  database_.reset();
  const std::vector<std::string> ours = {"MANIFEST.tmp", "wal-0000000000000001.log.tmp",
                                         "0000000000000007.seg.tmp", "00000000000000ff.seg"};
  const std::vector<std::string> foreign = {"MANIFEST.old",
                                            "core",
                                            "lost+found",
                                            "a b",
                                            "x.seg",
                                            ".hidden",
                                            "\xff\xfe",
                                            "wal-1.log",
                                            "0000000000000007.SEG",
                                            std::string(200, 'n')};
  for (const std::vector<std::string>* names : {&ours, &foreign}) {
    for (const std::string& name : *names) {
      for (const char* content : {"", "some bytes"}) {
        const auto file = files_.create(std::string(kDir) + "/" + name).value();
        ASSERT_TRUE(file->append(as_bytes_of(content)).ok());
      }
    }
  }
  open();
  expect_all();
  const std::vector<std::string> left = files_.list(kDir).value();
  for (const std::string& name : ours) {
    EXPECT_EQ(std::count(left.begin(), left.end(), name), 0) << name << " was not removed";
  }
  for (const std::string& name : foreign) {
    EXPECT_EQ(std::count(left.begin(), left.end(), name), 1) << name << " is not ours to remove";
  }
}

// R11 (alibaba/zvec#594): compaction after a recovery dropped the rows that came from the log.
TEST_F(PeersTest, R11CompactionRightAfterRecoveryKeepsReplayedRows) {
  open();
  run(Operation::create("alpha", {.dimension = 2, .metric = {}}));
  run(Operation::upsert("alpha", points(0, 30, 1)));
  run(Operation::checkpoint());
  run(Operation::upsert("alpha", points(20, 30, 2)));  // in the log alone
  run(Operation::remove("alpha", ids_of(0, 3)));
  cut_and_open();
  run(Operation::optimize("alpha"));
  run(Operation::optimize("alpha"));
  expect_all();
  database_.reset();
  open(images_.back().get());
  expect_all();
}

// R12 (chroma-core/chroma#7090): an index could not be read after a restart beyond some size.
TEST_F(PeersTest, R12RestartAtEverySizeAroundEachThreshold) {
  options_.checkpoint_interval = 16;
  options_.compact_after = 4;
  std::vector<uint64_t> sizes = {0, 1, 2};
  // A checkpoint, the merges, and (2 x 8 bytes a row) the end of a block of a segment file.
  for (const uint64_t threshold : {16, 64, 4096}) {
    for (uint64_t size = threshold - 2; size <= threshold + 2; ++size) sizes.push_back(size);
  }
  for (const uint64_t size : sizes) {
    SCOPED_TRACE(size);
    const std::string name = "alpha";
    SimFileSystem files;
    state_ = {};
    open(&files);
    run(Operation::create(name, {.dimension = 2, .metric = Metric::kL2}));
    // By ones, so that the number of records passes the thresholds, too; large ones at once.
    if (size <= 128) {
      for (uint64_t i = 0; i < size; ++i) run(Operation::upsert(name, points(i, 1, 1)));
    } else {
      run(Operation::upsert(name, points(0, size, 1)));
      run(Operation::optimize(name));
    }
    open(&files);
    expect_all();
    run(Operation::upsert(name, points(size, 1, 3)));
    open(&files);
    expect_all();
    database_.reset();
  }
}

// R14 (lance-format/lance#7653): one compaction that failed again and again filled the disk.
TEST_F(PeersTest, R14ACompactionThatAlwaysFailsLeavesNothingBehind) {
  options_.compact_after = 4;
  open();
  run(Operation::create("alpha", {.dimension = 2, .metric = {}}));
  std::atomic<uint64_t> failed{0};
  std::atomic<bool> merging{false};
  files_.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    if (!merging || call.op != FileOp::kSync || call.path.find(".seg") == std::string::npos)
      return std::nullopt;
    ++failed;
    return FileFault{io_error("injected"), 0, true};
  });
  for (uint64_t round = 0; round < 20; ++round) {
    merging = false;
    run(Operation::upsert("alpha", points(round, 4, static_cast<float>(round))));
    run(Operation::checkpoint());
    const uint64_t live = segment_files();
    merging = true;
    for (int i = 0; i < 3; ++i) {
      const Status merged = database_->collection("alpha").value()->optimize();
      ASSERT_FALSE(merged.ok() && live > 1) << "round " << round << ", " << live << " segments";
    }
    merging = false;
    if (!database_->health().storage_available) open();  // a failed sync ends the writes
    EXPECT_LE(segment_files(), live + 1) << "files of failed merges stay";
  }
  EXPECT_GT(failed, 20u);
  files_.set_hook({});
  open();
  expect_all();
  run(Operation::optimize("alpha"));
  open();
  EXPECT_EQ(segment_files(), 1u);
  expect_all();
}

// R17 (qdrant/qdrant#5483, #10563): a limit near the largest number was allocated, or wrapped.
TEST_F(PeersTest, R17TheLargestNumbersAreAnsweredWithWhatThereIs) {
  open();
  run(Operation::create("alpha", {.dimension = 2, .metric = {}}));
  run(Operation::upsert("alpha", points(0, 9, 1)));
  const auto collection = database_->collection("alpha").value();
  const std::vector<float> query = {1, 2};
  for (const uint32_t limit : {UINT32_MAX, UINT32_MAX - 1, uint32_t{1} << 31}) {
    for (const uint32_t offset : {uint32_t{0}, uint32_t{4}, UINT32_MAX, UINT32_MAX - limit + 5}) {
      SearchRequest request;
      request.query = query;
      request.limit = limit;
      request.offset = offset;
      const auto got = collection->search(request);
      ASSERT_TRUE(got.has_value()) << got.error().to_string();
      EXPECT_EQ(got->hits.size(), offset >= 9 ? 0 : 9 - offset) << limit << " from " << offset;
    }
  }
  for (const uint64_t limit : {UINT64_MAX, UINT64_MAX - 1, uint64_t{1} << 63}) {
    for (const uint64_t offset : {uint64_t{0}, uint64_t{4}, kListOffsetMax}) {
      ListRequest request;
      request.limit = limit;
      request.offset = offset;
      const auto page = collection->list(request);
      ASSERT_TRUE(page.has_value()) << page.error().to_string();
      EXPECT_EQ(page->points.size(), offset >= 9 ? 0 : 9 - offset);
    }
    ListRequest request;
    request.limit = limit;
    request.after_id = PointId(UINT64_MAX);
    EXPECT_TRUE(collection->list(request).value().points.empty());
  }
}

// R18 (many): odd numbers crashed builds or searches, or came back as others.
TEST_F(PeersTest, R18OddNumbersSurviveUpsertBuildSearchAndRestart) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> odd = {0.0F,
                                  -0.0F,
                                  std::numeric_limits<float>::denorm_min(),
                                  std::numeric_limits<float>::min(),
                                  std::numeric_limits<float>::max(),
                                  -std::numeric_limits<float>::max(),
                                  kInfinity,
                                  -kInfinity};
  open();
  for (const bool strict : {true, false}) {
    const std::string name = strict ? "alpha" : "beta";
    const auto collection =
        database_->create_collection(name, {.dimension = 2, .strict_finite = strict, .metric = {}})
            .value();
    ASSERT_TRUE(collection->upsert(points(100, kIndexRowsMin, 1)).has_value());
    for (uint64_t i = 0; i < odd.size(); ++i) {
      const auto done = collection->upsert(std::vector<Point>{{i, {odd[i], odd[i]}, {}}});
      EXPECT_EQ(done.has_value(), !strict || std::isfinite(odd[i])) << odd[i];
    }
    ASSERT_TRUE(collection->optimize().ok());
  }
  for (int round = 0; round < 2; ++round) {
    for (const char* name : {"alpha", "beta"}) {
      const auto collection = database_->collection(name).value();
      for (uint64_t i = 0; i < odd.size(); ++i) {
        const auto got = collection->get(std::vector<PointId>{i}, GetOptions{}).value();
        for (const Point& point : got.points) {
          EXPECT_EQ(std::signbit(point.values[0]), std::signbit(odd[i]));
          EXPECT_EQ(point.values[0], odd[i]);
        }
      }
      for (const Metric metric : {Metric::kDot, Metric::kL2, Metric::kCosine}) {
        for (const SearchMode mode : {SearchMode::kExact, SearchMode::kAuto}) {
          SearchRequest request;
          const std::vector<float> query = {1, 2};
          request.query = query;
          request.metric = metric;
          request.mode = mode;
          request.limit = 20;
          const auto found = collection->search(request);
          ASSERT_TRUE(found.has_value()) << found.error().to_string();
          EXPECT_EQ(found->hits.size(), 20u);
        }
      }
      ASSERT_TRUE(collection->optimize().ok());
    }
    open();
  }
}

// R20 (qdrant/qdrant#4199): lock order between search, update, optimiser and snapshot hung all.
TEST_F(PeersTest, R20EverythingAtOnceNeverStops) {
  options_.checkpoint_interval = 8;
  options_.compact_after = 3;
  options_.async_checkpoints = true;
  open();
  (void)database_->create_collection("alpha", {.dimension = 2, .metric = {}}).value();
  std::atomic<bool> stop{false};
  std::vector<std::atomic<uint64_t>> done(6);
  const auto repeat = [&](size_t who, auto action) {
    return std::thread([&, who, action] {
      for (uint64_t i = 0; !stop; ++i, ++done[who]) action(i);
    });
  };
  Database& database = *database_;
  const std::vector<float> query = {1, 2};
  std::vector<std::thread> threads;
  threads.push_back(repeat(0, [&](uint64_t i) {
    if (const auto found = database.collection("alpha")) {
      (void)(*found)->upsert(points(i % 50, 3, static_cast<float>(i % 100)));
    }
  }));
  threads.push_back(repeat(1, [&](uint64_t) {
    SearchRequest request;
    request.query = query;
    if (const auto found = database.collection("alpha")) (void)(*found)->search(request);
  }));
  threads.push_back(repeat(2, [&](uint64_t) {
    if (const auto found = database.collection("alpha")) (void)(*found)->optimize();
  }));
  threads.push_back(repeat(3, [&](uint64_t) { (void)database.checkpoint(); }));
  threads.push_back(repeat(4, [&](uint64_t i) {
    if (i % 16 == 0) (void)database.drop_collection("alpha");
    (void)database.create_collection("alpha", {.dimension = 2, .metric = {}});
  }));
  threads.push_back(repeat(5, [&](uint64_t) {
    (void)database.list_collections();
    (void)database.metrics();
    (void)database.health();
  }));
  // The watchdog: everybody gets somewhere, all the time.
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  while (std::chrono::steady_clock::now() < end) {
    std::vector<uint64_t> before(done.begin(), done.end());
    const auto late = std::chrono::steady_clock::now() + std::chrono::seconds(5 * kSlowness);
    for (size_t who = 0; who < done.size(); ++who) {
      while (done[who] == before[who]) {
        ASSERT_LT(std::chrono::steady_clock::now(), late) << "number " << who << " hangs";
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace aionbd
