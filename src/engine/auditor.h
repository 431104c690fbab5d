// Keeps the promise of recall honest: asks real queries again, exactly, and compares.
//
// Calibration measured each index on rows of its own segment that were held out. The queries that
// are really asked may be unlike the rows (text asked of images, questions asked of answers), and
// then a walk finds less than the curve says. So a sample of the queries that indexes answered is
// kept (auditor_samples.h), and in idle time one after another is answered twice on one view: as
// the plan of now answers it, and exactly. The share of true hits, by distance, is what the answer
// was worth; beside it stands the recall that it claimed.
//
// When the truth of a group of queries is below what was promised, by more than chance explains,
// their curve is measured again on themselves: on each indexed segment every kept query is asked at
// rising width, and the curve found takes the place of the calibrated one in plans. Its estimate is
// what was measured, and its bound the lower of both, so that the promise holds again; where no
// width is enough, plans read everything. The opposite, recall well above the estimate, corrects
// the estimate alone. Such curves live in memory, with their segment: after a restart or a merge
// the samples show the drift anew.
//
// It is one thread of the lowest priority, which sleeps until a query was kept, waits for a moment
// without searches, does one query's work, and rests 99 times as long as that took, or nine times
// while a promise that was found broken waits for its curve.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/thread_pool.h"
#include "engine/context.h"
#include "engine/search.h"
#include "engine/stored_collection.h"

namespace aionbd {

/// Measures the curves of one group of queries on the segments of one view.
/// Thread safety: single owner.
class CurveMeasurement {
 public:
  CurveMeasurement(std::shared_ptr<StoredCollection> collection, std::shared_ptr<const View> view,
                   size_t group, AuditVerdict why,
                   std::vector<std::shared_ptr<const AuditedQuery>> queries);

  StoredCollection& collection() const { return *collection_; }
  bool finished() const { return next_ == queries_.size(); }
  /// Until it is attached, answers claim more than they hold.
  bool mends_promise() const { return why_ == AuditVerdict::kTooOptimistic; }
  /// Asks the next query at every setting. Errors: as search_view. REQUIRES: !finished().
  Status step(const SearchEnvironment& environment, Deadline deadline);
  /// Puts what was measured in the place of the curves. REQUIRES: finished().
  void attach() const;

 private:
  /// One indexed segment.
  struct Part {
    View view;  // of this segment alone
    std::shared_ptr<const SealedSegment> segment;
    std::shared_ptr<const VectorIndex> index;
    std::vector<uint32_t> settings;  // widths, or numbers of lists; ascending
    std::vector<ShareMean> recall;   // for each of them
  };
  Status measure(const SearchEnvironment& environment, const AuditedQuery& query, Deadline deadline,
                 Part& part) const;
  std::vector<uint32_t> settings_of(const VectorIndex& index) const;
  std::vector<RecallPoint> curve_of(const Part& part, std::span<const RecallPoint> now) const;
  std::span<const RecallPoint> calibrated(const VectorIndex& index) const;

  const std::shared_ptr<StoredCollection> collection_;
  const AuditGroup group_;
  const AuditVerdict why_;
  const std::vector<std::shared_ptr<const AuditedQuery>> queries_;
  std::vector<Part> parts_;
  size_t next_ = 0;
};

/// Thread safety: safe.
class Auditor {
 public:
  using Collections = std::vector<std::shared_ptr<StoredCollection>>;
  Auditor(std::shared_ptr<EngineContext> context, std::function<Collections()> collections);
  ~Auditor();

  /// Begins to work in the background. Once.
  void start();
  /// A query was kept.
  void wake();
  /// The work of one query, on the caller's thread: an audit, or one step of measuring a curve.
  /// False when nothing is left to do.
  bool run_once();
  /// Gives up what is in progress; returns when the thread has ended. By the owner only.
  void stop();

 private:
  /// Time as it is, until the auditor stops: then it is over, so that a search in progress ends at
  /// its next look at the clock. Thread safety: safe.
  class EndingClock final : public Clock {
   public:
    EndingClock(const Clock& clock, const std::atomic<bool>& ended)
        : clock_(clock), ended_(ended) {}
    MonotonicTime now() const override { return ended_ ? MonotonicTime::max() : clock_.now(); }

   private:
    const Clock& clock_;
    const std::atomic<bool>& ended_;
  };
  /// When a group's curve was last measured.
  struct Measured {
    uint64_t rows = 0;   // what was indexed then
    uint64_t taken = 0;  // queries taken by then
  };

  /// False when there is none to be had.
  bool start_thread() REQUIRES(wake_mutex_);
  void run();
  bool wait_for_work();
  /// Returns when no search has ended for a while, or it took too long to see that.
  void wait_for_quiet();
  MonotonicTime::duration rest_after(MonotonicTime::duration work);
  /// False when stopped.
  bool pause(MonotonicTime::duration time);
  SearchEnvironment environment() const;
  bool audit_next(const std::shared_ptr<StoredCollection>& collection) REQUIRES(work_mutex_);
  Result<AuditOutcome> audit(const StoredCollection& collection, const View& view,
                             const AuditedQuery& query) const;
  void consider(const std::shared_ptr<StoredCollection>& collection,
                const std::shared_ptr<const View>& view, const QuerySamples::IndexesNow& now,
                size_t group) REQUIRES(work_mutex_);
  void step_measurement() REQUIRES(work_mutex_);

  // Constant after construction.
  const std::shared_ptr<EngineContext> context_;
  const std::function<Collections()> collections_;
  const EndingClock clock_;
  /// No helpers: they would not have the low priority.
  mutable ThreadPool pool_{0};

  std::atomic<bool> stopping_{false};
  /// Held for the work of one query.
  Mutex work_mutex_;
  std::unique_ptr<CurveMeasurement> measurement_ GUARDED_BY(work_mutex_);
  std::map<std::pair<CollectionUid, size_t>, Measured> measured_ GUARDED_BY(work_mutex_);
  size_t turn_ GUARDED_BY(work_mutex_) = 0;  // the collection that is looked at first

  Mutex wake_mutex_;
  CondVar wake_;
  bool due_ GUARDED_BY(wake_mutex_) = false;
  bool started_ GUARDED_BY(wake_mutex_) = false;
  std::thread thread_ GUARDED_BY(wake_mutex_);  // from the first query that is kept
};

}  // namespace aionbd
