#include "engine/search_product.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/search_scan.h"

namespace aionbd {

namespace {

/// Hits up to which a batch keeps candidates of all its queries at once: 256 queries then hold at
/// most about 400 MB of them in the worst case, and a few MB as a rule.
constexpr uint64_t kBatchDepthMax = 4096;
/// Dimensions from which bounding rows by their codes, query by query, beats the matrix product of
/// all queries (per row: a fixed cost against one that grows with the dimension).
constexpr size_t kBoundsBeatProductDim = 384;
/// Rows in a matrix product of several queries that cost as much as reading one row for each.
constexpr uint64_t kProductPerRead = 8;
/// Rows between two looks at the time.
constexpr size_t kRowsPerTimeCheck = 8192;

/// Candidates of each query of a group, by the matrix product's distances.
///
/// Proof that none of the true k best is lost: let t be the k-th smallest approximate distance seen
/// and b the largest error bound among those k rows. Their true distances are <= t + b, so the true
/// k-th best is; a row x of the true k best therefore has an approximate distance <= t + b + b(x),
/// with its own bound b(x). Rows to come only lower the true k-th best. Bounds grow with the norm
/// of the row, so each row is held to its own: one huge row does not let all others in.
///
/// Rows that tie cannot be told apart here. A query that more of them crowd than kCrowdRooms rooms
/// hold is given up, and answered by a scan. Thread safety: single owner.
class CandidatePool {
 public:
  CandidatePool(const PreparedBatch& batch, size_t depth)
      : batch_(&batch), depth_(depth), room_(2 * depth + kSpare), queries_(batch.queries_count()) {
    limits_.assign(batch.stride(), kFarthest);
    for (Query& query : queries_) query.room = room_;
  }

  /// Sets the limits for a block of rows. False when no bound can be given for its norms.
  bool admit_norms(const float* norms_squared, size_t n) {
    float largest = 0;
    for (size_t i = 0; i < n; ++i) {
      if (!(norms_squared[i] <= std::numeric_limits<float>::max())) return false;
      largest = std::max(largest, norms_squared[i]);
    }
    // Limits are kept for classes of norms, powers of four, so that they are rarely set anew.
    if (largest > norm_class_ || largest * kNormClassRatio * kNormClassRatio < norm_class_) {
      norm_class_ = largest * kNormClassRatio;
      for (size_t q = 0; q < queries_.size(); ++q) {
        if (!std::isfinite(batch_->error_bound(q, norm_class_))) return false;
        set_limit(q);
      }
    }
    return true;
  }

  const float* limits() const { return limits_.data(); }

  void push(size_t q, const Candidate& candidate, float norm_squared) {
    Query& query = queries_[q];
    query.items.push_back({candidate, norm_squared});
    if (query.items.size() >= query.room) prune(q);
  }

  /// Whether the items of a query hold its k best.
  bool complete(size_t q) const { return !queries_[q].crowded; }
  template <typename Visit>
  Status for_each(size_t q, Visit visit) const {
    for (const Item& item : queries_[q].items) RETURN_IF_ERROR(visit(item.candidate));
    return {};
  }

 private:
  static constexpr size_t kSpare = 64;  // pushes between prunings, at least
  static constexpr size_t kCrowdRooms = 8;
  static constexpr float kNormClassRatio = 4;

  struct Item {
    Candidate candidate;
    float norm_squared;
  };
  struct Query {
    std::vector<Item> items;
    size_t room = 0;
    float reach = kFarthest;  // t + b of the last pruning
    bool crowded = false;
  };

  void set_limit(size_t q) {
    const Query& query = queries_[q];
    limits_[q] = query.crowded ? -kFarthest : query.reach + batch_->error_bound(q, norm_class_);
  }

  void prune(size_t q) {
    Query& query = queries_[q];
    std::vector<Item>& items = query.items;
    const auto nearer = [](const Item& a, const Item& b) {
      return a.candidate.distance < b.candidate.distance;
    };
    const auto kth = items.begin() + static_cast<std::ptrdiff_t>(depth_ - 1);
    std::nth_element(items.begin(), kth, items.end(), nearer);
    float norm_max = 0;
    for (auto item = items.begin(); item <= kth; ++item) {
      norm_max = std::max(norm_max, item->norm_squared);
    }
    query.reach = kth->candidate.distance + batch_->error_bound(q, norm_max);
    std::erase_if(items, [&](const Item& item) {
      return item.candidate.distance > query.reach + batch_->error_bound(q, item.norm_squared);
    });
    query.room = std::max(room_, 2 * items.size());
    if (items.size() > kCrowdRooms * room_) {
      query.crowded = true;
      items = {};
    }
    set_limit(q);
  }

  const PreparedBatch* batch_;
  const size_t depth_;
  const size_t room_;
  std::vector<Query> queries_;
  std::vector<float> limits_;  // what may still enter
  float norm_class_ = -1;      // bounds in limits_ are for norms up to this
};

/// Fills the pool from all rows. Returns false when the product cannot be used for this data.
Result<bool> collect(const SearchEnvironment& environment, const Plan& plan,
                     const PreparedBatch& batch, CandidatePool& pool, Effort& effort) {
  constexpr size_t kBlock = PreparedBatch::kRowsBlock;
  const size_t stride = batch.stride();
  std::vector<float> distances(kBlock * stride);
  std::vector<uint32_t> near(stride);
  RowId allowed[kBlock];
  RowCopy copy;
  std::vector<float> widened;  // of bytes: the product is of floats
  for (uint32_t p = 0; p < plan.view.segments.size(); ++p) {
    const SegmentView& part = plan.view.segments[p];
    if (plan.parts[p].wanted.most() == 0) continue;
    RowId checked = 0;  // the row at which time was last looked at
    for (RowId row = 0; row < part.rows;) {
      if (row == 0 || row - checked >= kRowsPerTimeCheck) {
        checked = row;
        if (deadline_passed(environment, plan.request)) {
          return deadline_exceeded("search ran out of time");
        }
      }
      const size_t want = std::min<size_t>(kBlock, part.rows - row);
      ASSIGN_OR_RETURN(const RowBlock block, rows_of(plan, p, row, want, &copy));
      ASSIGN_OR_RETURN(const size_t matches,
                       plan.parts[p].wanted.select(row, block.count, allowed));
      if (matches > 0) {
        if (!pool.admit_norms(block.norms_squared, block.count)) return false;
        const float* values = block.values.floats;
        if (values == nullptr) {
          widened.resize(kBlock * plan.dim());
          block.values.copy(block.count * plan.dim(), widened.data());
          values = widened.data();
        }
        batch.distances(values, block.norms_squared, block.count, distances.data());
        effort.parts[p].computed.fetch_add(block.count * batch.queries_count(),
                                           std::memory_order_relaxed);
      }
      for (size_t i = 0; i < matches; ++i) {
        const size_t at = allowed[i] - row;
        if (has_no_direction(plan, block, at)) continue;
        const float* line = distances.data() + at * stride;
        const size_t n = select_at_most(line, pool.limits(), batch.queries_count(), near.data());
        for (size_t j = 0; j < n; ++j) {
          pool.push(near[j], {line[near[j]], p, allowed[i]}, block.norms_squared[at]);
        }
      }
      row += static_cast<RowId>(block.count);
    }
  }
  return true;
}

/// The true k best of a query's candidates, by the scan's kernel.
Result<std::vector<Candidate>> rank(const Plan& plan, std::span<const float> values,
                                    const CandidatePool& pool, size_t q) {
  ASSIGN_OR_RETURN(const PreparedQuery query, PreparedQuery::make(plan.metric, values));
  Best best(plan.depth, plan.less);
  RowCopy copy;
  RETURN_IF_ERROR(pool.for_each(q, [&](Candidate candidate) -> Status {
    ASSIGN_OR_RETURN(const RowBlock block, rows_of(plan, candidate.part, candidate.row, 1, &copy));
    query.distances(block.values, block.norms_squared, 1, &candidate.distance);
    if (candidate.distance <= plan.cutoff) best.push(candidate);
    return {};
  }));
  return best.take_sorted();
}

}  // namespace

Status search_group(const SearchEnvironment& environment, const Plan& plan,
                    const std::vector<std::span<const float>>& queries, size_t first, size_t last,
                    Effort& effort, std::vector<Answer>& out) {
  const std::span group(queries.data() + first, last - first);
  ASSIGN_OR_RETURN(const PreparedBatch batch, PreparedBatch::make(plan.metric, group));
  CandidatePool pool(batch, plan.depth);
  ASSIGN_OR_RETURN(const bool collected, collect(environment, plan, batch, pool, effort));
  for (size_t q = 0; q < group.size(); ++q) {
    if (deadline_passed(environment, plan.request)) {
      return deadline_exceeded("search ran out of time");
    }
    if (collected && pool.complete(q)) {
      ASSIGN_OR_RETURN(out[first + q].hits, rank(plan, group[q], pool, q));
    } else {
      ASSIGN_OR_RETURN(out[first + q].hits, scan_all(environment, plan, group[q], effort));
    }
  }
  return {};
}

bool one_by_one(const Plan& plan, size_t queries) {
  if (queries < kBatchQueriesMin || plan.depth > kBatchDepthMax) return true;
  uint64_t rows = 0;
  uint64_t coded = 0;
  uint64_t wanted = 0;
  for (size_t p = 0; p < plan.view.segments.size(); ++p) {
    rows += plan.view.segments[p].rows;
    if (plan.parts[p].walk) return true;
    wanted += plan.parts[p].wanted.most();
    if (plan.parts[p].bounded(plan.view.segments[p])) coded += plan.view.segments[p].rows;
  }
  // The product is of whole blocks of rows.
  if (wanted * kProductPerRead < rows) return true;
  return plan.dim() >= kBoundsBeatProductDim && 2 * coded > rows;
}

}  // namespace aionbd
