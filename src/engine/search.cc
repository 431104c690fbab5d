#include "engine/search.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>

#include "base/check.h"
#include "base/mutex.h"
#include "distance/metric.h"
#include "engine/reader.h"
#include "engine/wanted_rows.h"
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
/// Wanted rows, in rows that a walk would verify anyway, up to which all are read.
constexpr uint32_t kReadBeforeVerify = 3;
/// Wanted rows, in widths of the walk, up to which looking at the codes of all costs less than
/// walking over them: about 20 ns each, against 5 us for a place of the walk's width and the edges
/// of the unwanted rows around it (Fashion-MNIST).
constexpr uint32_t kLooksPerWidth = 320;
/// Share of wanted rows from which an ordinary walk, made wider, beats one over wanted rows only.
constexpr double kSiftShare = 0.3;
/// Times the plan's width for a walk over wanted rows only: the graph was not built for them, and
/// what they have in common may be that they are far from the query.
constexpr double kInsideReserve = 3;
/// Over the width at which a walk finds enough wanted rows on average.
constexpr double kWidthReserve = 1.1;
/// Rows whose bounds cost as much as reading one row from anywhere.
constexpr uint64_t kBoundsPerRead = 16;
/// Rows in a matrix product of several queries that cost as much as reading one row for each.
constexpr uint64_t kProductPerRead = 8;
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

/// How the walk of one part is kept to the rows a filter wants.
enum class Restriction {
  kAfterwards,  // the walk is made wide enough, what it finds is sifted
  kInside,      // the walk goes over wanted rows only
  kLookAtAll,   // no walk: the codes of all wanted rows are looked at
};

/// What one search call has decided before it looks at rows. Thread safety: immutable.
struct Plan {
  const View& view;
  const CollectionOptions& collection;
  const SearchRequest& request;
  Metric metric = Metric::kDot;
  uint64_t depth = 0;  // hits to find: offset + limit, at most the live points
  float cutoff = kFarthest;
  std::unique_ptr<const CompiledFilter> filter;  // at one address, whoever moves the plan
  CandidateLess less;
  /// For each part: its index for this metric, and the walk that answers it. No index: every row is
  /// read. No walk: an index only bounds.
  std::vector<std::shared_ptr<const VectorIndex>> indexes;
  std::vector<std::optional<GraphPlan>> walks;
  /// For each part: the rows that may be hits, and how a walk finds them.
  std::vector<WantedRows> wanted;
  std::vector<Restriction> restrictions;

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
std::optional<GraphPlan> plan_walk(const Plan& plan, const VectorIndex& index,
                                   uint32_t nprobe_default) {
  const SearchRequest& request = plan.request;
  const bool possible = plan.depth > 0 && plan.depth <= kWalkDepthMax && index.covers_all();
  if (request.mode == SearchMode::kExact || !possible) return std::nullopt;
  const auto k = static_cast<uint32_t>(plan.depth);
  if (request.mode == SearchMode::kIvf) {
    if (request.param) return index.plan_with_nprobe(k, *request.param);
    if (!request.target_recall) return index.plan_with_nprobe(k, nprobe_default);
    const std::optional<GraphPlan> visit = index.plan_lists(k, *request.target_recall);
    return visit ? visit : index.plan_with_nprobe(k, index.lists());
  }
  if (request.mode == SearchMode::kGraph && request.param) {
    return index.plan_with_ef(k, *request.param);
  }
  std::optional<GraphPlan> walk = index.plan(k, request.target_recall.value_or(kAutoTargetRecall));
  // Asked for by name, the graph answers as well as it can.
  if (!walk && request.mode == SearchMode::kGraph) walk = index.plan_with_ef(k, kSearchParamMax);
  return walk;
}

/// Fits the walk of one part to the rows that its field index says are wanted.
void plan_restriction(Plan& plan, size_t p) {
  const WantedRows& wanted = plan.wanted[p];
  std::optional<GraphPlan>& walk = plan.walks[p];
  if (!walk || !wanted.indexed()) return;
  if (wanted.most() <= uint64_t{kReadBeforeVerify} * walk->verify) {
    walk.reset();
  } else if (wanted.most() <= uint64_t{kLooksPerWidth} * walk->ef) {
    plan.restrictions[p] = Restriction::kLookAtAll;
  } else if (static_cast<double>(wanted.most()) <
                 kSiftShare * static_cast<double>(plan.view.segments[p].rows) &&
             walk->nprobe == 0) {
    plan.restrictions[p] = Restriction::kInside;
  }
}

void plan_parts(Plan& plan, uint32_t nprobe_default) {
  const size_t parts = plan.view.segments.size();
  plan.indexes.resize(parts);
  plan.walks.resize(parts);
  plan.restrictions.resize(parts, Restriction::kAfterwards);
  plan.wanted.reserve(parts);
  for (size_t p = 0; p < parts; ++p) {
    const SegmentView& part = plan.view.segments[p];
    plan.wanted.emplace_back(part, plan.filter.get());
    plan.indexes[p] = part.segment->vector_index(plan.metric);
    if (plan.indexes[p] != nullptr)
      plan.walks[p] = plan_walk(plan, *plan.indexes[p], nprobe_default);
    plan_restriction(plan, p);
  }
}

Result<Plan> make_plan(const View& view, const CollectionOptions& collection,
                       const std::vector<std::span<const float>>& queries,
                       const SearchRequest& request, uint32_t nprobe_default) {
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
  Plan plan{view, collection,          request, Metric::kDot, 0,  kFarthest,
            {},   CandidateLess(view), {},      {},           {}, {}};
  plan.less.id_type_ = collection.id_type;
  plan.metric = request.metric.value_or(collection.metric.value_or(Metric::kDot));
  plan.depth = std::min<uint64_t>(uint64_t{request.offset} + request.limit, view.points);
  if (request.score_threshold) {
    plan.cutoff = distance_of_threshold(plan.metric, *request.score_threshold);
  }
  if (request.filter != nullptr) {
    ASSIGN_OR_RETURN(CompiledFilter filter, CompiledFilter::compile(*request.filter));
    plan.filter = std::make_unique<const CompiledFilter>(std::move(filter));
  }
  plan_parts(plan, nprobe_default);
  return plan;
}

/// A zero row has no direction: cosine searches never return it. (A norm of 0 alone does not say
/// so: squares of tiny values vanish.)
bool has_no_direction(const Plan& plan, const RowBlock& block, size_t at) {
  if (plan.metric != Metric::kCosine || block.norms_squared[at] != 0.0F) return false;
  const float* row = block.values + at * plan.dim();
  return std::all_of(row, row + plan.dim(), [](float value) { return value == 0.0F; });
}

/// Asks for a row's bytes, which lie anywhere in memory, ahead of their use.
void prefetch_row(const float* row, size_t dim) {
  const auto* at = reinterpret_cast<const char*>(row);
  for (size_t i = 0; i < dim * sizeof(float); i += 64) __builtin_prefetch(at + i);
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
  ASSIGN_OR_RETURN(const bool wanted, plan.wanted[p].contains(row));
  if (!wanted) return {};
  ASSIGN_OR_RETURN(const RowBlock block, plan.view.segments[p].segment->rows(row, 1));
  float distance = 0;
  query.distances(block.values, block.norms_squared, 1, &distance);
  ++*computed;
  if (distance > best.threshold() || distance > plan.cutoff) return {};
  if (has_no_direction(plan, block, 0)) return {};
  best.push({distance, p, row});
  return {};
}

/// Offers the wanted rows of [first, first + count); returns how many distances were computed.
Result<size_t> scan_rows(const Plan& plan, const PreparedQuery& query, uint32_t p, RowId first,
                         size_t count, Best& best) {
  constexpr size_t kPrefetched = 64;  // floats; the CPU sees the run and reads on by itself
  RowId rows[PlaneQuery::kBoundRows];
  ASSIGN_OR_RETURN(const size_t n, plan.wanted[p].select(first, count, rows));
  ASSIGN_OR_RETURN(const RowBlock block, plan.view.segments[p].segment->rows(first, count));
  CHECK_EQ(block.count, count);  // sealed rows lie together
  for (size_t i = 0; i < n; ++i)
    prefetch_row(block.values + (rows[i] - first) * plan.dim(), std::min(plan.dim(), kPrefetched));
  for (size_t i = 0; i < n; ++i) {
    const size_t at = rows[i] - first;
    float distance = 0;
    query.distances(block.values + at * plan.dim(), block.norms_squared + at, 1, &distance);
    if (distance > best.threshold() || distance > plan.cutoff) continue;
    if (!has_no_direction(plan, block, at)) best.push({distance, p, rows[i]});
  }
  return n;
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
    const size_t most = plan.wanted[task.part].most_of(row, n);
    if (most * kBoundsPerRead < n) {
      // Bounds of the whole block would cost more than reading these rows.
      ASSIGN_OR_RETURN(const size_t read, scan_rows(plan, query.exact, task.part, row, n, best));
      computed += read;
      row += static_cast<RowId>(n);
      continue;
    }
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
      ASSIGN_OR_RETURN(matches, plan.wanted[task.part].select(row, block.count, allowed));
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
std::vector<Task> make_tasks(const Plan& plan, const std::vector<bool>& scanned) {
  std::vector<Task> out;
  for (uint32_t p = 0; p < plan.view.segments.size(); ++p) {
    const SegmentView& part = plan.view.segments[p];
    const WantedRows& wanted = plan.wanted[p];
    if (wanted.most() == 0 || !scanned[p]) continue;
    for (uint64_t first = 0; first < part.rows; first += kTaskRows) {
      const auto row = static_cast<RowId>(first);
      const auto count = static_cast<size_t>(std::min<uint64_t>(kTaskRows, part.rows - first));
      if (wanted.next(row) < first + count) out.push_back({p, row, count});
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
    // Blocks of rows are bounded together: where few of them are wanted, reading these is less.
    if (plan.wanted[p].most() * kBoundsPerRead < plan.view.segments[p].rows / 2) continue;
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
  const std::vector<Task> tasks = make_tasks(plan, scanned);
  uint64_t rows = 0;
  for (uint32_t p = 0; p < scanned.size(); ++p) rows += scanned[p] ? plan.wanted[p].most() : 0;
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

/// One query in the two forms that a walk needs.
struct QueryOnPart {
  const PreparedQuery& exact;
  const VectorIndex::Query& codes;
};

/// Keeps of the candidates those that are wanted; at most `most` of them.
Result<std::vector<GraphCandidate>> wanted_candidates(const WantedRows& wanted,
                                                      std::span<const GraphCandidate> found,
                                                      size_t most) {
  std::vector<GraphCandidate> out;
  for (const GraphCandidate& candidate : found) {
    if (out.size() == most) break;
    ASSIGN_OR_RETURN(const bool take, wanted.contains(candidate.row));
    if (take) out.push_back(candidate);
  }
  return out;
}

/// Exact distances of candidates, the most promising first, into `best`; ends where the estimates
/// say that hardly any further one gets in. False, and nothing done, if one of them can be no hit:
/// the rows behind it that were not kept might have been.
Result<bool> verify_rows(const Plan& plan, const QueryOnPart& query, uint32_t p,
                         std::span<const GraphCandidate> rows, Best& best, size_t* computed) {
  constexpr size_t kAhead = 4;
  const SegmentView& part = plan.view.segments[p];
  std::vector<RowBlock> blocks;
  blocks.reserve(rows.size());
  for (const GraphCandidate& candidate : rows) {
    ASSIGN_OR_RETURN(const RowBlock block, part.segment->rows(candidate.row, 1));
    blocks.push_back(block);
    if (blocks.size() <= kAhead) prefetch_row(block.values, plan.dim());
  }
  Best near(plan.depth, plan.less);
  float threshold = kFarthest;
  float reach = kFarthest;
  for (size_t i = 0; i < rows.size() && rows[i].distance <= reach; ++i) {
    if (i + kAhead < rows.size()) prefetch_row(blocks[i + kAhead].values, plan.dim());
    float distance = 0;
    query.exact.distances(blocks[i].values, blocks[i].norms_squared, 1, &distance);
    ++*computed;
    if (has_no_direction(plan, blocks[i], 0)) return false;
    if (distance <= plan.cutoff) near.push({distance, p, rows[i].row});
    if (near.threshold() < threshold) {
      threshold = near.threshold();
      reach = query.codes.likely_reach(threshold);
    }
  }
  for (const Candidate& candidate : near.items()) best.push(candidate);
  return true;
}

/// How wide the first walk must be to find as many wanted rows as the plan's width.
double first_width(const Plan& plan, uint32_t p) {
  const SegmentView& part = plan.view.segments[p];
  const WantedRows& wanted = plan.wanted[p];
  const double ef = plan.walks[p]->ef;
  if (plan.restrictions[p] == Restriction::kLookAtAll) return ef;
  if (plan.restrictions[p] == Restriction::kInside) return ef * kInsideReserve;
  const double share = static_cast<double>(wanted.most()) / static_cast<double>(part.rows);
  // A known share is met on average only: one walk in many falls short of this.
  return ef / std::max(share, 1e-6) * (wanted.indexed() ? kWidthReserve : 1.0);
}

/// Walks one part. An unrestricted walk finds rows in order of distance, dead and unwanted ones
/// among them, so it is widened until it holds as many wanted ones as an unfiltered walk would
/// keep; then they are the nearest wanted ones, with the recall of the plan. False when that would
/// take reading a large part of everything: scan instead.
Result<bool> walk_part(const SearchEnvironment& environment, const Plan& plan,
                       std::span<const float> values, const PreparedQuery& exact, uint32_t p,
                       Best& best, Effort& effort) {
  const SegmentView& part = plan.view.segments[p];
  const WantedRows& wanted = plan.wanted[p];
  const GraphPlan& walk = *plan.walks[p];
  const Restriction restriction = plan.restrictions[p];
  const VectorIndex::Query codes(*plan.indexes[p], values, VectorIndex::Query::Use::kEstimates);
  if (!codes.usable()) return false;
  const bool by_lists = walk.nprobe > 0 && restriction == Restriction::kAfterwards;
  thread_local GraphScratch scratch;
  scratch.allow({restriction == Restriction::kAfterwards ? nullptr : wanted.words(),
                 restriction == Restriction::kLookAtAll});
  const uint64_t most = std::max<uint64_t>(walk.ef, part.rows / kWalkShareMax);
  double width = std::ceil(first_width(plan, p));
  for (int attempt = 0; attempt < kWalkAttempts; ++attempt) {
    if (width > static_cast<double>(most)) return false;
    if (deadline_passed(environment, plan.request)) {
      return deadline_exceeded("search ran out of time");
    }
    // Wider means more lists, too.
    const double lists = by_lists ? walk.nprobe * std::max(1.0, width / walk.ef) : 0;
    codes.walk({static_cast<uint32_t>(width), walk.verify, 0, static_cast<uint32_t>(lists)},
               &scratch);
    effort.estimated[p].fetch_add(scratch.looks(), std::memory_order_relaxed);
    const std::span<const GraphCandidate> found = scratch.found();
    ASSIGN_OR_RETURN(std::vector<GraphCandidate> rows, wanted_candidates(wanted, found, walk.ef));
    // A few lists may hold fewer rows than are kept: enough for an answer is enough.
    const uint64_t want = std::min<uint64_t>(by_lists ? plan.depth : walk.ef, wanted.most());
    if (rows.size() < want && (by_lists || !wanted.exact() || wanted.most() < part.rows)) {
      // Looking at all, or reaching no more rows however wide: there is nothing to widen.
      const bool ended = static_cast<double>(found.size()) < width && !by_lists;
      if (restriction == Restriction::kLookAtAll || ended) return false;
      const double seen =
          static_cast<double>(rows.size()) / std::max(1.0, static_cast<double>(found.size()));
      width = std::ceil(std::max(2 * width, walk.ef / std::max(0.8 * seen, 1e-6)));
      continue;
    }
    if (rows.size() < std::min<uint64_t>(plan.depth, wanted.most())) return false;
    rows.resize(std::min<size_t>(rows.size(), walk.verify));
    size_t computed = 0;
    ASSIGN_OR_RETURN(const bool verified,
                     verify_rows(plan, {exact, codes}, p, rows, best, &computed));
    effort.computed[p].fetch_add(computed, std::memory_order_relaxed);
    if (!verified) return false;
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
    if (plan.wanted[p].most() == 0) continue;
    bool walked = false;
    if (plan.walks[p]) {
      ASSIGN_OR_RETURN(walked, walk_part(environment, plan, values, exact, p, best, effort));
    }
    if (walked) {
      out.mode = plan.walks[p]->nprobe > 0 ? SearchMode::kIvf : SearchMode::kGraph;
      missed += (1 - plan.walks[p]->recall) * static_cast<double>(plan.wanted[p].most());
    } else {
      scanned[p] = any_scan = true;
    }
  }
  if (any_scan) {
    ASSIGN_OR_RETURN(const std::vector<Candidate> more,
                     scan_parts(environment, plan, values, scanned, effort));
    for (const Candidate& candidate : more) best.push(candidate);
  }
  uint64_t rows = 0;
  for (const WantedRows& wanted : plan.wanted) rows += wanted.most();
  out.recall = 1 - missed / static_cast<double>(std::max<uint64_t>(rows, 1));
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
    if (plan.wanted[p].most() == 0) continue;
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
      ASSIGN_OR_RETURN(const size_t matches, plan.wanted[p].select(row, block.count, allowed));
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
  if (deadline_passed(environment, plan.request)) {
    return deadline_exceeded("search ran out of time");
  }
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
  uint64_t wanted = 0;
  for (size_t p = 0; p < plan.view.segments.size(); ++p) {
    rows += plan.view.segments[p].rows;
    if (plan.walks[p]) return true;
    wanted += plan.wanted[p].most();
    if (plan.indexes[p] != nullptr) coded += plan.view.segments[p].rows;
  }
  // The product is of whole blocks of rows.
  if (wanted * kProductPerRead < rows) return true;
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

/// "of matching rows", with the number where an index told it.
std::string of_wanted(const WantedRows& wanted) {
  if (!wanted.filtered()) return "";
  if (!wanted.indexed()) return " of matching rows";
  return (wanted.exact() ? " of " : " of at most ") + std::to_string(wanted.most()) +
         " matching rows";
}

std::string describe_walk(const Plan& plan, size_t p) {
  const WantedRows& wanted = plan.wanted[p];
  const std::string ef = std::to_string(plan.walks[p]->ef);
  if (plan.walks[p]->nprobe > 0 && plan.restrictions[p] == Restriction::kAfterwards) {
    return "visit of " + std::to_string(plan.walks[p]->nprobe) + " lists" +
           (wanted.filtered() ? " or more for matching rows" : "");
  }
  switch (plan.restrictions[p]) {
    case Restriction::kLookAtAll: return "estimates from codes" + of_wanted(wanted);
    case Restriction::kInside:
    case Restriction::kAfterwards: break;
  }
  if (!wanted.filtered()) return "graph walk, ef " + ef;
  if (!wanted.indexed()) return "graph walk, ef " + ef + " or wider for matching rows";
  const auto width = static_cast<uint64_t>(std::ceil(first_width(plan, static_cast<uint32_t>(p))));
  return "graph walk, ef " + std::to_string(width) + " for " + ef + of_wanted(wanted);
}

std::string describe(const Plan& plan, size_t p, const Effort& effort) {
  const WantedRows& wanted = plan.wanted[p];
  const std::string kind = plan.view.segments[p].segment->sealed() ? "sealed: " : "open: ";
  if (wanted.indexed() && wanted.most() == 0) return kind + "nothing, no row matches";
  if (effort.walked[p].load(std::memory_order_relaxed) > 0) return kind + describe_walk(plan, p);
  const bool bounded = effort.estimated[p].load(std::memory_order_relaxed) > 0;
  return kind + (bounded ? "exact scan of codes" : "exact scan") + of_wanted(wanted);
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
  ASSIGN_OR_RETURN(const Plan plan,
                   make_plan(view, collection, queries, common, environment.nprobe_default));
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
    result.ivf_fallback_exact =
        common.mode == SearchMode::kIvf && result.mode == SearchMode::kExact;
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
