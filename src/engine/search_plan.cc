#include "engine/search_plan.h"

#include <algorithm>
#include <cmath>

#include "engine/op.h"

namespace aionbd {

namespace {

/// Hits beyond which a walk would have to keep too much; everything is read instead.
constexpr uint64_t kWalkDepthMax = 2048;
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
/// Up to this promise a visit of all lists is as good as reading all rows: what limits it is that
/// calibration lets 2 in 1,000 true neighbours lie too deep to be verified.
constexpr double kAllListsRecall = 0.995;
/// Over the width at which a walk finds enough wanted rows on average.
constexpr double kWidthReserve = 1.1;

Status check_query(const SearchRequest& request, std::span<const float> query,
                   const CollectionOptions& collection) {
  if (query.size() != collection.dimension) {
    return invalid_argument("query: dimension differs from the collection's: got " +
                            std::to_string(query.size()) + ", want " +
                            std::to_string(collection.dimension));
  }
  if (!all_finite(query)) return invalid_argument("query must hold finite f32 numbers only");
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

/// As plan_walk for a part of which nothing is read in place: a visit of lists is what costs few
/// reads.
std::optional<GraphPlan> plan_visit(const Plan& plan, const VectorIndex& index,
                                    const MeasuredRecall* measured, uint32_t nprobe_default) {
  const SearchRequest& request = plan.request;
  const auto k = static_cast<uint32_t>(plan.depth);
  if (request.mode == SearchMode::kIvf && !request.target_recall) {
    return index.plan_with_nprobe(k, request.param.value_or(nprobe_default), measured);
  }
  const double target = request.target_recall.value_or(kAutoTargetRecall);
  const std::optional<GraphPlan> visit = index.plan_lists(k, target, measured);
  if (visit || (target > kAllListsRecall && request.mode == SearchMode::kAuto)) return visit;
  return index.plan_with_nprobe(k, index.lists(), measured);
}

/// The walk for one part, if one keeps the promise. `measured`: instead of calibration, if any.
std::optional<GraphPlan> plan_walk(const Plan& plan, const VectorIndex& index,
                                   const MeasuredRecall* measured, uint32_t nprobe_default,
                                   Residency residency) {
  const SearchRequest& request = plan.request;
  const bool possible = plan.depth > 0 && plan.depth <= kWalkDepthMax && index.covers_all();
  if (request.mode == SearchMode::kExact || !possible) return std::nullopt;
  if (residency == Residency::kNothing) return plan_visit(plan, index, measured, nprobe_default);
  const auto k = static_cast<uint32_t>(plan.depth);
  if (request.mode == SearchMode::kIvf) {
    if (request.param) return index.plan_with_nprobe(k, *request.param, measured);
    if (!request.target_recall) return index.plan_with_nprobe(k, nprobe_default, measured);
    const std::optional<GraphPlan> visit = index.plan_lists(k, *request.target_recall, measured);
    return visit ? visit : index.plan_with_nprobe(k, index.lists(), measured);
  }
  if (request.mode == SearchMode::kGraph && request.param) {
    return index.plan_with_ef(k, *request.param, measured);
  }
  const double target = request.target_recall.value_or(kAutoTargetRecall);
  // With a filter, a walk can keep to the rows that match; visits cannot.
  if (request.mode != SearchMode::kGraph && plan.filter == nullptr) {
    return index.plan_cheapest(k, target, measured);
  }
  const std::optional<GraphPlan> walk = index.plan(k, target, measured);
  // Asked for by name, the graph answers as well as it can.
  if (walk || request.mode != SearchMode::kGraph) return walk;
  return index.plan_with_ef(k, kSearchParamMax, measured);
}

/// Fits the walk of one part to the rows that its field index says are wanted.
void restrict_walk(const SegmentView& part, PartPlan& plan) {
  if (!plan.walk || !plan.wanted.indexed()) return;
  const uint64_t most = plan.wanted.most();
  if (most <= uint64_t{kReadBeforeVerify} * plan.walk->verify) {
    plan.walk.reset();
  } else if (plan.residency == Residency::kNothing) {
    // What follows would read codes here and there.
  } else if (most <= uint64_t{kLooksPerWidth} * plan.walk->ef) {
    plan.restriction = Restriction::kLookAtAll;
  } else if (static_cast<double>(most) < kSiftShare * static_cast<double>(part.rows) &&
             plan.walk->nprobe == 0) {
    plan.restriction = Restriction::kInside;
  }
}

void plan_parts(Plan& plan, uint32_t nprobe_default) {
  plan.parts.reserve(plan.view.segments.size());
  for (const SegmentView& part : plan.view.segments) {
    PartPlan& to = plan.parts.emplace_back(part, plan.filter.get());
    to.index = part.segment->vector_index(plan.metric);
    to.indexed = to.index != nullptr;
    if (!to.indexed) to.index = part.segment->row_codes(plan.metric);
    // The codes of open rows may be newer than the view, or older.
    if (to.index != nullptr) to.coded = std::min<RowId>(part.rows, to.index->rows_count());
    if (to.indexed) {
      const std::shared_ptr<const MeasuredRecall> measured =
          part.segment->measured_recall(plan.metric, plan.filter != nullptr);
      to.walk = plan_walk(plan, *to.index, measured.get(), nprobe_default, to.residency);
      if (!to.rows_in_place() && to.walk && to.walk->nprobe > 0) {
        to.lists = part.segment->list_reader(plan.metric);
      }
    }
    restrict_walk(part, to);
  }
}

}  // namespace

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
  Plan plan{view, collection, request, CandidateLess(view, collection.id_type)};
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

bool has_no_direction(const Plan& plan, const RowBlock& block, size_t at) {
  if (plan.metric != Metric::kCosine || block.norms_squared[at] != 0.0F) return false;
  const RowValues row = block.values.from(at * plan.dim());
  for (size_t i = 0; i < plan.dim(); ++i) {
    if (row.at(i) != 0.0F) return false;
  }
  return true;
}

double first_width(const Plan& plan, uint32_t p) {
  const SegmentView& part = plan.view.segments[p];
  const WantedRows& wanted = plan.parts[p].wanted;
  const double ef = plan.parts[p].walk->ef;
  if (plan.parts[p].restriction == Restriction::kLookAtAll) return ef;
  if (plan.parts[p].restriction == Restriction::kInside) return ef * kInsideReserve;
  const double share = static_cast<double>(wanted.most()) / static_cast<double>(part.rows);
  // A known share is met on average only: one walk in many falls short of this.
  return ef / std::max(share, 1e-6) * (wanted.indexed() ? kWidthReserve : 1.0);
}

namespace {

/// "of matching rows", with the number where an index told it.
std::string of_wanted(const WantedRows& wanted) {
  if (!wanted.filtered()) return "";
  if (!wanted.indexed()) return " of matching rows";
  return (wanted.exact() ? " of " : " of at most ") + std::to_string(wanted.most()) +
         " matching rows";
}

std::string describe_walk(const Plan& plan, size_t p) {
  const WantedRows& wanted = plan.parts[p].wanted;
  const std::string ef = std::to_string(plan.parts[p].walk->ef);
  if (plan.parts[p].walk->nprobe > 0 && plan.parts[p].restriction == Restriction::kAfterwards) {
    return "visit of " + std::to_string(plan.parts[p].walk->nprobe) + " lists" +
           (wanted.filtered() ? " or more for matching rows" : "") +
           (plan.parts[p].lists != nullptr ? ", read from disk" : "");
  }
  switch (plan.parts[p].restriction) {
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
  const WantedRows& wanted = plan.parts[p].wanted;
  const std::string kind = plan.view.segments[p].segment->sealed() ? "sealed: " : "open: ";
  if (wanted.indexed() && wanted.most() == 0) return kind + "nothing, no row matches";
  if (effort.parts[p].walked.load(std::memory_order_relaxed) > 0)
    return kind + describe_walk(plan, p);
  if (effort.parts[p].sifted.load(std::memory_order_relaxed) > 0)
    return kind + "estimates from codes" + of_wanted(wanted);
  const bool bounded = effort.parts[p].estimated.load(std::memory_order_relaxed) > 0;
  return kind + (bounded ? "exact scan of codes" : "exact scan") + of_wanted(wanted);
}

}  // namespace

std::vector<SegmentPlan> explain(const Plan& plan, const Effort& effort) {
  std::vector<SegmentPlan> out;
  for (size_t p = 0; p < plan.view.segments.size(); ++p) {
    const SegmentView& part = plan.view.segments[p];
    SegmentPlan line;
    line.segment_id = part.segment->id();
    line.plan = describe(plan, p, effort);
    line.rows = part.rows;
    line.candidates = effort.parts[p].computed.load(std::memory_order_relaxed);
    line.estimated = effort.parts[p].estimated.load(std::memory_order_relaxed);
    out.push_back(std::move(line));
  }
  return out;
}

}  // namespace aionbd
