// Clocks that jump and stand still (F12, T25, O7). Time enters the engine through Clock alone, and
// Clock is monotonic: it may jump far ahead (a suspended machine) or stand still, never back. The
// wall clock is for log lines and is banned elsewhere by tools/tidy.py.
#include <gtest/gtest.h>

#include <atomic>

#include "engine/engine.h"
#include "io/sim_file_system.h"
#include "test/model/history.h"

namespace aionbd {
namespace {

constexpr std::chrono::hours kYear{24 * 365};

/// May be read by any thread while it is moved.
class JumpingClock final : public Clock {
 public:
  MonotonicTime now() const override {
    return MonotonicTime(std::chrono::nanoseconds(now_.load()));
  }
  void jump(std::chrono::nanoseconds by) { now_ += by.count(); }

 private:
  std::atomic<int64_t> now_{1'000'000'000};
};

TEST(ClockTest, HistoriesAreTheSameWhateverTheClockDoes) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    SimFileSystem files;
    JumpingClock clock;
    DatabaseOptions options = small_options(rng, "store");
    options.async_checkpoints = rng.chance(0.5);
    options.durability.sync_interval = std::chrono::seconds(rng.below(3));
    auto database = open_database(options, {&files, &clock}).value();
    ModelState state;
    for (int i = 0; i < 200; ++i) {
      if (rng.chance(0.1)) clock.jump(rng.chance(0.3) ? kYear : std::chrono::nanoseconds(1));
      const Operation operation = Operation::random(rng, state);
      const Status done = operation.apply(*database, state);
      ASSERT_TRUE(done.ok()) << "seed " << seed << ", " << operation.describe() << ": "
                             << done.to_string();
      state = operation.apply(state);
      if (i % 20 == 0) {
        ASSERT_EQ(difference(*database, state, rng), "") << "seed " << seed;
      }
      if (rng.chance(0.02)) {
        database.reset();
        database = open_database(options, {&files, &clock}).value();
      }
    }
    ASSERT_EQ(difference(*database, state, rng), "") << "seed " << seed;
  }
}

TEST(ClockTest, ADeadlineInAJumpRefusesBeforeTheLogAndNotAfter) {
  SimFileSystem files;
  JumpingClock clock;
  DatabaseOptions options;
  options.data_dir = "store";
  options.search_threads = 1;
  const auto database = open_database(options, {&files, &clock}).value();
  const auto collection = database->create_collection("c", {.dimension = 1, .metric = {}}).value();
  const Deadline deadline = clock.now() + std::chrono::seconds(10);
  const std::vector<Point> point = {{uint64_t{1}, {1}, {}}};
  EXPECT_TRUE(collection->upsert(point, deadline).has_value());
  // The machine sleeps for a year between the log's write and its sync: the write happened.
  files.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    if (call.op == FileOp::kAppend) clock.jump(kYear);
    return std::nullopt;
  });
  const std::vector<Point> second = {{uint64_t{2}, {2}, {}}};
  EXPECT_TRUE(collection->upsert(second, deadline).has_value());
  files.set_hook({});
  const std::vector<Point> third = {{uint64_t{3}, {3}, {}}};
  EXPECT_EQ(collection->upsert(third, deadline).status().code(), Code::kDeadlineExceeded);
  EXPECT_EQ(collection->count(nullptr).value(), 2u);
}

}  // namespace
}  // namespace aionbd
