// Recent real queries of one collection, kept to be asked again exactly, and what came of it.
//
// The search path pays a counter for each answer, and a copy of the query for one answer in many;
// it never waits: when the auditor holds the lock, the query is not taken. Memory is bounded by
// number and bytes, and reserved in the budget.
//
// Queries that are answered from different curves (metric, number of hits, graph or lists, with or
// without a filter) are kept apart, so that each curve is judged by its own queries. Within a group
// a new query takes the place of a random one: the older a query, the less likely it is still here.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "aionbd/collection.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "engine/budget.h"
#include "index/vector_index.h"

namespace aionbd {

/// Queries whose recall is promised by the same curve.
struct AuditGroup {
  Metric metric = Metric::kDot;
  bool filtered = false;
  bool lists = false;  // answered by visiting lists, else by walking a graph
  size_t hits = 0;     // index in kCalibratedHits

  static constexpr size_t kCount = kMetricsCount * 2 * 2 * kCalibratedHits.size();
  size_t number() const;
  static AuditGroup of_number(size_t number);
};

/// One query as it was asked. Thread safety: immutable.
struct AuditedQuery {
  explicit AuditedQuery(MemoryBudget* budget) : reservation(budget) {}

  AuditGroup group;
  std::vector<float> values;
  std::optional<Filter> filter;
  /// Points into this object; asks for ids and scores of all hits down to the deepest one.
  SearchRequest request;
  Reservation reservation;
};

/// What one audit found.
struct AuditOutcome {
  double promised = 0;   // recall_at_k of a fresh answer
  double measured = 0;   // share of the true hits that it holds
  double target = 0;     // what the caller asked for; 0: nothing
  size_t hits = 0;       // true hits; 0: nothing could be said, counts nowhere
  uint64_t indexes = 0;  // which indexes and curves it was about
  MonotonicTime at;
};

/// A mean of shares with the error of the mean. Thread safety: single owner.
class ShareMean {
 public:
  /// `trials`: how many hits the share is of.
  void add(double share, size_t trials);
  size_t count() const { return count_; }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }
  /// Standard error of the mean, as seen between the shares; 1 when there are fewer than two.
  double spread() const;
  /// The same, but no less than chance would make of so many hits, which says something even when
  /// all shares are 1. REQUIRES: shares from 0 to 1.
  double error() const;

 private:
  size_t count_ = 0;
  double sum_ = 0;
  double squares_ = 0;
  double trials_ = 0;
  double found_ = 0;
};

/// What the outcomes of one group say about its promise.
enum class AuditVerdict {
  kHolds,           // or too little is known
  kTooOptimistic,   // the truth is below the promise: drift
  kTooPessimistic,  // the truth is well above the estimate: the curve is about other queries
};

AuditVerdict judge(std::span<const AuditOutcome> outcomes);

/// Thread safety: safe.
class QuerySamples {
 public:
  /// Queries kept of a group: the error of a recall of 0.95 at 10 hits is then about 0.01.
  static constexpr size_t kPerGroup = 64;
  /// Bytes kept of a collection.
  static constexpr size_t kBytesMax = size_t{1} << 20;
  /// The first answers of a group are all taken, then one in so many.
  static constexpr uint64_t kAllOfFirst = kPerGroup;
  static constexpr uint64_t kOneIn = 64;

  explicit QuerySamples(MemoryBudget* budget) : budget_(budget) {}

  /// Looks at the answers of one search call; at most one of its queries is kept. True when one
  /// was. Never waits.
  bool note(const SearchRequest& request, std::span<const std::span<const float>> queries,
            std::span<const SearchResult> results);

  bool empty() const { return kept_.load(std::memory_order_relaxed) == 0; }

  /// For a metric, with and without a filter: what answers depend on besides rows. An audit of
  /// other indexes is out of date.
  using IndexesNow = std::array<std::array<uint64_t, 2>, kMetricsCount>;
  /// A query that was not audited with the indexes of now; null when there is none.
  std::shared_ptr<const AuditedQuery> next(const IndexesNow& now) const;
  /// Forgotten when the query is not kept any more.
  void record(const AuditedQuery& query, const AuditOutcome& outcome);

  struct GroupState {
    std::vector<std::shared_ptr<const AuditedQuery>> queries;
    std::vector<AuditOutcome> outcomes;  // of those audited with the indexes of now
    uint64_t taken = 0;                  // queries ever taken
  };
  GroupState group(size_t number, const IndexesNow& now) const;

  void note_drift();
  /// A curve was measured again.
  void note_measured();
  RecallAudit summary(MonotonicTime now) const;

 private:
  struct Slot {
    std::shared_ptr<const AuditedQuery> query;
    std::optional<AuditOutcome> outcome;
  };
  struct Group {
    std::vector<Slot> slots;
    uint64_t taken = 0;
  };

  std::shared_ptr<const AuditedQuery> copy(const SearchRequest& request,
                                           std::span<const float> values,
                                           const SearchResult& result) const;
  void put(std::shared_ptr<const AuditedQuery> query, uint64_t random) REQUIRES(mutex_);
  void remove(Group& group, size_t slot) REQUIRES(mutex_);

  MemoryBudget* const budget_;
  /// Per group: answers that could have been taken.
  std::array<std::atomic<uint64_t>, AuditGroup::kCount> seen_{};
  std::atomic<size_t> kept_{0};

  mutable Mutex mutex_;
  std::array<Group, AuditGroup::kCount> groups_ GUARDED_BY(mutex_);
  size_t bytes_ GUARDED_BY(mutex_) = 0;
  uint64_t drifts_ GUARDED_BY(mutex_) = 0;
  uint64_t measured_ GUARDED_BY(mutex_) = 0;
};

/// The share of the true hits that an answer holds, by distance: rows that tie with the last true
/// hit are as good as it.
double share_found(const SearchResult& answer, const SearchResult& truth);

}  // namespace aionbd
