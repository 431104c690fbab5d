// Writers, checkpoints and a disk that fills and empties, all at once.
//
// Each writer owns its ids, so it knows exactly what each must hold: what it was last told. A
// refused write must leave the old value, at once and after reopening. Collections are created and
// dropped beside it.
//
// AIONBD_CONCURRENT_SEEDS sets the number of histories.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "engine/engine.h"
#include "io/sim_file_system.h"
#include "test/model/history.h"

namespace aionbd::concurrent_fault_test {
namespace {

constexpr char kDir[] = "store";
constexpr int kWriters = 4;
constexpr uint64_t kIdsEach = 6;
constexpr int kWritesEach = 150;

uint64_t seeds_count() {
  const char* text = std::getenv("AIONBD_CONCURRENT_SEEDS");
  return text == nullptr ? 8 : std::strtoull(text, nullptr, 10);
}

bool refused(const Status& status) {
  return status.code() == Code::kStorageFull || status.code() == Code::kIoError;
}

/// What one writer's ids hold.
using Own = std::map<uint64_t, float>;

std::string check_own(const Collection& collection, int writer, const Own& own) {
  for (uint64_t n = 0; n < kIdsEach; ++n) {
    const uint64_t id = static_cast<uint64_t>(writer) * kIdsEach + n;
    const auto got = collection.get(std::vector<PointId>{id}, GetOptions{});
    if (!got) return got.error().to_string();
    const auto want = own.find(id);
    if (got->points.size() != (want == own.end() ? 0U : 1U)) {
      return "id " + std::to_string(id) + (want == own.end() ? " is back" : " is lost");
    }
    if (want != own.end() && got->points[0].values[0] != want->second) {
      return "id " + std::to_string(id) + " holds another value";
    }
  }
  return "";
}

std::string write_and_check(Collection& collection, int writer, uint64_t seed, Own& own) {
  Rng rng(seed * kWriters + static_cast<uint64_t>(writer));
  for (int i = 0; i < kWritesEach; ++i) {
    Own next = own;
    std::vector<Point> points;
    std::vector<PointId> ids;
    for (uint64_t n = 1 + rng.below(3); n > 0; --n) {
      const uint64_t id = static_cast<uint64_t>(writer) * kIdsEach + rng.below(kIdsEach);
      points.push_back({id, {static_cast<float>(i)}, {}});
      ids.emplace_back(id);
    }
    const bool remove = rng.chance(0.3);
    for (const PointId& id : ids) {
      if (remove) {
        next.erase(id.number());
      } else {
        next[id.number()] = static_cast<float>(i);
      }
    }
    const Status done =
        remove ? collection.remove(ids).status() : collection.upsert(points).status();
    if (done.ok()) {
      own = std::move(next);
    } else if (!refused(done)) {
      return done.to_string();
    }
    std::string wrong = check_own(collection, writer, own);
    if (!wrong.empty()) return "write " + std::to_string(i) + ": " + wrong;
  }
  return "";
}

/// Fills and empties the disk, runs maintenance, creates and drops collections.
std::string disturb(Database& database, SimFileSystem& files, uint64_t seed,
                    const std::atomic<bool>& stop, bool& extra_exists) {
  Rng rng(seed);
  while (!stop) {
    const uint64_t roll = rng.below(10);
    if (roll < 3) {
      const FileFault fault{storage_full("injected: no space"), rng.below(200), true};
      files.fail(FileOp::kAppend, kDir, 1 + rng.below(5), fault, rng.chance(0.3));
    } else if (roll < 5) {
      files.set_hook({});
    } else if (roll < 7) {
      const Status done = database.checkpoint();
      if (!done.ok() && !refused(done) && done.code() != Code::kUnavailable) {
        return "checkpoint: " + done.to_string();
      }
    } else if (!extra_exists) {
      const auto created = database.create_collection("extra", {.dimension = 1, .metric = {}});
      if (!created && !refused(created.error())) return "create: " + created.error().to_string();
      extra_exists = created.has_value();
    } else {
      const Status dropped = database.drop_collection("extra");
      if (!dropped.ok() && !refused(dropped)) return "drop: " + dropped.to_string();
      extra_exists = !dropped.ok();
    }
    std::this_thread::yield();
  }
  files.set_hook({});
  return "";
}

std::string run(uint64_t seed) {
  Rng rng(seed);
  SimFileSystem files;
  const ManualClock clock;
  DatabaseOptions options = small_options(rng, kDir);
  options.async_checkpoints = rng.chance(0.5);
  const EngineEnvironment environment{&files, &clock};
  auto database = open_database(options, environment).value();
  auto collection = database->create_collection("c", {.dimension = 1, .metric = {}}).value();
  std::vector<Own> own(kWriters);
  std::vector<std::string> failures(kWriters + 1);
  bool extra_exists = false;
  std::atomic<bool> stop{false};
  std::thread disturber(
      [&] { failures[kWriters] = disturb(*database, files, seed, stop, extra_exists); });
  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w) {
    const auto i = static_cast<size_t>(w);
    writers.emplace_back(
        [&, w, i] { failures[i] = write_and_check(*collection, w, seed, own[i]); });
  }
  for (auto& writer : writers) writer.join();
  stop = true;
  disturber.join();
  for (const std::string& failure : failures) {
    if (!failure.empty()) return failure;
  }
  const Status done = database->checkpoint();
  if (!done.ok()) return "the last checkpoint: " + done.to_string();
  collection.reset();
  database.reset();
  const auto reopened = open_database(options, environment);
  if (!reopened) return "reopen: " + reopened.error().to_string();
  if (!(*reopened)->health().quarantined.empty()) return "a collection is quarantined";
  if ((*reopened)->collection("extra").has_value() != extra_exists) return "\"extra\" differs";
  collection = (*reopened)->collection("c").value();
  uint64_t total = 0;
  for (int w = 0; w < kWriters; ++w) {
    const std::string wrong = check_own(*collection, w, own[static_cast<size_t>(w)]);
    if (!wrong.empty()) return "after reopening: " + wrong;
    total += own[static_cast<size_t>(w)].size();
  }
  if (collection->count(nullptr).value() != total) return "after reopening: the count differs";
  return "";
}

TEST(ConcurrentFaultTest, WritersKnowWhatTheirPointsHold) {
  for (uint64_t seed = 1; seed <= seeds_count(); ++seed) {
    ASSERT_EQ(run(seed), "") << "seed " << seed << " (threads: may not repeat)";
  }
}

}  // namespace
}  // namespace aionbd::concurrent_fault_test
