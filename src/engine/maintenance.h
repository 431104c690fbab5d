// Checkpoint and compaction: make new immutable files, then publish a new list.
//
// A checkpoint starts a new log file, retires every open segment, writes each as a sorted,
// immutable file, and publishes a manifest that names them and lets the log before go. So the log
// to replay at start is bounded, and disk grows with the data, not with its history.
//
// Compaction is size-tiered: when a collection has `compact_after` segments, the smallest ones are
// merged, as many as can be such that the largest of them is no larger than the others together.
// The segment a row lives in then at least doubles with each merge, so a row is rewritten at most
// log2(n) times and the whole work of a point-by-point load is O(n log n); and segments that cannot
// be merged under this rule grow at least geometrically, so their number is logarithmic. A segment
// that is mostly dead rows is rewritten alone, which its dead rows pay for.
//
// Under a storm of small writes a checkpoint would be due again as soon as one ends. It rests for
// four times as long as the last one took (kRestMax at most), so checkpoints take at most a fifth
// of the disk's time, and the log they leave to replay grows by milliseconds of writes only.
//
// With a memory budget, segments are merged only up to what can be indexed within it.
//
// One job at a time per database, under one lock: a checkpoint never runs beside a compaction, so
// the rows being merged can die only in unsealed segments, whose records are still in the log.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "engine/catalog.h"
#include "engine/context.h"
#include "engine/stored_collection.h"

namespace aionbd {

/// Thread safety: safe.
class Maintenance {
 public:
  using Collections = std::vector<std::shared_ptr<StoredCollection>>;
  /// `collections` gives all that exist now, those being created or dropped included.
  Maintenance(std::shared_ptr<EngineContext> context, std::function<Collections()> collections,
              Lsn replay_after);
  /// Waits for a job in progress.
  ~Maintenance();

  /// Runs or schedules what the writes since the last checkpoint made due.
  void after_write();
  /// Seals all open rows and shortens the log; then compacts where due.
  Status checkpoint();
  /// Merges all segments of one collection into one, or into as few as can be indexed within the
  /// memory budget.
  Status optimize(StoredCollection& collection);
  /// Merges these sealed segments, if all of them are still there.
  Status merge_segments(StoredCollection& collection, const std::vector<SegmentId>& segments);
  /// Makes a finished index file part of the store, if its segment still is; false if it is not.
  Result<bool> adopt_index(StoredCollection& collection, const CataloguedIndex& index);
  /// Forgets an index file that turned out damaged.
  Status drop_index(StoredCollection& collection, SegmentId file);
  /// The indexes the catalog names for a collection.
  std::vector<CataloguedIndex> indexes_of(const StoredCollection& collection);
  /// No new background job.
  void stop();

 private:
  struct Sealed {
    std::shared_ptr<StoredCollection> collection;
    FrozenRows frozen;
    std::vector<std::shared_ptr<const SealedSegment>> segments;  // per part; null: nothing left
  };

  void run_in_background();
  void run_due();
  Status checkpoint_locked() REQUIRES(job_mutex_);
  Status seal(Sealed& job) REQUIRES(job_mutex_);
  Status publish(Lsn replay_after) REQUIRES(job_mutex_);
  Status compact_due() REQUIRES(job_mutex_);
  Status merge(StoredCollection& collection, const std::vector<SegmentView>& inputs)
      REQUIRES(job_mutex_);
  Status merge_within_budget(StoredCollection& collection, const std::vector<SegmentView>& inputs)
      REQUIRES(job_mutex_);

  // Constant after construction.
  const std::shared_ptr<EngineContext> context_;
  const std::function<Collections()> collections_;

  /// Held for a whole job. Before the engine's name map in the lock order.
  Mutex job_mutex_;
  Lsn replay_after_ GUARDED_BY(job_mutex_);
  std::atomic<bool> busy_{false};
  std::atomic<MonotonicTime> rest_until_{MonotonicTime()};  // no checkpoint by itself before

  Mutex wake_mutex_;
  CondVar wake_;
  bool due_ GUARDED_BY(wake_mutex_) = false;
  bool stopping_ GUARDED_BY(wake_mutex_) = false;
  std::thread thread_;  // with async_checkpoints
};

/// Which of the sealed segments to merge now; empty: none. `inputs` may be in any order. What is
/// merged has at most `rows_max` rows.
std::vector<SegmentView> choose_merge(std::vector<SegmentView> sealed, uint32_t compact_after,
                                      uint64_t rows_max = kSegmentRowsMax);

/// The sealed segments in as few groups of at most `rows_max` live rows as a simple rule finds;
/// groups that would stay as they are left out.
std::vector<std::vector<SegmentView>> groups_to_merge(std::vector<SegmentView> sealed,
                                                      uint64_t rows_max = kSegmentRowsMax);

}  // namespace aionbd
