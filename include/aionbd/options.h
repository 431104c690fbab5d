// What an embedder chooses: behaviour first, performance second.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "aionbd/types.h"

namespace aionbd {

/// Severity of a log line handed to `DatabaseOptions::log`.
enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

/// Receives one finished line, without a newline: "component: message key=value ...".
/// Called from any thread; must not call back into the database.
using LogSink = std::function<void(LogLevel, std::string_view line)>;

/// How durable an acknowledged write is.
struct Durability {
  /// Every write is on the medium (fdatasync) before it is acknowledged or visible.
  bool sync_on_write = true;
  /// With sync_on_write off: sync after this many records. 0 = never by count.
  uint64_t sync_every_n_writes = 0;
  /// With sync_on_write off: sync at least this often while there is something to sync. 0 = never.
  std::chrono::seconds sync_interval{0};
};

struct DatabaseOptions {
  // ---- Behaviour ----
  /// Directory of the data; made if missing. One process at a time. Ignored when not persistent.
  std::string data_dir = "data";
  /// False: nothing touches the disk, everything is gone at close.
  bool persistent = true;
  Durability durability;
  /// Largest dimension a collection may have; 1..kDimensionCeiling.
  uint32_t dimension_max = 4096;
  uint64_t points_per_collection_max = 1000000;
  /// Bytes the engine may hold in memory: for data not yet sealed, for work in progress (index
  /// builds, which are made small enough or wait) and for sealed data read in place; sealed data
  /// beyond that is read from its files when needed. 0 = unlimited: all is read in place. A write
  /// that would pass it is refused with resource_exhausted, and has room made for its repetition.
  uint64_t memory_budget_bytes = 0;
  /// Disk space set aside, so that deletes, checkpoints and compaction go on when the disk is full
  /// (upserts are refused with storage_full until there is space again). A checkpoint is due when
  /// the log has half as many bytes, so that it fits. 0 = none.
  uint64_t disk_reserve_bytes = uint64_t{64} << 20;

  // ---- Performance ----
  /// Records that may share one sync. More raises throughput of concurrent small writes.
  uint32_t group_commit_batch_max = 16;
  /// How long the leader of a group waits for company. 0 = not at all.
  std::chrono::milliseconds group_commit_delay{0};
  /// Records between checkpoints: each bounds the log to replay at start and seals a segment.
  uint32_t checkpoint_interval = 32;
  /// False: the write that completes an interval runs the checkpoint before it returns.
  bool async_checkpoints = false;
  /// Segments of one collection that make compaction start.
  uint32_t compact_after = 64;
  /// Lists that mode ivf visits when neither a target nor a number is asked for; >= 1.
  uint32_t ivf_nprobe_default = 8;
  /// Pause between two index builds in the background.
  std::chrono::milliseconds index_build_cooldown{1000};
  /// Index builds at one time, at most one per core (but two on one core). With a memory budget: 1.
  uint32_t index_builds_max = 2;
  /// Open stored indexes and build missing ones from the start, not at the first search that wants
  /// them.
  bool index_warmup_on_boot = true;
  /// Ask some real queries again exactly in idle time, at 1 % of a core, and correct the estimate
  /// of recall where it proves wrong.
  bool recall_audit = true;
  /// Threads one large search may use, the caller's included. 0 = one per core.
  uint32_t search_threads = 0;

  /// Where log lines go. Empty: nowhere; the library never prints.
  LogSink log;
};

/// Fixed for the life of a collection.
struct CollectionOptions {
  uint32_t dimension = 0;
  /// Refuse values that are not finite f32 numbers.
  bool strict_finite = true;
  IdType id_type = IdType::kU64;
  /// Default metric of searches, and the one indexes are built for. Unset: dot, and whatever is
  /// asked.
  std::optional<Metric> metric;
};

}  // namespace aionbd
