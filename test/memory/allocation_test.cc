// The n-th allocation fails, for n = 1, 2, ... until the call succeeds, once and from then on
// (fault F11, test T5 of the plan): the call is refused with resource_exhausted and has changed
// nothing, or it is done; what follows works; a reopened store agrees.
//
// A program of its own, because it replaces operator new (shortage.cc). AIONBD_ALLOCATION_STEP=1
// tries every n; the default is every 7th, and every 35th in sanitized runs.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <thread>

#include "base/sanitized.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/test_metric.h"
#include "test/memory/shortage.h"
#include "test/model/history.h"

namespace aionbd {
namespace {

uint64_t step() {
  const char* text = std::getenv("AIONBD_ALLOCATION_STEP");
  if (text != nullptr) return std::strtoull(text, nullptr, 10);
  return kSanitized ? 35 : 7;
}

constexpr CollectionOptions kOptions{.dimension = 2, .metric = {}};
constexpr CollectionOptions kWords{.dimension = 2, .id_type = IdType::kString, .metric = {}};

std::vector<Point> points_of(uint64_t first, size_t n, float value) {
  std::vector<Point> out;
  for (uint64_t id = first; id < first + n; ++id) {
    const Payload payload = {{"n", static_cast<int64_t>(id)}, {"text", std::string(40, 'x')}};
    out.push_back({id, {value, static_cast<float>(id)}, payload});
  }
  return out;
}

std::vector<Point> words_of(uint64_t first, size_t n, float value) {
  std::vector<Point> out = points_of(first, n, value);
  for (Point& point : out) {
    point.id = PointId("a name that is long " + std::to_string(point.id.number()));
  }
  return out;
}

Filter filter_of(int64_t from) {
  Filter out;
  Clause clause;
  clause.field = "n";
  InRange range;
  range.gte = Value(from);
  clause.test = range;
  out.must.push_back(std::move(clause));
  return out;
}

/// A call of the engine; what it needs is made before memory is short.
struct EngineCall {
  const char* name;
  std::function<Status()> act;
  std::function<void(ModelState&)> apply;
};

/// On the machine's files, because the simulated disk allocates; in memory where there is such a
/// place, because a sync costs a millisecond elsewhere.
class AllocationTest : public testing::Test {
 protected:
  AllocationTest() {
    const std::filesystem::path shared = "/dev/shm";
    const auto base =
        std::filesystem::exists(shared) ? shared : std::filesystem::temp_directory_path();
    std::string pattern = (base / "aionbd-XXXXXX").string();
    dir_ = mkdtemp(pattern.data());
  }
  ~AllocationTest() override {
    close();
    std::filesystem::remove_all(dir_);
  }

  Result<std::unique_ptr<Database>> try_open() {
    return open_database(options_, {&posix_file_system(), &system_clock_source()});
  }
  void open() {
    options_.data_dir = dir_ + "/store";
    options_.search_threads = 1;
    options_.checkpoint_interval = 1000000;
    options_.disk_reserve_bytes = 64 << 10;
    options_.recall_audit = false;
    database_ = try_open().value();
  }
  void fill() {
    std::filesystem::remove_all(dir_ + "/store");
    open();
    a_ = database_->create_collection("a", kOptions).value();
    words_ = database_->create_collection("words", kWords).value();
    state_ = Operation::create("words", kWords).apply(Operation::create("a", kOptions).apply({}));
    write(*a_, "a", points_of(0, 30, 1));
    write(*words_, "words", words_of(0, 10, 1));
    EXPECT_TRUE(database_->checkpoint().ok());
    write(*a_, "a", points_of(20, 30, 2));
    EXPECT_TRUE(database_->checkpoint().ok());
    write(*a_, "a", points_of(40, 30, 3));
    write(*words_, "words", words_of(5, 10, 3));
  }
  void write(Collection& collection, const std::string& name, const std::vector<Point>& points) {
    const auto done = collection.upsert(points);
    EXPECT_TRUE(done.has_value()) << done.status().to_string();
    state_ = Operation::upsert(name, points).apply(state_);
  }
  double queued() const { return metric_of(*database_, "persistence_wal_group_queue_depth"); }
  void close() {
    a_.reset();
    words_.reset();
    database_.reset();
  }

  std::vector<EngineCall> calls() {
    const auto none = [](ModelState&) {};
    return {
        {"upsert", [this, points = points_of(10, 100, 7)] { return a_->upsert(points).status(); },
         [](ModelState& s) { s = Operation::upsert("a", points_of(10, 100, 7)).apply(s); }},
        {"upsert of names",
         [this, points = words_of(3, 20, 7)] { return words_->upsert(points).status(); },
         [](ModelState& s) { s = Operation::upsert("words", words_of(3, 20, 7)).apply(s); }},
        {"remove", [this, ids = ids_of(5, 40)] { return a_->remove(ids).status(); },
         [](ModelState& s) { s = Operation::remove("a", ids_of(5, 40)).apply(s); }},
        {"remove_matching",
         [this, filter = std::make_shared<Filter>(filter_of(30))] {
           return a_->remove_matching(*filter).status();
         },
         [](ModelState& s) { s = Operation::remove("a", ids_of(30, 100)).apply(s); }},
        {"set_payload",
         [this, ids = ids_of(0, 1), keys = Payload{{"text", "y"}}] {
           return a_->set_payload(ids, keys).status();
         },
         [](ModelState& s) {
           std::vector<Point> changed = points_of(0, 1, 1);
           changed[0].payload["text"] = "y";
           s = Operation::upsert("a", changed).apply(s);
         }},
        {"create", [this] { return database_->create_collection("new", kOptions).status(); },
         [](ModelState& s) { s = Operation::create("new", kOptions).apply(s); }},
        {"drop", [this] { return database_->drop_collection("words"); },
         [](ModelState& s) { s.erase("words"); }},
        {"get", [this, ids = ids_of(0, 60)] { return a_->get(ids, GetOptions{}).status(); }, none},
        {"list",
         [this] {
           ListRequest request;
           request.limit = 1000;
           request.include_payload = request.include_values = true;
           return a_->list(request).status();
         },
         none},
        {"count",
         [this, filter = std::make_shared<Filter>(filter_of(30))] {
           return a_->count(filter.get()).status();
         },
         none},
        {"search", [this] { return search(SearchMode::kExact); }, none},
        {"search batch", [this, request = batch()] { return a_->search_batch(request).status(); },
         none},
        {"stats", [this] { return a_->stats().status(); }, none},
        {"checkpoint", [this] { return database_->checkpoint(); }, none},
        {"optimize", [this] { return a_->optimize(); }, none},
    };
  }
  SearchBatchRequest batch() const {
    SearchBatchRequest request;
    for (int i = 0; i < 8; ++i) request.queries.emplace_back(query_);
    request.common.limit = 20;
    return request;
  }
  Status search(SearchMode mode) {
    SearchRequest request;
    request.query = query_;
    request.limit = 50;
    request.mode = mode;
    return a_->search(request).status();
  }

  /// One call with the n-th allocation failing. Empty, or what is wrong.
  std::string run(size_t which, uint64_t n, bool from_then_on, bool& met) {
    fill();
    const EngineCall call = calls()[which];
    ModelState after = state_;
    call.apply(after);
    Status done;
    {
      const Shortage shortage(n, from_then_on);
      done = call.act();
      met = Shortage::met();
    }
    if (!done.ok() && done.code() != Code::kResourceExhausted) {
      return "another error: " + done.to_string();
    }
    if (!met && !done.ok()) return "fails without a shortage";
    if (!database_->health().storage_available) return "storage failed";
    if (!database_->health().quarantined.empty()) return "a collection is quarantined";
    ModelState now = done.ok() ? after : state_;
    if (!holds_exactly(*database_, now)) return "holds another state after " + done.to_string();
    for (const size_t next : {size_t{0}, size_t{13}, size_t{14}, size_t{10}}) {
      const EngineCall follow = calls()[next];
      const Status works = follow.act();
      if (!works.ok()) return std::string(follow.name) + " afterwards: " + works.to_string();
      follow.apply(now);
      if (!holds_exactly(*database_, now)) return std::string(follow.name) + ": differs";
    }
    close();
    open();
    const bool right = holds_exactly(*database_, now);
    close();
    return right ? "" : "reopened: holds another state";
  }

  std::string dir_;
  DatabaseOptions options_;
  std::unique_ptr<Database> database_;
  std::shared_ptr<Collection> a_, words_;
  ModelState state_;
  const std::vector<float> query_ = {1.5F, 30};
};

TEST_F(AllocationTest, EveryCallOfTheEngineIsRefusedOrDone) {
  fill();
  const size_t count = calls().size();
  close();
  uint64_t shortages = 0;
  for (size_t which = 0; which < count; ++which) {
    for (const bool from_then_on : {false, true}) {
      bool met = true;
      // Not always the same residues.
      for (uint64_t n = 1 + which % step(); met; n += step()) {
        const std::string wrong = run(which, n, from_then_on, met);
        shortages += met ? 1 : 0;
        ASSERT_EQ(wrong, "") << "call " << which << ", allocation " << n
                             << (from_then_on ? " and all later ones" : "");
      }
    }
  }
  EXPECT_GT(shortages, 100u);
}

TEST_F(AllocationTest, OpeningIsRefusedOrDone) {
  for (const bool from_then_on : {false, true}) {
    bool met = true;
    for (uint64_t n = 1; met; n += step()) {
      fill();
      close();
      {
        DatabaseOptions options = options_;
        const Shortage shortage(n, from_then_on);
        const auto opened =
            open_database(std::move(options), {&posix_file_system(), &system_clock_source()});
        met = Shortage::met();
        const Code code = opened ? Code::kResourceExhausted : opened.error().code();
        ASSERT_EQ(code, Code::kResourceExhausted) << opened.status().to_string();
      }
      open();
      ASSERT_TRUE(holds_exactly(*database_, state_)) << "allocation " << n;
      close();
    }
  }
}

TEST_F(AllocationTest, APendingWriteOutlivesOneThatIsRefused) {
  // One write waits for company in the log while another one is refused for want of memory.
  options_.group_commit_delay = std::chrono::milliseconds(5);
  for (uint64_t n = 1; n < 120; n += step()) {
    options_.group_commit_delay = std::chrono::milliseconds(0);
    fill();
    close();
    options_.group_commit_delay = std::chrono::milliseconds(5);
    open();
    a_ = database_->collection("a").value();
    const std::vector<Point> points = points_of(200, 5, 6);
    std::thread writer([&] { EXPECT_TRUE(a_->upsert(points_of(100, 5, 5)).has_value()); });
    while (queued() == 0 && !a_->get(ids_of(100, 1), {}).value().points.size()) {
      std::this_thread::yield();
    }
    bool done = false;
    {
      const Shortage shortage(n, false);
      done = a_->upsert(points).has_value();
    }
    writer.join();
    state_ = Operation::upsert("a", points_of(100, 5, 5)).apply(state_);
    if (done) state_ = Operation::upsert("a", points).apply(state_);
    ASSERT_TRUE(holds_exactly(*database_, state_)) << "allocation " << n;
    write(*a_, "a", points_of(300, 5, 7));
    ASSERT_TRUE(holds_exactly(*database_, state_)) << "allocation " << n;
    close();
    open();
    ASSERT_TRUE(holds_exactly(*database_, state_)) << "reopened, allocation " << n;
    close();
  }
}

TEST(ThreadPoolAllocationTest, AShortageInAHelperReachesTheCaller) {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> done{0};
    EXPECT_THROW(pool.for_each(64,
                               [&](size_t i) {
                                 ++done;
                                 if (i % 7 == 3) throw std::bad_alloc();
                               }),
                 std::bad_alloc);
    EXPECT_EQ(done, 64);
  }
}

}  // namespace
}  // namespace aionbd
