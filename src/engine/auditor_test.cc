// Audits of recall: what is sampled, what is measured, and that a promise which does not hold for
// the queries that are really asked is corrected until it does.
#include "engine/auditor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "aionbd/aionbd.h"
#include "base/eventually.h"
#include "base/rng.h"
#include "engine/index_keeper.h"
#include "engine/test_metric.h"

namespace aionbd::auditor_test {
namespace {

constexpr uint32_t kDim = 32;
constexpr size_t kRows = kIndexRowsMin + 900;

using Vectors = std::vector<std::vector<float>>;

float normal(Rng& rng) {
  return static_cast<float>(std::sqrt(-2 * std::log(1 - rng.uniform())) *
                            std::cos(2 * std::numbers::pi * rng.uniform()));
}

Vectors gaussian(size_t n, uint64_t seed) {
  Rng rng(seed);
  Vectors out(n, std::vector<float>(kDim));
  for (auto& row : out) {
    for (float& value : row) value = normal(rng);
  }
  return out;
}

/// Points in 40 tight clusters.
Vectors clustered(size_t n, uint64_t seed) {
  const Vectors centres = gaussian(40, 99);
  Rng rng(seed);
  Vectors out(n, std::vector<float>(kDim));
  for (auto& row : out) {
    const auto& centre = centres[rng.below(centres.size())];
    for (uint32_t k = 0; k < kDim; ++k) row[k] = centre[k] + 0.2F * normal(rng);
  }
  return out;
}

class AuditorTest : public testing::Test {
 protected:
  /// A collection with its index. Unless told so, nothing is audited in the background.
  void fill(const Vectors& rows, Metric metric, bool in_background = false) {
    DatabaseOptions options;
    options.persistent = false;
    options.search_threads = 2;
    options.recall_audit = in_background;
    options.index_build_cooldown = std::chrono::milliseconds(1);
    database_ = Database::open(options).value();
    CollectionOptions shape;
    shape.dimension = kDim;
    shape.metric = metric;
    collection_ = std::dynamic_pointer_cast<StoredCollection>(
        database_->create_collection("c", shape).value());
    for (size_t first = 0; first < rows.size(); first += 1000) {
      std::vector<Point> points;
      for (size_t i = first; i < std::min(rows.size(), first + 1000); ++i) {
        points.push_back({uint64_t{i}, rows[i], {{"n", static_cast<int64_t>(i % 100)}}});
      }
      ASSERT_TRUE(collection_->upsert(points, kNoDeadline));
    }
    ASSERT_TRUE(collection_->optimize().ok());
    context_ = std::make_shared<EngineContext>(options, &system_clock_source());
    StorageOptions memory;
    memory.persistent = false;
    context_->storage = Storage::open(memory).value();
    auditor_ = std::make_unique<Auditor>(
        context_, [this] { return std::vector<std::shared_ptr<StoredCollection>>{collection_}; });
  }

  struct Quality {
    double promised = 0;
    double measured = 0;
    size_t exact = 0;  // answered by reading everything
  };
  /// Asks all queries, and notes each answer for the auditor so many times.
  Quality ask(const Vectors& queries, SearchRequest request, int noted) {
    Quality out;
    for (const auto& query : queries) {
      request.query = query;
      const SearchResult result = collection_->search(request).value();
      const std::span<const float> one = query;
      for (int i = 0; i < noted; ++i) collection_->samples().note(request, {&one, 1}, {&result, 1});
      SearchRequest exact = request;
      exact.mode = SearchMode::kExact;
      exact.param.reset();
      const SearchResult truth = collection_->search(exact).value();
      out.promised += *result.recall_at_k / static_cast<double>(queries.size());
      out.measured += share_found(result, truth) / static_cast<double>(queries.size());
      out.exact += result.mode == SearchMode::kExact ? 1 : 0;
    }
    return out;
  }
  size_t run_auditor() {
    size_t steps = 0;
    while (auditor_->run_once()) ++steps;
    return steps;
  }
  RecallAudit audit() const { return collection_->samples().summary(context_->clock->now()); }

  std::unique_ptr<Database> database_;
  std::shared_ptr<StoredCollection> collection_;
  std::shared_ptr<EngineContext> context_;
  std::unique_ptr<Auditor> auditor_;
};

SearchRequest best(uint32_t limit, double target) {
  SearchRequest out;
  out.limit = limit;
  out.target_recall = target;
  return out;
}

TEST_F(AuditorTest, DriftIsFoundAndThePromiseHoldsAgain) {
  // Calibrated on rows in clusters; asked from everywhere.
  fill(clustered(kRows, 1), Metric::kDot);
  const Vectors queries = gaussian(64, 4);
  SearchRequest request = best(10, 0.95);
  request.mode = SearchMode::kGraph;
  const Quality before = ask(queries, request, 1);
  ASSERT_LT(before.measured, before.promised - 0.05) << "these queries are no trial";
  const size_t steps = run_auditor();
  // Some audits show it; then each query is asked at all widths, and audited anew.
  EXPECT_GE(steps, 100u);
  EXPECT_LE(steps, 64u * 3);
  const RecallAudit found = audit();
  EXPECT_EQ(found.drifts, 1u);
  EXPECT_EQ(found.remeasured, 1u);
  EXPECT_EQ(found.samples, 64u);
  EXPECT_NEAR(found.promised, found.measured, 0.02);
  EXPECT_LT(found.measured_low, found.measured);
  EXPECT_GE(found.measured_high, found.measured);
  EXPECT_EQ(context_->metrics.search_audit_drifts.value(), 1u);
  EXPECT_GE(context_->metrics.search_audits.value(), 64u + 20);

  const Quality after = ask(queries, request, 0);
  EXPECT_GE(after.measured, 0.94);
  EXPECT_NEAR(after.promised, after.measured, 0.02);
  EXPECT_EQ(after.exact, 0u) << "a wider walk is enough";
  EXPECT_GE(ask(gaussian(100, 5), request, 0).measured, 0.93) << "so it is for others like them";
  EXPECT_EQ(run_auditor(), 0u) << "nothing is left to do";

  // Queries like the rows again: the curve made for hard ones sells them short, which is seen, too.
  const Vectors easy = clustered(64, 2);
  const Quality cautious = ask(easy, request, 200);
  run_auditor();
  const Quality corrected = ask(easy, request, 0);
  EXPECT_NEAR(corrected.promised, corrected.measured, 0.02) << "was " << cautious.promised;
  EXPECT_GE(corrected.measured, 0.94);
  EXPECT_EQ(audit().drifts, 1u);
}

TEST_F(AuditorTest, FilteredQueriesAndListsHaveCurvesOfTheirOwn) {
  fill(clustered(kRows, 1), Metric::kDot);
  const Vectors queries = gaussian(64, 4);
  Filter half;
  InRange range;
  range.lt = Value(int64_t{50});
  half.must.emplace_back().field = "n";
  half.must.back().test = range;
  SearchRequest filtered = best(10, 0.95);
  filtered.filter = &half;
  SearchRequest lists = best(10, 0.95);
  lists.mode = SearchMode::kIvf;
  SearchRequest walks = best(10, 0.95);
  walks.mode = SearchMode::kGraph;
  const Quality plain = ask(queries, walks, 0);
  for (const SearchRequest& request : {filtered, lists}) {
    const Quality before = ask(queries, request, 1);
    run_auditor();
    const Quality after = ask(queries, request, 0);
    EXPECT_GE(after.measured, 0.94) << "before " << before.measured;
    EXPECT_NEAR(after.promised, after.measured, 0.021) << "before " << before.promised;
  }
  EXPECT_GE(audit().drifts, 1u);
  // Nobody audited these: they are answered as ever.
  EXPECT_EQ(ask(queries, walks, 0).promised, plain.promised);
}

TEST_F(AuditorTest, WhatHoldsIsLeftAlone) {
  fill(clustered(kRows, 1), Metric::kL2);
  const Vectors queries = clustered(64, 2);
  SearchRequest exact = best(10, 0.95);
  exact.mode = SearchMode::kExact;
  ask(queries, exact, 1);
  EXPECT_TRUE(collection_->samples().empty()) << "there is nothing to check";
  EXPECT_FALSE(auditor_->run_once());
  EXPECT_EQ(audit().samples, 0u);

  const Quality before = ask(queries, best(10, 0.95), 1);
  run_auditor();
  const RecallAudit found = audit();
  EXPECT_EQ(found.samples, 64u);
  EXPECT_EQ(found.drifts, 0u);
  EXPECT_NEAR(found.measured, before.measured, 1e-6) << "the auditor sees what the caller sees";
  EXPECT_NEAR(found.promised, found.measured, 0.02);
  EXPECT_GE(found.age_seconds, 0);

  // Writes between are no misses: what was answered is gone when the audit comes.
  std::vector<PointId> answered;
  SearchRequest request = best(1, 0.95);
  for (const auto& query : queries) {
    request.query = query;
    const SearchResult result = collection_->search(request).value();
    const std::span<const float> one = query;
    collection_->samples().note(request, {&one, 1}, {&result, 1});
    answered.push_back(result.hits.at(0).id);
  }
  ASSERT_GT(collection_->remove(answered, kNoDeadline).value(), 30u);
  run_auditor();
  EXPECT_EQ(audit().samples, 128u);
  EXPECT_GT(audit().measured, 0.9);
  EXPECT_EQ(audit().drifts, 0u);

  ask(queries, best(100, 0.95), 1);
  auditor_->stop();
  EXPECT_FALSE(auditor_->run_once()) << "stopped";
}

TEST_F(AuditorTest, WorksByItselfWhenNothingElseIsToBeDone) {
  fill(clustered(kRows, 1), Metric::kL2, true);
  for (const auto& query : clustered(3, 2)) {
    SearchRequest request = best(10, 0.95);
    request.query = query;
    ASSERT_TRUE(collection_->search(request));
  }
  EXPECT_TRUE(eventually([&] { return audit().samples >= 3; }));
  EXPECT_EQ(collection_->stats().value().audit.samples, 3u);
  EXPECT_EQ(metric_of(*database_, "search_audit_samples"), 3);
  ASSERT_TRUE(database_->drop_collection("c").ok());
}

// ---- figures ------------------------------------------------------------------------------------

SearchResult with_scores(Metric metric, std::vector<float> scores) {
  SearchResult out;
  out.metric = metric;
  for (const float score : scores) out.hits.push_back({PointId(out.hits.size()), score, {}, {}});
  return out;
}

TEST(AuditFigures, SharesAreByDistance) {
  const auto l2 = [](std::vector<float> scores) { return with_scores(Metric::kL2, scores); };
  const auto dot = [](std::vector<float> scores) { return with_scores(Metric::kDot, scores); };
  EXPECT_EQ(share_found(l2({1, 2, 3, 3}), l2({1, 2, 3, 3})), 1);
  EXPECT_EQ(share_found(l2({1, 2, 3, 4}), l2({1, 2, 3, 3})), 0.75);
  EXPECT_EQ(share_found(l2({}), l2({1, 2})), 0);
  EXPECT_EQ(share_found(dot({9, 7, 1}), dot({9, 8, 7})), 2 / 3.0);
  EXPECT_EQ(share_found(l2({}), l2({})), 1) << "there was nothing to find";
  EXPECT_EQ(share_found(l2({1, 1, 1}), l2({1})), 1) << "never more than all";
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(share_found(dot({5, nan}), dot({5, nan})), 1);
}

TEST(AuditFigures, ErrorsKnowThatAFewPerfectAnswersProveLittle) {
  ShareMean few;
  ShareMean many;
  ShareMean mixed;
  for (int i = 0; i < 10; ++i) few.add(1, 1);
  for (int i = 0; i < 1000; ++i) many.add(1, 10);
  for (int i = 0; i < 100; ++i) mixed.add(i % 2, 10);
  EXPECT_GT(few.error(), 0.05);
  EXPECT_LT(many.error(), 0.001);
  EXPECT_NEAR(mixed.error(), 0.05, 0.001) << "the shares differ more than chance of hits would";
  EXPECT_EQ(mixed.mean(), 0.5);
}

std::vector<AuditOutcome> outcomes(size_t n, double promised, double measured, double target) {
  // Spread as real ones are: whole hits of ten.
  Rng rng(7);
  std::vector<AuditOutcome> out(n);
  for (AuditOutcome& outcome : out) {
    double hits = 0;
    for (int i = 0; i < 10; ++i) hits += rng.chance(measured) ? 1 : 0;
    outcome.promised = promised;
    outcome.measured = hits / 10;
    outcome.target = target;
    outcome.hits = 10;
  }
  return out;
}

TEST(AuditFigures, OnlyWhatChanceDoesNotExplainIsDrift) {
  EXPECT_EQ(judge(outcomes(64, 0.96, 0.96, 0.95)), AuditVerdict::kHolds);
  EXPECT_EQ(judge(outcomes(64, 0.96, 0.80, 0.95)), AuditVerdict::kTooOptimistic);
  EXPECT_EQ(judge(outcomes(10, 0.96, 0.50, 0.95)), AuditVerdict::kHolds) << "too few";
  EXPECT_EQ(judge(outcomes(64, 0.80, 0.99, 0.80)), AuditVerdict::kTooPessimistic);
  // Not reached, but not claimed either.
  EXPECT_EQ(judge(outcomes(64, 0.80, 0.80, 0.99)), AuditVerdict::kHolds);
  std::vector<AuditOutcome> unknown = outcomes(64, 0.96, 0.5, 0.95);
  for (AuditOutcome& outcome : unknown) outcome.hits = 0;
  EXPECT_EQ(judge(unknown), AuditVerdict::kHolds);
  EXPECT_EQ(judge({}), AuditVerdict::kHolds);
}

TEST(AuditSamples, GroupsHaveNumbers) {
  for (size_t number = 0; number < AuditGroup::kCount; ++number) {
    EXPECT_EQ(AuditGroup::of_number(number).number(), number);
  }
  EXPECT_EQ(AuditGroup::of_number(AuditGroup::kCount - 1).metric, Metric::kCosine);
}

/// What a walk answered.
SearchResult answered(Metric metric) {
  SearchResult out = with_scores(metric, {1});
  out.mode = SearchMode::kGraph;
  out.recall_at_k = 0.95;
  return out;
}

/// Notes n queries; returns how many were kept.
size_t note(QuerySamples& samples, size_t n, size_t dim, const SearchRequest& request,
            Metric metric = Metric::kL2) {
  const std::vector<float> values(dim, 1.0F);
  const std::span<const float> query = values;
  const SearchResult result = answered(metric);
  size_t kept = 0;
  for (size_t i = 0; i < n; ++i) kept += samples.note(request, {&query, 1}, {&result, 1}) ? 1 : 0;
  return kept;
}

TEST(AuditSamples, AreFewAndBoundedAndGiveTheirBytesBack) {
  MemoryBudget budget(0);
  {
    QuerySamples samples(&budget);
    EXPECT_EQ(note(samples, QuerySamples::kAllOfFirst, 16, best(10, 0.9)), 64u);
    const size_t later = note(samples, 6400, 16, best(10, 0.9));
    EXPECT_GT(later, 50u);
    EXPECT_LT(later, 200u);
    EXPECT_EQ(samples.group(AuditGroup{Metric::kL2, false, false, 1}.number(), {}).queries.size(),
              QuerySamples::kPerGroup);
    EXPECT_GT(budget.used(), 64 * 16 * sizeof(float));
    // Large queries push out others, and one that is too large is not taken at all.
    for (const uint32_t limit : {1U, 10U, 100U, 5000U}) note(samples, 2000, 8192, best(limit, 0.9));
    EXPECT_LE(budget.used(), QuerySamples::kBytesMax);
    EXPECT_EQ(note(samples, 1000, 65536 * 4, best(1, 0.9)), 0u);
  }
  EXPECT_EQ(budget.used(), 0u);
  MemoryBudget full(1);
  QuerySamples samples(&full);
  EXPECT_EQ(note(samples, 64, 16, best(10, 0.9)), 0u) << "no memory is no reason to fail";
}

TEST(AuditSamples, KeepTheRequestWithoutItsCaller) {
  MemoryBudget budget(0);
  QuerySamples samples(&budget);
  {
    Filter filter;
    filter.must.emplace_back().field = "a";
    filter.must.back().test = EqualTo{Value("text")};
    Clause& nested = filter.should.emplace_back();
    nested.nested = std::make_unique<Filter>();
    nested.nested->must_not.emplace_back().field = "b";
    SearchRequest request = best(20, 0.9);
    request.offset = 5;
    request.filter = &filter;
    request.explain = true;
    ASSERT_EQ(note(samples, 1, 4, request, Metric::kDot), 1u);
    // A filter may be larger than all samples together.
    filter.must.back().test = EqualTo{Value(std::string(QuerySamples::kBytesMax, 'x'))};
    EXPECT_EQ(note(samples, 1, 4, request, Metric::kDot), 0u);
    filter.must.back().test = EqualTo{Value(Value::Array{Value(int64_t{1})})};
    EXPECT_EQ(note(samples, 1, 4, request, Metric::kDot), 0u);
  }
  QuerySamples::IndexesNow now{};
  const std::shared_ptr<const AuditedQuery> kept = samples.next(now);
  ASSERT_NE(kept, nullptr);
  EXPECT_EQ(kept->request.query.size(), 4u);
  EXPECT_EQ(kept->request.limit, 25u) << "hits down to the deepest one shown";
  EXPECT_EQ(kept->request.offset, 0u);
  EXPECT_EQ(kept->request.metric, Metric::kDot);
  EXPECT_FALSE(kept->request.explain);
  ASSERT_NE(kept->request.filter, nullptr);
  EXPECT_EQ(std::get<EqualTo>(kept->request.filter->must[0].test).value, Value("text"));
  EXPECT_EQ(kept->request.filter->should[0].nested->must_not[0].field, "b");

  AuditOutcome outcome;
  outcome.hits = 10;
  samples.record(*kept, outcome);
  EXPECT_EQ(samples.next(now), nullptr) << "audited";
  now[static_cast<size_t>(Metric::kDot)][1] = 7;
  EXPECT_EQ(samples.next(now), kept) << "other indexes, another audit";
}

}  // namespace
}  // namespace aionbd::auditor_test
