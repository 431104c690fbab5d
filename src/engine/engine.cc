#include "engine/engine.h"

#include <algorithm>
#include <optional>
#include <thread>

#include "aionbd/distance.h"
#include "base/memory_guard.h"
#include "distance/metric.h"
#include "engine/answer_account.h"
#include "engine/auditor.h"
#include "engine/catalog.h"
#include "engine/context.h"
#include "engine/index_keeper.h"
#include "engine/maintenance.h"
#include "engine/on_reserve.h"
#include "engine/pinning.h"
#include "engine/store_backup.h"
#include "engine/stored_collection.h"

namespace aionbd {

namespace {

Status check_options(const DatabaseOptions& options) {
  if (options.dimension_max < 1 || options.dimension_max > kDimensionCeiling) {
    return invalid_argument("dimension_max must be between 1 and " +
                            std::to_string(kDimensionCeiling) + ": got " +
                            std::to_string(options.dimension_max));
  }
  if (options.group_commit_batch_max < 1) {
    return invalid_argument("group_commit_batch_max must be at least 1: got 0");
  }
  if (options.checkpoint_interval < 1) {
    return invalid_argument("checkpoint_interval must be at least 1: got 0");
  }
  if (options.points_per_collection_max > kSegmentRowsMax) {
    return invalid_argument("points_per_collection_max must be at most " +
                            std::to_string(kSegmentRowsMax) + ": got " +
                            std::to_string(options.points_per_collection_max));
  }
  return {};
}

/// Thread safety: safe.
class Engine final : public Database {
 public:
  Engine(std::shared_ptr<EngineContext> context, ProcessMemory& memory)
      : context_(std::move(context)),
        pinning_(std::make_unique<Pinning>(
            *context_, [this] { return all(); }, memory)) {}
  ~Engine() override;

  /// Recovery: catalog, segments, log. Called once, before anything else.
  Status recover();

  Result<std::shared_ptr<Collection>> create_collection(std::string_view name,
                                                        const CollectionOptions& options,
                                                        Deadline deadline) override;
  Status drop_collection(std::string_view name, Deadline deadline) override;
  Result<std::shared_ptr<Collection>> collection(std::string_view name) const override;
  std::vector<CollectionInfo> list_collections() const override;
  Status checkpoint() override;
  Result<BackupReport> backup(const std::string& to, const BackupOptions& options,
                              const StoreProgress& progress) override;
  Result<AnswerMemory> hold_memory(uint64_t bytes) override;
  Health health() const override;
  std::vector<MetricSample> metrics() const override;

 private:
  using Collections = std::vector<std::shared_ptr<StoredCollection>>;

  /// Sums over the collections.
  struct Totals {
    double collections = 0, points = 0, quarantined = 0;
    double segments = 0, segment_bytes = 0, indexes = 0;
    double audits = 0, promised = 0, measured = 0;  // recent audits, and their recalls
  };

  Totals totals() const;
  Status replay(Lsn lsn, Bytes record) REQUIRES(mutex_);
  /// All entries: visible, being created, being dropped.
  Collections all() const;
  std::shared_ptr<StoredCollection> find(CollectionUid uid) const REQUIRES(mutex_);
  /// The one entry of that name: visible, being created or being dropped.
  std::shared_ptr<StoredCollection> find_name(std::string_view name) const REQUIRES(mutex_);
  void forget(const StoredCollection& collection);
  Result<std::shared_ptr<Collection>> create_entered(std::string_view name,
                                                     const CollectionOptions& options,
                                                     Deadline deadline);
  Status drop_once(std::string_view name, Deadline deadline);
  Status ready_to_write(Deadline deadline) const;
  Result<Ticket> log(std::string record, RecordEffect effect);
  void count_write();
  Result<BackupReport> copy_cut(const std::string& to, const BackupOptions& options,
                                const StoreProgress& progress);

  const std::shared_ptr<EngineContext> context_;
  const std::unique_ptr<Pinning> pinning_;
  std::unique_ptr<Maintenance> maintenance_;  // constant after recover
  std::unique_ptr<IndexKeeper> keeper_;       // constant after recover
  std::unique_ptr<Auditor> auditor_;          // constant after recover

  /// The name map. Lock order: this, a collection's write lock, storage's log lock.
  mutable Mutex mutex_;
  Collections collections_ GUARDED_BY(mutex_);

  std::atomic<bool> backing_up_{false};
  std::atomic<bool> closing_{false};  // a backup in progress gives up
};

Engine::~Engine() {
  closing_.store(true);
  // First, so that a build in progress is given up and an optimize call can return.
  if (auditor_ != nullptr) auditor_->stop();
  if (keeper_ != nullptr) keeper_->stop();
  context_->close();
  if (maintenance_ != nullptr) maintenance_->stop();
  maintenance_.reset();  // its last job may still wake the keeper
  keeper_.reset();
  auditor_.reset();
  // Handles may outlive us; the storage, and with it the directory lock, does not.
  context_->pool.reset();
  context_->storage.reset();
}

Engine::Collections Engine::all() const {
  MutexLock lock(mutex_);
  return collections_;
}

std::shared_ptr<StoredCollection> Engine::find(CollectionUid uid) const {
  for (const auto& collection : collections_) {
    if (collection->uid() == uid) return collection;
  }
  return nullptr;
}

std::shared_ptr<StoredCollection> Engine::find_name(std::string_view name) const {
  for (const auto& collection : collections_) {
    if (collection->name() == name) return collection;
  }
  return nullptr;
}

void Engine::forget(const StoredCollection& collection) {
  MutexLock lock(mutex_);
  std::erase_if(collections_, [&](const auto& entry) { return entry.get() == &collection; });
}

// ---- recovery -----------------------------------------------------------------------------------

Status Engine::recover() {
  MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(const Catalog catalog, decode_catalog(context_->storage->catalog()));
  const Lsn last = context_->storage->last_lsn();
  for (const CatalogEntry& entry : catalog.collections) {
    if (entry.uid > last || entry.applied > last) {
      return corruption("manifest is ahead of the log: it names record " +
                        std::to_string(std::max(entry.uid, entry.applied)) + ", the log ends at " +
                        std::to_string(last));
    }
  }
  context_->next_segment = catalog.next_segment;
  Lsn replayed = 0;
  for (const CatalogEntry& entry : catalog.collections) {
    auto collection =
        std::make_shared<StoredCollection>(context_, entry.uid, entry.name, entry.options);
    const Status loaded = collection->load(entry.segments, entry.applied);
    collection->catalogued.indexes = entry.indexes;
    if (loaded.code() == Code::kNotFound) {
      return corruption("manifest contradicts its catalog: " + loaded.message());
    }
    if (!loaded.ok()) {
      // One damaged collection does not stop the others; its files stay for repair.
      if (loaded.code() != Code::kCorruption) return loaded;
      collection->catalogued = {entry.segments, entry.applied, entry.indexes};
      collection->quarantine(loaded.message());
    }
    collections_.push_back(std::move(collection));
  }
  RETURN_IF_ERROR(context_->storage->replay([&](Lsn lsn, Bytes record) NO_THREAD_SAFETY_ANALYSIS {
    ++replayed;
    return replay(lsn, record);
  }));
  std::erase_if(collections_,
                [](const auto& collection) { return collection->drop_ticket().has_value(); });
  for (const auto& collection : collections_) collection->finish_recovery();
  // Records replayed count as writes not yet checkpointed, so that restarts in a loop cannot make
  // the log grow without bound.
  context_->writes_since_checkpoint = replayed;
  maintenance_ = std::make_unique<Maintenance>(
      context_, [this] { return all(); }, context_->storage->replay_after());
  // Notices: what is done for them is done again soon, and they come when a write is done already.
  context_->after_write = [this] { as_memory_allows([this] { maintenance_->after_write(); }); };
  context_->wait_for_job = [this] {
    maintenance_->wait_for_job();
    MutexLock written(context_->index_file_mutex);
  };
  keeper_ = std::make_unique<IndexKeeper>(
      context_, [this] { return all(); }, *maintenance_, *pinning_);
  context_->index_wanted = [this] { keeper_->wake(); };
  context_->sealing_asked = [this] { maintenance_->seal_soon(); };
  context_->coding_asked = [this] { maintenance_->code_soon(); };
  context_->segments_changed = [this] {
    as_memory_allows([this] { pinning_->segments_changed(); });
  };
  context_->look_at_memory = [this] { as_memory_allows([this] { pinning_->look(); }); };
  auditor_ = std::make_unique<Auditor>(context_, [this] { return all(); });
  context_->audit_wanted = [this] { auditor_->wake(); };
  if (context_->options.recall_audit) auditor_->start();
  context_->optimize = [this](StoredCollection& collection) {
    return keeper_->optimize(collection);
  };
  return {};
}

Status Engine::replay(Lsn lsn, Bytes record) {
  ASSIGN_OR_RETURN(const Op op, decode_op(record));
  Status done;
  if (const auto* create = std::get_if<CreateOp>(&op)) {
    if (find(lsn) == nullptr) {
      collections_.push_back(
          std::make_shared<StoredCollection>(context_, lsn, create->name, create->options));
    }
  } else if (const auto* drop = std::get_if<DropOp>(&op)) {
    // Already gone: a checkpoint between the drop and the cut left it out.
    if (const auto collection = find(drop->collection)) {
      collection->set_drop_ticket(Ticket{lsn, context_->storage->generation()});
    }
  } else if (const auto* upsert = std::get_if<UpsertOp>(&op)) {
    if (const auto collection = find(upsert->collection)) done = collection->replay(lsn, *upsert);
  } else if (const auto* remove = std::get_if<RemoveOp>(&op)) {
    if (const auto collection = find(remove->collection)) done = collection->replay(lsn, *remove);
  }
  // The collection has put itself into quarantine; the others go on.
  return done.code() == Code::kCorruption ? Status() : done;
}

// ---- collections --------------------------------------------------------------------------------

Result<std::shared_ptr<Collection>> Engine::create_collection(std::string_view name,
                                                              const CollectionOptions& options,
                                                              Deadline deadline) {
  return entered(*context_, [&] { return create_entered(name, options, deadline); });
}

Result<std::shared_ptr<Collection>> Engine::create_entered(std::string_view name,
                                                           const CollectionOptions& options,
                                                           Deadline deadline) {
  RETURN_IF_ERROR(check_collection_name(name));
  RETURN_IF_ERROR(check_collection_options(options, context_->options.dimension_max));
  RETURN_IF_ERROR(context_->storage->admit_growth());
  std::shared_ptr<StoredCollection> created;
  std::shared_ptr<StoredCollection> existing;
  Ticket ticket;
  {
    MutexLock lock(mutex_);
    RETURN_IF_ERROR(ready_to_write(deadline));
    existing = find_name(name);
    if (existing == nullptr) {
      // What needs memory comes before the record.
      created = std::make_shared<StoredCollection>(context_, CollectionUid{0}, std::string(name),
                                                   options);
      collections_.reserve(collections_.size() + 1);
      ASSIGN_OR_RETURN(ticket,
                       log(encode_create({std::string(name), options}), RecordEffect::kAdds));
      created->set_created(ticket);
      collections_.push_back(created);
    }
  }
  if (existing != nullptr) {
    // Not before its own creation is certain, and then to be seen, whatever keeps its creator.
    if (!existing->visible) {
      RETURN_IF_ERROR(context_->storage->commit(existing->create_ticket()));
      existing->visible.store(true, std::memory_order_release);
    }
    return already_exists("collection exists already: " + std::string(name));
  }
  const Status committed = context_->storage->commit(ticket);
  if (!committed.ok()) {
    forget(*created);
    return committed;
  }
  created->visible.store(true, std::memory_order_release);
  count_write();
  return std::shared_ptr<Collection>(std::move(created));
}

Status Engine::drop_collection(std::string_view name, Deadline deadline) {
  return entered(*context_, [&] {
    return on_reserve_after_jobs(*context_, [&] { return drop_once(name, deadline); });
  });
}

Status Engine::drop_once(std::string_view name, Deadline deadline) {
  std::shared_ptr<StoredCollection> dropped;
  std::optional<Ticket> already;
  Ticket ticket;
  {
    MutexLock lock(mutex_);
    RETURN_IF_ERROR(ready_to_write(deadline));
    dropped = find_name(name);
    if (dropped == nullptr || !dropped->visible) {
      return not_found("collection does not exist: " + std::string(name));
    }
    already = dropped->drop_ticket();
    if (!already) {
      ASSIGN_OR_RETURN(ticket, log(encode_drop(dropped->uid()), RecordEffect::kFrees));
      dropped->set_drop_ticket(ticket);
    }
  }
  if (already) {
    RETURN_IF_ERROR(context_->storage->commit(*already));
    dropped->mark_dropped();
    forget(*dropped);
    return not_found("collection does not exist: " + std::string(name));
  }
  const Status committed = context_->storage->commit(ticket);
  if (!committed.ok()) {
    dropped->set_drop_ticket(std::nullopt);
    return committed;
  }
  dropped->mark_dropped();
  forget(*dropped);
  context_->segments_changed();
  count_write();
  return {};
}

Status Engine::ready_to_write(Deadline deadline) const {
  RETURN_IF_ERROR(context_->storage->health());
  if (deadline != kNoDeadline && context_->clock->now() >= deadline) {
    return deadline_exceeded("request timed out before the write began");
  }
  return {};
}

Result<Ticket> Engine::log(std::string record, RecordEffect effect) {
  const uint64_t generation = context_->storage->generation();
  Result<Ticket> ticket = context_->storage->append(std::move(record), generation, effect);
  if (ticket || ticket.error().code() != Code::kFailedPrecondition) return ticket;
  return storage_full("the log was refused space a moment ago; repeat the request");
}

void Engine::count_write() {
  context_->metrics.writes.add();
  context_->writes_since_checkpoint.fetch_add(1, std::memory_order_relaxed);
  context_->after_write();
}

Result<std::shared_ptr<Collection>> Engine::collection(std::string_view name) const {
  return within_memory([&]() -> Result<std::shared_ptr<Collection>> {
    MutexLock lock(mutex_);
    const std::shared_ptr<StoredCollection> found = find_name(name);
    if (found == nullptr || !found->visible) {
      return not_found("collection does not exist: " + std::string(name));
    }
    return std::shared_ptr<Collection>(found);
  });
}

std::vector<CollectionInfo> Engine::list_collections() const {
  std::vector<CollectionInfo> out;
  for (const auto& collection : all()) {
    if (collection->visible) out.push_back(collection->info());
  }
  std::sort(out.begin(), out.end(),
            [](const CollectionInfo& a, const CollectionInfo& b) { return a.name < b.name; });
  return out;
}

Status Engine::checkpoint() {
  return entered(*context_, [&] { return maintenance_->checkpoint(); });
}

Result<AnswerMemory> Engine::hold_memory(uint64_t bytes) {
  return within_memory([&]() -> Result<AnswerMemory> {
    AnswerAccount account(context_);
    RETURN_IF_ERROR(account.add(bytes));
    return account.take();
  });
}

// ---- backup -------------------------------------------------------------------------------------

Result<BackupReport> Engine::backup(const std::string& to, const BackupOptions& options,
                                    const StoreProgress& progress) {
  const CallScope call(*context_);
  RETURN_IF_ERROR(call.status());
  if (!context_->storage->persistent()) {
    return failed_precondition("there is nothing to back up: nothing is kept on the disk");
  }
  if (backing_up_.exchange(true)) {
    return failed_precondition("a backup is being made already");
  }
  EngineMetrics& metrics = context_->metrics;
  metrics.backup_bytes.set(0);
  metrics.backup_bytes_done.set(0);
  metrics.backup_in_flight.set(1);
  Result<BackupReport> done = copy_cut(to, options, progress);
  metrics.backup_in_flight.set(0);
  (done.has_value() ? metrics.backup_success : metrics.backup_error).add();
  backing_up_.store(false);
  return done;
}

Result<BackupReport> Engine::copy_cut(const std::string& to, const BackupOptions& options,
                                      const StoreProgress& progress) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const BackupSource> source, maintenance_->cut());
  return copy_to_backup(context_->files, *source, to, options, [&](uint64_t bytes, uint64_t total) {
    context_->metrics.backup_bytes.set(static_cast<int64_t>(total));
    context_->metrics.backup_bytes_done.set(static_cast<int64_t>(bytes));
    return !closing_.load() && (!progress || progress(bytes, total));
  });
}

// ---- state --------------------------------------------------------------------------------------

Health Engine::health() const {
  Health out;
  const Status storage = context_->storage->health();
  if (!storage.ok()) {
    out.storage_available = false;
    out.reason = storage.message();
  }
  for (const auto& collection : all()) {
    if (!collection->quarantine_reason().empty()) out.quarantined.push_back(collection->name());
  }
  return out;
}

Engine::Totals Engine::totals() const {
  Totals out;
  for (const auto& collection : all()) {
    if (!collection->visible) continue;
    out.collections += 1;
    const RecallAudit audit = collection->samples().summary(context_->clock->now());
    out.audits += static_cast<double>(audit.samples);
    out.promised += audit.promised * static_cast<double>(audit.samples);
    out.measured += audit.measured * static_cast<double>(audit.samples);
    out.points += static_cast<double>(collection->points_count());
    if (!collection->quarantine_reason().empty()) out.quarantined += 1;
    for (const SegmentView& view : collection->sealed_segments()) {
      out.segments += 1;
      out.segment_bytes += static_cast<double>(view.segment->disk_bytes());
      for (const MetricInfo& metric : metric_table()) {
        out.indexes += view.segment->vector_index(metric.metric) != nullptr ? 1 : 0;
      }
    }
  }
  return out;
}

std::vector<MetricSample> Engine::metrics() const {
  using Rows = EngineMetricRows;
  const EngineMetrics& engine = context_->metrics;
  const StorageMetrics& storage = context_->storage->metrics();
  const Totals sums = totals();
  // Hits are read first: no more of them than lookups.
  const auto hits = static_cast<double>(engine.index_hits.value());
  const auto lookups = static_cast<double>(engine.index_lookups.value());
  return {
      sample_of(Rows::kCollections, sums.collections),
      sample_of(Rows::kPoints, sums.points),
      sample_of(Rows::kQuarantined, sums.quarantined),
      sample_of(Rows::kWriteLockEntries, sums.collections),
      sample_of(Rows::kMemoryUsed, static_cast<double>(context_->budget.used())),
      sample_of(Rows::kMemoryPinned, static_cast<double>(pinning_->pinned_bytes())),
      sample_of(Rows::kMemoryOnDemand, static_cast<double>(pinning_->on_demand_bytes())),
      sample_of(Rows::kWrites, engine.writes),
      sample_of(Rows::kCheckpointInFlight, engine.checkpoint_in_flight),
      sample_of(Rows::kCheckpointDegraded, engine.checkpoint_degraded),
      sample_of(Rows::kCheckpointSuccess, engine.checkpoint_success),
      sample_of(Rows::kCheckpointError, engine.checkpoint_error),
      sample_of(Rows::kCheckpointSkips, engine.checkpoint_schedule_skips),
      sample_of(Rows::kGroupCommits, storage.group_commits),
      sample_of(Rows::kGroupedRecords, storage.grouped_records),
      sample_of(Rows::kGroupQueueDepth, storage.group_queue_depth),
      sample_of(Rows::kWalSize, storage.wal_size_bytes),
      sample_of(Rows::kWalTailOpen, storage.wal_tail_open),
      sample_of(Rows::kWalDiscarded, storage.wal_discarded_bytes),
      sample_of(Rows::kReserve, static_cast<double>(context_->storage->reserve_held_bytes())),
      sample_of(Rows::kReserveUses, static_cast<double>(context_->storage->reserve_uses())),
      sample_of(Rows::kMapFailures, static_cast<double>(context_->storage->map_failures())),
      sample_of(Rows::kSegments, sums.segments),
      sample_of(Rows::kSegmentBytes, sums.segment_bytes),
      sample_of(Rows::kSearchQueries, engine.search_queries),
      sample_of(Rows::kSearchIvf, engine.search_ivf_queries),
      sample_of(Rows::kSearchIvfFallback, engine.search_ivf_fallback_exact),
      sample_of(Rows::kAppendTime, storage.wal_append),
      sample_of(Rows::kSyncTime, storage.wal_sync),
      sample_of(Rows::kApplyTime, engine.write_apply_time),
      sample_of(Rows::kCheckpointTime, engine.checkpoint_time),
      sample_of(Rows::kBackupSuccess, engine.backup_success),
      sample_of(Rows::kBackupError, engine.backup_error),
      sample_of(Rows::kBackupInFlight, engine.backup_in_flight),
      sample_of(Rows::kBackupBytes, engine.backup_bytes),
      sample_of(Rows::kBackupBytesDone, engine.backup_bytes_done),
      sample_of(Rows::kCompactionTime, engine.compaction_time),
      sample_of(Rows::kCompactions, engine.compactions),
      sample_of(Rows::kCompactionBytes, engine.compaction_bytes),
      sample_of(Rows::kSearchExactTime, engine.search_exact_time),
      sample_of(Rows::kSearchGraphTime, engine.search_graph_time),
      sample_of(Rows::kAudits, engine.search_audits),
      sample_of(Rows::kAuditSamples, sums.audits),
      sample_of(Rows::kAuditRecall, sums.audits > 0 ? sums.measured / sums.audits : 1),
      sample_of(Rows::kAuditPromised, sums.audits > 0 ? sums.promised / sums.audits : 1),
      sample_of(Rows::kAuditDrifts, engine.search_audit_drifts),
      sample_of(Rows::kIndexes, sums.indexes),
      sample_of(Rows::kIndexLookups, engine.index_lookups),
      sample_of(Rows::kIndexHits, engine.index_hits),
      sample_of(Rows::kIndexMisses, lookups - hits),
      sample_of(Rows::kIndexHitRatio, lookups > 0 ? hits / lookups : 0),
      sample_of(Rows::kIndexBuildRequests, engine.index_build_requests),
      sample_of(Rows::kIndexBuildSuccesses, engine.index_build_successes),
      sample_of(Rows::kIndexBuildFailures, engine.index_build_failures),
      sample_of(Rows::kIndexCooldownSkips, engine.index_build_cooldown_skips),
      sample_of(Rows::kIndexMemoryWaits, engine.index_build_memory_waits),
      sample_of(Rows::kIndexInFlight, engine.index_build_in_flight),
      sample_of(Rows::kIndexBuildTime, engine.index_build_time),
  };
}

}  // namespace

namespace {

Result<std::unique_ptr<Database>> open_engine(DatabaseOptions options,
                                              const EngineEnvironment& environment) {
  RETURN_IF_ERROR(check_options(options));
  size_t threads = options.search_threads;
  if (threads == 0) threads = std::max(1U, std::thread::hardware_concurrency());
  auto context = std::make_shared<EngineContext>(std::move(options), environment.clock);
  StorageOptions storage;
  storage.dir = context->options.data_dir;
  storage.persistent = context->options.persistent;
  storage.durability = context->options.durability;
  storage.reserve_bytes = context->options.disk_reserve_bytes;
  storage.group_commit_batch_max = context->options.group_commit_batch_max;
  storage.group_commit_delay = context->options.group_commit_delay;
  context->files = storage.files = environment.files;
  storage.clock = environment.clock;
  storage.logger = context->logger;
  ASSIGN_OR_RETURN(context->storage, Storage::open(std::move(storage)));
  context->pool = std::make_unique<ThreadPool>(threads - 1);
  auto engine = std::make_unique<Engine>(context, *environment.memory);
  RETURN_IF_ERROR(engine->recover());
  context->segments_changed();
  if (context->options.index_warmup_on_boot) context->index_wanted();
  return std::unique_ptr<Database>(std::move(engine));
}

}  // namespace

Result<std::unique_ptr<Database>> open_database(DatabaseOptions options,
                                                const EngineEnvironment& environment) {
  return within_memory([&] { return open_engine(std::move(options), environment); });
}

Result<std::unique_ptr<Database>> Database::open(DatabaseOptions options) {
  return open_database(std::move(options),
                       {&posix_file_system(), &system_clock_source(), &process_memory()});
}

std::vector<const MetricRow*> Database::metric_rows() {
  // The rows do not depend on a store, so an empty one in memory lists them.
  DatabaseOptions options;
  options.persistent = false;
  const auto database = open(std::move(options));
  std::vector<const MetricRow*> out;
  if (!database) return out;
  for (const MetricSample& sample : (*database)->metrics()) out.push_back(sample.row);
  return out;
}

std::string_view Database::simd_target() {
  return simd_target_name();
}

std::vector<std::string_view> Database::simd_targets() {
  return simd_target_names();
}

std::string_view version() {
  return "0.1.0";
}

Result<float> score_between(std::span<const float> left, std::span<const float> right,
                            Metric metric) {
  if (left.empty()) return invalid_argument("left must not be empty");
  if (left.size() != right.size()) {
    return invalid_argument("left and right must have the same length: got " +
                            std::to_string(left.size()) + " and " + std::to_string(right.size()));
  }
  ASSIGN_OR_RETURN(const PreparedQuery query, PreparedQuery::make(metric, left));
  const float norm = norm_squared(right.data(), right.size());
  if (metric == Metric::kCosine &&
      std::all_of(right.begin(), right.end(), [](float value) { return value == 0.0F; })) {
    return invalid_argument("right must not be a zero vector for the cosine metric");
  }
  float distance = 0;
  query.distances(right.data(), &norm, 1, &distance);
  return score_of(metric, distance);
}

}  // namespace aionbd
