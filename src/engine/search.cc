#include "engine/search.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/first_error.h"
#include "engine/reader.h"
#include "engine/search_plan.h"
#include "engine/search_product.h"
#include "engine/search_scan.h"
#include "engine/search_walk.h"

namespace aionbd {

namespace {

/// One query by whatever the plan says.
Result<Answer> find_one(const SearchEnvironment& environment, const Plan& plan,
                        std::span<const float> values, Effort& effort) {
  if (deadline_passed(environment, plan.request)) {
    return deadline_exceeded("search ran out of time");
  }
  const bool walks = std::any_of(plan.parts.begin(), plan.parts.end(),
                                 [](const PartPlan& part) { return part.walk.has_value(); });
  if (walks) return walk_one(environment, plan, values, effort);
  Answer out;
  ASSIGN_OR_RETURN(out.hits, scan_all(environment, plan, values, effort));
  return out;
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

Result<Hit> make_hit(const Plan& plan, const Candidate& candidate, AnswerAccount* account) {
  const Segment& segment = *plan.view.segments[candidate.part].segment;
  const GetOptions options{plan.request.include_payload, plan.request.include_values};
  ASSIGN_OR_RETURN(Point point,
                   point_in_row(segment, candidate.row, plan.collection, options, account));
  Hit hit;
  hit.id = std::move(point.id);
  hit.score = score_of(plan.metric, candidate.distance);
  if (options.include_payload) hit.payload = std::move(point.payload);
  if (options.include_values) hit.values = std::move(point.values);
  return hit;
}

void count_bare_reads(const SearchEnvironment& environment, const Plan& plan, size_t queries) {
  if (environment.bare_reads == nullptr) return;
  uint64_t rows = 0;
  for (size_t p = 0; p < plan.parts.size(); ++p) {
    if (plan.parts[p].indexed) continue;
    // Open rows count whole also where codes spare searches most of it: they want to be sealed, and
    // better so than by the next write.
    const SegmentView& part = plan.view.segments[p];
    rows += plan.parts[p].bounded(part) ? part.rows / kBoundsPerRead : part.rows;
  }
  if (rows > 0) environment.bare_reads->fetch_add(rows * queries, std::memory_order_relaxed);
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
  count_bare_reads(environment, plan, queries.size());
  std::vector<SearchResult> out(queries.size());
  for (size_t q = 0; q < queries.size(); ++q) {
    SearchResult& result = out[q];
    result.metric = plan.metric;
    result.mode = found[q].mode;
    result.recall_at_k = found[q].recall;
    result.ivf_fallback_exact =
        common.mode == SearchMode::kIvf && result.mode == SearchMode::kExact;
    for (size_t i = common.offset; i < found[q].hits.size(); ++i) {
      ASSIGN_OR_RETURN(Hit hit, make_hit(plan, found[q].hits[i], environment.account));
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
