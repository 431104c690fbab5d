// The n-th call of a protocol fails, for n = 1, 2, ... until the protocol succeeds (test T4 of the
// plan): each way of failing, once and from then on.
//
// A protocol that fails must have changed nothing; if the log had to stop (a sync that failed), the
// store holds the state before or after when it is reopened. When the fault is over, everything
// works as if nothing had been.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>

#include "engine/engine.h"
#include "io/sim_file_system.h"
#include "test/long_runs.h"
#include "test/model/history.h"

namespace aionbd::sweep_test {
namespace {

constexpr char kDir[] = "store";
constexpr CollectionOptions kOptions{.dimension = 2, .metric = {}};

std::vector<Point> points_of(uint64_t first, size_t n, float value) {
  std::vector<Point> out;
  for (uint64_t id = first; id < first + n; ++id) {
    out.push_back({id, {value, static_cast<float>(id)}, {{"n", static_cast<int64_t>(id)}}});
  }
  return out;
}

/// What is done while calls fail, and what it does to the state.
struct Protocol {
  const char* name;
  std::function<Status(Database&)> act;
  std::function<void(ModelState&)> apply;
};

std::vector<Protocol> protocols() {
  const auto none = [](ModelState&) {};
  return {
      {"upsert",
       [](Database& d) { return d.collection("a").value()->upsert(points_of(0, 30, 7)).status(); },
       [](ModelState& s) { s = Operation::upsert("a", points_of(0, 30, 7)).apply(s); }},
      {"remove",
       [](Database& d) { return d.collection("a").value()->remove(ids_of(5, 20)).status(); },
       [](ModelState& s) { s = Operation::remove("a", ids_of(5, 20)).apply(s); }},
      {"create", [](Database& d) { return d.create_collection("new", kOptions).status(); },
       [](ModelState& s) { s = Operation::create("new", kOptions).apply(s); }},
      {"drop", [](Database& d) { return d.drop_collection("b"); },
       [](ModelState& s) { s.erase("b"); }},
      {"checkpoint", [](Database& d) { return d.checkpoint(); }, none},
      {"compaction", [](Database& d) { return d.collection("a").value()->optimize(); }, none},
  };
}

/// How calls fail.
struct Failure {
  const char* name;
  bool (*hits)(const FileCall& call);
  FileFault fault;
  bool half = false;  // of an append, half gets in
};

std::vector<Failure> failures() {
  const auto any = [](const FileCall&) { return true; };
  const auto changing = [](const FileCall& call) { return is_mutation(call.op); };
  const auto opening = [](const FileCall& call) {
    return call.op == FileOp::kCreate || call.op == FileOp::kOpenForAppend ||
           call.op == FileOp::kMap || call.op == FileOp::kRead || call.op == FileOp::kList;
  };
  const auto syncing = [](const FileCall& call) {
    return call.op == FileOp::kSync || call.op == FileOp::kSyncDir;
  };
  const auto appending = [](const FileCall& call) { return call.op == FileOp::kAppend; };
  // A full disk refuses to grow; it syncs and removes.
  const auto growing = [](const FileCall& call) {
    return call.op == FileOp::kAppend || call.op == FileOp::kCreate ||
           call.op == FileOp::kAllocate || call.op == FileOp::kRename;
  };
  return {
      {"EIO", any, {io_error("injected: EIO")}},
      {"ENOSPC", growing, {storage_full("injected: ENOSPC")}},
      {"EDQUOT, short writes", appending, {storage_full("injected: EDQUOT")}, true},
      {"EIO, short writes", appending, {io_error("injected: EIO")}, true},
      {"EMFILE", opening, {io_error("injected: EMFILE")}},
      {"EROFS", changing, {io_error("injected: EROFS")}},
      {"sync fails, pages show the new", syncing, {io_error("injected: EIO"), 0, true}},
      {"sync fails, pages show the old", syncing, {io_error("injected: EIO"), 0, false}},
  };
}

DatabaseOptions options() {
  DatabaseOptions out;
  out.data_dir = kDir;
  out.search_threads = 1;
  out.checkpoint_interval = 1000000;
  out.disk_reserve_bytes = 64 << 10;
  return out;
}

/// Two segments and open rows in "a", open rows in "b".
ModelState prepare(Database& database) {
  ModelState state;
  const auto a = database.create_collection("a", kOptions).value();
  const auto b = database.create_collection("b", kOptions).value();
  for (const char* name : {"a", "b"}) state = Operation::create(name, kOptions).apply(state);
  const auto write = [&](Collection& collection, const std::string& name,
                         const std::vector<Point>& points) {
    EXPECT_TRUE(collection.upsert(points).has_value());
    state = Operation::upsert(name, points).apply(state);
  };
  write(*a, "a", points_of(0, 20, 1));
  write(*b, "b", points_of(0, 5, 1));
  EXPECT_TRUE(database.checkpoint().ok());
  write(*a, "a", points_of(10, 20, 2));
  EXPECT_TRUE(database.checkpoint().ok());
  write(*a, "a", points_of(25, 20, 3));
  write(*b, "b", points_of(3, 5, 3));
  return state;
}

/// Runs the protocol with the n-th call failing; `fired` tells whether there was an n-th call.
std::string run(const Protocol& protocol, const Failure& failure, uint64_t n, bool sticky,
                bool& fired) {
  SimFileSystem files;
  ManualClock clock;
  const EngineEnvironment environment{&files, &clock};
  auto database = open_database(options(), environment).value();
  const ModelState before = prepare(*database);
  ModelState after = before;
  protocol.apply(after);
  std::atomic<uint64_t> calls{0};
  files.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    if (!failure.hits(call)) return std::nullopt;
    const uint64_t at = ++calls;
    if (at != n && !(sticky && at > n)) return std::nullopt;
    FileFault fault = failure.fault;
    if (failure.half) fault.bytes_written = call.bytes / 2;
    return fault;
  });
  const Status done = protocol.act(*database);
  fired = calls >= n;
  files.set_hook({});
  clock.advance(std::chrono::seconds(5));
  if (!fired && !done.ok()) return "fails without a fault: " + done.to_string();
  const bool known = done.ok() || done.code() == Code::kStorageFull ||
                     done.code() == Code::kIoError || done.code() == Code::kUnavailable;
  if (!known) return "fails in another way: " + done.to_string();
  if (!database->health().quarantined.empty()) return "a collection is quarantined";
  const bool alive = database->health().storage_available;
  ModelState now = done.ok() ? after : before;
  if (alive) {
    if (!holds_exactly(*database, now)) {
      return "holds another state after " + done.to_string();
    }
    for (const Protocol& next : {protocols()[4], protocols()[0], protocols()[5]}) {
      const Status works = next.act(*database);
      if (!works.ok()) return std::string(next.name) + " afterwards: " + works.to_string();
      next.apply(now);
      if (!holds_exactly(*database, now)) return std::string(next.name) + " afterwards: differs";
    }
  } else {
    if (!holds_exactly(*database, before) && !holds_exactly(*database, after)) {
      return "stopped, and reads show neither state";
    }
    const auto refused = database->create_collection("late", kOptions);
    if (refused || refused.error().code() != Code::kUnavailable) return "stopped, and takes writes";
  }
  // What a power cut leaves of it, and the file system as it is.
  const auto image = files.crash_image(CrashKind::kRandom, n);
  database.reset();
  for (SimFileSystem* disk : {static_cast<SimFileSystem*>(image.get()), &files}) {
    const auto reopened = open_database(options(), {disk, &clock});
    if (!reopened) return "reopening: " + reopened.error().to_string();
    const bool right =
        holds_exactly(**reopened, now) ||
        (!alive && (holds_exactly(**reopened, before) || holds_exactly(**reopened, after)));
    if (!right) return "reopened: holds another state";
  }
  return "";
}

TEST(SweepTest, EveryCallOfEveryProtocolFailsInEveryWay) {
  uint64_t runs = 0;
  for (const Protocol& protocol : protocols()) {
    for (const Failure& failure : failures()) {
      for (const bool sticky : {false, true}) {
        bool fired = true;
        for (uint64_t n = 1; fired; ++n) {
          ASSERT_EQ(run(protocol, failure, n, sticky, fired), "")
              << protocol.name << ", " << failure.name << (sticky ? " from" : " at") << " call "
              << n;
          ++runs;
        }
      }
    }
  }
  EXPECT_GT(runs, 300u);
}

// ---- Merges and indexes -------------------------------------------------------------------------

/// Work that changes no content.
struct Upkeep {
  const char* name;
  bool sync_on_write;
  uint32_t compact_after;
  bool merges;         // several segments, with rows that have died
  bool rows_die;       // also while the index of the merged segment is built
  bool is_checkpoint;  // else optimize
};

constexpr Upkeep kUpkeeps[] = {
    {"checkpoint without sync on write", false, 1000, true, false, true},
    {"checkpoint that compacts", true, 2, true, false, true},
    {"checkpoint that compacts, without sync on write", false, 2, true, false, true},
    {"index of a segment", true, 1000, false, false, false},
    {"merge with an index", true, 1000, true, false, false},
    {"merge with an index while rows die", true, 1000, true, true, false},
};

constexpr char kName[] = "a";
constexpr uint64_t kManyRows = 600;  // an index is made of 512

/// As `run`, for work of that kind.
std::string run(const Upkeep& upkeep, const Failure& failure, uint64_t n, bool& fired) {
  SimFileSystem files;
  ManualClock clock;
  const EngineEnvironment environment{&files, &clock};
  DatabaseOptions chosen = options();
  chosen.durability = {upkeep.sync_on_write, 0, {}};
  chosen.compact_after = 1000;  // not while it is prepared
  chosen.disk_reserve_bytes = 0;
  chosen.recall_audit = false;
  chosen.index_warmup_on_boot = false;
  ModelState state;
  const auto change = [&state](Database& database, const Operation& operation) {
    EXPECT_TRUE(operation.apply(database, state).ok()) << operation.describe();
    state = operation.apply(state);
  };
  auto database = open_database(chosen, environment).value();
  change(*database, Operation::create(kName, kOptions));
  change(*database, Operation::upsert(kName, points_of(0, kManyRows, 1)));
  change(*database, Operation::checkpoint());
  if (upkeep.merges) {
    change(*database, Operation::upsert(kName, points_of(kManyRows - 50, 100, 2)));
    change(*database, Operation::remove(kName, ids_of(10, 20)));
    change(*database, Operation::checkpoint());
    change(*database, Operation::upsert(kName, points_of(kManyRows, 100, 3)));
    change(*database, Operation::remove(kName, ids_of(40, 20)));
  }
  database.reset();
  chosen.compact_after = upkeep.compact_after;
  database = open_database(chosen, environment).value();
  if (!upkeep.is_checkpoint) {
    SearchRequest request;
    const std::vector<float> query = {1, 2};
    request.query = query;
    request.metric = Metric::kL2;
    // A merged segment gets an index of what was asked for once, another when it is asked often.
    for (int i = 0; i < (upkeep.merges ? 1 : 3000); ++i) {
      EXPECT_TRUE(database->collection(kName).value()->search(request).has_value());
    }
  }

  std::atomic<uint64_t> calls{0};
  std::atomic<bool> inside{false};
  uint64_t segments = 0;
  files.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    if (inside) return std::nullopt;
    const bool segment = call.path.ends_with(".seg");
    if (segment && call.op == FileOp::kCreate) ++segments;
    // The third file, after the open rows and the merged ones: the index.
    if (upkeep.rows_die && segment && call.op == FileOp::kAppend && segments == 3) {
      ++segments;
      inside = true;
      change(*database, Operation::remove(kName, ids_of(100, 30)));
      change(*database, Operation::checkpoint());
      inside = false;
    }
    if (!failure.hits(call) || ++calls != n) return std::nullopt;
    FileFault fault = failure.fault;
    if (failure.half) fault.bytes_written = call.bytes / 2;
    return fault;
  });
  const auto collection = database->collection(kName).value();
  const Status done = upkeep.is_checkpoint ? database->checkpoint() : collection->optimize();
  fired = calls >= n;
  files.set_hook({});
  if (!fired && !done.ok()) return "fails without a fault: " + done.to_string();
  if (!fired && upkeep.rows_die && segments < 4) return "no row died in time";
  if (!fired && !upkeep.is_checkpoint) {
    for (const SegmentStats& segment : collection->stats().value().segments) {
      if (segment.sealed && segment.rows > 0 && segment.indexes.empty()) return "without an index";
    }
  }
  if (!database->health().quarantined.empty()) return "the collection is quarantined";
  if (!holds_exactly(*database, state)) return "holds another state after " + done.to_string();
  const auto image = files.crash_image(CrashKind::kRandom, n);
  if (database->health().storage_available) {
    clock.advance(std::chrono::hours(1));
    for (const Operation& next :
         {Operation::upsert(kName, points_of(5, 10, 9)), Operation::checkpoint()}) {
      const Status works = next.apply(*database, state);
      if (!works.ok()) return next.describe() + " afterwards: " + works.to_string();
      state = next.apply(state);
      if (!holds_exactly(*database, state)) return next.describe() + " afterwards: differs";
    }
  }
  const bool stopped = !database->health().storage_available;
  database.reset();
  const auto after_cut = open_database(chosen, {image.get(), &clock});
  if (!after_cut) return "after a power cut: " + after_cut.error().to_string();
  const auto reopened = open_database(chosen, environment);
  if (!reopened) return "reopening: " + reopened.error().to_string();
  if (!(stopped && !upkeep.sync_on_write) && !holds_exactly(**reopened, state)) {
    return "reopened: holds another state";
  }
  return "";
}

TEST(SweepTest, EveryCallOfAMergeAndOfAnIndexFailsInEveryWay) {
  constexpr uint64_t kStep = kSlowness == 1 ? 1 : 5;
  uint64_t runs = 0;
  for (const Upkeep& upkeep : kUpkeeps) {
    for (const Failure& failure : failures()) {
      // Building an index takes longer than all the rest; of these, one way for each kind of call.
      const std::string_view way = failure.name;
      if (!upkeep.is_checkpoint && way != "EIO" && way != "ENOSPC") continue;
      bool fired = true;
      for (uint64_t n = 1; fired; n += kStep) {
        ASSERT_EQ(run(upkeep, failure, n, fired), "")
            << upkeep.name << ", " << failure.name << " at call " << n;
        ++runs;
      }
    }
  }
  EXPECT_GT(runs, 200u / kStep);
}

}  // namespace
}  // namespace aionbd::sweep_test
