#include "engine/search_scan.h"

#include <algorithm>
#include <atomic>

#include "base/check.h"
#include "engine/first_error.h"

namespace aionbd {

namespace {

/// Rows per call of the scan kernel: distances of a block stay in the first-level cache.
constexpr size_t kScanRows = 256;
/// Rows per unit of parallel work: long enough to hide hand-over, short enough to balance.
constexpr size_t kTaskRows = 8192;
/// Widest walk for the first hits of an exact search, which only set its first threshold.
constexpr uint32_t kSeedHitsMax = 128;

struct Task {
  uint32_t part;
  RowId first;
  size_t count;
};

/// One query against the parts of a view, with what their indexes need of it.
struct QueryForms {
  PreparedQuery exact;
  IndexQueries queries;
  std::vector<const VectorIndex::Query*> bounds;  // per part: for its index, if that is scanned
  float limit;  // no better than the k-th best: rows beyond cannot be hits
};

}  // namespace

Status offer(const Plan& plan, const PreparedQuery& query, uint32_t p, RowId row, Best& best,
             size_t* computed) {
  ASSIGN_OR_RETURN(const bool wanted, plan.parts[p].wanted.contains(row));
  if (!wanted) return {};
  thread_local RowCopy copy;
  ASSIGN_OR_RETURN(const RowBlock block, rows_of(plan, p, row, 1, &copy));
  float distance = 0;
  query.distances(block.values, block.norms_squared, 1, &distance);
  ++*computed;
  if (distance > best.threshold() || distance > plan.cutoff) return {};
  if (has_no_direction(plan, block, 0)) return {};
  best.push({distance, p, row});
  return {};
}

namespace {

/// Offers the wanted rows of [first, first + count); returns how many distances were computed.
Result<size_t> scan_rows(const Plan& plan, const PreparedQuery& query, uint32_t p, RowId first,
                         size_t count, Best& best) {
  constexpr size_t kPrefetched = 64;  // floats; the CPU sees the run and reads on by itself
  RowId rows[PlaneQuery::kBoundRows];
  ASSIGN_OR_RETURN(const size_t n, plan.parts[p].wanted.select(first, count, rows));
  ASSIGN_OR_RETURN(const RowBlock block, plan.view.segments[p].segment->rows(first, count));
  CHECK_EQ(block.count, count);  // sealed rows lie together
  for (size_t i = 0; i < n; ++i)
    prefetch_row(block.values.from((rows[i] - first) * plan.dim()),
                 std::min(plan.dim(), kPrefetched));
  for (size_t i = 0; i < n; ++i) {
    const size_t at = rows[i] - first;
    float distance = 0;
    query.distances(block.values.from(at * plan.dim()), block.norms_squared + at, 1, &distance);
    if (distance > best.threshold() || distance > plan.cutoff) continue;
    if (!has_no_direction(plan, block, at)) best.push({distance, p, rows[i]});
  }
  return n;
}

/// How far a hit may be, by what was found so far.
float reach_of(const Plan& plan, const QueryForms& query, const Best& best) {
  return std::min({best.threshold(), plan.cutoff, query.limit});
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
    const size_t most = plan.parts[task.part].wanted.most_of(row, n);
    if (most * kBoundsPerRead < n) {
      // Bounds of the whole block would cost more than reading these rows.
      ASSIGN_OR_RETURN(const size_t read, scan_rows(plan, query.exact, task.part, row, n, best));
      computed += read;
      row += static_cast<RowId>(n);
      continue;
    }
    float reach = bounds.reach(reach_of(plan, query, best));
    bounds.lower_bounds(row, n, reach, lowest);
    const size_t found = select_at_most(lowest, reach, n, near);
    for (size_t i = 0; i < found; ++i) {
      if (lowest[near[i]] > reach) continue;
      const size_t before = computed;
      RETURN_IF_ERROR(offer(plan, query.exact, task.part, row + near[i], best, &computed));
      if (computed != before) {
        reach = bounds.reach(reach_of(plan, query, best));
      }
    }
    row += static_cast<RowId>(n);
  }
  return computed;
}

/// As scan_task, for rows that are copied: only those wanted are.
Result<size_t> scan_copied(const Plan& plan, const QueryForms& query, const Task& task,
                           Best& best) {
  thread_local RowCopy copy;
  const Segment& segment = *plan.view.segments[task.part].segment;
  float distances[kScanRows];
  RowId wanted[kScanRows];
  size_t computed = 0;
  for (size_t done = 0; done < task.count; done += kScanRows) {
    const size_t count = std::min(kScanRows, task.count - done);
    const RowId first = task.first + static_cast<RowId>(done);
    ASSIGN_OR_RETURN(const size_t n, plan.parts[task.part].wanted.select(first, count, wanted));
    for (size_t i = 0; i < n;) {
      size_t j = i + 1;
      while (j < n && wanted[j] == wanted[i] + (j - i)) ++j;
      ASSIGN_OR_RETURN(const RowBlock block, copy.read(segment, plan.dim(), wanted[i], j - i));
      query.exact.distances(block.values, block.norms_squared, j - i, distances);
      for (size_t at = 0; at < j - i; ++at) {
        if (distances[at] > reach_of(plan, query, best)) continue;
        if (!has_no_direction(plan, block, at)) {
          best.push({distances[at], task.part, wanted[i + at]});
        }
      }
      i = j;
    }
    computed += n;
  }
  return computed;
}

/// Scans one task's rows into `best`; returns how many distances were computed.
Result<size_t> scan_task(const Plan& plan, const QueryForms& query, const Task& task, Best& best) {
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
      ASSIGN_OR_RETURN(matches, plan.parts[task.part].wanted.select(row, block.count, allowed));
      // Runs of matching rows are scanned together; the rest is not read at all.
      for (size_t i = 0; i < matches;) {
        size_t j = i + 1;
        while (j < matches && allowed[j] == allowed[i] + (j - i)) ++j;
        const size_t at = allowed[i] - row;
        query.exact.distances(block.values.from(at * plan.dim()), block.norms_squared + at, j - i,
                              distances + at);
        i = j;
      }
      for (size_t i = 0; i < matches; ++i) near[i] = allowed[i] - row;
    } else {
      query.exact.distances(block.values, block.norms_squared, block.count, distances);
      matches = select_at_most(distances, reach_of(plan, query, best), block.count, near);
    }
    computed += plan.filter ? matches : block.count;
    for (size_t i = 0; i < matches; ++i) {
      const uint32_t at = near[i];
      const RowId found = row + at;
      if (distances[at] > reach_of(plan, query, best)) continue;
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
    const WantedRows& wanted = plan.parts[p].wanted;
    if (wanted.most() == 0 || !scanned[p]) continue;
    for (uint64_t first = 0; first < part.rows; first += kTaskRows) {
      const auto row = static_cast<RowId>(first);
      const auto count = static_cast<size_t>(std::min<uint64_t>(kTaskRows, part.rows - first));
      if (wanted.next(row) < first + count) out.push_back({p, row, count});
    }
  }
  return out;
}

/// The distance of the k-th best of the rows a walk finds: no row beyond it can be a hit. Infinite
/// when nothing can be said, or not cheaply.
Result<float> seed_distance(const Plan& plan, std::span<const float> values,
                            const PreparedQuery& exact, uint32_t p, Effort& effort) {
  const SegmentView& part = plan.view.segments[p];
  if (plan.filter || plan.depth > kSeedHitsMax || part.live() < plan.depth) return kFarthest;
  if (!plan.parts[p].indexed) return kFarthest;
  const VectorIndex::Query query(*plan.parts[p].index, values, VectorIndex::Query::Use::kEstimates);
  if (!query.usable()) return kFarthest;
  thread_local GraphScratch scratch;
  const auto k = static_cast<uint32_t>(plan.depth);
  query.walk({2 * k, 2 * k, 0}, &scratch);
  Best best(plan.depth, plan.less);
  size_t computed = 0;
  for (const GraphCandidate& candidate : scratch.found()) {
    RETURN_IF_ERROR(offer(plan, exact, p, candidate.row, best, &computed));
  }
  effort.parts[p].computed.fetch_add(computed, std::memory_order_relaxed);
  effort.parts[p].estimated.fetch_add(scratch.looks(), std::memory_order_relaxed);
  return best.threshold();
}

Result<QueryForms> make_forms(const Plan& plan, std::span<const float> values,
                              const std::vector<bool>& scanned, float limit, Effort& effort) {
  ASSIGN_OR_RETURN(PreparedQuery exact, PreparedQuery::make(plan.metric, values));
  QueryForms forms{
      std::move(exact), IndexQueries(values, VectorIndex::Query::Use::kBounds), {}, limit};
  forms.bounds.resize(plan.parts.size());
  for (uint32_t p = 0; p < plan.parts.size(); ++p) {
    if (!scanned[p] || !plan.parts[p].bounded(plan.view.segments[p])) continue;
    if (!plan.parts[p].rows_in_place()) continue;
    // Blocks of rows are bounded together: where few of them are wanted, reading these is less.
    if (plan.parts[p].wanted.most() * kBoundsPerRead < plan.view.segments[p].rows / 2) continue;
    const VectorIndex::Query& bounds = forms.queries.on(*plan.parts[p].index);
    if (!bounds.usable()) continue;
    forms.bounds[p] = &bounds;
    if (limit < kFarthest) continue;
    ASSIGN_OR_RETURN(const float seed, seed_distance(plan, values, forms.exact, p, effort));
    forms.limit = std::min(forms.limit, seed);
  }
  return forms;
}

}  // namespace

Result<std::vector<Candidate>> scan_parts(const SearchEnvironment& environment, const Plan& plan,
                                          std::span<const float> values,
                                          const std::vector<bool>& scanned, float limit,
                                          Effort& effort) {
  ASSIGN_OR_RETURN(const QueryForms query, make_forms(plan, values, scanned, limit, effort));
  const std::vector<Task> tasks = make_tasks(plan, scanned);
  uint64_t rows = 0;
  for (uint32_t p = 0; p < scanned.size(); ++p)
    rows += scanned[p] ? plan.parts[p].wanted.most() : 0;
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
      const bool bounded = query.bounds[part] != nullptr;
      const auto scan = plan.parts[part].rows_in_place() ? scan_task : scan_copied;
      const Result<size_t> done = bounded ? scan_bounded(plan, query, tasks[i], best[lane])
                                          : scan(plan, query, tasks[i], best[lane]);
      if (!done) return error.note(done.error());
      effort.parts[part].computed.fetch_add(*done, std::memory_order_relaxed);
      if (bounded)
        effort.parts[part].estimated.fetch_add(tasks[i].count, std::memory_order_relaxed);
    }
  });
  RETURN_IF_ERROR(error.status());
  for (size_t lane = 1; lane < best.size(); ++lane) {
    for (const Candidate& candidate : best[lane].items()) best[0].push(candidate);
  }
  return best[0].take_sorted();
}

Result<std::vector<Candidate>> scan_all(const SearchEnvironment& environment, const Plan& plan,
                                        std::span<const float> values, Effort& effort) {
  return scan_parts(environment, plan, values, std::vector<bool>(plan.view.segments.size(), true),
                    kFarthest, effort);
}

}  // namespace aionbd
