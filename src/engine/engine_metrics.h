// The engine's metric rows and the counters behind them.
#pragma once

#include "base/metrics.h"

namespace aionbd {

/// Counted where things happen; read by `Database::metrics`. Thread safety: safe.
struct EngineMetrics {
  Counter writes;              // log records acknowledged
  Gauge checkpoint_in_flight;  // 0 or 1
  Counter checkpoint_success;
  Counter checkpoint_error;
  Counter checkpoint_degraded;        // checkpoints that fell back to a later one: storage was full
  Counter checkpoint_schedule_skips;  // due while one was running
  Counter backup_success;
  Counter backup_error;
  Gauge backup_in_flight;  // 0 or 1
  Gauge backup_bytes;      // to copy by the one that runs, or by the last one
  Gauge backup_bytes_done;
  Counter compactions;
  Counter compaction_bytes;
  Histogram compaction_time;
  Histogram checkpoint_time;
  Counter search_queries;
  Counter search_ivf_queries;
  Counter search_ivf_fallback_exact;
  Histogram search_exact_time;
  Histogram search_graph_time;
  Counter search_audits;
  Counter search_audit_drifts;
  Counter index_lookups;
  Counter index_hits;
  Counter index_build_requests;
  Counter index_build_successes;
  Counter index_build_failures;
  Counter index_build_cooldown_skips;
  Gauge index_build_in_flight;
  Counter index_build_memory_waits;
  Histogram index_build_time;
  Histogram write_apply_time;
};

/// Everything `Database::metrics` reports, in table order. The metric names are written here only.
struct EngineMetricRows {
  static constexpr MetricRow kCollections{"collections", MetricKind::kGauge, "1",
                                          "Collections that exist."};
  static constexpr MetricRow kPoints{"points", MetricKind::kGauge, "1",
                                     "Live points in all collections."};
  static constexpr MetricRow kQuarantined{"collections_quarantined", MetricKind::kGauge, "1",
                                          "Collections refused because their files are damaged."};
  static constexpr MetricRow kWriteLockEntries{"collection_write_lock_entries", MetricKind::kGauge,
                                               "1",
                                               "Write locks held in memory: one a collection."};
  static constexpr MetricRow kMemoryUsed{
      "memory_used_bytes", MetricKind::kGauge, "bytes",
      "Memory reserved: rows not sealed yet, pinned bytes of sealed ones, builds."};
  static constexpr MetricRow kMemoryPinned{
      "memory_pinned_bytes", MetricKind::kGauge, "bytes",
      "Of that: sealed data read in place within the budget; 0 without a limit."};
  static constexpr MetricRow kMemoryOnDemand{
      "memory_on_demand_bytes", MetricKind::kGauge, "bytes",
      "Sealed data beyond the budget, copied from its files when a search needs it."};
  static constexpr MetricRow kWrites{"persistence_writes", MetricKind::kCounter, "1",
                                     "Log records acknowledged since start."};
  static constexpr MetricRow kCheckpointInFlight{"persistence_checkpoint_in_flight",
                                                 MetricKind::kGauge, "1",
                                                 "Checkpoints running now: 0 or 1."};
  static constexpr MetricRow kCheckpointDegraded{
      "persistence_checkpoint_degraded_total", MetricKind::kCounter, "1",
      "Checkpoints given up for want of space; the log keeps what they would have sealed."};
  static constexpr MetricRow kCheckpointSuccess{
      "persistence_checkpoint_success_total", MetricKind::kCounter, "1", "Checkpoints completed."};
  static constexpr MetricRow kCheckpointError{
      "persistence_checkpoint_error_total", MetricKind::kCounter, "1", "Checkpoints that failed."};
  static constexpr MetricRow kCheckpointSkips{"persistence_checkpoint_schedule_skips_total",
                                              MetricKind::kCounter, "1",
                                              "Times a checkpoint was due while one was running."};
  static constexpr MetricRow kGroupCommits{"persistence_wal_group_commits_total",
                                           MetricKind::kCounter, "1",
                                           "Groups of records written to the log together."};
  static constexpr MetricRow kGroupedRecords{"persistence_wal_grouped_records_total",
                                             MetricKind::kCounter, "1", "Records in those groups."};
  static constexpr MetricRow kGroupQueueDepth{"persistence_wal_group_queue_depth",
                                              MetricKind::kGauge, "1",
                                              "Records waiting to be written to the log."};
  static constexpr MetricRow kWalSize{"persistence_wal_size_bytes", MetricKind::kGauge, "bytes",
                                      "Size of all live log files."};
  static constexpr MetricRow kWalTailOpen{"persistence_wal_tail_open", MetricKind::kGauge, "bool",
                                          "1 while the log accepts records."};
  static constexpr MetricRow kWalDiscarded{"persistence_wal_discarded_bytes", MetricKind::kCounter,
                                           "bytes", "Torn tail of the log cut at start."};
  static constexpr MetricRow kReserve{
      "persistence_reserve_bytes", MetricKind::kGauge, "bytes",
      "Disk space set aside for a full disk; 0 while it is given away or cannot be had."};
  static constexpr MetricRow kReserveUses{
      "persistence_reserve_uses_total", MetricKind::kCounter, "1",
      "Times it was given to deletes or maintenance because the disk was full."};
  static constexpr MetricRow kMapFailures{
      "storage_unreadable_files_total", MetricKind::kCounter, "1",
      "Segment and index files that could not be read where they are mapped, in this process."};
  static constexpr MetricRow kSegments{"persistence_incremental_segments", MetricKind::kGauge, "1",
                                       "Sealed segment files that are live."};
  static constexpr MetricRow kSegmentBytes{"persistence_incremental_size_bytes", MetricKind::kGauge,
                                           "bytes", "Size of the live segment files."};
  static constexpr MetricRow kSearchQueries{"search_queries_total", MetricKind::kCounter, "1",
                                            "Queries answered; each query of a batch counts."};
  static constexpr MetricRow kSearchIvf{"search_ivf_queries_total", MetricKind::kCounter, "1",
                                        "Queries answered by an IVF index."};
  static constexpr MetricRow kSearchIvfFallback{
      "search_ivf_fallback_exact_total", MetricKind::kCounter, "1",
      "Queries that asked for ivf and were answered exactly for want of a ready index."};
  static constexpr MetricRow kAppendTime{"wal_append_duration_seconds", MetricKind::kHistogram,
                                         "seconds", "Writing one group to the log."};
  static constexpr MetricRow kSyncTime{"wal_fsync_duration_seconds", MetricKind::kHistogram,
                                       "seconds", "Syncing one group of the log."};
  static constexpr MetricRow kApplyTime{
      "write_apply_duration_seconds", MetricKind::kHistogram, "seconds",
      "Resolving and applying one write under the collection's lock."};
  static constexpr MetricRow kCheckpointTime{"checkpoint_duration_seconds", MetricKind::kHistogram,
                                             "seconds", "One checkpoint."};
  static constexpr MetricRow kBackupSuccess{"backup_success_total", MetricKind::kCounter, "1",
                                            "Backups completed."};
  static constexpr MetricRow kBackupError{"backup_error_total", MetricKind::kCounter, "1",
                                          "Backups that failed or were stopped."};
  static constexpr MetricRow kBackupInFlight{"backup_in_flight", MetricKind::kGauge, "1",
                                             "Backups running now: 0 or 1."};
  static constexpr MetricRow kBackupBytes{
      "backup_bytes", MetricKind::kGauge, "bytes",
      "Bytes of the store in the backup that runs, or in the last one since start."};
  static constexpr MetricRow kBackupBytesDone{"backup_bytes_done", MetricKind::kGauge, "bytes",
                                              "Of those: copied, or found stored already."};
  static constexpr MetricRow kCompactionTime{"compaction_duration_seconds", MetricKind::kHistogram,
                                             "seconds", "One compaction."};
  static constexpr MetricRow kCompactions{"compactions_total", MetricKind::kCounter, "1",
                                          "Compactions completed."};
  static constexpr MetricRow kCompactionBytes{"compaction_bytes_total", MetricKind::kCounter,
                                              "bytes", "Bytes of segment files written by them."};
  static constexpr MetricRow kSearchExactTime{
      "search_exact_duration_seconds", MetricKind::kHistogram, "seconds",
      "One exact search call, single or batch, inside the engine."};
  static constexpr MetricRow kSearchGraphTime{
      "search_graph_duration_seconds", MetricKind::kHistogram, "seconds",
      "One search call answered by graphs, single or batch, inside the engine."};
  static constexpr MetricRow kAudits{
      "search_audits_total", MetricKind::kCounter, "1",
      "Real queries asked again exactly in idle time, to check what was promised of them."};
  static constexpr MetricRow kAuditSamples{"search_audit_samples", MetricKind::kGauge, "1",
                                           "Recent ones that the next two rows are means over."};
  static constexpr MetricRow kAuditRecall{
      "search_audit_recall", MetricKind::kGauge, "ratio",
      "Share of the true hits in their answers; 1 while there are none."};
  static constexpr MetricRow kAuditPromised{
      "search_audit_promised", MetricKind::kGauge, "ratio",
      "The recall that these answers claimed; 1 while there are none."};
  static constexpr MetricRow kAuditDrifts{
      "search_audit_drifts_total", MetricKind::kCounter, "1",
      "Times the truth fell below the promise and a curve was measured again."};
  // "l2_index" stands for vector index of any metric: the names are older than the others.
  static constexpr MetricRow kIndexes{"l2_indexes", MetricKind::kGauge, "1",
                                      "Vector indexes ready for use, one a segment and metric."};
  static constexpr MetricRow kIndexLookups{"l2_index_cache_lookups", MetricKind::kCounter, "1",
                                           "Queries that could have used an index."};
  static constexpr MetricRow kIndexHits{"l2_index_cache_hits", MetricKind::kCounter, "1",
                                        "Queries that did."};
  static constexpr MetricRow kIndexMisses{"l2_index_cache_misses", MetricKind::kCounter, "1",
                                          "Queries answered exactly instead."};
  static constexpr MetricRow kIndexHitRatio{"l2_index_cache_hit_ratio", MetricKind::kGauge, "ratio",
                                            "Hits per lookup."};
  static constexpr MetricRow kIndexBuildRequests{"l2_index_build_requests", MetricKind::kCounter,
                                                 "1", "Index builds begun."};
  static constexpr MetricRow kIndexBuildSuccesses{"l2_index_build_successes", MetricKind::kCounter,
                                                  "1", "Index builds that succeeded."};
  static constexpr MetricRow kIndexBuildFailures{"l2_index_build_failures", MetricKind::kCounter,
                                                 "1", "Index builds that failed."};
  static constexpr MetricRow kIndexCooldownSkips{"l2_index_build_cooldown_skips",
                                                 MetricKind::kCounter, "1",
                                                 "Builds put off until the pause had passed."};
  static constexpr MetricRow kIndexMemoryWaits{
      "l2_index_build_memory_waits", MetricKind::kCounter, "1",
      "Builds and merges put off because the memory budget had no room for them."};
  static constexpr MetricRow kIndexInFlight{"l2_index_build_in_flight", MetricKind::kGauge, "1",
                                            "Index builds running."};
  static constexpr MetricRow kIndexBuildTime{"index_build_duration_seconds", MetricKind::kHistogram,
                                             "seconds", "One index build."};
};

}  // namespace aionbd
