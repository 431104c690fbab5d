#include "engine/search_walk.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "engine/search_scan.h"

namespace aionbd {

namespace {

/// A walk wider than this share of the rows (one in ...) costs more than reading them all.
constexpr uint64_t kWalkShareMax = 12;
/// Up to this target rows with codes and no index are found by estimates: kLikelyShare of them.
constexpr double kEstimatedTargetMax = 0.995;
/// The same for rows of an index in which no walk is worth it; where there are more of them, walks
/// fail for another reason than that looking at all is as cheap.
constexpr RowId kEstimatedRowsMax = 4096;
/// Share of the plan's width that is enough in one walk: widths are chosen so that walks keep it on
/// average, and one that keeps a few less is balanced by another that keeps more. (To ask each for
/// all of it would send every second walk over dead rows around twice.)
constexpr double kWidthKept = 0.75;
/// Times a filtered walk is widened before everything is read.
constexpr int kWalkAttempts = 4;

/// One query in the two forms that a walk needs.
struct QueryOnPart {
  const PreparedQuery& exact;
  const VectorIndex::Query& codes;
};

/// The candidates that are wanted, at most `most` of them; valid as long as `found` and `kept` are.
Result<std::span<const GraphCandidate>> wanted_candidates(const WantedRows& wanted,
                                                          std::span<const GraphCandidate> found,
                                                          size_t most,
                                                          std::vector<GraphCandidate>& kept) {
  if (wanted.all()) return found.first(std::min(most, found.size()));
  kept.clear();
  for (const GraphCandidate& candidate : found) {
    if (kept.size() == most || candidate.distance >= kNowhereDistance) break;
    ASSIGN_OR_RETURN(const bool take, wanted.contains(candidate.row));
    if (take) kept.push_back(candidate);
  }
  return std::span<const GraphCandidate>(kept);
}

/// Exact distances of candidates, the most promising first, into `best`; ends where the estimates
/// say that hardly any further one gets in. False, and nothing done, if one of them can be no hit:
/// the rows behind it that were not kept might have been.
Result<bool> verify_rows(const Plan& plan, const QueryOnPart& query, uint32_t p,
                         std::span<const GraphCandidate> rows, Best& best, size_t* computed) {
  constexpr size_t kAhead = 4;
  const SegmentView& part = plan.view.segments[p];
  std::array<RowBlock, kAhead> blocks;  // of row i at i % kAhead
  const auto fetch = [&](size_t i) -> Status {
    ASSIGN_OR_RETURN(blocks[i % kAhead], part.segment->rows(rows[i].row, 1));
    prefetch_row(blocks[i % kAhead].values, plan.dim());
    return {};
  };
  for (size_t i = 0; i < std::min(kAhead, rows.size()); ++i) RETURN_IF_ERROR(fetch(i));
  Best near(plan.depth, plan.less);
  // What other parts found counts from the start.
  float threshold = best.threshold();
  float reach = query.codes.likely_reach(threshold);
  for (size_t i = 0; i < rows.size() && rows[i].distance <= reach; ++i) {
    const RowBlock block = blocks[i % kAhead];
    if (i + kAhead < rows.size()) RETURN_IF_ERROR(fetch(i + kAhead));
    float distance = 0;
    query.exact.distances(block.values, block.norms_squared, 1, &distance);
    ++*computed;
    if (has_no_direction(plan, block, 0)) return false;
    if (distance <= plan.cutoff) near.push({distance, p, rows[i].row});
    part.segment->prefetch_id(rows[i].row);
    if (near.threshold() < threshold) {
      threshold = near.threshold();
      reach = query.codes.likely_reach(threshold);
    }
  }
  for (const Candidate& candidate : near.items()) best.push(candidate);
  return true;
}

/// The same where rows are not read in place.
Result<bool> verify_copied(const Plan& plan, const QueryOnPart& query, uint32_t p,
                           std::span<const GraphCandidate> rows, Best& best, size_t* computed) {
  thread_local RowCopy copy;
  const Segment& segment = *plan.view.segments[p].segment;
  Best near(plan.depth, plan.less);
  float threshold = best.threshold();
  float reach = query.codes.likely_reach(threshold);
  for (size_t i = 0; i < rows.size() && rows[i].distance <= reach; ++i) {
    ASSIGN_OR_RETURN(const RowBlock block, copy.read(segment, plan.dim(), rows[i].row, 1));
    float distance = 0;
    query.exact.distances(block.values, block.norms_squared, 1, &distance);
    ++*computed;
    if (has_no_direction(plan, block, 0)) return false;
    if (distance <= plan.cutoff) near.push({distance, p, rows[i].row});
    if (near.threshold() < threshold) {
      threshold = near.threshold();
      reach = query.codes.likely_reach(threshold);
    }
  }
  for (const Candidate& candidate : near.items()) best.push(candidate);
  return true;
}

/// Walks one part. An unrestricted walk finds rows in order of distance, dead and unwanted ones
/// among them, so it is widened until it holds as many wanted ones as an unfiltered walk would
/// keep; then they are the nearest wanted ones, with the recall of the plan. False when that would
/// take reading a large part of everything: scan instead.
Result<bool> walk_part(const SearchEnvironment& environment, const Plan& plan,
                       IndexQueries& queries, const PreparedQuery& exact, uint32_t p, Best& best,
                       Effort& effort) {
  const SegmentView& part = plan.view.segments[p];
  const WantedRows& wanted = plan.parts[p].wanted;
  const GraphPlan& walk = *plan.parts[p].walk;
  Restriction restriction = plan.parts[p].restriction;
  const VectorIndex::Query& codes = queries.on(*plan.parts[p].index);
  if (!codes.usable()) return false;
  const bool by_lists = walk.nprobe > 0 && restriction == Restriction::kAfterwards;
  thread_local GraphScratch scratch;
  const uint64_t most = std::max<uint64_t>(walk.ef, part.rows / kWalkShareMax);
  double width = std::ceil(first_width(plan, p));
  std::vector<GraphCandidate> kept;
  RowsAhead ahead;
  if (!wanted.filtered() && plan.parts[p].rows_in_place()) {
    ASSIGN_OR_RETURN(const RowBlock block, part.segment->rows(0, 1));
    ahead = {block.values.data(), plan.dim() * block.values.value_bytes()};
  }
  for (int attempt = 0; attempt < kWalkAttempts; ++attempt) {
    if (width > static_cast<double>(most)) return false;
    if (deadline_passed(environment, plan.request)) {
      return deadline_exceeded("search ran out of time");
    }
    scratch.allow({restriction == Restriction::kAfterwards ? nullptr : wanted.words(),
                   restriction == Restriction::kLookAtAll});
    // Wider means more lists, too.
    const double lists = by_lists ? walk.nprobe * std::max(1.0, width / walk.ef) : 0;
    const GraphPlan step{static_cast<uint32_t>(width), walk.verify, 0,
                         static_cast<uint32_t>(lists)};
    if (by_lists && plan.parts[p].lists != nullptr) {
      RETURN_IF_ERROR(codes.visit(step, *plan.parts[p].lists, &scratch));
    } else {
      codes.walk(step, &scratch, ahead);
    }
    effort.parts[p].estimated.fetch_add(scratch.looks(), std::memory_order_relaxed);
    const std::span<const GraphCandidate> found = scratch.found();
    ASSIGN_OR_RETURN(std::span<const GraphCandidate> rows,
                     wanted_candidates(wanted, found, walk.ef, kept));
    // A few lists may hold fewer rows than are kept: enough for an answer is enough.
    const auto kept_least = static_cast<uint64_t>(std::ceil(kWidthKept * walk.ef));
    const uint64_t enough = by_lists ? plan.depth : std::max<uint64_t>(plan.depth, kept_least);
    const uint64_t want = std::min(enough, wanted.most());
    if (rows.size() < want && (by_lists || !wanted.exact() || wanted.most() < part.rows)) {
      // Looking at all, or reaching no more rows however wide: there is nothing to widen.
      const bool ended = static_cast<double>(found.size()) < width && !by_lists;
      if (ended && restriction == Restriction::kInside) {
        restriction = Restriction::kLookAtAll;
        width = walk.ef;
        continue;
      }
      if (restriction == Restriction::kLookAtAll || ended) return false;
      const double seen =
          static_cast<double>(rows.size()) / std::max(1.0, static_cast<double>(found.size()));
      width = std::ceil(std::max(2 * width, walk.ef / std::max(0.8 * seen, 1e-6)));
      continue;
    }
    if (rows.size() < std::min<uint64_t>(plan.depth, wanted.most())) return false;
    rows = rows.first(std::min<size_t>(rows.size(), walk.verify));
    size_t computed = 0;
    const auto verify = plan.parts[p].rows_in_place() ? verify_rows : verify_copied;
    ASSIGN_OR_RETURN(const bool verified, verify(plan, {exact, codes}, p, rows, best, &computed));
    effort.parts[p].computed.fetch_add(computed, std::memory_order_relaxed);
    if (!verified) return false;
    effort.parts[p].walked.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  return false;
}

/// Whether estimates will do where no walk pays, beside others that walk: for rows that have codes
/// and no index, and for small indexes.
bool estimates_suffice(const Plan& plan, const Best& best, uint32_t p) {
  const PartPlan& part = plan.parts[p];
  if (part.index == nullptr || !part.index->covers_all()) return false;
  if (!part.rows_in_place() || !best.full()) return false;
  if (part.indexed && plan.view.segments[p].rows > kEstimatedRowsMax) return false;
  return plan.request.target_recall.value_or(kAutoTargetRecall) <= kEstimatedTargetMax;
}

/// Offers the rows of one part that, by the estimates, may be among the best, and those without
/// codes. False when the query has no form for codes. REQUIRES: estimates_suffice.
Result<bool> estimate_part(const Plan& plan, IndexQueries& queries, const PreparedQuery& exact,
                           uint32_t p, Best& best, Effort& effort) {
  constexpr RowId kBlock = 256;
  const VectorIndex::Query& codes = queries.on(*plan.parts[p].index);
  if (!codes.usable()) return false;
  float estimates[kBlock];
  uint32_t near[kBlock];
  size_t computed = 0;
  const RowId coded = plan.parts[p].coded;
  for (RowId first = 0; first < coded; first += kBlock) {
    const size_t n = std::min(kBlock, coded - first);
    codes.estimates(first, n, estimates);
    const float limit = std::min(best.threshold(), plan.cutoff);
    const size_t found = select_at_most(estimates, codes.likely_reach(limit), n, near);
    for (size_t i = 0; i < found; ++i) {
      RETURN_IF_ERROR(offer(plan, exact, p, first + near[i], best, &computed));
    }
  }
  for (RowId row = coded; row < plan.view.segments[p].rows; ++row) {
    RETURN_IF_ERROR(offer(plan, exact, p, row, best, &computed));
  }
  effort.parts[p].computed.fetch_add(computed, std::memory_order_relaxed);
  effort.parts[p].estimated.fetch_add(coded, std::memory_order_relaxed);
  effort.parts[p].sifted.fetch_add(1, std::memory_order_relaxed);
  return true;
}

/// The parts, those with most rows first: what they find spares the others work.
std::vector<uint32_t> largest_first(const Plan& plan) {
  std::vector<uint32_t> out(plan.parts.size());
  std::iota(out.begin(), out.end(), 0U);
  std::stable_sort(out.begin(), out.end(), [&](uint32_t a, uint32_t b) {
    return plan.parts[a].wanted.most() > plan.parts[b].wanted.most();
  });
  return out;
}

}  // namespace

Result<Answer> walk_one(const SearchEnvironment& environment, const Plan& plan,
                        std::span<const float> values, Effort& effort) {
  ASSIGN_OR_RETURN(const PreparedQuery exact, PreparedQuery::make(plan.metric, values));
  Answer out;
  IndexQueries queries(values, VectorIndex::Query::Use::kEstimates);
  Best best(plan.depth, plan.less);
  std::vector<bool> scanned(plan.view.segments.size(), false);
  double missed = 0;  // expected share of true hits that walks do not find, by rows
  for (const uint32_t p : largest_first(plan)) {
    if (plan.parts[p].wanted.most() == 0) continue;
    bool walked = false;
    if (plan.parts[p].walk) {
      ASSIGN_OR_RETURN(walked, walk_part(environment, plan, queries, exact, p, best, effort));
    }
    if (walked) {
      out.mode = plan.parts[p].walk->nprobe > 0 ? SearchMode::kIvf : SearchMode::kGraph;
      missed += (1 - plan.parts[p].walk->recall) * static_cast<double>(plan.parts[p].wanted.most());
    } else {
      scanned[p] = true;
    }
  }
  for (uint32_t p = 0; p < scanned.size(); ++p) {
    if (!scanned[p] || !estimates_suffice(plan, best, p)) continue;
    ASSIGN_OR_RETURN(const bool done, estimate_part(plan, queries, exact, p, best, effort));
    scanned[p] = !done;
    if (done) missed += (1 - kLikelyShare) * static_cast<double>(plan.parts[p].wanted.most());
  }
  if (std::find(scanned.begin(), scanned.end(), true) != scanned.end()) {
    ASSIGN_OR_RETURN(const std::vector<Candidate> more,
                     scan_parts(environment, plan, values, scanned, best.threshold(), effort));
    for (const Candidate& candidate : more) best.push(candidate);
  }
  uint64_t rows = 0;
  for (const PartPlan& part : plan.parts) rows += part.wanted.most();
  out.recall = 1 - missed / static_cast<double>(std::max<uint64_t>(rows, 1));
  out.hits = best.take_sorted();
  return out;
}

}  // namespace aionbd
