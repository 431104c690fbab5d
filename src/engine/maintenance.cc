#include "engine/maintenance.h"

#include <algorithm>
#include <optional>
#include <string>

#include "base/check.h"
#include "engine/pinning.h"

namespace aionbd {

namespace {

/// Bounds what the log gathers between checkpoints, however long one took.
constexpr std::chrono::milliseconds kRestMax{100};

/// A segment with more dead rows than live ones is rewritten alone: at least one row is dropped for
/// each row copied, so disk stays below twice the live data.
bool mostly_dead(const SegmentView& view) {
  return view.rows > 0 && 2 * view.dead->count() > view.rows;
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
  if (context_->options.async_checkpoints) thread_ = std::thread([this] { run_in_background(); });
}

Maintenance::~Maintenance() {
  stop();
  if (thread_.joinable()) thread_.join();
}

void Maintenance::stop() {
  {
    MutexLock lock(wake_mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
}

void Maintenance::after_write() {
  if (context_->writes_since_checkpoint.load(std::memory_order_relaxed) <
      context_->options.checkpoint_interval) {
    return;
  }
  if (context_->clock->now() < rest_until_.load(std::memory_order_relaxed)) {
    context_->index_wanted();  // it seals what stays, should no other write come
    return;
  }
  if (context_->options.async_checkpoints) {
    if (busy_.load(std::memory_order_relaxed)) {
      context_->metrics.checkpoint_schedule_skips.add();
    }
    {
      MutexLock lock(wake_mutex_);
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

void Maintenance::run_in_background() {
  for (;;) {
    {
      MutexLock lock(wake_mutex_);
      while (!due_ && !stopping_) wake_.wait(wake_mutex_);
      if (stopping_) return;
      due_ = false;
    }
    busy_.store(true);
    run_due();
    busy_.store(false);
  }
}

void Maintenance::run_due() {
  const Status done = checkpoint();
  if (done.ok()) return;
  context_->logger.warning("engine: checkpoint failed, the log keeps its rows: " +
                           done.to_string());
}

Status Maintenance::checkpoint() {
  MutexLock lock(job_mutex_);
  EngineMetrics& metrics = context_->metrics;
  metrics.checkpoint_in_flight.set(1);
  const MonotonicTime start = context_->clock->now();
  Status done = checkpoint_locked();
  const MonotonicTime end = context_->clock->now();
  metrics.checkpoint_time.observe_us(elapsed_us(start, end));
  rest_until_.store(end + std::min<MonotonicTime::duration>(4 * (end - start), kRestMax),
                    std::memory_order_relaxed);
  if (done.ok()) {
    metrics.checkpoint_success.add();
    done = compact_due();
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
  context_->writes_since_checkpoint.store(0, std::memory_order_relaxed);
  // The log is cut before anything is frozen, so that whatever is frozen holds at least all records
  // before the cut; records after it that are frozen too are skipped at replay by `applied`.
  ASSIGN_OR_RETURN(Lsn cut, context_->storage->rotate_log());
  std::vector<Sealed> jobs;
  for (const auto& collection : collections_()) {
    ASSIGN_OR_RETURN(FrozenRows frozen, collection->freeze());
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
  std::vector<StoredCollection::Catalogued> before;
  for (Sealed& job : jobs) {
    StoredCollection::Catalogued& catalogued = job.collection->catalogued;
    before.push_back(catalogued);
    for (const auto& segment : job.segments) {
      if (segment != nullptr) catalogued.segments.push_back(segment->id());
    }
    catalogued.applied = std::max(catalogued.applied, job.frozen.last.lsn);
  }
  const Status published = publish(cut);
  if (!published.ok()) {
    for (size_t i = 0; i < jobs.size(); ++i) jobs[i].collection->catalogued = before[i];
    return published;
  }
  for (Sealed& job : jobs) {
    for (size_t i = 0; i < job.segments.size(); ++i) {
      const Status replaced = job.collection->replace({job.frozen.parts[i].view}, job.segments[i]);
      // The root names the new segment already: this collection's memory no longer agrees with it.
      if (!replaced.ok()) job.collection->quarantine(replaced.message());
    }
  }
  context_->segments_changed();
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
    ASSIGN_OR_RETURN(const std::unique_ptr<SegmentWriter> writer,
                     context_->storage->new_segment(context_->new_segment_id()));
    ASSIGN_OR_RETURN(std::shared_ptr<SegmentFile> file,
                     write_sealed_segment(*writer, rows, kills, collection.options().dimension,
                                          collection.options().id_type));
    ASSIGN_OR_RETURN(std::shared_ptr<const SealedSegment> segment,
                     SealedSegment::open(std::move(file), collection.options().dimension,
                                         collection.options().id_type));
    job.segments.push_back(std::move(segment));
  }
  return {};
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
    const std::vector<SegmentView> inputs =
        choose_merge(collection->sealed_segments(), context_->options.compact_after,
                     mergeable_rows_max(context_->budget.limit(), collection->options().dimension));
    if (inputs.empty()) continue;
    const Status merged = merge_within_budget(*collection, inputs);
    if (merged.code() == Code::kResourceExhausted) continue;  // its turn comes again
    if (merged.code() == Code::kCorruption || merged.code() == Code::kInternal) {
      collection->quarantine(merged.message());  // the others still want their turn
    } else if (!merged.ok()) {
      return merged;
    }
  }
  return {};
}

Status Maintenance::merge(StoredCollection& collection, const std::vector<SegmentView>& inputs) {
  const MonotonicTime start = context_->clock->now();
  // Rows that `inputs` show as dead are dropped for good, so their deaths must be durable.
  RETURN_IF_ERROR(context_->storage->sync());
  const auto is_input = [&](SegmentId id) {
    return std::any_of(inputs.begin(), inputs.end(),
                       [&](const SegmentView& view) { return view.segment->id() == id; });
  };
  StoredCollection::Catalogued catalogued = collection.catalogued;
  std::erase_if(catalogued.segments, is_input);
  std::erase_if(catalogued.indexes,
                [&](const CataloguedIndex& index) { return is_input(index.segment); });
  std::vector<Kill> kills;
  for (const SegmentView& view : inputs) {
    const auto& sealed = dynamic_cast<const SealedSegment&>(*view.segment);
    ASSIGN_OR_RETURN(const std::vector<Kill> all, sealed.kills());
    for (const Kill& kill : all) {
      if (std::find(catalogued.segments.begin(), catalogued.segments.end(), kill.segment) !=
          catalogued.segments.end()) {
        kills.push_back(kill);
      }
    }
  }
  const CollectionOptions& options = collection.options();
  ASSIGN_OR_RETURN(const std::vector<SealRow> rows, rows_in_id_order(inputs, options.id_type));
  std::shared_ptr<const SealedSegment> merged;
  if (!rows.empty() || !kills.empty()) {
    const SegmentId id = context_->new_segment_id();
    ASSIGN_OR_RETURN(const std::unique_ptr<SegmentWriter> writer,
                     context_->storage->new_segment(id));
    ASSIGN_OR_RETURN(
        std::shared_ptr<SegmentFile> file,
        write_sealed_segment(*writer, rows, kills, options.dimension, options.id_type));
    ASSIGN_OR_RETURN(merged,
                     SealedSegment::open(std::move(file), options.dimension, options.id_type));
    catalogued.segments.push_back(id);
    context_->metrics.compaction_bytes.add(merged->disk_bytes());
  }
  std::swap(collection.catalogued, catalogued);
  const Status published = publish(replay_after_);
  if (!published.ok()) {
    std::swap(collection.catalogued, catalogued);
    return published;
  }
  context_->metrics.compactions.add();
  context_->metrics.compaction_time.observe_us(elapsed_us(start, context_->clock->now()));
  return collection.replace(inputs, merged);
}

Status Maintenance::optimize(StoredCollection& collection) {
  RETURN_IF_ERROR(checkpoint());
  MutexLock lock(job_mutex_);
  const uint64_t rows_max =
      mergeable_rows_max(context_->budget.limit(), collection.options().dimension);
  for (const auto& inputs : groups_to_merge(collection.sealed_segments(), rows_max)) {
    RETURN_IF_ERROR(merge_within_budget(collection, inputs));
  }
  return {};
}

Status Maintenance::merge_within_budget(StoredCollection& collection,
                                        const std::vector<SegmentView>& inputs) {
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
  const Status merged = merge(collection, inputs);
  context_->segments_changed();
  return merged;
}

Status Maintenance::merge_segments(StoredCollection& collection,
                                   const std::vector<SegmentId>& segments) {
  MutexLock lock(job_mutex_);
  std::vector<SegmentView> inputs;
  for (SegmentView& view : collection.sealed_segments()) {
    if (std::find(segments.begin(), segments.end(), view.segment->id()) != segments.end()) {
      inputs.push_back(std::move(view));
    }
  }
  if (inputs.size() != segments.size()) return {};
  const Status merged = merge_within_budget(collection, inputs);
  if (merged.code() == Code::kCorruption || merged.code() == Code::kInternal) {
    collection.quarantine(merged.message());
  }
  return merged;
}

Result<bool> Maintenance::adopt_index(StoredCollection& collection, const CataloguedIndex& index) {
  MutexLock lock(job_mutex_);
  const std::vector<SegmentId>& segments = collection.catalogued.segments;
  if (std::find(segments.begin(), segments.end(), index.segment) == segments.end()) return false;
  collection.catalogued.indexes.push_back(index);
  const Status published = publish(replay_after_);
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

std::vector<CataloguedIndex> Maintenance::indexes_of(const StoredCollection& collection) {
  MutexLock lock(job_mutex_);
  return collection.catalogued.indexes;
}

}  // namespace aionbd
