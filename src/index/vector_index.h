// The index of one sealed segment for one metric: codes that bound and estimate distances, a graph
// that proposes candidates, and the measured truth about how many true neighbours it finds.
//
// Every metric is turned into Euclidean distance first, so that everything below knows only that
// one: cosine by dividing by the length; dot by one more coordinate, sqrt(M^2 - |x|^2), which makes
// all rows equally long (Bachrach et al., RecSys 2014) and the query, scaled to length M, nearest
// to the row with the largest inner product.
//
// Rows that have no place there (not finite, too long but under cosine, zero under cosine) are
// "outside": graph and lists do not know them. Their bound is 0, so that exact search looks at them
// anyway; but zero rows under cosine, which no search returns, look farther than all others. There
// may be any number of these; of the others no more than 1 %.
//
// Calibration. Some rows are kept out of the graph until it is built; they are asked as queries
// (under dot, a query is not where an equal row is), their true neighbours are found by reading
// everything, and their recall at rising ef is the curve that `plan` reads. Then they join the
// graph. So the curve is about queries that look like the data, and says what share of true
// neighbours a walk finds, with a confidence bound that counts equal queries once; the caller's own
// queries may be harder, which is what auditing is for.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "aionbd/status.h"
#include "aionbd/types.h"
#include "base/bytes.h"
#include "base/thread_pool.h"
#include "index/graph.h"
#include "index/ivf.h"
#include "quant/plane_codec.h"
#include "quant/projection.h"

namespace aionbd {

/// A stored piece of an index; persistent, never renumber.
enum class IndexPart : uint32_t {
  kHeader = 1,
  kProjection = 2,
  kHigh = 3,
  kLow = 4,
  kStep = 5,
  kNorm = 6,
  kError = 7,
  kNeighbours = 8,
  kEntries = 9,
  kCurve = 10,
  kIvfCentroids = 11,
  kIvfCentroidHigh = 12,
  kIvfRadii = 13,
  kIvfOffsets = 14,
  kIvfMembers = 15,
  kIvfHigh = 16,
  kIvfCurve = 17,
  kIvfBits = 18,
  kIvfDismissed = 19,
};

/// The f32 rows an index is built over. Thread safety: safe.
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual uint32_t rows_count() const = 0;
  virtual uint32_t dimension() const = 0;
  /// Copies rows [first, first + n) to out. Errors: corruption.
  virtual Status read(uint32_t first, size_t n, float* out) const = 0;
};

/// What calibration measured at one setting: the width of a graph walk, or the lists visited.
struct RecallPoint {
  uint32_t k = 0;
  uint32_t ef = 0;
  float recall = 0;  // mean over the held-out queries
  float low = 0;     // its lower 95 % confidence bound
  float looks = 0;   // codes looked at, mean
};

/// Curves that take the place of the calibrated ones, because real queries were found to be unlike
/// the held-out rows. Ascending by ef for each k; empty: as calibrated.
struct MeasuredRecall {
  std::vector<RecallPoint> graph;
  std::vector<RecallPoint> lists;
};

/// How to look for k hits: a walk of the graph, or with nprobe a visit of that many lists, from
/// which the ef best are kept.
struct GraphPlan {
  uint32_t ef;
  uint32_t verify;  // candidates whose exact distance is worth computing
  float recall;     // expected
  uint32_t nprobe = 0;
};

class VectorIndex;

/// Indexes of other segments of the same collection.
using SiblingIndexes = std::vector<std::shared_ptr<const VectorIndex>>;

/// What building makes, to be written part by part. Thread safety: single owner.
class BuiltIndex {
 public:
  using Write = std::function<Status(IndexPart, Bytes)>;
  Status write(const Write& write) const;

 private:
  friend class IndexBuilder;
  std::vector<std::pair<IndexPart, std::string>> small_;
  EncodedPlanes planes_;
  BuiltGraph graph_;
  BuiltIvf ivf_;
};

/// Squared distances, estimated or bounds, from here on are those of rows that no search returns.
/// (In files of before, such rows look like any.)
inline constexpr float kNowhereDistance = 1e29F;

/// True to give up a build (shutdown, the segment is gone).
using Cancelled = std::function<bool()>;

/// Where the lists of indexes lie, in the metric's own space (under cosine: of unit vectors).
/// Thread safety: single owner.
struct ListCentres {
  std::vector<float> vectors;  // float[n x dimension]
  std::vector<uint32_t> rows;  // in each list
};

/// Errors: corruption of a row; failed_precondition when the rows do not suit an index (all, or
/// too many that a search may return, outside); unavailable when cancelled. Cost: seconds per
/// 100,000 rows, on all threads of the pool. `memory_max`: with less to learn from, it keeps to
/// that many bytes if build_bytes says so; 0: no limit. `known`: lists of indexes of much the same
/// rows for the same metric, which those made start from; build_bytes counts list_centres_max of
/// them. `siblings`: the projection of one of at least twice the rows, or of so many that no more
/// are learnt from, is taken if it suits these. Learning one costs a small segment most of its
/// build, and a query that meets several indexes of one projection is projected once.
Result<BuiltIndex> build_index(const RowSource& rows, Metric metric, uint64_t seed,
                               ThreadPool* pool, const Cancelled& cancelled,
                               uint64_t memory_max = 0, const ListCentres& known = {},
                               const SiblingIndexes& siblings = {});

/// Known lists beyond which more are of no use for so many rows.
size_t list_centres_max(uint64_t rows);

/// Bytes that a build takes at most, the result included, the rows not; grows with `rows`.
uint64_t build_bytes(uint64_t rows, uint32_t dimension, uint64_t memory_max);

/// Thread safety: immutable.
class VectorIndex {
 public:
  using Read = std::function<Result<Bytes>(IndexPart)>;
  /// Reads the parts in place; they must outlive it. Checks all of them: no later call reads
  /// outside them whatever they hold. A projection that one of `siblings` has as well is shared
  /// with it. Errors: corruption.
  static Result<std::shared_ptr<const VectorIndex>> open(const Read& read, uint32_t rows,
                                                         uint32_t dimension,
                                                         const SiblingIndexes& siblings = {});

  /// Codes alone, in memory, of rows that have no index yet, in the terms of one that has: so that
  /// searches need not read them all. It has bounds and estimates, no walks, lists or curves. Null
  /// when the projection of `like` does not suit the rows. Errors: corruption of a row. Cost:
  /// dimension x coordinates multiply-adds a row, on the caller's thread.
  static Result<std::shared_ptr<const VectorIndex>> encode(const RowSource& rows,
                                                           const VectorIndex& like);

  Metric metric() const { return metric_; }
  uint32_t rows_count() const { return rows_; }
  const std::shared_ptr<const Projection>& projection() const { return projection_; }
  /// Rows that have no place in it.
  uint32_t outside_count() const { return outside_; }
  size_t coordinates() const { return layout_->coordinates; }
  /// Bytes of a row in the lists (ListReader).
  size_t code_stride() const { return layout_->high_stride(); }
  /// Of an index that `encode` made.
  uint64_t memory_bytes() const;
  /// Bytes that walks read at random: codes and edges.
  uint64_t hot_bytes() const;
  /// What rows are coded as and why, for people.
  std::string codec_reason() const;
  std::span<const RecallPoint> curve() const { return curve_; }
  uint32_t degree() const { return graph_.degree; }

  /// Whether walks and lists can find every row that a search may return. Under cosine, zero rows
  /// are never returned, and those that are not finite only where there are too few others; rows
  /// too long for the codes may be the best of all.
  bool covers_all() const { return outside_ == 0 || metric_ == Metric::kCosine; }
  /// The cheapest walk whose confidence bound reaches the target; none: only reading everything
  /// does.
  std::optional<GraphPlan> plan(uint32_t k, double target_recall,
                                const MeasuredRecall* measured = nullptr) const;
  /// The walk with a given ef.
  GraphPlan plan_with_ef(uint32_t k, uint32_t ef, const MeasuredRecall* measured = nullptr) const;

  /// The cheapest way of all whose confidence bound reaches the target: a walk, a visit of lists,
  /// or, with none, reading everything. By the codes that calibration looked at.
  std::optional<GraphPlan> plan_cheapest(uint32_t k, double target_recall,
                                         const MeasuredRecall* measured = nullptr) const;

  /// As plan, for visits of lists.
  std::optional<GraphPlan> plan_lists(uint32_t k, double target_recall,
                                      const MeasuredRecall* measured = nullptr) const;
  GraphPlan plan_with_nprobe(uint32_t k, uint32_t nprobe,
                             const MeasuredRecall* measured = nullptr) const;
  uint32_t lists() const { return static_cast<uint32_t>(ivf_.lists()); }
  std::span<const RecallPoint> list_curve() const { return ivf_curve_; }
  /// Adds its own. Cost: lists x coordinates x dimension multiply-adds.
  void add_list_centres(ListCentres* to) const;

  /// One query. Thread safety: immutable.
  class Query {
   public:
    enum class Use { kEstimates, kBounds };
    /// query: float[dimension], finite, not zero under cosine. Bounds need a projection of full
    /// precision; estimates make do with a quicker one.
    Query(const VectorIndex& index, std::span<const float> query, Use use);
    /// The same query, for the same use, asked of another index. REQUIRES: suits(index).
    Query(const VectorIndex& index, const Query& asked);
    /// Whether `index` takes the query in the same form.
    bool suits(const VectorIndex& index) const;

    /// out[i]: rows first + i with out[i] > reach(t) are farther than the distance t, in the
    /// metric's own terms as PreparedQuery computes it. REQUIRES: Use::kBounds;
    /// n <= PlaneQuery::kBoundRows.
    /// `reach`: what is beyond it need not be known any better.
    void lower_bounds(uint32_t first, size_t n, float reach, float* out) const;
    float reach(float distance) const;
    /// out[i]: the estimated distance of row first + i, to compare with likely_reach.
    void estimates(uint32_t first, size_t n, float* out) const;
    /// Candidates whose estimated distance is beyond likely_reach(t) are hardly ever nearer than t:
    /// calibration found 2 in 1,000 true neighbours that were.
    float likely_reach(float distance) const;
    /// False when the query is too long for the codes' arithmetic: read everything then.
    bool usable() const { return planes_.has_value(); }

    /// Fills scratch->found() with candidates, most promising first. REQUIRES: Use::kEstimates.
    void walk(const GraphPlan& plan, GraphScratch* scratch, const RowsAhead& ahead = {}) const;
    /// The same for a visit of lists that are copied through `reader`. REQUIRES: plan.nprobe > 0.
    /// Errors: the reader's.
    Status visit(const GraphPlan& plan, const ListReader& reader, GraphScratch* scratch) const;

   private:
    const VectorIndex& index_;
    double length_ = 0;     // of the given query
    std::vector<float> y_;  // projected
    std::optional<PlaneQuery> planes_;
  };

 private:
  VectorIndex() = default;
  Status check() const;
  Status open_lists(const Read& read, size_t lists, size_t members, size_t points);
  std::span<const RecallPoint> graph_curve(const MeasuredRecall* measured) const;
  std::span<const RecallPoint> list_curve(const MeasuredRecall* measured) const;

  /// Copies of what loops and plans are bounded by: what is read in place may turn to zeros under
  /// us (MappedFile::failed), which must cost an answer, not the process.
  struct Owned {
    std::vector<uint32_t> offsets;
    std::vector<RecallPoint> curve;
    std::vector<RecallPoint> list_curve;
  };
  Owned owned_;
  std::optional<EncodedPlanes> encoded_;  // by encode
  Metric metric_ = Metric::kL2;
  uint32_t rows_ = 0;
  uint32_t dimension_ = 0;
  double longest_ = 0;  // M, under dot
  uint32_t outside_ = 0;
  std::shared_ptr<const Projection> projection_;
  std::optional<PlaneLayout> layout_;
  PlaneCodes planes_;
  GraphView graph_;
  std::span<const RecallPoint> curve_;
  IvfView ivf_;
  std::span<const RecallPoint> ivf_curve_;
  float ivf_dismissed_ = 0;           // share of rows that 1-bit codes dismiss
  std::array<uint32_t, 3> verify_{};  // per calibrated k
  float shrink_ = 0;                  // true distances are hardly ever a smaller part of estimates
};

/// The share of true neighbours whose estimates lie within likely_reach.
inline constexpr double kLikelyShare = 0.998;

/// The numbers of hits that calibration measures, ascending.
inline constexpr std::array<uint32_t, 3> kCalibratedHits = {1, 10, 100};

}  // namespace aionbd
