#include "engine/search.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>

#include "base/mutex.h"
#include "distance/metric.h"
#include "engine/reader.h"
#include "index/top_k.h"
#include "index/vector_index.h"
#include "payload/filter.h"
#include "payload/payload.h"

namespace aionbd {

namespace {

/// Rows per call of the scan kernel: distances of a block stay in the first-level cache.
constexpr size_t kScanRows = 256;
/// Rows per unit of parallel work: long enough to hide hand-over, short enough to balance.
constexpr size_t kTaskRows = 8192;
/// Floats below which a search runs on the caller alone: 4 MiB, about 100 us of reading.
constexpr uint64_t kParallelFloatsMin = uint64_t{1} << 20;
/// Queries from which the matrix product beats repeated scans.
constexpr size_t kBatchQueriesMin = 4;
/// Hits up to which a batch keeps candidates of all its queries at once: 256 queries then hold at
/// most about 400 MB of them in the worst case, and a few MB as a rule.
constexpr uint64_t kBatchDepthMax = 4096;
/// Dimensions from which bounding rows by their codes, query by query, beats the matrix product of
/// all queries (per row: a fixed cost against one that grows with the dimension).
constexpr size_t kBoundsBeatProductDim = 384;
/// Hits beyond which a walk would have to keep too much; everything is read instead.
constexpr uint64_t kWalkDepthMax = 2048;
/// A walk wider than this share of the rows (one in ...) costs more than reading them all.
constexpr uint64_t kWalkShareMax = 12;
/// Times a filtered walk is widened before everything is read.
constexpr int kWalkAttempts = 4;
/// Widest walk for the first hits of an exact search, which only set its first threshold.
constexpr uint32_t kSeedHitsMax = 128;

struct Candidate {
  float distance = 0;
  uint32_t part = 0;  // index in View::segments
  RowId row = 0;
};

/// By distance, then by point id.
class CandidateLess {
 public:
  explicit CandidateLess(const View& view) : view_(&view) {}

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

 public:
  IdType id_type_ = IdType::kU64;
};

using Best = TopK<Candidate, CandidateLess>;

/// What one search call has decided before it looks at rows. Thread safety: immutable.
struct Plan {
  const View& view;
  const CollectionOptions& collection;
  const SearchRequest& request;
  Metric metric = Metric::kDot;
  uint64_t depth = 0;  // hits to find: offset + limit, at most the live points
  float cutoff = kFarthest;
  std::optional<CompiledFilter> filter;
  CandidateLess less;
  /// For each part: its index for this metric, and the walk that answers it. No index: every row is
  /// read. No walk: an index only bounds.
  std::vector<std::shared_ptr<const VectorIndex>> indexes;
  std::vector<std::optional<GraphPlan>> walks;

  size_t dim() const { return collection.dimension; }
};

/// What was done in each part, for `explain`. Thread safety: safe.
struct Effort {
  explicit Effort(size_t parts) : computed(parts), estimated(parts), walked(parts) {}
  std::vector<std::atomic<uint64_t>> computed;   // exact distances
  std::vector<std::atomic<uint64_t>> estimated;  // rows estimated or bounded from codes
  std::vector<std::atomic<uint64_t>> walked;     // queries that a walk answered
};

struct Task {
  uint32_t part;
  RowId first;
  size_t count;
};

Status check_query(const SearchRequest& request, std::span<const float> query,
                   const CollectionOptions& collection) {
  if (query.size() != collection.dimension) {
    return invalid_argument("query: dimension differs from the collection's: got " +
                            std::to_string(query.size()) + ", want " +
                            std::to_string(collection.dimension));
  }
  for (const float value : query) {
    if (!std::isfinite(value)) return invalid_argument("query must hold finite f32 numbers only");
  }
  if (request.limit == 0) return invalid_argument("limit must be at least 1: got 0");
  if (request.target_recall && !(*request.target_recall > 0 && *request.target_recall <= 1)) {
    return invalid_argument("target_recall must be above 0 and at most 1");
  }
  if (request.param && (*request.param == 0 || *request.param > kSearchParamMax)) {
    return invalid_argument("param must be from 1 to " + std::to_string(kSearchParamMax) +
                            ": got " + std::to_string(*request.param));
  }
  if (request.score_threshold && !std::isfinite(*request.score_threshold)) {
    return invalid_argument("score_threshold must be a finite number");
  }
  return {};
}

/// The walk for one part, if one keeps the promise.
std::optional<GraphPlan> plan_walk(const Plan& plan, const VectorIndex& index) {
  const SearchRequest& request = plan.request;
  const bool walks = request.mode == SearchMode::kAuto || request.mode == SearchMode::kGraph;
  if (!walks || plan.depth == 0 || plan.depth > kWalkDepthMax) return std::nullopt;
  const auto k = static_cast<uint32_t>(plan.depth);
  if (request.mode == SearchMode::kGraph && request.param) {
    return index.plan_with_ef(k, *request.param);
  }
  std::optional<GraphPlan> walk = index.plan(k, request.target_recall.value_or(kAutoTargetRecall));
  // Asked for by name, the graph answers as well as it can.
  if (!walk && request.mode == SearchMode::kGraph) walk = index.plan_with_ef(k, kSearchParamMax);
  return walk;
}

void plan_parts(Plan& plan) {
  plan.indexes.resize(plan.view.segments.size());
  plan.walks.resize(plan.view.segments.size());
  for (size_t p = 0; p < plan.view.segments.size(); ++p) {
    plan.indexes[p] = plan.view.segments[p].segment->vector_index(plan.metric);
    if (plan.indexes[p] != nullptr) plan.walks[p] = plan_walk(plan, *plan.indexes[p]);
  }
}

Result<Plan> make_plan(const View& view, const CollectionOptions& collection,
                       const std::vector<std::span<const float>>& queries,
                       const SearchRequest& request) {
  for (size_t i = 0; i < queries.size(); ++i) {
    const Status checked = check_query(request, queries[i], collection);
    if (checked.ok()) continue;
    return queries.size() == 1 ? checked
                               : checked.with_context("queries[" + std::to_string(i) + "]");
  }
  if (request.mode == SearchMode::kIvf && view.points < kIvfPointsMin) {
    return invalid_argument("mode ivf needs at least " + std::to_string(kIvfPointsMin) +
                            " points: the collection has " + std::to_string(view.points));
  }
  Plan plan{view, collection, request, Metric::kDot, 0, kFarthest, {}, CandidateLess(view), {}, {}};
  plan.less.id_type_ = collection.id_type;
  plan.metric = request.metric.value_or(collection.metric.value_or(Metric::kDot));
  plan.depth = std::min<uint64_t>(uint64_t{request.offset} + request.limit, view.points);
  if (request.score_threshold) {
    plan.cutoff = distance_of_threshold(plan.metric, *request.score_threshold);
  }
  if (request.filter != nullptr) {
    ASSIGN_OR_RETURN(plan.filter, CompiledFilter::compile(*request.filter));
  }
  plan_parts(plan);
  return plan;
}

/// Writes to `rows` the rows of [first, first + count) that are live and match; returns how many.
Result<size_t> allowed_rows(const Plan& plan, const SegmentView& part, RowId first, size_t count,
                            RowId* rows) {
  size_t n = 0;
  for (size_t i = 0; i < count; ++i) {
    const RowId row = first + static_cast<RowId>(i);
    if (part.dead->contains(row)) continue;
    if (plan.filter) {
      ASSIGN_OR_RETURN(const Bytes payload, part.segment->payload(row));
      if (!plan.filter->matches(payload)) continue;
    }
    rows[n++] = row;
  }
  return n;
}

/// A zero row has no direction: cosine searches never return it. (A norm of 0 alone does not say
/// so: squares of tiny values vanish.)
bool has_no_direction(const Plan& plan, const RowBlock& block, size_t at) {
  if (plan.metric != Metric::kCosine || block.norms_squared[at] != 0.0F) return false;
  const float* row = block.values + at * plan.dim();
  return std::all_of(row, row + plan.dim(), [](float value) { return value == 0.0F; });
}

// ---- one query ----------------------------------------------------------------------------------

/// One query against the parts of a view, with what their indexes need of it.
struct QueryForms {
  PreparedQuery exact;
  std::vector<std::optional<VectorIndex::Query>> bounds;  // per part with an index that is scanned
  float seed = kFarthest;  // no better than the k-th best: rows beyond cannot be hits
};

/// Distance of one row, into `best` if it is live, matches and is near enough.
Status offer(const Plan& plan, const PreparedQuery& query, uint32_t p, RowId row, Best& best,
             size_t* computed) {
  const SegmentView& part = plan.view.segments[p];
  if (part.dead->contains(row)) return {};
  if (plan.filter) {
    ASSIGN_OR_RETURN(const Bytes payload, part.segment->payload(row));
    if (!plan.filter->matches(payload)) return {};
  }
  ASSIGN_OR_RETURN(const RowBlock block, part.segment->rows(row, 1));
  float distance = 0;
  query.distances(block.values, block.norms_squared, 1, &distance);
  ++*computed;
  if (distance > best.threshold() || distance > plan.cutoff) return {};
  if (has_no_direction(plan, block, 0)) return {};
  best.push({distance, p, row});
  return {};
}

/// As scan_task, but only rows whose guaranteed lower bound lets them in are read.
Result<size_t> scan_bounded(const Plan& plan, const QueryForms& query, const Task& task,
                            Best& best) {
  const VectorIndex::Query& bounds = *query.bounds[task.part];
  float lowest[PlaneQuery::kBoundRows];
  uint32_t near[PlaneQuery::kBoundRows];
  size_t computed = 0;
  const RowId end = task.first + static_cast<RowId>(task.count);
  for (RowId row = task.first; row < end;) {
    const size_t n = std::min<size_t>(PlaneQuery::kBoundRows, end - row);
    bounds.lower_bounds(row, n, lowest);
    const float limit = std::min({best.threshold(), plan.cutoff, query.seed});
    float reach = bounds.reach(limit);
    const size_t found = select_at_most(lowest, reach, n, near);
    for (size_t i = 0; i < found; ++i) {
      if (lowest[near[i]] > reach) continue;
      const size_t before = computed;
      RETURN_IF_ERROR(offer(plan, query.exact, task.part, row + near[i], best, &computed));
      if (computed != before) {
        reach = bounds.reach(std::min({best.threshold(), plan.cutoff, query.seed}));
      }
    }
    row += static_cast<RowId>(n);
  }
  return computed;
}

/// Scans one task's rows into `best`; returns how many distances were computed.
Result<size_t> scan_task(const Plan& plan, const PreparedQuery& query, const Task& task,
                         Best& best) {
  const SegmentView& part = plan.view.segments[task.part];
  float distances[kScanRows];
  uint32_t near[kScanRows];
  RowId allowed[kScanRows];
  size_t computed = 0;
  RowId row = task.first;
  const RowId end = task.first + static_cast<RowId>(task.count);
  while (row < end) {
    const size_t want = std::min<size_t>(kScanRows, end - row);
    ASSIGN_OR_RETURN(const RowBlock block, part.segment->rows(row, want));
    size_t matches = block.count;
    if (plan.filter) {
      ASSIGN_OR_RETURN(matches, allowed_rows(plan, part, row, block.count, allowed));
      // Runs of matching rows are scanned together; the rest is not read at all.
      for (size_t i = 0; i < matches;) {
        size_t j = i + 1;
        while (j < matches && allowed[j] == allowed[i] + (j - i)) ++j;
        const size_t at = allowed[i] - row;
        query.distances(block.values + at * plan.dim(), block.norms_squared + at, j - i,
                        distances + at);
        i = j;
      }
      for (size_t i = 0; i < matches; ++i) near[i] = allowed[i] - row;
    } else {
      query.distances(block.values, block.norms_squared, block.count, distances);
      const float limit = std::min(best.threshold(), plan.cutoff);
      matches = select_at_most(distances, limit, block.count, near);
    }
    computed += plan.filter ? matches : block.count;
    for (size_t i = 0; i < matches; ++i) {
      const uint32_t at = near[i];
      const RowId found = row + at;
      if (distances[at] > best.threshold() || distances[at] > plan.cutoff) continue;
      if (part.dead->contains(found) || has_no_direction(plan, block, at)) continue;
      best.push({distances[at], task.part, found});
    }
    row += static_cast<RowId>(block.count);
  }
  return computed;
}

/// The rows of the parts that `scanned` wants.
std::vector<Task> make_tasks(const View& view, const std::vector<bool>& scanned) {
  std::vector<Task> out;
  for (uint32_t p = 0; p < view.segments.size(); ++p) {
    const SegmentView& part = view.segments[p];
    if (part.live() == 0 || !scanned[p]) continue;
    for (uint64_t first = 0; first < part.rows; first += kTaskRows) {
      out.push_back({p, static_cast<RowId>(first),
                     static_cast<size_t>(std::min<uint64_t>(kTaskRows, part.rows - first))});
    }
  }
  return out;
}

bool deadline_passed(const SearchEnvironment& environment, const SearchRequest& request) {
  return request.deadline != kNoDeadline && environment.clock.now() >= request.deadline;
}

/// The first error that any of several threads met. Thread safety: safe.
class FirstError {
 public:
  void note(const Status& status) {
    MutexLock lock(mutex_);
    if (status_.ok()) status_ = status;
    failed_.store(true, std::memory_order_relaxed);
  }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }
  Status status() {
    MutexLock lock(mutex_);
    return status_;
  }

 private:
  Mutex mutex_;
  Status status_ GUARDED_BY(mutex_);
  std::atomic<bool> failed_{false};
};

/// The distance of the k-th best of the rows a walk finds: no row beyond it can be a hit. Infinite
/// when nothing can be said, or not cheaply.
Result<float> seed_distance(const Plan& plan, std::span<const float> values,
                            const PreparedQuery& exact, uint32_t p, Effort& effort) {
  const SegmentView& part = plan.view.segments[p];
  if (plan.filter || plan.depth > kSeedHitsMax || part.live() < plan.depth) return kFarthest;
  const VectorIndex::Query query(*plan.indexes[p], values, VectorIndex::Query::Use::kEstimates);
  if (!query.usable()) return kFarthest;
  thread_local GraphScratch scratch;
  const auto k = static_cast<uint32_t>(plan.depth);
  query.walk({2 * k, 2 * k, 0}, &scratch);
  Best best(plan.depth, plan.less);
  size_t computed = 0;
  for (const GraphCandidate& candidate : scratch.found()) {
    RETURN_IF_ERROR(offer(plan, exact, p, candidate.row, best, &computed));
  }
  effort.computed[p].fetch_add(computed, std::memory_order_relaxed);
  effort.estimated[p].fetch_add(scratch.looks(), std::memory_order_relaxed);
  return best.threshold();
}

Result<QueryForms> make_forms(const Plan& plan, std::span<const float> values,
                              const std::vector<bool>& scanned, Effort& effort) {
  ASSIGN_OR_RETURN(PreparedQuery exact, PreparedQuery::make(plan.metric, values));
  QueryForms forms{std::move(exact), {}, kFarthest};
  forms.bounds.resize(plan.indexes.size());
  for (uint32_t p = 0; p < plan.indexes.size(); ++p) {
    if (!scanned[p] || plan.indexes[p] == nullptr) continue;
    forms.bounds[p].emplace(*plan.indexes[p], values, VectorIndex::Query::Use::kBounds);
    if (!forms.bounds[p]->usable()) {
      forms.bounds[p].reset();
      continue;
    }
    ASSIGN_OR_RETURN(const float seed, seed_distance(plan, values, forms.exact, p, effort));
    forms.seed = std::min(forms.seed, seed);
  }
  return forms;
}

/// Reads the parts that `scanned` names.
Result<std::vector<Candidate>> scan_parts(const SearchEnvironment& environment, const Plan& plan,
                                          std::span<const float> values,
                                          const std::vector<bool>& scanned, Effort& effort) {
  ASSIGN_OR_RETURN(const QueryForms query, make_forms(plan, values, scanned, effort));
  const std::vector<Task> tasks = make_tasks(plan.view, scanned);
  uint64_t rows = 0;
  for (const Task& task : tasks) rows += task.count;
  const bool large = rows * plan.dim() >= kParallelFloatsMin;
  const size_t lanes = large ? std::min(environment.pool.helpers_count() + 1, tasks.size()) : 1;
  std::vector<Best> best(std::max<size_t>(lanes, 1), Best(plan.depth, plan.less));
  std::atomic<size_t> next{0};
  FirstError error;
  environment.pool.for_each(lanes, [&](size_t lane) {
    for (;;) {
      const size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= tasks.size() || error.failed()) return;
      if (deadline_passed(environment, plan.request)) {
        error.note(deadline_exceeded("search ran out of time"));
        return;
      }
      const uint32_t part = tasks[i].part;
      const bool bounded = query.bounds[part].has_value();
      const Result<size_t> done = bounded ? scan_bounded(plan, query, tasks[i], best[lane])
                                          : scan_task(plan, query.exact, tasks[i], best[lane]);
      if (!done) return error.note(done.error());
      effort.computed[part].fetch_add(*done, std::memory_order_relaxed);
      if (bounded) effort.estimated[part].fetch_add(tasks[i].count, std::memory_order_relaxed);
    }
  });
  RETURN_IF_ERROR(error.status());
  for (size_t lane = 1; lane < best.size(); ++lane) {
    for (const Candidate& candidate : best[lane].items()) best[0].push(candidate);
  }
  return best[0].take_sorted();
}

Result<std::vector<Candidate>> scan_one(const SearchEnvironment& environment, const Plan& plan,
                                        std::span<const float> values, Effort& effort) {
  return scan_parts(environment, plan, values, std::vector<bool>(plan.view.segments.size(), true),
                    effort);
}

// ---- walks --------------------------------------------------------------------------------------

/// Keeps of the candidates those that are live and match; at most `most` of them.
Result<std::vector<RowId>> allowed_candidates(const Plan& plan, const SegmentView& part,
                                              std::span<const GraphCandidate> found, size_t most) {
  std::vector<RowId> out;
  for (const GraphCandidate& candidate : found) {
    if (out.size() == most) break;
    if (part.dead->contains(candidate.row)) continue;
    if (plan.filter) {
      ASSIGN_OR_RETURN(const Bytes payload, part.segment->payload(candidate.row));
      if (!plan.filter->matches(payload)) continue;
    }
    out.push_back(candidate.row);
  }
  return out;
}

/// Asks for a row's bytes, which lie anywhere in memory, ahead of their use.
void prefetch_row(const float* row, size_t dim) {
  const auto* at = reinterpret_cast<const char*>(row);
  for (size_t i = 0; i < dim * sizeof(float); i += 64) __builtin_prefetch(at + i);
}

/// Exact distances of `rows`, into `best`.
Status verify_rows(const Plan& plan, const PreparedQuery& query, uint32_t p,
                   std::span<const RowId> rows, Best& best) {
  constexpr size_t kAhead = 4;
  const SegmentView& part = plan.view.segments[p];
  std::vector<RowBlock> blocks;
  blocks.reserve(rows.size());
  for (const RowId row : rows) {
    ASSIGN_OR_RETURN(const RowBlock block, part.segment->rows(row, 1));
    blocks.push_back(block);
    if (blocks.size() <= kAhead) prefetch_row(block.values, plan.dim());
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i + kAhead < rows.size()) prefetch_row(blocks[i + kAhead].values, plan.dim());
    float distance = 0;
    query.distances(blocks[i].values, blocks[i].norms_squared, 1, &distance);
    if (distance > plan.cutoff || has_no_direction(plan, blocks[i], 0)) continue;
    best.push({distance, p, rows[i]});
  }
  return {};
}

/// Walks one part. A walk finds rows in order of distance, dead and unwanted ones among them, so it
/// is widened until it holds as many wanted ones as an unfiltered walk would keep; then they are
/// the nearest wanted ones, with the recall of the plan. False when that would take reading a large
/// part of everything: scan instead.
Result<bool> walk_part(const Plan& plan, std::span<const float> values, const PreparedQuery& exact,
                       uint32_t p, Best& best, Effort& effort) {
  const SegmentView& part = plan.view.segments[p];
  const GraphPlan& walk = *plan.walks[p];
  const VectorIndex::Query query(*plan.indexes[p], values, VectorIndex::Query::Use::kEstimates);
  if (!query.usable()) return false;
  thread_local GraphScratch scratch;
  const uint64_t most = std::max<uint64_t>(walk.ef, part.rows / kWalkShareMax);
  double share = static_cast<double>(part.live()) / static_cast<double>(part.rows);
  for (int attempt = 0; attempt < kWalkAttempts; ++attempt) {
    const double width = std::ceil(walk.ef / std::max(share, 1e-6));
    if (width > static_cast<double>(most)) return false;
    query.walk({static_cast<uint32_t>(width), walk.verify, 0}, &scratch);
    effort.estimated[p].fetch_add(scratch.looks(), std::memory_order_relaxed);
    const std::span<const GraphCandidate> found = scratch.found();
    ASSIGN_OR_RETURN(std::vector<RowId> rows, allowed_candidates(plan, part, found, walk.ef));
    if (rows.size() < walk.ef && found.size() < part.rows &&
        (plan.filter || part.dead->count() > 0)) {
      const double seen = static_cast<double>(rows.size()) / static_cast<double>(found.size());
      share = std::min(share / 2, seen * 0.8);
      continue;
    }
    if (rows.size() < std::min<uint64_t>(plan.depth, part.live())) return false;
    rows.resize(std::min<size_t>(rows.size(), walk.verify));
    RETURN_IF_ERROR(verify_rows(plan, exact, p, rows, best));
    effort.computed[p].fetch_add(rows.size(), std::memory_order_relaxed);
    effort.walked[p].fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  return false;
}

struct Answer {
  std::vector<Candidate> hits;
  SearchMode mode = SearchMode::kExact;
  double recall = 1;
};

/// Walks the parts that have a walk, reads the others.
Result<Answer> walk_one(const SearchEnvironment& environment, const Plan& plan,
                        std::span<const float> values, Effort& effort) {
  ASSIGN_OR_RETURN(const PreparedQuery exact, PreparedQuery::make(plan.metric, values));
  Answer out;
  Best best(plan.depth, plan.less);
  std::vector<bool> scanned(plan.view.segments.size(), false);
  bool any_scan = false;
  double missed = 0;  // expected share of true hits that walks do not find, by rows
  for (uint32_t p = 0; p < plan.view.segments.size(); ++p) {
    const SegmentView& part = plan.view.segments[p];
    if (part.live() == 0) continue;
    bool walked = false;
    if (plan.walks[p]) {
      ASSIGN_OR_RETURN(walked, walk_part(plan, values, exact, p, best, effort));
    }
    if (walked) {
      out.mode = SearchMode::kGraph;
      missed += (1 - plan.walks[p]->recall) * static_cast<double>(part.live());
    } else {
      scanned[p] = any_scan = true;
    }
  }
  if (any_scan) {
    ASSIGN_OR_RETURN(const std::vector<Candidate> more,
                     scan_parts(environment, plan, values, scanned, effort));
    for (const Candidate& candidate : more) best.push(candidate);
  }
  out.recall = 1 - missed / static_cast<double>(std::max<uint64_t>(plan.view.points, 1));
  out.hits = best.take_sorted();
  return out;
}

// ---- many queries -------------------------------------------------------------------------------

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
  for (uint32_t p = 0; p < plan.view.segments.size(); ++p) {
    const SegmentView& part = plan.view.segments[p];
    if (part.live() == 0) continue;
    RowId checked = 0;  // the row at which time was last looked at
    for (RowId row = 0; row < part.rows;) {
      if (row == 0 || row - checked >= kTaskRows) {
        checked = row;
        if (deadline_passed(environment, plan.request)) {
          return deadline_exceeded("search ran out of time");
        }
      }
      const size_t want = std::min<size_t>(kBlock, part.rows - row);
      ASSIGN_OR_RETURN(const RowBlock block, part.segment->rows(row, want));
      ASSIGN_OR_RETURN(const size_t matches, allowed_rows(plan, part, row, block.count, allowed));
      if (matches > 0) {
        if (!pool.admit_norms(block.norms_squared, block.count)) return false;
        batch.distances(block.values, block.norms_squared, block.count, distances.data());
        effort.computed[p].fetch_add(block.count * batch.queries_count(),
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
  RETURN_IF_ERROR(pool.for_each(q, [&](Candidate candidate) -> Status {
    const Segment& segment = *plan.view.segments[candidate.part].segment;
    ASSIGN_OR_RETURN(const RowBlock block, segment.rows(candidate.row, 1));
    query.distances(block.values, block.norms_squared, 1, &candidate.distance);
    if (candidate.distance <= plan.cutoff) best.push(candidate);
    return {};
  }));
  return best.take_sorted();
}

/// Answers queries [first, last) into `out`.
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
      ASSIGN_OR_RETURN(out[first + q].hits, scan_one(environment, plan, group[q], effort));
    }
  }
  return {};
}

/// One query by whatever the plan says.
Result<Answer> find_one(const SearchEnvironment& environment, const Plan& plan,
                        std::span<const float> values, Effort& effort) {
  const bool walks = std::any_of(plan.walks.begin(), plan.walks.end(),
                                 [](const auto& walk) { return walk.has_value(); });
  if (walks) return walk_one(environment, plan, values, effort);
  Answer out;
  ASSIGN_OR_RETURN(out.hits, scan_one(environment, plan, values, effort));
  return out;
}

/// Whether queries are better answered one by one than by the matrix product.
bool one_by_one(const Plan& plan, size_t queries) {
  if (queries < kBatchQueriesMin || plan.depth > kBatchDepthMax) return true;
  uint64_t rows = 0;
  uint64_t coded = 0;
  for (size_t p = 0; p < plan.view.segments.size(); ++p) {
    rows += plan.view.segments[p].rows;
    if (plan.walks[p]) return true;
    if (plan.indexes[p] != nullptr) coded += plan.view.segments[p].rows;
  }
  return plan.dim() >= kBoundsBeatProductDim && 2 * coded > rows;
}

Result<std::vector<Answer>> find_all(const SearchEnvironment& environment, const Plan& plan,
                                     const std::vector<std::span<const float>>& queries,
                                     Effort& effort) {
  std::vector<Answer> out(queries.size());
  if (plan.depth == 0) return out;
  FirstError error;
  if (one_by_one(plan, queries.size())) {
    // Side by side where there are several; a scan inside may use what threads are left.
    environment.pool.for_each(queries.size(), [&](size_t q) {
      if (error.failed()) return;
      Result<Answer> answer = find_one(environment, plan, queries[q], effort);
      if (!answer) return error.note(answer.error());
      out[q] = std::move(*answer);
    });
    RETURN_IF_ERROR(error.status());
    return out;
  }
  const bool large = plan.view.points * plan.dim() * queries.size() >= kParallelFloatsMin;
  const size_t most = large ? environment.pool.helpers_count() + 1 : 1;
  const size_t groups = std::max<size_t>(1, std::min(most, queries.size() / kBatchQueriesMin));
  environment.pool.for_each(groups, [&](size_t g) {
    const Status done = search_group(environment, plan, queries, queries.size() * g / groups,
                                     queries.size() * (g + 1) / groups, effort, out);
    if (!done.ok()) error.note(done);
  });
  RETURN_IF_ERROR(error.status());
  return out;
}

// ---- answers ------------------------------------------------------------------------------------

Result<Hit> make_hit(const Plan& plan, const Candidate& candidate) {
  const Segment& segment = *plan.view.segments[candidate.part].segment;
  const GetOptions options{plan.request.include_payload, plan.request.include_values};
  ASSIGN_OR_RETURN(Point point, point_in_row(segment, candidate.row, plan.collection, options));
  Hit hit;
  hit.id = std::move(point.id);
  hit.score = score_of(plan.metric, candidate.distance);
  if (options.include_payload) hit.payload = std::move(point.payload);
  if (options.include_values) hit.values = std::move(point.values);
  return hit;
}

std::string describe(const Plan& plan, size_t p, const Effort& effort) {
  const bool matching = plan.filter.has_value();
  std::string out = plan.view.segments[p].segment->sealed() ? "sealed: " : "open: ";
  if (effort.walked[p].load(std::memory_order_relaxed) > 0) {
    out += "graph walk, ef " + std::to_string(plan.walks[p]->ef);
    return matching ? out + " or wider for matching rows" : out;
  }
  const bool bounded = effort.estimated[p].load(std::memory_order_relaxed) > 0;
  out += bounded ? "exact scan of codes" : "exact scan";
  return matching ? out + " of matching rows" : out;
}

std::vector<SegmentPlan> explain(const Plan& plan, const Effort& effort) {
  std::vector<SegmentPlan> out;
  for (size_t p = 0; p < plan.view.segments.size(); ++p) {
    const SegmentView& part = plan.view.segments[p];
    SegmentPlan line;
    line.segment_id = part.segment->id();
    line.plan = describe(plan, p, effort);
    line.rows = part.rows;
    line.candidates = effort.computed[p].load(std::memory_order_relaxed);
    line.estimated = effort.estimated[p].load(std::memory_order_relaxed);
    out.push_back(std::move(line));
  }
  return out;
}

}  // namespace

Result<std::vector<SearchResult>> search_view(const SearchEnvironment& environment,
                                              const View& view, const CollectionOptions& collection,
                                              const std::vector<std::span<const float>>& queries,
                                              const SearchRequest& common) {
  ASSIGN_OR_RETURN(const Plan plan, make_plan(view, collection, queries, common));
  const MonotonicTime start = environment.clock.now();
  Effort effort(view.segments.size());
  ASSIGN_OR_RETURN(const std::vector<Answer> found, find_all(environment, plan, queries, effort));
  const MonotonicTime scanned = environment.clock.now();
  std::vector<SearchResult> out(queries.size());
  for (size_t q = 0; q < queries.size(); ++q) {
    SearchResult& result = out[q];
    result.metric = plan.metric;
    result.mode = found[q].mode;
    result.recall_at_k = found[q].recall;
    result.ivf_fallback_exact = common.mode == SearchMode::kIvf;
    for (size_t i = common.offset; i < found[q].hits.size(); ++i) {
      ASSIGN_OR_RETURN(Hit hit, make_hit(plan, found[q].hits[i]));
      result.hits.push_back(std::move(hit));
    }
    if (!common.explain) continue;
    result.plan = explain(plan, effort);
    result.scan_us = elapsed_us(start, scanned);
    result.fetch_us = elapsed_us(scanned, environment.clock.now());
  }
  return out;
}

}  // namespace aionbd
