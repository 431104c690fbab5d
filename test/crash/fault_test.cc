// A disk that refuses: random histories on the simulated disk with calls that fail.
//
// No space (writes fail, once or for a while): a refused operation changed nothing, reads go on,
// and writes resume when space returns. A failed sync: everything is refused until the database is
// reopened, and what is then there is the state before or after the operation in progress.
//
// AIONBD_FAULT_SEEDS sets the number of histories of each kind.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "io/sim_file_system.h"
#include "test/long_runs.h"
#include "test/model/history.h"

namespace aionbd::fault_test {
namespace {

constexpr char kDir[] = "store";
constexpr uint64_t kOperations = 120;

uint64_t seeds_count() {
  return number_from_environment("AIONBD_FAULT_SEEDS", kSlowness == 1 ? 60 : 20);
}

bool refused_for_space(const Status& status) {
  return status.code() == Code::kStorageFull || status.code() == Code::kIoError;
}

std::string run_without_space(uint64_t seed, uint64_t& refusals) {
  Rng rng(seed);
  SimFileSystem files;
  const ManualClock clock;
  const DatabaseOptions options = small_options(rng, kDir);
  auto database = open_database(options, {&files, &clock}).value();
  ModelState state;
  bool full = false;
  for (uint64_t i = 0; i < kOperations; ++i) {
    if (rng.chance(0.1)) {
      full = !full;
      const auto call = rng.chance(0.7) ? FileOp::kAppend : FileOp::kCreate;
      const FileFault fault{storage_full("injected: no space"), rng.below(100), true};
      if (full) {
        files.fail(call, kDir, 1 + rng.below(3), fault, rng.chance(0.5));
      } else {
        files.set_hook({});
      }
    }
    const Operation operation = Operation::random(rng, state);
    const Status done = operation.apply(*database, state);
    if (done.ok()) {
      state = operation.apply(state);
    } else if (full && refused_for_space(done)) {
      ++refusals;
    } else {
      return "operation " + std::to_string(i) + ", " + operation.describe() + ": " +
             done.to_string();
    }
    const std::string found = difference(*database, state, rng);
    if (!found.empty()) {
      return "after operation " + std::to_string(i) + ", " + operation.describe() + ": " + found;
    }
  }
  files.set_hook({});
  database.reset();
  const auto reopened = open_database(options, {&files, &clock});
  if (!reopened) return "reopen: " + reopened.error().to_string();
  return difference(**reopened, state, rng);
}

TEST(FaultTest, WithoutSpaceNothingChangesAndWritesResumeWhenItReturns) {
  uint64_t refusals = 0;
  for (uint64_t seed = 1; seed <= seeds_count(); ++seed) {
    ASSERT_EQ(run_without_space(seed, refusals), "") << "seed " << seed;
  }
  EXPECT_GT(refusals, seeds_count());  // else the disk was never full when it mattered
}

std::string run_with_failing_sync(uint64_t seed) {
  Rng rng(seed);
  SimFileSystem files;
  const ManualClock clock;
  DatabaseOptions options = small_options(rng, kDir);
  options.durability.sync_on_write = true;
  auto database = open_database(options, {&files, &clock}).value();
  FileFault fault{io_error("injected: sync failed"), 0, rng.chance(0.5)};
  files.fail(rng.chance(0.8) ? FileOp::kSync : FileOp::kSyncDir, kDir, 1 + rng.below(80), fault,
             false);
  ModelState state;
  ModelState next;
  bool stopped = false;
  for (uint64_t i = 0; i < kOperations; ++i) {
    const Operation operation = Operation::random(rng, state);
    next = operation.apply(state);
    const Status done = operation.apply(*database, state);
    if (done.ok()) {
      // A refused checkpoint is not an error of the write that ran it, so health is asked as well.
      state = next;
    } else if (done.code() != Code::kUnavailable && done.code() != Code::kIoError) {
      return operation.describe() + ": " + done.to_string();
    }
    stopped = !database->health().storage_available;
    if (stopped || !done.ok()) break;
  }
  if (stopped) {
    if (const auto refused = database->create_collection("late", {.dimension = 2, .metric = {}});
        refused || refused.error().code() != Code::kUnavailable) {
      return "a write was taken after a failed sync";
    }
  }
  files.set_hook({});
  const auto image = files.crash_image(static_cast<CrashKind>(rng.below(kCrashKindsCount)), seed);
  database.reset();
  const auto reopened = open_database(options, {image.get(), &clock});
  if (!reopened) return "reopen: " + reopened.error().to_string();
  if (!holds_exactly(**reopened, state) && !holds_exactly(**reopened, next)) {
    return "holds neither the state before the failure nor the one after";
  }
  return "";
}

TEST(FaultTest, AfterAFailedSyncNothingIsTakenAndNothingAcknowledgedIsLost) {
  for (uint64_t seed = 1; seed <= 4 * seeds_count(); ++seed) {
    ASSERT_EQ(run_with_failing_sync(seed), "") << "seed " << seed;
  }
}

}  // namespace
}  // namespace aionbd::fault_test
