#include "engine/index_keeper.h"

#include <algorithm>
#include <exception>
#include <map>
#include <utility>

#include "base/memory_guard.h"
#include "engine/index_build.h"

namespace aionbd {

namespace {

/// Rows without an index, as a share of those with one, that make a merge and a build worth it.
constexpr double kUnindexedShare = 0.25;
/// Under a budget no more than one in this many of the rows of an indexed segment wait for an
/// index: they are read from the disk.
constexpr uint64_t kBudgetPartsWorth = 4;
/// While nobody searches, small indexed segments are merged only when there are this many.
constexpr size_t kSmallIndexesMax = 4;
/// What is not in the largest segment and at most this share of all rows becomes one segment before
/// all become one: that takes long, and until then each costs every search a walk or a scan.
constexpr double kSmallShare = 0.25;
/// A collection that nobody searches and that grew by more than one in so many of its points since
/// the last look is being loaded.
constexpr uint64_t kLoadShare = 8;
/// A build that found no memory is tried again after this many pauses.
constexpr int kCooldownsForMemory = 3;
/// A failed build is tried again after this many pauses: what failed (a full disk) takes time.
constexpr int kCooldownsAfterFailure = 60;

/// None where there is no memory to list them.
IndexKeeper::Collections all_of(const std::function<IndexKeeper::Collections()>& collections) {
  IndexKeeper::Collections out;
  as_memory_allows([&] { out = collections(); });
  return out;
}

/// Whether points are coming in so fast that an index of those that are there would soon be one of
/// a small part, while nobody searches: its build would only slow the load down.
bool is_loading(const StoredCollection& collection, uint64_t* points_seen) {
  const Result<std::shared_ptr<const View>> view = collection.current_view();
  const uint64_t points = view ? (*view)->points : 0;
  const uint64_t before = std::exchange(*points_seen, points);
  return collection.bare_reads() == 0 && points > before && points - before > points / kLoadShare;
}

std::shared_ptr<const SealedSegment> as_sealed(const SegmentView& view) {
  return std::dynamic_pointer_cast<const SealedSegment>(view.segment);
}

/// Bare segments to merge for an index, and the indexed ones to merge with them; fewer than two:
/// what there is, is built as it is.
std::vector<SegmentView> group_to_index(const std::vector<SegmentView>& bare,
                                        std::vector<SegmentView> with, uint64_t rows_max,
                                        size_t indexed_min) {
  std::vector<SegmentView> out;
  uint64_t rows = 0;
  for (const SegmentView& view : bare) {
    // One of more than half the rows is built as it is, and not merged once more for what came.
    if (view.live() > rows_max / 2 || rows + view.live() > rows_max) continue;
    rows += view.live();
    out.push_back(view);
  }
  std::sort(with.begin(), with.end(),
            [](const SegmentView& a, const SegmentView& b) { return a.live() < b.live(); });
  size_t small = 0;
  uint64_t all = rows;
  while (small < with.size() && with[small].live() <= all && all + with[small].live() <= rows_max) {
    all += with[small].live();
    ++small;
  }
  if (small >= indexed_min) out.insert(out.end(), with.begin(), with.begin() + small);
  return out;
}

}  // namespace

IndexKeeper::IndexKeeper(std::shared_ptr<EngineContext> context,
                         std::function<Collections()> collections, Maintenance& maintenance,
                         Pinning& pinning)
    : context_(std::move(context)),
      collections_(std::move(collections)),
      maintenance_(maintenance),
      pinning_(pinning) {}

IndexKeeper::~IndexKeeper() {
  stop();
}

void IndexKeeper::wake() {
  const bool started = started_.load(std::memory_order_acquire);
  // Callers hold locks of theirs: nothing is asked of collections here.
  if (!started && !context_->rows_to_index.load(std::memory_order_relaxed)) return;
  // Each search and each write may ask: only the first since the last look has anybody to wake.
  if (due_.exchange(true) && started) return;
  {
    // Whoever looked before that waits by now.
    MutexLock lock(wake_mutex_);
    if (!started_.load(std::memory_order_relaxed) && !stopping_.load()) start_threads();
  }
  wake_.notify_one();
}

void IndexKeeper::start_threads() {
  // A budget has room for one build. Two, even on one core, so that small ones need not wait for a
  // large one; more than cores gain nothing.
  const size_t most =
      context_->budget.limit() != 0 ? 1 : std::max<size_t>(2, context_->pool->helpers_count() + 1);
  const size_t wanted = std::clamp<size_t>(context_->options.index_builds_max, 1, most);
  // The caller is a search or a checkpoint, which are done: without a thread or memory for it now,
  // whoever wakes next tries again.
  try {
    while (threads_.size() < wanted) threads_.emplace_back([this] { run(); });
  } catch (const std::exception& refused) {
    context_->logger.warning(std::string("engine: no thread to build indexes why=") +
                             refused.what());
    return;
  }
  started_.store(true, std::memory_order_release);
}

void IndexKeeper::stop() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(wake_mutex_);
    stopping_.store(true);
    threads.swap(threads_);
  }
  wake_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

bool IndexKeeper::wait_for_work() {
  MutexLock lock(wake_mutex_);
  while (!stopping_.load()) {
    if (!due_.load()) {
      wake_.wait(wake_mutex_);
    } else if (context_->clock->now() < rest_until_) {
      context_->metrics.index_build_cooldown_skips.add();
      wake_.wait_until(wake_mutex_, rest_until_);
    } else {
      if (due_.exchange(false)) return true;
    }
  }
  return false;
}

void IndexKeeper::run() {
  std::map<CollectionUid, uint64_t> points_seen;  // at the last look
  while (wait_for_work()) {
    bool busy = false;
    std::map<CollectionUid, uint64_t> points;
    for (const auto& collection : all_of(collections_)) {
      if (!collection->visible || !collection->quarantine_reason().empty()) continue;
      const auto note = [&](const Result<bool>& done) {
        if (!done && !stopping_.load()) {
          context_->logger.warning("engine: no index for " + collection->name() +
                                   " yet: " + done.error().to_string());
        }
        busy = busy || !done || *done;
      };
      // Without memory for it now, after a pause.
      const bool done = as_memory_allows([&] {
        note(step_fields(*collection));
        points[collection->uid()] = points_seen[collection->uid()];
        const bool loading = is_loading(*collection, &points[collection->uid()]);
        const Pace pace = loading ? Pace::kAfterLoad : Pace::kNow;
        for (const Metric metric : collection->wanted_metrics()) {
          note(step(*collection, metric, pace));
        }
      });
      busy = busy || !done;
    }
    points_seen.swap(points);
    MutexLock lock(wake_mutex_);
    if (busy) due_.store(true);
    rest_until_ = context_->clock->now() + context_->options.index_build_cooldown;
  }
}

// ---- what is due --------------------------------------------------------------------------------

Cancelled IndexKeeper::cancelled_for(const StoredCollection& collection) const {
  return [this, &collection] { return stopping_.load() || !collection.alive().ok(); };
}

bool IndexKeeper::put_off(SegmentId segment, Metric metric) const {
  const auto found = not_before_.find({segment, metric});
  return found != not_before_.end() && context_->clock->now() < found->second;
}

IndexKeeper::Supply IndexKeeper::supply_of(const StoredCollection& collection, Metric metric) {
  Supply out;
  for (SegmentView& view : maintenance_.free_segments(collection)) {
    if (put_off(view.segment->id(), metric)) continue;
    if (view.segment->vector_index(metric) != nullptr) {
      out.rows_with += view.rows;
      out.with.push_back(std::move(view));
    } else if (has_vector_index(*view.segment)) {
      out.rows_other += view.rows;
      out.other.push_back(std::move(view));
    } else {
      out.rows_bare += view.rows;
      out.bare.push_back(std::move(view));
    }
  }
  return out;
}

IndexKeeper::Terms IndexKeeper::terms_of(const StoredCollection& collection,
                                         const Supply& supply) const {
  Terms out;
  const uint64_t bare = supply.rows_bare + collection.unsealed_rows();
  out.asked = collection.bare_reads() >= kReadsPerBuild * std::max(bare, kIndexRowsAsked);
  out.rows_min = out.asked ? kIndexRowsAsked : kIndexRowsMin;
  out.rows_max = indexable_rows_max(context_->budget.limit(), collection.options().dimension);
  const auto share = static_cast<uint64_t>(kUnindexedShare * static_cast<double>(supply.rows_with));
  out.worth = out.asked ? out.rows_min
                        : std::max(out.rows_min, std::min(share, out.rows_max / kBudgetPartsWorth));
  return out;
}

std::optional<IndexKeeper::Job> IndexKeeper::set_aside(StoredCollection& collection, Task task,
                                                       Metric metric,
                                                       std::vector<SegmentView> inputs) {
  std::optional<Maintenance::Claim> claim = maintenance_.claim(collection, inputs);
  if (!claim) return std::nullopt;
  running_.insert(collection.uid());
  return Job{task, metric, std::move(inputs), std::move(*claim)};
}

std::optional<IndexKeeper::Job> IndexKeeper::choose(StoredCollection& collection, Metric metric,
                                                    Supply supply, const Terms& terms) {
  const uint64_t rows_without = supply.rows_bare + supply.rows_other;
  if (terms.rows_max >= terms.rows_min && rows_without >= terms.worth) {
    if (supply.rows_bare >= terms.worth) {
      std::vector<SegmentView> group = group_to_index(supply.bare, supply.with, terms.rows_max,
                                                      terms.asked ? 1 : kSmallIndexesMax);
      uint64_t rows = 0;
      for (const SegmentView& view : group) rows += view.live();
      if (group.size() > 1 && rows >= terms.worth) {
        return set_aside(collection, Task::kMerge, metric, std::move(group));
      }
    }
    const std::vector<SegmentView>& choice = supply.other.empty() ? supply.bare : supply.other;
    // The largest: what merging left over may be too small.
    const SegmentView& chosen = *std::max_element(
        choice.begin(), choice.end(),
        [](const SegmentView& a, const SegmentView& b) { return a.rows < b.rows; });
    if (chosen.rows >= terms.rows_min) {
      return set_aside(collection, Task::kIndex, metric, {chosen});
    }
  }
  std::vector<SegmentView> stale =
      choose_merge(std::move(supply.with), context_->options.compact_after,
                   mergeable_rows_max(context_->budget.limit(), collection.options().dimension));
  if (stale.empty()) return std::nullopt;
  return set_aside(collection, Task::kMerge, metric, std::move(stale));
}

Result<bool> IndexKeeper::step(StoredCollection& collection, Metric metric, Pace pace) {
  std::optional<Job> job;
  {
    MutexLock lock(work_mutex_);
    if (stopping_.load()) return unavailable("the database is closing");
    RETURN_IF_ERROR(collection.alive());
    RETURN_IF_ERROR(open_stored(collection, IndexKind::kVector, metric));
    if (pace == Pace::kAfterLoad) return true;  // to be looked at again
    Supply supply = supply_of(collection, metric);
    const Terms terms = terms_of(collection, supply);
    if (terms.rows_max < terms.rows_min) {
      note_memory("no index of " + collection.name() + " can be built");
    } else if (const uint64_t unsealed = collection.unsealed_rows(); unsealed >= terms.worth) {
      // The last rows of a load wait for a checkpoint that no further write makes due.
      RETURN_IF_ERROR(maintenance_.checkpoint());
      return collection.unsealed_rows() < unsealed;
    }
    job = choose(collection, metric, std::move(supply), terms);
  }
  if (!job) return false;
  RETURN_IF_ERROR(perform(collection, std::move(*job)));
  return true;
}

Result<bool> IndexKeeper::step_fields(StoredCollection& collection) {
  std::optional<Job> job;
  {
    MutexLock lock(work_mutex_);
    if (stopping_.load()) return unavailable("the database is closing");
    RETURN_IF_ERROR(collection.alive());
    RETURN_IF_ERROR(open_stored(collection, IndexKind::kFields, Metric::kDot));
    if (!collection.wants_fields()) return false;
    for (const SegmentView& view : maintenance_.free_segments(collection)) {
      const std::shared_ptr<const SealedSegment> segment = as_sealed(view);
      if (segment->rows_count() < kIndexRowsMin || !segment->has_payloads()) continue;
      if (segment->field_index() != nullptr) continue;
      job = set_aside(collection, Task::kFields, Metric::kDot, {view});
      break;
    }
  }
  if (!job) return false;
  RETURN_IF_ERROR(perform(collection, std::move(*job)));
  return true;
}

bool IndexKeeper::wait_for_running(const StoredCollection& collection) {
  MutexLock lock(work_mutex_);
  const size_t running = running_.count(collection.uid());
  if (running == 0) return false;
  while (running_.count(collection.uid()) >= running) ended_.wait(work_mutex_);
  return true;
}

Status IndexKeeper::build_missing(StoredCollection& collection) {
  for (;;) {
    bool more = false;
    for (const Metric metric : collection.wanted_metrics()) {
      ASSIGN_OR_RETURN(const bool done, step(collection, metric, Pace::kNow));
      more = more || done;
    }
    ASSIGN_OR_RETURN(const bool done, step_fields(collection));
    if (!more && !done && !wait_for_running(collection)) return {};
  }
}

std::vector<IndexKeeper::Job> IndexKeeper::jobs_of_optimize(StoredCollection& collection) {
  MutexLock lock(work_mutex_);
  while (running_.contains(collection.uid())) ended_.wait(work_mutex_);
  const uint64_t rows_max =
      mergeable_rows_max(context_->budget.limit(), collection.options().dimension);
  std::vector<Job> out;
  auto groups = groups_to_merge(maintenance_.free_segments(collection), rows_max);
  out.reserve(groups.size());  // a job that was set aside must not get lost
  for (auto& group : groups) {
    std::optional<Job> job = set_aside(collection, Task::kMerge, Metric::kDot, std::move(group));
    if (job) out.push_back(std::move(*job));
  }
  return out;
}

std::optional<IndexKeeper::Job> IndexKeeper::small_job(StoredCollection& collection) {
  MutexLock lock(work_mutex_);
  if (collection.bare_reads() == 0) return std::nullopt;  // nobody searches
  std::vector<SegmentView> all = maintenance_.free_segments(collection);
  if (all.size() < 3) return std::nullopt;
  uint64_t rows = 0;
  for (const SegmentView& view : all) rows += view.live();
  const auto largest = std::max_element(
      all.begin(), all.end(),
      [](const SegmentView& a, const SegmentView& b) { return a.live() < b.live(); });
  const uint64_t others = rows - largest->live();
  if (others < kIndexRowsAsked) return std::nullopt;  // they would get no index
  if (static_cast<double>(others) > kSmallShare * static_cast<double>(rows)) return std::nullopt;
  all.erase(largest);
  return set_aside(collection, Task::kMerge, Metric::kDot, std::move(all));
}

Status IndexKeeper::optimize(StoredCollection& collection) {
  RETURN_IF_ERROR(maintenance_.checkpoint());
  // What is stored is opened first: whether a segment has an index decides who merges it.
  {
    MutexLock lock(work_mutex_);
    for (const Metric metric : collection.wanted_metrics()) {
      RETURN_IF_ERROR(open_stored(collection, IndexKind::kVector, metric));
    }
  }
  if (std::optional<Job> job = small_job(collection)) {
    RETURN_IF_ERROR(perform(collection, std::move(*job)));
  }
  Status failed;
  for (Job& job : jobs_of_optimize(collection)) {
    const Status done = perform(collection, std::move(job));
    if (failed.ok()) failed = done;
  }
  RETURN_IF_ERROR(failed);
  return build_missing(collection);
}

// ---- doing it -----------------------------------------------------------------------------------

Status IndexKeeper::perform(StoredCollection& collection, Job job) {
  EngineMetrics& metrics = context_->metrics;
  metrics.index_build_requests.add();
  metrics.index_build_in_flight.add(1);
  const MonotonicTime start = context_->clock->now();
  collection.reset_bare_reads();
  // Without memory the build is given up, counted, and put off; what was set aside is given back.
  Status told;
  const Status done = within_memory([&]() -> Status {
    switch (job.task) {
      case Task::kIndex: return build(collection, job);
      case Task::kFields: return build_fields(collection, job);
      case Task::kMerge: return merge(collection, job);
    }
    return {};
  });
  metrics.index_build_in_flight.add(-1);
  (done.ok() ? metrics.index_build_successes : metrics.index_build_failures).add();
  if (done.ok()) metrics.index_build_time.observe_us(elapsed_us(start, context_->clock->now()));
  as_memory_allows([&] {
    for (const SegmentView& view : job.inputs) {
      if (!done.ok()) told = note_failure(collection, view.segment->id(), job.metric, done);
    }
  });
  { const Maintenance::Claim released = std::move(job.claim); }
  {
    MutexLock lock(work_mutex_);
    running_.erase(running_.find(collection.uid()));
  }
  ended_.notify_all();
  return told;
}

Status IndexKeeper::note_failure(const StoredCollection& collection, SegmentId segment,
                                 Metric metric, const Status& why) {
  if (stopping_.load() || !collection.alive().ok()) return why;
  const MonotonicTime now = context_->clock->now();
  const auto pause = context_->options.index_build_cooldown;
  MonotonicTime until = now + kCooldownsAfterFailure * pause;
  Status told = why;
  MutexLock lock(work_mutex_);
  if (why.code() == Code::kResourceExhausted) {
    note_memory("an index of " + collection.name() + ": " + why.message());
    until = now + kCooldownsForMemory * pause;
    told = {};
  } else if (why.code() == Code::kFailedPrecondition) {
    // Counted, but nothing is wrong with the collection.
    until = MonotonicTime::max();
    context_->logger.info("engine: " + collection.name() +
                          " stays without an index: " + why.message());
    told = {};
  }
  not_before_[{segment, metric}] = until;
  return told;
}

void IndexKeeper::note_memory(const std::string& what) {
  context_->metrics.index_build_memory_waits.add();
  if (memory_told_) return;
  memory_told_ = true;
  context_->logger.warning("engine: waiting for memory (told once): " + what);
}

Result<Pinning::Build> IndexKeeper::room_for_build(const SealedSegment& segment) {
  const uint64_t bytes = build_bytes(segment.rows_count(), segment.dimension(),
                                     build_memory_max(context_->budget.limit()));
  Result<Pinning::Build> room = pinning_.begin_build(bytes);
  if (room || room.error().code() != Code::kResourceExhausted) return room;
  RETURN_IF_ERROR(maintenance_.checkpoint());
  return pinning_.begin_build(bytes);
}

Result<SegmentIndexes::Entry> IndexKeeper::build_vector(StoredCollection& collection,
                                                        const SealedSegment& segment, Metric metric,
                                                        std::span<const SegmentView> inputs) {
  RETURN_IF_ERROR(context_->storage->health());
  RETURN_IF_ERROR(context_->storage->admit_growth());  // in vain on a disk that is full
  ASSIGN_OR_RETURN(const Pinning::Build room, room_for_build(segment));
  Result<SegmentIndexes::Entry> made =
      build_vector_index(*context_, segment, metric, inputs, siblings_of(collection, metric),
                         cancelled_for(collection));
  // Only the rows are read there: what is damaged is the collection.
  if (!made && made.error().code() == Code::kCorruption) {
    collection.quarantine(made.error().message());
  }
  return made;
}

Status IndexKeeper::build(StoredCollection& collection, const Job& job) {
  const std::shared_ptr<const SealedSegment> segment = as_sealed(job.inputs[0]);
  ASSIGN_OR_RETURN(SegmentIndexes::Entry entry, build_vector(collection, *segment, job.metric, {}));
  ASSIGN_OR_RETURN(const bool adopted,
                   maintenance_.adopt_index(collection, {segment->id(), IndexKind::kVector,
                                                         job.metric, entry.file->id()}));
  if (!adopted) return {};
  segment->attach(job.metric, std::move(entry));
  context_->segments_changed();
  return {};
}

Status IndexKeeper::build_fields(StoredCollection& collection, const Job& job) {
  const std::shared_ptr<const SealedSegment> segment = as_sealed(job.inputs[0]);
  ASSIGN_OR_RETURN(SegmentIndexes::Fields fields,
                   build_field_index(*context_, *segment, cancelled_for(collection)));
  ASSIGN_OR_RETURN(const bool adopted,
                   maintenance_.adopt_index(collection, {segment->id(), IndexKind::kFields,
                                                         Metric::kDot, fields.file->id()}));
  if (adopted) segment->attach(std::move(fields));
  return {};
}

Result<std::vector<CataloguedIndex>> IndexKeeper::build_all_of(
    StoredCollection& collection, const SealedSegment& segment,
    std::span<const SegmentView> inputs) {
  std::vector<CataloguedIndex> out;
  if (segment.rows_count() < kIndexRowsAsked) return out;
  if (segment.rows_count() > indexable_rows_max(context_->budget.limit(), segment.dimension())) {
    return out;
  }
  for (const Metric metric : collection.wanted_metrics()) {
    Result<SegmentIndexes::Entry> entry = build_vector(collection, segment, metric, inputs);
    if (entry) {
      out.push_back({segment.id(), IndexKind::kVector, metric, entry->file->id()});
      segment.attach(metric, std::move(*entry));
      continue;
    }
    // Where there is no memory or no space, or the rows do not suit one, the merge is worth having
    // without.
    const Status why = note_failure(collection, segment.id(), metric, entry.error());
    if (why.code() != Code::kStorageFull) RETURN_IF_ERROR(why);
  }
  if (!collection.wants_fields() || !segment.has_payloads()) return out;
  Result<SegmentIndexes::Fields> fields =
      build_field_index(*context_, segment, cancelled_for(collection));
  if (fields) {
    out.push_back({segment.id(), IndexKind::kFields, Metric::kDot, fields->file->id()});
    segment.attach(std::move(*fields));
  } else if (fields.error().code() != Code::kStorageFull) {
    return fields.error();
  }
  return out;
}

Status IndexKeeper::merge(StoredCollection& collection, const Job& job) {
  ASSIGN_OR_RETURN(const Maintenance::Merge merge,
                   maintenance_.begin_merge(collection, job.inputs));
  if (merge.published) return {};
  std::vector<CataloguedIndex> indexes;
  if (merge.merged != nullptr) {
    if (context_->budget.limit() != 0) merge.merged->set_residency(Residency::kNothing);
    ASSIGN_OR_RETURN(indexes, build_all_of(collection, *merge.merged, merge.inputs));
  }
  return maintenance_.finish_merge(collection, merge, indexes);
}

Status IndexKeeper::open_stored(StoredCollection& collection, IndexKind kind, Metric metric) {
  const std::vector<CataloguedIndex> stored = maintenance_.indexes_of(collection);
  for (const SegmentView& view : maintenance_.free_segments(collection)) {
    const bool open = kind == IndexKind::kFields ? view.segment->field_index() != nullptr
                                                 : view.segment->vector_index(metric) != nullptr;
    if (open) continue;
    for (const CataloguedIndex& entry : stored) {
      if (entry.segment != view.segment->id() || entry.kind != kind || entry.metric != metric) {
        continue;
      }
      if (kind == IndexKind::kFields) collection.note_filtered();
      const Status opened = open_stored_index(*context_->storage, entry, *as_sealed(view),
                                              siblings_of(collection, metric));
      if (opened.ok()) {
        context_->segments_changed();
        continue;
      }
      // What may pass (too many open files) is no reason to throw it away.
      const bool damaged = opened.code() == Code::kCorruption || opened.code() == Code::kNotFound;
      if (!damaged) return opened;
      context_->logger.warning("engine: an index of " + collection.name() +
                               " is dropped and built again: " + opened.to_string());
      RETURN_IF_ERROR(maintenance_.drop_index(collection, entry.file));
    }
  }
  return {};
}

}  // namespace aionbd
