// Sees to it that large sealed segments get the indexes their searches want.
//
// One thread, beside writes and checkpoints: it opens the index files the catalog names (at start,
// or at the first search), builds what is missing from an immutable segment, and hands the finished
// file to maintenance, which makes it part of the store in one step. Until then searches are
// answered exactly. A segment that is merged away while its index is built costs that build.
//
// Segments without an index are first merged into one when together they are worth it (a fixed
// share of the indexed rows), so that a collection that grows has few indexes, each row is merged
// and indexed O(log n) times, and at most that share is ever read without one.
//
// With a memory budget, segments are merged only up to the rows whose index can be built within it,
// a build holds its memory while it runs, and waits where open rows hold it (pinning.h).
//
// Large segments with payloads get a field index, too, once a filter was asked. It takes a
// thousandth of the time, so it comes first and waits for no merge.
//
// A damaged index file is dropped and built again; the rows themselves are in the segment.
#pragma once

#include <functional>
#include <map>
#include <memory>
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

  /// Something may be due.
  void wake();
  /// Builds what is missing for one collection, on the caller's thread.
  Status build_all(StoredCollection& collection);
  /// Gives up the build in progress and begins no other; returns when the thread has ended. By the
  /// owner only.
  void stop();

 private:
  void run();
  bool wait_for_work();
  /// One step for one collection: true when something was done and more may be left.
  Result<bool> step(StoredCollection& collection, Metric metric, uint64_t rows_min)
      REQUIRES(work_mutex_);
  /// The same for the index of the payloads.
  Result<bool> step_fields(StoredCollection& collection, uint64_t rows_min) REQUIRES(work_mutex_);
  /// Opens the index files of one kind that are not open yet.
  Status open_stored(StoredCollection& collection, IndexKind kind, Metric metric)
      REQUIRES(work_mutex_);
  Status build(StoredCollection& collection, const std::shared_ptr<const SealedSegment>& segment,
               Metric metric) REQUIRES(work_mutex_);
  Status build_fields(StoredCollection& collection,
                      const std::shared_ptr<const SealedSegment>& segment) REQUIRES(work_mutex_);
  /// Merges some of the segments without an index where that pays; true when it did.
  Result<bool> merge_bare(StoredCollection& collection, const std::vector<SegmentView>& bare,
                          uint64_t worth, uint64_t rows_max) REQUIRES(work_mutex_);
  /// Makes room in the budget for a build; seals open rows if they hold it.
  Result<Pinning::Build> room_for_build(const SealedSegment& segment) REQUIRES(work_mutex_);
  /// Counts and tells, once, that something waits for memory.
  void note_memory(const std::string& what) REQUIRES(work_mutex_);
  Result<std::shared_ptr<SegmentFile>> write_index(
      StoredCollection& collection, const std::shared_ptr<const SealedSegment>& segment,
      Metric metric) REQUIRES(work_mutex_);
  /// Runs one build, counted.
  Status counted(const std::function<Status()>& build);
  /// Not now: a build failed a while ago, or the rows do not suit an index.
  bool put_off(SegmentId segment, Metric metric) const REQUIRES(work_mutex_);
  void note_failure(const StoredCollection& collection, SegmentId segment, Metric metric,
                    const Status& why) REQUIRES(work_mutex_);

  // Constant after construction.
  const std::shared_ptr<EngineContext> context_;
  const std::function<Collections()> collections_;
  Maintenance& maintenance_;
  Pinning& pinning_;

  std::atomic<bool> stopping_{false};
  /// Held for a whole step. Before maintenance's job lock in the lock order.
  Mutex work_mutex_;
  /// When a build that failed may be tried again.
  std::map<std::pair<SegmentId, Metric>, MonotonicTime> not_before_ GUARDED_BY(work_mutex_);
  bool memory_told_ GUARDED_BY(work_mutex_) = false;

  Mutex wake_mutex_;
  CondVar wake_;
  bool due_ GUARDED_BY(wake_mutex_) = false;
  MonotonicTime rest_until_ GUARDED_BY(wake_mutex_) = MonotonicTime();
  std::thread thread_;
};

}  // namespace aionbd
