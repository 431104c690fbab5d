// Sees to it that sealed segments get the indexes their searches want.
//
// A few threads, beside writes and checkpoints: they open the index files the catalog names (at
// start, or at the first search), build what is missing from immutable segments, and hand the
// finished files to maintenance, which makes them part of the store in one step.
//
// What is due. Rows without an index are read one by one by every search, so they are worth one
//   - when they are a fixed share of the indexed rows: a load that nobody searches yet is merged
//     and indexed in large pieces, each row O(log n) times;
//   - when searches have read them so often that building would have been cheaper: then far fewer
//     are enough. (Whoever rents until the rent paid equals the price pays at most twice the best,
//     as ski rental has it.)
// The segments they are in are merged into one first. So are, with them, indexed segments that are
// no larger than they, because each more costs each search a walk: sizes at least double, and
// there are O(log n).
//
// Segments with an index are merged only together with a build of the new one (maintenance.h):
// until it is finished the old ones answer. Two builds do not touch the same segments; a small one
// does not wait for a large one.
//
// With a memory budget, segments are merged only up to the rows whose index can be built within it,
// a build holds its memory while it runs, and waits where open rows hold it (pinning.h); there is
// one at a time.
//
// Large segments with payloads get a field index, too, once a filter was asked. It takes a
// thousandth of the time, so it comes first and waits for no merge.
//
// A damaged index file is dropped and built again; the rows themselves are in the segment.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "engine/context.h"
#include "engine/maintenance.h"
#include "engine/pinning.h"

namespace aionbd {

/// Thread safety: safe.
class IndexKeeper {
 public:
  using Collections = std::vector<std::shared_ptr<StoredCollection>>;
  IndexKeeper(std::shared_ptr<EngineContext> context, std::function<Collections()> collections,
              Maintenance& maintenance, Pinning& pinning);
  ~IndexKeeper();

  /// Something may be due. Starts the threads when there is anything to index for the first time.
  void wake() EXCLUDES(wake_mutex_);
  /// Seals what is open, merges all segments of a collection into one, or into as few as can be
  /// indexed within the memory budget, and builds what indexes are missing, on the caller's thread.
  /// Waits for builds in progress.
  Status optimize(StoredCollection& collection) EXCLUDES(work_mutex_);
  /// Gives up the builds in progress and begins no other; returns when the threads have ended. By
  /// the owner only.
  void stop() EXCLUDES(wake_mutex_);

 private:
  enum class Task { kIndex, kFields, kMerge };
  /// Work on segments that are set aside for it.
  struct Job {
    Task task;
    Metric metric;
    std::vector<SegmentView> inputs;
    Maintenance::Claim claim;
  };
  /// The segments nobody works on, by whether they have the index for a metric.
  struct Supply {
    std::vector<SegmentView> bare;   // without any index: may be merged
    std::vector<SegmentView> other;  // with an index for another metric
    std::vector<SegmentView> with;
    uint64_t rows_bare = 0;
    uint64_t rows_other = 0;
    uint64_t rows_with = 0;
  };
  /// What is worth a build now.
  struct Terms {
    bool asked;         // searches have paid for one
    uint64_t rows_min;  // of a segment
    uint64_t rows_max;  // of a segment that is merged
    uint64_t worth;     // rows without an index that make a build due
  };

  void start_threads() REQUIRES(wake_mutex_);
  void run();
  bool wait_for_work();
  /// When a build may begin.
  enum class Pace { kNow, kAfterLoad };
  /// One step for one collection: true when something was done and more may be left.
  Result<bool> step(StoredCollection& collection, Metric metric, Pace pace) EXCLUDES(work_mutex_);
  /// The same for the index of the payloads.
  Result<bool> step_fields(StoredCollection& collection) EXCLUDES(work_mutex_);
  Status build_missing(StoredCollection& collection) EXCLUDES(work_mutex_);
  /// Merges all but the largest segment, if these are few rows and searches go on.
  std::optional<Job> small_job(StoredCollection& collection) EXCLUDES(work_mutex_);
  std::vector<Job> jobs_of_optimize(StoredCollection& collection) EXCLUDES(work_mutex_);
  /// False when nothing is in progress for the collection; true after something ended.
  bool wait_for_running(const StoredCollection& collection) EXCLUDES(work_mutex_);

  Supply supply_of(const StoredCollection& collection, Metric metric) REQUIRES(work_mutex_);
  Terms terms_of(const StoredCollection& collection, const Supply& supply) const;
  std::optional<Job> choose(StoredCollection& collection, Metric metric, Supply supply,
                            const Terms& terms) REQUIRES(work_mutex_);
  std::optional<Job> set_aside(StoredCollection& collection, Task task, Metric metric,
                               std::vector<SegmentView> inputs) REQUIRES(work_mutex_);
  /// Does a job, counted, and lets go of its segments.
  Status perform(StoredCollection& collection, Job job) EXCLUDES(work_mutex_);
  Status build(StoredCollection& collection, const Job& job);
  Status build_fields(StoredCollection& collection, const Job& job);
  Status merge(StoredCollection& collection, const Job& job);
  /// Builds and attaches the indexes that the collection wants of a segment that is merged of
  /// `inputs` and not part of it yet.
  Result<std::vector<CataloguedIndex>> build_all_of(StoredCollection& collection,
                                                    const SealedSegment& segment,
                                                    std::span<const SegmentView> inputs);
  Result<SegmentIndexes::Entry> build_vector(StoredCollection& collection,
                                             const SealedSegment& segment, Metric metric,
                                             std::span<const SegmentView> inputs);
  /// Opens the index files of one kind that are not open yet.
  Status open_stored(StoredCollection& collection, IndexKind kind, Metric metric)
      REQUIRES(work_mutex_);
  /// Makes room in the budget for a build; seals open rows if they hold it.
  Result<Pinning::Build> room_for_build(const SealedSegment& segment);
  Cancelled cancelled_for(const StoredCollection& collection) const;
  /// Not now: a build failed a while ago, or the rows do not suit an index.
  bool put_off(SegmentId segment, Metric metric) const REQUIRES(work_mutex_);
  /// What a failure means for the next try; what is returned is worth telling.
  Status note_failure(const StoredCollection& collection, SegmentId segment, Metric metric,
                      const Status& why) EXCLUDES(work_mutex_);
  /// Counts and tells, once, that something waits for memory.
  void note_memory(const std::string& what) REQUIRES(work_mutex_);

  // Constant after construction.
  const std::shared_ptr<EngineContext> context_;
  const std::function<Collections()> collections_;
  Maintenance& maintenance_;
  Pinning& pinning_;

  std::atomic<bool> stopping_{false};
  /// Held while work is chosen. Before maintenance's job lock in the lock order.
  Mutex work_mutex_;
  CondVar ended_;
  std::multiset<CollectionUid> running_ GUARDED_BY(work_mutex_);
  /// When a build that failed may be tried again.
  std::map<std::pair<SegmentId, Metric>, MonotonicTime> not_before_ GUARDED_BY(work_mutex_);
  bool memory_told_ GUARDED_BY(work_mutex_) = false;

  Mutex wake_mutex_;
  CondVar wake_;
  std::atomic<bool> due_ = false;  // something may have become due since the last look
  MonotonicTime rest_until_ GUARDED_BY(wake_mutex_) = MonotonicTime();
  std::vector<std::thread> threads_ GUARDED_BY(wake_mutex_);
  std::atomic<bool> started_{false};  // all threads
};

}  // namespace aionbd
