#include "engine/auditor.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "base/check.h"
#include "base/memory_guard.h"
#include "base/thread_priority.h"

namespace aionbd {

namespace {

/// One search of an audit that takes longer is given up: rows lie on a slow disk.
constexpr std::chrono::seconds kSearchTimeMax{10};
/// Without a search for so long, the next one is not near.
constexpr std::chrono::milliseconds kQuiet{20};
/// Looks for a quiet moment. A server that never is quiet is audited, too: the thread only gets
/// what others leave.
constexpr int kQuietLooks = 100;
/// Rest after each query, in times of what it took: 1 % of a core; 10 % while answers claim more
/// than they hold, until their curve has been measured again.
constexpr int kRestShare = 99;
constexpr int kUrgentRestShare = 9;
constexpr std::chrono::milliseconds kRestMin{50};
/// Queries that must be new before a curve on the same rows is measured once more.
constexpr uint64_t kNewQueriesMin = 32;
/// Widest walk, and most lists, that are measured.
constexpr uint32_t kWidthMax = 2048;
constexpr uint32_t kListsMax = 256;
/// One-sided 95 %, as calibration has it.
constexpr double kConfidence = 1.645;

uint64_t mixed(uint64_t a, uint64_t b) {
  // The multiplier of FNV-1a; any change of either word changes the result.
  return (a ^ b) * 0x100000001B3U + (a >> 29);
}

std::shared_ptr<const SealedSegment> sealed(const SegmentView& part) {
  return std::dynamic_pointer_cast<const SealedSegment>(part.segment);
}

/// The indexed segments, and with `curves` how often their curves were measured, as one number.
uint64_t indexes_of(const View& view, Metric metric, bool filtered, bool curves) {
  uint64_t out = 1;
  for (const SegmentView& part : view.segments) {
    if (!part.segment->sealed() || part.segment->vector_index(metric) == nullptr) continue;
    out = mixed(out, part.segment->id());
    if (curves) out = mixed(out, sealed(part)->times_measured(metric, filtered));
  }
  return out;
}

QuerySamples::IndexesNow indexes_now(const View& view) {
  QuerySamples::IndexesNow out{};
  for (size_t metric = 0; metric < kMetricsCount; ++metric) {
    for (const bool filtered : {false, true}) {
      out[metric][filtered ? 1 : 0] = indexes_of(view, static_cast<Metric>(metric), filtered, true);
    }
  }
  return out;
}

Result<SearchResult> ask(const SearchEnvironment& environment, const View& view,
                         const CollectionOptions& options, const SearchRequest& request) {
  ASSIGN_OR_RETURN(std::vector<SearchResult> results,
                   search_view(environment, view, options, {request.query}, request));
  return std::move(results.front());
}

SearchRequest exact_of(SearchRequest request) {
  request.mode = SearchMode::kExact;
  request.target_recall.reset();
  request.param.reset();
  return request;
}

/// What the caller named, or mode auto aims at; 0: nothing.
double target_of(const SearchRequest& request) {
  if (request.param) return 0;
  if (request.target_recall) return *request.target_recall;
  return request.mode == SearchMode::kIvf ? 0 : kAutoTargetRecall;
}

}  // namespace

// ---- curves -------------------------------------------------------------------------------------

CurveMeasurement::CurveMeasurement(std::shared_ptr<StoredCollection> collection,
                                   std::shared_ptr<const View> view, size_t group, AuditVerdict why,
                                   std::vector<std::shared_ptr<const AuditedQuery>> queries)
    : collection_(std::move(collection)),
      group_(AuditGroup::of_number(group)),
      why_(why),
      queries_(std::move(queries)) {
  for (const SegmentView& part : view->segments) {
    std::shared_ptr<const VectorIndex> index = part.segment->vector_index(group_.metric);
    if (!part.segment->sealed() || index == nullptr || !index->covers_all()) continue;
    Part& added = parts_.emplace_back();
    added.view = {{part}, part.live()};
    added.segment = sealed(part);
    added.index = std::move(index);
    added.settings = settings_of(*added.index);
    added.recall.resize(added.settings.size());
  }
}

std::span<const RecallPoint> CurveMeasurement::calibrated(const VectorIndex& index) const {
  return group_.lists ? index.list_curve() : index.curve();
}

/// Those of calibration, and on from there: it stopped where its own queries needed no more.
std::vector<uint32_t> CurveMeasurement::settings_of(const VectorIndex& index) const {
  std::vector<uint32_t> out;
  for (const RecallPoint& point : calibrated(index)) {
    if (point.k == kCalibratedHits[group_.hits]) out.push_back(point.ef);
  }
  const uint32_t most = group_.lists ? std::min(kListsMax, index.lists()) : kWidthMax;
  if (out.empty()) out.push_back(group_.lists ? 1 : kCalibratedHits[group_.hits]);
  while (out.back() < most) out.push_back(std::min(most, out.back() + (out.back() + 1) / 2));
  return out;
}

Status CurveMeasurement::step(const SearchEnvironment& environment, Deadline deadline) {
  CHECK_TRUE(!finished());
  const AuditedQuery& query = *queries_[next_++];
  for (Part& part : parts_) RETURN_IF_ERROR(measure(environment, query, deadline, part));
  return {};
}

Status CurveMeasurement::measure(const SearchEnvironment& environment, const AuditedQuery& query,
                                 Deadline deadline, Part& part) const {
  SearchRequest request = query.request;
  request.deadline = deadline;
  ASSIGN_OR_RETURN(const SearchResult truth,
                   ask(environment, part.view, collection_->options(), exact_of(request)));
  const size_t hits = truth.hits.size();
  if (hits == 0) return {};
  request.mode = group_.lists ? SearchMode::kIvf : SearchMode::kGraph;
  double share = 0;
  for (size_t i = 0; i < part.settings.size(); ++i) {
    // What a walk finds, a wider one finds as well, but for rare exceptions.
    if (share < 1) {
      uint64_t param = part.settings[i];
      const uint32_t k = kCalibratedHits[group_.hits];
      // A curve stands for more hits than it was measured at by the width per hit.
      if (!group_.lists && request.limit > k) param = param * request.limit / k + 1;
      request.param = static_cast<uint32_t>(std::min<uint64_t>(param, kSearchParamMax));
      ASSIGN_OR_RETURN(const SearchResult answer,
                       ask(environment, part.view, collection_->options(), request));
      share = share_found(answer, truth);
    }
    part.recall[i].add(share, hits);
  }
  return {};
}

/// The measured points in the place of those of the same k.
std::vector<RecallPoint> CurveMeasurement::curve_of(const Part& part,
                                                    std::span<const RecallPoint> now) const {
  const uint32_t k = kCalibratedHits[group_.hits];
  std::vector<RecallPoint> out;
  for (const RecallPoint& point : now) {
    if (point.k != k) out.push_back(point);
  }
  const std::span<const RecallPoint> calibration = calibrated(*part.index);
  for (size_t i = 0; i < part.settings.size(); ++i) {
    const ShareMean& recall = part.recall[i];
    const double mean = std::clamp(recall.mean(), 0.0, 1.0);
    const double error = kConfidence * recall.error();
    RecallPoint said{.k = k,
                     .ef = part.settings[i]};  // by calibration, at this width or the next below
    for (const RecallPoint& point : calibration) {
      if (point.k == k && point.ef <= part.settings[i]) said = point;
    }
    // Calibration asked many more queries: where these agree with it, its bound is the better one.
    const bool agree = mean + error >= said.recall;
    const double low = std::min<double>(said.low, agree ? mean : mean - error);
    // Found above the estimate: its bound is no reason for wider walks, and no less true.
    const bool keep = why_ == AuditVerdict::kTooPessimistic && mean >= said.low;
    out.push_back({k, part.settings[i], static_cast<float>(mean),
                   keep ? std::min(said.low, static_cast<float>(mean)) : static_cast<float>(low)});
  }
  return out;
}

void CurveMeasurement::attach() const {
  CHECK_TRUE(finished());
  for (const Part& part : parts_) {
    // No query has a true hit here.
    if (part.recall.front().count() == 0) continue;
    const std::shared_ptr<const MeasuredRecall> before =
        part.segment->measured_recall(group_.metric, group_.filtered);
    MeasuredRecall recall = before == nullptr ? MeasuredRecall() : *before;
    std::vector<RecallPoint>& curve = group_.lists ? recall.lists : recall.graph;
    const std::vector<RecallPoint> now = curve;
    curve = curve_of(part, now.empty() ? calibrated(*part.index) : now);
    part.segment->set_measured(group_.metric, group_.filtered, std::move(recall));
  }
  collection_->samples().note_measured();
}

// ---- the thread ---------------------------------------------------------------------------------

Auditor::Auditor(std::shared_ptr<EngineContext> context, std::function<Collections()> collections)
    : context_(std::move(context)),
      collections_(std::move(collections)),
      clock_(*context_->clock, stopping_) {}

Auditor::~Auditor() {
  stop();
}

void Auditor::start() {
  MutexLock lock(wake_mutex_);
  started_ = true;
}

void Auditor::wake() {
  {
    MutexLock lock(wake_mutex_);
    if (due_) return;
    if (started_ && !thread_.joinable() && !start_thread()) return;
    due_ = true;
  }
  wake_.notify_all();
}

bool Auditor::start_thread() {
  if (stopping_.load()) return false;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::exception& refused) {
    // The caller is a search, which is done: the next one tries again.
    context_->logger.warning(std::string("engine: no thread to audit recall why=") +
                             refused.what());
    return false;
  }
  return true;
}

void Auditor::stop() {
  std::thread thread;
  {
    MutexLock lock(wake_mutex_);
    stopping_.store(true);
    thread.swap(thread_);
  }
  wake_.notify_all();
  if (thread.joinable()) thread.join();
}

bool Auditor::wait_for_work() {
  MutexLock lock(wake_mutex_);
  while (!stopping_.load() && !due_) wake_.wait(wake_mutex_);
  due_ = false;
  return !stopping_.load();
}

/// On the machine's clock: a clock that stands still would never let it end.
bool Auditor::pause(MonotonicTime::duration time) {
  const MonotonicTime until = std::chrono::steady_clock::now() + time;
  MutexLock lock(wake_mutex_);
  while (!stopping_.load() && std::chrono::steady_clock::now() < until) {
    wake_.wait_until(wake_mutex_, until);
  }
  return !stopping_.load();
}

void Auditor::wait_for_quiet() {
  const Counter& searches = context_->metrics.search_queries;
  for (int look = 0; look < kQuietLooks; ++look) {
    const uint64_t before = searches.value();
    if (!pause(kQuiet) || searches.value() == before) return;
  }
}

void Auditor::run() {
  lower_thread_priority();
  while (wait_for_work()) {
    wait_for_quiet();
    if (stopping_.load()) return;
    const MonotonicTime start = std::chrono::steady_clock::now();
    bool more = true;  // after a pause, should memory have run out
    as_memory_allows([&] { more = run_once(); });
    if (more) wake();
    const MonotonicTime::duration took = std::chrono::steady_clock::now() - start;
    pause(rest_after(took));
  }
}

MonotonicTime::duration Auditor::rest_after(MonotonicTime::duration work) {
  MutexLock lock(work_mutex_);
  const bool urgent = measurement_ != nullptr && measurement_->mends_promise();
  return std::max<MonotonicTime::duration>(kRestMin,
                                           work * (urgent ? kUrgentRestShare : kRestShare));
}

// ---- audits -------------------------------------------------------------------------------------

SearchEnvironment Auditor::environment() const {
  return {clock_, pool_, context_->options.ivf_nprobe_default, nullptr, nullptr};
}

bool Auditor::run_once() {
  MutexLock lock(work_mutex_);
  if (measurement_ != nullptr) {
    step_measurement();
    return true;
  }
  const Collections all = collections_();
  for (size_t i = 0; i < all.size() && !stopping_.load(); ++i) {
    // In turn, so that none waits for all queries of another.
    const std::shared_ptr<StoredCollection>& collection = all[(turn_ + i) % all.size()];
    if (collection->samples().empty() || !collection->visible) continue;
    if (!audit_next(collection)) continue;
    turn_ = (turn_ + i + 1) % all.size();
    return true;
  }
  return false;
}

bool Auditor::audit_next(const std::shared_ptr<StoredCollection>& collection) {
  const Result<std::shared_ptr<const View>> view = collection->current_view();
  if (!view) return false;  // damaged or dropped
  const QuerySamples::IndexesNow now = indexes_now(**view);
  const std::shared_ptr<const AuditedQuery> query = collection->samples().next(now);
  if (query == nullptr) return false;
  const uint64_t failures = context_->storage->map_failures();
  Result<AuditOutcome> outcome = audit(*collection, **view, *query);
  if (const Status intact = collection->intact(**view, failures); !intact.ok()) outcome = intact;
  if (stopping_.load()) return false;
  if (!outcome) {
    if (outcome.error().code() == Code::kCorruption) {
      collection->quarantine(outcome.error().message());
      return false;
    }
    // Out of time, or no request for what is there now: the next one, until indexes change.
    outcome = AuditOutcome();
  }
  const AuditGroup& group = query->group;
  outcome->indexes = now[static_cast<size_t>(group.metric)][group.filtered ? 1 : 0];
  outcome->at = context_->clock->now();
  collection->samples().record(*query, *outcome);
  if (outcome->hits > 0) context_->metrics.search_audits.add();
  consider(collection, *view, now, group.number());
  return true;
}

Result<AuditOutcome> Auditor::audit(const StoredCollection& collection, const View& view,
                                    const AuditedQuery& query) const {
  const SearchEnvironment around = environment();
  SearchRequest request = query.request;
  request.deadline = context_->clock->now() + kSearchTimeMax;
  ASSIGN_OR_RETURN(const SearchResult answer, ask(around, view, collection.options(), request));
  AuditOutcome out;
  out.promised = answer.recall_at_k.value_or(1);
  out.target = target_of(request);
  out.hits = answer.hits.size();
  out.measured = 1;
  if (answer.mode == SearchMode::kExact) return out;  // it is the truth
  ASSIGN_OR_RETURN(const SearchResult truth,
                   ask(around, view, collection.options(), exact_of(request)));
  out.hits = truth.hits.size();
  out.measured = share_found(answer, truth);
  return out;
}

/// Begins to measure the curve of a group when its queries show that it is wrong.
void Auditor::consider(const std::shared_ptr<StoredCollection>& collection,
                       const std::shared_ptr<const View>& view, const QuerySamples::IndexesNow& now,
                       size_t group) {
  QuerySamples::GroupState state = collection->samples().group(group, now);
  const AuditVerdict verdict = judge(state.outcomes);
  if (verdict == AuditVerdict::kHolds) return;
  const AuditGroup about = AuditGroup::of_number(group);
  const uint64_t rows = indexes_of(*view, about.metric, about.filtered, false);
  Measured& last = measured_[{collection->uid(), group}];
  // The same queries on the same rows would say the same again.
  if (last.rows == rows && state.taken < last.taken + kNewQueriesMin) return;
  last = {rows, state.taken};
  if (verdict == AuditVerdict::kTooOptimistic) {
    collection->samples().note_drift();
    context_->metrics.search_audit_drifts.add();
  }
  measurement_ = std::make_unique<CurveMeasurement>(collection, view, group, verdict,
                                                    std::move(state.queries));
  double promised = 0;
  double measured = 0;
  for (const AuditOutcome& outcome : state.outcomes) {
    promised += outcome.promised / static_cast<double>(state.outcomes.size());
    measured += outcome.measured / static_cast<double>(state.outcomes.size());
  }
  context_->logger.info("engine: recall is measured again collection=" + collection->name() +
                        " promised=" + std::to_string(promised) +
                        " measured=" + std::to_string(measured) +
                        " queries=" + std::to_string(state.outcomes.size()));
}

void Auditor::step_measurement() {
  CurveMeasurement& measurement = *measurement_;
  Status done = measurement.collection().alive();
  if (done.ok()) {
    done = measurement.step(environment(), context_->clock->now() + kSearchTimeMax);
  }
  if (!done.ok()) {
    if (done.code() == Code::kCorruption) measurement.collection().quarantine(done.message());
    measurement_.reset();
  } else if (measurement.finished()) {
    measurement.attach();
    measurement_.reset();
  }
}

}  // namespace aionbd
