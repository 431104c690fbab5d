// Searches while their collection changes: 20 % of the points are replaced by others of the same
// data set, and the collection is optimized meanwhile (a merge and an index build). Prints the
// recall of `mode: auto` against exact answers, latencies of searches when nothing happens, during
// the changes and during the build, and of the writes.
//
//   churn FILE.hdf5 DIRECTORY [seconds = 20]
//
// The searching thread has CPU 0 to itself; writer, builds and everything else of the engine are on
// CPU 1. Truth: for one search in kAuditOneIn no batch is being written, and the same query is
// asked exactly, so both answers are of one state. Recall is by distance. Latencies are of the
// others.
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "aionbd/aionbd.h"
#include "base/mutex.h"
#include "base/rng.h"
#include "cli/ann_truth.h"

namespace {

using namespace aionbd;
using SteadyClock = std::chrono::steady_clock;

constexpr double kTarget = 0.95;
constexpr double kRecallSlack = 0.02;
constexpr double kSlowdownMax = 3;
constexpr uint32_t kHits = 10;
/// Share of the file's rows that are stored first; the others replace a fifth of them.
constexpr double kStoredShare = 5.0 / 6;
constexpr double kReplacedShare = 0.2;
constexpr size_t kWriteRows = 64;
constexpr size_t kAuditOneIn = 20;
/// Audited searches of one mean: its standard error is about 0.006.
constexpr size_t kWindow = 200;
constexpr double kTolerance = 1e-4;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "churn: %s\n", what.c_str());
  std::exit(1);
}

template <typename T>
T must(Result<T> result, const char* what) {
  if (!result) fail(std::string(what) + ": " + result.error().to_string());
  return std::move(*result);
}

void stay_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set) != 0) {
    std::fprintf(stderr, "churn: no CPU %d to stay on; latencies will mix\n", cpu);
  }
}

double milliseconds(SteadyClock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

/// What happens beside the searches; latencies are sorted by it.
enum class Phase { kQuiet, kWrites, kBuild, kAfter };
constexpr size_t kPhases = 4;

struct Measured {
  std::vector<double> search_ms[kPhases];
  std::vector<double> write_ms[kPhases];
  std::vector<double> recalls[kPhases];
  double build_seconds = 0;
};

/// Thread safety: the members say who may use them.
class Churn {
 public:
  Churn(const std::string& file, const std::string& directory, double seconds)
      : rows_(must(read_rows(file, "train", UINT64_MAX), "train")),
        queries_(must(read_rows(file, "test", UINT64_MAX), "test")),
        seconds_(seconds) {
    stored_ = static_cast<uint64_t>(kStoredShare * static_cast<double>(rows_.rows));
    DatabaseOptions options;
    options.data_dir = directory;
    options.search_threads = 1;
    options.dimension_max = kDimensionCeiling;
    database_ = must(Database::open(options), "open");
    CollectionOptions collection;
    collection.dimension = rows_.dimension;
    collection.metric = Metric::kL2;
    collection_ = must(database_->create_collection("churn", collection), "create");
  }

  Measured run() {
    load();
    std::thread searcher([this] {
      stay_on(0);
      while (!done_.load()) search_once();
    });
    wait(seconds_ / 4);
    enter(Phase::kWrites);
    std::thread watcher([this] { watch_builds(); });
    std::thread writer([this] { replace(); });
    wait(seconds_ / 2);
    const Status optimized = collection_->optimize();
    if (!optimized.ok()) fail("optimize: " + optimized.to_string());
    optimized_.store(true);
    writer.join();
    watching_.store(false);
    watcher.join();
    enter(Phase::kAfter);
    wait(seconds_ / 4);
    done_.store(true);
    searcher.join();
    print_segments();
    return std::move(measured_);
  }

  uint64_t stored() const { return stored_; }

 private:
  static void wait(double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }
  void enter(Phase phase) { phase_.store(phase); }

  void load() {
    for (uint64_t first = 0; first < stored_; first += 512) {
      write(first, std::min<uint64_t>(512, stored_ - first), first);
    }
    const Status optimized = collection_->optimize();
    if (!optimized.ok()) fail("optimize: " + optimized.to_string());
    SearchRequest request = request_of(0, SearchMode::kAuto);
    if (must(collection_->search(request), "search").mode == SearchMode::kExact) {
      fail("searches are exact: there is nothing to measure");
    }
  }

  /// Gives points [first, first + n) the values of rows from `row` on.
  void write(uint64_t first, uint64_t n, uint64_t row) {
    std::vector<Point> points(n);
    for (uint64_t i = 0; i < n; ++i) {
      const auto values = rows_.row((row + i) % rows_.rows);
      points[i].id = PointId(first + i);
      points[i].values.assign(values.begin(), values.end());
    }
    must(collection_->upsert(points), "upsert");
  }

  /// Replaces a fifth of the points, spread over all of them and over the time; then goes on until
  /// the build has ended.
  void replace() {
    const auto wanted = static_cast<uint64_t>(kReplacedShare * static_cast<double>(stored_));
    const uint64_t batches = wanted / kWriteRows;
    const uint64_t stride = stored_ / batches;
    const auto pause = std::chrono::duration<double>(seconds_ / static_cast<double>(batches));
    for (uint64_t batch = 0; batch < batches || !optimized_.load(); ++batch) {
      const uint64_t first = batch % batches * stride;
      const uint64_t row = stored_ + batch * kWriteRows;
      {
        const MutexLock lock(state_);
        const Phase phase = phase_.load();
        const auto start = SteadyClock::now();
        write(first, kWriteRows, row);
        // A write that saw a build begin or end counts as one during the build.
        const Phase after = phase_.load();
        const Phase of = after == Phase::kBuild ? after : phase;
        measured_.write_ms[static_cast<size_t>(of)].push_back(
            milliseconds(SteadyClock::now() - start));
      }
      std::this_thread::sleep_for(pause);
    }
  }

  /// Sets the phase by the engine's own gauge.
  void watch_builds() {
    auto began = SteadyClock::now();
    while (watching_.load()) {
      const bool building = in_flight();
      if (building && phase_.load() == Phase::kWrites) {
        began = SteadyClock::now();
        enter(Phase::kBuild);
      } else if (!building && phase_.load() == Phase::kBuild) {
        enter(Phase::kWrites);
        measured_.build_seconds =
            std::max(measured_.build_seconds, milliseconds(SteadyClock::now() - began) / 1000);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  bool in_flight() const {
    for (const MetricSample& sample : database_->metrics()) {
      if (sample.row->name == "l2_index_build_in_flight") return sample.value > 0;
    }
    fail("the engine has no gauge of builds in flight");
  }

  /// What an answer is put together from when all is over.
  void print_segments() const {
    SearchRequest request = request_of(0, SearchMode::kAuto);
    request.explain = true;
    const SearchResult result = must(collection_->search(request), "search");
    for (const SegmentPlan& part : result.plan) {
      std::printf("segment of %llu rows: %s\n", static_cast<unsigned long long>(part.rows),
                  part.plan.c_str());
    }
  }

  SearchRequest request_of(uint64_t query, SearchMode mode) const {
    SearchRequest request;
    request.query = queries_.row(query);
    request.limit = kHits;
    request.mode = mode;
    request.include_payload = false;
    if (mode == SearchMode::kAuto) request.target_recall = kTarget;
    return request;
  }

  void search_once() {
    const uint64_t query = rng_.below(queries_.rows);
    const Phase phase = phase_.load();
    if (++searches_ % kAuditOneIn == 0) {
      const MutexLock lock(state_);
      measured_.recalls[static_cast<size_t>(phase)].push_back(recall_of(query));
      return;
    }
    const auto start = SteadyClock::now();
    must(collection_->search(request_of(query, SearchMode::kAuto)), "search");
    const double took = milliseconds(SteadyClock::now() - start);
    if (phase_.load() == phase) measured_.search_ms[static_cast<size_t>(phase)].push_back(took);
  }

  double recall_of(uint64_t query) const {
    const auto found = must(collection_->search(request_of(query, SearchMode::kAuto)), "search");
    const auto truth = must(collection_->search(request_of(query, SearchMode::kExact)), "search");
    if (truth.mode != SearchMode::kExact || truth.hits.size() != kHits) fail("no exact answer");
    const double last = truth.hits.back().score * (1 + kTolerance);
    const auto right = std::count_if(found.hits.begin(), found.hits.end(),
                                     [&](const Hit& hit) { return hit.score <= last; });
    return static_cast<double>(right) / kHits;
  }

  const FloatRows rows_;
  const FloatRows queries_;
  const double seconds_;
  uint64_t stored_ = 0;
  std::unique_ptr<Database> database_;
  std::shared_ptr<Collection> collection_;
  Mutex state_;  // held while the state changes, or must not
  std::atomic<Phase> phase_{Phase::kQuiet};
  std::atomic<bool> done_{false};
  std::atomic<bool> optimized_{false};
  std::atomic<bool> watching_{true};
  // Each list has one writing thread: searches and recalls the searcher's, writes the writer's.
  Measured measured_;
  Rng rng_{20261123};
  size_t searches_ = 0;
};

double mean(const std::vector<double>& values, size_t first, size_t n) {
  double sum = 0;
  for (size_t i = first; i < first + n; ++i) sum += values[i];
  return n == 0 ? 0 : sum / static_cast<double>(n);
}

const char* verdict(bool good) {
  return good ? "met" : "MISSED";
}

void print(const Measured& measured) {
  constexpr const char* kNames[kPhases] = {"quiet", "writes", "writes and build", "afterwards"};
  std::printf("%-18s %9s %9s %9s %8s %8s %9s %9s %9s\n", "", "searches", "p50 us", "p99 us",
              "audited", "recall", "writes", "p50 ms", "max ms");
  std::vector<double> recalls;
  for (size_t p = 0; p < kPhases; ++p) {
    const auto& search = measured.search_ms[p];
    const auto& write = measured.write_ms[p];
    const auto& recall = measured.recalls[p];
    std::printf("%-18s %9zu %9.0f %9.0f %8zu %8.4f %9zu %9.2f %9.2f\n", kNames[p], search.size(),
                1000 * percentile(search, 0.5), 1000 * percentile(search, 0.99), recall.size(),
                mean(recall, 0, recall.size()), write.size(), percentile(write, 0.5),
                percentile(write, 1));
    if (p > 0) recalls.insert(recalls.end(), recall.begin(), recall.end());
  }
  double lowest = 1;
  for (size_t first = 0; first + kWindow <= recalls.size(); first += kWindow) {
    lowest = std::min(lowest, mean(recalls, first, kWindow));
  }
  const auto p99 = [&](Phase phase) {
    return percentile(measured.search_ms[static_cast<size_t>(phase)], 0.99);
  };
  const double slowdown = p99(Phase::kBuild) / p99(Phase::kQuiet);
  const double longest = percentile(measured.write_ms[static_cast<size_t>(Phase::kBuild)], 1);
  const bool built = measured.build_seconds > 0;
  std::printf("\nlowest recall of %zu searches  %.4f   at least %.2f: %s\n", kWindow, lowest,
              kTarget - kRecallSlack, verdict(lowest >= kTarget - kRecallSlack));
  std::printf("p99 during a build / quiet   %.2f     at most %.0f: %s\n", slowdown, kSlowdownMax,
              verdict(built && slowdown <= kSlowdownMax));
  std::printf("longest write in a build     %.0f ms of %.1f s   less than a tenth: %s\n", longest,
              measured.build_seconds, verdict(built && longest < 100 * measured.build_seconds));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) fail("usage: churn FILE.hdf5 DIRECTORY [SECONDS]");
  const double seconds = argc > 3 ? std::atof(argv[3]) : 20;
  if (!(seconds >= 1 && seconds <= 3600)) fail("SECONDS: from 1 to 3600");
  stay_on(1);  // inherited by every thread that is not told otherwise
  Churn churn(argv[1], argv[2], seconds);
  print(churn.run());
  return 0;
}
