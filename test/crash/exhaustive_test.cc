// Power cuts at every file operation of every protocol of the engine.
//
// A protocol is a row of the table below: what is there before, and what is done. Before each
// operation of it that changes the disk, and after the last one, every kind of crash image is made,
// opened and checked (recovered.h); so 100 % of the operations are visited. With depth 2 each image
// is also recovered under watch: every image of every operation of that recovery is checked, too.
// The protocols of storage alone, with its records and roots, are in
// src/storage/storage_crash_test.cc.
//
// AIONBD_CRASH_DEPTH=2 for the second depth, AIONBD_CRASH_IMAGE_SEEDS for more images of the random
// kinds, AIONBD_CRASH_SEED for others.
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "engine/engine.h"
#include "engine/pinning.h"
#include "engine/test_metric.h"
#include "io/sim_file_system.h"
#include "test/crash/recovered.h"
#include "test/long_runs.h"

namespace aionbd::exhaustive_test {
namespace {

/// What may be found after a crash.
enum class Promise {
  kNothingLost,  // the state after the last acknowledged operation, or the one in progress; never
                 // an older one than a reader saw
  kPrefix,       // any state since the last checkpoint
};

/// A store on the simulated disk, its model, and the watch over its operations.
class Store {
 public:
  Store() {
    options.data_dir = "store";
    options.search_threads = 1;
    options.checkpoint_interval = 1000000;  // when a row says so
    options.compact_after = 1000;
    options.index_warmup_on_boot = false;
    options.recall_audit = false;
    options.index_build_cooldown = std::chrono::hours(24 * 365 * 10);
  }

  void open() {
    auto opened = open_database(options, {&files, &clock});
    ASSERT_TRUE(opened.has_value()) << opened.error().to_string();
    database = *std::move(opened);
    shown_ = database.get();
  }
  void close() {
    shown_ = nullptr;
    database.reset();
    durable_ = states_.size() - 1;
  }
  void run(const Operation& operation) {
    start(operation);
    finish(operation, states_.size() - 1);
    if (files.crashed()) return;
    acknowledged_ = states_.size() - 1;
  }
  /// The state that `operation` leads to may be found from now on.
  void start(const Operation& operation) {
    std::lock_guard<std::mutex> lock(mutex_);
    states_.push_back(operation.apply(states_.back()));
  }
  /// Runs an operation whose state is number `state`.
  void finish(const Operation& operation, size_t state) {
    ModelState before;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      before = states_[state - 1];
    }
    const Status done = operation.apply(*database, before);
    if (files.crashed()) return;
    ASSERT_TRUE(done.ok()) << operation.describe() << ": " << done.to_string();
  }
  void acknowledge(size_t state) { acknowledged_ = state; }
  size_t last_state() const { return states_.size() - 1; }
  const ModelState& state() const { return states_.back(); }
  void checkpoint() {
    run(Operation::checkpoint());
    if (!files.crashed()) durable_ = states_.size() - 1;
  }

  /// The process dies at its n-th operation from now on that changes the disk; the power stays.
  void kill_during(uint64_t n, const std::function<void()>& action) {
    files.crash_at_mutation(n);
    action();
    ASSERT_TRUE(files.crashed());
    shown_ = nullptr;
    database.reset();
    files.revive();
  }

  // ---- The watch ----

  /// Of so many operations one has its images checked: all of them but in sanitized runs, which are
  /// there for what happens inside.
  static constexpr uint64_t kChecked = kSlowness == 1 ? 1 : 8;

  void watch(Promise promise, int depth) {
    promise_ = promise;
    const uint64_t before = files.mutations_count();
    files.set_hook([this, depth, before](const FileCall& call) -> std::optional<FileFault> {
      if (!is_mutation(call.op)) return std::nullopt;
      if (hold) hold();
      std::lock_guard<std::mutex> lock(check_mutex_);
      ++visited;
      if (visited % kChecked != 0) return std::nullopt;
      check_now(depth, "before operation " + std::to_string(call.mutation - before) + ", " +
                           std::string(file_op_name(call.op)) + " " + call.path);
      return std::nullopt;
    });
  }
  void end_watch(int depth) {
    files.set_hook({});
    check_now(depth, "after the last operation");
  }

  SimFileSystem files;
  ManualClock clock;
  DatabaseOptions options;
  std::unique_ptr<Database> database;
  std::function<void()> hold;  // called before an operation that is watched
  std::atomic<uint64_t> visited{0};
  uint64_t images = 0;
  uint64_t deep_operations = 0;  // of recoveries, at depth 2
  std::string violation;

 private:
  /// The states that a crash now may leave.
  std::vector<ModelState> allowed_now() {
    std::vector<ModelState> states;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      states = states_;
    }
    size_t oldest = durable_;
    if (promise_ == Promise::kNothingLost) {
      oldest = std::max(oldest, acknowledged_.load());
      // What a reader sees now must not be taken back.
      if (Database* const shown = shown_.load()) {
        const int64_t visible = state_held(*shown, states);
        if (visible < 0) violation = "a reader sees a state that never was";
        oldest = std::max(oldest, static_cast<size_t>(std::max<int64_t>(visible, 0)));
      }
    }
    states.erase(states.begin(), states.begin() + static_cast<ptrdiff_t>(oldest));
    return states;
  }

  void check_now(int depth, const std::string& where) {
    if (!violation.empty()) return;
    const std::vector<ModelState> states = allowed_now();
    if (violation.empty()) check_images(files, states, depth, where);
  }

  /// Every image of `disk` as it is now.
  void check_images(const SimFileSystem& disk, const std::vector<ModelState>& states, int depth,
                    const std::string& where) {
    static const uint64_t seeds =
        number_from_environment("AIONBD_CRASH_IMAGE_SEEDS", kSlowness == 1 ? 2 : 1);
    static const uint64_t first_seed = number_from_environment("AIONBD_CRASH_SEED", 1);
    for (size_t k = 0; k < kCrashKindsCount && violation.empty(); ++k) {
      const auto kind = static_cast<CrashKind>(k);
      const bool random = kind == CrashKind::kRandom || kind == CrashKind::kPrefix ||
                          kind == CrashKind::kNoiseExtension || kind == CrashKind::kStaleExtension;
      for (uint64_t n = 0; n < (random ? seeds : 1) && violation.empty(); ++n) {
        const uint64_t seed = first_seed + n * 7919;
        const auto image = disk.crash_image(kind, seed);
        const std::string here =
            where + "; image kind " + std::to_string(k) + " of seed " + std::to_string(seed);
        if (depth > 1) recover_under_watch(*image, states, depth - 1, here);
        if (!violation.empty()) return;
        ++images;
        const std::string wrong = check_recovered(*image, {options, &clock, states}, seed);
        if (!wrong.empty()) violation = here + ": " + wrong;
      }
    }
  }

  /// Images of every operation of the recovery of `image`, which stays as it is.
  void recover_under_watch(const SimFileSystem& image, const std::vector<ModelState>& states,
                           int depth, const std::string& where) {
    const auto copy = image.crash_image(CrashKind::kKeepAll, 1);
    SimFileSystem* const disk = copy.get();
    disk->set_hook([&, disk](const FileCall& call) -> std::optional<FileFault> {
      if (!is_mutation(call.op) || !violation.empty()) return std::nullopt;
      ++deep_operations;
      check_images(*disk, states, depth,
                   where + "; in its recovery before " + std::string(file_op_name(call.op)) + " " +
                       call.path);
      return std::nullopt;
    });
    const auto opened = open_database(options, {disk, &clock});
    disk->set_hook({});
    if (!opened) violation = where + ": does not open: " + opened.error().to_string();
  }

  std::mutex mutex_;        // over states_
  std::mutex check_mutex_;  // one check at a time
  std::vector<ModelState> states_{{}};
  std::atomic<size_t> acknowledged_{0};
  std::atomic<size_t> durable_{0};
  std::atomic<Database*> shown_{nullptr};
  Promise promise_ = Promise::kNothingLost;
};

// ---- What the protocols write -------------------------------------------------------------------

CollectionOptions with_dimension(uint32_t dimension, IdType id_type = IdType::kU64) {
  CollectionOptions out;
  out.dimension = dimension;
  out.id_type = id_type;
  return out;
}

std::vector<Point> points(uint64_t first, uint64_t count, float value, uint32_t dimension = 2) {
  std::vector<Point> out;
  for (uint64_t id = first; id < first + count; ++id) {
    std::vector<float> values(dimension, value);
    values[0] += static_cast<float>(id % 97);
    out.push_back({id, std::move(values), {{"group", static_cast<int64_t>(id % 4)}}});
  }
  return out;
}

void two_collections(Store& store) {
  store.open();
  store.run(Operation::create("alpha", with_dimension(2)));
  store.run(Operation::create("beta", with_dimension(3, IdType::kString)));
  store.run(Operation::upsert("alpha", points(0, 12, 1)));
  store.run(Operation::upsert(
      "beta", {{"one", {1, 2, 3}, {{"group", int64_t{1}}}}, {"two", {4, 5, 6}, {}}}));
}

/// As above, with sealed segments in which rows have died.
void sealed_segments(Store& store) {
  two_collections(store);
  store.checkpoint();
  store.run(Operation::upsert("alpha", points(6, 12, 2)));
  store.run(Operation::remove("alpha", ids_of(2, 2)));
  store.checkpoint();
  store.run(Operation::upsert("alpha", points(30, 3, 3)));
  store.run(Operation::remove("alpha", ids_of(8, 2)));
}

void large_collection(Store& store) {
  store.open();
  store.run(Operation::create("alpha", with_dimension(2)));
  store.run(Operation::upsert("alpha", points(0, kIndexRowsMin + 4, 1)));
  store.checkpoint();
}

/// Makes the collection want a vector index and a field index, and builds and publishes both.
void build_indexes(Store& store) {
  const auto collection = store.database->collection("alpha").value();
  const std::vector<float> query = {1, 2};
  SearchRequest request;
  request.query = query;
  request.metric = Metric::kL2;
  ASSERT_TRUE(collection->search(request).has_value());
  Filter filter;
  filter.must.push_back({"group", EqualTo{int64_t{1}}, nullptr});
  ASSERT_TRUE(collection->count(&filter).has_value());
  store.run(Operation::optimize("alpha"));
  const CollectionStats stats = collection->stats().value();
  ASSERT_FALSE(stats.segments[0].indexes.empty()) << "no index was published";
  Rng rng(1);
  ASSERT_EQ(difference(*store.database, store.state(), rng), "");
}

/// Four writers whose records go to the log in a known order and, but for the first, in one group.
void write_as_a_group(Store& store) {
  constexpr size_t kWriters = 4;
  const size_t first = store.last_state() + 1;
  std::vector<Operation> operations;
  for (uint64_t w = 0; w < kWriters; ++w) {
    operations.push_back(Operation::upsert("alpha", points(4 * w, 6, 10 + static_cast<float>(w))));
  }
  const auto waiting = [&store] {
    return metric_of(*store.database, "persistence_wal_group_queue_depth");
  };
  // The first writer leads a group of its own and is held at the disk until the others have queued.
  std::vector<std::thread> writers;
  std::atomic<bool> held{false};
  std::atomic<bool> go{false};
  store.hold = [&] {
    if (held.exchange(true)) return;
    while (!go) std::this_thread::yield();
  };
  for (size_t w = 0; w < kWriters; ++w) {
    store.start(operations[w]);
    writers.emplace_back([&, w] { store.finish(operations[w], first + w); });
    while (w == 0 ? !held.load() : waiting() < static_cast<double>(w)) std::this_thread::yield();
  }
  go = true;
  for (std::thread& writer : writers) writer.join();
  store.hold = nullptr;
  store.acknowledge(first + kWriters - 1);
}

// ---- The protocols ------------------------------------------------------------------------------

struct Protocol {
  const char* name;
  Promise promise;
  std::function<void(Store&)> setup;
  std::function<void(Store&)> action;
};

void PrintTo(const Protocol& protocol, std::ostream* out) {
  *out << protocol.name;
}

std::vector<Protocol> protocols() {
  constexpr Promise kNothingLost = Promise::kNothingLost;
  const auto nothing = [](Store&) {};
  const auto open = [](Store& store) { store.open(); };
  const auto checkpoint = [](Store& store) { store.checkpoint(); };
  const auto killed = [](uint64_t n, std::function<void(Store&)> action) {
    return [n, action = std::move(action)](Store& store) {
      sealed_segments(store);
      store.kill_during(n, [&] { action(store); });
    };
  };
  return {
      {"first start", kNothingLost, nothing, open},
      {"commit", kNothingLost, two_collections,
       [](Store& store) {
         store.run(Operation::upsert("alpha", points(6, 10, 4)));
         store.run(Operation::remove("beta", {"one", "three"}));
         store.run(Operation::set_group("alpha", ids_of(0, 5), 3));
         store.run(Operation::remove_group("alpha", 2));
       }},
      {"group commit", kNothingLost, two_collections, write_as_a_group},
      {"commit without sync", Promise::kPrefix,
       [](Store& store) {
         store.options.durability = {false, 3, {}};
         two_collections(store);
         store.checkpoint();
       },
       [](Store& store) {
         for (uint64_t i = 0; i < 7; ++i) {
           store.run(Operation::upsert("alpha", points(2 * i, 5, static_cast<float>(i))));
         }
         store.checkpoint();
         store.run(Operation::remove("alpha", ids_of(0, 3)));
       }},
      {"checkpoint", kNothingLost, sealed_segments, checkpoint},
      {"checkpoint without sync", Promise::kPrefix,
       [](Store& store) {
         store.options.durability = {false, 0, {}};
         sealed_segments(store);
       },
       checkpoint},
      {"compaction", kNothingLost,
       [](Store& store) {
         sealed_segments(store);
         store.checkpoint();
       },
       [](Store& store) { store.run(Operation::optimize("alpha")); }},
      {"checkpoint that compacts", kNothingLost,
       [](Store& store) {
         store.options.compact_after = 2;
         sealed_segments(store);
       },
       checkpoint},
      {"create", kNothingLost, two_collections,
       [](Store& store) {
         store.run(Operation::create("gamma", with_dimension(5)));
         store.run(Operation::upsert("gamma", points(0, 2, 1, 5)));
       }},
      {"delete", kNothingLost, sealed_segments,
       [](Store& store) {
         store.run(Operation::drop("alpha"));
         store.checkpoint();
       }},
      {"recreate", kNothingLost, sealed_segments,
       [](Store& store) {
         store.run(Operation::drop("alpha"));
         store.run(Operation::create("alpha", with_dimension(7)));
         store.run(Operation::upsert("alpha", points(0, 3, 9, 7)));
         store.checkpoint();
       }},
      {"index publish", kNothingLost, large_collection, build_indexes},
      {"compaction of indexed segments", kNothingLost,
       [](Store& store) {
         large_collection(store);
         build_indexes(store);
         store.run(Operation::remove("alpha", ids_of(0, 50)));
       },
       [](Store& store) { store.run(Operation::optimize("alpha")); }},
      {"clean close", kNothingLost, sealed_segments, [](Store& store) { store.close(); }},
      {"clean close without sync", Promise::kPrefix,
       [](Store& store) {
         store.options.durability = {false, 100, {}};
         sealed_segments(store);
       },
       [](Store& store) { store.close(); }},
      {"recovery from a kill in a commit", kNothingLost,
       killed(2, [](Store& store) { store.run(Operation::upsert("alpha", points(0, 40, 5))); }),
       open},
      {"recovery from a kill in a checkpoint, segment half written", kNothingLost,
       killed(7, [](Store& store) { store.checkpoint(); }), open},
      {"recovery from a kill in a checkpoint, manifest not renamed", kNothingLost,
       killed(13, [](Store& store) { store.checkpoint(); }), open},
      {"recovery after a clean close", kNothingLost,
       [](Store& store) {
         sealed_segments(store);
         store.close();
       },
       open},
  };
}

class ExhaustiveCrashTest : public testing::TestWithParam<Protocol> {};

TEST_P(ExhaustiveCrashTest, EveryOperationLeavesWhatThePromisesAllow) {
  const Protocol& protocol = GetParam();
  const int depth = static_cast<int>(number_from_environment("AIONBD_CRASH_DEPTH", 1));
  Store store;
  protocol.setup(store);
  ASSERT_FALSE(HasFatalFailure());
  const uint64_t before = store.files.mutations_count();
  store.watch(protocol.promise, depth);
  protocol.action(store);
  const uint64_t operations = store.files.mutations_count() - before;
  store.end_watch(depth);
  ASSERT_EQ(store.violation, "") << protocol.name;
  EXPECT_EQ(store.visited, operations);
  EXPECT_GT(operations, 0u);
  std::printf("  %s: %llu of %llu operations visited\n", protocol.name,
              static_cast<unsigned long long>(store.visited.load()),
              static_cast<unsigned long long>(operations));
  print_counted(store.visited, "operations of protocols cut at");
  print_counted(store.images, "images of protocols");
  if (depth > 1) print_counted(store.deep_operations, "operations of their recoveries cut at");
}

std::string name_of(const testing::TestParamInfo<Protocol>& info) {
  std::string out;
  bool upper = true;
  for (const char* c = info.param.name; *c != '\0'; ++c) {
    const bool letter = std::isalnum(static_cast<unsigned char>(*c)) != 0;
    if (letter) out += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(*c))) : *c;
    upper = !letter;
  }
  return out;
}

INSTANTIATE_TEST_SUITE_P(Protocols, ExhaustiveCrashTest, testing::ValuesIn(protocols()), name_of);

}  // namespace
}  // namespace aionbd::exhaustive_test
