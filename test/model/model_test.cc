// Differential test: random histories on the engine and on the model, with reopening.
//
// AIONBD_MODEL_OPS sets the number of operations, AIONBD_MODEL_SEED the first seed; a failure
// prints the seed that repeats it.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "io/sim_file_system.h"
#include "test/long_runs.h"
#include "test/model/history.h"

namespace aionbd {
namespace {

constexpr uint64_t kOperationsPerSeed = 2000;
constexpr uint64_t kCompareEvery = 20;

/// One history; returns the first difference, or "".
std::string run_history(uint64_t seed, uint64_t operations) {
  Rng rng(seed);
  SimFileSystem files;
  const ManualClock clock;  // stands still: what runs when depends on the seed alone
  DatabaseOptions options = small_options(rng, "store");
  options.persistent = rng.chance(0.9);
  options.async_checkpoints = rng.chance(0.3);
  const EngineEnvironment environment{&files, &clock};
  auto database = open_database(options, environment);
  if (!database) return "open: " + database.error().to_string();
  ModelState state;
  for (uint64_t i = 0; i < operations; ++i) {
    if (options.persistent && rng.chance(0.01)) {
      database->reset();
      database = open_database(options, environment);
      if (!database) return "reopen: " + database.error().to_string();
      const std::string found = difference(**database, state, rng);
      if (!found.empty()) return "after reopening at " + std::to_string(i) + ": " + found;
    }
    const Operation operation = Operation::random(rng, state);
    const Status done = operation.apply(**database, state);
    if (!done.ok()) {
      return "operation " + std::to_string(i) + ", " + operation.describe() + ": " +
             done.to_string();
    }
    state = operation.apply(state);
    if (i % kCompareEvery != 0) continue;
    const std::string found = difference(**database, state, rng);
    if (!found.empty()) {
      return "after operation " + std::to_string(i) + ", " + operation.describe() + ": " + found;
    }
  }
  return difference(**database, state, rng);
}

TEST(ModelTest, RandomHistoriesMatchTheModel) {
  const uint64_t operations = number_from_environment("AIONBD_MODEL_OPS", 200000 / kSlowness);
  const uint64_t first_seed = number_from_environment("AIONBD_MODEL_SEED", 1);
  for (uint64_t done = 0, seed = first_seed; done < operations; done += kOperationsPerSeed) {
    ASSERT_EQ(run_history(seed, kOperationsPerSeed), "")
        << "repeat with AIONBD_MODEL_SEED=" << seed;
    ++seed;
  }
  print_counted(operations, "model operations");
}

}  // namespace
}  // namespace aionbd
