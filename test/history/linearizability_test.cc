// Many threads against the engine, every call written down with its beginning and its end, and the
// question afterwards: could one careful clerk, serving one call at a time, have given these
// answers?
//
// A register is a handful of points that are always written, and deleted, as one batch, with one
// value; a read gets all of them in one call, and must find one value in all of them or none of
// them (batches are atomic). Registers are then checked one by one (register_check.h). Checkpoints
// and merges run all the time. With sync on write that must hold across power cuts, too: after a
// cut at a random file operation the history goes on with the store that an image of it holds;
// calls in progress at the cut may have happened or not.
//
// AIONBD_HISTORY_OPS sets the number of calls, AIONBD_HISTORY_SEED the first seed (threads: a seed
// repeats the calls, not their timing).
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "engine/engine.h"
#include "io/sim_file_system.h"
#include "test/history/register_check.h"
#include "test/long_runs.h"
#include "test/model/history.h"

namespace aionbd {
namespace {

constexpr int kThreads = 6;
constexpr uint64_t kRegisters = 5;
constexpr uint64_t kPointsEach = 3;
constexpr uint64_t kCallsEach = 60;  // of a thread, between two cuts
constexpr int kLives = 3;            // of a store, in one history
constexpr uint64_t kAbsent = 0;      // the value of a register that was deleted

struct Call {
  uint64_t reg = 0;
  RegisterCall call;
};

std::vector<PointId> ids_of(uint64_t reg) {
  std::vector<PointId> out;
  // Far apart, so that a register spans segments.
  for (uint64_t i = 0; i < kPointsEach; ++i) out.emplace_back(reg + 100 * i);
  return out;
}

/// The one history of a store, all its lives.
class History {
 public:
  explicit History(uint64_t seed) : seed_(seed), rng_(seed) {}

  /// Returns what is wrong with it, or "".
  std::string run(bool with_cuts) {
    auto disk = std::make_unique<SimFileSystem>();
    options_ = small_options(rng_, "store");
    options_.async_checkpoints = rng_.chance(0.5);
    if (with_cuts) options_.durability.sync_on_write = true;
    for (int life = 0; life < kLives; ++life) {
      std::unique_ptr<SimFileSystem> next = live(*disk, life, with_cuts);
      if (!wrong_.empty()) return wrong_;
      if (with_cuts) disk = std::move(next);
    }
    return verdict();
  }

  uint64_t calls_count() const { return calls_.size(); }
  /// For showing that a false history is found.
  std::vector<Call>& calls() { return calls_; }

  std::string verdict() const {
    for (uint64_t reg = 0; reg < kRegisters; ++reg) {
      std::vector<RegisterCall> own;
      for (const Call& call : calls_) {
        if (call.reg == reg) own.push_back(call.call);
      }
      const Verdict verdict = check_register(own, kAbsent);
      if (verdict == Verdict::kLinearizable) continue;
      return "register " + std::to_string(reg) +
             (verdict == Verdict::kNot ? " is not linearizable:\n" + shortest_wrong(own)
                                       : ": the checker gave up");
    }
    return "";
  }

 private:
  /// What was known when the first answer came that nothing explains; its last calls, as text.
  static std::string shortest_wrong(std::vector<RegisterCall> calls) {
    std::sort(calls.begin(), calls.end(),
              [](const RegisterCall& a, const RegisterCall& b) { return a.returned < b.returned; });
    std::vector<RegisterCall> known;
    for (size_t n = 0; n < calls.size(); ++n) {
      const uint64_t now = calls[n].returned;
      known.assign(calls.begin(), calls.begin() + static_cast<ptrdiff_t>(n) + 1);
      for (size_t later = n + 1; later < calls.size(); ++later) {
        if (calls[later].called >= now || !calls[later].is_write) continue;
        known.push_back(calls[later]);
        known.back().returned = kNeverReturned;
      }
      if (check_register(known, kAbsent) == Verdict::kNot) break;
    }
    constexpr size_t kShown = 12;
    std::string out;
    for (size_t i = known.size() > kShown ? known.size() - kShown : 0; i < known.size(); ++i) {
      const RegisterCall& call = known[i];
      out += std::string(call.is_write ? "write " : "read ") + std::to_string(call.value) +
             " from " + std::to_string(call.called) +
             (call.returned == kNeverReturned ? " on" : " to " + std::to_string(call.returned)) +
             "\n";
    }
    return out;
  }

  uint64_t tick() { return time_.fetch_add(1); }

  /// What a register holds; a torn batch is a wrong.
  uint64_t read(const Collection& collection, uint64_t reg) {
    const auto got = collection.get(ids_of(reg), GetOptions{});
    if (!got) return fail("read: " + got.error().to_string());
    if (got->points.empty()) return kAbsent;
    const auto value = static_cast<uint64_t>(got->points[0].values[0]);
    bool whole = got->points.size() == kPointsEach;
    for (const Point& point : got->points) {
      whole = whole && static_cast<uint64_t>(point.values[0]) == value;
    }
    return whole ? value : fail("half a batch is visible in register " + std::to_string(reg));
  }
  uint64_t fail(const std::string& what) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (wrong_.empty()) wrong_ = what;
    return kAbsent;
  }

  void client(Collection& collection, uint64_t seed, std::vector<Call>& calls) {
    Rng rng(seed);
    for (uint64_t i = 0; i < kCallsEach; ++i) {
      Call call;
      call.reg = rng.below(kRegisters);
      call.call.is_write = rng.chance(0.5);
      call.call.called = tick();
      if (!call.call.is_write) {
        call.call.value = read(collection, call.reg);
      } else if (rng.chance(0.2)) {
        const auto done = collection.remove(ids_of(call.reg));
        if (!done) fail("remove: " + done.error().to_string());
      } else {
        call.call.value = next_value_.fetch_add(1);  // exact as a float: below 2^24
        std::vector<Point> points;
        for (PointId& id : ids_of(call.reg)) {
          points.push_back({std::move(id), {static_cast<float>(call.call.value)}, {}});
        }
        const auto done = collection.upsert(points);
        if (!done) fail("upsert: " + done.error().to_string());
      }
      call.call.returned = tick();
      calls.push_back(call);
    }
  }

  /// One life of the store, from opening to the cut; returns the disk that the next one has.
  std::unique_ptr<SimFileSystem> live(SimFileSystem& disk, int life, bool with_cuts) {
    auto database = open_database(options_, {&disk, &clock_});
    if (!database) {
      fail("open: " + database.error().to_string());
      return nullptr;
    }
    auto collection = life == 0
                          ? (*database)->create_collection("c", {.dimension = 1, .metric = {}})
                          : (*database)->collection("c");
    if (!collection) {
      fail("the collection is lost: " + collection.error().to_string());
      return nullptr;
    }
    std::unique_ptr<SimFileSystem> image;
    uint64_t cut_begin = kNeverReturned;  // what returned before is acknowledged
    uint64_t cut_end = kNeverReturned;    // what was called later is not in the image
    std::atomic<uint64_t> until_cut{30 + rng_.below(kThreads * kCallsEach / 2)};
    const auto kind = static_cast<CrashKind>(rng_.below(kCrashKindsCount));
    const uint64_t image_seed = rng_.next();
    if (with_cuts) {
      disk.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
        if (!is_mutation(call.op) || until_cut.fetch_sub(1) != 1) return std::nullopt;
        cut_begin = tick();
        image = disk.crash_image(kind, image_seed);
        cut_end = tick();
        return std::nullopt;
      });
    }
    std::vector<std::vector<Call>> calls(kThreads);
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      const uint64_t seed = seed_ * 1000 + static_cast<uint64_t>(life) * 100 + t;
      threads.emplace_back([&, t, seed] { client(**collection, seed, calls[t]); });
    }
    for (std::thread& thread : threads) thread.join();
    disk.set_hook({});
    collection->reset();
    database->reset();
    if (with_cuts && image == nullptr) image = disk.crash_image(kind, image_seed);
    for (const std::vector<Call>& own : calls) {
      for (Call call : own) {
        if (call.call.called > cut_end) continue;  // in a world that the cut has ended
        if (call.call.returned > cut_begin) {
          if (!call.call.is_write) continue;
          call.call.returned = kNeverReturned;
        }
        calls_.push_back(call);
      }
    }
    return image;
  }

  const uint64_t seed_;
  Rng rng_;
  ManualClock clock_;
  DatabaseOptions options_;
  std::atomic<uint64_t> time_{1};
  std::atomic<uint64_t> next_value_{1};
  std::vector<Call> calls_;
  std::mutex mutex_;
  std::string wrong_;
};

void run_histories(bool with_cuts) {
  const uint64_t wanted = number_from_environment("AIONBD_HISTORY_OPS", 40000 / kSlowness) / 2;
  uint64_t seed = number_from_environment("AIONBD_HISTORY_SEED", 1);
  uint64_t calls = 0;
  for (; calls < wanted; ++seed) {
    History history(seed);
    ASSERT_EQ(history.run(with_cuts), "") << "seed " << seed << " (threads: may not repeat)";
    calls += history.calls_count();
  }
  print_counted(calls, "calls checked for linearizability");
}

TEST(LinearizabilityTest, RegistersAreLinearizableAndBatchesWhole) {
  run_histories(false);
}

TEST(LinearizabilityTest, AcrossPowerCutsAsWell) {
  run_histories(true);
}

/// One thread of the test below. 1: the collection is there, 0: it is not.
void come_and_go(Database& database, Rng rng, std::atomic<uint64_t>& time,
                 std::vector<RegisterCall>& calls) {
  for (int i = 0; i < 40; ++i) {
    RegisterCall call;
    const uint64_t roll = rng.below(3);
    call.called = time.fetch_add(1);
    if (roll == 0) {
      const auto created = database.create_collection("c", {.dimension = 1, .metric = {}});
      call = {created.has_value(), 1, call.called, 0};
    } else if (roll == 1) {
      call = {database.drop_collection("c").ok(), 0, call.called, 0};
    } else {
      call = {false, database.collection("c").has_value() ? uint64_t{1} : 0, call.called, 0};
    }
    call.returned = time.fetch_add(1);
    calls.push_back(call);
  }
}

TEST(LinearizabilityTest, CollectionsComeAndGoInOneOrder) {
  const uint64_t histories = number_from_environment("AIONBD_HISTORY_OPS", 40000 / kSlowness) / 200;
  for (uint64_t seed = 1; seed <= histories; ++seed) {
    Rng rng(seed);
    SimFileSystem files;
    const ManualClock clock;
    DatabaseOptions options = small_options(rng, "store");
    options.async_checkpoints = rng.chance(0.5);
    const auto database = open_database(options, {&files, &clock}).value();
    std::atomic<uint64_t> time{1};
    std::vector<std::vector<RegisterCall>> calls(4);
    std::vector<std::thread> threads;
    for (std::vector<RegisterCall>& own : calls) {
      threads.emplace_back(come_and_go, std::ref(*database), Rng(rng.next()), std::ref(time),
                           std::ref(own));
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<RegisterCall> all;
    for (const std::vector<RegisterCall>& own : calls)
      all.insert(all.end(), own.begin(), own.end());
    ASSERT_EQ(check_register(all, 0), Verdict::kLinearizable) << "seed " << seed;
  }
  print_counted(histories * 160, "calls checked for linearizability");
}

TEST(LinearizabilityTest, AReadThatIsNotTrueIsFound) {
  History history(7);
  ASSERT_EQ(history.run(false), "");
  // The last read of all is given the value of the first write of its register.
  std::vector<Call>& calls = history.calls();
  const Call* first = nullptr;
  Call* last = nullptr;
  for (Call& call : calls) {
    if (call.reg != 0) continue;
    if (!call.call.is_write && (last == nullptr || call.call.called > last->call.called)) {
      last = &call;
    }
    if (call.call.is_write && (first == nullptr || call.call.returned < first->call.returned)) {
      first = &call;
    }
  }
  ASSERT_TRUE(first != nullptr && last != nullptr && first->call.returned < last->call.called);
  last->call.value = first->call.value == kAbsent ? 1 << 20 : first->call.value;
  EXPECT_NE(history.verdict(), "");
}

}  // namespace
}  // namespace aionbd
