// What one search call decides before it looks at rows: for each segment, whether a walk, a visit
// of lists or a scan answers it, and which rows a filter leaves.
#pragma once

#include <algorithm>
#include <atomic>
#include <forward_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "aionbd/collection.h"
#include "distance/metric.h"
#include "engine/search.h"
#include "engine/segment.h"
#include "engine/wanted_rows.h"
#include "index/top_k.h"
#include "index/vector_index.h"
#include "payload/filter.h"

namespace aionbd {

struct Candidate {
  float distance = 0;
  uint32_t part = 0;  // index in View::segments
  RowId row = 0;
};

/// By distance, then by point id.
class CandidateLess {
 public:
  CandidateLess(const View& view, IdType id_type) : view_(&view), id_type_(id_type) {}

  bool operator()(const Candidate& a, const Candidate& b) const {
    if (a.distance != b.distance) return a.distance < b.distance;
    if (a.part == b.part && view_->segments[a.part].segment->sealed()) return a.row < b.row;
    return id_less(a, b);
  }

 private:
  bool id_less(const Candidate& a, const Candidate& b) const {
    const Result<Bytes> left = view_->segments[a.part].segment->id_bytes(a.row);
    const Result<Bytes> right = view_->segments[b.part].segment->id_bytes(b.row);
    // Damage is met again, and reported, when the hit is fetched.
    if (!left || !right) return std::pair(a.part, a.row) < std::pair(b.part, b.row);
    if (id_type_ == IdType::kString) return as_text(*left) < as_text(*right);
    return point_id_of(IdType::kU64, *left).number() < point_id_of(IdType::kU64, *right).number();
  }

  const View* view_;
  IdType id_type_;
};

using Best = TopK<Candidate, CandidateLess>;

/// How the walk of one part is kept to the rows a filter wants.
enum class Restriction {
  kAfterwards,  // the walk is made wide enough, what it finds is sifted
  kInside,      // the walk goes over wanted rows only
  kLookAtAll,   // no walk: the codes of all wanted rows are looked at
};

/// How one segment is searched.
struct PartPlan {
  PartPlan(const SegmentView& part, const CompiledFilter* filter)
      : wanted(part, filter), residency(part.segment->residency()) {}

  std::shared_ptr<const VectorIndex> index;            // none: every row is read
  bool indexed = false;                                // false: `index` has codes only
  RowId coded = 0;                                     // the rows, from the first on, it knows
  std::optional<GraphPlan> walk;                       // none: the index only bounds
  WantedRows wanted;                                   // the rows that may be hits
  Restriction restriction = Restriction::kAfterwards;  // how the walk is kept to them
  Residency residency;                                 // what is read in place
  std::shared_ptr<const ListReader> lists;             // with Residency::kNothing: for the walk

  bool rows_in_place() const { return residency == Residency::kAll; }
  /// Whether `index` bounds the rows of `part`, which is where this came from. Of open rows it may
  /// know some only.
  bool bounded(const SegmentView& part) const { return index != nullptr && part.segment->sealed(); }
};

/// What one search call has decided before it looks at rows. Thread safety: immutable.
struct Plan {
  const View& view;
  const CollectionOptions& collection;
  const SearchRequest& request;
  CandidateLess less;
  Metric metric = Metric::kDot;
  uint64_t depth = 0;  // hits to find: offset + limit, at most the live points
  float cutoff = kFarthest;
  std::unique_ptr<const CompiledFilter> filter = {};  // at one address, whoever moves the plan
  std::vector<PartPlan> parts = {};                   // one a segment of the view

  size_t dim() const { return collection.dimension; }
};

/// Rows that are not read in place. Reused from read to read. Thread safety: single owner.
class RowCopy {
 public:
  /// Valid until the next call. REQUIRES: n >= 1 rows below the visible count.
  Result<RowBlock> read(const Segment& segment, size_t dim, RowId first, size_t n) {
    values_.resize(std::max(values_.size(), n * dim));
    norms_.resize(std::max(norms_.size(), n));
    RETURN_IF_ERROR(segment.copy_rows(first, n, values_.data(), norms_.data()));
    return RowBlock{values_.data(), norms_.data(), n};
  }

 private:
  std::vector<float> values_, norms_;
};

/// Rows of a part from `first` on, at most `limit`, in place or through `copy`.
inline Result<RowBlock> rows_of(const Plan& plan, uint32_t p, RowId first, size_t limit,
                                RowCopy* copy) {
  const Segment& segment = *plan.view.segments[p].segment;
  if (plan.parts[p].rows_in_place()) [[likely]]
    return segment.rows(first, limit);
  return copy->read(segment, plan.dim(), first, limit);
}

/// What was done in each part, for `explain`. Thread safety: safe.
struct Effort {
  struct Part {
    std::atomic<uint64_t> computed{0};   // exact distances
    std::atomic<uint64_t> estimated{0};  // rows estimated or bounded from codes
    std::atomic<uint64_t> walked{0};     // queries that a walk answered
    std::atomic<uint64_t> sifted{0};     // queries for which all rows were estimated instead
  };
  explicit Effort(size_t parts_count) : parts(parts_count) {}
  std::vector<Part> parts;
};

/// One query as the indexes of several parts take it: projected once for all that share a
/// projection. Thread safety: single owner.
class IndexQueries {
 public:
  /// `values` must outlive it.
  IndexQueries(std::span<const float> values, VectorIndex::Query::Use use)
      : values_(values), use_(use) {}

  /// Valid as long as this object and the index.
  const VectorIndex::Query& on(const VectorIndex& index) {
    for (const VectorIndex::Query& asked : asked_) {
      if (asked.suits(index)) return asked_.emplace_front(index, asked);
    }
    return asked_.emplace_front(index, values_, use_);
  }

 private:
  const std::span<const float> values_;
  const VectorIndex::Query::Use use_;
  std::forward_list<VectorIndex::Query> asked_;
};

/// Errors: invalid_argument. REQUIRES: view, collection and request outlive the plan.
Result<Plan> make_plan(const View& view, const CollectionOptions& collection,
                       const std::vector<std::span<const float>>& queries,
                       const SearchRequest& request, uint32_t nprobe_default);

/// How wide the first walk must be to find as many wanted rows as the plan's width.
double first_width(const Plan& plan, uint32_t p);

/// A zero row has no direction: cosine searches never return it. (A norm of 0 alone does not say
/// so: squares of tiny values vanish.)
bool has_no_direction(const Plan& plan, const RowBlock& block, size_t at);

inline bool deadline_passed(const SearchEnvironment& environment, const SearchRequest& request) {
  return request.deadline != kNoDeadline && environment.clock.now() >= request.deadline;
}

/// What was planned and what was done, part by part, for people.
std::vector<SegmentPlan> explain(const Plan& plan, const Effort& effort);

}  // namespace aionbd
