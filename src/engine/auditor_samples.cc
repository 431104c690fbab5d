#include "engine/auditor_samples.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace aionbd {

namespace {

/// Deeper answers are rare, and come from reading everything.
constexpr uint64_t kDepthMax = 2048;
/// Outcomes below which nothing is judged.
constexpr size_t kJudgeMin = 24;
/// One-sided 99 %: the same queries are judged again and again.
constexpr double kJudgeConfidence = 2.33;
/// What the estimate may be off by before anything is done: half of what is promised (0.02).
constexpr double kEstimateTolerance = 0.01;
/// Two-sided 95 %.
constexpr double kStatedConfidence = 1.96;

/// Bytes of a value; none for lists and objects, which equal nothing and are not kept.
std::optional<size_t> bytes_of(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value.data())) {
    return sizeof(Value) + text->size();
  }
  const bool plain = !std::holds_alternative<Value::Array>(value.data()) &&
                     !std::holds_alternative<Value::Object>(value.data());
  return plain ? std::optional<size_t>(sizeof(Value)) : std::nullopt;
}

/// Takes the bytes of each value from *room; false when it is too small.
bool take_values(std::span<const Value> values, size_t* room) {
  for (const Value& value : values) {
    const std::optional<size_t> bytes = bytes_of(value);
    if (!bytes || *bytes > *room) return false;
    *room -= *bytes;
  }
  return true;
}

bool take_test(const decltype(Clause::test)& test, size_t* room) {
  if (const auto* equal = std::get_if<EqualTo>(&test)) return take_values({&equal->value, 1}, room);
  if (const auto* any = std::get_if<AnyOf>(&test)) return take_values(any->values, room);
  if (const auto* all = std::get_if<ContainsAll>(&test)) return take_values(all->values, room);
  if (const auto* prefix = std::get_if<StartsWith>(&test)) {
    if (prefix->prefix.size() > *room) return false;
    *room -= prefix->prefix.size();
  }
  return true;  // ranges hold numbers only, or the filter would have been refused
}

/// Copies a filter that takes no more than *room, which is lowered by that. False: it takes more.
/// Recursion: the filter was compiled, so it is at most kNestingMax deep.
bool copy_filter(const Filter& from, Filter* to, size_t* room) {
  const auto copy_clauses = [&](const std::vector<Clause>& source, std::vector<Clause>* target) {
    for (const Clause& clause : source) {
      const size_t bytes = sizeof(Clause) + clause.field.size();
      if (bytes > *room) return false;
      *room -= bytes;
      Clause& added = target->emplace_back();
      added.field = clause.field;
      if (clause.nested != nullptr) {
        added.nested = std::make_unique<Filter>();
        if (!copy_filter(*clause.nested, added.nested.get(), room)) return false;
      } else {
        if (!take_test(clause.test, room)) return false;
        added.test = clause.test;
      }
    }
    return true;
  };
  to->minimum_should_match = from.minimum_should_match;
  return copy_clauses(from.must, &to->must) && copy_clauses(from.should, &to->should) &&
         copy_clauses(from.must_not, &to->must_not);
}

/// Hits looked for: all down to the deepest one shown.
uint32_t depth_of(const SearchRequest& request) {
  return static_cast<uint32_t>(std::min(uint64_t{request.offset} + request.limit, kDepthMax));
}

AuditGroup group_of(const SearchRequest& request, const SearchResult& result) {
  size_t hits = 0;
  while (hits + 1 < kCalibratedHits.size() && depth_of(request) > kCalibratedHits[hits]) ++hits;
  return {result.metric, request.filter != nullptr, result.mode == SearchMode::kIvf, hits};
}

}  // namespace

size_t AuditGroup::number() const {
  const size_t kind = (filtered ? 2 : 0) + (lists ? 1 : 0);
  return (static_cast<size_t>(metric) * 4 + kind) * kCalibratedHits.size() + hits;
}

AuditGroup AuditGroup::of_number(size_t number) {
  AuditGroup out;
  out.hits = number % kCalibratedHits.size();
  const size_t kind = number / kCalibratedHits.size();
  out.lists = kind % 2 != 0;
  out.filtered = kind / 2 % 2 != 0;
  out.metric = static_cast<Metric>(kind / 4);
  return out;
}

// ---- figures ------------------------------------------------------------------------------------

void ShareMean::add(double share, size_t trials) {
  ++count_;
  sum_ += share;
  squares_ += share * share;
  trials_ += static_cast<double>(trials);
  found_ += share * static_cast<double>(trials);
}

double ShareMean::spread() const {
  if (count_ < 2) return 1;
  const auto n = static_cast<double>(count_);
  return std::sqrt(std::max(0.0, squares_ - sum_ * sum_ / n) / (n - 1) / n);
}

double ShareMean::error() const {
  // Laplace's rule of succession keeps the share away from 0 and 1.
  const double likely = (found_ + 1) / (trials_ + 2);
  return std::max(spread(), std::sqrt(likely * (1 - likely) / std::max(1.0, trials_)));
}

AuditVerdict judge(std::span<const AuditOutcome> outcomes) {
  ShareMean measured;
  ShareMean surplus;  // over the estimate
  ShareMean reserve;  // over what was asked for
  for (const AuditOutcome& outcome : outcomes) {
    if (outcome.hits == 0) continue;
    measured.add(outcome.measured, outcome.hits);
    surplus.add(outcome.measured - outcome.promised, outcome.hits);
    // A target that the answer itself does not claim to reach was not promised.
    const bool aimed = outcome.target > 0 && outcome.target <= outcome.promised;
    reserve.add(outcome.measured - (aimed ? outcome.target : outcome.promised), outcome.hits);
  }
  if (measured.count() < kJudgeMin) return AuditVerdict::kHolds;
  const double error = kJudgeConfidence * std::max(measured.error(), surplus.spread());
  const double reserve_error = kJudgeConfidence * std::max(measured.error(), reserve.spread());
  if (surplus.mean() + error < -kEstimateTolerance) return AuditVerdict::kTooOptimistic;
  if (reserve.mean() + reserve_error < 0) return AuditVerdict::kTooOptimistic;
  if (surplus.mean() - error > kEstimateTolerance) return AuditVerdict::kTooPessimistic;
  return AuditVerdict::kHolds;
}

double share_found(const SearchResult& answer, const SearchResult& truth) {
  if (truth.hits.empty()) return 1;
  const float last = truth.hits.back().score;
  const bool lower_is_nearer = truth.metric == Metric::kL2;
  size_t found = 0;
  for (const Hit& hit : answer.hits) {
    // Written so that a last score that is no number lets everything in: nothing ranks behind it.
    const bool beyond = lower_is_nearer ? hit.score > last : hit.score < last;
    found += beyond ? 0 : 1;
  }
  return static_cast<double>(std::min(found, truth.hits.size())) /
         static_cast<double>(truth.hits.size());
}

// ---- samples ------------------------------------------------------------------------------------

bool QuerySamples::note(const SearchRequest& request,
                        std::span<const std::span<const float>> queries,
                        std::span<const SearchResult> results) {
  for (size_t q = 0; q < queries.size(); ++q) {
    // What was read in full, or promised nothing, has nothing to be checked.
    const SearchResult& result = results[q];
    if (result.mode == SearchMode::kExact || result.recall_at_k.value_or(0) <= 0) continue;
    const size_t group = group_of(request, result).number();
    const uint64_t seen = seen_[group].fetch_add(1, std::memory_order_relaxed);
    const uint64_t random = Rng(seen).next();
    if (seen >= kAllOfFirst && random % kOneIn != 0) continue;
    std::shared_ptr<const AuditedQuery> query = copy(request, queries[q], result);
    if (query == nullptr || !mutex_.try_lock()) return false;
    put(std::move(query), random / kOneIn);
    mutex_.unlock();
    return true;
  }
  return false;
}

std::shared_ptr<const AuditedQuery> QuerySamples::copy(const SearchRequest& request,
                                                       std::span<const float> values,
                                                       const SearchResult& result) const {
  const size_t fixed = sizeof(AuditedQuery) + sizeof(Slot) + values.size_bytes();
  // One query must not push out most of the others.
  constexpr size_t kQueryBytesMax = kBytesMax / 4;
  if (fixed > kQueryBytesMax) return nullptr;
  auto out = std::make_shared<AuditedQuery>(budget_);
  size_t room = kQueryBytesMax - fixed;
  if (request.filter != nullptr && !copy_filter(*request.filter, &out->filter.emplace(), &room)) {
    return nullptr;
  }
  const size_t bytes = kQueryBytesMax - room;
  if (!budget_->try_reserve(bytes)) return nullptr;
  out->reservation.adopt(bytes);
  out->values.assign(values.begin(), values.end());
  out->group = group_of(request, result);
  out->request = request;
  out->request.query = out->values;
  out->request.filter = out->filter ? &*out->filter : nullptr;
  out->request.metric = result.metric;
  out->request.limit = depth_of(request);
  out->request.offset = 0;
  out->request.include_payload = false;
  out->request.include_values = false;
  out->request.explain = false;
  out->request.deadline = kNoDeadline;
  return out;
}

void QuerySamples::remove(Group& group, size_t slot) {
  bytes_ -= group.slots[slot].query->reservation.bytes();
  std::swap(group.slots[slot], group.slots.back());
  group.slots.pop_back();
  kept_.fetch_sub(1, std::memory_order_relaxed);
}

void QuerySamples::put(std::shared_ptr<const AuditedQuery> query, uint64_t random) {
  Group& group = groups_[query->group.number()];
  if (group.slots.size() == kPerGroup) remove(group, random % kPerGroup);
  while (bytes_ + query->reservation.bytes() > kBytesMax) {
    // A group of its own is not pushed out by one that is larger.
    Group& largest = *std::max_element(
        groups_.begin(), groups_.end(),
        [](const Group& a, const Group& b) { return a.slots.size() < b.slots.size(); });
    remove(largest, random % largest.slots.size());
  }
  bytes_ += query->reservation.bytes();
  group.slots.push_back({std::move(query), std::nullopt});
  ++group.taken;
  kept_.fetch_add(1, std::memory_order_relaxed);
}

namespace {

uint64_t indexes_of(const QuerySamples::IndexesNow& now, const AuditGroup& group) {
  return now[static_cast<size_t>(group.metric)][group.filtered ? 1 : 0];
}

}  // namespace

std::shared_ptr<const AuditedQuery> QuerySamples::next(const IndexesNow& now) const {
  MutexLock lock(mutex_);
  for (const Group& group : groups_) {
    for (const Slot& slot : group.slots) {
      const uint64_t indexes = indexes_of(now, slot.query->group);
      if (!slot.outcome || slot.outcome->indexes != indexes) return slot.query;
    }
  }
  return nullptr;
}

void QuerySamples::record(const AuditedQuery& query, const AuditOutcome& outcome) {
  MutexLock lock(mutex_);
  for (Slot& slot : groups_[query.group.number()].slots) {
    if (slot.query.get() == &query) slot.outcome = outcome;
  }
}

QuerySamples::GroupState QuerySamples::group(size_t number, const IndexesNow& now) const {
  GroupState out;
  const uint64_t indexes = indexes_of(now, AuditGroup::of_number(number));
  MutexLock lock(mutex_);
  out.taken = groups_[number].taken;
  for (const Slot& slot : groups_[number].slots) {
    out.queries.push_back(slot.query);
    if (slot.outcome && slot.outcome->indexes == indexes) out.outcomes.push_back(*slot.outcome);
  }
  return out;
}

void QuerySamples::note_drift() {
  MutexLock lock(mutex_);
  ++drifts_;
}

void QuerySamples::note_measured() {
  MutexLock lock(mutex_);
  ++measured_;
}

RecallAudit QuerySamples::summary(MonotonicTime now) const {
  RecallAudit out;
  ShareMean measured;
  double promised = 0;
  MonotonicTime last = MonotonicTime::min();
  {
    MutexLock lock(mutex_);
    out.drifts = drifts_;
    out.remeasured = measured_;
    for (const Group& group : groups_) {
      for (const Slot& slot : group.slots) {
        if (!slot.outcome || slot.outcome->hits == 0) continue;
        measured.add(slot.outcome->measured, slot.outcome->hits);
        promised += slot.outcome->promised;
        last = std::max(last, slot.outcome->at);
      }
    }
  }
  if (measured.count() == 0) return out;
  out.samples = measured.count();
  out.promised = promised / static_cast<double>(measured.count());
  out.measured = measured.mean();
  out.measured_low = std::max(0.0, out.measured - kStatedConfidence * measured.error());
  out.measured_high = std::min(1.0, out.measured + kStatedConfidence * measured.error());
  out.age_seconds = std::chrono::duration<double>(now - last).count();
  return out;
}

}  // namespace aionbd
