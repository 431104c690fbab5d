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
//
// Segments that have an index are not merged here: the merged rows would be searched without one
// for as long as a build takes. The keeper of indexes (index_keeper.h) merges them in two steps,
// begin_merge and finish_merge, and builds the index between them, outside the lock. Checkpoints go
// on meanwhile, so rows may also die in what those seal. finish_merge writes such deaths down once
// more, as deaths of merged rows, in a segment of their own: the next merge takes it away.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <utility>
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
  /// Has a thread of its own seal the open rows, so that no caller waits. Without one to be had:
  /// not now.
  void seal_soon() EXCLUDES(wake_mutex_);
  /// Has that thread give open rows the codes that collections ask for.
  void code_soon() EXCLUDES(wake_mutex_);
  /// Seals all open rows and shortens the log; then compacts where due.
  Status checkpoint();

  /// Segments set aside: nobody else merges them. Thread safety: single owner.
  class Claim {
   public:
    Claim(Claim&& other) noexcept
        : maintenance_(std::exchange(other.maintenance_, nullptr)), ids_(std::move(other.ids_)) {}
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;
    Claim& operator=(Claim&& other) noexcept {
      std::swap(maintenance_, other.maintenance_);
      ids_.swap(other.ids_);
      return *this;
    }
    ~Claim() {
      if (maintenance_ != nullptr) maintenance_->release(ids_);
    }

   private:
    friend class Maintenance;
    Claim(Maintenance* maintenance, std::vector<SegmentId> ids)
        : maintenance_(maintenance), ids_(std::move(ids)) {}
    Maintenance* maintenance_;
    std::vector<SegmentId> ids_;
  };
  /// Nothing, when one of them is set aside already or no longer there.
  std::optional<Claim> claim(const StoredCollection& collection,
                             const std::vector<SegmentView>& segments);
  /// The sealed segments that are not set aside.
  std::vector<SegmentView> free_segments(const StoredCollection& collection);

  /// A merge that is not part of the store yet; its file is garbage until then.
  struct Merge {
    std::vector<SegmentView> inputs;
    std::shared_ptr<const SealedSegment> merged;  // null: nothing is left of them
    bool published = false;
  };
  /// Writes the live rows of these segments, which the caller has set aside, as one. On a full disk
  /// it is published at once: until then both hold space, for as long as building an index takes.
  /// Errors: resource_exhausted: it would not fit the memory budget now.
  Result<Merge> begin_merge(StoredCollection& collection, const std::vector<SegmentView>& segments);
  /// Puts the merged segment, with its indexes, in the place of its inputs. The caller has attached
  /// them already, so that no search finds it without.
  Status finish_merge(StoredCollection& collection, const Merge& merge,
                      const std::vector<CataloguedIndex>& indexes);
  /// Makes a finished index file part of the store, if its segment still is; false if it is not.
  Result<bool> adopt_index(StoredCollection& collection, const CataloguedIndex& index);
  /// Forgets an index file that turned out damaged.
  Status drop_index(StoredCollection& collection, SegmentId file);
  /// The indexes the catalog names for a collection.
  std::vector<CataloguedIndex> indexes_of(const StoredCollection& collection);
  /// A state of the store to copy; waits for a job in progress. As Storage::cut.
  Result<std::shared_ptr<const BackupSource>> cut();
  /// Returns when the job in progress, if there is one, has ended. REQUIRES: no lock of a
  /// collection.
  void wait_for_job() EXCLUDES(job_mutex_);
  /// No new background job.
  void stop();

 private:
  struct Sealed {
    std::shared_ptr<StoredCollection> collection;
    FrozenRows frozen;
    std::vector<std::shared_ptr<const SealedSegment>> segments;  // per part; null: nothing left
  };

  /// What a published manifest says and the views do not say yet: only memory can be missing for
  /// it, so it is done before the next job at the latest.
  struct Replacement {
    std::shared_ptr<StoredCollection> collection;
    std::vector<SegmentView> removed;
    std::vector<std::shared_ptr<const SealedSegment>> added;  // none: nothing is left
  };

  void run_in_background();
  void run_due();
  void code_open_rows();
  bool start_thread() REQUIRES(wake_mutex_);
  Status run_checkpoint() REQUIRES(job_mutex_);
  Status checkpoint_locked() REQUIRES(job_mutex_);
  /// Publishes what `catalogued` says of the collections, then replaces. All or nothing, but for
  /// the replacing.
  struct Change {
    std::shared_ptr<StoredCollection> collection;
    StoredCollection::Catalogued catalogued;
  };
  Status publish_changes(std::vector<Change> changes, std::vector<Replacement> replacements,
                         Lsn replay_after) REQUIRES(job_mutex_);
  /// Errors: resource_exhausted, and what is left is tried again.
  Status finish_replacements() REQUIRES(job_mutex_);
  Status seal(Sealed& job) REQUIRES(job_mutex_);
  /// Codes for a segment that is not published yet, if searches are waiting to read its rows.
  void add_codes(const StoredCollection& collection, const SealedSegment& segment)
      REQUIRES(job_mutex_);
  Status publish(Lsn replay_after) REQUIRES(job_mutex_);
  Status compact_due() REQUIRES(job_mutex_);
  Result<Merge> write_merged(StoredCollection& collection, std::vector<SegmentView> inputs)
      REQUIRES(job_mutex_);
  std::shared_ptr<StoredCollection> shared(const StoredCollection& collection) const;
  Result<Merge> write_within_budget(StoredCollection& collection, std::vector<SegmentView> inputs)
      REQUIRES(job_mutex_);
  Status publish_merged(StoredCollection& collection, const Merge& merge,
                        const std::vector<CataloguedIndex>& indexes) REQUIRES(job_mutex_);
  /// The same, and what its errors mean for the collection.
  Status publish_now(StoredCollection& collection, const Merge& merge,
                     const std::vector<CataloguedIndex>& indexes) REQUIRES(job_mutex_);
  /// A segment without rows for the deaths that the merge did not see; null when there are none.
  Result<std::shared_ptr<const SealedSegment>> write_later_kills(const StoredCollection& collection,
                                                                 const Merge& merge)
      REQUIRES(job_mutex_);
  std::vector<SegmentView> free_segments_locked(const StoredCollection& collection)
      REQUIRES(job_mutex_);
  void release(const std::vector<SegmentId>& ids);

  // Constant after construction.
  const std::shared_ptr<EngineContext> context_;
  const std::function<Collections()> collections_;

  /// Held for a whole job. Before the engine's name map in the lock order.
  Mutex job_mutex_;
  Lsn replay_after_ GUARDED_BY(job_mutex_);
  std::set<SegmentId> claimed_ GUARDED_BY(job_mutex_);
  std::vector<Replacement> replacements_ GUARDED_BY(job_mutex_);
  std::atomic<bool> busy_{false};
  std::atomic<MonotonicTime> rest_until_{MonotonicTime()};  // no checkpoint by itself before

  Mutex wake_mutex_;
  CondVar wake_;
  bool due_ GUARDED_BY(wake_mutex_) = false;
  bool codes_due_ GUARDED_BY(wake_mutex_) = false;
  bool stopping_ GUARDED_BY(wake_mutex_) = false;
  std::thread thread_ GUARDED_BY(wake_mutex_);  // with async_checkpoints, or from seal_soon on
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
