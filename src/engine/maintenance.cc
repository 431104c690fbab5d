#include "engine/maintenance.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <optional>
#include <string>

#include "base/check.h"
#include "base/memory_guard.h"
#include "engine/index_build.h"
#include "engine/on_reserve.h"
#include "engine/pinning.h"

namespace aionbd {

namespace {

/// Bounds what the log gathers between checkpoints, however long one took.
constexpr std::chrono::milliseconds kRestMax{100};

/// Fewer rows are read as fast as a query gets its form for codes.
constexpr RowId kCodedRowsMin = 128;

/// A segment with more dead rows than live ones is rewritten alone: at least one row is dropped for
/// each row copied, so disk stays below twice the live data.
bool mostly_dead(const SegmentView& view) {
  return view.rows > 0 && 2 * view.dead->count() > view.rows;
}

bool is_input(const std::vector<SegmentView>& inputs, SegmentId id) {
  return find_segment(inputs, id) != nullptr;
}

/// What the live rows have of bytes that all rows have, about.
uint64_t live_share(const SegmentView& view, uint64_t bytes) {
  if (view.rows == 0) return 0;
  const double live = static_cast<double>(view.live()) / static_cast<double>(view.rows);
  return static_cast<uint64_t>(live * static_cast<double>(bytes));
}

uint64_t merged_bytes(const std::vector<SegmentView>& inputs) {
  uint64_t bytes = 0;
  for (const SegmentView& view : inputs) bytes += live_share(view, view.segment->disk_bytes());
  return bytes;
}

}  // namespace

std::vector<SegmentView> choose_merge(std::vector<SegmentView> sealed, uint32_t compact_after,
                                      uint64_t rows_max) {
  std::vector<SegmentView> out;
  if (sealed.size() >= std::max<size_t>(compact_after, 2)) {
    std::sort(sealed.begin(), sealed.end(), [](const SegmentView& a, const SegmentView& b) {
      return a.segment->disk_bytes() < b.segment->disk_bytes();
    });
    size_t count = 0;
    uint64_t smaller_bytes = 0;
    uint64_t rows = 0;
    for (size_t i = 0; i < sealed.size(); ++i) {
      rows += sealed[i].live();
      if (rows > rows_max) break;
      if (i > 0 && sealed[i].segment->disk_bytes() <= smaller_bytes) count = i + 1;
      smaller_bytes += sealed[i].segment->disk_bytes();
    }
    if (count > 0) {
      sealed.resize(count);
      return sealed;
    }
  }
  uint64_t rows = 0;
  for (const SegmentView& view : sealed) {
    if (!mostly_dead(view) || (!out.empty() && rows + view.live() > rows_max)) continue;
    rows += view.live();
    out.push_back(view);
  }
  return out;
}

std::vector<std::vector<SegmentView>> groups_to_merge(std::vector<SegmentView> sealed,
                                                      uint64_t rows_max) {
  std::stable_sort(sealed.begin(), sealed.end(),
                   [](const SegmentView& a, const SegmentView& b) { return a.live() < b.live(); });
  std::vector<std::vector<SegmentView>> out;
  uint64_t rows = 0;
  for (SegmentView& view : sealed) {
    if (out.empty() || rows + view.live() > rows_max) {
      out.emplace_back();
      rows = 0;
    }
    rows += view.live();
    out.back().push_back(std::move(view));
  }
  std::erase_if(out, [](const std::vector<SegmentView>& group) {
    return group.size() == 1 && group[0].dead->count() == 0;
  });
  return out;
}

Maintenance::Maintenance(std::shared_ptr<EngineContext> context,
                         std::function<Collections()> collections, Lsn replay_after)
    : context_(std::move(context)),
      collections_(std::move(collections)),
      replay_after_(replay_after) {
  MutexLock lock(wake_mutex_);
  if (context_->options.async_checkpoints) thread_ = std::thread([this] { run_in_background(); });
}

Maintenance::~Maintenance() {
  stop();
  std::thread thread;
  {
    MutexLock lock(wake_mutex_);
    thread.swap(thread_);
  }
  if (thread.joinable()) thread.join();
}

void Maintenance::stop() {
  {
    MutexLock lock(wake_mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
}

void Maintenance::wait_for_job() {
  MutexLock lock(job_mutex_);
}

void Maintenance::after_write() {
  if (context_->writes_since_checkpoint.load(std::memory_order_relaxed) <
      context_->options.checkpoint_interval) {
    return;
  }
  // A log that outgrows what the reserve is for does not wait.
  const bool large =
      context_->storage->metrics().wal_file_bytes.value() > context_->log_bytes_max();
  if (!large && context_->clock->now() < rest_until_.load(std::memory_order_relaxed)) {
    context_->index_wanted();  // it seals what stays, should no other write come
    return;
  }
  if (context_->options.async_checkpoints) {
    if (busy_.load(std::memory_order_relaxed)) {
      context_->metrics.checkpoint_schedule_skips.add();
    }
    {
      MutexLock lock(wake_mutex_);
      if (due_) return;
      due_ = true;
    }
    wake_.notify_one();
    return;
  }
  // In the write path: one writer does the work, the others go on meanwhile.
  if (busy_.exchange(true)) {
    context_->metrics.checkpoint_schedule_skips.add();
    return;
  }
  run_due();
  busy_.store(false);
}

void Maintenance::seal_soon() {
  if (context_->clock->now() < rest_until_.load(std::memory_order_relaxed)) return;
  {
    MutexLock lock(wake_mutex_);
    if (due_ || stopping_ || !start_thread()) return;
    due_ = true;
  }
  wake_.notify_one();
}

void Maintenance::code_soon() {
  {
    MutexLock lock(wake_mutex_);
    if (codes_due_ || stopping_ || !start_thread()) return;
    codes_due_ = true;
  }
  wake_.notify_one();
}

bool Maintenance::start_thread() {
  if (thread_.joinable()) return true;
  try {
    thread_ = std::thread([this] { run_in_background(); });
  } catch (const std::exception& refused) {
    // The caller is a search, which is done: a later one tries again.
    context_->logger.warning(std::string("engine: no thread to seal rows why=") + refused.what());
    return false;
  }
  return true;
}

void Maintenance::run_in_background() {
  for (;;) {
    bool seal = false;
    bool code = false;
    {
      MutexLock lock(wake_mutex_);
      while (!due_ && !codes_due_ && !stopping_) wake_.wait(wake_mutex_);
      if (stopping_) return;
      seal = std::exchange(due_, false);
      code = std::exchange(codes_due_, false);
    }
    if (code) code_open_rows();
    if (!seal) continue;
    busy_.store(true);
    run_due();
    busy_.store(false);
  }
}

void Maintenance::code_open_rows() {
  // What cannot be had, or read, now is found by whoever needs it next.
  as_memory_allows([&] {
    for (const auto& collection : collections_()) {
      const uint32_t asked = collection->take_asked_codes();
      for (const MetricInfo& info : metric_table()) {
        if ((asked >> static_cast<uint32_t>(info.metric) & 1U) == 0) continue;
        (void)add_open_codes(*collection, info.metric);
      }
    }
  });
}

void Maintenance::run_due() {
  const Status done = checkpoint();
  if (done.ok()) return;
  as_memory_allows([&] {
    context_->logger.warning("engine: checkpoint failed, the log keeps its rows: " +
                             done.to_string());
  });
}

Status Maintenance::checkpoint() {
  MutexLock lock(job_mutex_);
  return run_checkpoint();
}

Status Maintenance::run_checkpoint() {
  EngineMetrics& metrics = context_->metrics;
  metrics.checkpoint_in_flight.set(1);
  const MonotonicTime start = context_->clock->now();
  Status done = within_memory([&]() NO_THREAD_SAFETY_ANALYSIS {  // called before it returns
    return on_reserve(*context_->storage,
                      [&]() NO_THREAD_SAFETY_ANALYSIS { return checkpoint_locked(); });
  });
  const MonotonicTime end = context_->clock->now();
  metrics.checkpoint_time.observe_us(elapsed_us(start, end));
  rest_until_.store(end + std::min<MonotonicTime::duration>(4 * (end - start), kRestMax),
                    std::memory_order_relaxed);
  if (done.ok()) {
    metrics.checkpoint_success.add();
    done = within_memory([&]() NO_THREAD_SAFETY_ANALYSIS { return compact_due(); });
  } else {
    metrics.checkpoint_error.add();
    if (done.code() == Code::kStorageFull) metrics.checkpoint_degraded.add();
  }
  metrics.checkpoint_in_flight.set(0);
  context_->index_wanted();
  context_->look_at_memory();
  return done;
}

Status Maintenance::checkpoint_locked() {
  RETURN_IF_ERROR(finish_replacements());
  context_->writes_since_checkpoint.store(0, std::memory_order_relaxed);
  // The log is cut before anything is frozen, so that whatever is frozen holds at least all records
  // before the cut; records after it that are frozen too are skipped at replay by `applied`.
  ASSIGN_OR_RETURN(Lsn cut, context_->storage->rotate_log());
  std::vector<Sealed> jobs;
  for (const auto& collection : collections_()) {
    FrozenRows frozen = collection->freeze();
    // The log is all there is of what a damaged collection has not sealed: keep it for repair.
    // Asked after freeze, which gives nothing of a damaged one.
    if (!collection->quarantine_reason().empty()) cut = replay_after_;
    if (!frozen.parts.empty()) jobs.push_back({collection, std::move(frozen), {}});
  }
  RETURN_IF_ERROR(context_->storage->sync());
  for (Sealed& job : jobs) {
    RETURN_IF_ERROR(job.collection->publish_frozen(job.frozen.last));
    const Status sealed = seal(job);
    if (sealed.code() == Code::kCorruption) job.collection->quarantine(sealed.message());
    RETURN_IF_ERROR(sealed);
  }
  std::vector<Change> changes;
  std::vector<Replacement> replacements;
  for (Sealed& job : jobs) {
    Change& change = changes.emplace_back(Change{job.collection, job.collection->catalogued});
    for (size_t i = 0; i < job.segments.size(); ++i) {
      if (job.segments[i] != nullptr) {
        change.catalogued.segments.push_back(job.segments[i]->id());
      }
      std::vector<std::shared_ptr<const SealedSegment>> added;
      if (job.segments[i] != nullptr) added.push_back(job.segments[i]);
      replacements.push_back({job.collection, {job.frozen.parts[i].view}, std::move(added)});
    }
    change.catalogued.applied = std::max(change.catalogued.applied, job.frozen.last.lsn);
  }
  RETURN_IF_ERROR(publish_changes(std::move(changes), std::move(replacements), cut));
  context_->segments_changed();
  return {};
}

Status Maintenance::publish_changes(std::vector<Change> changes,
                                    std::vector<Replacement> replacements, Lsn replay_after) {
  const auto exchange = [&] {
    for (Change& change : changes) std::swap(change.collection->catalogued, change.catalogued);
  };
  replacements_.reserve(replacements_.size() + replacements.size());
  exchange();
  const Status published =
      within_memory([&]() NO_THREAD_SAFETY_ANALYSIS { return publish(replay_after); });
  if (!published.ok()) {
    exchange();
    return published;
  }
  // The root names the new segments: from here on there is no way back.
  std::move(replacements.begin(), replacements.end(), std::back_inserter(replacements_));
  return finish_replacements();
}

Status Maintenance::finish_replacements() {
  while (!replacements_.empty()) {
    const Replacement& next = replacements_.front();
    const Status replaced =
        within_memory([&] { return next.collection->replace(next.removed, next.added); });
    if (replaced.code() == Code::kResourceExhausted) return replaced;
    // The collection's memory no longer agrees with the root.
    if (!replaced.ok()) next.collection->quarantine(replaced.message());
    replacements_.erase(replacements_.begin());
  }
  return {};
}

Status Maintenance::seal(Sealed& job) {
  const StoredCollection& collection = *job.collection;
  const std::vector<SegmentId>& live = collection.catalogued.segments;
  for (const FrozenRows::Part& part : job.frozen.parts) {
    // A kill in a segment that is gone, or not sealed yet (its dead rows are simply left out), is
    // done with.
    std::vector<Kill> kills;
    for (const Kill& kill : part.kills) {
      if (std::find(live.begin(), live.end(), kill.segment) != live.end()) kills.push_back(kill);
    }
    ASSIGN_OR_RETURN(const std::vector<SealRow> rows,
                     rows_in_id_order(std::span(&part.view, 1), collection.options().id_type));
    if (rows.empty() && kills.empty()) {
      job.segments.push_back(nullptr);
      continue;
    }
    ASSIGN_OR_RETURN(
        const std::unique_ptr<SegmentWriter> writer,
        context_->storage->new_segment(context_->new_segment_id(),
                                       live_share(part.view, part.view.segment->memory_bytes())));
    ASSIGN_OR_RETURN(std::shared_ptr<SegmentFile> file,
                     write_sealed_segment(*writer, rows, kills, collection.options().dimension,
                                          collection.options().id_type));
    ASSIGN_OR_RETURN(std::shared_ptr<const SealedSegment> segment,
                     SealedSegment::open(std::move(file), collection.options().dimension,
                                         collection.options().id_type));
    add_codes(collection, *segment);
    job.segments.push_back(std::move(segment));
  }
  return {};
}

void Maintenance::add_codes(const StoredCollection& collection, const SealedSegment& segment) {
  // They live on the heap, outside any budget. A load that nobody searches does without.
  if (context_->budget.limit() != 0 || collection.bare_reads() == 0) return;
  if (segment.rows_count() < kCodedRowsMin) return;
  for (const Metric metric : collection.wanted_metrics()) {
    // What cannot be read now is found by whoever reads it next.
    as_memory_allows([&] { (void)add_row_codes(collection, segment, metric); });
  }
}

Status Maintenance::publish(Lsn replay_after) {
  Catalog catalog;
  catalog.next_segment = context_->next_segment.load(std::memory_order_relaxed);
  std::vector<SegmentId> live;
  for (const auto& collection : collections_()) {
    // Records up to the cut are not replayed, so their outcome decides here; it is known, commit
    // answers at once. Later ones are replayed, if they happened.
    const std::optional<Ticket> drop = collection->drop_ticket();
    if (drop && drop->lsn <= replay_after && context_->storage->commit(*drop).ok()) continue;
    if (!collection->visible && (collection->uid() > replay_after ||
                                 !context_->storage->commit(collection->create_ticket()).ok())) {
      continue;
    }
    const StoredCollection::Catalogued& catalogued = collection->catalogued;
    catalog.collections.push_back({collection->uid(), collection->name(), collection->options(),
                                   catalogued.applied, catalogued.segments, catalogued.indexes});
    live.insert(live.end(), catalogued.segments.begin(), catalogued.segments.end());
    for (const CataloguedIndex& index : catalogued.indexes) live.push_back(index.file);
  }
  // What the catalog tells (a collection created a moment ago) must not outlive the log's own word.
  RETURN_IF_ERROR(context_->storage->sync());
  RETURN_IF_ERROR(context_->storage->publish(encode_catalog(catalog), live, replay_after));
  replay_after_ = replay_after;
  return {};
}

Status Maintenance::compact_due() {
  for (const auto& collection : collections_()) {
    if (!collection->quarantine_reason().empty()) continue;
    std::vector<SegmentView> plain = free_segments_locked(*collection);
    std::erase_if(plain, [](const SegmentView& view) { return has_vector_index(*view.segment); });
    const std::vector<SegmentView> inputs =
        choose_merge(std::move(plain), context_->options.compact_after,
                     mergeable_rows_max(context_->budget.limit(), collection->options().dimension));
    if (inputs.empty()) continue;
    const Result<Merge> merge = write_within_budget(*collection, inputs);
    if (merge && merge->merged != nullptr) add_codes(*collection, *merge->merged);
    const Status done =
        !merge ? merge.error() : on_reserve(*context_->storage, [&]() NO_THREAD_SAFETY_ANALYSIS {
          return publish_merged(*collection, *merge, {});  // called before it returns
        });
    context_->segments_changed();
    // Its turn comes again; others may need less.
    if (done.code() == Code::kResourceExhausted || done.code() == Code::kStorageFull) continue;
    if (done.code() == Code::kCorruption || done.code() == Code::kInternal) {
      collection->quarantine(done.message());  // the others still want their turn
    } else if (!done.ok()) {
      return done;
    }
  }
  return {};
}

// ---- merging ------------------------------------------------------------------------------------

std::vector<SegmentView> Maintenance::free_segments_locked(const StoredCollection& collection) {
  std::vector<SegmentView> out = collection.sealed_segments();
  std::erase_if(out, [&](const SegmentView& view)
                         REQUIRES(job_mutex_) { return claimed_.contains(view.segment->id()); });
  return out;
}

std::vector<SegmentView> Maintenance::free_segments(const StoredCollection& collection) {
  MutexLock lock(job_mutex_);
  return free_segments_locked(collection);
}

std::optional<Maintenance::Claim> Maintenance::claim(const StoredCollection& collection,
                                                     const std::vector<SegmentView>& segments) {
  MutexLock lock(job_mutex_);
  const std::vector<SegmentView> free = free_segments_locked(collection);
  std::vector<SegmentId> ids;
  for (const SegmentView& wanted : segments) {
    const SegmentId id = wanted.segment->id();
    const bool there = std::any_of(free.begin(), free.end(), [&](const SegmentView& view) {
      return view.segment->id() == id;
    });
    if (!there) return std::nullopt;
    ids.push_back(id);
  }
  claimed_.insert(ids.begin(), ids.end());
  return Claim(this, std::move(ids));
}

void Maintenance::release(const std::vector<SegmentId>& ids) {
  MutexLock lock(job_mutex_);
  for (const SegmentId id : ids) claimed_.erase(id);
}

Result<Maintenance::Merge> Maintenance::write_merged(StoredCollection& collection,
                                                     std::vector<SegmentView> inputs) {
  const MonotonicTime start = context_->clock->now();
  // Rows that `inputs` show as dead are dropped for good, so their deaths must be durable.
  RETURN_IF_ERROR(context_->storage->sync());
  std::vector<SegmentId> others = collection.catalogued.segments;
  std::erase_if(others, [&](SegmentId id) { return is_input(inputs, id); });
  std::vector<Kill> kills;
  for (const SegmentView& view : inputs) {
    const auto& sealed = dynamic_cast<const SealedSegment&>(*view.segment);
    ASSIGN_OR_RETURN(const std::vector<Kill> all, sealed.kills());
    for (const Kill& kill : all) {
      if (std::find(others.begin(), others.end(), kill.segment) != others.end()) {
        kills.push_back(kill);
      }
    }
  }
  const CollectionOptions& options = collection.options();
  ASSIGN_OR_RETURN(const std::vector<SealRow> rows, rows_in_id_order(inputs, options.id_type));
  Merge out{std::move(inputs), nullptr};
  if (!rows.empty() || !kills.empty()) {
    ASSIGN_OR_RETURN(
        const std::unique_ptr<SegmentWriter> writer,
        context_->storage->new_segment(context_->new_segment_id(), merged_bytes(out.inputs)));
    ASSIGN_OR_RETURN(
        std::shared_ptr<SegmentFile> file,
        write_sealed_segment(*writer, rows, kills, options.dimension, options.id_type));
    ASSIGN_OR_RETURN(out.merged,
                     SealedSegment::open(std::move(file), options.dimension, options.id_type));
    context_->metrics.compaction_bytes.add(out.merged->disk_bytes());
  }
  const auto unreadable = [](const SegmentView& view) { return view.segment->failed(); };
  if (std::any_of(out.inputs.begin(), out.inputs.end(), unreadable)) {
    return corruption("a segment to merge cannot be read");
  }
  context_->metrics.compaction_time.observe_us(elapsed_us(start, context_->clock->now()));
  return out;
}

Result<Maintenance::Merge> Maintenance::write_within_budget(StoredCollection& collection,
                                                            std::vector<SegmentView> inputs) {
  uint64_t rows = 0;
  for (const SegmentView& view : inputs) rows += view.rows;
  const uint64_t bytes = context_->budget.limit() == 0 ? 0 : merge_bytes(rows);
  if (!context_->budget.try_reserve(bytes)) {
    context_->metrics.index_build_memory_waits.add();
    return resource_exhausted("merging segments of " + collection.name() +
                              " waits for memory: needs " + std::to_string(bytes) + " bytes, " +
                              std::to_string(context_->budget.used()) + " are held");
  }
  Reservation held(&context_->budget);
  held.adopt(bytes);
  const auto work = [&]() NO_THREAD_SAFETY_ANALYSIS {  // called before it returns
    return write_merged(collection, inputs);
  };
  const bool fits_in_reserve = merged_bytes(inputs) <= context_->options.disk_reserve_bytes;
  Result<Merge> merge = fits_in_reserve ? on_reserve(*context_->storage, work) : work();
  if (!merge && merge.error().code() == Code::kStorageFull) {
    context_->logger.warning("engine: no space to merge segments of " + collection.name() + ": " +
                             merge.error().message());
  }
  return merge;
}

Result<Maintenance::Merge> Maintenance::begin_merge(StoredCollection& collection,
                                                    const std::vector<SegmentView>& segments) {
  MutexLock lock(job_mutex_);
  RETURN_IF_ERROR(finish_replacements());
  // As they are now: more rows may have died since they were chosen.
  std::vector<SegmentView> inputs = collection.sealed_segments();
  std::erase_if(inputs,
                [&](const SegmentView& view) { return !is_input(segments, view.segment->id()); });
  if (inputs.size() != segments.size()) {
    return internal_error("a segment that was set aside is gone");
  }
  Result<Merge> merge = write_within_budget(collection, std::move(inputs));
  if (!merge) {
    if (merge.error().code() == Code::kCorruption) collection.quarantine(merge.error().message());
    return merge;
  }
  if (context_->storage->admit_growth().ok()) return merge;
  const Status published = on_reserve(*context_->storage, [&]() NO_THREAD_SAFETY_ANALYSIS {
    return publish_now(collection, *merge, {});  // called before it returns
  });
  RETURN_IF_ERROR(published);
  merge->published = true;
  return merge;
}

Status Maintenance::finish_merge(StoredCollection& collection, const Merge& merge,
                                 const std::vector<CataloguedIndex>& indexes) {
  MutexLock lock(job_mutex_);
  RETURN_IF_ERROR(finish_replacements());
  return publish_now(collection, merge, indexes);
}

Status Maintenance::publish_now(StoredCollection& collection, const Merge& merge,
                                const std::vector<CataloguedIndex>& indexes) {
  const Status done = publish_merged(collection, merge, indexes);
  if (done.code() == Code::kCorruption || done.code() == Code::kInternal) {
    collection.quarantine(done.message());
  }
  context_->segments_changed();
  return done;
}

Result<std::shared_ptr<const SealedSegment>> Maintenance::write_later_kills(
    const StoredCollection& collection, const Merge& merge) {
  std::vector<Kill> kills;
  if (merge.merged == nullptr) return std::shared_ptr<const SealedSegment>();
  const IdType id_type = collection.options().id_type;
  for (const SegmentView& view : collection.sealed_segments()) {
    if (is_input(merge.inputs, view.segment->id())) continue;
    ASSIGN_OR_RETURN(const std::vector<Kill> all,
                     dynamic_cast<const SealedSegment&>(*view.segment).kills());
    for (const Kill& kill : all) {
      const SegmentView* input = find_segment(merge.inputs, kill.segment);
      if (input == nullptr || input->dead->contains(kill.row)) continue;
      ASSIGN_OR_RETURN(const RowId row,
                       moved_row(*input->segment, kill.row, *merge.merged, id_type));
      kills.push_back({merge.merged->id(), row});
    }
  }
  if (kills.empty()) return std::shared_ptr<const SealedSegment>();
  ASSIGN_OR_RETURN(const std::unique_ptr<SegmentWriter> writer,
                   context_->storage->new_segment(context_->new_segment_id()));
  const uint32_t dimension = collection.options().dimension;
  ASSIGN_OR_RETURN(std::shared_ptr<SegmentFile> file,
                   write_sealed_segment(*writer, {}, kills, dimension, id_type));
  return SealedSegment::open(std::move(file), dimension, id_type);
}

Status Maintenance::publish_merged(StoredCollection& collection, const Merge& merge,
                                   const std::vector<CataloguedIndex>& indexes) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const SealedSegment> later,
                   write_later_kills(collection, merge));
  StoredCollection::Catalogued catalogued = collection.catalogued;
  std::erase_if(catalogued.segments, [&](SegmentId id) { return is_input(merge.inputs, id); });
  std::erase_if(catalogued.indexes, [&](const CataloguedIndex& index) {
    return is_input(merge.inputs, index.segment);
  });
  std::vector<std::shared_ptr<const SealedSegment>> added;
  for (const auto& segment : {merge.merged, later}) {
    if (segment == nullptr) continue;
    catalogued.segments.push_back(segment->id());
    added.push_back(segment);
  }
  catalogued.indexes.insert(catalogued.indexes.end(), indexes.begin(), indexes.end());
  const std::shared_ptr<StoredCollection> owner = shared(collection);
  if (owner == nullptr) return not_found("collection was deleted");
  std::vector<Change> changes;
  changes.push_back({owner, std::move(catalogued)});
  std::vector<Replacement> replacements;
  replacements.push_back({owner, merge.inputs, std::move(added)});
  RETURN_IF_ERROR(publish_changes(std::move(changes), std::move(replacements), replay_after_));
  context_->metrics.compactions.add();
  return {};
}

std::shared_ptr<StoredCollection> Maintenance::shared(const StoredCollection& collection) const {
  for (const auto& entry : collections_()) {
    if (entry.get() == &collection) return entry;
  }
  return nullptr;
}

// ---- indexes ------------------------------------------------------------------------------------

Result<bool> Maintenance::adopt_index(StoredCollection& collection, const CataloguedIndex& index) {
  MutexLock lock(job_mutex_);
  const std::vector<SegmentId>& segments = collection.catalogued.segments;
  if (std::find(segments.begin(), segments.end(), index.segment) == segments.end()) return false;
  collection.catalogued.indexes.push_back(index);
  const Status published =
      within_memory([&]() NO_THREAD_SAFETY_ANALYSIS { return publish(replay_after_); });
  if (!published.ok()) {
    collection.catalogued.indexes.pop_back();
    return published;
  }
  return true;
}

Status Maintenance::drop_index(StoredCollection& collection, SegmentId file) {
  MutexLock lock(job_mutex_);
  std::erase_if(collection.catalogued.indexes,
                [&](const CataloguedIndex& index) { return index.file == file; });
  return publish(replay_after_);
}

Result<std::shared_ptr<const BackupSource>> Maintenance::cut() {
  MutexLock lock(job_mutex_);
  return context_->storage->cut();
}

std::vector<CataloguedIndex> Maintenance::indexes_of(const StoredCollection& collection) {
  MutexLock lock(job_mutex_);
  return collection.catalogued.indexes;
}

}  // namespace aionbd
